//! Fingerprints: everything that can change a feature's values, and nothing else, as one digest.
//!
//! Columns are described by where they come from, never by their names: a source's column by its type and its places
//! in events and files, a transform's output by that transform. So a rename moves no fingerprint. What a definition
//! does not use is left out, so that later options leave old fingerprints alone.

use super::canonical::canonical_json;
use super::{
    Digest, Feature, FeatureView, OnDemandFeature, OnDemandInput, Project, Source, SourceColumn, Transform, UdfUse,
};
use onefold_fold::{Comparison, Window};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// The version of the fold's rules (canonical order, windows, `where`). Raised when the same definition over the same
/// rows gives another value; every fingerprint moves with it.
pub const FOLD_RULES: u32 = 1;

/// Computes the fingerprint of every feature of a project whose references all hold. The error is a circle of
/// on-demand features that read each other.
pub fn fill(project: &mut Project) -> Result<(), Vec<String>> {
    let sources = project.sources.clone();
    for view in project.feature_views.values_mut() {
        let Some(source) = sources.get(&view.source) else { continue };
        let lineage = Lineage::new(source, view);
        let table = table_parts(&lineage, source, view);
        for feature in &mut view.features {
            feature.fingerprint = of_feature(&lineage, &table, feature);
        }
    }
    let mut known = values_of_views(project);
    // On-demand features read one another without circles: each round settles at least those that only read settled ones.
    let mut waiting = project.on_demand_feature_views.values().map(|view| view.features.len()).sum::<usize>();
    while waiting > 0 {
        let before = waiting;
        for view in project.on_demand_feature_views.values_mut() {
            for feature in &mut view.features {
                let first = feature.outputs.first().map(|output| (view.name.clone(), output.name.clone()));
                if first.as_ref().is_some_and(|first| known.contains_key(first)) {
                    continue;
                }
                let Some(fingerprint) = of_on_demand(&known, feature) else { continue };
                feature.fingerprint = fingerprint;
                waiting -= 1;
                for (place, output) in feature.outputs.iter().enumerate() {
                    known.insert((view.name.clone(), output.name.clone()), (fingerprint, place));
                }
            }
        }
        if waiting == before {
            let features = project
                .on_demand_feature_views
                .values()
                .flat_map(|view| view.features.iter().map(|feature| (view.name.clone(), feature)).collect::<Vec<_>>());
            let unsettled = features.filter(|(view, feature)| {
                let first = feature.outputs.first().map(|output| (view.clone(), output.name.clone()));
                first.is_none_or(|first| !known.contains_key(&first))
            });
            return Err(unsettled.map(|(view, feature)| format!("{view}.{}", feature.name)).collect());
        }
    }
    Ok(())
}

/// The digest of what makes an entity table: rows of one source under the same keys. Views with equal ones share
/// known-ness and the columns of state.
pub fn entity_table(project: &Project, view: &FeatureView) -> Option<Digest> {
    Some(entity_table_of(project.sources.get(&view.source)?, view))
}

/// [`entity_table`] of a view whose source is at hand.
pub fn entity_table_of(source: &Source, view: &FeatureView) -> Digest {
    let lineage = Lineage::new(source, view);
    digest("entity-table", Value::Object(table_parts(&lineage, source, view)))
}

/// The digest of what decides whether an event of a source is a row at all: its event time and `max_future`. Every
/// feature of the source has both in its fingerprint: where the intake is another, so are all of them.
pub fn intake(source: &Source) -> Digest {
    digest("intake", Value::Object(intake_parts(source)))
}

fn intake_parts(source: &Source) -> Map<String, Value> {
    let event_time = source.columns.iter().find(|column| column.name == source.event_time).map(of_column);
    let mut parts = Map::new();
    parts.insert("source".to_owned(), json!(source.lineage));
    parts.insert("event_time".to_owned(), event_time.unwrap_or(Value::Null));
    parts.insert("max_future_us".to_owned(), json!(source.max_future_us));
    parts
}

fn of_column(column: &SourceColumn) -> Value {
    json!({ "type": column.decode, "event": column.stream_path, "file": column.batch_column })
}

/// Fingerprint and place among the feature's outputs, by view and value column.
type Values = BTreeMap<(String, String), (Digest, usize)>;

fn values_of_views(project: &Project) -> Values {
    let mut values = Values::new();
    for view in project.feature_views.values() {
        for feature in &view.features {
            for (place, output) in feature.outputs.iter().enumerate() {
                values.insert((view.name.clone(), output.name.clone()), (feature.fingerprint, place));
            }
        }
    }
    values
}

