//! Tests of the aggregates and transforms, through the code that runs tapes in Wasm.

mod algebra;
mod literal;
mod oracle;

use crate::MODULE;
use onefold_udf::testing::{Aggregation, TimedRow};
use onefold_udf::{Field, Kind, Value};

fn fields(kinds: &[Kind]) -> Vec<Field> {
    kinds.iter().enumerate().map(|(at, kind)| Field::new(format!("input_{at}"), *kind)).collect()
}

fn aggregation(name: &str, params: &str, kinds: &[Kind]) -> Aggregation {
    Aggregation::new(MODULE, name, params, &fields(kinds)).unwrap()
}

/// The first output of the rows, folded one after the other.
fn value(name: &str, params: &str, kind: Kind, rows: &[(i64, Value<'static>)]) -> Value<'static> {
    let rows: Vec<TimedRow> = rows.iter().map(|(time, value)| (*time, vec![value.clone()])).collect();
    aggregation(name, params, &[kind]).whole(&rows).unwrap().emitted[0][0].clone()
}

fn floats(values: &[f64]) -> Vec<(i64, Value<'static>)> {
    values.iter().enumerate().map(|(at, value)| (at as i64, Value::float64(*value))).collect()
}

fn integers(values: &[i64]) -> Vec<(i64, Value<'static>)> {
    values.iter().enumerate().map(|(at, value)| (at as i64, Value::Int64(*value))).collect()
}
