//! What the UDFs share: checks of inputs and parameters, and results.

use crate::exact::FloatSum;
use onefold_udf::column::Column;
use onefold_udf::output::Builder;
use onefold_udf::{Field, Kind, Value, params};

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

/// A list of values of a kind; null when there are none.
pub fn list<'v>(kind: Kind, values: impl Iterator<Item = &'v Value<'static>>) -> Value<'v> {
    let mut values = values.peekable();
    if values.peek().is_none() {
        return Value::Null;
    }
    match kind {
        Kind::Int64 => Value::Int64List(values.filter_map(|value| as_integer(value)).collect()),
        Kind::Float64 => Value::Float64List(values.filter_map(|value| as_float(value)).collect()),
        Kind::Utf8 => Value::Utf8List(
            values
                .filter_map(|value| match value {
                    Value::Utf8(text) => Some(std::borrow::Cow::Borrowed(text.as_ref())),
                    _ => None,
                })
                .collect(),
        ),
        _ => Value::Null,
    }
}

/// The integer in a value.
pub fn as_integer(value: &Value<'_>) -> Option<i64> {
    match value {
        Value::Int64(value) => Some(*value),
        _ => None,
    }
}

/// The float in a value.
pub fn as_float(value: &Value<'_>) -> Option<f64> {
    match value {
        Value::Float64(value) => Some(*value),
        _ => None,
    }
}

/// `n` of the UDFs that keep n values.
#[params]
pub struct Kept {
    /// How many values to keep.
    #[schemars(range(min = 1, max = 1000))]
    n: u32,
}

/// The greatest `n`: an entity's state holds that many values.
pub const MOST_KEPT: u32 = 1000;

/// Reads `n` and checks it.
pub fn kept(udf: &str, text: &str) -> Result<usize, String> {
    let Kept { n } = params::parse(udf, text)?;
    if (1..=MOST_KEPT).contains(&n) {
        return Ok(n as usize);
    }
    Err(format!("param `n` is {n}: {udf} keeps 1 to {MOST_KEPT} values; choose n in that range"))
}
