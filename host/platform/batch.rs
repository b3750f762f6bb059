//! Batch work of a running project: over which rows, and what is said of it. Snapshots are here.

use super::history::Pins;
use super::letters::late_rows;
use super::{Live, PlatformError, ProjectHost};
use crate::batch::{
    BatchHost, BatchSettings, LogRows, Progress, RefusalSummary, Refusals, Rows, SnapshotAsk, SnapshotSummary,
};
use crate::define::{FeatureReference, OnDemandInput, Project};
use crate::rows::{RowSet, TableLayout};
use crate::source::PushLog;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

/// How batch work runs, and who is told how far it is.
pub struct BatchRequest {
    pub settings: BatchSettings,
    pub progress: Arc<dyn Fn(Progress) + Send + Sync>,
}

impl BatchRequest {
    /// With usual settings, and nobody to be told.
    pub(super) fn unwatched() -> BatchRequest {
        BatchRequest { settings: BatchSettings::new(std::env::temp_dir()), progress: Arc::new(|_| ()) }
    }
}

/// What was done, and how many rows took no part, by reason.
#[derive(Serialize)]
pub struct BatchDone<T> {
    #[serde(flatten)]
    pub done: T,
    pub refused_rows: u64,
    /// The first of them.
    pub refused: Vec<String>,
}

const REFUSED_SHOWN: usize = 20;

impl<T> BatchDone<T> {
    pub(super) fn of(done: T, refused: &RefusalSummary) -> BatchDone<T> {
        let shown = refused.examples.iter().take(REFUSED_SHOWN).map(ToString::to_string);
        BatchDone { done, refused_rows: refused.total(), refused: shown.collect() }
    }
}

impl ProjectHost {
    /// Writes every known entity's values at an instant (default: the newest row) to a Parquet file.
    pub fn snapshot(
        &self,
        view: &str,
        as_of_us: Option<i64>,
        out: &Path,
        request: BatchRequest,
    ) -> Result<BatchDone<SnapshotSummary>, PlatformError> {
        let ask = SnapshotAsk { view: view.to_owned(), as_of_us };
        let live = self.live()?;
        let project = &live.revision.project;
        let rows = self.rows_now(project)?;
        self.with_batch_host(project, request, |host| Ok(host.snapshot_file(&ask, &rows, out)?))
    }

    /// The rows that the states of these features are made of, up to a checkpoint taken for it.
    pub(super) fn served_rows(&self, features: &[FeatureReference]) -> Result<Rows, PlatformError> {
        self.while_stopped(|live, stopped| {
            let mut rows = Rows::default();
            let mut row_sets: BTreeMap<&str, BTreeSet<&RowSet>> = BTreeMap::new();
            let tables = tables_of(live, features);
            let layout = &live.compiled.layout;
            for table in tables.iter().map(|table| &layout.tables[*table]) {
                row_sets.entry(&layout.spaces[table.space].source).or_default().insert(&table.row_set);
            }
            let mut bounds = BTreeSet::new();
            for (source, row_sets) in row_sets {
                let mut pins = Pins::default();
                if let Some(digest) = row_sets.first().and_then(|row_set| row_set.files) {
                    pins = Pins::load(self.storage().as_ref(), self.name(), &digest)?;
                    bounds.insert((pins.from_us, pins.to_us));
                }
                if row_sets.len() > 1 || bounds.len() > 1 {
                    return Err(PlatformError::Invalid(format!(
                        "the states of these features are not made of the same rows (source `{source}`): ask for them \
                         in several training sets, or run `onefold materialize` for all of them"
                    )));
                }
                rows.pinned.insert(source.to_owned(), pins.files);
                if let (Some(log), Some(row_set)) = (self.log(source), row_sets.first()) {
                    let end = stopped.positions.get(source).copied().unwrap_or(0);
                    rows.logs.insert(source.to_owned(), log_rows(log, row_set, end));
                }
            }
            (rows.from_us, rows.to_us) = bounds.pop_first().unwrap_or_default();
            rows.late = late_rows(&live.compiled, &self.dead_letters(None)?, tables.iter().copied());
            Ok(rows)
        })
    }

    /// The rows that the state of a table is made of, up to this position of its log; late ones among them.
    pub(super) fn rows_of_state(&self, live: &Live, table: &TableLayout, end: u64) -> Result<Rows, PlatformError> {
        let source = &live.compiled.layout.spaces[table.space].source;
        let mut rows = Rows::default();
        rows.pinned.insert(source.clone(), Vec::new());
        if let Some(digest) = &table.row_set.files {
            let pins = Pins::load(self.storage().as_ref(), self.name(), digest)?;
            (rows.from_us, rows.to_us) = (pins.from_us, pins.to_us);
            rows.pinned.insert(source.clone(), pins.files);
        }
        if let Some(log) = self.log(source) {
            rows.logs.insert(source.clone(), log_rows(log, &table.row_set, end));
        }
        Ok(rows)
    }

    /// Files as they are, and the logs up to now.
    pub(super) fn rows_now(&self, project: &Project) -> Result<Rows, PlatformError> {
        let mut rows = Rows::default();
        for (name, log) in self.open_logs(project)? {
            let end = log.end_position();
            rows.logs.insert(name, LogRows::until(log, end));
        }
        Ok(rows)
    }

    pub(super) fn with_batch_host<T>(
        &self,
        project: &Project,
        request: BatchRequest,
        run: impl FnOnce(&BatchHost<'_>) -> Result<T, PlatformError>,
    ) -> Result<BatchDone<T>, PlatformError> {
        let refusals = Arc::new(Refusals::default());
        let prepare = self.preparer();
        let BatchRequest { settings, progress } = request;
        let host = BatchHost { project, prepare: &prepare, settings, refusals: refusals.clone(), progress };
        let done = run(&host)?;
        Ok(BatchDone::of(done, &refusals.summary()))
    }
}

/// What of a log is in state of these rows, of what comes before `end`.
pub(super) fn log_rows(log: Arc<PushLog>, row_set: &RowSet, end: u64) -> LogRows {
    let (from, end) = row_set.stretch(log.first_position(), end);
    LogRows { log, from, end }
}

/// The tables that these features read, on-demand ones through their inputs.
fn tables_of(live: &Live, features: &[FeatureReference]) -> BTreeSet<usize> {
    let mut tables = BTreeSet::new();
    let mut waiting: Vec<(&str, &str)> =
        features.iter().map(|reference| (reference.view.as_str(), reference.feature.as_str())).collect();
    while let Some((view, output)) = waiting.pop() {
        let columns = live.compiled.layout.views.get(view).into_iter().flat_map(|view| &view.columns);
        tables.extend(columns.filter(|column| column.field.name == output).map(|column| column.table));
        let computed = live.revision.project.on_demand_feature_views.get(view).into_iter();
        let computed = computed.flat_map(|view| &view.features);
        let asked = computed.filter(|feature| feature.outputs.iter().any(|field| field.name == output));
        waiting.extend(asked.flat_map(|feature| &feature.inputs).filter_map(|input| match input {
            OnDemandInput::Request { .. } => None,
            OnDemandInput::Feature { view, output, .. } => Some((view.as_str(), output.as_str())),
        }));
    }
    tables
}
