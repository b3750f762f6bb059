//! Rows on their way to the fold: decoded columns, the columns that steps add, and what could not be had for a row.

use super::layout::{Layout, MadeOf, Step};
use arrow::array::{Array, ArrayRef, AsArray, TimestampMicrosecondArray, UInt32Array};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::datatypes::TimestampMicrosecondType;
use onefold_fold::{CallFailure, FilterError, Udf, mask};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Rows of one row space.
#[derive(Clone, Debug, Default)]
pub struct RowBatch {
    pub rows: usize,
    pub columns: Vec<ArrayRef>,
    /// Never null: a row without event time is refused when it is decoded.
    pub event_time_us: Vec<i64>,
    /// For each row, which record of the input it came from.
    pub records: Arc<Vec<u32>>,
    /// For each row, which of the rows that transforms made of that record.
    pub sub_rows: Arc<Vec<u32>>,
    /// Values that are null because they could not be had: they fail the row for what uses the column.
    pub failures: Vec<Failure>,
}

/// A value that could not be decoded or computed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub row: u32,
    pub column: usize,
    pub stage: Stage,
    pub message: String,
}

/// Where on its way a row failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    Decode,
    Transform,
    Fold,
}

/// A row that a transform which is not one-to-one made nothing of because it failed: refused by all tables of the
/// transform's space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedRow {
    pub space: usize,
    /// Row of the parent space.
    pub record: u32,
    pub sub_row: u32,
    pub stage: Stage,
    pub message: String,
}

/// The prepared UDFs of a layout's steps, in the same places.
pub struct Transforms {
    /// For each space, the transform it is made by.
    makers: Vec<Option<Udf>>,
    /// For each space, one a step.
    steps: Vec<Vec<Udf>>,
}

/// A transform that cannot be run at all.
#[derive(Debug, thiserror::Error)]
pub enum RowsError {
    #[error("transform `{udf}`: {failure}")]
    Transform { udf: String, failure: CallFailure },
    #[error(transparent)]
    Filter(#[from] FilterError),
}

impl Transforms {
    /// Prepares every step of the layout.
    pub fn prepare<E>(
        layout: &Layout,
        mut prepare: impl FnMut(&Step, &[onefold_fold::Field]) -> Result<Udf, E>,
    ) -> Result<Transforms, E> {
        let mut transforms = Transforms { makers: Vec::new(), steps: Vec::new() };
        for space in &layout.spaces {
            let fields = |step: &Step, columns: &[onefold_fold::Field]| {
                step.inputs.iter().map(|input| columns[*input].clone()).collect::<Vec<_>>()
            };
            transforms.makers.push(match &space.made_of {
                MadeOf::Source => None,
                MadeOf::Transform { space: parent, step, .. } => {
                    Some(prepare(step, &fields(step, &layout.spaces[*parent].columns))?)
                }
            });
            let steps = space.steps.iter().map(|step| prepare(step, &fields(step, &space.columns)));
            transforms.steps.push(steps.collect::<Result<Vec<_>, E>>()?);
        }
        Ok(transforms)
    }

    /// From a source's decoded rows to the rows of all its spaces (those of other sources stay `None`). `wanted`
    /// says which spaces are needed.
    pub fn run(
        &self,
        layout: &Layout,
        source: &str,
        decoded: RowBatch,
        refused: &mut Vec<RefusedRow>,
    ) -> Result<Vec<Option<RowBatch>>, RowsError> {
        let mut batches: Vec<Option<RowBatch>> = layout.spaces.iter().map(|_| None).collect();
        let mut decoded = Some(decoded);
        for (number, space) in layout.spaces.iter().enumerate() {
            if space.source != source {
                continue;
            }
            let mut batch = match (&space.made_of, &self.makers[number]) {
                (MadeOf::Transform { space: parent, step, carried }, Some(udf)) => match &batches[*parent] {
                    Some(parent) => make_rows(number, parent, step, carried, udf, space.event_time, refused)?,
                    None => continue,
                },
                _ => match decoded.take() {
                    Some(decoded) => decoded,
                    None => continue,
                },
            };
            for (step, udf) in space.steps.iter().zip(&self.steps[number]) {
                add_columns(&mut batch, step, udf)?;
            }
            batches[number] = Some(batch);
        }
        Ok(batches)
    }
}

impl RowBatch {
    /// A batch from decoded columns, the event time among them.
    pub fn new(columns: Vec<ArrayRef>, event_time: usize, records: Vec<u32>, failures: Vec<Failure>) -> RowBatch {
        let event_time_us = columns[event_time].as_primitive::<TimestampMicrosecondType>().values().to_vec();
        let rows = event_time_us.len();
        RowBatch {
            rows,
            columns,
            event_time_us,
            records: Arc::new(records),
            sub_rows: Arc::new(vec![0; rows]),
            failures,
        }
    }

