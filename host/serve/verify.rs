//! `verify` over HTTP: the stream's values against batch, while the caller waits.

use super::extract::{Params, ok, read_json};
use super::{App, Problem};
use crate::platform::BatchSettings;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use serde::Deserialize;
use std::sync::Arc;

const BODY_BYTES: usize = 1 << 20;
/// What sorting may take, at most: the state that is verified is in memory already.
const MEMORY_BYTES: usize = 1 << 30;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct VerifyRequest {
    /// All if none are named.
    #[serde(default)]
    views: Vec<String>,
}

/// `POST /verify`.
pub async fn post_verify(
    State(app): State<App>,
    Params(project): Params<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let request: VerifyRequest = read_json(&headers, body, BODY_BYTES).await?;
    app.blocking(move |app| {
        let directory = app.temporary_directory();
        std::fs::create_dir_all(directory)
            .map_err(|error| Problem::unavailable(format!("cannot make {}: {error}", directory.display())))?;
        let mut settings = BatchSettings::new(directory);
        settings.memory_limit_bytes = MEMORY_BYTES;
        ok(&app.project(&project)?.verify(&request.views, &settings, Arc::new(|_| {}))?)
    })
    .await
}
