//! Rows and probes of one table on their way through exchange and sort.
//!
//! | column | |
//! |---|---|
//! | `order` | key bytes, event time (8 bytes, big-endian, sign turned), kind: sorting by it is sorting by all three, because no key is the beginning of another |
//! | `hash` | upper half of the key's hash: which thread |
//! | `place` | a row: 24 bits of origin, 40 bits of row in it; a probe: its label |
//! | `sub_row` | which row transforms made of the record |
//! | `takes_part` | a bit a feature, null = all: what failed or does not pass a `where` is not in the fold |
//! | inputs | columns of the features, each once |

use super::BatchError;
use super::refusal::{Place, Refusal, RefusalSink, RefusedBy};
use super::settings::LateRows;
use super::slice::Slice;
use crate::route::Keys;
use crate::rows::{RowBatch, Stage};
use arrow::array::{ArrayRef, BinaryBuilder, UInt32Array, UInt64Array, new_null_array};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use std::collections::BTreeSet;
use std::sync::Arc;

pub(super) const ORDER: usize = 0;
pub(super) const HASH: usize = 1;
pub(super) const PLACE: usize = 2;
pub(super) const SUB_ROW: usize = 3;
pub(super) const TAKES_PART: usize = 4;
pub(super) const INPUTS: usize = 5;

const PLACE_BITS: u32 = 40;
/// The origin of rows of the log; files are counted from 0.
pub(super) const LOG_ORIGIN: u32 = (1 << 24) - 1;
/// What follows the key in `order`.
pub(super) const TIME_AND_KIND: usize = 9;

/// At equal time: probes that do not see the row, the row, probes that see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RowKind {
    ProbeBefore = 0,
    Row = 1,
    ProbeAfter = 2,
}

/// The schema of sorted rows, and which column of the space each input is.
#[derive(Clone, Debug)]
pub(super) struct SortSchema {
    pub schema: SchemaRef,
    /// Columns of the table's space, in the order behind `INPUTS`.
    pub inputs: Vec<usize>,
}

/// Where the records of one batch stand.
pub(super) struct Origin<'a> {
    pub number: u32,
    /// The row number of each record.
    pub place: &'a dyn Fn(u32) -> u64,
    /// Of a log, which rows came too late for which features.
    pub late: Option<&'a LateRows>,
}

/// What became of rows that take no part.
pub(super) struct Telling<'a> {
    pub sink: &'a dyn RefusalSink,
    pub paths: &'a [String],
}

impl SortSchema {
    pub fn of(slice: &Slice) -> SortSchema {
        let table = &slice.layout.tables[0];
        let used: BTreeSet<usize> = table.features.iter().flat_map(|feature| feature.inputs.iter().copied()).collect();
        let mut fields = vec![
            Field::new("order", DataType::Binary, false),
            Field::new("hash", DataType::UInt32, false),
            Field::new("place", DataType::UInt64, false),
            Field::new("sub_row", DataType::UInt32, false),
            Field::new("takes_part", DataType::Binary, true),
        ];
        let columns = &slice.layout.spaces[table.space].columns;
        for column in &used {
            fields.push(Field::new(format!("input_{column}"), columns[*column].kind.data_type(), true));
        }
        SortSchema { schema: Arc::new(Schema::new(fields)), inputs: used.into_iter().collect() }
    }

