//! From raw records to routed rows: decode, refuse what comes from the future, transform, key, hash.

use super::compiled::Compiled;
use super::letter::{Letter, Reason, RefusedBy};
use super::steps::{Step, Steps};
use crate::decode::{DecodeError, JsonDecoder};
use crate::define::{Digest, Source, intake};
use crate::route::{KeyError, Keys};
use crate::rows::{Failure, RefusedRow, RowBatch, RowsError, Stage, future_message};
use crate::source::LogBatch;
use arrow::array::UInt32Array;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Rows of one stretch of a log, ready for the threads that own their entities.
pub struct Routed {
    pub source: String,
    /// The source's.
    pub lineage: String,
    /// For each row space of the layout; those of other sources are `None`.
    pub spaces: Vec<Option<RowBatch>>,
    /// For each table that takes these rows.
    pub tables: Vec<RoutedTable>,
    /// Records up to here have been read.
    pub next_position: u64,
    /// Event time of the newest row, where there is one.
    pub newest_us: Option<i64>,
    pub rows: usize,
    pub letters: Vec<Letter>,
    /// Rows that belong to no entity of a table, by table: a join key is null.
    pub null_keys: u64,
}

pub struct RoutedTable {
    pub table: usize,
    pub keys: Keys,
    /// For each worker, its rows, ascending.
    pub rows: Vec<Vec<u32>>,
}

/// Which positions a group still lacks: `from..until`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    pub from: u64,
    pub until: u64,
}

impl Bounds {
    /// Everything.
    pub const ALL: Bounds = Bounds { from: 0, until: u64::MAX };
}

