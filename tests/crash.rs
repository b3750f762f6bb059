//! Crashes at every named point, and disks that are full: what was acknowledged is in, once, and the letters are whole.

use crate::batch::world::{World, read_as_file};
use crate::modules::trails;
use crate::reference::{Answer, Ask, Chance, Row, Value, answer, by_entity, format_time_us};
use crate::served::look;
use crate::stream::open_on;
use onefold::batch::BatchSettings;
use onefold::clock::{Clock, ManualClock};
use onefold::platform::{
    BatchRequest, MaterializeRequest, Platform, PlatformSettings, ProjectHost, Records, ReplayRequest,
};
use onefold::registry::ApplyOptions;
use onefold::route::Groups;
use onefold::storage::forgetful::{Fault, Forgetful};
use onefold::stream::{Letter, Reason, RefusedBy};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

const PROJECT: &str = "crash";
const SOURCE: &str = "events";
const DEFINITIONS: &str = "
kind: project
name: crash
---
kind: source
name: events
stream: { push: {} }
batch: { parquet: { path: FILES } }
event_time: at
out_of_orderness: 1h
schema: { at: timestamp, key: utf8, x: int64, number: int64 }
---
kind: entity
name: thing
join_keys: { key: utf8 }
---
kind: feature_view
name: trails
entities: [thing]
source: events
allowed_lateness: 30m
features:
  trail: { udf: trails.trail, inputs: [number] }
  trail_2h: { udf: trails.trail, inputs: [number], window: 2h }
---
kind: feature_view
name: stats
entities: [thing]
source: events
features:
  rows: { udf: std.count }
  sum: { udf: std.sum, inputs: [x] }
  newest: { udf: std.last, inputs: [x] }
  sum_1h: { udf: std.sum, inputs: [x], window: 1h }
";
/// Where the product can be stopped dead, and how often a run passes there at most.
const POINTS: [(&str, usize); 11] = [
    ("mid-append", 8),
    ("after the letters, before the delta", 6),
    ("after the delta, before the manifests", 6),
    ("between the manifests", 60),
    ("after the manifests", 6),
    ("before the revision", 2),
    ("after the pins", 2),
    ("while building", 3),
    ("while the stream is stopped", 3),
    ("after the cut over", 3),
    ("while replaying", 3),
];
/// Of these, where only a change of definitions or of state passes, or someone who asks for letters again.
const OF_CHANGES: &[&str] = &[
    "before the revision",
    "after the pins",
    "while building",
    "while the stream is stopped",
    "after the cut over",
    "while replaying",
];
/// Any call at all that changes the disk.
const ANYWHERE: &str = "anywhere";
/// How many seeds a point; more from `ONEFOLD_SEEDS`.
const SEEDS: u64 = 14;
/// 2026-01-02T00:00:00Z.
const BEGIN_US: i64 = 1_767_312_000_000_000;
const MINUTE_US: i64 = 60_000_000;

/// Rows that are in a file, older than all events, and the file.
struct History {
    world: World,
    rows: Vec<Row>,
}

fn history() -> &'static History {
    static HISTORY: OnceLock<History> = OnceLock::new();
    HISTORY.get_or_init(|| {
        let world = World::apply(
            &DEFINITIONS
                .replace("trails.trail", "std.last")
                .replace("allowed_lateness: 30m\n", "")
                .replace("batch: { parquet: { path: FILES } }\n", ""),
        );
        let row = |number: i64| Row {
            event_time_us: BEGIN_US - (600 - number * 5) * MINUTE_US,
            values: BTreeMap::from([
                ("key".to_owned(), Value::Utf8(format!("k{}", number % 7))),
                ("x".to_owned(), Value::Int64(number)),
                ("number".to_owned(), Value::Int64(-number)),
            ]),
        };
        let rows: Vec<Row> = (0..40).map(row).collect();
        let text = |(number, row): (usize, &Row)| {
            let at = format_time_us(row.event_time_us);
            format!("{{\"at\":\"{at}\",\"key\":\"k{}\",\"x\":{number},\"number\":-{number}}}", number % 7)
        };
        let events: Vec<String> = rows.iter().enumerate().map(text).collect();
        world.write_parquet(SOURCE, &world.path("events.parquet"), &events, 10);
        History { world, rows }
    })
}

