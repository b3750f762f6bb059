//! The durable log of pushed events: what is acknowledged here survives any crash.
//!
//! One thread writes. While it waits for the disk, pushes gather; then one write and one sync take all of them. So the
//! floor of a push is one sync, shared by everyone who came during the last one.

use super::frame::{self, Frame, Header};
use super::reader::LogReader;
use super::records::Records;
use crate::clock::Clock;
use crate::define::Digest;
use crate::storage::{AppendFile, Storage, StorageError};
use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, bounded};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

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
    grown: Condvar,
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
    pub fn wait_beyond(&self, position: u64, timeout: std::time::Duration) {
        let state = self.state();
        let waiting = |state: &mut State| state.end_position <= position && !state.closed;
        drop(self.grown.wait_timeout_while(state, timeout, waiting).unwrap_or_else(PoisonError::into_inner));
    }
}

type Answer = Box<dyn FnOnce(Result<Appended, LogError>) + Send>;

struct Request {
    append: Append,
    answer: Answer,
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

struct Writer {
    storage: Arc<dyn Storage>,
    path: String,
    clock: Arc<dyn Clock>,
    settings: LogSettings,
    segment: Segment,
    file: Box<dyn AppendFile>,
    end_position: u64,
    keys: BTreeMap<String, KnownKey>,
    /// The keys with their arrivals, oldest first.
    by_age: VecDeque<(i64, String)>,
    /// Bytes that were not acknowledged may stand behind what is synced.
    must_cut: bool,
}

#[derive(Clone)]
struct KnownKey {
    body: Digest,
    appended: Appended,
}

/// Whom to answer once the group is durable.
struct Waiting {
    answer: Answer,
    appended: Appended,
    key: Option<(IdempotencyKey, i64)>,
}

impl Writer {
    fn recover(
        storage: Arc<dyn Storage>,
        path: &str,
        clock: Arc<dyn Clock>,
        settings: LogSettings,
    ) -> Result<(Writer, State), LogError> {
        let mut segments = Vec::new();
        for found in storage.list(&format!("{path}/"))? {
            let name = found.rsplit('/').next().and_then(|name| name.strip_suffix(".log"));
            if let Some(first_position) = name.and_then(|name| name.parse().ok()) {
                let synced = storage.size(&found)?.unwrap_or(0);
                segments.push(Segment { path: found, first_position, synced });
            }
        }
        if segments.is_empty() {
            segments.push(Segment { path: segment_path(path, 0), first_position: 0, synced: 0 });
        }
        let mut writer_keys = (BTreeMap::new(), VecDeque::new());
        let oldest_us = clock.now_us().saturating_sub(settings.keep_keys_us);
        let mut headers = VecDeque::new();
        for segment in segments.iter().rev().skip(1) {
            let found = read_headers(storage.as_ref(), segment)?;
            let old = found.iter().all(|header| header.arrival_us < oldest_us);
            found.into_iter().rev().for_each(|header| headers.push_front(header));
            if old {
                break;
            }
        }
        let last = segments.last_mut().ok_or(LogError::Closed)?;
        let mut file = storage.open_append(&last.path)?;
        let bytes = storage.read(&last.path)?.unwrap_or_default();
        let (sound, newest, end_position) = sound_frames(last, &bytes)?;
        headers.extend(newest);
        // Synced also when nothing was cut: what an earlier process wrote may be in no more than the page cache.
        file.truncate(sound)?;
        file.sync()?;
        last.synced = sound;
        for header in headers {
            let appended = Appended {
                first_position: header.first_position,
                count: header.count,
                answer: header.answer,
                repeated: false,
            };
            if let Some((key, body)) = header.key.filter(|_| header.arrival_us >= oldest_us)
                && let Ok(key) = String::from_utf8(key)
            {
                writer_keys.1.push_back((header.arrival_us, key.clone()));
                writer_keys.0.insert(key, KnownKey { body, appended });
            }
        }
        let (keys, by_age) = writer_keys;
        let (segment, path) = (last.clone(), path.to_owned());
        let state = State { segments, end_position, closed: false };
        Ok((
            Writer { storage, path, clock, settings, segment, file, end_position, keys, by_age, must_cut: false },
            state,
        ))
    }

