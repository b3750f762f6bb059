//! `onefold generate`: the canonical rows as files, or live.

use crate::canonical::{Canonical, DEFAULT_END_US, Row};
use crate::clock::Clock;
use crate::decode::parse_rfc3339;
use anyhow::{Context, bail};
use arrow::array::{ArrayRef, Float64Array, Int64Array, StringArray, TimestampMicrosecondArray};
use arrow::record_batch::RecordBatch;
use indicatif::{ProgressBar, ProgressStyle};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

const BATCH_ROWS: usize = 65_536;
/// Where live rows go when the URL names only a server.
const EVENTS_PATH: &str = "/v1/projects/ecommerce/sources/transactions/events";

/// Make the canonical rows.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example: onefold generate ecommerce --rows 1000000 --out data --seed 1")]
pub struct GenerateArgs {
    #[command(subcommand)]
    pub workload: Workload,
}

#[derive(Clone, Debug, clap::Subcommand)]
pub enum Workload {
    #[command(after_help = "Example: onefold generate ecommerce --rows 1000000 --out data --seed 1")]
    /// Purchases of an online shop: transactions.jsonl and transactions/ (Parquet), the same rows in both.
    Ecommerce(EcommerceArgs),
}

#[derive(Clone, Debug, clap::Args)]
pub struct EcommerceArgs {
    /// How many rows.
    #[arg(long)]
    pub rows: u64,
    /// Directory to write transactions.jsonl and transactions/part-00000.parquet to.
    #[arg(long, value_name = "DIR", required_unless_present = "push")]
    pub out: Option<PathBuf>,
    /// The same seed makes the same bytes.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// When the 60 days end: RFC 3339 with an offset, or `now` [default: 2026-03-02T00:00:00Z].
    #[arg(long, value_name = "T")]
    pub end: Option<String>,
    /// Share of lines that are broken, 0 to 1; Parquet leaves their rows out.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    pub broken: f64,
    /// How many different customers.
    #[arg(long, default_value_t = 1_000_000)]
    pub customers: u64,
    /// How many different products.
    #[arg(long, default_value_t = 100_000)]
    pub products: u64,
    /// How many different categories.
    #[arg(long, default_value_t = 50)]
    pub categories: u64,
    /// Exponent of the power law by which customers and products are drawn.
    #[arg(long, default_value_t = 1.05)]
    pub exponent: f64,
    /// Send the rows as events of this moment, in place of files: a server (http://127.0.0.1:6566) or a source's events.
    #[arg(long, value_name = "URL", conflicts_with_all = ["out", "end"])]
    pub push: Option<String>,
    /// Rows a second to send.
    #[arg(long, value_name = "ROWS", default_value_t = 1000, requires = "push")]
    pub rate: u64,
}

/// What was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generated {
    pub rows: u64,
    /// Lines among them that are broken.
    pub broken: u64,
}

/// Makes what was asked for. `progress` says whether a person watches.
pub fn generate(args: &GenerateArgs, clock: &dyn Clock, progress: bool) -> anyhow::Result<Generated> {
    let Workload::Ecommerce(args) = &args.workload;
    let shape = args.shape(clock)?;
    let bar = progress_bar(shape.rows, progress);
    let generated = match (&args.push, &args.out) {
        (Some(url), _) => push(&shape, url, args.rate, clock, &bar),
        (None, Some(directory)) => write_files(&shape, directory, &bar),
        (None, None) => bail!("say where the rows go: --out DIR or --push URL"),
    }?;
    bar.finish();
    Ok(generated)
}

impl EcommerceArgs {
    fn shape(&self, clock: &dyn Clock) -> anyhow::Result<Canonical> {
        if !(0.0..=1.0).contains(&self.broken) {
            bail!("--broken {} is no share: write a number from 0 to 1", self.broken);
        }
        if !(0.0..=10.0).contains(&self.exponent) {
            bail!("--exponent {} is out of range: write a number from 0 to 10", self.exponent);
        }
        let end_us = match self.end.as_deref() {
            None => DEFAULT_END_US,
            Some("now") => clock.now_us(),
            Some(text) => match parse_rfc3339(text.as_bytes()) {
                Ok(end_us) => end_us,
                Err(why) => bail!("--end {text} is {why}"),
            },
        };
        Ok(Canonical {
            customers: self.customers.max(1),
            products: self.products.max(1),
            categories: self.categories.max(1),
            exponent: self.exponent,
            end_us,
            broken_share: self.broken,
            ..Canonical::new(self.seed, self.rows)
        })
    }
}

