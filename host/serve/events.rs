//! Pushed events: split into records, appended to the source's log, acknowledged when they are durable.

use super::extract::{Options, Params, answer, media_type, read_body, unsupported_type};
use super::{App, Problem};
use crate::define::Digest;
use crate::platform::{IdempotencyKey, Records};
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde_json::json;
use serde_json::value::RawValue;
use std::time::Duration;

/// A push is held in memory as a whole, and replayed as a whole.
const BODY_BYTES: usize = 64 << 20;
/// How many reasons an answer lists.
const ERRORS_SHOWN: usize = 20;
/// How long `?wait=served` waits: a caller's own timeout is about as long.
const WAIT: Duration = Duration::from_secs(30);
const LONGEST_KEY: usize = 255;
const TAKEN: &str = "application/x-ndjson (one event a line) or application/json (an array)";

/// `POST /sources/{source}/events`.
pub async fn post_events(
    State(app): State<App>,
    Params((project, source)): Params<(String, String)>,
    mut options: Options,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    app.writable()?;
    let wait = match options.take("wait").as_deref() {
        None => false,
        Some("served") => true,
        Some(other) => {
            return Err(Problem::unprocessable(format!("`wait={other}`: write wait=served")).at("?wait"));
        }
    };
    options.finish(&["wait"])?;
    let host = app.project(&project)?;
    let media_type = media_type(&headers);
    let split: fn(&Bytes) -> Result<Split, Problem> = match media_type.as_str() {
        "application/x-ndjson" | "application/ndjson" | "application/jsonl" | "application/x-jsonlines" => lines,
        "application/json" => array,
        other => return Err(unsupported_type(other, TAKEN)),
    };
    let key = idempotency_key(&headers)?;
    let body = read_body(&headers, body, BODY_BYTES).await?;
    app.blocking(move |app| {
        let idempotency = key.map(|key| IdempotencyKey { key, body: Digest::of(&body) });
        let Split { records, lines } = split(&body)?;
        if records.is_empty() {
            return Err(Problem::unprocessable("there is no event in the body: send one event a line"));
        }
        let pushed = host.push(&source, records, idempotency)?;
        app.metrics().pushed(&project, &source, pushed.accepted, pushed.dead_lettered);
        let errors: Vec<_> = pushed
            .errors
            .iter()
            .take(ERRORS_SHOWN)
            .map(|error| {
                let record = usize::try_from(error.line).unwrap_or(0).wrapping_sub(1);
                json!({ "line": lines.get(record).copied().unwrap_or(0), "reason": error.reason })
            })
            .collect();
        let mut told = json!({
            "accepted": pushed.accepted,
            "dead_lettered": pushed.dead_lettered,
            "broken": pushed.broken,
            "position": pushed.position,
            "errors": errors,
        });
        if wait {
            told["served"] = json!(host.wait_served(&source, pushed.position, WAIT));
        }
        answer(StatusCode::ACCEPTED, &told)
    })
    .await
}

/// Records, and the line (from 1) on which each stands.
struct Split {
    records: Records,
    lines: Vec<usize>,
}

impl Split {
    fn of(found: Vec<(usize, &[u8])>) -> Result<Split, Problem> {
        let records = Records::from_slices(found.iter().map(|(_, record)| *record));
        let records = records.ok_or_else(|| Problem::unprocessable("the body is too large: send it in parts"))?;
        Ok(Split { records, lines: found.into_iter().map(|(line, _)| line).collect() })
    }
}

/// One event a line; blank lines are none.
fn lines(body: &Bytes) -> Result<Split, Problem> {
    let mut found = Vec::new();
    let mut start = 0;
    let ends = memchr::memchr_iter(b'\n', body).chain([body.len()]);
    for (number, end) in ends.enumerate() {
        let line = body.get(start..end).unwrap_or_default();
        start = end + 1;
        if !line.trim_ascii().is_empty() {
            found.push((number + 1, line.strip_suffix(b"\r").unwrap_or(line)));
        }
    }
    Split::of(found)
}

/// A JSON array of events. Its text must be JSON as a whole, else nobody can tell where an event ends.
fn array(body: &Bytes) -> Result<Split, Problem> {
    let items: Vec<&RawValue> = serde_json::from_slice(body).map_err(|error| {
        let detail = format!("the body is no JSON array of events: {error}; one event a line is application/x-ndjson");
        Problem::malformed(detail).at(format!("line {}, column {}", error.line(), error.column()))
    })?;
    Split::of(items.iter().enumerate().map(|(number, item)| (number + 1, item.get().as_bytes())).collect())
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    match value.to_str() {
        Ok(key) if !key.is_empty() && key.len() <= LONGEST_KEY => Ok(Some(key.to_owned())),
        _ => {
            let detail = format!("an Idempotency-Key is 1 to {LONGEST_KEY} visible ASCII characters");
            Err(Problem::unprocessable(detail).at("Idempotency-Key"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_keep_their_numbers_and_blank_ones_are_none() {
        let body = Bytes::from_static(b"{\"a\":1}\r\n\n  \n{\"a\":2}\nbroken");
        let split = lines(&body).unwrap_or_else(|problem| panic!("{problem:?}"));
        assert_eq!(split.records.iter().collect::<Vec<_>>(), [&b"{\"a\":1}"[..], b"{\"a\":2}", b"broken"]);
        assert_eq!(split.lines, [1, 4, 5]);
    }

    #[test]
    fn the_items_of_an_array_are_taken_as_they_stand() {
        let split = array(&Bytes::from_static(b"[ {\"a\": 1.50}, 7 ]")).unwrap_or_else(|problem| panic!("{problem:?}"));
        assert_eq!(split.records.iter().collect::<Vec<_>>(), [&b"{\"a\": 1.50}"[..], b"7"]);
        assert_eq!(
            array(&Bytes::from_static(b"[{]")).err().map(|problem| problem.status),
            Some(StatusCode::BAD_REQUEST)
        );
    }
}
