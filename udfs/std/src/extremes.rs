//! min and max, in the canonical order of every kind.

use crate::inputs;
use onefold_udf::column::{AnyColumn, Column};
use onefold_udf::fold::Fold;
use onefold_udf::output::Builder;
use onefold_udf::{Field, Info, Kind, Prepared, Role, Udf, Value, params};

/// `std.min`.
pub enum Min {}
/// `std.max`.
pub enum Max {}

impl Udf for Min {
    fn info() -> Info {
        let doc = "The least value that is not null; -0.0 below 0.0, NaN greatest, text by its bytes";
        Info { name: "min", role: Role::Aggregate, doc, params: String::new() }
    }

    fn prepare(text: &str, inputs: &[Field]) -> Result<Prepared, String> {
        prepare("min", false, text, inputs)
    }
}

impl Udf for Max {
    fn info() -> Info {
        let doc = "The greatest value that is not null; -0.0 below 0.0, NaN greatest, text by its bytes";
        Info { name: "max", role: Role::Aggregate, doc, params: String::new() }
    }

    fn prepare(text: &str, inputs: &[Field]) -> Result<Prepared, String> {
        prepare("max", true, text, inputs)
    }
}

fn prepare(udf: &str, greatest: bool, text: &str, inputs: &[Field]) -> Result<Prepared, String> {
    params::parse::<()>(udf, text)?;
    let kind = inputs::one(udf, inputs)?.kind;
    Ok(Prepared::fold(Extreme { kind, greatest }, vec![Field::new("value", kind)]))
}

struct Extreme {
    kind: Kind,
    greatest: bool,
}

impl Extreme {
    fn is_better(&self, value: &Value<'_>, held: &Value<'_>) -> bool {
        if value.is_null() || held.is_null() {
            return held.is_null() && !value.is_null();
        }
        if self.greatest { value > held } else { value < held }
    }
}

impl Fold for Extreme {
    /// Null until there is a value.
    type State = Value<'static>;
    type View<'a> = AnyColumn<'a>;

    fn view<'a>(&self, columns: &[Column<'a>], rows: usize) -> Result<AnyColumn<'a>, String> {
        AnyColumn::of(self.kind, inputs::only(columns)?, rows)
    }

    fn start(&self) -> Value<'static> {
        Value::Null
    }

    #[inline]
    fn update(&self, state: &mut Value<'static>, view: &AnyColumn<'_>, row: usize) -> Result<(), String> {
        let value = view.value(row);
        if self.is_better(&value, state) {
            *state = value.into_owned();
        }
        Ok(())
    }

    fn merge(&self, state: &mut Value<'static>, later: &Value<'static>) -> Result<(), String> {
        if self.is_better(later, state) {
            *state = later.clone();
        }
        Ok(())
    }

    fn finish(&self, state: &Value<'static>, outputs: &mut [Builder]) -> Result<&'static str, String> {
        inputs::emit(outputs, state).map(|()| "")
    }
}
