//! A batch of rows into one table: group the rows by entity, fold every feature, write the new values online.
//!
//! Rows of one entity are brought together first, so that the state is touched once an entity and batch, and each
//! feature is one call of its module for all entities of all groups that the thread owns.

use super::fold_ordered::{Asked, OrderedFold, OrderedRefusal};
use super::router::Places;
use super::steps::{Lap, Step};
use crate::online::{FeatureWrite, NewValue, OnlineBatch, OnlineEntity, OnlineError, OnlineStore};
use crate::route::{Groups, Keys};
use crate::rows::{RowBatch, RowsError, TableLayout};
use crate::state::{EntityNumber, EntityTable};
use arrow::array::ArrayRef;
use arrow::buffer::BooleanBuffer;
use onefold_fold::{Cells, Change, FailedRow, FoldJob, JobError, Planner, Probe, Results, Window};
use std::collections::BTreeMap;

/// The tables of one kind in the groups that a thread owns, by group; groups of others are `None`.
pub type GroupTables<'a> = Vec<Option<&'a mut EntityTable>>;

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

/// The entities that one batch touches, each once, with its rows.
#[derive(Default)]
pub struct Touched {
    pub(super) groups: Vec<u32>,
    pub(super) numbers: Vec<EntityNumber>,
    hashes: Vec<u64>,
    /// Entities met for the first time: every feature has a value from now on.
    is_new: Vec<bool>,
    /// Rows of entity `i`: `rows[starts[i]..starts[i + 1]]`.
    pub(super) starts: Vec<u32>,
    pub(super) rows: Vec<u32>,
    as_of_us: Vec<i64>,
    next_change_us: Vec<i64>,
    // Scratch of the grouping.
    slots: Vec<u32>,
    first_rows: Vec<u32>,
    entity_of: Vec<u32>,
}

impl Touched {
    fn clear(&mut self) {
        self.groups.clear();
        self.numbers.clear();
        self.hashes.clear();
        self.is_new.clear();
        self.starts.clear();
        self.rows.clear();
        self.as_of_us.clear();
        self.next_change_us.clear();
        self.first_rows.clear();
        self.entity_of.clear();
    }

    pub fn len(&self) -> usize {
        self.numbers.len()
    }

    pub fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    /// Finds the entities of these rows and makes unknown ones known. `clock_us`: of each group.
    pub fn of_rows(
        &mut self,
        tables: &mut GroupTables<'_>,
        groups: Groups,
        batch: &RowBatch,
        keys: &Keys,
        rows: &[u32],
        clock_us: impl Fn(u32) -> i64,
    ) {
        self.clear();
        self.group_rows(keys, rows);
        for (entity, first_row) in self.first_rows.iter().enumerate() {
            let hash = keys.hash(*first_row as usize);
            let group = groups.of(hash);
            let Some(table) = &mut tables[group as usize] else { continue };
            let (number, is_new) = table.find_or_insert(keys.key(*first_row as usize), hash);
            for row in &self.rows[self.starts[entity] as usize..self.starts[entity + 1] as usize] {
                table.touch(number, batch.event_time_us[*row as usize]);
            }
            table.mark_dirty(number);
            self.groups.push(group);
            self.numbers.push(number);
            self.hashes.push(hash);
            self.is_new.push(is_new);
            self.as_of_us.push(clock_us(group).max(table.newest_us(number)));
            self.next_change_us.push(i64::MAX);
        }
    }

    /// Entities without rows: their values change by time alone, or (`all_features`) all are to be written.
    pub fn of_due(&mut self, group: u32, table: &EntityTable, due: &[EntityNumber], clock_us: i64, all_features: bool) {
        self.clear();
        self.starts.push(0);
        for number in due {
            self.groups.push(group);
            self.numbers.push(*number);
            self.hashes.push(crate::route::hash(table.key(*number)));
            self.is_new.push(all_features);
            self.starts.push(0);
            self.as_of_us.push(clock_us.max(table.newest_us(*number)));
            self.next_change_us.push(i64::MAX);
        }
    }

