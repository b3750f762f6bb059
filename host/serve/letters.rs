//! Dead letters and how the project stands.

use super::extract::{Options, Params, ok, read_json};
use super::values::time_json;
use super::{App, Problem};
use crate::define::{Digest, hint};
use crate::platform::{CompleteSince, Live, Outcome, ProjectHost, ReplayRequest, Replayed};
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

const BODY_BYTES: usize = 4 << 20;
/// An answer with more is for nobody to read, and each letter brings its row along.
const LETTERS_SHOWN: usize = 1000;

/// `GET /dead-letters?source=…&id=…&open=true`: the newest last.
pub async fn get_letters(
    State(app): State<App>,
    Params(project): Params<String>,
    mut options: Options,
) -> Result<Response, Problem> {
    let source = options.take("source");
    let id = options.take("id");
    let only_open = options.flag("open")?;
    options.finish(&["source", "id", "open"])?;
    app.blocking(move |app| {
        let host = app.project(&project)?;
        let live = host.live()?;
        known_source(&live, source.as_deref(), "?source")?;
        let mut letters = host.dead_letters(source.as_deref())?;
        letters.retain(|letter| !only_open || live.is_open(letter));
        letters.retain(|letter| id.as_ref().is_none_or(|id| letter.id() == *id));
        let total = letters.len();
        let shown = letters.split_off(total.saturating_sub(LETTERS_SHOWN));
        let names = host.refusing_features(&shown)?;
        let mut positions: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
        for letter in &shown {
            positions.entry(&letter.source).or_default().insert(letter.position);
        }
        let mut raw = BTreeMap::new();
        for (source, positions) in positions {
            raw.insert(source, host.raw_records(source, &positions)?);
        }
        let told = shown.iter().map(|letter| {
            let raw = raw.get(letter.source.as_str()).and_then(|records| records.get(&letter.position));
            json!({
                "id": letter.id(),
                "source": source_name(&live, &letter.source),
                "position": format!("{}:{}", letter.partition, letter.position),
                "stage": letter.stage,
                "feature": feature_name(&names, &json!(letter.refused_by)),
                "reason": letter.reason,
                "message": letter.message,
                "module": letter.module.map(|digest| digest.to_string()),
                "raw": raw.map(|raw| String::from_utf8_lossy(raw)),
                "at": time_json(letter.arrival_us),
                "open": live.is_open(letter),
            })
        });
        ok(&json!({ "dead_letters": told.collect::<Value>(), "total": total }))
    })
    .await
}

fn known_source(live: &Live, source: Option<&str>, place: &str) -> Result<(), Problem> {
    let sources = &live.revision.project.sources;
    match source.filter(|source| !sources.contains_key(*source)) {
        None => Ok(()),
        Some(source) => {
            let hint = hint(source, sources.keys().map(String::as_str));
            Err(Problem::not_found(format!("there is no source `{source}`; {hint}")).at(place))
        }
    }
}

/// What the source of a lineage is called now; one that is gone by its first name.
fn source_name<'a>(live: &'a Live, lineage: &'a str) -> &'a str {
    live.revision.project.source_of_lineage(lineage).map_or(lineage, |source| &source.name)
}

/// The feature that a letter is about; null when it is about more than one.
fn feature_name(names: &BTreeMap<Digest, String>, refused_by: &Value) -> Value {
    let named = refused_by["feature"].as_str().and_then(|text| names.get(&text.parse().ok()?));
    named.map_or(Value::Null, |name| json!(name))
}

/// Which letters to replay: these, or all (of a source, of a feature).
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReplayBody {
    ids: Option<Vec<String>>,
    source: Option<String>,
    feature: Option<String>,
}

/// `POST /dead-letters/replay`: what became of them, those that are missing somewhere first.
pub async fn post_replay(
    State(app): State<App>,
    Params(project): Params<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let ReplayBody { ids, source, feature } = read_json(&headers, body, BODY_BYTES).await?;
    app.blocking(move |app| {
        let host = app.project(&project)?;
        let live = host.live()?;
        known_source(&live, source.as_deref(), "/source")?;
        if let Some(feature) = &feature {
            let view = feature.split_once('.').and_then(|(view, _)| live.revision.project.feature_views.get(view));
            if view.is_none() {
                let views = live.revision.project.feature_views.keys();
                let detail = format!(
                    "`{feature}` is no feature: write view.feature, the views are {}",
                    views.cloned().collect::<Vec<_>>().join(", ")
                );
                return Err(Problem::not_found(detail).at("/feature"));
            }
        }
        let at = if ids.is_some() { "/ids" } else { "/source" };
        let mut replayed =
            host.replay(&ReplayRequest { ids, source, feature }).map_err(|error| Problem::from(error).at(at))?;
        replayed.sort_by_key(|one| one.outcome);
        let count = |outcome| replayed.iter().filter(|one| one.outcome == outcome).count();
        let counts = [Outcome::Taken, Outcome::Refused, Outcome::Late, Outcome::Closed].map(count);
        let letters: Vec<_> = replayed.iter().map(|one| one.letter.clone()).collect();
        let names = host.refusing_features(&letters)?;
        let told = replayed.iter().take(LETTERS_SHOWN).map(|one| {
            let letter = &one.letter;
            json!({
                "id": letter.id(),
                "source": source_name(&live, &letter.source),
                "position": format!("{}:{}", letter.partition, letter.position),
                "feature": feature_name(&names, &json!(letter.refused_by)),
                "outcome": one.outcome,
                "open": one.outcome != Outcome::Closed,
                "reason": letter.reason,
                "message": outcome_text(one),
                "refused_now": one.now.iter().map(|now| now.id()).collect::<Value>(),
            })
        });
        let told = told.collect::<Value>();
        let [taken, refused, late, closed] = counts;
        ok(&json!({ "letters": told, "taken": taken, "refused": refused, "late": late, "closed": closed }))
    })
    .await
}

