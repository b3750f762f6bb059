//! The thread that reads the logs, advances clocks and sees to checkpoints.

use super::compiled::Compiled;
use super::letter::Letter;
use super::router::{Bounds, Places, Router};
use super::runtime::{Handed, LastBarrier, Message, Shared, StreamError, StreamSettings};
use super::status::StreamStatus;
use super::storing::{Stored, Storing, Unstored};
use super::worker::table_records;
use crate::clock::Clock;
use crate::source::LogReader;
use crate::state::{Barrier, CheckpointError, SourceClock};
use crate::storage::StorageError;
use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};
use onefold_fold::DamagedCell;
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
    pub compiled: Arc<Compiled>,
    /// Letters since the last barrier.
    pub letters: Vec<Letter>,
    pub changed: bool,
    /// What was built when this stream began is stored soon, and its letters can be read.
    pub urgent: bool,
    /// When a checkpoint was taken last, or tried to be stored.
    pub checkpointed_at_us: u64,
    pub taking: Option<Taking>,
    pub storing: Storing,
}

/// A barrier whose state is being encoded by the folding threads.
pub(super) struct Taking {
    replies: Receiver<Result<Handed, DamagedCell>>,
    missing: usize,
    unstored: Unstored,
}

impl Taking {
    /// Gathers what the folding threads have handed out, or (`wait`) all of it. Returns whether all has come.
    fn gather(&mut self, wait: bool, shared: &Shared) -> Result<bool, StreamError> {
        while self.missing > 0 {
            let reply = match wait {
                true => self.replies.recv().map_err(|_| TryRecvError::Disconnected),
                false => self.replies.try_recv(),
            };
            let (groups, refused) = match reply {
                Ok(reply) => reply?,
                Err(TryRecvError::Empty) => return Ok(false),
                Err(TryRecvError::Disconnected) => {
                    return Err(StreamError::Ended("a folding thread has stopped".into()));
                }
            };
            self.missing -= 1;
            let late: usize = groups.iter().map(|part| part.late.iter().filter(|byte| **byte == b'\n').count()).sum();
            self.unstored.parts.extend(groups);
            let mut status = shared.status();
            count_letters(&mut status, &refused);
            if late > 0 {
                *status.dead_letters.entry("late".into()).or_default() += late as u64;
            }
            self.unstored.letters.extend(refused);
        }
        self.unstored.parts.sort_by_key(|part| part.group);
        Ok(true)
    }
}

impl StreamError {
    /// Whether storage could not do it: it may later, when there is space again.
    pub(super) fn is_of_storage(&self) -> bool {
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
    /// Reads until it is told to stop, then stores a last checkpoint.
    pub fn run(mut self) -> Result<LastBarrier, StreamError> {
        let result = self.read_until_stopped();
        let failed = self.shared.status().error.is_some();
        let last = |reader: &mut Reader| reader.read_to_level().and_then(|()| reader.checkpoint());
        let result = result.and_then(|()| if failed { Ok(()) } else { last(&mut self) });
        let stored = self.storing.wait();
        let result = result.and(stored.map(|_| ()));
        for sender in &self.senders {
            drop(sender.send(Message::Stop));
        }
        if let Err(error) = result {
            self.shared.fail(&error);
            return Err(error);
        }
        let (positions, clocks) = (self.positions(), self.clocks());
        let checkpoints = self.storing.into_checkpoints();
        let lost = || StreamError::Ended("the thread that stores checkpoints did not end".into());
        Ok((checkpoints.ok_or_else(lost)?, positions, clocks))
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
            self.checkpoint_on()?;
            let since_us = self.clock.monotonic_us().saturating_sub(self.checkpointed_at_us);
            if self.is_level() && (self.urgent || since_us as i64 >= self.settings.checkpoint_every_us) {
                self.next_checkpoint()?;
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

    /// Begins a checkpoint, unless one is under way; one that could not be stored is tried again before that.
    fn next_checkpoint(&mut self) -> Result<(), StreamError> {
        if self.taking.is_some() || self.storing.is_busy() {
            return Ok(());
        }
        if self.storing.begin()? {
            self.checkpointed_at_us = self.clock.monotonic_us();
        } else if self.changed {
            self.urgent = false;
            self.take_checkpoint()?;
        }
        Ok(())
    }

    /// Brings the checkpoint that is under way on, as far as that needs no waiting.
    fn checkpoint_on(&mut self) -> Result<(), StreamError> {
        if let Some(taking) = &mut self.taking
            && taking.gather(false, &self.shared)?
        {
            self.store_taken()?;
        }
        match self.storing.poll() {
            Ok(stored) => self.note_stored(stored),
            Err(error) => self.try_again_later(error)?,
        }
        Ok(())
    }

    /// Stores what is not stored yet, then takes a checkpoint at the rows read so far and stores that.
    fn checkpoint(&mut self) -> Result<(), StreamError> {
        self.finish_checkpoint()?;
        if self.changed {
            self.take_checkpoint()?;
            self.finish_checkpoint()?;
        }
        Ok(())
    }

    fn finish_checkpoint(&mut self) -> Result<(), StreamError> {
        let stored = self.storing.wait()?;
        self.note_stored(stored);
        if let Some(taking) = &mut self.taking {
            taking.gather(true, &self.shared)?;
            self.store_taken()?;
        } else {
            // What could not be stored before.
            self.storing.begin()?;
        }
        let stored = self.storing.wait()?;
        self.note_stored(stored);
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

    /// Sends a barrier behind the rows read so far. What comes back is gathered while reading goes on.
    fn take_checkpoint(&mut self) -> Result<(), StreamError> {
        let began_us = self.clock.monotonic_us();
        self.checkpointed_at_us = began_us;
        self.changed = false;
        let Some(checkpoints) = self.storing.checkpoints() else { return Ok(()) };
        let full = checkpoints.groups().all().filter(|group| checkpoints.wants_full(*group));
        let full: Arc<BTreeSet<u32>> = Arc::new(full.collect());
        let name = format!("{:020}-{}", checkpoints.epoch() + 1, checkpoints.writer());
        let (reply, replies) = bounded(self.senders.len());
        for source in &mut self.sources {
            source.clock.settled_us = source.clock.settled_us.max(source.watermark_us);
        }
        let clocks = Arc::new(self.clocks());
        self.send(|| Message::Barrier(full.clone(), clocks.clone(), reply.clone()))?;
        let barrier =
            Barrier { positions: self.positions(), clocks: self.clocks(), tables: table_records(&self.compiled) };
        let letters = std::mem::take(&mut self.letters);
        let unstored = Unstored { name, letters, barrier, parts: Vec::new(), began_us };
        self.taking = Some(Taking { replies, missing: self.senders.len(), unstored });
        Ok(())
    }

    fn store_taken(&mut self) -> Result<(), StreamError> {
        if let Some(taking) = self.taking.take() {
            self.storing.set(taking.unstored);
            self.storing.begin()?;
        }
        Ok(())
    }

    fn note_stored(&mut self, stored: Option<Stored>) {
        let Some(Stored { epoch, bytes, began_us }) = stored else { return };
        for source in &mut self.sources {
            // All groups stand at one position now.
            source.router.bounds.fill(Bounds::ALL);
        }
        let mut status = self.shared.status();
        status.checkpoint_epoch = epoch;
        status.checkpoint_bytes = bytes;
        status.checkpoint_us = self.clock.monotonic_us().saturating_sub(began_us);
        status.checkpoint_error = None;
    }
}
