//! Rule 11 of the windows: what a row, a state or a value that fails takes with it, and that it takes nothing else.

use crate::common::Step::{Row, Value as Ask};
use crate::common::*;
use onefold_fold::{HOUR_US, Window};

fn rows_of(failed: &[onefold_fold::FailedRow]) -> Vec<u32> {
    failed.iter().map(|failed| failed.row).collect()
}

/// Three entities, the rows dealt to them in turn, each asked for its value at the end.
fn dealt(rows: u32) -> Entities {
    let of = |entity: u32| (entity..rows).step_by(3).map(|row| Row(row, i64::from(row)));
    Entities::new((0..3).map(|entity| of(entity).chain([Ask(i64::from(rows))]).collect()).collect())
}

#[test]
fn a_row_that_fails_alone_is_refused_and_the_others_count() {
    for name in ["traps_on_13", "loops_on_13", "eats_memory_on_13"] {
        let mut entities = dealt(8);
        let refused = entities.fold(&udf(name), Window::Unbounded, &[ints(&[1, 13, 2, 3, 13, 4, 5, 13])]);
        assert_eq!(rows_of(&refused), [1, 4, 7], "{name}: {refused:?}");
        let values = [[Value::Is(Some(9))], [Value::Is(None)], [Value::Is(Some(6))]];
        assert_eq!(entities.values, values, "{name}");
    }
}

#[test]
fn a_row_that_the_udf_names_is_refused_with_its_words() {
    let mut entities = dealt(4);
    let refused = entities.fold(&udf("errs_on_negative"), Window::Unbounded, &[ints(&[1, -1, 2, -2])]);
    assert_eq!(rows_of(&refused), [1, 3]);
    assert!(refused.iter().all(|row| row.message == "the value is negative"), "{refused:?}");
    assert_eq!(entities.values, [[Value::Is(Some(1))], [Value::Is(None)], [Value::Is(Some(2))]]);
}

#[test]
fn a_row_whose_state_alone_is_too_large_is_refused() {
    let mut entities = dealt(3);
    let refused = entities.fold(&udf("large_state"), Window::Unbounded, &[ints(&[8, 5 << 20, 16])]);
    assert_eq!(rows_of(&refused), [1], "{refused:?}");
    assert!(refused[0].message.contains("above the limit of 4194304 bytes"), "{refused:?}");
    assert_eq!(entities.values, [[Value::Is(Some(1))], [Value::Is(Some(0))], [Value::Is(Some(2))]]);
}

/// A value as of an instant is a function of the rows up to it: what comes later must not take it away.
#[test]
fn a_row_that_passes_alone_fails_its_tile_from_there_on() {
    let full = || vec![Value::Is(Some(6)), Value::Failed("the state is full".to_owned())];
    let steps = vec![Row(0, 0), Row(1, 1), Row(2, 2), Ask(2), Row(3, 3), Ask(3), Row(4, HOUR_US), Ask(HOUR_US)];
    let columns = [ints(&[1, 2, 3, 4, 5])];
    let mut unbounded = Entities::new(vec![steps.clone()]);
    assert!(unbounded.fold(&udf("errs_when_full"), Window::Unbounded, &columns).is_empty(), "no row is at fault");
    let failed = Value::Failed("the state is full".to_owned());
    assert_eq!(unbounded.values, [[full(), vec![failed.clone()]].concat()]);
    // In a window the other tiles go on: once the failed one has left, there is a value again.
    let window = Window::Tumbling { size_us: HOUR_US, closed: false, align_us: 0 };
    let mut tumbling = Entities::new(vec![steps]);
    assert!(tumbling.fold(&udf("errs_when_full"), window, &columns).is_empty(), "no row is at fault");
    assert_eq!(tumbling.values, [[full(), vec![Value::Is(Some(5))]].concat()]);
    // The reason is stored in place of the state: the next batch still says so.
    unbounded.steps = vec![vec![Ask(HOUR_US)]];
    unbounded.fold(&udf("errs_when_full"), Window::Unbounded, &[ints(&[])]);
    assert_eq!(unbounded.values, [[failed]]);
}
