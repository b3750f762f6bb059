//! The registry: modules and revisions of a project, as objects that are created once and never changed.
//!
//! `projects/{project}/revisions/{number}.json` is one whole checked project; the greatest number is what is live.
//! Whoever creates the next number has applied; whoever finds it there has lost and starts again. A module's bytes
//! lie under their digest, its versions beside them.

mod apply;
mod catalog;
mod error;
mod modules;
mod revisions;

pub use apply::{ApplyOptions, Proposal, commit, plan_apply, plan_pause, plan_removal, plan_rollback, upload_modules};
pub use catalog::{Catalog, ModuleCache};
pub use error::RegistryError;
pub use modules::{ModuleRecord, Put, UdfRecord};
pub use revisions::{Revision, RevisionNotes};

use crate::define::{Digest, check_name};
use crate::storage::{Storage, StorageError, unsealed_json};
use serde::de::{DeserializeOwned, IgnoredAny};
use std::sync::Arc;

/// The name under which the program's own module is registered.
const STANDARD: &str = "std";

/// The registry of one project. Cheap to clone.
#[derive(Clone)]
pub struct Registry {
    storage: Arc<dyn Storage>,
    project: String,
}

impl Registry {
    /// The registry of a project, whether anything is in it yet or not. The name must be one.
    pub fn of(storage: Arc<dyn Storage>, project: &str) -> Result<Registry, RegistryError> {
        check_name(project).map_err(RegistryError::NotFound)?;
        Ok(Registry { storage, project: project.to_owned() })
    }

    /// The projects in which something was applied or uploaded, in order of name.
    pub fn projects(storage: &dyn Storage) -> Result<Vec<String>, StorageError> {
        let paths = storage.list("projects/")?;
        let mut names: Vec<String> =
            paths.iter().filter_map(|path| path.split('/').nth(1)).map(str::to_owned).collect();
        names.dedup();
        Ok(names)
    }

    /// What is not as it was written, each object with its remedy, whether or not anything live needs it.
    pub fn check(&self) -> Result<Vec<String>, RegistryError> {
        let mut told = Vec::new();
        for path in self.storage.list(&self.path("revisions/"))? {
            told.extend(self.read_json::<IgnoredAny>(&path).err().map(|error| error.to_string()));
        }
        for path in self.storage.list(&self.path("modules/"))? {
            let (name, kind) = path.rsplit('/').next().and_then(|name| name.split_once('.')).unwrap_or_default();
            match kind {
                "json" => told.extend(self.read_json::<IgnoredAny>(&path).err().map(|error| error.to_string())),
                "wasm" => {
                    let found = Digest::of(&self.storage.read(&path)?.unwrap_or_default());
                    if found.hex() != name {
                        let reason = format!("its bytes are {found}");
                        told.push(RegistryError::Damaged { path, reason }.to_string());
                    }
                }
                _ => {}
            }
        }
        Ok(told)
    }

    /// The project's name.
    pub fn project(&self) -> &str {
        &self.project
    }

    fn path(&self, below: &str) -> String {
        format!("projects/{}/{below}", self.project)
    }

    fn read_json<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>, RegistryError> {
        let Some(bytes) = self.storage.read(path)? else { return Ok(None) };
        let damaged = |reason| RegistryError::Damaged { path: path.to_owned(), reason };
        unsealed_json(&bytes).map(Some).map_err(damaged)
    }
}

/// The number in a path's last part, before its ending.
fn number_in(path: &str) -> Option<u64> {
    path.rsplit('/').next()?.split('.').next()?.parse().ok()
}
