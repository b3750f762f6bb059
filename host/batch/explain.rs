//! Why a value is what it is: one entity's rows in canonical order, which of them count, and the value after each.
//!
//! The rows are sorted like any others, within the memory limit, and folded by the same fold. Only the last of them are
//! kept to be shown; those before are folded and let go.

use super::BatchError;
use super::entity_rows::{BROKEN, FUTURE, ORDER, PLACE, SUB_ROW, VALUES, WHERE, WHY, WHY_KIND};
use super::files::PinnedFile;
use super::fold_cells::Cell;
use super::refusal::{Place, Refusal, RefusalSink, RefusedBy};
use super::run::Run;
use super::settings::{BatchHost, Rows};
use super::slice::Slice;
use super::sort_row::{place_of, split_order};
use crate::define::{Digest, Project};
use arrow::array::{Array, ArrayRef, AsArray, TimestampMicrosecondArray, new_null_array};
use arrow::datatypes::{UInt32Type, UInt64Type};
use arrow::record_batch::RecordBatch;
use onefold_fold::{Cells, Change, FoldJob, JobError, Planner, Probe, Results, Window};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

/// So many rows that the feature refused are kept whole; all are counted.
const REFUSED_KEPT: usize = 100;
/// So many rows that nobody can say the entity of are kept whole.
const STRANGERS_KEPT: usize = 5;

/// Which value.
pub struct ExplainAsk {
    pub view: String,
    /// The feature.
    pub fingerprint: Digest,
    /// Bytes of the entity's key.
    pub key: Vec<u8>,
    pub as_of_us: i64,
    /// So many rows are kept, the last ones.
    pub rows: usize,
}

/// What became of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It counts.
    In,
    /// It is later than the instant. Such rows are counted, and not among those that are told.
    Later,
    /// Its stretch of the window has not begun to count.
    NotYet { enters_us: i64 },
    /// Its stretch of the window no longer counts.
    Left { left_us: i64 },
    /// It fails a `where`: which, and by what value.
    Where(String),
    /// It was refused, at this stage (`decode`, `transform`, `future`, `fold`), for this reason.
    Refused { stage: &'static str, message: String },
}

/// A row and the value after it.
pub struct ExplainedRow {
    pub event_time_us: i64,
    pub place: Place,
    /// Which of the rows that transforms made of the record.
    pub sub_row: u32,
    pub verdict: Verdict,
    /// One value an input, as arrays of one row.
    pub inputs: Vec<ArrayRef>,
    /// The source's columns that the feature hangs on, in declared order, as arrays of one row.
    pub source: Vec<ArrayRef>,
    /// Those of them that could not be decoded, by name.
    pub broken: Vec<String>,
    pub value: ExplainedValue,
}

/// What the value is made of no more and no less than these rows: one array of one row an output.
#[derive(Clone, Debug)]
pub struct ExplainedValue {
    pub outputs: Vec<ArrayRef>,
    /// Why it is null, where there is more to say than that.
    pub reason: Option<String>,
    pub failed: bool,
}

/// A row that the feature refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedRow {
    pub event_time_us: i64,
    pub place: Place,
    pub sub_row: u32,
    pub stage: &'static str,
    pub message: String,
}

/// All of an entity's rows.
pub struct ExplainedRows {
    /// How many there are, counting or not.
    pub total: u64,
    /// How many count.
    pub counted: u64,
    /// How many are later than the instant: they are not among `rows`.
    pub later: u64,
    /// The newest row up to the instant; none: the entity is not known by then.
    pub newest_us: Option<i64>,
    /// The last of those up to the instant, in canonical order.
    pub rows: Vec<ExplainedRow>,
    pub value: ExplainedValue,
    pub refused: Vec<RefusedRow>,
    pub refused_total: u64,
    /// Records that were refused before anybody could say whose they are.
    pub strangers: Vec<Refusal>,
    pub strangers_total: u64,
    /// The definitions of the view with this feature alone, and of what it hangs on: the source's columns are those of
    /// `ExplainedRow::source`.
    pub definitions: Project,
    pub files: Vec<PinnedFile>,
}

