//! The kinds of value that cross between host and module, and the Arrow type each one is.

use arrow::datatypes::{DataType, Field as ArrowField, TimeUnit};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// A kind of the contract (`sdk/wit/udf.wit`). The set is closed: narrower outside types widen to one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Boolean,
    Int64,
    Float64,
    /// Microseconds since the epoch, UTC.
    Timestamp,
    Utf8,
    Binary,
    Int64List,
    Float32List,
    Float64List,
    Utf8List,
}

impl Kind {
    pub const ALL: [Kind; 10] = [
        Kind::Boolean,
        Kind::Int64,
        Kind::Float64,
        Kind::Timestamp,
        Kind::Utf8,
        Kind::Binary,
        Kind::Int64List,
        Kind::Float32List,
        Kind::Float64List,
        Kind::Utf8List,
    ];

    /// The one Arrow type that columns of this kind have everywhere in the hosts.
    pub fn data_type(self) -> DataType {
        let list = |item| DataType::List(Arc::new(ArrowField::new("item", item, true)));
        match self {
            Kind::Boolean => DataType::Boolean,
            Kind::Int64 => DataType::Int64,
            Kind::Float64 => DataType::Float64,
            Kind::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Kind::Utf8 => DataType::Utf8,
            Kind::Binary => DataType::Binary,
            Kind::Int64List => list(DataType::Int64),
            Kind::Float32List => list(DataType::Float32),
            Kind::Float64List => list(DataType::Float64),
            Kind::Utf8List => list(DataType::Utf8),
        }
    }

    /// The kind whose `data_type` this is, if there is one.
    pub fn of(data_type: &DataType) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.data_type() == *data_type)
    }

    /// The name users write in definitions.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Boolean => "boolean",
            Kind::Int64 => "int64",
            Kind::Float64 => "float64",
            Kind::Timestamp => "timestamp",
            Kind::Utf8 => "utf8",
            Kind::Binary => "binary",
            Kind::Int64List => "list<int64>",
            Kind::Float32List => "list<float32>",
            Kind::Float64List => "list<float64>",
            Kind::Utf8List => "list<utf8>",
        }
    }

    /// The kind a user's name means.
    pub fn from_name(name: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// A named column of a kind. Every column may be null.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Field {
    pub name: String,
    pub kind: Kind,
}

impl Field {
    pub fn new(name: impl Into<String>, kind: Kind) -> Field {
        Field { name: name.into(), kind }
    }

    /// The Arrow field of this column.
    pub fn to_arrow(&self) -> ArrowField {
        ArrowField::new(&self.name, self.kind.data_type(), true)
    }
}
