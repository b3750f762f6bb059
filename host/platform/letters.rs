//! Dead letters of a project: which are open, and what becomes of them after a fix.
//!
//! A refusal is a function of the row and of what refused it: event time and `max_future` for a whole row, keys and
//! transforms for a table, a fingerprint for a feature. A fix is a revision, and it moves exactly those. What is new
//! in it is folded from the log's beginning, refused rows included; so a letter is open while what refused it is live,
//! and that is all there is to know: nothing is stored when it closes, and nothing can be lost or counted twice.
//!
//! A row that came too late for an ordered feature is refused by what had come before it, not by what is in it. Its
//! letter is open as long as the state that lacks the row; only building that state anew takes the row in.

use super::{Live, PlatformError, ProjectHost};
use crate::batch::LateRows;
use crate::define::{Digest, Project, Source, intake};
use crate::source::{LogBatch, PushLog};
use crate::stream::{Compiled, Letter, Reason, RefusedBy, judge, load_letters};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Records that are judged together: so many, or so many bytes.
const JUDGED_RECORDS: usize = 1024;
const JUDGED_BYTES: usize = 8 << 20;

/// Which letters to replay: all if nothing is said.
#[derive(Clone, Debug, Default)]
pub struct ReplayRequest {
    pub ids: Option<Vec<String>>,
    pub source: Option<String>,
    /// `view.feature`, under any fingerprint that it has had.
    pub feature: Option<String>,
}

/// What became of a letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// What refused the row is live and would take it now: the refusal was none of the row's, and the state lacks it.
    Taken,
    /// What refused the row is live and refuses it again: the letter stays open.
    Refused,
    /// It came too late, and the state that lacks it is live: only a rebuild takes it in.
    Late,
    /// What refused the row is gone. What took its place was folded from the log, this row included.
    Closed,
}

/// A letter that was judged anew.
#[derive(Clone, Debug)]
pub struct Replayed {
    /// As it would be written today, where the row is refused again; else as it stands.
    pub letter: Letter,
    pub outcome: Outcome,
    /// What refuses the row now, the letter's own refusal included.
    pub now: Vec<Letter>,
}

impl Live {
    /// Whether what refused the letter's row is still there: then the row is in no value of it.
    pub fn is_open(&self, letter: &Letter) -> bool {
        let layout = &self.compiled.layout;
        let mut columns = layout.views.values().flat_map(|view| &view.columns);
        match &letter.refused_by {
            RefusedBy::All => {
                let source = self.revision.project.source_of_lineage(&letter.source);
                source.is_some_and(|source| letter.intake == Some(intake(source)))
            }
            RefusedBy::Table(digest) => columns.any(|column| layout.tables[column.table].entity_table == *digest),
            RefusedBy::Feature(_) if letter.reason == Reason::Late => {
                columns.any(|column| self.compiled.lacks(column.table, letter))
            }
            RefusedBy::Feature(fingerprint) => columns.any(|column| column.fingerprint == *fingerprint),
        }
    }

    /// Whether the letter's row is missing in values of one of these views.
    pub(super) fn concerns(&self, letter: &Letter, views: &BTreeSet<&str>) -> bool {
        let layout = &self.compiled.layout;
        let mut asked = layout.views.values().filter(|view| views.contains(view.name.as_str()));
        asked.any(|view| match &letter.refused_by {
            RefusedBy::All => {
                let source = self.revision.project.sources.get(&view.source);
                source.is_some_and(|source| source.lineage == letter.source)
            }
            RefusedBy::Table(digest) => {
                view.columns.iter().any(|column| layout.tables[column.table].entity_table == *digest)
            }
            RefusedBy::Feature(fingerprint) => view.columns.iter().any(|column| column.fingerprint == *fingerprint),
        })
    }
}

/// The rows of logs that the state of a table lacks because they came too late, by source.
pub(super) fn late_rows(
    compiled: &Compiled,
    letters: &[Letter],
    tables: impl Iterator<Item = usize> + Clone,
) -> BTreeMap<String, Arc<LateRows>> {
    let mut late: BTreeMap<String, LateRows> = BTreeMap::new();
    for letter in letters.iter().filter(|letter| letter.reason == Reason::Late) {
        let RefusedBy::Feature(fingerprint) = letter.refused_by else { continue };
        if tables.clone().any(|table| compiled.lacks(table, letter)) {
            let of_source = late.entry(letter.source.clone()).or_default();
            of_source.entry(fingerprint).or_default().insert((letter.position, letter.sub_row));
        }
    }
    late.into_iter().map(|(source, rows)| (source, Arc::new(rows))).collect()
}

impl ProjectHost {
    /// All dead letters that have been stored, open or not, of one source (by name) or all, by position.
    pub fn dead_letters(&self, source: Option<&str>) -> Result<Vec<Letter>, PlatformError> {
        let mut letters = load_letters(self.storage().as_ref(), self.name())?;
        if let Some(name) = source {
            let live = self.live()?;
            let source = live.revision.project.sources.get(name);
            letters.retain(|letter| source.is_some_and(|source| source.lineage == letter.source));
        }
        Ok(letters)
    }

    /// The log of a source of what is live, by its lineage.
    fn log_of_lineage(&self, lineage: &str) -> Option<Arc<PushLog>> {
        let live = self.live().ok()?;
        self.log(&live.revision.project.source_of_lineage(lineage)?.name)
    }

