//! One feature over the entities of a sorted batch: the batch host's side of the fold.

use super::entities::Entities;
use super::sort_row::position_of;
use arrow::array::{Array, ArrayRef, UInt32Array, new_null_array};
use arrow::compute::interleave;
use onefold_fold::{
    Cells, Change, DamagedCell, PendingRow, Planner, Probe, Results, RowOrder, RowPlace, Window, persist,
    persist_ordered,
};

/// What is asked of each entity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// A value at each probe among the rows.
    Probes,
    /// One value once all rows have been folded, as of the later of this instant and (second) the newest row.
    AtEnd { as_of_us: i64, or_newest: bool },
    /// Its state.
    State,
}

/// An entity's state between two batches.
#[derive(Clone, Debug, Default)]
pub(super) struct Cell {
    pub head: Vec<u8>,
    pub tail: Vec<u8>,
    /// Of an ordered feature's state, the rows that are not settled.
    pub pending: Vec<PendingRow>,
}

/// What an aggregate needs that takes its rows in order.
pub(super) struct OrderedRows {
    /// The rows of the batch in canonical order, probes where they stand.
    pub rows: Vec<u32>,
    /// Their inputs.
    pub order: RowOrder,
    pub sub_rows: UInt32Array,
    /// Of a state, the instant up to which rows are in it; later ones wait.
    pub settled_us: i64,
}

/// Where a value is, or why there is none.
enum Value {
    Row { chunk: usize, row: usize, reason: Option<Box<str>> },
    Failed(Box<str>),
}

pub(super) struct FeatureCells<'a> {
    pub entities: &'a Entities,
    pub ask: Ask,
    pub feature: usize,
    pub window: Window,
    ordered: Option<OrderedRows>,
    /// Of the entity that the batch before left unfinished; of the one that this batch leaves so, afterwards.
    pub carried: &'a mut Cell,
    /// Persisted cells of complete entities, where states are asked for.
    pub states: Vec<Vec<u8>>,
    pub next_change_us: Vec<i64>,
    pub damaged: Option<DamagedCell>,
    left: Option<Cell>,
    chunks: Vec<Vec<ArrayRef>>,
    values: Vec<Value>,
}

/// One feature's values, one a probe or complete entity that has some.
pub(super) struct FeatureValues {
    pub outputs: Vec<ArrayRef>,
    /// Why a value is null that is not just so.
    pub reasons: Vec<Option<Box<str>>>,
    pub failed: Vec<bool>,
}

impl<'a> FeatureCells<'a> {
    pub fn new(
        entities: &'a Entities,
        ask: Ask,
        feature: usize,
        window: Window,
        ordered: Option<OrderedRows>,
        carried: &'a mut Cell,
    ) -> Self {
        FeatureCells {
            entities,
            ask,
            feature,
            window,
            ordered,
            carried,
            states: Vec::new(),
            next_change_us: Vec::new(),
            damaged: None,
            left: None,
            chunks: Vec::new(),
            values: Vec::new(),
        }
    }

    /// Hands the unfinished entity's state on, and gives the values.
    pub fn finish(
        self,
        outputs: &[onefold_fold::Field],
    ) -> Result<(FeatureValues, Vec<Vec<u8>>), arrow::error::ArrowError> {
        *self.carried = self.left.unwrap_or_default();
        let mut columns = Vec::with_capacity(outputs.len());
        for (number, field) in outputs.iter().enumerate() {
            // One null at the end stands for every failed value.
            let null = new_null_array(&field.kind.data_type(), 1);
            let mut arrays: Vec<&dyn Array> = self.chunks.iter().map(|chunk| chunk[number].as_ref()).collect();
            arrays.push(null.as_ref());
            let place = |value: &Value| match value {
                Value::Row { chunk, row, .. } => (*chunk, *row),
                Value::Failed(_) => (self.chunks.len(), 0),
            };
            let places: Vec<(usize, usize)> = self.values.iter().map(place).collect();
            columns.push(interleave(&arrays, &places)?);
        }
        let failed = self.values.iter().map(|value| matches!(value, Value::Failed(_))).collect();
        let reasons = self.values.into_iter().map(|value| match value {
            Value::Row { reason, .. } => reason,
            Value::Failed(reason) => Some(reason),
        });
        Ok((FeatureValues { outputs: columns, reasons: reasons.collect(), failed }, self.states))
    }

    fn stored(&self, entity: usize) -> (&[u8], &[u8]) {
        match entity == 0 && self.entities.continues {
            true => (&self.carried.head, &self.carried.tail),
            false => (&[], &[]),
        }
    }

