//! The labels of a training set: Parquet or CSV with join keys, an instant and request data.

use super::BatchError;
use super::rows_exec::decode_error;
use crate::decode::ColumnsDecoder;
use crate::define::{About, DecodeAs, Source, SourceColumn};
use crate::route::Keys;
use arrow::array::{ArrayRef, AsArray};
use arrow::csv::ReaderBuilder;
use arrow::csv::reader::Format;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimestampMicrosecondType};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use onefold_fold::Kind;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A label file that can be read several times.
pub(super) struct Labels {
    path: PathBuf,
    is_csv: bool,
    /// As they will come out again.
    schema: SchemaRef,
    rows: u64,
    /// Join keys, request data and the instant, as a source's columns: they are decoded by the same rules.
    source: Source,
    batch_rows: usize,
}

/// Some labels in order.
pub(super) struct LabelBatch {
    /// All columns of the file.
    pub whole: RecordBatch,
    pub at_us: Vec<i64>,
    /// The declared columns.
    decoded: RecordBatch,
}

impl Labels {
    /// `fields`: join keys and request data by name.
    pub fn open(
        path: &Path,
        timestamp: &str,
        fields: &BTreeMap<String, Kind>,
        batch_rows: usize,
    ) -> Result<Labels, BatchError> {
        let shown = path.display();
        let open = || File::open(path).map_err(|error| BatchError::Input(format!("{shown}: {error}")));
        let is_csv = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv"));
        let (schema, rows) = if is_csv {
            let (inferred, rows) = Format::default()
                .with_header(true)
                .infer_schema(open()?, None)
                .map_err(|error| BatchError::Input(format!("{shown}: this is no CSV with a header line: {error}")))?;
            let typed = inferred.fields().iter().map(|field| {
                let declared =
                    if field.name() == timestamp { Some(Kind::Timestamp) } else { fields.get(field.name()).copied() };
                let data_type = match declared {
                    // CSV knows no types: `00123` stays what it is where a key is text.
                    Some(kind @ (Kind::Int64 | Kind::Float64 | Kind::Boolean)) => kind.data_type(),
                    Some(_) => DataType::Utf8,
                    None => field.data_type().clone(),
                };
                Field::new(field.name(), data_type, true)
            });
            (Arc::new(Schema::new(typed.collect::<Vec<_>>())), rows as u64)
        } else {
            let reader = ParquetRecordBatchReaderBuilder::try_new(open()?).map_err(|error| {
                BatchError::Input(format!("{shown}: this is no whole Parquet file: {error}; a CSV's name ends in .csv"))
            })?;
            let rows = reader.metadata().file_metadata().num_rows();
            (reader.schema().clone(), u64::try_from(rows).unwrap_or(0))
        };
        let source = source_of(timestamp, fields);
        let labels = Labels { path: path.to_owned(), is_csv, schema, rows, source, batch_rows: batch_rows.max(1) };
        let decoder = labels.decoder()?;
        let missing = decoder.missing(&labels.schema);
        if !missing.is_empty() {
            let names: Vec<&str> = labels.schema.fields().iter().map(|field| field.name().as_str()).collect();
            let (missing, names) = (missing.join("`, `"), names.join(", "));
            let hint = if missing.contains(timestamp) { "; name the instant's column with --timestamp" } else { "" };
            return Err(BatchError::Input(format!(
                "{shown}: no column `{missing}`; labels need the join keys, the request data and an instant, and these have {names}{hint}"
            )));
        }
        decoder.check(&labels.schema, &shown.to_string()).map_err(decode_error)?;
        Ok(labels)
    }

    pub fn rows(&self) -> u64 {
        self.rows
    }

    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn decoder(&self) -> Result<ColumnsDecoder, BatchError> {
        ColumnsDecoder::new(&self.source).map_err(decode_error)
    }

    /// All labels from the first on.
    pub fn read(self: Arc<Self>) -> Result<impl Iterator<Item = Result<LabelBatch, BatchError>> + Send, BatchError> {
        let unreadable = |error: &dyn std::fmt::Display| BatchError::unreadable(self.path.display().to_string(), error);
        let file = File::open(&self.path).map_err(|error| unreadable(&error))?;
        let batches: Box<dyn Iterator<Item = Result<RecordBatch, ArrowError>> + Send> = if self.is_csv {
            let reader = ReaderBuilder::new(self.schema.clone()).with_header(true).with_batch_size(self.batch_rows);
            Box::new(reader.build(file).map_err(|error| unreadable(&error))?)
        } else {
            let reader = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| unreadable(&error))?;
            Box::new(reader.with_batch_size(self.batch_rows).build().map_err(|error| unreadable(&error))?)
        };
        let decoder = self.decoder()?;
        let mut first = 0;
        Ok(batches.map(move |batch| {
            let batch = batch.map_err(|error| BatchError::Input(format!("{}: {error}", self.path.display())))?;
            let rows = batch.num_rows() as u64;
            let decoded = self.decode(&decoder, batch, first);
            first += rows;
            decoded
        }))
    }

    fn decode(&self, decoder: &ColumnsDecoder, batch: RecordBatch, first: u64) -> Result<LabelBatch, BatchError> {
        let shown = self.path.display().to_string();
        let decoded = decoder.decode(&batch, &shown).map_err(decode_error)?;
        let wrong = |row: u32, message: &str| {
            BatchError::Input(format!(
                "{shown}: label {}: {message}; correct it or leave it out",
                first + u64::from(row)
            ))
        };
        if let Some(refused) = decoded.refused.first() {
            return Err(wrong(refused.record, &refused.message));
        }
        if let Some(failure) = decoded.cell_failures.first() {
            let name = self.source.columns.get(failure.column as usize).map_or("", |column| &column.name);
            return Err(wrong(failure.row, &format!("column `{name}`: {}", failure.message)));
        }
        let at = decoded.batch.column(0).as_primitive::<TimestampMicrosecondType>();
        Ok(LabelBatch { whole: batch, at_us: at.values().to_vec(), decoded: decoded.batch })
    }
}

impl LabelBatch {
    pub fn len(&self) -> usize {
        self.at_us.len()
    }

    /// A join key or a part of the request data.
    pub fn column(&self, name: &str) -> Result<&ArrayRef, BatchError> {
        self.decoded.column_by_name(name).ok_or_else(|| BatchError::internal(format!("labels without `{name}`")))
    }

    pub fn keys(&self, names: &[String]) -> Result<Keys, BatchError> {
        let columns = names.iter().map(|name| self.column(name).cloned()).collect::<Result<Vec<_>, _>>()?;
        Keys::encode(&columns).map_err(|error| BatchError::Input(error.to_string()))
    }
}

fn source_of(timestamp: &str, fields: &BTreeMap<String, Kind>) -> Source {
    let column = |name: &str, kind: Kind| SourceColumn {
        name: name.to_owned(),
        decode: DecodeAs::Kind(kind),
        stream_path: Vec::new(),
        batch_column: name.to_owned(),
    };
    let others = fields.iter().filter(|(name, _)| *name != timestamp);
    let columns = [column(timestamp, Kind::Timestamp)].into_iter();
    Source {
        name: "labels".to_owned(),
        about: About::default(),
        lineage: "labels".to_owned(),
        push: false,
        batch_path: None,
        event_time: timestamp.to_owned(),
        out_of_orderness_us: 0,
        max_future_us: 0,
        columns: columns.chain(others.map(|(name, kind)| column(name, *kind))).collect(),
        transforms: Vec::new(),
    }
}
