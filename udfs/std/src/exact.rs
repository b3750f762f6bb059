//! Exact sums of floats, and of their squares: fixed-point integers over the whole range of float64, rounded once.
//!
//! A float is an integer times 2^-1074, so a sum of floats is an integer too, and integers add in any order to the same
//! bits. Few of the 2100 bits are ever used at once: a sum lives in a window of `N` limbs of 64 bits, which one value
//! touches at two or three neighbours; only values some 2^100 apart make it spill into all limbs.

use onefold_udf::state::{Reader, put_varint};
use onefold_udf::{Malformed, State};

/// A signed integer in units of 2^unit, where the unit is the caller's: two's complement limbs in a window.
///
/// Equal integers have equal bytes, however they came about: those of the odd part, its sign and its power of two.
#[derive(Clone, Debug)]
pub struct Exact<const N: usize> {
    /// The limb of the whole number that `window[0]` is; unset until a value comes.
    base: Option<u16>,
    window: [u64; N],
    /// All limbs, once the window has become too small. Then `window` is not used.
    all: Option<Box<[u64]>>,
}

/// The limbs that the greatest sum can have: squares of float64 from 2^-2148 to 2^2048, 64 bits for how many, a sign.
const ALL_LIMBS: usize = 68;

impl<const N: usize> Default for Exact<N> {
    fn default() -> Self {
        Exact { base: None, window: [0; N], all: None }
    }
}

impl<const N: usize> Exact<N> {
    /// Adds `parts` (little-endian limbs), shifted left by `limb` limbs, or takes them off.
    #[inline]
    pub fn add<const P: usize>(&mut self, parts: [u64; P], limb: usize, negative: bool) {
        if self.all.is_none() {
            // One limb of room below the first value, the rest above it.
            let base = *self.base.get_or_insert(limb.saturating_sub(1) as u16) as usize;
            if limb >= base
                && limb + P <= base + N
                && let Some(sum) = plus(&self.window, &parts, limb - base, negative)
            {
                self.window = sum;
                return;
            }
        }
        self.add_to_all(&parts, limb, negative);
    }

    #[cold]
    fn add_to_all(&mut self, parts: &[u64], limb: usize, negative: bool) {
        add_at(self.spill(), parts, limb, negative);
    }

    fn spill(&mut self) -> &mut [u64] {
        let (base, window) = (self.base.unwrap_or(0) as usize, &self.window);
        self.all.get_or_insert_with(|| {
            let sign = if window[N - 1] >> 63 == 1 { u64::MAX } else { 0 };
            let limb = |at: usize| match at.checked_sub(base) {
                None => 0,
                Some(at) => window.get(at).copied().unwrap_or(sign),
            };
            (0..ALL_LIMBS).map(limb).collect()
        })
    }

    /// Adds another sum.
    #[inline]
    pub fn merge(&mut self, other: &Exact<N>) {
        // Sums of like values begin at the same limb.
        if let (Some(base), None, None) = (other.base, &self.all, &other.all)
            && *self.base.get_or_insert(base) == base
            && let Some(sum) = plus_window(&self.window, &other.window)
        {
            self.window = sum;
            return;
        }
        self.merge_at_another_limb(other);
    }

    fn merge_at_another_limb(&mut self, other: &Exact<N>) {
        other.with_magnitude(|limbs, limb, negative| {
            if limbs.is_empty() {
                return;
            }
            if self.all.is_none() {
                let base = *self.base.get_or_insert(limb.saturating_sub(1) as u16) as usize;
                // The top bit of the window is its sign: an addend that reaches it would be taken for negative.
                let reaches_sign = limb + limbs.len() == base + N && limbs.last().is_some_and(|top| top >> 63 == 1);
                if limb >= base && limb + limbs.len() <= base + N && !reaches_sign {
                    let before = self.window;
                    if add_at(&mut self.window, limbs, limb - base, negative) {
                        return;
                    }
                    self.window = before;
                }
            }
            self.add_to_all(limbs, limb, negative);
        });
    }

