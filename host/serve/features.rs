//! Lookups over HTTP: columns for programs, one entity for people.

use super::extract::{Options, Params, ok, read_json};
use super::lookup::{self, Column, Found, Lookup, Served};
use super::values::{self, Int64As, time_json};
use super::{App, Problem};
use crate::define::{FeatureReference, Project};
use crate::platform::Live;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// A thousand entities with long keys and request data are far below.
const BODY_BYTES: usize = 16 << 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FeaturesRequest {
    service: Option<String>,
    features: Option<Vec<String>>,
    #[serde(default)]
    entities: BTreeMap<String, Vec<Value>>,
    #[serde(default)]
    request: BTreeMap<String, Vec<Value>>,
    #[serde(default)]
    expect: BTreeMap<String, String>,
}

/// `POST /features`.
pub async fn post_features(
    State(app): State<App>,
    Params(project): Params<String>,
    mut options: Options,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let int64 = options.int64()?;
    options.finish(&["int64"])?;
    let request: FeaturesRequest = read_json(&headers, body, BODY_BYTES).await?;
    app.blocking(move |app| {
        let host = app.project(&project)?;
        let live = host.live()?;
        let project = &live.revision.project;
        let wanted = wanted(project, &request)?;
        check_expected(project, &request.expect)?;
        let found = find(app, &live, &wanted, &request.entities, &request.request)?;
        let mut columns = Map::new();
        for (reference, column) in wanted.iter().zip(&found.columns) {
            columns.insert(format!("{}__{}", reference.view, reference.feature), column_json(column, int64));
        }
        let as_of: Map<String, Value> =
            found.as_of_us.iter().map(|(view, us)| (view.clone(), us.map_or(Value::Null, time_json))).collect();
        ok(&json!({ "revision": live.revision.number, "as_of": as_of, "columns": columns }))
    })
    .await
}

/// `GET /feature-views/{view}/values?key=value`. Request data of an on-demand view stand there too.
pub async fn get_values(
    State(app): State<App>,
    Params((project, view)): Params<(String, String)>,
    mut options: Options,
) -> Result<Response, Problem> {
    let int64 = options.int64()?;
    let mut given = options.rest();
    app.blocking(move |app| {
        let host = app.project(&project)?;
        let live = host.live()?;
        let project = &live.revision.project;
        let names = lookup::value_columns(project, &view).ok_or_else(|| lookup::unknown_view(project, &view))?;
        let wanted: Vec<FeatureReference> =
            names.into_iter().map(|feature| FeatureReference { view: view.clone(), feature }).collect();
        let (entities, request) = typed_keys(project, &view, &mut given);
        if let Some(name) = given.into_keys().next() {
            let known = views_behind(project, &view).into_iter().flat_map(|view| {
                let keys = project.feature_views.get(view).into_iter().flat_map(|view| &view.join_keys);
                let fields = project.on_demand_feature_views.get(view).into_iter().flat_map(|view| &view.request);
                keys.map(|key| key.name.as_str()).chain(fields.map(|field| field.name.as_str()))
            });
            let detail = format!("`{name}` is no key of view `{view}`; {}", crate::define::hint(&name, known));
            return Err(Problem::unprocessable(detail).at(format!("?{name}")));
        }
        let found = find(app, &live, &wanted, &entities, &request)?;
        ok(&entity_json(&wanted, &found, &entities, int64))
    })
    .await
}

/// What was asked for, as value columns.
fn wanted(project: &Project, request: &FeaturesRequest) -> Result<Vec<FeatureReference>, Problem> {
    match (&request.service, &request.features) {
        (Some(service), None) => lookup::resolve_service(project, service),
        (None, Some(features)) => lookup::resolve(project, features),
        _ => Err(Problem::unprocessable("say what to look up: either `service` or `features`").at("/service")),
    }
}

/// Refuses a lookup whose features are not what the caller's model was made with: the answer and this look at one
/// revision.
fn check_expected(project: &Project, expect: &BTreeMap<String, String>) -> Result<(), Problem> {
    let mut first: Option<Problem> = None;
    let mut mismatches = Map::new();
    for (name, expected) in expect {
        let at = format!("/expect/{name}");
        let reference = lookup::resolve(project, std::slice::from_ref(name)).map_err(|problem| problem.at(&at))?;
        for FeatureReference { view, feature } in &reference {
            let found = lookup::fingerprint(project, view, feature).map(|digest| digest.to_string());
            if found.as_deref() != Some(expected) {
                let found = found.unwrap_or_default();
                let detail = format!(
                    "`{view}.{feature}` has fingerprint {found}, expected was {expected}: its definition has changed \
                     since, so take the model that was made with it, or expect the new one"
                );
                mismatches.insert(format!("{view}.{feature}"), json!({ "expected": expected, "found": found }));
                first.get_or_insert_with(|| {
                    let problem = Problem::conflict(detail).at(&at);
                    problem.with("expected", json!(expected)).with("found", json!(found))
                });
            }
        }
    }
    first.map_or(Ok(()), |problem| Err(problem.with("mismatches", Value::Object(mismatches))))
}