    /// The entities that have a value of an ordered feature to be written; `taken`: which have new rows.
    fn asked(&self, window: &Window, taken: &[bool]) -> Vec<Asked> {
        let windowed = !matches!(window, Window::Unbounded);
        let asks = |entity: &usize| windowed || taken[*entity] || self.is_new[*entity];
        let asked = |entity: usize| Asked {
            entity: entity as u32,
            group: self.groups[entity],
            number: self.numbers[entity],
            as_of_us: self.as_of_us[entity],
        };
        (0..self.len()).filter(asks).map(asked).collect()
    }

    /// Groups rows by key: `first_rows`, `starts` and `rows`, entities in the order of their first row.
    fn group_rows(&mut self, keys: &Keys, rows: &[u32]) {
        let capacity = (rows.len() * 2).next_power_of_two().max(16);
        self.slots.clear();
        self.slots.resize(capacity, u32::MAX);
        let mask = capacity - 1;
        for row in rows {
            let row = *row as usize;
            let hash = keys.hash(row);
            let mut slot = hash as usize & mask;
            let entity = loop {
                let entity = self.slots[slot];
                if entity == u32::MAX {
                    let entity = self.first_rows.len() as u32;
                    self.slots[slot] = entity;
                    self.first_rows.push(row as u32);
                    self.starts.push(0);
                    break entity;
                }
                let first = self.first_rows[entity as usize] as usize;
                if keys.hash(first) == hash && keys.key(first) == keys.key(row) {
                    break entity;
                }
                slot = (slot + 1) & mask;
            };
            self.entity_of.push(entity);
            self.starts[entity as usize] += 1;
        }
        let mut start = 0;
        for count in &mut self.starts {
            let rows = *count;
            *count = start;
            start += rows;
        }
        self.rows.resize(rows.len(), 0);
        for (row, entity) in rows.iter().zip(&self.entity_of) {
            let place = &mut self.starts[*entity as usize];
            self.rows[*place as usize] = *row;
            *place += 1;
        }
        // Each start has moved to its end, which is the next one's start.
        self.starts.insert(0, 0);
    }
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
    fold: TableFold<'_>,
    tables: &mut GroupTables<'_>,
    touched: &mut Touched,
    batch: &RowBatch,
    lap: &mut Lap<'_>,
) -> Result<Refused, FoldTableError> {
    let TableFold { layout, jobs, features, online, ordered } = fold;
    let mut refused = Refused::default();
    let mut written = Vec::with_capacity(features.len());
    for feature in features {
        let spec = &layout.features[*feature];
        let used = spec.used_columns();
        let taking_part = batch.taking_part(&used, &spec.filter)?;
        if spec.allowed_lateness_us.is_some() {
            let (job, refusals) = (&mut jobs[*feature], &mut refused.ordered);
            let mut fold = OrderedFold { tables, job, spec, column: *feature, refusals };
            let taken = fold.take(touched, batch, taking_part.as_ref(), ordered.places, ordered.settled_us)?;
            if !ordered.gathers {
                let asked = touched.asked(&spec.window, &taken);
                let (chunks, values) = fold.values(&asked, &mut touched.next_change_us)?;
                written.push((*feature, chunks, values, asked.iter().map(|asked| asked.entity).collect()));
            }
            lap.end(Step::Call);
            continue;
        }
        let columns = batch.inputs_of(&spec.inputs, spec.needs_event_time);
        let mut active = Vec::with_capacity(touched.len());
        for entity in 0..touched.len() {
            let windowed = !matches!(spec.window, Window::Unbounded);
            let rows = &touched.rows[touched.starts[entity] as usize..touched.starts[entity + 1] as usize];
            let takes_part = match &taking_part {
                None => !rows.is_empty(),
                Some(bits) => rows.iter().any(|row| bits.value(*row as usize)),
            };
            if takes_part || windowed || touched.is_new[entity] {
                active.push(entity as u32);
            }
        }
        let mut cells = TableCells {
            tables,
            touched,
            batch,
            taking_part,
            column: *feature,
            active,
            chunks: Vec::new(),
            values: Vec::new(),
            head: Vec::new(),
            tail: Vec::new(),
            lap: &mut *lap,
        };
        let failed: Vec<FailedRow> = jobs[*feature].run(batch.rows as u32, &columns, &mut cells)?;
        refused.rows.extend(failed.into_iter().map(|failed| FeatureRefusal {
            feature: *feature,
            row: failed.row,
            message: failed.message,
        }));
        let TableCells { chunks, values, active, .. } = cells;
        written.push((*feature, chunks, values, active));
    }
    write_online(layout, tables, touched, &written, online)?;
    for entity in 0..touched.len() {
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
    lap.end(Step::Online);
    Ok(refused)
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

type Written = (usize, Vec<Vec<ArrayRef>>, Vec<Value>, Vec<u32>);

fn write_online(
    layout: &TableLayout,
    tables: &GroupTables<'_>,
    touched: &Touched,
    written: &[Written],
    online: &dyn OnlineStore,
) -> Result<(), OnlineError> {
    let mut entities = Vec::with_capacity(touched.len());
    for entity in 0..touched.len() {
        let group = touched.groups[entity];
        let Some(table) = &tables[group as usize] else { continue };
        let number = touched.numbers[entity];
        entities.push(OnlineEntity {
            group,
            number,
            hash: touched.hashes[entity],
            key: table.key(number),
            newest_us: table.newest_us(number),
            valid_until_us: touched.next_change_us[entity],
        });
    }
    let mut rows: Vec<Vec<(u32, NewValue<'_>)>> = Vec::new();
    let mut places = Vec::new();
    for (feature, chunks, values, active) in written {
        let first = rows.len();
        rows.extend((0..chunks.len().max(1)).map(|_| Vec::new()));
        for (value, entity) in values.iter().zip(active) {
            match value {
                Value::Row { chunk, row, reason } => {
                    rows[first + *chunk as usize].push((*entity, NewValue::Row(*row, reason.as_deref())));
                }
                Value::Failed(reason) => rows[first].push((*entity, NewValue::Failed(reason))),
            }
        }
        for (number, chunk) in chunks.iter().enumerate() {
            places.push((*feature, &chunk[..], first + number));
        }
    }
    let features: Vec<FeatureWrite<'_>> = places
        .iter()
        .map(|(feature, outputs, place)| FeatureWrite {
            fingerprint: layout.features[*feature].fingerprint,
            outputs,
            rows: &rows[*place],
        })
        .collect();
    online.write(&OnlineBatch { table: layout.id, entities: &entities, features: &features })
}

/// One feature's cells of the touched entities.
struct TableCells<'a, 't, 's> {
    tables: &'a mut GroupTables<'t>,
    touched: &'a mut Touched,
    batch: &'a RowBatch,
    taking_part: Option<BooleanBuffer>,
    column: usize,
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
            Some(table) => (table.head(self.column, number), table.tail(self.column, number)),
            None => (&[][..], &[][..]),
        };
        let as_of_us = self.touched.as_of_us[entity];
        let mut plan = planner.begin(head, tail, as_of_us);
        for row in &self.touched.rows[self.touched.starts[entity] as usize..self.touched.starts[entity + 1] as usize] {
            if self.taking_part.as_ref().is_none_or(|bits| bits.value(*row as usize)) {
                plan.row(*row, self.batch.event_time_us[*row as usize]);
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
                table.set_head(self.column, number, &self.head);
            }
            if change == Change::Both {
                table.set_tail(self.column, number, &self.tail);
            }
        }
        self.lap.end(Step::Scatter);
    }
}
