//! Cases that the window rules and the definitions of the standard library's values state.

use super::*;
use onefold_udf::testing::{self, Op};

fn float(name: &str, values: &[f64]) -> Value<'static> {
    value(name, "", Kind::Float64, &floats(values))
}

#[test]
fn ten_tenths_are_one() {
    assert_eq!(float("sum", &[0.1; 10]), Value::Float64(1.0));
}

#[test]
fn sums_do_not_depend_on_order() {
    for values in [[1e16, 1.0, -1e16], [1.0, 1e16, -1e16], [-1e16, 1e16, 1.0]] {
        assert_eq!(float("sum", &values), Value::Float64(1.0));
    }
    for values in [[1e308, 1e308, -1e308], [1e308, -1e308, 1e308]] {
        assert_eq!(float("sum", &values), Value::Float64(1e308), "an intermediate overflow");
    }
}

#[test]
fn sums_at_the_edges() {
    assert_eq!(float("sum", &[1e308, 1e308]), Value::Float64(f64::INFINITY));
    assert_eq!(float("sum", &[f64::INFINITY, 1.0]), Value::Float64(f64::INFINITY));
    assert_eq!(float("sum", &[f64::INFINITY, f64::NEG_INFINITY]), Value::Float64(f64::NAN));
    assert_eq!(float("sum", &[f64::NAN, 1.0]), Value::Float64(f64::NAN));
    assert_eq!(float("sum", &[-0.0, -0.0]), Value::Float64(0.0));
    assert_eq!(float("sum", &[5e-324, 5e-324]), Value::Float64(1e-323));
    assert_eq!(float("sum", &[5e-324, 1e308, -1e308]), Value::Float64(5e-324));
    assert_eq!(float("sum", &[]), Value::Null);
    assert_eq!(value("sum", "", Kind::Int64, &integers(&[i64::MAX, 1, -1])), Value::Int64(i64::MAX));
}

/// The sum of the greater one fills the window of the smaller one up to its sign: it came out less by 2^78.
#[test]
fn a_merge_up_to_the_sign_of_the_window_adds() {
    for small in [-(2f64.powi(-60)), 2f64.powi(-60)] {
        let sum = aggregation("sum", "", &[Kind::Float64]);
        for large in [1.6e23, -1.6e23] {
            let rows = [(0, vec![Value::float64(small)]), (1, vec![Value::float64(large)])];
            let parts = sum.in_parts(&rows, &[1], false).unwrap();
            assert_eq!(parts.emitted[0][0], Value::float64(small + large), "{small} and {large}");
        }
    }
}

#[test]
fn a_sum_outside_int64_is_null_and_says_so() {
    let rows = [(0, vec![Value::Int64(i64::MAX)]), (1, vec![Value::Int64(1)])];
    let outcome = aggregation("sum", "", &[Kind::Int64]).whole(&rows).unwrap();
    assert_eq!(outcome.emitted, [[Value::Null]]);
    assert_eq!(outcome.reasons, ["overflow"]);
    assert_eq!(
        value("mean", "", Kind::Int64, &integers(&[i64::MAX, i64::MAX])),
        Value::Float64(9.223_372_036_854_776e18)
    );
}

#[test]
fn the_last_of_one_instant_is_the_greater() {
    let (a, b) = ((5, Value::text("a")), (5, Value::text("b")));
    assert_eq!(value("last", "", Kind::Utf8, &[b.clone(), a.clone()]), Value::text("b"));
    assert_eq!(value("last", "", Kind::Utf8, &[a.clone(), b.clone()]), Value::text("b"));
    assert_eq!(value("first", "", Kind::Utf8, &[b, a]), Value::text("a"));
}

