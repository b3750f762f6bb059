//! Which format a data directory has, so that a program never takes a newer one for its own.

use super::{Creation, Storage, StorageError};
use serde::{Deserialize, Serialize};

/// Raised whenever an older program could not read what this one writes, or would read it wrongly.
const FORMAT: u64 = 1;
const PATH: &str = "format.json";

#[derive(Serialize, Deserialize)]
struct Format {
    format: u64,
    /// For people: which program made the directory.
    #[serde(default)]
    written_by: String,
}

/// Refuses data of another format; where there are none yet, says that they are of this one.
pub fn check_format(storage: &dyn Storage) -> Result<(), StorageError> {
    let own = Format { format: FORMAT, written_by: format!("onefold {}", env!("CARGO_PKG_VERSION")) };
    let text = serde_json::to_vec(&own).map_err(|error| StorageError::Invalid(error.to_string()))?;
    let Some(bytes) = storage.read(PATH)? else {
        return match storage.create(PATH, &text)? {
            Creation::Created | Creation::AlreadyExists => Ok(()),
        };
    };
    let found: Format = serde_json::from_slice(&bytes).map_err(|error| {
        StorageError::Invalid(format!(
            "`{PATH}` of the data directory cannot be read ({error}): restore it, it holds {{\"format\":{FORMAT}}}"
        ))
    })?;
    if found.format == FORMAT {
        return Ok(());
    }
    let by = match found.written_by.as_str() {
        "" => String::new(),
        by => format!(", written by {by}"),
    };
    Err(StorageError::Invalid(format!(
        "`{PATH}` says that the data directory has format {}{by}; this is onefold {}, which reads and writes format \
         {FORMAT}: run the version that wrote it, or give another directory with --data",
        found.format,
        env!("CARGO_PKG_VERSION")
    )))
}