    /// Looks at the absolute value without its zero limbs at both ends, the limb it starts at, and whether it is negative.
    pub fn with_magnitude<R>(&self, look: impl FnOnce(&[u64], usize, bool) -> R) -> R {
        match &self.all {
            Some(all) => look_at(&mut all.clone(), 0, look),
            None => {
                let mut window = self.window;
                look_at(&mut window, self.base.unwrap_or(0) as usize, look)
            }
        }
    }
}

fn look_at<R>(limbs: &mut [u64], base: usize, look: impl FnOnce(&[u64], usize, bool) -> R) -> R {
    let negative = limbs.last().is_some_and(|top| top >> 63 == 1);
    if negative {
        negate(limbs);
    }
    let low = limbs.iter().take_while(|limb| **limb == 0).count();
    let high = limbs.iter().rposition(|limb| *limb != 0).map_or(low, |at| at + 1);
    look(limbs.get(low..high).unwrap_or_default(), base + low, negative)
}

/// The window with `parts` added or taken off at a limb, which is the hot path: no branch but the last. None on overflow.
#[inline]
fn plus<const N: usize, const P: usize>(
    window: &[u64; N],
    parts: &[u64; P],
    at: usize,
    negative: bool,
) -> Option<[u64; N]> {
    // Selected with masks: writing the parts at a place that varies and reading the whole back stalls.
    let addend: [u64; N] = std::array::from_fn(|index| {
        let select = |(offset, part): (usize, &u64)| part & u64::from(index == at + offset).wrapping_neg();
        parts.iter().enumerate().map(select).fold(0, std::ops::BitOr::bitor)
    });
    let mask = if negative { u64::MAX } else { 0 };
    let mut sum = [0; N];
    let mut carry = negative;
    for ((to, left), right) in sum.iter_mut().zip(window).zip(addend) {
        let (value, first) = left.overflowing_add(right ^ mask);
        let (value, second) = value.overflowing_add(u64::from(carry));
        *to = value;
        carry = first | second;
    }
    let (before, added, after) = (window[N - 1], addend[N - 1] ^ mask, sum[N - 1]);
    (((before ^ after) & (added ^ after)) >> 63 == 0).then_some(sum)
}

/// The sum of two windows at the same limb. None on overflow.
#[inline]
fn plus_window<const N: usize>(left: &[u64; N], right: &[u64; N]) -> Option<[u64; N]> {
    let mut sum = [0; N];
    let mut carry = false;
    for ((to, left), right) in sum.iter_mut().zip(left).zip(right) {
        let (value, first) = left.overflowing_add(*right);
        let (value, second) = value.overflowing_add(u64::from(carry));
        *to = value;
        carry = first | second;
    }
    let (before, added, after) = (left[N - 1], right[N - 1], sum[N - 1]);
    (((before ^ after) & (added ^ after)) >> 63 == 0).then_some(sum)
}

/// Adds or subtracts at a limb and carries on to the top; false if the number no longer fits (it is then spoilt).
#[inline]
fn add_at(limbs: &mut [u64], parts: &[u64], at: usize, negative: bool) -> bool {
    let sign_before = limbs.last().map_or(0, |top| top >> 63);
    let mut carry = false;
    for (index, limb) in limbs.iter_mut().enumerate().skip(at) {
        let part = parts.get(index - at).copied();
        if part.is_none() && !carry {
            break;
        }
        let part = part.unwrap_or(0);
        if negative {
            let (value, first) = limb.overflowing_sub(part);
            let (value, second) = value.overflowing_sub(u64::from(carry));
            *limb = value;
            carry = first | second;
        } else {
            let (value, first) = limb.overflowing_add(part);
            let (value, second) = value.overflowing_add(u64::from(carry));
            *limb = value;
            carry = first | second;
        }
    }
    let sign_after = limbs.last().map_or(0, |top| top >> 63);
    // An addend is never negative as limbs, so only these two turns of the sign are overflows.
    if negative { !(sign_before == 1 && sign_after == 0) } else { !(sign_before == 0 && sign_after == 1) }
}

fn negate(limbs: &mut [u64]) {
    let mut carry = true;
    for limb in limbs {
        let (value, overflow) = (!*limb).overflowing_add(u64::from(carry));
        *limb = value;
        carry = overflow;
    }
}

