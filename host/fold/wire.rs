//! Columns as they cross: Arrow arrays to the contract's bytes and back. Nothing a guest returns is used unchecked.
//!
//! What goes in is canonical: buffers start at bit and offset 0, bits behind the last row are zero, and what lies
//! under a null is zero or empty, so that even a module that forgets validity sees the same bytes everywhere.
//! What comes out is made canonical too: NaNs are one NaN, nulls hold nothing.

use crate::kind::{Field, Kind};
use crate::module::contract::types::{ColumnParam, ColumnResult, Texts};
use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Float32Array, Float64Array, GenericByteArray, Int64Array,
    ListArray, StringArray, TimestampMicrosecondArray, UInt32Array,
};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::compute::take;
use arrow::datatypes::{
    ByteArrayType, DataType, Float32Type, Float64Type, Int64Type, TimestampMicrosecondType, ToByteSlice,
};
use std::borrow::Cow;
use std::sync::Arc;

#[cfg(target_endian = "big")]
compile_error!("the contract is little-endian and columns cross as they lie in memory");

/// One column of the contract, borrowed from Arrow wherever its buffers already are what crosses.
#[derive(Debug, Default)]
pub(crate) struct Wire<'a> {
    validity: Cow<'a, [u8]>,
    lists: Cow<'a, [u8]>,
    offsets: Cow<'a, [u8]>,
    data: Cow<'a, [u8]>,
}

impl Wire<'_> {
    pub(crate) fn column(&self) -> ColumnParam<'_> {
        ColumnParam { validity: &self.validity, lists: &self.lists, offsets: &self.offsets, data: &self.data }
    }
}

/// Lays a column out for the guest. `array` must have the field's Arrow type and `rows` rows.
pub(crate) fn encode<'a>(field: &Field, array: &'a ArrayRef, rows: usize) -> Result<Wire<'a>, String> {
    if array.len() != rows {
        return Err(format!("column `{}` has {} rows, the call {rows}", field.name, array.len()));
    }
    if *array.data_type() != field.kind.data_type() {
        return Err(format!(
            "column `{}` is {}, the udf was prepared for {}",
            field.name,
            array.data_type(),
            field.kind
        ));
    }
    let nulls = array.nulls().filter(|nulls| nulls.null_count() > 0);
    let mut wire = values(field.kind, array, nulls).map_err(|why| format!("column `{}` {why}", field.name))?;
    if let Some(nulls) = nulls {
        wire.validity = bits(nulls.inner());
    }
    Ok(wire)
}

fn values<'a>(kind: Kind, array: &'a ArrayRef, nulls: Option<&'a NullBuffer>) -> Result<Wire<'a>, String> {
    Ok(match kind {
        Kind::Boolean => {
            let values = array.as_boolean().values();
            let data = match nulls {
                None => bits(values),
                Some(nulls) => Cow::Owned(bits(&(values & nulls.inner())).into_owned()),
            };
            Wire { data, ..Wire::default() }
        }
        Kind::Int64 => fixed(array.as_primitive::<Int64Type>().values().inner().as_slice(), 8, nulls),
        Kind::Float64 => fixed(array.as_primitive::<Float64Type>().values().inner().as_slice(), 8, nulls),
        Kind::Timestamp => {
            fixed(array.as_primitive::<TimestampMicrosecondType>().values().inner().as_slice(), 8, nulls)
        }
        Kind::Utf8 => text(array.as_string::<i32>(), nulls),
        Kind::Binary => text(array.as_binary::<i32>(), nulls),
        Kind::Int64List | Kind::Float32List | Kind::Float64List | Kind::Utf8List => list(array.as_list(), nulls)?,
    })
}

/// The bits of a buffer from bit 0 on, those behind the last one zero.
fn bits(buffer: &BooleanBuffer) -> Cow<'_, [u8]> {
    let bytes = buffer.len().div_ceil(8);
    let spare = buffer.len() % 8;
    let mask = if spare == 0 { u8::MAX } else { (1 << spare) - 1 };
    if buffer.offset().is_multiple_of(8) {
        let start = buffer.offset() / 8;
        let aligned = &buffer.values()[start..start + bytes];
        if aligned.last().is_none_or(|last| last & !mask == 0) {
            return Cow::Borrowed(aligned);
        }
    }
    let mut copy = buffer.sliced().as_slice()[..bytes].to_vec();
    if let Some(last) = copy.last_mut() {
        *last &= mask;
    }
    Cow::Owned(copy)
}

