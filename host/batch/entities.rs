//! One sorted batch as entities: where each begins and ends, and what is asked of it.

use super::sort_row::{ORDER, PLACE, TAKES_PART, TIME_AND_KIND, split_order};
use arrow::array::{Array, AsArray, BinaryArray, RecordBatch, UInt64Array};
use arrow::datatypes::UInt64Type;

/// The entities of a batch, in order.
pub(super) struct Entities {
    order: BinaryArray,
    pub places: UInt64Array,
    takes_part: BinaryArray,
    /// Entity `i` has the rows `starts[i]..starts[i + 1]`.
    starts: Vec<usize>,
    pub times_us: Vec<i64>,
    pub is_row: Vec<bool>,
    /// For a row the instant of the entity's next probe in this batch, `None` when there is none.
    pub next_probe_us: Vec<Option<i64>>,
    /// For a probe the newest row before it, of a row itself; `None` before the first.
    pub newest_us: Vec<Option<i64>>,
    /// The first entity goes on from the batch before.
    pub continues: bool,
    /// The last entity goes on in the next batch.
    pub unfinished: bool,
}

impl Entities {
    /// `before`: key and newest row of an entity that the batch before left unfinished. `next`: the first `order` of
    /// the batch that follows.
    pub fn of(batch: &RecordBatch, before: Option<(&[u8], Option<i64>)>, next: Option<&[u8]>) -> Entities {
        let order = batch.column(ORDER).as_binary::<i32>().clone();
        let rows = order.len();
        let mut entities = Entities {
            places: batch.column(PLACE).as_primitive::<UInt64Type>().clone(),
            takes_part: batch.column(TAKES_PART).as_binary::<i32>().clone(),
            starts: Vec::new(),
            times_us: Vec::with_capacity(rows),
            is_row: Vec::with_capacity(rows),
            next_probe_us: vec![None; rows],
            newest_us: Vec::with_capacity(rows),
            continues: false,
            unfinished: false,
            order,
        };
        let mut current: Option<&[u8]> = before.map(|(key, _)| key);
        let mut newest_us = before.and_then(|(_, newest_us)| newest_us);
        for row in 0..rows {
            let (key, time_us, is_row) = split_order(entities.order.value(row));
            if current != Some(key) {
                entities.starts.push(row);
                newest_us = None;
            } else if row == 0 {
                entities.starts.push(0);
                entities.continues = true;
            }
            current = Some(key);
            if is_row {
                newest_us = Some(time_us);
            }
            entities.times_us.push(time_us);
            entities.is_row.push(is_row);
            entities.newest_us.push(newest_us);
        }
        entities.unfinished = match (current, next) {
            (Some(key), Some(next)) => key == split_order(next).0,
            _ => false,
        };
        entities.starts.push(rows);
        for entity in 0..entities.len() {
            let mut next_probe_us = None;
            for row in entities.rows(entity).rev() {
                entities.next_probe_us[row] = next_probe_us;
                if !entities.is_row[row] {
                    next_probe_us = Some(entities.times_us[row]);
                }
            }
        }
        entities
    }

    pub fn len(&self) -> usize {
        self.starts.len() - 1
    }

    pub fn rows(&self, entity: usize) -> std::ops::Range<usize> {
        self.starts[entity]..self.starts[entity + 1]
    }

    pub fn key(&self, entity: usize) -> &[u8] {
        let order = self.order.value(self.starts[entity]);
        &order[..order.len().saturating_sub(TIME_AND_KIND)]
    }

    /// The newest row up to the end of the batch.
    pub fn newest_us(&self, entity: usize) -> Option<i64> {
        self.newest_us[self.starts[entity + 1] - 1]
    }

    /// Whether all rows of the entity are in this batch and those before.
    pub fn is_complete(&self, entity: usize) -> bool {
        !(self.unfinished && entity + 1 == self.len())
    }

    #[inline]
    pub fn takes_part(&self, row: usize, feature: usize) -> bool {
        self.takes_part.is_null(row)
            || self.takes_part.value(row).get(feature / 8).is_some_and(|bits| bits >> (feature % 8) & 1 == 1)
    }
}