/// How many bits a number without zero limbs at the top has.
fn bit_length(limbs: &[u64]) -> usize {
    limbs.last().map_or(0, |top| limbs.len() * 64 - top.leading_zeros() as usize)
}

impl<const N: usize> State for Exact<N> {
    fn encode(&self, out: &mut Vec<u8>) {
        self.with_magnitude(|limbs, limb, negative| {
            let Some(zeros) = limbs.first().map(|low| low.trailing_zeros() as usize) else {
                out.push(0);
                return;
            };
            let length = (bit_length(limbs) - zeros).div_ceil(8);
            put_varint(out, (length as u64) << 1 | u64::from(negative));
            put_varint(out, (limb * 64 + zeros) as u64);
            for at in (0..length).step_by(8) {
                let word = bits_from(limbs, zeros + at * 8).to_le_bytes();
                out.extend_from_slice(word.get(..length - at).unwrap_or(&word));
            }
        });
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, Malformed> {
        let header = input.varint()?;
        if header == 0 {
            return Ok(Exact::default());
        }
        let length = usize::try_from(header >> 1).unwrap_or(usize::MAX);
        let shift = usize::try_from(input.varint()?).unwrap_or(usize::MAX);
        // Below the sign bit: a sum that were to touch it could not have been made.
        if length == 0 || length > ALL_LIMBS * 8 || shift >= ALL_LIMBS * 64 || shift + length * 8 >= ALL_LIMBS * 64 {
            return Err(Malformed("an exact sum is out of its range"));
        }
        let bytes = input.bytes(length)?;
        if bytes.first().is_none_or(|low| low & 1 == 0) || bytes.last() == Some(&0) {
            return Err(Malformed("an exact sum is not in its shortest form"));
        }
        let negative = header & 1 == 1;
        let base = (shift / 64).saturating_sub(1);
        let mut sum = Exact::default();
        if length <= 8 && shift - base * 64 + 64 < N * 64 {
            sum.base = Some(base as u16);
            let word = bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
            place_word(&mut sum.window, word, shift - base * 64, negative);
        } else if shift - base * 64 + length * 8 < N * 64 {
            sum.base = Some(base as u16);
            place(&mut sum.window, bytes, shift - base * 64, negative);
        } else {
            let mut all = vec![0; ALL_LIMBS].into_boxed_slice();
            place(&mut all, bytes, shift, negative);
            sum.all = Some(all);
        }
        Ok(sum)
    }
}

/// Writes little-endian bytes into limbs that are zero, from a bit on; as its negative if so.
fn place(limbs: &mut [u64], bytes: &[u8], from_bit: usize, negative: bool) {
    for (at, chunk) in bytes.chunks(8).enumerate() {
        let mut word = [0; 8];
        word.iter_mut().zip(chunk).for_each(|(to, from)| *to = *from);
        let limb = from_bit / 64 + at;
        for (limb, part) in limbs.iter_mut().skip(limb).zip(shifted(u64::from_le_bytes(word), from_bit % 64)) {
            *limb |= part;
        }
    }
    if negative {
        negate(limbs);
    }
}

/// `place` of one word, which is what most sums are.
#[inline]
fn place_word<const N: usize>(limbs: &mut [u64; N], word: u64, from_bit: usize, negative: bool) {
    let (at, parts) = (from_bit / 64, shifted(word, from_bit % 64));
    for (index, limb) in limbs.iter_mut().enumerate() {
        let select = |(offset, part): (usize, &u64)| part & u64::from(index == at + offset).wrapping_neg();
        *limb = parts.iter().enumerate().map(select).fold(0, std::ops::BitOr::bitor);
    }
    if negative {
        negate(limbs);
    }
}

/// 64 bits of a number, from a bit on.
#[inline]
fn bits_from(limbs: &[u64], bit: usize) -> u64 {
    let at = |index: usize| limbs.get(index).copied().unwrap_or(0);
    let (low, high, shift) = (at(bit / 64), at(bit / 64 + 1), bit % 64);
    // In two steps: by 64 a number cannot be shifted.
    low >> shift | high << (63 - shift) << 1
}

/// A number shifted left by less than 64, as two limbs. In Wasm a shift of 128 bits is a call.
#[inline]
fn shifted(value: u64, bits: usize) -> [u64; 2] {
    [value << bits, value >> (63 - bits) >> 1]
}

/// `limbs * 2^unit` as the nearest float64, ties to even; infinite when it is too large.
pub fn round(limbs: &[u64], unit: i64, negative: bool) -> f64 {
    const LOWEST: i64 = -1074;
    let length = bit_length(limbs) as i64;
    if length == 0 {
        return 0.0;
    }
    let last_bit = (length - 53 + unit).max(LOWEST);
    let shift = last_bit - unit;
    let mantissa = if shift > length {
        0
    } else if shift <= 0 {
        limbs.first().copied().unwrap_or(0) << -shift
    } else {
        let shift = shift as usize;
        let kept = bits_from(limbs, shift);
        let half = shift - 1;
        let half_set = limbs.get(half / 64).is_some_and(|limb| limb >> (half % 64) & 1 == 1);
        let below = limbs.iter().take(half / 64).any(|limb| *limb != 0)
            || limbs.get(half / 64).is_some_and(|limb| limb & ((1 << (half % 64)) - 1) != 0);
        kept + u64::from(half_set && (below || kept & 1 == 1))
    };
    let exponent = last_bit - LOWEST;
    let bits = if exponent > 2046 { f64::INFINITY.to_bits() } else { ((exponent as u64) << 52) + mantissa };
    let value = f64::from_bits(bits.min(f64::INFINITY.to_bits()));
    if negative && mantissa != 0 { -value } else { value }
}

/// A finite float as mantissa and power of two: `mantissa * 2^(power - 1074)`.
#[inline]
pub fn parts(value: f64) -> (u64, usize) {
    let bits = value.to_bits();
    let exponent = (bits >> 52 & 0x7ff) as usize;
    let fraction = bits & ((1 << 52) - 1);
    if exponent == 0 { (fraction, 0) } else { (fraction | 1 << 52, exponent - 1) }
}

/// The values that are no numbers, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, State)]
pub struct Specials {
    pub plus: u64,
    pub minus: u64,
    pub nan: u64,
}

impl Specials {
    #[cold]
    fn count(&mut self, value: f64) {
        match value {
            f64::INFINITY => self.plus += 1,
            f64::NEG_INFINITY => self.minus += 1,
            _ => self.nan += 1,
        }
    }

