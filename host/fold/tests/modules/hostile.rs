//! Modules that break the contract or their limits: each is told what it did, and nothing else suffers.

use crate::common::*;
use arrow::array::{Array, AsArray};
use arrow::datatypes::Int64Type;
use onefold_fold::{CallFailure, PrepareError, op::*};

/// Two rows in two slots, both kept and emitted: what a hostile aggregate answers to it.
fn fold_failure(name: &str) -> CallFailure {
    let ops = tape(&[(UPDATE, 0, 0), (UPDATE, 1, 1), (EMIT, 0, 0), (EMIT, 1, 0)]);
    let columns = [ints(&[1, 13])];
    udf(name).fold(&fresh(2, 2, &ops, 2, &columns)).expect_err(name)
}

fn assert_invalid(failure: &CallFailure, part: &str) {
    assert!(matches!(failure, CallFailure::Invalid(why) if why.contains(part)), "{failure:?} lacks {part:?}");
}

#[test]
fn every_number_of_a_fold_is_checked() {
    for (name, part) in [
        ("too_few_states", "states have 2 offsets, 2 items need 3"),
        ("state_offsets_fall", "states have offsets that fall from 9999 to 8"),
        ("state_offsets_beyond", "end at 24, the data at 16"),
        ("too_few_emits", "8 bytes of values, 2 values need 16"),
        ("too_many_columns", "2 output columns, prepare said 1"),
        ("long_validity", "2 bytes of validity, 2 rows need 1"),
        ("unneeded_offsets", "text offsets"),
        ("not_utf8", "UTF-8"),
        ("utf8_cut_in_two", "UTF-8"),
        ("text_offsets_fall", "text offsets that fall"),
        ("fails_no_op", "names no op"),
        ("fails_unknown_op", "failed op 1000000 is not one of 4 ops"),
        ("pointer_beyond_memory", "list"),
    ] {
        assert_invalid(&fold_failure(name), part);
    }
}

#[test]
fn every_number_of_a_transform_is_checked() {
    for (name, part) in [
        ("not_one_to_one", "claims one-to-one and gave 2 rows for 3"),
        ("parent_beyond", "parent 3 is not one of 3 rows"),
        ("parents_fall", "parents fall from 2 to 1"),
        ("failed_and_given", "row 1 failed and has an output"),
        ("half_a_parent", "13 bytes"),
    ] {
        assert_invalid(&udf(name).transform(3, &[ints(&[2, 3, 4])]).expect_err(name), part);
    }
}

#[test]
fn limits_end_calls() {
    assert!(matches!(fold_failure("traps_on_13"), CallFailure::Trap(why) if why.contains("unreachable")));
    assert!(matches!(fold_failure("loops_on_13"), CallFailure::Fuel(_)));
    assert_eq!(fold_failure("eats_memory_on_13"), CallFailure::Memory(64 << 20));
    assert!(matches!(fold_failure("value_too_large"), CallFailure::OutputTooLarge { limit: 0x10_0000, .. }));
    let ops: Vec<_> = (0..10).map(|_| (EMIT, 0, 0)).collect();
    let large = udf("output_too_large").fold(&fresh(1, 0, &tape(&ops), 0, &[ints(&[])])).expect_err("too large");
    assert!(matches!(large, CallFailure::OutputTooLarge { limit: 0x80_0000, .. }), "{large:?}");
}

#[test]
fn a_claim_that_nobody_knows_is_refused() {
    let inputs = [onefold_fold::Field::new("value", onefold_fold::Kind::Int64)];
    let refused = MODULE.prepare("unknown_claim", "{}", &inputs).err();
    let Some(PrepareError::Failed { failure, .. }) = refused else { panic!("{refused:?}") };
    assert_invalid(&failure, "claims `retracts`");
}

/// A host's own mistake is told as such and never reaches the guest.
#[test]
fn calls_that_do_not_fit_are_refused() {
    let sum = udf("sum");
    let columns = [ints(&[1])];
    for ops in [&[(UPDATE, 0, 1)][..], &[(UPDATE, 1, 0)], &[(MERGE, 0, 1)], &[(5, 0, 0)]] {
        let failure = sum.fold(&fresh(1, 1, &tape(ops), 1, &columns)).expect_err("does not fit");
        assert!(matches!(failure, CallFailure::Input(_)), "{failure:?}");
    }
    for (rows, columns) in [(2, vec![ints(&[1])]), (1, vec![]), (1, vec![ints(&[1]), ints(&[1])])] {
        let failure = sum.fold(&fresh(1, 1, &tape(&[]), rows, &columns)).expect_err("does not fit");
        assert!(matches!(failure, CallFailure::Input(_)), "{failure:?}");
    }
}

#[test]
fn ops_that_the_udf_names_are_believed() {
    let columns = [ints(&[1, -1, 2, -2])];
    let ops = tape(&[(UPDATE, 0, 0), (UPDATE, 0, 1), (UPDATE, 1, 2), (UPDATE, 1, 3)]);
    let failure = udf("errs_on_negative").fold(&fresh(2, 2, &ops, 4, &columns)).expect_err("two rows are negative");
    let wanted = vec![(1, "the value is negative".to_owned()), (3, "the value is negative".to_owned())];
    assert_eq!(failure, CallFailure::Ops(wanted));
}

#[test]
fn states_that_are_too_large_are_named() {
    let ops = tape(&[(UPDATE, 0, 0), (UPDATE, 1, 1), (UPDATE, 2, 1), (EMIT, 1, 0)]);
    let columns = [ints(&[8, 5 << 20])];
    let failure = udf("large_state").fold(&fresh(3, 2, &ops, 2, &columns)).expect_err("slot 1 is too large");
    assert_eq!(failure, CallFailure::StatesTooLarge { slots: vec![1], limit: 4 << 20 });
}

/// After a trap nothing in an instance can be relied on: the next call must run on another.
#[test]
fn a_trap_does_not_reach_the_next_call() {
    let trapping = udf("traps_on_13");
    let ops = tape(&[(UPDATE, 0, 0), (EMIT, 0, 0)]);
    for _ in 0..3 {
        assert!(trapping.fold(&fresh(1, 0, &ops, 1, &[ints(&[13])])).is_err());
        let folded = trapping.fold(&fresh(1, 0, &ops, 1, &[ints(&[5])])).expect("runs in a new instance");
        assert_eq!(folded.outputs[0].as_primitive::<Int64Type>().value(0), 5);
        assert_eq!(folded.outputs[0].null_count(), 0);
    }
}
