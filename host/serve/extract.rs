//! What a request holds, read so that whatever is wrong with it becomes a problem and never a bare status.

use super::Problem;
use super::values::Int64As;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{FromRequestParts, Path, Query};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;

/// The variable parts of a path.
pub struct Params<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Params<T>, Problem> {
        let Path(value) = Path::<T>::from_request_parts(parts, state)
            .await
            .map_err(|rejection| Problem::malformed(rejection.body_text()).at(parts.uri.path()))?;
        Ok(Params(value))
    }
}

/// What stands behind the `?`. Take what you know, then `finish`: what is left is refused.
pub struct Options(BTreeMap<String, String>);

impl<S: Send + Sync> FromRequestParts<S> for Options {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Options, Problem> {
        let query = Query::<BTreeMap<String, String>>::from_request_parts(parts, state).await;
        let Query(values) = query.map_err(|rejection| Problem::malformed(rejection.body_text()).at("?"))?;
        Ok(Options(values))
    }
}

impl Options {
    pub fn take(&mut self, name: &str) -> Option<String> {
        self.0.remove(name)
    }

    /// `true` or `false`; false when it is not there.
    pub fn flag(&mut self, name: &str) -> Result<bool, Problem> {
        match self.take(name).as_deref() {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(other) => {
                let detail = format!("`{name}={other}`: write true or false");
                Err(Problem::unprocessable(detail).at(format!("?{name}")))
            }
        }
    }

    /// Whether the answer waits for the end of the work: `wait=false` makes it a job.
    pub fn wait(&mut self) -> Result<bool, Problem> {
        match self.take("wait").as_deref() {
            None => Ok(true),
            Some(text) => {
                self.0.insert("wait".to_owned(), text.to_owned());
                self.flag("wait")
            }
        }
    }

    /// `from=now`: what is new begins empty.
    pub fn begins_now(&mut self) -> Result<bool, Problem> {
        match self.take("from").as_deref() {
            None => Ok(false),
            Some("now") => Ok(true),
            Some(other) => {
                let detail = format!("`from={other}`: write now, or leave it out for the whole history");
                Err(Problem::unprocessable(detail).at("?from"))
            }
        }
    }

    pub fn int64(&mut self) -> Result<Int64As, Problem> {
        match self.take("int64").as_deref() {
            None | Some("number") => Ok(Int64As::Number),
            Some("string") => Ok(Int64As::Text),
            Some(other) => {
                let detail = format!("`int64={other}`: write string or number");
                Err(Problem::unprocessable(detail).at("?int64"))
            }
        }
    }

    /// All that is left.
    pub fn rest(self) -> BTreeMap<String, String> {
        self.0
    }

    pub fn finish(self, known: &[&str]) -> Result<(), Problem> {
        match self.0.into_keys().next() {
            None => Ok(()),
            Some(name) => {
                let hint = crate::define::hint(&name, known.iter().copied());
                Err(Problem::unprocessable(format!("`{name}` means nothing here; {hint}")).at(format!("?{name}")))
            }
        }
    }
}

/// The body, up to a limit.
pub async fn read_body(headers: &HeaderMap, body: Body, limit_bytes: usize) -> Result<Bytes, Problem> {
    let too_large = || Problem::too_large(format!("the body is larger than {limit_bytes} bytes: send it in parts"));
    let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| usize::try_from(length).is_ok_and(|length| length > limit_bytes)) {
        let limit = u64::try_from(limit_bytes).unwrap_or(u64::MAX);
        drain(body, limit.saturating_mul(2)).await;
        return Err(too_large());
    }
    // One byte more than the limit tells a body that is too large from one that broke off.
    match to_bytes(body, limit_bytes.saturating_add(1)).await {
        Ok(bytes) if bytes.len() <= limit_bytes => Ok(bytes),
        Ok(_) => Err(too_large()),
        Err(error) if error.to_string().contains("length limit") => Err(too_large()),
        Err(error) => Err(Problem::malformed(format!("the body broke off: {error}"))),
    }
}

/// Reads and drops up to so many bytes: a client that is still sending does not hear an answer.
async fn drain(body: Body, most_bytes: u64) {
    let mut stream = body.into_data_stream();
    let mut left = most_bytes;
    while let Some(Ok(piece)) = stream.next().await {
        left = left.saturating_sub(piece.len() as u64);
        if left == 0 {
            return;
        }
    }
}

/// The media type of the body without its parameters, lower case; empty when it is not said.
pub fn media_type(headers: &HeaderMap) -> String {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// A body of a type that is not taken here.
pub fn unsupported_type(found: &str, taken: &str) -> Problem {
    let found = if found.is_empty() { "nothing" } else { found };
    let detail = format!("Content-Type says {found}: send {taken}");
    Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-type", "the body's type is not taken here", detail)
        .at("Content-Type")
}

/// A JSON body as `T`.
pub async fn read_json<T: DeserializeOwned>(headers: &HeaderMap, body: Body, limit: usize) -> Result<T, Problem> {
    let media_type = media_type(headers);
    if media_type != "application/json" {
        return Err(unsupported_type(&media_type, "application/json"));
    }
    let bytes = read_body(headers, body, limit).await?;
    parse_json(&bytes)
}

/// JSON bytes as `T`: 400 when they are no JSON, 422 when they are another.
pub fn parse_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    // A list of the right length would pass for an object of the same members in order.
    if bytes.trim_ascii_start().first() == Some(&b'[') {
        return Err(Problem::unprocessable("the body is a list: send a JSON object"));
    }
    serde_json::from_slice(bytes).map_err(|error| {
        let place = format!("line {}, column {}", error.line(), error.column());
        match error.classify() {
            serde_json::error::Category::Data => Problem::unprocessable(error.to_string()).at(place),
            _ => Problem::malformed(format!("the body is no JSON: {error}")).at(place),
        }
    })
}

/// A JSON answer.
pub fn answer(status: StatusCode, value: &impl Serialize) -> Result<Response, Problem> {
    let text = serde_json::to_string(value).map_err(|error| Problem::internal(error.to_string()))?;
    Ok((status, [(header::CONTENT_TYPE, "application/json")], text).into_response())
}

/// `200` with JSON.
pub fn ok(value: &impl Serialize) -> Result<Response, Problem> {
    answer(StatusCode::OK, value)
}
