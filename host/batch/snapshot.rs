//! Every known entity of a view with its values at one instant.

use super::BatchError;
use super::files::PinnedFile;
use super::fold_exec::Wanted;
use super::parquet_out::ParquetOut;
use super::run::Run;
use super::settings::{BatchHost, Rows};
use super::slice::Slice;
use super::table_values::{AsOf, ValueColumns, no_view};
use crate::define::FeatureView;
use crate::rows::retention_us;
use arrow::array::{Array, ArrayRef, BooleanArray, TimestampMicrosecondArray};
use arrow::compute::{filter_record_batch, nullif};
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use onefold_fold::Kind;
use serde::Serialize;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

#[derive(Clone, Debug)]
pub struct SnapshotAsk {
    pub view: String,
    /// None: the source's newest decoded row.
    pub as_of_us: Option<i64>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SnapshotSummary {
    /// None: the source has no row, and nothing asked for an instant.
    pub as_of_us: Option<i64>,
    pub entities: u64,
    /// Rows that belong to no entity: a join key is null.
    pub null_keys: u64,
    pub files: Vec<PinnedFile>,
}

impl BatchHost<'_> {
    /// Gives the known entities batch by batch, sorted by join keys: the join keys, one column a value column of the
    /// view, `event_timestamp`, `valid_until`. Values older than the view's ttl are null.
    pub fn snapshot(
        &self,
        ask: &SnapshotAsk,
        rows: &Rows,
        mut take: impl FnMut(RecordBatch) -> Result<(), BatchError>,
    ) -> Result<SnapshotSummary, BatchError> {
        let view = self.project.feature_views.get(&ask.view).ok_or_else(|| no_view(&ask.view))?;
        let table = self.table_of(&BTreeSet::from([view.name.clone()]))?;
        let slice = Slice::of(self.project, &table.views, &table.features, self.prepare)?;
        let as_of = ask.as_of_us.map_or(AsOf::NewestOfSource, AsOf::At);
        let run = Run::new(self, slice, rows, Wanted::Values(as_of), None, true)?;
        let schema = snapshot_schema(view);
        let mut entities = 0;
        let (seen, files) = run.each(|batch, scan| {
            let as_of_us = ask.as_of_us.unwrap_or_else(|| scan.newest_us.load(Ordering::Acquire));
            let batch = known_entities(view, &schema, &ValueColumns::of(&batch, &scan.slice), as_of_us)?;
            entities += batch.num_rows() as u64;
            if batch.num_rows() > 0 { take(batch) } else { Ok(()) }
        })?;
        let as_of_us = ask.as_of_us.or(seen.newest_us);
        Ok(SnapshotSummary { as_of_us, entities, null_keys: seen.null_keys, files })
    }

    /// The same into a Parquet file.
    pub fn snapshot_file(&self, ask: &SnapshotAsk, rows: &Rows, out: &Path) -> Result<SnapshotSummary, BatchError> {
        let view = self.project.feature_views.get(&ask.view).ok_or_else(|| no_view(&ask.view))?;
        let mut file = ParquetOut::create(out, snapshot_schema(view))?;
        let summary = self.snapshot(ask, rows, |batch| file.write(&batch))?;
        file.finish()?;
        Ok(summary)
    }
}

/// The columns of a view's snapshot.
pub fn snapshot_schema(view: &FeatureView) -> SchemaRef {
    let mut fields: Vec<Field> =
        view.join_keys.iter().map(|key| Field::new(&key.name, key.kind.data_type(), false)).collect();
    let outputs = view.features.iter().flat_map(|feature| &feature.outputs);
    fields.extend(outputs.map(|field| Field::new(&field.name, field.kind.data_type(), true)));
    fields.push(Field::new("event_timestamp", Kind::Timestamp.data_type(), false));
    fields.push(Field::new("valid_until", Kind::Timestamp.data_type(), true));
    Arc::new(Schema::new(fields))
}

/// Leaves out entities that retention has forgotten, and blanks values past the ttl.
fn known_entities(
    view: &FeatureView,
    schema: &SchemaRef,
    values: &ValueColumns,
    as_of_us: i64,
) -> Result<RecordBatch, BatchError> {
    let keys = values.keys.as_ref().ok_or_else(|| BatchError::internal("values without keys"))?;
    let kinds: Vec<Kind> = view.join_keys.iter().map(|key| key.kind).collect();
    let mut columns =
        crate::route::decode(&kinds, (0..keys.len()).map(|row| keys.value(row))).map_err(BatchError::internal)?;
    let older_than = |age_us: Option<i64>| -> BooleanArray {
        let older = |newest_us: &i64| age_us.is_some_and(|age_us| as_of_us > newest_us.saturating_add(age_us));
        values.newest_us.values().iter().map(|newest_us| Some(older(newest_us))).collect()
    };
    let expired = older_than(view.ttl_us);
    for feature in &view.features {
        let column = values.features.iter().find(|values| values.fingerprint == feature.fingerprint);
        let column = column.ok_or_else(|| BatchError::internal(format!("no values of `{}`", feature.name)))?;
        for output in &column.outputs {
            columns.push(nullif(output, &expired)?);
        }
    }
    let newest = TimestampMicrosecondArray::new(values.newest_us.values().clone(), None).with_timezone("UTC");
    columns.push(Arc::new(newest));
    let changes = values.next_change_us.iter().flat_map(|changes| changes.iter());
    let changes: ArrayRef = Arc::new(TimestampMicrosecondArray::from_iter(changes).with_timezone("UTC"));
    columns.push(changes);
    let batch = RecordBatch::try_new(schema.clone(), columns)?;
    let forgotten = older_than(retention_us(view));
    let known: BooleanArray = forgotten.values().iter().map(|forgotten| Some(!forgotten)).collect();
    Ok(filter_record_batch(&batch, &known)?)
}
