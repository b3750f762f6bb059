//! How a state becomes bytes and is read back: one encoding for each value, so that equal states have equal bytes.
//!
//! Integers are varints (signed ones zigzag), floats 8 or 4 bytes with one NaN, text and lists a length and the items,
//! maps and sets their entries in ascending order, options a tag byte. Reading is checked: anything that writing would
//! not have made is an error, never a panic.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// A value that can be part of a state. Derive it: `#[derive(State)]`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no state",
    label = "not a state",
    note = "derive it, `#[derive(Clone, Default, State)]`, on a struct whose fields are states: numbers, bool, text, \
            Timestamp, Option, Vec, BTreeMap, BTreeSet, tuples and what derives it"
)]
pub trait State: Sized {
    /// Appends this value's bytes. Equal values give equal bytes.
    fn encode(&self, out: &mut Vec<u8>);

    /// Reads what `encode` wrote. Errors on anything else.
    fn decode(input: &mut Reader<'_>) -> Result<Self, Malformed>;
}

/// What is wrong with the bytes of a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "state cannot be decoded: {}", self.0)
    }
}

impl std::error::Error for Malformed {}

/// The bytes of a state that have not been read yet.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

/// Reads a whole state; bytes left over are an error.
pub fn decode<S: State>(bytes: &[u8]) -> Result<S, Malformed> {
    let mut reader = Reader::new(bytes);
    let state = S::decode(&mut reader)?;
    if reader.is_empty() { Ok(state) } else { Err(Malformed("bytes are left after its end")) }
}

/// The one NaN that leaves a module, in outputs and in states.
pub const NAN_BITS: u64 = 0x7ff8_0000_0000_0000;

/// The same number, with every NaN replaced by the one NaN.
#[inline]
pub fn one_nan(value: f64) -> f64 {
    if value.is_nan() { f64::from_bits(NAN_BITS) } else { value }
}

/// The same number, with every NaN replaced by the one NaN.
#[inline]
pub fn one_nan_f32(value: f32) -> f32 {
    if value.is_nan() { f32::from_bits(0x7fc0_0000) } else { value }
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next byte.
    #[inline]
    pub fn byte(&mut self) -> Result<u8, Malformed> {
        let (first, rest) = self.rest.split_first().ok_or(Malformed("it ends too early"))?;
        self.rest = rest;
        Ok(*first)
    }

    /// The next `count` bytes.
    #[inline]
    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(Malformed("it ends too early"))?;
        self.rest = rest;
        Ok(taken)
    }

    /// The next `N` bytes as an array.
    #[inline]
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(Malformed("it ends too early"))?;
        self.rest = rest;
        Ok(*taken)
    }

    /// A varint of at most 64 bits, in its shortest form.
    #[inline]
    pub fn varint(&mut self) -> Result<u64, Malformed> {
        if let [byte @ 0..0x80, rest @ ..] = self.rest {
            self.rest = rest;
            return Ok(u64::from(*byte));
        }
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(Malformed("a number has more than 64 bits"));
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return if byte == 0 && shift > 0 { Err(NOT_SHORTEST) } else { Ok(value) };
            }
        }
        Err(Malformed("a number has more than 64 bits"))
    }

    /// A varint of at most 128 bits, in its shortest form.
    #[inline]
    pub fn varint_128(&mut self) -> Result<u128, Malformed> {
        // Nine bytes are 63 bits: most numbers end there, and arithmetic of 128 bits is slow in Wasm.
        let is_short = self.rest.iter().take(9).any(|byte| byte & 0x80 == 0);
        if is_short { self.varint().map(u128::from) } else { self.long_varint() }
    }

    fn long_varint(&mut self) -> Result<u128, Malformed> {
        let mut value = 0u128;
        for shift in (0..128).step_by(7) {
            let byte = self.byte()?;
            let bits = u128::from(byte & 0x7f);
            if shift == 126 && bits > 3 {
                return Err(Malformed("a number has more than 128 bits"));
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return if byte == 0 && shift > 0 { Err(NOT_SHORTEST) } else { Ok(value) };
            }
        }
        Err(Malformed("a number has more than 128 bits"))
    }

    /// A number of items that are still to come, each of at least one byte: so a short input cannot ask for much memory.
    pub fn length(&mut self) -> Result<usize, Malformed> {
        let length = self.varint()?;
        match usize::try_from(length) {
            Ok(length) if length <= self.rest.len() => Ok(length),
            _ => Err(Malformed("a length is greater than what follows")),
        }
    }
}

const NOT_SHORTEST: Malformed = Malformed("a number is not in its shortest form");

