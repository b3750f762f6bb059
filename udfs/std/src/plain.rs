//! Values of eight bytes or fewer, held without an allocation and compared without looking at their kind: most states
//! of features are made of them. Their bytes in a state are those of `Value`.

use onefold_udf::column::{AnyColumn, Column, Words, all};
use onefold_udf::state::Reader;
use onefold_udf::{Kind, Malformed, State, Value};

/// A value of a kind that is known elsewhere, as a number that sorts as the values do.
pub type Sortable = u64;

/// The kinds that fit.
pub fn is_plain(kind: Kind) -> bool {
    matches!(kind, Kind::Int64 | Kind::Float64 | Kind::Timestamp)
}

const SIGN: u64 = 1 << 63;

#[inline]
fn of_integer(value: i64) -> Sortable {
    value as u64 ^ SIGN
}

#[inline]
fn to_integer(value: Sortable) -> i64 {
    (value ^ SIGN) as i64
}

/// The platform's order of floats: -0.0 below 0.0, NaN (there is one) greatest.
#[inline]
fn of_float(value: f64) -> Sortable {
    let bits = value.to_bits();
    bits ^ if bits & SIGN == 0 { SIGN } else { u64::MAX }
}

#[inline]
fn to_float(value: Sortable) -> f64 {
    f64::from_bits(value ^ if value & SIGN == 0 { u64::MAX } else { SIGN })
}

/// A column of a plain kind.
pub struct PlainColumn<'a> {
    words: Words<'a>,
    is_float: bool,
}

impl<'a> PlainColumn<'a> {
    /// Nothing for a column of another kind.
    pub fn of(column: &AnyColumn<'a>) -> Option<PlainColumn<'a>> {
        match column {
            AnyColumn::Int64(words) | AnyColumn::Timestamp(words) => {
                Some(PlainColumn { words: *words, is_float: false })
            }
            AnyColumn::Float64(words) => Some(PlainColumn { words: *words, is_float: true }),
            _ => None,
        }
    }

    /// The row's value; none where it is null.
    #[inline]
    pub fn get(&self, row: usize) -> Option<Sortable> {
        if self.is_float { self.words.float(row).map(of_float) } else { self.words.integer(row).map(of_integer) }
    }
}

/// The columns of a UDF that takes a plain column and the event time.
pub fn with_times<'a>(
    kinds: &[Kind; 2],
    columns: &[Column<'a>],
    rows: usize,
) -> Result<(PlainColumn<'a>, Words<'a>), String> {
    match all(kinds, columns, rows)?.as_slice() {
        [column, AnyColumn::Timestamp(times)] => {
            Ok((PlainColumn::of(column).ok_or("the column is of another kind than agreed")?, *times))
        }
        _ => Err("the event time did not come".to_owned()),
    }
}

/// The value itself.
#[inline]
pub fn value(kind: Kind, value: Sortable) -> Value<'static> {
    match kind {
        Kind::Float64 => Value::Float64(to_float(value)),
        Kind::Timestamp => Value::Timestamp(to_integer(value)),
        _ => Value::Int64(to_integer(value)),
    }
}

/// As a summand.
#[inline]
pub fn integer(value: Sortable) -> i64 {
    to_integer(value)
}

/// As a summand.
#[inline]
pub fn float(value: Sortable) -> f64 {
    to_float(value)
}

/// Which kind the values of a state are, as its first byte says: one more than the kind's number.
#[inline]
pub fn rank(kind: Kind) -> u8 {
    kind as u8 + 1
}

/// Writes the value as `Value` is written.
#[inline]
pub fn encode(rank: u8, value: Sortable, out: &mut Vec<u8>) {
    out.push(rank);
    if rank == Kind::Float64 as u8 + 1 { to_float(value).encode(out) } else { to_integer(value).encode(out) }
}

/// Reads what `encode` wrote.
#[inline]
pub fn decode(input: &mut Reader<'_>) -> Result<(u8, Sortable), Malformed> {
    let rank = input.byte()?;
    match Kind::from_number(rank.wrapping_sub(1)) {
        Some(Kind::Float64) => Ok((rank, of_float(f64::decode(input)?))),
        Some(Kind::Int64 | Kind::Timestamp) => Ok((rank, of_integer(i64::decode(input)?))),
        _ => Err(Malformed("a number is of no kind of numbers")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use onefold_udf::state;
    use proptest::prelude::*;

    proptest! {
        /// A state must not depend on which of the two ways wrote it.
        #[test]
        fn bytes_and_order_are_those_of_values(left: u64, right: u64) {
            for kind in [Kind::Int64, Kind::Float64, Kind::Timestamp] {
                let sortable = |bits: u64| match kind {
                    Kind::Float64 => of_float(state::one_nan(f64::from_bits(bits))),
                    _ => of_integer(bits as i64),
                };
                let (left, right) = (sortable(left), sortable(right));
                prop_assert_eq!(left.cmp(&right), value(kind, left).cmp(&value(kind, right)));
                let (mut own, mut other) = (Vec::new(), Vec::new());
                encode(rank(kind), left, &mut own);
                value(kind, left).encode(&mut other);
                prop_assert_eq!(&own, &other);
                prop_assert_eq!(decode(&mut Reader::new(&own)).unwrap(), (rank(kind), left));
            }
        }
    }
}
