//! Values between JSON and columns, by the rules of the interface.
//!
//! Times are RFC 3339 with microseconds, UTC; NaN and the infinities are text; binary is base64; an int64 is a number,
//! or text where the caller asked for it (JavaScript has no whole numbers above 2^53).

use crate::decode::parse_rfc3339;
use arrow::array::{
    Array, ArrayRef, AsArray, BinaryBuilder, BooleanBuilder, Float32Builder, Float64Builder, Int64Builder, ListBuilder,
    StringBuilder, TimestampMicrosecondBuilder,
};
use arrow::datatypes::{Float32Type, Float64Type, Int64Type, TimestampMicrosecondType};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use onefold_fold::Kind;
use serde_json::{Number, Value};
use std::sync::Arc;

/// How an answer writes whole numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Int64As {
    #[default]
    Number,
    Text,
}

/// A value that is not of the kind it must be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{shown} is no {kind}{hint}")]
pub struct WrongValue {
    /// Its place in the column, from 0.
    pub row: usize,
    pub kind: Kind,
    shown: String,
    hint: &'static str,
}

/// The value at a row; null where the column is.
pub fn to_json(column: &dyn Array, row: usize, int64: Int64As) -> Value {
    if column.is_null(row) {
        return Value::Null;
    }
    match Kind::of(column.data_type()) {
        Some(Kind::Boolean) => Value::Bool(column.as_boolean().value(row)),
        Some(Kind::Int64) => int64_json(column.as_primitive::<Int64Type>().value(row), int64),
        Some(Kind::Float64) => float64_json(column.as_primitive::<Float64Type>().value(row)),
        Some(Kind::Timestamp) => time_json(column.as_primitive::<TimestampMicrosecondType>().value(row)),
        Some(Kind::Utf8) => Value::String(column.as_string::<i32>().value(row).to_owned()),
        Some(Kind::Binary) => Value::String(BASE64.encode(column.as_binary::<i32>().value(row))),
        Some(Kind::Float32List) => {
            let items = column.as_list::<i32>().value(row);
            let items = items.as_primitive::<Float32Type>();
            items.iter().map(|item| item.map_or(Value::Null, float32_json)).collect()
        }
        Some(Kind::Int64List | Kind::Float64List | Kind::Utf8List) => {
            let items = column.as_list::<i32>().value(row);
            (0..items.len()).map(|item| to_json(&items, item, int64)).collect()
        }
        None => Value::Null,
    }
}

/// A time as the interface writes it.
pub fn time_json(us: i64) -> Value {
    time_text(us).map_or(Value::Null, Value::String)
}

/// RFC 3339 with microseconds, UTC; `None` outside the years 0001 to 9999.
pub fn time_text(us: i64) -> Option<String> {
    jiff::Timestamp::from_microsecond(us).ok().map(|time| format!("{time:.6}"))
}

fn int64_json(value: i64, int64: Int64As) -> Value {
    match int64 {
        Int64As::Number => Value::from(value),
        Int64As::Text => Value::String(value.to_string()),
    }
}

fn float64_json(value: f64) -> Value {
    match Number::from_f64(value) {
        Some(number) => Value::Number(number),
        None if value.is_nan() => Value::from("NaN"),
        None if value > 0.0 => Value::from("Infinity"),
        None => Value::from("-Infinity"),
    }
}

fn float32_json(value: f32) -> Value {
    // The shortest text that means this float32, not the long one of the float64 beside it.
    float64_json(value.to_string().parse().unwrap_or(f64::from(value)))
}

/// A column of the kind from JSON values; null stays null. Whole numbers may come as text too.
pub fn from_json<'a>(kind: Kind, values: impl ExactSizeIterator<Item = &'a Value>) -> Result<ArrayRef, WrongValue> {
    let mut row = 0;
    let mut failed = None;
    let mut next = |ok: bool, value: &Value| {
        if !ok && !value.is_null() && failed.is_none() {
            failed = Some(wrong(kind, row, value));
        }
        row += 1;
    };
    macro_rules! built {
        ($builder:expr, $read:expr) => {{
            let mut builder = $builder;
            for value in values {
                let item = $read(value);
                next(item.is_some(), value);
                builder.append_option(item);
            }
            Arc::new(builder.finish()) as ArrayRef
        }};
    }
    macro_rules! list {
        ($builder:expr, $read:expr) => {
            built!(ListBuilder::new($builder), |value: &Value| {
                let items = value.as_array()?;
                items.iter().map(|item| $read(item).map(Some)).collect::<Option<Vec<_>>>()
            })
        };
    }
    let array = match kind {
        Kind::Boolean => built!(BooleanBuilder::new(), Value::as_bool),
        Kind::Int64 => built!(Int64Builder::new(), int64_of),
        Kind::Float64 => built!(Float64Builder::new(), float64_of),
        Kind::Timestamp => built!(TimestampMicrosecondBuilder::new().with_timezone("UTC"), time_of),
        Kind::Utf8 => built!(StringBuilder::new(), |value: &'a Value| value.as_str()),
        Kind::Binary => built!(BinaryBuilder::new(), |value: &Value| BASE64.decode(value.as_str()?).ok()),
        Kind::Int64List => list!(Int64Builder::new(), int64_of),
        Kind::Float32List => list!(Float32Builder::new(), |value: &Value| float64_of(value).map(|wide| wide as f32)),
        Kind::Float64List => list!(Float64Builder::new(), float64_of),
        Kind::Utf8List => list!(StringBuilder::new(), |value: &Value| value.as_str().map(str::to_owned)),
    };
    match failed {
        None => Ok(array),
        Some(wrong) => Err(wrong),
    }
}

/// What a person or a URL wrote for a value of the kind, as the JSON value it means.
pub fn from_text(kind: Kind, text: &str) -> Value {
    match kind {
        Kind::Utf8 | Kind::Binary | Kind::Timestamp => Value::String(text.to_owned()),
        Kind::Int64 => text.parse::<i64>().map_or_else(|_| Value::from(text), Value::from),
        Kind::Float64 => match text.parse::<f64>().ok().and_then(Number::from_f64) {
            Some(number) => Value::Number(number),
            None => Value::from(text),
        },
        _ => serde_json::from_str(text).unwrap_or_else(|_| Value::from(text)),
    }
}

fn int64_of(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64(),
        Value::String(text) if text.len() <= 20 && !text.starts_with('+') => text.parse().ok(),
        _ => None,
    }
}