    /// Rows as they go into the sort; `within` says by event time which are wanted. Rows with a null key are left out;
    /// how many there were is second.
    pub fn rows(
        &self,
        slice: &Slice,
        batch: &RowBatch,
        origin: &Origin<'_>,
        telling: &Telling<'_>,
        within: impl Fn(i64) -> bool,
    ) -> Result<(RecordBatch, u64), BatchError> {
        let table = &slice.layout.tables[0];
        let key_columns: Vec<ArrayRef> =
            table.key_columns.iter().map(|column| batch.columns[*column].clone()).collect();
        let keys = Keys::encode(&key_columns).map_err(|error| BatchError::Fold(error.to_string()))?;
        let place = |row: usize| (origin.place)(batch.records[row]);
        let tell = |row: usize, stage: Stage, refused_by: RefusedBy, message: &str| {
            telling.sink.refused(Refusal {
                source: slice.source.name.clone(),
                place: place_of(pack(origin.number, place(row)), telling.paths),
                sub_row: batch.sub_rows[row],
                stage,
                refused_by,
                message: message.to_owned(),
            });
        };
        let mut broken_keys = BTreeSet::new();
        for failure in batch.failed_rows(&table.key_columns) {
            if within(batch.event_time_us[failure.row as usize]) && broken_keys.insert(failure.row as usize) {
                tell(failure.row as usize, failure.stage, RefusedBy::Table(table.id), &failure.message);
            }
        }
        let kept: Vec<u32> = (0..batch.rows)
            .filter(|row| !keys.is_null(*row) && !broken_keys.contains(row) && within(batch.event_time_us[*row]))
            .map(|row| row as u32)
            .collect();
        let null = |row: &usize| keys.is_null(*row) && !broken_keys.contains(row) && within(batch.event_time_us[*row]);
        let null_keys = (0..batch.rows).filter(null).count() as u64;
        let bits = self.bits(slice, batch, origin, &kept, &tell)?;
        let mut order = BinaryBuilder::with_capacity(kept.len(), kept.len() * 32);
        let mut bytes = Vec::new();
        for row in &kept {
            let row = *row as usize;
            order.append_value(put_order(&mut bytes, keys.key(row), batch.event_time_us[row], RowKind::Row));
        }
        let taken = UInt32Array::from(kept);
        let rows = || taken.values().iter().map(|row| *row as usize);
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(order.finish()),
            Arc::new(UInt32Array::from_iter_values(rows().map(|row| (keys.hash(row) >> 32) as u32))),
            Arc::new(UInt64Array::from_iter_values(rows().map(|row| pack(origin.number, place(row))))),
            Arc::new(UInt32Array::from_iter_values(rows().map(|row| batch.sub_rows[row]))),
            bits,
        ];
        for input in &self.inputs {
            let column = &batch.columns[*input];
            let whole = taken.len() == batch.rows;
            columns.push(if whole { column.clone() } else { arrow::compute::take(column, &taken, None)? });
        }
        Ok((RecordBatch::try_new(self.schema.clone(), columns)?, null_keys))
    }

    /// Which of the kept rows take part in which feature; tells of those that could not.
    fn bits(
        &self,
        slice: &Slice,
        batch: &RowBatch,
        origin: &Origin<'_>,
        kept: &[u32],
        tell: &dyn Fn(usize, Stage, RefusedBy, &str),
    ) -> Result<ArrayRef, BatchError> {
        let table = &slice.layout.tables[0];
        let mut masks = Vec::with_capacity(table.features.len());
        for feature in &table.features {
            let used = feature.used_columns();
            let mut said = BTreeSet::new();
            for failure in batch.failed_rows(&used) {
                if kept.binary_search(&failure.row).is_ok() && said.insert(failure.row) {
                    let by = RefusedBy::Feature(feature.fingerprint);
                    tell(failure.row as usize, failure.stage, by, &failure.message);
                }
            }
            let mask =
                batch.taking_part(&used, &feature.filter).map_err(|error| BatchError::Fold(error.to_string()))?;
            let late = origin.late.and_then(|late| late.get(&feature.fingerprint));
            masks.push(match late {
                None => mask,
                Some(late) => {
                    let is_late =
                        |row: usize| late.contains(&((origin.place)(batch.records[row]), batch.sub_rows[row]));
                    let takes_part = |row: usize| mask.as_ref().is_none_or(|mask| mask.value(row)) && !is_late(row);
                    Some((0..batch.rows).map(takes_part).collect::<BooleanBuffer>())
                }
            });
        }
        if masks.iter().all(Option::is_none) {
            return Ok(new_null_array(&DataType::Binary, kept.len()));
        }
        let width = masks.len().div_ceil(8);
        let mut builder = BinaryBuilder::with_capacity(kept.len(), kept.len() * width);
        let mut bits = vec![0u8; width];
        for row in kept {
            bits.fill(0);
            for (feature, mask) in masks.iter().enumerate() {
                let takes_part = mask.as_ref().is_none_or(|mask| mask.value(*row as usize));
                bits[feature / 8] |= u8::from(takes_part) << (feature % 8);
            }
            builder.append_value(&bits);
        }
        Ok(Arc::new(builder.finish()))
    }

    /// Probes: for each a key, an instant and a label.
    pub fn probes<'a>(
        &self,
        exclusive: bool,
        probes: impl Iterator<Item = (&'a [u8], i64, u64)>,
    ) -> Result<RecordBatch, BatchError> {
        let kind = if exclusive { RowKind::ProbeBefore } else { RowKind::ProbeAfter };
        let mut order = BinaryBuilder::new();
        let (mut hashes, mut labels, mut bytes) = (Vec::new(), Vec::new(), Vec::new());
        for (key, as_of_us, label) in probes {
            order.append_value(put_order(&mut bytes, key, as_of_us, kind));
            hashes.push((crate::route::hash(key) >> 32) as u32);
            labels.push(label);
        }
        let rows = labels.len();
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(order.finish()),
            Arc::new(UInt32Array::from(hashes)),
            Arc::new(UInt64Array::from(labels)),
            Arc::new(UInt32Array::from(vec![0; rows])),
        ];
        let nulls = self.schema.fields().iter().skip(TAKES_PART);
        columns.extend(nulls.map(|field| new_null_array(field.data_type(), rows)));
        Ok(RecordBatch::try_new(self.schema.clone(), columns)?)
    }
}

