//! Onefold: one definition of a feature, run bit for bit the same in a stream and in a batch.

pub mod define;
pub mod std_module;
