//! Everything of one process over one data directory: its projects, each with its registry, logs, stream and values.

mod batch;
mod begins;
mod build;
mod cost;
mod cut_over;
mod error;
mod explain;
mod history;
mod letters;
mod materialize;
mod moved;
mod peek;
mod project;
mod provenance;
mod recover;
mod retired;
mod since;
mod target;
mod told;
mod verify;

/// What work on the history runs with, for those who do not know how it is done.
pub use crate::batch::{BatchError, BatchSettings, Progress};
/// What an explanation is made of, for the same.
pub use crate::batch::{ExplainedRow, ExplainedRows, ExplainedValue, Place, Refusal, Verdict};
/// What a push is made of, for those who do not know where logs are.
pub use crate::source::{IdempotencyKey, LogError, Records};
pub use batch::{BatchDone, BatchRequest};
pub use cut_over::Applied;
pub use error::PlatformError;
pub use explain::{EXPLAINED_ROWS, ExplainRequest, Explanation, ServedValue};
pub use history::Pins;
pub use letters::{Outcome, ReplayRequest, Replayed};
pub use materialize::{MaterializeRequest, MaterializeSummary};
pub use peek::{PeekRequest, Peeked, PeekedRow};
pub use project::{Live, ProjectHost, ProjectStatus, Pushed};
pub use provenance::{PROVENANCE_KEY, Provenance, Reproduced};
pub use recover::{ReadProgress, Recovery, layout_over, stored_tables};
pub use since::CompleteSince;
pub use verify::{Difference, Verified};

use crate::clock::Clock;
use crate::define::{Definitions, Removed};
use crate::registry::{
    ApplyOptions, ModuleCache, Proposal, Put, Registry, Revision, plan_apply, plan_pause, plan_removal, plan_rollback,
};
use crate::route::Groups;
use crate::std_module::STD_WASM;
use crate::storage::{Storage, check_format};
use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
use onefold_fold::{Engine, Limits};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

/// How often it is looked whether something retired is to be let go.
const LET_GO_EVERY: Duration = Duration::from_millis(500);

/// How a platform runs.
#[derive(Clone, Debug)]
pub struct PlatformSettings {
    /// Of a project whose first checkpoint is still to come; later it must be what it was.
    pub groups: Groups,
    /// How long what a revision retired is folded on, so that a rollback needs no history.
    pub keep_revisions_us: i64,
    /// Folding threads a project.
    pub threads: usize,
    pub checkpoint_every_us: i64,
    /// How long nothing must come before time alone moves a source's clock.
    pub idle_us: i64,
    /// State above this makes pushes answer "unavailable".
    pub memory_bytes: usize,
}

impl Default for PlatformSettings {
    fn default() -> PlatformSettings {
        PlatformSettings {
            groups: Groups::default(),
            keep_revisions_us: 3_600_000_000,
            threads: 2,
            checkpoint_every_us: 5_000_000,
            idle_us: 60_000_000,
            memory_bytes: 4 << 30,
        }
    }
}

/// The process's engine with no module compiled yet.
pub fn module_cache() -> Result<Arc<ModuleCache>, PlatformError> {
    let engine = Engine::new(Limits::default()).map_err(|error| PlatformError::Engine(error.to_string()))?;
    Ok(Arc::new(ModuleCache::new(engine)))
}

/// All projects of a data directory, running.
pub struct Platform {
    settings: PlatformSettings,
    storage: Arc<dyn Storage>,
    clock: Arc<dyn Clock>,
    modules: Arc<ModuleCache>,
    projects: RwLock<BTreeMap<String, Arc<ProjectHost>>>,
    /// While this is here, a thread looks after what time alone makes due.
    keeper: OnceLock<Sender<Infallible>>,
}

