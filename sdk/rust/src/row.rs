//! Typed rows: what `update` and transforms take, read from the columns of a call.
//!
//! `f64` takes only rows that have a value: others are passed over (an aggregate) or give null (a transform).
//! `Option<f64>` takes every row. Several inputs are a tuple; `EventTime`, last, asks for the row's event time.

use crate::column::{AnyColumn, Booleans, Column, Strings, Words};
use crate::kind::{Field, Kind};
use crate::state::{Malformed, Reader, State};

/// Microseconds since the epoch, UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(pub i64);

/// The event time of the row, in microseconds since the epoch, UTC. As the last input it makes the UDF claim
/// `event-time`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct EventTime(pub i64);

macro_rules! time_state {
    ($($type:ident),*) => {$(
        impl State for $type {
            fn encode(&self, out: &mut Vec<u8>) {
                self.0.encode(out);
            }
            fn decode(input: &mut Reader<'_>) -> Result<$type, Malformed> {
                i64::decode(input).map($type)
            }
        }
    )*};
}
time_state!(Timestamp, EventTime);

/// One input of a typed UDF.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no input of a UDF",
    label = "not an input",
    note = "inputs are bool, i64, f64, Timestamp, &str, &[u8], Vec<i64>, Vec<f32>, Vec<f64> and Vec<Cow<str>>, each also \
            in an Option"
)]
pub trait Input<'a>: Sized {
    const KIND: Kind;
    const EVENT_TIME: bool = false;
    type View: 'a;
    fn view(column: &Column<'a>, rows: usize) -> Result<Self::View, String>;
    /// None where the row is null and the input is not an option.
    fn read(view: &Self::View, row: usize) -> Option<Self>;
}

/// All inputs of a typed UDF: one `Input`, or a tuple of them, or `()` for none.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no input of a UDF",
    label = "not an input",
    note = "inputs are bool, i64, f64, Timestamp, &str, &[u8], Vec<i64>, Vec<f32>, Vec<f64> and Vec<Cow<str>>, each also \
            in an Option; several are a tuple, in which EventTime may stand last; none is ()"
)]
pub trait Row<'a>: Sized {
    /// The kinds of the declared inputs, without the event time.
    const KINDS: &'static [Kind];
    const EVENT_TIME: bool;
    type View: 'a;
    fn view(columns: &[Column<'a>], rows: usize) -> Result<Self::View, String>;
    fn read(view: &Self::View, row: usize) -> Option<Self>;
}

/// Checks the inputs that a definition gives against those that a UDF takes.
pub fn check_inputs(udf: &str, wanted: &[Kind], inputs: &[Field]) -> Result<(), String> {
    let names = |kinds: &[Kind]| kinds.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(", ");
    if inputs.len() != wanted.len() {
        let wanted_names = if wanted.is_empty() { "none".to_owned() } else { names(wanted) };
        return Err(format!("{} inputs: {udf} takes {} ({wanted_names}); change `inputs`", inputs.len(), wanted.len()));
    }
    for (kind, input) in wanted.iter().zip(inputs) {
        if *kind != input.kind {
            let Field { name, kind: found } = input;
            return Err(format!(
                "input `{name}` is {found}: {udf} takes ({}); name another column, or cast it",
                names(wanted)
            ));
        }
    }
    Ok(())
}

macro_rules! input {
    ($($type:ty, $kind:ident, $view:ty, $look:expr, $read:expr, $time:literal;)*) => {$(
        impl<'a> Input<'a> for $type {
            const KIND: Kind = Kind::$kind;
            const EVENT_TIME: bool = $time;
            type View = $view;
            #[inline]
            fn view(column: &Column<'a>, rows: usize) -> Result<$view, String> {
                ($look)(column, rows)
            }
            #[inline]
            fn read(view: &$view, row: usize) -> Option<Self> {
                ($read)(view, row)
            }
        }
        single!($type);
        single!(Option<$type>);
    )*};
}

macro_rules! single {
    ($type:ty) => {
        impl<'a> Row<'a> for $type {
            const KINDS: &'static [Kind] =
                if <$type as Input<'a>>::EVENT_TIME { &[] } else { &[<$type as Input<'a>>::KIND] };
            const EVENT_TIME: bool = <$type as Input<'a>>::EVENT_TIME;
            type View = <$type as Input<'a>>::View;
            #[inline]
            fn view(columns: &[Column<'a>], rows: usize) -> Result<Self::View, String> {
                let [column] = columns else { return Err(wrong_count(columns.len(), 1)) };
                <$type as Input<'a>>::view(column, rows)
            }
            #[inline]
            fn read(view: &Self::View, row: usize) -> Option<Self> {
                <$type as Input<'a>>::read(view, row)
            }
        }
    };
}

