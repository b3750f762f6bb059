//! count_distinct and collect_distinct: the set of values, exact. NaNs are one value, and so are -0.0 and 0.0.

use crate::inputs;
use onefold_udf::column::{AnyColumn, Column};
use onefold_udf::fold::Fold;
use onefold_udf::output::Builder;
use onefold_udf::{Field, Info, Kind, Prepared, Role, Udf, Value, params};
use std::collections::BTreeSet;

/// `std.count_distinct`.
pub enum CountDistinct {}
/// `std.collect_distinct`.
pub enum CollectDistinct {}

impl Udf for CountDistinct {
    fn info() -> Info {
        let doc = "How many different values there are, nulls aside; exact. NaNs are one value, -0.0 and 0.0 are one";
        Info { name: "count_distinct", role: Role::Aggregate, doc, params: String::new() }
    }

    fn prepare(text: &str, inputs: &[Field]) -> Result<Prepared, String> {
        params::parse::<()>("count_distinct", text)?;
        let kind = inputs::one("count_distinct", inputs)?.kind;
        Ok(Prepared::fold(Distinct { kind, collect: false }, vec![Field::new("value", Kind::Int64)]))
    }
}

impl Udf for CollectDistinct {
    fn info() -> Info {
        let doc = "The different values, nulls aside, ascending; null when there are none";
        Info { name: "collect_distinct", role: Role::Aggregate, doc, params: String::new() }
    }

    fn prepare(text: &str, inputs: &[Field]) -> Result<Prepared, String> {
        params::parse::<()>("collect_distinct", text)?;
        let list = inputs::list_of("collect_distinct", inputs)?;
        let kind = inputs::one("collect_distinct", inputs)?.kind;
        Ok(Prepared::fold(Distinct { kind, collect: true }, vec![Field::new("value", list)]))
    }
}

struct Distinct {
    kind: Kind,
    collect: bool,
}

/// -0.0 counts as 0.0, also inside lists.
fn one_zero(value: Value<'_>) -> Value<'_> {
    match value {
        Value::Float64(value) => Value::Float64(value + 0.0),
        Value::Float64List(items) => Value::Float64List(items.into_iter().map(|item| item + 0.0).collect()),
        Value::Float32List(items) => Value::Float32List(items.into_iter().map(|item| item + 0.0).collect()),
        other => other,
    }
}

impl Fold for Distinct {
    type State = BTreeSet<Value<'static>>;
    type View<'a> = AnyColumn<'a>;

    fn view<'a>(&self, columns: &[Column<'a>], rows: usize) -> Result<AnyColumn<'a>, String> {
        AnyColumn::of(self.kind, inputs::only(columns)?, rows)
    }

    fn start(&self) -> Self::State {
        BTreeSet::new()
    }

    fn update(&self, state: &mut Self::State, view: &AnyColumn<'_>, row: usize) -> Result<(), String> {
        let value = one_zero(view.value(row)).into_owned();
        if !value.is_null() {
            state.insert(value);
        }
        Ok(())
    }

    fn merge(&self, state: &mut Self::State, later: &Self::State) -> Result<(), String> {
        state.extend(later.iter().cloned());
        Ok(())
    }

    fn finish(&self, state: &Self::State, outputs: &mut [Builder]) -> Result<&'static str, String> {
        let value = if self.collect {
            inputs::list(self.kind, state.iter())
        } else {
            Value::Int64(state.len() as i64)
        };
        inputs::emit(outputs, &value).map(|()| "")
    }
}
