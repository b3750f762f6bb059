//! A checkpoint being stored, beside the thread that reads: nothing waits for the disk.

use super::letter::{self, Letter};
use super::runtime::StreamError;
use super::steps::{Step, Steps};
use crate::state::{Barrier, Checkpoints, GroupPart};
use crate::storage::Storage;
use std::sync::Arc;
use std::thread::JoinHandle;

/// A checkpoint that was taken and is not stored, or not wholly. Its changes are in no later one, so it is stored
/// before the next is taken; doing it twice does no harm.
pub(super) struct Unstored {
    pub name: String,
    pub letters: Vec<Letter>,
    pub barrier: Barrier,
    pub parts: Vec<GroupPart>,
    pub began_us: u64,
}

/// What was stored.
pub(super) struct Stored {
    pub epoch: u64,
    pub bytes: u64,
    pub began_us: u64,
}

/// What is stored next, and what with. One thread at a time has it.
struct Work {
    storage: Arc<dyn Storage>,
    project: String,
    steps: Arc<Steps>,
    checkpoints: Checkpoints,
    unstored: Option<Unstored>,
    /// Letters of late rows are in the last checkpoint and nowhere else yet.
    unpublished: bool,
    /// What was stored and is not told yet.
    stored: Option<Stored>,
}

/// What a thread that stored gives back.
type Back = (Box<Work>, Result<Option<Stored>, StreamError>);

/// Stores one checkpoint after the other.
pub(super) struct Storing {
    /// Here while nothing is being stored.
    work: Option<Box<Work>>,
    thread: Option<JoinHandle<Back>>,
}

impl Storing {
    pub fn new(storage: Arc<dyn Storage>, project: String, checkpoints: Checkpoints, steps: Arc<Steps>) -> Storing {
        let work = Work { storage, project, steps, checkpoints, unstored: None, unpublished: false, stored: None };
        Storing { work: Some(Box::new(work)), thread: None }
    }

    pub fn is_busy(&self) -> bool {
        self.thread.is_some()
    }

    /// The protocol's state, while nothing is being stored.
    pub fn checkpoints(&self) -> Option<&Checkpoints> {
        self.work.as_ref().map(|work| &work.checkpoints)
    }

    pub fn into_checkpoints(self) -> Option<Checkpoints> {
        self.work.map(|work| work.checkpoints)
    }

    /// Says what is to be stored next.
    pub fn set(&mut self, unstored: Unstored) {
        if let Some(work) = &mut self.work {
            work.unstored = Some(unstored);
        }
    }

    /// Begins to store what is not stored yet. Returns whether there is anything.
    pub fn begin(&mut self) -> Result<bool, StreamError> {
        let has_work = |work: &mut Box<Work>| work.unstored.is_some() || work.unpublished;
        let Some(mut work) = self.work.take_if(has_work) else { return Ok(false) };
        let thread = std::thread::Builder::new().name("checkpoint".into()).spawn(move || {
            let stored = work.store();
            (work, stored)
        });
        self.thread = Some(
            thread.map_err(|error| StreamError::Ended(format!("thread `checkpoint` cannot be started: {error}")))?,
        );
        Ok(true)
    }

    /// What was stored meanwhile; nothing while it is still under way.
    pub fn poll(&mut self) -> Result<Option<Stored>, StreamError> {
        match self.thread.take_if(|thread| thread.is_finished()) {
            Some(thread) => self.join(thread),
            None => Ok(None),
        }
    }

    /// Waits until nothing is being stored.
    pub fn wait(&mut self) -> Result<Option<Stored>, StreamError> {
        match self.thread.take() {
            Some(thread) => self.join(thread),
            None => Ok(None),
        }
    }

    fn join(&mut self, thread: JoinHandle<Back>) -> Result<Option<Stored>, StreamError> {
        let (work, stored) =
            thread.join().map_err(|_| StreamError::Ended("the thread that stores checkpoints panicked".into()))?;
        self.work = Some(work);
        stored
    }
}

impl Work {
    fn store(&mut self) -> Result<Option<Stored>, StreamError> {
        let steps = self.steps.clone();
        let mut lap = steps.start();
        self.publish()?;
        let Some(unstored) = &self.unstored else { return Ok(self.stored.take()) };
        letter::store(self.storage.as_ref(), &self.project, &unstored.name, &unstored.letters)?;
        self.storage.crash_point("after the letters, before the delta")?;
        let epoch = self.checkpoints.commit(&unstored.barrier, &unstored.parts)?;
        self.unpublished = unstored.parts.iter().any(|part| !part.late.is_empty());
        let bytes = unstored.parts.iter().map(|part| part.bytes.len() as u64).sum();
        self.stored = Some(Stored { epoch, bytes, began_us: unstored.began_us });
        self.unstored = None;
        self.publish()?;
        lap.end(Step::Checkpoint);
        Ok(self.stored.take())
    }

    /// Stores the letters that came with the last checkpoint: they are in it, and can be read from now on.
    fn publish(&mut self) -> Result<(), StreamError> {
        if self.unpublished {
            letter::publish_late(self.storage.as_ref(), &self.project, &self.checkpoints)?;
            self.unpublished = false;
        }
        Ok(())
    }
}
