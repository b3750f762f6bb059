//! What is to be live, laid over what is: which state goes on, which is put elsewhere, and which is missing.

use super::begins::goes_on_from;
use super::history::Pins;
use super::recover::{keep_earlier, standing_row_set};
use super::{Live, PlatformError, ProjectHost};
use crate::define::{Digest, Feature, FeatureView, Project, Source};
use crate::rows::{Layout, Paused, RowSet, Since, TableLayout};
use crate::state::TableRecord;
use crate::stream::{Compiled, table_records};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What is to be live, over what is.
pub(super) struct Target {
    pub project: Arc<Project>,
    pub compiled: Arc<Compiled>,
    /// For each table, the features that have no state yet.
    pub missing: Vec<Vec<usize>>,
    /// Tables whose entities are kept for longer than before: those that were dropped come back.
    pub grown: Vec<bool>,
    /// For each table, the running one that it is a copy of, if it is: the same state as of other rows.
    pub copied: Vec<Option<usize>>,
    /// For each table, the paused one from which what it lacks goes on, if it does.
    pub resumed: Vec<Option<usize>>,
    /// Up to where the stream has folded each source.
    pub stands: BTreeMap<String, u64>,
    /// By source, the files that what is missing is made of.
    pub pins: BTreeMap<String, Pins>,
}

/// What a target starts from: by default from state that is live, and what has none is made of the files that its
/// source's state is made of.
#[derive(Default)]
pub(super) struct From {
    /// These files, by source: all state of these sources is made anew.
    pub files: BTreeMap<String, Pins>,
    /// Nothing: the features of these views are made anew, of the same rows or more.
    pub scratch: BTreeSet<String>,
    /// What has no state begins empty, where the stream stands.
    pub now: bool,
    /// These files, by source, hold the rows of those that its state is made of.
    pub moved: BTreeMap<String, Pins>,
}

