//! Dead letters and how the project stands.

use super::extract::{Options, Params, ok, read_json};
use super::{App, Problem};
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use serde::Deserialize;
use serde_json::json;

const BODY_BYTES: usize = 4 << 20;

/// `GET /dead-letters?source=…`.
pub async fn get_letters(
    State(app): State<App>,
    Params(project): Params<String>,
    mut options: Options,
) -> Result<Response, Problem> {
    let source = options.take("source");
    options.finish(&["source"])?;
    app.blocking(move |app| {
        let host = app.project(&project)?;
        if let Some(source) = &source
            && !host.revision().project.sources.contains_key(source)
        {
            let revision = host.revision();
            let hint = crate::define::hint(source, revision.project.sources.keys().map(String::as_str));
            return Err(Problem::not_found(format!("there is no source `{source}`; {hint}")).at("?source"));
        }
        ok(&json!({ "dead_letters": host.dead_letters(source.as_deref())? }))
    })
    .await
}

/// Which letters to replay: these, or all open ones (of a source).
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReplayRequest {
    ids: Option<Vec<String>>,
    source: Option<String>,
}

/// `POST /dead-letters/replay`.
pub async fn post_replay(
    State(app): State<App>,
    Params(project): Params<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    app.writable()?;
    let request: ReplayRequest = read_json(&headers, body, BODY_BYTES).await?;
    app.blocking(move |app| {
        let host = app.project(&project)?;
        ok(&host.replay(request.ids.as_deref(), request.source.as_deref())?)
    })
    .await
}

/// `GET /status`.
pub async fn get_status(State(app): State<App>, Params(project): Params<String>) -> Result<Response, Problem> {
    app.blocking(move |app| ok(&app.project(&project)?.status())).await
}

/// `GET /v1/projects`.
pub async fn get_projects(State(app): State<App>) -> Result<Response, Problem> {
    ok(&json!({ "projects": app.platform().projects() }))
}
