//! `verify` finds what is planted: in stored state, online, and in the log.

use crate::reference::format_time_us;
use crate::stream::Bench;
use onefold::batch::BatchSettings;
use onefold::clock::ManualClock;
use onefold::online::{FeatureWrite, NewValue, OnlineBatch, OnlineEntity, OnlineStore};
use onefold::platform::{PlatformError, Verified};
use onefold::route::{Groups, hash};
use onefold::source::{Append, LogSettings, PushLog, Records};
use onefold::state::{ChangesWriter, FileRange, GroupChanges, Manifest, TableChanges};
use onefold::storage::{Creation, Storage, sealed_json, unsealed_json};
use std::sync::Arc;
use std::time::Duration;

const PROJECT: &str = "proof";
const SOURCE: &str = "events";
const DEFINITIONS: &str = "
kind: project
name: proof
---
kind: source
name: events
stream: { push: {} }
event_time: at
schema: { at: timestamp, key: utf8, x: float64 }
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
  sum: { udf: std.sum, inputs: [x] }
  sum_2h: { udf: std.sum, inputs: [x], window: 2h }
";
/// 2026-01-02T00:00:00Z.
const BEGIN_US: i64 = 1_767_312_000_000_000;
const MINUTE_US: i64 = 60_000_000;
const EVENTS: usize = 400;
const ENTITIES: usize = 40;

fn events() -> Vec<String> {
    let event = |number: usize| {
        let at = format_time_us(BEGIN_US + number as i64 * MINUTE_US);
        format!("{{\"at\":\"{at}\",\"key\":\"k{}\",\"x\":{}.5}}", number % ENTITIES, number)
    };
    (0..EVENTS).map(event).collect()
}

/// A platform with all events folded.
fn proven() -> Bench {
    let now_us = BEGIN_US + EVENTS as i64 * MINUTE_US;
    let bench = Bench::in_memory(now_us, 1);
    bench.apply(PROJECT, DEFINITIONS);
    bench.push_texts(PROJECT, SOURCE, &events(), 7);
    bench
}

fn verify(bench: &Bench) -> Result<Verified, PlatformError> {
    let temporary = tempfile::tempdir().expect("a directory");
    let host = bench.platform.project(PROJECT).expect("it was applied");
    host.verify(&[], &BatchSettings::new(temporary.path()), Arc::new(|_| ()))
}

/// Changes what the newest manifests say the state is, with sound checksums.
pub fn edit_state(storage: &Arc<dyn Storage>, project: &str, mut edit: impl FnMut(&mut TableChanges)) {
    for group in Groups::default().all() {
        let prefix = format!("projects/{project}/manifests/{group:02}/");
        let path = storage.list(&prefix).expect("it can be listed").pop().expect("there was a checkpoint");
        let bytes = storage.read(&path).expect("it can be read").expect("it is there");
        let mut manifest: Manifest = unsealed_json(&bytes).expect("a manifest");
        for (number, file) in manifest.files.iter_mut().enumerate() {
            let bytes = storage.read_range(&file.path, file.offset, file.length as usize);
            let mut changes = GroupChanges::read(&bytes.expect("it can be read").expect("it is there")).expect("sound");
            let mut writer = ChangesWriter::default();
            for table in &mut changes.tables {
                assert_eq!(table.dropped, Vec::<Vec<u8>>::new(), "nothing is dropped here");
                edit(table);
                writer.entities(table.id, &table.fingerprints, &table.entities);
            }
            let bytes = writer.finish();
            let path = format!("projects/{project}/state/planted-{group:02}-{number}.delta");
            assert_eq!(storage.create(&path, &bytes).expect("it can be written"), Creation::Created);
            *file = FileRange { path, offset: 0, length: bytes.len() as u64 };
        }
        storage.delete(&path).expect("it can be removed");
        let bytes = sealed_json(&path, &manifest).expect("JSON");
        assert_eq!(storage.create(&path, &bytes).expect("it can be written"), Creation::Created);
    }
}

/// Stores a checkpoint and stops, lets `plant` change the files, and starts again.
fn replant(bench: &mut Bench, plant: impl FnOnce(&Bench)) -> Result<(), String> {
    bench.platform.close().expect("a last checkpoint");
    plant(bench);
    let started = crate::stream::open_on(bench.storage(), &bench.clock, &bench.settings);
    started.map(|platform| bench.platform = platform).map_err(|error| error.to_string())
}

