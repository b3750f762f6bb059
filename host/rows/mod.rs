//! What stream and batch have in common before the fold: which columns a project computes, and rows with them.

mod batch;
mod future;
mod layout;
mod on_demand;

pub use batch::{Failure, RefusedRow, RowBatch, RowsError, Stage, Transforms};
pub use future::{future_message, instant};
pub use layout::{
    Layout, MadeOf, Paused, RowSet, RowSpace, Since, Step, TableFeature, TableLayout, UnknownColumn, ViewColumn,
    ViewLayout, retention_us,
};
pub use on_demand::{OnDemandValues, on_demand_values};