/// Appends a varint.
#[inline]
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a varint of up to 128 bits.
#[inline]
pub fn put_varint_128(out: &mut Vec<u8>, mut value: u128) {
    if let Ok(value) = u64::try_from(value) {
        return put_varint(out, value);
    }
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a length and the bytes.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

macro_rules! unsigned {
    ($($type:ty),*) => {$(
        impl State for $type {
            #[inline]
            fn encode(&self, out: &mut Vec<u8>) {
                put_varint(out, *self as u64);
            }
            #[inline]
            fn decode(input: &mut Reader<'_>) -> Result<Self, Malformed> {
                <$type>::try_from(input.varint()?).map_err(|_| Malformed("a number is out of its range"))
            }
        }
    )*};
}
unsigned!(u16, u32, u64, usize);

macro_rules! signed {
    ($($type:ty),*) => {$(
        impl State for $type {
            #[inline]
            fn encode(&self, out: &mut Vec<u8>) {
                let value = *self as i64;
                put_varint(out, ((value << 1) ^ (value >> 63)) as u64);
            }
            #[inline]
            fn decode(input: &mut Reader<'_>) -> Result<Self, Malformed> {
                let zigzag = input.varint()?;
                let value = (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64);
                <$type>::try_from(value).map_err(|_| Malformed("a number is out of its range"))
            }
        }
    )*};
}
signed!(i8, i16, i32, i64);

impl State for u8 {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(*self);
    }
    fn decode(input: &mut Reader<'_>) -> Result<u8, Malformed> {
        input.byte()
    }
}

impl State for u128 {
    fn encode(&self, out: &mut Vec<u8>) {
        put_varint_128(out, *self);
    }
    fn decode(input: &mut Reader<'_>) -> Result<u128, Malformed> {
        input.varint_128()
    }
}

impl State for i128 {
    fn encode(&self, out: &mut Vec<u8>) {
        put_varint_128(out, ((*self << 1) ^ (*self >> 127)) as u128);
    }
    fn decode(input: &mut Reader<'_>) -> Result<i128, Malformed> {
        let zigzag = input.varint_128()?;
        Ok((zigzag >> 1) as i128 ^ -((zigzag & 1) as i128))
    }
}

impl State for bool {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }
    fn decode(input: &mut Reader<'_>) -> Result<bool, Malformed> {
        match input.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed("a boolean is neither 0 nor 1")),
        }
    }
}

impl State for f64 {
    #[inline]
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&one_nan(*self).to_le_bytes());
    }
    #[inline]
    fn decode(input: &mut Reader<'_>) -> Result<f64, Malformed> {
        let value = f64::from_le_bytes(input.array()?);
        if value.is_nan() && value.to_bits() != NAN_BITS { Err(OTHER_NAN) } else { Ok(value) }
    }
}

impl State for f32 {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&one_nan_f32(*self).to_le_bytes());
    }
    fn decode(input: &mut Reader<'_>) -> Result<f32, Malformed> {
        let value = f32::from_le_bytes(input.array()?);
        if value.to_bits() != one_nan_f32(value).to_bits() { Err(OTHER_NAN) } else { Ok(value) }
    }
}

const OTHER_NAN: Malformed = Malformed("a NaN is not the one NaN");

impl State for String {
    fn encode(&self, out: &mut Vec<u8>) {
        put_bytes(out, self.as_bytes());
    }
    fn decode(input: &mut Reader<'_>) -> Result<String, Malformed> {
        let length = input.length()?;
        let text = std::str::from_utf8(input.bytes(length)?).map_err(|_| Malformed("a text is not UTF-8"))?;
        Ok(text.to_owned())
    }
}

impl<T: State> State for Option<T> {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            None => out.push(0),
            Some(value) => {
                out.push(1);
                value.encode(out);
            }
        }
    }
    fn decode(input: &mut Reader<'_>) -> Result<Option<T>, Malformed> {
        match input.byte()? {
            0 => Ok(None),
            1 => Ok(Some(T::decode(input)?)),
            _ => Err(Malformed("an option is neither 0 nor 1")),
        }
    }
}

impl<T: State> State for Box<T> {
    fn encode(&self, out: &mut Vec<u8>) {
        (**self).encode(out);
    }
    fn decode(input: &mut Reader<'_>) -> Result<Box<T>, Malformed> {
        T::decode(input).map(Box::new)
    }
}

impl<T: State> State for Vec<T> {
    fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.len() as u64);
        for item in self {
            item.encode(out);
        }
    }
    fn decode(input: &mut Reader<'_>) -> Result<Vec<T>, Malformed> {
        let length = input.length()?;
        let mut items = Vec::with_capacity(length.min(4096));
        for _ in 0..length {
            items.push(T::decode(input)?);
        }
        Ok(items)
    }
}

