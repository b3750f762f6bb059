//! Windows as arithmetic on tiles: which tile a row falls in, and when a tile enters and leaves a value.
//!
//! Everything that the hosts know of windows is these two questions. A window cuts time into *tiles* (one hop long;
//! a tumbling window's tile is the whole window). Tile `k` counts in the value as of `t` exactly while
//! `enters_at(k) <= t < leaves_at(k)`; the planner turns that into merges and the stream into timers.
//! Rules and cases: the table in `tests/cases/windows`.

use serde::{Deserialize, Serialize};

/// One minute, one hour and one day in microseconds.
pub const MINUTE_US: i64 = 60_000_000;
pub const HOUR_US: i64 = 60 * MINUTE_US;
pub const DAY_US: i64 = 24 * HOUR_US;

/// The window of a feature. All durations are microseconds; `size_us` and `hop_us` are above zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Window {
    /// All rows since the beginning.
    Unbounded,
    /// `floor(t - offset - size, hop) <= e`, and `e <= t` (or `e < floor(t - offset, hop)` where there is an offset).
    Sliding { size_us: i64, hop_us: i64, offset_us: i64, align_us: i64 },
    /// `floor(t, size) <= e <= t`; closed: the whole window before that.
    Tumbling { size_us: i64, closed: bool, align_us: i64 },
}

impl Window {
    /// A sliding window with the hop its size implies: 5 min below 12 h, 1 h below 12 d, else 1 d (Chronon's rule).
    pub fn sliding(size_us: i64) -> Window {
        Window::Sliding { size_us, hop_us: default_hop_us(size_us), offset_us: 0, align_us: 0 }
    }

    /// The tile a row with this event time falls in. An unbounded window has the one tile 0.
    #[inline]
    pub fn tile_of(&self, event_time_us: i64) -> i64 {
        match *self {
            Window::Unbounded => 0,
            Window::Sliding { hop_us, align_us, .. } => event_time_us.saturating_sub(align_us).div_euclid(hop_us),
            Window::Tumbling { size_us, align_us, .. } => event_time_us.saturating_sub(align_us).div_euclid(size_us),
        }
    }

    /// The first instant at which the tile counts. A row inside the tile may be later than this: values are asked
    /// only as of instants at or after the newest row that was folded.
    #[inline]
    pub fn enters_at_us(&self, tile: i64) -> i64 {
        match *self {
            Window::Unbounded => i64::MIN,
            Window::Sliding { offset_us: 0, hop_us, align_us, .. } => instant(tile, hop_us, align_us, 0),
            Window::Sliding { hop_us, offset_us, align_us, .. } => {
                instant(tile.saturating_add(1), hop_us, align_us, offset_us)
            }
            Window::Tumbling { size_us, closed: false, align_us } => instant(tile, size_us, align_us, 0),
            Window::Tumbling { size_us, closed: true, align_us } => {
                instant(tile.saturating_add(1), size_us, align_us, 0)
            }
        }
    }

    /// The first instant at which the tile no longer counts; `i64::MAX` for one that never leaves.
    #[inline]
    pub fn leaves_at_us(&self, tile: i64) -> i64 {
        let next = tile.saturating_add(1);
        match *self {
            Window::Unbounded => i64::MAX,
            Window::Sliding { size_us, hop_us, offset_us, align_us } => {
                instant(next, hop_us, align_us, size_us.saturating_add(offset_us))
            }
            Window::Tumbling { size_us, closed: false, align_us } => instant(next, size_us, align_us, 0),
            Window::Tumbling { size_us, closed: true, align_us } => {
                instant(next.saturating_add(1), size_us, align_us, 0)
            }
        }
    }

    /// Whether the tile counts in the value as of `t`.
    #[inline]
    pub fn counts(&self, tile: i64, as_of_us: i64) -> bool {
        self.enters_at_us(tile) <= as_of_us && as_of_us < self.leaves_at_us(tile)
    }

    /// How old a row in the window can be: `None` for an unbounded one.
    pub fn reach_us(&self) -> Option<i64> {
        match *self {
            Window::Unbounded => None,
            Window::Sliding { size_us, hop_us, offset_us, .. } => {
                Some(size_us.saturating_add(hop_us).saturating_add(offset_us))
            }
            Window::Tumbling { size_us, closed, .. } => Some(size_us.saturating_mul(if closed { 2 } else { 1 })),
        }
    }
}

/// The hop of a sliding window that names none.
pub fn default_hop_us(size_us: i64) -> i64 {
    match size_us {
        size if size < 12 * HOUR_US => 5 * MINUTE_US,
        size if size < 12 * DAY_US => HOUR_US,
        _ => DAY_US,
    }
}

/// `tile * hop + align + after`, saturating: a time at the edge of int64 belongs to no calendar, and must not wrap.
#[inline]
fn instant(tile: i64, hop_us: i64, align_us: i64, after_us: i64) -> i64 {
    tile.saturating_mul(hop_us).saturating_add(align_us).saturating_add(after_us)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tile_counts_exactly_while_the_definition_of_the_window_says_so() {
        let floor = |x: i64, hop: i64, align: i64| (x - align).div_euclid(hop) * hop + align;
        for (size, hop, offset, align) in [(60, 5, 0, 0), (60, 5, 60, 0), (7, 3, 0, 2), (7, 3, 4, -1), (1, 10, 0, 0)] {
            let window = Window::Sliding { size_us: size, hop_us: hop, offset_us: offset, align_us: align };
            for t in -100..200 {
                for e in -100..=t {
                    let inside = floor(t - offset - size, hop, align) <= e
                        && if offset == 0 { e <= t } else { e < floor(t - offset, hop, align) };
                    assert_eq!(window.counts(window.tile_of(e), t), inside, "{window:?} e {e} t {t}");
                }
            }
        }
        for (size, align) in [(10, 0), (7, 3), (7, -9)] {
            for t in -50..100 {
                for e in -50..=t {
                    let start = floor(t, size, align);
                    let running = Window::Tumbling { size_us: size, closed: false, align_us: align };
                    assert_eq!(running.counts(running.tile_of(e), t), start <= e, "{running:?} e {e} t {t}");
                    let closed = Window::Tumbling { size_us: size, closed: true, align_us: align };
                    let inside = start - size <= e && e < start;
                    assert_eq!(closed.counts(closed.tile_of(e), t), inside, "{closed:?} e {e} t {t}");
                }
            }
        }
    }

    #[test]
    fn hops_default_by_size() {
        let hop = |size| match Window::sliding(size) {
            Window::Sliding { hop_us, .. } => hop_us,
            _ => unreachable!("sliding makes sliding windows"),
        };
        assert_eq!(hop(12 * HOUR_US - 1), 5 * MINUTE_US);
        assert_eq!(hop(12 * HOUR_US), HOUR_US);
        assert_eq!(hop(12 * DAY_US - 1), HOUR_US);
        assert_eq!(hop(12 * DAY_US), DAY_US);
    }
}
