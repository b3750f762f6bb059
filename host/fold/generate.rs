//! Rows to try modules on: the same ones every time, on every machine.

use crate::kind::Kind;
use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Float64Array, Int64Array, ListBuilder, PrimitiveBuilder, StringArray,
    StringBuilder, TimestampMicrosecondArray,
};
use arrow::datatypes::{Float32Type, Float64Type, Int64Type};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// What rows of a trial are like.
pub(crate) struct Profile {
    pub(crate) name: &'static str,
    pub(crate) seed: u64,
    /// One of so many rows is null; 0 = none.
    null_in: usize,
    /// One of so many values is an extreme one; 0 = none.
    extreme_in: usize,
    /// Values come from so many different ones: few make duplicates.
    different: usize,
}

/// Ordinary numbers (a NaN would hide a sum's rounding), then duplicates and nulls, then extremes, then nothing but nulls.
pub(crate) const PROFILES: &[Profile] = &[
    Profile { name: "ordinary values", seed: 1, null_in: 0, extreme_in: 0, different: 1 << 20 },
    Profile { name: "duplicates and nulls", seed: 2, null_in: 3, extreme_in: 0, different: 5 },
    Profile { name: "extremes", seed: 3, null_in: 7, extreme_in: 3, different: 1 << 20 },
    Profile { name: "nulls only", seed: 4, null_in: 1, extreme_in: 0, different: 1 },
];

/// xorshift64*: small, and the same everywhere.
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Rng {
        Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `end`, which is above zero.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end).unwrap_or(u64::MAX).max(1);
        usize::try_from((self.next() >> 11) % end).unwrap_or(0)
    }

    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.below(last + 1);
            items.swap(last, other);
        }
    }

    fn one_in(&mut self, count: usize) -> bool {
        count > 0 && self.below(count) == 0
    }
}

/// Event times: ascending, every instant shared by up to three rows. Steps from one to the next differ: with even ones
/// an aggregate that loses the step between two parts would not be seen.
pub(crate) fn times(rows: u32) -> ArrayRef {
    let mut now_us = 1_767_225_600_000_000;
    let times = (0..rows).map(|row| {
        if row > 0 && row % 3 == 0 {
            now_us += 61_000_000 * (1 + i64::from(row / 3 * 31 % 97));
        }
        now_us
    });
    Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC"))
}

/// A column of a kind.
pub(crate) fn column(kind: Kind, profile: &Profile, rows: u32, rng: &mut Rng) -> ArrayRef {
    let mut each = Vec::new();
    for _ in 0..rows {
        each.push(if rng.one_in(profile.null_in) { None } else { Some(()) });
    }
    macro_rules! values {
        ($make:expr) => {
            each.iter().map(|row| row.map(|()| $make(rng, profile))).collect::<Vec<_>>()
        };
    }
    match kind {
        Kind::Boolean => Arc::new(BooleanArray::from(values!(|rng: &mut Rng, _| rng.below(2) == 0))),
        Kind::Int64 => Arc::new(Int64Array::from(values!(int))),
        Kind::Timestamp => Arc::new(TimestampMicrosecondArray::from(values!(int)).with_timezone("UTC")),
        Kind::Float64 => Arc::new(Float64Array::from(values!(float))),
        Kind::Utf8 => Arc::new(StringArray::from(values!(text))),
        Kind::Binary => {
            let values = values!(text);
            Arc::new(BinaryArray::from_iter(values.iter().map(|value| value.as_ref().map(String::as_bytes))))
        }
        Kind::Int64List => {
            let mut list = ListBuilder::new(PrimitiveBuilder::<Int64Type>::new());
            for row in values!(length) {
                (0..row.unwrap_or(0)).for_each(|_| list.values().append_value(int(rng, profile)));
                list.append(row.is_some());
            }
            Arc::new(list.finish())
        }
        Kind::Float64List => {
            let mut list = ListBuilder::new(PrimitiveBuilder::<Float64Type>::new());
            for row in values!(length) {
                (0..row.unwrap_or(0)).for_each(|_| list.values().append_value(float(rng, profile)));
                list.append(row.is_some());
            }
            Arc::new(list.finish())
        }
        Kind::Float32List => {
            let mut list = ListBuilder::new(PrimitiveBuilder::<Float32Type>::new());
            for row in values!(length) {
                #[expect(clippy::cast_possible_truncation, reason = "any float32 will do")]
                (0..row.unwrap_or(0)).for_each(|_| list.values().append_value(float(rng, profile) as f32));
                list.append(row.is_some());
            }
            Arc::new(list.finish())
        }
        Kind::Utf8List => {
            let mut list = ListBuilder::new(StringBuilder::new());
            for row in values!(length) {
                (0..row.unwrap_or(0)).for_each(|_| list.values().append_value(text(rng, profile)));
                list.append(row.is_some());
            }
            Arc::new(list.finish())
        }
    }
}

