//! What the batch host runs with, and over which rows.

use super::BatchError;
use super::files::PinnedFile;
use super::refusal::RefusalSink;
use super::run::LogRows;
use crate::define::{Digest, Project, UdfUse};
use datafusion::execution::TaskContext;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::prelude::SessionConfig;
use onefold_fold::{Field, Udf};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Finds and prepares a UDF of a registered definition; the error is a text for the user.
pub type Prepare<'a> = dyn Fn(&UdfUse, &[Field]) -> Result<Udf, String> + 'a;

#[derive(Clone, Debug)]
pub struct BatchSettings {
    /// What sorting may hold before it goes to disk. Modules' memories, and a few batches a thread, come on top.
    pub memory_limit_bytes: usize,
    pub threads: usize,
    /// Where what does not fit goes; it must exist.
    pub temporary_dir: PathBuf,
    /// Rows of one batch.
    pub batch_rows: usize,
    /// Set by whoever does not want the work any more: it fails as cancelled, soon.
    pub cancelled: Arc<AtomicBool>,
}

impl BatchSettings {
    /// Fails once the work has been cancelled.
    pub(super) fn check_cancelled(cancelled: &AtomicBool) -> Result<(), BatchError> {
        match cancelled.load(Ordering::Relaxed) {
            true => Err(BatchError::Cancelled),
            false => Ok(()),
        }
    }

    /// An error once nobody wants the work any more.
    pub fn check_wanted(&self) -> Result<(), BatchError> {
        BatchSettings::check_cancelled(&self.cancelled)
    }

    /// 1 GiB and the machine's threads.
    pub fn new(temporary_dir: impl Into<PathBuf>) -> BatchSettings {
        BatchSettings {
            memory_limit_bytes: 1 << 30,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            temporary_dir: temporary_dir.into(),
            batch_rows: 8192,
            cancelled: Arc::default(),
        }
    }
}

/// Rows read so far, of how many: labels count, and a source counts once for each table that is made of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    pub rows: u64,
    pub total: u64,
}

/// Which rows a run is made of.
#[derive(Clone, Default)]
pub struct Rows {
    /// Push logs by the name of their source. A source without one has its files alone.
    pub logs: BTreeMap<String, LogRows>,
    /// Exactly these files instead of what lies there now, by source.
    pub pinned: BTreeMap<String, Vec<PinnedFile>>,
    /// Rows of files with `from <= event time < to` alone.
    pub from_us: Option<i64>,
    pub to_us: Option<i64>,
    /// By source, rows of its log that came too late for ordered features, and that their values are to lack.
    pub late: BTreeMap<String, Arc<LateRows>>,
}

/// Rows of a log by the fingerprint of the feature that lacks them: position, and which of the rows made of the record.
pub type LateRows = BTreeMap<Digest, BTreeSet<(u64, u32)>>;

/// Runs batches. Its functions wait for their end: call them outside an async task.
pub struct BatchHost<'a> {
    pub project: &'a Project,
    pub prepare: &'a Prepare<'a>,
    pub settings: BatchSettings,
    pub refusals: Arc<dyn RefusalSink>,
    /// Told from several threads, after each batch that was read.
    pub progress: Arc<dyn Fn(Progress) + Send + Sync>,
}

impl BatchHost<'_> {
    pub(super) fn runtime(&self) -> Result<tokio::runtime::Runtime, BatchError> {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(self.settings.threads.max(1))
            .thread_name("batch")
            .enable_all()
            .build()
            .map_err(|error| BatchError::Resources(format!("cannot start threads: {error}")))
    }

    /// `row_bytes`: about how large a row is.
    pub(super) fn context(&self, row_bytes: usize) -> Result<Arc<TaskContext>, BatchError> {
        let BatchSettings { memory_limit_bytes, threads, temporary_dir, batch_rows, cancelled: _ } = &self.settings;
        let threads = (*threads).max(1);
        // What a sort keeps back to merge its runs; of a small limit a quarter, so that it can hold rows at all.
        let reserved = (memory_limit_bytes / (threads * 4)).min(128 << 20);
        // A thread holds several batches at a time, whatever the limit of its sort: they must be small beside it.
        let batch_bytes = (memory_limit_bytes / (threads * 32)).min(16 << 20);
        let batch_rows = (*batch_rows).min(batch_bytes / row_bytes.max(1)).clamp(1, 1 << 20);
        let mut config = SessionConfig::new()
            .with_target_partitions(threads)
            .with_batch_size(batch_rows)
            .with_sort_spill_reservation_bytes(reserved);
        config.options_mut().execution.sort_in_place_threshold_bytes = 1 << 20;
        // A merge takes runs as long as it gets memory, and then lacks it for its own cursors: it may take what is
        // kept back for it, two batches a run.
        let merged_at_once = (reserved / (2 * batch_rows * row_bytes).max(1)).clamp(2, 64);
        let disk = DiskManagerBuilder::default()
            .with_mode(DiskManagerMode::Directories(vec![temporary_dir.clone()]))
            .with_max_spill_merge_fan_in(merged_at_once);
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(FairSpillPool::new(*memory_limit_bytes)))
            .with_disk_manager_builder(disk)
            .build_arc()
            .map_err(BatchError::of)?;
        Ok(Arc::new(TaskContext::new(
            None,
            "batch".to_owned(),
            config,
            Default::default(),
            Default::default(),
            Default::default(),
            Default::default(),
            runtime,
        )))
    }
}
