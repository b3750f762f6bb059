//! All entities of a table with their values: what `snapshot` writes and `verify` compares.

use super::BatchError;
use super::files::PinnedFile;
use super::fold_exec::Wanted;
use super::probes::Probes;
use super::run::Run;
use super::settings::{BatchHost, Rows};
use super::slice::{Slice, whole_layout};
use crate::define::Digest;
use arrow::array::{ArrayRef, AsArray, BinaryArray, BooleanArray, Int64Array, StringArray, UInt64Array};
use arrow::datatypes::{Int64Type, UInt64Type};
use arrow::record_batch::RecordBatch;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The instant of values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AsOf {
    At(i64),
    /// The source's newest decoded row.
    NewestOfSource,
    /// For each entity the later of a clock and its own newest row, as values are online.
    ClockOrNewest(i64),
}

/// Which table: that of these views, and which of their features (by fingerprint).
#[derive(Clone, Debug)]
pub struct TableAsk {
    pub views: BTreeSet<String>,
    pub features: BTreeSet<Digest>,
}

/// Values of some entities, column by column.
pub struct ValueColumns {
    /// Key bytes; of probes asked by [`BatchHost::values_at`] empty.
    pub keys: Option<BinaryArray>,
    /// Which of the asked entities; of whole tables none.
    pub labels: Option<UInt64Array>,
    /// Event time of the newest row; null: not known at that instant, and no value is meant.
    pub newest_us: Int64Array,
    /// When a value changes by time alone; null: never, or not asked.
    pub next_change_us: Option<Int64Array>,
    pub features: Vec<ValueAt>,
}

/// One feature's values.
pub struct ValueAt {
    pub fingerprint: Digest,
    /// One array an output.
    pub outputs: Vec<ArrayRef>,
    /// Why a value is null, where there is more to say than that.
    pub reasons: StringArray,
    /// The value could not be had: it equals no other.
    pub failed: BooleanArray,
}

impl ValueColumns {
    pub(super) fn of(batch: &RecordBatch, slice: &Slice) -> ValueColumns {
        let leading = batch.column(0);
        let keys = leading.as_binary_opt::<i32>().cloned();
        let at_end = keys.is_some();
        let mut next = if at_end { 3 } else { 2 };
        let mut features = Vec::new();
        for feature in &slice.layout.tables[0].features {
            let outputs = batch.columns()[next..next + feature.outputs.len()].to_vec();
            next += feature.outputs.len();
            features.push(ValueAt {
                fingerprint: feature.fingerprint,
                outputs,
                reasons: batch.column(next).as_string::<i32>().clone(),
                failed: batch.column(next + 1).as_boolean().clone(),
            });
            next += 2;
        }
        ValueColumns {
            keys,
            labels: leading.as_primitive_opt::<UInt64Type>().cloned(),
            newest_us: batch.column(1).as_primitive::<Int64Type>().clone(),
            next_change_us: at_end.then(|| batch.column(2).as_primitive::<Int64Type>().clone()),
            features,
        }
    }

    pub fn len(&self) -> usize {
        self.newest_us.len()
    }

    pub fn is_empty(&self) -> bool {
        self.newest_us.is_empty()
    }
}

impl BatchHost<'_> {
    /// The table that these views read, with all their features.
    pub fn table_of(&self, views: &BTreeSet<String>) -> Result<TableAsk, BatchError> {
        let mut features = BTreeSet::new();
        for view in views {
            let view = self.project.feature_views.get(view).ok_or_else(|| no_view(view))?;
            features.extend(view.features.iter().map(|feature| feature.fingerprint));
        }
        Ok(TableAsk { views: views.clone(), features })
    }

    /// Every entity that has a row by then, in order of its key, to `take`. Ttl and retention are the caller's.
    /// Gives what was read and the source's newest row.
    pub fn table_values(
        &self,
        ask: &TableAsk,
        rows: &Rows,
        as_of: AsOf,
        mut take: impl FnMut(ValueColumns) -> Result<(), BatchError>,
    ) -> Result<(Option<i64>, Vec<PinnedFile>), BatchError> {
        let slice = Slice::of(self.project, &ask.views, &ask.features, self.prepare)?;
        let run = Run::new(self, slice, rows, Wanted::Values(as_of), None, true)?;
        let (seen, pins) = run.each(|batch, scan| take(ValueColumns::of(&batch, &scan.slice)))?;
        Ok((seen.newest_us, pins))
    }

    /// The values of these entities (key bytes, instant each), to `take` in any order: `labels` says which.
    pub fn values_at(
        &self,
        ask: &TableAsk,
        rows: &Rows,
        entities: Vec<(Vec<u8>, i64)>,
        mut take: impl FnMut(ValueColumns) -> Result<(), BatchError>,
    ) -> Result<Vec<PinnedFile>, BatchError> {
        let slice = Slice::of(self.project, &ask.views, &ask.features, self.prepare)?;
        let probes = Probes::Entities { entities: Arc::new(entities), batch_rows: self.settings.batch_rows };
        let run = Run::new(self, slice, rows, Wanted::Probes, Some(probes), false)?;
        let (_, pins) = run.each(|batch, scan| take(ValueColumns::of(&batch, &scan.slice)))?;
        Ok(pins)
    }

    /// Which table of the whole project a view has: views of one number can be asked together.
    pub fn table_number(&self, view: &str) -> Result<usize, BatchError> {
        let layout = whole_layout(self.project)?;
        let view_layout = layout.views.get(view).ok_or_else(|| no_view(view))?;
        let column = view_layout.columns.first();
        column.map(|column| column.table).ok_or_else(|| BatchError::Input(format!("view `{view}` has no feature")))
    }
}

pub(super) fn no_view(view: &str) -> BatchError {
    BatchError::Input(format!("there is no feature view `{view}`: no such view is applied"))
}