fn batch() -> BatchRequest {
    BatchRequest { settings: BatchSettings::new(history().world.directory.path()), progress: Arc::new(|_| ()) }
}

/// How an event is broken.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Broken {
    Not,
    /// Its `x` cannot be decoded: what uses `x` refuses the row.
    Cell,
    /// Nothing of it can.
    Whole,
}

struct Sent {
    row: Row,
    broken: Broken,
}

/// A process over a disk that forgets, and what its clients know.
struct Machine {
    disk: Forgetful,
    clock: Arc<ManualClock>,
    groups: Groups,
    platform: Option<Arc<Platform>>,
    sent: BTreeMap<String, Sent>,
    /// In the order of their positions.
    acknowledged: Vec<String>,
    /// Pushed and not acknowledged: they may be in.
    in_flight: BTreeSet<String>,
    /// Features added by applies.
    added: usize,
    /// Letters of late rows, and values that batch comes to without these rows, each time they were looked at.
    late: usize,
    verified: u64,
    /// What was done beside pushing, by name.
    done: BTreeMap<&'static str, u64>,
}

impl Machine {
    fn new(groups: Groups) -> Machine {
        let mut machine = Machine {
            groups,
            disk: Forgetful::new(),
            clock: Arc::new(ManualClock::at(BEGIN_US + 1440 * MINUTE_US)),
            platform: None,
            sent: BTreeMap::new(),
            acknowledged: Vec::new(),
            in_flight: BTreeSet::new(),
            added: 0,
            late: 0,
            verified: 0,
            done: BTreeMap::new(),
        };
        machine.start().expect("an empty disk is no obstacle");
        machine.apply().expect("the definitions are sound");
        machine.materialize().expect("the file is sound");
        machine
    }

    fn start(&mut self) -> Result<(), String> {
        // Each process has a name of its own, which comes from the time.
        self.clock.advance(1_000_000);
        let settings = PlatformSettings {
            groups: self.groups,
            threads: 2,
            checkpoint_every_us: 1_000,
            idle_us: i64::MAX,
            ..PlatformSettings::default()
        };
        self.platform = Some(open_on(self.disk.storage(), &self.clock, &settings).map_err(|error| error.to_string())?);
        Ok(())
    }

    fn crash(&mut self, seed: u64) {
        // In this order: a process that hears of its end writes one more checkpoint.
        self.disk.crash(seed);
        self.platform = None;
    }

    fn host(&self) -> Arc<ProjectHost> {
        self.platform.as_ref().expect("it runs").project(PROJECT).expect("it was applied")
    }

    /// Applies the definitions with one more feature than before.
    fn apply(&mut self) -> Result<(), String> {
        let platform = self.platform.clone().expect("it runs");
        self.added += 1;
        let more = (0..self.added).map(|number| {
            // Each of its own, or nothing would have to be built.
            format!("  x_{number}: {{ udf: std.max, inputs: [x], window: {}h }}\n", number + 1)
        });
        let file = history().world.path("events.parquet");
        let text = DEFINITIONS.replace("FILES", &file.display().to_string());
        let text = format!("{text}{}", more.collect::<String>());
        let definitions = read_as_file(&text);
        let pushed = platform.push_module(PROJECT, "trails", trails());
        pushed.map_err(|error| error.to_string())?;
        let applied = platform.plan(PROJECT, &definitions, &ApplyOptions::default());
        let applied = applied.and_then(|proposal| platform.apply(PROJECT, &proposal));
        applied.map(drop).map_err(|error| error.to_string())
    }

