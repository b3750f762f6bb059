//! The streaming path against the brute force: random definitions and rows through the real parser, log, decoder,
//! modules, checkpoints and online store.

use crate::reference::{Answer, Ask, Row, Value, answer, by_entity, random_project, transformed};
use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{Float64Type, Int64Type, TimestampMicrosecondType};
use onefold::clock::ManualClock;
use onefold::define::{FeatureView, read_text};
use onefold::online::OnlineStore;
use onefold::platform::{Platform, PlatformError, PlatformSettings, ProjectHost};
use onefold::registry::{ApplyOptions, ModuleCache};
use onefold::route::Keys;
use onefold::source::Records;
use onefold::storage::forgetful::Forgetful;
use onefold::storage::{LocalStorage, Storage};
use onefold_fold::{Engine, Kind, Limits};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// A platform over a disk of its own, with a clock that stands still.
pub struct Bench {
    disk: TestDisk,
    pub clock: Arc<ManualClock>,
    pub settings: PlatformSettings,
    pub platform: Arc<Platform>,
}

/// Where a bench keeps its data: the machine's disk, or the same code over memory, which need not wait for a sync.
enum TestDisk {
    Directory(tempfile::TempDir),
    Memory(Forgetful),
}

impl Bench {
    pub fn new(now_us: i64, threads: usize) -> Bench {
        Bench::on(TestDisk::Directory(tempfile::tempdir().unwrap()), now_us, threads)
    }

    pub fn in_memory(now_us: i64, threads: usize) -> Bench {
        Bench::on(TestDisk::Memory(Forgetful::new()), now_us, threads)
    }

    fn on(disk: TestDisk, now_us: i64, threads: usize) -> Bench {
        let clock = Arc::new(ManualClock::at(now_us));
        let settings = PlatformSettings { threads, ..PlatformSettings::default() };
        let platform = open_on(disk.storage(), &clock, &settings).unwrap();
        Bench { disk, clock, settings, platform }
    }

    /// The data as they are now.
    pub fn storage(&self) -> Arc<dyn Storage> {
        self.disk.storage()
    }

    pub fn apply(&self, project: &str, definitions: &str) {
        let definitions = read_text("definitions", definitions).unwrap();
        self.platform.push_module(project, "ecommerce", crate::modules::ecommerce()).unwrap();
        let proposal = self.platform.plan(project, &definitions, &ApplyOptions::default()).unwrap();
        self.platform.apply(project, &proposal).unwrap();
    }

    pub fn push(&self, project: &str, source: &str, rows: &[Row], batch: usize) {
        let events: Vec<String> = rows.iter().map(Row::to_event).collect();
        self.push_texts(project, source, &events, batch);
    }

    /// Pushes events, so many at once, and waits until lookups see them.
    pub fn push_texts(&self, project: &str, source: &str, events: &[String], batch: usize) {
        let host = self.platform.project(project).unwrap();
        let mut position = 0;
        for events in events.chunks(batch) {
            let records = Records::from_slices(events.iter().map(|event| event.as_bytes())).unwrap();
            let pushed = host.push(source, records, None).unwrap();
            assert_eq!(pushed.dead_lettered, 0, "{:?}", pushed.errors);
            position = pushed.position;
        }
        assert!(host.wait_served(source, position, Duration::from_secs(30)), "{:?}", host.status());
    }

    /// Stores a checkpoint, ends everything, and comes up again from the files.
    pub fn restart(&mut self) {
        self.platform.close().unwrap();
        self.platform = open_on(self.storage(), &self.clock, &self.settings).unwrap();
    }
}

impl TestDisk {
    fn storage(&self) -> Arc<dyn Storage> {
        match self {
            TestDisk::Directory(directory) => Arc::new(LocalStorage::open(directory.path()).unwrap()),
            TestDisk::Memory(disk) => disk.storage(),
        }
    }
}

/// Compiled once for all tests of this process.
pub fn modules() -> Arc<ModuleCache> {
    static MODULES: OnceLock<Arc<ModuleCache>> = OnceLock::new();
    MODULES.get_or_init(|| Arc::new(ModuleCache::new(Engine::new(Limits::default()).unwrap()))).clone()
}

/// A platform over any storage.
pub fn open_on(
    storage: Arc<dyn Storage>,
    clock: &Arc<ManualClock>,
    settings: &PlatformSettings,
) -> Result<Arc<Platform>, PlatformError> {
    Platform::open_with(settings.clone(), storage, clock.clone(), modules())
}

