//! Modules: bytes under their digest, and numbered versions of a name.
//!
//! The version's record is created after its bytes, so a record always has them. A deleted version keeps its number:
//! a lock or an `@3` somewhere never comes to mean other bytes.

use super::{Registry, RegistryError, number_in};
use crate::define::{Digest, ModuleVersion, check_name};
use crate::storage::{Creation, sealed_json};
use bytes::Bytes;
use onefold_fold::{Module, Role};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How often someone else may take the next number before we give up: far more than people upload at once.
const ATTEMPTS: u32 = 64;

/// A version of a module, as `GET /modules/{name}/{version}` shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModuleRecord {
    pub name: String,
    /// From 1; numbers of deleted versions are not used again.
    pub version: u32,
    pub digest: Digest,
    /// Bytes as uploaded.
    pub size: u64,
    pub udfs: Vec<UdfRecord>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UdfRecord {
    pub name: String,
    /// `aggregate` or `transform`.
    pub role: String,
    pub doc: String,
    /// JSON Schema of the parameters; null where it takes none.
    pub params: Value,
}

/// What a put did.
#[derive(Clone, Debug, PartialEq)]
pub enum Put {
    Created(ModuleRecord),
    /// The same bytes were there under this name.
    Existed(ModuleRecord),
}

impl Put {
    /// The version, new or not.
    pub fn record(self) -> ModuleRecord {
        match self {
            Put::Created(record) | Put::Existed(record) => record,
        }
    }
}

impl ModuleRecord {
    /// Name, version and digest alone.
    pub fn version(&self) -> ModuleVersion {
        ModuleVersion { name: self.name.clone(), version: self.version, digest: self.digest }
    }
}

impl Registry {
    /// Stores a module that the engine has checked (`module` was loaded from `bytes`).
    pub fn put_module(&self, name: &str, bytes: &[u8], module: &Module) -> Result<Put, RegistryError> {
        check_name(name).map_err(RegistryError::NotFound)?;
        let digest = Digest::of(bytes);
        for _ in 0..ATTEMPTS {
            let versions = self.versions(name)?;
            // Equal bytes have equal names here, so one that exists is the one to be written; one that is gone comes back.
            let path = self.bytes_path(name, &digest);
            if self.storage.size(&path)?.is_none() {
                let _ = self.storage.create(&path, bytes)?;
            }
            if let Some(record) = versions.into_iter().find(|record| record.digest == digest) {
                return Ok(Put::Existed(record));
            }
            let version = self.next_version(name)?;
            let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            let record = ModuleRecord { name: name.to_owned(), version, digest, size, udfs: udf_records(module) };
            let path = self.record_path(name, version);
            let text = sealed_json(&path, &record)?;
            if self.storage.create(&path, &text)? == Creation::Created {
                return Ok(Put::Created(record));
            }
        }
        Err(RegistryError::Conflict(format!("others keep uploading module `{name}`: try again")))
    }

    /// All versions of all modules, by name and number.
    pub fn modules(&self) -> Result<Vec<ModuleRecord>, RegistryError> {
        let mut names: Vec<String> = Vec::new();
        for path in self.storage.list(&self.path("modules/"))? {
            names.extend(path.split('/').nth(3).map(str::to_owned));
        }
        names.dedup();
        let mut records = Vec::new();
        for name in names {
            records.extend(self.versions(&name)?);
        }
        Ok(records)
    }

    /// The versions of a module, ascending; none when there is no such module.
    pub fn versions(&self, name: &str) -> Result<Vec<ModuleRecord>, RegistryError> {
        check_name(name).map_err(RegistryError::NotFound)?;
        let paths = self.storage.list(&self.path(&format!("modules/{name}/")))?;
        let mut records: Vec<ModuleRecord> = Vec::new();
        for path in paths.iter().filter(|path| path.ends_with(".json")) {
            records.extend(self.read_json(path)?);
        }
        records.sort_by_key(|record: &ModuleRecord| record.version);
        Ok(records)
    }

    /// One version of a module, or the newest.
    pub fn module(&self, name: &str, version: Option<u32>) -> Result<ModuleRecord, RegistryError> {
        let versions = self.versions(name)?;
        let found = match version {
            Some(version) => versions.into_iter().find(|record| record.version == version),
            None => versions.into_iter().next_back(),
        };
        found.ok_or_else(|| {
            let which =
                version.map_or_else(|| format!("module `{name}`"), |version| format!("module `{name}@{version}`"));
            RegistryError::NotFound(format!("there is no {which}: `onefold module list` shows what there is"))
        })
    }

    /// The bytes of a module as they were uploaded, checked against their digest.
    pub fn module_bytes(&self, name: &str, digest: &Digest) -> Result<Bytes, RegistryError> {
        let path = self.bytes_path(name, digest);
        let bytes = self.storage.read(&path)?.ok_or_else(|| {
            RegistryError::NotFound(format!("there are no bytes {digest} of module `{name}`: push the module again"))
        })?;
        match Digest::of(&bytes) {
            found if found == *digest => Ok(bytes),
            found => Err(RegistryError::Damaged { path, reason: format!("its bytes are {found}") }),
        }
    }

    /// Deletes a version that the live revision does not use.
    pub fn delete_module(&self, name: &str, version: u32) -> Result<(), RegistryError> {
        let record = self.module(name, Some(version))?;
        let used = self.newest()?.is_some_and(|revision| revision.project.modules.contains(&record.version()));
        if used {
            return Err(RegistryError::Conflict(format!(
                "module `{name}@{version}` is used by the live definitions: apply without it first"
            )));
        }
        // The number first, so that a crash in between leaves it taken. Bytes go last, and only when no other has them.
        let _ = self.storage.create(&self.path(&format!("modules/{name}/{version:010}.deleted")), b"")?;
        self.storage.delete(&self.record_path(name, version))?;
        if !self.versions(name)?.iter().any(|other| other.digest == record.digest) {
            self.storage.delete(&self.bytes_path(name, &record.digest))?;
        }
        Ok(())
    }

    /// The number that the next new bytes of this name get.
    pub(super) fn next_version(&self, name: &str) -> Result<u32, RegistryError> {
        let paths = self.storage.list(&self.path(&format!("modules/{name}/")))?;
        let numbered = paths.iter().filter(|path| path.ends_with(".json") || path.ends_with(".deleted"));
        let newest = numbered.filter_map(|path| number_in(path)).max().unwrap_or(0);
        u32::try_from(newest + 1).map_err(|_| RegistryError::Conflict(format!("module `{name}` has no number left")))
    }

    fn record_path(&self, name: &str, version: u32) -> String {
        self.path(&format!("modules/{name}/{version:010}.json"))
    }

    fn bytes_path(&self, name: &str, digest: &Digest) -> String {
        self.path(&format!("modules/{name}/{}.wasm", digest.hex()))
    }
}

fn udf_records(module: &Module) -> Vec<UdfRecord> {
    let record = |udf: &onefold_fold::UdfInfo| UdfRecord {
        name: udf.name.clone(),
        role: match udf.role {
            Role::Aggregate => "aggregate".to_owned(),
            Role::Transform => "transform".to_owned(),
        },
        doc: udf.doc.clone(),
        // The engine has checked that it is empty or the text of a JSON object.
        params: serde_json::from_str(&udf.params_schema).unwrap_or(Value::Null),
    };
    module.udfs().iter().map(record).collect()
}
