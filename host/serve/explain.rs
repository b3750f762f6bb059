//! Why a value is what it is: one entity's rows, in or out and why, and the value after each.

use super::explain_case::case_json;
use super::extract::{Options, Params, ok};
use super::features::{find, typed_keys, views_behind};
use super::lookup;
use super::values::{self, Int64As, time_json};
use super::{App, Problem};
use crate::decode::parse_rfc3339;
use crate::define::{FeatureReference, OnDemandFeature, OnDemandInput, Project, comparison_text, hint, window_words};
use crate::platform::{
    BatchRequest, BatchSettings, CompleteSince, EXPLAINED_ROWS, ExplainRequest, ExplainedRow, ExplainedValue,
    Explanation, Place, Verdict,
};
use crate::route::Keys;
use arrow::array::ArrayRef;
use axum::extract::State;
use axum::response::Response;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

const ROWS: usize = 50;
/// A case with more events is for no person to read.
const CASE_ROWS: usize = 1000;
const KNOWN: [&str; 6] = ["view", "feature", "as_of", "rows", "case", "int64"];

/// `GET /explain?view=…&feature=…&key=value…&as_of=…&rows=…&case=true`.
pub async fn get_explain(
    State(app): State<App>,
    Params(project): Params<String>,
    mut options: Options,
) -> Result<Response, Problem> {
    let int64 = options.int64()?;
    let case = options.flag("case")?;
    let as_of = options.take("as_of");
    let as_of_us = as_of.map(|text| instant(&text)).transpose()?;
    let rows = options.take("rows").map_or(Ok(ROWS), |text| rows_of(&text))?;
    let missing = |name: &str| Problem::unprocessable(format!("say which: add {name}=…")).at(format!("?{name}"));
    let view = options.take("view").ok_or_else(|| missing("view"))?;
    let feature = options.take("feature").ok_or_else(|| missing("feature"))?;
    let given = options.rest();
    app.blocking(move |app| {
        app.writable()?;
        let asked = Asked { view, feature, given, as_of_us, rows, case, int64 };
        asked.explain(app, &project).and_then(|told| ok(&told))
    })
    .await
}

struct Asked {
    view: String,
    feature: String,
    given: BTreeMap<String, String>,
    as_of_us: Option<i64>,
    rows: usize,
    case: bool,
    int64: Int64As,
}

fn instant(text: &str) -> Result<i64, Problem> {
    parse_rfc3339(text.as_bytes())
        .map_err(|reason| Problem::unprocessable(format!("as_of `{text}`: {reason}")).at("?as_of"))
}

fn rows_of(text: &str) -> Result<usize, Problem> {
    let rows = text.parse().ok().filter(|rows| (1..=EXPLAINED_ROWS).contains(rows));
    rows.ok_or_else(|| {
        Problem::unprocessable(format!("rows={text}: write a number from 1 to {EXPLAINED_ROWS}")).at("?rows")
    })
}

