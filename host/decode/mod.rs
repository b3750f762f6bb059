//! From outside bytes to columns of declared kinds: JSON events and Arrow columns by one table of rules.
//!
//! | declared | JSON | what cannot be decoded |
//! |---|---|---|
//! | boolean | `true`, `false` | all else |
//! | int64 | an integer | `3.0`, `1e3`, `"12"`, beyond 64 bits |
//! | float64 | any number, to the nearest; `"NaN"`, `"Infinity"`, `"-Infinity"` | what rounds to infinity (`1e400`) |
//! | timestamp | RFC 3339 text with an offset, floored to the microsecond | no offset, years outside 0001 to 9999 |
//! | timestamp_s, _ms, _us | a number, exact in decimal, floored to the microsecond | years outside 0001 to 9999 |
//! | utf8 | text | an escape that is half a surrogate pair |
//! | binary | base64 text (standard alphabet, padded or not) | |
//! | json | anything: the exact bytes of that part | |
//! | list | a list of such items, `null` among them | an item that cannot |
//!
//! A leap second (`23:59:60` UTC, any fraction) is the last microsecond of its day: time has no name for it, and there
//! it stays in its day and in order. A missing field is null, an unknown one ignored. A field that is there twice, one
//! above 1 MiB, or one whose path leads through something that is no object cannot be decoded. That costs the row only
//! what uses the column; the whole row is refused when its text is broken or its event time is null or undecodable.

mod builder;
mod cell;
mod columns;
mod json;
mod scan;
#[cfg(test)]
mod tests;
mod timestamp;

use arrow::record_batch::RecordBatch;

pub use columns::{ColumnsDecoder, column_as, natural_kind};
pub use json::JsonDecoder;
pub use timestamp::{FIRST_US, LAST_US, parse_rfc3339};

/// The largest value: bytes of text, of binary, or of a list's items together.
pub const VALUE_LIMIT_BYTES: usize = 1 << 20;

/// A batch of decoded rows, and what could not be decoded.
#[derive(Debug)]
pub struct Decoded {
    /// The source's columns in declared order, each of its kind's `data_type()`, all nullable.
    pub batch: RecordBatch,
    /// For each row the number of the record that it came from, ascending.
    pub records: Vec<u32>,
    /// Records that gave no row, ascending.
    pub refused: Vec<Refused>,
    /// Cells that are null because they could not be decoded; by row, in no order within one.
    pub cell_failures: Vec<CellFailure>,
}

/// A record that could not be decoded as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    pub record: u32,
    pub message: String,
}

/// A cell that could not be decoded. What uses the column must not use this row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CellFailure {
    pub row: u32,
    /// Number of the column in declared order.
    pub column: u32,
    pub message: String,
}

/// Why a batch cannot be decoded at all. Single rows and cells are never a reason.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The definition cannot be decoded by.
    #[error("source `{source_name}`: its event_time `{column}` is none of its columns; declare it in the schema")]
    NoEventTime { source_name: String, column: String },
    /// A file does not have what the source declares.
    #[error("{0}")]
    WrongColumn(String),
    /// More than 32-bit offsets can tell apart; the caller makes smaller batches.
    #[error("a batch of {bytes} bytes in {records} records is too large to decode at once; at most {limit} bytes")]
    TooLarge { records: usize, bytes: usize, limit: usize },
    #[error("columns do not form a batch: {0}")]
    Arrow(#[from] arrow::error::ArrowError),
}

/// A piece of outside text for a message: short, on one line.
fn excerpt(text: &[u8]) -> String {
    const SHOWN: usize = 60;
    let shown = String::from_utf8_lossy(text.get(..SHOWN).unwrap_or(text));
    let more = if text.len() > SHOWN { "…" } else { "" };
    let mut text = String::with_capacity(shown.len() + more.len());
    for character in shown.trim_end_matches('\u{fffd}').chars() {
        // As it was sent, but for what would break a line or a terminal.
        match character {
            '"' | '\'' | '\\' => text.push(character),
            other => text.extend(other.escape_debug()),
        }
    }
    text + more
}