impl ProjectHost {
    /// What has to be built to make this project live.
    pub(super) fn target(&self, project: &Project, live: &Live, from: From) -> Result<Target, PlatformError> {
        let running = &live.compiled;
        let records = table_records(running);
        let stands = self.stands(project);
        let mut pins = from.files.clone();
        for source in project.sources.values() {
            if let Some(digest) = pinned(&records, source).filter(|_| !pins.contains_key(&source.name)) {
                let moved = from.moved.get(&source.name).cloned();
                let load = || Pins::load(self.storage().as_ref(), self.name(), &digest);
                pins.insert(source.name.clone(), moved.map_or_else(load, Ok)?);
            }
        }
        let since = self.since_now(project, live, &stands, &from)?;
        let now_us = self.clock().now_us();
        let row_set = |source: &Source, view: &FeatureView, feature: &Feature| {
            let anew = || RowSet::of_files(&source.lineage, pins.get(&source.name).map(Pins::digest));
            let standing = |paused| standing_row_set(&records, source, feature, paused);
            if let Some(revision) = view.paused {
                return standing(Some(revision)).unwrap_or_else(|| {
                    let stands_still =
                        Paused { revision, at_us: now_us, position: 0, clock_us: i64::MIN, settled_us: i64::MIN };
                    RowSet { paused: Some(stands_still), ..standing(None).unwrap_or_else(anew) }
                });
            }
            if from.files.contains_key(&source.name) {
                return anew();
            }
            match goes_on_from(&records, live, source, feature) {
                Some(row_set) if row_set.since.is_some() && from.scratch.contains(&view.name) => anew(),
                Some(row_set) if row_set.files.is_some() && from.moved.contains_key(&source.name) => {
                    RowSet { files: anew().files, ..row_set }
                }
                Some(row_set) => row_set,
                None => match since.get(&source.name) {
                    Some(since) => RowSet { since: Some(*since), ..RowSet::of_log(&source.lineage) },
                    None => anew(),
                },
            }
        };
        let layout = Layout::of(project, row_set).map_err(|error| PlatformError::Invalid(error.to_string()))?;
        let mut wider = layout.clone();
        keep_earlier(&mut wider, project, &self.earlier(&live.revision)?.projects, &records);
        let prepare = self.preparer();
        let mut compiled = Compiled::new(wider, self.groups(), &prepare)
            .or_else(|_| Compiled::new(layout, self.groups(), &prepare))?;
        let tables = compiled.layout.tables.len();
        let mut missing = Vec::new();
        let (mut grown, mut copied, mut resumed) = (vec![false; tables], vec![None; tables], vec![None; tables]);
        for (number, table) in compiled.layout.tables.iter().enumerate() {
            let same = running.layout.tables.iter().find(|standing| standing.id == table.id);
            grown[number] = same.is_some_and(|standing| longer(table.retention_us, standing.retention_us));
            copied[number] = match same {
                Some(_) => None,
                None => copied_from(table, &running.layout, &from, &live.revision.project),
            };
            if copied[number].is_none() && same.is_none() && table.row_set.paused.is_some() {
                return Err(PlatformError::Unavailable(
                    "what is to be paused has no state of its own yet: try again".into(),
                ));
            }
            let standing = copied[number].map(|place: usize| &running.layout.tables[place]).or(same);
            let anew = of_views(&compiled.layout, number, &from.scratch);
            let has_state = |feature: usize| {
                !grown[number]
                    && !anew.contains(&feature)
                    && standing.is_some_and(|standing| holds(standing, &table.features[feature].fingerprint))
            };
            let lacks: Vec<usize> = (0..table.features.len()).filter(|feature| !has_state(*feature)).collect();
            if !lacks.is_empty() && !grown[number] && anew.is_empty() {
                resumed[number] = running.layout.tables.iter().position(|paused| {
                    let unpaused = RowSet { paused: None, ..paused.row_set.clone() };
                    paused.row_set.paused.is_some()
                        && unpaused == table.row_set
                        && lacks.iter().all(|feature| holds(paused, &table.features[*feature].fingerprint))
                });
            }
            missing.push(lacks);
        }
        only_alike(&compiled.layout, &running.layout, &missing, &mut resumed);
        // Later than what is begun anew, also before that was stored.
        let newest = running.begun.iter().flat_map(BTreeMap::values).max().map_or(0, |begun| begun + 1);
        let epoch = self.status().stream.checkpoint_epoch.max(newest);
        compiled.begin(records.iter(), epoch, |table, feature| missing[table].contains(&feature));
        for (number, place) in copied.iter().zip(&resumed).map(|(copied, resumed)| copied.or(*resumed)).enumerate() {
            // State that goes on elsewhere lacks the late rows that it lacked.
            let Some(before) = place.map(|place| &running.begun[place]) else { continue };
            for (fingerprint, begun) in &mut compiled.begun[number] {
                *begun = before.get(fingerprint).copied().unwrap_or(*begun);
            }
        }
        let (project, compiled) = (Arc::new(project.clone()), Arc::new(compiled));
        Ok(Target { project, compiled, missing, grown, copied, resumed, stands, pins })
    }

    /// For each source, where state begins that is made without history.
    fn since_now(
        &self,
        project: &Project,
        live: &Live,
        stands: &BTreeMap<String, u64>,
        from: &From,
    ) -> Result<BTreeMap<String, Since>, PlatformError> {
        let mut since = BTreeMap::new();
        if !from.now {
            return Ok(since);
        }
        let logs = self.open_logs(project)?;
        let said = self.status().stream.sources;
        for (name, log) in logs {
            let position = stands.get(&name).copied().unwrap_or_else(|| log.end_position());
            let before = project.sources.get(&name).and_then(|source| {
                said.get(&live.revision.project.source_of_lineage(&source.lineage)?.name)?.newest_us
            });
            // What is in the log already may lie in the future of now; it is left out too.
            let at_us = self.clock().now_us().max(before.map_or(i64::MIN, |newest_us| newest_us.saturating_add(1)));
            since.insert(name, Since { position, at_us });
        }
        Ok(since)
    }
}

impl Target {
    /// Whether something is to be built.
    pub fn lacks_something(&self) -> bool {
        self.missing.iter().any(|missing| !missing.is_empty())
    }

    /// How many files something missing is made of.
    pub fn files(&self) -> usize {
        let of = |source: &String| {
            let made_of: BTreeSet<_> = self.row_sets(source).into_iter().map(|row_set| row_set.files).collect();
            let pins = self.pins.get(source).filter(|pins| made_of.contains(&Some(pins.digest())));
            pins.map_or(0, |pins| pins.files.len())
        };
        self.sources().iter().map(of).sum()
    }

