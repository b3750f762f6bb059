//! Long work on the data: verify, snapshots, training sets, applies. A job is started, watched and asked for its
//! result.

use super::extract::{Options, Params, answer, ok, read_json};
use super::{App, Problem};
use crate::decode::parse_rfc3339;
use crate::platform::{
    BatchError, BatchRequest, BatchSettings, MaterializeRequest, PlatformError, Progress, ProjectHost,
};
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
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

pub(super) struct Job {
    kind: &'static str,
    project: String,
    rows: AtomicU64,
    total: AtomicU64,
    /// Whether nobody wants it any more; it sees so itself, between two batches of rows.
    cancelled: Arc<AtomicBool>,
    /// None while it runs.
    ended: Mutex<Option<Ended>>,
}

enum Ended {
    Done(Value),
    Failed(Problem),
    Cancelled,
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
        #[serde(default)]
        as_served: bool,
    },
    Materialize {
        #[serde(default)]
        views: Vec<String>,
        #[serde(default)]
        from: Option<String>,
        #[serde(default)]
        to: Option<String>,
    },
    Rebuild {
        view: String,
    },
}

/// `POST /jobs`: 202 with the id.
pub async fn post_job(
    State(app): State<App>,
    Params(project): Params<String>,
    mut options: Options,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    if let Some(wait) = options.take("wait").filter(|wait| wait != "false") {
        let detail = format!("`wait={wait}`: a job is started and not waited for; its end is in GET /jobs/ID");
        return Err(Problem::unprocessable(detail).at("?wait"));
    }
    options.finish(&["wait"])?;
    let request: Request = read_json(&headers, body, BODY_BYTES).await?;
    let host = app.project(&project)?;
    let kind = match &request {
        Request::Verify { .. } => "verify",
        Request::Snapshot { .. } => "snapshot",
        Request::Historical { .. } => "historical",
        Request::Materialize { .. } => "materialize",
        Request::Rebuild { .. } => "rebuild",
    };
    let id = start(&app, kind, project, move |job| run(&host, &request, job))?;
    answer(StatusCode::ACCEPTED, &json!({ "id": id }))
}

/// Starts work in a thread of its own, as a job: its id. The work gives no result when it was cancelled.
pub(super) fn start(
    app: &App,
    kind: &'static str,
    project: String,
    work: impl FnOnce(&Arc<Job>) -> Result<Option<Value>, Problem> + Send + 'static,
) -> Result<String, Problem> {
    let job = Arc::new(Job {
        kind,
        project,
        rows: AtomicU64::new(0),
        total: AtomicU64::new(0),
        cancelled: Arc::default(),
        ended: Mutex::new(None),
    });
    let id = app.jobs().add(job.clone());
    let run = move || {
        let result = match work(&job) {
            Ok(Some(result)) => Ended::Done(result),
            Ok(None) => Ended::Cancelled,
            Err(problem) => Ended::Failed(problem),
        };
        *job.ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
    };
    std::thread::Builder::new()
        .name(format!("job-{id}"))
        .spawn(run)
        .map_err(|error| Problem::unavailable(format!("no thread can be started for the job: {error}")))?;
    Ok(id.to_string())
}

/// The result of work on the platform; none when it was cancelled.
pub(super) fn unless_cancelled<T>(done: Result<T, PlatformError>) -> Result<Option<T>, Problem> {
    match done {
        Ok(done) => Ok(Some(done)),
        Err(PlatformError::Batch(BatchError::Cancelled)) => Ok(None),
        Err(error) => Err(error.into()),
    }
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
    let (id, job) = app.jobs().find(&project, &id)?;
    ok(&job.told(id))
}

/// `DELETE /jobs/{id}`: 202, it ends soon; 409 when it has ended.
pub async fn delete_job(
    State(app): State<App>,
    Params((project, id)): Params<(String, String)>,
) -> Result<Response, Problem> {
    let (id, job) = app.jobs().find(&project, &id)?;
    if job.has_ended() {
        return Err(Problem::conflict(format!("job `{id}` has ended: there is nothing left to cancel")));
    }
    job.cancelled.store(true, Ordering::Relaxed);
    answer(StatusCode::ACCEPTED, &job.told(id))
}

