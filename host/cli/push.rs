//! `onefold push`: a file's events, in pieces that can be sent again.

use super::client::{Answer, Reach};
use super::progress::events_spinner;
use super::{Failure, Global, note, print};
use crate::decode::ColumnsDecoder;
use crate::define::{DecodeAs, Source};
use crate::serve::values::{Int64As, to_json};
use anyhow::Context;
use arrow::array::{Array, AsArray};
use arrow::datatypes::TimestampMicrosecondType;
use arrow::ipc::reader::FileReader;
use arrow::record_batch::RecordBatch;
use indicatif::ProgressBar;
use onefold_fold::Kind;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde::Serialize;
use serde_json::{Value, json, value::RawValue};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// Send a file's events to a source's stream.
#[derive(clap::Args)]
#[command(after_help = "Example: onefold push transactions data/transactions.jsonl")]
pub struct PushArgs {
    /// The source that takes them.
    source: String,
    /// One JSON event a line (also `-`: standard input), or Parquet (*.parquet), or an Arrow file (*.arrow).
    file: PathBuf,
}

/// Enough that a sync of the log is shared by many, few enough that progress is seen.
const PIECE_LINES: usize = 5000;
const PIECE_BYTES: usize = 8 << 20;
/// A server that is busy for longer than this is to be looked at.
const ATTEMPTS: u32 = 120;
const SHOWN_ERRORS: usize = 20;

