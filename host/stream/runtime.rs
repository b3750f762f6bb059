//! The running stream of one project: how its threads are started, asked, and stopped.
//!
//! `reader -> routed batches -> workers`, on bounded channels. A barrier follows the rows it belongs to through the
//! same channels, so the state that a worker hands out at it is exactly that of the barrier's positions.

use super::compiled::Compiled;
use super::fold_table::FoldTableError;
use super::letter::Letter;
use super::reading::{Reader, SourceReader};
use super::router::{Bounds, Places, RouteError, Routed, Router};
use super::status::{StreamStatus, TableStatus};
use super::steps::Steps;
use super::storing::Storing;
use super::worker::{GroupState, Worker, split_groups};
use crate::clock::Clock;
use crate::define::Project;
use crate::online::OnlineStore;
use crate::source::{LogError, PushLog};
use crate::state::{CheckpointError, Checkpoints, GroupPart, SourceClock};
use crate::storage::{Storage, StorageError};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use onefold_fold::DamagedCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Routed batches that may wait for one worker.
const WAITING_BATCHES: usize = 4;
/// Entities of a barrier that are encoded between two batches.
const ENCODED_AT_ONCE: usize = 512;

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
    /// What the stream before this one said: its counts go on.
    pub said: StreamStatus,
    /// For each table, whether the online store lacks values of it: they are written while the stream runs, and a
    /// checkpoint is stored at once.
    pub fresh: Vec<bool>,
    /// No row is read before `Stream::go_on`: what is shown now must not be overtaken by what is to be shown next.
    pub waits: bool,
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

/// What a worker hands out at a barrier: its groups' changes and the letters since the last one.
pub(super) type Handed = (Vec<GroupPart>, Vec<Letter>);

/// What worker threads are told, in this order.
pub(super) enum Message {
    Rows(Arc<Routed>, Arc<Places>),
    Clock(String, i64),
    /// Which groups are to be handed out whole, and the clocks that go with the barrier.
    Barrier(Arc<BTreeSet<u32>>, Arc<BTreeMap<String, SourceClock>>, Sender<Result<Handed, DamagedCell>>),
    Stop,
}

/// What the threads of a stream and those who ask it have in common.
pub(super) struct Shared {
    pub stop: AtomicBool,
    pub waits: AtomicBool,
    status: Mutex<StreamStatus>,
    /// For each source and worker, the next position not yet folded.
    served: Mutex<BTreeMap<String, Vec<u64>>>,
    served_moved: Condvar,
    /// For each worker, whether all values that it began with are online.
    refreshed: Mutex<Vec<bool>>,
    /// For each worker, for each table: entities and bytes.
    sizes: Mutex<Vec<Vec<(usize, usize)>>>,
    pub steps: Arc<Steps>,
}

