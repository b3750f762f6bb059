//! Every aggregate: any order, any split, any way of merging gives equal bytes, of states and of values.

use super::*;
use proptest::prelude::*;

/// Values of a kind, with a liking for the edges.
fn of_kind(kind: Kind) -> BoxedStrategy<Value<'static>> {
    let float = prop_oneof![
        4 => (-1000..1000i64).prop_map(|cents| cents as f64 / 100.0),
        3 => any::<f64>(),
        // Of sizes that share a window of an exact sum, up to its sign.
        3 => (any::<f64>(), -150..150i32).prop_map(|(value, power)| {
            let mantissa = f64::from_bits(value.to_bits() & (u64::MAX >> 12 | 1 << 63) | 1f64.to_bits());
            mantissa * 2f64.powi(power)
        }),
        2 => prop::sample::select(vec![
            0.0, -0.0, f64::NAN, -f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 5e-324, -5e-324, 1e308, -1e308, f64::MAX, 1e16,
            2.2250738585072014e-308, 1.0,
        ]),
    ];
    let integer = prop_oneof![4 => -5..5i64, 1 => any::<i64>(), 1 => prop::sample::select(vec![i64::MIN, i64::MAX])];
    let text = prop_oneof![
        60 => "[a-cé]{0,3}",
        1 => Just("x".repeat(1 << 20)),
    ];
    let value = match kind {
        Kind::Boolean => any::<bool>().prop_map(Value::Boolean).boxed(),
        Kind::Int64 => integer.prop_map(Value::Int64).boxed(),
        Kind::Float64 => float.prop_map(Value::float64).boxed(),
        Kind::Timestamp => integer.prop_map(Value::Timestamp).boxed(),
        Kind::Utf8 => text.prop_map(|text| Value::Utf8(text.into())).boxed(),
        Kind::Binary => prop::collection::vec(any::<u8>(), 0..4).prop_map(|bytes| Value::Binary(bytes.into())).boxed(),
        Kind::Int64List => prop::collection::vec(integer, 0..3).prop_map(Value::Int64List).boxed(),
        Kind::Float32List => {
            let float = float.prop_map(|value| value as f32);
            prop::collection::vec(float, 0..3).prop_map(Value::Float32List).boxed()
        }
        Kind::Float64List => prop::collection::vec(float, 0..3).prop_map(Value::Float64List).boxed(),
        Kind::Utf8List => prop::collection::vec(text, 0..3)
            .prop_map(|items| Value::Utf8List(items.into_iter().map(Into::into).collect()))
            .boxed(),
    };
    prop_oneof![5 => value, 1 => Just(Value::Null)].boxed()
}

fn rows(kinds: &[Kind]) -> impl Strategy<Value = Vec<TimedRow>> + use<> {
    let values: Vec<_> = kinds.iter().map(|kind| of_kind(*kind)).collect();
    // Few instants, so that many rows share one.
    prop::collection::vec((0..6i64, values), 0..24)
}

/// Folds rows whole, shuffled and in parts, and compares.
fn check(aggregation: &Aggregation, rows: &[TimedRow], order: &[prop::sample::Index], cuts: &[prop::sample::Index]) {
    let accepted: Vec<TimedRow> =
        rows.iter().filter(|row| aggregation.whole(std::slice::from_ref(row)).is_ok()).cloned().collect();
    let whole = aggregation.whole(&accepted).unwrap();
    let mut shuffled = accepted.clone();
    for (at, other) in order.iter().enumerate().take(accepted.len()) {
        shuffled.swap(at, other.index(accepted.len()));
    }
    assert_eq!(aggregation.whole(&shuffled).unwrap(), whole, "another order");
    let cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(accepted.len() + 1)).collect();
    for from_the_right in [false, true] {
        assert_eq!(aggregation.in_parts(&shuffled, &cuts, from_the_right).unwrap(), whole, "parts at {cuts:?}");
    }
}

macro_rules! algebra {
    ($($test:ident: $udf:literal $params:literal [$($kind:ident),*];)*) => {$(
        proptest! {
            #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]
            #[test]
            fn $test(
                rows in rows(&[$(Kind::$kind),*]),
                order in prop::collection::vec(any::<prop::sample::Index>(), 24),
                cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..5),
            ) {
                check(&aggregation($udf, $params, &[$(Kind::$kind),*]), &rows, &order, &cuts);
            }
        }
    )*};
}

algebra! {
    count_rows: "count" "" [];
    count_values: "count" "" [Int64, Utf8List];
    count_distinct_floats: "count_distinct" "" [Float64];
    count_distinct_texts: "count_distinct" "" [Utf8];
    count_distinct_lists: "count_distinct" "" [Float32List];
    sum_integers: "sum" "" [Int64];
    sum_floats: "sum" "" [Float64];
    mean_integers: "mean" "" [Int64];
    mean_floats: "mean" "" [Float64];
    min_floats: "min" "" [Float64];
    min_texts: "min" "" [Utf8];
    max_floats: "max" "" [Float64];
    max_lists: "max" "" [Int64List];
    var_samp_floats: "var_samp" "" [Float64];
    var_pop_integers: "var_pop" "" [Int64];
    stddev_samp_integers: "stddev_samp" "" [Int64];
    stddev_pop_floats: "stddev_pop" "" [Float64];
    first_binary: "first" "" [Binary];
    first_floats: "first" "" [Float64];
    last_booleans: "last" "" [Boolean];
    last_floats: "last" "" [Float64];
    last_lists: "last" "" [Utf8List];
    first_n_texts: "first_n" r#"{"n": 3}"# [Utf8];
    first_n_integers: "first_n" r#"{"n": 3}"# [Int64];
    last_n_floats: "last_n" r#"{"n": 4}"# [Float64];
    last_n_texts: "last_n" r#"{"n": 2}"# [Utf8];
    last_row: "last_row" "" [Float64, Utf8, Timestamp, Float64List];
    last_n_sum_integers: "last_n_sum" r#"{"n": 5}"# [Int64];
    last_n_sum_floats: "last_n_sum" r#"{"n": 5}"# [Float64];
    last_n_mean_integers: "last_n_mean" r#"{"n": 5}"# [Int64];
    last_n_mean_floats: "last_n_mean" r#"{"n": 5}"# [Float64];
    collect_distinct_texts: "collect_distinct" "" [Utf8];
    collect_distinct_floats: "collect_distinct" "" [Float64];
    collect_distinct_integers: "collect_distinct" "" [Int64];
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_bytes_are_a_state_or_an_error(bytes in prop::collection::vec(any::<u8>(), 1..40)) {
        for (name, params) in [("sum", ""), ("var_pop", ""), ("last", ""), ("last_n", r#"{"n": 3}"#), ("count_distinct", "")] {
            let aggregation = aggregation(name, params, &[Kind::Float64]);
            let ops = [onefold_udf::testing::Op::Emit { slot: 0 }];
            if let Ok(outcome) = aggregation.run(std::slice::from_ref(&bytes), 1, 1, &ops, &[]) {
                prop_assert_eq!(&outcome.states[0], &bytes, "{} has two encodings of one state", name);
            }
        }
    }
}
