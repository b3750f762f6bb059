//! Random projects through the stream and as training sets, and the table of what they met on the way.

use crate::batch::random::{check_labels, read_parquet, write_labels};
use crate::batch::world::{World, rows_with};
use crate::reference::{
    Answer, Ask, Coverage, RandomProject, Row, Value, answer, by_entity, format_time_us, random_project, transformed,
};
use crate::served::look;
use crate::stream::Bench;
use onefold::batch::HistoricalAsk;
use onefold::define::{FeatureReference, FeatureView};
use onefold::platform::ProjectHost;
use onefold::serve::lookup::Status;
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;

/// Enough that every aggregate meets every situation in every kind of window, in the stream alone and in batch alone.
const PROJECTS: u64 = 600;

fn entity(view: &FeatureView, key: &[Value]) -> BTreeMap<String, Json> {
    view.join_keys.iter().zip(key).map(|(join_key, value)| (join_key.name.clone(), value.to_json())).collect()
}

/// Compares what lookups show of every entity with what the brute force says.
fn check_stream(
    random: &RandomProject,
    host: &ProjectHost,
    pushed: &[Row],
    (clock_us, wall_us): (i64, i64),
    coverage: &mut Coverage,
) -> usize {
    let mut compared = 0;
    for view in random.project.feature_views.values() {
        for (key, rows) in by_entity(view, &transformed(&random.project, view, pushed)).0 {
            let shown_at = format!("seed {}, clock {clock_us}, `{}` of {key:?}", random.seed, view.name);
            let ask = Ask::online(clock_us, &rows, wall_us);
            let expected = answer(view, &rows, ask);
            let shown = look(host, &view.name, &entity(view, &key), &BTreeMap::new(), wall_us);
            let event_us = match &expected {
                Answer::NotFound => None,
                Answer::Known(known) => Some(known.event_timestamp_us),
            };
            assert_eq!(shown.event_us, event_us, "{shown_at}: newest row");
            for (name, (status, value)) in shown.values {
                let (wanted, cell) = match &expected {
                    Answer::NotFound => (Status::NotFound, Value::Null),
                    Answer::Known(known) if known.outside_max_age => (Status::OutsideMaxAge, Value::Null),
                    Answer::Known(known) if known.values[&name].value.is_null() => (Status::NullValue, Value::Null),
                    Answer::Known(known) => (Status::Present, known.values[&name].value.clone()),
                };
                assert_eq!((status, &value), (wanted, &cell), "{shown_at}: `{name}` over {rows:?}");
                compared += 1;
            }
            coverage.observe(view, &rows, ask, &expected);
        }
    }
    compared
}

fn stream(random: &RandomProject, coverage: &mut Coverage) -> usize {
    let newest_us = random.rows.iter().map(|row| row.event_time_us).max().expect("there are rows");
    let mut bench = Bench::in_memory(newest_us, 1 + (random.seed % 2) as usize);
    // Time passes by events alone.
    bench.settings.idle_us = i64::MAX;
    bench.restart();
    let name = &random.project.name;
    bench.apply(name, &random.definitions);
    let source = &random.project.sources["events"];
    let batch = [1, 7, 4096][(random.seed / 2 % 3) as usize];
    let (mut clock_us, mut compared, mut done) = (i64::MIN, 0, 0);
    for part in 1..=4 {
        let end = random.rows.len() * part / 4;
        bench.push(name, "events", &random.rows[done..end], batch);
        done = end;
        if random.seed % 4 + 1 == part as u64 {
            bench.restart();
        }
        let newest_us = random.rows[..done].iter().map(|row| row.event_time_us).max().expect("there are rows");
        clock_us = newest_us - source.out_of_orderness_us;
        let host = bench.platform.project(name).unwrap();
        compared += check_stream(random, &host, &random.rows[..done], (clock_us, newest_us), coverage);
    }
    for at_us in random.asks_us.iter().filter(|at_us| **at_us > clock_us) {
        bench.clock.set(newest_us.max(*at_us));
        let tick = json!({ "at": format_time_us(at_us + source.out_of_orderness_us) }).to_string();
        bench.push_texts(name, "events", &[tick], 1);
        let host = bench.platform.project(name).unwrap();
        compared += check_stream(random, &host, &random.rows, (*at_us, newest_us.max(*at_us)), coverage);
    }
    compared
}

fn batch(random: &RandomProject, coverage: &mut Coverage) -> usize {
    let mut world = World::apply(&random.definitions);
    world.threads = 1 + (random.seed % 2) as usize;
    let events: Vec<String> = random.rows.iter().map(Row::to_event).collect();
    let rows = rows_with("events", Some(world.log(&events, i64::MAX / 2)));
    write_labels(&world.path("labels.parquet"), &random.asks_us);
    let features = random.project.feature_views.values().flat_map(|view| {
        let outputs = view.features.iter().flat_map(|feature| &feature.outputs);
        outputs.map(|field| FeatureReference { view: view.name.clone(), feature: field.name.clone() })
    });
    let ask = HistoricalAsk {
        labels: world.path("labels.parquet"),
        features: features.collect(),
        timestamp: "event_timestamp".to_owned(),
    };
    let out = world.path("training.parquet");
    let done = world.with_host(|host| host.historical(&ask, &rows, &out));
    done.unwrap_or_else(|error| panic!("seed {}: {error}", random.seed));
    let set = read_parquet(&out);
    let mut compared = 0;
    for view in random.project.feature_views.values() {
        let entities = by_entity(view, &transformed(&random.project, view, &random.rows)).0;
        compared += check_labels(random.seed, view, &entities, &set);
        for rows in entities.values() {
            for at_us in &random.asks_us {
                let ask = Ask::label(*at_us);
                coverage.observe(view, rows, ask, &answer(view, rows, ask));
            }
        }
    }
    compared
}

#[test]
fn random_projects_meet_every_situation_in_the_stream() {
    let (mut coverage, mut compared) = (Coverage::default(), 0);
    for seed in 0..PROJECTS {
        compared += stream(&random_project(seed), &mut coverage);
    }
    println!("the stream, {compared} values:\n{coverage}");
    coverage.check().unwrap_or_else(|missing| panic!("{missing}"));
}

#[test]
fn random_projects_meet_every_situation_in_batch() {
    let (mut coverage, mut compared) = (Coverage::default(), 0);
    for seed in 0..PROJECTS {
        compared += batch(&random_project(seed), &mut coverage);
    }
    println!("batch, {compared} values:\n{coverage}");
    coverage.check().unwrap_or_else(|missing| panic!("{missing}"));
}