impl Shared {
    pub fn status(&self) -> MutexGuard<'_, StreamStatus> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn served(&self) -> MutexGuard<'_, BTreeMap<String, Vec<u64>>> {
        self.served.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_sizes(&self, number: usize, worker: &Worker) {
        self.sizes.lock().unwrap_or_else(PoisonError::into_inner)[number] = worker.sizes();
    }

    pub fn fail(&self, error: &StreamError) {
        tracing::error!("the stream stopped: {error}");
        self.status().error.get_or_insert_with(|| error.to_string());
        self.stop.store(true, Ordering::SeqCst);
        self.served_moved.notify_all();
    }
}

/// A running stream. `stop` ends it at a barrier and gives its state back.
pub struct Stream {
    shared: Arc<Shared>,
    reader: Option<JoinHandle<Result<LastBarrier, StreamError>>>,
    workers: Vec<JoinHandle<Vec<GroupState>>>,
    project: Arc<Project>,
    compiled: Arc<Compiled>,
    /// What each table is called in `status`.
    tables: Vec<String>,
    logs: BTreeMap<String, Arc<PushLog>>,
}

/// What the reading thread knows when it ends.
pub(super) type LastBarrier = (Checkpoints, BTreeMap<String, u64>, BTreeMap<String, SourceClock>);

/// What a stopped stream gives back.
pub struct Stopped {
    pub project: Arc<Project>,
    pub compiled: Arc<Compiled>,
    pub checkpoints: Checkpoints,
    pub groups: Vec<GroupState>,
    pub positions: BTreeMap<String, u64>,
    pub clocks: BTreeMap<String, SourceClock>,
    pub said: StreamStatus,
}

impl Stream {
    /// Starts the threads. The online store holds the values of `groups` already.
    pub fn start(parts: StreamParts, settings: StreamSettings) -> Result<Stream, StreamError> {
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            waits: AtomicBool::new(parts.waits),
            status: Mutex::new(first_status(&parts)),
            served: Mutex::new(
                parts
                    .positions
                    .iter()
                    .map(|(source, at)| (source.clone(), vec![least(at); settings.threads]))
                    .collect(),
            ),
            served_moved: Condvar::new(),
            refreshed: Mutex::new(vec![false; settings.threads]),
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
            worker.refresh_later(&parts.fresh);
            // Before the thread runs: a push right after the start must not find an empty state.
            shared.note_sizes(number, &worker);
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
                level: positions.iter().copied().max().unwrap_or(0),
                router,
                out_of_orderness_us: source.out_of_orderness_us,
                clock: clock.unwrap_or(SourceClock {
                    clock_us: i64::MIN,
                    newest_us: i64::MIN,
                    read_at_us: parts.clock.now_us(),
                    settled_us: i64::MIN,
                }),
                watermark_us: i64::MIN,
            });
        }
        let (logs, project, compiled) = (parts.logs.clone(), parts.project.clone(), parts.compiled.clone());
        let urgent = !parts.letters.is_empty() || parts.fresh.contains(&true);
        let tables = parts.compiled.layout.table_names();
        let storing = Storing::new(parts.storage, project.name.clone(), parts.checkpoints, shared.steps.clone());
        let reader = Reader {
            sources,
            senders,
            shared: shared.clone(),
            settings,
            clock: parts.clock,
            compiled: parts.compiled,
            changed: true,
            urgent,
            letters: parts.letters,
            checkpointed_at_us: 0,
            taking: None,
            storing,
        };
        let reader = spawn("read", move || reader.run())?;
        Ok(Stream { shared, reader: Some(reader), workers, project, compiled, tables, logs })
    }

    /// Lets rows be read that had to wait.
    pub fn go_on(&self) {
        self.shared.waits.store(false, Ordering::SeqCst);
    }

    /// What it folds for.
    pub fn project(&self) -> &Project {
        &self.project
    }

    /// For each source, up to where every thread has folded.
    pub fn positions(&self) -> BTreeMap<String, u64> {
        self.shared.served().iter().map(|(source, at)| (source.clone(), least(at))).collect()
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

    /// What is asked about the stream without holding it.
    pub fn watch(&self) -> Watch {
        Watch { shared: self.shared.clone() }
    }

    /// Why it has stopped by itself, if it has.
    pub fn error(&self) -> Option<String> {
        self.shared.status().error.clone()
    }

    /// Bytes of keys and states.
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
        status.checkpoint_pause_us = self.shared.steps.longest_pause_us();
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
        match (&given, self.shared.status().error.clone()) {
            // As it is: a disk that is full is told from a fault.
            (Err(error), _) if error.is_of_storage() => {}
            (_, Some(error)) => return Err(StreamError::Ended(error)),
            _ => {}
        }
        let (checkpoints, positions, clocks) = given?;
        let said = self.shared.status().clone();
        let (project, compiled) = (self.project.clone(), self.compiled.clone());
        Ok(Stopped { project, compiled, checkpoints, groups, positions, clocks, said })
    }
}

/// A look at a stream that others may stop meanwhile.
pub struct Watch {
    shared: Arc<Shared>,
}

