//! The one fold: runs UDFs over tapes and knows how windows, tiles and probes become tapes.
//!
//! This crate performs no I/O, reads no clock and cannot tell who called it: stream, batch, point-in-time retrieval,
//! verify and the on-demand path all run values through it, which is why they agree to the bit.

mod kind;
mod predicate;
mod window;

pub use kind::{Field, Kind};
pub use predicate::{Comparison, Literal, Operator};
pub use window::{DAY_US, HOUR_US, MINUTE_US, Window, default_hop_us};
