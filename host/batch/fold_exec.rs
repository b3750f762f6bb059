//! The operator that folds: sorted rows and probes in, values or states out.
//!
//! Of one partition it holds two batches (an entity is finished only when the next batch begins with another) and the
//! state of the entity that goes on. What comes out:
//!
//! - probes: `label`, `newest` (of the entity's rows up to there; null: not known), the value columns;
//! - at the end: `key`, `newest`, `next_change`, the value columns, by key;
//! - states: `key`, `newest`, for each feature its persisted cell.
//!
//! Value columns are, for each feature, its outputs, then `reason` (null: the value is just what it is) and `failed`.

use super::BatchError;
use super::entities::Entities;
use super::fold_cells::{Ask, Cell, FeatureCells, FeatureValues, OrderedRows};
use super::refusal::{Refusal, RefusedBy};
use super::rows_exec::Scan;
use super::sort_row::{INPUTS, ORDER, SUB_ROW, place_of, split_order};
use super::table_values::AsOf;
use crate::rows::Stage;
use arrow::array::{
    ArrayRef, AsArray, BinaryArray, BooleanArray, Int64Array, StringArray, TimestampMicrosecondArray, UInt32Array,
    UInt64Array,
};
use arrow::compute::{concat, take};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt32Type};
use arrow::record_batch::RecordBatch;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, Partitioning, PlanProperties,
};
use futures::stream::{self, StreamExt};
use onefold_fold::{FoldJob, JobError, RowOrder};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What a run asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Probes,
    Values(AsOf),
    States,
}

pub(super) struct FoldExec {
    input: Arc<dyn ExecutionPlan>,
    scan: Arc<Scan>,
    wanted: Wanted,
    properties: Arc<PlanProperties>,
}

impl FoldExec {
    pub fn new(input: Arc<dyn ExecutionPlan>, scan: Arc<Scan>, wanted: Wanted) -> FoldExec {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(output_schema(&scan, wanted)),
            Partitioning::UnknownPartitioning(input.output_partitioning().partition_count()),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        FoldExec { input, scan, wanted, properties: Arc::new(properties) }
    }
}

fn output_schema(scan: &Scan, wanted: Wanted) -> SchemaRef {
    let table = &scan.slice.layout.tables[0];
    let mut fields = match wanted {
        Wanted::Probes => vec![Field::new("label", DataType::UInt64, false)],
        Wanted::Values(_) | Wanted::States => vec![Field::new("key", DataType::Binary, false)],
    };
    fields.push(Field::new("newest", DataType::Int64, true));
    if let Wanted::Values(_) = wanted {
        fields.push(Field::new("next_change", DataType::Int64, true));
    }
    for (number, feature) in table.features.iter().enumerate() {
        if wanted == Wanted::States {
            fields.push(Field::new(format!("state_{number}"), DataType::Binary, false));
            continue;
        }
        for (output, field) in feature.outputs.iter().enumerate() {
            fields.push(Field::new(format!("value_{number}_{output}"), field.kind.data_type(), true));
        }
        fields.push(Field::new(format!("reason_{number}"), DataType::Utf8, true));
        fields.push(Field::new(format!("failed_{number}"), DataType::Boolean, false));
    }
    Arc::new(Schema::new(fields))
}

impl fmt::Debug for FoldExec {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "FoldExec({:?})", self.wanted)
    }
}

impl DisplayAs for FoldExec {
    fn fmt_as(&self, _: DisplayFormatType, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "FoldExec: features={}", self.scan.slice.udfs.len())
    }
}

impl ExecutionPlan for FoldExec {
    fn name(&self) -> &str {
        "FoldExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DataFusionResult<TreeNodeRecursion>,
    ) -> DataFusionResult<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        Ok(match children.pop() {
            Some(input) => Arc::new(FoldExec::new(input, self.scan.clone(), self.wanted)),
            None => self,
        })
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> DataFusionResult<SendableRecordBatchStream> {
        let input = self.input.execute(partition, context)?;
        let fold = Fold::new(self.scan.clone(), self.wanted, self.schema());
        let state = Some((input, fold, None::<RecordBatch>));
        let batches = stream::try_unfold(state, |state| async move {
            let Some((mut input, mut fold, mut held)) = state else { return Ok(None) };
            loop {
                let next = input.next().await.transpose()?;
                let ended = next.is_none();
                if next.as_ref().is_some_and(|batch| batch.num_rows() == 0) {
                    continue;
                }
                let (batch, next) = match (std::mem::take(&mut held), next) {
                    (Some(batch), Some(next)) if fold.needs_instants_whole => whole_instants(batch, next)?,
                    (batch, next) => (batch, next),
                };
                held = next;
                let Some(batch) = batch else {
                    if ended {
                        return Ok(None);
                    }
                    continue;
                };
                let after = held.as_ref().map(|next| next.column(ORDER).as_binary::<i32>().value(0));
                let folded = fold.batch(&batch, after)?;
                let state = if ended { None } else { Some((input, fold, held)) };
                return Ok(Some((folded, state)));
            }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), batches)))
    }
}

