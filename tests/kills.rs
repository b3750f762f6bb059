//! The real program, killed at named points of its whole life: while it takes pushes, stores checkpoints, applies,
//! materializes, rebuilds, cuts over and is asked to replay, under load.
//!
//! `ONEFOLD_SEED=7 ONEFOLD_KILLS=200 cargo test --release --workspace --test it -- --nocapture kills::`

use crate::batch::world::World;
use crate::chaos::{Program, Told, agent, ask, push, wait_ready};
use crate::reference::{Chance, format_time_us};
use crate::stream::open_on;
use onefold::batch::BatchSettings;
use onefold::clock::{Clock, ManualClock, SystemClock};
use onefold::platform::PlatformSettings;
use onefold::storage::LocalStorage;
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// As in the load of `chaos.rs`, which pushes into a project of this name; with history before its events.
const DEFINITIONS: &str = "
kind: project
name: chaos
---
kind: source
name: events
stream: { push: {} }
batch: { parquet: { path: history.parquet } }
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
  rows: { udf: std.count }
  sum: { udf: std.sum, inputs: [x] }
  sum_1h: { udf: std.sum, inputs: [x], window: 1h }
";
const PROJECT: &str = "/v1/projects/chaos";
/// 2026-01-01T00:00:00Z: a day before the pushed events.
const BEGIN_US: i64 = 1_767_225_600_000_000;
const HISTORY: usize = 300;

/// What is under way when the process is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Doing {
    Pushing,
    Applying,
    Materializing,
    Rebuilding,
    Replaying,
}

use Doing::{Applying, Materializing, Pushing, Rebuilding, Replaying};

/// Where the process is killed, at which passing there at most, and what leads there.
const POINTS: &[(&str, usize, &[Doing])] = &[
    ("mid-append", 8, &[Pushing]),
    ("after the letters, before the delta", 3, &[Pushing, Applying, Replaying]),
    ("after the delta, before the manifests", 3, &[Pushing, Applying, Rebuilding]),
    ("between the manifests", 40, &[Pushing, Applying, Materializing]),
    ("after the manifests", 3, &[Pushing, Applying, Materializing]),
    ("after the pins", 1, &[Materializing]),
    ("while building", 1, &[Applying, Materializing, Rebuilding]),
    ("while the stream is stopped", 1, &[Applying, Materializing, Rebuilding]),
    ("before the revision", 1, &[Applying]),
    ("after the cut over", 1, &[Applying, Materializing, Rebuilding]),
    ("while replaying", 1, &[Replaying]),
];
/// Killed after so many milliseconds at most, wherever it is.
const ANY_TIME: (&str, usize) = ("at any time", 400);

struct Life<'a> {
    directory: &'a Path,
    base: String,
    port: u16,
    /// Lives so far.
    added: usize,
    /// Broken events that were acknowledged, by key.
    broken: BTreeMap<String, u64>,
}

