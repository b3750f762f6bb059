//! One run: one table, its rows from files and log, sorted and folded.

use super::BatchError;
use super::entity_rows::{self, EntityRows};
use super::files::{DataFile, PinnedFile, open_files, open_pinned};
use super::fold_exec::{FoldExec, Wanted};
use super::probes::Probes;
use super::rows_exec::{Chunk, RowsExec, Scan, decode_error};
use super::settings::{BatchHost, BatchSettings, Rows};
use super::slice::Slice;
use super::sort_row::{HASH, ORDER, SortSchema};
use super::table_values::AsOf;
use crate::decode::ColumnsDecoder;
use crate::source::PushLog;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{LexOrdering, PhysicalSortExpr};
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties, Partitioning, execute_stream};
use futures::stream::StreamExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// A stretch of a push log: the same rows however far it has grown since.
#[derive(Clone)]
pub struct LogRows {
    pub log: Arc<PushLog>,
    /// The first position that is in it.
    pub from: u64,
    pub end: u64,
}

impl LogRows {
    /// From the log's beginning.
    pub fn until(log: Arc<PushLog>, end: u64) -> LogRows {
        LogRows { from: log.first_position(), log, end }
    }
}

/// A run that is about to be polled.
pub(super) struct Run {
    pub scan: Arc<Scan>,
    pub pins: Vec<PinnedFile>,
    plan: Arc<dyn ExecutionPlan>,
    context: Arc<TaskContext>,
    runtime: tokio::runtime::Runtime,
}

/// What a run has seen, once it has ended.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// Event time of the source's newest decoded row.
    pub newest_us: Option<i64>,
    /// The watermark up to which it is settled.
    pub settled_us: Option<i64>,
    pub null_keys: u64,
}

impl Run {
    /// `sorted`: whether the results come in order (of key, or of label).
    pub fn new(
        host: &BatchHost<'_>,
        slice: Slice,
        rows: &Rows,
        wanted: Wanted,
        probes: Option<Probes>,
        sorted: bool,
    ) -> Result<Run, BatchError> {
        let as_of_us = match wanted {
            Wanted::Values(AsOf::At(as_of_us)) => Some(as_of_us),
            _ => None,
        };
        Run::over(host, slice, rows, as_of_us, None, probes, |scan, partitions, threads| {
            plan_of(scan, partitions, threads, wanted, sorted)
        })
    }

    /// The rows of one entity in canonical order, for a slice of one feature; nothing is folded.
    pub fn of_entity(host: &BatchHost<'_>, slice: Slice, rows: &Rows, key: Vec<u8>) -> Result<Run, BatchError> {
        let entity = EntityRows::of(&slice, key)?;
        Run::over(host, slice, rows, None, Some(entity), None, |scan, partitions, _| entity_plan(scan, partitions))
    }

    fn over(
        host: &BatchHost<'_>,
        slice: Slice,
        rows: &Rows,
        as_of_us: Option<i64>,
        entity: Option<EntityRows>,
        probes: Option<Probes>,
        plan: impl FnOnce(&Arc<Scan>, Vec<Vec<Chunk>>, usize) -> Result<Arc<dyn ExecutionPlan>, BatchError>,
    ) -> Result<Run, BatchError> {
        let source = &slice.source;
        let files = match (rows.pinned.get(&source.name), &source.batch_path) {
            (Some(pins), _) => open_pinned(pins)?,
            (None, Some(path)) => open_files(path)?,
            (None, None) => Vec::new(),
        };
        let log = rows.logs.get(&source.name);
        let late = rows.late.get(&source.name).cloned();
        if files.is_empty() && log.is_none() && source.batch_path.is_none() && !source.push {
            let text = format!("source `{}` has no files and no log here: add `batch:`", source.name);
            return Err(BatchError::Input(text));
        }
        let decoder = ColumnsDecoder::new(source).map_err(decode_error)?;
        for file in &files {
            decoder.check(&file.whole_schema(source), &file.pin.path).map_err(decode_error)?;
        }
        // What is sorted beside the columns: key, time, hash and place.
        let row_bytes = files.iter().map(|file| file.row_bytes).max().unwrap_or(0).max(128) + 64;
        let pins: Vec<PinnedFile> = files.iter().map(|file| file.pin.clone()).collect();
        let in_log = log.map_or(0, |log| log.end.saturating_sub(log.from));
        let asked = probes.as_ref().map_or(0, Probes::len);
        let total = pins.iter().map(|pin| pin.rows).sum::<u64>() + in_log;
        let threads = host.settings.threads.max(1);
        let partitions = deal(files, log, total, threads, probes);
        let scan = Arc::new(Scan {
            sort: SortSchema::of(&slice),
            slice,
            refusals: host.refusals.clone(),
            late,
            paths: pins.iter().map(|pin| pin.path.clone()).collect(),
            from_us: rows.from_us,
            to_us: rows.to_us,
            as_of_us,
            entity,
            newest_us: Arc::new(AtomicI64::new(i64::MIN)),
            newest_in_log_us: AtomicI64::new(i64::MIN),
            null_keys: AtomicU64::new(0),
            rows_read: AtomicU64::new(0),
            rows_total: total + asked,
            progress: host.progress.clone(),
            cancelled: host.settings.cancelled.clone(),
        });
        let plan = plan(&scan, partitions, threads)?;
        Ok(Run { scan, pins, plan, context: host.context(row_bytes)?, runtime: host.runtime()? })
    }

    /// The columns of what `each` gives.
    pub fn schema(&self) -> SchemaRef {
        self.plan.schema()
    }

