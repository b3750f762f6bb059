//! JSON events to a batch: one pass over the bytes, straight into columns.
//!
//! The floor is one look at each byte. So a key is not parsed but guessed: the one that followed the last key in the
//! event before, compared at once with its quotes. Only a wrong guess is looked up.

use super::builder::{Builder, Values, offset};
use super::cell::{self, Outcome, above_limit_text};
use super::scan::{Broken, Cursor, Text, unescape};
use super::{CellFailure, DecodeError, Decoded, Refused, VALUE_LIMIT_BYTES};
use crate::define::{DecodeAs, Source};
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use std::sync::Arc;

/// The bytes of one batch: every column's offsets are 32 bits and no column is longer than its events.
const BATCH_LIMIT_BYTES: usize = i32::MAX as usize;

/// Keys that no column declares are guessed too, up to so many an object: outside data must not make us grow.
const UNKNOWN_KEYS: usize = 64;
const UNKNOWN_KEY_BYTES: usize = 64;

/// Decodes the events of one source. It may be used for any number of batches; none depends on those before.
pub struct JsonDecoder {
    schema: SchemaRef,
    columns: Vec<Column>,
    event_time: usize,
    /// Columns that are the whole event.
    whole: Vec<usize>,
    /// The objects on the way to declared columns; the first is the event.
    nodes: Vec<Node>,
    /// Number of the event being read, over all batches: marks the keys seen in it.
    event: u64,
    failures: Vec<CellFailure>,
}

struct Column {
    name: String,
    decode: DecodeAs,
    builder: Builder,
}

/// An object: the keys that lead to columns first, then unknown ones met on the way.
#[derive(Default)]
struct Node {
    keys: Vec<Key>,
    unknown: usize,
    /// The key that an object of this kind began with last time.
    first: usize,
    /// Numbers of the keys, by name.
    sorted: Vec<usize>,
}

struct Key {
    name: Vec<u8>,
    /// With quotes, as most write it; empty when it cannot be written without escapes.
    quoted: Vec<u8>,
    /// The key that followed this one last time.
    next: usize,
    /// The event in which it was last met.
    seen: u64,
    target: Target,
}

#[derive(Clone)]
enum Target {
    Ignored,
    Column(usize),
    /// Columns that take this part as a whole, and the object below it.
    Several {
        columns: Vec<usize>,
        node: Option<usize>,
    },
}

impl JsonDecoder {
    pub fn new(source: &Source) -> Result<JsonDecoder, DecodeError> {
        let event_time = event_time_column(source)?;
        let columns = source.columns.iter().map(|column| Column {
            name: column.name.clone(),
            decode: column.decode,
            builder: Builder::new(column.decode.kind()),
        });
        let mut nodes = vec![Node::default()];
        let mut whole = Vec::new();
        for (number, column) in source.columns.iter().enumerate() {
            match column.stream_path.split_last() {
                None => whole.push(number),
                Some((last, way)) => {
                    let node = way.iter().fold(0, |node, name| child_of(&mut nodes, node, name.as_bytes()));
                    let key = key_of(&mut nodes, node, last.as_bytes());
                    let target = &mut nodes[node].keys[key].target;
                    match target {
                        Target::Several { columns, .. } => columns.push(number),
                        Target::Ignored => *target = Target::Column(number),
                        Target::Column(other) => {
                            *target = Target::Several { columns: vec![*other, number], node: None };
                        }
                    }
                }
            }
        }
        for node in &mut nodes {
            node.guess_declared_order();
        }
        let (schema, columns) = (schema_of(source), columns.collect());
        Ok(JsonDecoder { schema, columns, event_time, whole, nodes, event: 0, failures: Vec::new() })
    }

