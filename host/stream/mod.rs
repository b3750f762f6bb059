//! The streaming host: from a source's log through decode, transforms and routing to shards, fold and online store.

mod compiled;
mod fold_table;
mod judge;
mod letter;
mod reading;
mod router;
mod runtime;
mod status;
mod steps;
mod worker;

pub use compiled::{CompileError, Compiled};
pub use fold_table::{FeatureRefusal, FoldTableError, GroupTables, TableFold, Touched, fold_touched};
pub use judge::judge;
pub use letter::{Letter, Reason, RefusedBy, load as load_letters, store as store_letters};
pub use router::{Bounds, Places, RouteError, Routed, RoutedTable, Router};
pub use runtime::{Stopped, Stream, StreamError, StreamParts, StreamSettings, Watch};
pub use status::{SourceStatus, StreamStatus, TableStatus};
pub use steps::{Lap, Step, Steps};
pub use worker::{GroupState, Worker, clocks_of, split_groups, table_records};
