//! How a command reaches the data: through the server it is sent to, or the HTTP of the process that holds them, or, when
//! none does, through the same router in this process.

use super::{Failure, Global};
use crate::platform::{Platform, PlatformSettings};
use crate::serve::{App, ServeSettings, router};
use crate::storage::{DataLock, Halt, LocalStorage, Owner, Storage, StorageError};
use anyhow::Context;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request as HttpRequest;
use serde::Serialize;
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use url::form_urlencoded::byte_serialize;

/// An apply folds the whole log of a source before it answers.
const TIMEOUT: Duration = Duration::from_secs(24 * 3600);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_BYTES: u64 = 1 << 30;

/// Someone who answers requests.
pub struct Reach {
    way: Way,
    /// `--project`.
    project: Option<String>,
}

enum Way {
    Http { agent: ureq::Agent, base: String },
    Here { router: Router, runtime: tokio::runtime::Runtime, platform: Arc<Platform>, _lock: DataLock },
}

/// What came back.
pub struct Answer {
    pub status: u16,
    pub retry_after: Option<u64>,
    pub body: Vec<u8>,
}

const NO_PROJECT: &str = "there is no project yet";

impl Reach {
    /// Finds who holds the data, or opens them. `command` is what others are told meanwhile (`onefold plan`).
    pub fn open(global: &Global, command: &str) -> anyhow::Result<Reach> {
        let data = &global.settings.data;
        let project = global.project.clone();
        if let Some(server) = &global.server {
            return Ok(Reach { way: Way::Http { agent: agent(), base: server.url.clone() }, project });
        }
        if let Some(owner) = DataLock::holder(data)? {
            let Some(listen) = owner.listen.clone() else {
                let directory = data.display().to_string();
                return Err(StorageError::Held { directory, owner: Some(owner) }.into());
            };
            return Ok(Reach { way: Way::Http { agent: agent(), base: format!("http://{listen}") }, project });
        }
        let lock = DataLock::acquire(data, &owner(command, None))?;
        let platform = open_platform(global, None)?;
        let app = App::new(platform.clone(), global.clock.clone(), serve_settings(global, false));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Reach { way: Way::Here { router: router(app), runtime, platform, _lock: lock }, project })
    }

    /// Whether another process answers.
    pub fn is_elsewhere(&self) -> bool {
        matches!(self.way, Way::Http { .. })
    }

    /// The project that is meant: `--project`, else the only one there is.
    pub fn project(&self) -> anyhow::Result<String> {
        if let Some(project) = &self.project {
            return Ok(project.clone());
        }
        let told = self.get("/v1/projects")?;
        let names: Vec<&str> = told["projects"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        match names.as_slice() {
            [only] => Ok((*only).to_owned()),
            [] => Err(Failure::Input(format!("{NO_PROJECT}: `onefold apply DIR` makes one")).into()),
            several => {
                let message = format!("say which project with --project: there are {}", several.join(", "));
                Err(Failure::Input(message).into())
            }
        }
    }

    /// The project that something is brought for, which need not be there yet.
    pub fn project_to_be(&self) -> anyhow::Result<String> {
        self.project().map_err(|error| match error.downcast_ref::<Failure>() {
            Some(Failure::Input(text)) if self.project.is_none() && text.starts_with(NO_PROJECT) => {
                let message = "say whose it is with --project, which makes the project if it is not there";
                Failure::Input(format!("{NO_PROJECT}: {message}")).into()
            }
            _ => error,
        })
    }

    /// A path below the project that is meant, its parts escaped.
    pub fn path(&self, parts: &[&str]) -> anyhow::Result<String> {
        Ok(project_path(&self.project()?, parts))
    }

    pub fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.send("GET", path, &[], Vec::new())?.json()
    }

    pub fn post_json(&self, path: &str, body: &impl Serialize) -> anyhow::Result<Value> {
        let body = serde_json::to_vec(body)?;
        self.send("POST", path, &[("content-type", "application/json")], body)?.json()
    }

    /// One request. An answer of any status is an answer; only silence is an error.
    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> anyhow::Result<Answer> {
        match &self.way {
            Way::Http { agent, base } => send_http(agent, method, &format!("{base}{path}"), headers, body),
            Way::Here { router, runtime, .. } => {
                let mut request = HttpRequest::builder().method(method).uri(path);
                for (name, value) in headers {
                    request = request.header(*name, *value);
                }
                let request = request.body(Body::from(body))?;
                runtime.block_on(async {
                    let Ok(response) = call(router.clone(), request).await;
                    let status = response.status().as_u16();
                    let retry_after = retry_after(response.headers().get("retry-after").map(|value| value.as_bytes()));
                    let body = to_bytes(response.into_body(), usize::MAX).await?.to_vec();
                    Ok(Answer { status, retry_after, body })
                })
            }
        }
    }
}

