//! The standard library's aggregates, computed from a plain list of input rows.

use super::exact::{exact_sum, nearest_float, nearest_float_of_integer, rational, special_sum};
use super::value::Value;
use num_bigint::BigInt;
use num_rational::BigRational;
use std::collections::BTreeSet;

/// The aggregates of `std`, all of which the brute force knows.
pub const AGGREGATES: [&str; 18] = [
    "count",
    "count_distinct",
    "sum",
    "mean",
    "min",
    "max",
    "var_samp",
    "var_pop",
    "stddev_samp",
    "stddev_pop",
    "first",
    "last",
    "first_n",
    "last_n",
    "last_row",
    "last_n_sum",
    "last_n_mean",
    "collect_distinct",
];

/// The reason of a null that stands for a result outside its type.
pub const OVERFLOW: &str = "overflow";

/// One value of a feature; `reason` says why it is null where there is more to say than that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    pub value: Value,
    pub reason: Option<&'static str>,
}

impl Cell {
    pub fn of(value: Value) -> Cell {
        Cell { value, reason: None }
    }
}

/// Whether the aggregate refuses this input row for itself alone (`first_n` and its kin: a value above 1 MiB / n).
pub fn refuses(udf: &str, params: &serde_json::Value, inputs: &[Value]) -> bool {
    if matches!(udf, "trail" | "trail_alone") {
        return inputs[0] == Value::Int64(-7);
    }
    let bounded = matches!(udf, "first_n" | "last_n" | "last_n_sum" | "last_n_mean");
    bounded
        && inputs.iter().any(|value| match value {
            Value::Utf8(text) => text.len() > (1 << 20) / count_of(params),
            _ => false,
        })
}

/// The values of one aggregate over these input rows, which stand in canonical order: one cell an output.
///
/// # Panics
/// For an aggregate or a kind of input that the standard library does not have: a test has asked for it by mistake.
pub fn aggregate(udf: &str, params: &serde_json::Value, outputs: usize, rows: &[Vec<Value>]) -> Vec<Cell> {
    match udf {
        "count" => {
            let whole = rows.iter().filter(|row| row.iter().all(|value| !value.is_null())).count();
            return vec![Cell::of(Value::Int64(whole as i64))];
        }
        "last_row" => {
            let newest = rows.last().cloned().unwrap_or_else(|| vec![Value::Null; outputs]);
            return newest.into_iter().map(Cell::of).collect();
        }
        _ => {}
    }
    let values: Vec<Value> = rows.iter().map(|row| row[0].clone()).filter(|value| !value.is_null()).collect();
    let cell = match udf {
        "count_distinct" => Cell::of(Value::Int64(distinct(&values).len() as i64)),
        "collect_distinct" => Cell::of(list(distinct(&values).into_iter().collect())),
        "sum" => sum(&values),
        "mean" => Cell::of(mean(&values)),
        "last_n_sum" => sum(newest(&values, params)),
        "last_n_mean" => Cell::of(mean(newest(&values, params))),
        "min" => one(values.iter().min()),
        "max" => one(values.iter().max()),
        "first" => one(values.first()),
        "last" => one(values.last()),
        "first_n" => Cell::of(list(values[..values.len().min(count_of(params))].to_vec())),
        "last_n" => Cell::of(list(newest(&values, params).to_vec())),
        "var_samp" => Cell::of(variance(&values, 1).map_or(Value::Null, Value::Float64)),
        "var_pop" => Cell::of(variance(&values, 0).map_or(Value::Null, Value::Float64)),
        "stddev_samp" => Cell::of(variance(&values, 1).map_or(Value::Null, |variance| Value::Float64(variance.sqrt()))),
        "stddev_pop" => Cell::of(variance(&values, 0).map_or(Value::Null, |variance| Value::Float64(variance.sqrt()))),
        other => panic!("std has no aggregate `{other}`"),
    };
    vec![cell]
}

/// The `n` of `first_n`, `last_n` and their kin.
fn count_of(params: &serde_json::Value) -> usize {
    params["n"].as_u64().unwrap_or_else(|| panic!("parameters {params} hold no `n`")) as usize
}

