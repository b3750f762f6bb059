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
    assert_eq!(entities.values, [[Value::Is(Some(8))], [Value::Is(Some(0))], [Value::Is(Some(16))]]);
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

/// How many thousand turns of the guest's loop use up the fuel of a call, about.
fn most_turns() -> i64 {
    let passes = |turns: i64| {
        let mut one = Entities::new(vec![vec![Row(0, 0)]]);
        one.fold(&udf("burns_by_row"), Window::Unbounded, &[ints(&[turns])]).is_empty()
    };
    let (mut passing, mut failing) = (1, 1 << 20);
    assert!(passes(passing) && !passes(failing), "the fuel lies between");
    while failing - passing > 1 {
        let middle = passing.midpoint(failing);
        *(if passes(middle) { &mut passing } else { &mut failing }) = middle;
    }
    passing
}

/// Fuel that grew with a call's rows let a row through in company that was refused alone.
#[test]
fn a_rows_fuel_does_not_hang_on_its_company() {
    let most = most_turns();
    for company in [0, 1, 500] {
        for (turns, accepted) in [(most - 1, true), (most + 1, false)] {
            let mut values = vec![0; company];
            values.insert(company / 2, turns);
            let steps = (0..values.len() as u32).map(|row| Row(row, 0)).chain([Ask(0)]);
            let mut one = Entities::new(vec![steps.collect()]);
            let refused = one.fold(&udf("burns_by_row"), Window::Unbounded, &[ints(&values)]);
            let wanted: Vec<u32> = if accepted { vec![] } else { vec![company as u32 / 2] };
            assert_eq!(rows_of(&refused), wanted, "{turns} thousand turns among {company} rows: {refused:?}");
            let count = Some(company as i64 + i64::from(accepted)).filter(|count| *count > 0);
            assert_eq!(one.values, [[Value::Is(count)]]);
        }
    }
}

/// Rows that all pass alone and use up the fuel together are all accepted.
#[test]
fn a_call_that_is_too_much_for_its_fuel_or_memory_is_cut() {
    let turns = most_turns() * 2 / 3;
    let mut entities = dealt(9);
    assert!(entities.fold(&udf("burns_by_row"), Window::Unbounded, &[ints(&[turns; 9])]).is_empty());
    assert_eq!(entities.values, [[Value::Is(Some(3))], [Value::Is(Some(3))], [Value::Is(Some(3))]]);
    // 120 MiB of states, each within its limit, in a module that has 64 MiB and may give back 8 MiB.
    let steps = |row| vec![Row(row, 0)];
    let mut entities = Entities::new((0..40).map(steps).collect());
    let refused = entities.fold(&udf("grows"), Window::Unbounded, &[ints(&[3 << 20; 40])]);
    assert!(refused.is_empty(), "{refused:?}");
    assert!(entities.stored.iter().all(|(head, _)| head.len() > 3 << 20), "every state is stored");
}

/// The state's fault, not the row's: the row counts where its state is another.
#[test]
fn a_row_that_runs_out_of_fuel_on_its_state_alone_fails_the_tile() {
    let most = most_turns();
    let mut entities = Entities::new(vec![
        vec![Row(0, 0), Ask(0), Row(1, 1), Ask(1)],
        vec![Row(1, 1), Ask(1), Row(2, HOUR_US), Ask(HOUR_US)],
    ]);
    let window = Window::Tumbling { size_us: HOUR_US, closed: false, align_us: 0 };
    let refused = entities.fold(&udf("burns_by_state"), window, &[ints(&[2 * most, 5, 7])]);
    assert!(refused.is_empty(), "{refused:?}");
    assert_eq!(entities.values[0][0], Value::Is(Some(2 * most)));
    assert!(
        matches!(&entities.values[0][1], Value::Failed(reason) if reason.contains("out of fuel")),
        "{:?}",
        entities.values
    );
    assert_eq!(entities.values[1], [Value::Is(Some(5)), Value::Is(Some(7))]);
}

/// Values are made of states of at most 1 MiB, wherever that state stands: in a tile, in a merge, in the middle of a
/// call that goes on with it.
#[test]
fn a_value_of_too_large_a_state_is_failed_and_nothing_else() {
    const HALF: i64 = 600 << 10;
    let too_large = |value: &Value| matches!(value, Value::Failed(reason) if reason.contains("above 1 MiB encoded"));
    let window = Window::Sliding { size_us: HOUR_US, hop_us: HOUR_US, offset_us: 0, align_us: 0 };
    let columns = [ints(&[HALF, HALF, 8])];
    for keep in [true, false] {
        // One slot that goes on growing; two tiles and their merge, until the first has left.
        for (window, steps) in [
            (Window::Unbounded, vec![Row(0, 0), Ask(0), Row(1, 1), Ask(1)]),
            (window, vec![Row(0, 0), Ask(0), Row(1, HOUR_US), Ask(HOUR_US), Row(2, 2 * HOUR_US), Ask(2 * HOUR_US)]),
        ] {
            let mut entities = Entities::new(vec![steps.clone()]);
            entities.keep = keep;
            let refused = entities.fold(&udf("grows"), window, &columns);
            assert!(refused.is_empty(), "{refused:?}");
            let values = &entities.values[0];
            assert_eq!(values[0], Value::Is(Some(HALF)), "{window:?}, kept: {keep}");
            assert!(too_large(&values[1]), "{window:?}, kept: {keep}: {values:?}");
            assert!(values.get(2).is_none_or(|value| *value == Value::Is(Some(HALF + 8))), "{values:?}");
            // The same in a call each.
            let mut apart = Entities::new(vec![steps.clone()]);
            for (step, value) in steps.chunks(2).zip(values) {
                apart.steps = vec![step.to_vec()];
                assert!(apart.fold(&udf("grows"), window, &columns).is_empty());
                assert_eq!(apart.values[0], std::slice::from_ref(value), "{window:?}");
            }
        }
    }
    // As it was loaded, with no row: what a timer asks.
    let mut loaded = Entities::new(vec![vec![Row(0, 0), Row(1, 1)]]);
    loaded.fold(&udf("grows"), Window::Unbounded, &columns);
    loaded.steps = vec![vec![Ask(5)]];
    loaded.fold(&udf("grows"), Window::Unbounded, &[ints(&[])]);
    assert!(too_large(&loaded.values[0][0]), "{:?}", loaded.values);
}
