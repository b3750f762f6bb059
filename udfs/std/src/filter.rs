//! filter: the rows whose input passes a comparison, as they were: it adds no column. The operators are those of `where`.

use crate::convert;
use onefold_udf::column::{Column, all};
use onefold_udf::serde_json;
use onefold_udf::transform::{Map, Mapping};
use onefold_udf::{Field, Info, Kind, Prepared, Role, Udf, Value, compare_floats, params};
use std::cmp::Ordering;

/// `std.filter`.
pub enum Filter {}

/// The parameters of `std.filter`.
#[params]
pub struct Comparison {
    /// How the input is compared with `value`.
    op: Operator,
    /// A constant of the input's kind; a list of them for `in` and `not_in`; none for `is_null` and `not_null`.
    /// Timestamps are RFC 3339 text, binary is base64 text, floats may be "NaN", "Infinity", "-Infinity".
    #[serde(default)]
    value: Option<serde_json::Value>,
}

/// The operators of `where`.
#[params]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Operator {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    In,
    NotIn,
    IsNull,
    NotNull,
}

impl Udf for Filter {
    fn info() -> Info {
        let doc = "Passes the rows whose input compares with `value` as `op` says, and adds no column";
        Info { name: "filter", role: Role::Transform, doc, params: params::schema::<Comparison>() }
    }

    fn prepare(text: &str, inputs: &[Field]) -> Result<Prepared, String> {
        let Comparison { op, value } = params::parse("filter", text)?;
        let [Field { name, kind }] = inputs else {
            return Err(format!("{} inputs: filter compares one column; name it in `inputs`", inputs.len()));
        };
        let constants = constants(op, value.as_ref(), name, *kind)?;
        Ok(Prepared::map(FilterMap { kinds: vec![*kind], op, constants }, Vec::new()))
    }
}

fn constants(
    op: Operator,
    value: Option<&serde_json::Value>,
    name: &str,
    kind: Kind,
) -> Result<Vec<Value<'static>>, String> {
    let read = |json: &serde_json::Value| {
        convert::from_json(json, kind)
            .ok_or_else(|| format!("value {json}: `{name}` is {kind}; write a value of that kind"))
    };
    match (op, value) {
        (Operator::IsNull | Operator::NotNull, None) => Ok(Vec::new()),
        (Operator::IsNull | Operator::NotNull, Some(json)) => {
            Err(format!("value {json}: is_null and not_null compare with nothing; remove `value`"))
        }
        (_, None | Some(serde_json::Value::Null)) => {
            Err("no value: this op compares with one; add `value`, or use is_null or not_null".to_owned())
        }
        (Operator::In | Operator::NotIn, Some(serde_json::Value::Array(items))) => items.iter().map(read).collect(),
        (Operator::In | Operator::NotIn, Some(json)) => {
            Err(format!("value {json}: in and not_in compare with a list; write [{json}]"))
        }
        (_, Some(json)) => Ok(vec![read(json)?]),
    }
}

struct FilterMap {
    kinds: Vec<Kind>,
    op: Operator,
    constants: Vec<Value<'static>>,
}

impl FilterMap {
    fn passes(&self, value: &Value<'_>) -> bool {
        if value.is_null() {
            return self.op == Operator::IsNull;
        }
        let order = || self.constants.first().map_or(Ordering::Equal, |constant| value.cmp(constant));
        let among = || self.constants.iter().any(|constant| is_equal(value, constant));
        match self.op {
            Operator::IsNull => false,
            Operator::NotNull => true,
            Operator::Eq | Operator::In => among(),
            Operator::Ne | Operator::NotIn => !among(),
            Operator::Lt => order().is_lt(),
            Operator::Le => order().is_le(),
            Operator::Gt => order().is_gt(),
            Operator::Ge => order().is_ge(),
        }
    }
}

/// Equality of `eq`, `ne`, `in`, `not_in`: -0.0 equals 0.0, NaN equals NaN.
fn is_equal(left: &Value<'_>, right: &Value<'_>) -> bool {
    match (left, right) {
        (Value::Float64(left), Value::Float64(right)) => compare_floats(left + 0.0, right + 0.0).is_eq(),
        _ => left == right,
    }
}

impl Map for FilterMap {
    fn map(&self, columns: &[Column<'_>], rows: usize, out: &mut Mapping) -> Result<(), String> {
        let columns = all(&self.kinds, columns, rows)?;
        let Some(compared) = columns.first() else { return Ok(()) };
        for row in (0..rows).filter(|row| self.passes(&compared.value(*row))) {
            out.made_of(row);
        }
        Ok(())
    }
}
