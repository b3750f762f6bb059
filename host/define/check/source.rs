//! Sources, entities and transforms: which columns there are, and where they come from.

use super::{Checker, Report};
use crate::define::located::{Located, TextOr};
use crate::define::names::{check_name, hint};
use crate::define::read::DocumentPlace;
use crate::define::typed::{EntityDocument, SourceDocument, TransformUse};
use crate::define::window_text::parse_span;
use crate::define::{DecodeAs, Entity, Source, SourceColumn, Transform};
use onefold_fold::{Field, HOUR_US, Kind};
use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

/// More columns than any event has; a bound on what one row may cost.
const MOST_COLUMNS: usize = 2_000;
/// Objects within objects; deeper paths are a mistake.
const DEEPEST_PATH: usize = 32;

impl Checker<'_> {
    pub(super) fn source(&mut self, place: &DocumentPlace, typed: &SourceDocument) {
        let mut report = Report::new(place);
        let source = self.read_source(&mut report, typed);
        if report.problems.is_empty() {
            self.project.sources.insert(source.name.clone(), source);
        }
        self.problems.append(&mut report.problems);
    }

    fn read_source(&mut self, report: &mut Report<'_>, typed: &SourceDocument) -> Source {
        report.not_yet(&typed.event_id, "event_id", "remove it, equal rows count as often as they come");
        if let Some(format) = typed.format.as_ref().filter(|format| format.value != "json") {
            report.say(format, format!("format `{}` is not supported yet: use json", format.value));
        }
        let push = self.read_stream(report, typed);
        let batch_path = read_batch(report, typed);
        if typed.stream.is_none() && typed.batch.is_none() {
            report.say(&typed.name, "no rows can come in: write `stream: { push: {} }`, `batch:` or both");
        }
        let columns = read_columns(report, typed);
        let fields: Vec<Field> = columns.iter().map(|column| Field::new(&column.name, column.decode.kind())).collect();
        match fields.iter().find(|field| field.name == typed.event_time.value) {
            Some(field) if field.kind == Kind::Timestamp => {}
            Some(field) => report.say(
                &typed.event_time,
                format!("event_time `{}` is {}, it must be a timestamp: change its type", field.name, field.kind),
            ),
            None => {
                let near = hint(&typed.event_time.value, fields.iter().map(|field| field.name.as_str()));
                report.say(&typed.event_time, format!("the schema has no column `{}`: {near}", typed.event_time.value));
            }
        }
        let mut span = |text: &Option<Located<String>>, default: i64| match text {
            Some(text) => report.take(text, parse_span(&text.value)).unwrap_or(default),
            None => default,
        };
        let out_of_orderness_us = span(&typed.out_of_orderness, 0);
        let max_future_us = span(&typed.max_future, HOUR_US);
        let mut all = fields;
        let transforms = self.transforms(report, &typed.transforms, &mut all);
        Source {
            name: typed.name.value.clone(),
            about: self.about(&typed.description, &typed.owner, &typed.tags, &typed.deprecated),
            lineage: self.lineage(&typed.name.value),
            push,
            batch_path,
            event_time: typed.event_time.value.clone(),
            out_of_orderness_us,
            max_future_us,
            columns,
            transforms,
        }
    }

    /// What the log and the state of a source are kept under: its first name. Where that is another's, since it was
    /// renamed away, a number follows; no name has a hyphen.
    fn lineage(&self, name: &str) -> String {
        let Some(registered) = &self.registered else { return name.to_owned() };
        if let Some(source) = registered.sources.get(name) {
            return source.lineage.clone();
        }
        let mut lineage = name.to_owned();
        let mut number = 2;
        while registered.source_of_lineage(&lineage).is_some() {
            lineage = format!("{name}-{number}");
            number += 1;
        }
        lineage
    }

    fn read_stream(&mut self, report: &mut Report<'_>, typed: &SourceDocument) -> bool {
        let Some(stream) = &typed.stream else { return false };
        report.not_yet(&stream.value.kafka, "kafka", "write `stream: { push: {} }` and send events by HTTP");
        if stream.value.push.is_none() && stream.value.kafka.is_none() {
            report.say(stream, "a stream without a way in: write `stream: { push: {} }`");
        }
        stream.value.push.is_some()
    }

    /// Transforms in their order; each adds its outputs to the columns that the next one sees.
    pub(super) fn transforms(
        &mut self,
        report: &mut Report<'_>,
        typed: &[Located<TransformUse>],
        columns: &mut Vec<Field>,
    ) -> Vec<Transform> {
        let mut transforms = Vec::new();
        for transform in typed {
            transforms.extend(self.transform(report, transform, columns));
        }
        if columns.len() > MOST_COLUMNS
            && let Some(last) = typed.last()
        {
            report.say(last, format!("{} columns, {MOST_COLUMNS} are allowed: remove some", columns.len()));
        }
        transforms
    }

    fn transform(
        &mut self,
        report: &mut Report<'_>,
        typed: &Located<TransformUse>,
        columns: &mut Vec<Field>,
    ) -> Option<Transform> {
        let shape = &typed.value;
        let udf = report.take(&shape.udf, self.udfs.resolve(&shape.udf.value, &shape.params));
        let inputs = self.columns_named(report, &shape.inputs, columns);
        let (udf, inputs) = (udf?, inputs?);
        let facts = report.take(&shape.udf, self.udfs.transform(&udf, &inputs))?;
        report.take(&shape.udf, self.udfs.try_claims("a transform", &udf, &inputs));
        let names: Vec<Located<String>> = match &shape.outputs {
            Some(names) => names.clone(),
            None => facts.outputs.iter().map(|output| shape.udf.with(output.name.clone())).collect(),
        };
        if names.len() != facts.outputs.len() {
            let (has, given) = (facts.outputs.len(), names.len());
            report.say(&shape.udf, format!("`{}` has {has} outputs, {given} are named: name each", shape.udf.value));
            return None;
        }
        let mut outputs = Vec::new();
        for (name, output) in names.iter().zip(&facts.outputs) {
            report.take(name, check_name(&name.value))?;
            if columns.iter().chain(&outputs).any(|column: &Field| column.name == name.value) {
                let message = format!(
                    "there is a column `{}` already, and transforms overwrite none: name this output otherwise under `outputs:`",
                    name.value
                );
                report.say(name, message);
                return None;
            }
            outputs.push(Field::new(&name.value, output.kind));
        }
        columns.extend(outputs.iter().cloned());
        Some(Transform {
            udf,
            inputs: inputs.into_iter().map(|input| input.name).collect(),
            outputs,
            needs_event_time: facts.needs_event_time,
            one_to_one: facts.one_to_one,
        })
    }

    /// The columns of these names; each that is missing is a problem.
    pub(super) fn columns_named(
        &self,
        report: &mut Report<'_>,
        names: &[Located<String>],
        columns: &[Field],
    ) -> Option<Vec<Field>> {
        let mut found = Vec::new();
        for name in names {
            match columns.iter().find(|column| column.name == name.value) {
                Some(column) => found.push(column.clone()),
                None => {
                    let near = hint(&name.value, columns.iter().map(|column| column.name.as_str()));
                    report.say(name, format!("no column `{}`: {near}", name.value));
                }
            }
        }
        (found.len() == names.len()).then_some(found)
    }

    pub(super) fn entity(&mut self, place: &DocumentPlace, typed: &EntityDocument) {
        let mut report = Report::new(place);
        let mut join_keys = Vec::new();
        for (name, type_name) in &typed.join_keys.0 {
            report.take(name, check_name(&name.value));
            if let Some(kind) = report.take(type_name, key_kind(&type_name.value)) {
                join_keys.push(Field::new(&name.value, kind));
            }
        }
        if typed.join_keys.0.is_empty() {
            report.say(&typed.name, "an entity needs a join key: write `join_keys: { product_id: utf8 }`");
        }
        if report.problems.is_empty() {
            let about = self.about(&typed.description, &typed.owner, &typed.tags, &typed.deprecated);
            let name = typed.name.value.clone();
            self.project.entities.insert(name.clone(), Entity { name, about, join_keys });
        }
        self.problems.append(&mut report.problems);
    }
}

