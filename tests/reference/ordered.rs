//! Ordered aggregates by brute force: which rows come too late, and what is made of the others in canonical order.

use super::random::{comparison, source, window, yaml};
use super::random_rows::{BEGIN_US, Chance, SPAN_US, random_rows};
use super::resolve::{documents, optional_duration_us, project};
use super::udf::Cell;
use super::value::{Row, Value};
use onefold::define::Project;
use serde_json::{Value as Json, json};

const LATE: &str = "late";

/// When the rows of a source are settled (rule 12): at its barriers, up to its watermark there.
#[derive(Clone, Debug)]
pub struct Settling {
    out_of_orderness_us: i64,
    /// The watermark of the last barrier; none before the first.
    settled_us: Option<i64>,
    newest_us: Option<i64>,
}

impl Settling {
    pub fn new(out_of_orderness_us: i64) -> Settling {
        Settling { out_of_orderness_us, settled_us: None, newest_us: None }
    }

    /// What a bootstrap leaves: rows of files and of the log are sorted together.
    pub fn bootstrap(&mut self, in_files: &[Row], in_log: &[Row]) {
        let newest_us = |rows: &[Row]| rows.iter().map(|row| row.event_time_us).max();
        self.settled_us = match newest_us(in_log) {
            Some(newest_us) => Some(newest_us - self.out_of_orderness_us),
            None => newest_us(in_files),
        };
        self.newest_us = newest_us(in_log);
    }

    /// A row of the stream, and whether it comes too late for a feature with this lateness.
    pub fn comes(&mut self, row: &Row, allowed_lateness_us: i64) -> bool {
        self.newest_us = self.newest_us.max(Some(row.event_time_us));
        self.settled_us.is_some_and(|settled_us| row.event_time_us <= settled_us - allowed_lateness_us)
    }

    /// A barrier that is stored.
    pub fn barrier(&mut self) {
        let watermark_us = self.newest_us.map(|newest_us| newest_us - self.out_of_orderness_us);
        self.settled_us = self.settled_us.max(watermark_us);
    }
}

/// The row with the verdict on it. What reads it is `feature_rows` alone.
pub fn mark_late(row: &mut Row) {
    row.values.insert(LATE.to_owned(), Value::Boolean(true));
}

pub(super) fn is_late(row: &Row) -> bool {
    row.value(LATE) == Value::Boolean(true)
}

/// The values of an ordered aggregate over these rows (event time and inputs), which stand in canonical order.
pub(super) fn ordered_aggregate(udf: &str, params: &Json, rows: &[(i64, Vec<Value>)]) -> Vec<Cell> {
    match udf {
        "trail" | "trail_alone" => vec![Cell::of(trail(rows))],
        "sessions" => {
            let times: Vec<i64> = rows.iter().map(|(time_us, _)| *time_us).collect();
            sessions(&times, optional_duration_us(&params["gap"]).expect("a gap"))
        }
        other => panic!("the brute force knows no `{other}`"),
    }
}

/// Each row is a digit, modulo 2^64.
fn trail(rows: &[(i64, Vec<Value>)]) -> Value {
    let digit = |inputs: &[Value]| match inputs[0] {
        Value::Int64(number) => i128::from(number),
        _ => 5,
    };
    let number = rows.iter().fold(0i128, |number, (_, inputs)| {
        let next = number * 6_364_136_223_846_793_005 + digit(inputs);
        next.rem_euclid(1 << 64)
    });
    if rows.is_empty() { Value::Null } else { Value::Int64(number as u64 as i64) }
}

fn sessions(times_us: &[i64], gap_us: i64) -> Vec<Cell> {
    let runs: Vec<&[i64]> = times_us.chunk_by(|one, next| next - one <= gap_us).collect();
    let lengths: Vec<i64> = runs.iter().map(|run| run[run.len() - 1] - run[0]).collect();
    let float = |value| Cell::of(Value::Float64(value));
    let Some(last) = lengths.last() else {
        return vec![Cell::of(Value::Int64(0)), Cell::of(Value::Null), Cell::of(Value::Null)];
    };
    let total: i64 = lengths.iter().sum();
    let mean = total as f64 / (runs.len() as f64 * 1e6);
    vec![Cell::of(Value::Int64(runs.len() as i64)), float(mean), float(*last as f64 / 1e6)]
}

