//! What stream and batch have in common before the fold: which columns a project computes, and rows with them.

mod batch;
mod layout;

pub use batch::{Failure, RefusedRow, RowBatch, RowsError, Stage, Transforms};
pub use layout::{Layout, MadeOf, RowSet, RowSpace, Step, TableFeature, TableLayout, UnknownColumn, ViewColumn, ViewLayout, retention_us};
