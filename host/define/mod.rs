//! Definitions: from YAML to what they mean, and what a change costs.

mod digest;
mod model;

pub use model::*;
