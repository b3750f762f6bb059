//! Ordered aggregates in the stream: rows wait until nothing can come before them any more.
//!
//! Up to a group's settle point rows are settled: they are in the feature's cell, folded in canonical order, and what
//! comes now is too late. Rows after it wait beside the cell. A value is the cell with the waiting rows folded on top
//! of a copy (the encoded state is that copy: what is not kept is gone after the call). The settle point moves at a
//! barrier alone, and the rows that it passes are folded into the cell there.

use super::fold_table::{FoldTableError, Value};
use super::router::Places;
use super::touched::{GroupTables, Touched};
use crate::define::duration_text;
use crate::rows::{RowBatch, TableFeature, instant};
use crate::state::EntityNumber;
use arrow::array::{ArrayRef, TimestampMicrosecondArray};
use arrow::buffer::BooleanBuffer;
use onefold_fold::{
    Cells, Change, DamagedCell, FoldJob, JobError, Kind, Pending, PendingRow, Planner, Probe, Results, RowOrder,
    RowPlace, Window, columns_of,
};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// Rows that are folded in one run; one entity's part of it is at most half as much.
const RUN_ROWS: usize = 8192;
/// Of more waiting rows than this the cell in the middle is kept at hand.
const REPLAYED_ROWS: usize = 512;
/// So many of the last rows are not in it: most of what comes out of order comes among them.
const OPEN_ROWS: usize = 128;

/// A row that an ordered feature refused.
#[derive(Debug)]
pub struct OrderedRefusal {
    pub group: u32,
    pub feature: usize,
    pub place: RowPlace,
    /// It came too late; otherwise the module refused it.
    pub is_late: bool,
    pub message: String,
}

/// An entity whose value or state is asked for.
#[derive(Clone, Copy)]
pub(super) struct Asked {
    /// Its place among the touched entities.
    pub entity: u32,
    pub group: u32,
    pub number: EntityNumber,
    pub as_of_us: i64,
}

/// One ordered feature of a table.
pub(super) struct OrderedFold<'a, 't> {
    pub tables: &'a mut GroupTables<'t>,
    pub job: &'a mut FoldJob,
    pub spec: &'a TableFeature,
    pub column: usize,
    pub refusals: &'a mut Vec<OrderedRefusal>,
}

/// What a run over some entities gave: one an entity.
struct Ran {
    chunks: Vec<Vec<ArrayRef>>,
    values: Vec<Value>,
    next_change_us: Vec<i64>,
    /// The new cells, where they are kept.
    cells: Vec<(Vec<u8>, Vec<u8>)>,
    /// How many waiting rows are in the new cell.
    ends: Vec<usize>,
}

impl OrderedFold<'_, '_> {
    /// Lets the rows of a part of a batch's entities wait; those at or before the settle point of their group are
    /// refused as late. Returns for each entity of the part whether a row of it was taken.
    pub fn take(
        &mut self,
        touched: &Touched,
        part: Range<usize>,
        batch: &RowBatch,
        taking_part: Option<&BooleanBuffer>,
        places: &Places,
        settled_us: &BTreeMap<u32, i64>,
    ) -> Result<Vec<bool>, FoldTableError> {
        let order = RowOrder::of(&batch.inputs_of(&self.spec.inputs, false)).ok_or(DamagedCell { at: 0 });
        let order = order.map_err(JobError::from)?;
        let allowed_us = self.spec.allowed_lateness_us.unwrap_or(0);
        let mut taken = vec![false; part.len()];
        let mut bytes = Vec::new();
        for (entity, taken) in part.zip(&mut taken) {
            let group = touched.groups[entity];
            let Some(table) = &mut self.tables[group as usize] else { continue };
            let settled_us = settle_point(settled_us.get(&group).copied(), allowed_us);
            for row in touched.rows_of(entity) {
                let at = *row as usize;
                if taking_part.is_some_and(|bits| !bits.value(at)) {
                    continue;
                }
                let record = batch.records[at];
                let place = RowPlace {
                    position: Some(places.position(record)),
                    sub_row: batch.sub_rows[at],
                    arrival_us: places.arrival_us(record),
                };
                let time_us = batch.event_time_us[at];
                if settled_us.is_some_and(|settled_us| time_us <= settled_us) {
                    let message = late_message(time_us, settled_us.unwrap_or(time_us), allowed_us);
                    self.refusals.push(OrderedRefusal { group, feature: self.column, place, is_late: true, message });
                    continue;
                }
                bytes.clear();
                order.put(time_us, at, &mut bytes);
                let row = PendingRow { order: bytes[..].into(), place };
                table.edit_pending(self.column, touched.numbers[entity], |pending| pending.insert(row));
                *taken = true;
            }
        }
        Ok(taken)
    }