/// The rows that are null.
fn null_rows(nulls: &NullBuffer) -> impl Iterator<Item = usize> + '_ {
    (0..nulls.len()).filter(|row| nulls.is_null(*row))
}

fn fixed<'a>(bytes: &'a [u8], width: usize, nulls: Option<&NullBuffer>) -> Wire<'a> {
    let mut data = Cow::Borrowed(bytes);
    let nulls = nulls.filter(|nulls| width != 8 || any_under_nulls(bytes, nulls));
    for row in nulls.into_iter().flat_map(null_rows) {
        let value = row * width..(row + 1) * width;
        if data[value.clone()].iter().any(|byte| *byte != 0) {
            data.to_mut()[value].fill(0);
        }
    }
    Wire { data, ..Wire::default() }
}

/// Whether a number under a null is not zero: one pass without a branch, since there hardly ever is one.
fn any_under_nulls(bytes: &[u8], nulls: &NullBuffer) -> bool {
    let (words, _) = bytes.as_chunks::<8>();
    let mut found = 0;
    for (words, valid) in words.chunks(64).zip(nulls.inner().bit_chunks().iter_padded()) {
        for (place, word) in words.iter().enumerate() {
            found |= u64::from_le_bytes(*word) & (valid >> place & 1).wrapping_sub(1);
        }
    }
    found != 0
}

fn text<'a, T: ByteArrayType<Offset = i32>>(array: &'a GenericByteArray<T>, nulls: Option<&NullBuffer>) -> Wire<'a> {
    let offsets = array.value_offsets();
    let bytes = array.value_data();
    let dirty = nulls.into_iter().flat_map(null_rows).any(|row| offsets[row] != offsets[row + 1]);
    if dirty {
        let mut data = Vec::new();
        let mut ends = vec![0i32];
        for row in 0..array.len() {
            if array.is_valid(row) {
                data.extend_from_slice(&bytes[span(offsets, row)]);
            }
            // Never above the end of the buffer copied from, which is an i32.
            ends.push(i32::try_from(data.len()).unwrap_or(i32::MAX));
        }
        let offsets = Cow::Owned(ends.to_byte_slice().to_vec());
        return Wire { offsets, data: Cow::Owned(data), ..Wire::default() };
    }
    let all = place(offsets[0])..place(offsets[array.len()]);
    Wire { offsets: rebased(offsets), data: Cow::Borrowed(&bytes[all]), ..Wire::default() }
}

fn list<'a>(array: &'a ListArray, nulls: Option<&NullBuffer>) -> Result<Wire<'a>, String> {
    let offsets = array.value_offsets();
    let dirty = nulls.into_iter().flat_map(null_rows).any(|row| offsets[row] != offsets[row + 1]);
    let (items, lists) = if dirty {
        let mut kept = Vec::new();
        let mut ends = vec![0i32];
        for row in 0..array.len() {
            if array.is_valid(row) {
                kept.extend(span(offsets, row).map(|item| u32::try_from(item).unwrap_or(u32::MAX)));
            }
            ends.push(i32::try_from(kept.len()).unwrap_or(i32::MAX));
        }
        let items = take(array.values(), &UInt32Array::from(kept), None).map_err(|error| error.to_string())?;
        (items, Cow::Owned(ends.to_byte_slice().to_vec()))
    } else {
        let start = place(offsets[0]);
        (array.values().slice(start, place(offsets[array.len()]) - start), rebased(offsets))
    };
    if items.null_count() > 0 {
        return Err("holds a list with a null in it: lists hold values only".to_owned());
    }
    let kind = match items.data_type() {
        DataType::Int64 => Kind::Int64,
        DataType::Float64 => Kind::Float64,
        DataType::Utf8 => Kind::Utf8,
        // The one element type that is no kind of its own.
        _ => {
            let data = Cow::Owned(items.as_primitive::<Float32Type>().values().inner().as_slice().to_vec());
            return Ok(Wire { lists, data, ..Wire::default() });
        }
    };
    // The slice of the items lives here only, so its bytes are copied. Lists are rare on the hot path.
    let inner = values(kind, &items, None)?;
    Ok(Wire {
        lists,
        offsets: Cow::Owned(inner.offsets.into_owned()),
        data: Cow::Owned(inner.data.into_owned()),
        ..Wire::default()
    })
}