    fn merge(&mut self, other: &Specials) {
        self.plus += other.plus;
        self.minus += other.minus;
        self.nan += other.nan;
    }

    /// What a sum with these is, if there are any.
    pub fn value(&self) -> Option<f64> {
        match (self.plus > 0, self.minus > 0, self.nan > 0) {
            (false, false, false) => None,
            (true, false, false) => Some(f64::INFINITY),
            (false, true, false) => Some(f64::NEG_INFINITY),
            _ => Some(f64::NAN),
        }
    }
}

/// An exact sum of floats.
#[derive(Clone, Debug, Default)]
pub struct FloatSum {
    sum: Exact<4>,
    specials: Option<Box<Specials>>,
}

impl FloatSum {
    #[inline]
    pub fn add(&mut self, value: f64) {
        if !value.is_finite() {
            self.specials.get_or_insert_default().count(value);
            return;
        }
        let (mantissa, power) = parts(value);
        if mantissa != 0 {
            self.sum.add(shifted(mantissa, power % 64), power / 64, value < 0.0);
        }
    }

    pub fn merge(&mut self, other: &FloatSum) {
        self.sum.merge(&other.sum);
        if let Some(specials) = &other.specials {
            self.specials.get_or_insert_default().merge(specials);
        }
    }

    /// The sum, rounded once.
    pub fn value(&self) -> f64 {
        if let Some(value) = self.specials.as_ref().and_then(|specials| specials.value()) {
            return value;
        }
        self.sum.with_magnitude(|limbs, limb, negative| round(limbs, limb as i64 * 64 - 1074, negative))
    }
}

impl State for FloatSum {
    fn encode(&self, out: &mut Vec<u8>) {
        self.sum.encode(out);
        self.specials.encode(out);
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, Malformed> {
        let sum = Exact::decode(input)?;
        let specials: Option<Box<Specials>> = State::decode(input)?;
        if specials.as_ref().is_some_and(|specials| specials.value().is_none()) {
            return Err(Malformed("a count of infinities and NaNs is written though there are none"));
        }
        Ok(FloatSum { sum, specials })
    }
}

/// The exact sum and sum of squares of numbers.
#[derive(Clone, Debug, Default)]
pub struct Moments {
    sum: Exact<4>,
    squares: Exact<6>,
    specials: Option<Box<Specials>>,
}

impl Moments {
    pub fn add_float(&mut self, value: f64) {
        if !value.is_finite() {
            self.specials.get_or_insert_default().count(value);
            return;
        }
        let (mantissa, power) = parts(value);
        if mantissa == 0 {
            return;
        }
        self.sum.add(shifted(mantissa, power % 64), power / 64, value < 0.0);
        let square = u128::from(mantissa) * u128::from(mantissa);
        let bits = power * 2 % 64;
        let low = square << bits;
        let high = if bits == 0 { 0 } else { (square >> (128 - bits)) as u64 };
        self.squares.add([low as u64, (low >> 64) as u64, high], power * 2 / 64, false);
    }

