//! One JSON value into one cell of a column.

use super::builder::{Builder, Values, offset};
use super::scan::{Broken, Cursor, Number, Text, unescape};
use super::{VALUE_LIMIT_BYTES, excerpt, parse_rfc3339, timestamp};
use crate::define::DecodeAs;
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use onefold_fold::Kind;

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Whether a cell has its value, or why not; then nothing has been pushed.
pub enum Outcome {
    Pushed,
    Failed(String),
}

/// Reads the value at the cursor into the next row of the column. An error means that the text is broken; the builder
/// may hold a part of a value then.
#[inline]
pub fn decode(cursor: &mut Cursor, decode: DecodeAs, builder: &mut Builder, depth: u32) -> Result<Outcome, Broken> {
    let first = cursor.skip_space();
    match (&mut builder.values, first) {
        (_, Some(b'n')) => {
            cursor.literal(b"null")?;
            builder.push_null();
            return Ok(Outcome::Pushed);
        }
        (Values::Utf8 { ends, data }, Some(b'"')) if decode != DecodeAs::Json => {
            let text = cursor.text()?;
            if !text.has_escapes && text.raw.len() <= VALUE_LIMIT_BYTES {
                data.extend_from_slice(text.raw);
            } else if let Err(why) = push_unescaped(&text, data) {
                return Ok(Outcome::Failed(why));
            }
            ends.push(offset(data.len()));
        }
        (Values::Int64(values), Some(b'-' | b'0'..=b'9')) => {
            let number = cursor.number()?;
            match integer(&number) {
                Some(value) => values.push(value),
                None => return Ok(failed(number.text, decode, &Values::Int64(Vec::new()))),
            }
        }
        (Values::Float64(values), Some(b'-' | b'0'..=b'9')) => {
            let number = cursor.number()?;
            match float(&number) {
                Some(value) => values.push(value),
                None => return Ok(too_large_for_float(number.text)),
            }
        }
        (Values::Timestamp(values), Some(b'"')) if decode == DecodeAs::Kind(Kind::Timestamp) => {
            let text = cursor.text()?;
            let time = if text.has_escapes { parse_rfc3339(&unescaped(&text)) } else { parse_rfc3339(text.raw) };
            match time {
                Ok(time) => values.push(time),
                Err(why) => return Ok(Outcome::Failed(format!("`{}` is {why}", excerpt(text.raw)))),
            }
        }
        (Values::Timestamp(values), Some(b'-' | b'0'..=b'9')) if decode != DecodeAs::Kind(Kind::Timestamp) => {
            let number = cursor.number()?;
            let digits_per_unit = match decode {
                DecodeAs::TimestampSeconds => 6,
                DecodeAs::TimestampMillis => 3,
                _ => 0,
            };
            match timestamp::from_number(&number, digits_per_unit) {
                Ok(time) => values.push(time),
                Err(why) => return Ok(Outcome::Failed(format!("{} is {why}", excerpt(number.text)))),
            }
        }
        (Values::Boolean(values), Some(b't')) => {
            cursor.literal(b"true")?;
            values.push(true);
        }
        (Values::Boolean(values), Some(b'f')) => {
            cursor.literal(b"false")?;
            values.push(false);
        }
        _ => return decode_seldom(cursor, decode, builder, depth),
    }
    builder.pushed();
    Ok(Outcome::Pushed)
}

/// The kinds and forms that few events have; what fits none of them fails.
fn decode_seldom(cursor: &mut Cursor, decode: DecodeAs, builder: &mut Builder, depth: u32) -> Result<Outcome, Broken> {
    let raw = cursor.skip_value(depth)?;
    let mut inner = Cursor::new(raw);
    match (&mut builder.values, raw.first()) {
        (Values::Utf8 { ends, data }, _) if decode == DecodeAs::Json => {
            if raw.len() > VALUE_LIMIT_BYTES {
                return Ok(above_limit(raw.len()));
            }
            data.extend_from_slice(raw);
            ends.push(offset(data.len()));
        }
        (Values::Float64(values), Some(b'"')) => match not_finite(&inner.text()?) {
            Some(value) => values.push(value),
            None => return Ok(failed(raw, decode, &builder.values)),
        },
        (Values::Float32(values), Some(b'"')) => match not_finite(&inner.text()?) {
            Some(value) => values.push(value as f32),
            None => return Ok(failed(raw, decode, &builder.values)),
        },
        (Values::Float32(values), Some(b'-' | b'0'..=b'9')) => {
            match parse::<f32>(raw).filter(|value| value.is_finite()) {
                Some(value) => values.push(value),
                None => return Ok(too_large_for_float(raw)),
            }
        }
        (Values::Binary { ends, data }, Some(b'"')) => {
            let before = data.len();
            let text = unescaped(&inner.text()?);
            if BASE64.decode_vec(text, data).is_err() {
                data.truncate(before);
                return Ok(failed(raw, decode, &builder.values));
            }
            if data.len() - before > VALUE_LIMIT_BYTES {
                let size = data.len() - before;
                data.truncate(before);
                return Ok(above_limit(size));
            }
            ends.push(offset(data.len()));
        }
        (Values::List { ends, items }, Some(b'[')) => {
            let before = items.rows();
            if let Some(why) = decode_items(&mut inner, items)? {
                items.truncate(before);
                return Ok(Outcome::Failed(why));
            }
            ends.push(offset(items.rows() as usize));
        }
        (values, _) => return Ok(failed(raw, decode, values)),
    }
    builder.pushed();
    Ok(Outcome::Pushed)
}