    /// Builds all state anew of the file and the log.
    fn materialize(&mut self) -> Result<(), String> {
        // All rows, and another list of files each time: state that is there is not built again.
        let to_us = Some(BEGIN_US + self.sent.len() as i64);
        let request = MaterializeRequest { to_us, ..MaterializeRequest::default() };
        let done = self.host().materialize(&request, &batch());
        done.map(drop).map_err(|error| error.to_string())
    }

    /// Something that changes what is served or looks at what was refused.
    fn change(&mut self, chance: &mut Chance) {
        let (name, done) = match chance.below(5) {
            0 | 1 => ("applied", self.apply()),
            2 => ("materialized", self.materialize()),
            3 => {
                let view = *chance.pick(&["stats", "trails"]);
                let done = self.host().rebuild(&[view.to_owned()].into(), &batch());
                ("rebuilt", done.map(drop).map_err(|error| error.to_string()))
            }
            _ => {
                let done = self.host().replay(&ReplayRequest::default());
                ("replayed", done.map(drop).map_err(|error| error.to_string()))
            }
        };
        assert!(done.is_ok() || self.disk.stopped(), "{name}: {done:?}");
        *self.done.entry(name).or_default() += 1;
    }

    fn event(&mut self, chance: &mut Chance) -> String {
        let number = self.sent.len() as i64;
        let x = if chance.one_in(8) { Value::Null } else { Value::Int64(chance.below(1000) as i64 - 500) };
        let broken = match chance.below(12) {
            0 => Broken::Cell,
            1 => Broken::Whole,
            _ => Broken::Not,
        };
        let event_time_us = BEGIN_US + chance.below(300) as i64 * MINUTE_US;
        let key = format!("k{}", chance.below(9));
        let mut text = format!("{{\"at\":\"{}\",\"key\":\"{key}\",\"number\":{number}", format_time_us(event_time_us));
        text += &match (broken, &x) {
            (Broken::Cell, _) => ",\"x\":\"no number\"}".to_owned(),
            (Broken::Whole, _) => ",".to_owned(),
            (Broken::Not, Value::Int64(x)) => format!(",\"x\":{x}}}"),
            (Broken::Not, _) => "}".to_owned(),
        };
        let values = BTreeMap::from([
            ("key".to_owned(), Value::Utf8(key)),
            // Every aggregate of a broken `x` here passes over nulls, so a null is as good as no row.
            ("x".to_owned(), if broken == Broken::Not { x } else { Value::Null }),
        ]);
        self.sent.insert(text.clone(), Sent { row: Row { event_time_us, values }, broken });
        text
    }

    /// Pushes a few events; whether they were acknowledged.
    fn push(&mut self, chance: &mut Chance) -> bool {
        let events: Vec<String> = (0..1 + chance.below(5)).map(|_| self.event(chance)).collect();
        self.clock.advance(2_000);
        let records = Records::from_slices(events.iter().map(|event| event.as_bytes())).expect("few bytes");
        match self.host().push(SOURCE, records, None) {
            Ok(pushed) => {
                assert!(!pushed.repeated);
                self.acknowledged.extend(events);
                true
            }
            Err(_) => {
                self.in_flight.extend(events);
                false
            }
        }
    }

    /// Waits until lookups see all that is in the log; not if the disk has stopped.
    fn wait_served(&self) {
        let host = self.host();
        for _ in 0..20_000 {
            let status = host.status().stream;
            if self.disk.stopped() || status.sources[SOURCE].position == status.sources[SOURCE].end_position {
                return;
            }
            assert_eq!(status.error, None, "the stream has stopped");
            std::thread::sleep(Duration::from_millis(1));
        }
        panic!("rows are not folded: {:?}", host.status());
    }

