//! Columns that go out: built value by value, with one NaN, in the layout of the contract.

use crate::kind::Kind;
use crate::row::Timestamp;
use crate::state::{one_nan, one_nan_f32};
use crate::value::Value;

/// The four buffers of a column that goes out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Buffers {
    pub validity: Vec<u8>,
    pub lists: Vec<u8>,
    pub offsets: Vec<u8>,
    pub data: Vec<u8>,
}

impl Buffers {
    /// The same column, as one that comes in.
    pub fn column(&self) -> crate::column::Column<'_> {
        crate::column::Column { validity: &self.validity, lists: &self.lists, offsets: &self.offsets, data: &self.data }
    }
}

/// A column of a kind that is being written.
#[derive(Clone, Debug)]
pub struct Builder {
    kind: Kind,
    rows: usize,
    nulls: usize,
    buffers: Buffers,
    items: usize,
}

impl Builder {
    pub fn new(kind: Kind) -> Builder {
        let mut buffers = Buffers::default();
        if matches!(kind, Kind::Utf8 | Kind::Binary | Kind::Utf8List) {
            buffers.offsets.extend_from_slice(&[0; 4]);
        }
        if matches!(kind, Kind::Int64List | Kind::Float32List | Kind::Float64List | Kind::Utf8List) {
            buffers.lists.extend_from_slice(&[0; 4]);
        }
        Builder { kind, rows: 0, nulls: 0, buffers, items: 0 }
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The rows written so far.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Appends a value. An error if it is of another kind than the column, or makes it longer than offsets can say.
    pub fn push(&mut self, value: &Value<'_>) -> Result<(), String> {
        match (self.kind, value) {
            (_, Value::Null) => {
                self.null();
                return Ok(());
            }
            (Kind::Boolean, Value::Boolean(value)) => self.bit(*value),
            (Kind::Int64, Value::Int64(value)) | (Kind::Timestamp, Value::Timestamp(value)) => {
                self.buffers.data.extend_from_slice(&value.to_le_bytes());
            }
            (Kind::Float64, Value::Float64(value)) => {
                self.buffers.data.extend_from_slice(&one_nan(*value).to_le_bytes());
            }
            (Kind::Utf8, Value::Utf8(value)) => self.bytes(value.as_bytes())?,
            (Kind::Binary, Value::Binary(value)) => self.bytes(value)?,
            (Kind::Int64List, Value::Int64List(items)) => {
                items.iter().for_each(|item| self.buffers.data.extend_from_slice(&item.to_le_bytes()));
                self.list(items.len())?;
            }
            (Kind::Float32List, Value::Float32List(items)) => {
                items.iter().for_each(|item| self.buffers.data.extend_from_slice(&one_nan_f32(*item).to_le_bytes()));
                self.list(items.len())?;
            }
            (Kind::Float64List, Value::Float64List(items)) => {
                items.iter().for_each(|item| self.buffers.data.extend_from_slice(&one_nan(*item).to_le_bytes()));
                self.list(items.len())?;
            }
            (Kind::Utf8List, Value::Utf8List(items)) => {
                for item in items {
                    self.bytes(item.as_bytes())?;
                }
                self.list(items.len())?;
            }
            (kind, value) => {
                let found = value.kind().map_or("null", Kind::name);
                return Err(format!("a value of {found} is written into a column of {kind}"));
            }
        }
        self.valid();
        Ok(())
    }

    fn null(&mut self) {
        if self.nulls == 0 {
            self.buffers.validity = vec![0xff; self.rows / 8];
            if !self.rows.is_multiple_of(8) {
                self.buffers.validity.push((1 << (self.rows % 8)) - 1);
            }
        }
        self.nulls += 1;
        match self.kind {
            Kind::Boolean => self.bit(false),
            Kind::Int64 | Kind::Float64 | Kind::Timestamp => self.buffers.data.extend_from_slice(&[0; 8]),
            Kind::Utf8 | Kind::Binary => repeat_last(&mut self.buffers.offsets),
            _ => repeat_last(&mut self.buffers.lists),
        }
        if self.rows.is_multiple_of(8) {
            self.buffers.validity.push(0);
        }
        self.rows += 1;
    }

    fn valid(&mut self) {
        if self.nulls > 0 {
            if self.rows.is_multiple_of(8) {
                self.buffers.validity.push(0);
            }
            if let Some(last) = self.buffers.validity.last_mut() {
                *last |= 1 << (self.rows % 8);
            }
        }
        self.rows += 1;
    }

    fn bit(&mut self, value: bool) {
        if self.rows.is_multiple_of(8) {
            self.buffers.data.push(0);
        }
        if let Some(last) = self.buffers.data.last_mut() {
            *last |= u8::from(value) << (self.rows % 8);
        }
    }

    fn bytes(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.buffers.data.extend_from_slice(bytes);
        let end = offset(self.buffers.data.len())?;
        self.buffers.offsets.extend_from_slice(&end);
        Ok(())
    }

    fn list(&mut self, items: usize) -> Result<(), String> {
        self.items += items;
        let end = offset(self.items)?;
        self.buffers.lists.extend_from_slice(&end);
        Ok(())
    }

    /// The finished buffers.
    pub fn finish(self) -> Buffers {
        self.buffers
    }
}

fn repeat_last(offsets: &mut Vec<u8>) {
    if let Some(last) = offsets.last_chunk::<4>().copied() {
        offsets.extend_from_slice(&last);
    }
}

fn offset(end: usize) -> Result<[u8; 4], String> {
    let end =
        i32::try_from(end).map_err(|_| format!("a column of {end} bytes is longer than 2147483647: emit less"))?;
    Ok(end.to_le_bytes())
}

/// Texts, one an item, in the contract's form: offsets and bytes, both empty while no item has one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Texts {
    pub offsets: Vec<u8>,
    pub data: Vec<u8>,
}