    /// Decodes events, each one JSON object, white space around it allowed. At most 2 GiB of them at once.
    pub fn decode<'a>(&mut self, records: impl IntoIterator<Item = &'a [u8]>) -> Result<Decoded, DecodeError> {
        let mut rows = Vec::new();
        let mut refused = Vec::new();
        let mut bytes = 0;
        for (count, record) in (0u32..).zip(records) {
            bytes += record.len();
            if bytes > BATCH_LIMIT_BYTES || count == u32::MAX - 1 {
                self.columns.iter_mut().for_each(|column| column.builder.truncate(0));
                self.failures.clear();
                return Err(DecodeError::TooLarge { records: count as usize + 1, bytes, limit: BATCH_LIMIT_BYTES });
            }
            let row = u32::try_from(rows.len()).unwrap_or(u32::MAX);
            let failures = self.failures.len();
            match self.decode_event(record, row) {
                Ok(()) => rows.push(count),
                Err(message) => {
                    self.columns.iter_mut().for_each(|column| column.builder.truncate(row));
                    self.failures.truncate(failures);
                    refused.push(Refused { record: count, message });
                }
            }
        }
        let arrays = self.columns.iter_mut().map(|column| column.builder.finish()).collect::<Result<Vec<_>, _>>()?;
        let options = arrow::record_batch::RecordBatchOptions::new().with_row_count(Some(rows.len()));
        let batch = RecordBatch::try_new_with_options(self.schema.clone(), arrays, &options)?;
        Ok(Decoded { batch, records: rows, refused, cell_failures: std::mem::take(&mut self.failures) })
    }

    fn decode_event(&mut self, record: &[u8], row: u32) -> Result<(), String> {
        if let Err(error) = std::str::from_utf8(record) {
            return Err(format!("the text is not UTF-8 at byte {}", error.valid_up_to()));
        }
        self.event += 1;
        let mut cursor = Cursor::new(record);
        self.read_event(&mut cursor, row)
            .map_err(|broken| format!("the text is no JSON object: {} (byte {})", broken.why, broken.at))?;
        for column in &mut self.columns {
            if column.builder.rows() == row {
                column.builder.push_null();
            }
        }
        let time = &self.columns[self.event_time];
        if !time.builder.last_is_null() {
            return Ok(());
        }
        let failure = self.failures.iter().rev().take_while(|failure| failure.row == row);
        let failure = failure.into_iter().find(|failure| failure.column as usize == self.event_time);
        Err(match failure {
            Some(failure) => format!("event_time `{}`: {}", time.name, failure.message),
            None => format!("event_time `{}` is missing or null; every event needs one", time.name),
        })
    }

    fn read_event(&mut self, cursor: &mut Cursor, row: u32) -> Result<(), Broken> {
        if cursor.skip_space() != Some(b'{') {
            return Err(cursor.broken("it must begin with {"));
        }
        let start = cursor.at;
        self.read_object(cursor, 0, row, 1)?;
        let end = cursor.at;
        if cursor.skip_space().is_some() {
            return Err(cursor.broken("more text after the object"));
        }
        for at in 0..self.whole.len() {
            self.take_whole(self.whole[at], cursor.bytes.get(start..end).unwrap_or_default(), row);
        }
        Ok(())
    }

    fn take_whole(&mut self, number: usize, event: &[u8], row: u32) {
        let Column { decode, builder, .. } = &mut self.columns[number];
        match &mut builder.values {
            Values::Utf8 { ends, data } if *decode == DecodeAs::Json && event.len() <= VALUE_LIMIT_BYTES => {
                data.extend_from_slice(event);
                ends.push(offset(data.len()));
                builder.pushed();
            }
            _ if *decode == DecodeAs::Json => self.fail(number, row, above_limit_text(event.len())),
            _ => self.fail(number, row, "the whole event is an object: only type json can take it".to_owned()),
        }
    }

    /// Reads the object at the cursor's `{`; `depth` counts it and those around it.
    fn read_object(&mut self, cursor: &mut Cursor, node: usize, row: u32, depth: u32) -> Result<(), Broken> {
        cursor.at += 1;
        if cursor.skip_space() == Some(b'}') {
            cursor.at += 1;
            return Ok(());
        }
        let mut previous = None;
        loop {
            cursor.skip_space();
            let Node { keys, first, .. } = &mut self.nodes[node];
            let guess = previous.map_or(*first, |key: usize| keys[key].next);
            let guessed = keys.get(guess).filter(|key| !key.quoted.is_empty() && cursor.take(&key.quoted)).is_some();
            let key = if guessed { Some(guess) } else { self.look_up(cursor, node, previous)? };
            cursor.colon()?;
            match key {
                Some(key) => self.read_value(cursor, node, key, row, depth)?,
                None => {
                    cursor.skip_value(depth)?;
                }
            }
            match cursor.skip_space() {
                Some(b',') => cursor.at += 1,
                Some(b'}') => {
                    cursor.at += 1;
                    return Ok(());
                }
                _ => return Err(cursor.broken("expected a comma or }")),
            }
            previous = key.or(previous);
        }
    }

    /// The key at the cursor, by its name; from now on it is the guess after `previous`.
    #[cold]
    fn look_up(&mut self, cursor: &mut Cursor, node: usize, previous: Option<usize>) -> Result<Option<usize>, Broken> {
        let text = cursor.key()?;
        let node = &mut self.nodes[node];
        let found = node.find(&text);
        if let Some(found) = found {
            match previous {
                Some(previous) => node.keys[previous].next = found,
                None => node.first = found,
            }
        }
        Ok(found)
    }

    #[inline]
    fn read_value(&mut self, cursor: &mut Cursor, node: usize, key: usize, row: u32, depth: u32) -> Result<(), Broken> {
        let Key { seen, target, .. } = &mut self.nodes[node].keys[key];
        let again = std::mem::replace(seen, self.event) == self.event;
        match target {
            Target::Column(number) if !again => {
                let number = *number;
                let Column { decode, builder, .. } = &mut self.columns[number];
                if let Outcome::Failed(why) = cell::decode(cursor, *decode, builder, depth)? {
                    self.fail(number, row, why);
                }
                Ok(())
            }
            Target::Ignored => cursor.skip_value(depth).map(|_| ()),
            Target::Several { columns, node: Some(below) }
                if !again && columns.is_empty() && cursor.skip_space() == Some(b'{') =>
            {
                let below = *below;
                self.read_object(cursor, below, row, depth + 1)
            }
            _ => self.read_several(cursor, node, key, row, depth, again),
        }
    }

    /// A part that more than one column wants, or that was there before.
    fn read_several(
        &mut self,
        cursor: &mut Cursor,
        node: usize,
        key: usize,
        row: u32,
        depth: u32,
        again: bool,
    ) -> Result<(), Broken> {
        let raw = cursor.skip_value(depth)?;
        let Key { name, target, .. } = &self.nodes[node].keys[key];
        let target = target.clone();
        if again {
            let why = format!("`{}` is there twice: send it once", super::excerpt(name));
            self.fail_all(&target, row, &why);
            return Ok(());
        }
        let Target::Several { columns, node: below } = target else { return Ok(()) };
        for number in columns {
            let Column { decode, builder, .. } = &mut self.columns[number];
            if let Outcome::Failed(why) = cell::decode(&mut Cursor::new(raw), *decode, builder, depth)? {
                self.fail(number, row, why);
            }
        }
        match (below, raw.first()) {
            (None, _) | (_, Some(b'n')) => Ok(()),
            (Some(below), Some(b'{')) => self.read_object(&mut Cursor::new(raw), below, row, depth + 1),
            (Some(below), _) => {
                let name = &self.nodes[node].keys[key].name;
                let why = format!("`{}` is no object: this column stands inside it", super::excerpt(name));
                self.fail_all(&Target::Several { columns: Vec::new(), node: Some(below) }, row, &why);
                Ok(())
            }
        }
    }

    /// Fails every column at or below a target, whatever they hold by now.
    fn fail_all(&mut self, target: &Target, row: u32, why: &str) {
        match target {
            Target::Ignored => {}
            Target::Column(number) => self.fail(*number, row, why.to_owned()),
            Target::Several { columns, node } => {
                for number in columns {
                    self.fail(*number, row, why.to_owned());
                }
                let below = node.iter().flat_map(|node| &self.nodes[*node].keys).map(|key| key.target.clone());
                for target in below.collect::<Vec<_>>() {
                    self.fail_all(&target, row, why);
                }
            }
        }
    }

    #[cold]
    fn fail(&mut self, number: usize, row: u32, message: String) {
        let column = u32::try_from(number).unwrap_or(u32::MAX);
        let earlier = self.failures.iter().rposition(|failure| failure.row == row && failure.column == column);
        let builder = &mut self.columns[number].builder;
        builder.truncate(row);
        builder.push_null();
        match earlier {
            Some(earlier) => self.failures[earlier].message = message,
            None => self.failures.push(CellFailure { row, column, message }),
        }
    }
}

