//! What a stream says of itself.

use serde::Serialize;
use std::collections::BTreeMap;

/// What a stream says of itself. Counts go on over the streams of one process.
#[derive(Clone, Debug, Default, Serialize)]
pub struct StreamStatus {
    pub sources: BTreeMap<String, SourceStatus>,
    pub tables: Vec<TableStatus>,
    pub checkpoint_epoch: u64,
    pub checkpoint_bytes: u64,
    pub checkpoint_us: u64,
    /// The longest that a folding thread took no rows because of a checkpoint, since the start.
    pub checkpoint_pause_us: u64,
    /// Why the newest checkpoint is not stored yet: it is tried again. Null while all goes well.
    pub checkpoint_error: Option<String>,
    /// By reason, as they were met by this process.
    pub dead_letters: BTreeMap<String, u64>,
    /// How long the threads were busy since the start, by step.
    pub busy_us: BTreeMap<&'static str, u64>,
    /// Why it has stopped; null while it runs.
    pub error: Option<String>,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct SourceStatus {
    /// Records that a lookup would see.
    pub position: u64,
    pub end_position: u64,
    pub rows: u64,
    pub null_keys: u64,
    pub newest_us: Option<i64>,
    pub clock_us: Option<i64>,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct TableStatus {
    pub table: String,
    pub entities: u64,
    pub state_bytes: u64,
}