#[test]
fn an_honest_run_is_equal_also_after_a_restart() {
    let mut bench = proven();
    for _ in 0..2 {
        let verified = verify(&bench).expect("everything can be read");
        assert!(verified.is_equal() && verified.failed == 0, "{verified:?}");
        assert_eq!(verified.compared, ENTITIES as u64 * 2);
        bench.restart();
    }
    // Editing itself plants nothing.
    replant(&mut bench, |bench| edit_state(&bench.storage(), PROJECT, |_| ())).expect("it starts");
    let verified = verify(&bench).expect("everything can be read");
    assert!(verified.is_equal() && verified.compared == ENTITIES as u64 * 2, "{verified:?}");
}

#[test]
fn a_changed_cell_of_a_checkpoint_is_found() {
    for feature in 0..2 {
        let mut bench = proven();
        let mut swapped = 0;
        let swap = |bench: &Bench| {
            edit_state(&bench.storage(), PROJECT, |table| {
                if let [first, second, ..] = &mut table.entities[..] {
                    std::mem::swap(&mut first.cells[feature], &mut second.cells[feature]);
                    swapped += 2;
                }
            });
        };
        replant(&mut bench, swap).expect("the cells are sound, only not theirs");
        let verified = verify(&bench).expect("everything can be read");
        assert!(swapped > 0 && verified.differ == swapped, "{swapped} swapped: {verified:?}");
        let difference = &verified.differences[0];
        assert_eq!((difference.view.as_str(), difference.entity.len()), ("stats", 1), "{difference:?}");
        assert!(difference.feature.is_some() && difference.streamed != difference.batch, "{difference:?}");
    }
}

#[test]
fn a_lost_tile_of_a_checkpoint_is_found() {
    let mut bench = proven();
    let mut emptied = 0;
    let empty = |bench: &Bench| {
        edit_state(&bench.storage(), PROJECT, |table| {
            // The newest entity's rows are in the window; without its tiles the window is empty.
            let newest = table.entities.iter_mut().max_by_key(|entity| entity.newest_us);
            if let Some(entity) = newest {
                entity.cells.iter_mut().for_each(Vec::clear);
                emptied += 1;
            }
        });
    };
    match replant(&mut bench, empty) {
        Err(error) => println!("refused at the start: {error}"),
        Ok(()) => {
            let verified = verify(&bench).expect("everything can be read");
            assert!(emptied > 0 && verified.differ >= emptied, "{emptied} emptied: {verified:?}");
        }
    }
}

#[test]
fn a_lost_entity_and_an_invented_one_are_found() {
    let mut bench = proven();
    let mut gone = 0;
    let remove = |bench: &Bench| {
        edit_state(&bench.storage(), PROJECT, |table| gone += u64::from(table.entities.pop().is_some()));
    };
    replant(&mut bench, remove).expect("a state with fewer entities is a state");
    let verified = verify(&bench).expect("everything can be read");
    assert!(gone > 0 && verified.differ == gone, "{gone} gone: {verified:?}");
    assert_eq!(verified.differences[0].streamed, "not known");

    let mut bench = proven();
    let mut invented = 0;
    let invent = |bench: &Bench| {
        edit_state(&bench.storage(), PROJECT, |table| {
            if let Some(entity) = table.entities.first_mut() {
                // Key bytes end in the text: another text of one length.
                let last = entity.key.iter().rposition(u8::is_ascii_digit).expect("keys are k0 to k39");
                entity.key[last] = b'x';
                invented += 1;
            }
        });
    };
    replant(&mut bench, invent).expect("it starts");
    let verified = verify(&bench).expect("everything can be read");
    // Each is one that is not known any more, and one that batch has no row of.
    assert!(invented > 0 && verified.differ == 2 * invented, "{invented} invented: {verified:?}");
}