    /// One life of the process, until it ends or the disk stops.
    fn live(&mut self, chance: &mut Chance, changes: bool) {
        for _ in 0..4 + chance.below(6) {
            if chance.one_in(if changes { 2 } else { 12 }) {
                self.change(chance);
            }
            if self.disk.stopped() {
                return;
            }
            let acknowledged = self.push(chance);
            assert!(acknowledged || self.disk.stopped(), "a sound disk takes pushes");
            if chance.one_in(2) {
                self.wait_served();
                std::thread::sleep(Duration::from_millis(chance.below(8) as u64));
            }
            if self.disk.stopped() {
                return;
            }
        }
        if chance.one_in(2) {
            let closed = self.platform.take().map(|platform| platform.close());
            assert!(closed.is_some_and(|closed| closed.is_ok()) || self.disk.stopped(), "a sound disk takes the last");
        }
    }

    /// The texts of the log, by position: all that were acknowledged, in order, and of the others none twice.
    fn records(&self) -> Vec<String> {
        let host = self.host();
        let end = host.status().stream.sources[SOURCE].end_position;
        let record =
            |position| host.raw_record(SOURCE, position).expect("the log is sound").expect("it is below the end");
        let records: Vec<String> =
            (0..end).map(|position| String::from_utf8(record(position)).expect("events are text")).collect();
        let (kept, others): (Vec<&String>, Vec<&String>) =
            records.iter().partition(|text| !self.in_flight.contains(*text));
        assert_eq!(kept, self.acknowledged.iter().collect::<Vec<_>>(), "what was acknowledged, once, in order");
        assert_eq!(others.iter().collect::<BTreeSet<_>>().len(), others.len(), "nothing stands twice");
        records
    }

    /// Everything that the records say is served, and nothing else. Returns how many values were compared.
    fn check_values(&self, context: &str) -> usize {
        self.wait_served();
        let host = self.host();
        let records = self.records();
        let live = host.live().expect("something is applied");
        let view = &live.revision.project.feature_views["stats"];
        let rows: Vec<Row> = records
            .iter()
            .filter(|text| self.sent[*text].broken != Broken::Whole)
            .map(|text| self.sent[text].row.clone())
            .collect();
        let Some(newest_us) = rows.iter().map(|row| row.event_time_us).max() else { return 0 };
        let rows: Vec<Row> = rows.into_iter().chain(history().rows.iter().cloned()).collect();
        let clock_us = newest_us - live.revision.project.sources[SOURCE].out_of_orderness_us;
        let now_us = self.clock.now_us();
        let mut compared = 0;
        let entities = by_entity(view, &rows).0;
        for (key, rows) in &entities {
            let Answer::Known(known) = answer(view, rows, Ask::online(clock_us, rows, now_us)) else {
                panic!("without a ttl all are known");
            };
            let shown = look(&host, "stats", &[("key".to_owned(), key[0].to_json())].into(), &BTreeMap::new(), now_us);
            assert_eq!(shown.event_us, Some(known.event_timestamp_us), "{context}: newest row of {key:?}");
            for (name, (_, value)) in shown.values {
                assert_eq!(value, known.values[&name].value, "{context}: `{name}` of {key:?} over {rows:?}");
                compared += 1;
            }
        }
        for number in 0..9 {
            let key = Value::Utf8(format!("k{number}"));
            if !entities.contains_key([key.clone()].as_slice()) {
                let shown = look(&host, "stats", &[("key".to_owned(), key.to_json())].into(), &BTreeMap::new(), now_us);
                assert_eq!(shown.event_us, None, "{context}: {key:?} has no row");
            }
        }
        compared
    }

