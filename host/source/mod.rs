//! Where events come from. Now: HTTP pushes in a durable local log.

mod frame;
mod log_writer;
mod push_log;
mod reader;
mod records;

pub use push_log::{Append, Appended, IdempotencyKey, LogError, LogSettings, PushLog};
pub use reader::{LogBatch, LogReader};
pub use records::Records;
