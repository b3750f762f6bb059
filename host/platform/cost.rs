//! What a plan's changes cost on the data that are here: rows that are read again, and state that is kept.
//!
//! An estimate, from what such state takes now. What nothing is known of stays unsaid.

use super::history::Pins;
use super::{Live, PlatformError, ProjectHost};
use crate::define::{Build, Cost, Feature, FeatureView, Project, Source, entity_table};
use crate::registry::Proposal;
use crate::rows::TableLayout;
use crate::stream::TableStatus;

/// What one feature of one entity takes where nothing is folded yet that could tell: its number, a tile, a value.
const CELL_BYTES: u64 = 64;

/// A table of the running stream, with how large it is.
type Sized<'a> = (&'a TableLayout, TableStatus);

impl ProjectHost {
    /// Fills in the figures of a plan, and what its flags come to. An error where its apply would be refused for them.
    pub(super) fn price(&self, proposal: &mut Proposal) -> Result<(), PlatformError> {
        let live = self.live().ok();
        let begins = live.as_ref().map(|live| self.say_begins(proposal, live)).transpose()?.unwrap_or_default();
        let sizes = self.status().stream.tables;
        let layout = live.as_ref().map(|live| &live.compiled.layout.tables);
        let tables: Vec<Sized<'_>> = layout.into_iter().flatten().zip(sizes).collect();
        let mut rows = begins.anew;
        let project = &proposal.project;
        for change in &mut proposal.plan.changes {
            let Some(view) = project.feature_views.get(&change.name).filter(|_| change.kind == "feature_view") else {
                continue;
            };
            if change.cost.build == Build::None {
                continue;
            }
            let table = entity_table(project, view);
            // What a revision has retired is folded on for a while.
            let folded = |feature: &Feature| {
                let of_table = tables.iter().filter(|(layout, _)| Some(layout.entity_table) == table);
                let mut features = of_table.flat_map(|(layout, _)| &layout.features);
                features.any(|other| other.fingerprint == feature.fingerprint)
            };
            let of_change =
                view.features.iter().filter(|feature| change.feature.as_ref().is_none_or(|name| *name == feature.name));
            let built: Vec<&Feature> = of_change.filter(|feature| !folded(feature)).collect();
            if built.is_empty() {
                change.cost = Cost::default();
                continue;
            }
            if built.iter().all(|feature| begins.empty.contains(&(view.name.clone(), feature.name.clone()))) {
                let nothing = Some(0);
                change.cost = Cost {
                    begins_empty: true,
                    history_rows: nothing,
                    entities: nothing,
                    state_bytes: nothing,
                    ..change.cost
                };
                continue;
            }
            let read = rows
                .entry(view.source.clone())
                .or_insert_with(|| self.rows_to_read(live.as_deref(), project, &view.source));
            change.cost.history_rows = Some(*read);
            let known = tables.iter().find(|(layout, _)| Some(layout.entity_table) == table);
            let alike = || tables.iter().find(|(layout, _)| has_keys_of(live.as_deref(), layout, project, view));
            // Without rows there are no entities, whatever the table.
            let entities = match known.or_else(alike) {
                Some((_, size)) => Some(size.entities),
                None => (*read == 0).then_some(0),
            };
            let features = if change.feature.is_some() { 1 } else { view.features.len() as u64 };
            change.cost.entities = entities;
            let each = cell_bytes(&tables).saturating_mul(features);
            change.cost.state_bytes = entities.map(|entities| entities.saturating_mul(each));
        }
        Ok(())
    }

    /// The rows that a build of a source's features reads: those of the pinned files, and those of the log.
    fn rows_to_read(&self, live: Option<&Live>, project: &Project, source: &str) -> u64 {
        let Some(source) = project.sources.get(source) else { return 0 };
        let logged = live.map_or(0, |live| self.logged_rows(live, source));
        let lineage = &source.lineage;
        let tables = live.into_iter().flat_map(|live| &live.compiled.layout.tables);
        let of_source = tables.filter(|table| table.row_set.source == *lineage);
        let pins = of_source.filter_map(|table| table.row_set.files).max();
        // A list that cannot be read is reported by what needs it.
        let pinned = pins.and_then(|digest| Pins::load(self.storage().as_ref(), self.name(), &digest).ok());
        logged + pinned.map_or(0, |pins| pins.files.iter().map(|file| file.rows).sum())
    }

    /// The rows of a source's log.
    pub(super) fn logged_rows(&self, live: &Live, source: &Source) -> u64 {
        let before = live.revision.project.source_of_lineage(&source.lineage);
        let log = before.and_then(|before| self.log(&before.name));
        log.map_or(0, |log| log.end_position().saturating_sub(log.first_position()))
    }
}

/// Whether a table's entities are those of a view, as far as its keys and its source say.
fn has_keys_of(live: Option<&Live>, table: &TableLayout, project: &Project, view: &FeatureView) -> bool {
    let Some(live) = live else { return false };
    let Some(source) = project.sources.get(&view.source) else { return false };
    let reads = |number: usize| live.compiled.layout.tables.get(number).is_some_and(|other| other.id == table.id);
    let mut views = live.compiled.layout.views.values();
    table.row_set.source == source.lineage
        && views
            .any(|other| other.join_keys == view.join_keys && other.columns.iter().any(|column| reads(column.table)))
}

/// What one feature of one entity takes, on average.
fn cell_bytes(tables: &[Sized<'_>]) -> u64 {
    let bytes: u64 = tables.iter().map(|(_, size)| size.state_bytes).sum();
    let cells: u64 = tables.iter().map(|(layout, size)| size.entities * layout.features.len().max(1) as u64).sum();
    bytes.checked_div(cells).unwrap_or(CELL_BYTES).max(1)
}