    /// Sources that something is to be built of.
    pub fn sources(&self) -> BTreeSet<String> {
        let layout = &self.compiled.layout;
        let missing = layout.tables.iter().zip(&self.missing).filter(|(_, missing)| !missing.is_empty());
        missing.map(|(table, _)| layout.spaces[table.space].source.clone()).collect()
    }

    /// What something missing of this source is made of.
    pub fn row_sets(&self, source: &str) -> BTreeSet<RowSet> {
        let layout = &self.compiled.layout;
        let missing = layout.tables.iter().zip(&self.missing).filter(|(_, missing)| !missing.is_empty());
        let of_source = missing.filter(|(table, _)| layout.spaces[table.space].source == source);
        of_source.map(|(table, _)| table.row_set.clone()).collect()
    }

    /// The tables of this source that go on from a paused one, with that one's number.
    pub fn resumed_of(&self, source: &str) -> Vec<(usize, usize)> {
        let layout = &self.compiled.layout;
        let of_source = |table: usize| layout.spaces[layout.tables[table].space].source == source;
        let resumed = self.resumed.iter().enumerate().filter_map(|(table, paused)| Some((table, (*paused)?)));
        resumed.filter(|(table, _)| of_source(*table)).collect()
    }
}

fn holds(table: &TableLayout, fingerprint: &Digest) -> bool {
    table.features.iter().any(|feature| feature.fingerprint == *fingerprint)
}

fn longer(one: Option<i64>, other: Option<i64>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => one > other,
        (None, other) => other.is_some(),
        (Some(_), None) => false,
    }
}

/// The features of a table that some of these views read.
fn of_views(layout: &Layout, table: usize, views: &BTreeSet<String>) -> BTreeSet<usize> {
    let of_view = |view: &String| layout.views.get(view).map(|view| &view.columns);
    let columns = views.iter().filter_map(of_view).flatten();
    columns.filter(|column| column.table == table).map(|column| column.table_feature).collect()
}

/// The running table whose state a new one has: what it was before it was paused, or before its files were moved.
fn copied_from(table: &TableLayout, running: &Layout, from: &From, live: &Project) -> Option<usize> {
    let was = |before: &TableLayout| {
        let of_lineage = before.row_set.source == table.row_set.source;
        let is_moved = of_lineage
            && from
                .moved
                .keys()
                .any(|name| live.source_of_lineage(&table.row_set.source).is_some_and(|source| source.name == *name));
        let files = if is_moved { table.row_set.files } else { before.row_set.files };
        let as_now = RowSet { files, paused: table.row_set.paused, ..before.row_set.clone() };
        before.entity_table == table.entity_table && before.row_set.paused.is_none() && as_now == table.row_set
    };
    let held = |before: &TableLayout| {
        let mut features = table.features.iter();
        match table.row_set.paused {
            Some(_) => features.all(|feature| holds(before, &feature.fingerprint)),
            None => features.any(|feature| holds(before, &feature.fingerprint)),
        }
    };
    let is_other = table.row_set.paused.is_some() || !from.moved.is_empty();
    running.tables.iter().position(|before| is_other && was(before) && held(before))
}

/// A build has one position a source: what goes on from a paused table is read from where that one stands, and so must
/// be all that is missing of its source. Else it is built of all of its rows.
fn only_alike(layout: &Layout, running: &Layout, missing: &[Vec<usize>], resumed: &mut [Option<usize>]) {
    let mut positions: BTreeMap<&str, BTreeSet<Option<Paused>>> = BTreeMap::new();
    for (number, table) in layout.tables.iter().enumerate().filter(|(number, _)| !missing[*number].is_empty()) {
        let paused = resumed[number].and_then(|place| running.tables[place].row_set.paused);
        let same = paused.map(|paused| Paused { revision: 0, at_us: 0, ..paused });
        positions.entry(&layout.spaces[table.space].source).or_default().insert(same);
    }
    for (table, resumed) in layout.tables.iter().zip(resumed) {
        if positions.get(layout.spaces[table.space].source.as_str()).is_some_and(|positions| positions.len() > 1) {
            *resumed = None;
        }
    }
}

/// The files that the state of a source is made of.
pub(super) fn pinned(records: &[TableRecord], source: &Source) -> Option<Digest> {
    let mut of_source = records.iter().filter(|record| record.row_set.source == source.lineage);
    of_source.find_map(|record| record.row_set.files)
}
