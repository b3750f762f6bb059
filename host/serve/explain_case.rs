//! An explained value as a `kind: test`: the definitions it needs, the entity's rows as events, the value it must give.

use super::Problem;
use super::explain::status;
use super::values::{self, Int64As, time_text};
use crate::define::{Digest, FeatureView, Project, document_text, documents_of};
use crate::platform::{ExplainedRow, Explanation, Place, Verdict};
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// `{"text": …, "modules": [{name, version, file}]}`: the YAML of the definitions and the test, and which modules are to
/// lie beside it, under which names.
pub(super) fn case_json(
    explained: &Explanation,
    view: &str,
    feature: &str,
    entities: &BTreeMap<String, Vec<Value>>,
) -> Result<Value, Problem> {
    let refuse = |detail: String| Problem::unprocessable(detail).at("?case");
    let rows = &explained.rows;
    if rows.value.failed {
        return Err(refuse("the value has failed, and a test expects values: explain another instant".to_owned()));
    }
    let told = rows.rows.iter().filter(|row| row.verdict == Verdict::In).count() as u64;
    if told < rows.counted {
        return Err(refuse(format!(
            "{} rows are in the value and a test holds the last {}: explain a shorter window, or an entity with fewer \
             rows",
            rows.counted,
            rows.rows.len()
        )));
    }
    let at = time_text(explained.as_of_us)
        .ok_or_else(|| refuse("the instant lies outside the years that a test can name: give as_of".to_owned()))?;
    let value = rows.value.outputs.get(explained.output);
    let value = value.filter(|_| status(explained) == "KNOWN");
    let value = value.map_or(Value::Null, |column| values::to_json(column, 0, Int64As::Number));
    let entity: Map<String, Value> =
        entities.iter().filter_map(|(name, given)| Some((name.clone(), given.first()?.clone()))).collect();
    let project = &rows.definitions;
    let documents = documents_of(project, view, &explained.feature.name);
    let mut documents = documents.ok_or_else(|| Problem::internal("the explained view has no definition"))?;
    let whose: Vec<String> = entity
        .iter()
        .map(|(name, key)| format!("{name}={}", key.as_str().map_or(key.to_string(), str::to_owned)))
        .collect();
    documents.push(json!({
        "kind": "test",
        "name": format!("{view}.{feature} of {}", whose.join(", ")),
        "source": explained.source.name,
        "events": events(explained),
        "lookups": [{ "at": at, "view": view, "entity": entity, "expect": { feature: value } }],
    }));
    let modules = modules(project, view, &explained.feature.name);
    for Beside { name, file, .. } in &modules {
        documents.insert(1, json!({ "kind": "module", "name": name, "path": file }));
    }
    let udf = &explained.feature.udf;
    let mut text = format!(
        "# Why {view}.{feature} was what it was: written by `onefold explain --case` at revision {}.\n\
         # fingerprint {}\n# {}.{} of {}\n",
        explained.revision, explained.feature.fingerprint, udf.module, udf.udf, udf.digest
    );
    text.push_str(&documents.iter().map(document_text).collect::<Vec<_>>().join("---\n"));
    Ok(json!({ "text": text, "modules": modules }))
}

/// The records of the rows that were there by then, each once.
fn events(explained: &Explanation) -> Vec<Value> {
    let source = explained.rows.definitions.sources.get(&explained.source.name);
    let names: Vec<&str> =
        source.into_iter().flat_map(|source| &source.columns).map(|column| column.name.as_str()).collect();
    let mut seen: BTreeSet<&Place> = BTreeSet::new();
    let mut events = Vec::new();
    for row in &explained.rows.rows {
        let is_there = match &row.verdict {
            // Nothing comes too early in a test.
            Verdict::Later | Verdict::Refused { stage: "future", .. } => false,
            _ => true,
        };
        if is_there && seen.insert(&row.place) {
            events.push(event(&names, row));
        }
    }
    events
}

fn event(names: &[&str], row: &ExplainedRow) -> Value {
    let mut event = Map::new();
    for (name, column) in names.iter().zip(&row.source) {
        let value = match row.broken.iter().any(|broken| broken == name) {
            // What no kind can be decoded from.
            true => json!({}),
            false => values::to_json(column, 0, Int64As::Number),
        };
        if !value.is_null() {
            event.insert((*name).to_owned(), value);
        }
    }
    Value::Object(event)
}

/// A module whose bytes are to lie beside a case.
#[derive(Serialize)]
struct Beside {
    name: String,
    version: Option<u32>,
    file: String,
}

/// The modules that the documents name, but for `std`.
fn modules(project: &Project, view: &str, feature: &str) -> Vec<Beside> {
    let view: Option<&FeatureView> = project.feature_views.get(view);
    let source = view.and_then(|view| project.sources.get(&view.source));
    let own = source.map_or(&[][..], |source| &source.transforms);
    let transforms = own.iter().chain(view.into_iter().flat_map(|view| &view.transforms)).map(|one| &one.udf);
    let features = view.into_iter().flat_map(|view| &view.features).filter(|one| one.name == feature);
    let used = transforms.chain(features.map(|feature| &feature.udf)).filter(|udf| udf.module != "std");
    let used: BTreeMap<&str, Digest> = used.map(|udf| (udf.module.as_str(), udf.digest)).collect();
    let beside = |(name, digest): (&&str, &Digest)| {
        let found = project.modules.iter().find(|module| module.name == **name && module.digest == *digest);
        let file = format!("{name}-{}.wasm", digest.hex().get(..8).unwrap_or_default());
        Beside { name: (*name).to_owned(), version: found.map(|module| module.version), file }
    };
    used.iter().map(beside).collect()
}