impl Node {
    fn find(&mut self, text: &Text) -> Option<usize> {
        let mut plain = Vec::new();
        let name = if text.has_escapes {
            // A key with half a surrogate pair is no text that anyone could have declared.
            unescape(text.raw, &mut plain)?;
            plain.as_slice()
        } else {
            text.raw
        };
        match self.sorted.binary_search_by(|key| self.keys[*key].name.as_slice().cmp(name)) {
            Ok(at) => Some(self.sorted[at]),
            Err(at) if self.unknown < UNKNOWN_KEYS && name.len() <= UNKNOWN_KEY_BYTES => {
                self.unknown += 1;
                Some(self.insert(at, name))
            }
            Err(_) => None,
        }
    }

    fn insert(&mut self, at: usize, name: &[u8]) -> usize {
        let number = self.keys.len();
        let plain = name.iter().all(|byte| !matches!(byte, b'"' | b'\\' | 0..0x20));
        let quoted = if plain { [b"\"", name, b"\""].concat() } else { Vec::new() };
        self.keys.push(Key { name: name.to_vec(), quoted, next: 0, seen: 0, target: Target::Ignored });
        self.sorted.insert(at, number);
        number
    }

    fn guess_declared_order(&mut self) {
        for (number, key) in self.keys.iter_mut().enumerate() {
            key.next = number + 1;
        }
    }
}

