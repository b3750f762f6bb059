//! Training sets read again: what they say of themselves, and whether two of them are the same.

use super::BatchError;
use super::files::{PinnedFile, open_pinned};
use arrow::array::Array;
use arrow::record_batch::RecordBatch;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
use std::collections::BTreeSet;
use std::fs::File;
use std::path::Path;

const ROWS: usize = 8192;

/// The text under a key of a Parquet file's metadata.
pub fn file_metadata(path: &Path, key: &str) -> Result<Option<String>, BatchError> {
    let file = File::open(path).map_err(|error| wrong(path, &error))?;
    let parquet = ArrowReaderMetadata::load(&file, ArrowReaderOptions::new()).map_err(|error| wrong(path, &error))?;
    let pairs = parquet.metadata().file_metadata().key_value_metadata();
    let found = pairs.into_iter().flatten().find(|pair| pair.key == key);
    Ok(found.and_then(|pair| pair.value.clone()))
}

/// Why each of these files is not what it was; nothing of those that are.
pub fn changed_files(pins: &[PinnedFile]) -> Vec<String> {
    let reason = |pin: &PinnedFile| match open_pinned(std::slice::from_ref(pin)) {
        Ok(_) => None,
        Err(BatchError::Changed { path, reason }) => Some(format!("{path}: {reason}")),
        Err(error) => Some(error.to_string()),
    };
    pins.iter().filter_map(reason).collect()
}

/// The columns in which two files differ, to the last bit; `rows` when one has more of them.
pub fn differing_columns(one: &Path, other: &Path) -> Result<Vec<String>, BatchError> {
    let (mut left, mut right) = (Rows::open(one)?, Rows::open(other)?);
    let names = |rows: &Rows| rows.names.iter().cloned().collect::<BTreeSet<_>>();
    if left.names != right.names {
        return Ok(names(&left).symmetric_difference(&names(&right)).cloned().collect());
    }
    let mut differing = BTreeSet::new();
    loop {
        let (Some(ours), Some(theirs)) = (left.rest(one)?, right.rest(other)?) else { break };
        let rows = ours.num_rows().min(theirs.num_rows());
        for (name, (a, b)) in left.names.iter().zip(ours.columns().iter().zip(theirs.columns())) {
            if a.data_type() != b.data_type() || a.slice(0, rows).to_data() != b.slice(0, rows).to_data() {
                differing.insert(name.clone());
            }
        }
        left.rest = (ours.num_rows() > rows).then(|| ours.slice(rows, ours.num_rows() - rows));
        right.rest = (theirs.num_rows() > rows).then(|| theirs.slice(rows, theirs.num_rows() - rows));
    }
    if left.rest(one)?.is_some() || right.rest(other)?.is_some() {
        differing.insert("rows".to_owned());
    }
    Ok(differing.into_iter().collect())
}

struct Rows {
    reader: ParquetRecordBatchReader,
    names: Vec<String>,
    rest: Option<RecordBatch>,
}

impl Rows {
    fn open(path: &Path) -> Result<Rows, BatchError> {
        let file = File::open(path).map_err(|error| wrong(path, &error))?;
        let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| wrong(path, &error))?;
        let names = builder.schema().fields().iter().map(|field| field.name().clone()).collect();
        let reader = builder.with_batch_size(ROWS).build().map_err(|error| wrong(path, &error))?;
        Ok(Rows { reader, names, rest: None })
    }

    /// The rows that come next; none at the end. They stay until they are taken off.
    fn rest(&mut self, path: &Path) -> Result<Option<RecordBatch>, BatchError> {
        while self.rest.is_none() {
            match self.reader.next() {
                None => return Ok(None),
                Some(batch) => {
                    let batch = batch.map_err(|error| wrong(path, &error))?;
                    self.rest = (batch.num_rows() > 0).then_some(batch);
                }
            }
        }
        Ok(self.rest.clone())
    }
}

fn wrong(path: &Path, error: &dyn std::fmt::Display) -> BatchError {
    BatchError::Input(format!("{}: {error}", path.display()))
}
