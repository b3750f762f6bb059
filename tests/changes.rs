//! Definitions that change while rows come in and are looked up: no reader sees a mixed, missing or older answer, what
//! is unchanged is not read again, and every value is right at the end.
//!
//! `ONEFOLD_SEED=7 ONEFOLD_CHANGES=300 cargo test --release --workspace --test it -- --nocapture changes::`

use crate::batch::world::World;
use crate::reference::Chance;
use crate::reference::format_time_us;
use crate::stream::{Bench, open_on};
use onefold::batch::BatchSettings;
use onefold::clock::{Clock, ManualClock, SystemClock};
use onefold::define::{Definitions, read_directory, read_text};
use onefold::online::OnlineStore;
use onefold::platform::{
    BatchRequest, Live, MaterializeRequest, Platform, PlatformError, PlatformSettings, ProjectHost,
};
use onefold::registry::ApplyOptions;
use onefold::route::Keys;
use onefold::source::Records;
use onefold::storage::forgetful::{Fault, Forgetful};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const PROJECT: &str = "life";
const SOURCE: &str = "events";
const SEED: u64 = 1;
const CHANGES: u64 = 30;
const KEYS: usize = 7;
/// 2026-01-02T00:00:00Z.
const BEGIN_US: i64 = 1_767_312_000_000_000;
/// So many events are pushed as fast as may be; then a thousand a second.
const EVENTS_AT_ONCE: usize = 60_000;
/// Events of every key that are in the file.
const HISTORY: usize = 40;

/// Features that all count the rows of an entity, each in a way of its own: what is unequal in one answer is mixed.
fn definitions(features: &BTreeMap<usize, u32>, renamed: Option<usize>, path: &std::path::Path) -> String {
    let mut text = format!(
        "kind: project
name: {PROJECT}
---
kind: source
name: {SOURCE}
stream: {{ push: {{}} }}
batch: {{ parquet: {{ path: {} }} }}
event_time: at
schema: {{ at: timestamp, key: utf8, number: int64 }}
---
kind: entity
name: thing
join_keys: {{ key: utf8 }}
---
kind: feature_view
name: stats
entities: [thing]
source: {SOURCE}
features:
  rows: {{ udf: std.count, inputs: [number] }}
",
        path.display()
    );
    for (feature, renames) in features {
        let window = if feature % 2 == 0 { ", window: 3650d" } else { "" };
        let filter = format!("where: {{ column: number, op: ge, value: -{} }}", feature + 1);
        let before = if renamed == Some(*feature) {
            format!(", renamed_from: f{feature}_{}", renames - 1)
        } else {
            String::new()
        };
        text += &format!("  f{feature}_{renames}: {{ udf: std.count, inputs: [number], {filter}{window}{before} }}\n");
    }
    text
}

fn event(number: usize, key: usize) -> String {
    let at = format_time_us(BEGIN_US + number as i64 * 1_000_000);
    format!("{{\"at\":\"{at}\",\"key\":\"k{key}\",\"number\":{number}}}")
}

/// What the threads of a test have in common.
struct Shared {
    platform: Mutex<Option<Arc<Platform>>>,
    clock: Arc<ManualClock>,
    ended: AtomicBool,
    acknowledged: Mutex<Vec<usize>>,
    looks: AtomicU64,
}

impl Shared {
    fn host(&self) -> Option<Arc<ProjectHost>> {
        self.platform.lock().expect("no thread panicked").as_ref().and_then(|platform| platform.project(PROJECT))
    }

    /// Pushes until the end; what is acknowledged is noted.
    fn push(&self) {
        let mut number = HISTORY * KEYS;
        while !self.ended.load(Ordering::SeqCst) {
            let Some(host) = self.host() else {
                std::thread::sleep(Duration::from_millis(1));
                continue;
            };
            let events: Vec<String> = (number..number + 20).map(|number| event(number, number % KEYS)).collect();
            let records = Records::from_slices(events.iter().map(|event| event.as_bytes())).expect("few bytes");
            self.clock.advance(2_000);
            // What is not acknowledged may be in all the same; it is sent as other events.
            if host.push(SOURCE, records, None).is_ok() {
                self.acknowledged.lock().expect("no thread panicked").extend(number..number + 20);
            }
            number += 20;
            // Every build reads the whole log: one that grows as long as builds take would measure itself.
            let rests_us = if number < EVENTS_AT_ONCE { 500 } else { 20_000 };
            std::thread::sleep(Duration::from_micros(rests_us));
        }
    }

