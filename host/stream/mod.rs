//! The streaming host: from a source's log through decode, transforms and routing to shards, fold and online store.

mod compiled;
mod fold_table;
mod letter;
mod router;
mod runtime;
mod steps;
mod worker;

pub use compiled::{CompileError, Compiled};
pub use fold_table::{FeatureRefusal, FoldTableError, GroupTables, Touched, fold_touched};
pub use letter::{Letter, Reason, RefusedBy, load as load_letters};
pub use router::{Bounds, Places, RouteError, Routed, RoutedTable, Router};
pub use runtime::{SourceStatus, Stopped, Stream, StreamError, StreamParts, StreamSettings, StreamStatus, TableStatus};
pub use steps::{Lap, Step, Steps};
pub use worker::{GroupState, Worker, clocks_of, split_groups, table_records};
