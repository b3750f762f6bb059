//! Random definitions and rows: what batch says is what the brute force says, as snapshots and as training sets.

use super::world::{World, rows_with};
use crate::reference::{Answer, Ask, Known, Row, Value, answer, by_entity, random_project, transformed};
use crate::stream::value_at;
use arrow::array::{Array, ArrayRef, Int64Array, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::RecordBatch;
use onefold::batch::{HistoricalAsk, SnapshotAsk};
use onefold::define::{FeatureReference, FeatureView};
use onefold_fold::Kind;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

const SEEDS: u64 = 24;

/// All rows of a Parquet file as one batch.
pub fn read_parquet(path: &Path) -> RecordBatch {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).expect("it is there")).expect("Parquet");
    let schema = reader.schema().clone();
    let batches: Vec<RecordBatch> = reader.build().expect("a reader").map(|batch| batch.expect("rows")).collect();
    arrow::compute::concat_batches(&schema, &batches).expect("batches of one file")
}

#[test]
fn random_definitions_give_what_the_brute_force_gives() {
    let mut compared = 0;
    for seed in 0..SEEDS {
        let random = random_project(seed);
        let mut world = World::apply(&random.definitions);
        world.threads = 1 + (seed % 3) as usize;
        world.batch_rows = [1, 3, 8192][(seed / 3 % 3) as usize];
        let events: Vec<String> = random.rows.iter().map(Row::to_event).collect();
        let (filed, pushed) = events.split_at(events.len() * (seed % 4) as usize / 3);
        if !filed.is_empty() {
            let directory = world.path("events");
            let (first, second) = filed.split_at(filed.len() / 2);
            world.write_parquet("events", &directory.join("a.parquet"), first, 7);
            world.write_parquet("events", &directory.join("day=1/b.parquet"), second, 5);
            if let Some(source) = world.project.sources.get_mut("events") {
                source.batch_path = Some(directory.display().to_string());
            }
        }
        let log = (!pushed.is_empty()).then(|| world.log(pushed, i64::MAX / 2));
        let rows = rows_with("events", log);
        for view in random.project.feature_views.values() {
            let entities = by_entity(view, &transformed(&random.project, view, &random.rows)).0;
            for as_of_us in random.asks_us.iter().map(|ask| Some(*ask)).chain([None]) {
                let ask = SnapshotAsk { view: view.name.clone(), as_of_us };
                let out = world.path("snapshot.parquet");
                let summary = world.with_host(|host| host.snapshot_file(&ask, &rows, &out));
                let summary = summary.unwrap_or_else(|error| panic!("seed {seed}, {}: {error}", view.name));
                let newest_us = random.rows.iter().map(|row| row.event_time_us).max();
                assert_eq!(summary.as_of_us, as_of_us.or(newest_us), "seed {seed}");
                let as_of_us = summary.as_of_us.expect("there are rows");
                compared += check_snapshot(seed, view, &entities, as_of_us, &read_parquet(&out));
            }
        }
        let out = world.path("training.parquet");
        let labels = write_labels(&world.path("labels.parquet"), &random.asks_us);
        let features = random.project.feature_views.values().flat_map(|view| {
            let outputs = view.features.iter().flat_map(|feature| &feature.outputs);
            outputs.map(|field| FeatureReference { view: view.name.clone(), feature: field.name.clone() })
        });
        let ask = HistoricalAsk {
            labels: world.path("labels.parquet"),
            features: features.collect(),
            timestamp: "event_timestamp".to_owned(),
        };
        let summary = world.with_host(|host| host.historical(&ask, &rows, &out));
        assert_eq!(summary.unwrap_or_else(|error| panic!("seed {seed}: {error}")).labels, labels.num_rows() as u64);
        let set = read_parquet(&out);
        assert_eq!(set.columns()[..3], labels.columns()[..], "seed {seed}: labels come out as they went in");
        for view in random.project.feature_views.values() {
            let entities = by_entity(view, &transformed(&random.project, view, &random.rows)).0;
            compared += check_labels(seed, view, &entities, &set);
        }
    }
    assert!(compared > 10_000, "only {compared} values were compared");
}

fn keys_of(view: &FeatureView, batch: &RecordBatch, row: usize) -> Vec<Value> {
    let key =
        |key: &onefold::define::JoinKey| value_at(batch.column_by_name(&key.name).expect("join keys are there"), row);
    view.join_keys.iter().map(key).collect()
}

