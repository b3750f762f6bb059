//! Onefold: one definition of a feature, run bit for bit the same in a stream and in a batch.

pub mod canonical;
pub mod cli;
pub mod clock;
pub mod decode;
pub mod define;
pub mod source;
pub mod storage;
