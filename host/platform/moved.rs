//! Sources whose files lie elsewhere than those that their state is made of.

use super::history::Pins;
use super::target::{From, pinned};
use super::{Live, PlatformError, ProjectHost};
use crate::batch::{PinnedFile, list_files};
use crate::define::{Build, Change, Cost, Project, Source};
use crate::registry::Proposal;
use crate::stream::table_records;
use std::collections::BTreeMap;
use std::path::Path;

/// A source, and what its state is made of.
type Moved<'a> = (&'a Source, &'a str, Pins);

impl ProjectHost {
    /// What the state of a proposal starts from.
    pub(super) fn start_of(&self, proposal: &Proposal, live: &Live) -> Result<From, PlatformError> {
        self.check_begins(proposal, live)?;
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

    /// Says in a plan what a changed path comes to. Gives the sources that have one, with the rows that are read then.
    pub(super) fn say_moved(
        &self,
        proposal: &mut Proposal,
        live: &Live,
    ) -> Result<BTreeMap<String, u64>, PlatformError> {
        let mut moved = BTreeMap::new();
        for (source, path, before) in self.moved(&proposal.project, live)? {
            let files = list_files(path)?;
            let logged = self.logged_rows(live, source);
            let rows = match proposal.same_rows {
                true => check_same(&source.name, &before.files, &files).map(|()| 0)?,
                false => files.iter().map(|file| file.rows).sum::<u64>() + logged,
            };
            moved.insert(source.name.clone(), rows);
        }
        for (source, rows) in &moved {
            let views = proposal.project.feature_views.values().filter(|view| view.source == *source).count();
            if proposal.same_rows {
                let note = format!("source `{source}`: its files lie elsewhere and hold the same rows; state is kept");
                proposal.plan.warnings.push(note);
                continue;
            }
            let of_source = |change: &&mut Change| change.kind == "source" && change.name == *source;
            if let Some(change) = proposal.plan.changes.iter_mut().find(of_source) {
                change.cost = Cost { build: Build::Rebuild, history_rows: Some(*rows), ..Cost::default() };
            }
            proposal.plan.warnings.push(format!(
                "source `{source}`: other files, so the state of its {views} views is built anew; if they hold the \
                 same rows, --same-rows keeps it"
            ));
        }
        Ok(moved)
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