impl Life<'_> {
    fn halt(&self) -> PathBuf {
        self.directory.join("halted")
    }

    /// Starts the program so that it halts there.
    fn start(&self, halt: Option<&str>) -> Program {
        let _ = std::fs::remove_file(self.halt());
        let mut program = Program::start(self.directory, self.port, halt);
        wait_ready(&self.base, &mut program, self.directory, &|| self.halt().exists());
        program
    }

    /// Sends what is to be under way; silence is an answer, for the process may be killed meanwhile.
    fn act(&self, doing: Doing, number: usize) -> Option<(u16, Json)> {
        let agent = agent();
        let post = |path: &str, body: &Json| {
            ask(&agent, "POST", &format!("{}{PROJECT}/{path}", self.base), None, &body.to_string())
        };
        match doing {
            Pushing => None,
            Applying => {
                let feature = format!("m{number}");
                // Each of its own, or nothing would have to be built.
                let window = format!("{}h", 2 + number);
                let view = json!([{
                    "kind": "feature_view", "name": "stats", "entities": ["thing"], "source": "events",
                    "features": { feature: { "udf": "std.max", "inputs": ["x"], "window": window } },
                }]);
                ask(&agent, "PUT", &format!("{}{PROJECT}/definitions", self.base), None, &view.to_string())
            }
            Materializing => {
                // All rows, and another list of files each time: state that is there is not built again.
                let to = format_time_us(BEGIN_US + 86_400_000_000 + number as i64 * 1_000_000);
                post("jobs", &json!({ "kind": "materialize", "to": to }))
            }
            Rebuilding => post("jobs", &json!({ "kind": "rebuild", "view": "stats" })),
            Replaying => post("dead-letters/replay", &json!({})),
        }
    }

    /// One broken event: it counts as a row, and what uses its column has a letter.
    fn push_broken(&mut self, number: u64) {
        let key = format!("k{}", number % 7);
        let at = format_time_us(BEGIN_US + 86_400_000_000);
        let event = json!({ "at": at, "key": key, "x": "no number" }).to_string();
        let url = format!("{}{PROJECT}/sources/events/events", self.base);
        let (status, told) =
            ask(&agent(), "POST", &url, Some(&format!("broken-{number}")), &event).expect("it answers");
        assert_eq!(status, 202, "{told}");
        *self.broken.entry(key).or_default() += 1;
    }

    /// Lives until it is killed. Whether it came to the halt that was asked for.
    fn live_and_die(&mut self, chance: &mut Chance, point: Option<(&'static str, usize)>, doing: Doing) -> bool {
        let hit = point.map_or(1, |(_, most)| 1 + chance.below(most));
        let halt = point.map(|(name, _)| format!("{name};{hit};{}", self.halt().display()));
        let mut program = self.start(halt.as_deref());
        self.added += 1;
        let halted = std::thread::scope(|scope| {
            let number = self.added;
            let acting = scope.spawn({
                let life = &*self;
                // A halt before it answers must not leave the request waiting for a start that never ends.
                move || if life.halt().exists() { None } else { life.act(doing, number) }
            });
            let mut halted = false;
            match point {
                None => std::thread::sleep(Duration::from_millis(chance.below(ANY_TIME.1) as u64)),
                Some(_) => {
                    for _ in 0..2000 {
                        halted = self.halt().exists();
                        if halted {
                            break;
                        }
                        std::thread::sleep(Duration::from_millis(5));
                    }
                }
            }
            program.kill();
            let answer = acting.join().expect("a request ends");
            if point.is_some() && !halted {
                println!("{doing:?} came past no {point:?}: {answer:?}");
            }
            if let Some((status, told)) = answer {
                assert!(status < 300 || status == 503, "{doing:?}: {status} {told}");
            }
            halted
        });
        halted || point.is_none()
    }
}

#[test]
fn kills_at_every_point_of_its_life_lose_and_double_nothing() {
    let number =
        |name: &str, standard: u64| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(standard);
    let (seed, kills) = (number("ONEFOLD_SEED", 4), number("ONEFOLD_LIFE_KILLS", 24));
    println!("ONEFOLD_SEED={seed} ONEFOLD_LIFE_KILLS={kills}");
    let temporary = tempfile::tempdir().expect("a directory");
    let directory = temporary.path();
    std::fs::create_dir(directory.join("definitions")).expect("a directory");
    std::fs::write(directory.join("definitions/all.yaml"), DEFINITIONS).expect("a file");
    let settings = "data: ./data\nstream: { threads: 2, checkpoint_every: 100ms, idle: 1h }\n";
    std::fs::write(directory.join("onefold.yaml"), settings).expect("a file");
    let world = World::apply(&DEFINITIONS.replace("batch: { parquet: { path: history.parquet } }\n", ""));
    let history = |number: usize| {
        let at = format_time_us(BEGIN_US + number as i64 * 60_000_000);
        json!({ "at": at, "key": format!("k{}", number % 100), "x": number as f64 / 3.0 }).to_string()
    };
    let history: Vec<String> = (0..HISTORY).map(history).collect();
    world.write_parquet("events", &directory.join("definitions/history.parquet"), &history, 100);

    let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").port();
    let base = format!("http://127.0.0.1:{port}");
    let mut life = Life { directory, base: base.clone(), port, added: 0, broken: BTreeMap::new() };
    let (stop, pushed) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut chance = Chance::new(seed);
    let mut first = life.start(None);
    materialized(&life);
    (0..5).for_each(|number| life.push_broken(number));
    first.kill();
    // Killed there, and how often it was not reached.
    let mut counts: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    let mut while_doing: BTreeMap<Doing, u64> = BTreeMap::new();
    let told: Told = std::thread::scope(|scope| {
        let pusher = scope.spawn({
            let (base, stop, pushed) = (&base, &stop, &pushed);
            move || push(base, 0, seed, Duration::from_millis(5), stop, pushed)
        });
        // A failure here must not leave the pusher waiting for someone who is gone.
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for kill in 0..kills {
                let which = kill as usize % (POINTS.len() + 1);
                let (point, doing) = match POINTS.get(which) {
                    Some((name, most, ways)) => (Some((*name, *most)), *chance.pick(ways)),
                    None => (None, *chance.pick(&[Pushing, Applying, Materializing, Rebuilding, Replaying])),
                };
                let reached = life.live_and_die(&mut chance, point, doing);
                let count = counts.entry(point.map_or(ANY_TIME.0, |(name, _)| name)).or_default();
                count.0 += u64::from(reached);
                count.1 += u64::from(!reached);
                *while_doing.entry(doing).or_default() += u64::from(reached);
            }
            // For the pusher to end, someone must answer it.
            life.start(None)
        }));
        stop.store(true, Ordering::SeqCst);
        let told = pusher.join().expect("a pusher ends well");
        match ended {
            Ok(mut program) => {
                check(&life, &told);
                program.kill();
            }
            Err(panic) => std::panic::resume_unwind(panic),
        }
        told
    });
    println!("killed there, not reached:");
    for (point, (killed, missed)) in &counts {
        println!("{point}: {killed}, {missed}");
    }
    println!("{while_doing:?}; {} events acknowledged, {} pushes sent more than once", told.events, told.resent);

    let storage = Arc::new(LocalStorage::open(&directory.join("data")).expect("the data are there"));
    let clock = Arc::new(ManualClock::at(SystemClock::new().now_us()));
    let platform = open_on(storage, &clock, &PlatformSettings::default()).expect("it comes up once more");
    let host = platform.project("chaos").expect("the project is there");
    let verified = host.verify(&[], &BatchSettings::new(directory), Arc::new(|_| ())).expect("everything can be read");
    println!("verify: {} compared, {} differ", verified.compared, verified.differ);
    assert!(verified.is_equal() && verified.failed == 0, "{verified:?}");
    let features = host.live().expect("it was applied").revision.project.feature_views["stats"].features.len();
    assert!(features > 3 || kills < 12, "no apply ever came through");
    platform.close().expect("a last checkpoint");
    for (point, _, _) in POINTS {
        let killed = counts.get(point).map_or(0, |(killed, _)| *killed);
        assert!(killed > 0 || kills < 12, "nothing was ever killed at `{point}`");
    }
}

