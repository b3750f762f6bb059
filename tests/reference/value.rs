//! Values and rows as the brute force holds them, and the canonical order (rule 4).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use onefold_fold::Kind;
use std::cmp::Ordering;
use std::collections::BTreeMap;

/// One decoded value. Timestamps are microseconds since the epoch, UTC. Lists hold no nulls.
///
/// Equal means equal in canonical order: every NaN is one value, and -0.0 differs from 0.0. That is equality to the
/// bit once NaNs are canonical.
#[derive(Clone, Debug)]
pub enum Value {
    Null,
    Boolean(bool),
    Int64(i64),
    Float64(f64),
    Timestamp(i64),
    Utf8(String),
    Binary(Vec<u8>),
    Int64List(Vec<i64>),
    Float32List(Vec<f32>),
    Float64List(Vec<f64>),
    Utf8List(Vec<String>),
}

/// One row of a source. A column that is not in `values` is null.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row {
    pub event_time_us: i64,
    pub values: BTreeMap<String, Value>,
}

impl Row {
    /// The value of a column, null when the row does not have it.
    pub fn value(&self, column: &str) -> Value {
        self.values.get(column).cloned().unwrap_or(Value::Null)
    }

    /// The row as the JSON text of an event with flat columns; nulls are left out, odd floats are strings.
    pub fn to_event(&self) -> String {
        let mut event = serde_json::Map::new();
        for (column, value) in &self.values {
            if !value.is_null() {
                event.insert(column.clone(), value.to_json());
            }
        }
        serde_json::Value::Object(event).to_string()
    }
}

impl Value {
    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }

    pub fn is_nan(&self) -> bool {
        matches!(self, Value::Float64(float) if float.is_nan())
    }

    /// The value under the equality of `eq`, `in` and the distinct aggregates: -0.0 and 0.0 are one value (0.0).
    pub fn without_negative_zero(&self) -> Value {
        match self {
            Value::Float64(float) if *float == 0.0 => Value::Float64(0.0),
            Value::Float64List(list) => {
                Value::Float64List(list.iter().map(|x| if *x == 0.0 { 0.0 } else { *x }).collect())
            }
            Value::Float32List(list) => {
                Value::Float32List(list.iter().map(|x| if *x == 0.0 { 0.0 } else { *x }).collect())
            }
            other => other.clone(),
        }
    }

    /// The value that a JSON (or YAML) event means for a column of this kind; `Err` says why it cannot be decoded.
    pub fn from_json(kind: Kind, json: &serde_json::Value) -> Result<Value, String> {
        let wrong = || format!("{json} is no {kind}");
        if json.is_null() {
            return Ok(Value::Null);
        }
        let float = |json: &serde_json::Value| match json.as_str() {
            Some("NaN") => Some(f64::NAN),
            Some("Infinity") => Some(f64::INFINITY),
            Some("-Infinity") => Some(f64::NEG_INFINITY),
            Some(_) => None,
            // YAML's own `.nan` and `.inf` are no JSON numbers and never come here.
            None => json.as_f64(),
        };
        let items = || json.as_array().ok_or_else(wrong);
        match kind {
            Kind::Boolean => json.as_bool().map(Value::Boolean),
            Kind::Int64 => json.as_i64().map(Value::Int64),
            Kind::Float64 => float(json).map(Value::Float64),
            Kind::Timestamp => json.as_str().and_then(parse_time_us).map(Value::Timestamp),
            Kind::Utf8 => json.as_str().map(|text| Value::Utf8(text.to_owned())),
            Kind::Binary => json.as_str().and_then(|text| STANDARD.decode(text).ok()).map(Value::Binary),
            Kind::Int64List => {
                items()?.iter().map(serde_json::Value::as_i64).collect::<Option<_>>().map(Value::Int64List)
            }
            Kind::Float64List => items()?.iter().map(float).collect::<Option<_>>().map(Value::Float64List),
            Kind::Float32List => {
                items()?.iter().map(|item| float(item).map(|x| x as f32)).collect::<Option<_>>().map(Value::Float32List)
            }
            Kind::Utf8List => {
                items()?.iter().map(|item| item.as_str().map(str::to_owned)).collect::<Option<_>>().map(Value::Utf8List)
            }
        }
        .ok_or_else(wrong)
    }

    /// The value as JSON, in the form of events and of HTTP answers.
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::Value as Json;
        let float = |x: f64| match x {
            x if x.is_nan() => Json::from("NaN"),
            f64::INFINITY => Json::from("Infinity"),
            f64::NEG_INFINITY => Json::from("-Infinity"),
            x => Json::from(x),
        };
        match self {
            Value::Null => Json::Null,
            Value::Boolean(value) => Json::from(*value),
            Value::Int64(value) => Json::from(*value),
            Value::Float64(value) => float(*value),
            Value::Timestamp(value) => Json::from(format_time_us(*value)),
            Value::Utf8(value) => Json::from(value.as_str()),
            Value::Binary(value) => Json::from(STANDARD.encode(value)),
            Value::Int64List(list) => Json::from(list.clone()),
            Value::Float32List(list) => list.iter().map(|x| float(f64::from(*x))).collect(),
            Value::Float64List(list) => list.iter().map(|x| float(*x)).collect(),
            Value::Utf8List(list) => Json::from(list.clone()),
        }
    }

    /// Where kinds stand to each other; rows of one column only ever meet null and one kind.
    fn rank(&self) -> u8 {
        match self {
            Value::Null => 0,
            Value::Boolean(_) => 1,
            Value::Int64(_) => 2,
            Value::Float64(_) => 3,
            Value::Timestamp(_) => 4,
            Value::Utf8(_) => 5,
            Value::Binary(_) => 6,
            Value::Int64List(_) => 7,
            Value::Float32List(_) => 8,
            Value::Float64List(_) => 9,
            Value::Utf8List(_) => 10,
        }
    }
}

