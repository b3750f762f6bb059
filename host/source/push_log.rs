//! The durable log of pushed events: what is acknowledged here survives any crash.
//!
//! One thread writes. While it waits for the disk, pushes gather; then one write and one sync take all of them. So the
//! floor of a push is one sync, shared by everyone who came during the last one.

use super::log_writer::Writer;
use super::reader::{LogBatch, LogReader};
use super::records::Records;
use crate::clock::Clock;
use crate::define::Digest;
use crate::storage::{Storage, StorageError};
use bytes::Bytes;
use crossbeam_channel::{Sender, bounded};
use std::collections::BTreeSet;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// How much of a log is read at once where single records are looked for.
const LOOK_BYTES: usize = 1 << 20;

/// Bounds of a log.
#[derive(Clone, Debug)]
pub struct LogSettings {
    /// A file is closed, and the next begun, once it has so many bytes.
    pub segment_bytes: u64,
    /// How long idempotency keys are kept.
    pub keep_keys_us: i64,
    /// The largest push: it is held in memory as a whole, here and by readers.
    pub push_bytes: usize,
}

impl Default for LogSettings {
    fn default() -> LogSettings {
        LogSettings { segment_bytes: 64 << 20, keep_keys_us: 86_400_000_000, push_bytes: 256 << 20 }
    }
}

/// One push.
#[derive(Clone, Debug)]
pub struct Append {
    pub records: Records,
    pub arrival_us: i64,
    pub idempotency: Option<IdempotencyKey>,
    /// What to tell whoever sends the same key again; kept with the records.
    pub answer: Bytes,
}

/// What a client named its push, and what the push was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey {
    pub key: String,
    /// Of the body as it was received.
    pub body: Digest,
}

/// Where a push stands, durably.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    pub first_position: u64,
    pub count: u32,
    /// The answer stored with the first push of that key; one's own when it is the first.
    pub answer: Bytes,
    /// It had been pushed before; nothing was written now.
    pub repeated: bool,
}

/// Why the log could not do it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LogError {
    /// Nothing of the push is kept; when `unwritable`, it goes again once there is space.
    #[error("{message}")]
    Storage { message: String, unwritable: bool },
    /// A stored frame is not what was written. Positions from there on cannot be read.
    #[error("{path}: bytes at offset {offset} are not what was written ({what}); restore the file from a copy")]
    Corrupt { path: String, offset: u64, what: &'static str },
    #[error("idempotency key `{key}` came before with another body; a key names one push, use a new one")]
    KeyReused { key: String },
    #[error("a push of {bytes} bytes; at most {limit} can be stored at once, send it in parts")]
    TooLarge { bytes: usize, limit: usize },
    #[error("position {position} is not in the log, which has {first} to {end}")]
    NoPosition { position: u64, first: u64, end: u64 },
    #[error("the log has been closed")]
    Closed,
}

impl From<StorageError> for LogError {
    fn from(error: StorageError) -> LogError {
        LogError::Storage { message: error.to_string(), unwritable: error.is_unwritable() }
    }
}

/// A log open for writing and reading. Dropping it waits for what is under way.
pub struct PushLog {
    shared: Arc<Shared>,
    storage: Arc<dyn Storage>,
    settings: LogSettings,
    requests: Option<Sender<Request>>,
    writer: Option<JoinHandle<()>>,
}

/// What writer and readers both look at.
pub(super) struct Shared {
    state: Mutex<State>,
    pub grown: Condvar,
}

pub(super) struct State {
    /// Ascending; never empty.
    pub segments: Vec<Segment>,
    /// The position of the next record: all before it are synced.
    pub end_position: u64,
    pub closed: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub path: String,
    pub first_position: u64,
    /// How many of its bytes may be read.
    pub synced: u64,
}

impl Shared {
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there are records from `position` on, the log is closed, or the time is over.
    pub fn wait_beyond(&self, position: u64, timeout: Duration) {
        let state = self.state();
        let waiting = |state: &mut State| state.end_position <= position && !state.closed;
        drop(self.grown.wait_timeout_while(state, timeout, waiting).unwrap_or_else(PoisonError::into_inner));
    }
}

pub(super) type Answer = Box<dyn FnOnce(Result<Appended, LogError>) + Send>;

/// A push on its way to the writer, and whom to answer.
pub(super) struct Request {
    pub append: Append,
    pub answer: Answer,
}