    fn run(mut self, incoming: &Receiver<Request>, shared: &Shared) {
        while let Ok(first) = incoming.recv() {
            let mut bytes = first.append.records.bytes().len();
            let mut group = vec![first];
            // What has come while the last group was synced; a bound, so that nobody waits for ever.
            while bytes < 16 << 20
                && let Ok(next) = incoming.try_recv()
            {
                bytes += next.append.records.bytes().len();
                group.push(next);
            }
            self.write_group(group, shared);
        }
    }

    fn write_group(&mut self, group: Vec<Request>, shared: &Shared) {
        self.forget_old_keys();
        let mut waiting: Vec<Waiting> = Vec::with_capacity(group.len());
        let mut buffer = Vec::new();
        let mut position = self.end_position;
        // Rolling first: a group is never split over two files.
        let ready = self.cut_leftover().and_then(|()| self.roll_if_full(shared));
        for Request { append, answer } in group {
            if let Some(known) = append.idempotency.as_ref().and_then(|key| self.known(key, &waiting)) {
                match known {
                    Err(error) => answer(Err(error)),
                    Ok((appended, true)) => answer(Ok(appended)),
                    Ok((appended, false)) => waiting.push(Waiting { answer, appended, key: None }),
                }
                continue;
            }
            let count = u32::try_from(append.records.len()).unwrap_or(u32::MAX);
            frame::write(
                &Frame {
                    offset: self.segment.synced + buffer.len() as u64,
                    synced: self.segment.synced,
                    first_position: position,
                    arrival_us: append.arrival_us,
                    key: append.idempotency.as_ref().map(|key| (key.key.as_bytes(), key.body)),
                    answer: &append.answer,
                    records: &append.records,
                },
                &mut buffer,
            );
            let appended = Appended { first_position: position, count, answer: append.answer, repeated: false };
            position += u64::from(count);
            let key = append.idempotency.map(|key| (key, append.arrival_us));
            waiting.push(Waiting { answer, appended, key });
        }
        if waiting.is_empty() {
            return;
        }
        if let Err(error) = ready.and_then(|()| self.write_durably(&buffer)) {
            waiting.into_iter().for_each(|waiting| (waiting.answer)(Err(error.clone())));
            return;
        }
        self.end_position = position;
        {
            let mut state = shared.state();
            state.end_position = position;
            if let Some(segment) = state.segments.last_mut() {
                segment.synced = self.segment.synced;
            }
        }
        shared.grown.notify_all();
        for Waiting { answer, appended, key } in waiting {
            if let Some((IdempotencyKey { key, body }, arrival_us)) = key {
                self.by_age.push_back((arrival_us, key.clone()));
                self.keys.insert(key, KnownKey { body, appended: appended.clone() });
            }
            answer(Ok(appended));
        }
    }

    /// What is known of a key: an answer and whether it is durable already, or that it was used for something else.
    fn known(&self, key: &IdempotencyKey, waiting: &[Waiting]) -> Option<Result<(Appended, bool), LogError>> {
        let stored = self.keys.get(&key.key).map(|known| (known.body, &known.appended, true));
        let (body, appended, durable) = stored.or_else(|| {
            waiting.iter().find_map(|waiting| {
                let (of, _) = waiting.key.as_ref().filter(|(of, _)| of.key == key.key)?;
                Some((of.body, &waiting.appended, false))
            })
        })?;
        if body != key.body {
            return Some(Err(LogError::KeyReused { key: key.key.clone() }));
        }
        Some(Ok((Appended { repeated: true, ..appended.clone() }, durable)))
    }