    /// Stops well, so that all letters are stored, and compares them. Returns how many there are.
    fn check_letters(&mut self, context: &str) -> usize {
        self.platform.take().expect("it runs").close().unwrap_or_else(|error| panic!("{context}: {error}"));
        self.start().unwrap_or_else(|error| panic!("{context}: {error}"));
        let host = self.host();
        let live = host.live().expect("something is applied");
        let mut expected = BTreeSet::new();
        for (position, text) in self.records().iter().enumerate() {
            match self.sent[text].broken {
                Broken::Not => {}
                Broken::Whole => {
                    expected.insert((position as u64, RefusedBy::All));
                }
                Broken::Cell => {
                    let features = &live.revision.project.feature_views["stats"].features;
                    let using = features.iter().filter(|feature| !feature.inputs.is_empty());
                    expected.extend(using.map(|feature| (position as u64, RefusedBy::Feature(feature.fingerprint))));
                }
            }
        }
        let letters = host.dead_letters(None).unwrap_or_else(|error| panic!("{context}: {error}"));
        let (late, letters): (Vec<_>, Vec<_>) = letters.into_iter().partition(|letter| letter.reason == Reason::Late);
        // What was given up in the middle of an apply has letters that are nobody's.
        let letters = letters.into_iter().filter(|letter| live.is_open(letter));
        let found: BTreeSet<_> = letters.map(|letter| (letter.position, letter.refused_by)).collect();
        assert_eq!(found, expected, "{context}: letters");
        self.check_late(&host, late, context);
        found.len()
    }

    /// Each row that came too late for a feature has one letter, and no other has: with exactly these rows left out
    /// batch comes to the streamed values, in each of whose digits is a row.
    fn check_late(&mut self, host: &ProjectHost, late: Vec<Letter>, context: &str) {
        let records = self.records();
        let mut each = BTreeSet::new();
        for letter in late {
            let again = !each.insert((letter.position, letter.refused_by.clone(), letter.begun));
            assert!(!again, "{context}: twice: {letter:?}");
            let rows = records[..=letter.position as usize].iter().map(|text| &self.sent[text]);
            let times = rows.filter(|sent| sent.broken != Broken::Whole).map(|sent| sent.row.event_time_us);
            let times: Vec<i64> = times.collect();
            let (own_us, before) = times.split_last().expect("its row is among them");
            let least_us = before.iter().max().expect("something came before") - 90 * MINUTE_US;
            assert!(*own_us <= least_us, "{context}: {own_us} is in time, {least_us} is settled at most: {letter:?}");
        }
        self.late += each.len();
        let temporary = tempfile::tempdir().expect("a directory");
        let verified = host.verify(&["trails".to_owned()], &BatchSettings::new(temporary.path()), Arc::new(|_| ()));
        let verified = verified.unwrap_or_else(|error| panic!("{context}: {error}"));
        assert!(verified.is_equal() && verified.failed == 0, "{context}: {verified:?}");
        self.verified += verified.compared;
    }
}

