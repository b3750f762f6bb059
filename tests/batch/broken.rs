//! Broken files, changed files, rows that cannot be: each is told, and nothing is lost silently.

use super::same::shop;
use super::world::{World, rows_with};
use onefold::batch::{BatchError, HistoricalAsk, Place, RefusedBy, Rows, SnapshotAsk, SnapshotSummary, list_files};
use onefold::canonical::Canonical;
use onefold::rows::Stage;
use std::fs::File;
use std::time::{Duration, SystemTime};

const DEFINITIONS: &str = "
kind: project
name: broken
---
kind: source
name: events
stream: { push: {} }
event_time: at
schema: { at: timestamp, key: utf8, number: int64, text: utf8 }
---
kind: entity
name: thing
join_keys: { key: utf8 }
---
kind: feature_view
name: stats
entities: [thing]
source: events
features:
  total: { udf: std.sum, inputs: [number] }
  rows: { udf: std.count }
  texts: { udf: std.last_n, inputs: [text], params: { n: 5 } }
";

fn snapshot(world: &World, rows: &Rows) -> Result<SnapshotSummary, BatchError> {
    let ask = SnapshotAsk { view: "stats".to_owned(), as_of_us: None };
    world.with_host(|host| host.snapshot(&ask, rows, |_| Ok(())))
}

fn world_with_file(events: &[String]) -> (World, std::path::PathBuf) {
    let mut world = World::apply(DEFINITIONS);
    let path = world.path("events.parquet");
    world.write_parquet("events", &path, events, 100);
    if let Some(source) = world.project.sources.get_mut("events") {
        source.batch_path = Some(path.display().to_string());
    }
    (world, path)
}

