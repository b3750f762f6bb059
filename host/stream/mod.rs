//! The streaming host: from a source's log through decode, transforms and routing to shards, fold and online store.

mod compiled;
mod fold_table;

pub use compiled::{CompileError, Compiled};
pub use fold_table::{FeatureRefusal, FoldTableError, GroupTables, Touched, fold_touched};
