//! The HTTP interface: uploads, definitions, events, lookups, and what a machine asks of a server.
//!
//! Knows the platform, the registry, the online store and the fold (for on-demand features); knows no source, no state
//! and no stream. The command line uses the same router without a socket when no process holds the data.

mod definitions;
mod events;
mod explain;
mod explain_case;
mod extract;
mod features;
mod jobs;
mod letters;
pub mod lookup;
#[cfg(test)]
mod lookup_rules;
mod metrics;
mod modules;
mod openapi;
mod peek;
mod problem;
mod revisions;
mod router;
pub mod values;

pub use definitions::{DIRECTORY_TYPE, Directory};
pub use problem::Problem;
pub use router::router;

use crate::clock::Clock;
use crate::platform::{Platform, ProjectHost};
use metrics::Metrics;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;

/// What a server is told.
#[derive(Clone, Debug)]
pub struct ServeSettings {
    /// Entity rows of one lookup.
    pub request_entities: usize,
    /// Lookups only: this process does not own the data.
    pub read_only: bool,
}

/// What all handlers share. Cheap to clone.
#[derive(Clone)]
pub struct App {
    inner: Arc<Inner>,
}

struct Inner {
    platform: Arc<Platform>,
    clock: Arc<dyn Clock>,
    settings: ServeSettings,
    metrics: Metrics,
    jobs: jobs::Jobs,
}

impl App {
    pub fn new(platform: Arc<Platform>, clock: Arc<dyn Clock>, settings: ServeSettings) -> App {
        App {
            inner: Arc::new(Inner {
                platform,
                clock,
                settings,
                metrics: Metrics::default(),
                jobs: jobs::Jobs::default(),
            }),
        }
    }

    fn platform(&self) -> &Arc<Platform> {
        &self.inner.platform
    }

    fn clock(&self) -> &dyn Clock {
        &*self.inner.clock
    }

    fn jobs(&self) -> &jobs::Jobs {
        &self.inner.jobs
    }

    fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }

    fn request_entities(&self) -> usize {
        self.inner.settings.request_entities
    }

    /// A project in which something was applied.
    fn project(&self, name: &str) -> Result<Arc<ProjectHost>, Problem> {
        self.platform().project(name).ok_or_else(|| {
            let projects = self.platform().projects();
            let hint = crate::define::hint(name, projects.iter().map(String::as_str));
            Problem::not_found(format!("there is no project `{name}`; {hint}"))
        })
    }

    /// Refuses what changes data where this process only reads it.
    fn writable(&self) -> Result<(), Problem> {
        match self.inner.settings.read_only {
            false => Ok(()),
            true => Err(Problem::conflict(
                "this process only reads the data; send it to the process that owns it (`onefold dev`)",
            )),
        }
    }

    /// Runs what may wait for a disk or compute for long, away from the threads that answer.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&App) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let app = self.clone();
        match tokio::task::spawn_blocking(move || work(&app)).await {
            Ok(done) => done,
            Err(error) => Err(Problem::internal(format!("the work was cut short: {error}"))),
        }
    }
}

/// Whether a server may listen there: there are no users and no tokens yet, so only this machine may reach it.
pub fn check_listen(listen: &SocketAddr) -> Result<(), String> {
    if listen.ip().is_loopback() {
        return Ok(());
    }
    Err(format!(
        "cannot listen at {listen}: whoever reaches it can do everything, since there are no tokens yet, so only this \
         machine may; listen at 127.0.0.1:{}",
        listen.port()
    ))
}

/// Serves until `shutdown` is ready, then finishes the requests that are under way.
pub async fn run(
    listener: TcpListener,
    app: App,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    axum::serve(listener, router(app)).with_graceful_shutdown(shutdown).await
}

/// Ready when the process is told to stop (SIGINT or SIGTERM).
pub async fn stop_signal() {
    let interrupted = tokio::signal::ctrl_c();
    match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        Ok(mut terminated) => tokio::select! {
            _ = interrupted => {}
            _ = terminated.recv() => {}
        },
        // Without the one signal the other still works.
        Err(_) => {
            let _ = interrupted.await;
        }
    }
}
