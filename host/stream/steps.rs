//! Where a stream's time goes: how long its threads were busy with each step, added up.
//!
//! The clock is asked a few times a batch, never a row. Times are those of the wall, so that on a machine with fewer
//! cores than busy threads the waiting of one for the other is in them.

use crate::clock::Clock;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a thread of the stream is busy with, in the order in which a row meets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// JSON to columns.
    Decode,
    /// Columns and rows that UDFs make, and rows from the future taken out.
    Transform,
    /// Keys, their hashes, and which thread takes a row.
    Route,
    /// Rows of one entity brought together, and the entity found or made.
    Group,
    /// Stored state and rows planned into tapes, for each feature.
    Gather,
    /// The module's call, with what crosses its boundary.
    Call,
    /// New state put back.
    Scatter,
    /// Values to the online store, and timers.
    Online,
    /// Changed state encoded, and stored with the letters.
    Checkpoint,
}

impl Step {
    pub const ALL: [Step; 9] = [
        Step::Decode,
        Step::Transform,
        Step::Route,
        Step::Group,
        Step::Gather,
        Step::Call,
        Step::Scatter,
        Step::Online,
        Step::Checkpoint,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Step::Decode => "decode",
            Step::Transform => "transform",
            Step::Route => "route",
            Step::Group => "group",
            Step::Gather => "gather",
            Step::Call => "call",
            Step::Scatter => "scatter",
            Step::Online => "online",
            Step::Checkpoint => "checkpoint",
        }
    }
}

/// The counters of one stream, shared by its threads.
pub struct Steps {
    clock: Option<Arc<dyn Clock>>,
    spent_us: [AtomicU64; Step::ALL.len()],
    longest_pause_us: AtomicU64,
}

impl Steps {
    pub fn new(clock: Arc<dyn Clock>) -> Steps {
        Steps { clock: Some(clock), spent_us: Default::default(), longest_pause_us: Default::default() }
    }

    /// Counters that stay at zero.
    pub fn untimed() -> Steps {
        Steps { clock: None, spent_us: Default::default(), longest_pause_us: Default::default() }
    }

    fn now_us(&self) -> u64 {
        self.clock.as_ref().map_or(0, |clock| clock.monotonic_us())
    }

    /// Begins to time what comes now.
    pub fn start(&self) -> Lap<'_> {
        Lap { steps: self, since_us: self.now_us() }
    }

    /// Microseconds by the names of steps.
    pub fn spent_us(&self) -> BTreeMap<&'static str, u64> {
        let spent = |step: Step| (step.name(), self.spent_us[step as usize].load(Ordering::Relaxed));
        Step::ALL.into_iter().map(spent).collect()
    }

    /// The longest that a folding thread took no rows because of a checkpoint, in microseconds.
    pub fn longest_pause_us(&self) -> u64 {
        self.longest_pause_us.load(Ordering::Relaxed)
    }
}

/// One thread's way through the steps.
pub struct Lap<'a> {
    steps: &'a Steps,
    since_us: u64,
}

impl Lap<'_> {
    /// What has passed since the last end belongs to this step.
    pub fn end(&mut self, step: Step) {
        let now_us = self.steps.now_us();
        self.steps.spent_us[step as usize].fetch_add(now_us.saturating_sub(self.since_us), Ordering::Relaxed);
        self.since_us = now_us;
    }

    /// What has passed since the last end was a pause of the thread's work on rows. It belongs to its steps besides.
    pub fn note_pause(&self) {
        let passed_us = self.steps.now_us().saturating_sub(self.since_us);
        self.steps.longest_pause_us.fetch_max(passed_us, Ordering::Relaxed);
    }
}
