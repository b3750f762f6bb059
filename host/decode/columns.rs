//! Arrow columns, as Parquet files have them, to the declared kinds, by the same rules as events.

use super::cell::above_limit_text;
use super::json::{event_time_column, schema_of};
use super::scan::Cursor;
use super::timestamp::in_range;
use super::{CellFailure, DecodeError, Decoded, Refused, VALUE_LIMIT_BYTES, parse_rfc3339};
use crate::define::{DecodeAs, Source};
use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float32Array, Float64Array, Int64Array, ListArray, PrimitiveArray,
    StringArray, TimestampMicrosecondArray, new_null_array,
};
use arrow::compute::{cast, filter_record_batch, nullif};
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type, Schema, SchemaRef, TimeUnit, UInt64Type};
use arrow::error::ArrowError;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use onefold_fold::Kind;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Brings batches of a source's files into its declared columns.
pub struct ColumnsDecoder {
    schema: SchemaRef,
    columns: Vec<Column>,
    event_time: usize,
}

struct Column {
    name: String,
    batch_column: String,
    decode: DecodeAs,
}

/// A column of the wanted type, and the rows that could not be brought there: they are null in it.
struct Converted {
    array: ArrayRef,
    failures: Vec<(usize, String)>,
}

enum ConvertError {
    WrongType,
    Arrow(ArrowError),
}

impl From<ArrowError> for ConvertError {
    fn from(error: ArrowError) -> ConvertError {
        ConvertError::Arrow(error)
    }
}

impl ColumnsDecoder {
    pub fn new(source: &Source) -> Result<ColumnsDecoder, DecodeError> {
        let event_time = event_time_column(source)?;
        let column = |column: &crate::define::SourceColumn| Column {
            name: column.name.clone(),
            batch_column: column.batch_column.clone(),
            decode: column.decode,
        };
        Ok(ColumnsDecoder {
            schema: schema_of(source),
            columns: source.columns.iter().map(column).collect(),
            event_time,
        })
    }

    /// The files' columns that are used: what a reader has to read.
    pub fn batch_columns(&self) -> BTreeSet<&str> {
        self.columns.iter().map(|column| column.batch_column.as_str()).collect()
    }

    /// Whether batches of this schema can be decoded; `file` is named in the error. A declared column that is not there
    /// is null in every row, as a missing field is; only the event time must be there.
    pub fn check(&self, schema: &Schema, file: &str) -> Result<(), DecodeError> {
        let empty = RecordBatch::new_empty(Arc::new(schema.clone()));
        self.decode(&empty, file).map(|_| ())
    }

    /// Declared columns that batches of this schema do not have: each is null in every row.
    pub fn missing(&self, schema: &Schema) -> Vec<&str> {
        let missing = self.columns.iter().filter(|column| schema.column_with_name(&column.batch_column).is_none());
        missing.map(|column| column.batch_column.as_str()).collect()
    }

