//! Sources whose files lie elsewhere than those that their state is made of.

use super::history::Pins;
use super::target::{From, pinned};
use super::{Live, PlatformError, ProjectHost};
use crate::batch::{PinnedFile, list_files};
use crate::define::{Build, Change, Cost, Digest, Project, Source};
use crate::registry::Proposal;
use crate::stream::table_records;
use std::collections::BTreeMap;
use std::path::Path;

/// A source, and what its state is made of.
type Moved<'a> = (&'a Source, &'a str, Pins);

impl ProjectHost {
    /// What the state of a proposal starts from.
    pub(super) fn start_of(&self, proposal: &Proposal, live: &Live) -> Result<From, PlatformError> {
        if proposal.from_now
            && let Some(source) = self.without_stream(proposal, live)
        {
            return Err(PlatformError::Invalid(format!(
                "source `{source}` takes no pushes, so what begins empty would stay so: leave --from now out"
            )));
        }
        let mut from = From { now: proposal.from_now, ..From::default() };
        for (source, path, before) in self.moved(&proposal.project, live)? {
            let files = list_files(path)?;
            if proposal.same_rows {
                check_same(&source.name, &before.files, &files)?;
            }
            let pins = Pins { files, from_us: before.from_us, to_us: before.to_us };
            pins.store(self.storage().as_ref(), self.name())?;
            let kept = if proposal.same_rows { &mut from.moved } else { &mut from.files };
            kept.insert(source.name.clone(), pins);
        }
        Ok(from)
    }

    /// Says in a plan what a changed path comes to.
    pub(super) fn say_moved(&self, proposal: &mut Proposal) -> Result<(), PlatformError> {
        let Ok(live) = self.live() else { return Ok(()) };
        let mut notes = BTreeMap::new();
        for (source, path, _) in self.moved(&proposal.project, &live)? {
            // Files that cannot be read yet are the apply's to refuse.
            let rows = list_files(path).ok().map(|files| files.iter().map(|file| file.rows).sum());
            notes.insert(source.name.clone(), rows);
        }
        for (source, rows) in notes {
            let views = proposal.project.feature_views.values().filter(|view| view.source == source).count();
            if proposal.same_rows {
                let note = format!("source `{source}`: its files lie elsewhere and hold the same rows; state is kept");
                proposal.plan.warnings.push(note);
                continue;
            }
            let of_source = |change: &&mut Change| change.kind == "source" && change.name == source;
            if let Some(change) = proposal.plan.changes.iter_mut().find(of_source) {
                change.cost = Cost { build: Build::Rebuild, history_rows: rows, ..Cost::default() };
            }
            proposal.plan.warnings.push(format!(
                "source `{source}`: other files, so the state of its {views} views is built anew; if they hold the \
                 same rows, --same-rows keeps it"
            ));
        }
        Ok(())
    }

    /// The sources that have another path than the files that their state is made of, with that path.
    fn moved<'a>(&self, project: &'a Project, live: &Live) -> Result<Vec<Moved<'a>>, PlatformError> {
        let records = table_records(&live.compiled);
        let mut moved = Vec::new();
        for source in project.sources.values() {
            let Some(before) = live.revision.project.source_of_lineage(&source.lineage) else { continue };
            let Some(path) = source.batch_path.as_deref().filter(|_| before.batch_path != source.batch_path) else {
                continue;
            };
            if let Some(digest) = pinned(&records, source) {
                moved.push((source, path, Pins::load(self.storage().as_ref(), self.name(), &digest)?));
            }
        }
        Ok(moved)
    }

    /// A source without a stream that something new is made of.
    fn without_stream(&self, proposal: &Proposal, live: &Live) -> Option<String> {
        let is_folded = |fingerprint: Digest| {
            let tables = live.compiled.layout.tables.iter();
            tables.flat_map(|table| &table.features).any(|feature| feature.fingerprint == fingerprint)
        };
        let views = proposal.project.feature_views.values();
        let mut new = views.filter(|view| view.features.iter().any(|feature| !is_folded(feature.fingerprint)));
        let of = |name: &String| proposal.project.sources.get(name).filter(|source| !source.push);
        new.find_map(|view| of(&view.source)).map(|source| source.name.clone())
    }
}

/// Files with the same names, sizes and numbers of rows are taken for the same: that is what pins say of a file, apart
/// from the time at which it was changed, which a copy changes.
fn check_same(source: &str, before: &[PinnedFile], now: &[PinnedFile]) -> Result<(), PlatformError> {
    let told = |file: &PinnedFile| {
        let name = Path::new(&file.path).file_name().map(|name| name.to_string_lossy().into_owned());
        (name.unwrap_or_default(), file.size, file.rows)
    };
    let (mut was, mut is): (Vec<_>, Vec<_>) = (before.iter().map(told).collect(), now.iter().map(told).collect());
    was.sort();
    is.sort();
    let text = |(name, size, rows): &(String, u64, u64)| format!("`{name}` with {size} bytes and {rows} rows");
    let other = is.iter().find(|file| !was.contains(file)).map(|file| format!("{} is new", text(file)));
    let gone = was.iter().find(|file| !is.contains(file)).map(|file| format!("{} is not there", text(file)));
    match gone.or(other) {
        None if was.len() == is.len() => Ok(()),
        said => Err(PlatformError::Invalid(format!(
            "source `{source}`: --same-rows says that only the place has changed, and {}: leave it out, and the state is \
             built anew",
            said.unwrap_or_else(|| format!("there are {} files instead of {}", is.len(), was.len()))
        ))),
    }
}
