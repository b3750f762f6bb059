//! Data to draft from: lines of JSON, or Parquet files.

use super::fields::{Fields, Leaf, Seen};
use super::guess::is_time_name;
use super::{Column, DraftError, column_name, counted};
use crate::batch::{BatchError, first_rows, list_files};
use crate::decode::{column_as, natural_kind};
use crate::serve::values::{Int64As, to_json};
use onefold_fold::Kind;
use serde_json::{Map, Value};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

/// Rows that types are read from: the first.
const MOST_ROWS: u64 = 100_000;
const MOST_BYTES: u64 = 256 << 20;
/// As large as a push may be.
const LONGEST_LINE: u64 = 64 << 20;
/// Rows that are kept for the test.
const KEPT_ROWS: usize = 1000;
/// More columns than a person would read; the others are left out.
const MOST_COLUMNS: usize = 500;
/// Broken lines that are told.
const BROKEN_SHOWN: usize = 3;

/// What was read.
#[derive(Clone, Debug, Default)]
pub struct Data {
    pub columns: Vec<Column>,
    /// Fields that are no columns, with the reason.
    pub left_out: Vec<(String, String)>,
    /// Rows that were looked at.
    pub rows: u64,
    /// There were more.
    pub more: bool,
    /// Lines that are no JSON object.
    pub broken: u64,
    /// The first of them: line, reason.
    pub broken_lines: Vec<(u64, String)>,
    /// The first rows, as the data have them.
    pub first: Vec<Map<String, Value>>,
    /// Absolute, where the data are Parquet.
    pub files: Option<PathBuf>,
}

/// Reads a file of events, one JSON object a line, or Parquet: a file or a directory.
pub fn read(path: &Path) -> Result<Data, DraftError> {
    let shown = path.display().to_string();
    let ask = |message: String| DraftError::Ask(format!("{shown}: {message}"));
    if shown.contains("://") {
        return Err(ask("only files and directories of this machine can be read in this version".to_owned()));
    }
    let meta = std::fs::metadata(path).map_err(|error| ask(error.to_string()))?;
    if meta.is_dir() {
        return parquet(path);
    }
    let mut file = File::open(path).map_err(|error| ask(error.to_string()))?;
    let mut magic = Vec::new();
    file.by_ref().take(4).read_to_end(&mut magic).map_err(|error| ask(error.to_string()))?;
    if magic.is_empty() {
        return Err(ask("the file is empty: write one JSON object a line".to_owned()));
    }
    let is_parquet = magic == b"PAR1" || path.extension().is_some_and(|extension| extension == "parquet");
    if is_parquet {
        return parquet(path);
    }
    if magic.starts_with(&[0x1f, 0x8b]) || magic == [0x28, 0xb5, 0x2f, 0xfd] {
        return Err(ask("the file is compressed: unpack it first".to_owned()));
    }
    if path.extension().is_some_and(|extension| ["csv", "tsv"].iter().any(|text| extension.eq_ignore_ascii_case(text)))
    {
        return Err(ask("text in columns is not read: write one JSON object a line, or Parquet".to_owned()));
    }
    let file = File::open(path).map_err(|error| ask(error.to_string()))?;
    lines(BufReader::with_capacity(1 << 20, file), &shown)
}

fn lines(mut reader: impl BufRead, shown: &str) -> Result<Data, DraftError> {
    let ask = |message: String| DraftError::Ask(format!("{shown}: {message}"));
    let (mut data, mut fields) = (Data::default(), Fields::default());
    let (mut line, mut number, mut bytes) = (Vec::new(), 0, 0);
    loop {
        line.clear();
        let read = reader.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line);
        let read = read.map_err(|error| ask(error.to_string()))? as u64;
        if read == 0 {
            break;
        }
        number += 1;
        if read == LONGEST_LINE && line.last() != Some(&b'\n') {
            return Err(ask(format!("line {number} is longer than {LONGEST_LINE} bytes: write one event a line")));
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        if data.rows >= MOST_ROWS || bytes >= MOST_BYTES {
            data.more = true;
            break;
        }
        bytes += read;
        match serde_json::from_slice::<Map<String, Value>>(&line) {
            Ok(row) => {
                data.rows += 1;
                fields.add(&row);
                if data.first.len() < KEPT_ROWS {
                    data.first.push(row);
                }
            }
            Err(_) if data.rows == 0 && data.broken == 0 && line.trim_ascii_start().first() == Some(&b'[') => {
                return Err(ask("it begins a JSON array: write one event a line (`jq -c '.[]' FILE`)".to_owned()));
            }
            Err(error) => {
                data.broken += 1;
                if data.broken_lines.len() < BROKEN_SHOWN {
                    // The place that the parser names is within the line: `line 1` would be read as the file's.
                    let text = error.to_string();
                    let reason = text.split(" at line ").next().unwrap_or_default();
                    data.broken_lines.push((number, format!("{reason} (column {})", error.column())));
                }
            }
        }
    }
    if data.rows == 0 {
        let first = data.broken_lines.first();
        let first = first.map(|(line, reason)| format!("; line {line}: {reason}")).unwrap_or_default();
        return Err(ask(format!("no line of it is a JSON object: write one event a line{first}")));
    }
    let leaves = fields.leaves();
    for Leaf { path, seen, is_whole_object } in leaves {
        let declared = match (path_error(&path), seen.declared()) {
            (Some(reason), _) => Err(reason),
            (None, declared) => declared,
        };
        let note = match declared {
            Ok("json") if is_whole_object => Some("an object whose keys are data: its text".to_owned()),
            Ok("json") if seen.lists == seen.present => {
                Some("lists of several kinds, or of objects: their text".to_owned())
            }
            Ok("json") => Some("values of several kinds: its text".to_owned()),
            Ok("float64") if seen.wide > 0 => Some("some whole numbers are beyond 64 bits: rounded".to_owned()),
            Ok(_) => seen.odd().map(|odd| {
                let values = counted(odd.count, "value");
                format!(
                    "{values} of {} of another kind, as {}: dead letters of what uses it",
                    seen.present, odd.example
                )
            }),
            Err(_) => None,
        };
        add_column(&mut data, path, seen, declared, None, note);
    }
    Ok(data)
}

