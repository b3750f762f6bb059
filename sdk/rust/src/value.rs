//! A value of any kind, for UDFs that take every kind, with the one order of the platform.

use crate::kind::Kind;
use crate::state::{Malformed, Reader, State, one_nan, one_nan_f32, put_bytes};
use std::borrow::Cow;
use std::cmp::Ordering;

/// A value read from a column, borrowed from it where that is possible, or kept in a state (`Value<'static>`).
///
/// The order is the platform's canonical one: null first; false before true; integers and timestamps by number; floats
/// in total order with -0.0 below 0.0 and NaN greatest; text and binary by bytes; lists item by item, shorter first.
#[derive(Clone, Debug)]
pub enum Value<'a> {
    Null,
    Boolean(bool),
    Int64(i64),
    /// Never another NaN than the one NaN: make it with `Value::float64`.
    Float64(f64),
    /// Microseconds since the epoch, UTC.
    Timestamp(i64),
    Utf8(Cow<'a, str>),
    Binary(Cow<'a, [u8]>),
    Int64List(Vec<i64>),
    Float32List(Vec<f32>),
    Float64List(Vec<f64>),
    Utf8List(Vec<Cow<'a, str>>),
}

impl<'a> Value<'a> {
    /// A float, with every NaN made the one NaN.
    #[inline]
    pub fn float64(value: f64) -> Value<'a> {
        Value::Float64(one_nan(value))
    }

    /// A text that is borrowed.
    pub fn text(value: &'a str) -> Value<'a> {
        Value::Utf8(Cow::Borrowed(value))
    }

    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }

    /// The kind of this value; a null has none.
    pub fn kind(&self) -> Option<Kind> {
        Some(match self {
            Value::Null => return None,
            Value::Boolean(_) => Kind::Boolean,
            Value::Int64(_) => Kind::Int64,
            Value::Float64(_) => Kind::Float64,
            Value::Timestamp(_) => Kind::Timestamp,
            Value::Utf8(_) => Kind::Utf8,
            Value::Binary(_) => Kind::Binary,
            Value::Int64List(_) => Kind::Int64List,
            Value::Float32List(_) => Kind::Float32List,
            Value::Float64List(_) => Kind::Float64List,
            Value::Utf8List(_) => Kind::Utf8List,
        })
    }

    /// The same value, holding what it borrowed.
    pub fn into_owned(self) -> Value<'static> {
        match self {
            Value::Null => Value::Null,
            Value::Boolean(value) => Value::Boolean(value),
            Value::Int64(value) => Value::Int64(value),
            Value::Float64(value) => Value::Float64(value),
            Value::Timestamp(value) => Value::Timestamp(value),
            Value::Utf8(value) => Value::Utf8(Cow::Owned(value.into_owned())),
            Value::Binary(value) => Value::Binary(Cow::Owned(value.into_owned())),
            Value::Int64List(items) => Value::Int64List(items),
            Value::Float32List(items) => Value::Float32List(items),
            Value::Float64List(items) => Value::Float64List(items),
            Value::Utf8List(items) => {
                Value::Utf8List(items.into_iter().map(|item| Cow::Owned(item.into_owned())).collect())
            }
        }
    }

    /// What this value weighs, in bytes: of text its UTF-8, of lists the items, of texts in lists 4 more each.
    pub fn size_bytes(&self) -> usize {
        match self {
            Value::Null | Value::Boolean(_) => 1,
            Value::Int64(_) | Value::Float64(_) | Value::Timestamp(_) => 8,
            Value::Utf8(value) => value.len(),
            Value::Binary(value) => value.len(),
            Value::Int64List(items) => items.len() * 8,
            Value::Float32List(items) => items.len() * 4,
            Value::Float64List(items) => items.len() * 8,
            Value::Utf8List(items) => items.iter().map(|item| item.len() + 4).sum(),
        }
    }

    fn rank(&self) -> u8 {
        self.kind().map_or(0, |kind| kind as u8 + 1)
    }
}

/// The order of floats everywhere: -0.0 below 0.0, every NaN equal and greatest.
#[inline]
pub fn compare_floats(left: f64, right: f64) -> Ordering {
    one_nan(left).total_cmp(&one_nan(right))
}

