//! Columns as they cross: bytes in Arrow's layout, looked at in place. Each is checked once a call, then read by row.

use crate::kind::Kind;
use crate::state::{one_nan, one_nan_f32};
use crate::value::Value;
use std::borrow::Cow;

/// The four buffers of a column, as the contract has them (`sdk/wit/udf.wit`).
#[derive(Clone, Copy, Debug, Default)]
pub struct Column<'a> {
    pub validity: &'a [u8],
    pub lists: &'a [u8],
    pub offsets: &'a [u8],
    pub data: &'a [u8],
}

/// Which rows are not null.
#[derive(Clone, Copy, Debug)]
pub struct Validity<'a> {
    bits: &'a [u8],
}

impl<'a> Validity<'a> {
    fn of(column: &Column<'a>, rows: usize) -> Result<Validity<'a>, String> {
        let bits = column.validity;
        if bits.is_empty() || bits.len() >= rows.div_ceil(8) {
            return Ok(Validity { bits });
        }
        Err(format!(
            "a validity of {} bytes is too short for {rows} rows: one bit a row is needed, or none at all",
            bits.len()
        ))
    }

    /// Whether the row has a value.
    #[inline]
    pub fn has(&self, row: usize) -> bool {
        self.bits.is_empty() || bit(self.bits, row)
    }
}

#[inline]
fn bit(bits: &[u8], row: usize) -> bool {
    bits.get(row >> 3).is_some_and(|byte| byte >> (row & 7) & 1 == 1)
}

/// A column of booleans.
#[derive(Clone, Copy, Debug)]
pub struct Booleans<'a> {
    validity: Validity<'a>,
    bits: &'a [u8],
}

/// A column of numbers of 8 bytes: int64, float64 or timestamp.
#[derive(Clone, Copy, Debug)]
pub struct Words<'a> {
    validity: Validity<'a>,
    words: &'a [[u8; 8]],
}

/// A column of text or binary, or the texts of lists.
#[derive(Clone, Copy, Debug)]
pub struct Strings<'a> {
    validity: Validity<'a>,
    offsets: &'a [[u8; 4]],
    data: &'a [u8],
}

/// A column of lists: where each row's items begin and end.
#[derive(Clone, Copy, Debug)]
pub struct Lists<'a> {
    validity: Validity<'a>,
    offsets: &'a [[u8; 4]],
}

