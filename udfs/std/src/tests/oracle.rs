//! Sums and variances against rationals of any size, with a rounding that shares no code with ours.

use super::*;
use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{Signed, ToPrimitive, Zero};
use proptest::prelude::*;

/// The float nearest to a rational: of the neighbours of a guess the one that is nearest, the even one of two.
fn nearest(exact: &BigRational) -> f64 {
    let half_beyond_max = BigRational::from_integer((BigInt::from(1) << 1024) - (BigInt::from(1) << 970));
    if exact.abs() >= half_beyond_max {
        return if exact.is_positive() { f64::INFINITY } else { f64::NEG_INFINITY };
    }
    let mut best = exact.to_f64().unwrap().clamp(f64::MIN, f64::MAX);
    loop {
        let distance = |value: f64| BigRational::from_float(value).map(|value| (value - exact).abs());
        let better = [best.next_down(), best.next_up()].into_iter().find(|other| {
            match (distance(*other), distance(best)) {
                (Some(other_distance), Some(best_distance)) => {
                    other_distance < best_distance
                        || other_distance == best_distance && other.to_bits() & 1 < best.to_bits() & 1
                }
                _ => false,
            }
        });
        match better {
            Some(other) => best = other,
            None => return best,
        }
    }
}

fn rational(value: f64) -> BigRational {
    BigRational::from_float(value).unwrap()
}

fn finite() -> impl Strategy<Value = f64> {
    prop_oneof![
        3 => (-100_000..100_000i64).prop_map(|cents| cents as f64 / 100.0),
        3 => any::<f64>().prop_filter("finite", |value| value.is_finite()),
        1 => prop::sample::select(vec![5e-324, -5e-324, 1e308, -1e308, f64::MAX, f64::MIN, 1e16, -1e16, 1.0, 0.5, -0.0]),
        1 => (0..1u64 << 53).prop_map(f64::from_bits),
    ]
}

fn float_of(value: Value<'static>) -> f64 {
    let Value::Float64(value) = value else { panic!("{value:?} is no float") };
    value
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn sums_of_floats_are_rounded_once(values in prop::collection::vec(finite(), 1..40)) {
        let exact: BigRational = values.iter().map(|value| rational(*value)).sum();
        let expected = if exact.is_zero() { 0.0 } else { nearest(&exact) };
        let rows = floats(&values);
        prop_assert_eq!(float_of(value("sum", "", Kind::Float64, &rows)).to_bits(), expected.to_bits());
        let mean = expected / values.len() as f64;
        prop_assert_eq!(float_of(value("mean", "", Kind::Float64, &rows)).to_bits(), mean.to_bits());
    }

    #[test]
    fn variances_of_floats_are_rounded_once(values in prop::collection::vec(finite(), 2..20)) {
        let exact = values.iter().map(|value| rational(*value)).collect::<Vec<_>>();
        let expected = variance(&exact);
        let variance = float_of(value("var_samp", "", Kind::Float64, &floats(&values)));
        prop_assert_eq!(variance.to_bits(), expected.to_bits());
        let deviation = float_of(value("stddev_samp", "", Kind::Float64, &floats(&values)));
        prop_assert_eq!(deviation.to_bits(), expected.sqrt().to_bits());
    }

    #[test]
    fn variances_of_integers_are_rounded_once(
        values in prop::collection::vec(prop_oneof![-9..9i64, any::<i64>(), Just(i64::MIN)], 2..20),
    ) {
        let exact = values.iter().map(|value| BigRational::from_integer((*value).into())).collect::<Vec<_>>();
        let variance_found = float_of(value("var_samp", "", Kind::Int64, &integers(&values)));
        prop_assert_eq!(variance_found.to_bits(), variance(&exact).to_bits());
    }
}

fn variance(values: &[BigRational]) -> f64 {
    let count = values.len();
    let sum: BigRational = values.iter().sum();
    let squares: BigRational = values.iter().map(|value| value * value).sum();
    let spread = squares * BigRational::from_integer(count.into()) - &sum * &sum;
    let spread = if spread.is_zero() { 0.0 } else { nearest(&spread) };
    spread / (count * (count - 1)) as f64
}
