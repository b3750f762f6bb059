//! The kinds of value that cross between host and module.

use std::fmt;

/// A kind of the contract (`sdk/wit/udf.wit`). The set is closed: narrower outside types widen to one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    Boolean = 0,
    Int64 = 1,
    Float64 = 2,
    /// Microseconds since the epoch, UTC.
    Timestamp = 3,
    Utf8 = 4,
    Binary = 5,
    Int64List = 6,
    Float32List = 7,
    Float64List = 8,
    Utf8List = 9,
}

impl Kind {
    /// All kinds, in the order of the contract: a kind's place is its number there.
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

    /// The kind of the lists whose items are of this kind, if there is one.
    pub fn list(self) -> Option<Kind> {
        match self {
            Kind::Int64 => Some(Kind::Int64List),
            Kind::Float64 => Some(Kind::Float64List),
            Kind::Utf8 => Some(Kind::Utf8List),
            _ => None,
        }
    }

    /// The kind with this number in the contract.
    pub fn from_number(number: u8) -> Option<Kind> {
        Kind::ALL.get(usize::from(number)).copied()
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// A named column of a kind. Every column may be null.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    pub name: String,
    pub kind: Kind,
}

impl Field {
    pub fn new(name: impl Into<String>, kind: Kind) -> Field {
        Field { name: name.into(), kind }
    }
}