/// A random project with ordered features beside one that takes its rows in any order.
pub struct OrderedProject {
    pub definitions: String,
    pub project: Project,
    /// In arrival order, many of them late.
    pub rows: Vec<Row>,
    pub asks_us: Vec<i64>,
    pub chance: Chance,
}

/// The project of this seed: one source, one to two views, each with a lateness of its own.
pub fn ordered_project(seed: u64) -> OrderedProject {
    let mut chance = Chance::new(seed ^ 0x6f72_6465_7265_6400);
    let mut parts = vec![
        json!({"kind": "project", "name": format!("ordered_{seed}")}),
        source(&mut chance),
        json!({"kind": "entity", "name": "thing", "join_keys": {"key": "utf8"}}),
        json!({"kind": "entity", "name": "number", "join_keys": {"number": "int64"}}),
    ];
    parts[1]["out_of_orderness"] = json!(chance.pick(&["0s", "10m", "1h"]));
    for index in 0..1 + chance.below(2) {
        let view = view(&mut chance, index);
        parts.push(view);
    }
    let definitions = parts.iter().map(yaml).collect::<Vec<_>>().join("---\n");
    let mut rows = random_rows(&mut chance, 80);
    if chance.one_in(3) {
        chance.shuffle(&mut rows);
    }
    let mut asks_us = vec![BEGIN_US - 1, BEGIN_US + SPAN_US / 2, BEGIN_US + SPAN_US, BEGIN_US + 2 * SPAN_US];
    for _ in 0..4 {
        let near_us = chance.pick(&rows).event_time_us;
        asks_us.push(near_us + chance.pick(&[0, -1, 1, 3_600_000_000]));
    }
    asks_us.sort_unstable();
    asks_us.dedup();
    OrderedProject { project: project(&documents(&definitions)), definitions, rows, asks_us, chance }
}

pub(super) fn view(chance: &mut Chance, index: usize) -> Json {
    let entities = if chance.one_in(3) { json!(["thing", "number"]) } else { json!(["thing"]) };
    let mut view =
        json!({"kind": "feature_view", "name": format!("view_{index}"), "entities": entities, "source": "events"});
    if !chance.one_in(4) {
        view["allowed_lateness"] = json!(chance.pick(&["0s", "10m", "1h", "3h"]));
    }
    if chance.one_in(3) {
        view["ttl"] = json!(chance.pick(&["2h", "1d"]));
    }
    if chance.one_in(5) {
        view["right"] = json!("exclusive");
    }
    let mut features = serde_json::Map::new();
    for number in 0..5 {
        let mut feature = match number {
            0 => json!({"udf": "trails.trail", "inputs": ["whole"]}),
            1 => json!({"udf": "trails.trail_alone", "inputs": ["whole"]}),
            2 => json!({"udf": "sessions.sessions", "params": {"gap": chance.pick(&["1m", "10m", "1h"])}}),
            3 => json!({"udf": "trails.trail", "inputs": ["whole"], "window": "1h"}),
            _ => json!({"udf": "std.sum", "inputs": ["real"]}),
        };
        if chance.one_in(3) {
            let (column, mut filter) = comparison(chance);
            filter["column"] = json!(column);
            feature["where"] = filter;
        }
        if number != 3 && !chance.one_in(3) {
            let window = window(chance);
            let slides = window.is_string() || !window["sliding"].is_null();
            if number != 1 || !slides {
                feature["window"] = window;
            }
        }
        features.insert(format!("feature_{number}"), feature);
    }
    view["features"] = Json::Object(features);
    view
}