    /// Looks every entity up until the end. Counts of one life of the process never go down; features never differ.
    fn look(&self) {
        let mut seen: BTreeMap<usize, i64> = BTreeMap::new();
        let mut revision = 0;
        while !self.ended.load(Ordering::SeqCst) {
            let Some(host) = self.host() else { continue };
            let Ok(live) = host.live() else { continue };
            assert!(live.revision.number >= revision, "revision {revision}, then {}", live.revision.number);
            revision = live.revision.number;
            for key in 0..KEYS {
                let counts = counts(&live, key);
                let Some((_, first)) = counts.first() else { continue };
                assert!(counts.iter().all(|(_, count)| count == first), "mixed: k{key} has {counts:?}");
                let before = seen.insert(key, *first).unwrap_or(0);
                assert!(*first >= before, "older: k{key} had {before} rows, then {first}, revision {revision}");
                self.looks.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// What every feature says of an entity, one lookup each table; nothing while it is unknown.
fn counts(live: &Live, key: usize) -> Vec<(String, i64)> {
    let keys: arrow::array::ArrayRef = Arc::new(arrow::array::StringArray::from(vec![format!("k{key}")]));
    let keys = Keys::encode(&[keys]).expect("a key");
    let view = &live.compiled.layout.views["stats"];
    let table = &live.compiled.layout.tables[view.columns[0].table];
    let of_table: Vec<_> = view.columns.iter().filter(|column| column.table == view.columns[0].table).collect();
    assert_eq!(of_table.len(), view.columns.len(), "all features have the same rows");
    let fingerprints: Vec<_> = of_table.iter().map(|column| column.fingerprint).collect();
    let read = live.online.read(&table.id, &fingerprints, &keys).expect("what is live can be read");
    if !read.found[0] {
        return Vec::new();
    }
    let count = |(column, feature): (&&onefold::rows::ViewColumn, &onefold::online::OnlineFeature)| {
        let values: &arrow::array::Int64Array = arrow::array::AsArray::as_primitive(&feature.outputs[0]);
        let is_missing = arrow::array::Array::is_null(values, 0);
        assert!(!is_missing, "missing: k{key} has no {} in revision {}", column.field.name, live.revision.number);
        (column.field.name.clone(), values.value(0))
    };
    of_table.iter().zip(&read.features).map(count).collect()
}

struct Life {
    disk: Forgetful,
    shared: Arc<Shared>,
    world: World,
    file: PathBuf,
    away: PathBuf,
    /// By number, with how often it was renamed.
    features: BTreeMap<usize, u32>,
    services: usize,
}

impl Life {
    fn start(&self) {
        self.shared.clock.advance(1);
        let settings = PlatformSettings {
            threads: 2,
            idle_us: i64::MAX,
            checkpoint_every_us: 20_000,
            ..PlatformSettings::default()
        };
        let platform = open_on(self.disk.storage(), &self.shared.clock, &settings).expect("it comes up");
        *self.shared.platform.lock().expect("no thread panicked") = Some(platform);
    }

    fn read(&self, renamed: Option<usize>) -> Definitions {
        let directory = self.world.path("definitions");
        std::fs::create_dir_all(&directory).expect("a directory");
        let mut text = definitions(&self.features, renamed, &self.file);
        for number in 0..self.services {
            text += &format!("---\nkind: feature_service\nname: model_{number}\nfeatures: [stats]\n");
        }
        std::fs::write(directory.join("all.yaml"), text).expect("a file");
        read_directory(&directory).expect("YAML")
    }

    fn platform(&self) -> Arc<Platform> {
        self.shared.platform.lock().expect("no thread panicked").clone().expect("it runs")
    }

    fn apply(&self) {
        self.try_apply(None).unwrap_or_else(|error| panic!("{error}"));
    }

    fn try_apply(&self, renamed: Option<usize>) -> Result<(), PlatformError> {
        let options = ApplyOptions { allow_breaking: true, prune: true, ..ApplyOptions::default() };
        let platform = self.platform();
        let proposal = platform.plan(PROJECT, &self.read(renamed), &options)?;
        platform.apply(PROJECT, &proposal).map(drop)
    }

    fn pause(&self, paused: bool) {
        let platform = self.platform();
        let proposal = platform.plan_pause(PROJECT, "stats", paused, &ApplyOptions::default());
        let done = proposal.and_then(|proposal| platform.apply(PROJECT, &proposal));
        done.unwrap_or_else(|error| panic!("{error}"));
    }

    fn batch(&self) -> BatchRequest {
        BatchRequest { settings: BatchSettings::new(self.world.directory.path()), progress: Arc::new(|_| ()) }
    }
}

#[test]
fn no_reader_sees_a_change_half_done() {
    let number =
        |name: &str, standard: u64| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(standard);
    let (seed, changes) = (number("ONEFOLD_SEED", SEED), number("ONEFOLD_CHANGES", CHANGES));
    println!("ONEFOLD_SEED={seed} ONEFOLD_CHANGES={changes}");
    let mut chance = Chance::new(seed);
    let without_files = definitions(&BTreeMap::new(), None, std::path::Path::new("nowhere"))
        .replace("batch: { parquet: { path: nowhere } }\n", "");
    let world = World::apply(&without_files);
    let file = world.path("events.parquet");
    let rows: Vec<String> = (0..HISTORY * KEYS).map(|number| event(number, number % KEYS)).collect();
    world.write_parquet(SOURCE, &file, &rows, 100);
    let shared = Arc::new(Shared {
        platform: Mutex::new(None),
        clock: Arc::new(ManualClock::at(BEGIN_US + 86_400_000_000 * 300)),
        ended: AtomicBool::new(false),
        acknowledged: Mutex::default(),
        looks: AtomicU64::new(0),
    });
    let away = world.path("away.parquet");
    let mut life = Life {
        disk: Forgetful::new(),
        shared: shared.clone(),
        world,
        file,
        away,
        features: BTreeMap::new(),
        services: 0,
    };
    life.start();
    life.apply();
    let host = life.platform().project(PROJECT).expect("it was applied");
    let done = host.materialize(&MaterializeRequest::default(), &life.batch());
    assert_eq!(done.map(|done| done.done.entities).unwrap_or_else(|error| panic!("{error}")), KEYS as u64);
    let pusher = std::thread::spawn({
        let shared = shared.clone();
        move || shared.push()
    });
    let reader = std::thread::spawn({
        let shared = shared.clone();
        move || shared.look()
    });
    let mut done: BTreeMap<&str, u32> = BTreeMap::new();
    let watch = SystemClock::new();
    for change in 0..changes {
        if change % 100 == 0 {
            let pushed = shared.acknowledged.lock().expect("no thread panicked").len();
            println!("{change} changes after {:.1} s, {pushed} events pushed", watch.monotonic_us() as f64 / 1e6);
        }
        let what = match chance.below(13) {
            0..4 => "added",
            4..6 => "removed",
            6 => "rebuilt",
            7 => "materialized",
            8 => "killed in the middle",
            9 => "renamed",
            10 => "rolled back",
            11 => "paused",
            _ => "unrelated, history away",
        };
        *done.entry(what).or_default() += 1;
        let host = life.platform().project(PROJECT).expect("it was applied");
        match what {
            "added" => {
                life.features.entry(chance.below(40)).or_insert(0);
                life.apply();
            }
            "removed" if !life.features.is_empty() => {
                let feature = *life.features.keys().nth(chance.below(life.features.len())).expect("it has some");
                life.features.remove(&feature);
                life.apply();
            }
            "renamed" if !life.features.is_empty() => {
                let feature = *life.features.keys().nth(chance.below(life.features.len())).expect("it has some");
                *life.features.get_mut(&feature).expect("it is there") += 1;
                life.try_apply(Some(feature)).unwrap_or_else(|error| panic!("{change}: {error}"));
            }
            "rolled back" => {
                let newest = host.live().expect("it was applied").revision.number;
                let platform = life.platform();
                let revision = 1 + chance.below(newest as usize) as u64;
                let options = ApplyOptions { allow_breaking: true, ..ApplyOptions::default() };
                let proposal = platform.plan_rollback(PROJECT, revision, &options);
                let back = proposal.and_then(|proposal| platform.apply(PROJECT, &proposal));
                back.unwrap_or_else(|error| panic!("{change}: back to {revision}: {error}"));
                life.apply();
            }
            "paused" => {
                life.pause(true);
                let standing = host.live().expect("it was applied");
                let before: Vec<_> = (0..KEYS).map(|key| counts(&standing, key)).collect();
                drop((standing, host));
                std::thread::sleep(Duration::from_millis(5));
                let dies = chance.below(2) == 0;
                if dies {
                    life.disk.fail_after(chance.below(60) as u64, Fault::Stop);
                    std::thread::sleep(Duration::from_millis(5));
                    life.disk.crash(change);
                    *shared.platform.lock().expect("no thread panicked") = None;
                    life.start();
                }
                let standing = life.platform().project(PROJECT).and_then(|host| host.live().ok()).expect("it runs");
                let after: Vec<_> = (0..KEYS).map(|key| counts(&standing, key)).collect();
                assert_eq!(before, after, "{change}: rows have moved what stands still, killed: {dies}");
                life.pause(false);
            }
            "rebuilt" => {
                let views = ["stats".to_owned()].into();
                host.rebuild(&views, &life.batch()).unwrap_or_else(|error| panic!("{change}: {error}"));
            }
            "materialized" => {
                let done = host.materialize(&MaterializeRequest::default(), &life.batch());
                done.unwrap_or_else(|error| panic!("{change}: {error}"));
            }
            "killed in the middle" => {
                life.features.insert(40 + change as usize, 0);
                life.disk.fail_after(chance.below(80) as u64, Fault::Stop);
                drop(life.try_apply(None));
                drop(host);
                // In this order: a process that hears of its end writes one more checkpoint.
                life.disk.crash(change);
                *shared.platform.lock().expect("no thread panicked") = None;
                life.start();
                // What was given up can be begun again.
                life.apply();
            }
            _ => {
                std::fs::rename(&life.file, &life.away).expect("it can be moved");
                life.services += 1;
                life.apply();
                std::fs::rename(&life.away, &life.file).expect("it can be moved");
            }
        }
        std::thread::sleep(Duration::from_millis(20));
        if pusher.is_finished() || reader.is_finished() {
            break;
        }
    }
    shared.ended.store(true, Ordering::SeqCst);
    pusher.join().expect("pushes go on");
    reader.join().expect("every answer is whole");
    println!("{done:?}, {} looks", shared.looks.load(Ordering::Relaxed));
    let host = life.platform().project(PROJECT).expect("it was applied");
    let end = host.status().stream.sources[SOURCE].end_position;
    assert!(host.wait_served(SOURCE, end, Duration::from_secs(30)));
    let acknowledged = shared.acknowledged.lock().expect("no thread panicked");
    let live = host.live().expect("it was applied");
    for key in 0..KEYS {
        let sent = acknowledged.iter().filter(|number| **number % KEYS == key).count();
        let count = counts(&live, key)[0].1;
        assert!(count >= (HISTORY + sent) as i64, "k{key}: {count} rows of {} and {HISTORY} of history", sent);
    }
    let verified = host.verify(&[], &life.batch().settings, Arc::new(|_| ())).unwrap_or_else(|error| panic!("{error}"));
    assert!(verified.is_equal() && verified.compared > 0, "{verified:?}");
    println!("{} acknowledged, {} values verified, 0 differ", acknowledged.len(), verified.compared);
    assert!(shared.looks.load(Ordering::Relaxed) > 1000 && done.len() >= 5, "{done:?}");
}

/// Guards: a build beside what runs takes memory, and a process that has none left would take all features down.
#[test]
fn at_the_limit_of_memory_pushes_and_builds_are_refused_and_lookups_go_on() {
    let text = |features: &BTreeMap<usize, u32>| {
        definitions(features, None, std::path::Path::new("nowhere"))
            .replace("batch: { parquet: { path: nowhere } }\n", "")
    };
    let mut bench = Bench::in_memory(BEGIN_US + 86_400_000_000, 1);
    bench.apply(PROJECT, &text(&BTreeMap::new()));
    let events: Vec<String> = (0..70).map(|number| event(number, number % KEYS)).collect();
    bench.push_texts(PROJECT, SOURCE, &events, 7);
    bench.settings.memory_bytes = 1;
    bench.restart();
    let host = bench.platform.project(PROJECT).expect("it was applied");
    let wider = text(&BTreeMap::from([(1, 0)]));
    let widen = |bench: &Bench| {
        let wider = read_text("definitions", &wider).expect("YAML");
        let proposal = bench.platform.plan(PROJECT, &wider, &ApplyOptions::default())?;
        bench.platform.apply(PROJECT, &proposal).map(drop)
    };
    let records = || Records::from_slices(events.iter().map(|event| event.as_bytes())).expect("few bytes");
    for refused in [host.push(SOURCE, records(), None).map(drop), widen(&bench)] {
        let Err(PlatformError::Unavailable(message)) = refused else { panic!("{refused:?}") };
        assert!(message.contains("at most 1 are allowed: raise limits.memory"), "{message}");
    }
    assert_eq!(counts(&host.live().expect("it is served"), 0), [("rows".to_owned(), 10)]);
    drop(host);
    bench.settings.memory_bytes = 1 << 30;
    bench.restart();
    widen(&bench).unwrap_or_else(|error| panic!("{error}"));
    bench.push_texts(PROJECT, SOURCE, &events, 7);
    let host = bench.platform.project(PROJECT).expect("it was applied");
    let live = host.live().expect("it is served");
    assert_eq!(counts(&live, 0), [("rows".to_owned(), 20), ("f1_0".to_owned(), 20)]);
}
