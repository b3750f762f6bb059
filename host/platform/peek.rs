//! A few rows of a source as its decoder sees them, and what it could not read: the first look at one's data.

use super::{PlatformError, ProjectHost};
use crate::batch::first_rows;
use crate::decode::{ColumnsDecoder, DecodeError, Decoded, JsonDecoder};
use crate::define::{Source, hint};
use crate::rows::future_message;
use arrow::array::AsArray;
use arrow::datatypes::TimestampMicrosecondType;
use arrow::record_batch::RecordBatch;
use std::time::Duration;

/// How much of a log is read at once.
const READ_BYTES: usize = 1 << 20;

/// Which rows.
#[derive(Clone, Debug)]
pub struct PeekRequest {
    pub source: String,
    pub rows: usize,
    /// Of the source's files instead of its log.
    pub batch: bool,
    /// The oldest of the log instead of the newest.
    pub from_start: bool,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Peeked {
    /// In the order of the source.
    pub rows: Vec<PeekedRow>,
    /// The source's columns, a batch a file or one of the log.
    pub batches: Vec<RecordBatch>,
    /// Positions of the log, the first and the one behind the last.
    pub positions: Option<(u64, u64)>,
    /// Columns of the source that a file does not have, with the file: null in all its rows.
    pub missing: Vec<(String, String)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeekedRow {
    /// `0:41` in a log, else the file and the row in it.
    pub place: String,
    pub arrival_us: Option<i64>,
    /// Batch and row; none for what is refused as a whole.
    pub at: Option<(usize, usize)>,
    /// Why it is no row: a dead letter's reason, and its message.
    pub refused: Option<(&'static str, String)>,
    /// Columns that could not be decoded: what uses them is refused the row.
    pub failures: Vec<(String, String)>,
    /// As it came, where it came as text.
    pub raw: Option<Vec<u8>>,
}

impl ProjectHost {
    /// Rows of a source, decoded and not folded. Nothing is changed by looking.
    pub fn peek(&self, request: &PeekRequest) -> Result<Peeked, PlatformError> {
        let live = self.live()?;
        let sources = &live.revision.project.sources;
        let source = sources.get(&request.source).ok_or_else(|| {
            let near = hint(&request.source, sources.keys().map(String::as_str));
            PlatformError::NotFound(format!("there is no source `{}`; {near}", request.source))
        })?;
        match request.batch {
            true => of_files(source, request.rows),
            false => self.of_log(source, request),
        }
    }

    fn of_log(&self, source: &Source, request: &PeekRequest) -> Result<Peeked, PlatformError> {
        let log = self.log(&source.name).filter(|_| source.push).ok_or_else(|| {
            let name = &source.name;
            PlatformError::Invalid(format!(
                "source `{name}` takes no pushes: look at its files with --batch (?batch=true)"
            ))
        })?;
        let (first, end) = (log.first_position(), log.end_position());
        let rows = u64::try_from(request.rows).unwrap_or(u64::MAX);
        let from = if request.from_start { first } else { end.saturating_sub(rows).max(first) };
        let until = from.saturating_add(rows).min(end);
        let mut found: Vec<(u64, i64, Vec<u8>)> = Vec::new();
        let mut reader = log.reader(from)?;
        while reader.position() < until {
            let batches = reader.next(READ_BYTES, Duration::ZERO)?;
            if batches.is_empty() {
                break;
            }
            for batch in batches {
                let records = (batch.first_position..).zip(batch.records.iter());
                let records = records.take_while(|(position, _)| *position < until);
                found.extend(records.map(|(position, record)| (position, batch.arrival_us, record.to_vec())));
            }
        }
        let mut decoder = JsonDecoder::new(source).map_err(wrong)?;
        let decoded = decoder.decode(found.iter().map(|(_, _, record)| record.as_slice())).map_err(wrong)?;
        let row = |number: usize| {
            let (position, arrival_us, raw) = found.get(number).cloned().unwrap_or_default();
            (format!("0:{position}"), Some(arrival_us), Some(raw))
        };
        let mut peeked = Peeked { positions: Some((first, end)), ..Peeked::default() };
        peeked.add(source, decoded, found.len(), row);
        Ok(peeked)
    }
}

fn of_files(source: &Source, rows: usize) -> Result<Peeked, PlatformError> {
    let path = source.batch_path.as_ref().ok_or_else(|| {
        PlatformError::Invalid(format!("source `{}` has no files: its definition has no `batch:`", source.name))
    })?;
    let decoder = ColumnsDecoder::new(source).map_err(wrong)?;
    let mut peeked = Peeked::default();
    let (mut before, mut file) = (0, String::new());
    for (pin, batch) in first_rows(path, Some(source), rows).map_err(PlatformError::Batch)? {
        if pin.path != file {
            (before, file) = (0, pin.path.clone());
            let missing = decoder.missing(&batch.schema()).into_iter().map(|column| (column.to_owned(), file.clone()));
            peeked.missing.extend(missing);
        }
        let decoded = decoder.decode(&batch, &pin.path).map_err(wrong)?;
        peeked.add(source, decoded, batch.num_rows(), |number| (format!("{file}:{}", before + number), None, None));
        before += batch.num_rows();
    }
    Ok(peeked)
}

fn wrong(error: DecodeError) -> PlatformError {
    PlatformError::Invalid(error.to_string())
}

impl Peeked {
    /// Adds `count` records as they were decoded; `row` says of each its place, arrival and text.
    fn add(
        &mut self,
        source: &Source,
        decoded: Decoded,
        count: usize,
        row: impl Fn(usize) -> (String, Option<i64>, Option<Vec<u8>>),
    ) {
        let number = self.batches.len();
        let mut rows: Vec<PeekedRow> = (0..count)
            .map(|record| {
                let (place, arrival_us, raw) = row(record);
                PeekedRow { place, arrival_us, at: None, refused: None, failures: Vec::new(), raw }
            })
            .collect();
        for refused in decoded.refused {
            if let Some(row) = rows.get_mut(refused.record as usize) {
                row.refused = Some(("decode", refused.message));
            }
        }
        let time = source.columns.iter().position(|column| column.name == source.event_time);
        let times = time.and_then(|time| decoded.batch.columns().get(time));
        let times = times.and_then(|times| times.as_primitive_opt::<TimestampMicrosecondType>());
        for (at, record) in decoded.records.iter().enumerate() {
            let Some(row) = rows.get_mut(*record as usize) else { continue };
            row.at = Some((number, at));
            let time_us = times.and_then(|times| times.values().get(at).copied());
            if let (Some(arrival_us), Some(time_us)) = (row.arrival_us, time_us)
                && time_us > arrival_us.saturating_add(source.max_future_us)
            {
                row.refused = Some(("future", future_message(source, time_us, arrival_us)));
            }
        }
        for failure in decoded.cell_failures {
            let record = decoded.records.get(failure.row as usize);
            let row = record.and_then(|record| rows.get_mut(*record as usize));
            let column = source.columns.get(failure.column as usize);
            if let (Some(row), Some(column)) = (row, column) {
                row.failures.push((column.name.clone(), failure.message));
            }
        }
        self.rows.extend(rows);
        self.batches.push(decoded.batch);
    }
}
