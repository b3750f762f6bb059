//! The running stream of one project: a reading thread, the worker threads, and the one that stores checkpoints.
//!
//! `reader -> routed batches -> workers`, on bounded channels. A barrier follows the rows it belongs to through the
//! same channels, so the state that a worker hands out at it is exactly that of the barrier's positions.

use super::compiled::Compiled;
use super::fold_table::FoldTableError;
use super::letter::{self, Letter};
use super::router::{Bounds, Places, RouteError, Routed, Router};
use super::steps::{Step, Steps};
use super::worker::{GroupState, Worker, split_groups, table_records};
use crate::clock::Clock;
use crate::define::Project;
use crate::online::OnlineStore;
use crate::source::{LogError, LogReader, PushLog};
use crate::state::{Barrier, CheckpointError, Checkpoints, GroupPart, SourceClock};
use crate::storage::{Storage, StorageError};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use onefold_fold::DamagedCell;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// About how much of a log is decoded at once: some eight thousand events of two hundred bytes.
const READ_BYTES: usize = 1_600_000;
/// How long the reader waits for events before it looks at the time.
const WAIT: Duration = Duration::from_millis(5);
/// Routed batches that may wait for one worker.
const WAITING_BATCHES: usize = 4;

/// What a stream runs on, apart from its settings.
pub struct StreamParts {
    pub project: Arc<Project>,
    pub compiled: Arc<Compiled>,
    pub online: Arc<dyn OnlineStore>,
    pub logs: BTreeMap<String, Arc<PushLog>>,
    pub storage: Arc<dyn Storage>,
    pub clock: Arc<dyn Clock>,
    pub checkpoints: Checkpoints,
    pub groups: Vec<GroupState>,
    /// For each source, where each group stands (by group); all alike but after a crash between manifests.
    pub positions: BTreeMap<String, Vec<u64>>,
    pub clocks: BTreeMap<String, SourceClock>,
    /// Letters of rows that were read to build `groups`, not stored yet.
    pub letters: Vec<Letter>,
}

#[derive(Clone, Copy, Debug)]
pub struct StreamSettings {
    pub threads: usize,
    pub checkpoint_every_us: i64,
    pub idle_us: i64,
}

/// Why a stream stopped by itself. What was acknowledged is in the log; a restart goes on from the last checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Route(#[from] RouteError),
    #[error(transparent)]
    Fold(#[from] FoldTableError),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(transparent)]
    Damaged(#[from] DamagedCell),
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error("a thread of the stream ended: {0}")]
    Ended(String),
}

