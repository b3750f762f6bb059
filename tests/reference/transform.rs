//! The transforms of `std` and of the e-commerce module, natively.

use super::filter::compares;
use super::resolve::operator;
use super::value::{Row, Value, parse_time_us};
use onefold::define::Transform;
use onefold_fold::Kind;

/// The rows that a transform makes of one row; no event time changes.
///
/// # Panics
/// For a transform that is not one of those tests use.
pub fn apply(transform: &Transform, row: &Row) -> Vec<Row> {
    let params: serde_json::Value = serde_json::from_str(&transform.udf.params).expect("checked parameters are JSON");
    let inputs: Vec<Value> = transform.inputs.iter().map(|input| row.value(input)).collect();
    let made = match (transform.udf.module.as_str(), transform.udf.udf.as_str()) {
        ("std", "filter") => {
            return if filter(&params, &inputs[0]) { vec![row.clone()] } else { Vec::new() };
        }
        ("std", "coalesce") => inputs.into_iter().find(|value| !value.is_null()).unwrap_or(Value::Null),
        ("std", "cast") => cast(&inputs[0], transform.outputs[0].kind),
        ("ecommerce", "amount") => amount(&inputs[0], &inputs[1]),
        (module, udf) => panic!("the brute force knows no transform `{module}.{udf}`"),
    };
    let mut row = row.clone();
    row.values.insert(transform.outputs[0].name.clone(), made);
    vec![row]
}

/// Quantity times unit price; null when either is.
pub fn amount(quantity: &Value, unit_price: &Value) -> Value {
    match (quantity, unit_price) {
        (Value::Int64(quantity), Value::Float64(price)) => Value::Float64(*quantity as f64 * price),
        _ => Value::Null,
    }
}

/// The price against the average price of a unit sold, `price / (revenue / units)`; null when any is, or nothing was sold or
/// came in.
pub fn price_ratio(price: &Value, revenue: &Value, units: &Value) -> Value {
    match (price, revenue, units) {
        (Value::Float64(price), Value::Float64(revenue), Value::Int64(units)) if *units != 0 && *revenue != 0.0 => {
            Value::Float64(price / (revenue / *units as f64))
        }
        _ => Value::Null,
    }
}

fn filter(params: &serde_json::Value, value: &Value) -> bool {
    let kind = match value {
        Value::Null => None,
        Value::Boolean(_) => Some(Kind::Boolean),
        Value::Int64(_) => Some(Kind::Int64),
        Value::Float64(_) => Some(Kind::Float64),
        Value::Timestamp(_) => Some(Kind::Timestamp),
        Value::Utf8(_) => Some(Kind::Utf8),
        Value::Binary(_) => Some(Kind::Binary),
        other => panic!("std.filter compares no lists: {other:?}"),
    };
    let constant = |json| {
        kind.map_or(Ok(Value::Null), |kind| Value::from_json(kind, json)).expect("a constant of the column's kind")
    };
    let constants = match &params["value"] {
        serde_json::Value::Null => Vec::new(),
        serde_json::Value::Array(values) => values.iter().map(constant).collect(),
        value => vec![constant(value)],
    };
    compares(operator(&params["op"]), value, &constants)
}

/// float64 to int64 half to even; outside the range, or text that is no number: null.
pub fn cast(value: &Value, to: Kind) -> Value {
    match (value, to) {
        (Value::Int64(x), Kind::Float64) => Value::Float64(super::exact::nearest_float_of_integer(i128::from(*x))),
        (Value::Float64(x), Kind::Int64) => half_to_even(*x).map_or(Value::Null, Value::Int64),
        (Value::Boolean(x), Kind::Int64) => Value::Int64(i64::from(*x)),
        (Value::Int64(x), Kind::Utf8) => Value::Utf8(x.to_string()),
        (Value::Utf8(text), Kind::Int64) => text.parse().map_or(Value::Null, Value::Int64),
        (Value::Utf8(text), Kind::Float64) => text.parse().map_or(Value::Null, Value::Float64),
        (Value::Utf8(text), Kind::Timestamp) => parse_time_us(text).map_or(Value::Null, Value::Timestamp),
        (Value::Null, _) => Value::Null,
        (same, _) => same.clone(),
    }
}

fn half_to_even(x: f64) -> Option<i64> {
    let below = x.floor();
    let rest = x - below;
    let rounded = if rest > 0.5 || (rest == 0.5 && below % 2.0 != 0.0) { below + 1.0 } else { below };
    let limit = 9_223_372_036_854_775_808.0;
    (-limit <= rounded && rounded < limit).then_some(rounded as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_become_integers_half_to_even_and_within_range() {
        for (float, integer) in [
            (0.5, 0),
            (1.5, 2),
            (2.5, 2),
            (-0.5, 0),
            (-1.5, -2),
            (-2.5, -2),
            (2.6, 3),
            (-9.2e18, -9_200_000_000_000_000_000),
        ] {
            assert_eq!(cast(&Value::Float64(float), Kind::Int64), Value::Int64(integer), "{float}");
        }
        for outside in [f64::NAN, f64::INFINITY, 9_223_372_036_854_775_808.0, -9_223_372_036_854_777_856.0] {
            assert_eq!(cast(&Value::Float64(outside), Kind::Int64), Value::Null, "{outside}");
        }
        assert_eq!(cast(&Value::Float64(-9_223_372_036_854_775_808.0), Kind::Int64), Value::Int64(i64::MIN));
    }

    #[test]
    fn nothing_times_or_over_null() {
        assert_eq!(amount(&Value::Int64(3), &Value::Float64(0.1)), Value::Float64(0.30000000000000004));
        assert_eq!(amount(&Value::Null, &Value::Float64(0.1)), Value::Null);
        let ratio = |units| price_ratio(&Value::Float64(3.0), &Value::Float64(10.0), &units);
        assert_eq!(
            (ratio(Value::Int64(5)), ratio(Value::Int64(0)), ratio(Value::Null)),
            (Value::Float64(1.5), Value::Null, Value::Null)
        );
    }
}
