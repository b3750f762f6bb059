//! var_samp, var_pop, stddev_samp, stddev_pop: from exact moments, rounded once.

use crate::exact::Moments;
use crate::inputs::{self, Number};
use onefold_udf::column::{Column, Words};
use onefold_udf::fold::Fold;
use onefold_udf::output::Builder;
use onefold_udf::{Field, Info, Kind, Prepared, Role, State, Udf, Value, params};

/// `std.var_samp`.
pub enum VarSamp {}
/// `std.var_pop`.
pub enum VarPop {}
/// `std.stddev_samp`.
pub enum StddevSamp {}
/// `std.stddev_pop`.
pub enum StddevPop {}

macro_rules! spread {
    ($type:ident, $name:literal, $taken_off:literal, $root:literal, $doc:literal) => {
        impl Udf for $type {
            fn info() -> Info {
                Info { name: $name, role: Role::Aggregate, doc: $doc, params: String::new() }
            }

            fn prepare(text: &str, inputs: &[Field]) -> Result<Prepared, String> {
                params::parse::<()>($name, text)?;
                let number = inputs::number($name, inputs)?;
                let fold = SpreadFold { number, taken_off: $taken_off, root: $root };
                Ok(Prepared::fold(fold, vec![Field::new("value", Kind::Float64)]))
            }
        }
    };
}
spread!(VarSamp, "var_samp", 1, false, "The sample variance of the values that are not null; null of fewer than two");
spread!(VarPop, "var_pop", 0, false, "The variance of the values that are not null");
spread!(StddevSamp, "stddev_samp", 1, true, "The sample standard deviation; null of fewer than two values");
spread!(StddevPop, "stddev_pop", 0, true, "The standard deviation of the values that are not null");

struct SpreadFold {
    number: Number,
    /// What is taken off the number of values in the divisor: 1 for a sample.
    taken_off: u64,
    root: bool,
}

#[derive(Clone, Default, State)]
struct Counted {
    count: u64,
    moments: Moments,
}

impl Fold for SpreadFold {
    type State = Counted;
    type View<'a> = Words<'a>;

    fn view<'a>(&self, columns: &[Column<'a>], rows: usize) -> Result<Words<'a>, String> {
        Words::of(inputs::only(columns)?, rows)
    }

    fn start(&self) -> Counted {
        Counted::default()
    }

    #[inline]
    fn update(&self, state: &mut Counted, view: &Words<'_>, row: usize) -> Result<(), String> {
        match self.number {
            Number::Int64 => {
                let Some(value) = view.integer(row) else { return Ok(()) };
                state.moments.add_integer(value);
            }
            Number::Float64 => {
                let Some(value) = view.float(row) else { return Ok(()) };
                state.moments.add_float(value);
            }
        }
        state.count += 1;
        Ok(())
    }

    fn merge(&self, state: &mut Counted, later: &Counted) -> Result<(), String> {
        state.count = state.count.checked_add(later.count).ok_or("a count is greater than 64 bits hold")?;
        state.moments.merge(&later.moments);
        Ok(())
    }

    fn finish(&self, state: &Counted, outputs: &mut [Builder]) -> Result<&'static str, String> {
        let Counted { count, moments } = state;
        if *count <= self.taken_off {
            return inputs::emit(outputs, &Value::Null).map(|()| "");
        }
        let unit = match self.number {
            Number::Int64 => 0,
            Number::Float64 => -1074,
        };
        let divisor = u128::from(*count) * u128::from(count - self.taken_off);
        let variance = moments.spread(*count, unit) / divisor as f64;
        let value = if self.root { variance.sqrt() } else { variance };
        inputs::emit(outputs, &Value::float64(value)).map(|()| "")
    }
}