/// What a stream says of itself.
#[derive(Clone, Debug, Default, Serialize)]
pub struct StreamStatus {
    pub sources: BTreeMap<String, SourceStatus>,
    pub tables: Vec<TableStatus>,
    pub checkpoint_epoch: u64,
    pub checkpoint_bytes: u64,
    pub checkpoint_us: u64,
    /// Why the newest checkpoint is not stored yet: it is tried again. Null while all goes well.
    pub checkpoint_error: Option<String>,
    pub dead_letters: BTreeMap<String, u64>,
    /// How long the threads were busy since the start, by step.
    pub busy_us: BTreeMap<&'static str, u64>,
    /// Why it has stopped; null while it runs.
    pub error: Option<String>,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct SourceStatus {
    /// Records that a lookup would see.
    pub position: u64,
    pub end_position: u64,
    pub rows: u64,
    pub null_keys: u64,
    pub newest_us: Option<i64>,
    pub clock_us: Option<i64>,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct TableStatus {
    pub table: String,
    pub entities: u64,
    pub state_bytes: u64,
}

/// What a worker hands out at a barrier: its groups' changes and the letters since the last one.
type Handed = (Vec<GroupPart>, Vec<Letter>);

enum Message {
    Rows(Arc<Routed>, Arc<Places>),
    Clock(String, i64),
    Barrier(u64, Sender<Result<Handed, DamagedCell>>),
    Stop,
}

struct Shared {
    stop: AtomicBool,
    status: Mutex<StreamStatus>,
    /// For each source and worker, the next position not yet folded.
    served: Mutex<BTreeMap<String, Vec<u64>>>,
    served_moved: Condvar,
    /// For each worker, for each table: entities and bytes, as of the last barrier.
    sizes: Mutex<Vec<Vec<(usize, usize)>>>,
    steps: Arc<Steps>,
}

impl Shared {
    fn status(&self) -> MutexGuard<'_, StreamStatus> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn served(&self) -> MutexGuard<'_, BTreeMap<String, Vec<u64>>> {
        self.served.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fail(&self, error: &StreamError) {
        tracing::error!("the stream stopped: {error}");
        self.status().error.get_or_insert_with(|| error.to_string());
        self.stop.store(true, Ordering::SeqCst);
        self.served_moved.notify_all();
    }
}

/// A running stream. `stop` ends it at a barrier and gives its state back.
pub struct Stream {
    shared: Arc<Shared>,
    reader: Option<JoinHandle<Option<LastBarrier>>>,
    workers: Vec<JoinHandle<Vec<GroupState>>>,
    /// What each table is called in `status`.
    tables: Vec<String>,
    logs: BTreeMap<String, Arc<PushLog>>,
}

/// What the reading thread knows when it ends.
type LastBarrier = (Checkpoints, BTreeMap<String, u64>, BTreeMap<String, SourceClock>);

/// What a stopped stream gives back.
pub struct Stopped {
    pub checkpoints: Checkpoints,
    pub groups: Vec<GroupState>,
    pub positions: BTreeMap<String, u64>,
    pub clocks: BTreeMap<String, SourceClock>,
}

impl Stream {
    /// Starts the threads. The online store holds the values of `groups` already.
    pub fn start(parts: StreamParts, settings: StreamSettings) -> Result<Stream, StreamError> {
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            status: Mutex::default(),
            served: Mutex::new(
                parts
                    .positions
                    .iter()
                    .map(|(source, at)| (source.clone(), vec![least(at); settings.threads]))
                    .collect(),
            ),
            served_moved: Condvar::new(),
            sizes: Mutex::new(vec![Vec::new(); settings.threads]),
            steps: Arc::new(Steps::new(parts.clock.clone())),
        });
        let mut senders = Vec::new();
        let mut workers = Vec::new();
        for (number, groups) in split_groups(parts.groups, settings.threads).into_iter().enumerate() {
            let (sender, receiver) = bounded(WAITING_BATCHES);
            senders.push(sender);
            let mut worker =
                Worker::new(parts.compiled.clone(), parts.online.clone(), number, groups, shared.steps.clone());
            let clocks = parts.clocks.clone();
            let shared = shared.clone();
            workers.push(spawn(&format!("fold-{number}"), move || {
                let result = clocks
                    .iter()
                    .try_for_each(|(source, clock)| worker.clock(source, clock.clock_us))
                    .map_err(StreamError::from)
                    .and_then(|()| run_worker(&mut worker, number, &receiver, &shared));
                if let Err(error) = result {
                    shared.fail(&error);
                }
                worker.into_groups()
            })?);
        }
        let mut sources = Vec::new();
        for (name, log) in &parts.logs {
            let Some(source) = parts.project.sources.get(name) else { continue };
            let positions = parts.positions.get(name).cloned().unwrap_or_default();
            let mut router = Router::new(parts.compiled.clone(), source, settings.threads, shared.steps.clone())
                .map_err(RouteError::from)?;
            let from = least(&positions);
            for (bounds, position) in router.bounds.iter_mut().zip(&positions) {
                *bounds = Bounds { from: if *position == from { 0 } else { *position }, until: u64::MAX };
            }
            let clock = parts.clocks.get(name).copied();
            sources.push(SourceReader {
                name: name.clone(),
                reader: log.reader(from)?,
                router,
                out_of_orderness_us: source.out_of_orderness_us,
                clock: clock.unwrap_or(SourceClock {
                    clock_us: i64::MIN,
                    newest_us: i64::MIN,
                    read_at_us: parts.clock.now_us(),
                }),
            });
        }
        let logs = parts.logs.clone();
        let tables = parts.compiled.layout.table_names();
        let reader = Reader {
            sources,
            senders,
            shared: shared.clone(),
            settings,
            clock: parts.clock,
            storage: parts.storage,
            project: parts.project.name.clone(),
            compiled: parts.compiled,
            checkpoints: parts.checkpoints,
            changed: true,
            letters: parts.letters,
            checkpointed_at_us: 0,
            unstored: None,
        };
        let reader = spawn("read", move || reader.run())?;
        Ok(Stream { shared, reader: Some(reader), workers, tables, logs })
    }

    /// Waits until a lookup sees every record below `position`; false when that took longer than `timeout`.
    pub fn wait_served(&self, source: &str, position: u64, timeout: Duration) -> bool {
        let served = self.shared.served();
        let lacks = |served: &mut BTreeMap<String, Vec<u64>>| {
            let at = served.get(source).map_or(u64::MAX, |at| least(at));
            at < position && !self.shared.stop.load(Ordering::SeqCst)
        };
        let (served, _) =
            self.shared.served_moved.wait_timeout_while(served, timeout, lacks).unwrap_or_else(PoisonError::into_inner);
        served.get(source).is_none_or(|at| least(at) >= position)
    }

    /// Why it has stopped by itself, if it has.
    pub fn error(&self) -> Option<String> {
        self.shared.status().error.clone()
    }

    /// Bytes of keys and states, as of the last checkpoint.
    pub fn state_bytes(&self) -> usize {
        self.sizes().iter().map(|(_, bytes)| bytes).sum()
    }

    fn sizes(&self) -> Vec<(usize, usize)> {
        let sizes = self.shared.sizes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sum = vec![(0, 0); self.tables.len()];
        for (table, size) in sizes.iter().flat_map(|worker| worker.iter().enumerate()) {
            sum[table].0 += size.0;
            sum[table].1 += size.1;
        }
        sum
    }

    pub fn status(&self) -> StreamStatus {
        let mut status = self.shared.status().clone();
        status.busy_us = self.shared.steps.spent_us();
        let size = |(table, (entities, bytes)): (&String, (usize, usize))| TableStatus {
            table: table.clone(),
            entities: entities as u64,
            state_bytes: bytes as u64,
        };
        status.tables = self.tables.iter().zip(self.sizes()).map(size).collect();
        let served = self.shared.served();
        for (name, log) in &self.logs {
            let source = status.sources.entry(name.clone()).or_default();
            source.end_position = log.end_position();
            source.position = served.get(name).map_or(0, |at| least(at));
        }
        status
    }

    /// Stops at a barrier that is stored, and gives the state back.
    pub fn stop(mut self) -> Result<Stopped, StreamError> {
        self.shared.stop.store(true, Ordering::SeqCst);
        let ended = |what: &str| StreamError::Ended(what.into());
        let given = self.reader.take().and_then(|reader| reader.join().ok());
        let given = given.ok_or_else(|| ended("the reading thread panicked"))?;
        let mut groups = Vec::new();
        for worker in std::mem::take(&mut self.workers) {
            groups.extend(worker.join().map_err(|_| ended("a folding thread panicked"))?);
        }
        if let Some(error) = self.shared.status().error.clone() {
            return Err(StreamError::Ended(error));
        }
        let (checkpoints, positions, clocks) = given.ok_or_else(|| ended("the reading thread gave up"))?;
        Ok(Stopped { checkpoints, groups, positions, clocks })
    }
}

impl Drop for Stream {
    /// A stream that is let go without `stop` ends like one that was stopped; nobody hears what went wrong.
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        if let Some(reader) = self.reader.take() {
            drop(reader.join());
        }
        for worker in std::mem::take(&mut self.workers) {
            drop(worker.join());
        }
    }
}

