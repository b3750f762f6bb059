//! The leaf of every batch plan: reads, decodes and transforms rows, and gives them ready to be sorted.
//!
//! Work is cut into chunks: row groups of one file, or a stretch of the log. A chunk is read in order, so that each row
//! has its number in the file without the file saying it; chunks are dealt out to partitions.

use super::BatchError;
use super::entity_rows::{EntityRows, SourceRows};
use super::files::DataFile;
use super::probes::Probes;
use super::refusal::{Refusal, RefusalSink, RefusedBy};
use super::run::LogRows;
use super::settings::{BatchSettings, LateRows, Progress};
use super::slice::Slice;
use super::sort_row::{LOG_ORIGIN, Origin, SortSchema, Telling, pack, place_of};
use crate::decode::{ColumnsDecoder, DecodeError, Decoded, JsonDecoder};
use crate::rows::{Failure, RowBatch, Stage, future_message};
use crate::source::LogBatch;
use arrow::array::{AsArray, UInt32Array};
use arrow::datatypes::{SchemaRef, TimestampMicrosecondType};
use arrow::record_batch::RecordBatch;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::ParquetAccessPlan;
use datafusion::datasource::physical_plan::{FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties};
use futures::stream::{self, BoxStream, StreamExt};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

/// How much of the log is decoded at once.
const LOG_READ_BYTES: usize = 4 << 20;

/// A piece of work.
#[derive(Clone)]
pub(super) enum Chunk {
    File { file: Arc<DataFile>, number: u32, groups: Range<usize>, first_row: u64 },
    Log { log: LogRows, from: u64, until: u64 },
    Probes(Arc<Probes>),
}

/// What all partitions share.
pub(super) struct Scan {
    pub slice: Slice,
    pub sort: SortSchema,
    /// The rows of this entity alone are wanted, to be explained and not to be folded.
    pub entity: Option<EntityRows>,
    pub refusals: Arc<dyn RefusalSink>,
    /// The files by their number.
    pub paths: Vec<String>,
    pub from_us: Option<i64>,
    pub to_us: Option<i64>,
    /// Rows after this instant are not wanted by any probe.
    pub as_of_us: Option<i64>,
    /// Event time of the newest decoded row, `i64::MIN` before the first; whole once every partition has ended.
    pub newest_us: Arc<AtomicI64>,
    /// The same of the rows of the log alone.
    pub newest_in_log_us: AtomicI64,
    /// Rows of the log that came too late for some features.
    pub late: Option<Arc<LateRows>>,
    pub null_keys: AtomicU64,
    pub rows_read: AtomicU64,
    pub rows_total: u64,
    pub progress: Arc<dyn Fn(Progress) + Send + Sync>,
    pub cancelled: Arc<AtomicBool>,
}

pub(super) struct RowsExec {
    scan: Arc<Scan>,
    partitions: Vec<Vec<Chunk>>,
    properties: Arc<PlanProperties>,
}

impl RowsExec {
    pub fn new(scan: Arc<Scan>, partitions: Vec<Vec<Chunk>>) -> RowsExec {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(scan.schema()),
            Partitioning::UnknownPartitioning(partitions.len()),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        RowsExec { scan, partitions, properties: Arc::new(properties) }
    }
}

impl fmt::Debug for RowsExec {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "RowsExec({} partitions)", self.partitions.len())
    }
}

impl DisplayAs for RowsExec {
    fn fmt_as(&self, _: DisplayFormatType, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "RowsExec: source={}", self.scan.slice.source.name)
    }
}

impl ExecutionPlan for RowsExec {
    fn name(&self) -> &str {
        "RowsExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DataFusionResult<TreeNodeRecursion>,
    ) -> DataFusionResult<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> DataFusionResult<SendableRecordBatchStream> {
        let chunks = self.partitions.get(partition).cloned().unwrap_or_default();
        let scan = self.scan.clone();
        let batches = stream::iter(chunks).flat_map(move |chunk| {
            scan.clone().read(chunk, &context).unwrap_or_else(|error| stream::iter([Err(error)]).boxed())
        });
        let batches = batches.map(|batch| batch.map_err(Into::into));
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.scan.schema(), batches)))
    }
}

