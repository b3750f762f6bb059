//! The thread that writes the push log: groups of pushes, one sync each; and what is found when a log is opened.

use super::frame::{self, Frame, Header};
use super::push_log::{Answer, Appended, IdempotencyKey, LogError, LogSettings, Request, Segment, Shared, State};
use crate::clock::Clock;
use crate::define::Digest;
use crate::storage::{AppendFile, Storage};
use bytes::Bytes;
use crossbeam_channel::Receiver;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// What only the writing thread knows of a log.
pub(super) struct Writer {
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
    /// Finds the log at a path, or begins it: what a crash tore at its end is cut off.
    pub fn recover(
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
        for (segment, next) in segments.iter().zip(segments.iter().skip(1)).rev() {
            let found = read_headers(storage.as_ref(), segment, next.first_position)?;
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

    /// Writes what comes until nobody can send any more.
    pub fn run(mut self, incoming: &Receiver<Request>, shared: &Shared) {
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
/// They must lead up to the position at which the next file begins.
fn read_headers(storage: &dyn Storage, segment: &Segment, end_position: u64) -> Result<Vec<Header>, LogError> {
    let mut headers = Vec::new();
    let (mut offset, mut position) = (0, segment.first_position);
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
        position = header.next_position();
        headers.push(header);
    }
    match position == end_position && offset == segment.synced {
        true => Ok(headers),
        false => Err(LogError::Corrupt { path: segment.path.clone(), offset, what: "records are missing at its end" }),
    }
}