/// Moves the last rows of a batch before the first of the next, where these are of the same entity and instant: the
/// order of rows of one instant is decided among all of them. Nothing is left of a batch that is one instant.
fn whole_instants(
    batch: RecordBatch,
    next: RecordBatch,
) -> Result<(Option<RecordBatch>, Option<RecordBatch>), BatchError> {
    let instant = |batch: &RecordBatch, row: usize| {
        let order = batch.column(ORDER).as_binary::<i32>().value(row).to_vec();
        split_order(&order).2.then_some(order)
    };
    let Some(first) = instant(&next, 0) else { return Ok((Some(batch), Some(next))) };
    let rows = batch.num_rows();
    let start = (0..rows).rev().take_while(|row| instant(&batch, *row).as_ref() == Some(&first)).last();
    let Some(start) = start else { return Ok((Some(batch), Some(next))) };
    let moved = batch.slice(start, rows - start);
    let next = arrow::compute::concat_batches(&batch.schema(), [&moved, &next])?;
    Ok(((start > 0).then(|| batch.slice(0, start)), Some(next)))
}

/// Rows of one entity and instant in the order of their inputs, everything else where it stands.
fn canonical_rows(entities: &Entities, inputs: &[ArrayRef]) -> Result<Vec<u32>, BatchError> {
    let order = RowOrder::of(inputs).ok_or_else(|| BatchError::internal("an input of no kind"))?;
    let mut rows: Vec<u32> = (0..entities.is_row.len() as u32).collect();
    for entity in 0..entities.len() {
        let of_entity = &mut rows[entities.rows(entity)];
        let same = |a: &u32, b: &u32| {
            let (a, b) = (*a as usize, *b as usize);
            entities.is_row[a] && entities.is_row[b] && entities.times_us[a] == entities.times_us[b]
        };
        for tied in of_entity.chunk_by_mut(same).filter(|tied| tied.len() > 1) {
            tied.sort_by_cached_key(|row| {
                let mut bytes = Vec::new();
                order.put(0, *row as usize, &mut bytes);
                bytes
            });
        }
    }
    Ok(rows)
}

/// The fold of one partition.
struct Fold {
    scan: Arc<Scan>,
    wanted: Wanted,
    schema: SchemaRef,
    jobs: Vec<FoldJob>,
    /// A feature takes its rows in order: those of one entity and instant must come in one batch.
    needs_instants_whole: bool,
    /// Key and newest row of an entity that goes on, and its state in each feature.
    open: Option<(Vec<u8>, Option<i64>)>,
    carried: Vec<Cell>,
}

impl Fold {
    fn new(scan: Arc<Scan>, wanted: Wanted, schema: SchemaRef) -> Fold {
        let table = &scan.slice.layout.tables[0];
        let features = table.features.iter().zip(&scan.slice.udfs);
        let jobs: Vec<FoldJob> = features.map(|(feature, udf)| FoldJob::new(udf.clone(), feature.window)).collect();
        let carried = vec![Cell::default(); jobs.len()];
        let needs_instants_whole = table.features.iter().any(|feature| feature.allowed_lateness_us.is_some());
        Fold { scan, wanted, schema, jobs, needs_instants_whole, open: None, carried }
    }

    fn ask(&self) -> Ask {
        // The sort below has ended, so every row has been read and the newest is known.
        match self.wanted {
            Wanted::Probes => Ask::Probes,
            Wanted::States => Ask::State,
            Wanted::Values(AsOf::At(as_of_us)) => Ask::AtEnd { as_of_us, or_newest: false },
            Wanted::Values(AsOf::ClockOrNewest(as_of_us)) => Ask::AtEnd { as_of_us, or_newest: true },
            Wanted::Values(AsOf::NewestOfSource) => {
                Ask::AtEnd { as_of_us: self.scan.newest_us.load(Ordering::Acquire), or_newest: false }
            }
        }
    }