#[test]
fn a_crash_at_any_point_loses_and_doubles_nothing() {
    let mut stops: BTreeMap<&str, u64> = BTreeMap::new();
    let mut reached: BTreeMap<&str, u64> = BTreeMap::new();
    let (mut compared, mut letters, mut starts_that_failed) = (0, 0, 0);
    let (mut late, mut verified) = (0, 0);
    let mut done: BTreeMap<&str, u64> = BTreeMap::new();
    let seeds = std::env::var("ONEFOLD_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(SEEDS);
    for (number, (point, most)) in POINTS.into_iter().chain([(ANYWHERE, 300)]).enumerate() {
        for seed in 0..seeds {
            let mut chance = Chance::new(seed * 100 + number as u64);
            let groups = [1, 2, 16, 64][chance.below(4)];
            let mut machine = Machine::new(Groups::new(groups).expect("a number of groups"));
            for round in 0..3 {
                let context = format!("{point}, seed {seed}, round {round}, groups {groups}");
                let hit = 1 + chance.below(most) as u64;
                match point {
                    ANYWHERE => machine.disk.fail_after(hit, Fault::Stop),
                    point => machine.disk.stop_at(point, hit),
                }
                machine.live(&mut chance, OF_CHANGES.contains(&point));
                *stops.entry(point).or_default() += u64::from(machine.disk.stopped());
                machine.crash(seed * 10 + round);
                if point == ANYWHERE {
                    // Coming up must not lose anything either.
                    machine.disk.fail_after(chance.below(60) as u64, Fault::Stop);
                    starts_that_failed += u32::from(machine.start().is_err());
                    machine.crash(seed * 10 + round + 5);
                }
                machine.start().unwrap_or_else(|error| panic!("{context}: {error}"));
                compared += machine.check_values(&context);
                letters += machine.check_letters(&context);
                compared += machine.check_values(&context);
            }
            late += machine.late;
            verified += machine.verified;
            for (name, times) in machine.done {
                *done.entry(name).or_default() += times;
            }
            for (point, hits) in machine.disk.hits() {
                *reached.entry(point).or_default() += hits;
            }
        }
    }
    for (point, _) in POINTS {
        println!(
            "{point}: reached {}, stopped there {}",
            reached.get(point).unwrap_or(&0),
            stops.get(point).unwrap_or(&0)
        );
    }
    println!("{done:?}");
    println!("{ANYWHERE}: stopped {}, while coming up {starts_that_failed}", stops[ANYWHERE]);
    println!("{compared} values compared, {letters} letters, {late} of late rows, {verified} values verified");
    for (point, _) in POINTS {
        assert!(stops.get(point).is_some_and(|stops| *stops > 0), "nothing ever stopped at `{point}`");
    }
    assert!(done.len() == 4, "{done:?}");
    assert!(stops[ANYWHERE] > 0 && compared > 1000 && letters > 100 && late > 100 && verified > 1000);
}

/// Guards: one checkpoint that did not fit ended the stream for good, while pushes went on being acknowledged.
#[test]
fn a_full_disk_refuses_pushes_and_goes_on_when_there_is_room() {
    let (mut refused, mut waited, mut letters) = (0, 0, 0);
    for fault in [Fault::Full, Fault::ReadOnly] {
        for seed in 0..20 {
            let mut chance = Chance::new(seed + 1000);
            let mut machine = Machine::new(Groups::default());
            let context = format!("{fault:?}, seed {seed}");
            machine.disk.fail_after(chance.below(120) as u64, fault);
            for _ in 0..25 {
                refused += u32::from(!machine.push(&mut chance));
                if chance.one_in(3) {
                    std::thread::sleep(Duration::from_millis(6));
                }
            }
            machine.check_values(&format!("{context}, while it lasts"));
            let temporary = tempfile::tempdir().expect("a directory");
            let host = machine.host();
            if chance.one_in(2) {
                // It stops at a checkpoint, which cannot be stored now: whatever it answers, the stream must go on.
                let verified = host.verify(&[], &BatchSettings::new(temporary.path()), Arc::new(|_| ()));
                assert!(!verified.as_ref().is_ok_and(|verified| !verified.is_equal()), "{context}: {verified:?}");
            }
            let waits = |host: &ProjectHost| host.status().stream.checkpoint_error.is_some();
            waited += u32::from(waits(&host));
            machine.disk.heal();
            assert!(machine.push(&mut chance), "{context}: there is room again");
            machine.check_values(&format!("{context}, afterwards"));
            let before = host.status().stream.checkpoint_epoch;
            for tries in 0.. {
                machine.clock.advance(2_000);
                let status = host.status().stream;
                assert_eq!(status.error, None, "{context}");
                if status.checkpoint_error.is_none() && (status.checkpoint_epoch > before || tries > 20) {
                    break;
                }
                assert!(tries < 5_000, "{context}: no checkpoint is stored: {status:?}");
                std::thread::sleep(Duration::from_millis(1));
            }
            drop(host);
            machine.crash(seed);
            machine.start().unwrap_or_else(|error| panic!("{context}: {error}"));
            machine.check_values(&format!("{context}, after a crash"));
            letters += machine.check_letters(&context);
        }
    }
    println!("{refused} pushes refused, {waited} checkpoints had to wait, {letters} letters");
    assert!(refused > 50 && waited > 5 && letters > 50);
}
