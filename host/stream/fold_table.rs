//! A batch of rows into one table: find the entities of the rows, fold every feature, write the new values online.
//!
//! Rows of one entity are brought together first, so that the state is touched once an entity and batch, and each
//! feature is one call of its module for many entities of all groups that the thread owns. Entities are worked on in
//! parts, each from the look up to the write online, so that what was fetched from memory is still near.

use super::fold_ordered::{OrderedFold, OrderedRefusal};
use super::router::Places;
use super::steps::{Lap, Step};
use super::touched::{GroupTables, NewRows, Touched};
use crate::online::{FeatureWrite, NewValue, OnlineBatch, OnlineEntity, OnlineError, OnlineStore};
use crate::rows::{RowBatch, RowsError, TableLayout};
use arrow::array::{ArrayRef, UInt32Array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::take;
use onefold_fold::{CallFailure, Cells, Change, FoldJob, JobError, Planner, Probe, Results, Window};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// Why a batch could not be folded. Nothing of it may be lost: the thread stops, and the rows are read again.
#[derive(Debug, thiserror::Error)]
pub enum FoldTableError {
    #[error(transparent)]
    Job(#[from] JobError),
    #[error(transparent)]
    Rows(#[from] RowsError),
    #[error(transparent)]
    Online(#[from] OnlineError),
}

/// A row that one feature refused.
#[derive(Debug)]
pub struct FeatureRefusal {
    pub feature: usize,
    pub row: u32,
    pub message: String,
}

/// What a table's rows are folded with, and where their values go.
pub struct TableFold<'a> {
    pub layout: &'a TableLayout,
    /// One for each feature of the table.
    pub jobs: &'a mut [FoldJob],
    /// The features that are folded, by their places in the table.
    pub features: &'a [usize],
    pub online: &'a dyn OnlineStore,
    pub ordered: Ordered<'a>,
    /// The rows whose entities are still to be found; none where the entities are known.
    pub new_rows: Option<NewRows<'a>>,
}

/// What ordered features need besides.
#[derive(Clone, Copy)]
pub struct Ordered<'a> {
    /// Where the rows of the batch stand.
    pub places: &'a Places,
    /// The watermark that each group has stored; a group without one takes every row.
    pub settled_us: &'a BTreeMap<u32, i64>,
    /// Rows are gathered and nothing is folded: a build's values are wanted at its end.
    pub gathers: bool,
}

/// What was refused of a batch.
#[derive(Default)]
pub struct Refused {
    pub rows: Vec<FeatureRefusal>,
    /// By features that take rows in order; these may have come in an earlier batch.
    pub ordered: Vec<OrderedRefusal>,
}

/// Folds the rows of the touched entities, writes the values online and sets the timers. Returns what features refused.
pub fn fold_touched(
    mut fold: TableFold<'_>,
    tables: &mut GroupTables<'_>,
    touched: &mut Touched,
    batch: &RowBatch,
    lap: &mut Lap<'_>,
) -> Result<Refused, FoldTableError> {
    let input_of = |feature: &usize| -> Result<Input, FoldTableError> {
        let spec = &fold.layout.features[*feature];
        Ok(Input {
            taking_part: batch.taking_part(&spec.used_columns(), &spec.filter)?,
            columns: batch.inputs_of(&spec.inputs, spec.needs_event_time),
        })
    };
    let inputs: Vec<Input> = fold.features.iter().map(input_of).collect::<Result<_, _>>()?;
    let mut refused = Refused::default();
    for entities in touched.parts(fold.layout) {
        match &fold.new_rows {
            Some(new_rows) => touched.find(entities.clone(), new_rows, tables, batch),
            None => touched.bring_due_near(entities.clone(), tables),
        }
        lap.end(Step::Group);
        touched.load_heads(entities.clone(), tables, fold.layout.features.len());
        let mut part = Part::new(entities.clone(), batch, touched);
        let mut written = Vec::with_capacity(inputs.len());
        for (feature, input) in fold.features.iter().zip(&inputs) {
            written.push(fold_feature(&mut fold, *feature, input, &mut part, tables, touched, lap, &mut refused)?);
        }
        touched.store_heads(entities.clone(), tables);
        lap.end(Step::Scatter);
        write_online(&fold, tables, touched, &entities, &written)?;
        set_timers(fold.layout, tables, touched, entities);
        lap.end(Step::Online);
    }
    // As if each feature had been folded over the whole batch.
    refused.rows.sort_by_key(|refusal| (refusal.feature, refusal.row));
    Ok(refused)
}

/// What a feature takes of a batch.
struct Input {
    taking_part: Option<BooleanBuffer>,
    columns: Vec<ArrayRef>,
}

/// Entities that are worked on together, and the rows that they have.
struct Part<'a> {
    entities: Range<usize>,
    /// Places in the touched rows.
    rows: Range<usize>,
    batch: &'a RowBatch,
    /// The rows' numbers in the batch, entity by entity.
    indices: UInt32Array,
    /// Columns of the batch, and of these rows alone: features share them.
    taken: Vec<(ArrayRef, ArrayRef)>,
}

impl<'a> Part<'a> {
    fn new(entities: Range<usize>, batch: &'a RowBatch, touched: &Touched) -> Part<'a> {
        let rows = touched.starts[entities.start] as usize..touched.starts[entities.end] as usize;
        let indices = UInt32Array::from(touched.rows[rows.clone()].to_vec());
        Part { entities, rows, batch, indices, taken: Vec::new() }
    }

    /// The part's rows of a column of the batch, in its order: a call need not bring the others.
    fn take(&mut self, column: &ArrayRef) -> Result<ArrayRef, JobError> {
        if let Some((_, taken)) = self.taken.iter().find(|(of, _)| Arc::ptr_eq(of, column)) {
            return Ok(taken.clone());
        }
        let taken = take(column, &self.indices, None);
        let taken = taken.map_err(|error| JobError::Call(CallFailure::Input(error.to_string())))?;
        self.taken.push((column.clone(), taken.clone()));
        Ok(taken)
    }
}

#[expect(clippy::too_many_arguments, reason = "the loop over features, taken out of the loop over parts")]
fn fold_feature(
    fold: &mut TableFold<'_>,
    feature: usize,
    input: &Input,
    part: &mut Part<'_>,
    tables: &mut GroupTables<'_>,
    touched: &mut Touched,
    lap: &mut Lap<'_>,
    refused: &mut Refused,
) -> Result<Written, FoldTableError> {
    let spec = &fold.layout.features[feature];
    let job = &mut fold.jobs[feature];
    if spec.allowed_lateness_us.is_some() {
        let ordered = fold.ordered;
        let mut fold = OrderedFold { tables, job, spec, column: feature, refusals: &mut refused.ordered };
        let entities = part.entities.clone();
        let taking_part = input.taking_part.as_ref();
        let taken =
            fold.take(touched, entities.clone(), part.batch, taking_part, ordered.places, ordered.settled_us)?;
        let mut written = Written { feature, chunks: Vec::new(), values: Vec::new(), entities: Vec::new() };
        if !ordered.gathers {
            let asked = touched.asked(&spec.window, entities, &taken);
            (written.chunks, written.values) = fold.values(&asked, &mut touched.next_change_us)?;
            written.entities = asked.iter().map(|asked| asked.entity).collect();
        }
        lap.end(Step::Call);
        return Ok(written);
    }
    let windowed = !matches!(spec.window, Window::Unbounded);
    let takes_part = |entity: usize| match &input.taking_part {
        None => !touched.rows_of(entity).is_empty(),
        Some(bits) => touched.rows_of(entity).iter().any(|row| bits.value(*row as usize)),
    };
    let active = part.entities.clone().filter(|entity| windowed || touched.is_new[*entity] || takes_part(*entity));
    let active: Vec<u32> = active.map(|entity| entity as u32).collect();
    let columns: Vec<ArrayRef> = input.columns.iter().map(|column| part.take(column)).collect::<Result<_, _>>()?;
    let mut cells = TableCells {
        tables,
        touched,
        event_time_us: &part.batch.event_time_us,
        taking_part: input.taking_part.as_ref(),
        column: feature,
        first_entity: part.entities.start,
        first_row: part.rows.start,
        chunks: Vec::new(),
        values: Vec::with_capacity(active.len()),
        active,
        head: Vec::new(),
        tail: Vec::new(),
        lap,
    };
    let failed = job.run(part.rows.len() as u32, &columns, &mut cells)?;
    let TableCells { chunks, values, active, .. } = cells;
    refused.rows.extend(failed.into_iter().map(|failed| FeatureRefusal {
        feature,
        row: touched.rows[part.rows.start + failed.row as usize],
        message: failed.message,
    }));
    Ok(Written { feature, chunks, values, entities: active })
}

fn set_timers(layout: &TableLayout, tables: &mut GroupTables<'_>, touched: &Touched, part: Range<usize>) {
    for entity in part {
        let Some(table) = &mut tables[touched.groups[entity] as usize] else { continue };
        let number = touched.numbers[entity];
        let mut due_us = touched.next_change_us[entity];
        if let Some(retention_us) = layout.retention_us {
            due_us = due_us.min(table.newest_us(number).saturating_add(retention_us).saturating_add(1));
        }
        if due_us < i64::MAX {
            table.set_due(number, due_us);
        }
    }
}

/// Where a probe's value is: chunk and row, or the reason why there is none.
pub(super) enum Value {
    Row { chunk: u32, row: u32, reason: Option<Box<str>> },
    Failed(Box<str>),
}

impl Value {
    /// The same value, its chunk behind so many others.
    pub fn behind(self, chunks: u32) -> Value {
        match self {
            Value::Row { chunk, row, reason } => Value::Row { chunk: chunk + chunks, row, reason },
            failed @ Value::Failed(_) => failed,
        }
    }
}

/// The new values of a feature.
struct Written {
    feature: usize,
    chunks: Vec<Vec<ArrayRef>>,
    values: Vec<Value>,
    /// One for each of `values`.
    entities: Vec<u32>,
}

fn write_online(
    fold: &TableFold<'_>,
    tables: &GroupTables<'_>,
    touched: &Touched,
    part: &Range<usize>,
    written: &[Written],
) -> Result<(), OnlineError> {
    let mut entities = Vec::with_capacity(part.len());
    for entity in part.clone() {
        let group = touched.groups[entity];
        let Some(table) = &tables[group as usize] else { continue };
        let number = touched.numbers[entity];
        entities.push(OnlineEntity {
            group,
            number,
            hash: touched.hashes[entity],
            // The batch's own is nearer than the table's.
            key: fold.new_rows.as_ref().map_or_else(|| table.key(number), |rows| touched.key_of_row(entity, rows)),
            newest_us: table.newest_us(number),
            valid_until_us: touched.next_change_us[entity],
        });
    }
    let mut rows: Vec<Vec<(u32, NewValue<'_>)>> = Vec::new();
    let mut places = Vec::new();
    for Written { feature, chunks, values, entities } in written {
        let first = rows.len();
        rows.extend((0..chunks.len().max(1)).map(|_| Vec::with_capacity(values.len())));
        for (value, entity) in values.iter().zip(entities) {
            let entity = *entity - part.start as u32;
            match value {
                Value::Row { chunk, row, reason } => {
                    rows[first + *chunk as usize].push((entity, NewValue::Row(*row, reason.as_deref())));
                }
                Value::Failed(reason) => rows[first].push((entity, NewValue::Failed(reason))),
            }
        }
        for (number, chunk) in chunks.iter().enumerate() {
            places.push((*feature, &chunk[..], first + number));
        }
    }
    let features: Vec<FeatureWrite<'_>> = places
        .iter()
        .map(|(feature, outputs, place)| FeatureWrite {
            fingerprint: fold.layout.features[*feature].fingerprint,
            outputs,
            rows: &rows[*place],
        })
        .collect();
    fold.online.write(&OnlineBatch { table: fold.layout.id, entities: &entities, features: &features })
}

/// One feature's cells of the touched entities.
struct TableCells<'a, 't, 's> {
    tables: &'a mut GroupTables<'t>,
    touched: &'a mut Touched,
    event_time_us: &'a [i64],
    taking_part: Option<&'a BooleanBuffer>,
    column: usize,
    /// Of the part.
    first_entity: usize,
    first_row: usize,
    /// Entities that are planned.
    active: Vec<u32>,
    chunks: Vec<Vec<ArrayRef>>,
    /// One for each of `active`.
    values: Vec<Value>,
    head: Vec<u8>,
    tail: Vec<u8>,
    lap: &'a mut Lap<'s>,
}

impl Cells for TableCells<'_, '_, '_> {
    fn count(&self) -> usize {
        self.active.len()
    }

    #[inline]
    fn plan(&self, cell: usize, planner: &mut Planner) {
        let entity = self.active[cell] as usize;
        let number = self.touched.numbers[entity];
        let (head, tail) = match &self.tables[self.touched.groups[entity] as usize] {
            Some(table) => {
                let head = self.touched.heads.get(table, entity - self.first_entity, self.column);
                (head, table.tail(self.column, number))
            }
            None => (&[][..], &[][..]),
        };
        let as_of_us = self.touched.as_of_us[entity];
        let mut plan = planner.begin(head, tail, as_of_us);
        for place in self.touched.starts[entity] as usize..self.touched.starts[entity + 1] as usize {
            let row = self.touched.rows[place] as usize;
            if self.taking_part.is_none_or(|bits| bits.value(row)) {
                plan.row((place - self.first_row) as u32, self.event_time_us[row]);
            }
        }
        plan.probe(as_of_us);
        plan.end(true);
    }

    fn planned(&mut self) {
        self.lap.end(Step::Gather);
    }

    fn settle(&mut self, first_cell: usize, results: &Results<'_>) {
        self.lap.end(Step::Call);
        let chunk = self.chunks.len() as u32;
        self.chunks.push(results.outputs().to_vec());
        for cell in 0..results.len() {
            let entity = self.active[first_cell + cell] as usize;
            let number = self.touched.numbers[entity];
            let next_change_us = &mut self.touched.next_change_us[entity];
            *next_change_us = (*next_change_us).min(results.next_change_us(cell));
            for probe in results.probes(cell) {
                self.values.push(match probe {
                    Probe::Row(row) => {
                        Value::Row { chunk, row: row as u32, reason: results.reason(row).map(Into::into) }
                    }
                    Probe::Failed(reason) => Value::Failed(reason.into()),
                });
            }
            self.head.clear();
            self.tail.clear();
            let change = results.write(cell, &mut self.head, &mut self.tail);
            let Some(table) = &mut self.tables[self.touched.groups[entity] as usize] else { continue };
            if change != Change::Nothing {
                self.touched.heads.set(table, entity - self.first_entity, self.column, &self.head);
            }
            if change == Change::Both {
                table.set_tail(self.column, number, &self.tail);
            }
        }
        self.lap.end(Step::Scatter);
    }
}