/// What every column of a view comes from, by the column's name.
struct Lineage {
    columns: BTreeMap<String, Value>,
    /// The transforms that are not one-to-one, in their order: every row passes through all of them.
    not_one_to_one: Vec<Value>,
}

impl Lineage {
    fn new(source: &Source, view: &FeatureView) -> Lineage {
        let mut lineage = Lineage { columns: BTreeMap::new(), not_one_to_one: Vec::new() };
        for column in &source.columns {
            lineage.columns.insert(column.name.clone(), of_column(column));
        }
        for transform in source.transforms.iter().chain(&view.transforms) {
            lineage.add(source, transform);
        }
        lineage
    }

    /// A transform stands as a digest, so that long chains of them stay small.
    fn add(&mut self, source: &Source, transform: &Transform) {
        let mut parts = udf_parts(&transform.udf);
        parts.insert("inputs".to_owned(), transform.inputs.iter().map(|input| self.of(input)).collect());
        if transform.needs_event_time {
            parts.insert("event_time".to_owned(), self.of(&source.event_time));
        }
        let made_by = digest("transform", Value::Object(parts));
        if !transform.one_to_one {
            self.not_one_to_one.push(json!(made_by));
        }
        for (place, output) in transform.outputs.iter().enumerate() {
            self.columns.insert(output.name.clone(), json!({ "transform": made_by, "output": place }));
        }
    }

    /// Checking has made sure that the column is there.
    fn of(&self, column: &str) -> Value {
        self.columns.get(column).cloned().unwrap_or(Value::Null)
    }

    fn comparison(&self, comparison: &Comparison) -> Value {
        json!({
            "column": self.of(&comparison.column),
            "operator": comparison.operator,
            "values": comparison.values,
        })
    }
}

/// What all features of a view share: source, keys, time, and the transforms that every row passes.
fn table_parts(lineage: &Lineage, source: &Source, view: &FeatureView) -> Map<String, Value> {
    let keys: Vec<Value> =
        view.join_keys.iter().map(|key| json!({ "column": lineage.of(&key.column), "kind": key.kind })).collect();
    let mut parts = intake_parts(source);
    parts.insert("join_keys".to_owned(), Value::Array(keys));
    if !lineage.not_one_to_one.is_empty() {
        parts.insert("transforms".to_owned(), Value::Array(lineage.not_one_to_one.clone()));
    }
    parts
}

fn of_feature(lineage: &Lineage, table: &Map<String, Value>, feature: &Feature) -> Digest {
    let mut parts = table.clone();
    parts.extend(udf_parts(&feature.udf));
    parts.insert("inputs".to_owned(), feature.inputs.iter().map(|input| lineage.of(&input.name)).collect());
    if !feature.filter.is_empty() {
        // All must hold, so their order means nothing.
        let mut filter: Vec<String> =
            feature.filter.iter().map(|comparison| canonical_json(&lineage.comparison(comparison))).collect();
        filter.sort();
        filter.dedup();
        parts.insert("where".to_owned(), json!(filter));
    }
    if feature.window != Window::Unbounded {
        parts.insert("window".to_owned(), json!(feature.window));
    }
    if let Some(allowed_lateness_us) = feature.allowed_lateness_us {
        parts.insert("allowed_lateness_us".to_owned(), json!(allowed_lateness_us));
    }
    digest("feature", Value::Object(parts))
}

/// `None` while an input is not settled yet.
fn of_on_demand(known: &Values, feature: &OnDemandFeature) -> Option<Digest> {
    let mut inputs = Vec::new();
    for input in &feature.inputs {
        inputs.push(match input {
            OnDemandInput::Request { field } => json!({ "request": field.name, "kind": field.kind }),
            OnDemandInput::Feature { view, output, .. } => {
                let (fingerprint, place) = known.get(&(view.clone(), output.clone()))?;
                json!({ "feature": fingerprint, "output": place })
            }
        });
    }
    let mut parts = udf_parts(&feature.udf);
    parts.insert("inputs".to_owned(), Value::Array(inputs));
    Some(digest("on-demand-feature", Value::Object(parts)))
}

/// The name under which a module was registered is not in it: equal bytes are one module.
fn udf_parts(udf: &UdfUse) -> Map<String, Value> {
    let mut parts = Map::new();
    parts.insert("module".to_owned(), json!(udf.digest));
    parts.insert("udf".to_owned(), json!(udf.udf));
    parts.insert("params".to_owned(), json!(udf.params));
    parts
}

/// What is hashed says what it is and under which rules, so that no two kinds of thing have one digest.
fn digest(what: &str, parts: Value) -> Digest {
    Digest::of(canonical_json(&json!({ "onefold": what, "rules": FOLD_RULES, "parts": parts })).as_bytes())
}
