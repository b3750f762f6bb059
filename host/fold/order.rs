//! Canonical order as bytes: event time and inputs, so written that comparing bytes is comparing rows.
//!
//! Rule 4 of the window rules: event time, then the inputs in declared order; null first, false before true, numbers by
//! value (-0.0 below 0.0, NaN greatest), text and binary by their bytes, lists item by item and the shorter first. The
//! bytes can be read back, so that a row that has to wait is kept as what it is compared by.
//!
//! An event time, an integer or a timestamp is eight bytes, most significant first, its sign turned. A value has 1
//! before it, a null is 0. Text ends with two zeros; a zero in it is 0, 255. In a list a value has 2 before it, a null
//! is 1, and the end 0.

use crate::cell::DamagedCell;
use crate::kind::Kind;
use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BinaryBuilder, BooleanArray, BooleanBuilder, Float32Array, Float32Builder,
    Float64Array, Float64Builder, Int64Array, Int64Builder, ListArray, ListBuilder, StringArray, StringBuilder,
    TimestampMicrosecondArray, TimestampMicrosecondBuilder,
};
use arrow::datatypes::{Float32Type, Float64Type, Int64Type, TimestampMicrosecondType};
use std::sync::Arc;

const SIGN: u64 = 1 << 63;

/// The inputs of rows, ready to be written.
pub struct RowOrder {
    inputs: Vec<Input>,
}

struct Input {
    column: ArrayRef,
    values: Values,
}

enum Values {
    Scalar(Scalar),
    List(ListArray, Scalar),
}

enum Scalar {
    Boolean(BooleanArray),
    Int64(Int64Array),
    Timestamp(TimestampMicrosecondArray),
    Float64(Float64Array),
    Float32(Float32Array),
    Utf8(StringArray),
    Binary(BinaryArray),
}

impl RowOrder {
    /// Of these columns, one an input; none for a column that is of no kind.
    pub fn of(inputs: &[ArrayRef]) -> Option<RowOrder> {
        let input = |column: &ArrayRef| {
            let values = match Kind::of(column.data_type())? {
                Kind::Int64List | Kind::Float32List | Kind::Float64List | Kind::Utf8List => {
                    let list = column.as_list::<i32>().clone();
                    let items = Scalar::of(list.values())?;
                    Values::List(list, items)
                }
                _ => Values::Scalar(Scalar::of(column)?),
            };
            Some(Input { column: column.clone(), values })
        };
        Some(RowOrder { inputs: inputs.iter().map(input).collect::<Option<_>>()? })
    }

    /// Appends a row's bytes.
    pub fn put(&self, event_time_us: i64, row: usize, out: &mut Vec<u8>) {
        put_integer(event_time_us, out);
        for input in &self.inputs {
            if input.column.is_null(row) {
                out.push(0);
                continue;
            }
            out.push(1);
            match &input.values {
                Values::Scalar(scalar) => scalar.put(row, out),
                Values::List(list, items) => {
                    let offsets = list.value_offsets();
                    for item in offsets[row]..offsets[row + 1] {
                        let item = usize::try_from(item).unwrap_or(0);
                        if items.is_null(item) {
                            out.push(1);
                        } else {
                            out.push(2);
                            items.put(item, out);
                        }
                    }
                    out.push(0);
                }
            }
        }
    }
}

impl Scalar {
    fn of(column: &ArrayRef) -> Option<Scalar> {
        use arrow::datatypes::DataType;
        Some(match column.data_type() {
            DataType::Boolean => Scalar::Boolean(column.as_boolean().clone()),
            DataType::Int64 => Scalar::Int64(column.as_primitive::<Int64Type>().clone()),
            DataType::Timestamp(..) => {
                Scalar::Timestamp(column.as_primitive_opt::<TimestampMicrosecondType>()?.clone())
            }
            DataType::Float64 => Scalar::Float64(column.as_primitive::<Float64Type>().clone()),
            DataType::Float32 => Scalar::Float32(column.as_primitive::<Float32Type>().clone()),
            DataType::Utf8 => Scalar::Utf8(column.as_string::<i32>().clone()),
            DataType::Binary => Scalar::Binary(column.as_binary::<i32>().clone()),
            _ => return None,
        })
    }

