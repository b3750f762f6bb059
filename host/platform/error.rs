//! What can go wrong with a request to the platform, by what its sender must do.

use crate::batch::BatchError;
use crate::online::OnlineError;
use crate::registry::RegistryError;
use crate::source::LogError;
use crate::state::CheckpointError;
use crate::storage::StorageError;
use crate::stream::{CompileError, RouteError, StreamError};

#[derive(Debug, thiserror::Error)]
pub enum PlatformError {
    /// Ask for something that is there.
    #[error("{0}")]
    NotFound(String),
    /// Send something else.
    #[error("{0}")]
    Invalid(String),
    /// Send it again later: nothing of it was taken.
    #[error("{0}")]
    Unavailable(String),
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Stream(#[from] StreamError),
    #[error(transparent)]
    Compile(#[from] CompileError),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(transparent)]
    Batch(BatchError),
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    Online(#[from] OnlineError),
    #[error("{0}")]
    Engine(String),
}

impl PlatformError {
    /// Whether it goes again, unchanged, once there is room or the data can be written.
    pub fn is_unwritable(&self) -> bool {
        let storage = match self {
            PlatformError::Log(LogError::Storage { unwritable, .. })
            | PlatformError::Stream(StreamError::Log(LogError::Storage { unwritable, .. })) => return *unwritable,
            PlatformError::Storage(error)
            | PlatformError::Registry(RegistryError::Storage(error))
            | PlatformError::Checkpoint(CheckpointError::Storage(error))
            | PlatformError::Stream(
                StreamError::Storage(error) | StreamError::Checkpoint(CheckpointError::Storage(error)),
            ) => error,
            _ => return false,
        };
        storage.is_unwritable()
    }
}

impl From<RouteError> for PlatformError {
    fn from(error: RouteError) -> PlatformError {
        PlatformError::Stream(error.into())
    }
}
