//! Definitions from a seed, as the YAML a person would type, so that they go through the real parser.

use super::random_rows::{BEGIN_US, COLUMNS, Chance, SPAN_US, hard_constant, random_rows};
use super::resolve::{documents, project};
use super::udf::AGGREGATES;
use super::value::{Row, Value};
use onefold::define::Project;
use onefold_fold::Kind;
use serde_json::{Value as Json, json};

const ROWS: usize = 60;
pub(super) const OPERATORS: [&str; 10] = ["eq", "ne", "lt", "le", "gt", "ge", "in", "not_in", "is_null", "not_null"];

/// A project with its rows and the instants to ask about. One seed makes one, always the same.
pub struct RandomProject {
    #[allow(dead_code, reason = "said in the messages of the tests that take it")]
    pub seed: u64,
    /// YAML documents, the project's own first.
    pub definitions: String,
    /// What they mean, by the tests' own resolver.
    pub project: Project,
    /// Rows of the source `events`, in arrival order.
    pub rows: Vec<Row>,
    /// Ascending; on edges, beside them, before the first row and long after the last.
    pub asks_us: Vec<i64>,
}

/// The random project of this seed: one source, two entities, one to three views.
pub fn random_project(seed: u64) -> RandomProject {
    let mut chance = Chance::new(seed);
    let mut parts = vec![
        json!({"kind": "project", "name": format!("random_{seed}")}),
        source(&mut chance),
        json!({"kind": "entity", "name": "thing", "join_keys": {"key": "utf8"}}),
        json!({"kind": "entity", "name": "number", "join_keys": {"number": "int64"}}),
    ];
    for index in 0..1 + chance.below(3) {
        parts.push(view(&mut chance, index));
    }
    let definitions = parts.iter().map(yaml).collect::<Vec<_>>().join("---\n");
    let rows = random_rows(&mut chance, ROWS);
    let mut asks_us =
        vec![BEGIN_US - 3_600_000_000, BEGIN_US + SPAN_US, BEGIN_US + 2 * SPAN_US, BEGIN_US + 40 * SPAN_US];
    for _ in 0..5 {
        let near_us = chance.pick(&rows).event_time_us;
        asks_us.push(near_us + chance.pick(&[0, 0, -1, 1, 3_600_000_000, 3_599_999_999]));
    }
    asks_us.sort_unstable();
    asks_us.dedup();
    RandomProject { seed, project: project(&documents(&definitions)), definitions, rows, asks_us }
}

/// One document in block style at the top and flow style below, as JSON is YAML.
pub(super) fn yaml(document: &Json) -> String {
    let fields = document.as_object().into_iter().flatten();
    fields.map(|(key, value)| format!("{key}: {}\n", escaped(&value.to_string()))).collect()
}

/// JSON text with YAML's escapes for what is not ASCII: YAML allows fewer characters raw, and no surrogate pairs.
fn escaped(json: &str) -> String {
    let escape = |character: char| match u32::from(character) {
        0..0x80 => character.to_string(),
        code @ 0x80..0x10000 => format!("\\u{code:04x}"),
        code => format!("\\U{code:08x}"),
    };
    json.chars().map(escape).collect()
}

pub(super) fn source(chance: &mut Chance) -> Json {
    let mut schema = serde_json::Map::from_iter([("at".to_owned(), json!("timestamp"))]);
    schema.extend(COLUMNS.iter().map(|(name, kind)| ((*name).to_owned(), json!(kind.name()))));
    let mut source = json!({
        "kind": "source", "name": "events", "stream": {"push": {}}, "event_time": "at", "out_of_orderness": "10m", "schema": schema,
    });
    if chance.one_in(2) {
        source["transforms"] = json!([
            {"udf": "std.cast", "inputs": ["real"], "params": {"to": "int64"}, "outputs": ["rounded"]},
            {"udf": "std.coalesce", "inputs": ["whole", "rounded"], "outputs": ["either"]},
            {"udf": "ecommerce.amount", "inputs": ["whole", "real"], "outputs": ["amount"]},
        ]);
    }
    source
}

pub(super) fn view(chance: &mut Chance, index: usize) -> Json {
    let entities = if chance.one_in(3) { json!(["thing", "number"]) } else { json!(["thing"]) };
    let mut view =
        json!({"kind": "feature_view", "name": format!("view_{index}"), "entities": entities, "source": "events"});
    if !chance.one_in(3) {
        view["ttl"] = json!(chance.pick(&["30m", "2h", "1d"]));
    }
    if chance.one_in(5) {
        view["right"] = json!("exclusive");
    }
    if chance.one_in(5) {
        let (column, params) = comparison(chance);
        view["transforms"] = json!([{"udf": "std.filter", "inputs": [column], "params": params}]);
    }
    let all_windowed = chance.one_in(2);
    let features = (0..6).map(|number| (format!("feature_{number}"), feature(chance, all_windowed)));
    view["features"] = Json::Object(features.collect());
    view
}

