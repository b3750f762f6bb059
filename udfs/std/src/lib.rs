//! The standard library of UDFs: module `std`. Every aggregate gives the same bits in any order, split or merge.

pub mod exact;
mod inputs;
mod newest;
mod sums;

pub use newest::{First, Last};
pub use sums::{Count, Mean, Sum};

onefold_udf::export![Count, Sum, Mean, First, Last];
