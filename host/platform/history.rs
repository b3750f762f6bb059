//! What files a source's state is made of: the list that `materialize` pins.

use super::PlatformError;
use crate::batch::{BatchError, PinnedFile};
use crate::define::Digest;
use crate::storage::{Creation, Storage};
use serde::{Deserialize, Serialize};

/// Files as they were, and which of their rows were taken.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pins {
    pub files: Vec<PinnedFile>,
    /// Rows with `from <= event time < to` alone.
    pub from_us: Option<i64>,
    pub to_us: Option<i64>,
}

impl Pins {
    /// By which row sets name these rows.
    pub fn digest(&self) -> Digest {
        Digest::of(serde_json::to_string(self).unwrap_or_default().as_bytes())
    }

    /// Stores the list under its digest.
    pub fn store(&self, storage: &dyn Storage, project: &str) -> Result<Digest, PlatformError> {
        let digest = self.digest();
        let bytes = serde_json::to_vec(self).map_err(|error| PlatformError::Invalid(error.to_string()))?;
        match storage.create(&path(project, &digest), &bytes)? {
            Creation::Created | Creation::AlreadyExists => Ok(digest),
        }
    }

    /// The list of this digest.
    pub fn load(storage: &dyn Storage, project: &str, digest: &Digest) -> Result<Pins, PlatformError> {
        let path = path(project, digest);
        let gone = |reason: String| {
            PlatformError::Invalid(format!(
                "`{path}`, the list of files that state was made of, {reason}: restore it from a copy, or materialize again"
            ))
        };
        let bytes = storage.read(&path)?.ok_or_else(|| gone("is gone".into()))?;
        let pins: Pins = serde_json::from_slice(&bytes).map_err(|error| gone(format!("is damaged ({error})")))?;
        match pins.digest() == *digest {
            true => Ok(pins),
            false => Err(gone("is damaged (it is another list than its name says)".into())),
        }
    }
}

/// What of the stored lists is not what was written, each file with its remedy.
pub(super) fn check_pins(storage: &dyn Storage, project: &str) -> Result<Vec<String>, PlatformError> {
    let mut told = Vec::new();
    for path in storage.list(&format!("projects/{project}/pins/"))? {
        let name = path.rsplit('/').next().and_then(|name| name.strip_suffix(".json")).unwrap_or_default();
        match format!("sha256:{name}").parse::<Digest>() {
            Ok(digest) => told.extend(Pins::load(storage, project, &digest).err().map(|error| error.to_string())),
            Err(_) => told.push(format!("`{path}` is no list of files that state was made of: remove it")),
        }
    }
    Ok(told)
}

fn path(project: &str, digest: &Digest) -> String {
    format!("projects/{project}/pins/{}.json", digest.hex())
}

impl From<BatchError> for PlatformError {
    fn from(error: BatchError) -> PlatformError {
        PlatformError::Batch(error)
    }
}
