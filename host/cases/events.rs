//! The events of tests as a source's pushes: where their values stand, when they are, whose they are.

use super::CaseError;
use crate::decode::JsonDecoder;
use crate::define::{DecodeAs, FeatureView, LookupCase, Project, Source, SourceColumn, TestCase};
use arrow::array::AsArray;
use arrow::datatypes::TimestampMicrosecondType;
use onefold_fold::Kind;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// An event as it is pushed.
pub(super) struct Event {
    /// Event time.
    pub at_us: i64,
    /// All its columns can be decoded, so that a file can hold it.
    pub whole: bool,
    json: Value,
}

/// The events of a test, in the order given.
pub(super) fn read(project: &Project, test: &TestCase) -> Result<Vec<Event>, CaseError> {
    let source = source(project, test)?;
    let mut decoder = JsonDecoder::new(source).map_err(CaseError::failed)?;
    let event_time = source.columns.iter().position(|column| column.name == source.event_time);
    let mut events = Vec::with_capacity(test.events.len());
    for (number, given) in (1..).zip(&test.events) {
        let json = pushed(source, given);
        let decoded = decoder.decode([json.to_string().as_bytes()]).map_err(CaseError::failed)?;
        let wrong = |message: &str| {
            let message = format!("event {number} is refused as a whole, so no lookup can see it: {message}");
            CaseError::at(test, test.line, message)
        };
        if let Some(refused) = decoded.refused.first() {
            return Err(wrong(&refused.message));
        }
        let times = event_time.and_then(|column| decoded.batch.columns().get(column));
        let times = times.and_then(|column| column.as_primitive_opt::<TimestampMicrosecondType>());
        let at_us = times.and_then(|times| times.values().first().copied()).ok_or_else(|| wrong("it has no row"))?;
        events.push(Event { at_us, whole: decoded.cell_failures.is_empty(), json });
    }
    Ok(events)
}

pub(super) fn source<'a>(project: &'a Project, test: &TestCase) -> Result<&'a Source, CaseError> {
    let source = project.sources.get(&test.source);
    source.ok_or_else(|| CaseError::at(test, test.line, format!("no source `{}`", test.source)))
}

/// A case names columns; an event has them where the source says. What names no column stays where it is.
fn pushed(source: &Source, given: &Value) -> Value {
    let mut event = json!({});
    for (name, value) in given.as_object().into_iter().flatten() {
        let column = source.columns.iter().find(|column| column.name == *name);
        match column.map(|column| column.stream_path.as_slice()) {
            None => put(&mut event, std::slice::from_ref(name), value.clone()),
            // The whole event is what the others make it.
            Some([]) => {}
            Some(path) => put(&mut event, path, value.clone()),
        }
    }
    event
}

/// Puts a value below an object, beside what stands there already.
fn put(object: &mut Value, path: &[String], value: Value) {
    let Some((first, rest)) = path.split_first() else {
        match (object, value) {
            (Value::Object(there), Value::Object(new)) => there.extend(new),
            (place, value) => *place = value,
        }
        return;
    };
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    if let Value::Object(members) = object {
        put(members.entry(first.clone()).or_insert(Value::Null), rest, value);
    }
}

impl Event {
    /// As it is pushed.
    pub fn json(&self) -> &Value {
        &self.json
    }

    /// Whether it holds the keys of a lookup's entity.
    pub fn is_of(&self, project: &Project, test: &TestCase, lookup: &LookupCase) -> bool {
        let Some(source) = project.sources.get(&test.source) else { return false };
        let Some(view) = project.feature_views.get(&lookup.view).filter(|view| view.source == source.name) else {
            return false;
        };
        view.join_keys.iter().all(|key| {
            let column = source.columns.iter().find(|column| column.name == key.column);
            let place =
                column.map(|column| column.stream_path.iter().try_fold(&self.json, |part, name| part.get(name)));
            place.flatten().is_some_and(|value| lookup.entity.get(&key.name) == Some(value))
        })
    }

    /// Its bytes, with the mark on its keys.
    pub fn marked(&self, project: &Project, source: &str, mark: &str) -> String {
        let mut event = self.json.clone();
        if !mark.is_empty() {
            let columns: BTreeMap<&str, &SourceColumn> = key_columns(project, source).collect();
            for column in columns.values() {
                let place = column.stream_path.iter().try_fold(&mut event, |part, name| part.get_mut(name.as_str()));
                if let Some(Value::String(key)) = place {
                    key.push_str(mark);
                }
            }
        }
        event.to_string()
    }
}

/// Join keys with the same mark.
pub(super) fn marked(entity: &BTreeMap<String, Value>, mark: &str) -> BTreeMap<String, Value> {
    let with_mark = |value: &Value| match value {
        Value::String(key) => Value::String(format!("{key}{mark}")),
        other => other.clone(),
    };
    entity.iter().map(|(name, value)| (name.clone(), with_mark(value))).collect()
}

