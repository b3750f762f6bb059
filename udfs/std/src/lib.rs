//! The standard library of UDFs: module `std`. Every aggregate gives the same bits in any order, split or merge.

mod coalesce;
mod convert;
mod distinct;
mod exact;
mod extremes;
mod few;
mod filter;
mod inputs;
mod newest;
mod plain;
mod row;
mod several;
mod spread;
mod sums;
#[cfg(test)]
mod tests;

pub use coalesce::Coalesce;
pub use convert::Cast;
pub use distinct::{CollectDistinct, CountDistinct};
pub use extremes::{Max, Min};
pub use filter::Filter;
pub use newest::{First, Last};
pub use row::LastRow;
pub use several::{FirstN, LastN, LastNMean, LastNSum};
pub use spread::{StddevPop, StddevSamp, VarPop, VarSamp};
pub use sums::{Count, Mean, Sum};

onefold_udf::export![
    Count,
    CountDistinct,
    Sum,
    Mean,
    Min,
    Max,
    VarSamp,
    VarPop,
    StddevSamp,
    StddevPop,
    First,
    Last,
    FirstN,
    LastN,
    LastRow,
    LastNSum,
    LastNMean,
    CollectDistinct,
    Filter,
    Coalesce,
    Cast,
];
