//! Apply in two halves: what would be (`plan_apply`, `plan_removal`, `plan_rollback`, which write nothing), and making
//! it live (`commit`).
//!
//! Between the two the host builds the state that the new revision needs. The command line and HTTP both come here.

use super::catalog::Staged;
use super::{Catalog, ModuleCache, Put, Registry, RegistryError, Revision, STANDARD};
use crate::define::{
    CheckOptions, Checked, Definitions, Digest, FeatureView, Lock, ModuleVersion, Pins, Plan, Project, Removed, Rename,
    TestCase, Upgrade, check, hint, module_files, services_lose,
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
    /// What this set has registered and the definitions do not have any more goes.
    pub prune: bool,
    /// A set whose documents may be claimed by that of the definitions.
    pub take_over: Option<String>,
    /// What is new begins empty, where the stream stands, instead of with its history.
    pub from_now: bool,
    /// A source's files at another path hold the rows that its state is made of.
    pub same_rows: bool,
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
    /// As in [`ApplyOptions`].
    pub from_now: bool,
    pub same_rows: bool,
    allow_breaking: bool,
    rollback_to: Option<u64>,
    uploads: Vec<Staged>,
}

impl Proposal {
    /// The revision that it makes. `now_us`: wall time, microseconds since the epoch, UTC.
    pub fn revision(&self, now_us: i64) -> Revision {
        Revision {
            number: self.base + 1,
            created_at_us: now_us,
            project: self.project.clone(),
            changes: self.plan.notes(),
            rollback_to: self.rollback_to,
        }
    }

    /// What becomes of the live revision `base` by what was checked, with no module to upload.
    fn of(base: u64, checked: Checked, options: &ApplyOptions) -> Proposal {
        let before = checked.before.as_ref();
        let mut plan = Plan::between(before, &checked.project, base, &checked.breaks, &checked.renames);
        plan.warnings.extend(checked.warnings);
        Proposal {
            base,
            plan,
            project: checked.project,
            tests: checked.tests,
            lock: Lock::default(),
            from_now: options.from_now,
            same_rows: options.same_rows,
            allow_breaking: options.allow_breaking,
            rollback_to: None,
            uploads: Vec::new(),
        }
    }
}

/// The live revision, 0 and nothing where there is none; a conflict when the caller has seen another.
fn live_revision(registry: &Registry, options: &ApplyOptions) -> Result<(u64, Option<Project>), RegistryError> {
    let live = registry.newest()?;
    let base = live.as_ref().map_or(0, |revision| revision.number);
    match options.expected.filter(|expected| *expected != base) {
        None => Ok((base, live.map(|revision| revision.project))),
        Some(expected) => Err(RegistryError::Conflict(format!(
            "revision {base} of project `{}` is live, not {expected}: plan again on top of it",
            registry.project()
        ))),
    }
}

fn something_live(registry: &Registry, live: Option<Project>) -> Result<Project, RegistryError> {
    live.ok_or_else(|| {
        RegistryError::NotFound(format!("project `{}` has no definitions yet: apply some", registry.project()))
    })
}

/// What becomes of the live revision when something is taken out of it.
pub fn plan_removal(
    registry: &Registry,
    cache: &ModuleCache,
    removed: &Removed,
    options: &ApplyOptions,
) -> Result<Proposal, RegistryError> {
    let (base, live) = live_revision(registry, options)?;
    let live = something_live(registry, live)?;
    removed.check(&live).map_err(RegistryError::NotFound)?;
    let check_options = CheckOptions {
        project: Some(registry.project()),
        registered: Some(&live),
        pins: &Pins::default(),
        prune: false,
        take_over: None,
        removed: Some(removed),
    };
    let checked = check(&Definitions::default(), &Catalog::new(registry, cache), check_options)?;
    Ok(Proposal::of(base, checked, options))
}

/// What becomes of the live revision when the project is to be again what it was in an older one.
pub fn plan_rollback(registry: &Registry, number: u64, options: &ApplyOptions) -> Result<Proposal, RegistryError> {
    let (base, live) = live_revision(registry, options)?;
    let mut live = something_live(registry, live)?;
    let mut project = registry.revision(number)?.project;
    for module in &project.modules {
        registry.module_bytes(&module.name, &module.digest).map_err(|error| match error {
            RegistryError::NotFound(_) => RegistryError::Conflict(format!(
                "revision {number} uses module `{}@{}`, which has been deleted: push its bytes ({}) again",
                module.name, module.version, module.digest
            )),
            other => other,
        })?;
    }
    let mut renames = Vec::new();
    for later in (number + 1..=base).rev() {
        renames.extend(Rename::undone(&registry.revision_notes(later)?.changes));
    }
    let renames = live.renamed_by(&renames);
    keep_paused(&live, &mut project)?;
    let breaks = services_lose(&live, &project);
    let mut plan = Plan::between(Some(&live), &project, base, &breaks, &renames);
    if !plan.changes.is_empty() {
        plan.warnings.push(
            "the definitions in your directories are not rolled back: the next apply of one goes by its files again"
                .to_owned(),
        );
    }
    Ok(Proposal {
        base,
        plan,
        project,
        tests: Vec::new(),
        lock: Lock::default(),
        from_now: options.from_now,
        same_rows: options.same_rows,
        allow_breaking: options.allow_breaking,
        rollback_to: Some(number),
        uploads: Vec::new(),
    })
}