    fn is_null(&self, at: usize) -> bool {
        match self {
            Scalar::Boolean(values) => values.is_null(at),
            Scalar::Int64(values) => values.is_null(at),
            Scalar::Timestamp(values) => values.is_null(at),
            Scalar::Float64(values) => values.is_null(at),
            Scalar::Float32(values) => values.is_null(at),
            Scalar::Utf8(values) => values.is_null(at),
            Scalar::Binary(values) => values.is_null(at),
        }
    }

    #[expect(clippy::big_endian_bytes, reason = "the most significant byte decides first")]
    fn put(&self, at: usize, out: &mut Vec<u8>) {
        match self {
            Scalar::Boolean(values) => out.push(u8::from(values.value(at))),
            Scalar::Int64(values) => put_integer(values.value(at), out),
            Scalar::Timestamp(values) => put_integer(values.value(at), out),
            Scalar::Float64(values) => {
                let value = values.value(at);
                // The module sees one NaN, so there is one here.
                let bits = if value.is_nan() { f64::NAN.to_bits() & !SIGN } else { value.to_bits() };
                let turned = if bits & SIGN == 0 { bits | SIGN } else { !bits };
                out.extend_from_slice(&turned.to_be_bytes());
            }
            Scalar::Float32(values) => {
                let value = values.value(at);
                const SIGN: u32 = 1 << 31;
                let bits = if value.is_nan() { f32::NAN.to_bits() & !SIGN } else { value.to_bits() };
                let turned = if bits & SIGN == 0 { bits | SIGN } else { !bits };
                out.extend_from_slice(&turned.to_be_bytes());
            }
            Scalar::Utf8(values) => put_bytes(values.value(at).as_bytes(), out),
            Scalar::Binary(values) => put_bytes(values.value(at), out),
        }
    }
}

#[expect(clippy::big_endian_bytes, reason = "the most significant byte decides first")]
fn put_integer(value: i64, out: &mut Vec<u8>) {
    out.extend_from_slice(&(value.cast_unsigned() ^ SIGN).to_be_bytes());
}

fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    for byte in bytes {
        out.push(*byte);
        if *byte == 0 {
            out.push(255);
        }
    }
    out.extend_from_slice(&[0, 0]);
}

/// The event time that a row's bytes begin with; the earliest of all where there are too few.
#[expect(clippy::big_endian_bytes, reason = "as it was written")]
pub(crate) fn time_of(order: &[u8]) -> i64 {
    let first = order.first_chunk::<8>();
    first.map_or(i64::MIN, |bytes| (u64::from_be_bytes(*bytes) ^ SIGN).cast_signed())
}

/// Reads rows back: a column an input, and their event times.
pub fn columns_of<'a>(
    kinds: &[Kind],
    rows: impl Iterator<Item = &'a [u8]>,
) -> Result<(Vec<ArrayRef>, Vec<i64>), DamagedCell> {
    let mut builders: Vec<Builder> = kinds.iter().map(|kind| Builder::new(*kind)).collect();
    let mut times_us = Vec::new();
    for row in rows {
        let mut reader = Reader { bytes: row, at: 0 };
        times_us.push(reader.integer()?);
        for builder in &mut builders {
            builder.read(&mut reader)?;
        }
        if reader.at != row.len() {
            return Err(reader.damaged());
        }
    }
    Ok((builders.iter_mut().map(Builder::finish).collect(), times_us))
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn damaged(&self) -> DamagedCell {
        DamagedCell { at: self.at }
    }

    fn byte(&mut self) -> Result<u8, DamagedCell> {
        let byte = self.bytes.get(self.at).copied().ok_or(self.damaged())?;
        self.at += 1;
        Ok(byte)
    }

    fn chunk<const N: usize>(&mut self) -> Result<[u8; N], DamagedCell> {
        let rest = self.bytes.get(self.at..).and_then(<[u8]>::first_chunk::<N>);
        let chunk = *rest.ok_or(self.damaged())?;
        self.at += N;
        Ok(chunk)
    }

    #[expect(clippy::big_endian_bytes, reason = "as it was written")]
    fn integer(&mut self) -> Result<i64, DamagedCell> {
        Ok((u64::from_be_bytes(self.chunk()?) ^ SIGN).cast_signed())
    }

    #[expect(clippy::big_endian_bytes, reason = "as it was written")]
    fn float64(&mut self) -> Result<f64, DamagedCell> {
        let turned = u64::from_be_bytes(self.chunk()?);
        Ok(f64::from_bits(if turned & SIGN == 0 { !turned } else { turned & !SIGN }))
    }

    #[expect(clippy::big_endian_bytes, reason = "as it was written")]
    fn float32(&mut self) -> Result<f32, DamagedCell> {
        const SIGN: u32 = 1 << 31;
        let turned = u32::from_be_bytes(self.chunk()?);
        Ok(f32::from_bits(if turned & SIGN == 0 { !turned } else { turned & !SIGN }))
    }

    fn boolean(&mut self) -> Result<bool, DamagedCell> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.damaged()),
        }
    }

    fn binary(&mut self) -> Result<Vec<u8>, DamagedCell> {
        let mut value = Vec::new();
        loop {
            match self.byte()? {
                0 => match self.byte()? {
                    0 => return Ok(value),
                    255 => value.push(0),
                    _ => return Err(self.damaged()),
                },
                byte => value.push(byte),
            }
        }
    }

    fn text(&mut self) -> Result<String, DamagedCell> {
        let bytes = self.binary()?;
        String::from_utf8(bytes).map_err(|_| self.damaged())
    }
}

