//! The Parquet files of a source: a file, a directory, or Hive partitions; and whether they are still what they were.

use super::BatchError;
use crate::define::{DecodeAs, Source};
use arrow::array::{ArrayRef, BooleanArray, Int64Array, StringArray, new_null_array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use onefold_fold::Kind;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a directory of Hive partitions calls a null.
const HIVE_NULL: &str = "__HIVE_DEFAULT_PARTITION__";

/// A file as it was when it was read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PinnedFile {
    /// Absolute.
    pub path: String,
    pub size: u64,
    pub rows: u64,
    /// Microseconds since the epoch, UTC.
    pub modified_us: i64,
}

/// A file with what is needed to read it.
pub(super) struct DataFile {
    pub pin: PinnedFile,
    pub schema: SchemaRef,
    /// Rows of each row group.
    pub row_groups: Vec<u64>,
    /// Bytes of a row on the average, once it is no longer compressed.
    pub row_bytes: usize,
    /// Columns that the path holds: `dt=2026-01-01`.
    pub partitions: Vec<(String, Option<String>)>,
}

/// The files at a path now, by name.
pub fn list_files(path: &str) -> Result<Vec<PinnedFile>, BatchError> {
    Ok(open_files(path)?.into_iter().map(|file| file.pin).collect())
}

/// Columns that at least one of the files at a path has, in itself or by the name of its directory.
pub fn list_columns(path: &str) -> Result<BTreeSet<String>, BatchError> {
    let mut columns = BTreeSet::new();
    for file in open_files(path)? {
        columns.extend(file.schema.fields().iter().map(|field| field.name().clone()));
        columns.extend(file.partitions.into_iter().map(|(name, _)| name));
    }
    Ok(columns)
}

pub(super) fn open_files(path: &str) -> Result<Vec<DataFile>, BatchError> {
    let unreadable = |error: std::io::Error| {
        BatchError::unreadable(path, format!("{error}; the source's Parquet files must be there"))
    };
    let root = fs::canonicalize(path).map_err(unreadable)?;
    if root.is_file() {
        return Ok(vec![DataFile::open(&root, Vec::new())?]);
    }
    let mut files = Vec::new();
    walk(&root, &mut Vec::new(), &mut files)?;
    if files.is_empty() {
        return Err(BatchError::unreadable(path, "the directory holds no file that ends in .parquet"));
    }
    Ok(files)
}

/// The pinned files, each of which must be what it was.
pub(super) fn open_pinned(pins: &[PinnedFile]) -> Result<Vec<DataFile>, BatchError> {
    let mut files = Vec::with_capacity(pins.len());
    for pin in pins {
        let changed = |reason: String| BatchError::Changed { path: pin.path.clone(), reason };
        let path = Path::new(&pin.path);
        let meta = fs::metadata(path).map_err(|error| changed(format!("the file cannot be opened: {error}")))?;
        if meta.len() != pin.size {
            return Err(changed(format!("the file has {} bytes and had {}", meta.len(), pin.size)));
        }
        if modified_us(&meta) != pin.modified_us {
            return Err(changed("the file was written again since".to_owned()));
        }
        let file = DataFile::open(path, partitions_of(path))?;
        if file.pin.rows != pin.rows {
            return Err(changed(format!("the file has {} rows and had {}", file.pin.rows, pin.rows)));
        }
        files.push(file);
    }
    Ok(files)
}

fn walk(
    directory: &Path,
    partitions: &mut Vec<(String, Option<String>)>,
    files: &mut Vec<DataFile>,
) -> Result<(), BatchError> {
    let shown = || directory.display().to_string();
    let listing = fs::read_dir(directory).map_err(|error| BatchError::unreadable(shown(), error))?;
    let mut paths = Vec::new();
    for entry in listing {
        paths.push(entry.map_err(|error| BatchError::unreadable(shown(), error))?.path());
    }
    paths.sort();
    for path in paths {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        // What writers leave beside the data: `_SUCCESS`, `_temporary`, `.part.crc`.
        if name.starts_with(['.', '_']) {
            continue;
        }
        if path.is_dir() {
            let partition = partition_of(&name);
            let before = partitions.len();
            partitions.extend(partition);
            walk(&path, partitions, files)?;
            partitions.truncate(before);
        } else if name.ends_with(".parquet") {
            files.push(DataFile::open(&path, partitions.clone())?);
        }
    }
    Ok(())
}

/// The partitions that a whole path names. The parts above a source's own directory may hold some too: they are no
/// columns of its, and asked for by none.
fn partitions_of(path: &Path) -> Vec<(String, Option<String>)> {
    let parent = path.parent().unwrap_or(path);
    parent.components().filter_map(|part| partition_of(&part.as_os_str().to_string_lossy())).collect()
}

fn partition_of(name: &str) -> Option<(String, Option<String>)> {
    let (column, value) = name.split_once('=')?;
    let value = unescape(value);
    Some((unescape(column), (value != HIVE_NULL).then_some(value)))
}

