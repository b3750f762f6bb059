//! Why the batch host could not do it, by what to do next.

use datafusion::error::DataFusionError;

/// The error of everything in this folder. Single rows are never a reason: they are refused and told.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// What was asked for, or a file it names, is not right: correct it.
    #[error("{0}")]
    Input(String),
    /// A file cannot be read, whole or from some place on.
    #[error("{path}: {reason}")]
    Unreadable { path: String, reason: String },
    /// A pinned file is no longer what it was.
    #[error("{path}: {reason}; the state was made of the file as it was: restore it, or materialize again")]
    Changed { path: String, reason: String },
    /// Memory or disk is not enough.
    #[error("{0}; raise the memory limit, or make room where temporary files go")]
    Resources(String),
    /// A definition or module that was accepted cannot be run.
    #[error("{0}")]
    Fold(String),
    /// Somebody did not want it any more.
    #[error("cancelled")]
    Cancelled,
    /// A fault of ours.
    #[error("{0}: this is a fault of onefold, please report it")]
    Internal(String),
}

impl BatchError {
    /// Takes our own error out of DataFusion's, or sorts DataFusion's.
    pub(super) fn of(error: DataFusionError) -> BatchError {
        match error {
            DataFusionError::External(inner) => match inner.downcast::<BatchError>() {
                Ok(own) => *own,
                Err(other) => match other.downcast::<DataFusionError>() {
                    Ok(nested) => BatchError::of(*nested),
                    Err(other) => BatchError::Internal(other.to_string()),
                },
            },
            DataFusionError::Context(_, inner) => BatchError::of(*inner),
            DataFusionError::Shared(inner) => match std::sync::Arc::try_unwrap(inner) {
                Ok(inner) => BatchError::of(inner),
                Err(inner) => BatchError::of_shared(&inner),
            },
            DataFusionError::ArrowError(inner, context) => match *inner {
                arrow::error::ArrowError::ExternalError(inner) => BatchError::of(DataFusionError::External(inner)),
                inner => BatchError::Internal(format!("{inner}{}", context.unwrap_or_default())),
            },
            other => BatchError::of_shared(&other),
        }
    }

    /// Of an error that others hold too.
    fn of_shared(error: &DataFusionError) -> BatchError {
        match error.find_root() {
            DataFusionError::External(inner) => match inner.downcast_ref::<BatchError>() {
                Some(own) => own.again(),
                None => BatchError::Internal(inner.to_string()),
            },
            DataFusionError::ResourcesExhausted(text) => BatchError::Resources(first_line(text)),
            DataFusionError::IoError(error) => BatchError::Resources(format!("temporary files: {error}")),
            other => BatchError::Internal(first_line(&other.to_string())),
        }
    }

    /// The same error once more: all partitions of an exchange fail with one.
    fn again(&self) -> BatchError {
        match self {
            BatchError::Input(text) => BatchError::Input(text.clone()),
            BatchError::Unreadable { path, reason } => {
                BatchError::Unreadable { path: path.clone(), reason: reason.clone() }
            }
            BatchError::Changed { path, reason } => BatchError::Changed { path: path.clone(), reason: reason.clone() },
            BatchError::Resources(text) => BatchError::Resources(text.clone()),
            BatchError::Fold(text) => BatchError::Fold(text.clone()),
            BatchError::Cancelled => BatchError::Cancelled,
            BatchError::Internal(text) => BatchError::Internal(text.clone()),
        }
    }

    pub(super) fn unreadable(path: impl Into<String>, reason: impl ToString) -> BatchError {
        BatchError::Unreadable { path: path.into(), reason: reason.to_string() }
    }

    pub(super) fn internal(reason: impl ToString) -> BatchError {
        BatchError::Internal(reason.to_string())
    }
}

impl From<BatchError> for DataFusionError {
    fn from(error: BatchError) -> DataFusionError {
        DataFusionError::External(Box::new(error))
    }
}

impl From<arrow::error::ArrowError> for BatchError {
    fn from(error: arrow::error::ArrowError) -> BatchError {
        BatchError::internal(error)
    }
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().trim_end_matches('.').to_owned()
}