impl BatchHost<'_> {
    /// Reads all rows and explains the value of one feature of one entity as of an instant. The value after a row is
    /// the one that these rows up to it would give as of that instant, so the last is the value.
    pub fn explain(&self, ask: &ExplainAsk, rows: &Rows) -> Result<ExplainedRows, BatchError> {
        let strangers = Arc::new(Strangers::default());
        let host = BatchHost {
            project: self.project,
            prepare: self.prepare,
            settings: self.settings.clone(),
            refusals: strangers.clone(),
            progress: self.progress.clone(),
        };
        let views = BTreeSet::from([ask.view.clone()]);
        let slice = Slice::of(self.project, &views, &BTreeSet::from([ask.fingerprint]), self.prepare)?;
        let mut explainer = Explainer::of(&slice, ask)?;
        let definitions = slice.project.clone();
        let run = Run::of_entity(&host, slice, rows, ask.key.clone())?;
        let paths: Vec<String> = run.pins.iter().map(|pin| pin.path.clone()).collect();
        explainer.paths = paths;
        let (_, files) = run.each(|batch, _| explainer.take(batch))?;
        explainer.end()?;
        let (strangers_total, strangers) = strangers.told();
        Ok(ExplainedRows {
            total: explainer.total,
            counted: explainer.counted,
            later: explainer.later,
            newest_us: explainer.newest_us,
            rows: explainer.shown,
            value: explainer.value,
            refused: explainer.refused,
            refused_total: explainer.refused_total,
            strangers,
            strangers_total,
            definitions,
            files,
        })
    }
}

/// Refusals of which nobody can say the entity: the record is no row, or its key is broken.
#[derive(Default)]
struct Strangers {
    told: Mutex<(u64, BTreeSet<Refusal>)>,
}

impl Strangers {
    fn told(&self) -> (u64, Vec<Refusal>) {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        (told.0, told.1.iter().cloned().collect())
    }
}

impl RefusalSink for Strangers {
    fn refused(&self, refusal: Refusal) {
        if matches!(refusal.refused_by, RefusedBy::Feature(_)) {
            return;
        }
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.0 += 1;
        told.1.insert(refusal);
        // The greatest goes, so that what is kept does not depend on which thread came first.
        if told.1.len() > STRANGERS_KEPT {
            told.1.pop_last();
        }
    }
}

/// Folds the sorted rows as they come.
struct Explainer {
    job: FoldJob,
    window: Window,
    as_of_us: i64,
    keep: usize,
    inputs: usize,
    filters: usize,
    needs_event_time: bool,
    paths: Vec<String>,
    /// Batches that may still have to be shown.
    waiting: VecDeque<RecordBatch>,
    waiting_rows: usize,
    cell: Cell,
    total: u64,
    counted: u64,
    later: u64,
    newest_us: Option<i64>,
    shown: Vec<ExplainedRow>,
    value: ExplainedValue,
    refused: Vec<RefusedRow>,
    refused_total: u64,
}

impl Explainer {
    fn of(slice: &Slice, ask: &ExplainAsk) -> Result<Explainer, BatchError> {
        let feature = slice.layout.tables[0].features.first();
        let (Some(feature), Some(udf)) = (feature, slice.udfs.first()) else {
            return Err(BatchError::internal("a slice without a feature"));
        };
        let mut filters: Vec<usize> = feature.filter.iter().map(|(column, _)| *column).collect();
        filters.sort_unstable();
        filters.dedup();
        let outputs = feature.outputs.iter().map(|field| new_null_array(&field.kind.data_type(), 1)).collect();
        Ok(Explainer {
            job: FoldJob::new(udf.clone(), feature.window),
            window: feature.window,
            as_of_us: ask.as_of_us,
            keep: ask.rows.max(1),
            inputs: feature.inputs.len(),
            filters: filters.len(),
            needs_event_time: feature.needs_event_time,
            paths: Vec::new(),
            waiting: VecDeque::new(),
            waiting_rows: 0,
            cell: Cell::default(),
            total: 0,
            counted: 0,
            later: 0,
            newest_us: None,
            shown: Vec::new(),
            value: ExplainedValue { outputs, reason: None, failed: false },
            refused: Vec::new(),
            refused_total: 0,
        })
    }

