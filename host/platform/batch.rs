//! Batch work of a running project: over which rows, and what is said of it. Snapshots are here.

use super::{PlatformError, ProjectHost};
use crate::batch::{
    BatchHost, BatchSettings, LogRows, Progress, RefusalSummary, Refusals, Rows, SnapshotAsk, SnapshotSummary,
};
use crate::define::Project;
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

    /// Files as they are, and the logs up to now.
    pub(super) fn rows_now(&self, project: &Project) -> Result<Rows, PlatformError> {
        let mut rows = Rows::default();
        for (name, log) in self.open_logs(project)? {
            let end = log.end_position();
            rows.logs.insert(name, LogRows { log, end });
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