impl Asked {
    fn explain(mut self, app: &App, project: &str) -> Result<Value, Problem> {
        let host = app.project(project)?;
        let live = host.live()?;
        let project = &live.revision.project;
        let known = lookup::value_columns(project, &self.view);
        let known = known.ok_or_else(|| lookup::unknown_view(project, &self.view).at("?view"))?;
        if !known.contains(&self.feature) {
            let near = hint(&self.feature, known.iter().map(String::as_str));
            let detail = format!("view `{}` has no feature `{}`; {near}", self.view, self.feature);
            return Err(Problem::not_found(detail).at("?feature"));
        }
        let (entities, request) = typed_keys(project, &self.view, &mut self.given);
        if let Some(name) = self.given.keys().next() {
            let known = views_behind(project, &self.view).into_iter().flat_map(|view| {
                let keys = project.feature_views.get(view).into_iter().flat_map(|view| &view.join_keys);
                let fields = project.on_demand_feature_views.get(view).into_iter().flat_map(|view| &view.request);
                keys.map(|key| key.name.as_str()).chain(fields.map(|field| field.name.as_str()))
            });
            let near = hint(name, known.chain(KNOWN));
            let detail = format!("`{name}` is no key of view `{}`; {near}", self.view);
            return Err(Problem::unprocessable(detail).at(format!("?{name}")));
        }
        let on_demand = project.on_demand_feature_views.get(&self.view).into_iter().flat_map(|view| &view.features);
        let mut on_demand =
            on_demand.filter(|feature| feature.outputs.iter().any(|output| output.name == self.feature));
        if let Some(feature) = on_demand.next() {
            return self.on_demand(app, &live, feature, &entities, &request);
        }
        let columns = self.key_columns(project, &entities)?;
        let keys = Keys::encode(&columns).map_err(|error| Problem::internal(error.to_string()))?;
        let asked = ExplainRequest {
            view: self.view.clone(),
            feature: self.feature.clone(),
            keys,
            as_of_us: self.as_of_us,
            rows: if self.case { self.rows.max(CASE_ROWS) } else { self.rows },
        };
        let batch = BatchRequest { settings: BatchSettings::new(std::env::temp_dir()), progress: Arc::new(|_| ()) };
        let explained = host.explain(&asked, batch)?;
        let mut told = self.told(&explained, &entities);
        if self.case {
            told["case"] = case_json(&explained, &self.view, &self.feature, &entities)?;
        }
        Ok(told)
    }

    /// The entity as one row of its join keys.
    fn key_columns(
        &self,
        project: &Project,
        entities: &BTreeMap<String, Vec<Value>>,
    ) -> Result<Vec<ArrayRef>, Problem> {
        let keys = project.feature_views.get(&self.view).into_iter().flat_map(|view| &view.join_keys);
        let column = |key: &crate::define::JoinKey| {
            let at = format!("?{}", key.name);
            let given = entities.get(&key.name).ok_or_else(|| {
                let detail = format!("one entity of view `{}` is explained: add {}=…", self.view, key.name);
                Problem::unprocessable(detail).at(&at)
            })?;
            values::from_json(key.kind, given.iter())
                .map_err(|wrong| Problem::unprocessable(format!("`{}`: {wrong}", key.name)).at(&at))
        };
        keys.map(column).collect()
    }

    fn told(&self, explained: &Explanation, entities: &BTreeMap<String, Vec<Value>>) -> Value {
        let Explanation { feature, rows, .. } = explained;
        let hidden = rows.rows.len().saturating_sub(self.rows);
        let shown = rows.rows.get(hidden..).unwrap_or_default();
        let strangers = rows.strangers.iter().map(|refusal| json!(format!("{}: {}", refusal.place, refusal.message)));
        json!({
            "view": self.view,
            "feature": self.feature,
            "entity": entity_json(entities),
            "revision": explained.revision,
            "fingerprint": feature.fingerprint.to_string(),
            "udf": format!("{}.{}", feature.udf.module, feature.udf.udf),
            "params": serde_json::from_str::<Value>(&feature.udf.params).unwrap_or_default(),
            "module": feature.udf.digest.to_string(),
            "inputs": feature.inputs.iter().map(|input| input.name.as_str()).collect::<Value>(),
            "where": feature.filter.iter().map(comparison_text).collect::<Value>(),
            "window": window_words(&feature.window),
            "source": explained.source.name,
            "complete_since": since_json(explained.complete_since),
            "as_of": time_json(explained.as_of_us),
            "status": status(explained),
            "event_timestamp": rows.newest_us.map_or(Value::Null, time_json),
            "value": self.value_json(explained, &rows.value),
            "reason": rows.value.reason,
            "served": self.served_json(explained),
            "rows_total": rows.total,
            "rows_in": rows.counted,
            "rows_later": rows.later,
            "rows_not_shown": rows.total.saturating_sub(shown.len() as u64),
            "rows": shown.iter().map(|row| self.row_json(explained, row)).collect::<Value>(),
            "dead_letters": rows.refused.iter().map(|row| {
                let letter = letter_of(explained, &row.place, row.sub_row);
                let mut told = place_json(&row.place, row.sub_row);
                told.insert("event_time".to_owned(), time_json(row.event_time_us));
                told.insert("stage".to_owned(), json!(row.stage));
                told.insert("message".to_owned(), json!(row.message));
                told.insert("letter".to_owned(), json!(letter));
                Value::Object(told)
            }).collect::<Value>(),
            "dead_letters_total": rows.refused_total,
            "refused_unknown_entity": { "total": rows.strangers_total, "examples": strangers.collect::<Value>() },
        })
    }