/// Offsets as bytes, from 0 on.
fn rebased(offsets: &[i32]) -> Cow<'_, [u8]> {
    match offsets.first() {
        Some(0) | None => Cow::Borrowed(offsets.to_byte_slice()),
        Some(first) => {
            let moved: Vec<i32> = offsets.iter().map(|offset| offset - first).collect();
            Cow::Owned(moved.to_byte_slice().to_vec())
        }
    }
}

/// An offset of an Arrow array, which is never negative.
fn place(offset: i32) -> usize {
    usize::try_from(offset).unwrap_or(0)
}

fn span(offsets: &[i32], row: usize) -> std::ops::Range<usize> {
    place(offsets[row])..place(offsets[row + 1])
}

/// Why a column of a guest cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Rejected {
    /// It is not what the contract says.
    Broken(String),
    /// A value in it is above the limit.
    TooLarge(String),
}

impl Rejected {
    fn at(self, name: &str) -> Rejected {
        match self {
            Rejected::Broken(why) => Rejected::Broken(format!("output `{name}` {why}")),
            Rejected::TooLarge(what) => Rejected::TooLarge(format!("output `{name}` {what}")),
        }
    }
}

/// Reads a column that a guest returned, of so many rows. Every value has at most `value_limit` bytes.
pub(crate) fn decode(
    field: &Field,
    column: ColumnResult,
    rows: usize,
    value_limit: usize,
) -> Result<ArrayRef, Rejected> {
    decode_column(field.kind, column, rows, value_limit).map_err(|rejected| rejected.at(&field.name))
}

fn decode_column(kind: Kind, column: ColumnResult, rows: usize, limit: usize) -> Result<ArrayRef, Rejected> {
    let nulls = decode_validity(&column.validity, rows)?;
    let is_list = matches!(kind, Kind::Int64List | Kind::Float32List | Kind::Float64List | Kind::Utf8List);
    let is_text = matches!(kind, Kind::Utf8 | Kind::Binary | Kind::Utf8List);
    if !is_list && !column.lists.is_empty() {
        return broken(format!("is {kind} and has list offsets"));
    }
    if !is_text && !column.offsets.is_empty() {
        return broken(format!("is {kind} and has text offsets"));
    }
    let data = &column.data;
    Ok(match kind {
        Kind::Boolean => {
            let values = decode_bits(data, rows, "values")?;
            let values = nulls.as_ref().map_or(values.clone(), |nulls| &values & nulls.inner());
            Arc::new(BooleanArray::new(values, nulls))
        }
        Kind::Int64 => Arc::new(Int64Array::new(scalars(data, rows, nulls.as_ref(), i64::from_le_bytes)?, nulls)),
        Kind::Float64 => Arc::new(Float64Array::new(scalars(data, rows, nulls.as_ref(), one_nan_f64)?, nulls)),
        Kind::Timestamp => {
            let values = scalars(data, rows, nulls.as_ref(), i64::from_le_bytes)?;
            Arc::new(TimestampMicrosecondArray::new(values, nulls).with_timezone("UTC"))
        }
        Kind::Utf8 => {
            let (offsets, data) = decode_text(&column.offsets, column.data, rows, nulls.as_ref(), limit)?;
            let array = StringArray::try_new(offsets, data, nulls);
            Arc::new(array.map_err(|error| Rejected::Broken(format!("is not UTF-8: {error}")))?)
        }
        Kind::Binary => {
            let (offsets, data) = decode_text(&column.offsets, column.data, rows, nulls.as_ref(), limit)?;
            Arc::new(BinaryArray::try_new(offsets, data, nulls).map_err(|error| Rejected::Broken(error.to_string()))?)
        }
        Kind::Int64List | Kind::Float32List | Kind::Float64List | Kind::Utf8List => {
            decode_list(kind, &column, rows, nulls, limit)?
        }
    })
}

fn broken<T>(why: String) -> Result<T, Rejected> {
    Err(Rejected::Broken(why))
}

fn decode_validity(validity: &[u8], rows: usize) -> Result<Option<NullBuffer>, Rejected> {
    if validity.is_empty() {
        return Ok(None);
    }
    let nulls = NullBuffer::new(decode_bits(validity, rows, "validity")?);
    Ok((nulls.null_count() > 0).then_some(nulls))
}

fn decode_bits(bytes: &[u8], rows: usize, what: &str) -> Result<BooleanBuffer, Rejected> {
    if bytes.len() != rows.div_ceil(8) {
        return broken(format!("has {} bytes of {what}, {rows} rows need {}", bytes.len(), rows.div_ceil(8)));
    }
    Ok(BooleanBuffer::new(Buffer::from(bytes), 0, rows))
}