impl PushLog {
    /// Opens the log at a path (`projects/shop/log/transactions`), or begins it. What a crash tore at its end is cut off.
    pub fn open(
        storage: Arc<dyn Storage>,
        path: &str,
        clock: Arc<dyn Clock>,
        settings: LogSettings,
    ) -> Result<PushLog, LogError> {
        let (writer, state) = Writer::recover(storage.clone(), path, clock, settings.clone())?;
        let shared = Arc::new(Shared { state: Mutex::new(state), grown: Condvar::new() });
        // So many pushes may wait; more make their senders wait, which is what bounds memory.
        let (requests, incoming) = bounded(1024);
        let thread = std::thread::Builder::new().name("push-log".into()).spawn({
            let shared = shared.clone();
            move || writer.run(&incoming, &shared)
        });
        let writer = thread.map_err(|error| LogError::Storage {
            message: format!("cannot start the thread that writes the log: {error}"),
            unwritable: false,
        })?;
        Ok(PushLog { shared, storage, settings, requests: Some(requests), writer: Some(writer) })
    }

    /// Stores a push durably, or nothing of it, and waits until that is so.
    pub fn append(&self, append: Append) -> Result<Appended, LogError> {
        let (sender, receiver) = bounded(1);
        self.append_then(append, move |result| drop(sender.send(result)))?;
        receiver.recv().map_err(|_| LogError::Closed)?
    }

    /// The same without waiting for the disk: `answer` is called on the writer's thread and must not wait itself.
    pub fn append_then(
        &self,
        append: Append,
        answer: impl FnOnce(Result<Appended, LogError>) + Send + 'static,
    ) -> Result<(), LogError> {
        let bytes = append.records.bytes().len() + append.records.len() * 4 + append.answer.len();
        if bytes > self.settings.push_bytes {
            return Err(LogError::TooLarge { bytes, limit: self.settings.push_bytes });
        }
        let requests = self.requests.as_ref().ok_or(LogError::Closed)?;
        requests.send(Request { append, answer: Box::new(answer) }).map_err(|_| LogError::Closed)
    }

    /// The position of the next record; all before it are durable.
    pub fn end_position(&self) -> u64 {
        self.shared.state().end_position
    }

    /// The oldest position that is still there.
    pub fn first_position(&self) -> u64 {
        self.shared.state().segments.first().map_or(0, |segment| segment.first_position)
    }

    /// When the oldest record that is still there arrived; none while there is none.
    pub fn first_arrival_us(&self) -> Result<Option<i64>, LogError> {
        let batches = self.reader(self.first_position())?.next(1, Duration::ZERO)?;
        Ok(batches.first().map(|batch| batch.arrival_us))
    }

    /// Gives the records at these positions to `take`, in order: one pass, however many they are. Those that the log
    /// does not have are left out.
    pub fn each_record<E: From<LogError>>(
        &self,
        positions: &BTreeSet<u64>,
        mut take: impl FnMut(LogBatch) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut wanted = positions.range(self.first_position()..self.end_position()).peekable();
        let Some(first) = wanted.peek() else { return Ok(()) };
        let mut reader = self.reader(**first)?;
        while let Some(next) = wanted.peek() {
            reader.skip_to(**next);
            let batches = reader.next(LOOK_BYTES, Duration::ZERO)?;
            if batches.is_empty() {
                break;
            }
            for batch in batches {
                let end = batch.first_position + batch.records.len() as u64;
                while let Some(position) = wanted.next_if(|position| **position < end) {
                    let number = usize::try_from(position - batch.first_position).unwrap_or(usize::MAX);
                    let record = batch.records.get(number).and_then(|record| Records::from_slices([record]));
                    let records = record.unwrap_or_default();
                    take(LogBatch { first_position: *position, arrival_us: batch.arrival_us, records })?;
                }
            }
        }
        Ok(())
    }

    /// Reads from this position on, and follows the log as it grows.
    pub fn reader(&self, position: u64) -> Result<LogReader, LogError> {
        LogReader::new(self.storage.clone(), self.shared.clone(), position)
    }
}

impl Drop for PushLog {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(writer) = self.writer.take() {
            // A panic of the writer has answered nobody; there is nothing left to do about it here.
            let _ = writer.join();
        }
        self.shared.state().closed = true;
        self.shared.grown.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use crate::storage::forgetful::{Fault, Forgetful};

    const PATH: &str = "projects/shop/log/transactions";

    fn open(storage: Arc<dyn Storage>, now_us: i64) -> Result<PushLog, LogError> {
        let settings = LogSettings { segment_bytes: 2000, ..LogSettings::default() };
        PushLog::open(storage, PATH, Arc::new(ManualClock::at(now_us)), settings)
    }

    fn push(texts: &[&str], key: Option<(&str, &str)>) -> Append {
        Append {
            records: Records::from_slices(texts.iter().map(|text| text.as_bytes())).unwrap(),
            arrival_us: 5,
            idempotency: key.map(|(key, body)| IdempotencyKey { key: key.into(), body: Digest::of(body.as_bytes()) }),
            answer: Bytes::from(format!("{} accepted", texts.len())),
        }
    }