impl Drop for Reach {
    fn drop(&mut self) {
        if let Way::Here { platform, .. } = &self.way {
            // What the last checkpoint lacks is still in the log: the next start folds it again.
            if let Err(error) = platform.close() {
                super::note(&format!("warning: the last checkpoint was not written: {error}"));
            }
        }
    }
}

impl Answer {
    /// The text of a success as it came, which no reading of numbers has touched.
    pub fn text(self) -> anyhow::Result<String> {
        match self.status {
            200..300 => Ok(String::from_utf8(self.body)?),
            _ => self.json().map(|_| String::new()),
        }
    }

    /// The JSON of a success; anything else as the failure that it is.
    pub fn json(self) -> anyhow::Result<Value> {
        if self.body.is_empty() && (200..300).contains(&self.status) {
            return Ok(Value::Null);
        }
        let told: Value = serde_json::from_slice(&self.body)
            .with_context(|| format!("the server answered {} and no JSON", self.status))?;
        match self.status {
            200..300 => Ok(told),
            status => {
                let detail = told["detail"].as_str().unwrap_or("the server said no more").to_owned();
                Err(Failure::of_status(status, detail).into())
            }
        }
    }
}

/// A path below a project, its parts escaped.
pub fn project_path(project: &str, parts: &[&str]) -> String {
    let mut path = format!("/v1/projects/{}", escaped(project));
    for part in parts {
        path.push('/');
        path.push_str(&escaped(part));
    }
    path
}

/// Text as a part of a path or of a query.
pub fn escaped(text: &str) -> String {
    // `+` means a space only behind the `?`.
    byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20")
}

/// This process as an owner of data.
pub fn owner(command: &str, listen: Option<String>) -> Owner {
    Owner { pid: std::process::id(), command: command.to_owned(), listen }
}

/// Opens the data of this process's settings, which it must own. `halt`: where a test lets the process halt.
pub fn open_platform(global: &Global, halt: Option<&Halt>) -> anyhow::Result<Arc<Platform>> {
    let storage = LocalStorage::open_to_halt(&global.settings.data, halt.cloned())?;
    storage.clear_temporary()?;
    open_platform_over(global, Arc::new(storage))
}

/// The same over a storage of the caller's.
pub fn open_platform_over(global: &Global, storage: Arc<dyn Storage>) -> anyhow::Result<Arc<Platform>> {
    Ok(Platform::open(platform_settings(global), storage, global.clock.clone())?)
}

pub fn platform_settings(global: &Global) -> PlatformSettings {
    PlatformSettings {
        groups: global.settings.groups,
        keep_revisions_us: PlatformSettings::default().keep_revisions_us,
        threads: global.settings.threads,
        checkpoint_every_us: global.settings.checkpoint_every_us,
        idle_us: global.settings.idle_us,
        memory_bytes: global.settings.memory_bytes,
    }
}

pub fn serve_settings(global: &Global, read_only: bool) -> ServeSettings {
    ServeSettings { request_entities: global.settings.request_entities, read_only }
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_connect(Some(CONNECT_TIMEOUT))
        .timeout_global(Some(TIMEOUT))
        // The other end is on this machine, whatever the environment says about the world outside.
        .proxy(None)
        .build()
        .new_agent()
}

fn send_http(
    agent: &ureq::Agent,
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: Vec<u8>,
) -> anyhow::Result<Answer> {
    let mut request = ureq::http::Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let sent = match method {
        "GET" | "DELETE" => agent.run(request.body(())?),
        _ => agent.run(request.body(body)?),
    };
    let outside = |error: ureq::Error| Failure::Outside(format!("no answer from {url}: {error}"));
    let mut response = sent.map_err(outside)?;
    let status = response.status().as_u16();
    let retry_after = retry_after(response.headers().get("retry-after").map(|value| value.as_bytes()));
    let body = response.body_mut().with_config().limit(ANSWER_BYTES).read_to_vec().map_err(outside)?;
    Ok(Answer { status, retry_after, body })
}

fn retry_after(value: Option<&[u8]>) -> Option<u64> {
    std::str::from_utf8(value?).ok()?.parse().ok()
}

/// One request to a service that is always ready, as a router is.
async fn call<S: axum::ServiceExt<HttpRequest>>(mut service: S, request: HttpRequest) -> Result<S::Response, S::Error> {
    service.call(request).await
}

/// Whether a path is a directory that could hold definitions: a clear word before anything is sent.
pub fn check_directory(path: &Path) -> Result<(), Failure> {
    match path.exists() {
        true => Ok(()),
        false => Err(Failure::Input(format!("{}: there is no such directory", path.display()))),
    }
}
