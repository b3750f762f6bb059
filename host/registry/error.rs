//! What can go wrong with the registry, by what the reader must do.

use crate::define::DefineError;
use crate::storage::StorageError;
use onefold_fold::{ClaimRefused, ModuleRefused};

#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// Mend the definitions.
    #[error(transparent)]
    Define(#[from] DefineError),
    /// Build the module differently.
    #[error("module `{name}` is refused: {refused}")]
    ModuleRefused { name: String, refused: ModuleRefused },
    /// Write the UDF differently.
    #[error("module `{name}` is refused: {refused}")]
    ClaimRefused { name: String, refused: ClaimRefused },
    /// Ask for something else: there is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// Look at what is there now and do it again: someone else was faster, or it is still in use.
    #[error("{0}")]
    Conflict(String),
    /// Allow it (`--allow-breaking`), or keep what is used.
    #[error("this would break what is registered: {}; use --allow-breaking to do it all the same", .0.join("; "))]
    Breaks(Vec<String>),
    /// See to the data directory.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Restore it: an object of the registry is not what was written.
    #[error("the registry's object `{path}` is damaged ({reason}): {}", way_back(.path))]
    Damaged { path: String, reason: String },
}

/// What helps, by what the object is.
fn way_back(path: &str) -> &'static str {
    if path.ends_with(".wasm") {
        return "restore it from a copy, or put the module's file of this digest there";
    }
    match path.contains("/revisions/") {
        true => "restore it from a copy, or, if it is the newest, remove it and apply the definitions again",
        false => "restore it from a copy, or remove it and push the module again",
    }
}
