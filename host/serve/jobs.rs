//! Long work on the data: verify, snapshots, training sets. A job is started, watched and asked for its result.

use super::extract::{Params, answer, ok, read_json};
use super::{App, Problem};
use crate::decode::parse_rfc3339;
use crate::platform::{BatchRequest, BatchSettings, Progress, ProjectHost};
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

const BODY_BYTES: usize = 1 << 20;
/// Ended jobs are forgotten, oldest first, beyond so many.
const KEPT: usize = 100;

/// The jobs of this process, by number.
#[derive(Default)]
pub struct Jobs {
    started: AtomicU64,
    jobs: Mutex<BTreeMap<u64, Arc<Job>>>,
}

struct Job {
    kind: &'static str,
    project: String,
    rows: AtomicU64,
    total: AtomicU64,
    /// None while it runs.
    ended: Mutex<Option<Result<Value, Problem>>>,
}

/// What `POST /jobs` takes. Files are on the machine of the process.
#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
enum Request {
    Verify {
        #[serde(default)]
        views: Vec<String>,
    },
    Snapshot {
        view: String,
        #[serde(default)]
        as_of: Option<String>,
        out: PathBuf,
    },
    Historical {
        #[serde(default)]
        entities: Option<PathBuf>,
        #[serde(default)]
        features: Option<String>,
        #[serde(default)]
        timestamp: Option<String>,
        /// A training set to make again, instead of features.
        #[serde(default)]
        reproduce: Option<PathBuf>,
        out: PathBuf,
    },
}

/// `POST /jobs`: 202 with the id.
pub async fn post_job(
    State(app): State<App>,
    Params(project): Params<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let request: Request = read_json(&headers, body, BODY_BYTES).await?;
    let host = app.project(&project)?;
    let kind = match &request {
        Request::Verify { .. } => "verify",
        Request::Snapshot { .. } => "snapshot",
        Request::Historical { .. } => "historical",
    };
    let job =
        Arc::new(Job { kind, project, rows: AtomicU64::new(0), total: AtomicU64::new(0), ended: Mutex::new(None) });
    let id = app.jobs().add(job.clone());
    let run = move || {
        let result = run(&host, &request, &job);
        *job.ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
    };
    std::thread::Builder::new()
        .name(format!("job-{id}"))
        .spawn(run)
        .map_err(|error| Problem::unavailable(format!("no thread can be started for the job: {error}")))?;
    answer(StatusCode::ACCEPTED, &json!({ "id": id.to_string() }))
}

/// `GET /jobs`: all that this process remembers.
pub async fn get_jobs(State(app): State<App>, Params(project): Params<String>) -> Result<Response, Problem> {
    let jobs = app.jobs().jobs.lock().unwrap_or_else(PoisonError::into_inner);
    let of_project = jobs.iter().filter(|(_, job)| job.project == project);
    ok(&json!({ "jobs": of_project.map(|(id, job)| job.told(*id)).collect::<Vec<_>>() }))
}

/// `GET /jobs/{id}`: how far it is, and once it has ended its result or why there is none.
pub async fn get_job(
    State(app): State<App>,
    Params((project, id)): Params<(String, String)>,
) -> Result<Response, Problem> {
    let jobs = app.jobs().jobs.lock().unwrap_or_else(PoisonError::into_inner);
    let found = id.parse().ok().and_then(|id: u64| Some((id, jobs.get(&id)?)));
    match found.filter(|(_, job)| job.project == project) {
        Some((id, job)) => ok(&job.told(id)),
        None => Err(Problem::not_found(format!("there is no job `{id}`: see GET /v1/projects/{project}/jobs"))),
    }
}

impl Jobs {
    fn add(&self, job: Arc<Job>) -> u64 {
        let id = self.started.fetch_add(1, Ordering::Relaxed) + 1;
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.insert(id, job);
        let ended = jobs.iter().filter(|(_, job)| job.has_ended()).map(|(id, _)| *id);
        let forgotten: Vec<u64> = ended.take(jobs.len().saturating_sub(KEPT)).collect();
        for id in forgotten {
            jobs.remove(&id);
        }
        id
    }
}

impl Job {
    fn has_ended(&self) -> bool {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    fn told(&self, id: u64) -> Value {
        let progress =
            json!({ "rows": self.rows.load(Ordering::Relaxed), "total": self.total.load(Ordering::Relaxed) });
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let (state, result, error) = match &*ended {
            None => ("running", Value::Null, Value::Null),
            Some(Ok(result)) => ("done", result.clone(), Value::Null),
            Some(Err(problem)) => ("failed", Value::Null, problem.to_json()),
        };
        json!({ "id": id.to_string(), "kind": self.kind, "state": state, "progress": progress, "result": result, "error": error })
    }
}

fn run(host: &ProjectHost, request: &Request, job: &Arc<Job>) -> Result<Value, Problem> {
    let seen = job.clone();
    let progress = Arc::new(move |progress: Progress| {
        seen.rows.fetch_max(progress.rows, Ordering::Relaxed);
        seen.total.fetch_max(progress.total, Ordering::Relaxed);
    });
    let settings = BatchSettings::new(std::env::temp_dir());
    let instant = |text: &String| {
        parse_rfc3339(text.as_bytes())
            .map_err(|reason| Problem::unprocessable(format!("as_of `{text}`: {reason}")).at("/as_of"))
    };
    let told = match request {
        Request::Verify { views } => serde_json::to_value(host.verify(views, &settings, progress)?),
        Request::Snapshot { view, as_of, out } => {
            let as_of_us = as_of.as_ref().map(instant).transpose()?;
            let request = BatchRequest { settings, progress };
            serde_json::to_value(host.snapshot(view, as_of_us, out, request)?)
        }
        Request::Historical { entities, reproduce: Some(file), features: None, timestamp: None, out } => {
            let request = BatchRequest { settings, progress };
            serde_json::to_value(host.reproduce(file, entities.as_deref(), out, request)?)
        }
        Request::Historical { entities: Some(entities), features: Some(features), timestamp, reproduce: None, out } => {
            let timestamp = timestamp.as_deref().unwrap_or("event_timestamp");
            let request = BatchRequest { settings, progress };
            serde_json::to_value(host.historical(entities, features, timestamp, out, request)?)
        }
        Request::Historical { .. } => {
            let detail = "say `entities` and `features`, or `reproduce` (with `entities` where the labels have moved)";
            return Err(Problem::unprocessable(detail).at("/reproduce"));
        }
    };
    told.map_err(|error| Problem::internal(error.to_string()))
}
