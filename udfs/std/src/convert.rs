//! cast, and the texts of values: numbers, times, base64.

use onefold_udf::column::{AnyColumn, Column};
use onefold_udf::serde_json;
use onefold_udf::transform::{Map, Mapping};
use onefold_udf::{Field, Info, Kind, Prepared, Role, Udf, Value, params};
use std::borrow::Cow;

/// `std.cast`.
pub enum Cast {}

/// The parameters of `std.cast`.
#[params]
pub struct To {
    /// The kind to cast to.
    to: Target,
}

/// The kinds that can be cast to.
#[params]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    Boolean,
    Int64,
    Float64,
    Timestamp,
    Utf8,
}

impl Target {
    fn kind(self) -> Kind {
        match self {
            Target::Boolean => Kind::Boolean,
            Target::Int64 => Kind::Int64,
            Target::Float64 => Kind::Float64,
            Target::Timestamp => Kind::Timestamp,
            Target::Utf8 => Kind::Utf8,
        }
    }
}

impl Udf for Cast {
    fn info() -> Info {
        let doc = "The input as another kind; null where it has no value there. Floats become integers half to even, \
                   timestamps are microseconds since the epoch as integers and RFC 3339 as text";
        Info { name: "cast", role: Role::Transform, doc, params: params::schema::<To>() }
    }

    fn prepare(text: &str, inputs: &[Field]) -> Result<Prepared, String> {
        let To { to } = params::parse("cast", text)?;
        let Field { name, kind } = crate::inputs::one("cast", inputs)?;
        let (from, to) = (*kind, to.kind());
        if !is_possible(from, to) {
            return Err(format!(
                "input `{name}` is {from}: cast does not make {to} of it; cast to utf8 or int64 first"
            ));
        }
        Ok(Prepared::map(CastMap { from, to }, vec![Field::new("value", to)]).one_to_one())
    }
}

fn is_possible(from: Kind, to: Kind) -> bool {
    use Kind::{Boolean, Float64, Int64, Timestamp, Utf8};
    matches!(
        (from, to),
        (Boolean | Int64 | Float64 | Timestamp | Utf8, Utf8 | Int64)
            | (Boolean | Int64 | Float64 | Utf8, Float64)
            | (Boolean | Int64 | Utf8, Boolean)
            | (Int64 | Timestamp | Utf8, Timestamp)
    )
}

struct CastMap {
    from: Kind,
    to: Kind,
}