pub fn check_snapshot(
    seed: u64,
    view: &FeatureView,
    entities: &BTreeMap<Vec<Value>, Vec<Row>>,
    as_of_us: i64,
    batch: &RecordBatch,
) -> usize {
    let shown = format!("seed {seed}, {} as of {as_of_us}", view.name);
    let mut expected = Vec::new();
    for (keys, rows) in entities {
        if let Answer::Known(known) = answer(view, rows, Ask::snapshot(as_of_us)) {
            expected.push((keys.clone(), known));
        }
    }
    let found: Vec<Vec<Value>> = (0..batch.num_rows()).map(|row| keys_of(view, batch, row)).collect();
    let keys: Vec<Vec<Value>> = expected.iter().map(|(keys, _)| keys.clone()).collect();
    assert_eq!(found, keys, "{shown}: the known entities, by join keys");
    let mut compared = 0;
    for (row, (keys, known)) in expected.iter().enumerate() {
        compared += check_values(&format!("{shown}, {keys:?}"), view, "", known, batch, row);
        let time = |name: &str| value_at(batch.column_by_name(name).expect("a column"), row);
        assert_eq!(time("event_timestamp"), Value::Timestamp(known.event_timestamp_us), "{shown}, {keys:?}");
        let valid_until = known.valid_until_us.map_or(Value::Null, Value::Timestamp);
        assert_eq!(time("valid_until"), valid_until, "{shown}, {keys:?}: valid_until");
    }
    compared
}

fn check_values(
    shown: &str,
    view: &FeatureView,
    prefix: &str,
    known: &Known,
    batch: &RecordBatch,
    row: usize,
) -> usize {
    let mut compared = 0;
    for field in view.features.iter().flat_map(|feature| &feature.outputs) {
        let column = batch.column_by_name(&format!("{prefix}{}", field.name)).expect("the column is there");
        let found = value_at(column, row);
        assert_eq!(found, known.values[&field.name].value, "{shown}: {}", field.name);
        compared += 1;
    }
    compared
}

/// Every key there may be at every instant, null keys and unknown ones too, in an order of no meaning.
pub fn write_labels(path: &Path, asks_us: &[i64]) -> RecordBatch {
    let (mut texts, mut numbers, mut times) = (Vec::new(), Vec::new(), Vec::new());
    for key in [Some("b"), None, Some(""), Some("nobody"), Some("a")] {
        for number in [Some(0), Some(i64::MAX), None, Some(-1)] {
            for ask_us in asks_us.iter().rev() {
                texts.push(key);
                numbers.push(number);
                times.push(*ask_us);
            }
        }
    }
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(texts)),
        Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC")),
        Arc::new(Int64Array::from(numbers)),
    ];
    let schema = Schema::new(vec![
        Field::new("key", DataType::Utf8, true),
        Field::new("event_timestamp", Kind::Timestamp.data_type(), true),
        Field::new("number", DataType::Int64, true),
    ]);
    let batch = RecordBatch::try_new(Arc::new(schema), columns).expect("columns of one length");
    let mut writer = ArrowWriter::try_new(File::create(path).expect("a file"), batch.schema(), None).expect("Parquet");
    writer.write(&batch).expect("rows can be written");
    writer.close().expect("the file can be ended");
    batch
}

pub fn check_labels(
    seed: u64,
    view: &FeatureView,
    entities: &BTreeMap<Vec<Value>, Vec<Row>>,
    set: &RecordBatch,
) -> usize {
    let mut compared = 0;
    for row in 0..set.num_rows() {
        let Value::Timestamp(at_us) = value_at(set.column(1), row) else { panic!("labels have times") };
        let keys = keys_of(view, set, row);
        let shown = format!("seed {seed}, {} label {row} {keys:?} at {at_us}", view.name);
        let known = entities.get(&keys).map(|rows| answer(view, rows, Ask::label(at_us)));
        match known {
            Some(Answer::Known(known)) => {
                compared += check_values(&shown, view, &format!("{}__", view.name), &known, set, row);
            }
            _ => {
                for field in view.features.iter().flat_map(|feature| &feature.outputs) {
                    let column = set.column_by_name(&format!("{}__{}", view.name, field.name)).expect("a column");
                    assert!(column.is_null(row), "{shown}: {} of an unknown entity", field.name);
                }
            }
        }
    }
    compared
}
