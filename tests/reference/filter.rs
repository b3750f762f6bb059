//! `where` (rule 15), also the comparison of `std.filter`.

use super::value::{Row, Value};
use onefold_fold::{Comparison, Literal, Operator};

/// Whether all comparisons hold for the row.
pub fn passes(comparisons: &[Comparison], row: &Row) -> bool {
    comparisons.iter().all(|comparison| {
        let values: Vec<Value> = comparison.values.iter().map(literal).collect();
        compares(comparison.operator, &row.value(&comparison.column), &values)
    })
}

/// One comparison: null passes only `is_null`; equality takes -0.0 = 0.0 and NaN = NaN, the rest is rule 4's order.
pub fn compares(operator: Operator, value: &Value, constants: &[Value]) -> bool {
    if value.is_null() {
        return operator == Operator::IsNull;
    }
    let among = || constants.iter().any(|constant| constant.without_negative_zero() == value.without_negative_zero());
    let first = || constants.first().expect("a comparing operator has a constant");
    match operator {
        Operator::Eq | Operator::In => among(),
        Operator::Ne | Operator::NotIn => !among(),
        Operator::Lt => value < first(),
        Operator::Le => value <= first(),
        Operator::Gt => value > first(),
        Operator::Ge => value >= first(),
        Operator::IsNull => false,
        Operator::NotNull => true,
    }
}

fn literal(literal: &Literal) -> Value {
    match literal {
        Literal::Boolean(value) => Value::Boolean(*value),
        Literal::Int64(value) => Value::Int64(*value),
        Literal::Float64Bits(bits) => Value::Float64(f64::from_bits(*bits)),
        Literal::Timestamp(value) => Value::Timestamp(*value),
        Literal::Utf8(value) => Value::Utf8(value.clone()),
        Literal::Binary(value) => Value::Binary(value.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Operator::*;

    #[test]
    fn null_passes_only_is_null() {
        for operator in [Eq, Ne, Lt, Le, Gt, Ge, In, NotIn, IsNull, NotNull] {
            assert_eq!(compares(operator, &Value::Null, &[Value::Int64(1)]), operator == IsNull, "{operator:?}");
        }
    }

    #[test]
    fn equality_joins_the_zeros_and_order_does_not() {
        let (minus, plus) = (Value::Float64(-0.0), [Value::Float64(0.0)]);
        assert!(compares(Eq, &minus, &plus) && !compares(Ne, &minus, &plus));
        assert!(compares(Lt, &minus, &plus) && compares(In, &minus, &plus) && !compares(Ge, &minus, &plus));
        let nan = Value::Float64(f64::NAN);
        assert!(compares(Eq, &nan, std::slice::from_ref(&nan)) && !compares(NotIn, &nan, std::slice::from_ref(&nan)));
        assert!(compares(Gt, &nan, &[Value::Float64(f64::INFINITY)]) && compares(Le, &nan, std::slice::from_ref(&nan)));
        assert!(compares(NotIn, &nan, &[]) && !compares(In, &nan, &[]));
    }
}
