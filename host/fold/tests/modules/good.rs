//! What a module that keeps the contract gets.

use crate::common::*;
use arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use arrow::datatypes::Int64Type;
use onefold_fold::{Engine, Field, FoldCall, Kind, Limits, PrepareError, Role, op::*};
use sha2::{Digest, Sha256};
use std::sync::Arc;

#[test]
fn a_module_says_what_it_holds() {
    assert_eq!(MODULE.digest(), <[u8; 32]>::from(Sha256::digest(&*GUEST)));
    let sum = &MODULE.udfs()[0];
    assert_eq!((sum.name.as_str(), sum.role), ("sum", Role::Aggregate));
    assert!(sum.params_schema.starts_with('{'));
    let sum = udf("sum");
    assert_eq!(sum.outputs(), [Field::new("value", Kind::Int64)]);
    assert!(sum.mergeable() && !sum.ordered() && !sum.needs_event_time());
    let last = udf("last_timed");
    assert!(last.needs_event_time());
    assert_eq!(last.columns().len(), 2);
    assert!(udf("identity").one_to_one());
}

#[test]
fn wrong_names_and_inputs_are_errors_of_prepare() {
    let unknown = MODULE.prepare("summ", "{}", &[]).err();
    assert!(matches!(unknown, Some(PrepareError::Unknown(name, all)) if name == "summ" && all.contains("sum")));
    let refused = MODULE.prepare("sum", "{}", &[Field::new("v", Kind::Utf8)]).err();
    assert_eq!(refused, Some(PrepareError::Refused("takes one int64".to_owned())));
}

#[test]
fn a_tape_updates_merges_copies_resets_and_emits() {
    let columns: [ArrayRef; 1] = [Arc::new(Int64Array::from(vec![Some(1), None, Some(10), Some(100)]))];
    let ops = tape(&[
        (UPDATE, 0, 0),
        (UPDATE, 0, 1),
        (UPDATE, 1, 2),
        (COPY, 3, 0),
        (MERGE, 3, 1),
        (EMIT, 3, 0),
        (UPDATE, 1, 3),
        (EMIT, 1, 0),
        (RESET, 3, 0),
        (EMIT, 3, 0),
    ]);
    let folded = udf("sum").fold(&fresh(4, 3, &ops, 4, &columns)).expect("the call runs");
    let emitted = folded.outputs[0].as_primitive::<Int64Type>();
    assert_eq!(emitted.iter().collect::<Vec<_>>(), [Some(11), Some(110), None]);
    assert_eq!(folded.state_offsets, [0, 8, 16, 16]);
    let again = FoldCall {
        slots: 3,
        keep: 2,
        measure: 0,
        tape: &tape(&[(MERGE, 0, 1), (EMIT, 0, 0)]),
        state_offsets: &folded.state_offsets,
        state_data: &folded.state_data,
        rows: 0,
        columns: &[ints(&[])],
    };
    let folded = udf("sum").fold(&again).expect("the call runs");
    assert_eq!(folded.outputs[0].as_primitive::<Int64Type>().value(0), 111);
}

#[test]
fn slices_and_nulls_cross_as_they_are() {
    let all: ArrayRef = Arc::new(Int64Array::from_iter((0..100).map(|n| (n % 3 != 0).then_some(n))));
    for (start, length) in [(0, 100), (3, 1), (5, 80), (8, 16), (99, 1), (50, 0)] {
        let slice = all.slice(start, length);
        let mapped = udf("identity").transform(length, std::slice::from_ref(&slice)).expect("the call runs");
        assert_eq!(mapped.parents.len(), length);
        assert_eq!(&mapped.outputs[0], &slice, "rows {start}..+{length}");
    }
}

#[test]
fn a_transform_names_the_rows_that_failed() {
    let mapped = udf("fails_on_odd").transform(4, &[ints(&[2, 3, 4, 5])]).expect("the call runs");
    assert_eq!(mapped.parents, [0, 2]);
    assert_eq!(mapped.failed, [(1, "odd".to_owned()), (3, "odd".to_owned())]);
    assert_eq!(mapped.outputs[0].len(), 2);
    assert_eq!(udf("twice").transform(2, &[ints(&[7, 8])]).expect("the call runs").parents, [0, 0, 1, 1]);
}

#[test]
fn threads_share_a_module() {
    let engine = Engine::new(Limits::default()).expect("the engine starts");
    let module = engine.load(&GUEST).expect("the guest loads");
    let sum = module.prepare("sum", "{}", &[Field::new("value", Kind::Int64)]).expect("prepares");
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let sum = sum.clone();
            scope.spawn(move || {
                for turn in 0..50 {
                    let columns = [ints(&[thread, turn])];
                    let ops = tape(&[(UPDATE, 0, 0), (UPDATE, 0, 1), (EMIT, 0, 0)]);
                    let folded = sum.fold(&fresh(1, 0, &ops, 2, &columns)).expect("the call runs");
                    assert_eq!(folded.outputs[0].as_primitive::<Int64Type>().value(0), thread + turn);
                }
            });
        }
    });
}