    /// The columns of a UDF's call: its inputs, and the event time behind them where it asks for it.
    pub fn inputs_of(&self, columns: &[usize], needs_event_time: bool) -> Vec<ArrayRef> {
        let mut inputs: Vec<ArrayRef> = columns.iter().map(|column| self.columns[*column].clone()).collect();
        if needs_event_time {
            let times = TimestampMicrosecondArray::from(self.event_time_us.clone()).with_timezone("UTC");
            inputs.push(Arc::new(times));
        }
        inputs
    }

    /// Which rows take part in something that uses these columns and has this `where`: `None` = all of them.
    pub fn taking_part(
        &self,
        used_columns: &[usize],
        filter: &[(usize, onefold_fold::Comparison)],
    ) -> Result<Option<BooleanBuffer>, RowsError> {
        let mut taking_part = None;
        if !filter.is_empty() {
            let comparisons = filter.iter().map(|(column, comparison)| (comparison, &self.columns[*column]));
            taking_part = Some(mask(comparisons, self.rows)?);
        }
        let failed: Vec<usize> = self.failed_rows(used_columns).map(|failure| failure.row as usize).collect();
        if !failed.is_empty() {
            let mut passed = vec![true; self.rows];
            for row in failed {
                passed[row] = false;
            }
            let passed = BooleanBuffer::from(passed);
            taking_part = Some(match taking_part {
                Some(before) => &before & &passed,
                None => passed,
            });
        }
        Ok(taking_part)
    }