fn one_nan_f64(bytes: [u8; 8]) -> f64 {
    let value = f64::from_le_bytes(bytes);
    if value.is_nan() { f64::NAN } else { value }
}

fn one_nan_f32(bytes: [u8; 4]) -> f32 {
    let value = f32::from_le_bytes(bytes);
    if value.is_nan() { f32::NAN } else { value }
}

/// Fixed-width values. Read value by value: a guest's vector need not be aligned as Arrow wants it.
fn scalars<const WIDTH: usize, T: arrow::datatypes::ArrowNativeType + Default>(
    data: &[u8],
    rows: usize,
    nulls: Option<&NullBuffer>,
    read: fn([u8; WIDTH]) -> T,
) -> Result<ScalarBuffer<T>, Rejected> {
    let (values, rest) = data.as_chunks::<WIDTH>();
    if values.len() != rows || !rest.is_empty() {
        return broken(format!(
            "has {} bytes of values, {rows} values need {}",
            data.len(),
            rows.saturating_mul(WIDTH)
        ));
    }
    let mut values: Vec<T> = values.iter().map(|bytes| read(*bytes)).collect();
    for row in nulls.into_iter().flat_map(null_rows) {
        values[row] = T::default();
    }
    Ok(values.into())
}

/// `items + 1` i32 offsets from 0 to `end`, never falling.
fn decode_offsets(bytes: &[u8], items: usize, end: Option<usize>, what: &str) -> Result<Vec<i32>, Rejected> {
    let (words, rest) = bytes.as_chunks::<4>();
    if words.len() != items.saturating_add(1) || !rest.is_empty() {
        return broken(format!(
            "has {} bytes of {what}, {items} items need {}",
            bytes.len(),
            items.saturating_add(1).saturating_mul(4)
        ));
    }
    let offsets: Vec<i32> = words.iter().map(|word| i32::from_le_bytes(*word)).collect();
    if offsets[0] != 0 {
        return broken(format!("has {what} that start at {}, not at 0", offsets[0]));
    }
    if let Some(pair) = offsets.windows(2).find(|pair| pair[0] > pair[1]) {
        return broken(format!("has {what} that fall from {} to {}", pair[0], pair[1]));
    }
    match end {
        Some(end) if place(offsets[items]) != end => {
            broken(format!("has {what} that end at {}, the data at {end}", offsets[items]))
        }
        _ => Ok(offsets),
    }
}

fn decode_text(
    offsets: &[u8],
    data: Vec<u8>,
    rows: usize,
    nulls: Option<&NullBuffer>,
    limit: usize,
) -> Result<(OffsetBuffer<i32>, Buffer), Rejected> {
    let offsets = decode_offsets(offsets, rows, Some(data.len()), "text offsets")?;
    let is_valid = |row| nulls.is_none_or(|nulls| nulls.is_valid(row));
    if let Some(row) = (0..rows).find(|row| is_valid(*row) && span(&offsets, *row).len() > limit) {
        let length = span(&offsets, row).len();
        return Err(Rejected::TooLarge(format!("has a value of {length} bytes in row {row}")));
    }
    if (0..rows).any(|row| !is_valid(row) && !span(&offsets, row).is_empty()) {
        let mut kept = Vec::new();
        let mut ends = vec![0i32];
        for row in 0..rows {
            if is_valid(row) {
                kept.extend_from_slice(&data[span(&offsets, row)]);
            }
            ends.push(i32::try_from(kept.len()).unwrap_or(i32::MAX));
        }
        return Ok((OffsetBuffer::new(ends.into()), Buffer::from_vec(kept)));
    }
    Ok((OffsetBuffer::new(offsets.into()), Buffer::from_vec(data)))
}