/// The items of a list that is known to be whole; or why one of them cannot be an item.
fn decode_items(cursor: &mut Cursor, items: &mut Builder) -> Result<Option<String>, Broken> {
    let decode_item = DecodeAs::Kind(match items.values {
        Values::Int64(_) => Kind::Int64,
        Values::Utf8 { .. } => Kind::Utf8,
        _ => Kind::Float64,
    });
    let (first_row, bytes_before) = (items.rows(), text_bytes(items));
    let mut number = 0u32;
    loop {
        // The bracket before the first item, the comma before the others.
        cursor.at += 1;
        if cursor.skip_space() == Some(b']') {
            return Ok(None);
        }
        if let Outcome::Failed(why) = decode(cursor, decode_item, items, 0)? {
            return Ok(Some(format!("item {number}: {why}")));
        }
        let width = match items.values {
            Values::Utf8 { .. } => 0,
            Values::Float32(_) => 4,
            _ => 8,
        };
        let size = text_bytes(items) - bytes_before + (items.rows() - first_row) as usize * width;
        if size > VALUE_LIMIT_BYTES {
            return Ok(Some(format!("a list whose items take more than {VALUE_LIMIT_BYTES} bytes")));
        }
        number += 1;
        if cursor.skip_space() != Some(b',') {
            return Ok(None);
        }
    }
}

fn text_bytes(items: &Builder) -> usize {
    if let Values::Utf8 { data, .. } = &items.values { data.len() } else { 0 }
}

fn integer(number: &Number) -> Option<i64> {
    if !number.is_integer || number.overflows {
        return None;
    }
    if number.negative { 0i64.checked_sub_unsigned(number.mantissa) } else { i64::try_from(number.mantissa).ok() }
}

/// The nearest float; `None` when that is infinite.
#[inline]
fn float(number: &Number) -> Option<f64> {
    const POWERS: [f64; 23] = [
        1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19,
        1e20, 1e21, 1e22,
    ];
    // Both operands are exact, so the one division rounds once, to the nearest (Clinger).
    if !number.overflows
        && number.exponent == 0
        && number.mantissa <= 1 << 53
        && let Some(power) = POWERS.get(number.fraction_digits)
    {
        let size = number.mantissa as f64 / power;
        return Some(if number.negative { -size } else { size });
    }
    parse::<f64>(number.text).filter(|value| value.is_finite())
}

fn parse<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn not_finite(text: &Text) -> Option<f64> {
    match unescaped(text).as_slice() {
        b"NaN" => Some(f64::NAN),
        b"Infinity" => Some(f64::INFINITY),
        b"-Infinity" => Some(f64::NEG_INFINITY),
        _ => None,
    }
}

/// What a text means, for comparing; half a surrogate pair leaves it as written, which equals nothing we look for.
fn unescaped(text: &Text) -> Vec<u8> {
    let mut plain = Vec::new();
    match unescape(text.raw, &mut plain) {
        Some(()) => plain,
        None => text.raw.to_vec(),
    }
}

fn push_unescaped(text: &Text, data: &mut Vec<u8>) -> Result<(), String> {
    let before = data.len();
    if unescape(text.raw, data).is_none() {
        return Err(format!(
            "`{}` has an escape that is half a surrogate pair, no character: send both halves",
            excerpt(text.raw)
        ));
    }
    let size = data.len() - before;
    if size > VALUE_LIMIT_BYTES {
        data.truncate(before);
        return Err(above_limit_text(size));
    }
    Ok(())
}

fn above_limit(size: usize) -> Outcome {
    Outcome::Failed(above_limit_text(size))
}

pub(super) fn above_limit_text(size: usize) -> String {
    format!("a value of {size} bytes; at most {VALUE_LIMIT_BYTES} can be decoded")
}

fn too_large_for_float(text: &[u8]) -> Outcome {
    Outcome::Failed(format!("{} is beyond the largest float: send less, or \"Infinity\"", excerpt(text)))
}

fn failed(raw: &[u8], decode: DecodeAs, values: &Values) -> Outcome {
    let found = match raw.first() {
        Some(b'"') => "text",
        Some(b'{') => "an object",
        Some(b'[') => "a list",
        Some(b't' | b'f') => "a boolean",
        _ => "a number",
    };
    let rule = match (decode, values) {
        (DecodeAs::TimestampSeconds, _) => "timestamp_s takes a number of seconds since the epoch",
        (DecodeAs::TimestampMillis, _) => "timestamp_ms takes a number of milliseconds since the epoch",
        (DecodeAs::TimestampMicros, _) => "timestamp_us takes a number of microseconds since the epoch",
        (_, Values::Boolean(_)) => "boolean takes true or false",
        (_, Values::Int64(_)) => "int64 takes an integer of 64 bits without point, exponent or quotes",
        (_, Values::Float32(_) | Values::Float64(_)) => r#"floats take a number, "NaN", "Infinity" or "-Infinity""#,
        (_, Values::Timestamp(_)) => {
            "timestamp takes RFC 3339 text with an offset (timestamp_ms and the like: a number)"
        }
        (_, Values::Utf8 { .. }) => "utf8 takes text",
        (_, Values::Binary { .. }) if found == "text" => {
            return Outcome::Failed(format!(
                "`{}` is no base64: binary takes that of the alphabet with + and /",
                excerpt(raw)
            ));
        }
        (_, Values::Binary { .. }) => "binary takes base64 text",
        (_, Values::List { .. }) => "a list type takes a list",
    };
    Outcome::Failed(format!("`{}` is {found}: {rule}", excerpt(raw)))
}
