//! One project of a running platform: what is live, the logs that take its events, the stream that folds them.

use super::history::check_pins;
use super::retired::Past;
use super::{PlatformError, PlatformSettings, Recovery};
use crate::clock::Clock;
use crate::decode::JsonDecoder;
use crate::define::{Project, Source, UdfUse};
use crate::online::{EmbeddedStore, OnlineStore};
use crate::registry::{ModuleCache, Registry, Revision};
use crate::route::Groups;
use crate::source::{Append, IdempotencyKey, LogSettings, PushLog, Records};
use crate::storage::Storage;
use crate::stream::{Compiled, RouteError, Stopped, Stream, StreamParts, StreamSettings, StreamStatus, check_letters};
use arrow::array::AsArray;
use arrow::datatypes::TimestampMicrosecondType;
use bytes::Bytes;
use onefold_fold::{Field, Udf};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

/// How many reasons a push's answer spells out.
const ERRORS_SHOWN: usize = 20;
/// How long `start` waits for rows that were in the log already; there may be hours of them.
const CATCH_UP: Duration = Duration::from_secs(24 * 3600);

/// How long a wait for rows holds the stream, which others want too.
const WAIT_SLICE: Duration = Duration::from_millis(200);

/// Cut overs that are remembered for whoever asks; nobody makes so many between two looks.
const MOST_PAUSES: usize = 10_000;

/// What readers see: one revision with everything that belongs to it, swapped as a whole.
pub struct Live {
    pub revision: Revision,
    pub compiled: Arc<Compiled>,
    pub online: Arc<EmbeddedStore>,
    /// (on-demand view, feature) -> its transform.
    pub on_demand: BTreeMap<(String, String), Udf>,
}

/// A project and its threads.
pub struct ProjectHost {
    registry: Registry,
    modules: Arc<ModuleCache>,
    storage: Arc<dyn Storage>,
    clock: Arc<dyn Clock>,
    settings: PlatformSettings,
    pub(super) live: RwLock<Option<Arc<Live>>>,
    /// By lineage: a renamed source has one log, whatever it is called.
    logs: Mutex<BTreeMap<String, Arc<PushLog>>>,
    stream: Mutex<Option<Stream>>,
    /// What the last stream said when it was stopped.
    said: Mutex<StreamStatus>,
    damaged: Mutex<Vec<String>>,
    /// Held by whoever changes what is live, from the first look at it to the last.
    pub(super) changing: Mutex<()>,
    /// Held while what the stream folds is not what is live.
    pub(super) cutting: Mutex<()>,
    /// When something that was retired is to be let go.
    pub(super) let_go_at_us: AtomicI64,
    /// Older revisions that were asked for last, by number.
    pub(super) past: Mutex<BTreeMap<u64, Past>>,
    /// Set when the process ends.
    is_closed: AtomicBool,
    /// How long the stream stood at cut overs that nobody has asked about yet.
    pauses_us: Mutex<Vec<u64>>,
}

/// The answer to a push: what is durable now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pushed {
    pub accepted: u64,
    /// Events that no feature will see: their text or event time cannot be decoded, or they come from the future.
    pub dead_lettered: u64,
    /// Accepted events with a column that cannot be decoded: a dead letter for the features that use it.
    #[serde(default)]
    pub broken: u64,
    /// The position behind the last event.
    pub position: u64,
    /// The first events with something wrong, by line from 1; those with one bad column are accepted all the same.
    pub errors: Vec<PushError>,
    /// The same push had come before; this is its answer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub repeated: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushError {
    pub line: u64,
    pub reason: String,
}

/// What `status` shows of a project.
#[derive(Clone, Debug, Serialize)]
pub struct ProjectStatus {
    pub project: String,
    pub revision: u64,
    /// Files that were not what had been written when the process came up, and are not needed to serve; each with its
    /// remedy.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub damaged: Vec<String>,
    #[serde(flatten)]
    pub stream: StreamStatus,
}

