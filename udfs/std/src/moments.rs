//! Exact sums of numbers and of their squares, for what is computed from both.

use crate::exact::{Exact, Specials, add_at, parts, round, shifted};
use onefold_udf::state::Reader;
use onefold_udf::{Malformed, State};

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