fn key_kind(type_name: &str) -> Result<Kind, String> {
    const KEYS: [Kind; 5] = [Kind::Utf8, Kind::Int64, Kind::Boolean, Kind::Binary, Kind::Timestamp];
    KEYS.into_iter()
        .find(|kind| kind.name() == type_name)
        .ok_or_else(|| format!("a join key cannot be `{type_name}`: {}", hint(type_name, KEYS.map(Kind::name))))
}

fn read_batch(report: &mut Report<'_>, typed: &SourceDocument) -> Option<String> {
    let batch = typed.batch.as_ref()?;
    report.not_yet(
        &batch.value.complete_after,
        "complete_after",
        "remove it, `materialize` reads the files as they are",
    );
    report.not_yet(&batch.value.arrival, "arrival", "remove it, rows of files are never refused as from the future");
    let Some(parquet) = &batch.value.parquet else {
        report.say(batch, "a batch without files: write `batch: { parquet: { path: … } }`");
        return None;
    };
    report.not_yet(&parquet.connection, "connection", "remove it and write a path relative to this file");
    let path = &parquet.path;
    if path.value.is_empty() || path.value.contains("://") {
        let message = format!(
            "`{}` is no path of files here: URLs are not supported yet, write a path relative to this file",
            path.value
        );
        report.say(path, message);
        return None;
    }
    match &report.place.directory {
        Some(directory) => report.take(path, absolute(directory, &path.value)),
        None => {
            let message = "a server takes only paths inside a connection's URL, which are not supported yet: \
                           remove `batch:`, or apply from the directory";
            report.say(path, message);
            None
        }
    }
}

