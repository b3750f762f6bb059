//! Time, asked for: the only file that may name the system's clocks.
//!
//! Everything else takes a `&dyn Clock` or a number, so a test decides what time it is and no value can depend on when
//! it was computed.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Where the hosts get time from.
pub trait Clock: Send + Sync {
    /// Wall time in microseconds since the epoch, UTC. It may jump, back too.
    fn now_us(&self) -> i64;

    /// Microseconds since some fixed moment of this process. It never goes back.
    fn monotonic_us(&self) -> u64;
}

/// The machine's clocks.
pub struct SystemClock {
    started: Instant,
}

impl SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the clock that others are told to take")]
    pub fn new() -> SystemClock {
        SystemClock { started: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> SystemClock {
        SystemClock::new()
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the clock that others are told to take")]
    fn now_us(&self) -> i64 {
        // Before 1970 only a machine without a battery lives; it is given the epoch.
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX)
    }

    fn monotonic_us(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

/// A clock that stands still until it is told to move: for tests.
#[derive(Default)]
pub struct ManualClock {
    now_us: AtomicI64,
    monotonic_us: AtomicU64,
}

impl ManualClock {
    /// A clock that says `now_us`, and 0 for the monotonic time.
    pub fn at(now_us: i64) -> ManualClock {
        ManualClock { now_us: AtomicI64::new(now_us), monotonic_us: AtomicU64::new(0) }
    }

    /// Sets the wall time, also backwards; the monotonic time stays.
    pub fn set(&self, now_us: i64) {
        self.now_us.store(now_us, Ordering::SeqCst);
    }

    /// Moves both times forward.
    pub fn advance(&self, by_us: u64) {
        self.now_us.fetch_add(i64::try_from(by_us).unwrap_or(i64::MAX), Ordering::SeqCst);
        self.monotonic_us.fetch_add(by_us, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now_us(&self) -> i64 {
        self.now_us.load(Ordering::SeqCst)
    }

    fn monotonic_us(&self) -> u64 {
        self.monotonic_us.load(Ordering::SeqCst)
    }
}