    /// All records from a position on, as text.
    fn read(log: &PushLog, position: u64, bytes: usize) -> Result<Vec<String>, LogError> {
        let mut reader = log.reader(position)?;
        let mut texts = Vec::new();
        while reader.position() < log.end_position() {
            for batch in reader.next(bytes, Duration::ZERO)? {
                assert_eq!(batch.first_position, position + texts.len() as u64);
                texts.extend(batch.records.iter().map(|record| String::from_utf8_lossy(record).into_owned()));
            }
        }
        Ok(texts)
    }

    #[test]
    fn records_come_back_from_any_position_in_pieces_of_any_size() {
        let log = open(Forgetful::new().storage(), 0).unwrap();
        let texts: Vec<String> =
            (0..300).map(|number| format!("record {number} {}", "x".repeat(number % 90))).collect();
        for (number, piece) in texts.chunks(7).enumerate() {
            let appended = log.append(push(&piece.iter().map(String::as_str).collect::<Vec<_>>(), None)).unwrap();
            assert_eq!((appended.first_position, appended.count as usize), (number as u64 * 7, piece.len()));
        }
        assert_eq!(log.end_position(), 300);
        for position in [0, 1, 6, 7, 100, 299, 300] {
            for bytes in [1, 100, 5000, 1 << 20] {
                assert_eq!(read(&log, position, bytes).unwrap(), texts[usize::try_from(position).unwrap()..]);
            }
        }
        assert!(log.reader(301).is_err());
    }

    #[test]
    fn a_key_is_answered_as_the_first_time_also_after_a_restart_for_a_day() {
        let disk = Forgetful::new();
        let log = open(disk.storage(), 0).unwrap();
        let first = log.append(push(&["a", "b"], Some(("k", "ab")))).unwrap();
        for _ in 0..40 {
            log.append(push(&["between, in files that are closed by now: the key must be found there"], None)).unwrap();
        }
        let again = Appended { repeated: true, ..first };
        assert_eq!(log.append(push(&["a", "b"], Some(("k", "ab")))).unwrap(), again);
        assert!(matches!(log.append(push(&["c"], Some(("k", "c")))), Err(LogError::KeyReused { .. })));
        drop(log);
        assert!(disk.storage().list(PATH).unwrap().len() > 1);
        let log = open(disk.storage(), 6).unwrap();
        assert_eq!(log.append(push(&["a", "b"], Some(("k", "ab")))).unwrap(), again);
        assert_eq!(log.end_position(), 42);
        drop(log);
        let log = open(disk.storage(), 86_400_000_006).unwrap();
        assert_eq!(log.append(push(&["c"], Some(("k", "c")))).unwrap().first_position, 42);
    }

    /// A crash at any call: what was acknowledged is there, in order, and nothing that was never pushed.
    #[test]
    fn nothing_acknowledged_is_lost_in_a_crash() {
        let (mut torn, mut kept) = (0, 0);
        for seed in 0..150 {
            let disk = Forgetful::new();
            let mut acknowledged: Vec<String> = Vec::new();
            for round in 0..4u64 {
                if seed % 3 == 0 {
                    disk.stop_at("mid-append", 1 + (seed + round) % 9);
                } else {
                    disk.fail_after((seed * 7 + round * 13) % 60, Fault::Stop);
                }
                let mut attempted = Vec::new();
                if let Ok(log) = open(disk.storage(), 0) {
                    for number in 0..12 {
                        let text = format!("{seed} {round} {number} {}", "y".repeat(number * 40));
                        match log.append(push(&[&text, "second"], None)) {
                            Ok(_) => acknowledged.extend([text, "second".into()]),
                            Err(_) => {
                                attempted = vec![text, "second".into()];
                                break;
                            }
                        }
                    }
                }
                disk.crash(seed * 10 + round);
                let log = open(disk.storage(), 0).unwrap();
                let found = read(&log, 0, 3000).unwrap();
                if found != acknowledged {
                    acknowledged.extend(attempted);
                    assert_eq!(found, acknowledged, "seed {seed}, round {round}");
                    kept += 1;
                } else {
                    torn += u32::from(!attempted.is_empty());
                }
            }
        }
        assert!(torn > 20 && kept > 5, "{torn} torn, {kept} kept: the crashes did not reach what they are for");
    }

