//! What can be wrong with definitions, each problem with the place where a person can mend it.

use std::fmt;
use std::sync::Arc;

/// One thing to mend: `file:line: message`, where the message is value, rule and remedy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    pub file: Arc<str>,
    /// From 1; 0 where the file as a whole is meant.
    pub line: u32,
    /// From 1, in characters; 0 where the line as a whole is meant.
    pub column: u32,
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(formatter, "{}: {}", self.file, self.message),
            line => write!(formatter, "{}:{line}: {}", self.file, self.message),
        }
    }
}

/// Sorted by what the reader must do next.
#[derive(Debug, thiserror::Error)]
pub enum DefineError {
    /// Mend the definitions: all that was found in them at once, in order of file and line.
    #[error("{}", lines(.0))]
    Wrong(Vec<Problem>),
    /// See to the file or directory itself: it is missing, unreadable or too large.
    #[error("cannot read {path}: {reason}")]
    Unreadable { path: String, reason: String },
    /// `--locked`: a line of the lock would move. Run without it and commit the lock.
    #[error("{0}")]
    Locked(String),
}

impl DefineError {
    /// The problems, where it is the definitions that are wrong.
    pub fn problems(&self) -> &[Problem] {
        match self {
            DefineError::Wrong(problems) => problems,
            DefineError::Unreadable { .. } | DefineError::Locked(_) => &[],
        }
    }
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n")
}
