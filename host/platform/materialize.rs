//! The batch host's part in what is served: history into the state that the stream goes on with.

use super::cut_over::Changed;
use super::history::Pins;
use super::letters::judged;
use super::target::From;
use super::{BatchDone, BatchRequest, PlatformError, ProjectHost};
use crate::batch::{Place, Refusal, RefusalSink, Refusals, list_columns, list_files};
use crate::define::{FeatureView, Project};
use crate::source::PushLog;
use crate::stream::{Compiled, Letter};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

/// What is asked.
#[derive(Clone, Debug, Default)]
pub struct MaterializeRequest {
    /// All views if none are named.
    pub views: Vec<String>,
    pub from_us: Option<i64>,
    pub to_us: Option<i64>,
}

/// What was done.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct MaterializeSummary {
    pub views: Vec<String>,
    pub files: usize,
    pub entities: u64,
    /// What may not be as it was meant to be.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// How long no row was folded while both states were put together.
    pub cut_over_pause_us: u64,
}

impl ProjectHost {
    /// Pins the files of the named views' sources as they are now, builds the state of all views of these sources
    /// from them and the logs beside what is served, and cuts over.
    pub fn materialize(
        &self,
        request: &MaterializeRequest,
        batch: &BatchRequest,
    ) -> Result<BatchDone<MaterializeSummary>, PlatformError> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let live = self.live()?;
        let project = &live.revision.project;
        let pins = self.pin(project, request)?;
        let files = pins.values().map(|pins| pins.files.len()).sum();
        let notes = missing_columns(project, pins.keys())?;
        // A paused view keeps what it has.
        let of_pinned = project.feature_views.values();
        let of_pinned = of_pinned.filter(|view| pins.contains_key(&view.source) && view.paused.is_none());
        let views = of_pinned.map(|view| view.name.clone()).collect();
        let target = self.target(project, &live, From { files: pins, ..From::default() })?;
        let refusals = Arc::new(Refusals::default());
        let changed = self.change(&live, target, batch, refusals.clone(), || Ok(live.revision.clone()))?;
        let Changed { entities, pause_us: cut_over_pause_us, .. } = changed;
        let summary = MaterializeSummary { views, files, entities, cut_over_pause_us, notes };
        Ok(BatchDone::of(summary, &refusals.summary()))
    }

    /// Builds the state of these views anew, of the rows that it is made of, and cuts over.
    pub fn rebuild(
        &self,
        views: &BTreeSet<String>,
        batch: &BatchRequest,
    ) -> Result<BatchDone<MaterializeSummary>, PlatformError> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let live = self.live()?;
        for view in views {
            goes_on(known(&live.revision.project, view)?)?;
        }
        let target = self.target(&live.revision.project, &live, From { scratch: views.clone(), ..From::default() })?;
        let files = target.files();
        let refusals = Arc::new(Refusals::default());
        let changed = self.change(&live, target, batch, refusals.clone(), || Ok(live.revision.clone()))?;
        let views = views.iter().cloned().collect();
        let Changed { entities, pause_us: cut_over_pause_us, .. } = changed;
        let summary = MaterializeSummary { views, files, entities, cut_over_pause_us, notes: Vec::new() };
        Ok(BatchDone::of(summary, &refusals.summary()))
    }

    /// Lists and stores the files of the sources that are asked for, by source.
    fn pin(&self, project: &Project, request: &MaterializeRequest) -> Result<BTreeMap<String, Pins>, PlatformError> {
        let mut views: BTreeSet<String> = request.views.iter().cloned().collect();
        if views.is_empty() {
            let has_files =
                |source: &str| project.sources.get(source).is_some_and(|source| source.batch_path.is_some());
            let goes_on = project.feature_views.values().filter(|view| view.paused.is_none());
            let with_files = goes_on.filter(|view| has_files(&view.source));
            views = with_files.map(|view| view.name.clone()).collect();
        }
        let mut pins: BTreeMap<String, Pins> = BTreeMap::new();
        for view in &views {
            let view = known(project, view)?;
            goes_on(view)?;
            let source = project.sources.get(&view.source);
            let Some(path) = source.and_then(|source| source.batch_path.as_ref()) else {
                return Err(PlatformError::Invalid(format!(
                    "source `{}` of view `{}` has no files: add `batch: {{ parquet: {{ path: … }} }}` to it",
                    view.source, view.name
                )));
            };
            if !pins.contains_key(&view.source) {
                let files = list_files(path)?;
                pins.insert(view.source.clone(), Pins { files, from_us: request.from_us, to_us: request.to_us });
            }
        }
        if pins.is_empty() {
            return Err(PlatformError::Invalid(
                "no source of the project has files: there is nothing to materialize".into(),
            ));
        }
        for pins in pins.values() {
            pins.store(self.storage().as_ref(), self.name())?;
        }
        self.storage().crash_point("after the pins")?;
        Ok(pins)
    }
}