fn feature(chance: &mut Chance, windowed: bool) -> Json {
    let udf = *chance.pick(&AGGREGATES);
    let mut feature = json!({"udf": format!("std.{udf}")});
    let inputs = inputs(chance, udf);
    if !inputs.is_empty() {
        feature["inputs"] = json!(inputs);
    }
    if matches!(udf, "first_n" | "last_n" | "last_n_sum" | "last_n_mean") {
        feature["params"] = json!({"n": chance.pick(&[1, 2, 5])});
    }
    let mut filter = || {
        let (column, mut comparison) = comparison(chance);
        comparison["column"] = json!(column);
        comparison
    };
    let (first, second) = (filter(), filter());
    match chance.below(8) {
        0 | 1 => {}
        2 => feature["where"] = json!([first, second]),
        _ => feature["where"] = first,
    }
    if windowed || !chance.one_in(3) {
        feature["window"] = window(chance);
    }
    feature
}

/// Columns that the aggregate takes; a float one time in two, for floats are what breaks.
fn inputs(chance: &mut Chance, udf: &str) -> Vec<&'static str> {
    let all: Vec<&'static str> = COLUMNS.iter().map(|(name, _)| *name).collect();
    let among: &[&'static str] = match udf {
        "count" | "last_row" => {
            let least = usize::from(udf == "last_row");
            let several =
                (0..least + chance.below(3)).map(|_| *chance.pick(&all)).collect::<std::collections::BTreeSet<_>>();
            let reals = if chance.one_in(2) { vec!["real"] } else { vec![] };
            return several.into_iter().chain(reals).collect::<std::collections::BTreeSet<_>>().into_iter().collect();
        }
        "sum" | "mean" | "var_samp" | "var_pop" | "stddev_samp" | "stddev_pop" | "last_n_sum" | "last_n_mean" => {
            &["whole", "real"]
        }
        "first_n" | "last_n" | "collect_distinct" => &["whole", "real", "words"],
        "min" | "max" | "count_distinct" => &["flag", "whole", "real", "instant", "words", "octets"],
        _ => &all,
    };
    vec![if chance.one_in(2) { "real" } else { *chance.pick(among) }]
}

/// The column and the rest of a comparison. Constants are the values that rows have, but for NaN and the infinities.
pub(super) fn comparison(chance: &mut Chance) -> (&'static str, Json) {
    let op = *chance.pick(&OPERATORS);
    comparison_by(chance, op)
}

/// The same by a given operator.
pub(super) fn comparison_by(chance: &mut Chance, op: &str) -> (&'static str, Json) {
    let comparable: [(&'static str, Kind); 5] = [
        ("flag", Kind::Boolean),
        ("whole", Kind::Int64),
        ("real", Kind::Float64),
        ("instant", Kind::Timestamp),
        ("words", Kind::Utf8),
    ];
    let (column, kind) = *chance.pick(&comparable);
    let mut constant = || {
        loop {
            let value = hard_constant(chance, kind);
            if !matches!(value, Value::Float64(float) if !float.is_finite()) {
                return value.to_json();
            }
        }
    };
    let comparison = match op {
        "is_null" | "not_null" => json!({"op": op}),
        "in" | "not_in" => json!({"op": op, "value": [constant(), constant()]}),
        _ => json!({"op": op, "value": constant()}),
    };
    (column, comparison)
}

pub(super) fn window(chance: &mut Chance) -> Json {
    let size = *chance.pick(&["30m", "1h", "2h"]);
    let hop = *chance.pick(&["5m", "10m", "30m"]);
    let mut window = match chance.below(8) {
        0 => return json!(size),
        1 => json!({"sliding": size, "hop": hop}),
        2 | 5 => json!({"sliding": size, "hop": hop, "offset": chance.pick(&["1h", "10m"])}),
        3 | 4 => json!({"tumbling": size, "closed": true}),
        _ => json!({"tumbling": chance.pick(&["1h", "2h", "1d"])}),
    };
    if chance.one_in(3) {
        window["align"] = json!(chance.pick(&["-9h", "7m"]));
    }
    window
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::{Ask, Coverage, answer, by_entity, transformed};

    /// Enough that each cell is met some twenty times on average, in a few seconds.
    const PROJECTS: u64 = 600;

    #[test]
    fn the_brute_force_is_blind_to_arrival_order_and_the_generators_meet_every_cell() {
        let mut coverage = Coverage::default();
        for seed in 0..PROJECTS {
            let random = random_project(seed);
            for view in random.project.feature_views.values() {
                let (entities, _) = by_entity(view, &transformed(&random.project, view, &random.rows));
                for rows in entities.values() {
                    let mut shuffled = rows.clone();
                    Chance::new(seed).shuffle(&mut shuffled);
                    for at_us in &random.asks_us {
                        for ask in [Ask::snapshot(*at_us), Ask::label(*at_us)] {
                            let found = answer(view, rows, ask);
                            assert_eq!(found, answer(view, &shuffled, ask), "seed {seed} view {} {ask:?}", view.name);
                            coverage.observe(view, rows, ask, &found);
                        }
                    }
                }
            }
        }
        println!("{coverage}");
        coverage.check().unwrap_or_else(|missing| panic!("{missing}"));
    }

    #[test]
    fn a_seed_makes_the_same_project_again_and_another_seed_another() {
        let (once, again, other) = (random_project(7), random_project(7), random_project(8));
        assert_eq!((&once.definitions, &once.rows, &once.asks_us), (&again.definitions, &again.rows, &again.asks_us));
        assert_ne!(once.rows, other.rows);
    }
}