    /// Runs it, and gives each batch to `take`, on this thread.
    pub fn each(
        self,
        mut take: impl FnMut(RecordBatch, &Scan) -> Result<(), BatchError>,
    ) -> Result<(Seen, Vec<PinnedFile>), BatchError> {
        let Run { scan, pins, plan, context, runtime } = self;
        let result = runtime.block_on(async {
            let mut stream: SendableRecordBatchStream = execute_stream(plan, context).map_err(BatchError::of)?;
            while let Some(batch) = stream.next().await {
                let batch = batch.map_err(BatchError::of)?;
                BatchSettings::check_cancelled(&scan.cancelled)?;
                if batch.num_rows() > 0 {
                    take(batch, &scan)?;
                }
            }
            Ok::<(), BatchError>(())
        });
        // Tasks that still read a file after an error are not waited for.
        runtime.shutdown_background();
        result?;
        let newest_us = scan.newest_us.load(Ordering::Acquire);
        let seen = Seen {
            newest_us: (newest_us > i64::MIN).then_some(newest_us),
            settled_us: (newest_us > i64::MIN).then(|| scan.settled_us()),
            null_keys: scan.null_keys.load(Ordering::Relaxed),
        };
        Ok((seen, pins))
    }
}

fn plan_of(
    scan: &Arc<Scan>,
    partitions: Vec<Vec<Chunk>>,
    threads: usize,
    wanted: Wanted,
    sorted: bool,
) -> Result<Arc<dyn ExecutionPlan>, BatchError> {
    let mut plan: Arc<dyn ExecutionPlan> = Arc::new(RowsExec::new(scan.clone(), partitions));
    if threads > 1 || plan.output_partitioning().partition_count() > 1 {
        let hash = Arc::new(Column::new("hash", HASH));
        let exchange = RepartitionExec::try_new(plan, Partitioning::Hash(vec![hash], threads));
        plan = Arc::new(exchange.map_err(BatchError::of)?);
    }
    let sort = SortExec::new(by("order", ORDER)?, plan).with_preserve_partitioning(true);
    plan = Arc::new(FoldExec::new(Arc::new(sort), scan.clone(), wanted));
    if !sorted {
        return Ok(Arc::new(CoalescePartitionsExec::new(plan)));
    }
    let first = by(if wanted == Wanted::Probes { "label" } else { "key" }, 0)?;
    if wanted == Wanted::Probes {
        plan = Arc::new(SortExec::new(first.clone(), plan).with_preserve_partitioning(true));
    }
    Ok(Arc::new(SortPreservingMergeExec::new(first, plan)))
}

/// Canonical order is event time, then the inputs as declared; what is equal in all of it is told apart by its place.
fn entity_plan(scan: &Arc<Scan>, partitions: Vec<Vec<Chunk>>) -> Result<Arc<dyn ExecutionPlan>, BatchError> {
    let inputs = scan.entity.as_ref().map_or(0, |entity| entity.inputs.len());
    let plan = Arc::new(RowsExec::new(scan.clone(), partitions));
    let plan = Arc::new(CoalescePartitionsExec::new(plan));
    let numbers = [entity_rows::ORDER]
        .into_iter()
        .chain((0..inputs).map(|input| entity_rows::VALUES + input))
        .chain([entity_rows::PLACE, entity_rows::SUB_ROW]);
    let schema = plan.schema();
    let order = numbers.map(|number| {
        let name = schema.fields().get(number).map_or("", |field| field.name());
        PhysicalSortExpr::new_default(Arc::new(Column::new(name, number)))
    });
    let order = LexOrdering::new(order).ok_or_else(|| BatchError::internal("an order of nothing"))?;
    Ok(Arc::new(SortExec::new(order, plan)))
}

fn by(name: &str, number: usize) -> Result<LexOrdering, BatchError> {
    let order = PhysicalSortExpr::new_default(Arc::new(Column::new(name, number)));
    LexOrdering::new([order]).ok_or_else(|| BatchError::internal("an order of nothing"))
}

/// Deals the work out, about the same number of rows to each partition, in order.
fn deal(
    files: Vec<DataFile>,
    log: Option<&LogRows>,
    total: u64,
    threads: usize,
    probes: Option<Probes>,
) -> Vec<Vec<Chunk>> {
    let share = (total / threads as u64).max(1);
    let mut partitions: Vec<Vec<Chunk>> = vec![Vec::new()];
    let mut filled = 0;
    let mut put = |chunk: Chunk, rows: u64| {
        if filled >= share && partitions.len() < threads {
            partitions.push(Vec::new());
            filled = 0;
        }
        filled += rows;
        if let Some(last) = partitions.last_mut() {
            last.push(chunk);
        }
    };
    for (number, file) in files.into_iter().enumerate() {
        let file = Arc::new(file);
        let number = u32::try_from(number).unwrap_or(super::sort_row::LOG_ORIGIN);
        let (mut start, mut first_row, mut rows) = (0, 0, 0);
        for group in 0..file.row_groups.len() {
            rows += file.row_groups[group];
            if rows >= share || group + 1 == file.row_groups.len() {
                put(Chunk::File { file: file.clone(), number, groups: start..group + 1, first_row }, rows);
                (start, first_row, rows) = (group + 1, first_row + rows, 0);
            }
        }
    }
    if let Some(log) = log {
        let mut from = log.from;
        while from < log.end {
            let until = log.end.min(from.saturating_add(share));
            put(Chunk::Log { log: log.clone(), from, until }, until - from);
            from = until;
        }
    }
    if let Some(probes) = probes {
        partitions.push(vec![Chunk::Probes(Arc::new(probes))]);
    }
    partitions
}