fn decode_list(
    kind: Kind,
    column: &ColumnResult,
    rows: usize,
    nulls: Option<NullBuffer>,
    limit: usize,
) -> Result<ArrayRef, Rejected> {
    let lists = decode_offsets(&column.lists, rows, None, "list offsets")?;
    let items = place(lists[rows]);
    let data = &column.data;
    let (values, width): (ArrayRef, usize) = match kind {
        Kind::Int64List => (Arc::new(Int64Array::new(scalars(data, items, None, i64::from_le_bytes)?, None)), 8),
        Kind::Float64List => (Arc::new(Float64Array::new(scalars(data, items, None, one_nan_f64)?, None)), 8),
        Kind::Float32List => (Arc::new(Float32Array::new(scalars(data, items, None, one_nan_f32)?, None)), 4),
        _ => {
            let (offsets, data) = decode_text(&column.offsets, data.clone(), items, None, limit)?;
            let texts = StringArray::try_new(offsets, data, None);
            (Arc::new(texts.map_err(|error| Rejected::Broken(format!("is not UTF-8: {error}")))?), 0)
        }
    };
    for row in 0..rows {
        let span = span(&lists, row);
        let bytes = match values.as_string_opt::<i32>() {
            Some(texts) => texts.value_offsets()[span.end] - texts.value_offsets()[span.start],
            None => i32::try_from(span.len().saturating_mul(width)).unwrap_or(i32::MAX),
        };
        if place(bytes) > limit {
            return Err(Rejected::TooLarge(format!("has a list of {bytes} bytes in row {row}")));
        }
    }
    let DataType::List(item) = kind.data_type() else {
        return broken(format!("is {kind}, no list"));
    };
    let dirty = nulls.iter().flat_map(null_rows).any(|row| !span(&lists, row).is_empty());
    let (lists, values) = if dirty {
        let mut kept = Vec::new();
        let mut ends = vec![0i32];
        for row in 0..rows {
            if nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row)) {
                kept.extend(span(&lists, row).map(|item| u32::try_from(item).unwrap_or(u32::MAX)));
            }
            ends.push(i32::try_from(kept.len()).unwrap_or(i32::MAX));
        }
        let kept = take(&values, &UInt32Array::from(kept), None);
        (ends, kept.map_err(|error| Rejected::Broken(error.to_string()))?)
    } else {
        (lists, values)
    };
    let array = ListArray::try_new(item, OffsetBuffer::new(lists.into()), values, nulls);
    Ok(Arc::new(array.map_err(|error| Rejected::Broken(error.to_string()))?))
}

/// u32 numbers a guest returned, little-endian.
pub(crate) fn words(bytes: &[u8], what: &str) -> Result<Vec<u32>, String> {
    let (words, rest) = bytes.as_chunks::<4>();
    if !rest.is_empty() {
        return Err(format!("{what} have {} bytes, not a multiple of 4", bytes.len()));
    }
    Ok(words.iter().map(|word| u32::from_le_bytes(*word)).collect())
}

/// u32 offsets of `items` spans of `bytes` bytes of data, from 0, never falling, ending where the data end.
pub(crate) fn spans(offsets: &[u8], items: usize, bytes: usize, what: &str) -> Result<Vec<u32>, String> {
    let offsets = words(offsets, what)?;
    if offsets.len() != items.saturating_add(1) {
        return Err(format!("{what} have {} offsets, {items} items need {}", offsets.len(), items.saturating_add(1)));
    }
    if offsets[0] != 0 {
        return Err(format!("{what} start at offset {}, not at 0", offsets[0]));
    }
    if let Some(pair) = offsets.windows(2).find(|pair| pair[0] > pair[1]) {
        return Err(format!("{what} have offsets that fall from {} to {}", pair[0], pair[1]));
    }
    if usize::try_from(offsets[items]) != Ok(bytes) {
        return Err(format!("{what} have offsets that end at {}, the data at {bytes}", offsets[items]));
    }
    Ok(offsets)
}

/// The texts of `items` items; both parts empty = no text for any. Longer ones are cut at `limit` bytes.
pub(crate) fn texts(texts: &Texts, items: usize, limit: usize, what: &str) -> Result<Vec<String>, String> {
    if texts.offsets.is_empty() && texts.data.is_empty() {
        return Ok(vec![String::new(); items]);
    }
    let offsets = spans(&texts.offsets, items, texts.data.len(), what)?;
    let place = |offset: u32| usize::try_from(offset).unwrap_or(usize::MAX);
    let text = |pair: &[u32]| {
        let bytes = texts.data.get(place(pair[0])..place(pair[1])).unwrap_or_default();
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(message(text, limit)),
            Err(error) => Err(format!("{what} are not UTF-8: {error}")),
        }
    };
    offsets.windows(2).map(text).collect()
}