    /// The values of these entities: what is settled, with what waits on top. Timers and outputs as of every other
    /// feature.
    pub fn values(
        &mut self,
        asked: &[Asked],
        next_change_us: &mut [i64],
    ) -> Result<(Vec<Vec<ArrayRef>>, Vec<Value>), FoldTableError> {
        self.keep_at_hand(asked)?;
        let (mut chunks, mut values) = (Vec::new(), Vec::with_capacity(asked.len()));
        let mut rest = asked;
        while !rest.is_empty() {
            let (part, after) = rest.split_at(self.of_one_run(rest, |pending| pending.len()));
            let ran = self.run(part, |pending| pending.len(), false)?;
            let first = chunks.len() as u32;
            chunks.extend(ran.chunks);
            values.extend(ran.values.into_iter().map(|value| value.behind(first)));
            for (asked, change_us) in part.iter().zip(ran.next_change_us) {
                let earliest_us = &mut next_change_us[asked.entity as usize];
                *earliest_us = (*earliest_us).min(change_us);
            }
            rest = after;
        }
        Ok((chunks, values))
    }

    /// Folds the waiting rows that are not after the settle point into the cells of these entities.
    pub fn settle(&mut self, asked: &[Asked], settled_us: i64) -> Result<(), FoldTableError> {
        let mut asked = asked.to_vec();
        let end = |pending: &Pending| {
            let (at_hand, _) = pending.at_hand(pending.until(settled_us));
            pending.until(settled_us).min(at_hand + RUN_ROWS / 2)
        };
        while !asked.is_empty() {
            let part = asked[..self.of_one_run(&asked, end)].to_vec();
            let ran = self.run(&part, end, true)?;
            for ((asked, (head, tail)), end) in part.iter().zip(ran.cells).zip(ran.ends) {
                let Some(table) = &mut self.tables[asked.group as usize] else { continue };
                table.mark_dirty(asked.number);
                table.set_head(self.column, asked.number, &head);
                table.set_tail(self.column, asked.number, &tail);
                table.edit_pending(self.column, asked.number, |pending| pending.settled(end));
            }
            asked.drain(..part.len());
            let tables = &*self.tables;
            let column = self.column;
            let waits = |asked: &Asked| {
                let pending = tables[asked.group as usize].as_ref()?.pending(column, asked.number)?;
                Some(pending.until(settled_us) > 0)
            };
            asked.extend(part.into_iter().filter(|asked| waits(asked) == Some(true)));
        }
        Ok(())
    }

    /// Of entities in which many rows wait, folds all but the last on a copy that is kept at hand.
    fn keep_at_hand(&mut self, asked: &[Asked]) -> Result<(), FoldTableError> {
        let lacks = |pending: &Pending| pending.len() - pending.at_hand(pending.len()).0 > REPLAYED_ROWS;
        let end = |pending: &Pending| {
            let (at_hand, _) = pending.at_hand(pending.len());
            (pending.len() - OPEN_ROWS).min(at_hand + RUN_ROWS / 2)
        };
        loop {
            let tables = &*self.tables;
            let column = self.column;
            let long = asked.iter().filter(|asked| {
                let table = tables[asked.group as usize].as_ref();
                table.and_then(|table| table.pending(column, asked.number)).is_some_and(lacks)
            });
            let long: Vec<Asked> = long.copied().collect();
            if long.is_empty() {
                return Ok(());
            }
            let part = &long[..self.of_one_run(&long, end)];
            let ran = self.run(part, end, true)?;
            for ((asked, (head, tail)), end) in part.iter().zip(ran.cells).zip(ran.ends) {
                if let Some(table) = &mut self.tables[asked.group as usize] {
                    table.edit_pending(self.column, asked.number, |pending| pending.keep(end, head, tail));
                }
            }
        }
    }

    /// How many of the first entities go into one run.
    fn of_one_run(&self, asked: &[Asked], end: impl Fn(&Pending) -> usize) -> usize {
        let mut rows = 0;
        for (number, asked) in asked.iter().enumerate() {
            let pending = self.tables[asked.group as usize].as_ref();
            let pending = pending.and_then(|table| table.pending(self.column, asked.number));
            rows += pending.map_or(0, |pending| {
                let end = end(pending);
                end - pending.at_hand(end).0
            });
            if rows > RUN_ROWS {
                return number.max(1);
            }
        }
        asked.len()
    }