pub(super) fn find(
    app: &App,
    live: &Live,
    wanted: &[FeatureReference],
    entities: &BTreeMap<String, Vec<Value>>,
    request: &BTreeMap<String, Vec<Value>>,
) -> Result<Found, Problem> {
    let most = app.request_entities();
    if let Some((name, rows)) = entities.iter().chain(request).find(|(_, rows)| rows.len() > most) {
        let detail = format!(
            "`{name}` has {} values, {most} are taken at once (limits.request_entities): ask in parts",
            rows.len()
        );
        return Err(Problem::unprocessable(detail).at(format!("/entities/{name}")));
    }
    let udf = |view: &str, feature: &str| live.on_demand.get(&(view.to_owned(), feature.to_owned())).cloned();
    let served = Served {
        project: &live.revision.project,
        layout: &live.compiled.layout,
        online: &*live.online,
        on_demand_udf: &udf,
    };
    let asked = Lookup { features: wanted, entities, request, now_us: app.clock().now_us() };
    let found = lookup::lookup(&served, &asked)?;
    app.metrics().lookups(found.entity_rows);
    Ok(found)
}

fn column_json(column: &Column, int64: Int64As) -> Value {
    let rows = 0..column.statuses.len();
    let times = |times: &[Option<i64>]| -> Value { times.iter().map(|us| us.map_or(Value::Null, time_json)).collect() };
    json!({
        "fingerprint": column.fingerprint.to_string(),
        "values": rows.map(|row| values::to_json(&column.values, row, int64)).collect::<Value>(),
        "statuses": column.statuses.iter().map(|status| status.name()).collect::<Value>(),
        "event_timestamps": times(&column.rows.event_us),
        "valid_until": times(&column.rows.valid_until_us),
        "stale": column.rows.stale.iter().copied().collect::<Value>(),
        "reasons": column.reasons.iter().cloned().collect::<Value>(),
    })
}

/// Keys and request data of a view out of what stands in a URL, each as a column of one value.
pub(super) fn typed_keys(
    project: &Project,
    view: &str,
    given: &mut BTreeMap<String, String>,
) -> (BTreeMap<String, Vec<Value>>, BTreeMap<String, Vec<Value>>) {
    let (mut entities, mut request) = (BTreeMap::new(), BTreeMap::new());
    for view in views_behind(project, view) {
        for key in project.feature_views.get(view).into_iter().flat_map(|view| &view.join_keys) {
            if let Some(text) = given.remove(&key.name) {
                entities.insert(key.name.clone(), vec![values::from_text(key.kind, &text)]);
            }
        }
        for field in project.on_demand_feature_views.get(view).into_iter().flat_map(|view| &view.request) {
            if let Some(text) = given.remove(&field.name) {
                request.insert(field.name.clone(), vec![values::from_text(field.kind, &text)]);
            }
        }
    }
    (entities, request)
}

/// A view and all that its on-demand features read.
pub(super) fn views_behind<'a>(project: &'a Project, view: &'a str) -> Vec<&'a str> {
    let mut views = vec![view];
    let mut next = 0;
    while let Some(view) = views.get(next) {
        next += 1;
        let features = project.on_demand_feature_views.get(*view).into_iter().flat_map(|view| &view.features);
        for input in features.flat_map(|feature| &feature.inputs) {
            if let crate::define::OnDemandInput::Feature { view, .. } = input
                && !views.contains(&view.as_str())
            {
                views.push(view);
            }
        }
    }
    views
}

fn entity_json(
    wanted: &[FeatureReference],
    found: &Found,
    entities: &BTreeMap<String, Vec<Value>>,
    int64: Int64As,
) -> Value {
    let entity: Map<String, Value> = entities
        .iter()
        .filter_map(|(name, values)| values.first().map(|value| (name.clone(), value.clone())))
        .collect();
    let mut features = Map::new();
    for (reference, column) in wanted.iter().zip(&found.columns) {
        let status = column.statuses.first().map(|status| status.name());
        let mut feature = json!({ "value": Value::Null, "status": status });
        if status.is_some() {
            feature["value"] = values::to_json(&column.values, 0, int64);
        }
        if let Some(Some(reason)) = column.reasons.first() {
            feature["reason"] = json!(reason);
        }
        features.insert(reference.feature.clone(), feature);
    }
    let rows = found.columns.first().map(|column| &column.rows);
    let first = |times: Option<&Vec<Option<i64>>>| {
        times.and_then(|times| times.first().copied().flatten()).map_or(Value::Null, time_json)
    };
    json!({
        "entity": entity,
        "event_timestamp": first(rows.map(|rows| &rows.event_us)),
        "valid_until": first(rows.map(|rows| &rows.valid_until_us)),
        "stale": rows.and_then(|rows| rows.stale.first().copied()).unwrap_or(false),
        "features": features,
    })
}