type Batches = BoxStream<'static, Result<RecordBatch, BatchError>>;

impl Scan {
    fn schema(&self) -> SchemaRef {
        self.entity.as_ref().map_or(&self.sort.schema, |entity| &entity.schema).clone()
    }

    fn read(self: Arc<Self>, chunk: Chunk, context: &Arc<TaskContext>) -> Result<Batches, BatchError> {
        match chunk {
            Chunk::File { file, number, groups, first_row } => {
                let decoder = ColumnsDecoder::new(&self.slice.source).map_err(decode_error)?;
                let batches = read_file(&file, groups, &decoder.batch_columns(), context)?;
                let mut next_row = first_row;
                let batches = batches.map(move |batch| {
                    let batch = batch.map_err(|error| broken_file(&file, error))?;
                    let first = next_row;
                    next_row += batch.num_rows() as u64;
                    self.count(batch.num_rows());
                    let batch = file.with_partitions(&self.slice.source, batch)?;
                    let decoded = decoder.decode(&batch, &file.pin.path).map_err(decode_error)?;
                    let place = |record: u32| first + u64::from(record);
                    self.rows(decoded, &Origin { number, place: &place, late: None }, BTreeMap::new(), |time| {
                        self.from_us.is_none_or(|from| from <= time) && self.to_us.is_none_or(|to| time < to)
                    })
                });
                Ok(batches.boxed())
            }
            Chunk::Log { log, from, until } => {
                let decoder = JsonDecoder::new(&self.slice.source).map_err(decode_error)?;
                let reader = log.log.reader(from).map_err(|error| BatchError::unreadable("push log", error))?;
                let state = (self, decoder, reader);
                let batches = stream::unfold(state, move |(scan, mut decoder, mut reader)| async move {
                    if reader.position() >= until {
                        return None;
                    }
                    let read = reader.next(LOG_READ_BYTES, Duration::ZERO);
                    let batch =
                        read.map_err(|error| BatchError::unreadable("push log", error)).and_then(
                            |batches| match batches.is_empty() {
                                true => Err(BatchError::unreadable("push log", "it ends before its last position")),
                                false => scan.log_rows(&mut decoder, &batches, until),
                            },
                        );
                    Some((batch, (scan, decoder, reader)))
                });
                // The first error ends it: a broken place in the log would be met for ever.
                let mut failed = false;
                let batches = batches.take_while(move |batch| {
                    let go_on = !failed;
                    failed = batch.is_err();
                    futures::future::ready(go_on)
                });
                Ok(batches.boxed())
            }
            Chunk::Probes(probes) => {
                let batches = probes.batches(self.sort.clone())?;
                Ok(stream::iter(batches.inspect(move |batch| {
                    if let Ok(batch) = batch {
                        self.count(batch.num_rows());
                    }
                }))
                .boxed())
            }
        }
    }

    fn count(&self, rows: usize) {
        let rows = rows as u64;
        let before = self.rows_read.fetch_add(rows, Ordering::Relaxed);
        (self.progress)(Progress { rows: before + rows, total: self.rows_total });
    }

    fn log_rows(&self, decoder: &mut JsonDecoder, batches: &[LogBatch], until: u64) -> Result<RecordBatch, BatchError> {
        let mut places: Vec<(u64, i64)> = Vec::new();
        for batch in batches {
            let positions = batch.first_position..batch.first_position + batch.records.len() as u64;
            places.extend(positions.map(|position| (position, batch.arrival_us)));
        }
        let wanted = places.partition_point(|(position, _)| *position < until);
        let records = batches.iter().flat_map(|batch| batch.records.iter()).take(wanted);
        let decoded = decoder.decode(records).map_err(decode_error)?;
        self.count(wanted);
        let place = |record: u32| places.get(record as usize).map_or(0, |(position, _)| *position);
        let origin = Origin { number: LOG_ORIGIN, place: &place, late: self.late.as_deref() };
        let arrival_us = |record: u32| places.get(record as usize).map_or(i64::MAX, |(_, arrival_us)| *arrival_us);
        if self.entity.is_some() {
            let future = self.future(&decoded, arrival_us);
            return self.rows(decoded, &origin, future, |_| true);
        }
        let decoded = self.refuse_future(decoded, &origin, arrival_us)?;
        self.rows(decoded, &origin, BTreeMap::new(), |_| true)
    }

