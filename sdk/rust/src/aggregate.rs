//! An aggregate as its author writes it: a state, and what a row, a later part and the end do to it.

use crate::column::Column;
use crate::fold::Fold;
use crate::kind::Field;
use crate::module::{Info, Prepared, Role, Udf};
use crate::output::{Builder, OutputRow, push_nulls};
use crate::params;
use crate::row::{Row, check_inputs};
use crate::state::State;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use std::marker::PhantomData;

/// A feature over many rows. The type itself is the state: derive its encoding with `#[derive(State)]`.
///
/// The platform folds rows in any order and in parts, so `update` and `merge` must not depend on order, unless `ORDERED`
/// says so: this is tried when the module is uploaded.
pub trait Aggregate: State + Clone + 'static {
    /// Its name in definitions: `[a-z][a-z0-9_]*`.
    const NAME: &'static str;
    /// What it computes, in a line.
    const DOC: &'static str;
    /// The names of the outputs, one for each of `Output`.
    const OUTPUTS: &'static [&'static str] = &["value"];
    /// Whether rows must come in event-time order.
    const ORDERED: bool = false;
    /// Whether `merge` works; without it only tumbling windows and none are possible.
    const MERGEABLE: bool = true;

    /// Read by serde; `()` for none.
    type Params: DeserializeOwned + JsonSchema + 'static;
    /// What a row brings: `f64`, `Option<i64>`, `(&'a str, f64, EventTime)`, …
    type Input<'a>: Row<'a>;
    /// What it gives: `Option<f64>`, `i64`, a tuple of them, …
    type Output: OutputRow;

    /// Refuses parameters whose types are right and whose values are not. Name the value, the rule and the remedy.
    fn check(_params: &Self::Params) -> Result<(), String> {
        Ok(())
    }

    /// The state before any row.
    fn new(params: &Self::Params) -> Self;

    /// Takes one row in. An error refuses the row, which is kept as a dead letter: it must depend on the row alone and
    /// leave the state as it was.
    fn update(&mut self, params: &Self::Params, input: Self::Input<'_>) -> Result<(), String>;

    /// Takes in what `later` has seen.
    fn merge(&mut self, params: &Self::Params, later: &Self) -> Result<(), String>;

    /// The values now; `Null("overflow")` makes them null and says why.
    fn finish(&self, params: &Self::Params) -> Result<Self::Output, Null>;
}

/// Why the values of an aggregate are null, in a word or a line: `overflow`, …
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Null(pub &'static str);

struct Typed<A: Aggregate> {
    params: A::Params,
    aggregate: PhantomData<fn() -> A>,
}

impl<A: Aggregate> Fold for Typed<A> {
    type State = A;
    type View<'a> = <A::Input<'a> as Row<'a>>::View;

    fn view<'a>(&self, columns: &[Column<'a>], rows: usize) -> Result<Self::View<'a>, String> {
        <A::Input<'a> as Row<'a>>::view(columns, rows)
    }

    fn start(&self) -> A {
        A::new(&self.params)
    }

    #[inline]
    fn update(&self, state: &mut A, view: &Self::View<'_>, row: usize) -> Result<(), String> {
        match A::Input::read(view, row) {
            Some(input) => state.update(&self.params, input),
            None => Ok(()),
        }
    }

    fn merge(&self, state: &mut A, later: &A) -> Result<(), String> {
        state.merge(&self.params, later)
    }

    fn finish(&self, state: &A, outputs: &mut [Builder]) -> Result<&'static str, String> {
        match state.finish(&self.params) {
            Ok(values) => values.write_to(outputs).map(|()| ""),
            Err(Null(reason)) => {
                push_nulls(outputs);
                Ok(reason)
            }
        }
    }
}

impl<A: Aggregate> Udf for A {
    fn info() -> Info {
        Info { name: A::NAME, role: Role::Aggregate, doc: A::DOC, params: params::schema::<A::Params>() }
    }

    fn prepare(text: &str, inputs: &[Field]) -> Result<Prepared, String> {
        let params: A::Params = params::parse(A::NAME, text)?;
        A::check(&params)?;
        check_inputs(A::NAME, <A::Input<'static> as Row<'static>>::KINDS, inputs)?;
        let kinds = <A::Output as OutputRow>::KINDS;
        if A::OUTPUTS.len() != kinds.len() {
            return Err(format!("{} names {} outputs and gives {}", A::NAME, A::OUTPUTS.len(), kinds.len()));
        }
        let outputs = A::OUTPUTS.iter().zip(kinds).map(|(name, kind)| Field::new(*name, *kind)).collect();
        let mut prepared = Prepared::fold(Typed::<A> { params, aggregate: PhantomData }, outputs);
        if <A::Input<'static> as Row<'static>>::EVENT_TIME {
            prepared = prepared.event_time();
        }
        if A::ORDERED {
            prepared = prepared.ordered();
        }
        if !A::MERGEABLE {
            prepared = prepared.not_mergeable();
        }
        Ok(prepared)
    }
}
