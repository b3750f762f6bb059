//! Rule 2 as it is written: which event times a window holds as of an instant, and when that next changes.
//!
//! Everything is in 128 bits, so that no time of an event can wrap; nothing here knows of tiles.

use onefold_fold::Window;

/// `floor(x, h)` on the grid shifted by `align`.
pub fn floor(x: i128, hop: i128, align: i128) -> i128 {
    (x - align).div_euclid(hop) * hop + align
}

/// Whether a row with event time `event_time_us` is in the window as of `as_of_us`. `exclusive`: a label's `e < t`.
pub fn holds(window: &Window, event_time_us: i64, as_of_us: i64, exclusive: bool) -> bool {
    let (e, t) = (i128::from(event_time_us), i128::from(as_of_us));
    let happened = if exclusive { e < t } else { e <= t };
    let inside = match *window {
        Window::Unbounded => true,
        Window::Sliding { size_us, hop_us, offset_us: 0, align_us } => {
            floor(t - i128::from(size_us), hop_us.into(), align_us.into()) <= e
        }
        Window::Sliding { size_us, hop_us, offset_us, align_us } => {
            let (size, hop, offset, align) =
                (i128::from(size_us), hop_us.into(), i128::from(offset_us), align_us.into());
            floor(t - offset - size, hop, align) <= e && e < floor(t - offset, hop, align)
        }
        Window::Tumbling { size_us, closed, align_us } => {
            let start = floor(t, size_us.into(), align_us.into());
            if closed { start - i128::from(size_us) <= e && e < start } else { start <= e }
        }
    };
    happened && inside
}

/// How old a row in the window can be (rule 2's reach); `None` without a window.
pub fn reach_us(window: &Window) -> Option<i128> {
    match *window {
        Window::Unbounded => None,
        Window::Sliding { size_us, hop_us, offset_us, .. } => {
            Some(i128::from(offset_us) + i128::from(size_us) + i128::from(hop_us))
        }
        Window::Tumbling { size_us, closed, .. } => Some(i128::from(size_us) * if closed { 2 } else { 1 }),
    }
}

/// The first instant after `as_of_us` at which this row (already happened) enters or leaves the window; `None` = never.
pub fn changes_at_us(window: &Window, event_time_us: i64, as_of_us: i64) -> Option<i128> {
    let (e, t) = (i128::from(event_time_us), i128::from(as_of_us));
    let (enters, leaves) = match *window {
        Window::Unbounded => return None,
        Window::Sliding { size_us, hop_us, offset_us, align_us } => {
            let next_hop = floor(e, hop_us.into(), align_us.into()) + i128::from(hop_us);
            let enters = (offset_us != 0).then(|| next_hop + i128::from(offset_us));
            (enters, next_hop + i128::from(offset_us) + i128::from(size_us))
        }
        Window::Tumbling { size_us, closed, align_us } => {
            let next_start = floor(e, size_us.into(), align_us.into()) + i128::from(size_us);
            if closed { (Some(next_start), next_start + i128::from(size_us)) } else { (None, next_start) }
        }
    };
    enters.into_iter().chain([leaves]).filter(|instant| *instant > t).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn windows() -> Vec<Window> {
        let sliding = |size_us, hop_us, offset_us, align_us| Window::Sliding { size_us, hop_us, offset_us, align_us };
        let mut all = vec![
            Window::Unbounded,
            sliding(60, 5, 0, 0),
            sliding(7, 3, 0, 2),
            sliding(7, 3, 4, -1),
            sliding(2, 10, 1, 3),
        ];
        for closed in [false, true] {
            all.push(Window::Tumbling { size_us: 10, closed, align_us: 0 });
            all.push(Window::Tumbling { size_us: 7, closed, align_us: -9 });
        }
        all
    }

    #[test]
    fn the_next_change_is_the_next_instant_whose_answer_differs() {
        for window in windows() {
            for e in -30..30 {
                for t in e..90 {
                    let now = holds(&window, e, t, false);
                    let found = (t + 1..300).find(|later| holds(&window, e, *later, false) != now).map(i128::from);
                    assert_eq!(changes_at_us(&window, e, t), found, "{window:?} e {e} t {t}");
                }
            }
        }
    }

    #[test]
    fn no_row_in_a_window_is_older_than_its_reach() {
        for window in windows() {
            let Some(reach) = reach_us(&window) else { continue };
            for e in -30..30 {
                for t in e..200 {
                    assert!(!holds(&window, e, t, false) || i128::from(t - e) <= reach, "{window:?} e {e} t {t}");
                }
            }
        }
    }

    #[test]
    fn the_edges_of_int64_do_not_wrap() {
        let window = Window::sliding(60_000_000);
        assert!(holds(&window, i64::MAX, i64::MAX, false));
        assert!(!holds(&window, i64::MIN, i64::MAX, false));
        assert!(holds(&window, i64::MIN, i64::MIN, false));
    }
}