    /// Whether a row waits: it is after the settle point of the state that is made.
    fn waits(&self, row: usize) -> bool {
        let settled_us = self.ordered.as_ref().filter(|_| self.ask == Ask::State).map(|ordered| ordered.settled_us);
        settled_us.is_some_and(|settled_us| self.entities.times_us[row] > settled_us)
    }

    /// The waiting rows of an entity, those of the batches before among them.
    fn pending(&self, entity: usize) -> Vec<PendingRow> {
        let Some(ordered) = self.ordered.as_ref().filter(|_| self.ask == Ask::State) else { return Vec::new() };
        let mut pending = match entity == 0 && self.entities.continues {
            true => self.carried.pending.clone(),
            false => Vec::new(),
        };
        for row in ordered.rows[self.entities.rows(entity)].iter().map(|row| *row as usize) {
            if self.entities.is_row[row] && self.entities.takes_part(row, self.feature) && self.waits(row) {
                let mut order = Vec::new();
                ordered.order.put(self.entities.times_us[row], row, &mut order);
                let position = position_of(self.entities.places.value(row));
                // The arrival of a row of the log stands in the log.
                let place = RowPlace { position, sub_row: ordered.sub_rows.value(row), arrival_us: 0 };
                pending.push(PendingRow { order: order.into(), place });
            }
        }
        pending.sort();
        pending
    }
}

impl Cells for FeatureCells<'_> {
    fn count(&self) -> usize {
        self.entities.len()
    }

    fn plan(&self, entity: usize, planner: &mut Planner) {
        let entities = self.entities;
        let complete = entities.is_complete(entity);
        let (head, tail) = self.stored(entity);
        let not_before_us = match self.ask {
            Ask::AtEnd { as_of_us, .. } => as_of_us,
            Ask::Probes | Ask::State => i64::MIN,
        };
        let mut plan = planner.begin(head, tail, not_before_us);
        for at in entities.rows(entity) {
            let row = self.ordered.as_ref().map_or(at, |ordered| ordered.rows[at] as usize);
            let time_us = entities.times_us[row];
            if !entities.is_row[row] {
                if entities.newest_us[row].is_some() {
                    plan.probe(time_us);
                }
                continue;
            }
            if !entities.takes_part(row, self.feature) || self.waits(row) {
                continue;
            }
            match (self.ask, entities.next_probe_us[row]) {
                // Nobody asks any more.
                (Ask::Probes, None) if complete => break,
                (Ask::Probes, Some(probe_us)) => plan.advance(probe_us),
                _ => plan.advance(time_us),
            }
            plan.row(row as u32, time_us);
        }
        if let Ask::AtEnd { as_of_us, or_newest } = self.ask
            && complete
        {
            let newest_us = entities.newest_us(entity).filter(|_| or_newest).unwrap_or(as_of_us);
            plan.probe(as_of_us.max(newest_us));
        }
        plan.end(!complete || self.ask == Ask::State);
    }

    fn settle(&mut self, first: usize, results: &Results<'_>) {
        let chunk = self.chunks.len();
        self.chunks.push(results.outputs().to_vec());
        for cell in 0..results.len() {
            let entity = first + cell;
            for probe in results.probes(cell) {
                self.values.push(match probe {
                    Probe::Row(row) => Value::Row { chunk, row, reason: results.reason(row).map(Into::into) },
                    Probe::Failed(reason) => Value::Failed(reason.into()),
                });
            }
            let complete = self.entities.is_complete(entity);
            if complete && matches!(self.ask, Ask::AtEnd { .. }) {
                self.next_change_us.push(results.next_change_us(cell));
            }
            if complete && self.ask != Ask::State {
                continue;
            }
            let mut cell_after = Cell::default();
            let change = results.write(cell, &mut cell_after.head, &mut cell_after.tail);
            let (head, tail) = self.stored(entity);
            match change {
                Change::Nothing => (cell_after.head, cell_after.tail) = (head.to_vec(), tail.to_vec()),
                Change::Head => cell_after.tail = tail.to_vec(),
                Change::Both => {}
            }
            cell_after.pending = self.pending(entity);
            if !complete {
                self.left = Some(cell_after);
                continue;
            }
            let mut bytes = Vec::new();
            let Cell { head, tail, pending } = &cell_after;
            let persisted = match self.ordered {
                Some(_) => persist_ordered(&self.window, head, tail, pending, &mut bytes),
                None => persist(&self.window, head, tail, &mut bytes),
            };
            match persisted {
                Ok(()) => self.states.push(bytes),
                Err(damaged) => self.damaged = Some(damaged),
            }
        }
    }
}
