//! The batch host: the same fold over files, sorted by entity and time within a memory limit.
//!
//! Rows of a table are brought together by a plan of four operators: `RowsExec` reads and decodes (Parquet through
//! DataFusion, a push log by its reader), a hash exchange gives each thread its entities, a sort that spills to disk
//! brings each entity's rows into time order, and `FoldExec` runs them through the fold. A value is asked for by a
//! *probe*, which is sorted among the rows: one pass answers all labels of a training set, without a join.
//!
//! Nothing here decides a value: tiles, windows and calls of modules are the fold's. So neither the number of threads,
//! nor the memory limit, nor the size of a batch can reach one.

mod error;
mod files;
mod first;
mod refusal;
mod settings;
mod slice;

mod entity_rows;
mod probes;
mod rows_exec;
mod sort_row;

mod entities;
mod fold_cells;
mod fold_exec;
mod run;

mod explain;
mod historical;
mod label_file;
mod materialize;
mod on_demand;
mod parquet_in;
mod parquet_out;
mod snapshot;
mod table_values;

pub use error::BatchError;
pub use explain::{ExplainAsk, ExplainedRow, ExplainedRows, ExplainedValue, RefusedRow, Verdict};
pub use files::{PinnedFile, list_columns, list_files};
pub use first::first_rows;
pub use historical::{HistoricalAsk, HistoricalSummary, feature_references};
pub use materialize::{MaterializeAsk, Materialized, StateSink};
pub use parquet_in::{changed_files, differing_columns, file_metadata};
pub use refusal::{Place, Refusal, RefusalSink, RefusalSummary, Refusals, RefusedBy};
pub use run::LogRows;
pub use settings::{BatchHost, BatchSettings, LateRows, Prepare, Progress, Rows};
pub use snapshot::{SnapshotAsk, SnapshotSummary, snapshot_schema};
pub use table_values::{AsOf, TableAsk, ValueAt, ValueColumns};