/// Why records could not be routed at all: not a property of single rows.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error(transparent)]
    Rows(#[from] RowsError),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("selecting rows: {0}")]
    Arrow(#[from] arrow::error::ArrowError),
}

/// Routes the records of one source.
pub struct Router {
    compiled: Arc<Compiled>,
    source: Source,
    intake: Digest,
    decoder: JsonDecoder,
    workers: usize,
    steps: Arc<Steps>,
    /// For each group; a group drops what it has already.
    pub bounds: Vec<Bounds>,
}

impl Router {
    pub fn new(
        compiled: Arc<Compiled>,
        source: &Source,
        workers: usize,
        steps: Arc<Steps>,
    ) -> Result<Router, DecodeError> {
        let decoder = JsonDecoder::new(source)?;
        let bounds = vec![Bounds::ALL; compiled.groups.count()];
        let intake = intake(source);
        Ok(Router { compiled, source: source.clone(), intake, decoder, workers, steps, bounds })
    }

    /// The thread that owns a group.
    pub fn worker_of(group: u32, workers: usize) -> usize {
        group as usize % workers
    }

    /// Routes these batches of the log, which follow each other without gaps.
    pub fn route(&mut self, batches: &[LogBatch]) -> Result<Routed, RouteError> {
        let steps = self.steps.clone();
        let mut lap = steps.start();
        let records = batches.iter().flat_map(|batch| batch.records.iter());
        let decoded = self.decoder.decode(records)?;
        lap.end(Step::Decode);
        let place = Places::new(batches);
        let mut letters = Vec::new();
        for refused in &decoded.refused {
            letters.push(self.letter(
                &place,
                refused.record,
                0,
                Stage::Decode,
                RefusedBy::All,
                Reason::Decode,
                &refused.message,
            ));
        }
        let failures = decoded
            .cell_failures
            .into_iter()
            .map(|failure| Failure {
                row: failure.row,
                column: failure.column as usize,
                stage: Stage::Decode,
                message: failure.message,
            })
            .collect();
        let event_time = self.source.columns.iter().position(|column| column.name == self.source.event_time);
        let columns = decoded.batch.columns().to_vec();
        let batch = RowBatch::new(columns, event_time.unwrap_or(0), decoded.records, failures);
        let batch = self.refuse_future(batch, &place, &mut letters)?;
        let newest_us = batch.event_time_us.iter().copied().max();
        let rows = batch.rows;
        let mut refused = Vec::new();
        let compiled = self.compiled.clone();
        let spaces = compiled.transforms.run(&compiled.layout, &self.source.name, batch, &mut refused)?;
        self.refused_rows(&place, refused, &mut letters);
        lap.end(Step::Transform);
        let mut tables = Vec::new();
        let mut null_keys = 0;
        for (table, layout) in compiled.layout.tables.iter().enumerate() {
            let Some(batch) = &spaces[layout.space] else { continue };
            let key_columns: Vec<_> = layout.key_columns.iter().map(|column| batch.columns[*column].clone()).collect();
            let keys = Keys::encode(&key_columns)?;
            let mut broken_keys = BTreeSet::new();
            for failure in batch.failed_rows(&layout.key_columns) {
                if broken_keys.insert(failure.row) {
                    letters.push(self.row_letter(&place, batch, failure, RefusedBy::Table(layout.entity_table)));
                }
            }
            let rows = self.rows_of_workers(&place, batch, &keys, &broken_keys, &mut null_keys);
            for feature in &layout.features {
                let mut said = BTreeSet::new();
                for failure in batch.failed_rows(&feature.used_columns()) {
                    let row = failure.row as usize;
                    if !keys.is_null(row) && !broken_keys.contains(&failure.row) && said.insert(failure.row) {
                        letters.push(self.row_letter(&place, batch, failure, RefusedBy::Feature(feature.fingerprint)));
                    }
                }
            }
            tables.push(RoutedTable { table, keys, rows });
        }
        lap.end(Step::Route);
        let next_position = batches.last().map_or(0, |last| last.first_position + last.records.len() as u64);
        Ok(Routed {
            source: self.source.name.clone(),
            lineage: self.source.lineage.clone(),
            spaces,
            tables,
            next_position,
            newest_us,
            rows,
            letters,
            null_keys,
        })
    }

    fn rows_of_workers(
        &self,
        place: &Places,
        batch: &RowBatch,
        keys: &Keys,
        broken_keys: &BTreeSet<u32>,
        null_keys: &mut u64,
    ) -> Vec<Vec<u32>> {
        let mut rows: Vec<Vec<u32>> =
            (0..self.workers).map(|_| Vec::with_capacity(batch.rows / self.workers + 1)).collect();
        let bounded = self.bounds.iter().any(|bounds| *bounds != Bounds::ALL);
        for row in 0..batch.rows {
            if keys.is_null(row) {
                *null_keys += u64::from(!broken_keys.contains(&(row as u32)));
                continue;
            }
            let group = self.compiled.groups.of(keys.hash(row));
            if bounded {
                let position = place.position(batch.records[row]);
                let bounds = self.bounds[group as usize];
                if position < bounds.from || position >= bounds.until {
                    continue;
                }
            }
            if broken_keys.is_empty() || !broken_keys.contains(&(row as u32)) {
                rows[Router::worker_of(group, self.workers)].push(row as u32);
            }
        }
        rows
    }

    /// Rule 10: a row whose event time is more than `max_future` after its arrival is refused.
    fn refuse_future(
        &self,
        batch: RowBatch,
        place: &Places,
        letters: &mut Vec<Letter>,
    ) -> Result<RowBatch, RouteError> {
        let limit_us = |row: usize| place.arrival_us(batch.records[row]).saturating_add(self.source.max_future_us);
        let is_future = |row: &usize| batch.event_time_us[*row] > limit_us(*row);
        let future: Vec<usize> = (0..batch.rows).filter(is_future).collect();
        if future.is_empty() {
            return Ok(batch);
        }
        for row in &future {
            let arrival_us = place.arrival_us(batch.records[*row]);
            let message = future_message(&self.source, batch.event_time_us[*row], arrival_us);
            letters.push(self.letter(
                place,
                batch.records[*row],
                0,
                Stage::Decode,
                RefusedBy::All,
                Reason::Future,
                &message,
            ));
        }
        let kept: Vec<u32> = (0..batch.rows).filter(|row| !is_future(row)).map(|row| row as u32).collect();
        let kept_rows = UInt32Array::from(kept.clone());
        let columns = batch.columns.iter().map(|column| arrow::compute::take(column, &kept_rows, None));
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        let records = kept.iter().map(|row| batch.records[*row as usize]).collect();
        let failures = batch.failures.iter().filter_map(|failure| {
            let row = kept.binary_search(&failure.row).ok()? as u32;
            Some(Failure { row, ..failure.clone() })
        });
        let event_time = self.source.columns.iter().position(|column| column.name == self.source.event_time);
        Ok(RowBatch::new(columns, event_time.unwrap_or(0), records, failures.collect()))
    }

    fn refused_rows(&self, place: &Places, refused: Vec<RefusedRow>, letters: &mut Vec<Letter>) {
        for row in refused {
            let hangs_on = |space: usize| self.compiled.layout.hangs_on(space, row.space);
            for table in self.compiled.layout.tables.iter().filter(|table| hangs_on(table.space)) {
                let reason = if row.stage == Stage::Decode { Reason::Decode } else { Reason::Transform };
                let by = RefusedBy::Table(table.entity_table);
                letters.push(self.letter(place, row.record, row.sub_row, row.stage, by, reason, &row.message));
            }
        }
    }

    fn row_letter(&self, place: &Places, batch: &RowBatch, failure: &Failure, by: RefusedBy) -> Letter {
        let row = failure.row as usize;
        let reason = if failure.stage == Stage::Decode { Reason::Decode } else { Reason::Transform };
        self.letter(place, batch.records[row], batch.sub_rows[row], failure.stage, by, reason, &failure.message)
    }

    #[expect(clippy::too_many_arguments, reason = "a letter has that many parts, and a struct of them is the letter")]
    fn letter(
        &self,
        place: &Places,
        record: u32,
        sub_row: u32,
        stage: Stage,
        refused_by: RefusedBy,
        reason: Reason,
        message: &str,
    ) -> Letter {
        Letter {
            source: self.source.lineage.clone(),
            partition: 0,
            position: place.position(record),
            sub_row,
            stage,
            intake: (refused_by == RefusedBy::All).then_some(self.intake),
            refused_by,
            reason,
            message: message.into(),
            module: None,
            arrival_us: place.arrival_us(record),
            begun: None,
        }
    }
}

/// Which position and arrival a record of several log batches has.
pub struct Places {
    /// For each batch: the number of its first record, its position, its arrival.
    batches: Vec<(u32, u64, i64)>,
}

impl Places {
    pub fn new(batches: &[LogBatch]) -> Places {
        let mut first = 0;
        let place = |batch: &LogBatch| {
            let place = (first, batch.first_position, batch.arrival_us);
            first += batch.records.len() as u32;
            place
        };
        Places { batches: batches.iter().map(place).collect() }
    }

    fn of(&self, record: u32) -> (u32, u64, i64) {
        let after = self.batches.partition_point(|batch| batch.0 <= record);
        self.batches.get(after.wrapping_sub(1)).copied().unwrap_or((0, 0, 0))
    }

    pub fn position(&self, record: u32) -> u64 {
        let (first, position, _) = self.of(record);
        position + u64::from(record - first)
    }

    pub fn arrival_us(&self, record: u32) -> i64 {
        self.of(record).2
    }
}
