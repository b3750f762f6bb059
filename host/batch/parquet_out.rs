//! Results as one Parquet file, which is there whole or not at all.

use super::BatchError;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// A file being written beside the place where it will be.
pub(super) struct ParquetOut {
    writer: Option<ArrowWriter<File>>,
    path: PathBuf,
    beside: PathBuf,
}

impl ParquetOut {
    pub fn create(path: &Path, schema: SchemaRef) -> Result<ParquetOut, BatchError> {
        let mut name = path.file_name().unwrap_or_default().to_os_string();
        name.push(format!(".{}.part", std::process::id()));
        let beside = path.with_file_name(name);
        let file = File::create(&beside).map_err(|error| cannot_write(path, error))?;
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_created_by(format!("onefold {}", env!("CARGO_PKG_VERSION")))
            .build();
        let writer = ArrowWriter::try_new(file, schema, Some(properties)).map_err(|error| cannot_write(path, error))?;
        Ok(ParquetOut { writer: Some(writer), path: path.to_owned(), beside })
    }

    pub fn write(&mut self, batch: &RecordBatch) -> Result<(), BatchError> {
        match &mut self.writer {
            Some(writer) => writer.write(batch).map_err(|error| cannot_write(&self.path, error)),
            None => Ok(()),
        }
    }

    /// Adds a text to the file's metadata.
    pub fn describe(&mut self, key: String, text: String) {
        if let Some(writer) = &mut self.writer {
            writer.append_key_value_metadata(KeyValue::new(key, text));
        }
    }

    /// Lets the file appear under its name.
    pub fn finish(mut self) -> Result<(), BatchError> {
        if let Some(writer) = self.writer.take() {
            let file = writer.into_inner().map_err(|error| cannot_write(&self.path, error))?;
            file.sync_all().map_err(|error| cannot_write(&self.path, error))?;
            fs::rename(&self.beside, &self.path).map_err(|error| cannot_write(&self.path, error))?;
        }
        Ok(())
    }
}

impl Drop for ParquetOut {
    fn drop(&mut self) {
        // Gone already where it was finished.
        let _ = fs::remove_file(&self.beside);
    }
}

fn cannot_write(path: &Path, error: impl std::fmt::Display) -> BatchError {
    BatchError::Resources(format!("cannot write {}: {error}", path.display()))
}