/// Declared columns that none of a source's files has: each is null in all of their rows, which a wrong name would be too.
fn missing_columns<'a>(
    project: &Project,
    sources: impl Iterator<Item = &'a String>,
) -> Result<Vec<String>, PlatformError> {
    let mut notes = Vec::new();
    for source in sources.filter_map(|name| project.sources.get(name)) {
        let Some(path) = &source.batch_path else { continue };
        let there = list_columns(path)?;
        for column in source.columns.iter().filter(|column| !there.contains(&column.batch_column)) {
            let (name, looked) = (&column.name, &column.batch_column);
            notes.push(format!(
                "no file of source `{}` has the column `{looked}`: `{name}` is null in all their rows; if it has another \
                 name there, write `{name}: {{ type: …, batch: NAME }}`",
                source.name
            ));
        }
    }
    Ok(notes)
}

fn goes_on(view: &FeatureView) -> Result<(), PlatformError> {
    match view.paused {
        None => Ok(()),
        Some(_) => Err(PlatformError::Invalid(format!(
            "view `{}` is paused, and its state stands still: `onefold resume {}` first",
            view.name, view.name
        ))),
    }
}

fn known<'a>(project: &'a Project, view: &str) -> Result<&'a FeatureView, PlatformError> {
    project.feature_views.get(view).ok_or_else(|| {
        let known = project.feature_views.keys().cloned().collect::<Vec<_>>().join(", ");
        PlatformError::NotFound(format!("there is no feature view `{view}`: there is {known}"))
    })
}

impl ProjectHost {
    /// The letters of these records of logs, as far as they are not stored yet: the stream goes on behind them and
    /// would never write them.
    pub(super) fn letters_of(
        &self,
        positions: &BTreeMap<String, BTreeSet<u64>>,
        compiled: &Arc<Compiled>,
        project: &Project,
        logs: &BTreeMap<String, Arc<PushLog>>,
    ) -> Result<Vec<Letter>, PlatformError> {
        let stored: BTreeSet<Letter> = self.dead_letters(None)?.into_iter().collect();
        let mut letters = Vec::new();
        for (name, positions) in positions {
            let (Some(source), Some(log)) = (project.sources.get(name), logs.get(name)) else { continue };
            letters.extend(judged(compiled, source, log, positions)?);
        }
        letters.retain(|letter| !stored.contains(letter));
        Ok(letters)
    }
}

/// Passes refusals on, and notes where in the logs they were.
pub(super) struct LogRefusals {
    told: Arc<dyn RefusalSink>,
    positions: Mutex<BTreeMap<String, BTreeSet<u64>>>,
}

impl LogRefusals {
    pub fn new(told: Arc<dyn RefusalSink>) -> LogRefusals {
        LogRefusals { told, positions: Mutex::default() }
    }

    pub fn positions(&self) -> BTreeMap<String, BTreeSet<u64>> {
        self.positions.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl RefusalSink for LogRefusals {
    fn refused(&self, refusal: Refusal) {
        if let Place::Log { position } = refusal.place {
            let mut positions = self.positions.lock().unwrap_or_else(PoisonError::into_inner);
            positions.entry(refusal.source.clone()).or_default().insert(position);
        }
        self.told.refused(refusal);
    }
}
