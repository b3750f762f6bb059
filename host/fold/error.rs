//! What can go wrong between host and module, sorted by who must act: the author, the definition, or one op.

use std::fmt;

/// The engine itself could not be made or was asked for the impossible: the operator's or this program's fault.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct FoldError(pub String);

/// An upload that cannot become a module. Its author must build it differently; `remedy` says how.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{saw}: {rule}; {remedy}")]
pub struct ModuleRefused {
    /// What was found in the bytes.
    pub saw: String,
    /// What holds for every module.
    pub rule: String,
    /// What to change, a compiler's flag where there is one.
    pub remedy: String,
}

impl ModuleRefused {
    pub(crate) fn new(saw: impl fmt::Display, rule: impl fmt::Display, remedy: impl fmt::Display) -> ModuleRefused {
        ModuleRefused { saw: saw.to_string(), rule: rule.to_string(), remedy: remedy.to_string() }
    }
}

/// A UDF cannot be used with these parameters and inputs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrepareError {
    /// The module has no UDF of that name; the second value lists those it has.
    #[error("udf `{0}` is not in the module: it has {1}")]
    Unknown(String, String),
    /// The module's own words on parameters or input kinds. The definition is to be changed.
    #[error("{0}")]
    Refused(String),
    /// The module failed or broke the contract in `prepare`. Its author must act.
    #[error("prepare of udf `{udf}` failed: {failure}")]
    Failed { udf: String, failure: CallFailure },
}

/// Why a call gave nothing. Nothing of a failed call counts; `FoldJob` finds the ops that are to blame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallFailure {
    /// The module named all ops of the tape that failed, by index, ascending, each with its reason.
    #[error("{} ops failed, the first (op {}): {}", .0.len(), .0.first().map_or(0, |op| op.0), .0.first().map_or("", |op| op.1.as_str()))]
    Ops(Vec<(u32, String)>),
    /// The module trapped; the text is the engine's, without addresses.
    #[error("trap: {0}; a udf answers a row that it cannot take with an error, and never traps")]
    Trap(String),
    /// The call used up its fuel.
    #[error("out of fuel: the call took more than {0} units; make the work per row smaller")]
    Fuel(u64),
    /// The call asked for more memory than a module has.
    #[error("out of memory: the module asked for more than {0} bytes; keep less in the state")]
    Memory(u64),
    /// Results, all together or one value, are larger than a module may return.
    #[error("output too large: {what} is above the limit of {limit} bytes; return less")]
    OutputTooLarge { what: String, limit: u64 },
    /// These kept slots hold a state above the limit. By rule it is the last op that wrote the slot that failed.
    #[error("state too large: {} slots are above the limit of {limit} bytes encoded, the first is slot {}", .slots.len(), .slots.first().copied().unwrap_or(0))]
    StatesTooLarge { slots: Vec<u32>, limit: u64 },
    /// The module broke the contract: a result that cannot be read.
    #[error("the module broke the contract: {0}")]
    Invalid(String),
    /// The host called wrongly: columns, states or tape do not fit the UDF or each other.
    #[error("the call does not fit the udf: {0}")]
    Input(String),
}

/// A module is not what it claims to be (rule 13 of the window rules).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("udf `{udf}` is not what it claims: {saw}; the rule is that {rule}; {remedy}")]
pub struct ClaimRefused {
    pub udf: String,
    /// What was seen, and on which rows.
    pub saw: String,
    /// What holds for every UDF, or for every one that claims it.
    pub rule: String,
    pub remedy: String,
}
