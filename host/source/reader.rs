//! Reading the push log from a position on, in large pieces, as far as it is durable.

use super::frame::{self, HEADER_BYTES, Header};
use super::push_log::{LogError, Segment, Shared};
use super::records::Records;
use crate::storage::Storage;
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;

/// Records that arrived together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogBatch {
    /// Of the first record; the others follow without gaps.
    pub first_position: u64,
    pub arrival_us: i64,
    pub records: Records,
}

/// A place in the log. Each reader has its own; none holds up the writer.
pub struct LogReader {
    storage: Arc<dyn Storage>,
    shared: Arc<Shared>,
    /// The next record to give.
    position: u64,
    /// The file that holds it, and the frame there that it is in or that follows.
    segment: Segment,
    offset: u64,
    /// The first record of that frame.
    frame_position: u64,
}

impl LogReader {
    pub(super) fn new(storage: Arc<dyn Storage>, shared: Arc<Shared>, position: u64) -> Result<LogReader, LogError> {
        let segment = {
            let state = shared.state();
            let first = state.segments.first().map_or(0, |segment| segment.first_position);
            let at = state.segments.partition_point(|segment| segment.first_position <= position);
            let segment = at.checked_sub(1).and_then(|at| state.segments.get(at)).cloned();
            let end = state.end_position;
            segment.filter(|_| position <= end).ok_or(LogError::NoPosition { position, first, end })?
        };
        let frame_position = segment.first_position;
        Ok(LogReader { storage, shared, position, segment, offset: 0, frame_position })
    }

    /// The position of the next record that will be given.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Goes on at a later position; at an earlier one it has been already.
    pub fn skip_to(&mut self, position: u64) {
        if position <= self.position {
            return;
        }
        self.position = position;
        let state = self.shared.state();
        let after = state.segments.partition_point(|segment| segment.first_position <= position);
        let holding = after.checked_sub(1).and_then(|at| state.segments.get(at));
        if let Some(holding) = holding.filter(|holding| holding.first_position > self.segment.first_position) {
            self.segment = holding.clone();
            self.offset = 0;
            self.frame_position = holding.first_position;
        }
    }

    /// The next records, about `bytes` of them (at least one push, if there is one), waiting up to `timeout` for the
    /// first. Empty when there was none in that time, or the log was closed.
    pub fn next(&mut self, bytes: usize, timeout: Duration) -> Result<Vec<LogBatch>, LogError> {
        self.shared.wait_beyond(self.position, timeout);
        let mut batches = Vec::new();
        while batches.is_empty() && self.find_segment() {
            let left = usize::try_from(self.segment.synced - self.offset).unwrap_or(usize::MAX);
            let mut buffer = self.read(left.min(bytes.max(HEADER_BYTES)))?;
            if self.frame_length(&buffer, left)?.is_some_and(|length| length > buffer.len()) {
                // The first frame alone is larger: it is read whole, in one piece or two.
                let meta = frame::meta_length(&buffer).unwrap_or(HEADER_BYTES);
                buffer = self.read(meta.min(left))?;
                let header =
                    frame::read_header(&buffer, self.offset).ok_or_else(|| self.corrupt("a header is damaged"))?;
                let length = usize::try_from(header.frame_length()).unwrap_or(usize::MAX);
                if length > left {
                    return Err(self.corrupt("a frame is longer than its file"));
                }
                buffer = self.read(length)?;
            }
            self.take_frames(buffer, &mut batches)?;
        }
        Ok(batches)
    }

    /// Whether there is something to read at our place, in this file or the next.
    fn find_segment(&mut self) -> bool {
        let state = self.shared.state();
        let at = state.segments.partition_point(|segment| segment.first_position <= self.segment.first_position);
        // The file may have grown since; the one after it, if there is one, follows when it is used up.
        let current = at.checked_sub(1).and_then(|at| state.segments.get(at));
        if let Some(current) = current {
            self.segment.synced = current.synced;
        }
        if self.offset < self.segment.synced {
            return true;
        }
        let Some(next) = state.segments.get(at).filter(|next| next.synced > 0) else { return false };
        self.segment = next.clone();
        self.offset = 0;
        true
    }

    fn take_frames(&mut self, buffer: Bytes, batches: &mut Vec<LogBatch>) -> Result<(), LogError> {
        let mut at = 0;
        while let Some(header) = self.whole_frame(&buffer, at)? {
            if header.first_position != self.frame_position {
                return Err(self.corrupt("a frame of another position stands here"));
            }
            let length = usize::try_from(header.frame_length()).unwrap_or(usize::MAX);
            if header.next_position() > self.position {
                let records = frame::read_records(&header, &buffer.slice(at..));
                let mut records = records.ok_or_else(|| self.corrupt("records are damaged"))?;
                let first_position = self.position.max(header.first_position);
                records.skip(usize::try_from(first_position - header.first_position).unwrap_or(usize::MAX));
                batches.push(LogBatch { first_position, arrival_us: header.arrival_us, records });
                self.position = header.next_position();
            }
            self.frame_position = header.next_position();
            self.offset += header.frame_length();
            at += length;
        }
        Ok(())
    }

    /// The header of the frame at `at` of the buffer; `None` when the frame goes on behind the buffer.
    fn whole_frame(&self, buffer: &Bytes, at: usize) -> Result<Option<Header>, LogError> {
        let rest = buffer.get(at..).unwrap_or_default();
        let left = usize::try_from(self.segment.synced - self.offset).unwrap_or(usize::MAX);
        match self.frame_length(rest, left)? {
            Some(length) if length <= rest.len() => Ok(frame::read_header(rest, self.offset)),
            _ => Ok(None),
        }
    }

    /// How long the frame at our offset is, as far as `bytes` tell: the whole, or what is needed to know it. `left` bytes
    /// of the file may be read.
    fn frame_length(&self, bytes: &[u8], left: usize) -> Result<Option<usize>, LogError> {
        if bytes.is_empty() {
            return Ok(None);
        }
        if bytes.len() < HEADER_BYTES {
            return if left < HEADER_BYTES {
                Err(self.corrupt("the file ends in a header"))
            } else {
                Ok(Some(HEADER_BYTES))
            };
        }
        let meta = frame::meta_length(bytes).ok_or_else(|| self.corrupt("no frame begins here"))?;
        if meta > left {
            return Err(self.corrupt("a header is longer than its file"));
        }
        if meta > bytes.len() {
            return Ok(Some(meta));
        }
        let header = frame::read_header(bytes, self.offset).ok_or_else(|| self.corrupt("a header is damaged"))?;
        let length = usize::try_from(header.frame_length()).unwrap_or(usize::MAX);
        if length > left { Err(self.corrupt("a frame is longer than its file")) } else { Ok(Some(length)) }
    }

    fn read(&self, length: usize) -> Result<Bytes, LogError> {
        let bytes = self.storage.read_range(&self.segment.path, self.offset, length)?.unwrap_or_default();
        if bytes.len() < length { Err(self.corrupt("the file is shorter than what was synced")) } else { Ok(bytes) }
    }

    fn corrupt(&self, what: &'static str) -> LogError {
        LogError::Corrupt { path: self.segment.path.clone(), offset: self.offset, what }
    }
}