pub fn run(args: &PushArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let reach = Reach::open(global, "onefold push")?;
    let path = reach.path(&["sources", &args.source, "events"])?;
    let mut sender = Sender {
        reach: &reach,
        path,
        // Unique to this run: the same file pushed twice is meant twice, a piece sent twice is not.
        key: format!("push-{}-{}", std::process::id(), global.clock.now_us()),
        bar: events_spinner(global.progress && !global.json),
        pieces: 0,
        lines: 0,
        piece: Vec::new(),
        piece_lines: 0,
        done: Done::default(),
    };
    match args.file.extension().and_then(|extension| extension.to_str()) {
        Some("parquet") => sender.columns(args, parquet_batches(&args.file)?)?,
        Some("arrow" | "feather") => sender.columns(args, arrow_batches(&args.file)?)?,
        _ => sender.text(&args.file)?,
    }
    sender.flush()?;
    sender.bar.finish_and_clear();
    let done = sender.done;
    if global.json {
        let errors: Vec<Value> =
            done.errors.iter().map(|(line, reason)| json!({ "line": line, "reason": reason })).collect();
        print(
            &json!({ "accepted": done.accepted, "dead_lettered": done.dead_lettered, "broken": done.broken, "position": done.position, "errors": errors })
                .to_string(),
        )?;
    } else {
        for (line, reason) in &done.errors {
            note(&format!("line {line}: {reason}"));
        }
        let broken = match done.broken {
            0 => String::new(),
            rows => format!(" ({rows} of them broken in a column)"),
        };
        print(&format!("{} accepted{broken}, {} dead-lettered", done.accepted, done.dead_lettered))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What the answers add up to.
#[derive(Default)]
struct Done {
    accepted: u64,
    dead_lettered: u64,
    /// Accepted with a column that could not be decoded.
    broken: u64,
    position: u64,
    /// Line of the file, reason.
    errors: Vec<(u64, String)>,
}

struct Sender<'a> {
    reach: &'a Reach,
    path: String,
    key: String,
    bar: ProgressBar,
    pieces: u64,
    /// Lines of the file before the piece.
    lines: u64,
    piece: Vec<u8>,
    piece_lines: usize,
    done: Done,
}

impl Sender<'_> {
    fn text(&mut self, file: &Path) -> anyhow::Result<()> {
        let mut reader: Box<dyn BufRead> = match file.to_str() {
            Some("-") => Box::new(std::io::stdin().lock()),
            _ => Box::new(BufReader::with_capacity(1 << 20, open(file)?)),
        };
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).with_context(|| format!("cannot read {}", file.display()))? > 0 {
            if line.last() != Some(&b'\n') {
                line.push(b'\n');
            }
            self.line(&line)?;
            line.clear();
        }
        Ok(())
    }

    /// Rows of columns as the events that the source would have got.
    fn columns(
        &mut self,
        args: &PushArgs,
        batches: impl Iterator<Item = anyhow::Result<RecordBatch>>,
    ) -> anyhow::Result<()> {
        let told = self.reach.get(&self.reach.path(&["sources", &args.source])?)?;
        let source: Source = serde_json::from_value(told).context("the server's source cannot be read")?;
        let decoder = ColumnsDecoder::new(&source)?;
        let shown = args.file.display().to_string();
        let mut left_out = 0;
        for batch in batches {
            let decoded = decoder.decode(&batch?, &shown).map_err(|error| Failure::Input(error.to_string()))?;
            left_out += decoded.refused.len() + decoded.cell_failures.len();
            for row in 0..decoded.batch.num_rows() {
                let mut event = Node::Object(BTreeMap::new());
                for (column, values) in source.columns.iter().zip(decoded.batch.columns()) {
                    if values.is_valid(row) {
                        put(&mut event, &column.stream_path, event_value(column.decode, values, row)?);
                    }
                }
                let mut line = serde_json::to_vec(&event)?;
                // Between the parts of JSON a line feed is a space; within text it cannot stand.
                line.iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r')).for_each(|byte| *byte = b' ');
                line.push(b'\n');
                self.line(&line)?;
            }
        }
        if left_out > 0 {
            note(&format!("{left_out} rows or values of {shown} do not fit the source and were left out"));
        }
        Ok(())
    }

    fn line(&mut self, line: &[u8]) -> anyhow::Result<()> {
        if self.piece_lines == PIECE_LINES || (self.piece_lines > 0 && self.piece.len() + line.len() > PIECE_BYTES) {
            self.flush()?;
        }
        self.piece.extend_from_slice(line);
        self.piece_lines += 1;
        Ok(())
    }

    /// Sends the piece, again and again while the server asks for patience.
    fn flush(&mut self) -> anyhow::Result<()> {
        let piece = std::mem::take(&mut self.piece);
        let lines = std::mem::take(&mut self.piece_lines);
        if !piece.iter().all(u8::is_ascii_whitespace) {
            let key = format!("{}-{}", self.key, self.pieces);
            let told = self.send(&key, &piece)?.json()?;
            self.done.accepted += told["accepted"].as_u64().unwrap_or(0);
            self.done.dead_lettered += told["dead_lettered"].as_u64().unwrap_or(0);
            self.done.broken += told["broken"].as_u64().unwrap_or(0);
            self.done.position = told["position"].as_u64().unwrap_or(self.done.position);
            for error in told["errors"].as_array().into_iter().flatten() {
                if self.done.errors.len() < SHOWN_ERRORS {
                    let line = self.lines + error["line"].as_u64().unwrap_or(0);
                    self.done.errors.push((line, error["reason"].as_str().unwrap_or_default().to_owned()));
                }
            }
        }
        self.pieces += 1;
        self.lines += u64::try_from(lines).unwrap_or(0);
        self.bar.set_position(self.lines);
        Ok(())
    }

    fn send(&self, key: &str, piece: &[u8]) -> anyhow::Result<Answer> {
        let headers = [("content-type", "application/x-ndjson"), ("idempotency-key", key)];
        let mut attempt = 0;
        loop {
            attempt += 1;
            let sent = self.reach.send("POST", &self.path, &headers, piece.to_vec());
            let wait_seconds = match &sent {
                Ok(answer) if answer.status == 503 => answer.retry_after.unwrap_or(1),
                // The key makes it safe to send again what may have arrived.
                Err(_) => 1,
                Ok(_) => return sent,
            };
            if attempt >= ATTEMPTS {
                return sent;
            }
            std::thread::sleep(Duration::from_secs(wait_seconds.clamp(1, 30)));
        }
    }
}

