//! `where`, run: one mask of the rows that take part.
//!
//! Comparison is by the canonical order of values (floats in total order, NaN greatest), but `eq`, `ne`, `in` and
//! `not_in` take -0.0 and 0.0 as one value and all NaNs as one. A null passes only `is_null`.

use crate::predicate::{Comparison, Literal, Operator};
use arrow::array::{Array, ArrayRef, AsArray};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimestampMicrosecondType};
use std::cmp::Ordering;

/// A comparison that cannot be made: definitions are checked, so this is a caller's mistake.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`where` on column `{column}` compares {found} with {literal}: use a value of the column's type")]
pub struct FilterError {
    pub column: String,
    pub found: String,
    pub literal: String,
}

/// The rows (a set bit each) for which all comparisons hold, each on the column given with it.
pub fn mask<'a>(
    comparisons: impl IntoIterator<Item = (&'a Comparison, &'a ArrayRef)>,
    rows: usize,
) -> Result<BooleanBuffer, FilterError> {
    let mut all: Option<BooleanBuffer> = None;
    for (comparison, array) in comparisons {
        let one = compare(comparison, array)?;
        all = Some(match all {
            None => one,
            Some(before) => &before & &one,
        });
    }
    Ok(all.unwrap_or_else(|| BooleanBuffer::new_set(rows)))
}

fn error(comparison: &Comparison, found: impl ToString) -> FilterError {
    FilterError {
        column: comparison.column.clone(),
        found: found.to_string(),
        literal: format!("{:?}", comparison.values),
    }
}

fn compare(comparison: &Comparison, array: &ArrayRef) -> Result<BooleanBuffer, FilterError> {
    let rows = array.len();
    let valid = |row: usize| array.is_valid(row);
    match comparison.operator {
        Operator::IsNull => return Ok(BooleanBuffer::collect_bool(rows, |row| !valid(row))),
        Operator::NotNull => return Ok(BooleanBuffer::collect_bool(rows, valid)),
        _ => {}
    }
    let wrong = || error(comparison, array.data_type());
    macro_rules! typed {
        ($literal:pat => $value:expr, $get:expr, $order:expr) => {{
            let values = comparison.values.iter().map(|literal| match literal {
                $literal => Ok($value),
                _ => Err(wrong()),
            });
            let values = values.collect::<Result<Vec<_>, _>>()?;
            let get = $get;
            Ok(evaluate(comparison.operator, rows, valid, get, &values, $order))
        }};
    }
    match array.data_type() {
        DataType::Boolean => {
            let column = array.as_boolean();
            typed!(Literal::Boolean(value) => *value, |row| column.value(row), |a: &bool, b: &bool| (a.cmp(b), a == b))
        }
        DataType::Int64 => {
            let column = array.as_primitive::<Int64Type>().values();
            typed!(Literal::Int64(value) => *value, |row: usize| column[row], |a: &i64, b: &i64| (a.cmp(b), a == b))
        }
        DataType::Timestamp(_, _) => {
            let column = array.as_primitive::<TimestampMicrosecondType>().values();
            typed!(Literal::Timestamp(value) => *value, |row: usize| column[row], |a: &i64, b: &i64| (a.cmp(b), a == b))
        }
        DataType::Float64 => {
            let column = array.as_primitive::<Float64Type>().values();
            typed!(Literal::Float64Bits(bits) => f64::from_bits(*bits), |row: usize| column[row], compare_floats)
        }
        DataType::Utf8 => {
            let column = array.as_string::<i32>();
            typed!(Literal::Utf8(text) => text.as_str(), |row| column.value(row), |a: &&str, b: &&str| (a.cmp(b), a == b))
        }
        DataType::Binary => {
            let column = array.as_binary::<i32>();
            typed!(Literal::Binary(bytes) => bytes.as_slice(), |row| column.value(row), |a: &&[u8], b: &&[u8]| (a.cmp(b), a == b))
        }
        _ => Err(wrong()),
    }
}

fn evaluate<T>(
    operator: Operator,
    rows: usize,
    valid: impl Fn(usize) -> bool,
    get: impl Fn(usize) -> T,
    values: &[T],
    order: impl Fn(&T, &T) -> (Ordering, bool),
) -> BooleanBuffer {
    BooleanBuffer::collect_bool(rows, |row| {
        if !valid(row) {
            return false;
        }
        let value = get(row);
        let is_one_of = || values.iter().any(|literal| order(&value, literal).1);
        let is = |wanted: fn(Ordering) -> bool| values.first().is_some_and(|literal| wanted(order(&value, literal).0));
        match operator {
            Operator::Eq | Operator::In => is_one_of(),
            Operator::Ne | Operator::NotIn => !is_one_of(),
            Operator::Lt => is(Ordering::is_lt),
            Operator::Le => is(Ordering::is_le),
            Operator::Gt => is(Ordering::is_gt),
            Operator::Ge => is(Ordering::is_ge),
            Operator::IsNull => false,
            Operator::NotNull => true,
        }
    })
}

/// Total order with every NaN the greatest, and whether the two count as one value.
fn compare_floats(a: &f64, b: &f64) -> (Ordering, bool) {
    match (a.is_nan(), b.is_nan()) {
        (true, true) => (Ordering::Equal, true),
        (true, false) => (Ordering::Greater, false),
        (false, true) => (Ordering::Less, false),
        (false, false) => (a.total_cmp(b), a == b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::Float64Array;
    use std::sync::Arc;

    #[test]
    fn zeros_and_nans_are_one_value_for_equality_and_ordered_for_the_rest() {
        let column: ArrayRef =
            Arc::new(Float64Array::from(vec![Some(-0.0), Some(0.0), Some(f64::NAN), None, Some(1.0)]));
        let run = |operator, values: &[f64]| {
            let values = values.iter().map(|value| Literal::Float64Bits(value.to_bits())).collect();
            let comparison = Comparison { column: "x".into(), operator, values };
            let bits = mask([(&comparison, &column)], 5).unwrap();
            (0..5).filter(|row| bits.value(*row)).collect::<Vec<_>>()
        };
        assert_eq!(run(Operator::Eq, &[0.0]), [0, 1]);
        assert_eq!(run(Operator::Ne, &[0.0]), [2, 4]);
        assert_eq!(run(Operator::Lt, &[0.0]), [0]);
        assert_eq!(run(Operator::Gt, &[1.0]), [2]);
        assert_eq!(run(Operator::In, &[f64::NAN, -0.0]), [0, 1, 2]);
        assert_eq!(run(Operator::NotIn, &[f64::NAN]), [0, 1, 4]);
        assert_eq!(run(Operator::IsNull, &[]), [3]);
        assert_eq!(run(Operator::NotNull, &[]), [0, 1, 2, 4]);
    }
}