    pub fn add_integer(&mut self, value: i64) {
        let magnitude = value.unsigned_abs();
        let square = u128::from(magnitude) * u128::from(magnitude);
        self.sum.add([magnitude, 0], 0, value < 0);
        self.squares.add([square as u64, (square >> 64) as u64, 0], 0, false);
    }

    pub fn merge(&mut self, other: &Moments) {
        self.sum.merge(&other.sum);
        self.squares.merge(&other.squares);
        if let Some(specials) = &other.specials {
            self.specials.get_or_insert_default().merge(specials);
        }
    }

    /// `count * sum(x^2) - sum(x)^2`, exact, rounded once; NaN when a value was no number. `unit` is the power of two that
    /// a value of 1 in the sum stands for: -1074 for floats, 0 for integers.
    pub fn spread(&self, count: u64, unit: i64) -> f64 {
        if self.specials.is_some() {
            return f64::NAN;
        }
        let (squares, at) = self.squares.with_magnitude(|limbs, limb, _| (multiply(limbs, &[count]), limb));
        if squares.is_empty() {
            return 0.0;
        }
        let (square, from) = self.sum.with_magnitude(|limbs, limb, _| (multiply(limbs, limbs), limb * 2));
        // A sum of zero has no limb that it starts at.
        let from = if square.is_empty() { at } else { from };
        let base = at.min(from);
        let shifted = |limbs: Vec<u64>, zeros: usize| [vec![0; zeros], limbs].concat();
        let difference = subtract(shifted(squares, at - base), &shifted(square, from - base));
        round(&difference, unit * 2 + base as i64 * 64, false)
    }
}

impl State for Moments {
    fn encode(&self, out: &mut Vec<u8>) {
        self.sum.encode(out);
        self.squares.encode(out);
        self.specials.encode(out);
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, Malformed> {
        let (sum, squares) = (Exact::decode(input)?, Exact::decode(input)?);
        let specials: Option<Box<Specials>> = State::decode(input)?;
        if specials.as_ref().is_some_and(|specials| specials.value().is_none()) {
            return Err(Malformed("a count of infinities and NaNs is written though there are none"));
        }
        Ok(Moments { sum, squares, specials })
    }
}

fn multiply(left: &[u64], right: &[u64]) -> Vec<u64> {
    if left.is_empty() {
        return Vec::new();
    }
    let mut product = vec![0u64; left.len() + right.len()];
    for (at, l) in left.iter().enumerate() {
        let mut carry = 0u128;
        for (offset, r) in right.iter().chain(&[0]).enumerate() {
            if let Some(limb) = product.get_mut(at + offset) {
                let value = u128::from(*limb) + u128::from(*l) * u128::from(*r) + carry;
                *limb = value as u64;
                carry = value >> 64;
            }
        }
    }
    product
}

/// `left - right`, which is not negative; without zero limbs at the top.
fn subtract(mut left: Vec<u64>, right: &[u64]) -> Vec<u64> {
    left.resize(left.len().max(right.len()), 0);
    add_at(&mut left, right, 0, true);
    while left.last() == Some(&0) {
        left.pop();
    }
    left
}