    fn value_json(&self, explained: &Explanation, value: &ExplainedValue) -> Value {
        let column = value.outputs.get(explained.output);
        column.map_or(Value::Null, |column| values::to_json(column, 0, self.int64))
    }

    fn served_json(&self, explained: &Explanation) -> Value {
        let Some(served) = &explained.served else { return Value::Null };
        json!({
            "found": served.found,
            "value": values::to_json(&served.value, 0, self.int64),
            "reason": served.reason,
            "event_timestamp": if served.found { time_json(served.newest_us) } else { Value::Null },
            "clock": if served.clock_us > i64::MIN { time_json(served.clock_us) } else { Value::Null },
            "online": !served.hidden,
            "same": explained.is_served(),
        })
    }

    fn row_json(&self, explained: &Explanation, row: &ExplainedRow) -> Value {
        let inputs = explained.feature.inputs.iter().zip(&row.inputs);
        let inputs: Map<String, Value> =
            inputs.map(|(field, column)| (field.name.clone(), values::to_json(column, 0, self.int64))).collect();
        let mut told = place_json(&row.place, row.sub_row);
        let (verdict, why) = verdict_words(&row.verdict);
        told.insert("event_time".to_owned(), time_json(row.event_time_us));
        told.insert("inputs".to_owned(), Value::Object(inputs));
        told.insert("in".to_owned(), json!(row.verdict == Verdict::In));
        told.insert("verdict".to_owned(), json!(verdict));
        told.insert("why".to_owned(), json!(why));
        told.insert("value".to_owned(), self.value_json(explained, &row.value));
        told.insert("reason".to_owned(), json!(row.value.reason));
        told.insert("letter".to_owned(), json!(letter_of(explained, &row.place, row.sub_row)));
        Value::Object(told)
    }

    /// An on-demand feature is explained by its inputs: what they are now, and how to go on asking.
    fn on_demand(
        &self,
        app: &App,
        live: &crate::platform::Live,
        feature: &OnDemandFeature,
        entities: &BTreeMap<String, Vec<Value>>,
        request: &BTreeMap<String, Vec<Value>>,
    ) -> Result<Value, Problem> {
        let reads: Vec<FeatureReference> = feature
            .inputs
            .iter()
            .filter_map(|input| match input {
                OnDemandInput::Feature { view, output, .. } => {
                    Some(FeatureReference { view: view.clone(), feature: output.clone() })
                }
                OnDemandInput::Request { .. } => None,
            })
            .collect();
        if self.as_of_us.is_some() || self.case {
            let names: Vec<String> = reads.iter().map(|read| format!("`{}.{}`", read.view, read.feature)).collect();
            let detail = format!(
                "`{}.{}` is computed when it is asked for, so it has no rows of its own: explain {} instead",
                self.view,
                self.feature,
                names.join(", ")
            );
            return Err(Problem::unprocessable(detail).at(if self.case { "?case" } else { "?as_of" }));
        }
        let own = FeatureReference { view: self.view.clone(), feature: self.feature.clone() };
        let wanted: Vec<FeatureReference> = reads.iter().cloned().chain([own]).collect();
        let found = find(app, live, &wanted, entities, request)?;
        let value = |number: usize| {
            let column = found.columns.get(number);
            column.map_or((Value::Null, Value::Null), |column| {
                let status = column.statuses.first().map(|status| status.name());
                (values::to_json(&column.values, 0, self.int64), json!(status))
            })
        };
        let mut of_features = (0..reads.len()).map(value);
        let inputs = feature.inputs.iter().map(|input| match input {
            OnDemandInput::Request { field } => {
                let given = request.get(&field.name).and_then(|given| given.first());
                json!({ "request": field.name, "value": given })
            }
            OnDemandInput::Feature { view, output, .. } => {
                let (value, status) = of_features.next().unwrap_or_default();
                json!({ "view": view, "feature": output, "value": value, "status": status })
            }
        });
        let inputs = inputs.collect::<Value>();
        let (result, status) = value(reads.len());
        let reason = found.columns.last().and_then(|column| column.reasons.first().cloned().flatten());
        Ok(json!({
            "view": self.view,
            "feature": self.feature,
            "entity": entity_json(entities),
            "on_demand": true,
            "revision": live.revision.number,
            "fingerprint": feature.fingerprint.to_string(),
            "udf": format!("{}.{}", feature.udf.module, feature.udf.udf),
            "params": serde_json::from_str::<Value>(&feature.udf.params).unwrap_or_default(),
            "module": feature.udf.digest.to_string(),
            "inputs": inputs,
            "value": result,
            "status": status,
            "reason": reason,
        }))
    }
}