impl Map for CastMap {
    fn map(&self, columns: &[Column<'_>], rows: usize, out: &mut Mapping) -> Result<(), String> {
        let column = AnyColumn::of(self.from, crate::inputs::only(columns)?, rows)?;
        let [builder] = out.builders.as_mut_slice() else { return Err("cast has one output".to_owned()) };
        for row in 0..rows {
            builder.push(&cast(column.value(row), self.to))?;
        }
        (0..rows).for_each(|row| out.made_of(row));
        Ok(())
    }
}

fn cast(value: Value<'_>, to: Kind) -> Value<'_> {
    let cast = match to {
        Kind::Utf8 => text_of(&value).map(|text| Value::Utf8(Cow::Owned(text))),
        Kind::Int64 => integer_of(&value).map(Value::Int64),
        Kind::Float64 => match &value {
            Value::Boolean(value) => Some(f64::from(u8::from(*value))),
            Value::Int64(value) => Some(*value as f64),
            Value::Float64(value) => Some(*value),
            Value::Utf8(text) => float_from(text),
            _ => None,
        }
        .map(Value::float64),
        Kind::Boolean => match &value {
            Value::Boolean(value) => Some(*value),
            Value::Int64(value) => Some(*value != 0),
            Value::Utf8(text) => match text.as_ref() {
                "true" => Some(true),
                "false" => Some(false),
                _ => None,
            },
            _ => None,
        }
        .map(Value::Boolean),
        Kind::Timestamp => match &value {
            Value::Int64(value) | Value::Timestamp(value) => Some(*value),
            Value::Utf8(text) => micros_from(text),
            _ => None,
        }
        .map(Value::Timestamp),
        _ => None,
    };
    cast.unwrap_or(Value::Null)
}

fn integer_of(value: &Value<'_>) -> Option<i64> {
    match value {
        Value::Boolean(value) => Some(i64::from(*value)),
        Value::Int64(value) | Value::Timestamp(value) => Some(*value),
        Value::Float64(value) => integer_from(*value),
        Value::Utf8(text) => text.parse().ok().or_else(|| float_from(text).and_then(integer_from)),
        _ => None,
    }
}

/// The nearest integer, half to even; none outside the range of int64.
fn integer_from(value: f64) -> Option<i64> {
    let rounded = value.round_ties_even();
    // 2^63 is a float, 2^63 - 1 is not.
    (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&rounded).then_some(rounded as i64)
}

/// A decimal number, with or without fraction and exponent, or one of the three names of what is no number.
fn float_from(text: &str) -> Option<f64> {
    match text {
        "NaN" => Some(f64::NAN),
        "Infinity" => Some(f64::INFINITY),
        "-Infinity" => Some(f64::NEG_INFINITY),
        _ => {
            let is_decimal = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-'));
            text.parse().ok().filter(|value: &f64| is_decimal && value.is_finite())
        }
    }
}

/// The text of a value: of a float the shortest that reads back as it.
fn text_of(value: &Value<'_>) -> Option<String> {
    Some(match value {
        Value::Boolean(value) => value.to_string(),
        Value::Int64(value) => value.to_string(),
        Value::Float64(value) if value.is_nan() => "NaN".to_owned(),
        Value::Float64(value) if value.is_infinite() => if *value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned(),
        Value::Float64(value) => format!("{value:?}"),
        Value::Timestamp(micros) => rfc_3339(*micros),
        Value::Utf8(text) => text.to_string(),
        _ => return None,
    })
}

const MICROS_A_DAY: i64 = 86_400_000_000;

/// A time as RFC 3339 with microseconds, UTC.
fn rfc_3339(micros: i64) -> String {
    let (days, rest) = (micros.div_euclid(MICROS_A_DAY), micros.rem_euclid(MICROS_A_DAY));
    let (year, month, day) = date(days);
    let (seconds, micros) = (rest / 1_000_000, rest % 1_000_000);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
}

/// Year, month and day of a day since the epoch: years of the algorithm begin in March, so that leap days come last.
fn date(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

fn days_of(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let march_month = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * march_month + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// Microseconds since the epoch of an RFC 3339 time; what is finer is floored.
pub fn micros_from(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    let digits = |from: usize, to: usize| -> Option<i64> {
        let part = bytes.get(from..to)?;
        part.iter().try_fold(0, |number, byte| byte.is_ascii_digit().then(|| number * 10 + i64::from(byte - b'0')))
    };
    let is = |at: usize, wanted: &[u8]| bytes.get(at).is_some_and(|byte| wanted.contains(byte));
    if !(is(4, b"-") && is(7, b"-") && is(10, b"Tt ") && is(13, b":") && is(16, b":")) {
        return None;
    }
    let (year, month, day) = (digits(0, 4)?, digits(5, 7)?, digits(8, 10)?);
    let (hour, minute, second) = (digits(11, 13)?, digits(14, 16)?, digits(17, 19)?);
    let days = days_of(year, month, day);
    if date(days) != (year, month, day) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let mut at = 19;
    let mut micros = 0;
    if is(at, b".") {
        let fraction: Vec<u8> = bytes[at + 1..].iter().copied().take_while(u8::is_ascii_digit).collect();
        at += 1 + fraction.len();
        let six = fraction.iter().copied().chain(std::iter::repeat(b'0')).take(6);
        micros = six.fold(0, |number, digit| number * 10 + i64::from(digit - b'0'));
        if fraction.is_empty() {
            return None;
        }
    }
    let offset = if is(at, b"Zz") && bytes.len() == at + 1 {
        0
    } else if is(at, b"+-") && is(at + 3, b":") && bytes.len() == at + 6 {
        let (hours, minutes) = (digits(at + 1, at + 3)?, digits(at + 4, at + 6)?);
        if hours > 23 || minutes > 59 {
            return None;
        }
        (hours * 60 + minutes) * if is(at, b"-") { -60 } else { 60 }
    } else {
        return None;
    };
    let seconds = days * 86_400 + hour * 3600 + minute * 60 + second - offset;
    Some(seconds * 1_000_000 + micros)
}

/// A constant of a kind, as definitions write it.
pub fn from_json(json: &serde_json::Value, kind: Kind) -> Option<Value<'static>> {
    Some(match kind {
        Kind::Boolean => Value::Boolean(json.as_bool()?),
        Kind::Int64 => Value::Int64(json.as_i64()?),
        Kind::Float64 => match json.as_str() {
            Some(name) => Value::float64(float_from(name).filter(|value| !value.is_finite())?),
            None => Value::float64(json.as_f64()?),
        },
        Kind::Timestamp => Value::Timestamp(micros_from(json.as_str()?)?),
        Kind::Utf8 => Value::Utf8(Cow::Owned(json.as_str()?.to_owned())),
        Kind::Binary => Value::Binary(Cow::Owned(base64(json.as_str()?)?)),
        Kind::Int64List => Value::Int64List(items(json, serde_json::Value::as_i64)?),
        Kind::Float32List => Value::Float32List(items(json, |item| item.as_f64().map(|value| value as f32))?),
        Kind::Float64List => Value::Float64List(items(json, serde_json::Value::as_f64)?),
        Kind::Utf8List => Value::Utf8List(items(json, |item| item.as_str().map(|text| Cow::Owned(text.to_owned())))?),
    })
}

fn items<T>(json: &serde_json::Value, read: impl Fn(&serde_json::Value) -> Option<T>) -> Option<Vec<T>> {
    json.as_array()?.iter().map(read).collect()
}

/// The bytes of standard base64 with padding.
fn base64(text: &str) -> Option<Vec<u8>> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = text.trim_end_matches('=');
    if !text.len().is_multiple_of(4) || text.len() - digits.len() > 2 {
        return None;
    }
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count) = (0u32, 0);
    for digit in digits.bytes() {
        bits = bits << 6 | ALPHABET.iter().position(|known| *known == digit)? as u32;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    (bits == 0).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_written() {
        assert_eq!(micros_from("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(micros_from("2026-01-02T09:04:59.999999+00:00"), Some(1_767_344_699_999_999));
        assert_eq!(micros_from("2026-01-02T10:04:59.9999999+01:00"), Some(1_767_344_699_999_999));
        assert_eq!(micros_from("2024-02-29T00:00:00Z").map(rfc_3339).as_deref(), Some("2024-02-29T00:00:00.000000Z"));
        assert_eq!(micros_from("1969-12-31T23:59:59.5Z"), Some(-500_000));
        for wrong in ["2023-02-29T00:00:00Z", "2026-01-02", "2026-01-02T00:00:00", "2026-01-02T24:00:00Z", "é", ""] {
            assert_eq!(micros_from(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn casts_are_as_documented() {
        let cases = [
            (Value::Float64(2.5), Kind::Int64, Value::Int64(2)),
            (Value::Float64(-3.5), Kind::Int64, Value::Int64(-4)),
            (Value::Float64(9.223372036854775e18), Kind::Int64, Value::Int64(9223372036854774784)),
            (Value::Float64(9.223372036854776e18), Kind::Int64, Value::Null),
            (Value::Float64(f64::NAN), Kind::Int64, Value::Null),
            (Value::Float64(-0.0), Kind::Utf8, Value::text("-0.0")),
            (Value::Float64(1e300), Kind::Utf8, Value::text("1e300")),
            (Value::text("12"), Kind::Int64, Value::Int64(12)),
            (Value::text("9223372036854775807"), Kind::Int64, Value::Int64(i64::MAX)),
            (Value::text("1e3"), Kind::Int64, Value::Int64(1000)),
            (Value::text("twelve"), Kind::Int64, Value::Null),
            (Value::text(" 1"), Kind::Float64, Value::Null),
            (Value::text("inf"), Kind::Float64, Value::Null),
            (Value::text("1e400"), Kind::Float64, Value::Null),
            (Value::text("-Infinity"), Kind::Float64, Value::Float64(f64::NEG_INFINITY)),
            (Value::Int64(i64::MAX), Kind::Float64, Value::Float64(9.223_372_036_854_776e18)),
            (Value::Int64(7), Kind::Boolean, Value::Boolean(true)),
            (Value::Null, Kind::Utf8, Value::Null),
        ];
        for (value, to, expected) in cases {
            assert_eq!(cast(value.clone(), to), expected, "{value:?} to {to}");
        }
    }

    #[test]
    fn base64_is_the_standard_one() {
        assert_eq!(base64("AP8="), Some(vec![0, 0xff]));
        assert_eq!(base64(""), Some(Vec::new()));
        assert_eq!(base64("AP9="), None, "bits are left over");
        assert_eq!(base64("A_8="), None);
    }
}
