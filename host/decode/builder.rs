//! A column under construction: plain vectors, so that the last row can be taken back.

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Float32Array, Float64Array, Int64Array, ListArray, StringArray,
    TimestampMicrosecondArray,
};
use arrow::buffer::{BooleanBuffer, Buffer, MutableBuffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Field};
use arrow::error::ArrowError;
use onefold_fold::Kind;
use std::sync::Arc;

/// Values of one kind, row by row.
pub struct Builder {
    pub values: Values,
    rows: u32,
    /// Rows that are null, ascending. Most columns have few, and a full one costs no more than its bits.
    nulls: Vec<u32>,
}

/// What is built, by shape.
pub enum Values {
    Boolean(Vec<bool>),
    Int64(Vec<i64>),
    Float32(Vec<f32>),
    Float64(Vec<f64>),
    Timestamp(Vec<i64>),
    /// Ends of the values in `data`.
    Utf8 {
        ends: Vec<i32>,
        data: Vec<u8>,
    },
    Binary {
        ends: Vec<i32>,
        data: Vec<u8>,
    },
    /// Ends of the rows' lists in `items`.
    List {
        ends: Vec<i32>,
        items: Box<Builder>,
    },
}

impl Builder {
    pub fn new(kind: Kind) -> Builder {
        let bytes = || (Vec::new(), Vec::new());
        let list = |items| Values::List { ends: Vec::new(), items: Box::new(Builder::of(items)) };
        let utf8 = || {
            let (ends, data) = bytes();
            Values::Utf8 { ends, data }
        };
        Builder::of(match kind {
            Kind::Boolean => Values::Boolean(Vec::new()),
            Kind::Int64 => Values::Int64(Vec::new()),
            Kind::Float64 => Values::Float64(Vec::new()),
            Kind::Timestamp => Values::Timestamp(Vec::new()),
            Kind::Utf8 => utf8(),
            Kind::Binary => {
                let (ends, data) = bytes();
                Values::Binary { ends, data }
            }
            Kind::Int64List => list(Values::Int64(Vec::new())),
            Kind::Float32List => list(Values::Float32(Vec::new())),
            Kind::Float64List => list(Values::Float64(Vec::new())),
            Kind::Utf8List => list(utf8()),
        })
    }

    fn of(values: Values) -> Builder {
        Builder { values, rows: 0, nulls: Vec::new() }
    }

    pub fn rows(&self) -> u32 {
        self.rows
    }

    /// Says that the caller has put one value into `values`.
    #[inline(always)]
    pub fn pushed(&mut self) {
        self.rows += 1;
    }

    pub fn push_null(&mut self) {
        self.nulls.push(self.rows);
        self.rows += 1;
        match &mut self.values {
            Values::Boolean(values) => values.push(false),
            Values::Int64(values) | Values::Timestamp(values) => values.push(0),
            Values::Float32(values) => values.push(0.0),
            Values::Float64(values) => values.push(0.0),
            Values::Utf8 { ends, data } | Values::Binary { ends, data } => ends.push(offset(data.len())),
            Values::List { ends, items } => ends.push(offset(items.rows as usize)),
        }
    }

    /// Whether the newest row is null.
    pub fn last_is_null(&self) -> bool {
        self.rows > 0 && self.nulls.last() == Some(&(self.rows - 1))
    }

    /// Takes rows back until so many are left.
    pub fn truncate(&mut self, rows: u32) {
        if self.rows <= rows {
            return;
        }
        self.rows = rows;
        while self.nulls.last().is_some_and(|null| *null >= rows) {
            self.nulls.pop();
        }
        let rows = rows as usize;
        let cut = |ends: &mut Vec<i32>| {
            ends.truncate(rows);
            ends.last().map_or(0, |end| usize::try_from(*end).unwrap_or(0))
        };
        match &mut self.values {
            Values::Boolean(values) => values.truncate(rows),
            Values::Int64(values) | Values::Timestamp(values) => values.truncate(rows),
            Values::Float32(values) => values.truncate(rows),
            Values::Float64(values) => values.truncate(rows),
            Values::Utf8 { ends, data } | Values::Binary { ends, data } => {
                let end = cut(ends);
                data.truncate(end);
            }
            Values::List { ends, items } => {
                let end = cut(ends);
                items.truncate(offset(end).unsigned_abs());
            }
        }
    }

    /// The finished column; the builder is empty again, with room for as much.
    pub fn finish(&mut self) -> Result<ArrayRef, ArrowError> {
        let rows = self.rows as usize;
        let nulls = null_buffer(rows, &self.nulls);
        self.rows = 0;
        self.nulls.clear();
        let utf8 = |ends: &mut Vec<i32>, data: &mut Vec<u8>, nulls| {
            StringArray::try_new(offsets(ends), Buffer::from_vec(renew(data)), nulls)
        };
        Ok(match &mut self.values {
            Values::Boolean(values) => {
                let bits = BooleanBuffer::from(values.as_slice());
                values.clear();
                Arc::new(BooleanArray::new(bits, nulls))
            }
            Values::Int64(values) => Arc::new(Int64Array::new(renew(values).into(), nulls)),
            Values::Float32(values) => Arc::new(Float32Array::new(renew(values).into(), nulls)),
            Values::Float64(values) => Arc::new(Float64Array::new(renew(values).into(), nulls)),
            Values::Timestamp(values) => {
                Arc::new(TimestampMicrosecondArray::new(renew(values).into(), nulls).with_timezone("UTC"))
            }
            Values::Utf8 { ends, data } => Arc::new(utf8(ends, data, nulls)?),
            Values::Binary { ends, data } => {
                Arc::new(BinaryArray::try_new(offsets(ends), Buffer::from_vec(renew(data)), nulls)?)
            }
            Values::List { ends, items } => {
                let items = items.finish()?;
                let field = Arc::new(Field::new("item", items.data_type().clone(), true));
                debug_assert!(!matches!(items.data_type(), DataType::List(_)));
                Arc::new(ListArray::try_new(field, offsets(ends), items, nulls)?)
            }
        })
    }
}

/// An offset into a column's data. A batch is held far below the limit before it is decoded.
#[inline(always)]
pub fn offset(length: usize) -> i32 {
    i32::try_from(length).unwrap_or(i32::MAX)
}

/// Takes what was built and leaves room for about as much again.
fn renew<T>(values: &mut Vec<T>) -> Vec<T> {
    let next = Vec::with_capacity(values.len());
    std::mem::replace(values, next)
}

fn offsets(ends: &mut Vec<i32>) -> OffsetBuffer<i32> {
    let mut starts = Vec::with_capacity(ends.len() + 1);
    starts.push(0);
    starts.append(ends);
    OffsetBuffer::new(ScalarBuffer::from(starts))
}

fn null_buffer(rows: usize, nulls: &[u32]) -> Option<NullBuffer> {
    if nulls.is_empty() {
        return None;
    }
    let mut bits = MutableBuffer::from_len_zeroed(rows.div_ceil(8));
    bits.as_slice_mut().fill(0xff);
    for null in nulls {
        if let Some(byte) = bits.as_slice_mut().get_mut(*null as usize / 8) {
            *byte &= !(1 << (null % 8));
        }
    }
    Some(NullBuffer::new(BooleanBuffer::new(bits.into(), 0, rows)))
}