/// The value as the source's stream would carry it.
fn event_value(decode: DecodeAs, values: &dyn Array, row: usize) -> anyhow::Result<Box<RawValue>> {
    let in_units = |per_unit: i64| {
        let us = values.as_primitive::<TimestampMicrosecondType>().value(row);
        let (whole, rest) = (us.div_euclid(per_unit), us.rem_euclid(per_unit));
        let digits = per_unit.ilog10() as usize;
        match rest {
            0 => whole.to_string(),
            // Whole units and the rest point the same way only from the epoch on.
            _ if us >= 0 => format!("{whole}.{rest:0digits$}"),
            _ => format!("-{}.{:0digits$}", -(whole + 1), per_unit - rest),
        }
    };
    let text = match decode {
        DecodeAs::Json => values.as_string::<i32>().value(row).to_owned(),
        DecodeAs::TimestampSeconds => in_units(1_000_000),
        DecodeAs::TimestampMillis => in_units(1000),
        DecodeAs::TimestampMicros => in_units(1),
        DecodeAs::Kind(Kind::Boolean | Kind::Int64 | Kind::Float64 | Kind::Timestamp | Kind::Utf8 | Kind::Binary)
        | DecodeAs::Kind(Kind::Int64List | Kind::Float32List | Kind::Float64List | Kind::Utf8List) => {
            to_json(values, row, Int64As::Number).to_string()
        }
    };
    RawValue::from_string(text).context("a value of type json is no JSON")
}

/// An event under way: values keep the text they have.
#[derive(Serialize)]
#[serde(untagged)]
enum Node {
    Value(Box<RawValue>),
    Object(BTreeMap<String, Node>),
}

/// Puts a value at its path in an event; an empty path is the whole event.
fn put(event: &mut Node, path: &[String], value: Box<RawValue>) {
    match (path.split_first(), event) {
        (None, event) => *event = Node::Value(value),
        (Some((part, rest)), Node::Object(members)) => {
            put(members.entry(part.clone()).or_insert_with(|| Node::Object(BTreeMap::new())), rest, value);
        }
        // The whole, which was put here before, has this part in it.
        (Some(_), Node::Value(_)) => {}
    }
}

type Batches = Box<dyn Iterator<Item = anyhow::Result<RecordBatch>>>;

fn parquet_batches(file: &Path) -> anyhow::Result<Batches> {
    let wrong = |error: &dyn std::fmt::Display| Failure::Input(format!("{} is no Parquet: {error}", file.display()));
    let reader = ParquetRecordBatchReaderBuilder::try_new(open(file)?).map_err(|error| wrong(&error))?;
    let reader = reader.with_batch_size(PIECE_LINES).build().map_err(|error| wrong(&error))?;
    Ok(Box::new(reader.map(|batch| Ok(batch?))))
}

fn arrow_batches(file: &Path) -> anyhow::Result<Batches> {
    let wrong =
        |error: arrow::error::ArrowError| Failure::Input(format!("{} is no Arrow file: {error}", file.display()));
    let reader = FileReader::try_new_buffered(open(file)?, None).map_err(wrong)?;
    Ok(Box::new(reader.map(|batch| Ok(batch?))))
}

fn open(file: &Path) -> Result<File, Failure> {
    File::open(file).map_err(|error| Failure::Input(format!("cannot read {}: {error}", file.display())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::TimestampMicrosecondArray;

    #[test]
    fn times_before_and_after_the_epoch_keep_their_microseconds() {
        let times = TimestampMicrosecondArray::from(vec![1_500_001, -1_500_000, -1, 2_000_000]).with_timezone("UTC");
        let text = |decode, row| event_value(decode, &times, row).unwrap().get().to_owned();
        assert_eq!(text(DecodeAs::TimestampSeconds, 0), "1.500001");
        assert_eq!(text(DecodeAs::TimestampSeconds, 1), "-1.500000");
        assert_eq!(text(DecodeAs::TimestampSeconds, 2), "-0.000001");
        assert_eq!(text(DecodeAs::TimestampMillis, 3), "2000");
        assert_eq!(text(DecodeAs::Kind(Kind::Timestamp), 2), "\"1969-12-31T23:59:59.999999Z\"");
    }

    #[test]
    fn a_nested_column_goes_back_to_where_it_was() {
        let mut event = Node::Object(BTreeMap::new());
        let raw = |text: &str| RawValue::from_string(text.to_owned()).unwrap();
        put(&mut event, &["order".to_owned(), "price".to_owned()], raw("1.50"));
        put(&mut event, &["order".to_owned(), "count".to_owned()], raw("2"));
        assert_eq!(serde_json::to_string(&event).unwrap(), r#"{"order":{"count":2,"price":1.50}}"#);
        put(&mut event, &[], raw(r#"{"order": 1}"#));
        put(&mut event, &["order".to_owned()], raw("2"));
        assert_eq!(serde_json::to_string(&event).unwrap(), r#"{"order": 1}"#);
    }
}