fn float64_of(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => match text.as_str() {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            _ => None,
        },
        _ => None,
    }
}

fn time_of(value: &Value) -> Option<i64> {
    parse_rfc3339(value.as_str()?.as_bytes()).ok()
}

fn wrong(kind: Kind, row: usize, value: &Value) -> WrongValue {
    const SHOWN: usize = 60;
    let text = value.to_string();
    let shown = match text.char_indices().nth(SHOWN) {
        Some((cut, _)) => format!("{}…", &text[..cut]),
        None => text,
    };
    let hint = match kind {
        Kind::Timestamp => ": write RFC 3339 with an offset, 2026-01-02T10:00:00Z",
        Kind::Binary => ": write base64",
        Kind::Float64 => ": write a number, \"NaN\", \"Infinity\" or \"-Infinity\"",
        Kind::Utf8 => ": write text",
        _ => "",
    };
    WrongValue { row, kind, shown, hint }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn there_and_back(kind: Kind, values: &[Value]) -> Vec<Value> {
        let column = from_json(kind, values.iter()).unwrap();
        (0..column.len()).map(|row| to_json(&column, row, Int64As::Number)).collect()
    }

    #[test]
    fn values_come_back_as_they_were_sent() {
        let cases = [
            (Kind::Boolean, vec![json!(true), json!(null)]),
            (Kind::Int64, vec![json!(i64::MIN), json!(i64::MAX), json!(null)]),
            (Kind::Float64, vec![json!(0.1), json!(-0.0), json!("NaN"), json!("Infinity"), json!("-Infinity")]),
            (Kind::Timestamp, vec![json!("2026-01-02T10:00:00.000001Z"), json!(null)]),
            (Kind::Utf8, vec![json!("é\u{0}"), json!("")]),
            (Kind::Binary, vec![json!("AAH/"), json!("")]),
            (Kind::Int64List, vec![json!([1, 2]), json!([]), json!(null)]),
            (Kind::Float32List, vec![json!([0.1, "NaN"])]),
            (Kind::Float64List, vec![json!([0.1])]),
            (Kind::Utf8List, vec![json!(["a", ""])]),
        ];
        for (kind, values) in cases {
            let shown: Vec<String> = there_and_back(kind, &values).iter().map(Value::to_string).collect();
            assert_eq!(shown, values.iter().map(Value::to_string).collect::<Vec<_>>(), "{kind}");
        }
    }

    #[test]
    fn int64_is_text_where_it_is_asked_for() {
        let column = from_json(Kind::Int64, [json!("9007199254740993"), json!(1)].iter()).unwrap();
        assert_eq!(to_json(&column, 0, Int64As::Text), json!("9007199254740993"));
        assert_eq!(to_json(&column, 0, Int64As::Number), json!(9_007_199_254_740_993_i64));
    }

    #[test]
    fn what_is_of_another_kind_is_named_with_its_place() {
        let cases = [
            (Kind::Utf8, json!(5), "5 is no utf8: write text"),
            (Kind::Int64, json!(3.0), "3.0 is no int64"),
            (Kind::Int64, json!("x"), "\"x\" is no int64"),
            (
                Kind::Timestamp,
                json!("2026"),
                "\"2026\" is no timestamp: write RFC 3339 with an offset, 2026-01-02T10:00:00Z",
            ),
            (Kind::Boolean, json!("true"), "\"true\" is no boolean"),
            (Kind::Int64List, json!([1, null]), "[1,null] is no list<int64>"),
        ];
        for (kind, value, message) in cases {
            let wrong = from_json(kind, [Value::Null, value].iter()).unwrap_err();
            assert_eq!((wrong.row, wrong.to_string().as_str()), (1, message));
        }
    }
}