    fn forget_old_keys(&mut self) {
        let oldest_us = self.clock.now_us().saturating_sub(self.settings.keep_keys_us);
        while let Some((_, key)) = self.by_age.pop_front_if(|(arrival_us, _)| *arrival_us < oldest_us) {
            self.keys.remove(&key);
        }
    }

    fn write_durably(&mut self, buffer: &[u8]) -> Result<(), LogError> {
        // Until it is synced it may have to be taken back, also when the process goes on.
        self.must_cut = true;
        self.file.append(buffer)?;
        self.storage.crash_point("mid-append")?;
        self.file.sync()?;
        self.must_cut = false;
        self.segment.synced += buffer.len() as u64;
        Ok(())
    }

    /// Takes back what a failed write left; nothing is written before that has worked.
    fn cut_leftover(&mut self) -> Result<(), LogError> {
        if self.must_cut {
            self.file.truncate(self.segment.synced)?;
            self.must_cut = false;
        }
        Ok(())
    }

    fn roll_if_full(&mut self, shared: &Shared) -> Result<(), LogError> {
        if self.segment.synced < self.settings.segment_bytes {
            return Ok(());
        }
        let path = segment_path(&self.path, self.end_position);
        self.file = self.storage.open_append(&path)?;
        self.segment = Segment { path, first_position: self.end_position, synced: 0 };
        shared.state().segments.push(self.segment.clone());
        Ok(())
    }
}

fn segment_path(log: &str, first_position: u64) -> String {
    format!("{log}/{first_position:020}.log")
}

/// The frames of the newest file up to what a crash tore: the length that is sound, their headers, the next position.
fn sound_frames(segment: &Segment, bytes: &Bytes) -> Result<(u64, Vec<Header>, u64), LogError> {
    let corrupt = |offset: usize, what| LogError::Corrupt { path: segment.path.clone(), offset: offset as u64, what };
    let mut at = 0;
    let mut headers = Vec::new();
    let mut position = segment.first_position;
    while at < bytes.len() {
        let rest = bytes.slice(at..);
        let header = read_header_checked(&rest, at, position);
        let Some(header) = header.filter(|header| frame::read_records(header, &rest).is_some()) else {
            // A later frame that was written after these bytes had been synced: they were whole once.
            let mut from = at + 1;
            while let Some(later) = frame::find_frame(bytes, from) {
                if later.synced > at as u64 {
                    return Err(corrupt(at, "a frame before sound ones is damaged"));
                }
                from = usize::try_from(later.offset).unwrap_or(usize::MAX).saturating_add(1);
            }
            break;
        };
        at += usize::try_from(header.frame_length()).unwrap_or(usize::MAX);
        position = header.next_position();
        headers.push(header);
    }
    Ok((at as u64, headers, position))
}

fn read_header_checked(bytes: &Bytes, offset: usize, position: u64) -> Option<Header> {
    frame::read_header(bytes, offset as u64).filter(|header| header.first_position == position)
}

/// The headers of a closed file, without its records.
fn read_headers(storage: &dyn Storage, segment: &Segment) -> Result<Vec<Header>, LogError> {
    let mut headers = Vec::new();
    let mut offset = 0;
    while offset < segment.synced {
        let damaged = || LogError::Corrupt { path: segment.path.clone(), offset, what: "a header is damaged" };
        // Most keys and answers are short: one read is enough for nearly all.
        let mut bytes = storage.read_range(&segment.path, offset, 1024)?.unwrap_or_default();
        let length = frame::meta_length(&bytes).ok_or_else(damaged)?;
        if length > bytes.len() {
            bytes = storage.read_range(&segment.path, offset, length)?.unwrap_or_default();
        }
        let header = frame::read_header(&bytes, offset).ok_or_else(damaged)?;
        offset += header.frame_length();
        headers.push(header);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use crate::storage::forgetful::{Fault, Forgetful};
    use std::time::Duration;

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
