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

impl From<RouteError> for PlatformError {
    fn from(error: RouteError) -> PlatformError {
        PlatformError::Stream(error.into())
    }
}