    /// The failures of these columns.
    pub fn failed_rows(&self, used_columns: &[usize]) -> impl Iterator<Item = &Failure> {
        let used = |failure: &&Failure| used_columns.contains(&failure.column);
        self.failures.iter().filter(used)
    }
}

/// Runs a one-to-one transform. A row in which an input failed, or which the transform refuses, fails its outputs.
fn add_columns(batch: &mut RowBatch, step: &Step, udf: &Udf) -> Result<(), RowsError> {
    let inputs = batch.inputs_of(&step.inputs, udf.needs_event_time());
    let mut failed: BTreeMap<u32, (Stage, String)> = batch
        .failed_rows(&step.inputs)
        .map(|failure| (failure.row, (failure.stage, failure.message.clone())))
        .collect();
    let mapped = transform(udf, step, batch.rows, &inputs)?;
    for (row, message) in mapped.failed {
        failed.entry(row).or_insert((Stage::Transform, message));
    }
    let places = |parent: &UInt32Array| {
        let mut place: Vec<Option<u32>> = vec![None; batch.rows];
        for (output, row) in parent.values().iter().enumerate() {
            place[*row as usize] = Some(output as u32);
        }
        UInt32Array::from(place)
    };
    let complete = mapped.parents.len() == batch.rows && failed.is_empty();
    for output in &mapped.outputs {
        let column = if complete {
            output.clone()
        } else {
            let places = places(&mapped.parents);
            let column = take(output, &places)?;
            without(&column, &failed)?
        };
        batch.columns.push(column);
    }
    for (row, (stage, message)) in failed {
        for output in 0..step.outputs.len() {
            let column = step.first_output + output;
            batch.failures.push(Failure { row, column, stage, message: message.clone() });
        }
    }
    Ok(())
}

/// The rows that a transform makes of a space's rows.
fn make_rows(
    space: usize,
    parent: &RowBatch,
    step: &Step,
    carried: &[usize],
    udf: &Udf,
    event_time: usize,
    refused: &mut Vec<RefusedRow>,
) -> Result<RowBatch, RowsError> {
    let refuse = |row: u32, stage, message: String| RefusedRow {
        space,
        record: parent.records[row as usize],
        sub_row: parent.sub_rows[row as usize],
        stage,
        message,
    };
    let mut excluded = vec![false; parent.rows];
    for failure in parent.failed_rows(&step.inputs) {
        if !std::mem::replace(&mut excluded[failure.row as usize], true) {
            refused.push(refuse(failure.row, failure.stage, failure.message.clone()));
        }
    }
    let inputs = parent.inputs_of(&step.inputs, udf.needs_event_time());
    let mapped = transform(udf, step, parent.rows, &inputs)?;
    for (row, message) in mapped.failed {
        if !excluded[row as usize] {
            refused.push(refuse(row, Stage::Transform, message));
        }
    }
    let kept: Vec<u32> = (0..mapped.parents.len() as u32)
        .filter(|output| !excluded[mapped.parents.value(*output as usize) as usize])
        .collect();
    let kept = UInt32Array::from(kept);
    let parents: UInt32Array = take(&(Arc::new(mapped.parents) as ArrayRef), &kept)?.as_primitive().clone();
    let mut columns = Vec::with_capacity(carried.len() + mapped.outputs.len());
    for column in carried {
        columns.push(take(&parent.columns[*column], &parents)?);
    }
    for output in &mapped.outputs {
        columns.push(take(output, &kept)?);
    }
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for (child, parent) in parents.values().iter().enumerate() {
        children.entry(*parent).or_default().push(child as u32);
    }
    let mut failures = Vec::new();
    for failure in &parent.failures {
        let Some(column) = carried.iter().position(|column| *column == failure.column) else { continue };
        for row in children.get(&failure.row).into_iter().flatten() {
            failures.push(Failure { row: *row, column, ..failure.clone() });
        }
    }
    let records = parents.values().iter().map(|row| parent.records[*row as usize]).collect();
    let mut batch = RowBatch::new(columns, event_time, records, failures);
    let mut sub_rows = vec![0; batch.rows];
    for row in 1..batch.rows {
        if batch.records[row] == batch.records[row - 1] {
            sub_rows[row] = sub_rows[row - 1] + 1;
        }
    }
    batch.sub_rows = Arc::new(sub_rows);
    Ok(batch)
}

struct MappedRows {
    parents: UInt32Array,
    outputs: Vec<ArrayRef>,
    failed: Vec<(u32, String)>,
}

/// Calls the transform; when the call fails as a whole, in halves, until the rows to blame stand alone.
fn transform(udf: &Udf, step: &Step, rows: usize, inputs: &[ArrayRef]) -> Result<MappedRows, RowsError> {
    match udf.transform(rows, inputs) {
        Ok(mapped) => Ok(MappedRows {
            parents: UInt32Array::from(mapped.parents),
            outputs: mapped.outputs,
            failed: mapped.failed,
        }),
        Err(failure @ CallFailure::Input(_)) => Err(RowsError::Transform { udf: step.udf.udf.clone(), failure }),
        Err(failure) if rows <= 1 => {
            let outputs = step.outputs.iter().map(|field| arrow::array::new_empty_array(&field.kind.data_type()));
            let failed = (0..rows as u32).map(|row| (row, failure.to_string())).collect();
            Ok(MappedRows { parents: UInt32Array::from(Vec::<u32>::new()), outputs: outputs.collect(), failed })
        }
        Err(_) => {
            let half = rows / 2;
            let part = |start: usize, len: usize| {
                let inputs: Vec<ArrayRef> = inputs.iter().map(|column| column.slice(start, len)).collect();
                transform(udf, step, len, &inputs)
            };
            let (first, second) = (part(0, half)?, part(half, rows - half)?);
            let shift = |row: u32| row + half as u32;
            let parents =
                first.parents.values().iter().copied().chain(second.parents.values().iter().map(|row| shift(*row)));
            let outputs = first
                .outputs
                .iter()
                .zip(&second.outputs)
                .map(|(a, b)| arrow::compute::concat(&[a.as_ref(), b.as_ref()]).map_err(|error| own(step, &error)));
            let second_failed = second.failed.into_iter().map(|(row, message)| (shift(row), message));
            Ok(MappedRows {
                parents: parents.collect::<Vec<_>>().into(),
                outputs: outputs.collect::<Result<Vec<_>, _>>()?,
                failed: first.failed.into_iter().chain(second_failed).collect(),
            })
        }
    }
}

fn own(step: &Step, error: &arrow::error::ArrowError) -> RowsError {
    RowsError::Transform { udf: step.udf.udf.clone(), failure: CallFailure::Invalid(error.to_string()) }
}

fn take(column: &ArrayRef, places: &UInt32Array) -> Result<ArrayRef, RowsError> {
    arrow::compute::take(column, places, None)
        .map_err(|error| RowsError::Transform { udf: "take".into(), failure: CallFailure::Invalid(error.to_string()) })
}

/// The column with null in the failed rows.
fn without(column: &ArrayRef, failed: &BTreeMap<u32, (Stage, String)>) -> Result<ArrayRef, RowsError> {
    let mut valid = vec![true; column.len()];
    for row in failed.keys() {
        valid[*row as usize] = false;
    }
    let nulls = NullBuffer::union(column.nulls(), Some(&NullBuffer::from(valid)));
    column
        .to_data()
        .into_builder()
        .nulls(nulls)
        .build()
        .map(arrow::array::make_array)
        .map_err(|error| RowsError::Transform { udf: "nulls".into(), failure: CallFailure::Invalid(error.to_string()) })
}