fn spawn<T: Send + 'static>(
    name: &str,
    run: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, StreamError> {
    std::thread::Builder::new()
        .name(name.into())
        .spawn(run)
        .map_err(|error| StreamError::Ended(format!("thread `{name}` cannot be started: {error}")))
}

fn least(positions: &[u64]) -> u64 {
    positions.iter().copied().min().unwrap_or(0)
}

fn run_worker(
    worker: &mut Worker,
    number: usize,
    messages: &Receiver<Message>,
    shared: &Shared,
) -> Result<(), StreamError> {
    let mut due = false;
    loop {
        // Fresh rows go before expiries; these are caught up whenever nothing waits.
        let message = match due {
            true => messages.recv_timeout(Duration::ZERO),
            false => messages.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match message {
            Ok(Message::Rows(routed, places)) => {
                worker.rows(&routed, &places)?;
                let mut served = shared.served();
                if let Some(at) = served.get_mut(&routed.source).and_then(|at| at.get_mut(number)) {
                    *at = routed.next_position;
                }
                drop(served);
                shared.served_moved.notify_all();
            }
            Ok(Message::Clock(source, clock_us)) => {
                worker.clock(&source, clock_us)?;
                due = true;
            }
            Ok(Message::Barrier(full, reply)) => {
                let letters = std::mem::take(&mut worker.letters);
                let parts = worker.changes(&|group| full & (1 << group) != 0);
                if reply.send(parts.map(|parts| (parts, letters))).is_err() {
                    return Err(StreamError::Ended("nobody stores the checkpoint".into()));
                }
                let mut sizes = shared.sizes.lock().unwrap_or_else(PoisonError::into_inner);
                sizes[number] = worker.sizes();
            }
            Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => {
                // Values that are due are written, so that what is read after a stop is as of its clock.
                while worker.due()? {}
                return Ok(());
            }
            Err(RecvTimeoutError::Timeout) => due = worker.due()?,
        }
    }
}

struct SourceReader {
    name: String,
    reader: LogReader,
    router: Router,
    out_of_orderness_us: i64,
    clock: SourceClock,
}

/// The thread that reads the logs, advances clocks and stores checkpoints.
struct Reader {
    sources: Vec<SourceReader>,
    senders: Vec<Sender<Message>>,
    shared: Arc<Shared>,
    settings: StreamSettings,
    clock: Arc<dyn Clock>,
    storage: Arc<dyn Storage>,
    project: String,
    compiled: Arc<Compiled>,
    checkpoints: Checkpoints,
    letters: Vec<Letter>,
    changed: bool,
    /// When a checkpoint was stored last, or tried.
    checkpointed_at_us: u64,
    unstored: Option<Unstored>,
}

/// A checkpoint that was taken and could not be stored, or not wholly. Its changes are in no later one, so it is
/// stored before the next is taken; doing it twice does no harm.
struct Unstored {
    name: String,
    letters: Vec<Letter>,
    barrier: Barrier,
    parts: Vec<GroupPart>,
    began_us: u64,
}

impl StreamError {
    /// Whether storage could not do it: it may later, when there is space again.
    fn is_of_storage(&self) -> bool {
        let error = match self {
            StreamError::Storage(error) | StreamError::Checkpoint(CheckpointError::Storage(error)) => error,
            _ => return false,
        };
        matches!(error, StorageError::Unwritable { .. } | StorageError::Failed { .. })
    }
}

impl Reader {
    fn run(mut self) -> Option<LastBarrier> {
        let result = self.read_until_stopped();
        let failed = self.shared.status().error.is_some();
        let result = result.and_then(|()| if failed { Ok(()) } else { self.checkpoint() });
        for sender in &self.senders {
            drop(sender.send(Message::Stop));
        }
        if let Err(error) = result {
            self.shared.fail(&error);
            return None;
        }
        let positions = self.positions();
        let clocks = self.clocks();
        Some((self.checkpoints, positions, clocks))
    }

    fn read_until_stopped(&mut self) -> Result<(), StreamError> {
        self.checkpointed_at_us = self.clock.monotonic_us();
        while !self.shared.stop.load(Ordering::SeqCst) {
            let mut read = false;
            for number in 0..self.sources.len() {
                read |= self.read_some(number, self.sources.len() == 1)?;
            }
            if !read && self.sources.len() != 1 {
                std::thread::sleep(WAIT);
            }
            let since_us = self.clock.monotonic_us().saturating_sub(self.checkpointed_at_us);
            let wanted = self.changed || self.unstored.is_some();
            if wanted && since_us as i64 >= self.settings.checkpoint_every_us {
                self.checkpoint().or_else(|error| self.try_again_later(error))?;
            }
        }
        Ok(())
    }

    /// Reads and routes what has come to one source. Returns whether anything had.
    fn read_some(&mut self, number: usize, wait: bool) -> Result<bool, StreamError> {
        let source = &mut self.sources[number];
        let wait = if wait { WAIT } else { Duration::ZERO };
        let batches = source.reader.next(READ_BYTES, wait)?;
        let now_us = self.clock.now_us();
        if batches.is_empty() {
            let idle_us = now_us.saturating_sub(source.clock.read_at_us);
            if source.clock.newest_us > i64::MIN && idle_us >= self.settings.idle_us {
                let watermark_us = source.clock.newest_us.saturating_sub(source.out_of_orderness_us);
                let clock_us = watermark_us.saturating_add(idle_us);
                // Once a second is enough: hops are minutes.
                if clock_us.saturating_sub(source.clock.clock_us) >= 1_000_000 {
                    source.clock.clock_us = clock_us;
                    let (name, clock) = (source.name.clone(), source.clock);
                    self.shared.status().sources.entry(name.clone()).or_default().clock_us = Some(clock.clock_us);
                    self.send(|| Message::Clock(name.clone(), clock_us))?;
                    self.changed = true;
                }
            }
            return Ok(false);
        }
        let places = Arc::new(Places::new(&batches));
        let mut routed = source.router.route(&batches)?;
        source.clock.read_at_us = now_us;
        if let Some(newest_us) = routed.newest_us {
            source.clock.newest_us = source.clock.newest_us.max(newest_us);
            let watermark_us = source.clock.newest_us.saturating_sub(source.out_of_orderness_us);
            source.clock.clock_us = source.clock.clock_us.max(watermark_us);
        }
        let letters = std::mem::take(&mut routed.letters);
        {
            let mut status = self.shared.status();
            for letter in &letters {
                let reason = format!("{:?}", letter.reason).to_lowercase();
                *status.dead_letters.entry(reason).or_default() += 1;
            }
            let said = status.sources.entry(source.name.clone()).or_default();
            said.rows += routed.rows as u64;
            said.null_keys += routed.null_keys;
            said.newest_us = Some(source.clock.newest_us);
            said.clock_us = Some(source.clock.clock_us);
        }
        self.letters.extend(letters);
        let (name, clock_us) = (source.name.clone(), source.clock.clock_us);
        let routed = Arc::new(routed);
        if clock_us > i64::MIN {
            // Before the rows, so that their entities are folded once, as of the clock that these rows make.
            self.send(|| Message::Clock(name.clone(), clock_us))?;
        }
        self.send(|| Message::Rows(routed.clone(), places.clone()))?;
        self.changed = true;
        Ok(true)
    }

    fn send(&self, message: impl Fn() -> Message) -> Result<(), StreamError> {
        for sender in &self.senders {
            sender.send(message()).map_err(|_| StreamError::Ended("a folding thread has stopped".into()))?;
        }
        Ok(())
    }

    fn positions(&self) -> BTreeMap<String, u64> {
        self.sources.iter().map(|source| (source.name.clone(), source.reader.position())).collect()
    }

    fn clocks(&self) -> BTreeMap<String, SourceClock> {
        self.sources.iter().map(|source| (source.name.clone(), source.clock)).collect()
    }

    /// Stores what is not stored yet, then takes a checkpoint at the rows read so far and stores that.
    fn checkpoint(&mut self) -> Result<(), StreamError> {
        self.checkpointed_at_us = self.clock.monotonic_us();
        self.store()?;
        if self.changed {
            self.unstored = Some(self.take_checkpoint()?);
            self.changed = false;
            self.store()?;
        }
        Ok(())
    }

    /// Rows go on being folded while storage is full or out of reach: they are in the log, which refuses new ones
    /// by itself when it cannot keep them.
    fn try_again_later(&mut self, error: StreamError) -> Result<(), StreamError> {
        if !error.is_of_storage() {
            return Err(error);
        }
        tracing::warn!("the checkpoint is not stored, it is tried again: {error}");
        self.shared.status().checkpoint_error = Some(error.to_string());
        Ok(())
    }

    /// Sends a barrier behind the rows read so far and gathers what comes back.
    fn take_checkpoint(&mut self) -> Result<Unstored, StreamError> {
        let began_us = self.clock.monotonic_us();
        let full = (0..crate::route::GROUPS).filter(|group| self.checkpoints.wants_full(*group));
        let full = full.fold(0u64, |mask, group| mask | 1 << group);
        let (reply, replies) = bounded(self.senders.len());
        self.send(|| Message::Barrier(full, reply.clone()))?;
        drop(reply);
        let mut parts = Vec::new();
        let mut letters = std::mem::take(&mut self.letters);
        for _ in 0..self.senders.len() {
            let replied = replies.recv().map_err(|_| StreamError::Ended("a folding thread has stopped".into()))?;
            let (groups, refused) = replied?;
            parts.extend(groups);
            letters.extend(refused);
        }
        parts.sort_by_key(|part| part.group);
        let barrier =
            Barrier { positions: self.positions(), clocks: self.clocks(), tables: table_records(&self.compiled) };
        let name = format!("{:020}-{}", self.checkpoints.epoch() + 1, self.checkpoints.writer());
        Ok(Unstored { name, letters, barrier, parts, began_us })
    }

    fn store(&mut self) -> Result<(), StreamError> {
        let Some(unstored) = &self.unstored else { return Ok(()) };
        let mut lap = self.shared.steps.start();
        letter::store(self.storage.as_ref(), &self.project, &unstored.name, &unstored.letters)?;
        self.storage.crash_point("after the letters, before the delta")?;
        let epoch = self.checkpoints.commit(&unstored.barrier, &unstored.parts)?;
        for source in &mut self.sources {
            // All groups stand at one position now.
            source.router.bounds.fill(Bounds::ALL);
        }
        let mut status = self.shared.status();
        status.checkpoint_epoch = epoch;
        status.checkpoint_bytes = unstored.parts.iter().map(|part| part.bytes.len() as u64).sum();
        status.checkpoint_us = self.clock.monotonic_us().saturating_sub(unstored.began_us);
        status.checkpoint_error = None;
        drop(status);
        self.unstored = None;
        lap.end(Step::Checkpoint);
        Ok(())
    }
}
