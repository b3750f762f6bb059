//! Apply in two halves: what would be (`plan_apply`, which writes nothing), and making it live (`commit`).
//!
//! Between the two the host builds the state that the new revision needs. The command line and HTTP both come here.

use super::catalog::Staged;
use super::{Catalog, ModuleCache, Put, Registry, RegistryError, Revision, STANDARD};
use crate::define::{
    CheckOptions, Definitions, Lock, ModuleVersion, Plan, Project, TestCase, Upgrade, check, module_files,
};
use std::collections::BTreeSet;

/// What an apply is told.
#[derive(Clone, Debug, Default)]
pub struct ApplyOptions {
    /// The lock beside the definitions. By HTTP: `Lock::default()`, then the live revision's modules are kept.
    pub lock: Lock,
    /// Lines of the lock that may move.
    pub upgrade: Upgrade,
    /// Fail if a line of the lock would move.
    pub locked: bool,
    /// Do it although something would stop working.
    pub allow_breaking: bool,
    /// `If-Match`: the revision that the caller has seen.
    pub expected: Option<u64>,
    /// The registry is made up for this run: a module that is not beside the definitions is nowhere, and errors say so.
    pub alone: bool,
}

/// What an apply would do: everything is decided, nothing is written.
#[derive(Clone, Debug)]
pub struct Proposal {
    /// The live revision that this was planned on, 0 for none.
    pub base: u64,
    pub project: Project,
    pub plan: Plan,
    /// The `kind: test` documents, which are not registered.
    pub tests: Vec<TestCase>,
    /// The lock as it would be: to be written beside the definitions after the commit.
    pub lock: Lock,
    allow_breaking: bool,
    uploads: Vec<Staged>,
}

/// Checks definitions against the live revision of a project. `standard` are the bytes of the program's own `std`.
pub fn plan_apply(
    registry: &Registry,
    cache: &ModuleCache,
    standard: &[u8],
    definitions: &Definitions,
    options: &ApplyOptions,
) -> Result<Proposal, RegistryError> {
    let live = registry.newest()?;
    let base = live.as_ref().map_or(0, |revision| revision.number);
    if let Some(expected) = options.expected.filter(|expected| *expected != base) {
        return Err(RegistryError::Conflict(format!(
            "revision {base} of project `{}` is live, not {expected}: plan again on top of it",
            registry.project()
        )));
    }
    let live = live.map(|revision| revision.project);
    let mut catalog = Catalog::new(registry, cache);
    catalog.alone = options.alone;
    catalog.stage(STANDARD, standard.to_vec())?;
    let mut own = BTreeSet::new();
    for file in module_files(definitions)? {
        let bytes = std::fs::read(&file.path).map_err(|error| {
            let shown = file.path.display();
            file.problem(format!("cannot read {shown}: {error}; build the module first, or correct the path"))
        })?;
        catalog.stage(&file.name, bytes).map_err(|error| match error {
            RegistryError::ModuleRefused { .. } | RegistryError::ClaimRefused { .. } => {
                RegistryError::Define(file.problem(error.to_string()))
            }
            other => other,
        })?;
        own.insert(file.name);
    }
    let lock = with_registered(&options.lock, live.as_ref());
    let pins = lock.pins(&own, &options.upgrade);
    let check_options = CheckOptions { project: Some(registry.project()), registered: live.as_ref(), pins: &pins };
    let checked = check(definitions, &catalog, check_options)?;
    let moved = options.lock.moved_to(&checked.resolved);
    if options.locked {
        options.lock.check_unmoved(&moved)?;
    }
    let mut plan = Plan::between(live.as_ref(), &checked.project, base, &checked.breaks);
    plan.warnings.extend(checked.warnings);
    let uploads = catalog.into_staged().into_iter();
    let uploads = uploads
        .filter(|staged| own.contains(&staged.version.name) || checked.project.modules.contains(&staged.version));
    Ok(Proposal {
        base,
        plan,
        tests: checked.tests,
        lock: moved,
        allow_breaking: options.allow_breaking,
        uploads: uploads.collect(),
        project: checked.project,
    })
}

impl Proposal {
    /// An error when something would stop working, and that is not allowed.
    pub fn check_breaks(&self) -> Result<(), RegistryError> {
        let breaks = self.plan.breaks();
        match breaks.is_empty() || self.allow_breaking {
            true => Ok(()),
            false => Err(RegistryError::Breaks(breaks.into_iter().map(str::to_owned).collect())),
        }
    }
}

/// Makes a proposal live: uploads its modules, then creates its revision. A conflict when someone else was faster.
/// A proposal without changes gives back the live revision.
pub fn commit(
    registry: &Registry,
    cache: &ModuleCache,
    proposal: &Proposal,
    now_us: i64,
) -> Result<Revision, RegistryError> {
    proposal.check_breaks()?;
    upload_modules(registry, cache, proposal)?;
    match proposal.plan.changes.is_empty() && proposal.base > 0 {
        true => registry.revision(proposal.base),
        false => registry.create_revision(proposal.base, &proposal.project, now_us),
    }
}

/// Registers the modules that the proposal brings along. Harmless by itself: nothing uses them before the revision.
pub fn upload_modules(registry: &Registry, cache: &ModuleCache, proposal: &Proposal) -> Result<(), RegistryError> {
    proposal.uploads.iter().try_for_each(|Staged { version, bytes }| upload(registry, cache, version, bytes))
}

fn upload(
    registry: &Registry,
    cache: &ModuleCache,
    version: &ModuleVersion,
    bytes: &[u8],
) -> Result<(), RegistryError> {
    let name = &version.name;
    let module = cache.load(name, bytes)?;
    let record = registry.put_module(name, bytes, &module).map(Put::record)?;
    if record.version == version.version {
        return Ok(());
    }
    Err(RegistryError::Conflict(format!(
        "someone else uploaded module `{name}` meanwhile, these bytes are version {} now: plan again",
        record.version
    )))
}

/// The lock's lines; where it has none, the versions that the live revision uses: nothing moves unless it is told to.
fn with_registered(lock: &Lock, live: Option<&Project>) -> Lock {
    let mut all = Lock::default();
    if let Some(project) = live {
        all = all.moved_to(&project.modules.iter().map(|module| (module.name.clone(), module.clone())).collect());
    }
    all.modules.extend(lock.modules.clone());
    all
}