    /// Rule 10: a row whose event time is more than `max_future` after its arrival is refused.
    fn refuse_future(
        &self,
        decoded: Decoded,
        origin: &Origin<'_>,
        arrival_us: impl Fn(u32) -> i64,
    ) -> Result<Decoded, BatchError> {
        let source = &self.slice.source;
        let times =
            RowBatch::new(decoded.batch.columns().to_vec(), self.event_time(), decoded.records.clone(), Vec::new());
        let limit_us = |row: usize| arrival_us(decoded.records[row]).saturating_add(source.max_future_us);
        let is_future = |row: &usize| times.event_time_us[*row] > limit_us(*row);
        let future: Vec<usize> = (0..times.rows).filter(is_future).collect();
        if future.is_empty() {
            return Ok(decoded);
        }
        for row in &future {
            let record = decoded.records[*row];
            let message = future_message(source, times.event_time_us[*row], arrival_us(record));
            self.tell_all(origin, record, message);
        }
        let kept: Vec<u32> = (0..times.rows).filter(|row| !is_future(row)).map(|row| row as u32).collect();
        let taken = UInt32Array::from(kept.clone());
        let columns = decoded.batch.columns().iter().map(|column| arrow::compute::take(column, &taken, None));
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        let batch = RecordBatch::try_new(decoded.batch.schema(), columns)?;
        let records = kept.iter().map(|row| decoded.records[*row as usize]).collect();
        let failures = decoded.cell_failures.into_iter().filter_map(|mut failure| {
            failure.row = kept.binary_search(&failure.row).ok()? as u32;
            Some(failure)
        });
        Ok(Decoded { batch, records, refused: decoded.refused, cell_failures: failures.collect() })
    }

    /// The records that rule 10 refuses, and what is said of each.
    fn future(&self, decoded: &Decoded, arrival_us: impl Fn(u32) -> i64) -> BTreeMap<u32, String> {
        let source = &self.slice.source;
        let times = decoded.batch.column(self.event_time()).as_primitive::<TimestampMicrosecondType>().values();
        let records = decoded.records.iter().zip(times);
        let future =
            records.filter(|(record, time_us)| **time_us > arrival_us(**record).saturating_add(source.max_future_us));
        future.map(|(record, time_us)| (*record, future_message(source, *time_us, arrival_us(*record)))).collect()
    }

    /// The watermark up to which what is read is settled: the log's, or where that is empty the newest row of the
    /// files. Known once every partition has ended; the least number where there is no row.
    pub fn settled_us(&self) -> i64 {
        match self.newest_in_log_us.load(Ordering::Acquire) {
            i64::MIN => self.newest_us.load(Ordering::Acquire),
            newest_us => newest_us.saturating_sub(self.slice.source.out_of_orderness_us),
        }
    }

    fn event_time(&self) -> usize {
        let source = &self.slice.source;
        source.columns.iter().position(|column| column.name == source.event_time).unwrap_or(0)
    }

    fn tell_all(&self, origin: &Origin<'_>, record: u32, message: String) {
        self.refusals.refused(Refusal {
            source: self.slice.source.name.clone(),
            place: place_of(pack(origin.number, (origin.place)(record)), &self.paths),
            sub_row: 0,
            stage: Stage::Decode,
            refused_by: RefusedBy::All,
            message,
        });
    }

