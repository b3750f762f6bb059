//! Definitions over HTTP: what would change, making it so, and what is registered.

use super::extract::{Options, Params, answer, media_type, ok, parse_json, read_body, unsupported_type};
use super::{App, Problem, jobs};
use crate::define::{
    DefinitionFile, Definitions, DocumentKind, Lock, Project, Upgrade, definition_schema, hint, read_files, read_text,
};
use crate::platform::{Applied, PlatformError};
use crate::registry::{ApplyOptions, Proposal};
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// More than anyone writes by hand.
const BODY_BYTES: usize = 32 << 20;
/// A directory of definitions with its lock, as the command line sends it: modules and data files lie beside it, on the
/// machine of this process.
pub const DIRECTORY_TYPE: &str = "application/vnd.onefold.directory+json";
const TAKEN: &str = "application/yaml (documents) or application/json (a list of them)";

/// The body of type [`DIRECTORY_TYPE`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Directory {
    pub files: Vec<DefinitionFile>,
    pub lock: Lock,
    /// Run what names connections with pushes and the embedded store.
    #[serde(default)]
    pub embedded: bool,
}

/// `PUT /definitions`.
pub async fn put_definitions(
    State(app): State<App>,
    Params(project): Params<String>,
    mut options: Options,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let how = How::asked("apply", &mut options)?;
    let mut apply = ApplyOptions {
        upgrade: options.take("upgrade").map_or(Upgrade::None, |names| Upgrade::named(&names)),
        locked: options.flag("locked")?,
        allow_breaking: options.flag("allow_breaking")?,
        prune: options.flag("prune")?,
        take_over: options.take("take_over"),
        from_now: options.begins_now()?,
        same_rows: options.flag("same_rows")?,
        expected: if_match(&headers)?,
        lock: Lock::default(),
        alone: false,
    };
    options.finish(&[
        "dry_run",
        "upgrade",
        "locked",
        "allow_breaking",
        "prune",
        "take_over",
        "from",
        "same_rows",
        "wait",
    ])?;
    if !how.dry_run {
        app.writable()?;
    }
    let media_type = media_type(&headers);
    let body = read_body(&headers, body, BODY_BYTES).await?;
    app.blocking(move |app| {
        let of_directory = media_type == DIRECTORY_TYPE;
        let definitions = match media_type.as_str() {
            DIRECTORY_TYPE => {
                let sent: Directory = parse_json(&body)?;
                apply.lock = sent.lock;
                let definitions = read_files(&sent.files)?;
                if sent.embedded { definitions.embedded() } else { definitions }
            }
            "application/yaml" | "application/x-yaml" | "text/yaml" | "application/json" => read_body_text(&body)?,
            other => return Err(unsupported_type(other, TAKEN)),
        };
        let proposal = app.platform().plan(&project, &definitions, &apply)?;
        let mut told = serde_json::to_value(&proposal.plan).map_err(|error| Problem::internal(error.to_string()))?;
        if of_directory {
            told["lock"] = json!(proposal.lock);
            told["tests"] = json!(proposal.tests.len());
            told["text"] = json!(proposal.plan.to_string());
        }
        make_live(app, &project, proposal, how, told)
    })
    .await
}

/// What is to become of a proposal.
#[derive(Clone, Copy, Debug)]
pub(super) struct How {
    /// Of the job that makes it live.
    pub kind: &'static str,
    /// It is only asked what would change.
    pub dry_run: bool,
    /// The answer comes when it is live.
    pub wait: bool,
}

impl How {
    pub fn asked(kind: &'static str, options: &mut Options) -> Result<How, Problem> {
        Ok(How { kind, dry_run: options.flag("dry_run")?, wait: options.wait()? })
    }
}

/// Applies a proposal unless it was only asked for, and answers with what was told of it: when it is live, or at once
/// with the job that makes it so.
pub(super) fn make_live(
    app: &App,
    project: &str,
    proposal: Proposal,
    how: How,
    mut told: Value,
) -> Result<Response, Problem> {
    if how.dry_run {
        let number = told["revision"].clone();
        return with_revision(ok(&told)?, &number);
    }
    if how.wait {
        let applied = app.platform().apply_watched(project, &proposal, Arc::new(|_| ()), Arc::default())?;
        tell(&mut told, &applied);
        let number = told["revision"].clone();
        return with_revision(ok(&told)?, &number);
    }
    // What can be known at once is said at once.
    proposal.check_breaks().map_err(PlatformError::from)?;
    let (working, project, mut result) = (app.clone(), project.to_owned(), told.clone());
    let job = jobs::start(app, how.kind, project.clone(), move |job| {
        let applied = working.platform().apply_watched(&project, &proposal, job.progress(), job.cancelled());
        Ok(jobs::unless_cancelled(applied)?.map(|applied| {
            tell(&mut result, &applied);
            result
        }))
    })?;
    told["job"] = json!(job);
    answer(StatusCode::ACCEPTED, &told)
}