    /// Decodes a batch read from `file`; records are its rows.
    pub fn decode(&self, batch: &RecordBatch, file: &str) -> Result<Decoded, DecodeError> {
        let rows = batch.num_rows();
        let mut arrays = Vec::with_capacity(self.columns.len());
        let mut failures = Vec::new();
        for (number, column) in self.columns.iter().enumerate() {
            let Some(found) = batch.column_by_name(&column.batch_column) else {
                if number == self.event_time {
                    return Err(DecodeError::WrongColumn(format!(
                        "{file}: no column `{}`, which holds the event_time; name the file's column with `batch:`",
                        column.batch_column
                    )));
                }
                arrays.push(new_null_array(&column.decode.kind().data_type(), rows));
                continue;
            };
            let converted = convert(found, column.decode).map_err(|error| match error {
                ConvertError::Arrow(error) => DecodeError::Arrow(error),
                ConvertError::WrongType => column.wrong_type(found.data_type(), file),
            })?;
            let column = u32::try_from(number).unwrap_or(u32::MAX);
            failures.extend(converted.failures.into_iter().map(|(row, message)| (row, column, message)));
            arrays.push(converted.array);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let decoded = RecordBatch::try_new_with_options(self.schema.clone(), arrays, &options)?;
        self.refuse_without_time(decoded, failures)
    }

    fn refuse_without_time(
        &self,
        batch: RecordBatch,
        mut failures: Vec<(usize, u32, String)>,
    ) -> Result<Decoded, DecodeError> {
        failures.sort_by_key(|(row, column, _)| (*row, *column));
        let times = batch.column(self.event_time);
        let number = |row: usize| u32::try_from(row).unwrap_or(u32::MAX);
        let records = (0..batch.num_rows()).filter(|row| times.is_valid(*row)).map(number).collect::<Vec<_>>();
        let mut refused = Vec::new();
        if records.len() < batch.num_rows() {
            let name = &self.columns[self.event_time].name;
            for row in (0..batch.num_rows()).filter(|row| times.is_null(*row)) {
                let failure = failures.iter().find(|(of, column, _)| *of == row && *column as usize == self.event_time);
                let message = match failure {
                    Some((_, _, message)) => format!("event_time `{name}`: {message}"),
                    None => format!("event_time `{name}` is missing or null; every event needs one"),
                };
                refused.push(Refused { record: number(row), message });
            }
        }
        let cell_failures = failures.into_iter().filter_map(|(record, column, message)| {
            let row = records.binary_search(&number(record)).ok()?;
            Some(CellFailure { row: number(row), column, message })
        });
        let cell_failures = cell_failures.collect();
        let batch = if refused.is_empty() {
            batch
        } else {
            let kept = BooleanArray::from_iter((0..batch.num_rows()).map(|row| Some(times.is_valid(row))));
            filter_record_batch(&batch, &kept)?
        };
        Ok(Decoded { batch, records, refused, cell_failures })
    }
}

impl Column {
    fn wrong_type(&self, found: &DataType, file: &str) -> DecodeError {
        let declared = match self.decode {
            DecodeAs::Kind(kind) => kind.name(),
            DecodeAs::TimestampSeconds => "timestamp_s",
            DecodeAs::TimestampMillis => "timestamp_ms",
            DecodeAs::TimestampMicros => "timestamp_us",
            DecodeAs::Json => "json",
        };
        let remedy = match natural_kind(found) {
            Some(kind) => format!("declare it {kind}, or name another column with `batch:`"),
            None => "no type can be declared for it; name another column with `batch:`".to_owned(),
        };
        DecodeError::WrongColumn(format!(
            "{file}: column `{}` is {found}, which cannot become `{}: {declared}`; {remedy}",
            self.batch_column, self.name
        ))
    }
}

/// The kind that a column of a file is most naturally declared as, where there is one.
pub fn natural_kind(found: &DataType) -> Option<Kind> {
    FITTING.into_iter().find(|kind| convert(&new_null_array(found, 0), DecodeAs::Kind(*kind)).is_ok())
}

/// A column of a file as a kind, null where a value cannot be; an error where the whole column cannot.
pub fn column_as(found: &ArrayRef, kind: Kind) -> Result<ArrayRef, DecodeError> {
    let wrong = |error| match error {
        ConvertError::Arrow(error) => DecodeError::Arrow(error),
        ConvertError::WrongType => DecodeError::WrongColumn(format!("{} is no {kind}", found.data_type())),
    };
    convert(found, DecodeAs::Kind(kind)).map(|converted| converted.array).map_err(wrong)
}

/// What a remedy proposes, the most natural first: text can be a time as well, but seldom is.
const FITTING: [Kind; 10] = [
    Kind::Boolean,
    Kind::Int64,
    Kind::Float64,
    Kind::Utf8,
    Kind::Binary,
    Kind::Timestamp,
    Kind::Int64List,
    Kind::Float64List,
    Kind::Float32List,
    Kind::Utf8List,
];

fn convert(found: &ArrayRef, decode: DecodeAs) -> Result<Converted, ConvertError> {
    let array = plain(found)?;
    match decode {
        DecodeAs::Kind(Kind::Boolean) if *array.data_type() == DataType::Boolean => Ok(Converted::whole(array)),
        DecodeAs::Kind(Kind::Int64) => to_int64(&array),
        DecodeAs::Kind(Kind::Float64) => to_float64(&array),
        DecodeAs::Kind(Kind::Timestamp) => to_timestamp(&array, None),
        DecodeAs::TimestampSeconds => to_timestamp(&array, Some(1_000_000)),
        DecodeAs::TimestampMillis => to_timestamp(&array, Some(1000)),
        DecodeAs::TimestampMicros => to_timestamp(&array, Some(1)),
        DecodeAs::Kind(Kind::Utf8) => to_utf8(&array),
        DecodeAs::Json if *array.data_type() == DataType::Utf8 => only_json(&array),
        DecodeAs::Kind(Kind::Binary) if *array.data_type() == DataType::Binary => {
            let bytes = array.as_binary::<i32>();
            within_limit(array.clone(), bytes.values().len(), |row| bytes.value_length(row).unsigned_abs() as usize)
        }
        DecodeAs::Kind(Kind::Int64List) => to_list(&array, to_int64),
        DecodeAs::Kind(Kind::Float32List) => to_list(&array, to_float32),
        DecodeAs::Kind(Kind::Float64List) => to_list(&array, to_float64),
        DecodeAs::Kind(Kind::Utf8List) => to_list(&array, to_utf8),
        _ => Err(ConvertError::WrongType),
    }
}

/// The same values without dictionary, run-length, view, large or fixed-size encodings.
fn plain(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let target = match array.data_type() {
        DataType::Dictionary(_, values) => values.as_ref().clone(),
        DataType::RunEndEncoded(_, values) => values.data_type().clone(),
        DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => DataType::Binary,
        DataType::LargeList(item) | DataType::FixedSizeList(item, _) => DataType::List(item.clone()),
        _ => return Ok(array.clone()),
    };
    plain(&cast(array, &target)?)
}

impl Converted {
    fn whole(array: ArrayRef) -> Converted {
        Converted { array, failures: Vec::new() }
    }

