//! first_n, last_n, last_n_sum, last_n_mean: the n first or last values that are not null, in canonical order.

use crate::exact::FloatSum;
use crate::{few, inputs, plain};
use onefold_udf::column::{AnyColumn, Column, all};
use onefold_udf::fold::Fold;
use onefold_udf::output::Builder;
use onefold_udf::{Field, Info, Kind, Prepared, Role, Udf, Value, params};
use std::cmp::Ordering;

/// `std.first_n`.
pub enum FirstN {}
/// `std.last_n`.
pub enum LastN {}
/// `std.last_n_sum`.
pub enum LastNSum {}
/// `std.last_n_mean`.
pub enum LastNMean {}

macro_rules! several {
    ($type:ident, $name:literal, $last:literal, $gives:ident, $doc:literal) => {
        impl Udf for $type {
            fn info() -> Info {
                let params = params::schema::<inputs::Kept>();
                Info { name: $name, role: Role::Aggregate, doc: $doc, params }
            }

            fn prepare(text: &str, inputs: &[Field]) -> Result<Prepared, String> {
                prepare($name, $last, Gives::$gives, text, inputs)
            }
        }
    };
}
several!(FirstN, "first_n", false, List, "The first n values that are not null, in canonical order; null of none");
several!(LastN, "last_n", true, List, "The last n values that are not null, in canonical order; null of none");
several!(LastNSum, "last_n_sum", true, Sum, "The exact sum of the last n values that are not null");
several!(LastNMean, "last_n_mean", true, Mean, "The mean of the last n values that are not null");

/// What is made of the values.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Gives {
    List,
    Sum,
    Mean,
}

fn prepare(udf: &str, last: bool, gives: Gives, text: &str, inputs: &[Field]) -> Result<Prepared, String> {
    let n = inputs::kept(udf, text)?;
    let kind = inputs::one(udf, inputs)?.kind;
    let output = match gives {
        Gives::List => inputs::list_of(udf, inputs)?,
        Gives::Sum => {
            inputs::number(udf, inputs)?;
            kind
        }
        Gives::Mean => {
            inputs::number(udf, inputs)?;
            Kind::Float64
        }
    };
    let kinds = [kind, Kind::Timestamp];
    let outputs = vec![Field::new("value", output)];
    let prepared = match plain::is_plain(kind) && n <= few::MOST {
        true => Prepared::fold(few::FewEnds { kinds, n, last, gives }, outputs),
        false => Prepared::fold(Ends { kinds, n, last, gives }, outputs),
    };
    Ok(prepared.event_time())
}

struct Ends {
    kinds: [Kind; 2],
    n: usize,
    last: bool,
    gives: Gives,
}

type Held = (i64, Value<'static>);

/// A value of n may weigh this much, divided by n.
pub const MOST_BYTES: usize = 1 << 20;

impl Ends {
    /// From the value that goes first when there are too many, to the best.
    fn order(&self, left: (i64, &Value<'_>), right: (i64, &Value<'_>)) -> Ordering {
        let order = left.cmp(&right);
        if self.last { order } else { order.reverse() }
    }

    /// Whether a value would be among the n.
    fn is_wanted(&self, held: &[Held], time: i64, value: &Value<'_>) -> bool {
        match held.first() {
            Some((least_time, least)) if held.len() >= self.n => {
                self.order((time, value), (*least_time, least)).is_gt()
            }
            _ => true,
        }
    }

    fn insert(&self, held: &mut Vec<Held>, time: i64, value: Value<'static>) {
        let at = held.partition_point(|(t, v)| self.order((*t, v), (time, &value)).is_lt());
        held.insert(at, (time, value));
        if held.len() > self.n {
            held.remove(0);
        }
    }

    /// The kept values in canonical order.
    fn values<'h>(&self, held: &'h [Held]) -> Box<dyn Iterator<Item = &'h Value<'static>> + 'h> {
        let values = held.iter().map(|(_, value)| value);
        if self.last { Box::new(values) } else { Box::new(values.rev()) }
    }
}

impl Fold for Ends {
    /// Ascending by `order`: the state of equal rows is equal whatever way they came.
    type State = Vec<Held>;
    type View<'a> = Vec<AnyColumn<'a>>;

    fn view<'a>(&self, columns: &[Column<'a>], rows: usize) -> Result<Self::View<'a>, String> {
        all(&self.kinds, columns, rows)
    }

    fn start(&self) -> Vec<Held> {
        Vec::new()
    }

    #[inline]
    fn update(&self, state: &mut Vec<Held>, view: &Self::View<'_>, row: usize) -> Result<(), String> {
        let [column, AnyColumn::Timestamp(times)] = view.as_slice() else {
            return Err("the event time did not come".to_owned());
        };
        let value = column.value(row);
        if value.is_null() {
            return Ok(());
        }
        let most = MOST_BYTES / self.n;
        if value.size_bytes() > most {
            let (size, n) = (value.size_bytes(), self.n);
            return Err(format!(
                "a value of {size} bytes: of {n} values each may have {most}; shorten it, or choose a smaller n"
            ));
        }
        let time = times.integer(row).ok_or("the event time of the row is null")?;
        if self.is_wanted(state, time, &value) {
            self.insert(state, time, value.into_owned());
        }
        Ok(())
    }

    fn merge(&self, state: &mut Vec<Held>, later: &Vec<Held>) -> Result<(), String> {
        for (time, value) in later.iter().rev() {
            if !self.is_wanted(state, *time, value) {
                break;
            }
            self.insert(state, *time, value.clone());
        }
        Ok(())
    }

    fn finish(&self, state: &Vec<Held>, outputs: &mut [Builder]) -> Result<&'static str, String> {
        let [kind, _] = self.kinds;
        let mean = self.gives == Gives::Mean;
        let (value, reason) = match (self.gives, kind) {
            (Gives::List, kind) => (inputs::list(kind, self.values(state)), ""),
            (_, Kind::Int64) => {
                let sum = self.values(state).filter_map(inputs::as_integer).map(i128::from).sum();
                inputs::integer_result(sum, state.len() as u64, mean)
            }
            _ => {
                let mut sum = FloatSum::default();
                self.values(state).filter_map(inputs::as_float).for_each(|value| sum.add(value));
                (inputs::float_result(&sum, state.len() as u64, mean), "")
            }
        };
        inputs::emit(outputs, &value).map(|()| reason)
    }
}