fn events(count: i64) -> Vec<String> {
    let event = |number| format!(r#"{{"at":"2026-01-01T00:00:00Z","key":"k{}","number":{number}}}"#, number % 5);
    (0..count).map(event).collect()
}

#[test]
fn a_file_that_is_cut_off_is_named() {
    let (world, path) = world_with_file(&events(1000));
    assert_eq!(snapshot(&world, &Rows::default()).map(|summary| summary.entities).ok(), Some(5));
    let whole = std::fs::read(&path).expect("the file is there");
    std::fs::write(&path, &whole[..whole.len() / 2]).expect("it can be cut");
    let error = snapshot(&world, &Rows::default()).expect_err("half a file is no file");
    assert!(matches!(error, BatchError::Unreadable { .. }), "{error}");
    assert!(error.to_string().contains("events.parquet"), "{error}");
    // Sound at both ends and broken between them: only reading finds it.
    let mut holed = whole.clone();
    let middle = whole.len() / 3;
    holed[4..middle].fill(0xa5);
    std::fs::write(&path, &holed).expect("it can be written");
    let error = snapshot(&world, &Rows::default()).expect_err("a hole is found");
    assert!(matches!(error, BatchError::Unreadable { .. }), "{error:?}");
    std::fs::remove_file(&path).expect("it can be removed");
    assert!(matches!(snapshot(&world, &Rows::default()), Err(BatchError::Unreadable { .. })));
}

#[test]
fn a_pinned_file_that_changed_is_not_read() {
    let (world, path) = world_with_file(&events(10));
    let pins = list_files(&path.display().to_string()).expect("the file is there");
    let rows = Rows { pinned: [("events".to_owned(), pins)].into(), ..Rows::default() };
    assert!(snapshot(&world, &rows).is_ok());
    let as_pinned = std::fs::metadata(&path).and_then(|meta| meta.modified()).expect("a time");
    let whole = std::fs::read(&path).expect("the file is there");
    let refused = |bytes: &[u8], modified: SystemTime, said: &str| {
        std::fs::write(&path, bytes).expect("it can be written");
        File::options().write(true).open(&path).and_then(|file| file.set_modified(modified)).expect("a time");
        let error = snapshot(&world, &rows).expect_err("it is another file");
        assert!(matches!(error, BatchError::Changed { .. }), "{error}");
        assert!(error.to_string().contains(said), "{error}");
    };
    // Each by itself: other bytes in the same moment, the same again a moment later, fewer rows in as many bytes.
    world.write_parquet("events", &path, &events(11), 100);
    refused(&std::fs::read(&path).expect("the file is there"), as_pinned, "bytes and had");
    refused(&whole, as_pinned + Duration::from_millis(1), "was written again since");
    world.write_parquet("events", &path, &events(3), 100);
    let mut fewer = std::fs::read(&path).expect("the file is there");
    let end = fewer.len() - 8;
    let footer = u32::from_le_bytes(fewer[end..end + 4].try_into().expect("four bytes")) as usize;
    let filling = vec![0; whole.len().checked_sub(fewer.len()).expect("fewer rows are smaller")];
    fewer.splice(end - footer..end - footer, filling);
    refused(&fewer, as_pinned, "has 3 rows and had 10");
    std::fs::write(&path, &whole).expect("it can be written");
    File::options().write(true).open(&path).and_then(|file| file.set_modified(as_pinned)).expect("a time");
    assert!(snapshot(&world, &rows).is_ok());
}

#[test]
fn wrong_and_missing_columns_are_bad_input() {
    let (mut world, path) = world_with_file(&events(10));
    let source = world.project.sources.get_mut("events").expect("the source");
    source.columns[0].batch_column = "when".to_owned();
    let error = snapshot(&world, &Rows::default()).expect_err("no event time");
    assert!(matches!(&error, BatchError::Input(text) if text.contains("`when`")), "{error}");
    let source = world.project.sources.get_mut("events").expect("the source");
    source.columns[0].batch_column = "number".to_owned();
    let error = snapshot(&world, &Rows::default()).expect_err("a number is no timestamp");
    assert!(matches!(&error, BatchError::Input(text) if text.contains(&path.display().to_string())), "{error}");
}

#[test]
fn labels_must_be_right() {
    let (world, _) = world_with_file(&events(10));
    let references = onefold::batch::feature_references(&world.project, "stats.total, stats:rows").expect("features");
    let historical = |text: &str| {
        std::fs::write(world.path("labels.csv"), text).expect("a file");
        let ask = HistoricalAsk {
            labels: world.path("labels.csv"),
            features: references.clone(),
            timestamp: "event_timestamp".to_owned(),
        };
        world.with_host(|host| host.historical(&ask, &Rows::default(), &world.path("out.parquet")))
    };
    let error = historical("key,at\nk1,2026-01-01T00:00:00Z\n").expect_err("no instant");
    assert!(matches!(&error, BatchError::Input(text) if text.contains("--timestamp")), "{error}");
    let error = historical("key,event_timestamp\nk1,2026-01-01T00:00:00Z\nk2,\n").expect_err("a label without time");
    assert!(matches!(&error, BatchError::Input(text) if text.contains("label 1")), "{error}");
    assert!(!world.path("out.parquet").exists(), "half a training set is none");
    assert_eq!(
        historical("key,event_timestamp\nk1,2026-01-01T00:00:00Z\n").map(|summary| summary.labels).ok(),
        Some(1)
    );
    assert_eq!(historical("key,event_timestamp\n").map(|summary| summary.labels).ok(), Some(0));
    assert!(onefold::batch::feature_references(&world.project, "stats.nothing").is_err());
}

#[test]
fn refused_rows_are_told_with_their_place() {
    let world = World::apply(DEFINITIONS);
    let lines = [
        r#"{"at":"2026-01-01T00:00:00Z","key":"a","number":1}"#,
        r#"{"at":"2026-01-01T00:00:00Z","key":"a","number":"two"}"#,
        r#"{"at":"2026-01-01T00:00:00Z","key":7,"number":3}"#,
        r#"{"at":"yesterday","key":"a","number":4}"#,
        r#"{"at":"2026-01-01T02:00:00Z","key":"a","number":5}"#,
        r#"{"at":"2026-01-01T00:00:00Z","key":null,"number":6}"#,
        r#"{"at":"2026-01-01T00:00:00Z","#,
    ];
    let mut lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
    // The last five texts may have a fifth of 1 MiB each.
    lines.push(format!(r#"{{"at":"2026-01-01T00:00:00Z","key":"a","number":8,"text":"{}"}}"#, "x".repeat(300_000)));
    // 2026-01-01T00:30:00Z: the row of two o'clock is more than an hour ahead.
    let rows = rows_with("events", Some(world.log(&lines, 1_767_227_400_000_000)));
    let summary = snapshot(&world, &rows).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((summary.entities, summary.null_keys), (1, 1));
    assert_eq!(summary.as_of_us, Some(1_767_225_600_000_000), "a row from the future moves no clock");
    let refusals = world.refusals.summary();
    let told: Vec<(u64, Stage, &str)> = refusals
        .examples
        .iter()
        .map(|refusal| {
            let Place::Log { position } = refusal.place else { panic!("rows of the log: {refusal:?}") };
            let by = match refusal.refused_by {
                RefusedBy::All => "all",
                RefusedBy::Table(_) => "table",
                RefusedBy::Feature(_) => "feature",
            };
            (position, refusal.stage, by)
        })
        .collect();
    let decode = Stage::Decode;
    let expected = [
        (1, decode, "feature"),
        (2, decode, "table"),
        (3, decode, "all"),
        (4, decode, "all"),
        (6, decode, "all"),
        (7, Stage::Fold, "feature"),
    ];
    assert_eq!(told, expected);
    assert_eq!(refusals.total(), 6);
}

#[test]
fn broken_lines_of_the_canonical_rows_are_counted() {
    let (world, _) = shop(1);
    let shape = Canonical { broken_share: 0.05, ..Canonical::new(9, 2_000) };
    let text = String::from_utf8(shape.lines().0).expect("text");
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let broken = shape.rows().filter(|row| row.broken.is_some()).count() as u64;
    let mut world = world;
    if let Some(source) = world.project.sources.get_mut("transactions") {
        source.batch_path = None;
    }
    let rows = rows_with("transactions", Some(world.log(&lines, shape.end_us)));
    let ask = SnapshotAsk { view: "category_stats".to_owned(), as_of_us: None };
    let read = world.with_host(|host| host.snapshot(&ask, &rows, |_| Ok(())));
    read.unwrap_or_else(|error| panic!("{error}"));
    let refusals = world.refusals.summary();
    let places: std::collections::BTreeSet<_> = refusals.examples.iter().map(|refusal| &refusal.place).collect();
    assert_eq!(places.len() as u64, broken, "each broken line is told once or for each feature");
}