/// What became of a letter, in words.
fn outcome_text(replayed: &Replayed) -> String {
    match replayed.outcome {
        Outcome::Refused => format!("refused again: {}", replayed.letter.message),
        Outcome::Late => {
            "a late row cannot be replayed, what came after it is settled: `onefold rebuild VIEW` takes it in"
                .to_owned()
        }
        Outcome::Closed if replayed.now.is_empty() => {
            "nothing to do: what refused the row is gone, what took its place counts it".to_owned()
        }
        Outcome::Closed => {
            let others: BTreeSet<&str> = replayed.now.iter().map(|letter| letter.message.as_str()).collect();
            let others = others.into_iter().collect::<Vec<_>>().join("; ");
            format!("nothing to do: what refused the row is gone; it has open letters of others: {others}")
        }
        Outcome::Taken => {
            "it would be taken now, so the row was not to blame, and the state lacks it: `onefold delete` \
                           what lacks it, then apply it again, which folds it from the log"
                .to_owned()
        }
    }
}

/// `GET /status`.
pub async fn get_status(State(app): State<App>, Params(project): Params<String>) -> Result<Response, Problem> {
    app.blocking(move |app| ok(&status_json(&*app.project(&project)?)?)).await
}

/// The status with times as the interface writes them, and the lag of each source.
fn status_json(host: &ProjectHost) -> Result<Value, Problem> {
    let status = serde_json::to_value(host.status()).map_err(|error| Problem::internal(error.to_string()))?;
    let mut told = status.clone();
    for (name, source) in status["sources"].as_object().into_iter().flatten() {
        let number = |member: &str| source[member].as_u64().unwrap_or(0);
        let time = |member: &str| source[member].as_i64().map_or(Value::Null, time_json);
        told["sources"][name] = json!({
            "position": number("position"),
            "end_position": number("end_position"),
            "lag": number("end_position").saturating_sub(number("position")),
            "rows": number("rows"),
            "null_keys": number("null_keys"),
            "newest": time("newest_us"),
            "clock": time("clock_us"),
        });
    }
    if let Ok(live) = host.live() {
        told["views"] = views_json(&live, &host.complete_since(&live)?);
    }
    Ok(told)
}

/// Which tables the values of each view are in, since when they are complete, and where they stand still if they do.
fn views_json(live: &Live, since: &BTreeMap<String, BTreeMap<String, CompleteSince>>) -> Value {
    let complete_since = |view: &String| {
        let since = since.get(view).into_iter().flatten().map(|(column, since)| {
            let shown = match since {
                CompleteSince::NoRows => Value::Null,
                CompleteSince::Beginning => json!("beginning"),
                CompleteSince::At(us) => time_json(*us),
            };
            (column.clone(), shown)
        });
        since.collect::<Value>()
    };
    let layout = &live.compiled.layout;
    let tables = |view: &crate::rows::ViewLayout| {
        let mut tables: Vec<usize> = view.columns.iter().map(|column| column.table).collect();
        tables.sort_unstable();
        tables.dedup();
        let ids = tables.into_iter().filter_map(|table| layout.tables.get(table)).map(|table| table.id.to_string());
        ids.collect::<Value>()
    };
    let paused = |view: &crate::rows::ViewLayout| {
        let mut tables = view.columns.iter().filter_map(|column| layout.tables.get(column.table));
        let stands = tables.find_map(|table| table.row_set.paused);
        stands.map_or(Value::Null, |stands| {
            let clock = if stands.clock_us > i64::MIN { time_json(stands.clock_us) } else { Value::Null };
            json!({ "revision": stands.revision, "at": time_json(stands.at_us), "position": stands.position, "clock": clock })
        })
    };
    let of_view = |(name, view): (&String, &crate::rows::ViewLayout)| {
        (
            name.clone(),
            json!({ "tables": tables(view), "complete_since": complete_since(name), "paused": paused(view) }),
        )
    };
    layout.views.iter().map(of_view).collect()
}

/// `GET /v1/projects`.
pub async fn get_projects(State(app): State<App>) -> Result<Response, Problem> {
    ok(&json!({ "projects": app.platform().projects() }))
}