#[test]
fn the_mean_of_the_last_five() {
    let mut rows = integers(&[1, 2, 3, 4, 5, 6, 7]);
    let mean = |rows: &[_]| value("last_n_mean", r#"{"n": 5}"#, Kind::Int64, rows);
    assert_eq!(mean(&rows), Value::Float64(5.0));
    rows.swap(0, 6);
    rows.swap(1, 4);
    assert_eq!(mean(&rows), Value::Float64(5.0), "arriving shuffled");
    rows.push((100, Value::Null));
    assert_eq!(mean(&rows), Value::Float64(5.0), "a null is no value");
}

#[test]
fn spread_of_two() {
    assert_eq!(float("max", &[20.0, 5.0]), Value::Float64(20.0));
    assert_eq!(float("min", &[20.0, 5.0]), Value::Float64(5.0));
    assert_eq!(float("stddev_samp", &[20.0, 5.0]), Value::Float64(10.606601717798213));
    assert_eq!(float("var_samp", &[20.0, 5.0]), Value::Float64(112.5));
    assert_eq!(float("var_pop", &[20.0, 5.0]), Value::Float64(56.25));
    assert_eq!(float("var_samp", &[20.0]), Value::Null);
    assert_eq!(float("var_pop", &[20.0]), Value::Float64(0.0));
    assert_eq!(float("var_pop", &[]), Value::Null);
    assert_eq!(float("var_pop", &[1.0, f64::INFINITY]), Value::Float64(f64::NAN));
    assert_eq!(value("var_pop", "", Kind::Int64, &integers(&[i64::MIN, i64::MAX])), Value::Float64(2f64.powi(126)));
}

#[test]
fn equal_rows_are_two_and_nulls_are_none() {
    let rows = [(1, vec![Value::Int64(3)]), (1, vec![Value::Int64(3)]), (1, vec![Value::Null])];
    let count = |kinds: &[Kind]| aggregation("count", "", kinds).whole(&rows).unwrap().emitted[0][0].clone();
    assert_eq!(count(&[Kind::Int64]), Value::Int64(2));
    assert_eq!(value("sum", "", Kind::Int64, &[(0, Value::Int64(4)), (1, Value::Null)]), Value::Int64(4));
    let all = rows.clone().map(|(time, _)| (time, Vec::new()));
    assert_eq!(aggregation("count", "", &[]).whole(&all).unwrap().emitted, [[Value::Int64(3)]]);
    let two = [(1, vec![Value::Int64(3), Value::Null]), (1, vec![Value::Int64(3), Value::text("")])];
    let both = aggregation("count", "", &[Kind::Int64, Kind::Utf8]).whole(&two).unwrap();
    assert_eq!(both.emitted, [[Value::Int64(1)]]);
}

fn passes(op: &str, values: &[Value<'static>], kind: Kind) -> Vec<u32> {
    let rows: Vec<_> = values.iter().map(|value| vec![value.clone()]).collect();
    let (rows, failed) = testing::transform(MODULE, "filter", op, &fields(&[kind]), &rows).unwrap();
    assert!(failed.is_empty());
    rows.into_iter().map(|(parent, _)| parent).collect()
}

#[test]
fn null_passes_only_is_null() {
    let values = [Value::Int64(5), Value::Int64(10), Value::Int64(12), Value::Null];
    let cases: [(&str, &[u32]); 10] = [
        (r#"{"op": "ge", "value": 10}"#, &[1, 2]),
        (r#"{"op": "gt", "value": 10}"#, &[2]),
        (r#"{"op": "lt", "value": 10}"#, &[0]),
        (r#"{"op": "le", "value": 10}"#, &[0, 1]),
        (r#"{"op": "eq", "value": 10}"#, &[1]),
        (r#"{"op": "ne", "value": 10}"#, &[0, 2]),
        (r#"{"op": "in", "value": [5, 12]}"#, &[0, 2]),
        (r#"{"op": "not_in", "value": [5, 12]}"#, &[1]),
        (r#"{"op": "is_null"}"#, &[3]),
        (r#"{"op": "not_null"}"#, &[0, 1, 2]),
    ];
    for (op, expected) in cases {
        assert_eq!(passes(op, &values, Kind::Int64), expected, "{op}");
    }
}

#[test]
fn equality_of_floats_is_loose_and_their_order_is_total() {
    let values = [-0.0, 0.0, f64::NAN, 1.0].map(Value::float64);
    assert_eq!(passes(r#"{"op": "eq", "value": 0}"#, &values, Kind::Float64), [0, 1]);
    assert_eq!(passes(r#"{"op": "ne", "value": 0}"#, &values, Kind::Float64), [2, 3]);
    assert_eq!(passes(r#"{"op": "in", "value": ["NaN", -0.0]}"#, &values, Kind::Float64), [0, 1, 2]);
    assert_eq!(passes(r#"{"op": "lt", "value": 0}"#, &values, Kind::Float64), [0]);
    assert_eq!(passes(r#"{"op": "gt", "value": 0}"#, &values, Kind::Float64), [2, 3]);
}

#[test]
fn distinct_values_are_one_zero_and_one_nan() {
    let values = floats(&[0.0, -0.0, f64::NAN, f64::from_bits(f64::NAN.to_bits() | 1 << 63), -1.0]);
    assert_eq!(value("count_distinct", "", Kind::Float64, &values), Value::Int64(3));
    let Value::Float64List(items) = value("collect_distinct", "", Kind::Float64, &values) else { panic!() };
    assert_eq!(items.iter().map(|item| item.to_bits()).collect::<Vec<_>>(), [-1.0, 0.0, f64::NAN].map(f64::to_bits));
    assert_eq!(value("collect_distinct", "", Kind::Utf8, &[]), Value::Null);
}

#[test]
fn the_ends_of_the_order() {
    let rows = integers(&[10, 20, 30, 40]);
    assert_eq!(value("first_n", r#"{"n": 2}"#, Kind::Int64, &rows), Value::Int64List(vec![10, 20]));
    assert_eq!(value("last_n", r#"{"n": 2}"#, Kind::Int64, &rows), Value::Int64List(vec![30, 40]));
    assert_eq!(value("last_n_sum", r#"{"n": 3}"#, Kind::Int64, &rows), Value::Int64(90));
    let equal = [(1, Value::Int64(7)), (1, Value::Int64(7))];
    assert_eq!(value("last_n", r#"{"n": 2}"#, Kind::Int64, &equal), Value::Int64List(vec![7, 7]), "equal rows are two");
}

#[test]
fn the_last_row_keeps_its_nulls() {
    let last = aggregation("last_row", "", &[Kind::Int64, Kind::Utf8]);
    let rows = [(1, vec![Value::Int64(1), Value::text("a")]), (2, vec![Value::Null, Value::text("b")])];
    assert_eq!(last.whole(&rows).unwrap().emitted, [[Value::Null, Value::text("b")]]);
    assert_eq!(last.outputs, fields(&[Kind::Int64, Kind::Utf8]));
    let tie = [(1, vec![Value::Null, Value::text("z")]), (1, vec![Value::Int64(0), Value::text("a")])];
    assert_eq!(last.whole(&tie).unwrap().emitted, [[Value::Int64(0), Value::text("a")]], "null comes first");
}

#[test]
fn a_value_too_large_for_n_is_refused_by_itself() {
    let last = aggregation("last_n", r#"{"n": 4}"#, &[Kind::Utf8]);
    let text = |length: usize| Value::Utf8("x".repeat(length).into());
    let rows = [(1, vec![text(1 << 18)]), (2, vec![text((1 << 18) + 1)])];
    let ops = [Op::Update { slot: 0, row: 0 }, Op::Update { slot: 0, row: 1 }, Op::Emit { slot: 0 }];
    let error = last.try_run(&[], 1, 1, &ops, &rows).unwrap_err();
    let message = "a value of 262145 bytes: of 4 values each may have 262144; shorten it, or choose a smaller n";
    assert_eq!(error.list(), [(1, message)]);
}

#[test]
fn wrong_uses_are_refused_with_a_remedy() {
    let prepare = |name, params, kinds: &[Kind]| match Aggregation::new(MODULE, name, params, &fields(kinds)) {
        Ok(_) => panic!("{name} {params} was accepted"),
        Err(message) => message,
    };
    let cases = [
        (
            prepare("sum", "", &[Kind::Utf8]),
            "input `input_0` is utf8: sum takes int64 or float64; name another column, or cast it",
        ),
        (prepare("sum", "", &[]), "0 inputs: sum takes one; change `inputs`"),
        (prepare("sum", r#"{"n": 1}"#, &[Kind::Int64]), "param `n`: sum takes no parameters; remove it"),
        (
            prepare("last_n", r#"{"n": 0}"#, &[Kind::Int64]),
            "param `n` is 0: last_n keeps 1 to 1000 values; choose n in that range",
        ),
        (prepare("last_n", r#"{"m": 1}"#, &[Kind::Int64]), "param `m`: last_n has no such parameter; it takes n"),
        (
            prepare("collect_distinct", "", &[Kind::Boolean]),
            "input `input_0` is boolean: collect_distinct gives a list, and there are lists of int64, float64 and utf8 only; cast it",
        ),
    ];
    for (message, expected) in cases {
        assert_eq!(message, expected);
    }
    assert!(prepare("last_n", r#"{"n": "five"}"#, &[Kind::Int64]).contains("invalid type"));
    assert!(prepare("last_n", "", &[Kind::Int64]).contains("missing field `n`"));
    assert!(prepare("summ", "", &[Kind::Int64]).starts_with("udf `summ`: not in this module"));
    let filter = |params| testing::transform(MODULE, "filter", params, &fields(&[Kind::Int64]), &[]).unwrap_err();
    assert_eq!(
        filter(r#"{"op": "ge", "value": "10"}"#),
        "value \"10\": `input_0` is int64; write a value of that kind"
    );
}

#[test]
fn a_tape_names_all_its_failures_and_never_panics() {
    let sum = aggregation("sum", "", &[Kind::Int64]);
    let rows = [(0, vec![Value::Int64(1)])];
    let ops = [
        Op::Update { slot: 0, row: 1 },
        Op::Update { slot: 9, row: 0 },
        Op::Update { slot: 1, row: 0 },
        Op::Merge { slot: 0, later: 7 },
        Op::Copy { slot: 7, from: 0 },
        Op::Emit { slot: 2 },
    ];
    let error = sum.try_run(&[vec![0xff]], 3, 2, &ops, &rows).unwrap_err();
    let failed: Vec<u32> = error.list().into_iter().map(|(op, _)| op).collect();
    assert_eq!(failed, [0, 1, 3, 4], "the state of slot 0 cannot be decoded, slots 7 and 9 are not there");
}

#[test]
fn usual_states_are_small() {
    let state = |values: &[f64]| {
        let rows: Vec<_> = floats(values).into_iter().map(|(time, value)| (time, vec![value])).collect();
        aggregation("sum", "", &[Kind::Float64]).whole(&rows).unwrap().states[0].len()
    };
    assert!(state(&[1.0, 2.0, 3.0]) <= 6, "{}", state(&[1.0, 2.0, 3.0]));
    assert!(state(&[19.99, 5.49, 1234.56]) <= 14, "{}", state(&[19.99, 5.49, 1234.56]));
}
