//! `where`: a native comparison of one column with constants (rule 15 of the window rules).

use serde::{Deserialize, Serialize};

/// The operators of `where`, the same as those of `std.filter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operator {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    In,
    NotIn,
    IsNull,
    NotNull,
}

/// A constant of a `where`, already of its column's kind. Floats are held as bits, so that equal means identical.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Literal {
    Boolean(bool),
    Int64(i64),
    Float64Bits(u64),
    /// Microseconds since the epoch, UTC.
    Timestamp(i64),
    Utf8(String),
    Binary(Vec<u8>),
}

/// One comparison. `values` holds one literal for the comparing operators, any number for `in` and `not_in`, none
/// for the null tests. A feature's `where` is a list of these, all of which must hold.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Comparison {
    pub column: String,
    pub operator: Operator,
    pub values: Vec<Literal>,
}
