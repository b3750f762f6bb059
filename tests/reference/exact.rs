//! Exact arithmetic: floats as rationals, and a rational rounded to a float once, half to even.

use num_bigint::{BigInt, BigUint, Sign};
use num_rational::BigRational;

const FRACTION_BITS: i64 = 52;
const SMALLEST_EXPONENT: i64 = -1074;
const LARGEST_EXPONENT: i64 = 1023;

/// The rational that a finite float is.
///
/// # Panics
/// For NaN and the infinities, which are no numbers.
pub fn rational(float: f64) -> BigRational {
    assert!(float.is_finite(), "{float} is no rational");
    let bits = float.to_bits();
    let fraction = bits & ((1 << FRACTION_BITS) - 1);
    let (mantissa, exponent) = match (bits >> FRACTION_BITS) & 0x7ff {
        0 => (fraction, SMALLEST_EXPONENT),
        biased => (fraction | (1 << FRACTION_BITS), biased as i64 - 1075),
    };
    let magnitude = BigInt::from(mantissa);
    let signed = if float.is_sign_negative() { -magnitude } else { magnitude };
    let power = BigInt::from(1) << exponent.unsigned_abs();
    if exponent >= 0 { BigRational::from_integer(signed * power) } else { BigRational::new(signed, power) }
}

/// The float nearest to a rational, ties to the even one; too large is an infinity, zero is 0.0.
pub fn nearest_float(value: &BigRational) -> f64 {
    let negative = value.numer().sign() == Sign::Minus;
    let numerator = value.numer().magnitude();
    let denominator = value.denom().magnitude();
    if value.numer().sign() == Sign::NoSign {
        return 0.0;
    }
    // The power of two just at or below the value, then the weight of the last bit that a float keeps there.
    let estimate = numerator.bits() as i64 - denominator.bits() as i64;
    let at_least = |power: i64| numerator << (-power).max(0) as u64 >= denominator << power.max(0) as u64;
    let highest = if at_least(estimate) { estimate } else { estimate - 1 };
    let mut unit = (highest - FRACTION_BITS).max(SMALLEST_EXPONENT);
    let scaled: BigUint = numerator << (-unit).max(0) as u64;
    let divisor: BigUint = denominator << unit.max(0) as u64;
    let floor = &scaled / &divisor;
    let twice_rest: BigUint = (&scaled - &floor * &divisor) << 1u64;
    let mut mantissa = u64::try_from(&floor).expect("a quotient of at most 53 bits");
    if twice_rest > divisor || (twice_rest == divisor && mantissa % 2 == 1) {
        mantissa += 1;
    }
    if mantissa == 1 << (FRACTION_BITS + 1) {
        mantissa >>= 1;
        unit += 1;
    }
    let bits = if mantissa < 1 << FRACTION_BITS {
        mantissa
    } else if unit + FRACTION_BITS > LARGEST_EXPONENT {
        f64::INFINITY.to_bits()
    } else {
        (((unit + 1075) as u64) << FRACTION_BITS) | (mantissa - (1 << FRACTION_BITS))
    };
    let float = f64::from_bits(bits);
    if negative { -float } else { float }
}

/// The float nearest to an integer.
pub fn nearest_float_of_integer(value: i128) -> f64 {
    nearest_float(&BigRational::from_integer(BigInt::from(value)))
}

/// What NaNs and infinities make of a sum, before any arithmetic: `None` when all values are finite.
pub fn special_sum(values: &[f64]) -> Option<f64> {
    let up = values.contains(&f64::INFINITY);
    let down = values.contains(&f64::NEG_INFINITY);
    if values.iter().any(|value| value.is_nan()) || (up && down) {
        Some(f64::NAN)
    } else if up {
        Some(f64::INFINITY)
    } else if down {
        Some(f64::NEG_INFINITY)
    } else {
        None
    }
}