impl Ord for Value {
    /// Rule 4: null first, numbers by number, floats in total order, text and binary by bytes, lists element by element.
    fn cmp(&self, other: &Value) -> Ordering {
        match (self, other) {
            (Value::Boolean(a), Value::Boolean(b)) => a.cmp(b),
            (Value::Int64(a), Value::Int64(b)) | (Value::Timestamp(a), Value::Timestamp(b)) => a.cmp(b),
            (Value::Float64(a), Value::Float64(b)) => float_order(*a, *b),
            (Value::Utf8(a), Value::Utf8(b)) => a.as_bytes().cmp(b.as_bytes()),
            (Value::Binary(a), Value::Binary(b)) => a.cmp(b),
            (Value::Int64List(a), Value::Int64List(b)) => list_order(a, b, i64::cmp),
            (Value::Float32List(a), Value::Float32List(b)) => {
                list_order(a, b, |x, y| float_order(f64::from(*x), f64::from(*y)))
            }
            (Value::Float64List(a), Value::Float64List(b)) => list_order(a, b, |x, y| float_order(*x, *y)),
            (Value::Utf8List(a), Value::Utf8List(b)) => list_order(a, b, |x, y| x.as_bytes().cmp(y.as_bytes())),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl PartialOrd for Value {
    fn partial_cmp(&self, other: &Value) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Value) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Value {}

/// -0.0 below 0.0, NaN greatest and equal to itself.
pub fn float_order(a: f64, b: f64) -> Ordering {
    match (a.is_nan(), b.is_nan()) {
        (true, true) => Ordering::Equal,
        (true, false) => Ordering::Greater,
        (false, true) => Ordering::Less,
        (false, false) if a < b => Ordering::Less,
        (false, false) if a > b => Ordering::Greater,
        (false, false) => b.is_sign_negative().cmp(&a.is_sign_negative()),
    }
}

fn list_order<T>(a: &[T], b: &[T], order: impl Fn(&T, &T) -> Ordering) -> Ordering {
    let first_difference = a.iter().zip(b).map(|(x, y)| order(x, y)).find(|found| found.is_ne());
    first_difference.unwrap_or(a.len().cmp(&b.len()))
}

/// RFC 3339 text as microseconds since the epoch; what is finer is floored.
pub fn parse_time_us(text: &str) -> Option<i64> {
    let instant: jiff::Timestamp = text.parse().ok()?;
    i64::try_from(instant.as_nanosecond().div_euclid(1000)).ok()
}

/// Microseconds since the epoch as RFC 3339 with six digits.
pub fn format_time_us(time_us: i64) -> String {
    let instant = jiff::Timestamp::from_microsecond(time_us).expect("a test's time is in the calendar");
    format!("{instant:.6}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_the_rules() {
        let ascending = [
            vec![Value::Null, Value::Boolean(false), Value::Boolean(true)],
            vec![Value::Null, Value::Int64(i64::MIN), Value::Int64(-1), Value::Int64(0), Value::Int64(i64::MAX)],
            [f64::NEG_INFINITY, -1.0, -0.0, 0.0, 5e-324, 1.0, f64::INFINITY, f64::NAN].map(Value::Float64).to_vec(),
            ["", "Z", "a", "aa", "\u{e9}", "\u{ffff}", "\u{10000}"].map(|text| Value::Utf8(text.into())).to_vec(),
            vec![
                Value::Float64List(vec![]),
                Value::Float64List(vec![-0.0]),
                Value::Float64List(vec![-0.0, 1.0]),
                Value::Float64List(vec![0.0]),
                Value::Float64List(vec![f64::NAN]),
            ],
        ];
        for values in ascending {
            for (i, a) in values.iter().enumerate() {
                for (j, b) in values.iter().enumerate() {
                    assert_eq!(a.cmp(b), i.cmp(&j), "{a:?} against {b:?}");
                }
            }
        }
        assert_eq!(Value::Float64(-f64::NAN), Value::Float64(f64::NAN));
    }

    #[test]
    fn an_event_reads_back_as_the_row_it_was_written_from() {
        for value in [f64::NAN, -0.0, 0.0, f64::NEG_INFINITY, 5e-324, 0.1].map(Value::Float64) {
            assert_eq!(Value::from_json(Kind::Float64, &value.to_json()), Ok(value));
        }
        let binary = Value::Binary(vec![0, 255, 10]);
        assert_eq!(Value::from_json(Kind::Binary, &binary.to_json()), Ok(binary));
        assert_eq!(parse_time_us("1969-12-31T23:59:59.9999999Z"), Some(-1));
        assert_eq!(parse_time_us(&format_time_us(1_767_348_299_999_999)), Some(1_767_348_299_999_999));
        assert!(Value::from_json(Kind::Int64, &serde_json::json!(3.0)).is_err());
    }
}
