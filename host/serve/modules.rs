//! Modules over HTTP: upload, look, take back.

use super::extract::{Options, Params, answer, media_type, ok, read_body, unsupported_type};
use super::{App, Problem};
use crate::registry::Put;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// What the engine takes too: languages that carry their interpreter need it.
const BODY_BYTES: usize = 32 << 20;
const WASM: &str = "application/wasm";

/// `POST /modules?name=…`.
pub async fn post_module(
    State(app): State<App>,
    Params(project): Params<String>,
    mut options: Options,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    app.writable()?;
    let name = options.take("name");
    options.finish(&["name"])?;
    let name =
        name.ok_or_else(|| Problem::unprocessable("name the module: POST …/modules?name=ecommerce").at("?name"))?;
    crate::define::check_name(&name).map_err(|wrong| Problem::unprocessable(wrong).at("?name"))?;
    let media_type = media_type(&headers);
    if media_type != WASM && media_type != "application/octet-stream" {
        return Err(unsupported_type(&media_type, WASM));
    }
    let bytes = read_body(&headers, body, BODY_BYTES).await?;
    app.blocking(move |app| match app.platform().push_module(&project, &name, &bytes)? {
        Put::Created(record) => answer(StatusCode::CREATED, &record),
        Put::Existed(record) => ok(&record),
    })
    .await
}

/// `GET /modules`.
pub async fn get_modules(State(app): State<App>, Params(project): Params<String>) -> Result<Response, Problem> {
    app.blocking(move |app| ok(&json!({ "modules": app.platform().registry(&project)?.modules()? }))).await
}

/// `GET /modules/{name}`: its versions.
pub async fn get_module(
    State(app): State<App>,
    Params((project, name)): Params<(String, String)>,
) -> Result<Response, Problem> {
    app.blocking(move |app| {
        let registry = app.platform().registry(&project)?;
        let versions = registry.versions(&name)?;
        if versions.is_empty() {
            let known = registry.modules()?;
            let hint = crate::define::hint(&name, known.iter().map(|record| record.name.as_str()));
            return Err(Problem::not_found(format!("there is no module `{name}`; {hint}")));
        }
        ok(&json!({ "name": name, "versions": versions }))
    })
    .await
}

/// `GET /modules/{name}/{version}`: what is known of it, or its bytes.
pub async fn get_module_version(
    State(app): State<App>,
    Params((project, name, version)): Params<(String, String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let wants_bytes = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).is_some_and(|accept| {
        accept.split(',').any(|taken| taken.split(';').next().unwrap_or_default().trim() == WASM)
    });
    app.blocking(move |app| {
        let registry = app.platform().registry(&project)?;
        let record = registry.module(&name, Some(number(&version)?))?;
        if !wants_bytes {
            return ok(&record);
        }
        let bytes = registry.module_bytes(&name, &record.digest)?;
        Ok(([(header::CONTENT_TYPE, WASM)], bytes).into_response())
    })
    .await
}

/// `DELETE /modules/{name}/{version}`.
pub async fn delete_module_version(
    State(app): State<App>,
    Params((project, name, version)): Params<(String, String, String)>,
) -> Result<Response, Problem> {
    app.writable()?;
    app.blocking(move |app| {
        app.platform().registry(&project)?.delete_module(&name, number(&version)?)?;
        Ok(StatusCode::NO_CONTENT.into_response())
    })
    .await
}

fn number(version: &str) -> Result<u32, Problem> {
    version.parse().map_err(|_| Problem::not_found(format!("`{version}` is no version: versions are numbers from 1")))
}