/// The exact sum of finite floats.
pub fn exact_sum(values: &[f64]) -> BigRational {
    values.iter().fold(BigRational::from_integer(BigInt::from(0)), |sum, value| sum + rational(*value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ratio(numerator: i64, denominator: i64) -> BigRational {
        BigRational::new(BigInt::from(numerator), BigInt::from(denominator))
    }

    fn power_of_two(exponent: i64) -> BigRational {
        let power = BigRational::from_integer(BigInt::from(1) << exponent.unsigned_abs());
        if exponent >= 0 { power } else { BigRational::from_integer(BigInt::from(1)) / power }
    }

    #[test]
    fn every_float_rounds_to_itself() {
        let samples =
            [0.0, 1.0, -1.5, 0.1, 5e-324, -5e-324, f64::MIN_POSITIVE, f64::MAX, f64::MIN, 2.225073858507201e-308];
        for float in samples {
            assert_eq!(nearest_float(&rational(float)).to_bits(), float.to_bits(), "{float:e}");
        }
        let mut bits: u64 = 1;
        for _ in 0..5_000 {
            bits = bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let float = f64::from_bits(bits);
            if float.is_finite() {
                assert_eq!(nearest_float(&rational(float)).to_bits(), float.to_bits(), "{float:e}");
            }
        }
        assert_eq!(nearest_float(&rational(-0.0)).to_bits(), 0, "a sum of zero is 0.0, never -0.0");
    }

    #[test]
    fn ties_go_to_the_even_float() {
        let unit = 1i64 << 53;
        assert_eq!(nearest_float(&ratio(unit + 1, 1)), unit as f64);
        assert_eq!(nearest_float(&ratio(unit + 3, 1)), (unit + 4) as f64);
        assert_eq!(nearest_float(&(ratio(unit + 1, 1) + power_of_two(-200))), (unit + 2) as f64);
        assert_eq!(nearest_float(&-(ratio(unit + 1, 1) - power_of_two(-200))), -(unit as f64));
        assert_eq!(nearest_float(&(ratio(1, 1) + power_of_two(-53))), 1.0);
        assert_eq!(nearest_float(&(ratio(1, 1) + power_of_two(-53) + power_of_two(-54))), 1.0 + f64::EPSILON);
        assert_eq!(nearest_float(&ratio(i64::MAX, 1)), 9_223_372_036_854_775_808.0);
    }

    #[test]
    fn quotients_round_as_the_hardware_divides() {
        for (a, b) in [(1, 3), (2, 3), (1, 10), (-7, 9), (355, 113), (1, 49), (22, 7)] {
            assert_eq!(nearest_float(&ratio(a, b)), a as f64 / b as f64, "{a}/{b}");
        }
    }

    #[test]
    fn subnormals_and_overflow_keep_the_rule() {
        assert_eq!(nearest_float(&power_of_two(-1074)), 5e-324);
        assert_eq!(nearest_float(&power_of_two(-1075)), 0.0, "a tie between 0 and the smallest float: even is 0");
        assert_eq!(nearest_float(&(power_of_two(-1075) + power_of_two(-1200))), 5e-324);
        assert_eq!(
            nearest_float(&(power_of_two(-1074) + power_of_two(-1075))),
            1e-323,
            "3/2 of the smallest: even is 2"
        );
        assert_eq!(nearest_float(&(power_of_two(-1022) - power_of_two(-1075))), f64::MIN_POSITIVE);
        let largest = rational(f64::MAX);
        assert_eq!(nearest_float(&(&largest + power_of_two(969))), f64::MAX);
        assert_eq!(nearest_float(&(&largest + power_of_two(970))), f64::INFINITY, "a tie at the top: even is infinity");
        assert_eq!(nearest_float(&-(&largest + &largest)), f64::NEG_INFINITY);
    }

    #[test]
    fn sums_do_not_overflow_on_the_way() {
        assert_eq!(nearest_float(&exact_sum(&[1e308, 1e308, -1e308])), 1e308);
        assert_eq!(nearest_float(&exact_sum(&[1e16, 1.0, -1e16])), 1.0);
        assert_eq!(nearest_float(&exact_sum(&[0.1; 10])), 1.0);
        assert_eq!(special_sum(&[f64::INFINITY, 1.0]), Some(f64::INFINITY));
        assert!(special_sum(&[f64::INFINITY, f64::NEG_INFINITY]).is_some_and(f64::is_nan));
        assert_eq!(special_sum(&[1.0]), None);
    }
}