    #[test]
    fn a_full_disk_refuses_and_recovers() {
        for fault in [Fault::Full, Fault::ReadOnly] {
            let disk = Forgetful::new();
            let log = open(disk.storage(), 0).unwrap();
            log.append(push(&["one"], None)).unwrap();
            for calls in 0..3 {
                disk.fail_after(calls, fault);
                let mut refused = 0;
                while refused < 2 {
                    if let Err(error) = log.append(push(&["while full"], Some(("k", "k")))) {
                        assert!(matches!(error, LogError::Storage { unwritable: true, .. }), "{error}");
                        refused += 1;
                    } else {
                        break;
                    }
                }
                disk.heal();
            }
            let before = log.end_position();
            assert_eq!(log.append(push(&["after"], None)).unwrap().first_position, before);
            let texts = read(&log, 0, 1 << 20).unwrap();
            drop(log);
            disk.crash(1);
            let log = open(disk.storage(), 0).unwrap();
            assert_eq!(read(&log, 0, 1 << 20).unwrap(), texts);
            assert_eq!(texts.first().map(String::as_str), Some("one"));
            assert_eq!(texts.last().map(String::as_str), Some("after"));
        }
    }

    /// Decay in the middle must never be taken for a torn end: that would drop sound records after it.
    #[test]
    fn damage_in_the_middle_is_an_error_that_names_the_place() {
        let disk = Forgetful::new();
        let log = open(disk.storage(), 0).unwrap();
        for number in 0..5 {
            log.append(push(&[&format!("record {number}")], None)).unwrap();
        }
        let path = format!("{PATH}/{:020}.log", 0);
        for offset in [0, 5, 40, 80] {
            assert!(disk.corrupt(&path, offset, |byte| byte ^ 1));
            let read_error = read(&log, 0, 1 << 20).unwrap_err().to_string();
            assert!(read_error.contains(&path) && read_error.contains("offset 0"), "{read_error}");
            let open_error = open(disk.storage(), 0).err().unwrap().to_string();
            assert!(open_error.contains(&path) && open_error.contains("offset 0"), "{open_error}");
            assert!(disk.corrupt(&path, offset, |byte| byte ^ 1));
        }
        assert_eq!(read(&log, 0, 1 << 20).unwrap().len(), 5);
    }

    /// Guards: a closed file that had lost its last frames was opened without a word, and read with an error much later.
    #[test]
    fn a_closed_file_that_was_cut_off_is_named_when_the_log_is_opened() {
        let directory = tempfile::tempdir().unwrap();
        let storage = || Arc::new(crate::storage::LocalStorage::open(directory.path()).unwrap());
        let log = open(storage(), 0).unwrap();
        for number in 0..60 {
            log.append(push(&[&format!("record {number}")], None)).unwrap();
        }
        drop(log);
        let path = directory.path().join(format!("{PATH}/{:020}.log", 0));
        let whole = std::fs::read(&path).unwrap();
        for length in 0..whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            let error = open(storage(), 0).err().unwrap_or_else(|| panic!("{length} bytes are taken")).to_string();
            assert!(error.contains("00000000000000000000.log") && error.contains("restore the file"), "{error}");
        }
        std::fs::write(&path, &whole).unwrap();
        assert_eq!(read(&open(storage(), 0).unwrap(), 0, 1 << 20).unwrap().len(), 60);
    }

    #[test]
    fn many_pushers_at_once_each_get_their_own_place() {
        let directory = tempfile::tempdir().unwrap();
        let storage = Arc::new(crate::storage::LocalStorage::open(directory.path()).unwrap());
        let log = open(storage, 0).unwrap();
        let mut positions = std::thread::scope(|scope| {
            let pusher = |thread: usize| {
                let log = &log;
                scope.spawn(move || -> Vec<u64> {
                    let texts: Vec<String> = (0..25).map(|number| format!("{thread}:{number}")).collect();
                    texts.iter().map(|text| log.append(push(&[text], None)).unwrap().first_position).collect()
                })
            };
            let threads: Vec<_> = (0..8).map(pusher).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        positions.sort_unstable();
        assert_eq!(positions, (0..200).collect::<Vec<_>>());
        let mut texts = read(&log, 0, 1000).unwrap();
        texts.sort_unstable();
        texts.dedup();
        assert_eq!(texts.len(), 200);
    }

    #[test]
    fn a_reader_waits_for_what_comes() {
        let log = open(Forgetful::new().storage(), 0).unwrap();
        let mut reader = log.reader(0).unwrap();
        assert!(reader.next(100, Duration::from_millis(1)).unwrap().is_empty());
        std::thread::scope(|scope| {
            scope.spawn(|| log.append(push(&["late"], None)).unwrap());
            let batches = reader.next(100, Duration::from_secs(30)).unwrap();
            assert_eq!((batches.len(), batches[0].arrival_us), (1, 5));
        });
    }
}
