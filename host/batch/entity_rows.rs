//! The rows of one entity on their way to being explained: what one feature takes of each, and why not.
//!
//! | column | |
//! |---|---|
//! | `order` | key, event time and kind, as rows are sorted everywhere |
//! | `place`, `sub_row` | where the row stands |
//! | `why_kind`, `why` | why the feature has nothing of the row; null: it takes part |
//! | `broken` | names of source columns that could not be decoded |
//! | inputs, filters, source columns | the values as the feature and its `where` see them, and what came in |

use super::BatchError;
use super::rows_exec::Scan;
use super::slice::Slice;
use super::sort_row::{Origin, RowKind, pack, put_order};
use crate::define::comparison_text;
use crate::route::Keys;
use crate::rows::{Failure, RowBatch, Stage};
use arrow::array::{Array, ArrayRef, BinaryBuilder, StringArray, UInt32Array, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use onefold_fold::mask;
use std::collections::BTreeMap;
use std::sync::Arc;

pub(super) const ORDER: usize = 0;
pub(super) const PLACE: usize = 1;
pub(super) const SUB_ROW: usize = 2;
pub(super) const WHY_KIND: usize = 3;
pub(super) const WHY: usize = 4;
pub(super) const BROKEN: usize = 5;
pub(super) const VALUES: usize = 6;

/// What `why_kind` says of rows that do not pass a `where`, and of those whose event time was too far ahead.
pub(super) const WHERE: &str = "where";
pub(super) const FUTURE: &str = "future";

/// Which entity's rows are wanted, and how they are laid out.
pub(super) struct EntityRows {
    pub key: Vec<u8>,
    pub schema: SchemaRef,
    /// Columns of the space: the feature's inputs in declared order.
    pub inputs: Vec<usize>,
    /// Columns that its `where` compares, each once.
    pub filters: Vec<usize>,
    /// How many columns the source has.
    pub sources: usize,
}

/// A batch as it was decoded, before anything was made of it.
pub(super) struct SourceRows {
    pub columns: Vec<ArrayRef>,
    /// For each row its record, ascending.
    pub records: Vec<u32>,
    pub failures: Vec<Failure>,
    /// Records from the future, and what is said of them.
    pub future: BTreeMap<u32, String>,
}

impl EntityRows {
    /// Of a slice that has one feature.
    pub fn of(slice: &Slice, key: Vec<u8>) -> Result<EntityRows, BatchError> {
        let table = &slice.layout.tables[0];
        let feature = table.features.first().ok_or_else(|| BatchError::internal("a slice without a feature"))?;
        let mut filters: Vec<usize> = feature.filter.iter().map(|(column, _)| *column).collect();
        filters.sort_unstable();
        filters.dedup();
        let mut fields = vec![
            Field::new("order", DataType::Binary, false),
            Field::new("place", DataType::UInt64, false),
            Field::new("sub_row", DataType::UInt32, false),
            Field::new("why_kind", DataType::Utf8, true),
            Field::new("why", DataType::Utf8, true),
            Field::new("broken", DataType::Utf8, true),
        ];
        let columns = &slice.layout.spaces[table.space].columns;
        for (name, numbers) in [("input", &feature.inputs), ("filter", &filters)] {
            for (place, column) in numbers.iter().enumerate() {
                fields.push(Field::new(format!("{name}_{place}"), columns[*column].kind.data_type(), true));
            }
        }
        for (place, column) in slice.source.columns.iter().enumerate() {
            fields.push(Field::new(format!("source_{place}"), column.decode.kind().data_type(), true));
        }
        Ok(EntityRows {
            key,
            schema: Arc::new(Schema::new(fields)),
            inputs: feature.inputs.clone(),
            filters,
            sources: slice.source.columns.len(),
        })
    }

    /// The rows of the entity among these.
    pub fn rows(
        &self,
        scan: &Scan,
        batch: &RowBatch,
        source: &SourceRows,
        origin: &Origin<'_>,
        within: impl Fn(i64) -> bool,
    ) -> Result<RecordBatch, BatchError> {
        let table = &scan.slice.layout.tables[0];
        let fold_error = |error: &dyn std::fmt::Display| BatchError::Fold(error.to_string());
        let key_columns: Vec<ArrayRef> =
            table.key_columns.iter().map(|column| batch.columns[*column].clone()).collect();
        let keys = Keys::encode(&key_columns).map_err(|error| fold_error(&error))?;
        let broken_keys: Vec<u32> = batch.failed_rows(&table.key_columns).map(|failure| failure.row).collect();
        let is_wanted = |row: &u32| {
            let at = *row as usize;
            !keys.is_null(at)
                && keys.key(at) == self.key
                && !broken_keys.contains(row)
                && within(batch.event_time_us[at])
        };
        let kept: Vec<u32> = (0..batch.rows as u32).filter(is_wanted).collect();
        if kept.is_empty() {
            return Ok(RecordBatch::new_empty(self.schema.clone()));
        }
        let why = self.why(scan, batch, source, &kept)?;
        let rows = || kept.iter().map(|row| *row as usize);
        let mut order = BinaryBuilder::new();
        let mut bytes = Vec::new();
        for row in rows() {
            order.append_value(put_order(&mut bytes, keys.key(row), batch.event_time_us[row], RowKind::Row));
        }
        let place = |row: usize| pack(origin.number, (origin.place)(batch.records[row]));
        let places = rows().map(|row| source.records.binary_search(&batch.records[row]).ok().map(|row| row as u32));
        let source_rows = UInt32Array::from_iter(places);
        let broken = source_rows.iter().map(|row| scan.broken_columns(source, row?));
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(order.finish()),
            Arc::new(UInt64Array::from_iter_values(rows().map(place))),
            Arc::new(UInt32Array::from_iter_values(rows().map(|row| batch.sub_rows[row]))),
            Arc::new(StringArray::from_iter(why.iter().map(|why| why.as_ref().map(|(kind, _)| *kind)))),
            Arc::new(StringArray::from_iter(why.iter().map(|why| why.as_ref().map(|(_, text)| text.as_str())))),
            Arc::new(broken.collect::<StringArray>()),
        ];
        let taken = UInt32Array::from(kept.clone());
        for column in self.inputs.iter().chain(&self.filters) {
            columns.push(arrow::compute::take(&batch.columns[*column], &taken, None)?);
        }
        for column in source.columns.iter().take(self.sources) {
            columns.push(arrow::compute::take(column, &source_rows, None)?);
        }
        Ok(RecordBatch::try_new(self.schema.clone(), columns)?)
    }

    /// Why each of the kept rows takes no part; the first of several reasons.
    fn why(
        &self,
        scan: &Scan,
        batch: &RowBatch,
        source: &SourceRows,
        kept: &[u32],
    ) -> Result<Vec<Option<(&'static str, String)>>, BatchError> {
        let table = &scan.slice.layout.tables[0];
        let columns = &scan.slice.layout.spaces[table.space].columns;
        let feature = &table.features[0];
        let mut why: BTreeMap<u32, (&'static str, String)> = BTreeMap::new();
        for row in kept {
            if let Some(message) = source.future.get(&batch.records[*row as usize]) {
                why.insert(*row, (FUTURE, message.clone()));
            }
        }
        for failure in batch.failed_rows(&feature.used_columns()) {
            let kind = if failure.stage == Stage::Decode { "decode" } else { "transform" };
            let text = format!("`{}`: {}", columns[failure.column].name, failure.message);
            why.entry(failure.row).or_insert((kind, text));
        }
        for (column, comparison) in &feature.filter {
            let passed = mask([(comparison, &batch.columns[*column])], batch.rows)
                .map_err(|error| BatchError::Fold(error.to_string()))?;
            for row in kept.iter().filter(|row| !passed.value(**row as usize)) {
                let found = shown(&batch.columns[*column], *row as usize);
                let text = format!("{}: it is {found}", comparison_text(comparison));
                why.entry(*row).or_insert((WHERE, text));
            }
        }
        Ok(kept.iter().map(|row| why.remove(row)).collect())
    }
}

fn shown(column: &ArrayRef, row: usize) -> String {
    if column.is_null(row) {
        return "null".to_owned();
    }
    arrow::util::display::array_value_to_string(column, row).unwrap_or_else(|error| error.to_string())
}

impl Scan {
    /// The names of the source columns that this row could not be decoded in, with commas between.
    fn broken_columns(&self, source: &SourceRows, row: u32) -> Option<String> {
        let of_row = source.failures.iter().filter(|failure| failure.row == row);
        let names = of_row.filter_map(|failure| self.slice.source.columns.get(failure.column));
        let names: Vec<&str> = names.map(|column| column.name.as_str()).collect();
        (!names.is_empty()).then(|| names.join(","))
    }
}
