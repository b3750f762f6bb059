//! State in memory, and the protocol by which it survives.

mod arena;
mod table;

pub use arena::{Arena, Slice};
pub use table::{CellColumn, EntityNumber, EntityTable};
