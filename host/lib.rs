//! Onefold: one definition of a feature, run bit for bit the same in a stream and in a batch.

pub mod arena;
pub mod batch;
pub mod canonical;
pub mod cases;
pub mod cli;
pub mod clock;
pub mod decode;
pub mod define;
pub mod draft;
#[cfg(test)]
mod mangle;
pub mod online;
pub mod platform;
pub mod registry;
pub mod route;
pub mod rows;
pub mod serve;
pub mod settings;
pub mod source;
pub mod state;
pub mod std_module;
pub mod storage;
pub mod stream;