enum Builder {
    Boolean(BooleanBuilder),
    Int64(Int64Builder),
    Timestamp(TimestampMicrosecondBuilder),
    Float64(Float64Builder),
    Utf8(StringBuilder),
    Binary(BinaryBuilder),
    Int64List(ListBuilder<Int64Builder>),
    Float32List(ListBuilder<Float32Builder>),
    Float64List(ListBuilder<Float64Builder>),
    Utf8List(ListBuilder<StringBuilder>),
}

impl Builder {
    fn new(kind: Kind) -> Builder {
        match kind {
            Kind::Boolean => Builder::Boolean(BooleanBuilder::new()),
            Kind::Int64 => Builder::Int64(Int64Builder::new()),
            Kind::Timestamp => Builder::Timestamp(TimestampMicrosecondBuilder::new().with_timezone("UTC")),
            Kind::Float64 => Builder::Float64(Float64Builder::new()),
            Kind::Utf8 => Builder::Utf8(StringBuilder::new()),
            Kind::Binary => Builder::Binary(BinaryBuilder::new()),
            Kind::Int64List => Builder::Int64List(ListBuilder::new(Int64Builder::new())),
            Kind::Float32List => Builder::Float32List(ListBuilder::new(Float32Builder::new())),
            Kind::Float64List => Builder::Float64List(ListBuilder::new(Float64Builder::new())),
            Kind::Utf8List => Builder::Utf8List(ListBuilder::new(StringBuilder::new())),
        }
    }

