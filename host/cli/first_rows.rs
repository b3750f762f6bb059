//! The first rows of a Parquet file as a table: what a person looks at before using it.

use super::table::Table;
use anyhow::Context;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use std::fs::File;
use std::path::Path;

/// The first `rows` rows with all columns, nulls as `-`.
pub fn first_rows(path: &Path, rows: usize) -> anyhow::Result<String> {
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let reader = ParquetRecordBatchReaderBuilder::try_new(file)?;
    let columns: Vec<String> = reader.schema().fields().iter().map(|field| field.name().clone()).collect();
    let mut table = Table::new(&columns.iter().map(String::as_str).collect::<Vec<_>>());
    let options = FormatOptions::new().with_null("-");
    for batch in reader.with_limit(rows).build()? {
        let batch = batch?;
        let formatters = batch.columns().iter().map(|column| ArrayFormatter::try_new(column.as_ref(), &options));
        let formatters = formatters.collect::<Result<Vec<_>, _>>()?;
        for row in 0..batch.num_rows() {
            table.row(formatters.iter().map(|formatter| formatter.value(row).to_string()));
        }
    }
    Ok(table.text())
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Float64Array, StringArray};
    use arrow::record_batch::RecordBatch;
    use parquet::arrow::ArrowWriter;
    use std::sync::Arc;

    #[test]
    fn shows_names_values_and_nulls_of_the_first_rows_only() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("some.parquet");
        let keys: ArrayRef = Arc::new(StringArray::from(vec!["p1", "p2", "p3"]));
        let values: ArrayRef = Arc::new(Float64Array::from(vec![Some(1.5), None, Some(3.0)]));
        let batch = RecordBatch::try_from_iter([("product_id", keys), ("revenue", values)]).unwrap();
        let mut writer = ArrowWriter::try_new(File::create(&path).unwrap(), batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        assert_eq!(first_rows(&path, 2).unwrap(), "product_id  revenue\np1          1.5\np2          -");
    }
}