/// The path without `.` and `..`, so that one place has one name. Links are followed when the files are read.
fn absolute(directory: &Path, path: &str) -> Result<String, String> {
    let joined = std::path::absolute(directory.join(path)).map_err(|error| format!("`{path}` is no path: {error}"))?;
    let mut resolved = PathBuf::new();
    for component in joined.components() {
        match component {
            Component::ParentDir => {
                resolved.pop();
            }
            Component::CurDir => {}
            other => resolved.push(other),
        }
    }
    let text =
        resolved.to_str().ok_or_else(|| format!("`{path}` lies below a directory that is not UTF-8: move it"))?;
    Ok(text.to_owned())
}

fn read_columns(report: &mut Report<'_>, typed: &SourceDocument) -> Vec<SourceColumn> {
    let mut columns = Vec::new();
    let mut names = BTreeSet::new();
    for (name, typed) in &typed.schema.0 {
        if check_name(&name.value).is_err() {
            let written = &name.value;
            let message = format!(
                "`{written}` is no name of a column: write a-z, 0-9 and _, and say where it is taken from: \
                 {{ type: …, stream: $.{written}, batch: {written} }}"
            );
            report.say(name, message);
            continue;
        }
        let (type_name, stream, batch) = match typed {
            TextOr::Text(type_name) => (name.with(type_name.clone()), None, None),
            TextOr::Shape(shape) => (shape.type_name.clone(), shape.stream.as_ref(), shape.batch.as_ref()),
        };
        let decode = report.take(&type_name, decode_as(&type_name.value));
        let stream_path = match stream {
            Some(path) => report.take(path, read_path(&path.value)),
            None => Some(vec![name.value.clone()]),
        };
        if let (Some(decode), Some(stream_path)) = (decode, stream_path) {
            if stream_path.is_empty() && decode != DecodeAs::Json {
                report
                    .say(&type_name, "`$` is the whole event, which only the type json can hold: write a longer path");
            }
            let batch_column = batch.map_or(&name.value, |batch| &batch.value).clone();
            names.insert(name.value.clone());
            columns.push(SourceColumn { name: name.value.clone(), decode, stream_path, batch_column });
        }
    }
    if typed.schema.0.len() > MOST_COLUMNS {
        report.say(&typed.name, format!("{} columns, {MOST_COLUMNS} are allowed: remove some", typed.schema.0.len()));
    }
    columns
}

fn decode_as(type_name: &str) -> Result<DecodeAs, String> {
    let special = [
        ("timestamp_s", DecodeAs::TimestampSeconds),
        ("timestamp_ms", DecodeAs::TimestampMillis),
        ("timestamp_us", DecodeAs::TimestampMicros),
        ("json", DecodeAs::Json),
    ];
    let found = special.into_iter().find(|(name, _)| *name == type_name).map(|(_, decode)| decode);
    found.or_else(|| Kind::from_name(type_name).map(DecodeAs::Kind)).ok_or_else(|| {
        let known = special.map(|(name, _)| name).into_iter().chain(Kind::ALL.map(Kind::name));
        format!("unknown type `{type_name}`: {}", hint(type_name, known))
    })
}

/// `$` or `$.order.price`: object keys from the root.
fn read_path(text: &str) -> Result<Vec<String>, String> {
    let wrong = || format!("`{text}` is no path into an event: write `$`, or object keys as in `$.order.price`");
    let rest = text.strip_prefix('$').ok_or_else(wrong)?;
    if rest.is_empty() {
        return Ok(Vec::new());
    }
    let keys: Vec<String> = rest.strip_prefix('.').ok_or_else(wrong)?.split('.').map(str::to_owned).collect();
    if keys.len() > DEEPEST_PATH || keys.iter().any(|key| key.is_empty() || key.contains(['[', ']', '*', '"'])) {
        return Err(wrong());
    }
    Ok(keys)
}

/// The kind that a type's name means where nothing is decoded: in requests.
pub(super) fn request_kind(type_name: &str) -> Result<Kind, String> {
    Kind::from_name(type_name)
        .ok_or_else(|| format!("unknown type `{type_name}`: {}", hint(type_name, Kind::ALL.map(Kind::name))))
}