    fn read(&mut self, reader: &mut Reader<'_>) -> Result<(), DamagedCell> {
        let is_there = reader.boolean()?;
        macro_rules! scalar {
            ($builder:expr, $read:ident) => {
                if is_there { $builder.append_value(reader.$read()?) } else { $builder.append_null() }
            };
        }
        macro_rules! list {
            ($builder:expr, $read:ident) => {{
                while is_there {
                    match reader.byte()? {
                        0 => break,
                        1 => $builder.values().append_null(),
                        2 => $builder.values().append_value(reader.$read()?),
                        _ => return Err(reader.damaged()),
                    }
                }
                $builder.append(is_there);
            }};
        }
        match self {
            Builder::Boolean(builder) => scalar!(builder, boolean),
            Builder::Int64(builder) => scalar!(builder, integer),
            Builder::Timestamp(builder) => scalar!(builder, integer),
            Builder::Float64(builder) => scalar!(builder, float64),
            Builder::Utf8(builder) => scalar!(builder, text),
            Builder::Binary(builder) => scalar!(builder, binary),
            Builder::Int64List(builder) => list!(builder, integer),
            Builder::Float32List(builder) => list!(builder, float32),
            Builder::Float64List(builder) => list!(builder, float64),
            Builder::Utf8List(builder) => list!(builder, text),
        }
        Ok(())
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Builder::Boolean(builder) => Arc::new(builder.finish()),
            Builder::Int64(builder) => Arc::new(builder.finish()),
            Builder::Timestamp(builder) => Arc::new(builder.finish()),
            Builder::Float64(builder) => Arc::new(builder.finish()),
            Builder::Utf8(builder) => Arc::new(builder.finish()),
            Builder::Binary(builder) => Arc::new(builder.finish()),
            Builder::Int64List(builder) => Arc::new(builder.finish()),
            Builder::Float32List(builder) => Arc::new(builder.finish()),
            Builder::Float64List(builder) => Arc::new(builder.finish()),
            Builder::Utf8List(builder) => Arc::new(builder.finish()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::cmp::Ordering;

    type Typed = (Option<bool>, Option<i64>, Option<f64>, Option<String>, Option<Vec<Option<f64>>>);

    fn rows() -> impl Strategy<Value = Typed> {
        let float = || prop_oneof![any::<f64>(), prop::sample::select(vec![0.0, -0.0, f64::NAN, -f64::NAN, f64::MIN])];
        let text = prop::string::string_regex("[\\x00a\u{e9}]{0,3}").unwrap();
        let list = prop::collection::vec(prop::option::of(float()), 0..3);
        (
            prop::option::of(any::<bool>()),
            prop::option::of(prop_oneof![-2i64..2, any::<i64>()]),
            prop::option::of(float()),
            prop::option::of(text),
            prop::option::of(list),
        )
    }

    fn columns(rows: &[Typed]) -> Vec<ArrayRef> {
        let mut lists = ListBuilder::new(Float64Builder::new());
        for row in rows {
            row.4.iter().flatten().for_each(|item| lists.values().append_option(*item));
            lists.append(row.4.is_some());
        }
        vec![
            Arc::new(rows.iter().map(|row| row.0).collect::<BooleanArray>()),
            Arc::new(rows.iter().map(|row| row.1).collect::<Int64Array>()),
            Arc::new(rows.iter().map(|row| row.2).collect::<Float64Array>()),
            Arc::new(rows.iter().map(|row| row.3.clone()).collect::<StringArray>()),
            Arc::new(lists.finish()),
        ]
    }

    fn one_nan(value: f64) -> f64 {
        if value.is_nan() { f64::NAN } else { value }
    }

    /// Rule 4 said with the types of Rust, whose options, booleans, integers, texts and lists are in that order already.
    fn compare((a_us, a): &(i64, Typed), (b_us, b): &(i64, Typed)) -> Ordering {
        let floats = |a: &Option<f64>, b: &Option<f64>| match (a, b) {
            (Some(a), Some(b)) => one_nan(*a).total_cmp(&one_nan(*b)),
            _ => a.is_some().cmp(&b.is_some()),
        };
        let lists = match (&a.4, &b.4) {
            (Some(a), Some(b)) => {
                let differ = a.iter().zip(b).map(|(a, b)| floats(a, b)).find(|order| order.is_ne());
                differ.unwrap_or(a.len().cmp(&b.len()))
            }
            (a, b) => a.is_some().cmp(&b.is_some()),
        };
        a_us.cmp(b_us)
            .then_with(|| a.0.cmp(&b.0))
            .then_with(|| a.1.cmp(&b.1))
            .then_with(|| floats(&a.2, &b.2))
            .then_with(|| a.3.cmp(&b.3))
            .then(lists)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2048))]

        /// Comparing the bytes is comparing the rows, and the rows come back from them.
        #[test]
        fn bytes_stand_in_canonical_order(a in (-2i64..2, rows()), b in (-2i64..2, rows())) {
            let kinds = [Kind::Boolean, Kind::Int64, Kind::Float64, Kind::Utf8, Kind::Float64List];
            let columns = columns(&[a.1.clone(), b.1.clone()]);
            let order = RowOrder::of(&columns).unwrap();
            let (mut first, mut second) = (Vec::new(), Vec::new());
            order.put(a.0, 0, &mut first);
            order.put(b.0, 1, &mut second);
            prop_assert_eq!(first.cmp(&second), compare(&a, &b), "{:?} and {:?}", a, b);
            let (back, times) = columns_of(&kinds, [&first[..], &second[..]].into_iter()).unwrap();
            prop_assert_eq!(times, [a.0, b.0]);
            let (mut again, written) = (Vec::new(), RowOrder::of(&back).unwrap());
            written.put(a.0, 0, &mut again);
            prop_assert_eq!(&again, &first);
            for cut in 0..first.len() {
                prop_assert!(columns_of(&kinds, [&first[..cut]].into_iter()).is_err());
            }
        }

        /// A checkpoint's rows are rows or damaged, whatever their bytes.
        #[test]
        fn outside_bytes_are_rows_or_damaged(bytes in prop::collection::vec(prop_oneof![0u8..4, any::<u8>()], 0..40)) {
            for kind in Kind::ALL {
                if let Ok((columns, _)) = columns_of(&[kind], [&bytes[..]].into_iter()) {
                    prop_assert_eq!(columns[0].data_type(), &kind.data_type());
                }
            }
        }
    }
}
