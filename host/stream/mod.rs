//! The streaming host: from a source's log through decode, transforms and routing to shards, fold and online store.

mod compiled;
mod fold_ordered;
mod fold_table;
mod judge;
mod letter;
mod reading;
mod router;
mod runtime;
mod status;
mod steps;
mod storing;
mod touched;
mod worker;

pub use compiled::{CompileError, Compiled};
pub use fold_ordered::OrderedRefusal;
pub use fold_table::{FeatureRefusal, FoldTableError, Ordered, Refused, TableFold, fold_touched};
pub use judge::judge;
pub use letter::{
    Letter, Reason, RefusedBy, check as check_letters, load as load_letters, publish_late, store as store_letters,
};
pub use router::{Bounds, Places, RouteError, Routed, RoutedTable, Router};
pub use runtime::{Stopped, Stream, StreamError, StreamParts, StreamSettings, Watch};
pub use status::{SourceStatus, StreamStatus, TableStatus};
pub use steps::{Lap, Step, Steps};
pub use touched::{GroupTables, NewRows, Touched};
pub use worker::{GroupState, Worker, clocks_of, split_groups, table_records};