    fn take(&mut self, batch: RecordBatch) -> Result<(), BatchError> {
        // Rows come in order of their time: what is later than the instant is all at the end.
        let times = self.times(&batch);
        let until = times.partition_point(|time_us| *time_us <= self.as_of_us);
        for (row, time_us) in times.iter().enumerate().skip(until) {
            let verdict = self.verdict(&batch, row, *time_us);
            self.count(&batch, row, *time_us, &verdict);
            self.later += 1;
        }
        let batch = batch.slice(0, until);
        if until == 0 {
            return Ok(());
        }
        self.waiting_rows += batch.num_rows();
        self.waiting.push_back(batch);
        while let Some(front) = self.waiting.front() {
            let rows = front.num_rows();
            if self.waiting_rows - rows < self.keep {
                break;
            }
            if let Some(front) = self.waiting.pop_front() {
                self.waiting_rows -= rows;
                self.fold(&front, rows)?;
            }
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), BatchError> {
        while let Some(front) = self.waiting.pop_front() {
            let hidden = self.waiting_rows.saturating_sub(self.keep).min(front.num_rows());
            self.waiting_rows -= front.num_rows();
            self.fold(&front, hidden)?;
        }
        Ok(())
    }

    /// Folds a batch; its rows from `hidden` on are shown.
    fn fold(&mut self, batch: &RecordBatch, hidden: usize) -> Result<(), BatchError> {
        let rows = batch.num_rows();
        let times = self.times(batch);
        let mut verdicts: Vec<Verdict> = (0..rows).map(|row| self.verdict(batch, row, times[row])).collect();
        let mut columns: Vec<ArrayRef> = batch.columns()[VALUES..VALUES + self.inputs].to_vec();
        if self.needs_event_time {
            columns.push(Arc::new(TimestampMicrosecondArray::from(times.clone()).with_timezone("UTC")));
        }
        let mut cells = OneCell {
            as_of_us: self.as_of_us,
            verdicts: &verdicts,
            times_us: &times,
            hidden,
            before: std::mem::take(&mut self.cell),
            after: Cell::default(),
            values: Vec::new(),
        };
        let failed = self.job.run(rows as u32, &columns, &mut cells).map_err(|error| match error {
            JobError::Call(failure) => {
                BatchError::Fold(format!("a module of the registered definitions cannot be run: {failure}"))
            }
            damaged => BatchError::internal(damaged),
        })?;
        let (after, values) = (cells.after, cells.values);
        self.cell = after;
        let failed: BTreeMap<u32, String> = failed.into_iter().map(|failed| (failed.row, failed.message)).collect();
        for (row, message) in failed {
            if let Some(verdict) = verdicts.get_mut(row as usize) {
                *verdict = Verdict::Refused { stage: "fold", message };
            }
        }
        let mut values = values.into_iter();
        for (row, verdict) in verdicts.into_iter().enumerate() {
            self.count(batch, row, times[row], &verdict);
            if row < hidden {
                continue;
            }
            self.value = values.next().ok_or_else(|| BatchError::internal("a row without a value after it"))?;
            self.shown.push(self.row(batch, row, times[row], verdict));
        }
        Ok(())
    }

    fn times(&self, batch: &RecordBatch) -> Vec<i64> {
        let order = batch.column(ORDER).as_binary::<i32>();
        (0..batch.num_rows()).map(|row| split_order(order.value(row)).1).collect()
    }

    fn verdict(&self, batch: &RecordBatch, row: usize, time_us: i64) -> Verdict {
        let kinds = batch.column(WHY_KIND).as_string::<i32>();
        if kinds.is_valid(row) {
            let message = batch.column(WHY).as_string::<i32>().value(row).to_owned();
            return match kinds.value(row) {
                WHERE => Verdict::Where(message),
                FUTURE => Verdict::Refused { stage: FUTURE, message },
                "decode" => Verdict::Refused { stage: "decode", message },
                _ => Verdict::Refused { stage: "transform", message },
            };
        }
        let tile = self.window.tile_of(time_us);
        let (enters_us, left_us) = (self.window.enters_at_us(tile), self.window.leaves_at_us(tile));
        match () {
            () if time_us > self.as_of_us => Verdict::Later,
            () if left_us <= self.as_of_us => Verdict::Left { left_us },
            () if enters_us > self.as_of_us => Verdict::NotYet { enters_us },
            () => Verdict::In,
        }
    }

    fn count(&mut self, batch: &RecordBatch, row: usize, time_us: i64, verdict: &Verdict) {
        self.total += 1;
        self.counted += u64::from(*verdict == Verdict::In);
        // An event from the future is no row at all; what one feature refuses is one for the entity.
        let is_row = !matches!(verdict, Verdict::Refused { stage: FUTURE, .. });
        if is_row && time_us <= self.as_of_us {
            self.newest_us = self.newest_us.max(Some(time_us));
        }
        if let Verdict::Refused { stage, message } = verdict {
            self.refused_total += 1;
            if self.refused.len() < REFUSED_KEPT {
                let (place, sub_row) = self.place(batch, row);
                let message = message.clone();
                self.refused.push(RefusedRow { event_time_us: time_us, place, sub_row, stage, message });
            }
        }
    }

    fn place(&self, batch: &RecordBatch, row: usize) -> (Place, u32) {
        let place = batch.column(PLACE).as_primitive::<UInt64Type>().value(row);
        (place_of(place, &self.paths), batch.column(SUB_ROW).as_primitive::<UInt32Type>().value(row))
    }

    fn row(&self, batch: &RecordBatch, row: usize, event_time_us: i64, verdict: Verdict) -> ExplainedRow {
        let (place, sub_row) = self.place(batch, row);
        let values: Vec<ArrayRef> = batch.columns()[VALUES..].iter().map(|column| column.slice(row, 1)).collect();
        let broken = batch.column(BROKEN).as_string::<i32>();
        let broken = if broken.is_valid(row) { broken.value(row) } else { "" };
        ExplainedRow {
            event_time_us,
            place,
            sub_row,
            verdict,
            inputs: values.iter().take(self.inputs).cloned().collect(),
            source: values.iter().skip(self.inputs + self.filters).cloned().collect(),
            broken: broken.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect(),
            value: self.value.clone(),
        }
    }
}

/// The entity's state in the feature, and its rows of one batch.
struct OneCell<'a> {
    as_of_us: i64,
    verdicts: &'a [Verdict],
    times_us: &'a [i64],
    hidden: usize,
    before: Cell,
    after: Cell,
    values: Vec<ExplainedValue>,
}