fn entity_json(entities: &BTreeMap<String, Vec<Value>>) -> Value {
    let first = entities.iter().filter_map(|(name, given)| Some((name.clone(), given.first()?.clone())));
    Value::Object(first.collect())
}

fn since_json(since: CompleteSince) -> Value {
    match since {
        CompleteSince::NoRows => Value::Null,
        CompleteSince::Beginning => json!("beginning"),
        CompleteSince::At(us) => time_json(us),
    }
}

/// What is known of the entity at the instant, which is read then too.
pub(super) fn status(explained: &Explanation) -> &'static str {
    let Some(newest_us) = explained.rows.newest_us.filter(|newest_us| explained.is_kept(*newest_us)) else {
        return "NOT_FOUND";
    };
    match explained.ttl_us.is_some_and(|ttl_us| explained.as_of_us > newest_us.saturating_add(ttl_us)) {
        true => "OUTSIDE_MAX_AGE",
        false => "KNOWN",
    }
}

fn place_json(place: &Place, sub_row: u32) -> Map<String, Value> {
    let mut told = Map::new();
    match place {
        Place::Log { position } => told.insert("position".to_owned(), json!(format!("0:{position}"))),
        Place::File { path, row } => {
            told.insert("file".to_owned(), json!(path));
            told.insert("row".to_owned(), json!(row))
        }
    };
    if sub_row > 0 {
        told.insert("sub_row".to_owned(), json!(sub_row));
    }
    told
}

fn letter_of(explained: &Explanation, place: &Place, sub_row: u32) -> Option<String> {
    match place {
        Place::Log { position } => explained.letters.get(&(*position, sub_row)).map(|letter| letter.id()),
        Place::File { .. } => None,
    }
}

/// The verdict as a word for programs, and why as a sentence for people.
fn verdict_words(verdict: &Verdict) -> (&'static str, Option<String>) {
    let time = |us: i64| values::time_text(us).unwrap_or_else(|| us.to_string());
    match verdict {
        Verdict::In => ("in", None),
        Verdict::Later => ("later", Some("later than the instant".to_owned())),
        Verdict::NotYet { enters_us } => ("not_yet", Some(format!("too new: counts from {} on", time(*enters_us)))),
        Verdict::Left { left_us } => ("left", Some(format!("too old: left the window at {}", time(*left_us)))),
        Verdict::Where(text) => ("where", Some(format!("where {text}"))),
        Verdict::Refused { stage, message } => ("refused", Some(format!("dead letter ({stage}): {message}"))),
    }
}
