//! Errors as `application/problem+json` (RFC 9457): what was sent, the rule, and what to do.

use crate::define::DefineError;
use crate::online::OnlineError;
use crate::platform::{BatchError, LogError, PlatformError};
use crate::registry::RegistryError;
use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

/// An answer that is no success. `kind` is the last part of `type`, for programs; `detail` is for people.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    pub status: StatusCode,
    pub kind: &'static str,
    pub title: &'static str,
    pub detail: String,
    /// What was wrong: a place in the body (`/entities/product_id/3`), a parameter, or a file and line.
    pub path: Option<String>,
    /// Further members, by kind.
    pub more: Map<String, Value>,
    pub retry_after_seconds: Option<u32>,
}

impl Problem {
    pub fn new(status: StatusCode, kind: &'static str, title: &'static str, detail: impl Into<String>) -> Problem {
        let detail = detail.into();
        Problem { status, kind, title, detail, path: None, more: Map::new(), retry_after_seconds: None }
    }

    /// There is no such thing.
    pub fn not_found(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::NOT_FOUND, "not-found", "there is no such thing", detail)
    }

    /// The request can be read and cannot be done as it is.
    pub fn unprocessable(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "unprocessable", "the request cannot be done as it is", detail)
    }

    /// The request cannot be read.
    pub fn malformed(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, "malformed", "the request cannot be read", detail)
    }

    /// What is there now is not what the caller expects.
    pub fn conflict(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::CONFLICT, "conflict", "something else is there now", detail)
    }

    /// Not a fault of the caller; trying again later may help.
    pub fn unavailable(detail: impl Into<String>) -> Problem {
        let title = "not possible at the moment";
        let mut problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", title, detail);
        problem.retry_after_seconds = Some(1);
        problem
    }

    /// The body is larger than what is taken at once.
    pub fn too_large(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "the body is too large", detail)
    }

    /// Part of the interface, and not of this version.
    pub fn not_yet(what: &str) -> Problem {
        let detail = format!("{what} is part of the interface and not of this version yet");
        Problem::new(StatusCode::NOT_IMPLEMENTED, "not-yet", "not in this version", detail)
    }

    /// A fault of this program or of what it stands on.
    pub fn internal(detail: impl Into<String>) -> Problem {
        let title = "the server failed";
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", title, detail)
    }

    /// Says what was wrong.
    pub fn at(mut self, path: impl Into<String>) -> Problem {
        self.path = Some(path.into());
        self
    }

    /// Adds a member.
    pub fn with(mut self, name: &str, value: Value) -> Problem {
        self.more.insert(name.to_owned(), value);
        self
    }

    /// The body.
    pub fn to_json(&self) -> Value {
        let mut body = json!({
            "type": format!("urn:onefold:problem:{}", self.kind),
            "title": self.title,
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        if let Value::Object(members) = &mut body {
            if let Some(path) = &self.path {
                members.insert("path".to_owned(), json!(path));
            }
            members.extend(self.more.clone());
        }
        body
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        if self.status.is_server_error() && self.status != StatusCode::NOT_IMPLEMENTED {
            tracing::warn!(status = self.status.as_u16(), detail = %self.detail, "a request was not served");
        }
        let mut response = Response::new(Body::from(self.to_json().to_string()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.retry_after_seconds {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl From<DefineError> for Problem {
    fn from(error: DefineError) -> Problem {
        let problem = match &error {
            DefineError::Locked(_) => Problem::conflict(error.to_string()),
            DefineError::Wrong(_) | DefineError::Unreadable { .. } => Problem::unprocessable(error.to_string()),
        };
        let places: Vec<Value> = error.problems().iter().map(place_json).collect();
        match error.problems().first() {
            Some(first) => problem.at(format!("{}:{}", first.file, first.line)).with("problems", Value::Array(places)),
            None => problem,
        }
    }
}

fn place_json(problem: &crate::define::Problem) -> Value {
    json!({ "file": problem.file, "line": problem.line, "column": problem.column, "message": problem.message })
}

impl From<RegistryError> for Problem {
    fn from(error: RegistryError) -> Problem {
        match error {
            RegistryError::Define(error) => error.into(),
            RegistryError::ModuleRefused { ref refused, .. } => {
                let (saw, rule, remedy) = (json!(refused.saw), json!(refused.rule), json!(refused.remedy));
                Problem::new(
                    StatusCode::UNPROCESSABLE_ENTITY,
                    "module-refused",
                    "the module is refused",
                    error.to_string(),
                )
                .with("saw", saw)
                .with("rule", rule)
                .with("remedy", remedy)
            }
            RegistryError::ClaimRefused { ref refused, .. } => {
                let (saw, rule, remedy) = (json!(refused.saw), json!(refused.rule), json!(refused.remedy));
                Problem::new(
                    StatusCode::UNPROCESSABLE_ENTITY,
                    "module-refused",
                    "the module is not what it claims",
                    error.to_string(),
                )
                .with("saw", saw)
                .with("rule", rule)
                .with("remedy", remedy)
            }
            RegistryError::NotFound(detail) => Problem::not_found(detail),
            RegistryError::Conflict(detail) => Problem::conflict(detail),
            RegistryError::Breaks(ref breaks) => {
                let breaks = json!(breaks);
                Problem::conflict(error.to_string()).with("breaks", breaks)
            }
            RegistryError::Storage(ref storage) if storage.is_unwritable() => Problem::unavailable(error.to_string()),
            RegistryError::Storage(_) | RegistryError::Damaged { .. } => Problem::internal(error.to_string()),
        }
    }
}

impl From<OnlineError> for Problem {
    fn from(error: OnlineError) -> Problem {
        // Between the switch of a revision and its store a lookup may fall; the next one finds both.
        Problem::unavailable(error.to_string())
    }
}

impl From<PlatformError> for Problem {
    fn from(error: PlatformError) -> Problem {
        match error {
            PlatformError::NotFound(detail) => Problem::not_found(detail),
            PlatformError::Invalid(detail) => Problem::unprocessable(detail),
            PlatformError::Unavailable(detail) => Problem::unavailable(detail),
            PlatformError::Registry(error) => error.into(),
            PlatformError::Log(error) => error.into(),
            PlatformError::Batch(
                error @ (BatchError::Input(_) | BatchError::Unreadable { .. } | BatchError::Changed { .. }),
            ) => Problem::unprocessable(error.to_string()),
            PlatformError::Online(error) => error.into(),
            failed if failed.is_unwritable() => Problem::unavailable(failed.to_string()),
            failed => Problem::internal(failed.to_string()),
        }
    }
}

impl From<LogError> for Problem {
    fn from(error: LogError) -> Problem {
        let detail = error.to_string();
        match error {
            LogError::KeyReused { .. } => Problem::unprocessable(detail).at("Idempotency-Key"),
            LogError::TooLarge { .. } => Problem::too_large(detail),
            LogError::Storage { unwritable: true, .. } | LogError::Closed => Problem::unavailable(detail),
            LogError::Storage { .. } | LogError::Corrupt { .. } | LogError::NoPosition { .. } => {
                Problem::internal(detail)
            }
        }
    }
}
