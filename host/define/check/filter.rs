//! `where`: comparisons with constants of their column's kind.

use super::{Checker, Report};
use crate::define::located::Located;
use crate::define::names::hint;
use crate::define::typed::ComparisonShape;
use base64::Engine as _;
use onefold_fold::{Comparison, Field, Kind, Literal, Operator};
use serde_json::Value;

const OPERATORS: [(&str, Operator); 10] = [
    ("eq", Operator::Eq),
    ("ne", Operator::Ne),
    ("lt", Operator::Lt),
    ("le", Operator::Le),
    ("gt", Operator::Gt),
    ("ge", Operator::Ge),
    ("in", Operator::In),
    ("not_in", Operator::NotIn),
    ("is_null", Operator::IsNull),
    ("not_null", Operator::NotNull),
];

impl Checker<'_> {
    /// The comparisons of a feature; `None` when one is wrong.
    pub(super) fn filter(
        &self,
        report: &mut Report<'_>,
        typed: &[ComparisonShape],
        columns: &[Field],
    ) -> Option<Vec<Comparison>> {
        let mut filter = Vec::new();
        for shape in typed {
            let column = self.columns_named(report, std::slice::from_ref(&shape.column), columns);
            let operator = report.take(&shape.op, operator(&shape.op));
            let (Some(column), Some(operator)) = (column.as_ref().and_then(|columns| columns.first()), operator) else {
                continue;
            };
            let values = report.take(&shape.op, values(column, operator, shape.value.as_ref()));
            filter.extend(values.map(|values| Comparison { column: column.name.clone(), operator, values }));
        }
        (filter.len() == typed.len()).then_some(filter)
    }
}

fn operator(typed: &Located<String>) -> Result<Operator, String> {
    let found = OPERATORS.into_iter().find(|(name, _)| *name == typed.value);
    found.map(|(_, operator)| operator).ok_or_else(|| {
        format!("unknown operator `{}`: {}", typed.value, hint(&typed.value, OPERATORS.map(|(name, _)| name)))
    })
}

/// The literals of a comparison. Those of `in` are a set: sorted, each once.
fn values(column: &Field, operator: Operator, typed: Option<&Value>) -> Result<Vec<Literal>, String> {
    match (operator, typed) {
        (Operator::IsNull | Operator::NotNull, None) => Ok(Vec::new()),
        (Operator::IsNull | Operator::NotNull, Some(_)) => {
            Err("is_null and not_null compare with nothing: remove `value`".to_owned())
        }
        (_, None | Some(Value::Null)) => {
            Err("nothing to compare with: write `value:`, or use is_null or not_null".to_owned())
        }
        (Operator::In | Operator::NotIn, Some(Value::Array(items))) => {
            let mut literals = items.iter().map(|item| literal(column, item)).collect::<Result<Vec<_>, _>>()?;
            literals.sort();
            literals.dedup();
            Ok(literals)
        }
        (Operator::In | Operator::NotIn, Some(_)) => Err("in and not_in take a list: write `value: [a, b]`".to_owned()),
        (_, Some(value)) => Ok(vec![literal(column, value)?]),
    }
}

fn literal(column: &Field, value: &Value) -> Result<Literal, String> {
    let wrong = |remedy: &str| {
        let Field { name, kind } = column;
        format!("column `{name}` is {kind}, {value} is none: {remedy}")
    };
    match (column.kind, value) {
        (Kind::Boolean, Value::Bool(boolean)) => Ok(Literal::Boolean(*boolean)),
        (Kind::Boolean, _) => Err(wrong("write true or false")),
        (Kind::Int64, value) => value.as_i64().map(Literal::Int64).ok_or_else(|| wrong("write an integer of 64 bits")),
        (Kind::Float64, value) => {
            let float = match value {
                Value::String(text) => match text.as_str() {
                    "NaN" => Some(f64::NAN),
                    "Infinity" => Some(f64::INFINITY),
                    "-Infinity" => Some(f64::NEG_INFINITY),
                    _ => None,
                },
                value => value.as_f64(),
            };
            let float = float.ok_or_else(|| wrong("write a number, \"NaN\", \"Infinity\" or \"-Infinity\""))?;
            // One spelling for all NaNs, so that equal filters are identical.
            Ok(Literal::Float64Bits(if float.is_nan() { f64::NAN.to_bits() } else { float.to_bits() }))
        }
        (Kind::Timestamp, Value::String(text)) => {
            timestamp(text).map(Literal::Timestamp).ok_or_else(|| wrong("write RFC 3339 with an offset"))
        }
        (Kind::Timestamp, _) => Err(wrong("write RFC 3339 with an offset")),
        (Kind::Utf8, Value::String(text)) => Ok(Literal::Utf8(text.clone())),
        (Kind::Utf8, _) => Err(wrong("write it in quotes")),
        (Kind::Binary, Value::String(text)) => {
            let bytes = base64::engine::general_purpose::STANDARD.decode(text);
            bytes.map(Literal::Binary).map_err(|_| wrong("write base64"))
        }
        (Kind::Binary, _) => Err(wrong("write base64")),
        (Kind::Int64List | Kind::Float32List | Kind::Float64List | Kind::Utf8List, _) => {
            Err(wrong("lists are only compared by is_null and not_null"))
        }
    }
}

/// Microseconds since the epoch of RFC 3339 text; what is finer is floored, as everywhere.
pub(super) fn timestamp(text: &str) -> Option<i64> {
    let nanoseconds = text.parse::<jiff::Timestamp>().ok()?.as_nanosecond();
    i64::try_from(nanoseconds.div_euclid(1_000)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn constants_are_of_their_columns_kind() {
        let column = |kind| Field::new("c", kind);
        assert_eq!(literal(&column(Kind::Int64), &json!(10)), Ok(Literal::Int64(10)));
        assert!(literal(&column(Kind::Int64), &json!(1.5)).is_err());
        assert!(literal(&column(Kind::Utf8), &json!(12)).unwrap_err().contains("in quotes"));
        assert_eq!(literal(&column(Kind::Float64), &json!(2)), Ok(Literal::Float64Bits(2f64.to_bits())));
        let set = values(&column(Kind::Int64), Operator::In, Some(&json!([3, 1, 3])));
        assert_eq!(set, Ok(vec![Literal::Int64(1), Literal::Int64(3)]));
        assert!(values(&column(Kind::Int64), Operator::Eq, Some(&Value::Null)).unwrap_err().contains("is_null"));
        assert!(values(&column(Kind::Int64List), Operator::IsNull, None).is_ok());
    }

    #[test]
    fn what_is_finer_than_a_microsecond_is_floored() {
        assert_eq!(timestamp("1970-01-01T00:00:00.0000019Z"), Some(1));
        assert_eq!(timestamp("1969-12-31T23:59:59.9999999Z"), Some(-1));
        assert_eq!(timestamp("1970-01-01T01:00:00+01:00"), Some(0));
        assert_eq!(timestamp("1970-01-01T00:00:00"), None);
    }
}