/// Why a path into an event cannot be written.
fn path_error(path: &[String]) -> Option<&'static str> {
    let is_odd =
        |part: &String| part.is_empty() || part.contains(['.', '[', ']', '*', '"']) || part.contains(char::is_control);
    path.iter().any(is_odd).then_some("its name has characters that no path into an event can hold")
}

fn add_column(
    data: &mut Data,
    path: Vec<String>,
    seen: &Seen,
    declared: Result<&'static str, &'static str>,
    batch: Option<String>,
    note: Option<String>,
) {
    let shown = path.join(".");
    let declared = match declared {
        Ok(_) if data.columns.len() >= MOST_COLUMNS => Err("there are many columns: declare it if you need it"),
        other => other,
    };
    match declared {
        Err(reason) => data.left_out.push((shown, reason.to_owned())),
        Ok(type_name) => {
            let name = column_name(&path, |name| data.columns.iter().any(|column| column.name == name));
            let is_time = type_name == "int64" && is_time_name(&name);
            let type_name = seen.epoch().filter(|_| is_time).unwrap_or(type_name);
            let odd = seen.odd().filter(|_| batch.is_none()).map_or(0, |odd| odd.count);
            data.columns.push(Column { name, type_name, path, batch, note, odd, seen: seen.clone() });
        }
    }
}

fn parquet(path: &Path) -> Result<Data, DraftError> {
    let shown = path.display().to_string();
    let files = list_files(&shown).map_err(batch_error)?;
    let total: u64 = files.iter().map(|file| file.rows).sum();
    if total == 0 {
        return Err(DraftError::Ask(format!("{shown}: the files hold no row")));
    }
    let read = first_rows(&shown, None, usize::try_from(MOST_ROWS).unwrap_or(usize::MAX)).map_err(batch_error)?;
    let files = std::fs::canonicalize(path).map_err(|error| DraftError::Ask(format!("{shown}: {error}")))?;
    let mut data = Data { files: Some(files.clone()), ..Data::default() };
    let (mut fields, mut kinds) = (Fields::default(), Vec::<(String, Option<Kind>)>::new());
    for (file, batch) in read {
        if kinds.is_empty() {
            let schema = batch.schema();
            kinds =
                schema.fields().iter().map(|field| (field.name().clone(), natural_kind(field.data_type()))).collect();
            let below = file.path.strip_prefix(&*files.to_string_lossy()).unwrap_or_default().to_owned();
            for part in below.split('/').filter_map(|part| part.split_once('=')) {
                data.left_out.push((part.0.to_owned(), "a column of the path: declare it if you need it".to_owned()));
            }
        }
        let mut columns = Vec::new();
        for (name, kind) in &kinds {
            let (Some(kind), Some(column)) = (kind, batch.column_by_name(name)) else { continue };
            let column = column_as(column, *kind).map_err(|_| {
                let message = "has another type than in the first file: write the files alike";
                DraftError::Ask(format!("{}: column `{name}` {message}", file.path))
            })?;
            columns.push((name, column));
        }
        for row in 0..batch.num_rows() {
            let value = |(name, column): &(&String, arrow::array::ArrayRef)| {
                ((*name).clone(), to_json(column, row, Int64As::Number))
            };
            let row: Map<String, Value> = columns.iter().map(value).collect();
            fields.add(&row);
            if data.first.len() < KEPT_ROWS {
                data.first.push(row);
            }
        }
    }
    data.rows = fields.rows;
    data.more = fields.rows < total;
    let empty = Seen::default();
    let seen = fields.leaves();
    for (name, kind) in kinds {
        let seen = seen.iter().find(|leaf| leaf.path == [name.clone()]).map_or(&empty, |leaf| leaf.seen);
        let declared = match kind {
            None => Err(
                "its type is none that a column can be declared as; the fields of a struct have to be columns of their own",
            ),
            Some(Kind::Utf8) if seen.present > 0 && seen.times == seen.present => Ok("timestamp"),
            Some(kind) => Ok(kind.name()),
        };
        add_column(&mut data, vec![name.clone()], seen, declared, Some(name), None);
    }
    Ok(data)
}

fn batch_error(error: BatchError) -> DraftError {
    match error {
        BatchError::Input(_) | BatchError::Unreadable { .. } | BatchError::Changed { .. } => {
            DraftError::Ask(error.to_string())
        }
        other => DraftError::Failed(other.to_string()),
    }
}