    fn batch(&mut self, batch: &RecordBatch, next: Option<&[u8]>) -> Result<RecordBatch, BatchError> {
        let scan = self.scan.clone();
        let ask = self.ask();
        let before = self.open.as_ref().map(|(key, newest_us)| (&key[..], *newest_us));
        let entities = Entities::of(batch, before, next);
        let table = &scan.slice.layout.tables[0];
        let mut columns = self.leading_columns(&entities, ask)?;
        let mut next_change_us: Vec<i64> = Vec::new();
        let mut folded = Vec::with_capacity(self.jobs.len());
        for (number, feature) in table.features.iter().enumerate() {
            let mut inputs = Vec::with_capacity(feature.inputs.len() + 1);
            for input in &feature.inputs {
                let place =
                    scan.sort.inputs.binary_search(input).map_err(|_| BatchError::internal("a column is missing"))?;
                inputs.push(batch.column(INPUTS + place).clone());
            }
            let ordered = match feature.allowed_lateness_us {
                None => None,
                Some(allowed_us) => Some(OrderedRows {
                    rows: canonical_rows(&entities, &inputs)?,
                    order: RowOrder::of(&inputs).ok_or_else(|| BatchError::internal("an input of no kind"))?,
                    sub_rows: batch.column(SUB_ROW).as_primitive::<UInt32Type>().clone(),
                    settled_us: scan.settled_us().saturating_sub(allowed_us),
                }),
            };
            if feature.needs_event_time {
                let times = TimestampMicrosecondArray::from(entities.times_us.clone()).with_timezone("UTC");
                inputs.push(Arc::new(times) as ArrayRef);
            }
            let carried = &mut self.carried[number];
            let mut cells = FeatureCells::new(&entities, ask, number, feature.window, ordered, carried);
            let failed = self.jobs[number].run(batch.num_rows() as u32, &inputs, &mut cells).map_err(job_error)?;
            if let Some(damaged) = cells.damaged.take() {
                return Err(BatchError::internal(damaged));
            }
            for failed in failed {
                let row = failed.row as usize;
                scan.refusals.refused(Refusal {
                    source: scan.slice.source.name.clone(),
                    place: place_of(entities.places.value(row), &scan.paths),
                    sub_row: batch.column(SUB_ROW).as_primitive::<UInt32Type>().value(row),
                    stage: Stage::Fold,
                    refused_by: RefusedBy::Feature(feature.fingerprint),
                    message: failed.message,
                });
            }
            if number == 0 {
                next_change_us = std::mem::take(&mut cells.next_change_us);
            } else {
                for (earliest, change) in next_change_us.iter_mut().zip(&cells.next_change_us) {
                    *earliest = (*earliest).min(*change);
                }
            }
            folded.push(cells.finish(&feature.outputs)?);
        }
        if let Wanted::Values(_) = self.wanted {
            let changes = next_change_us.iter().map(|change| (*change < i64::MAX).then_some(*change));
            columns.push(Arc::new(Int64Array::from_iter(changes)));
        }
        for (values, states) in folded {
            match self.wanted {
                Wanted::States => columns.push(Arc::new(BinaryArray::from_iter_values(states))),
                Wanted::Values(_) => columns.extend(value_columns(values)),
                Wanted::Probes => columns.extend(spread(&entities, value_columns(values))?),
            }
        }
        self.open = entities.unfinished.then(|| {
            let last = entities.len() - 1;
            (entities.key(last).to_vec(), entities.newest_us(last))
        });
        Ok(RecordBatch::try_new(self.schema.clone(), columns)?)
    }

    fn leading_columns(&self, entities: &Entities, ask: Ask) -> Result<Vec<ArrayRef>, BatchError> {
        if ask == Ask::Probes {
            let probes = || (0..entities.is_row.len()).filter(|row| !entities.is_row[*row]);
            return Ok(vec![
                Arc::new(UInt64Array::from_iter_values(probes().map(|row| entities.places.value(row)))),
                Arc::new(Int64Array::from_iter(probes().map(|row| entities.newest_us[row]))),
            ]);
        }
        let complete = || (0..entities.len()).filter(|entity| entities.is_complete(*entity));
        Ok(vec![
            Arc::new(BinaryArray::from_iter_values(complete().map(|entity| entities.key(entity)))),
            Arc::new(Int64Array::from_iter(complete().map(|entity| entities.newest_us(entity)))),
        ])
    }
}

fn value_columns(values: FeatureValues) -> Vec<ArrayRef> {
    let mut columns = values.outputs;
    columns.push(Arc::new(StringArray::from_iter(values.reasons.iter().map(Option::as_deref))));
    columns.push(Arc::new(BooleanArray::from(values.failed)));
    columns
}

/// Probes before the first row ask nothing of the fold: their values are null, and they have not failed.
fn spread(entities: &Entities, columns: Vec<ArrayRef>) -> Result<Vec<ArrayRef>, BatchError> {
    let mut asked = 0;
    let mut places = Vec::new();
    for row in (0..entities.is_row.len()).filter(|row| !entities.is_row[*row]) {
        let known = entities.newest_us[row].is_some();
        places.push(known.then_some(asked));
        asked += u32::from(known);
    }
    if places.len() == asked as usize {
        return Ok(columns);
    }
    let last = columns.len() - 1;
    let mut spread = Vec::with_capacity(columns.len());
    for (number, column) in columns.into_iter().enumerate() {
        if number < last {
            spread.push(take(&column, &UInt32Array::from(places.clone()), None)?);
        } else {
            // `failed` is never null.
            let column = concat(&[column.as_ref(), &BooleanArray::from(vec![false])])?;
            let places = places.iter().map(|place| place.unwrap_or(asked));
            spread.push(take(&column, &UInt32Array::from_iter_values(places), None)?);
        }
    }
    Ok(spread)
}

fn job_error(error: JobError) -> BatchError {
    match error {
        JobError::Call(failure) => {
            BatchError::Fold(format!("a module of the registered definitions cannot be run: {failure}"))
        }
        damaged => BatchError::internal(damaged),
    }
}