/// An event that is of no entity: all it does is move the clock to its time.
pub(super) fn tick(project: &Project, source: &Source, at_us: i64) -> String {
    let mut event = json!({});
    // Nulls may become a key, by a transform; what cannot be decoded cannot.
    let has_computed_keys = views(project, &source.name)
        .any(|view| view.join_keys.iter().any(|key| source.columns.iter().all(|column| column.name != key.column)));
    for column in &source.columns {
        if column.name == source.event_time {
            let time = match column.decode {
                DecodeAs::TimestampSeconds => json!(at_us.div_euclid(1_000_000)),
                DecodeAs::TimestampMillis => json!(at_us.div_euclid(1000)),
                DecodeAs::TimestampMicros => json!(at_us),
                DecodeAs::Kind(_) | DecodeAs::Json => crate::serve::values::time_json(at_us),
            };
            put(&mut event, &column.stream_path, time);
        } else if has_computed_keys && column.stream_path.len() == 1 && column.decode != DecodeAs::Json {
            put(&mut event, &column.stream_path, json!({}));
        }
    }
    event.to_string()
}

/// Whether a mark on their keys keeps entities apart and changes nothing else: keys are text, and nothing reads the
/// columns they come from.
pub(super) fn keys_tell_apart(project: &Project) -> bool {
    let is_apart = |source: &Source| {
        let keys: BTreeMap<&str, &SourceColumn> = key_columns(project, &source.name).collect();
        let is_key = |name: &String| keys.contains_key(name.as_str());
        let plain = |view: &FeatureView| {
            view.join_keys.iter().all(|key| keys.contains_key(key.column.as_str()))
                && !view.transforms.iter().flat_map(|transform| &transform.inputs).any(is_key)
                && view.features.iter().all(|feature| {
                    !feature.inputs.iter().any(|input| is_key(&input.name))
                        && !feature.filter.iter().any(|comparison| is_key(&comparison.column))
                })
        };
        keys.values().all(|column| column.decode == DecodeAs::Kind(Kind::Utf8))
            && source.columns.iter().all(|column| column.decode != DecodeAs::Json)
            && !source.transforms.iter().flat_map(|transform| &transform.inputs).any(is_key)
            && views(project, &source.name).all(plain)
    };
    project.sources.values().all(is_apart)
}

fn views<'a>(project: &'a Project, source: &'a str) -> impl Iterator<Item = &'a FeatureView> {
    project.feature_views.values().filter(move |view| view.source == source)
}

/// The columns of a source that are join keys, by name.
fn key_columns<'a>(project: &'a Project, source: &'a str) -> impl Iterator<Item = (&'a str, &'a SourceColumn)> {
    let columns = project.sources.get(source).into_iter().flat_map(|source| &source.columns);
    columns.filter_map(move |column| {
        let is_key = views(project, source).any(|view| view.join_keys.iter().any(|key| key.column == column.name));
        is_key.then_some((column.name.as_str(), column))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stand_where_the_source_says() {
        let mut event = json!({});
        let path = |text: &str| text.split('.').map(str::to_owned).collect::<Vec<_>>();
        put(&mut event, &path("order"), json!({"id": 1}));
        put(&mut event, &path("order.price.unit"), json!(3.5));
        put(&mut event, &path("order.price"), json!({"tax": 2}));
        assert_eq!(event, json!({"order": {"id": 1, "price": {"unit": 3.5, "tax": 2}}}));
    }

    #[test]
    fn what_moves_the_clock_can_become_no_key() {
        let column = |name: &str, decode| SourceColumn {
            name: name.into(),
            decode,
            stream_path: vec![name.into()],
            batch_column: name.into(),
        };
        let source = Source {
            name: "s".into(),
            about: Default::default(),
            lineage: "s".into(),
            push: true,
            batch_path: None,
            event_time: "at".into(),
            out_of_orderness_us: 0,
            max_future_us: 0,
            columns: vec![column("at", DecodeAs::TimestampMillis), column("who", DecodeAs::Kind(Kind::Utf8))],
            transforms: Vec::new(),
        };
        let view = |key: &str| FeatureView {
            name: "v".into(),
            about: Default::default(),
            entities: Vec::new(),
            join_keys: vec![crate::define::JoinKey { name: "k".into(), column: key.into(), kind: Kind::Utf8 }],
            source: "s".into(),
            transforms: Vec::new(),
            ttl_us: None,
            online: true,
            right_exclusive: false,
            paused: None,
            features: Vec::new(),
        };
        let mut project = Project::empty("p");
        project.feature_views.insert("v".into(), view("who"));
        assert_eq!(tick(&project, &source, 2999), r#"{"at":2}"#);
        project.feature_views.insert("v".into(), view("made_of_who"));
        assert_eq!(tick(&project, &source, 2999), r#"{"at":2,"who":{}}"#);
    }
}