    /// The array with the failed rows null.
    fn new(array: ArrayRef, failures: Vec<(usize, String)>) -> Result<Converted, ConvertError> {
        if failures.is_empty() {
            return Ok(Converted::whole(array));
        }
        let mut failed = vec![false; array.len()];
        for (row, _) in &failures {
            if let Some(failed) = failed.get_mut(*row) {
                *failed = true;
            }
        }
        Ok(Converted { array: nullif(&array, &BooleanArray::from(failed))?, failures })
    }

    /// Row by row; null stays null.
    fn map<T>(
        array: &ArrayRef,
        convert: impl Fn(usize) -> Result<T, String>,
        collect: impl FnOnce(Vec<Option<T>>) -> ArrayRef,
    ) -> Converted {
        let mut failures = Vec::new();
        let mut values = Vec::with_capacity(array.len());
        for row in 0..array.len() {
            let value = if array.is_null(row) { None } else { Some(convert(row)) };
            values.push(value.and_then(|value| value.map_err(|message| failures.push((row, message))).ok()));
        }
        Converted { array: collect(values), failures }
    }
}

fn to_int64(array: &ArrayRef) -> Result<Converted, ConvertError> {
    use DataType::{Int8, Int16, Int32, Int64, UInt8, UInt16, UInt32, UInt64};
    match array.data_type() {
        Int8 | Int16 | Int32 | Int64 | UInt8 | UInt16 | UInt32 => Ok(Converted::whole(cast(array, &Int64)?)),
        UInt64 => {
            let values = array.as_primitive::<UInt64Type>();
            let narrow = |row| {
                let value = values.value(row);
                i64::try_from(value).map_err(|_| format!("{value} is beyond the largest int64"))
            };
            Ok(Converted::map(array, narrow, |values| Arc::new(Int64Array::from(values))))
        }
        _ => Err(ConvertError::WrongType),
    }
}

fn to_float64(array: &ArrayRef) -> Result<Converted, ConvertError> {
    if is_decimal(array.data_type()) {
        let texts = decimal_texts(array)?;
        let parse = |row| texts.value(row).parse::<f64>().map_err(|_| format!("{} is no number", texts.value(row)));
        return Ok(Converted::map(array, parse, |values| Arc::new(Float64Array::from(values))));
    }
    if array.data_type().is_integer() || array.data_type().is_floating() {
        return Ok(Converted::whole(cast(array, &DataType::Float64)?));
    }
    Err(ConvertError::WrongType)
}

fn to_float32(array: &ArrayRef) -> Result<Converted, ConvertError> {
    if is_decimal(array.data_type()) {
        // Straight from the decimal: through float64 it would be rounded twice.
        let texts = decimal_texts(array)?;
        let parse = |row| texts.value(row).parse::<f32>().ok().filter(|value| value.is_finite());
        let parse = |row| parse(row).ok_or_else(|| format!("{} is beyond the largest float", texts.value(row)));
        return Ok(Converted::map(array, parse, |values| Arc::new(Float32Array::from(values))));
    }
    match array.data_type() {
        DataType::Float64 => {
            let wide = array.as_primitive::<Float64Type>();
            let narrow = |row| {
                let (value, narrow) = (wide.value(row), wide.value(row) as f32);
                let fits = narrow.is_finite() || !value.is_finite();
                if fits { Ok(narrow) } else { Err(format!("{value} is beyond the largest float")) }
            };
            Ok(Converted::map(array, narrow, |values| Arc::new(Float32Array::from(values))))
        }
        found if found.is_integer() || found.is_floating() => Ok(Converted::whole(cast(array, &DataType::Float32)?)),
        _ => Err(ConvertError::WrongType),
    }
}

/// `unit_us`: what one of an integer column is worth, where the source declares a unit.
fn to_timestamp(array: &ArrayRef, unit_us: Option<i64>) -> Result<Converted, ConvertError> {
    const DAY_US: i64 = 86_400_000_000;
    let out_of_range = |value: i64, why: &str| format!("{value} is {why}");
    let collect = |values: Vec<Option<i64>>| -> ArrayRef {
        Arc::new(TimestampMicrosecondArray::from(values).with_timezone("UTC"))
    };
    let multiplied = |integers: ArrayRef, unit_us: i64| {
        let integers: &PrimitiveArray<Int64Type> = integers.as_primitive();
        let convert = |row| {
            let value = integers.value(row);
            in_range(value.saturating_mul(unit_us)).map_err(|why| out_of_range(value, why))
        };
        Converted::map(array, convert, collect)
    };
    let data_type = array.data_type();
    match (data_type, unit_us) {
        (DataType::Timestamp(TimeUnit::Nanosecond, _), _) => {
            let nanoseconds = cast(array, &DataType::Int64)?;
            let nanoseconds = nanoseconds.as_primitive::<Int64Type>();
            let convert = |row| Ok(nanoseconds.value(row).div_euclid(1000));
            Ok(Converted::map(array, convert, collect))
        }
        (DataType::Timestamp(unit, _), _) => {
            let unit_us = match unit {
                TimeUnit::Second => 1_000_000,
                TimeUnit::Millisecond => 1000,
                _ => 1,
            };
            Ok(multiplied(cast(array, &DataType::Int64)?, unit_us))
        }
        (DataType::Date32, _) => Ok(multiplied(cast(&cast(array, &DataType::Int32)?, &DataType::Int64)?, DAY_US)),
        (DataType::Date64, _) => Ok(multiplied(cast(array, &DataType::Int64)?, 1000)),
        (DataType::Utf8, None) => {
            let texts = array.as_string::<i32>();
            let convert = |row| {
                let text = texts.value(row);
                parse_rfc3339(text.as_bytes()).map_err(|why| format!("`{}` is {why}", super::excerpt(text.as_bytes())))
            };
            Ok(Converted::map(array, convert, collect))
        }
        (_, Some(unit_us)) => {
            let Converted { array: integers, failures: mut beyond } = to_int64(array)?;
            let converted = multiplied(integers, unit_us);
            // What did not fit 64 bits is out of range too; its place in the integers was null.
            beyond.extend(converted.failures);
            beyond.sort_by_key(|(row, _)| *row);
            beyond.dedup_by_key(|(row, _)| *row);
            Converted::new(converted.array, beyond)
        }
        _ => Err(ConvertError::WrongType),
    }
}

fn to_utf8(array: &ArrayRef) -> Result<Converted, ConvertError> {
    if is_decimal(array.data_type()) {
        return Ok(Converted::whole(Arc::new(decimal_texts(array)?)));
    }
    if *array.data_type() != DataType::Utf8 {
        return Err(ConvertError::WrongType);
    }
    let texts = array.as_string::<i32>();
    within_limit(array.clone(), texts.values().len(), |row| texts.value_length(row).unsigned_abs() as usize)
}

fn only_json(array: &ArrayRef) -> Result<Converted, ConvertError> {
    let texts = array.as_string::<i32>();
    let mut failures = Vec::new();
    for row in (0..texts.len()).filter(|row| texts.is_valid(*row)) {
        let text = texts.value(row).as_bytes();
        let mut cursor = Cursor::new(text);
        let read = cursor.skip_value(0);
        if text.len() > VALUE_LIMIT_BYTES {
            failures.push((row, above_limit_text(text.len())));
        } else if read.is_err() || cursor.skip_space().is_some() {
            failures.push((row, format!("`{}` is no JSON", super::excerpt(text))));
        }
    }
    Converted::new(array.clone(), failures)
}

/// Fails the values that are too large; `total` bytes of all of them make most batches pass at once.
fn within_limit(array: ArrayRef, total: usize, size: impl Fn(usize) -> usize) -> Result<Converted, ConvertError> {
    if total <= VALUE_LIMIT_BYTES {
        return Ok(Converted::whole(array));
    }
    let large = (0..array.len()).filter(|row| array.is_valid(*row) && size(*row) > VALUE_LIMIT_BYTES);
    let failures = large.map(|row| (row, above_limit_text(size(row)))).collect();
    Converted::new(array, failures)
}

fn to_list(
    array: &ArrayRef,
    convert_items: impl Fn(&ArrayRef) -> Result<Converted, ConvertError>,
) -> Result<Converted, ConvertError> {
    let Some(list) = array.as_list_opt::<i32>() else { return Err(ConvertError::WrongType) };
    let Converted { array: items, failures: item_failures } = convert_items(&plain(list.values())?)?;
    let mut failures: Vec<(usize, String)> = Vec::new();
    let offsets = list.value_offsets();
    for (item, message) in item_failures {
        // The row whose range holds the item; items outside every range, or of a null row, are nobody's.
        let row = offsets.partition_point(|offset| usize::try_from(*offset).unwrap_or(0) <= item).wrapping_sub(1);
        let newest = failures.last().is_none_or(|(failed, _)| *failed != row);
        if row < list.len() && list.is_valid(row) && newest {
            failures.push((row, format!("item {}: {message}", item - usize::try_from(offsets[row]).unwrap_or(0))));
        }
    }
    let size = |row: usize| item_bytes(&items, offsets, row);
    let large = (0..list.len()).filter(|row| list.is_valid(*row) && size(*row) > VALUE_LIMIT_BYTES);
    failures.extend(large.map(|row| (row, above_limit_text(size(row)))).collect::<Vec<_>>());
    failures.sort_by_key(|(row, _)| *row);
    failures.dedup_by_key(|(row, _)| *row);
    let field = Arc::new(Field::new("item", items.data_type().clone(), true));
    let list = ListArray::try_new(field, list.offsets().clone(), items.clone(), list.nulls().cloned())?;
    Converted::new(Arc::new(list), failures)
}

fn item_bytes(items: &ArrayRef, offsets: &[i32], row: usize) -> usize {
    let [start, end] = [row, row + 1].map(|at| offsets.get(at).map_or(0, |offset| offset.unsigned_abs() as usize));
    match items.as_string_opt::<i32>() {
        Some(texts) => {
            let ends = texts.value_offsets();
            let [from, to] = [start, end].map(|at| ends.get(at).map_or(0, |offset| offset.unsigned_abs() as usize));
            to - from
        }
        None => (end - start) * items.data_type().primitive_width().unwrap_or(0),
    }
}

fn is_decimal(data_type: &DataType) -> bool {
    use DataType::{Decimal32, Decimal64, Decimal128, Decimal256};
    matches!(data_type, Decimal32(..) | Decimal64(..) | Decimal128(..) | Decimal256(..))
}

/// The exact text of each decimal, with all digits of its scale.
fn decimal_texts(array: &ArrayRef) -> Result<StringArray, ArrowError> {
    let texts = cast(array, &DataType::Utf8)?;
    Ok(texts.as_string::<i32>().clone())
}
