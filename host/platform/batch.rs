//! Snapshots and training sets of a running project: the source's files as they are, and the log up to now.

use super::{PlatformError, ProjectHost};
use crate::batch::{
    BatchHost, BatchSettings, HistoricalAsk, LogRows, Progress, RefusalSummary, Refusals, Rows, SnapshotAsk,
    feature_references,
};
use serde::Serialize;
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

    /// Writes the training set of a label file to a Parquet file.
    pub fn historical(
        &self,
        labels: &Path,
        features: &str,
        timestamp: &str,
        out: &Path,
        request: BatchRequest,
    ) -> Result<impl Serialize + use<>, PlatformError> {
        self.with_batch_host(request, |host, rows| {
            let features = feature_references(host.project, features)?;
            let ask = HistoricalAsk { labels: labels.to_owned(), features, timestamp: timestamp.to_owned() };
            Ok(host.historical(&ask, rows, out)?)
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
