//! Claims that are not true, each refused with the remedy that fits.

use crate::common::*;
use onefold_fold::{Compared, Field, Kind, check_claims};

#[test]
fn true_claims_pass() {
    for name in [
        "sum",
        "last_timed",
        "last_ordered",
        "trail",
        "trail_alone",
        "errs_on_negative",
        "traps_on_13",
        "identity",
        "twice",
        "fails_on_odd",
    ] {
        assert_eq!(check_claims(&udf(name), Compared::Values), Ok(()), "{name}");
    }
}

#[test]
fn false_claims_are_refused_with_their_remedy() {
    for (name, saw, remedy) in [
        ("naive_float_sum", "another order", "exact sums"),
        ("mean_of_means", "", "declare"),
        ("last_untimed", "another order", "carry the event time"),
        ("errs_when_full", "rows that it takes alone fail together", "by the row alone"),
        ("longest_step", "merged", "declare not mergeable"),
        ("counts_calls", "warm instance", "no globals"),
        ("remembers", "warm instance", "no globals"),
        ("not_one_to_one", "claims one-to-one", "exactly the rows"),
        ("merges_by_mean", "merged give another value", "declare not mergeable"),
        ("forgets_in_encoding", "batches of", "encode everything"),
        ("emit_changes_state", "two emits", "emit change nothing"),
    ] {
        let refused = check_claims(&udf(name), Compared::Values).expect_err(name);
        assert!(refused.saw.contains(saw) && refused.remedy.contains(remedy), "{name}: {refused}");
    }
}

#[test]
fn true_claims_with_some_parameters_do_not_stand_for_others() {
    let prepare = |params| MODULE.prepare("sum_or_last", params, &[Field::new("value", Kind::Int64)]).expect(params);
    assert_eq!(check_claims(&prepare("{}"), Compared::Values), Ok(()));
    let refused = check_claims(&prepare(r#"{"last":true}"#), Compared::Values).expect_err("the last without a time");
    assert!(refused.rule.contains("in any order of its rows"), "{refused}");
}

#[test]
fn states_are_compared_where_they_are_asked_to_be() {
    assert_eq!(check_claims(&udf("sum_and_last"), Compared::Values), Ok(()));
    let refused = check_claims(&udf("sum_and_last"), Compared::ValuesAndStates).expect_err("the state tells the order");
    assert!(refused.saw.contains("another order give another state"), "{refused}");
    assert_eq!(check_claims(&udf("sum"), Compared::ValuesAndStates), Ok(()));
}

/// A trial of a UDF that uses all the fuel of each call would take minutes.
#[test]
fn a_trial_ends() {
    for name in ["burns_by_row", "loops_always", "eats_memory_always"] {
        let refused = check_claims(&udf(name), Compared::Values).expect_err(name);
        assert!(refused.rule.contains("ends within its fuel"), "{name}: {refused}");
    }
}
