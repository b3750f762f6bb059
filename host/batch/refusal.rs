//! Rows that took no part, with the reason: what the dead letters of a stream are, for files and logs that are read.

use crate::define::Digest;
use crate::rows::Stage;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Mutex, PoisonError};

/// A row, or a part of what is made of it, that was refused.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Refusal {
    pub source: String,
    pub place: Place,
    /// Which of the rows that transforms made of the record.
    pub sub_row: u32,
    pub stage: Stage,
    pub refused_by: RefusedBy,
    pub message: String,
}

/// Where a row stands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// Row of a file, from 0.
    File { path: String, row: u64 },
    /// Position in the source's push log.
    Log { position: u64 },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::File { path, row } => write!(f, "row {row} of {path}"),
            Place::Log { position } => write!(f, "position {position} of the log"),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}: {}", self.source, self.place, self.message)
    }
}

/// What does without the row; nothing else lacks it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusedBy {
    /// Everything: the row could not be decoded as a whole, or came from the future.
    All,
    /// One entity table: its keys, or a transform that makes rows.
    Table(Digest),
    /// One feature, by fingerprint.
    Feature(Digest),
}

/// Takes refusals, from several threads and in no order. A run tells each once; where two tables read one source, a
/// row that is refused by all is told by both.
pub trait RefusalSink: Send + Sync {
    fn refused(&self, refusal: Refusal);
}

/// How many there were, and the first of them: all a command needs to say.
#[derive(Default)]
pub struct Refusals {
    inner: Mutex<RefusalSummary>,
}

/// Counts of distinct kinds, and examples.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RefusalSummary {
    /// By stage and who refused.
    pub counts: BTreeMap<(Stage, RefusedBy), u64>,
    /// The smallest by source and place, at most [`Refusals::EXAMPLES`].
    pub examples: BTreeSet<Refusal>,
}

impl Refusals {
    /// So many are kept whole.
    pub const EXAMPLES: usize = 1000;

    pub fn summary(&self) -> RefusalSummary {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl RefusalSummary {
    pub fn total(&self) -> u64 {
        self.counts.values().sum()
    }
}

impl RefusalSink for Refusals {
    fn refused(&self, refusal: Refusal) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        *inner.counts.entry((refusal.stage, refusal.refused_by)).or_default() += 1;
        inner.examples.insert(refusal);
        // The greatest goes, so that what is kept does not depend on which thread came first.
        if inner.examples.len() > Refusals::EXAMPLES {
            inner.examples.pop_last();
        }
    }
}