impl<T: State, const N: usize> State for [T; N] {
    fn encode(&self, out: &mut Vec<u8>) {
        for item in self {
            item.encode(out);
        }
    }
    fn decode(input: &mut Reader<'_>) -> Result<[T; N], Malformed> {
        let mut items = Vec::with_capacity(N);
        for _ in 0..N {
            items.push(T::decode(input)?);
        }
        <[T; N]>::try_from(items).map_err(|_| Malformed("an array has the wrong length"))
    }
}

impl<T: State + Ord> State for BTreeSet<T> {
    fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.len() as u64);
        for item in self {
            item.encode(out);
        }
    }
    fn decode(input: &mut Reader<'_>) -> Result<BTreeSet<T>, Malformed> {
        let items = Vec::<T>::decode(input)?;
        if !items.is_sorted_by(|left, right| left < right) {
            return Err(NOT_ASCENDING);
        }
        Ok(items.into_iter().collect())
    }
}

impl<K: State + Ord, V: State> State for BTreeMap<K, V> {
    fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.len() as u64);
        for (key, value) in self {
            key.encode(out);
            value.encode(out);
        }
    }
    fn decode(input: &mut Reader<'_>) -> Result<BTreeMap<K, V>, Malformed> {
        let entries = Vec::<(K, V)>::decode(input)?;
        if !entries.is_sorted_by(|left, right| left.0 < right.0) {
            return Err(NOT_ASCENDING);
        }
        Ok(entries.into_iter().collect())
    }
}

const NOT_ASCENDING: Malformed = Malformed("the keys of a map or set do not ascend");

macro_rules! tuple {
    ($($name:ident $index:tt),*) => {
        impl<$($name: State),*> State for ($($name,)*) {
            #[inline]
            fn encode(&self, out: &mut Vec<u8>) {
                $(self.$index.encode(out);)*
            }
            #[inline]
            fn decode(input: &mut Reader<'_>) -> Result<Self, Malformed> {
                Ok(($($name::decode(input)?,)*))
            }
        }
    };
}
tuple!(A 0);
tuple!(A 0, B 1);
tuple!(A 0, B 1, C 2);
tuple!(A 0, B 1, C 2, D 3);

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip<S: State + PartialEq + fmt::Debug>(value: S, expected: &[u8]) {
        let mut bytes = Vec::new();
        value.encode(&mut bytes);
        assert_eq!(bytes, expected);
        assert_eq!(decode::<S>(&bytes).unwrap(), value);
        for cut in 0..bytes.len() {
            assert!(decode::<S>(&bytes[..cut]).is_err(), "a state cut at {cut} was read");
        }
    }

    #[test]
    fn bytes_are_as_documented() {
        round_trip(300u64, &[0xac, 2]);
        round_trip(-1i64, &[1]);
        round_trip(i64::MIN, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]);
        round_trip(i128::MAX, &[[0xfe].as_slice(), &[0xff; 17], &[3]].concat());
        round_trip(Some("é".to_owned()), &[1, 2, 0xc3, 0xa9]);
        round_trip(BTreeMap::from([(2u8, true), (1, false)]), &[2, 1, 0, 2, 1]);
        round_trip(vec![1.0f64], &[1, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f]);
    }

    #[test]
    fn what_writing_would_not_make_is_refused() {
        assert!(decode::<u64>(&[0x80, 0]).is_err(), "a varint with a useless byte");
        assert!(decode::<u64>(&[0xff; 11]).is_err(), "a varint of 77 bits");
        assert!(decode::<u16>(&[0xff, 0xff, 7]).is_err(), "a number out of range");
        assert!(decode::<Vec<u8>>(&[0xff, 0xff, 0xff, 0xff, 7]).is_err(), "a length of gigabytes");
        assert!(decode::<BTreeSet<u8>>(&[2, 2, 1]).is_err(), "a set out of order");
        assert!(decode::<bool>(&[2]).is_err());
        assert!(decode::<bool>(&[1, 1]).is_err(), "bytes left over");
        assert!(decode::<f64>(&(NAN_BITS | 1).to_le_bytes()).is_err(), "another NaN");
        assert!(decode::<String>(&[1, 0xff]).is_err(), "not UTF-8");
    }

    #[test]
    fn every_nan_has_the_same_bytes() {
        let mut one = Vec::new();
        let mut other = Vec::new();
        f64::from_bits(NAN_BITS | (1 << 63) | 5).encode(&mut one);
        f64::NAN.encode(&mut other);
        assert_eq!(one, other);
    }
}
