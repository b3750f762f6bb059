//! Onefold: one definition of a feature, run bit for bit the same in a stream and in a batch.

pub mod clock;
pub mod decode;
pub mod define;
pub mod registry;
pub mod std_module;
pub mod storage;