#[test]
fn a_wrong_value_online_is_found() {
    let bench = proven();
    let live = bench.platform.project(PROJECT).expect("it was applied").live().expect("it is live");
    let column = &live.compiled.layout.views["stats"].columns[0];
    let table = &live.compiled.layout.tables[column.table];
    let keys: arrow::array::ArrayRef = Arc::new(arrow::array::StringArray::from(vec!["k0"]));
    let keys = onefold::route::Keys::encode(&[keys]).expect("a key");
    let read = live.online.read(&table.id, &[column.fingerprint], &keys).expect("it can be read");
    assert!(read.found[0]);
    let right = read.features[0].outputs[0].clone();
    let wrong: arrow::array::ArrayRef = {
        let right: &arrow::array::Float64Array = arrow::array::AsArray::as_primitive(&right);
        // One bit: what a tolerance would pass over.
        Arc::new(arrow::array::Float64Array::from(vec![f64::from_bits(right.value(0).to_bits() ^ 1)]))
    };
    // The first entity of all is the first of its group.
    let entity = OnlineEntity {
        group: Groups::default().of(hash(keys.key(0))),
        number: 0,
        hash: hash(keys.key(0)),
        key: keys.key(0),
        newest_us: read.newest_us[0],
        valid_until_us: read.valid_until_us[0],
    };
    for (value, differ) in [(wrong, 1), (right, 0)] {
        let write =
            FeatureWrite { fingerprint: column.fingerprint, outputs: &[value], rows: &[(0, NewValue::Row(0, None))] };
        let batch = OnlineBatch { table: table.id, entities: &[entity], features: &[write] };
        live.online.write(&batch).expect("it can be written");
        let verified = verify(&bench).expect("everything can be read");
        assert_eq!(verified.differ, differ, "{verified:?}");
        assert_eq!(verified.compared, ENTITIES as u64 * 2);
    }
}

/// Writes the log again with these events, under the checksums of a log.
fn rewrite_log(bench: &Bench, events: &[String]) {
    let storage = bench.storage();
    let path = format!("projects/{PROJECT}/log/{SOURCE}");
    let old = storage.list(&format!("{path}/")).expect("it can be listed");
    assert!(!old.is_empty(), "the log lies elsewhere");
    old.iter().for_each(|path| storage.delete(path).expect("it can be removed"));
    let arrival_us = BEGIN_US + EVENTS as i64 * MINUTE_US;
    let clock = Arc::new(ManualClock::at(arrival_us));
    let log = PushLog::open(storage, &path, clock, LogSettings::default()).expect("it opens");
    for part in events.chunks(7) {
        let records = Records::from_slices(part.iter().map(|event| event.as_bytes())).expect("small");
        let append = Append { records, arrival_us, idempotency: None, answer: Default::default() };
        log.append(append).expect("it can be written");
    }
}

#[test]
fn a_changed_log_is_found() {
    let mut bench = proven();
    replant(&mut bench, |bench| rewrite_log(bench, &events())).expect("it starts");
    assert!(verify(&bench).expect("everything can be read").is_equal(), "writing again plants nothing");

    let mut changed = events();
    changed[395] = changed[395].replace("395.5", "395.25");
    replant(&mut bench, |bench| rewrite_log(bench, &changed)).expect("it starts");
    let verified = verify(&bench).expect("everything can be read");
    assert_eq!(verified.differ, 2, "both features of one entity: {verified:?}");

    let mut replaced = events();
    replaced[395] = replaced[394].clone();
    replant(&mut bench, |bench| rewrite_log(bench, &replaced)).expect("it starts");
    let verified = verify(&bench).expect("everything can be read");
    assert!(verified.differ > 2, "one entity lacks a row, another has one twice: {verified:?}");

    let error = replant(&mut bench, |bench| rewrite_log(bench, &events()[..EVENTS - 1])).expect_err("rows are gone");
    assert!(error.contains("acknowledged are gone") && error.contains("399"), "{error}");
}

/// A row that the stream has not folded yet is no difference, and one folded since is compared.
#[test]
fn verify_compares_at_a_barrier_and_the_stream_goes_on() {
    let bench = proven();
    let host = bench.platform.project(PROJECT).expect("it was applied");
    let more: Vec<String> = events().into_iter().map(|event| event.replace(":\"k", ":\"more-k")).collect();
    std::thread::scope(|scope| {
        scope.spawn(|| bench.push_texts(PROJECT, SOURCE, &more, 3));
        for _ in 0..5 {
            let verified = verify(&bench).expect("everything can be read");
            assert!(verified.is_equal() && verified.compared >= ENTITIES as u64 * 2, "{verified:?}");
        }
    });
    let end = 2 * EVENTS as u64;
    assert!(host.wait_served(SOURCE, end, Duration::from_secs(30)), "{:?}", host.status());
    let verified = verify(&bench).expect("everything can be read");
    assert!(verified.is_equal() && verified.compared == ENTITIES as u64 * 4, "{verified:?}");
}