impl Texts {
    /// Appends the text of the next item; `items` is how many stand before it.
    pub fn push(&mut self, items: usize, text: &str) {
        if text.is_empty() && self.offsets.is_empty() {
            return;
        }
        if self.offsets.is_empty() {
            self.offsets = vec![0; (items + 1) * 4];
        }
        self.data.extend_from_slice(text.as_bytes());
        self.offsets.extend_from_slice(&(self.data.len() as u32).to_le_bytes());
    }

    /// The text of an item; empty when there is none.
    pub fn get(&self, item: usize) -> &str {
        let (offsets, _) = self.offsets.as_chunks::<4>();
        match (offsets.get(item), offsets.get(item + 1)) {
            (Some(start), Some(end)) => {
                let range = u32::from_le_bytes(*start) as usize..u32::from_le_bytes(*end) as usize;
                self.data.get(range).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default()
            }
            _ => "",
        }
    }
}

/// A value that can be an output column of a typed UDF.
pub trait Output {
    const KIND: Kind;
    fn value(&self) -> Value<'_>;
}

/// What a typed UDF gives for one row: a value, or a tuple of values.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no output of a UDF",
    label = "not an output",
    note = "outputs are bool, i64, f64, Timestamp, String, Vec<u8>, Vec<i64>, Vec<f32>, Vec<f64> and Vec<String>, each \
            also in an Option; several are a tuple"
)]
pub trait OutputRow {
    const KINDS: &'static [Kind];
    fn write_to(&self, builders: &mut [Builder]) -> Result<(), String>;
}

/// Appends a row of nulls.
pub fn push_nulls(builders: &mut [Builder]) {
    builders.iter_mut().for_each(Builder::null);
}

macro_rules! output {
    ($($type:ty, $kind:ident, $self:ident => $value:expr;)*) => {$(
        impl Output for $type {
            const KIND: Kind = Kind::$kind;
            #[inline]
            fn value(&$self) -> Value<'_> {
                $value
            }
        }
        row_of!($type);
        row_of!(Option<$type>);
    )*};
}

macro_rules! row_of {
    ($type:ty) => {
        impl OutputRow for $type {
            const KINDS: &'static [Kind] = &[<$type as Output>::KIND];
            #[inline]
            fn write_to(&self, builders: &mut [Builder]) -> Result<(), String> {
                builders.iter_mut().try_for_each(|builder| builder.push(&self.value()))
            }
        }
    };
}

impl<T: Output> Output for Option<T> {
    const KIND: Kind = T::KIND;
    #[inline]
    fn value(&self) -> Value<'_> {
        self.as_ref().map_or(Value::Null, T::value)
    }
}

output! {
    bool, Boolean, self => Value::Boolean(*self);
    i64, Int64, self => Value::Int64(*self);
    f64, Float64, self => Value::float64(*self);
    Timestamp, Timestamp, self => Value::Timestamp(self.0);
    String, Utf8, self => Value::text(self);
    &str, Utf8, self => Value::text(self);
    Vec<u8>, Binary, self => Value::Binary(self.as_slice().into());
    &[u8], Binary, self => Value::Binary((*self).into());
    Vec<i64>, Int64List, self => Value::Int64List(self.clone());
    Vec<f32>, Float32List, self => Value::Float32List(self.clone());
    Vec<f64>, Float64List, self => Value::Float64List(self.clone());
    Vec<String>, Utf8List, self => Value::Utf8List(self.iter().map(|item| item.as_str().into()).collect());
}

macro_rules! tuple {
    ($($name:ident $index:tt),*) => {
        impl<$($name: Output),*> OutputRow for ($($name,)*) {
            const KINDS: &'static [Kind] = &[$($name::KIND),*];
            #[inline]
            fn write_to(&self, builders: &mut [Builder]) -> Result<(), String> {
                $(if let Some(builder) = builders.get_mut($index) { builder.push(&self.$index.value())?; })*
                Ok(())
            }
        }
    };
}
tuple!(A 0);
tuple!(A 0, B 1);
tuple!(A 0, B 1, C 2);
tuple!(A 0, B 1, C 2, D 3);
tuple!(A 0, B 1, C 2, D 3, E 4);
tuple!(A 0, B 1, C 2, D 3, E 4, F 5);