/// Waits for state of the files.
fn materialized(life: &Life) {
    let (status, job) = life.act(Materializing, 0).expect("it answers");
    assert_eq!(status, 202, "{job}");
    let url = format!("{}{PROJECT}/jobs/{}", life.base, job["id"].as_str().expect("a number"));
    for _ in 0..2000 {
        let (_, told) = ask(&agent(), "GET", &url, None, "").expect("it answers");
        match told["state"].as_str() {
            Some("running") => std::thread::sleep(Duration::from_millis(5)),
            Some("done") => return,
            _ => panic!("{told}"),
        }
    }
    panic!("the job does not end");
}

/// Each acknowledged event is in once, and so is each row of the history.
fn check(life: &Life, told: &Told) {
    let broken: u64 = life.broken.values().sum();
    let total = told.events + broken;
    let status = format!("{}{PROJECT}/status", life.base);
    let mut at = Json::Null;
    for _ in 0..3000 {
        at = ask(&agent(), "GET", &status, None, "").map_or(Json::Null, |(_, status)| status);
        if at["sources"]["events"]["position"] == total {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(at["sources"]["events"]["position"], total, "{at}");
    assert_eq!(at["sources"]["events"]["end_position"], total, "each acknowledged push once: {at}");
    let mut by_key: BTreeMap<String, u64> = told.by_key.clone();
    (0..HISTORY).for_each(|number| *by_key.entry(format!("k{}", number % 100)).or_default() += 1);
    life.broken.iter().for_each(|(key, count)| *by_key.entry(key.clone()).or_default() += count);
    let keys: Vec<&String> = by_key.keys().collect();
    let lookup = json!({ "features": ["stats.rows"], "entities": { "key": keys } }).to_string();
    let url = format!("{}{PROJECT}/features", life.base);
    let (status, found) = ask(&agent(), "POST", &url, None, &lookup).expect("it answers");
    assert_eq!(status, 200, "{found}");
    let counts = &found["columns"]["stats__rows"]["values"];
    for (place, (key, count)) in by_key.iter().enumerate() {
        let shown = counts[place].as_u64().or_else(|| counts[place].as_str().and_then(|text| text.parse().ok()));
        assert_eq!(shown, Some(*count), "rows of {key}: {}", found["columns"]["stats__rows"]);
    }
    let letters = format!("{}{PROJECT}/dead-letters", life.base);
    let (_, letters) = ask(&agent(), "GET", &letters, None, "").expect("it answers");
    let of_sum = |letter: &&Json| letter["feature"] == "stats.sum" && letter["open"] == true;
    let found = letters["dead_letters"].as_array().map_or(0, |letters| letters.iter().filter(of_sum).count());
    assert_eq!(found as u64, broken, "one letter each: {letters}");
}
