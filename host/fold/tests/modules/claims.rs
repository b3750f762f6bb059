//! Claims that are not true, each refused with the remedy that fits.

use crate::common::*;
use onefold_fold::check_claims;

#[test]
fn true_claims_pass() {
    for name in
        ["sum", "last_timed", "last_ordered", "errs_on_negative", "traps_on_13", "identity", "twice", "fails_on_odd"]
    {
        assert_eq!(check_claims(&udf(name)), Ok(()), "{name}");
    }
}

#[test]
fn false_claims_are_refused_with_their_remedy() {
    for (name, saw, remedy) in [
        ("naive_float_sum", "another order", "exact sums"),
        ("mean_of_means", "", "declare"),
        ("last_untimed", "another order", "carry the event time"),
        ("errs_when_full", "rows that it takes alone fail together", "by the row alone"),
        ("counts_calls", "warm instance", "no globals"),
        ("remembers", "warm instance", "no globals"),
        ("not_one_to_one", "claims one-to-one", "exactly the rows"),
        ("merges_by_mean", "merged give another value", "declare not mergeable"),
        ("forgets_in_encoding", "batches of", "encode everything"),
        ("emit_changes_state", "two emits", "emit change nothing"),
    ] {
        let refused = check_claims(&udf(name)).expect_err(name);
        assert!(refused.saw.contains(saw) && refused.remedy.contains(remedy), "{name}: {refused}");
    }
}
