//! Which request goes where, and what happens around every one.

use super::definitions;
use super::extract::{Options, Params, ok};
use super::{App, Problem, events, explain, features, jobs, letters, modules, openapi, peek, revisions};
use crate::define::DocumentKind;
use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, get, post, put};
use serde_json::json;

const PROJECT: &str = "/v1/projects/{project}";

/// Parts of the interface that later versions bring: they answer so, not as if they were misspelt.
const LATER: [&str; 3] = ["files", "feast", "tokens"];

/// All of the interface.
pub fn router(app: App) -> Router {
    let mut router = Router::new();
    for (path, method_router) in routes() {
        router = router.route(&path, method_router);
    }
    router
        .method_not_allowed_fallback(not_allowed)
        .fallback(no_route)
        .layer(from_fn_with_state(app.clone(), around))
        .with_state(app)
}

/// Paths with what answers there. `openapi` describes the same ones; a test holds them together.
pub(super) fn routes() -> Vec<(String, MethodRouter<App>)> {
    let mut routes = vec![
        ("/healthz".to_owned(), get(healthz)),
        ("/readyz".to_owned(), get(readyz)),
        ("/metrics".to_owned(), get(metrics)),
        ("/openapi.json".to_owned(), get(openapi_json)),
        ("/v1/schema".to_owned(), get(definitions::get_schema)),
        ("/v1/projects".to_owned(), get(letters::get_projects)),
    ];
    let in_project: [(&str, MethodRouter<App>); 19] = [
        ("/modules", get(modules::get_modules).post(modules::post_module)),
        ("/modules/{name}", get(modules::get_module)),
        ("/modules/{name}/{version}", get(modules::get_module_version).delete(modules::delete_module_version)),
        ("/definitions", put(definitions::put_definitions).get(definitions::get_definitions)),
        ("/revisions", get(revisions::get_revisions)),
        ("/rollback", post(revisions::post_rollback)),
        ("/sources/{name}/events", post(events::post_events)),
        ("/sources/{name}/peek", get(peek::get_peek)),
        ("/features", post(features::post_features)),
        ("/feature-views/{name}/values", get(features::get_values)),
        ("/feature-views/{name}/features/{feature}", delete(revisions::delete_feature)),
        ("/feature-views/{name}/pause", post(revisions::post_pause)),
        ("/feature-views/{name}/resume", post(revisions::post_resume)),
        ("/explain", get(explain::get_explain)),
        ("/dead-letters", get(letters::get_letters)),
        ("/dead-letters/replay", post(letters::post_replay)),
        ("/status", get(letters::get_status)),
        ("/jobs", get(jobs::get_jobs).post(jobs::post_job)),
        ("/jobs/{id}", get(jobs::get_job).delete(jobs::delete_job)),
    ];
    routes.extend(in_project.map(|(path, method_router)| (format!("{PROJECT}{path}"), method_router)));
    for (path, kind) in DOCUMENT_PATHS {
        let all = move |State(app): State<App>, Params(project): Params<String>| {
            definitions::get_documents(app, project, kind)
        };
        let one = move |State(app): State<App>, Params((project, name)): Params<(String, String)>| {
            definitions::get_document(app, project, kind, name)
        };
        let remove = move |State(app): State<App>,
                           Params((project, name)): Params<(String, String)>,
                           options: Options,
                           headers: HeaderMap| {
            revisions::delete_document(app, project, kind, name, options, headers)
        };
        routes.push((format!("{PROJECT}/{path}"), get(all)));
        routes.push((format!("{PROJECT}/{path}/{{name}}"), get(one).delete(remove)));
    }
    routes
}

/// Where the documents of each kind are.
pub(super) const DOCUMENT_PATHS: [(&str, DocumentKind); 4] = [
    ("sources", DocumentKind::Source),
    ("entities", DocumentKind::Entity),
    ("feature-views", DocumentKind::FeatureView),
    ("feature-services", DocumentKind::FeatureService),
];

/// Counts and times every request, and refuses those that a web page of someone else's made a browser send.
async fn around(State(app): State<App>, matched: Option<MatchedPath>, request: Request, next: Next) -> Response {
    let started_us = app.clock().monotonic_us();
    let method = request.method().to_string();
    let response = match foreign(request.headers()) {
        Some(problem) => problem.into_response(),
        None => next.run(request).await,
    };
    let route = matched.as_ref().map_or("none", MatchedPath::as_str);
    let took_us = app.clock().monotonic_us().saturating_sub(started_us);
    app.metrics().request(&method, route, response.status().as_u16(), took_us);
    response
}

/// Only this machine may come in, so a page from elsewhere must not come in by way of a browser on it: neither under
/// its own origin nor by a name that it has let point here.
fn foreign(headers: &HeaderMap) -> Option<Problem> {
    let host = headers.get(header::HOST).map(|host| host.to_str().unwrap_or_default());
    let origin = headers.get(header::ORIGIN).map(|origin| origin.to_str().unwrap_or_default());
    let origin_host = origin.map(|origin| origin.split_once("://").map_or(origin, |(_, host)| host));
    let strange = [host, origin_host].into_iter().flatten().find(|host| !is_loopback(host))?;
    let detail = format!("`{strange}` is not this machine: requests may only come from it, to localhost or 127.0.0.1");
    Some(Problem::new(StatusCode::FORBIDDEN, "foreign", "requests from elsewhere are refused", detail))
}

fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

async fn healthz() -> Result<Response, Problem> {
    ok(&json!({ "status": "ok" }))
}

/// The platform is open before anything is answered, so whoever gets an answer can look up.
async fn readyz(State(app): State<App>) -> Result<Response, Problem> {
    ok(&json!({ "status": "ready", "projects": app.platform().projects() }))
}

async fn metrics(State(app): State<App>) -> Result<Response, Problem> {
    let text =
        app.blocking(|app| app.metrics().text(app.platform()).map_err(|error| Problem::internal(error.to_string())));
    let media_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, media_type)], text.await?).into_response())
}

async fn openapi_json() -> Result<Response, Problem> {
    ok(&openapi::document())
}

async fn later(method: Method, uri: Uri) -> Problem {
    Problem::not_yet(&format!("{method} {}", uri.path()))
}

async fn not_allowed(method: Method, uri: Uri) -> Problem {
    let detail = format!("{} does not take {method}; /openapi.json says what it takes", uri.path());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "this path does not take that method", detail)
}

async fn no_route(method: Method, uri: Uri) -> Problem {
    if uri.path().split('/').any(|part| LATER.contains(&part)) {
        return later(method, uri).await;
    }
    Problem::not_found(format!("there is nothing at {}; /openapi.json lists all paths", uri.path()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_is_described_and_every_description_has_a_route() {
        let document = openapi::document();
        let described: Vec<&String> =
            document["paths"].as_object().into_iter().flat_map(|paths| paths.keys()).collect();
        let mut served: Vec<String> = routes().into_iter().map(|(path, _)| path).collect();
        served.sort();
        let mut sorted = described.clone();
        sorted.sort();
        assert_eq!(sorted, served.iter().collect::<Vec<_>>());
    }

    #[test]
    fn only_names_of_this_machine_are_let_in() {
        for host in ["localhost", "LOCALHOST:6566", "127.0.0.1:6566", "[::1]:6566", "127.1.2.3"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["example.com", "localhost.example.com", "10.0.0.1:6566", "", "null"] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