impl ProjectHost {
    pub(super) fn new(
        registry: Registry,
        modules: Arc<ModuleCache>,
        storage: Arc<dyn Storage>,
        clock: Arc<dyn Clock>,
        settings: PlatformSettings,
    ) -> ProjectHost {
        ProjectHost {
            registry,
            modules,
            storage,
            clock,
            settings,
            live: RwLock::default(),
            logs: Mutex::default(),
            stream: Mutex::default(),
            said: Mutex::default(),
            damaged: Mutex::default(),
            changing: Mutex::default(),
            cutting: Mutex::default(),
            let_go_at_us: AtomicI64::new(i64::MAX),
            past: Mutex::default(),
            is_closed: AtomicBool::new(false),
            pauses_us: Mutex::default(),
        }
    }

    pub fn name(&self) -> &str {
        self.registry.project()
    }

    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// What is served; `NotFound` before the first apply.
    pub fn live(&self) -> Result<Arc<Live>, PlatformError> {
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner).clone();
        live.ok_or_else(|| {
            PlatformError::NotFound(format!("project `{}` has no definitions yet: apply some", self.name()))
        })
    }

    /// Starts from the newest revision and checkpoint, if there is a revision.
    pub(super) fn start(&self) -> Result<(), PlatformError> {
        let mut damaged = self.registry.check()?;
        damaged.extend(check_pins(self.storage.as_ref(), self.name())?);
        damaged.extend(check_letters(self.storage.as_ref(), self.name())?);
        damaged.iter().for_each(|told| tracing::warn!("{told}"));
        *self.damaged.lock().unwrap_or_else(PoisonError::into_inner) = damaged;
        let mut stream = self.stream();
        match self.registry.newest()? {
            Some(revision) => self.run(&mut stream, revision, |_| Ok(())),
            None => Ok(()),
        }
    }

    /// Stops for good, once nobody is between two streams any more.
    pub(super) fn stop(&self) -> Result<(), PlatformError> {
        let _cutting = self.cutting.lock().unwrap_or_else(PoisonError::into_inner);
        self.is_closed.store(true, Ordering::SeqCst);
        match self.stream().take() {
            Some(stream) => stream.stop().map(drop).map_err(PlatformError::from),
            None => Ok(()),
        }
    }

    /// Brings a revision's state up from what is stored, commits, and starts folding.
    pub(super) fn run(
        &self,
        stream: &mut Option<Stream>,
        revision: Revision,
        commit: impl FnOnce(i64) -> Result<(), PlatformError>,
    ) -> Result<(), PlatformError> {
        let project = Arc::new(revision.project.clone());
        let logs = self.open_logs(&project)?;
        let prepare = |udf: &UdfUse, inputs: &[Field]| self.prepare(udf, inputs);
        let recovery = Recovery {
            project: project.clone(),
            earlier: self.earlier(&revision)?.projects,
            storage: self.storage.clone(),
            clock: self.clock.clone(),
            logs: logs.clone(),
            groups: self.groups(),
            prepare: &prepare,
            writer: self.writer_name(),
            progress: &|_, _| Ok(()),
        };
        let (mut parts, online) = recovery.run()?;
        parts.said = self.said.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let compiled = parts.compiled.clone();
        let on_demand = self.on_demand_udfs(&project)?;
        commit(revision.created_at_us)?;
        let running = Stream::start(parts, self.stream_settings())?;
        for (source, log) in &logs {
            // A lookup must not show less than was shown before: what is in the log is folded first.
            if !running.wait_served(source, log.end_position(), CATCH_UP) {
                let error = running.error().unwrap_or_else(|| "it is still reading".into());
                return Err(PlatformError::Unavailable(format!("source `{source}` has not caught up: {error}")));
            }
        }
        *stream = Some(running);
        let live = Live { revision, compiled, online, on_demand };
        self.note_retired(&live)?;
        *self.live.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(live));
        Ok(())
    }

    pub(super) fn on_demand_udfs(&self, project: &Project) -> Result<BTreeMap<(String, String), Udf>, PlatformError> {
        let mut udfs = BTreeMap::new();
        for view in project.on_demand_feature_views.values() {
            for feature in &view.features {
                let inputs: Vec<Field> = feature.inputs.iter().map(crate::define::OnDemandInput::field).collect();
                let udf = self.prepare(&feature.udf, &inputs).map_err(PlatformError::Engine)?;
                udfs.insert((view.name.clone(), feature.name.clone()), udf);
            }
        }
        Ok(udfs)
    }

    pub(super) fn storage(&self) -> &Arc<dyn Storage> {
        &self.storage
    }

    pub(super) fn clock(&self) -> &dyn Clock {
        self.clock.as_ref()
    }

    pub(super) fn clock_handle(&self) -> Arc<dyn Clock> {
        self.clock.clone()
    }

    pub(super) fn modules(&self) -> &ModuleCache {
        &self.modules
    }

    /// How long what a revision of this project retired is folded on.
    pub(super) fn keep_revisions_us(&self, project: &Project) -> i64 {
        project.keep_revisions_us.unwrap_or(self.settings.keep_revisions_us)
    }

    /// An error once the process has been told to end: then no stream is to be started again.
    pub(super) fn check_open(&self) -> Result<(), PlatformError> {
        match self.is_closed.load(Ordering::SeqCst) {
            true => Err(PlatformError::Unavailable(format!("project `{}` is being closed", self.name()))),
            false => Ok(()),
        }
    }

    /// How long the stream stood at cut overs, in microseconds: those that have not been taken before.
    pub fn take_pauses(&self) -> Vec<u64> {
        std::mem::take(&mut *self.pauses_us.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn note_pause(&self, pause_us: u64) {
        let mut pauses_us = self.pauses_us.lock().unwrap_or_else(PoisonError::into_inner);
        if pauses_us.len() < MOST_PAUSES {
            pauses_us.push(pause_us);
        }
    }

    pub(super) fn groups(&self) -> Groups {
        self.settings.groups
    }

    /// A name under which no other process writes.
    pub(super) fn writer_name(&self) -> String {
        format!("{:x}-{:x}", self.clock.now_us(), std::process::id())
    }

    /// The log of a source of what is live.
    pub(super) fn log(&self, source: &str) -> Option<Arc<PushLog>> {
        let live = self.live().ok()?;
        let lineage = &live.revision.project.sources.get(source)?.lineage;
        self.logs.lock().unwrap_or_else(PoisonError::into_inner).get(lineage).cloned()
    }

    /// Prepares UDFs of registered modules.
    pub fn preparer(&self) -> impl Fn(&UdfUse, &[Field]) -> Result<Udf, String> + '_ {
        |udf, inputs| self.prepare(udf, inputs)
    }

    /// Stops the stream at a stored barrier, lets `look` see its state, and starts it again where it was.
    pub(super) fn while_stopped<T>(
        &self,
        look: impl FnOnce(&Live, &Stopped) -> Result<T, PlatformError>,
    ) -> Result<T, PlatformError> {
        let _cutting = self.cutting.lock().unwrap_or_else(PoisonError::into_inner);
        self.check_open()?;
        let mut stream = self.stream();
        let live = self.live()?;
        let stopped = self.halt(&mut stream)?;
        let seen = look(&live, &stopped);
        let positions = stopped.positions.iter();
        let parts = StreamParts {
            project: stopped.project,
            compiled: stopped.compiled,
            online: live.online.clone(),
            logs: self.open_logs(&live.revision.project)?,
            storage: self.storage.clone(),
            clock: self.clock.clone(),
            checkpoints: stopped.checkpoints,
            groups: stopped.groups,
            positions: positions.map(|(source, at)| (source.clone(), vec![*at; self.groups().count()])).collect(),
            clocks: stopped.clocks,
            letters: Vec::new(),
            said: stopped.said,
            fresh: Vec::new(),
            waits: false,
        };
        *stream = Some(Stream::start(parts, self.stream_settings())?);
        seen
    }

    /// Stops the stream at a stored barrier. When that cannot be stored, a stream goes on from the last one.
    pub(super) fn halt(&self, stream: &mut Option<Stream>) -> Result<Stopped, PlatformError> {
        let running = stream.take().ok_or_else(|| {
            PlatformError::Unavailable(format!("the stream of project `{}` is not running", self.name()))
        })?;
        let stopped = running.stop().map_err(|error| {
            let restarted = match self.registry.newest() {
                Ok(Some(revision)) => self.run(stream, revision, |_| Ok(())),
                Ok(None) => Ok(()),
                Err(error) => Err(error.into()),
            };
            if let Err(restart) = restarted {
                tracing::error!("the stream of project `{}` is down: {restart}", self.name());
            }
            PlatformError::from(error)
        })?;
        *self.said.lock().unwrap_or_else(PoisonError::into_inner) = stopped.said.clone();
        Ok(stopped)
    }

    pub(super) fn stream_settings(&self) -> StreamSettings {
        StreamSettings {
            threads: self.settings.threads.max(1),
            checkpoint_every_us: self.settings.checkpoint_every_us,
            idle_us: self.settings.idle_us,
        }
    }

    fn prepare(&self, udf: &UdfUse, inputs: &[Field]) -> Result<Udf, String> {
        let module = self.modules.registered(&self.registry, &udf.module, &udf.digest);
        let module = module.map_err(|error| error.to_string())?;
        module.prepare(&udf.udf, &udf.params, inputs).map_err(|error| error.to_string())
    }

    /// The logs of all push sources, opened once.
    pub(super) fn open_logs(&self, project: &Project) -> Result<BTreeMap<String, Arc<PushLog>>, PlatformError> {
        let mut logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        for source in project.sources.values().filter(|source| source.push) {
            if !logs.contains_key(&source.lineage) {
                let path = format!("projects/{}/log/{}", project.name, source.lineage);
                let log = PushLog::open(self.storage.clone(), &path, self.clock.clone(), LogSettings::default())?;
                logs.insert(source.lineage.clone(), Arc::new(log));
            }
        }
        let of = |source: &Source| Some((source.name.clone(), logs.get(&source.lineage)?.clone()));
        Ok(project.sources.values().filter(|source| source.push).filter_map(of).collect())
    }

    /// Takes events into a source's log; durable when it returns.
    pub fn push(
        &self,
        source: &str,
        records: Records,
        idempotency: Option<IdempotencyKey>,
    ) -> Result<Pushed, PlatformError> {
        let live = self.live()?;
        let project = &live.revision.project;
        let definition = project.sources.get(source).ok_or_else(|| {
            let known = project.sources.keys().cloned().collect::<Vec<_>>().join(", ");
            PlatformError::NotFound(format!("project `{}` has no source `{source}`: it has {known}", self.name()))
        })?;
        if !definition.push {
            return Err(PlatformError::Invalid(format!(
                "source `{source}` takes no pushes: add `stream: {{ push: {{}} }}` to it"
            )));
        }
        let log = self
            .log(source)
            .ok_or_else(|| PlatformError::Unavailable(format!("the log of `{source}` is not open yet")))?;
        self.check_memory()?;
        let arrival_us = self.clock.now_us();
        let pushed = look_through(definition, &records, arrival_us)?;
        let answer = serde_json::to_vec(&pushed).map_err(|error| PlatformError::Invalid(error.to_string()))?;
        let appended = log.append(Append { records, arrival_us, idempotency, answer: Bytes::from(answer) })?;
        let mut pushed = match appended.repeated {
            true => serde_json::from_slice(&appended.answer).unwrap_or(pushed),
            false => pushed,
        };
        pushed.position = appended.first_position + u64::from(appended.count);
        pushed.repeated = appended.repeated;
        Ok(pushed)
    }

    /// An error when the state is as large as it may be: then neither pushes nor builds are taken.
    pub(super) fn check_memory(&self) -> Result<(), PlatformError> {
        let stream = self.stream.try_lock();
        let Some(bytes) = stream.ok().and_then(|stream| stream.as_ref().map(Stream::state_bytes)) else {
            return Ok(());
        };
        if bytes >= self.settings.memory_bytes {
            return Err(PlatformError::Unavailable(format!(
                "the state holds {bytes} bytes, and at most {} are allowed: raise limits.memory, or give views a ttl",
                self.settings.memory_bytes
            )));
        }
        Ok(())
    }

    /// Waits until a lookup sees every record of the source below `position`, under whatever name it is read by then.
    pub fn wait_served(&self, source: &str, position: u64, timeout: Duration) -> bool {
        let lineage =
            self.live().ok().and_then(|live| Some(live.revision.project.sources.get(source)?.lineage.clone()));
        let lineage = lineage.as_deref().unwrap_or(source);
        // Counted by what was waited, not by the clock: that one may stand still.
        let mut left = timeout;
        loop {
            let slice = WAIT_SLICE.min(left);
            let running = self.stream().as_ref().map(|stream| {
                let name = stream.project().source_of_lineage(lineage).map_or(source, |source| &source.name);
                stream.wait_served(name, position, slice)
            });
            match running {
                Some(true) => return true,
                Some(false) => {}
                None => std::thread::sleep(slice),
            }
            left = left.saturating_sub(slice);
            if left.is_zero() {
                return false;
            }
        }
    }

    pub fn status(&self) -> ProjectStatus {
        let revision = self.live().map_or(0, |live| live.revision.number);
        let stream = self.stream().as_ref().map(Stream::status).unwrap_or_default();
        let damaged = self.damaged.lock().unwrap_or_else(PoisonError::into_inner).clone();
        ProjectStatus { project: self.name().to_owned(), revision, damaged, stream }
    }

    /// The online store of what is live.
    pub fn online(&self) -> Result<Arc<dyn OnlineStore>, PlatformError> {
        Ok(self.live()?.online.clone())
    }

    pub(super) fn stream(&self) -> MutexGuard<'_, Option<Stream>> {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a push's answer says of its events: they are decoded here once, so that the sender learns of broken ones.
fn look_through(source: &crate::define::Source, records: &Records, arrival_us: i64) -> Result<Pushed, PlatformError> {
    let mut decoder = JsonDecoder::new(source).map_err(RouteError::from)?;
    let decoded = decoder.decode(records.iter()).map_err(RouteError::from)?;
    let mut errors = BTreeMap::new();
    for refused in &decoded.refused {
        errors.insert(refused.record, refused.message.clone());
    }
    let mut dead_lettered = decoded.refused.len() as u64;
    let event_time = source.columns.iter().position(|column| column.name == source.event_time).unwrap_or(0);
    let times = decoded.batch.column(event_time).as_primitive::<TimestampMicrosecondType>();
    for (row, time_us) in times.values().iter().enumerate() {
        if *time_us > arrival_us.saturating_add(source.max_future_us) {
            dead_lettered += 1;
            let message = crate::rows::future_message(source, *time_us, arrival_us);
            errors.insert(decoded.records[row], message);
        }
    }
    let mut broken = BTreeSet::new();
    for failure in &decoded.cell_failures {
        let record = decoded.records[failure.row as usize];
        if !errors.contains_key(&record) {
            broken.insert(record);
        }
        let column = source.columns.get(failure.column as usize).map_or("", |column| &column.name);
        errors.entry(record).or_insert_with(|| format!("`{column}`: {}", failure.message));
    }
    let shown = errors.into_iter().take(ERRORS_SHOWN);
    Ok(Pushed {
        accepted: records.len() as u64 - dead_lettered,
        dead_lettered,
        broken: broken.len() as u64,
        position: 0,
        errors: shown.map(|(record, reason)| PushError { line: u64::from(record) + 1, reason }).collect(),
        repeated: false,
    })
}
