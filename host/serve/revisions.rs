//! What was applied when, back to an older revision, and what is taken out.

use super::definitions::{How, if_match, make_live};
use super::extract::{Options, Params, ok, read_json};
use super::values::time_json;
use super::{App, Problem};
use crate::define::{DocumentKind, Removed};
use crate::registry::{ApplyOptions, Proposal};
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};

const BODY_BYTES: usize = 1 << 16;

/// `GET /revisions`: the newest first.
pub async fn get_revisions(State(app): State<App>, Params(project): Params<String>) -> Result<Response, Problem> {
    app.blocking(move |app| {
        app.project(&project)?;
        let registry = app.platform().registry(&project)?;
        let mut revisions = Vec::new();
        for number in registry.numbers()?.into_iter().rev() {
            let revision = registry.revision_notes(number)?;
            revisions.push(json!({
                "revision": number,
                "created_at": time_json(revision.created_at_us),
                "live": revisions.is_empty(),
                "rollback_to": revision.rollback_to,
                "changes": revision.changes,
            }));
        }
        ok(&json!({ "revisions": revisions }))
    })
    .await
}

/// The body of `POST /rollback`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rollback {
    revision: u64,
}

/// `POST /rollback`: a new revision that is what an older one was.
pub async fn post_rollback(
    State(app): State<App>,
    Params(project): Params<String>,
    options: Options,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let (how, apply) = asked(&app, "rollback", options, &headers)?;
    let Rollback { revision } = read_json(&headers, body, BODY_BYTES).await?;
    app.blocking(move |app| {
        app.project(&project)?;
        let proposal = app.platform().plan_rollback(&project, revision, &apply)?;
        let told = told(&proposal)?;
        make_live(app, &project, proposal, how, told)
    })
    .await
}

/// `POST /feature-views/{name}/pause`: its values stay as they are.
pub async fn post_pause(
    state: State<App>,
    params: Params<(String, String)>,
    options: Options,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    pause(state.0, params.0, true, options, headers).await
}

/// `POST /feature-views/{name}/resume`: its values go on, with all that has come meanwhile.
pub async fn post_resume(
    state: State<App>,
    params: Params<(String, String)>,
    options: Options,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    pause(state.0, params.0, false, options, headers).await
}

async fn pause(
    app: App,
    (project, view): (String, String),
    paused: bool,
    options: Options,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (how, apply) = asked(&app, if paused { "pause" } else { "resume" }, options, &headers)?;
    app.blocking(move |app| {
        app.project(&project)?;
        let proposal = app.platform().plan_pause(&project, &view, paused, &apply)?;
        let told = told(&proposal)?;
        make_live(app, &project, proposal, how, told)
    })
    .await
}

/// `DELETE /{kind}/{name}`.
pub async fn delete_document(
    app: App,
    project: String,
    kind: DocumentKind,
    name: String,
    options: Options,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    remove(app, project, Removed::Document { kind, name }, options, headers).await
}

/// `DELETE /feature-views/{name}/features/{feature}`.
pub async fn delete_feature(
    State(app): State<App>,
    Params((project, view, feature)): Params<(String, String, String)>,
    options: Options,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    remove(app, project, Removed::Feature { view, feature }, options, headers).await
}

async fn remove(
    app: App,
    project: String,
    removed: Removed,
    options: Options,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (how, apply) = asked(&app, "delete", options, &headers)?;
    app.blocking(move |app| {
        app.project(&project)?;
        let proposal = app.platform().plan_removal(&project, &removed, &apply)?;
        let told = told(&proposal)?;
        make_live(app, &project, proposal, how, told)
    })
    .await
}

/// What is to become of it, and how it is to be done.
fn asked(
    app: &App,
    kind: &'static str,
    mut options: Options,
    headers: &HeaderMap,
) -> Result<(How, ApplyOptions), Problem> {
    let how = How::asked(kind, &mut options)?;
    let apply = ApplyOptions {
        allow_breaking: options.flag("allow_breaking")?,
        expected: if_match(headers)?,
        ..ApplyOptions::default()
    };
    options.finish(&["dry_run", "allow_breaking", "wait"])?;
    if !how.dry_run {
        app.writable()?;
    }
    Ok((how, apply))
}

fn told(proposal: &Proposal) -> Result<Value, Problem> {
    let mut told = serde_json::to_value(&proposal.plan).map_err(|error| Problem::internal(error.to_string()))?;
    told["text"] = json!(proposal.plan.to_string());
    Ok(told)
}