/// Pausing is no part of the definitions: what an older revision had paused is not, and what is paused stays so.
fn keep_paused(live: &Project, project: &mut Project) -> Result<(), RegistryError> {
    for (name, view) in &mut project.feature_views {
        let standing = live.feature_views.get(name).filter(|standing| standing.paused.is_some());
        view.paused = standing.and_then(|standing| standing.paused);
        let has = |fingerprint| standing.is_none_or(|standing| has_feature(standing, fingerprint));
        if let Some(other) = view.features.iter().find(|feature| !has(&feature.fingerprint)) {
            return Err(RegistryError::Conflict(format!(
                "view `{name}` is paused, and its feature `{}` was another then: `onefold resume {name}` first",
                other.name
            )));
        }
    }
    Ok(())
}

fn has_feature(view: &FeatureView, fingerprint: &Digest) -> bool {
    view.features.iter().any(|feature| feature.fingerprint == *fingerprint)
}

/// What becomes of the live revision when a view is to stand still, or to go on.
pub fn plan_pause(
    registry: &Registry,
    view: &str,
    paused: bool,
    options: &ApplyOptions,
) -> Result<Proposal, RegistryError> {
    let (base, live) = live_revision(registry, options)?;
    let live = something_live(registry, live)?;
    let mut project = live.clone();
    let standing = project.feature_views.get_mut(view).ok_or_else(|| {
        let near = hint(view, live.feature_views.keys().map(String::as_str));
        RegistryError::NotFound(match live.on_demand_feature_views.contains_key(view) {
            true => format!("`{view}` is computed at lookup, so there is nothing to pause: pause what it reads"),
            false => format!("there is no feature view `{view}`; {near}"),
        })
    })?;
    if standing.paused.is_some() == paused {
        return Err(RegistryError::Conflict(match standing.paused {
            Some(revision) => format!("view `{view}` is paused since revision {revision}: nothing is left to do"),
            None => format!("view `{view}` is not paused: nothing is left to do"),
        }));
    }
    standing.paused = paused.then_some(base + 1);
    let plan = Plan::between(Some(&live), &project, base, &[], &[]);
    Ok(Proposal {
        base,
        project,
        plan,
        tests: Vec::new(),
        lock: Lock::default(),
        from_now: false,
        same_rows: false,
        allow_breaking: options.allow_breaking,
        rollback_to: None,
        uploads: Vec::new(),
    })
}

/// What becomes of the live revision when definitions are applied to it. `standard` are the bytes of the program's own `std`.
pub fn plan_apply(
    registry: &Registry,
    cache: &ModuleCache,
    standard: &[u8],
    definitions: &Definitions,
    options: &ApplyOptions,
) -> Result<Proposal, RegistryError> {
    let (base, live) = live_revision(registry, options)?;
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
    let check_options = CheckOptions {
        project: Some(registry.project()),
        registered: live.as_ref(),
        pins: &pins,
        prune: options.prune,
        take_over: options.take_over.as_deref(),
        removed: None,
    };
    let checked = check(definitions, &catalog, check_options)?;
    let moved = options.lock.moved_to(&checked.resolved);
    if options.locked {
        options.lock.check_unmoved(&moved)?;
    }
    let mut held_back = Vec::new();
    for (name, module) in checked.resolved.iter().filter(|(name, _)| !own.contains(*name) && !options.alone) {
        if let Some(newest) = registry.versions(name)?.last().filter(|newest| newest.version > module.version) {
            held_back.push(format!(
                "module `{name}`: version {} was pushed, and onefold.lock stays at {}: --upgrade {name} takes it",
                newest.version, module.version
            ));
        }
    }
    let uploads = catalog.into_staged().into_iter();
    let uploads = uploads
        .filter(|staged| own.contains(&staged.version.name) || checked.project.modules.contains(&staged.version));
    let uploads = uploads.collect();
    let mut proposal = Proposal { lock: moved, uploads, ..Proposal::of(base, checked, options) };
    proposal.plan.warnings.extend(held_back);
    Ok(proposal)
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
        false => registry.create_revision(proposal.revision(now_us)),
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