fn length(rng: &mut Rng, _: &Profile) -> usize {
    rng.below(4)
}

fn int(rng: &mut Rng, profile: &Profile) -> i64 {
    const EXTREMES: [i64; 6] = [i64::MIN, i64::MAX, 0, -1, 1 << 53, i64::MIN + 1];
    if rng.one_in(profile.extreme_in) {
        return EXTREMES[rng.below(EXTREMES.len())];
    }
    let half = i64::try_from(profile.different / 2).unwrap_or(0);
    i64::try_from(rng.below(profile.different)).unwrap_or(0) - half
}

fn float(rng: &mut Rng, profile: &Profile) -> f64 {
    const EXTREMES: [f64; 8] =
        [f64::NAN, -0.0, 0.0, f64::INFINITY, f64::NEG_INFINITY, f64::MAX, f64::MIN_POSITIVE, 5e-324];
    if rng.one_in(profile.extreme_in) {
        return EXTREMES[rng.below(EXTREMES.len())];
    }
    // Tenths of very different size: sums that round do so differently in every order.
    let scale = [0.1, 1e-9, 1e9][rng.below(3)];
    let small = i32::try_from(rng.below(profile.different)).unwrap_or(0);
    f64::from(small) * scale
}

fn text(rng: &mut Rng, profile: &Profile) -> String {
    if rng.one_in(profile.extreme_in) {
        return ["", "\0", "é", "𝄞𝄞", "a\u{301}"][rng.below(5)].to_owned();
    }
    format!("v{}", rng.below(profile.different))
}

/// Parameters that a schema allows, as far as a look at each property tells: its default, example, first of an
/// enumeration, or a small value of its type. JSON text.
pub(crate) fn parameters(schema: &str) -> String {
    let schema: Value = serde_json::from_str(schema).unwrap_or(Value::Null);
    let mut values = Map::new();
    let required = |name: &str| {
        let names = schema.get("required").and_then(Value::as_array);
        names.is_some_and(|names| names.iter().any(|known| known == name))
    };
    for (name, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        if required(name) {
            values.insert(name.clone(), example(property));
        }
    }
    Value::Object(values).to_string()
}

fn example(property: &Value) -> Value {
    let first = |key: &str| property.get(key).and_then(Value::as_array).and_then(|all| all.first()).cloned();
    let given = property.get("default").cloned().or_else(|| property.get("const").cloned());
    if let Some(value) = given.or_else(|| first("examples")).or_else(|| first("enum")) {
        return value;
    }
    let least = property.get("minimum").and_then(Value::as_i64).unwrap_or(0);
    match property.get("type").and_then(Value::as_str) {
        Some("integer") => json!(least.max(3)),
        Some("number") => json!(least.max(1)),
        Some("boolean") => json!(false),
        Some("array") => json!([]),
        Some("object") => json!({}),
        _ => json!("a"),
    }
}
