//! The one fold: runs UDFs over tapes and knows how windows, tiles and probes become tapes.
//!
//! This crate performs no I/O, reads no clock and cannot tell who called it: stream, batch, point-in-time retrieval,
//! verify and the on-demand path all run values through it, which is why they agree to the bit.

mod kind;
mod predicate;
mod window;

mod cell;
mod filter;
mod order;
mod pending;
mod plan;
mod run;
mod split;
mod tape;
mod tiles;

mod adapter;
mod call;
mod claims;
mod engine;
mod error;
mod generate;
mod module;
mod pool;
mod upload;
mod wire;

pub use call::{FoldCall, Folded, Mapped, Udf, op};
pub use cell::{DamagedCell, persist, persisted_tiles, restore};
pub use claims::{Compared, check_claims, check_module};
pub use engine::{Engine, Limits};
pub use error::{CallFailure, ClaimRefused, FoldError, ModuleRefused, PrepareError};
pub use filter::{FilterError, mask};
pub use kind::{Field, Kind};
pub use module::{CONTRACT, Module, Role, UdfInfo};
pub use order::{RowOrder, columns_of};
pub use pending::{Pending, PendingRow, RowPlace, persist_ordered, restore_ordered};
pub use plan::{CellPlan, Planner};
pub use predicate::{Comparison, Literal, Operator};
pub use run::{Cells, Change, FailedRow, FoldJob, JobError, Probe, Results};
pub use window::{DAY_US, HOUR_US, MINUTE_US, Window, default_hop_us};
