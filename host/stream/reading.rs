//! The thread that reads the logs, advances clocks and stores checkpoints.

use super::compiled::Compiled;
use super::letter::{self, Letter};
use super::router::{Bounds, Places, Router};
use super::runtime::{LastBarrier, Message, Shared, StreamError, StreamSettings};
use super::status::StreamStatus;
use super::steps::Step;
use super::worker::table_records;
use crate::clock::Clock;
use crate::source::LogReader;
use crate::state::{Barrier, CheckpointError, Checkpoints, GroupPart, SourceClock};
use crate::storage::{Storage, StorageError};
use crossbeam_channel::{Sender, bounded};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// About how much of a log is decoded at once: some eight thousand events of two hundred bytes.
const READ_BYTES: usize = 1_600_000;
/// How long the reader waits for events before it looks at the time.
const WAIT: Duration = Duration::from_millis(5);

/// One source's log, as far as it is read.
pub(super) struct SourceReader {
    pub name: String,
    pub reader: LogReader,
    /// Where the furthest group stands: before that the groups differ, and there is no one position to store.
    pub level: u64,
    pub router: Router,
    pub out_of_orderness_us: i64,
    pub clock: SourceClock,
    /// Of the rows that were read here; settle points follow it at barriers.
    pub watermark_us: i64,
}

/// The thread that reads the logs, advances clocks and stores checkpoints.
pub(super) struct Reader {
    pub sources: Vec<SourceReader>,
    pub senders: Vec<Sender<Message>>,
    pub shared: Arc<Shared>,
    pub settings: StreamSettings,
    pub clock: Arc<dyn Clock>,
    pub storage: Arc<dyn Storage>,
    pub project: String,
    pub compiled: Arc<Compiled>,
    pub checkpoints: Checkpoints,
    pub letters: Vec<Letter>,
    pub changed: bool,
    /// What was built when this stream began is stored soon, and its letters can be read.
    pub urgent: bool,
    /// When a checkpoint was stored last, or tried.
    pub checkpointed_at_us: u64,
    pub unstored: Option<Unstored>,
    /// Letters of late rows are in the last checkpoint and nowhere else yet.
    pub unpublished: bool,
}

/// A checkpoint that was taken and could not be stored, or not wholly. Its changes are in no later one, so it is
/// stored before the next is taken; doing it twice does no harm.
pub(super) struct Unstored {
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

fn count_letters(status: &mut StreamStatus, letters: &[Letter]) {
    for letter in letters {
        let reason = format!("{:?}", letter.reason).to_lowercase();
        *status.dead_letters.entry(reason).or_default() += 1;
    }
}

impl Reader {
    /// Reads until it is told to stop, then stores a last checkpoint; `None` when that could not be.
    pub fn run(mut self) -> Option<LastBarrier> {
        let result = self.read_until_stopped();
        let failed = self.shared.status().error.is_some();
        let last = |reader: &mut Reader| reader.read_to_level().and_then(|()| reader.checkpoint());
        let result = result.and_then(|()| if failed { Ok(()) } else { last(&mut self) });
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
            let waits = self.shared.waits.load(Ordering::SeqCst);
            for number in 0..if waits { 0 } else { self.sources.len() } {
                read |= self.read_some(number, self.sources.len() == 1)?;
            }
            if !read && (waits || self.sources.len() != 1) {
                std::thread::sleep(WAIT);
            }
            let since_us = self.clock.monotonic_us().saturating_sub(self.checkpointed_at_us);
            let wanted = (self.changed || self.unstored.is_some() || self.unpublished) && self.is_level();
            if wanted && (self.urgent || since_us as i64 >= self.settings.checkpoint_every_us) {
                self.urgent = false;
                self.checkpoint().or_else(|error| self.try_again_later(error))?;
            }
        }
        Ok(())
    }

    fn is_level(&self) -> bool {
        self.sources.iter().all(|source| source.reader.position() >= source.level)
    }

    /// Reads on to where all groups stand at one position.
    fn read_to_level(&mut self) -> Result<(), StreamError> {
        for number in 0..self.sources.len() {
            while self.sources[number].reader.position() < self.sources[number].level
                && self.read_some(number, false)?
            {}
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
            // By the log alone: files may hold newer rows, after which nothing here would be in time.
            source.watermark_us = source.watermark_us.max(newest_us.saturating_sub(source.out_of_orderness_us));
        }
        let letters = std::mem::take(&mut routed.letters);
        {
            let mut status = self.shared.status();
            count_letters(&mut status, &letters);
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
        self.publish()?;
        if self.changed {
            self.unstored = Some(self.take_checkpoint()?);
            self.changed = false;
            self.store()?;
            self.publish()?;
        }
        Ok(())
    }

    /// Stores the letters that came with the last checkpoint: they are in it, and can be read from now on.
    fn publish(&mut self) -> Result<(), StreamError> {
        if self.unpublished {
            letter::publish_late(self.storage.as_ref(), &self.project, &self.checkpoints)?;
            self.unpublished = false;
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
        let full = self.checkpoints.groups().all().filter(|group| self.checkpoints.wants_full(*group));
        let full: Arc<BTreeSet<u32>> = Arc::new(full.collect());
        let (reply, replies) = bounded(self.senders.len());
        for source in &mut self.sources {
            source.clock.settled_us = source.clock.settled_us.max(source.watermark_us);
        }
        let clocks = Arc::new(self.clocks());
        self.send(|| Message::Barrier(full.clone(), clocks.clone(), reply.clone()))?;
        drop(reply);
        let mut parts = Vec::new();
        let mut letters = std::mem::take(&mut self.letters);
        for _ in 0..self.senders.len() {
            let replied = replies.recv().map_err(|_| StreamError::Ended("a folding thread has stopped".into()))?;
            let (groups, refused) = replied?;
            let late: usize = groups.iter().map(|part| part.late.iter().filter(|byte| **byte == b'\n').count()).sum();
            parts.extend(groups);
            count_letters(&mut self.shared.status(), &refused);
            if late > 0 {
                *self.shared.status().dead_letters.entry("late".into()).or_default() += late as u64;
            }
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
        self.unpublished = unstored.parts.iter().any(|part| !part.late.is_empty());
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