    /// Decoded rows of the source to rows of the table, ready to be sorted.
    fn rows(
        &self,
        decoded: Decoded,
        origin: &Origin<'_>,
        future: BTreeMap<u32, String>,
        within: impl Fn(i64) -> bool,
    ) -> Result<RecordBatch, BatchError> {
        BatchSettings::check_cancelled(&self.cancelled)?;
        for refused in decoded.refused {
            self.tell_all(origin, refused.record, refused.message);
        }
        let failure = |failure: crate::decode::CellFailure| Failure {
            row: failure.row,
            column: failure.column as usize,
            stage: Stage::Decode,
            message: failure.message,
        };
        let failures: Vec<Failure> = decoded.cell_failures.into_iter().map(failure).collect();
        let columns = decoded.batch.columns().to_vec();
        let source_rows = self.entity.as_ref().map(|_| SourceRows {
            columns: columns.clone(),
            records: decoded.records.clone(),
            failures: failures.clone(),
            future,
        });
        let batch = RowBatch::new(columns, self.event_time(), decoded.records, failures);
        let newest_us = batch.event_time_us.iter().copied().filter(|time| within(*time)).max();
        self.newest_us.fetch_max(newest_us.unwrap_or(i64::MIN), Ordering::AcqRel);
        if origin.number == LOG_ORIGIN {
            self.newest_in_log_us.fetch_max(newest_us.unwrap_or(i64::MIN), Ordering::AcqRel);
        }
        let mut refused = Vec::new();
        let Slice { layout, source, transforms, .. } = &self.slice;
        let mut spaces = transforms
            .run(layout, &source.name, batch, &mut refused)
            .map_err(|error| BatchError::Fold(error.to_string()))?;
        let table = &layout.tables[0];
        for row in refused.into_iter().filter(|row| layout.hangs_on(table.space, row.space)) {
            self.refusals.refused(Refusal {
                source: source.name.clone(),
                place: place_of(pack(origin.number, (origin.place)(row.record)), &self.paths),
                sub_row: row.sub_row,
                stage: row.stage,
                refused_by: RefusedBy::Table(table.id),
                message: row.message,
            });
        }
        let rows = spaces.get_mut(table.space).and_then(Option::take).unwrap_or_default();
        if rows.rows == 0 {
            return Ok(RecordBatch::new_empty(self.schema()));
        }
        if let (Some(entity), Some(source_rows)) = (&self.entity, &source_rows) {
            return entity.rows(self, &rows, source_rows, origin, within);
        }
        let telling = Telling { sink: self.refusals.as_ref(), paths: &self.paths };
        let as_of_us = self.as_of_us.unwrap_or(i64::MAX);
        let wanted = |time: i64| time <= as_of_us && within(time);
        let (sorted, null_keys) = self.sort.rows(&self.slice, &rows, origin, &telling, wanted)?;
        self.null_keys.fetch_add(null_keys, Ordering::Relaxed);
        Ok(sorted)
    }
}

/// The wanted columns of row groups of a file, by DataFusion's reader.
fn read_file(
    file: &DataFile,
    groups: Range<usize>,
    columns: &BTreeSet<&str>,
    context: &Arc<TaskContext>,
) -> Result<SendableRecordBatchStream, BatchError> {
    let fields = file.schema.fields().iter().enumerate();
    let wanted = fields.filter(|(_, field)| columns.contains(field.name().as_str())).map(|(number, _)| number);
    let mut access = ParquetAccessPlan::new_none(file.row_groups.len());
    groups.for_each(|group| access.scan(group));
    let path = object_store_path(file)?;
    let part = PartitionedFile::new(path, file.pin.size).with_extension(access);
    let source = Arc::new(ParquetSource::new(file.schema.clone()));
    let config = FileScanConfigBuilder::new(ObjectStoreUrl::local_filesystem(), source)
        .with_file(part)
        .with_projection_indices(Some(wanted.collect()))
        .map_err(BatchError::of)?
        .build();
    DataSourceExec::from_data_source(config).execute(0, context.clone()).map_err(|error| broken_file(file, error))
}

fn object_store_path(file: &DataFile) -> Result<String, BatchError> {
    let path = datafusion::object_store::path::Path::from_absolute_path(file.path())
        .map_err(|error| BatchError::unreadable(&file.pin.path, error))?;
    Ok(path.to_string())
}

fn broken_file(file: &DataFile, error: datafusion::error::DataFusionError) -> BatchError {
    match BatchError::of(error) {
        BatchError::Internal(reason) => BatchError::unreadable(
            &file.pin.path,
            format!("{reason}; the file is damaged or was changed while it was read"),
        ),
        other => other,
    }
}

pub(super) fn decode_error(error: DecodeError) -> BatchError {
    match error {
        DecodeError::Arrow(error) => BatchError::internal(error),
        other => BatchError::Input(other.to_string()),
    }
}