/// A guest's words, cut at a character's edge so that they cannot flood what shows them.
pub(crate) fn message(text: &str, limit: usize) -> String {
    if text.len() <= limit {
        return text.to_owned();
    }
    let end = (0..=limit).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    format!("{}…", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        // Small words make offsets that are nearly right; anything at all finds the rest.
        let small = prop::collection::vec((0u32..6).prop_map(u32::to_le_bytes), 0..6).prop_map(|words| words.concat());
        prop_oneof![Just(vec![]), small, prop::collection::vec(any::<u8>(), 0..40)]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        /// Whatever a guest returns is a column or an error, never a panic; and a column reads back as itself.
        #[test]
        fn any_bytes_decode_or_are_refused(
            kind in prop::sample::select(&Kind::ALL[..]),
            (validity, lists, offsets, data) in (bytes(), bytes(), bytes(), bytes()),
            rows in 0usize..6,
        ) {
            let field = Field::new("a", kind);
            let column = ColumnResult { validity, lists, offsets, data };
            if let Ok(array) = decode(&field, column, rows, 16) {
                prop_assert_eq!(array.len(), rows);
                prop_assert!(array.to_data().validate_full().is_ok());
                let wire = encode(&field, &array, rows).map_err(TestCaseError::fail)?;
                let again = ColumnResult {
                    validity: wire.validity.to_vec(),
                    lists: wire.lists.to_vec(),
                    offsets: wire.offsets.to_vec(),
                    data: wire.data.to_vec(),
                };
                let again = decode(&field, again, rows, 16);
                prop_assert_eq!(again.map(|array| array.to_data()), Ok(array.to_data()));
            }
        }

        #[test]
        fn any_offsets_are_spans_or_are_refused(offsets in bytes(), data in bytes(), items in 0usize..6) {
            if let Ok(found) = spans(&offsets, items, data.len(), "spans") {
                prop_assert_eq!(found.len(), items + 1);
            }
            let _ = texts(&Texts { offsets, data }, items, 3, "texts");
        }
    }

    /// A slice's bits and offsets begin anywhere, and a null may hide a value: neither may reach a guest.
    #[test]
    fn slices_cross_as_if_they_had_been_built_alone() {
        let mut list = arrow::array::ListBuilder::new(arrow::array::StringBuilder::new());
        for row in 0..40 {
            (0..row % 4).for_each(|item| list.values().append_value("x".repeat(item)));
            list.append(true);
        }
        let texts: StringArray = (0..40).map(|row| Some("y".repeat(row % 5))).collect();
        let bools: BooleanArray = (0..40).map(|row| Some(row % 2 == 0)).collect();
        let hidden = NullBuffer::from((0..40).map(|row| row % 3 != 0).collect::<Vec<_>>());
        let all: [(Kind, ArrayRef); 3] = [
            (Kind::Utf8List, Arc::new(list.finish())),
            (Kind::Utf8, Arc::new(texts)),
            (Kind::Boolean, Arc::new(bools)),
        ];
        for (kind, array) in all {
            let field = Field::new("a", kind);
            let data = array.to_data().into_builder().nulls(Some(hidden.clone())).build().expect("nulls fit");
            let array = arrow::array::make_array(data);
            for (start, rows) in [(0, 40), (1, 39), (8, 16), (5, 1), (39, 1), (7, 0)] {
                let slice = array.slice(start, rows);
                let indices = UInt32Array::from_iter_values((start..start + rows).map(|row| row as u32));
                let alone = take(&array, &indices, None).expect("takes");
                let (slice, alone) = (encode(&field, &slice, rows), encode(&field, &alone, rows));
                let (slice, alone) = (slice.expect("encodes"), alone.expect("encodes"));
                for (a, b) in [
                    (&slice.validity, &alone.validity),
                    (&slice.lists, &alone.lists),
                    (&slice.offsets, &alone.offsets),
                    (&slice.data, &alone.data),
                ] {
                    assert_eq!(a, b, "{kind} {start}..+{rows}");
                }
            }
        }
    }

    #[test]
    fn every_nan_is_one_nan() {
        let data = [f64::NAN.to_bits() | 1, (-f64::NAN).to_bits(), (-0.0f64).to_bits()].map(u64::to_le_bytes).concat();
        let column = ColumnResult { validity: vec![], lists: vec![], offsets: vec![], data };
        let array = decode(&Field::new("a", Kind::Float64), column, 3, 16).expect("decodes");
        let bits: Vec<u64> = array.as_primitive::<Float64Type>().values().iter().map(|value| value.to_bits()).collect();
        assert_eq!(bits, [f64::NAN.to_bits(), f64::NAN.to_bits(), (-0.0f64).to_bits()]);
    }
}