fn tell(told: &mut Value, applied: &Applied) {
    told["revision"] = json!(applied.revision.number);
    told["cut_over_pause_us"] = json!(applied.cut_over_pause_us);
}

/// `GET /definitions`.
pub async fn get_definitions(State(app): State<App>, Params(project): Params<String>) -> Result<Response, Problem> {
    let host = app.project(&project)?;
    let live = host.live()?;
    let revision = &live.revision;
    let mut told = json!({ "revision": revision.number, "project": revision.project.name });
    for kind in DocumentKind::ALL {
        told[kind.name()] = documents(&revision.project, kind)?.into_values().collect();
    }
    told["modules"] = json!(revision.project.modules);
    with_revision(ok(&told)?, &json!(revision.number))
}

/// `GET /{kind}`: all of one kind.
pub async fn get_documents(app: App, project: String, kind: DocumentKind) -> Result<Response, Problem> {
    let host = app.project(&project)?;
    let live = host.live()?;
    let revision = &live.revision;
    let all: Value = documents(&revision.project, kind)?.into_values().collect();
    let mut told = json!({ "revision": revision.number });
    told[kind.name()] = all;
    ok(&told)
}

/// `GET /{kind}/{name}`.
pub async fn get_document(app: App, project: String, kind: DocumentKind, name: String) -> Result<Response, Problem> {
    let host = app.project(&project)?;
    let live = host.live()?;
    let revision = &live.revision;
    let mut all = documents(&revision.project, kind)?;
    match all.remove(&name) {
        Some(document) => ok(&document),
        None => {
            let hint = hint(&name, all.keys().map(String::as_str));
            Err(Problem::not_found(format!("there is no {} `{name}`; {hint}", kind.singular())))
        }
    }
}

/// `GET /schema`: the JSON Schema of definitions.
pub async fn get_schema() -> Result<Response, Problem> {
    ok(&definition_schema())
}

/// All documents of a kind by name, each with its `kind` first.
fn documents(project: &Project, kind: DocumentKind) -> Result<Map<String, Value>, Problem> {
    let mut found = Map::new();
    let mut add = |kind: &str, name: &String, document: Result<Value, serde_json::Error>| {
        let document = document.map_err(|error| Problem::internal(error.to_string()))?;
        let mut members = Map::new();
        members.insert("kind".to_owned(), json!(kind));
        if let Value::Object(rest) = document {
            members.extend(rest);
        }
        found.insert(name.clone(), Value::Object(members));
        Ok::<(), Problem>(())
    };
    match kind {
        DocumentKind::Source => {
            for (name, one) in &project.sources {
                add("source", name, serde_json::to_value(one))?;
            }
        }
        DocumentKind::Entity => {
            for (name, one) in &project.entities {
                add("entity", name, serde_json::to_value(one))?;
            }
        }
        DocumentKind::FeatureView => {
            for (name, one) in &project.feature_views {
                add("feature_view", name, serde_json::to_value(one))?;
            }
            for (name, one) in &project.on_demand_feature_views {
                add("on_demand_feature_view", name, serde_json::to_value(one))?;
            }
        }
        DocumentKind::FeatureService => {
            for (name, one) in &project.feature_services {
                add("feature_service", name, serde_json::to_value(one))?;
            }
        }
    }
    Ok(found)
}

fn read_body_text(body: &[u8]) -> Result<Definitions, Problem> {
    let text =
        std::str::from_utf8(body).map_err(|error| Problem::malformed(format!("the body is no UTF-8: {error}")))?;
    Ok(read_text("body", text)?)
}

/// `If-Match: 7`, with quotes or without.
pub(super) fn if_match(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let Some(value) = headers.get(header::IF_MATCH) else { return Ok(None) };
    let number = value.to_str().ok().and_then(|text| text.trim().trim_matches('"').parse().ok());
    match number {
        Some(number) => Ok(Some(number)),
        None => Err(Problem::unprocessable("If-Match takes the number of a revision: If-Match: 7").at("If-Match")),
    }
}

fn with_revision(mut response: Response, number: &Value) -> Result<Response, Problem> {
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{number}\"")) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    Ok(response)
}
