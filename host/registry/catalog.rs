//! The modules that definitions are checked against: those registered, and those an apply is about to upload.

use super::{Registry, RegistryError};
use crate::define::{Digest, ModuleCatalog, ModuleVersion, PreparedFacts, UdfRole, Wanted};
use onefold_fold::{Engine, Field, Module, Role};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Compiled modules by digest. A process has one: compiling takes seconds, and what `prepare` said is kept in them.
pub struct ModuleCache {
    engine: Engine,
    loaded: Mutex<BTreeMap<Digest, Module>>,
}

impl ModuleCache {
    /// An empty cache over the process's engine.
    pub fn new(engine: Engine) -> ModuleCache {
        ModuleCache { engine, loaded: Mutex::new(BTreeMap::new()) }
    }

    /// The module of these bytes, compiled at most once unless two ask at the same moment.
    pub fn load(&self, name: &str, bytes: &[u8]) -> Result<Module, RegistryError> {
        let digest = Digest::of(bytes);
        if let Some(module) = self.loaded(&digest) {
            return Ok(module);
        }
        let refused = |refused| RegistryError::ModuleRefused { name: name.to_owned(), refused };
        let module = self.engine.load(bytes).map_err(refused)?;
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner).insert(digest, module.clone());
        Ok(module)
    }

    /// A module of the registry.
    pub fn registered(&self, registry: &Registry, name: &str, digest: &Digest) -> Result<Module, RegistryError> {
        match self.loaded(digest) {
            Some(module) => Ok(module),
            None => self.load(name, &registry.module_bytes(name, digest)?),
        }
    }

    fn loaded(&self, digest: &Digest) -> Option<Module> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner).get(digest).cloned()
    }
}

/// The registered modules of a project, and above them those that are staged for upload.
pub struct Catalog<'a> {
    registry: &'a Registry,
    cache: &'a ModuleCache,
    staged: BTreeMap<String, Staged>,
    /// The module a digest was resolved from: where its bytes are found.
    names: Mutex<BTreeMap<Digest, String>>,
}

/// Bytes that will be uploaded if they are used.
#[derive(Clone, Debug)]
pub(super) struct Staged {
    pub(super) version: ModuleVersion,
    pub(super) bytes: Vec<u8>,
}

impl<'a> Catalog<'a> {
    /// The registered modules alone.
    pub fn new(registry: &'a Registry, cache: &'a ModuleCache) -> Catalog<'a> {
        Catalog { registry, cache, staged: BTreeMap::new(), names: Mutex::new(BTreeMap::new()) }
    }

    /// Lets a name mean these bytes, under the number they have or would get.
    pub fn stage(&mut self, name: &str, bytes: Vec<u8>) -> Result<ModuleVersion, RegistryError> {
        self.cache.load(name, &bytes)?;
        let digest = Digest::of(&bytes);
        let registered = self.registry.versions(name)?.into_iter().find(|record| record.digest == digest);
        let number = match registered {
            Some(record) => record.version,
            None => self.registry.next_version(name)?,
        };
        let version = ModuleVersion { name: name.to_owned(), version: number, digest };
        self.staged.insert(name.to_owned(), Staged { version: version.clone(), bytes });
        Ok(version)
    }

    pub(super) fn into_staged(self) -> Vec<Staged> {
        self.staged.into_values().collect()
    }

    fn module(&self, digest: &Digest) -> Result<Module, String> {
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let name = names.get(digest).cloned().unwrap_or_default();
        drop(names);
        self.cache.registered(self.registry, &name, digest).map_err(|error| error.to_string())
    }

    fn find(&self, module: &str, wanted: Wanted) -> Result<ModuleVersion, String> {
        let staged = self.staged.get(module).map(|staged| &staged.version).filter(|staged| match wanted {
            Wanted::Newest => true,
            Wanted::Version(version) => staged.version == version,
            Wanted::Bytes(digest) => staged.digest == digest,
        });
        if let Some(version) = staged {
            return Ok(version.clone());
        }
        let versions = self.registry.versions(module).map_err(|error| error.to_string())?;
        let known = versions.iter().map(|record| record.version.to_string()).collect::<Vec<_>>().join(", ");
        let found = match wanted {
            Wanted::Newest => versions.last(),
            Wanted::Version(version) => versions.iter().find(|record| record.version == version),
            Wanted::Bytes(digest) => versions.iter().find(|record| record.digest == digest),
        };
        found.map(super::ModuleRecord::version).ok_or_else(|| match wanted {
            _ if versions.is_empty() => format!(
                "there is no module `{module}`: push it (`onefold module push FILE --name {module}`), or add `kind: module`"
            ),
            Wanted::Newest | Wanted::Version(_) => format!("module `{module}` has no such version: it has {known}"),
            Wanted::Bytes(digest) => format!(
                "onefold.lock wants {digest} of module `{module}`, which is not here: push it, or use --upgrade {module}"
            ),
        })
    }
}

impl ModuleCatalog for Catalog<'_> {
    fn resolve(&self, module: &str, wanted: Wanted) -> Result<ModuleVersion, String> {
        let found = self.find(module, wanted)?;
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.insert(found.digest, module.to_owned());
        Ok(found)
    }

    fn udfs(&self, digest: &Digest) -> Result<Vec<String>, String> {
        Ok(self.module(digest)?.udfs().iter().map(|udf| udf.name.clone()).collect())
    }

    fn prepare(&self, digest: &Digest, udf: &str, params: &str, inputs: &[Field]) -> Result<PreparedFacts, String> {
        let udf = self.module(digest)?.prepare(udf, params, inputs).map_err(|error| error.to_string())?;
        Ok(PreparedFacts {
            role: match udf.role() {
                Role::Aggregate => UdfRole::Aggregate,
                Role::Transform => UdfRole::Transform,
            },
            outputs: udf.outputs().to_vec(),
            needs_event_time: udf.needs_event_time(),
            ordered: udf.ordered(),
            mergeable: udf.mergeable(),
            one_to_one: udf.one_to_one(),
        })
    }
}
