//! What the UDFs share: checks of inputs and parameters, and results.

use crate::exact::FloatSum;
use onefold_udf::column::Column;
use onefold_udf::output::Builder;
use onefold_udf::{Field, Kind, Value};

/// The kinds that can be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Number {
    Int64,
    Float64,
}

/// The one input of a UDF that takes one, of any kind.
pub fn one<'a>(udf: &str, inputs: &'a [Field]) -> Result<&'a Field, String> {
    match inputs {
        [input] => Ok(input),
        _ => Err(format!("{} inputs: {udf} takes one; change `inputs`", inputs.len())),
    }
}

/// The one input of a UDF that takes a number.
pub fn number(udf: &str, inputs: &[Field]) -> Result<Number, String> {
    let Field { name, kind } = one(udf, inputs)?;
    match kind {
        Kind::Int64 => Ok(Number::Int64),
        Kind::Float64 => Ok(Number::Float64),
        _ => Err(format!("input `{name}` is {kind}: {udf} takes int64 or float64; name another column, or cast it")),
    }
}

/// The kind of a list of the one input.
pub fn list_of(udf: &str, inputs: &[Field]) -> Result<Kind, String> {
    let Field { name, kind } = one(udf, inputs)?;
    kind.list().ok_or_else(|| {
        format!("input `{name}` is {kind}: {udf} gives a list, and there are lists of int64, float64 and utf8 only; cast it")
    })
}

/// The one column of a call.
pub fn only<'c, 'a>(columns: &'c [Column<'a>]) -> Result<&'c Column<'a>, String> {
    match columns {
        [column] => Ok(column),
        _ => Err(format!("{} columns came, 1 was agreed in prepare", columns.len())),
    }
}

/// Emits one value as the only output.
pub fn emit(outputs: &mut [Builder], value: &Value<'_>) -> Result<(), String> {
    outputs.iter_mut().try_for_each(|output| output.push(value))
}

/// The sum or mean of integers; null when there are none, null with a reason when a sum does not fit.
pub fn integer_result(sum: i128, count: u64, mean: bool) -> (Value<'static>, &'static str) {
    if count == 0 {
        return (Value::Null, "");
    }
    if mean {
        return (Value::float64(sum as f64 / count as f64), "");
    }
    i64::try_from(sum).map_or((Value::Null, "overflow"), |sum| (Value::Int64(sum), ""))
}

/// The sum or mean of floats; null when there are none.
pub fn float_result(sum: &FloatSum, count: u64, mean: bool) -> Value<'static> {
    if count == 0 {
        return Value::Null;
    }
    Value::float64(if mean { sum.value() / count as f64 } else { sum.value() })
}