impl Cells for OneCell<'_> {
    fn count(&self) -> usize {
        1
    }

    fn plan(&self, _: usize, planner: &mut Planner) {
        let mut plan = planner.begin(&self.before.head, &self.before.tail, self.as_of_us);
        for (row, (verdict, time_us)) in self.verdicts.iter().zip(self.times_us).enumerate() {
            // What has left and what has not entered yet is the fold's to judge, not ours.
            if matches!(verdict, Verdict::In | Verdict::Left { .. } | Verdict::NotYet { .. }) {
                plan.row(row as u32, *time_us);
            }
            if row >= self.hidden {
                plan.probe(self.as_of_us);
            }
        }
        plan.end(true);
    }

    fn settle(&mut self, _: usize, results: &Results<'_>) {
        for probe in results.probes(0) {
            self.values.push(match probe {
                Probe::Row(row) => ExplainedValue {
                    outputs: results.outputs().iter().map(|column| column.slice(row, 1)).collect(),
                    reason: results.reason(row).map(str::to_owned),
                    failed: false,
                },
                Probe::Failed(reason) => {
                    let nulls = results.outputs().iter().map(|column| new_null_array(column.data_type(), 1));
                    ExplainedValue { outputs: nulls.collect(), reason: Some(reason.to_owned()), failed: true }
                }
            });
        }
        let mut after = Cell::default();
        match results.write(0, &mut after.head, &mut after.tail) {
            Change::Nothing => after = self.before.clone(),
            Change::Head => after.tail = self.before.tail.clone(),
            Change::Both => {}
        }
        self.after = after;
    }
}
