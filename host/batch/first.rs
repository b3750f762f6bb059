//! The first rows of a source's files, for people who want to see them.

use super::BatchError;
use super::files::{PinnedFile, open_files};
use crate::define::Source;
use arrow::record_batch::RecordBatch;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use std::fs::File;

/// The first rows at a path, file by file in order of name. With a source, columns that paths hold come along.
pub fn first_rows(
    path: &str,
    source: Option<&Source>,
    most_rows: usize,
) -> Result<Vec<(PinnedFile, RecordBatch)>, BatchError> {
    let mut found = Vec::new();
    let mut left = most_rows;
    for data in open_files(path)? {
        if left == 0 {
            break;
        }
        let unreadable = |error: &dyn std::fmt::Display| BatchError::unreadable(&data.pin.path, error);
        let file = File::open(data.path()).map_err(|error| unreadable(&error))?;
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| unreadable(&error))?;
        for batch in reader.with_limit(left).build().map_err(|error| unreadable(&error))? {
            let batch = batch.map_err(|error| unreadable(&error))?;
            left = left.saturating_sub(batch.num_rows());
            let batch = match source {
                Some(source) => data.with_partitions(source, batch)?,
                None => batch,
            };
            found.push((data.pin.clone(), batch));
        }
    }
    Ok(found)
}