impl Jobs {
    fn find(&self, project: &str, id: &str) -> Result<(u64, Arc<Job>), Problem> {
        let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        let found = id.parse().ok().and_then(|id: u64| Some((id, jobs.get(&id)?.clone())));
        found
            .filter(|(_, job)| job.project == project)
            .ok_or_else(|| Problem::not_found(format!("there is no job `{id}`: see GET /v1/projects/{project}/jobs")))
    }

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
    /// What is to be told how far the work is.
    pub fn progress(self: &Arc<Job>) -> Arc<dyn Fn(Progress) + Send + Sync> {
        let seen = self.clone();
        Arc::new(move |progress: Progress| {
            seen.rows.fetch_max(progress.rows, Ordering::Relaxed);
            seen.total.fetch_max(progress.total, Ordering::Relaxed);
        })
    }

    /// Set once nobody wants the work any more.
    pub fn cancelled(&self) -> Arc<AtomicBool> {
        self.cancelled.clone()
    }

    fn has_ended(&self) -> bool {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    fn told(&self, id: u64) -> Value {
        let progress =
            json!({ "rows": self.rows.load(Ordering::Relaxed), "total": self.total.load(Ordering::Relaxed) });
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let (state, result, error) = match &*ended {
            None if self.cancelled.load(Ordering::Relaxed) => ("cancelling", Value::Null, Value::Null),
            None => ("running", Value::Null, Value::Null),
            Some(Ended::Done(result)) => ("done", result.clone(), Value::Null),
            Some(Ended::Failed(problem)) => ("failed", Value::Null, problem.to_json()),
            Some(Ended::Cancelled) => ("cancelled", Value::Null, Value::Null),
        };
        json!({ "id": id.to_string(), "kind": self.kind, "state": state, "progress": progress, "result": result, "error": error })
    }
}

/// The result; none when it was cancelled.
fn run(host: &ProjectHost, request: &Request, job: &Arc<Job>) -> Result<Option<Value>, Problem> {
    let progress = job.progress();
    let settings = BatchSettings { cancelled: job.cancelled(), ..BatchSettings::new(std::env::temp_dir()) };
    let instant = |name: &str, text: &Option<String>| {
        let parsed = text.as_ref().map(|text| parse_rfc3339(text.as_bytes()));
        parsed.transpose().map_err(|reason| {
            let text = text.as_deref().unwrap_or_default();
            Problem::unprocessable(format!("{name} `{text}`: {reason}")).at(format!("/{name}"))
        })
    };
    let done = match request {
        Request::Verify { views } => host.verify(views, &settings, progress).map(serde_json::to_value),
        Request::Snapshot { view, as_of, out } => {
            let as_of_us = instant("as_of", as_of)?;
            let request = BatchRequest { settings, progress };
            host.snapshot(view, as_of_us, out, request).map(serde_json::to_value)
        }
        Request::Historical {
            entities,
            reproduce: Some(file),
            features: None,
            timestamp: None,
            as_served: false,
            out,
        } => {
            let request = BatchRequest { settings, progress };
            host.reproduce(file, entities.as_deref(), out, request).map(serde_json::to_value)
        }
        Request::Historical {
            entities: Some(entities),
            features: Some(features),
            timestamp,
            reproduce: None,
            out,
            as_served,
        } => {
            let timestamp = timestamp.as_deref().unwrap_or("event_timestamp");
            let request = BatchRequest { settings, progress };
            host.historical(entities, features, timestamp, out, *as_served, request).map(serde_json::to_value)
        }
        Request::Materialize { views, from, to } => {
            let (from_us, to_us) = (instant("from", from)?, instant("to", to)?);
            let request = MaterializeRequest { views: views.clone(), from_us, to_us };
            host.materialize(&request, &BatchRequest { settings, progress }).map(serde_json::to_value)
        }
        Request::Rebuild { view } => {
            let views = BTreeSet::from([view.clone()]);
            host.rebuild(&views, &BatchRequest { settings, progress }).map(serde_json::to_value)
        }
        Request::Historical { .. } => {
            let detail = "say `entities` and `features`, or `reproduce` (with `entities` where the labels have moved)";
            return Err(Problem::unprocessable(detail).at("/reproduce"));
        }
    };
    unless_cancelled(done)?.transpose().map_err(|error| Problem::internal(error.to_string()))
}
