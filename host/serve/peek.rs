//! A few rows of a source, for whoever wants to see them.

use super::extract::{Options, Params, ok};
use super::values::{Int64As, time_json, to_json};
use super::{App, Problem};
use crate::platform::{PeekRequest, Peeked, PeekedRow};
use axum::extract::State;
use axum::response::Response;
use serde_json::{Map, Value, json};

const ROWS: usize = 5;
const MOST_ROWS: usize = 1000;
/// Characters of a row's text that are shown.
const RAW_SHOWN: usize = 2000;

/// `GET /sources/{source}/peek?n=5&batch=true&from_start=true`.
pub async fn get_peek(
    State(app): State<App>,
    Params((project, source)): Params<(String, String)>,
    mut options: Options,
) -> Result<Response, Problem> {
    let rows = match options.take("n") {
        None => ROWS,
        Some(text) => text.parse().ok().filter(|rows| (1..=MOST_ROWS).contains(rows)).ok_or_else(|| {
            Problem::unprocessable(format!("`n={text}`: write a number from 1 to {MOST_ROWS}")).at("?n")
        })?,
    };
    let (batch, from_start) = (options.flag("batch")?, options.flag("from_start")?);
    options.finish(&["n", "batch", "from_start"])?;
    app.blocking(move |app| {
        let host = app.project(&project)?;
        let peeked = host.peek(&PeekRequest { source: source.clone(), rows, batch, from_start })?;
        let columns: Vec<String> = match peeked.batches.first() {
            Some(batch) => batch.schema().fields().iter().map(|field| field.name().clone()).collect(),
            None => Vec::new(),
        };
        let missing = peeked.missing.iter().map(|(column, file)| json!({ "column": column, "file": file }));
        ok(&json!({
            "source": source,
            "from": if batch { "files" } else { "log" },
            "first_position": peeked.positions.map(|(first, _)| first),
            "end_position": peeked.positions.map(|(_, end)| end),
            "columns": columns,
            "rows": peeked.rows.iter().map(|row| row_json(&peeked, row)).collect::<Value>(),
            "missing": missing.collect::<Value>(),
        }))
    })
    .await
}

fn row_json(peeked: &Peeked, row: &PeekedRow) -> Value {
    let values = row.at.and_then(|(batch, at)| Some((peeked.batches.get(batch)?, at))).map(|(batch, at)| {
        let fields = batch.schema();
        let values = fields.fields().iter().zip(batch.columns());
        values
            .map(|(field, column)| (field.name().clone(), to_json(column, at, Int64As::Number)))
            .collect::<Map<_, _>>()
    });
    let failures = row
        .failures
        .iter()
        .map(|(column, message)| json!({ "column": column, "reason": "decode", "message": message }));
    json!({
        "place": row.place,
        "arrival": row.arrival_us.map(time_json),
        "values": values,
        "refused": row.refused.as_ref().map(|(reason, message)| json!({ "reason": reason, "message": message })),
        "failures": failures.collect::<Value>(),
        // What was read well needs no second look.
        "raw": row.raw.as_ref().filter(|_| row.refused.is_some() || !row.failures.is_empty()).map(|raw| shown(raw)),
    })
}

fn shown(raw: &[u8]) -> String {
    let text = String::from_utf8_lossy(raw);
    match text.char_indices().nth(RAW_SHOWN) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.into_owned(),
    }
}
