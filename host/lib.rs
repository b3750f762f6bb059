//! Onefold: one definition of a feature, run bit for bit the same in a stream and in a batch.

pub mod clock;
pub mod define;
pub mod registry;
pub mod storage;
pub mod source;
pub mod decode;
pub mod rows;
pub mod route;
pub mod state;
pub mod online;
pub mod stream;
pub mod cli;
pub mod std_module;
