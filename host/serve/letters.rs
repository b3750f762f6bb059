//! Dead letters and how the project stands.

use super::extract::{Options, Params, ok, read_json};
use super::values::time_json;
use super::{App, Problem};
use crate::define::{Project, hint};
use crate::platform::{Live, ProjectHost};
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};

const BODY_BYTES: usize = 4 << 20;
/// An answer with more is for nobody to read, and each letter brings its row along.
const LETTERS_SHOWN: usize = 1000;

/// `GET /dead-letters?source=…`: the newest last.
pub async fn get_letters(
    State(app): State<App>,
    Params(project): Params<String>,
    mut options: Options,
) -> Result<Response, Problem> {
    let source = options.take("source");
    options.finish(&["source"])?;
    app.blocking(move |app| {
        let host = app.project(&project)?;
        let live = host.live()?;
        let sources = &live.revision.project.sources;
        if let Some(source) = source.as_ref().filter(|source| !sources.contains_key(*source)) {
            let hint = hint(source, sources.keys().map(String::as_str));
            return Err(Problem::not_found(format!("there is no source `{source}`; {hint}")).at("?source"));
        }
        let letters = host.dead_letters(source.as_deref())?;
        let total = letters.len();
        let mut told = Vec::new();
        for letter in letters.iter().skip(total.saturating_sub(LETTERS_SHOWN)) {
            let raw = host.raw_record(&letter.source, letter.position)?;
            told.push(json!({
                "id": letter.id(),
                "source": letter.source,
                "position": format!("{}:{}", letter.partition, letter.position),
                "stage": letter.stage,
                "feature": feature_name(&live.revision.project, &json!(letter.refused_by)),
                "reason": letter.reason,
                "message": letter.message,
                "module": letter.module.map(|digest| digest.to_string()),
                "raw": raw.map(|raw| String::from_utf8_lossy(&raw).into_owned()),
                "at": time_json(letter.arrival_us),
                "open": true,
            }));
        }
        ok(&json!({ "dead_letters": told, "total": total }))
    })
    .await
}

/// The feature that a letter is about, by its name now; null when it is about more than one, or one that is gone.
fn feature_name(project: &Project, refused_by: &Value) -> Value {
    let Some(fingerprint) = refused_by["feature"].as_str() else { return Value::Null };
    for view in project.feature_views.values() {
        for feature in &view.features {
            if feature.fingerprint.to_string() == fingerprint {
                return json!(format!("{}.{}", view.name, feature.name));
            }
        }
    }
    Value::Null
}

/// Which letters to replay: these, or all open ones (of a source).
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReplayRequest {
    #[serde(rename = "ids")]
    _ids: Option<Vec<String>>,
    #[serde(rename = "source")]
    _source: Option<String>,
}

/// `POST /dead-letters/replay`.
pub async fn post_replay(
    State(app): State<App>,
    Params(project): Params<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    app.writable()?;
    let _: ReplayRequest = read_json(&headers, body, BODY_BYTES).await?;
    app.project(&project)?;
    Err(Problem::not_yet("replaying letters"))
}

/// `GET /status`.
pub async fn get_status(State(app): State<App>, Params(project): Params<String>) -> Result<Response, Problem> {
    app.blocking(move |app| ok(&status_json(&*app.project(&project)?)?)).await
}

/// The status with times as the interface writes them, and the lag of each source.
fn status_json(host: &ProjectHost) -> Result<Value, Problem> {
    let status = serde_json::to_value(host.status()).map_err(|error| Problem::internal(error.to_string()))?;
    let mut told = status.clone();
    for (name, source) in status["sources"].as_object().into_iter().flatten() {
        let number = |member: &str| source[member].as_u64().unwrap_or(0);
        let time = |member: &str| source[member].as_i64().map_or(Value::Null, time_json);
        told["sources"][name] = json!({
            "position": number("position"),
            "end_position": number("end_position"),
            "lag": number("end_position").saturating_sub(number("position")),
            "rows": number("rows"),
            "null_keys": number("null_keys"),
            "newest": time("newest_us"),
            "clock": time("clock_us"),
        });
    }
    told["views"] = host.live().map(|live| views_json(&live)).unwrap_or_default();
    Ok(told)
}

/// Which tables the values of each view are in.
fn views_json(live: &Live) -> Value {
    let layout = &live.compiled.layout;
    let tables = |view: &crate::rows::ViewLayout| {
        let mut tables: Vec<usize> = view.columns.iter().map(|column| column.table).collect();
        tables.sort_unstable();
        tables.dedup();
        let ids = tables.into_iter().filter_map(|table| layout.tables.get(table)).map(|table| table.id.to_string());
        ids.collect::<Value>()
    };
    layout.views.iter().map(|(name, view)| (name.clone(), json!({ "tables": tables(view) }))).collect()
}

/// `GET /v1/projects`.
pub async fn get_projects(State(app): State<App>) -> Result<Response, Problem> {
    ok(&json!({ "projects": app.platform().projects() }))
}
