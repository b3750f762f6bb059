//! Dead letters after a fix: what was refused is counted by what is new, what is still refused stays open, and asking
//! changes nothing, wherever the process is stopped.

use crate::batch::world::World;
use crate::stream::modules;
use arrow::array::ArrayRef;
use onefold::batch::BatchSettings;
use onefold::clock::ManualClock;
use onefold::define::{Definitions, read_text};
use onefold::online::OnlineStore;
use onefold::platform::{
    BatchRequest, CompleteSince, MaterializeRequest, Outcome, Platform, PlatformSettings, ProjectHost, ReplayRequest,
    Verified,
};
use onefold::registry::ApplyOptions;
use onefold::route::Keys;
use onefold::source::Records;
use onefold::storage::forgetful::Forgetful;
use onefold::storage::{Creation, seal};
use onefold::stream::{Letter, RefusedBy};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

const PROJECT: &str = "letters";
const SOURCE: &str = "events";
const DEFINITIONS: &str = "
kind: project
name: letters
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
/// 2026-01-01T00:30:00Z: two o'clock is more than an hour ahead.
const NOW_US: i64 = 1_767_227_400_000_000;

/// Events of which each but the first is refused by something.
fn events() -> Vec<String> {
    let mut events: Vec<String> = [
        r#"{"at":"2026-01-01T00:00:00Z","key":"a","number":1}"#,
        r#"{"at":"2026-01-01T00:00:00Z","key":"a","number":2.5}"#,
        r#"{"at":"2026-01-01T00:00:00Z","key":7,"number":3}"#,
        r#"{"at":"yesterday","key":"a","number":4}"#,
        r#"{"at":"2026-01-01T02:00:00Z","key":"a","number":5}"#,
        r#"{"at":"2026-01-01T00:00:00Z","#,
    ]
    .map(str::to_owned)
    .into();
    // Of the last five texts each may have a fifth of 1 MiB.
    events.push(format!(r#"{{"at":"2026-01-01T00:00:00Z","key":"a","number":8,"text":"{}"}}"#, "x".repeat(300_000)));
    events
}

struct Bench {
    disk: Forgetful,
    clock: Arc<ManualClock>,
    platform: Option<Arc<Platform>>,
    checkpoint_every_us: i64,
}

impl Bench {
    fn new() -> Bench {
        let mut bench = Bench {
            disk: Forgetful::new(),
            clock: Arc::new(ManualClock::at(NOW_US)),
            platform: None,
            checkpoint_every_us: 5_000_000,
        };
        bench.start();
        bench
    }

    fn start(&mut self) {
        // Each process has a name of its own, which comes from the time.
        self.clock.advance(1);
        let settings = PlatformSettings {
            threads: 2,
            idle_us: i64::MAX,
            checkpoint_every_us: self.checkpoint_every_us,
            ..PlatformSettings::default()
        };
        let opened = Platform::open_with(settings, self.disk.storage(), self.clock.clone(), modules());
        self.platform = Some(opened.unwrap_or_else(|error| panic!("{error}")));
    }

    /// Builds the state of the one entity there is from files and log, and gives how many rows took no part.
    fn materialize(&self, world: &World) -> u64 {
        let request = BatchRequest { settings: BatchSettings::new(world.directory.path()), progress: Arc::new(|_| ()) };
        let done = self.host().materialize(&MaterializeRequest::default(), &request);
        let done = done.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(done.done.entities, 1);
        done.refused_rows
    }

    /// Stores a checkpoint, letters included, and comes up again.
    fn restart(&mut self) {
        self.platform.take().expect("it runs").close().expect("a last checkpoint");
        self.start();
    }

    fn platform(&self) -> &Platform {
        self.platform.as_deref().expect("it runs")
    }

    fn host(&self) -> Arc<ProjectHost> {
        self.platform().project(PROJECT).expect("it was applied")
    }

    fn apply(&self, text: &str) {
        self.apply_read(&read_text("definitions", text).expect("YAML"));
    }

    fn apply_read(&self, definitions: &Definitions) {
        let platform = self.platform();
        let proposal = platform.plan(PROJECT, definitions, &ApplyOptions::default());
        let applied = proposal.and_then(|proposal| platform.apply(PROJECT, &proposal));
        applied.unwrap_or_else(|error| panic!("{error}"));
    }

    fn push(&self, events: &[String]) {
        let records = Records::from_slices(events.iter().map(|event| event.as_bytes())).expect("few bytes");
        let pushed = self.host().push(SOURCE, records, None).expect("it is taken");
        assert!(self.host().wait_served(SOURCE, pushed.position, Duration::from_secs(30)));
    }

    fn verify(&self) -> Verified {
        let temporary = tempfile::tempdir().expect("a directory");
        let verified = self.host().verify(&[], &BatchSettings::new(temporary.path()), Arc::new(|_| ()));
        verified.unwrap_or_else(|error| panic!("{error}"))
    }

    /// A value of entity `a`, as text.
    fn value(&self, feature: &str) -> String {
        let live = self.host().live().expect("it is applied");
        let columns = &live.compiled.layout.views["stats"].columns;
        let column = columns.iter().find(|column| column.field.name == feature).expect("a feature");
        let key: ArrayRef = Arc::new(arrow::array::StringArray::from(vec!["a"]));
        let keys = Keys::encode(&[key]).expect("a key");
        let table = &live.compiled.layout.tables[column.table];
        let read = live.online.read(&table.id, &[column.fingerprint], &keys).expect("it can be read");
        assert!(read.found[0], "`a` is known");
        arrow::util::display::array_value_to_string(&read.features[0].outputs[column.output], 0).expect("a value")
    }

    /// Position, who refused it, and what became of it, of every letter; the same when asked twice.
    fn replay(&self) -> Vec<(u64, &'static str, Outcome)> {
        let ask = || self.host().replay(&ReplayRequest::default()).unwrap_or_else(|error| panic!("{error}"));
        let told = |replayed: Vec<onefold::platform::Replayed>| -> Vec<_> {
            replayed.iter().map(|one| (one.letter.position, refuser(&one.letter), one.outcome)).collect()
        };
        let first = told(ask());
        assert_eq!(first, told(ask()), "asking changes nothing");
        first
    }

    fn open(&self) -> usize {
        let live = self.host().live().expect("it is applied");
        self.host().dead_letters(None).expect("they can be read").iter().filter(|letter| live.is_open(letter)).count()
    }
}

fn refuser(letter: &Letter) -> &'static str {
    match letter.refused_by {
        RefusedBy::All => "all",
        RefusedBy::Table(_) => "table",
        RefusedBy::Feature(_) => "feature",
    }
}

#[test]
fn what_is_refused_is_refused_again_and_nothing_is_counted_twice() {
    let mut bench = Bench::new();
    bench.apply(DEFINITIONS);
    bench.push(&events());
    bench.restart();
    let letters = bench.host().dead_letters(None).expect("they can be read");
    let expected = [
        (1, "feature", Outcome::Refused),
        (2, "table", Outcome::Refused),
        (3, "all", Outcome::Refused),
        (4, "all", Outcome::Refused),
        (5, "all", Outcome::Refused),
        (6, "feature", Outcome::Refused),
    ];
    for _ in 0..2 {
        assert_eq!(bench.replay(), expected);
        let again = bench.host().replay(&ReplayRequest::default()).expect("they can be judged");
        let again: Vec<Letter> = again.into_iter().map(|one| one.letter).collect();
        assert_eq!(again, letters, "for the reasons of before");
        assert_eq!((bench.value("total"), bench.value("rows")), ("9".to_owned(), "3".to_owned()));
        let verified = bench.verify();
        assert!(verified.is_equal() && verified.compared == 3 && verified.dead_letters == 6, "{verified:?}");
        bench.restart();
    }
    let unknown = ReplayRequest { ids: Some(vec!["nothing".to_owned()]), ..ReplayRequest::default() };
    let error = bench.host().replay(&unknown).expect_err("no letter has that id").to_string();
    assert!(error.contains("there is no letter `nothing`"), "{error}");
    let of_feature = |feature: &str| {
        let request = ReplayRequest { feature: Some(feature.to_owned()), ..ReplayRequest::default() };
        let replayed = bench.host().replay(&request).expect("they can be judged");
        replayed.iter().map(|one| one.letter.position).collect::<Vec<_>>()
    };
    assert_eq!(
        (of_feature("stats.total"), of_feature("stats.texts"), of_feature("stats.rows")),
        (vec![1], vec![6], vec![])
    );
}

#[test]
fn a_fix_of_one_feature_counts_its_rows_and_closes_its_letters() {
    let mut bench = Bench::new();
    bench.apply(DEFINITIONS);
    bench.push(&events());
    bench.restart();
    bench.apply(&DEFINITIONS.replace("number: int64", "number: float64"));
    assert_eq!(bench.value("total"), "11.5", "2.5 is in");
    let outcomes: Vec<Outcome> = bench.replay().into_iter().map(|(_, _, outcome)| outcome).collect();
    let refused = Outcome::Refused;
    assert_eq!(outcomes, [Outcome::Closed, refused, refused, refused, refused, refused]);
    let closed = ReplayRequest { feature: Some("stats.total".to_owned()), ..ReplayRequest::default() };
    let closed = bench.host().replay(&closed).expect("an earlier definition's letter has the feature's name");
    assert_eq!(closed.iter().map(|one| (one.outcome, one.now.len())).collect::<Vec<_>>(), [(Outcome::Closed, 0)]);
    for _ in 0..2 {
        let verified = bench.verify();
        assert!(verified.is_equal() && verified.dead_letters == 5, "{verified:?}");
        assert_eq!(bench.open(), 5);
        bench.restart();
    }
}

/// Guards: letters of whole rows name no fingerprint; they stayed open when `max_future` let the rows in, and would
/// not have come back with the old setting.
#[test]
fn another_intake_closes_and_opens_letters_of_whole_rows() {
    let mut bench = Bench::new();
    bench.apply(DEFINITIONS);
    bench.push(&events());
    bench.restart();
    let later = DEFINITIONS.replace("event_time: at", "event_time: at\nmax_future: 3h");
    let of_whole_rows = |bench: &Bench| {
        let live = bench.host().live().expect("it is applied");
        let letters = bench.host().dead_letters(None).expect("they can be read");
        let whole = letters.into_iter().filter(|letter| letter.refused_by == RefusedBy::All && live.is_open(letter));
        whole.map(|letter| letter.position).collect::<Vec<u64>>()
    };
    for (definitions, open, rows) in [(later.as_str(), vec![3, 5], "4"), (DEFINITIONS, vec![3, 4, 5], "3")] {
        bench.apply(definitions);
        assert_eq!(bench.value("rows"), rows);
        let refused: BTreeSet<u64> = bench
            .replay()
            .into_iter()
            .filter(|one| one.2 == Outcome::Refused && one.1 == "all")
            .map(|one| one.0)
            .collect();
        bench.restart();
        assert_eq!(of_whole_rows(&bench), open);
        assert!(refused.is_subset(&open.iter().copied().collect()), "{refused:?}");
        let verified = bench.verify();
        assert!(verified.is_equal() && verified.dead_letters as usize == open.len() + 3, "{verified:?}");
    }
}

/// Stopped anywhere between the push, the fix, what `replay` is asked, and the checkpoints: all is as if it had not been.
#[test]
fn a_crash_around_a_replay_loses_and_doubles_nothing() {
    let points = [
        "after the letters, before the delta",
        "after the delta, before the manifests",
        "between the manifests",
        "after the manifests",
        "before the revision",
    ];
    let fixed = DEFINITIONS.replace("number: int64", "number: float64");
    let mut stops = 0;
    for (number, point) in points.into_iter().enumerate() {
        for hit in [1, 2, 5] {
            let context = format!("{point}, {hit}");
            let mut bench = Bench::new();
            bench.apply(DEFINITIONS);
            bench.push(&events());
            bench.replay();
            bench.disk.stop_at(point, hit);
            let definitions: Definitions = read_text("definitions", &fixed).expect("YAML");
            let platform = bench.platform.clone().expect("it runs");
            let proposal = platform.plan(PROJECT, &definitions, &ApplyOptions::default());
            let applied = proposal.and_then(|proposal| platform.apply(PROJECT, &proposal));
            drop(bench.host().replay(&ReplayRequest::default()));
            drop(applied);
            drop(platform);
            drop(bench.platform.as_ref().map(|platform| platform.close()));
            stops += u32::from(bench.disk.stopped());
            bench.disk.crash(number as u64 * 10 + hit);
            bench.platform = None;
            bench.start();
            bench.apply(&fixed);
            bench.replay();
            bench.restart();
            let outcomes: Vec<_> = bench.replay().into_iter().filter(|one| one.2 != Outcome::Closed).collect();
            assert_eq!(outcomes.iter().map(|one| one.0).collect::<Vec<_>>(), [2, 3, 4, 5, 6], "{context}");
            assert!(outcomes.iter().all(|one| one.2 == Outcome::Refused), "{context}: {outcomes:?}");
            assert_eq!((bench.value("total"), bench.value("rows")), ("11.5".to_owned(), "3".to_owned()), "{context}");
            let verified = bench.verify();
            assert!(verified.is_equal() && verified.dead_letters == 5, "{context}: {verified:?}");
        }
    }
    assert!(stops >= 10, "{stops} stops: the crashes did not reach what they are for");
}

/// A letter that its row does not deserve is said to be one, and the row, which is counted, is not counted again.
#[test]
fn a_letter_without_a_reason_is_told_apart() {
    let mut bench = Bench::new();
    bench.apply(DEFINITIONS);
    bench.push(&events());
    bench.restart();
    let sound = bench.host().dead_letters(None).expect("they can be read").swap_remove(0);
    let planted = Letter { position: 0, ..sound };
    let path = format!("projects/{PROJECT}/letters/planted.jsonl");
    let line = seal(serde_json::to_vec(&planted).expect("JSON"));
    assert_eq!(bench.disk.storage().create(&path, &line).expect("it can be written"), Creation::Created);
    assert_eq!(bench.replay()[0], (0, "feature", Outcome::Taken));
    assert_eq!(bench.value("total"), "9");
    assert!(bench.verify().is_equal());
}

/// The definitions with a file of these rows beside the log.
fn with_files(world: &World, text: &str, rows: &[String]) -> Definitions {
    let path = world.path("events.parquet");
    world.write_parquet(SOURCE, &path, rows, 100);
    with_file(world, text)
}

/// The definitions with the file that `with_files` wrote.
fn with_file(world: &World, text: &str) -> Definitions {
    let path = world.path("events.parquet");
    let batch = format!("batch: {{ parquet: {{ path: {} }} }}\nevent_time: at", path.display());
    let directory = world.path("definitions");
    std::fs::create_dir_all(&directory).expect("a directory");
    std::fs::write(directory.join("all.yaml"), text.replace("event_time: at", &batch)).expect("a file");
    onefold::define::read_directory(&directory).expect("YAML")
}

/// Guards: a column that nobody uses moved the table behind a filter; its state was folded anew from the log alone, and
/// was said to hold the rows of files as well.
#[test]
fn state_that_moves_is_built_of_the_files_that_it_had() {
    let filter =
        "\ntransforms:\n  - { udf: std.filter, inputs: [number], params: { op: gt, value: 0 } }\n---\nkind: entity";
    let filtered = DEFINITIONS.replacen("\n---\nkind: entity", filter, 1);
    let world = World::apply(&filtered);
    let mut bench = Bench::new();
    bench.apply_read(&with_files(&world, &filtered, &events()[..1]));
    bench.push(&events()[..1]);
    assert_eq!(bench.value("rows"), "1", "the log's");
    bench.materialize(&world);
    assert_eq!(bench.value("rows"), "2", "one of the file, one of the log");
    bench.restart();
    assert_eq!(bench.value("rows"), "2", "as it was");
    assert!(bench.verify().is_equal());

    let wider = filtered.replace("text: utf8 }", "text: utf8, unused: int64 }");
    bench.apply_read(&with_file(&world, &wider));
    let live = bench.host().live().expect("it is applied");
    let since = bench.host().complete_since(&live).expect("what was pinned is there");
    assert_eq!(since["stats"]["rows"], CompleteSince::Beginning);
    assert_eq!(bench.value("rows"), "2", "what has become another table is built of the file, too");
    assert!(bench.verify().is_equal());
    bench.restart();
    assert_eq!(bench.value("rows"), "2", "as it was");
}

/// Guards: rows that only `materialize` read had no letters: the stream goes on behind them.
#[test]
fn what_materialize_refuses_in_the_log_has_letters() {
    let world = World::apply(DEFINITIONS);
    let definitions = with_files(&world, DEFINITIONS, &events()[..1]);
    let mut bench = Bench::new();
    bench.apply_read(&definitions);
    bench.restart();
    let live = bench.host().live().expect("it is applied");
    let since = bench.host().complete_since(&live).expect("nothing is pinned");
    assert_eq!(since["stats"]["rows"], CompleteSince::NoRows);
    // Pushed and not yet in any checkpoint when the process ends.
    let records = events();
    let records = Records::from_slices(records.iter().map(|event| event.as_bytes())).expect("few bytes");
    bench.host().push(SOURCE, records, None).expect("it is taken");
    bench.disk.crash(1);
    bench.platform = None;
    bench.start();
    assert!(bench.materialize(&world) >= 6);
    assert_eq!(bench.value("rows"), "4", "one of the file, three of the log");
    let live = bench.host().live().expect("it is applied");
    let since = bench.host().complete_since(&live).expect("what was pinned is there");
    assert_eq!(since["stats"]["rows"], CompleteSince::Beginning);
    let outcomes: Vec<_> = bench.replay().into_iter().map(|one| (one.0, one.2)).collect();
    assert_eq!(outcomes, (1..7).map(|position| (position, Outcome::Refused)).collect::<Vec<_>>());
    let verified = bench.verify();
    assert!(verified.is_equal() && verified.dead_letters == 6, "{verified:?}");
}

/// Guards: after a crash between manifests some groups are ahead of others; a checkpoint before the last have caught up
/// gave all of them the position of the last, and rows were counted twice.
#[test]
fn groups_that_are_ahead_wait_for_the_others() {
    let mut bench = Bench::new();
    bench.apply(DEFINITIONS);
    bench.push(&events()[..1]);
    bench.restart();
    // More than the stream reads at once, for all groups.
    let event = |number: usize| {
        format!(r#"{{"at":"2026-01-01T00:00:00Z","key":"k{}","number":1,"text":"{}"}}"#, number % 200, "y".repeat(400))
    };
    let events: Vec<String> = (0..10_000).map(event).collect();
    for part in events.chunks(500) {
        bench.push(part);
    }
    bench.disk.stop_at("between the manifests", 5);
    assert!(bench.platform.take().expect("it runs").close().is_err() && bench.disk.stopped());
    bench.disk.crash(3);
    // A checkpoint after everything that is read.
    bench.checkpoint_every_us = 0;
    bench.start();
    for _ in 0..2 {
        let verified = bench.verify();
        assert!(verified.is_equal() && verified.compared == 201 * 3, "{verified:?}");
        bench.restart();
    }
}

/// Guards: with a clock that stands still the wait never ended.
#[test]
fn a_wait_for_rows_that_do_not_come_ends() {
    let bench = Bench::new();
    bench.apply(DEFINITIONS);
    assert!(!bench.host().wait_served(SOURCE, 1, Duration::from_millis(300)));
    bench.push(&events()[..1]);
    assert!(bench.host().wait_served(SOURCE, 1, Duration::from_millis(300)));
}