fn newest<'a>(values: &'a [Value], params: &serde_json::Value) -> &'a [Value] {
    &values[values.len().saturating_sub(count_of(params))..]
}

fn one(value: Option<&Value>) -> Cell {
    Cell::of(value.cloned().unwrap_or(Value::Null))
}

fn distinct(values: &[Value]) -> BTreeSet<Value> {
    values.iter().map(Value::without_negative_zero).collect()
}

/// Lists of nothing are null.
fn list(values: Vec<Value>) -> Value {
    match values.first() {
        None => Value::Null,
        Some(Value::Int64(_)) => Value::Int64List(integers(&values)),
        Some(Value::Float64(_)) => Value::Float64List(floats(&values)),
        Some(Value::Utf8(_)) => Value::Utf8List(
            values
                .into_iter()
                .map(|value| match value {
                    Value::Utf8(text) => text,
                    other => panic!("{other:?} among text"),
                })
                .collect(),
        ),
        Some(other) => panic!("{other:?} has no list kind"),
    }
}

fn integers(values: &[Value]) -> Vec<i64> {
    values
        .iter()
        .map(|value| if let Value::Int64(x) = value { *x } else { panic!("{value:?} among integers") })
        .collect()
}

fn floats(values: &[Value]) -> Vec<f64> {
    values
        .iter()
        .map(|value| if let Value::Float64(x) = value { *x } else { panic!("{value:?} among floats") })
        .collect()
}

fn are_integers(values: &[Value]) -> bool {
    matches!(values.first(), Some(Value::Int64(_)))
}

fn integer_sum(values: &[Value]) -> i128 {
    integers(values).into_iter().map(i128::from).sum()
}

fn float_sum(values: &[f64]) -> f64 {
    special_sum(values).unwrap_or_else(|| nearest_float(&exact_sum(values)))
}

fn sum(values: &[Value]) -> Cell {
    if values.is_empty() {
        Cell::of(Value::Null)
    } else if are_integers(values) {
        match i64::try_from(integer_sum(values)) {
            Ok(sum) => Cell::of(Value::Int64(sum)),
            Err(_) => Cell { value: Value::Null, reason: Some(OVERFLOW) },
        }
    } else {
        Cell::of(Value::Float64(float_sum(&floats(values))))
    }
}

fn mean(values: &[Value]) -> Value {
    if values.is_empty() {
        return Value::Null;
    }
    let sum =
        if are_integers(values) { nearest_float_of_integer(integer_sum(values)) } else { float_sum(&floats(values)) };
    Value::Float64(sum / values.len() as f64)
}