    /// Feeds the rows of these letters, each under its own position and arrival, to what is live, and says what
    /// becomes of them. No state changes: asked again, it says the same.
    pub fn replay(&self, request: &ReplayRequest) -> Result<Vec<Replayed>, PlatformError> {
        let live = self.live()?;
        let letters = self.chosen(request)?;
        let mut positions: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
        for letter in &letters {
            positions.entry(&letter.source).or_default().insert(letter.position);
        }
        let mut now: BTreeMap<(&str, u64), Vec<Letter>> = BTreeMap::new();
        for (lineage, positions) in positions {
            let Some(source) = live.revision.project.source_of_lineage(lineage) else { continue };
            let Some(log) = self.log_of_lineage(lineage) else { continue };
            for letter in judged(&live.compiled, source, &log, &positions)? {
                now.entry((lineage, letter.position)).or_default().push(letter);
            }
        }
        self.storage().crash_point("while replaying")?;
        let replayed = |letter: &Letter| {
            let now = now.get(&(letter.source.as_str(), letter.position)).cloned().unwrap_or_default();
            let again = now.iter().find(|other| other.id() == letter.id());
            let (outcome, as_now) = match (live.is_open(letter), again) {
                (false, _) => (Outcome::Closed, letter),
                (true, _) if letter.reason == Reason::Late => (Outcome::Late, letter),
                (true, Some(again)) => (Outcome::Refused, again),
                (true, None) => (Outcome::Taken, letter),
            };
            Replayed { letter: as_now.clone(), outcome, now }
        };
        Ok(letters.iter().map(replayed).collect())
    }

    fn chosen(&self, request: &ReplayRequest) -> Result<Vec<Letter>, PlatformError> {
        let mut letters = self.dead_letters(request.source.as_deref())?;
        if let Some(feature) = &request.feature {
            let names = self.refusing_features(&letters)?;
            letters.retain(|letter| match &letter.refused_by {
                RefusedBy::Feature(fingerprint) => names.get(fingerprint) == Some(feature),
                _ => false,
            });
        }
        let Some(ids) = &request.ids else { return Ok(letters) };
        let of_id: BTreeMap<String, Letter> = letters.into_iter().map(|letter| (letter.id(), letter)).collect();
        let chosen = ids.iter().collect::<BTreeSet<_>>().into_iter().map(|id| {
            of_id.get(id).cloned().ok_or_else(|| {
                PlatformError::NotFound(format!("there is no letter `{id}`: `onefold dead-letters list` shows all"))
            })
        });
        chosen.collect()
    }

    /// The features that refused these letters' rows, as `view.feature`: the name of now, or of the newest revision
    /// that had the fingerprint.
    pub fn refusing_features(&self, letters: &[Letter]) -> Result<BTreeMap<Digest, String>, PlatformError> {
        let mut unnamed: BTreeSet<Digest> = BTreeSet::new();
        for letter in letters {
            if let RefusedBy::Feature(fingerprint) = letter.refused_by {
                unnamed.insert(fingerprint);
            }
        }
        let mut names = BTreeMap::new();
        let mut name = |project: &Project| {
            for view in project.feature_views.values() {
                for feature in &view.features {
                    if unnamed.remove(&feature.fingerprint) {
                        names.insert(feature.fingerprint, format!("{}.{}", view.name, feature.name));
                    }
                }
            }
            unnamed.is_empty()
        };
        if !name(&self.live()?.revision.project) {
            for number in self.registry().numbers()?.into_iter().rev() {
                if name(&self.registry().revision(number)?.project) {
                    break;
                }
            }
        }
        Ok(names)
    }

    /// The bytes of records of the log of a source's lineage; those that it does not have are left out.
    pub fn raw_records(
        &self,
        lineage: &str,
        positions: &BTreeSet<u64>,
    ) -> Result<BTreeMap<u64, Vec<u8>>, PlatformError> {
        let mut raw = BTreeMap::new();
        let Some(log) = self.log_of_lineage(lineage) else { return Ok(raw) };
        log.each_record(positions, |record| {
            raw.insert(record.first_position, record.records.bytes().to_vec());
            Ok::<(), PlatformError>(())
        })?;
        Ok(raw)
    }

    /// The bytes of one record of the log of a source's lineage.
    pub fn raw_record(&self, lineage: &str, position: u64) -> Result<Option<Vec<u8>>, PlatformError> {
        Ok(self.raw_records(lineage, &BTreeSet::from([position]))?.remove(&position))
    }
}

/// The letters that records of a log would be given today.
pub(super) fn judged(
    compiled: &Arc<Compiled>,
    source: &Source,
    log: &PushLog,
    positions: &BTreeSet<u64>,
) -> Result<Vec<Letter>, PlatformError> {
    let mut letters = Vec::new();
    let mut waiting: Vec<LogBatch> = Vec::new();
    let mut bytes = 0;
    let mut found = 0;
    log.each_record(positions, |record| {
        found += 1;
        bytes += record.records.bytes().len();
        waiting.push(record);
        if waiting.len() >= JUDGED_RECORDS || bytes >= JUDGED_BYTES {
            bytes = 0;
            letters.extend(judge(compiled, source, &std::mem::take(&mut waiting))?);
        }
        Ok::<(), PlatformError>(())
    })?;
    letters.extend(judge(compiled, source, &waiting)?);
    if found < positions.len() {
        return Err(PlatformError::Invalid(format!(
            "the log of source `{}` lacks {} of {} positions that letters name: restore its files from a copy",
            source.name,
            positions.len() - found,
            positions.len()
        )));
    }
    Ok(letters)
}