pub(super) fn put_order<'b>(bytes: &'b mut Vec<u8>, key: &[u8], time_us: i64, kind: RowKind) -> &'b [u8] {
    bytes.clear();
    bytes.extend_from_slice(key);
    bytes.extend_from_slice(&crate::route::ordered_bytes(time_us));
    bytes.push(kind as u8);
    bytes
}

/// Key, time and whether it is a row, of a value of `order`.
#[inline]
pub(super) fn split_order(order: &[u8]) -> (&[u8], i64, bool) {
    let Some((key, [time @ .., kind])) = order.split_last_chunk::<TIME_AND_KIND>() else { return (order, 0, false) };
    (key, crate::route::from_ordered_bytes(*time), *kind == RowKind::Row as u8)
}

pub(super) fn pack(origin: u32, row: u64) -> u64 {
    u64::from(origin) << PLACE_BITS | row & ((1 << PLACE_BITS) - 1)
}

/// Where a packed row stands in the log; of a row of a file none.
pub(super) fn position_of(packed: u64) -> Option<u64> {
    ((packed >> PLACE_BITS) as u32 == LOG_ORIGIN).then_some(packed & ((1 << PLACE_BITS) - 1))
}

pub(super) fn place_of(packed: u64, paths: &[String]) -> Place {
    let row = packed & ((1 << PLACE_BITS) - 1);
    let origin = (packed >> PLACE_BITS) as u32;
    match paths.get(origin as usize) {
        Some(path) if origin != LOG_ORIGIN => Place::File { path: path.clone(), row },
        _ => Place::Log { position: row },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn sorting_by_order_is_sorting_by_key_time_and_kind(
            a in ("[\\x00a]{0,3}", any::<i64>(), 0usize..3), b in ("[\\x00a]{0,3}", any::<i64>(), 0usize..3)
        ) {
            let kinds = [RowKind::ProbeBefore, RowKind::Row, RowKind::ProbeAfter];
            let key = |text: &str| {
                let column: ArrayRef = Arc::new(arrow::array::StringArray::from(vec![text]));
                Keys::encode(&[column]).unwrap().key(0).to_vec()
            };
            let of = |(text, time, kind): &(String, i64, usize)| {
                put_order(&mut Vec::new(), &key(text), *time, kinds[*kind]).to_vec()
            };
            prop_assert_eq!(of(&a).cmp(&of(&b)), (a.0.as_bytes(), a.1, a.2).cmp(&(b.0.as_bytes(), b.1, b.2)));
            let order = of(&a);
            let (back, time, is_row) = split_order(&order);
            prop_assert_eq!((back, time, is_row), (&key(&a.0)[..], a.1, a.2 == 1));
        }
    }
}