impl Ord for Value<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Value::Null, Value::Null) => Ordering::Equal,
            (Value::Boolean(left), Value::Boolean(right)) => left.cmp(right),
            (Value::Int64(left), Value::Int64(right)) => left.cmp(right),
            (Value::Float64(left), Value::Float64(right)) => compare_floats(*left, *right),
            (Value::Timestamp(left), Value::Timestamp(right)) => left.cmp(right),
            (Value::Utf8(left), Value::Utf8(right)) => left.cmp(right),
            (Value::Binary(left), Value::Binary(right)) => left.cmp(right),
            (Value::Int64List(left), Value::Int64List(right)) => left.cmp(right),
            (Value::Float32List(left), Value::Float32List(right)) => {
                compare_lists(left, right, |l, r| one_nan_f32(*l).total_cmp(&one_nan_f32(*r)))
            }
            (Value::Float64List(left), Value::Float64List(right)) => {
                compare_lists(left, right, |l, r| compare_floats(*l, *r))
            }
            (Value::Utf8List(left), Value::Utf8List(right)) => left.cmp(right),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

fn compare_lists<T>(left: &[T], right: &[T], compare: impl Fn(&T, &T) -> Ordering) -> Ordering {
    let differing = left.iter().zip(right).map(|(l, r)| compare(l, r)).find(|order| order.is_ne());
    differing.unwrap_or_else(|| left.len().cmp(&right.len()))
}

impl PartialOrd for Value<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Value<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Value<'_> {}

impl State for Value<'static> {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.rank());
        match self {
            Value::Null => {}
            Value::Boolean(value) => value.encode(out),
            Value::Int64(value) | Value::Timestamp(value) => value.encode(out),
            Value::Float64(value) => value.encode(out),
            Value::Utf8(value) => put_bytes(out, value.as_bytes()),
            Value::Binary(value) => put_bytes(out, value),
            Value::Int64List(items) => items.encode(out),
            Value::Float32List(items) => items.encode(out),
            Value::Float64List(items) => items.encode(out),
            Value::Utf8List(items) => {
                crate::state::put_varint(out, items.len() as u64);
                items.iter().for_each(|item| put_bytes(out, item.as_bytes()));
            }
        }
    }

    fn decode(input: &mut Reader<'_>) -> Result<Value<'static>, Malformed> {
        let rank = input.byte()?;
        let Some(number) = rank.checked_sub(1) else { return Ok(Value::Null) };
        Ok(match Kind::from_number(number).ok_or(Malformed("a value is of no kind"))? {
            Kind::Boolean => Value::Boolean(bool::decode(input)?),
            Kind::Int64 => Value::Int64(i64::decode(input)?),
            Kind::Float64 => Value::Float64(f64::decode(input)?),
            Kind::Timestamp => Value::Timestamp(i64::decode(input)?),
            Kind::Utf8 => Value::Utf8(Cow::Owned(String::decode(input)?)),
            Kind::Binary => {
                let length = input.length()?;
                Value::Binary(Cow::Owned(input.bytes(length)?.to_vec()))
            }
            Kind::Int64List => Value::Int64List(State::decode(input)?),
            Kind::Float32List => Value::Float32List(State::decode(input)?),
            Kind::Float64List => Value::Float64List(State::decode(input)?),
            Kind::Utf8List => Value::Utf8List(Vec::<String>::decode(input)?.into_iter().map(Cow::Owned).collect()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_the_canonical_one() {
        let float = Value::float64;
        let ascending = [
            Value::Null,
            float(f64::NEG_INFINITY),
            float(-1.0),
            float(-0.0),
            float(0.0),
            float(f64::INFINITY),
            float(-f64::NAN),
        ];
        assert!(ascending.is_sorted_by(|left, right| left < right));
        assert_eq!(float(-f64::NAN), float(f64::NAN));
        assert!(Value::text("a") < Value::text("ab") && Value::text("Z") < Value::text("a"));
        assert!(Value::Int64List(vec![1, 2]) < Value::Int64List(vec![1, 2, 0]));
        assert!(Value::Int64List(vec![1, 2, 9]) < Value::Int64List(vec![1, 3]));
    }
}
