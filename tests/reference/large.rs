//! Projects with many rows: each has a share of all aggregates, windows and operators, ordered ones among them, so that
//! twenty of them together have all.

use super::ordered::{self, OrderedProject};
use super::random::{OPERATORS, comparison_by, source, view, yaml};
use super::random_rows::{BEGIN_US, Chance, SPAN_US, many_random_rows};
use super::resolve::{documents, project};
use super::udf::AGGREGATES;
use serde_json::{Value as Json, json};

/// Features of the view whose entities can be dropped, and of the one that keeps them.
const WINDOWED: usize = 12;
const UNWINDOWED: usize = 4;
/// Rows of an entity on the average.
const ROWS_AN_ENTITY: usize = 33;

/// The on-demand view `basket` over a sum of `real` and one of `whole`: what it divides is `LARGE_PRICE`.
const BASKET: &str = "---
kind: on_demand_feature_view
name: basket
request: { price: float64 }
features:
  ratio: { udf: ecommerce.price_ratio, inputs: [request.price, sums.revenue, sums.units] }
";
pub const LARGE_PRICE: f64 = 2.5;

/// The project of this number under a seed, with so many rows.
pub fn large_project(seed: u64, number: usize, rows: usize) -> OrderedProject {
    let mut chance = Chance::new((seed << 20) ^ number as u64 ^ 0x6c61_7267_6500);
    let mut parts = vec![
        json!({"kind": "project", "name": format!("large_{number}")}),
        source(&mut chance),
        json!({"kind": "entity", "name": "thing", "join_keys": {"key": "utf8"}}),
        json!({"kind": "entity", "name": "number", "join_keys": {"number": "int64"}}),
        shared_out(&mut chance, "windowed", number * WINDOWED, WINDOWED, true),
        shared_out(&mut chance, "unwindowed", number * UNWINDOWED, UNWINDOWED, false),
        view(&mut chance, 0),
        ordered::view(&mut chance, 1),
        json!({
            "kind": "feature_view", "name": "sums", "entities": ["thing"], "source": "events",
            "features": {
                "revenue": {"udf": "std.sum", "inputs": ["real"], "window": "2h"},
                "units": {"udf": "std.sum", "inputs": ["whole"], "window": "2h"},
            },
        }),
    ];
    parts[1]["out_of_orderness"] = json!(chance.pick(&["0s", "1m", "10m"]));
    let definitions = parts.iter().map(yaml).collect::<Vec<_>>().join("---\n");
    let rows = many_random_rows(&mut chance, rows, (rows / ROWS_AN_ENTITY).max(1));
    let mut asks_us =
        vec![BEGIN_US - 1, BEGIN_US + SPAN_US / 2, BEGIN_US + SPAN_US, BEGIN_US + 2 * SPAN_US, BEGIN_US + 40 * SPAN_US];
    for _ in 0..3 {
        let near_us = chance.pick(&rows).event_time_us;
        asks_us.push(near_us + chance.pick(&[0, -1, 1, 3_600_000_000]));
    }
    asks_us.sort_unstable();
    asks_us.dedup();
    let project = project(&documents(&definitions));
    OrderedProject { project, definitions: format!("{definitions}{BASKET}"), rows, asks_us, chance }
}

/// A view whose features are the next of all pairs of aggregate and operator, over floats, in windows of every kind.
fn shared_out(chance: &mut Chance, name: &str, first: usize, count: usize, windowed: bool) -> Json {
    let mut features = serde_json::Map::new();
    for next in first..first + count {
        let (aggregate, round) = (AGGREGATES[next % AGGREGATES.len()], next / AGGREGATES.len());
        let (column, mut filter) = comparison_by(chance, OPERATORS[round % OPERATORS.len()]);
        filter["column"] = json!(column);
        let mut feature = json!({"udf": format!("std.{aggregate}"), "inputs": ["real"], "where": filter});
        if matches!(aggregate, "first_n" | "last_n" | "last_n_sum" | "last_n_mean") {
            feature["params"] = json!({"n": chance.pick(&[1, 2, 5])});
        }
        if windowed {
            let size = *chance.pick(&["30m", "1h", "2h"]);
            let hop = *chance.pick(&["5m", "10m", "30m"]);
            feature["window"] = match (round + next) % 4 {
                0 => json!({"sliding": size, "hop": hop}),
                1 => json!({"sliding": size, "hop": hop, "offset": chance.pick(&["1h", "10m"])}),
                2 => json!({"tumbling": size}),
                _ => json!({"tumbling": size, "closed": true}),
            };
        }
        features.insert(format!("feature_{next}"), feature);
    }
    let mut view =
        json!({"kind": "feature_view", "name": name, "entities": ["thing"], "source": "events", "features": features});
    if windowed {
        view["ttl"] = json!(chance.pick(&["2h", "1d"]));
    }
    view
}
