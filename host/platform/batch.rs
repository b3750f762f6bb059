//! Snapshots and training sets of a running project: the source's files as they are, and the log up to now.

use super::history::Pins;
use super::letters::late_rows;
use super::{Live, PlatformError, ProjectHost};
use crate::batch::{
    BatchHost, BatchSettings, HistoricalAsk, LogRows, Progress, RefusalSummary, Refusals, Rows, SnapshotAsk,
    feature_references,
};
use crate::define::{FeatureReference, OnDemandInput};
use crate::rows::RowSet;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

/// How batch work runs, and who is told how far it is.
pub struct BatchRequest {
    pub settings: BatchSettings,
    pub progress: Arc<dyn Fn(Progress) + Send + Sync>,
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

impl ProjectHost {
    /// Writes every known entity's values at an instant (default: the newest row) to a Parquet file.
    pub fn snapshot(
        &self,
        view: &str,
        as_of_us: Option<i64>,
        out: &Path,
        request: BatchRequest,
    ) -> Result<impl Serialize + use<>, PlatformError> {
        let ask = SnapshotAsk { view: view.to_owned(), as_of_us };
        self.with_batch_host(request, |host, rows| Ok(host.snapshot_file(&ask, rows, out)?))
    }

    /// Writes the training set of a label file to a Parquet file. `as_served`: of the rows that the state is made of,
    /// without those that the stream refused.
    pub fn historical(
        &self,
        labels: &Path,
        features: &str,
        timestamp: &str,
        out: &Path,
        as_served: bool,
        request: BatchRequest,
    ) -> Result<impl Serialize + use<>, PlatformError> {
        self.with_batch_host(request, |host, rows| {
            let features = feature_references(host.project, features)?;
            let rows = if as_served { &self.served_rows(&features)? } else { rows };
            let ask = HistoricalAsk { labels: labels.to_owned(), features, timestamp: timestamp.to_owned() };
            Ok(host.historical(&ask, rows, out)?)
        })
    }

    /// The rows that the states of these features are made of, up to a checkpoint taken for it.
    fn served_rows(&self, features: &[FeatureReference]) -> Result<Rows, PlatformError> {
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
                if let Some(log) = self.log(source) {
                    let end = stopped.positions.get(source).copied().unwrap_or(0);
                    rows.logs.insert(source.to_owned(), LogRows { log, end });
                }
            }
            (rows.from_us, rows.to_us) = bounds.pop_first().unwrap_or_default();
            rows.late = late_rows(&live.compiled, &self.dead_letters(None)?, tables.iter().copied());
            Ok(rows)
        })
    }

    fn with_batch_host<T>(
        &self,
        request: BatchRequest,
        run: impl FnOnce(&BatchHost<'_>, &Rows) -> Result<T, PlatformError>,
    ) -> Result<BatchDone<T>, PlatformError> {
        let live = self.live()?;
        let project = &live.revision.project;
        let mut rows = Rows::default();
        for (name, log) in self.open_logs(project)? {
            let end = log.end_position();
            rows.logs.insert(name, LogRows { log, end });
        }
        let refusals = Arc::new(Refusals::default());
        let prepare = self.preparer();
        let BatchRequest { settings, progress } = request;
        let host = BatchHost { project, prepare: &prepare, settings, refusals: refusals.clone(), progress };
        let done = run(&host, &rows)?;
        Ok(BatchDone::new(done, &refusals))
    }
}

impl<T> BatchDone<T> {
    pub(super) fn new(done: T, refusals: &Refusals) -> BatchDone<T> {
        let refused: RefusalSummary = refusals.summary();
        let shown = refused.examples.iter().take(REFUSED_SHOWN).map(ToString::to_string);
        BatchDone { done, refused_rows: refused.total(), refused: shown.collect() }
    }
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