/// The columns as the decoded batch has them.
pub(super) fn schema_of(source: &Source) -> SchemaRef {
    let field = |column: &crate::define::SourceColumn| Field::new(&column.name, column.decode.kind().data_type(), true);
    Arc::new(Schema::new(source.columns.iter().map(field).collect::<Vec<_>>()))
}

pub(super) fn event_time_column(source: &Source) -> Result<usize, DecodeError> {
    let found = source.columns.iter().position(|column| column.name == source.event_time);
    found
        .ok_or_else(|| DecodeError::NoEventTime { source_name: source.name.clone(), column: source.event_time.clone() })
}

/// The key of that name in a node, made if it is new.
fn key_of(nodes: &mut [Node], node: usize, name: &[u8]) -> usize {
    let node = &mut nodes[node];
    match node.sorted.binary_search_by(|key| node.keys[*key].name.as_slice().cmp(name)) {
        Ok(at) => node.sorted[at],
        Err(at) => node.insert(at, name),
    }
}

/// The object below a key, made if it is new.
fn child_of(nodes: &mut Vec<Node>, node: usize, name: &[u8]) -> usize {
    let key = key_of(nodes, node, name);
    let new = nodes.len();
    let (columns, child) = match &nodes[node].keys[key].target {
        Target::Ignored => (Vec::new(), new),
        Target::Column(column) => (vec![*column], new),
        Target::Several { columns, node } => (columns.clone(), node.unwrap_or(new)),
    };
    if child == new {
        nodes.push(Node::default());
    }
    nodes[node].keys[key].target = Target::Several { columns, node: Some(child) };
    child
}
