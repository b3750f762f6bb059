//! The data URL: where registry, modules, push log, checkpoints and state live, behind one narrow seam.
//!
//! Objects are written once and never changed (`create`), which is all that an object store can promise; the push log
//! alone appends. Everything is synchronous: callers own threads that may wait for a disk.

mod files;
#[doc(hidden)]
pub mod forgetful;
mod format;
mod local;
mod lock;
mod look;
mod sealed;

use bytes::Bytes;
use std::io;
use std::path::PathBuf;

pub use files::Halt;
pub use format::check_format;
pub use local::LocalStorage;
pub use lock::{DataLock, Owner};
pub use look::LookStorage;
pub use sealed::{seal, sealed_json, unseal, unsealed_json};

/// Whether `create` made the object, or found one of that name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "an object that exists already holds other bytes than these"]
pub enum Creation {
    Created,
    AlreadyExists,
}

/// A place that keeps bytes under paths: relative, parts joined by `/`, each part non-empty and not beginning with a dot.
///
/// What a method reported as done survives a crash of process and machine, unless it says otherwise.
pub trait Storage: Send + Sync {
    /// Stores an object whole or not at all, unless one of that path exists: then nothing changes.
    fn create(&self, path: &str, bytes: &[u8]) -> Result<Creation, StorageError>;

    /// The object's bytes; `None` when there is none.
    fn read(&self, path: &str) -> Result<Option<Bytes>, StorageError>;

    /// `length` bytes from `offset`; shorter where the object ends, `None` when there is none.
    fn read_range(&self, path: &str, offset: u64, length: usize) -> Result<Option<Bytes>, StorageError>;

    /// The size in bytes; `None` when there is none.
    fn size(&self, path: &str) -> Result<Option<u64>, StorageError>;

    /// The paths that begin with this text, sorted as bytes.
    fn list(&self, prefix: &str) -> Result<Vec<String>, StorageError>;

    /// Removes an object; one that is not there is no error. A crash soon after may bring it back.
    fn delete(&self, path: &str) -> Result<(), StorageError>;

    /// Opens a file for appending, made empty if there is none. The name survives a crash once this has returned; bytes
    /// do only after `AppendFile::sync`.
    fn open_append(&self, path: &str) -> Result<Box<dyn AppendFile>, StorageError>;

    /// A named place where a test may let everything stop as a crash would; elsewhere nothing happens.
    fn crash_point(&self, _name: &'static str) -> Result<(), StorageError> {
        Ok(())
    }
}

/// A file that grows at its end.
pub trait AppendFile: Send {
    /// Writes at the end. After an error any part of `bytes` may stand there: `truncate` to the length before.
    fn append(&mut self, bytes: &[u8]) -> Result<(), StorageError>;

    /// Returns once all that was appended or truncated survives a crash.
    fn sync(&mut self) -> Result<(), StorageError>;

    /// Bytes in the file, synced or not.
    fn length(&self) -> u64;

    /// Cuts the file to this many bytes.
    fn truncate(&mut self, length: u64) -> Result<(), StorageError>;

    /// Up to `length` bytes from `offset`; fewer where the file ends.
    fn read_at(&self, offset: u64, length: usize) -> Result<Bytes, StorageError>;
}

/// Why storage could not do it, by what to do next.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// Nothing more can be written until someone makes room; reading goes on.
    #[error("cannot write `{path}`: {source}; free space or make it writable, then it goes on by itself")]
    Unwritable { path: String, source: io::Error },
    /// The disk or its file system failed.
    #[error("cannot {action} `{path}`: {source}")]
    Failed { action: &'static str, path: String, source: io::Error },
    /// A caller's path or URL is not of the form it must have.
    #[error("{0}")]
    Invalid(String),
    /// Another process owns the data directory.
    #[error(
        "the data in `{directory}` belongs to a running process{}; {}",
        owner.as_ref().map(|owner| format!(" ({owner})")).unwrap_or_default(),
        match owner.as_ref().is_some_and(|owner| owner.listen.is_some()) {
            true => "stop it, or send the command to it",
            false => "wait until it has ended or, where it is a server that starts, listens; or stop it",
        }
    )]
    Held { directory: String, owner: Option<Owner> },
}

impl StorageError {
    /// Sorts an error of the file system by what the reader must do about it.
    fn of(action: &'static str, path: &str, source: io::Error) -> StorageError {
        use io::ErrorKind::{PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
        let path = path.to_owned();
        match source.kind() {
            StorageFull | QuotaExceeded | ReadOnlyFilesystem => StorageError::Unwritable { path, source },
            PermissionDenied if action != "read" && action != "list" => StorageError::Unwritable { path, source },
            _ => StorageError::Failed { action, path, source },
        }
    }

    /// Whether waiting for space (and not repair) is what helps.
    pub fn is_unwritable(&self) -> bool {
        matches!(self, StorageError::Unwritable { .. })
    }
}

/// The directory that a data URL means: `file:///absolute`, or a path.
pub fn directory_of(data: &str) -> Result<PathBuf, StorageError> {
    let wrong = |why: &str| StorageError::Invalid(format!("`{data}` cannot hold data: {why}"));
    if data.is_empty() {
        return Err(wrong("write a directory or file:///directory"));
    }
    match data.split_once("://") {
        None => Ok(PathBuf::from(data)),
        Some(("file", _)) => url::Url::parse(data)
            .ok()
            .and_then(|url| url.to_file_path().ok())
            .ok_or_else(|| wrong("write it as file:///absolute/directory")),
        Some((scheme, _)) => Err(wrong(&format!("{scheme}:// is not supported yet, only directories and file:// are"))),
    }
}

/// Refuses a path that could leave the data directory or meet a file of our own.
fn check_path(path: &str) -> Result<(), StorageError> {
    let fine = path.split('/').all(|part| !part.is_empty() && !part.starts_with('.') && !part.contains(['\\', '\0']));
    if fine {
        return Ok(());
    }
    Err(StorageError::Invalid(format!(
        "`{path}` is no path in a data directory: parts are joined by `/` and begin with no dot"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_leave_the_directory_are_refused() {
        for path in ["", "/a", "a//b", "a/", "../a", "a/../b", ".temporary/a", "a\\b"] {
            assert!(check_path(path).is_err(), "{path}");
        }
        assert!(check_path("projects/p1/log/0001.log").is_ok());
    }

    #[test]
    fn data_urls() {
        assert_eq!(directory_of("file:///var/data").unwrap(), PathBuf::from("/var/data"));
        assert_eq!(directory_of("./.onefold").unwrap(), PathBuf::from("./.onefold"));
        assert!(directory_of("s3://bucket/x").unwrap_err().to_string().contains("s3:// is not supported yet"));
        assert!(directory_of("file://relative").is_err());
    }
}