fn write_files(shape: &Canonical, directory: &std::path::Path, bar: &ProgressBar) -> anyhow::Result<Generated> {
    let parquet_directory = directory.join("transactions");
    fs::create_dir_all(&parquet_directory).with_context(|| format!("cannot make {}", parquet_directory.display()))?;
    let lines_path = directory.join("transactions.jsonl");
    let parquet_path = parquet_directory.join("part-00000.parquet");
    let create = |path: &PathBuf| File::create(path).with_context(|| format!("cannot write {}", path.display()));
    let mut lines = BufWriter::with_capacity(1 << 20, create(&lines_path)?);
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        // The version of a library would make the same rows other bytes.
        .set_created_by("onefold".into())
        .build();
    let mut pending = Vec::with_capacity(BATCH_ROWS);
    let mut writer = ArrowWriter::try_new(create(&parquet_path)?, batch_of(&[])?.schema(), Some(properties))?;
    let mut generated = Generated { rows: 0, broken: 0 };
    let mut line = Vec::new();
    for row in shape.rows() {
        line.clear();
        row.write_json(&mut line);
        line.push(b'\n');
        lines.write_all(&line)?;
        generated.rows += 1;
        if row.broken.is_some() {
            generated.broken += 1;
        } else {
            pending.push(row);
        }
        if pending.len() == BATCH_ROWS {
            writer.write(&batch_of(&pending)?)?;
            pending.clear();
            bar.set_position(generated.rows);
        }
    }
    writer.write(&batch_of(&pending)?)?;
    writer.close()?;
    lines.flush()?;
    Ok(generated)
}

fn batch_of(rows: &[Row]) -> anyhow::Result<RecordBatch> {
    let texts =
        |text: fn(&Row) -> String| -> ArrayRef { Arc::new(StringArray::from_iter_values(rows.iter().map(text))) };
    let times = rows.iter().map(|row| row.transaction_date_us);
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("transaction_id", texts(Row::transaction_id)),
        ("transaction_date", Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC"))),
        ("customer_id", texts(Row::customer_id)),
        ("product_id", texts(Row::product_id)),
        ("category", texts(Row::category_name)),
        ("quantity", Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.quantity)))),
        ("unit_price", Arc::new(Float64Array::from_iter_values(rows.iter().map(Row::unit_price)))),
        ("review_rating", Arc::new(Int64Array::from_iter(rows.iter().map(|row| row.review_rating)))),
    ];
    // All nullable, as every column of a source is; else the schema would hang on the rows of the first batch.
    Ok(RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true)))?)
}

/// Sends rows as they would happen: in pieces ten times a second, each row at the time of its sending.
fn push(shape: &Canonical, url: &str, rate: u64, clock: &dyn Clock, bar: &ProgressBar) -> anyhow::Result<Generated> {
    let mut url = url::Url::parse(url).with_context(|| format!("--push {url} is no URL"))?;
    if url.path() == "/" {
        url.set_path(EVENTS_PATH);
    }
    let agent = ureq::Agent::new_with_defaults();
    let mut generated = Generated { rows: 0, broken: 0 };
    let started_us = clock.monotonic_us();
    let mut body = Vec::new();
    let piece = (rate / 10).clamp(1, 10_000);
    for mut row in shape.rows() {
        row.transaction_date_us = clock.now_us().saturating_sub(row.late_us);
        row.write_json(&mut body);
        body.push(b'\n');
        generated.rows += 1;
        generated.broken += u64::from(row.broken.is_some());
        if generated.rows.is_multiple_of(piece) || generated.rows == shape.rows {
            let sent = agent.post(url.as_str()).header("content-type", "application/x-ndjson").send(body.as_slice());
            sent.with_context(|| format!("cannot push to {url}"))?;
            body.clear();
            bar.set_position(generated.rows);
            let due_us = generated.rows.saturating_mul(1_000_000) / rate.max(1);
            let passed_us = clock.monotonic_us().saturating_sub(started_us);
            std::thread::sleep(Duration::from_micros(due_us.saturating_sub(passed_us)));
        }
    }
    Ok(generated)
}

fn progress_bar(rows: u64, watched: bool) -> ProgressBar {
    if !watched {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:30} {human_pos}/{human_len} rows  {per_sec}  {eta} left");
    ProgressBar::new(rows).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use clap::Parser;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        args: GenerateArgs,
    }

    fn files(arguments: &[&str]) -> (Generated, Vec<u8>, Vec<u8>) {
        let directory = tempfile::tempdir().unwrap();
        let out = directory.path().to_str().unwrap();
        let arguments = [&["generate", "ecommerce", "--out", out], arguments].concat();
        let generated = generate(&Command::parse_from(arguments).args, &ManualClock::at(0), false).unwrap();
        let read = |name: &str| fs::read(directory.path().join(name)).unwrap();
        (generated, read("transactions.jsonl"), read("transactions/part-00000.parquet"))
    }

    #[test]
    fn the_same_seed_makes_the_same_files() {
        let arguments = ["--rows", "3000", "--broken", "0.1", "--seed", "5"];
        let first = files(&arguments);
        assert_eq!(first, files(&arguments));
        assert!(first.0.broken > 200 && first.1.split(|byte| *byte == b'\n').count() == 3001);
        let batches =
            parquet::arrow::arrow_reader::ParquetRecordBatchReader::try_new(bytes::Bytes::from(first.2), 10_000);
        let rows: usize = batches.unwrap().map(|batch| batch.unwrap().num_rows()).sum();
        assert_eq!(rows as u64, first.0.rows - first.0.broken);
    }
}
