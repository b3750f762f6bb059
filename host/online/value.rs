//! One value of any kind as bytes, and back into a column: how values of changing length are kept online.
//!
//! Text and binary are their bytes. A list is its items one after the other: a byte (1 = a value follows, 0 = null),
//! then 8 bytes (4 for float32), little-endian, or for text a 4-byte length and the bytes.

use arrow::array::{
    ArrayRef, AsArray, BinaryBuilder, Float32Builder, Float64Builder, Int64Builder, ListArray, ListBuilder,
    StringBuilder,
};
use arrow::datatypes::{Float32Type, Float64Type, Int64Type};
use onefold_fold::Kind;
use std::sync::Arc;

/// Whether values of this kind take eight bytes or fewer and are kept in place.
pub fn is_fixed(kind: Kind) -> bool {
    matches!(kind, Kind::Boolean | Kind::Int64 | Kind::Float64 | Kind::Timestamp)
}

/// Appends the value at `row` of a column of changing length.
pub fn put(kind: Kind, column: &ArrayRef, row: usize, out: &mut Vec<u8>) {
    match kind {
        Kind::Utf8 => out.extend_from_slice(column.as_string::<i32>().value(row).as_bytes()),
        Kind::Binary => out.extend_from_slice(column.as_binary::<i32>().value(row)),
        Kind::Int64List => {
            let items = item(column, row);
            let items = items.as_primitive::<Int64Type>();
            items.iter().for_each(|item| put_item(out, item.map(i64::to_le_bytes)));
        }
        Kind::Float64List => {
            let items = item(column, row);
            items.as_primitive::<Float64Type>().iter().for_each(|item| put_item(out, item.map(f64::to_le_bytes)));
        }
        Kind::Float32List => {
            let items = item(column, row);
            items.as_primitive::<Float32Type>().iter().for_each(|item| put_item(out, item.map(f32::to_le_bytes)));
        }
        Kind::Utf8List => {
            let items = item(column, row);
            for text in items.as_string::<i32>() {
                put_item(out, text.map(|text| (text.len() as u32).to_le_bytes()));
                out.extend_from_slice(text.unwrap_or_default().as_bytes());
            }
        }
        Kind::Boolean | Kind::Int64 | Kind::Float64 | Kind::Timestamp => {}
    }
}

fn item(column: &ArrayRef, row: usize) -> ArrayRef {
    let list: &ListArray = column.as_list::<i32>();
    list.value(row)
}

fn put_item<const N: usize>(out: &mut Vec<u8>, item: Option<[u8; N]>) {
    out.push(u8::from(item.is_some()));
    out.extend_from_slice(item.as_ref().map_or(&[][..], |item| &item[..]));
}

/// A column of the kind from values as [`put`] wrote them, `None` for null.
pub fn column<'a>(kind: Kind, values: impl Iterator<Item = Option<&'a [u8]>>) -> ArrayRef {
    match kind {
        Kind::Utf8 => {
            let mut builder = StringBuilder::new();
            values.for_each(|value| builder.append_option(value.map(String::from_utf8_lossy)));
            Arc::new(builder.finish())
        }
        Kind::Int64List => {
            let mut builder = ListBuilder::new(Int64Builder::new());
            for value in values {
                let items = value.map(|bytes| Items(bytes).collect_fixed(i64::from_le_bytes));
                builder.append_option(items);
            }
            Arc::new(builder.finish())
        }
        Kind::Float64List => {
            let mut builder = ListBuilder::new(Float64Builder::new());
            for value in values {
                builder.append_option(value.map(|bytes| Items(bytes).collect_fixed(f64::from_le_bytes)));
            }
            Arc::new(builder.finish())
        }
        Kind::Float32List => {
            let mut builder = ListBuilder::new(Float32Builder::new());
            for value in values {
                builder.append_option(value.map(|bytes| Items(bytes).collect_fixed(f32::from_le_bytes)));
            }
            Arc::new(builder.finish())
        }
        Kind::Utf8List => {
            let mut builder = ListBuilder::new(StringBuilder::new());
            for value in values {
                builder.append_option(value.map(|bytes| Items(bytes).collect_text()));
            }
            Arc::new(builder.finish())
        }
        Kind::Binary | Kind::Boolean | Kind::Int64 | Kind::Float64 | Kind::Timestamp => {
            let mut builder = BinaryBuilder::new();
            values.for_each(|value| builder.append_option(value));
            Arc::new(builder.finish())
        }
    }
}

struct Items<'a>(&'a [u8]);

impl<'a> Items<'a> {
    /// The next item's `N` bytes; the outer `None` ends the list.
    fn next<const N: usize>(&mut self) -> Option<Option<[u8; N]>> {
        let (flag, rest) = self.0.split_first()?;
        self.0 = rest;
        if *flag == 0 {
            return Some(None);
        }
        let (bytes, rest) = rest.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(Some(*bytes))
    }

    fn collect_fixed<const N: usize, T>(mut self, value: impl Fn([u8; N]) -> T) -> Vec<Option<T>> {
        std::iter::from_fn(|| self.next::<N>()).map(|item| item.map(&value)).collect()
    }

    fn collect_text(mut self) -> Vec<Option<String>> {
        std::iter::from_fn(|| {
            Some(self.next::<4>()?.map(|len| {
                let (text, rest) = self.0.split_at(self.0.len().min(u32::from_le_bytes(len) as usize));
                self.0 = rest;
                String::from_utf8_lossy(text).into_owned()
            }))
        })
        .collect()
    }
}
