//! What a view says of one entity at one instant: rules 2, 3, 4, 6, 7, 8, 9 and 15 over the whole list of its rows.

use super::filter::passes;
use super::ordered::{is_late, ordered_aggregate};
use super::transform::apply;
use super::udf::{aggregate, refuses};
use super::value::{Row, Value};
use super::window::{changes_at_us, holds, reach_us};
use onefold::define::{Feature, FeatureView, Project};
use onefold_fold::Window;
use std::collections::BTreeMap;

pub use super::udf::Cell;

/// One question. `as_of_us` is the instant of the value, `read_at_us` the time that ttl and retention look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    pub as_of_us: i64,
    pub read_at_us: i64,
    /// A label of a training set: it alone obeys `right: exclusive`.
    pub label: bool,
}

impl Ask {
    /// As `onefold snapshot --as-of` asks.
    pub fn snapshot(as_of_us: i64) -> Ask {
        Ask { as_of_us, read_at_us: as_of_us, label: false }
    }

    /// As a row of a training set asks.
    pub fn label(at_us: i64) -> Ask {
        Ask { as_of_us: at_us, read_at_us: at_us, label: true }
    }

    /// As a lookup asks: the value as of max(clock, the entity's own newest row), judged by the wall clock.
    pub fn online(clock_us: i64, rows: &[Row], wall_us: i64) -> Ask {
        Ask { as_of_us: online_instant_us(clock_us, rows), read_at_us: wall_us, label: false }
    }
}

/// Rule 5's instant of an entity's streamed value.
pub fn online_instant_us(clock_us: i64, rows: &[Row]) -> i64 {
    rows.iter().map(|row| row.event_time_us).chain([clock_us]).max().unwrap_or(clock_us)
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    NotFound,
    Known(Known),
}

/// What is known of an entity. With `outside_max_age` every value is null.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// The newest row of the entity in the view.
    pub event_timestamp_us: i64,
    /// When a value changes next with no new event; `None` = never.
    pub valid_until_us: Option<i64>,
    pub outside_max_age: bool,
    /// By the name of the value column.
    pub values: BTreeMap<String, Cell>,
}

/// The rows as the view sees them: through the source's transforms, then its own.
pub fn transformed(project: &Project, view: &FeatureView, rows: &[Row]) -> Vec<Row> {
    let source = project.sources.get(&view.source).expect("a checked view names a source of its project");
    let transforms = source.transforms.iter().chain(&view.transforms);
    transforms.fold(rows.to_vec(), |rows, transform| rows.iter().flat_map(|row| apply(transform, row)).collect())
}

/// The view's rows by join key values, in the order given, and how many had a null key (rule 8).
pub fn by_entity(view: &FeatureView, rows: &[Row]) -> (BTreeMap<Vec<Value>, Vec<Row>>, usize) {
    let mut entities: BTreeMap<Vec<Value>, Vec<Row>> = BTreeMap::new();
    let mut without_key = 0;
    for row in rows {
        let keys: Vec<Value> = view.join_keys.iter().map(|key| row.value(&key.column)).collect();
        if keys.iter().any(Value::is_null) {
            without_key += 1;
        } else {
            entities.entry(keys).or_default().push(row.clone());
        }
    }
    (entities, without_key)
}

/// What the view says of the entity whose (transformed) rows these are, in any order.
pub fn answer(view: &FeatureView, rows: &[Row], ask: Ask) -> Answer {
    let exclusive = ask.label && view.right_exclusive;
    let happened =
        |row: &&Row| if exclusive { row.event_time_us < ask.as_of_us } else { row.event_time_us <= ask.as_of_us };
    let visible: Vec<&Row> = rows.iter().filter(happened).collect();
    let Some(newest_us) = visible.iter().map(|row| row.event_time_us).max() else {
        return Answer::NotFound;
    };
    let age_us = i128::from(ask.read_at_us) - i128::from(newest_us);
    if retention_us(view).is_some_and(|retention| age_us > retention) {
        return Answer::NotFound;
    }
    let outside_max_age = view.ttl_us.is_some_and(|ttl| age_us > i128::from(ttl));
    let mut values = BTreeMap::new();
    for feature in &view.features {
        let cells = feature_values(feature, &visible, ask.as_of_us, exclusive);
        assert_eq!(cells.len(), feature.outputs.len(), "`{}` has other outputs than its definition", feature.name);
        for (output, cell) in feature.outputs.iter().zip(cells) {
            values.insert(output.name.clone(), if outside_max_age { Cell::of(Value::Null) } else { cell });
        }
    }
    let changes = view.features.iter().filter_map(|feature| next_change(feature, &visible, ask.as_of_us)).min();
    let valid_until_us = changes.and_then(|instant| i64::try_from(instant).ok());
    Answer::Known(Known { event_timestamp_us: newest_us, valid_until_us, outside_max_age, values })
}

/// Rule 7: how long after its newest row an entity is known; `None` = for good.
pub fn retention_us(view: &FeatureView) -> Option<i128> {
    let ttl = i128::from(view.ttl_us?);
    let reaches: Option<Vec<i128>> = view.features.iter().map(|feature| reach_us(&feature.window)).collect();
    reaches.map(|reaches| reaches.into_iter().fold(ttl, i128::max))
}

/// The rows that exist for a feature, whatever its window: `where` holds and the aggregate takes them.
pub fn feature_rows<'a>(feature: &Feature, rows: &[&'a Row]) -> Vec<&'a Row> {
    let params = params_of(feature);
    let in_time = |row: &Row| feature.allowed_lateness_us.is_none() || !is_late(row);
    let taken = |row: &&&Row| {
        in_time(row) && passes(&feature.filter, row) && !refuses(&feature.udf.udf, &params, &inputs_of(feature, row))
    };
    rows.iter().filter(taken).copied().collect()
}

/// Whether a row exists for a feature, come when it may.
pub fn takes_part(feature: &Feature, row: &Row) -> bool {
    passes(&feature.filter, row)
}

fn feature_values(feature: &Feature, visible: &[&Row], as_of_us: i64, exclusive: bool) -> Vec<Cell> {
    let mut counted: Vec<(i64, Vec<Value>)> = feature_rows(feature, visible)
        .into_iter()
        .filter(|row| holds(&feature.window, row.event_time_us, as_of_us, exclusive))
        .map(|row| (row.event_time_us, inputs_of(feature, row)))
        .collect();
    counted.sort();
    if feature.allowed_lateness_us.is_some() {
        return ordered_aggregate(&feature.udf.udf, &params_of(feature), &counted);
    }
    let inputs: Vec<Vec<Value>> = counted.into_iter().map(|(_, inputs)| inputs).collect();
    assert_eq!(feature.udf.module, "std", "the brute force knows the aggregates of `std` only");
    aggregate(&feature.udf.udf, &params_of(feature), feature.outputs.len(), &inputs)
}

fn next_change(feature: &Feature, visible: &[&Row], as_of_us: i64) -> Option<i128> {
    if feature.window == Window::Unbounded {
        return None;
    }
    let rows = feature_rows(feature, visible);
    rows.into_iter().filter_map(|row| changes_at_us(&feature.window, row.event_time_us, as_of_us)).min()
}

fn inputs_of(feature: &Feature, row: &Row) -> Vec<Value> {
    feature.inputs.iter().map(|input| row.value(&input.name)).collect()
}

fn params_of(feature: &Feature) -> serde_json::Value {
    serde_json::from_str(&feature.udf.params).expect("the parameters of a checked definition are JSON")
}
