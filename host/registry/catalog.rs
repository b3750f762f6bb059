//! The modules that definitions are checked against: those registered, and those an apply is about to upload.

use super::{ModuleRecord, Registry, RegistryError, STANDARD};
use crate::define::{Digest, ModuleCatalog, ModuleVersion, PreparedFacts, UdfRole, UdfUse, Wanted};
use onefold_fold::{ClaimRefused, Compared, Engine, Field, Module, Role, check_claims, check_module};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Compiled modules by digest. A process has one: compiling takes seconds, and what `prepare` said is kept in them.
pub struct ModuleCache {
    engine: Engine,
    loaded: Mutex<BTreeMap<Digest, Module>>,
    /// What trials of claims gave, so that `apply` does not repeat those of `plan`.
    modules_tried: Mutex<BTreeMap<(Digest, Compared), Result<(), ClaimRefused>>>,
    udfs_tried: Mutex<BTreeMap<Trial, Result<(), ClaimRefused>>>,
}

/// A UDF with its parameters, and its inputs by name and kind.
type Trial = (UdfUse, Vec<(String, &'static str)>);

impl ModuleCache {
    /// An empty cache over the process's engine.
    pub fn new(engine: Engine) -> ModuleCache {
        ModuleCache { engine, loaded: Mutex::default(), modules_tried: Mutex::default(), udfs_tried: Mutex::default() }
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

    /// Tries every UDF of a module that is about to be uploaded, as far as they can be without a definition.
    pub fn try_module(&self, name: &str, module: &Module) -> Result<(), RegistryError> {
        let (digest, compared) = (Digest(module.digest()), compared_of(name));
        let tried = remembered(&self.modules_tried, (digest, compared), || check_module(module, compared).map(drop));
        tried.map_err(|refused| RegistryError::ClaimRefused { name: name.to_owned(), refused })
    }

    /// Tries a UDF with the parameters and inputs of a definition.
    fn try_udf(&self, module: &Module, udf: &UdfUse, inputs: &[Field]) -> Result<(), ClaimRefused> {
        let inputs_of_trial = inputs.iter().map(|input| (input.name.clone(), input.kind.name())).collect();
        let compared = compared_of(&udf.module);
        remembered(&self.udfs_tried, (udf.clone(), inputs_of_trial), || {
            // What cannot be prepared has been said already, in other words.
            module.prepare(&udf.udf, &udf.params, inputs).map_or(Ok(()), |udf| check_claims(&udf, compared))
        })
    }

    fn loaded(&self, digest: &Digest) -> Option<Module> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner).get(digest).cloned()
    }
}

/// The states of `std` are said to be the same whatever way rows came, so those are compared as well.
fn compared_of(module: &str) -> Compared {
    if module == STANDARD { Compared::ValuesAndStates } else { Compared::Values }
}

fn remembered<K: Ord>(
    tried: &Mutex<BTreeMap<K, Result<(), ClaimRefused>>>,
    key: K,
    attempt: impl FnOnce() -> Result<(), ClaimRefused>,
) -> Result<(), ClaimRefused> {
    let known = tried.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
    known.unwrap_or_else(|| {
        let result = attempt();
        tried.lock().unwrap_or_else(PoisonError::into_inner).insert(key, result.clone());
        result
    })
}

/// The registered modules of a project, and above them those that are staged for upload.
pub struct Catalog<'a> {
    registry: &'a Registry,
    cache: &'a ModuleCache,
    staged: BTreeMap<String, Staged>,
    /// The module a digest was resolved from: where its bytes are found.
    names: Mutex<BTreeMap<Digest, String>>,
    /// `ApplyOptions::alone`.
    pub(super) alone: bool,
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
        Catalog { registry, cache, staged: BTreeMap::new(), names: Mutex::new(BTreeMap::new()), alone: false }
    }

    /// Lets a name mean these bytes, under the number they have or would get.
    /// New bytes that are not the program's own are tried, as an upload is.
    pub fn stage(&mut self, name: &str, bytes: Vec<u8>) -> Result<ModuleVersion, RegistryError> {
        let module = self.cache.load(name, &bytes)?;
        let digest = Digest::of(&bytes);
        let registered = self.registry.versions(name)?.into_iter().find(|record| record.digest == digest);
        let number = match registered {
            Some(record) => record.version,
            None => {
                if name != STANDARD {
                    self.cache.try_module(name, &module)?;
                }
                self.registry.next_version(name)?
            }
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
        found.map(ModuleRecord::version).ok_or_else(|| match wanted {
            Wanted::Bytes(digest) if !self.alone || self.staged.contains_key(module) => {
                self.lock_disagrees(module, digest, &versions)
            }
            _ if self.alone => self.missing_alone(module, wanted),
            _ if versions.is_empty() => format!(
                "there is no module `{module}`: push it (`onefold module push FILE --name {module}`), or add `kind: module`"
            ),
            _ => format!("module `{module}` has no such version: it has {known}"),
        })
    }

    /// What the lock names and what is here instead, and what to do.
    fn lock_disagrees(&self, module: &str, digest: Digest, versions: &[ModuleRecord]) -> String {
        let wants = format!("onefold.lock wants {digest} of module `{module}`");
        if let Some(brought) = self.staged.get(module).map(|staged| staged.version.digest) {
            let nowhere = if self.alone { "" } else { ", and the registry does not have what it wants" };
            return format!(
                "{wants}, but this program brings {brought}{nowhere}: use --upgrade {module} to go on with what it \
                 brings, or run the onefold that wrote the lock"
            );
        }
        let push = format!("push those bytes (`onefold module push FILE --name {module}`)");
        match versions.last() {
            None => format!("{wants}, and the registry has no module of that name: {push}, or add `kind: module`"),
            Some(newest) => format!(
                "{wants}, but the newest of {} in the registry is {}: {push}, or use --upgrade {module} to go on with \
                 the newest",
                versions.len(),
                newest.digest
            ),
        }
    }

    /// Why a module is not to be had where no registry is read, and what to do.
    fn missing_alone(&self, module: &str, wanted: Wanted) -> String {
        let here = self.staged.get(module).map(|staged| staged.version.digest);
        match (wanted, here) {
            (Wanted::Version(version), Some(_)) => format!(
                "version {version} of module `{module}` is in a registry, and tests read none: write `{module}.…` \
                 without `@{version}`"
            ),
            _ => format!(
                "there is no module `{module}` beside the definitions, and tests read no registry: add `kind: module` \
                 with `name: {module}` and the `path` of its .wasm"
            ),
        }
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

    fn try_claims(&self, udf: &UdfUse, inputs: &[Field]) -> Result<(), String> {
        let module = self.module(&udf.digest)?;
        self.cache.try_udf(&module, udf, inputs).map_err(|refused| refused.to_string())
    }
}
