//! first and last: the ends of the canonical order.

use crate::inputs;
use crate::plain::{self, PlainColumn, Sortable};
use onefold_udf::column::{AnyColumn, Column, Words, all};
use onefold_udf::fold::Fold;
use onefold_udf::output::Builder;
use onefold_udf::state::Reader;
use onefold_udf::{Field, Info, Kind, Malformed, Prepared, Role, State, Udf, Value, params};

/// `std.first`.
pub enum First {}

/// `std.last`.
pub enum Last {}

impl Udf for First {
    fn info() -> Info {
        let doc = "The first value that is not null, in canonical order: by event time, then by value";
        Info { name: "first", role: Role::Aggregate, doc, params: String::new() }
    }

    fn prepare(text: &str, inputs: &[Field]) -> Result<Prepared, String> {
        prepare("first", false, text, inputs)
    }
}

impl Udf for Last {
    fn info() -> Info {
        let doc = "The last value that is not null, in canonical order: by event time, then by value";
        Info { name: "last", role: Role::Aggregate, doc, params: String::new() }
    }

    fn prepare(text: &str, inputs: &[Field]) -> Result<Prepared, String> {
        prepare("last", true, text, inputs)
    }
}

fn prepare(udf: &str, last: bool, text: &str, inputs: &[Field]) -> Result<Prepared, String> {
    params::parse::<()>(udf, text)?;
    let kind = inputs::one(udf, inputs)?.kind;
    let (kinds, outputs) = ([kind, Kind::Timestamp], vec![Field::new("value", kind)]);
    let prepared = match plain::is_plain(kind) {
        true => Prepared::fold(PlainEnd { kinds, last }, outputs),
        false => Prepared::fold(End { kinds, last }, outputs),
    };
    Ok(prepared.event_time())
}

/// Of numbers. The bytes of its states are those of `End`.
struct PlainEnd {
    kinds: [Kind; 2],
    last: bool,
}

#[derive(Clone, Copy)]
struct PlainHeld {
    rank: u8,
    time: i64,
    value: Sortable,
}

impl PlainEnd {
    #[inline]
    fn offer(&self, state: &mut Option<PlainHeld>, new: PlainHeld) {
        let is_better = state.is_none_or(|held| {
            let (held, new) = ((held.time, held.value), (new.time, new.value));
            if self.last { new > held } else { new < held }
        });
        if is_better {
            *state = Some(new);
        }
    }
}

impl State for PlainHeld {
    #[inline]
    fn encode(&self, out: &mut Vec<u8>) {
        self.time.encode(out);
        plain::encode(self.rank, self.value, out);
    }

    #[inline]
    fn decode(input: &mut Reader<'_>) -> Result<PlainHeld, Malformed> {
        let time = i64::decode(input)?;
        let (rank, value) = plain::decode(input)?;
        Ok(PlainHeld { rank, time, value })
    }
}

impl Fold for PlainEnd {
    type State = Option<PlainHeld>;
    type View<'a> = (PlainColumn<'a>, Words<'a>);

    fn view<'a>(&self, columns: &[Column<'a>], rows: usize) -> Result<Self::View<'a>, String> {
        plain::with_times(&self.kinds, columns, rows)
    }

    #[inline]
    fn start(&self) -> Self::State {
        None
    }

    #[inline]
    fn update(&self, state: &mut Self::State, (column, times): &Self::View<'_>, row: usize) -> Result<(), String> {
        if let Some(value) = column.get(row) {
            let time = times.integer(row).ok_or("the event time of the row is null")?;
            self.offer(state, PlainHeld { rank: plain::rank(self.kinds[0]), time, value });
        }
        Ok(())
    }

    fn merge(&self, state: &mut Self::State, later: &Self::State) -> Result<(), String> {
        if let Some(later) = later {
            self.offer(state, *later);
        }
        Ok(())
    }

    #[inline]
    fn finish(&self, state: &Self::State, outputs: &mut [Builder]) -> Result<&'static str, String> {
        let value = state.map_or(Value::Null, |held| plain::value(self.kinds[0], held.value));
        inputs::emit(outputs, &value).map(|()| "")
    }
}

struct End {
    kinds: [Kind; 2],
    last: bool,
}

/// Event time and value.
type Held = Option<(i64, Value<'static>)>;

impl End {
    fn is_better(&self, time: i64, value: &Value<'_>, held: &Held) -> bool {
        let Some((held_time, held_value)) = held else { return true };
        let order = time.cmp(held_time).then_with(|| value.cmp(held_value));
        if self.last { order.is_gt() } else { order.is_lt() }
    }
}

impl Fold for End {
    type State = Held;
    type View<'a> = Vec<AnyColumn<'a>>;

    fn view<'a>(&self, columns: &[Column<'a>], rows: usize) -> Result<Self::View<'a>, String> {
        all(&self.kinds, columns, rows)
    }

    fn start(&self) -> Held {
        None
    }

    #[inline]
    fn update(&self, state: &mut Held, view: &Self::View<'_>, row: usize) -> Result<(), String> {
        let [column, AnyColumn::Timestamp(times)] = view.as_slice() else {
            return Err("the event time did not come".to_owned());
        };
        let value = column.value(row);
        if value.is_null() {
            return Ok(());
        }
        let time = times.integer(row).ok_or("the event time of the row is null")?;
        if self.is_better(time, &value, state) {
            *state = Some((time, value.into_owned()));
        }
        Ok(())
    }

    fn merge(&self, state: &mut Held, later: &Held) -> Result<(), String> {
        if let Some((time, value)) = later
            && self.is_better(*time, value, state)
        {
            *state = Some((*time, value.clone()));
        }
        Ok(())
    }

    fn finish(&self, state: &Held, outputs: &mut [Builder]) -> Result<&'static str, String> {
        inputs::emit(outputs, state.as_ref().map_or(&Value::Null, |(_, value)| value)).map(|()| "")
    }
}