fn wrong_count(found: usize, wanted: usize) -> String {
    format!("{found} columns came, {wanted} were agreed in prepare")
}

impl<'a, T: Input<'a>> Input<'a> for Option<T> {
    const KIND: Kind = T::KIND;
    const EVENT_TIME: bool = T::EVENT_TIME;
    type View = T::View;
    #[inline]
    fn view(column: &Column<'a>, rows: usize) -> Result<T::View, String> {
        T::view(column, rows)
    }
    #[inline]
    fn read(view: &T::View, row: usize) -> Option<Option<T>> {
        Some(T::read(view, row))
    }
}

fn texts<'a>(column: &Column<'a>, rows: usize) -> Result<Strings<'a>, String> {
    Strings::of(column, rows, true)
}

fn binaries<'a>(column: &Column<'a>, rows: usize) -> Result<Strings<'a>, String> {
    Strings::of(column, rows, false)
}

macro_rules! list {
    ($($type:ty, $kind:ident;)*) => {$(
        impl<'a> Input<'a> for Vec<$type> {
            const KIND: Kind = Kind::$kind;
            type View = AnyColumn<'a>;
            fn view(column: &Column<'a>, rows: usize) -> Result<AnyColumn<'a>, String> {
                AnyColumn::of(Kind::$kind, column, rows)
            }
            fn read(view: &AnyColumn<'a>, row: usize) -> Option<Vec<$type>> {
                match view.value(row) {
                    crate::value::Value::$kind(items) => Some(items),
                    _ => None,
                }
            }
        }
        single!(Vec<$type>);
        single!(Option<Vec<$type>>);
    )*};
}

input! {
    bool, Boolean, Booleans<'a>, Booleans::of, Booleans::get, false;
    i64, Int64, Words<'a>, Words::of, Words::integer, false;
    f64, Float64, Words<'a>, Words::of, Words::float, false;
    Timestamp, Timestamp, Words<'a>, Words::of, |view: &Words<'a>, row| view.integer(row).map(Timestamp), false;
    EventTime, Timestamp, Words<'a>, Words::of, |view: &Words<'a>, row| view.integer(row).map(EventTime), true;
    &'a str, Utf8, Strings<'a>, texts, Strings::text, false;
    &'a [u8], Binary, Strings<'a>, binaries, Strings::binary, false;
}
list! {
    i64, Int64List;
    f32, Float32List;
    f64, Float64List;
    std::borrow::Cow<'a, str>, Utf8List;
}

impl<'a> Row<'a> for () {
    const KINDS: &'static [Kind] = &[];
    const EVENT_TIME: bool = false;
    type View = ();
    fn view(_: &[Column<'a>], _: usize) -> Result<(), String> {
        Ok(())
    }
    fn read(_: &(), _: usize) -> Option<()> {
        Some(())
    }
}

macro_rules! tuple {
    ($count:literal, $($name:ident $index:tt),*) => {
        impl<'a, $($name: Input<'a>),*> Row<'a> for ($($name,)*) {
            const KINDS: &'static [Kind] = {
                let times: &[bool] = &[$($name::EVENT_TIME),*];
                let mut at = 0;
                while at + 1 < $count {
                    assert!(!times[at], "EventTime must be the last input");
                    at += 1;
                }
                let kinds: &'static [Kind] = &[$($name::KIND),*];
                if times[$count - 1] { kinds.split_at($count - 1).0 } else { kinds }
            };
            const EVENT_TIME: bool = { let times: &[bool] = &[$($name::EVENT_TIME),*]; times[$count - 1] };
            type View = ($($name::View,)*);
            #[inline]
            fn view(columns: &[Column<'a>], rows: usize) -> Result<Self::View, String> {
                if columns.len() != $count {
                    return Err(wrong_count(columns.len(), $count));
                }
                Ok(($($name::view(&columns[$index], rows)?,)*))
            }
            #[inline]
            fn read(view: &Self::View, row: usize) -> Option<Self> {
                Some(($($name::read(&view.$index, row)?,)*))
            }
        }
    };
}
tuple!(1, A 0);
tuple!(2, A 0, B 1);
tuple!(3, A 0, B 1, C 2);
tuple!(4, A 0, B 1, C 2, D 3);
tuple!(5, A 0, B 1, C 2, D 3, E 4);
tuple!(6, A 0, B 1, C 2, D 3, E 4, F 5);
