//! count, sum and mean.

use crate::exact::FloatSum;
use crate::inputs::{self, Number};
use onefold_udf::column::{AnyColumn, Column, Words, all};
use onefold_udf::fold::Fold;
use onefold_udf::output::Builder;
use onefold_udf::{Field, Info, Kind, Prepared, Role, State, Udf, Value, params};

/// `std.count`.
pub enum Count {}

/// `std.sum`.
pub enum Sum {}

/// `std.mean`.
pub enum Mean {}

impl Udf for Count {
    fn info() -> Info {
        let doc = "How many rows there are in which no input is null; without inputs, how many rows";
        Info { name: "count", role: Role::Aggregate, doc, params: String::new() }
    }

    fn prepare(text: &str, inputs: &[Field]) -> Result<Prepared, String> {
        params::parse::<()>("count", text)?;
        let kinds = inputs.iter().map(|input| input.kind).collect();
        Ok(Prepared::fold(CountFold { kinds }, vec![Field::new("value", Kind::Int64)]))
    }
}

struct CountFold {
    kinds: Vec<Kind>,
}

impl Fold for CountFold {
    type State = u64;
    type View<'a> = Vec<AnyColumn<'a>>;

    fn view<'a>(&self, columns: &[Column<'a>], rows: usize) -> Result<Self::View<'a>, String> {
        all(&self.kinds, columns, rows)
    }

    fn start(&self) -> u64 {
        0
    }

    #[inline]
    fn update(&self, state: &mut u64, view: &Self::View<'_>, row: usize) -> Result<(), String> {
        *state += u64::from(view.iter().all(|column| column.has(row)));
        Ok(())
    }

    fn merge(&self, state: &mut u64, later: &u64) -> Result<(), String> {
        *state = state.checked_add(*later).ok_or("a count is greater than 64 bits hold")?;
        Ok(())
    }

    fn finish(&self, state: &u64, outputs: &mut [Builder]) -> Result<&'static str, String> {
        match i64::try_from(*state) {
            Ok(count) => inputs::emit(outputs, &Value::Int64(count)).map(|()| ""),
            Err(_) => inputs::emit(outputs, &Value::Null).map(|()| "overflow"),
        }
    }
}

impl Udf for Sum {
    fn info() -> Info {
        let doc = "The exact sum of the values that are not null; int64 beyond its range is null with reason overflow";
        Info { name: "sum", role: Role::Aggregate, doc, params: String::new() }
    }

    fn prepare(text: &str, inputs: &[Field]) -> Result<Prepared, String> {
        params::parse::<()>("sum", text)?;
        Ok(match inputs::number("sum", inputs)? {
            Number::Int64 => Prepared::fold(IntegerSum { mean: false }, vec![Field::new("value", Kind::Int64)]),
            Number::Float64 => Prepared::fold(FloatSums { mean: false }, vec![Field::new("value", Kind::Float64)]),
        })
    }
}

impl Udf for Mean {
    fn info() -> Info {
        let doc = "The exact sum of the values that are not null, rounded to float64, divided by how many they are";
        Info { name: "mean", role: Role::Aggregate, doc, params: String::new() }
    }

    fn prepare(text: &str, inputs: &[Field]) -> Result<Prepared, String> {
        params::parse::<()>("mean", text)?;
        let outputs = vec![Field::new("value", Kind::Float64)];
        Ok(match inputs::number("mean", inputs)? {
            Number::Int64 => Prepared::fold(IntegerSum { mean: true }, outputs),
            Number::Float64 => Prepared::fold(FloatSums { mean: true }, outputs),
        })
    }
}

struct IntegerSum {
    mean: bool,
}

#[derive(Clone, Default, State)]
struct Integers {
    count: u64,
    sum: i128,
}

impl Fold for IntegerSum {
    type State = Integers;
    type View<'a> = Words<'a>;

    fn view<'a>(&self, columns: &[Column<'a>], rows: usize) -> Result<Words<'a>, String> {
        Words::of(inputs::only(columns)?, rows)
    }

    fn start(&self) -> Integers {
        Integers::default()
    }

    #[inline]
    fn update(&self, state: &mut Integers, view: &Words<'_>, row: usize) -> Result<(), String> {
        if let Some(value) = view.integer(row) {
            state.count += 1;
            state.sum += i128::from(value);
        }
        Ok(())
    }

    fn merge(&self, state: &mut Integers, later: &Integers) -> Result<(), String> {
        state.count = state.count.checked_add(later.count).ok_or("a count is greater than 64 bits hold")?;
        state.sum = state.sum.checked_add(later.sum).ok_or("a sum is greater than 128 bits hold")?;
        Ok(())
    }

    fn finish(&self, state: &Integers, outputs: &mut [Builder]) -> Result<&'static str, String> {
        let (value, reason) = inputs::integer_result(state.sum, state.count, self.mean);
        inputs::emit(outputs, &value).map(|()| reason)
    }
}

struct FloatSums {
    mean: bool,
}

#[derive(Clone, Default, State)]
struct Floats {
    count: u64,
    sum: FloatSum,
}

impl Fold for FloatSums {
    type State = Floats;
    type View<'a> = Words<'a>;

    fn view<'a>(&self, columns: &[Column<'a>], rows: usize) -> Result<Words<'a>, String> {
        Words::of(inputs::only(columns)?, rows)
    }

    fn start(&self) -> Floats {
        Floats::default()
    }

    #[inline]
    fn update(&self, state: &mut Floats, view: &Words<'_>, row: usize) -> Result<(), String> {
        if let Some(value) = view.float(row) {
            state.count += 1;
            state.sum.add(value);
        }
        Ok(())
    }

    fn merge(&self, state: &mut Floats, later: &Floats) -> Result<(), String> {
        state.count = state.count.checked_add(later.count).ok_or("a count is greater than 64 bits hold")?;
        state.sum.merge(&later.sum);
        Ok(())
    }

    fn finish(&self, state: &Floats, outputs: &mut [Builder]) -> Result<&'static str, String> {
        inputs::emit(outputs, &inputs::float_result(&state.sum, state.count, self.mean)).map(|()| "")
    }
}