/// A value of a column as the brute force has it.
pub fn value_at(column: &ArrayRef, row: usize) -> Value {
    if column.is_null(row) {
        return Value::Null;
    }
    match Kind::of(column.data_type()).unwrap() {
        Kind::Boolean => Value::Boolean(column.as_boolean().value(row)),
        Kind::Int64 => Value::Int64(column.as_primitive::<Int64Type>().value(row)),
        Kind::Float64 => Value::Float64(column.as_primitive::<Float64Type>().value(row)),
        Kind::Timestamp => Value::Timestamp(column.as_primitive::<TimestampMicrosecondType>().value(row)),
        Kind::Utf8 => Value::Utf8(column.as_string::<i32>().value(row).to_owned()),
        Kind::Binary => Value::Binary(column.as_binary::<i32>().value(row).to_vec()),
        Kind::Int64List => {
            let items = column.as_list::<i32>().value(row);
            Value::Int64List(items.as_primitive::<Int64Type>().values().to_vec())
        }
        Kind::Float64List => {
            let items = column.as_list::<i32>().value(row);
            Value::Float64List(items.as_primitive::<Float64Type>().values().to_vec())
        }
        Kind::Float32List => {
            let items = column.as_list::<i32>().value(row);
            Value::Float32List(items.as_primitive::<arrow::datatypes::Float32Type>().values().to_vec())
        }
        Kind::Utf8List => {
            let items = column.as_list::<i32>().value(row);
            Value::Utf8List(items.as_string::<i32>().iter().flatten().map(str::to_owned).collect())
        }
    }
}

/// Compares what is served for every entity of a view with what the brute force says; returns how many values.
fn compare(host: &ProjectHost, view: &FeatureView, rows: &[Row], clock_us: i64, wall_us: i64, context: &str) -> usize {
    let live = host.live().unwrap();
    let layout = &live.compiled.layout.views[&view.name];
    let mut compared = 0;
    for (key, rows) in by_entity(view, rows).0 {
        let columns: Vec<ArrayRef> = key.iter().map(|value| one(value)).collect();
        let keys = Keys::encode(&columns).unwrap();
        let expected = answer(view, &rows, Ask::online(clock_us, &rows, wall_us));
        for column in &layout.columns {
            let table = &live.compiled.layout.tables[column.table];
            let mut read = live.online.read(&table.id, &[column.fingerprint], &keys).unwrap();
            for _ in 0..1000 {
                // Expiries may be a moment behind fresh rows.
                if !read.found[0] || read.valid_until_us[0] > clock_us {
                    break;
                }
                std::thread::sleep(Duration::from_millis(5));
                read = live.online.read(&table.id, &[column.fingerprint], &keys).unwrap();
            }
            let Answer::Known(known) = &expected else {
                // The store may still hold an entity that the reader's clock makes unknown; a lookup says so.
                continue;
            };
            let name = &column.field.name;
            assert!(read.found[0], "{context}: `{}` does not know {key:?}", view.name);
            assert_eq!(read.newest_us[0], known.event_timestamp_us, "{context}: newest row of {key:?}");
            if known.outside_max_age {
                continue;
            }
            let served = value_at(&read.features[0].outputs[column.output], 0);
            let cell = &known.values[name];
            assert_eq!(
                served,
                cell.value,
                "{context}, clock {clock_us}: `{}.{name}` of {key:?}: {:#?}, inputs {:?}",
                view.name,
                view.features[column.feature],
                rows.iter()
                    .map(|row| {
                        let feature = &view.features[column.feature];
                        let inputs: Vec<_> = feature.inputs.iter().map(|input| row.value(&input.name)).collect();
                        let filters: Vec<_> =
                            feature.filter.iter().map(|comparison| row.value(&comparison.column)).collect();
                        (row.event_time_us, inputs, filters)
                    })
                    .collect::<Vec<_>>()
            );
            let reason = read.features[0].reasons.first().map(|(_, _, reason)| reason.as_str());
            assert_eq!(reason, cell.reason, "{context}: reason of `{}.{name}` of {key:?}", view.name);
            compared += 1;
        }
    }
    compared
}

fn one(value: &Value) -> ArrayRef {
    match value {
        Value::Utf8(text) => Arc::new(arrow::array::StringArray::from(vec![text.as_str()])),
        Value::Int64(number) => Arc::new(arrow::array::Int64Array::from(vec![*number])),
        other => panic!("the random projects have no join key like {other:?}"),
    }
}

#[test]
fn streamed_values_are_what_the_brute_force_says() {
    let mut compared = 0;
    for seed in 0..60 {
        let random = random_project(seed);
        let newest_us = random.rows.iter().map(|row| row.event_time_us).max().unwrap();
        for (batch, threads) in [(1, 1), (7, 2), (4096, 2)] {
            let mut bench = match seed % 10 {
                0 => Bench::new(newest_us, threads),
                _ => Bench::in_memory(newest_us, threads),
            };
            let name = &random.project.name;
            bench.apply(name, &random.definitions);
            let (source, definition) = random.project.sources.first_key_value().unwrap();
            let half = random.rows.len() / 2;
            bench.push(name, source, &random.rows[..half], batch);
            bench.restart();
            bench.push(name, source, &random.rows[half..], batch);
            let clock_us = newest_us - definition.out_of_orderness_us;
            let host = bench.platform.project(name).unwrap();
            for restarted in [false, true] {
                if restarted {
                    bench.restart();
                }
                let host = if restarted { bench.platform.project(name).unwrap() } else { host.clone() };
                for view in random.project.feature_views.values() {
                    let rows = transformed(&random.project, view, &random.rows);
                    let context = format!("seed {seed}, batches of {batch}, {threads} threads, restarted {restarted}");
                    compared += compare(&host, view, &rows, clock_us, newest_us, &context);
                }
            }
        }
    }
    assert!(compared > 10_000, "{compared} values were compared");
}