/// The exact `n * sum(x^2) - sum(x)^2`, rounded once, divided by `n * (n - ddof)`.
fn variance(values: &[Value], ddof: usize) -> Option<f64> {
    let count = values.len();
    if count <= ddof {
        return None;
    }
    let exact: Vec<BigRational> = if are_integers(values) {
        integers(values).into_iter().map(|value| BigRational::from_integer(BigInt::from(value))).collect()
    } else {
        let floats = floats(values);
        if special_sum(&floats).is_some() {
            return Some(f64::NAN);
        }
        floats.into_iter().map(rational).collect()
    };
    let zero = || BigRational::from_integer(BigInt::from(0));
    let sum = exact.iter().fold(zero(), |sum, value| sum + value);
    let squares = exact.iter().fold(zero(), |sum, value| sum + value * value);
    let numerator = squares * BigInt::from(count) - &sum * &sum;
    Some(nearest_float(&numerator) / (count * (count - ddof)) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(udf: &str, values: &[Value]) -> Cell {
        let rows: Vec<Vec<Value>> = values.iter().map(|value| vec![value.clone()]).collect();
        aggregate(udf, &json!({"n": 2}), 1, &rows).remove(0)
    }

    fn floats_of(values: &[f64]) -> Vec<Value> {
        values.iter().map(|value| Value::Float64(*value)).collect()
    }

    fn integers_of(values: &[i64]) -> Vec<Value> {
        values.iter().map(|value| Value::Int64(*value)).collect()
    }

    #[test]
    fn nothing_is_zero_for_counts_and_null_for_the_rest() {
        for udf in AGGREGATES {
            for rows in [vec![], vec![Value::Null]] {
                let expected = if udf.starts_with("count") { Value::Int64(0) } else { Value::Null };
                assert_eq!(of(udf, &rows), Cell::of(expected), "{udf}");
            }
        }
    }

    #[test]
    fn an_integer_sum_outside_int64_is_null_with_its_reason_and_the_mean_is_not() {
        let values = integers_of(&[i64::MAX, i64::MAX]);
        assert_eq!(of("sum", &values), Cell { value: Value::Null, reason: Some("overflow") });
        assert_eq!(of("mean", &values), Cell::of(Value::Float64(9_223_372_036_854_775_808.0)));
        assert_eq!(of("sum", &integers_of(&[i64::MAX, 1, -1])), Cell::of(Value::Int64(i64::MAX)));
    }

    #[test]
    fn variances_are_exact_where_sums_of_squares_cancel() {
        let far = floats_of(&[1e15, 1e15 + 1.0, 1e15 + 2.0]);
        assert_eq!(of("var_samp", &far), Cell::of(Value::Float64(1.0)));
        assert_eq!(of("var_pop", &integers_of(&[2, 4, 4, 4, 5, 5, 7, 9])), Cell::of(Value::Float64(4.0)));
        assert_eq!(of("stddev_pop", &integers_of(&[2, 4, 4, 4, 5, 5, 7, 9])), Cell::of(Value::Float64(2.0)));
        assert_eq!(of("var_samp", &floats_of(&[1.0])), Cell::of(Value::Null));
        assert_eq!(of("var_pop", &floats_of(&[1.0])), Cell::of(Value::Float64(0.0)));
        assert_eq!(of("var_pop", &floats_of(&[1e300, -1e300])), Cell::of(Value::Float64(f64::INFINITY)));
        assert_eq!(of("var_pop", &floats_of(&[f64::INFINITY])), Cell::of(Value::Float64(f64::NAN)));
        assert_eq!(
            of("var_samp", &floats_of(&[f64::NAN])),
            Cell::of(Value::Null),
            "one value is too few, whatever it is"
        );
    }

    #[test]
    fn the_distinct_ones_join_zeros_and_nans() {
        let values = floats_of(&[f64::NAN, 0.0, -0.0, f64::NAN, -1.0]);
        assert_eq!(of("count_distinct", &values), Cell::of(Value::Int64(3)));
        assert_eq!(of("collect_distinct", &values), Cell::of(Value::Float64List(vec![-1.0, 0.0, f64::NAN])));
        assert_eq!(of("min", &floats_of(&[0.0, -0.0])), Cell::of(Value::Float64(-0.0)));
        assert_eq!(of("max", &floats_of(&[1.0, f64::NAN])), Cell::of(Value::Float64(f64::NAN)));
        assert_eq!(of("sum", &floats_of(&[-0.0, -0.0])), Cell::of(Value::Float64(0.0)));
    }

    #[test]
    fn the_first_and_the_last_skip_nulls_but_last_row_keeps_them() {
        let values = [Value::Int64(1), Value::Null, Value::Int64(2), Value::Int64(3), Value::Null];
        assert_eq!(of("first_n", &values), Cell::of(Value::Int64List(vec![1, 2])));
        assert_eq!(of("last_n", &values), Cell::of(Value::Int64List(vec![2, 3])));
        assert_eq!(of("last_n_sum", &values), Cell::of(Value::Int64(5)));
        assert_eq!(of("last_n_mean", &values), Cell::of(Value::Float64(2.5)));
        assert_eq!(of("last", &values), Cell::of(Value::Int64(3)));
        assert_eq!(of("last_row", &values), Cell::of(Value::Null));
        assert_eq!(of("count", &values), Cell::of(Value::Int64(3)));
        assert_eq!(aggregate("count", &json!({}), 1, &[vec![], vec![]]), [Cell::of(Value::Int64(2))]);
    }
}