/// A column of any kind, checked.
#[derive(Clone, Copy, Debug)]
pub enum AnyColumn<'a> {
    Boolean(Booleans<'a>),
    Int64(Words<'a>),
    Float64(Words<'a>),
    Timestamp(Words<'a>),
    Utf8(Strings<'a>),
    Binary(Strings<'a>),
    Int64List(Lists<'a>, &'a [[u8; 8]]),
    Float32List(Lists<'a>, &'a [[u8; 4]]),
    Float64List(Lists<'a>, &'a [[u8; 8]]),
    Utf8List(Lists<'a>, Strings<'a>),
}

impl<'a> Booleans<'a> {
    pub fn of(column: &Column<'a>, rows: usize) -> Result<Booleans<'a>, String> {
        if column.data.len() < rows.div_ceil(8) {
            return Err(format!(
                "{} bytes of booleans are too few for {rows} rows: one bit a row is needed",
                column.data.len()
            ));
        }
        Ok(Booleans { validity: Validity::of(column, rows)?, bits: column.data })
    }

    #[inline]
    pub fn get(&self, row: usize) -> Option<bool> {
        self.validity.has(row).then(|| bit(self.bits, row))
    }
}

impl<'a> Words<'a> {
    pub fn of(column: &Column<'a>, rows: usize) -> Result<Words<'a>, String> {
        let (words, _) = column.data.as_chunks::<8>();
        let words = words.get(..rows).ok_or_else(|| {
            format!("{} bytes of numbers are too few for {rows} rows: 8 a row are needed", column.data.len())
        })?;
        Ok(Words { validity: Validity::of(column, rows)?, words })
    }

    /// The row as an integer: an int64, or a timestamp in microseconds.
    #[inline]
    pub fn integer(&self, row: usize) -> Option<i64> {
        if self.validity.has(row) { self.words.get(row).map(|word| i64::from_le_bytes(*word)) } else { None }
    }

    /// The row as a float; every NaN is the one NaN.
    #[inline]
    pub fn float(&self, row: usize) -> Option<f64> {
        if self.validity.has(row) { self.words.get(row).map(|word| one_nan(f64::from_le_bytes(*word))) } else { None }
    }
}

impl<'a> Strings<'a> {
    pub fn of(column: &Column<'a>, rows: usize, text: bool) -> Result<Strings<'a>, String> {
        let mut strings = Strings::items(column, text)?;
        if strings.offsets.len() < rows + 1 && rows > 0 {
            return Err(format!(
                "{} offsets are too few for {rows} rows: one more than rows is needed",
                strings.offsets.len()
            ));
        }
        strings.validity = Validity::of(column, rows)?;
        Ok(strings)
    }

    fn items(column: &Column<'a>, text: bool) -> Result<Strings<'a>, String> {
        let (offsets, _) = column.offsets.as_chunks::<4>();
        let end = check_offsets(offsets)?;
        let data = column
            .data
            .get(..end)
            .ok_or_else(|| format!("the offsets end at {end}, beyond the {} bytes of text", column.data.len()))?;
        if text {
            let text = std::str::from_utf8(data).map_err(|error| format!("a text is not UTF-8: {error}"))?;
            if !text.is_ascii() && !offsets.iter().all(|offset| text.is_char_boundary(number(offset))) {
                return Err("an offset lies inside a character".to_owned());
            }
        }
        Ok(Strings { validity: Validity { bits: &[] }, offsets, data })
    }

    #[inline]
    fn slice(&self, item: usize) -> &'a [u8] {
        match (self.offsets.get(item), self.offsets.get(item + 1)) {
            (Some(start), Some(end)) => self.data.get(number(start)..number(end)).unwrap_or_default(),
            _ => &[],
        }
    }

    #[inline]
    pub fn binary(&self, row: usize) -> Option<&'a [u8]> {
        self.validity.has(row).then(|| self.slice(row))
    }

    #[inline]
    pub fn text(&self, row: usize) -> Option<&'a str> {
        if self.validity.has(row) { std::str::from_utf8(self.slice(row)).ok() } else { None }
    }
}

impl<'a> Lists<'a> {
    fn of(column: &Column<'a>, rows: usize, items: usize) -> Result<Lists<'a>, String> {
        let (offsets, _) = column.lists.as_chunks::<4>();
        if offsets.len() < rows + 1 && rows > 0 {
            return Err(format!(
                "{} list offsets are too few for {rows} rows: one more than rows is needed",
                offsets.len()
            ));
        }
        let end = check_offsets(offsets)?;
        if end > items {
            return Err(format!("the list offsets end at {end}, beyond the {items} items"));
        }
        Ok(Lists { validity: Validity::of(column, rows)?, offsets })
    }

    #[inline]
    fn range(&self, row: usize) -> Option<std::ops::Range<usize>> {
        if !self.validity.has(row) {
            return None;
        }
        Some(number(self.offsets.get(row)?)..number(self.offsets.get(row + 1)?))
    }

    fn items<T, const N: usize>(&self, row: usize, words: &[[u8; N]], read: impl Fn([u8; N]) -> T) -> Option<Vec<T>> {
        Some(words.get(self.range(row)?)?.iter().map(|word| read(*word)).collect())
    }
}

#[inline]
fn number(offset: &[u8; 4]) -> usize {
    u32::from_le_bytes(*offset) as usize
}

fn check_offsets(offsets: &[[u8; 4]]) -> Result<usize, String> {
    let mut last = 0;
    for offset in offsets {
        let next = i32::from_le_bytes(*offset);
        if next < last {
            return Err(format!("offset {next} follows {last}: offsets ascend from 0"));
        }
        last = next;
    }
    Ok(last as usize)
}

impl<'a> AnyColumn<'a> {
    /// Checks the buffers of a column of this kind.
    pub fn of(kind: Kind, column: &Column<'a>, rows: usize) -> Result<AnyColumn<'a>, String> {
        let (words, _) = column.data.as_chunks::<8>();
        let (halves, _) = column.data.as_chunks::<4>();
        Ok(match kind {
            Kind::Boolean => AnyColumn::Boolean(Booleans::of(column, rows)?),
            Kind::Int64 => AnyColumn::Int64(Words::of(column, rows)?),
            Kind::Float64 => AnyColumn::Float64(Words::of(column, rows)?),
            Kind::Timestamp => AnyColumn::Timestamp(Words::of(column, rows)?),
            Kind::Utf8 => AnyColumn::Utf8(Strings::of(column, rows, true)?),
            Kind::Binary => AnyColumn::Binary(Strings::of(column, rows, false)?),
            Kind::Int64List => AnyColumn::Int64List(Lists::of(column, rows, words.len())?, words),
            Kind::Float32List => AnyColumn::Float32List(Lists::of(column, rows, halves.len())?, halves),
            Kind::Float64List => AnyColumn::Float64List(Lists::of(column, rows, words.len())?, words),
            Kind::Utf8List => {
                let items = Strings::items(column, true)?;
                AnyColumn::Utf8List(Lists::of(column, rows, items.offsets.len().saturating_sub(1))?, items)
            }
        })
    }

    /// Whether the row has a value.
    #[inline]
    pub fn has(&self, row: usize) -> bool {
        match self {
            AnyColumn::Boolean(column) => column.validity.has(row),
            AnyColumn::Int64(column) | AnyColumn::Float64(column) | AnyColumn::Timestamp(column) => {
                column.validity.has(row)
            }
            AnyColumn::Utf8(column) | AnyColumn::Binary(column) => column.validity.has(row),
            AnyColumn::Int64List(lists, _)
            | AnyColumn::Float32List(lists, _)
            | AnyColumn::Float64List(lists, _)
            | AnyColumn::Utf8List(lists, _) => lists.validity.has(row),
        }
    }

    /// The row's value, borrowed where that is possible.
    #[inline]
    pub fn value(&self, row: usize) -> Value<'a> {
        let value = match self {
            AnyColumn::Boolean(column) => column.get(row).map(Value::Boolean),
            AnyColumn::Int64(column) => column.integer(row).map(Value::Int64),
            AnyColumn::Float64(column) => column.float(row).map(Value::Float64),
            AnyColumn::Timestamp(column) => column.integer(row).map(Value::Timestamp),
            AnyColumn::Utf8(column) => column.text(row).map(Value::text),
            AnyColumn::Binary(column) => column.binary(row).map(|bytes| Value::Binary(Cow::Borrowed(bytes))),
            _ => self.list(row),
        };
        value.unwrap_or(Value::Null)
    }

    fn list(&self, row: usize) -> Option<Value<'a>> {
        Some(match self {
            AnyColumn::Int64List(lists, words) => Value::Int64List(lists.items(row, words, i64::from_le_bytes)?),
            AnyColumn::Float32List(lists, words) => {
                Value::Float32List(lists.items(row, words, |word| one_nan_f32(f32::from_le_bytes(word)))?)
            }
            AnyColumn::Float64List(lists, words) => {
                Value::Float64List(lists.items(row, words, |word| one_nan(f64::from_le_bytes(word)))?)
            }
            AnyColumn::Utf8List(lists, texts) => {
                Value::Utf8List(lists.range(row)?.filter_map(|item| texts.text(item)).map(Cow::Borrowed).collect())
            }
            _ => return None,
        })
    }
}

/// Looks at all columns of a call, kind by kind.
pub fn all<'a>(kinds: &[Kind], columns: &[Column<'a>], rows: usize) -> Result<Vec<AnyColumn<'a>>, String> {
    if kinds.len() != columns.len() {
        return Err(format!("{} columns came, {} were agreed in prepare", columns.len(), kinds.len()));
    }
    kinds.iter().zip(columns).map(|(kind, column)| AnyColumn::of(*kind, column, rows)).collect()
}