/// Hive writes what a path may not hold as `%3A`.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code = (*first == b'%').then(|| after.get(..2)).flatten();
        let code = code.and_then(|code| u8::from_str_radix(std::str::from_utf8(code).ok()?, 16).ok());
        match code {
            Some(code) => {
                bytes.push(code);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn modified_us(meta: &fs::Metadata) -> i64 {
    meta.mtime().saturating_mul(1_000_000).saturating_add(meta.mtime_nsec() / 1000)
}

impl DataFile {
    fn open(path: &Path, partitions: Vec<(String, Option<String>)>) -> Result<DataFile, BatchError> {
        let shown = path.display().to_string();
        let unreadable = |error: &dyn std::fmt::Display| BatchError::unreadable(&shown, error);
        let file = File::open(path).map_err(|error| unreadable(&error))?;
        let meta = file.metadata().map_err(|error| unreadable(&error))?;
        let parquet = ArrowReaderMetadata::load(&file, ArrowReaderOptions::new()).map_err(|error| {
            unreadable(&format!("this is no whole Parquet file ({error}); was it cut off? write it again"))
        })?;
        let groups = parquet.metadata().row_groups().iter();
        let row_groups: Vec<u64> = groups.map(|group| u64::try_from(group.num_rows()).unwrap_or(0)).collect();
        let bytes: i64 = parquet.metadata().row_groups().iter().map(|group| group.total_byte_size()).sum();
        let rows: u64 = row_groups.iter().sum();
        let row_bytes = usize::try_from(bytes).unwrap_or(0) / usize::try_from(rows.max(1)).unwrap_or(usize::MAX);
        let pin = PinnedFile { path: shown, size: meta.len(), rows, modified_us: modified_us(&meta) };
        Ok(DataFile { pin, schema: parquet.schema().clone(), row_groups, row_bytes, partitions })
    }

    pub fn path(&self) -> PathBuf {
        PathBuf::from(&self.pin.path)
    }

    /// The file's columns with those of its path, as the decoder will see them.
    pub fn whole_schema(&self, source: &Source) -> Schema {
        let mut fields: Vec<_> = self.schema.fields().iter().cloned().collect();
        for (name, value) in self.own_partitions() {
            let column = partition_column(source, name, value, 0);
            fields.push(Arc::new(Field::new(name, column.data_type().clone(), true)));
        }
        Schema::new(fields)
    }

    /// The batch with the columns of the path behind its own.
    pub fn with_partitions(&self, source: &Source, batch: RecordBatch) -> Result<RecordBatch, BatchError> {
        let wanted = |name: &str| source.columns.iter().any(|column| column.batch_column == name);
        if !self.own_partitions().any(|(name, _)| wanted(name)) {
            return Ok(batch);
        }
        let mut fields: Vec<_> = batch.schema().fields().iter().cloned().collect();
        let mut columns = batch.columns().to_vec();
        for (name, value) in self.own_partitions().filter(|(name, _)| wanted(name)) {
            let column = partition_column(source, name, value, batch.num_rows());
            fields.push(Arc::new(Field::new(name, column.data_type().clone(), true)));
            columns.push(column);
        }
        Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
    }

    /// A column of the file itself wins over one of its path.
    fn own_partitions(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        let own = |name: &String| self.schema.column_with_name(name).is_none();
        let partitions = self.partitions.iter().filter(move |(name, _)| own(name));
        partitions.map(|(name, value)| (name.as_str(), value.as_deref()))
    }
}

/// A path holds text only: read as what the source declares, where it is that; else left as text.
fn partition_column(source: &Source, name: &str, value: Option<&str>, rows: usize) -> ArrayRef {
    let declared = source.columns.iter().find(|column| column.batch_column == name).map(|column| column.decode);
    let number = || value.map(|value| value.parse::<i64>().ok());
    match declared {
        Some(
            DecodeAs::Kind(Kind::Int64)
            | DecodeAs::TimestampSeconds
            | DecodeAs::TimestampMillis
            | DecodeAs::TimestampMicros,
        ) => match number() {
            None => new_null_array(&DataType::Int64, rows),
            Some(Some(number)) => Arc::new(Int64Array::from(vec![number; rows])),
            Some(None) => text_column(value, rows),
        },
        Some(DecodeAs::Kind(Kind::Boolean)) => match value {
            None => new_null_array(&DataType::Boolean, rows),
            Some("true") => Arc::new(BooleanArray::from(vec![true; rows])),
            Some("false") => Arc::new(BooleanArray::from(vec![false; rows])),
            Some(_) => text_column(value, rows),
        },
        _ => text_column(value, rows),
    }
}

fn text_column(value: Option<&str>, rows: usize) -> ArrayRef {
    Arc::new(StringArray::from_iter(std::iter::repeat_n(value, rows)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_read_as_hive_writes_them() {
        assert_eq!(partition_of("dt=2026-01-01"), Some(("dt".into(), Some("2026-01-01".into()))));
        assert_eq!(partition_of("at=10%3A00%2"), Some(("at".into(), Some("10:00%2".into()))));
        assert_eq!(partition_of("dt=__HIVE_DEFAULT_PARTITION__"), Some(("dt".into(), None)));
        assert_eq!(partition_of("plain"), None);
    }
}