    /// Folds the waiting rows of these entities up to `end` on top of the nearest cell at hand. Rows that the module
    /// refuses are taken out and told.
    fn run(&mut self, asked: &[Asked], end: impl Fn(&Pending) -> usize, keep: bool) -> Result<Ran, FoldTableError> {
        let tables = &*self.tables;
        let mut parts = Vec::with_capacity(asked.len());
        let mut orders: Vec<&[u8]> = Vec::new();
        for asked in asked {
            let table = tables[asked.group as usize].as_deref();
            let mut part =
                Part { as_of_us: asked.as_of_us, head: &[], tail: &[], at_hand: 0, rows: orders.len()..orders.len() };
            if let Some(table) = table {
                (part.head, part.tail) = (table.head(self.column, asked.number), table.tail(self.column, asked.number));
                if let Some(pending) = table.pending(self.column, asked.number) {
                    let end = end(pending);
                    let (at_hand, cell) = pending.at_hand(end);
                    (part.head, part.tail) = cell.unwrap_or((part.head, part.tail));
                    part.at_hand = at_hand;
                    orders.extend(pending.orders(at_hand..end));
                    part.rows.end = orders.len();
                }
            }
            parts.push(part);
        }
        let kinds: Vec<Kind> =
            self.job.udf().columns().iter().take(self.spec.inputs.len()).map(|field| field.kind).collect();
        let (mut columns, times_us) = columns_of(&kinds, orders.into_iter()).map_err(JobError::from)?;
        if self.spec.needs_event_time {
            columns.push(Arc::new(TimestampMicrosecondArray::from(times_us.clone()).with_timezone("UTC")));
        }
        let probes = !keep || !matches!(self.spec.window, Window::Unbounded);
        let mut cells = Replay {
            parts: &parts,
            times_us: &times_us,
            keep,
            probes,
            chunks: Vec::new(),
            values: Vec::new(),
            next_change_us: Vec::new(),
            cells: Vec::new(),
        };
        let failed = self.job.run(times_us.len() as u32, &columns, &mut cells)?;
        let Replay { chunks, values, next_change_us, cells, .. } = cells;
        let mut ends: Vec<usize> = parts.iter().map(|part| part.at_hand + part.rows.len()).collect();
        let mut refused: BTreeMap<usize, (Vec<usize>, Vec<String>)> = BTreeMap::new();
        for failed in failed {
            let row = failed.row as usize;
            let part = parts.partition_point(|part| part.rows.end <= row);
            let (places, messages) = refused.entry(part).or_default();
            places.push(parts[part].at_hand + row - parts[part].rows.start);
            messages.push(failed.message);
        }
        for (part, (places, messages)) in refused {
            let Asked { group, number, .. } = asked[part];
            let Some(table) = &mut self.tables[group as usize] else { continue };
            ends[part] -= places.len();
            table.mark_dirty(number);
            let removed = table.edit_pending(self.column, number, |pending| pending.remove(&places));
            for (row, message) in removed.into_iter().zip(messages) {
                self.refusals.push(OrderedRefusal {
                    group,
                    feature: self.column,
                    place: row.place,
                    is_late: false,
                    message,
                });
            }
        }
        Ok(Ran { chunks, values, next_change_us, cells, ends })
    }
}

/// The instant up to which a feature is settled, from the watermark that its group has stored; none before the first.
pub(super) fn settle_point(settled_us: Option<i64>, allowed_lateness_us: i64) -> Option<i64> {
    settled_us
        .filter(|settled_us| *settled_us > i64::MIN)
        .map(|settled_us| settled_us.saturating_sub(allowed_lateness_us))
}

fn late_message(event_time_us: i64, settled_us: i64, allowed_us: i64) -> String {
    format!(
        "its event time {} is not after {}, up to which the feature is settled: rows may come {} after the watermark \
         (allowed_lateness); a rebuild of the view takes the row in",
        instant(event_time_us),
        instant(settled_us),
        duration_text(allowed_us)
    )
}

/// One entity of a run: the cell it starts from, and its rows among those of the run.
struct Part<'a> {
    as_of_us: i64,
    head: &'a [u8],
    tail: &'a [u8],
    /// How many waiting rows are in that cell.
    at_hand: usize,
    rows: Range<usize>,
}

struct Replay<'a> {
    parts: &'a [Part<'a>],
    times_us: &'a [i64],
    keep: bool,
    /// Of a cell that is kept for its merges.
    probes: bool,
    chunks: Vec<Vec<ArrayRef>>,
    values: Vec<Value>,
    next_change_us: Vec<i64>,
    cells: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Cells for Replay<'_> {
    fn count(&self) -> usize {
        self.parts.len()
    }

    fn plan(&self, cell: usize, planner: &mut Planner) {
        let part = &self.parts[cell];
        let mut plan = planner.begin(part.head, part.tail, part.as_of_us);
        for row in part.rows.clone() {
            plan.row(row as u32, self.times_us[row]);
        }
        if self.probes {
            plan.probe(part.as_of_us);
        }
        plan.end(self.keep);
    }

    fn settle(&mut self, first_cell: usize, results: &Results<'_>) {
        let chunk = self.chunks.len() as u32;
        self.chunks.push(results.outputs().to_vec());
        for cell in 0..results.len() {
            self.next_change_us.push(results.next_change_us(cell));
            for probe in results.probes(cell) {
                self.values.push(match probe {
                    Probe::Row(row) => {
                        Value::Row { chunk, row: row as u32, reason: results.reason(row).map(Into::into) }
                    }
                    Probe::Failed(reason) => Value::Failed(reason.into()),
                });
            }
            if self.keep {
                let part = &self.parts[first_cell + cell];
                let (mut head, mut tail) = (Vec::new(), Vec::new());
                match results.write(cell, &mut head, &mut tail) {
                    Change::Nothing => (head, tail) = (part.head.to_vec(), part.tail.to_vec()),
                    Change::Head => tail = part.tail.to_vec(),
                    Change::Both => {}
                }
                self.cells.push((head, tail));
            }
        }
    }
}