impl Platform {
    /// Brings up every project of the storage: its state from the newest checkpoint, its rows up to the log's end.
    pub fn open(
        settings: PlatformSettings,
        storage: Arc<dyn Storage>,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Platform>, PlatformError> {
        Platform::open_with(settings, storage, clock, module_cache()?)
    }

    /// The same with modules that may have been compiled already.
    pub fn open_with(
        settings: PlatformSettings,
        storage: Arc<dyn Storage>,
        clock: Arc<dyn Clock>,
        modules: Arc<ModuleCache>,
    ) -> Result<Arc<Platform>, PlatformError> {
        check_format(storage.as_ref())?;
        let platform = Platform::at_rest(settings, storage.clone(), clock, modules);
        for project in Registry::projects(storage.as_ref())? {
            platform.host(&project)?.start()?;
        }
        platform.keep_house()?;
        Ok(platform)
    }

    /// A platform that folds nothing: for work on the data itself, whose owner the caller is.
    pub fn at_rest(
        settings: PlatformSettings,
        storage: Arc<dyn Storage>,
        clock: Arc<dyn Clock>,
        modules: Arc<ModuleCache>,
    ) -> Arc<Platform> {
        let (projects, keeper) = (RwLock::default(), OnceLock::new());
        Arc::new(Platform { settings, storage, clock, modules, projects, keeper })
    }

    /// Starts the thread that lets go of what was retired long enough ago. It ends with the platform.
    fn keep_house(self: &Arc<Platform>) -> Result<(), PlatformError> {
        let (alive, ended) = bounded(0);
        drop(self.keeper.set(alive));
        let platform = Arc::downgrade(self);
        let look = move || {
            while ended.recv_timeout(LET_GO_EVERY) == Err(RecvTimeoutError::Timeout) {
                let Some(platform) = platform.upgrade() else { return };
                platform.projects().iter().filter_map(|name| platform.project(name)).for_each(|host| host.let_go());
            }
        };
        let started = std::thread::Builder::new().name("let-go".into()).spawn(look);
        started.map(drop).map_err(|error| PlatformError::Unavailable(format!("a thread cannot be started: {error}")))
    }

    pub fn projects(&self) -> Vec<String> {
        self.projects.read().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    /// A project that has been applied or pushed to; none before that.
    pub fn project(&self, name: &str) -> Option<Arc<ProjectHost>> {
        self.projects.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    pub fn registry(&self, project: &str) -> Result<Registry, PlatformError> {
        Ok(Registry::of(self.storage.clone(), project)?)
    }

    /// Compiled modules, shared by all projects.
    pub fn modules(&self) -> &ModuleCache {
        &self.modules
    }

    pub fn clock(&self) -> &dyn Clock {
        self.clock.as_ref()
    }

    /// What these definitions would change. Nothing is written.
    pub fn plan(
        &self,
        project: &str,
        definitions: &Definitions,
        options: &ApplyOptions,
    ) -> Result<Proposal, PlatformError> {
        let proposal = plan_apply(&self.registry(project)?, &self.modules, STD_WASM, definitions, options)?;
        self.priced(project, proposal)
    }

    /// What the project loses when something is taken out of it.
    pub fn plan_removal(
        &self,
        project: &str,
        removed: &Removed,
        options: &ApplyOptions,
    ) -> Result<Proposal, PlatformError> {
        Ok(plan_removal(&self.registry(project)?, &self.modules, removed, options)?)
    }

    /// What would change if the project were again what it was in an older revision.
    pub fn plan_rollback(
        &self,
        project: &str,
        revision: u64,
        options: &ApplyOptions,
    ) -> Result<Proposal, PlatformError> {
        let proposal = plan_rollback(&self.registry(project)?, revision, options)?;
        self.priced(project, proposal)
    }

    /// What would change if a view stood still from now on (`paused`), or went on.
    pub fn plan_pause(
        &self,
        project: &str,
        view: &str,
        paused: bool,
        options: &ApplyOptions,
    ) -> Result<Proposal, PlatformError> {
        Ok(plan_pause(&self.registry(project)?, view, paused, options)?)
    }

    /// With what each change costs and begins with, as far as the running project knows.
    fn priced(&self, project: &str, mut proposal: Proposal) -> Result<Proposal, PlatformError> {
        if let Some(host) = self.project(project) {
            host.price(&mut proposal)?;
        }
        Ok(proposal)
    }

    /// Makes a proposal live: builds what is new beside what runs, commits the revision, serves it.
    pub fn apply(&self, project: &str, proposal: &Proposal) -> Result<Revision, PlatformError> {
        let applied = self.apply_watched(project, proposal, Arc::new(|_| ()), Arc::default())?;
        Ok(applied.revision)
    }

    /// The same, telling how far what is read for it is. Until it is cut over it can be cancelled, and leaves nothing.
    pub fn apply_watched(
        &self,
        project: &str,
        proposal: &Proposal,
        progress: Arc<dyn Fn(Progress) + Send + Sync>,
        cancelled: Arc<AtomicBool>,
    ) -> Result<Applied, PlatformError> {
        let settings = BatchSettings { cancelled, ..self.batch_settings() };
        self.host(project)?.apply(proposal, &BatchRequest { settings, progress })
    }

    fn batch_settings(&self) -> BatchSettings {
        let mut settings = BatchSettings::new(std::env::temp_dir());
        settings.memory_limit_bytes = settings.memory_limit_bytes.min(self.settings.memory_bytes);
        settings
    }

    pub fn push_module(&self, project: &str, name: &str, bytes: &[u8]) -> Result<Put, PlatformError> {
        let module = self.modules.load(name, bytes)?;
        self.modules.try_module(name, &module)?;
        Ok(self.registry(project)?.put_module(name, bytes, &module)?)
    }

    /// Stores a last checkpoint of every project and stops.
    pub fn close(&self) -> Result<(), PlatformError> {
        let projects = std::mem::take(&mut *self.projects.write().unwrap_or_else(PoisonError::into_inner));
        projects.values().try_for_each(|project| project.stop())
    }

    /// The host of a project, made if there is none yet.
    pub fn host(&self, name: &str) -> Result<Arc<ProjectHost>, PlatformError> {
        let mut projects = self.projects.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(host) = projects.get(name) {
            return Ok(host.clone());
        }
        let registry = Registry::of(self.storage.clone(), name)?;
        let host = Arc::new(ProjectHost::new(
            registry,
            self.modules.clone(),
            self.storage.clone(),
            self.clock.clone(),
            self.settings.clone(),
        ));
        projects.insert(name.to_owned(), host.clone());
        Ok(host)
    }
}