impl Watch {
    /// Whether the values that the stream began with are all online, and a checkpoint after that epoch is stored.
    /// An error, in words, when the stream has stopped or the checkpoint could not be stored.
    pub fn is_settled(&self, stored_after: Option<u64>) -> Result<bool, String> {
        let status = self.shared.status();
        if let Some(error) = status.error.as_ref().or(status.checkpoint_error.as_ref()) {
            return Err(error.clone());
        }
        let refreshed = self.shared.refreshed.lock().unwrap_or_else(PoisonError::into_inner);
        let is_stored = stored_after.is_none_or(|epoch| status.checkpoint_epoch > epoch);
        Ok(is_stored && refreshed.iter().all(|worker| *worker))
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

/// What a stream says before it has read anything.
fn first_status(parts: &StreamParts) -> StreamStatus {
    let mut status = StreamStatus {
        checkpoint_epoch: parts.checkpoints.epoch(),
        checkpoint_error: None,
        error: None,
        ..parts.said.clone()
    };
    status.sources.retain(|name, _| parts.logs.contains_key(name));
    for (name, clock) in parts.clocks.iter().filter(|(name, _)| parts.logs.contains_key(*name)) {
        let source = status.sources.entry(name.clone()).or_default();
        let known = |us: i64| (us > i64::MIN).then_some(us);
        (source.newest_us, source.clock_us) = (known(clock.newest_us), known(clock.clock_us));
    }
    status
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
    let (mut due, mut refreshed) = (true, false);
    // The letters of a barrier that is being encoded, and who waits for it.
    let mut handing = None;
    loop {
        if handing.is_some() {
            let lap = shared.steps.start();
            hand_out(worker, &mut handing, ENCODED_AT_ONCE)?;
            lap.note_pause();
        }
        // Fresh rows go before expiries; these are caught up whenever nothing waits.
        let message = match due || handing.is_some() {
            true => messages.recv_timeout(Duration::ZERO),
            false => messages.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match message {
            Ok(Message::Rows(routed, places)) => {
                worker.rows(&routed, &places)?;
                shared.note_sizes(number, worker);
                let mut served = shared.served();
                if let Some(at) = served.get_mut(&routed.source).and_then(|at| at.get_mut(number)) {
                    *at = routed.next_position;
                }
                drop(served);
                shared.served_moved.notify_all();
                // However many rows wait: what is built must come to its end.
                refreshed = refreshed || refresh_some(worker, number, shared)?;
            }
            Ok(Message::Clock(source, clock_us)) => {
                worker.clock(&source, clock_us)?;
                due = true;
            }
            Ok(Message::Barrier(full, clocks, reply)) => {
                let lap = shared.steps.start();
                hand_out(worker, &mut handing, usize::MAX)?;
                let settled = clocks.iter().map(|(source, clock)| (source.clone(), clock.settled_us));
                worker.settle(&settled.collect())?;
                worker.freeze(&|group| full.contains(&group));
                handing = Some((std::mem::take(&mut worker.letters), reply));
                lap.note_pause();
            }
            Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => {
                hand_out(worker, &mut handing, usize::MAX)?;
                // Values that are due are written, so that what is read after a stop is as of its clock.
                while worker.due()? || worker.refresh_some()? {}
                return Ok(());
            }
            Err(RecvTimeoutError::Timeout) => {
                refreshed = refreshed || refresh_some(worker, number, shared)?;
                due = worker.due()? || !refreshed;
                shared.note_sizes(number, worker);
            }
        }
    }
}

/// Who waits for a barrier, and the letters up to it.
type Handing = (Vec<Letter>, Sender<Result<Handed, DamagedCell>>);

/// Encodes some of what a barrier froze, and hands it out when it is all there.
fn hand_out(worker: &mut Worker, handing: &mut Option<Handing>, limit: usize) -> Result<(), StreamError> {
    if handing.is_some()
        && worker.encode_some(limit)
        && let Some((letters, reply)) = handing.take()
    {
        let parts = worker.take_frozen();
        if reply.send(parts.map(|parts| (parts, letters))).is_err() {
            return Err(StreamError::Ended("nobody stores the checkpoint".into()));
        }
    }
    Ok(())
}

/// Writes some of the values that are not online yet. Returns whether all are.
fn refresh_some(worker: &mut Worker, number: usize, shared: &Shared) -> Result<bool, StreamError> {
    let more = worker.refresh_some()?;
    if !more {
        shared.refreshed.lock().unwrap_or_else(PoisonError::into_inner)[number] = true;
    }
    Ok(!more)
}
