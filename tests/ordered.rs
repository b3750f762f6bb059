//! Ordered aggregates on every path: random projects whose rows come on both sides of every settle point, through the
//! stream with restarts and kills, batch, point-in-time, as served, and from files, against the brute force.

use crate::batch::random::{check_labels, read_parquet, write_labels};
use crate::batch::world::World;
use crate::modules::{ecommerce, sessions, trails};
use crate::reference::{
    Answer, Ask, OrderedProject, Row, Settling, Value, answer, by_entity, documents, mark_late, ordered_project,
    parse_time_us, takes_part, transformed,
};
use crate::served::look;
use crate::stream::open_on;
use onefold::batch::BatchSettings;
use onefold::clock::ManualClock;
use onefold::define::{Definitions, FeatureView, read_directory, read_text};
use onefold::platform::{
    BatchRequest, MaterializeRequest, Outcome, Platform, PlatformSettings, ProjectHost, Records, ReplayRequest,
};
use onefold::registry::ApplyOptions;
use onefold::serve::lookup::Status;
use onefold::storage::forgetful::Forgetful;
use onefold::stream::{Reason, RefusedBy};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const SEEDS: u64 = 60;

/// A platform that stores a checkpoint when it is told to, and only then.
pub struct Bench {
    disk: Forgetful,
    clock: Arc<ManualClock>,
    settings: PlatformSettings,
    platform: Option<Arc<Platform>>,
    project: String,
    pushed: u64,
}

impl Bench {
    pub fn new(project: &str, now_us: i64, threads: usize) -> Bench {
        let settings = PlatformSettings {
            threads,
            checkpoint_every_us: i64::MAX,
            idle_us: i64::MAX,
            ..PlatformSettings::default()
        };
        let clock = Arc::new(ManualClock::at(now_us));
        let mut bench =
            Bench { disk: Forgetful::new(), clock, settings, platform: None, project: project.to_owned(), pushed: 0 };
        bench.start();
        bench
    }

    fn start(&mut self) {
        // Each process has a name of its own, which comes from the time.
        self.clock.advance(1);
        self.platform = Some(open_on(self.disk.storage(), &self.clock, &self.settings).expect("it comes up"));
    }

    pub fn apply(&self, definitions: &Definitions) {
        let platform = self.platform.as_ref().expect("it runs");
        for (name, bytes) in [("ecommerce", ecommerce()), ("sessions", sessions()), ("trails", trails())] {
            platform.push_module(&self.project, name, bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        let proposal = platform.plan(&self.project, definitions, &ApplyOptions::default());
        platform.apply(&self.project, &proposal.unwrap_or_else(|error| panic!("{error}"))).expect("it is applied");
    }

    pub fn host(&self) -> Arc<ProjectHost> {
        self.platform.as_ref().expect("it runs").project(&self.project).expect("it was applied")
    }

    pub fn push(&mut self, rows: &[Row], batch: usize) {
        self.push_texts(&rows.iter().map(Row::to_event).collect::<Vec<_>>(), batch);
    }

    fn push_texts(&mut self, events: &[String], batch: usize) {
        for events in events.chunks(batch) {
            let records = Records::from_slices(events.iter().map(|event| event.as_bytes())).expect("few bytes");
            self.pushed = self.host().push("events", records, None).expect("it is taken").position;
        }
        assert!(self.host().wait_served("events", self.pushed, Duration::from_secs(60)), "{:?}", self.host().status());
    }

    /// Stores a checkpoint and comes up again from it.
    pub fn restart(&mut self) {
        self.platform.take().expect("it runs").close().expect("a last checkpoint");
        self.start();
    }

    /// Ends as a killed process does, and comes up again from what lay on the disk.
    pub fn kill(&mut self) {
        let left = self.disk.copy();
        self.platform.take().expect("it runs").close().expect("a checkpoint that nobody finds");
        self.disk = left;
        self.start();
    }

    pub fn verify(&self, context: &str) -> u64 {
        let temporary = tempfile::tempdir().expect("a directory");
        let verified = self.host().verify(&[], &BatchSettings::new(temporary.path()), Arc::new(|_| ()));
        let verified = verified.unwrap_or_else(|error| panic!("{context}: {error}"));
        assert!(verified.is_equal() && verified.failed == 0, "{context}: {verified:?}");
        verified.compared
    }
}

/// What the rows pushed so far have become, by the rules alone.
pub struct Model {
    settling: Settling,
    /// With their positions; for each view, whether the row came too late.
    rows: Vec<(Row, BTreeMap<String, bool>)>,
    /// Rows of files.
    filed: Vec<Row>,
    lateness_us: BTreeMap<String, i64>,
    /// How many of the rows a checkpoint holds.
    stored: usize,
}

impl Model {
    pub fn new(random: &OrderedProject) -> Model {
        let lateness_us = random.project.feature_views.values().map(|view| {
            let given = view.features.iter().find_map(|feature| feature.allowed_lateness_us);
            // To a view without ordered features no row is late.
            (view.name.clone(), given.unwrap_or(i64::MAX))
        });
        Model {
            settling: Settling::new(random.project.sources["events"].out_of_orderness_us),
            rows: Vec::new(),
            filed: Vec::new(),
            lateness_us: lateness_us.collect(),
            stored: 0,
        }
    }

    pub fn push(&mut self, rows: &[Row]) {
        for row in rows {
            let late = self
                .lateness_us
                .iter()
                .map(|(view, lateness_us)| (view.clone(), self.settling.comes(row, *lateness_us)));
            let late = late.collect();
            self.rows.push((row.clone(), late));
        }
    }

    pub fn barrier(&mut self) {
        self.settling.barrier();
        self.stored = self.rows.len();
    }

    /// The rows that the view is made of, as far as they are asked for, those that came too late marked.
    pub fn rows_of(&self, view: &FeatureView, wanted: impl Fn(&Row) -> bool) -> Vec<Row> {
        let pushed = self.rows.iter().filter(|(row, _)| wanted(row)).map(|(row, late)| {
            let mut row = row.clone();
            if late[&view.name] {
                mark_late(&mut row);
            }
            row
        });
        self.filed.iter().filter(|row| wanted(row)).cloned().chain(pushed).collect()
    }

    /// Position and feature of the letters that are stored.
    fn letters(&self, random: &OrderedProject, host: &ProjectHost) -> BTreeSet<(u64, String)> {
        let live = host.live().expect("it is applied");
        let mut letters = BTreeSet::new();
        for view in random.project.feature_views.values() {
            for (position, (row, late)) in
                self.rows[..self.stored].iter().enumerate().filter(|(_, one)| one.1[&view.name])
            {
                assert!(late[&view.name]);
                let made = transformed(&random.project, view, std::slice::from_ref(row));
                let (entities, _) = by_entity(view, &made);
                for row in entities.values().flatten() {
                    let features = view.features.iter().filter(|feature| feature.allowed_lateness_us.is_some());
                    let features = features.filter(|feature| takes_part(feature, row));
                    letters.extend(features.map(|feature| {
                        let applied = &live.revision.project.feature_views[&view.name].features;
                        let applied = applied.iter().find(|other| other.name == feature.name).expect("it is applied");
                        (position as u64, applied.fingerprint.to_string())
                    }));
                }
            }
        }
        letters
    }
}

/// Whether a row is of one of about every `every`th key.
pub fn one_in(every: usize, row: &Row) -> bool {
    let Value::Utf8(key) = row.value("key") else { return every == 1 };
    key.bytes().map(usize::from).sum::<usize>().is_multiple_of(every)
}

/// Compares what is served with what has to be, of about every `every`th entity of each view.
pub fn check_served(
    random: &OrderedProject,
    model: &Model,
    host: &ProjectHost,
    wall_us: i64,
    every: usize,
    context: &str,
) -> usize {
    let source = &random.project.sources["events"];
    let all = model.filed.iter().chain(model.rows.iter().map(|(row, _)| row));
    let newest_us = all.map(|row| row.event_time_us).max().expect("there are rows");
    let clock_us = match model.rows.is_empty() || !model.filed.is_empty() {
        true => host.status().stream.sources["events"].clock_us.expect("rows were read"),
        false => newest_us - source.out_of_orderness_us,
    };
    let mut compared = 0;
    for view in random.project.feature_views.values() {
        let rows = transformed(&random.project, view, &model.rows_of(view, |row| one_in(every, row)));
        for (key, rows) in by_entity(view, &rows).0 {
            let named = view.join_keys.iter().zip(&key).map(|(key, value)| (key.name.clone(), value.to_json()));
            let shown = look(host, &view.name, &named.collect(), &BTreeMap::new(), wall_us);
            let expected = answer(view, &rows, Ask::online(clock_us, &rows, wall_us));
            for (name, (status, value)) in shown.values {
                let (wanted, cell) = match &expected {
                    Answer::NotFound => (Status::NotFound, Value::Null),
                    Answer::Known(known) if known.outside_max_age => (Status::OutsideMaxAge, Value::Null),
                    Answer::Known(known) if known.values[&name].value.is_null() => (Status::NullValue, Value::Null),
                    Answer::Known(known) => (Status::Present, known.values[&name].value.clone()),
                };
                assert_eq!(
                    (status, value),
                    (wanted, cell),
                    "{context}: `{}.{name}` of {key:?} over {rows:?}",
                    view.name
                );
                compared += 1;
            }
        }
    }
    compared
}

pub fn check_letters(random: &OrderedProject, model: &Model, host: &ProjectHost, context: &str) -> usize {
    let letters = host.dead_letters(None).unwrap_or_else(|error| panic!("{context}: {error}"));
    let live = host.live().expect("it is applied");
    let mut each = BTreeSet::new();
    let mut late = BTreeSet::new();
    for letter in &letters {
        let RefusedBy::Feature(fingerprint) = letter.refused_by else { panic!("{context}: {letter:?}") };
        assert!(
            each.insert((letter.position, letter.sub_row, fingerprint, letter.begun)),
            "{context}: two letters: {letter:?}"
        );
        if letter.reason == Reason::Late && live.is_open(letter) {
            late.insert((letter.position, fingerprint.to_string()));
        }
    }
    assert_eq!(late, model.letters(random, host), "{context}: late letters");
    late.len()
}

/// The training set of all views, from what lies there or as it was served.
fn training_set(host: &ProjectHost, random: &OrderedProject, as_served: bool) -> arrow::record_batch::RecordBatch {
    let directory = tempfile::tempdir().expect("a directory");
    let (labels, out) = (directory.path().join("labels.parquet"), directory.path().join("training.parquet"));
    write_labels(&labels, &random.asks_us);
    let features: Vec<&str> = random.project.feature_views.keys().map(String::as_str).collect();
    let mut settings = BatchSettings::new(directory.path());
    // Small batches have many edges, and a long log would have too many.
    settings.batch_rows = if random.rows.len() < 1000 { 3 } else { 8192 };
    let request = BatchRequest { settings, progress: Arc::new(|_| ()) };
    let done = host.historical(&labels, &features.join(","), "event_timestamp", &out, as_served, request);
    drop(done.unwrap_or_else(|error| panic!("{error}")));
    read_parquet(&out)
}

pub fn check_training(random: &OrderedProject, model: &Model, host: &ProjectHost, as_served: bool, seed: u64) -> usize {
    let set = training_set(host, random, as_served);
    let mut compared = 0;
    for view in random.project.feature_views.values() {
        // Of the keys that `write_labels` asks for.
        let asked = |row: &Row| matches!(row.value("key"), Value::Utf8(key) if ["a", "b", ""].contains(&key.as_str()));
        let mut rows = model.rows_of(view, asked);
        if !as_served {
            let all = model.filed.iter().chain(model.rows.iter().map(|(row, _)| row));
            rows = all.filter(|row| asked(row)).cloned().collect();
        }
        let entities = by_entity(view, &transformed(&random.project, view, &rows)).0;
        compared += check_labels(seed, view, &entities, &set);
    }
    compared
}

pub fn newest_us(rows: &[Row]) -> i64 {
    rows.iter().map(|row| row.event_time_us).max().expect("there are rows")
}

#[test]
fn ordered_values_are_what_the_brute_force_says_on_every_path() {
    let (mut compared, mut late, mut kills, mut restarts) = (0, 0, 0, 0);
    for seed in 0..SEEDS {
        for (batch, threads) in [(1, 1), (7, 2), (4096, 2)] {
            let mut random = ordered_project(seed);
            let newest_us = newest_us(&random.rows);
            let mut bench = Bench::new(&random.project.name, newest_us, threads);
            bench.apply(&read_text("definitions", &random.definitions).expect("YAML"));
            let mut model = Model::new(&random);
            let mut done = 0;
            while done < random.rows.len() {
                let end = (done + 1 + random.chance.below(20)).min(random.rows.len());
                bench.push(&random.rows[done..end], batch);
                model.push(&random.rows[done..end]);
                done = end;
                let context = format!("seed {seed}, batches of {batch}, {done} rows");
                compared += check_served(&random, &model, &bench.host(), newest_us, 1, &context);
                match random.chance.below(4) {
                    0 => {
                        bench.restart();
                        model.barrier();
                        restarts += 1;
                    }
                    1 => {
                        bench.kill();
                        kills += 1;
                    }
                    2 => {
                        bench.verify(&context);
                        model.barrier();
                    }
                    _ => {}
                }
                compared += check_served(&random, &model, &bench.host(), newest_us, 1, &context);
                check_letters(&random, &model, &bench.host(), &context);
            }
            let context = format!("seed {seed}, batches of {batch}, at the end");
            compared += check_training(&random, &model, &bench.host(), true, seed);
            model.barrier();
            compared += check_training(&random, &model, &bench.host(), false, seed);
            bench.verify(&context);
            late += check_letters(&random, &model, &bench.host(), &context);
        }
    }
    println!("{compared} values, {late} late letters, {kills} kills, {restarts} restarts");
    assert!(compared > 100_000 && late > 1000 && kills > 100 && restarts > 100);
}

#[test]
fn files_and_log_are_sorted_together_and_what_comes_later_is_judged_by_the_log() {
    let (mut compared, mut late) = (0, 0);
    for seed in 0..SEEDS {
        let random = ordered_project(1000 + seed);
        let newest_us = newest_us(&random.rows);
        // With an empty log the files say what is settled.
        let (filed, pushed) = random.rows.split_at(30);
        let (before, after) = pushed.split_at(if seed % 4 == 0 { 0 } else { 25 });
        let world = World::apply(&source_alone(&random));
        let directory = world.path("files");
        let events: Vec<String> = filed.iter().map(Row::to_event).collect();
        world.write_parquet("events", &directory.join("a.parquet"), &events, 7);
        let definitions = with_files(&random, &world, &directory);
        let mut bench = Bench::new(&random.project.name, newest_us, 1 + (seed % 2) as usize);
        bench.apply(&definitions);
        let mut model = Model::new(&random);
        if !before.is_empty() {
            // Some of these come too late now; what is sorted together afterwards has them all.
            bench.push(&before[..10], 3);
            bench.restart();
            bench.push(&before[10..], 3);
        }
        let mut settings = BatchSettings::new(world.directory.path());
        settings.batch_rows = [1, 3, 8192][(seed % 3) as usize];
        let request = BatchRequest { settings, progress: Arc::new(|_| ()) };
        let done = bench.host().materialize(&MaterializeRequest::default(), &request);
        drop(done.unwrap_or_else(|error| panic!("seed {seed}: {error}")));
        model.filed = filed.to_vec();
        model.push(before);
        model.rows.iter_mut().for_each(|(_, late)| late.values_mut().for_each(|late| *late = false));
        model.settling.bootstrap(filed, before);
        model.stored = before.len();
        let context = format!("seed {seed}, files and log");
        compared += check_served(&random, &model, &bench.host(), newest_us, 1, &context);
        check_letters(&random, &model, &bench.host(), &context);
        bench.verify(&context);
        model.barrier();
        for rows in after.chunks(9) {
            bench.push(rows, 4);
            model.push(rows);
            compared += check_served(&random, &model, &bench.host(), newest_us, 1, &context);
            bench.restart();
            model.barrier();
            compared += check_served(&random, &model, &bench.host(), newest_us, 1, &context);
            late += check_letters(&random, &model, &bench.host(), &context);
        }
        compared += check_training(&random, &model, &bench.host(), true, seed);
        model.barrier();
        bench.verify(&context);
    }
    println!("{compared} values, {late} late letters");
    assert!(compared > 10_000 && late > 100);
}

/// The definitions without their views, for who only writes files.
fn source_alone(random: &OrderedProject) -> String {
    let documents: Vec<&str> =
        random.definitions.split("---\n").filter(|part| !part.contains("feature_view")).collect();
    let view =
        "kind: feature_view\nname: none\nentities: [thing]\nsource: events\nfeatures: { a: { udf: std.count } }\n";
    format!("{}---\n{view}", documents.join("---\n"))
}

fn with_files(random: &OrderedProject, world: &World, files: &Path) -> Definitions {
    let batch = format!("event_time: \"at\"\nbatch: {{ parquet: {{ path: {} }} }}\n", files.display());
    let text = random.definitions.replacen("event_time: \"at\"\n", &batch, 1);
    assert_ne!(text, random.definitions, "the source is there");
    let directory = world.path("definitions");
    std::fs::create_dir_all(&directory).expect("a directory");
    std::fs::write(directory.join("all.yaml"), text).expect("a file");
    read_directory(&directory).expect("YAML")
}

/// A file of `tests/cases/ordered` as it is run: pushes, checkpoints, values and letters in their order.
fn run_steps(path: &Path) -> usize {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let (definitions, steps) = text.split_once("---\nkind: steps\n").expect("a file ends with its steps");
    let steps = &documents(steps)[0]["steps"];
    let now_us = parse_time_us("2026-02-01T00:00:00Z").expect("a time");
    let mut bench = Bench::new("cases", now_us, 1);
    bench.apply(&read_text("case", definitions).expect("YAML"));
    let mut checked = 0;
    for (number, step) in steps.as_array().expect("a list of steps").iter().enumerate() {
        let context = format!("{}, step {}", path.display(), number + 1);
        if step == "checkpoint" {
            bench.restart();
        } else if step == "kill" {
            bench.kill();
        } else if let Some(events) = step["push"].as_array() {
            bench.push_texts(&events.iter().map(ToString::to_string).collect::<Vec<_>>(), 2);
        } else if let Some(letters) = step["letters"].as_array() {
            let host = bench.host();
            let found = host.dead_letters(None).expect("they can be read");
            let names = host.refusing_features(&found).expect("a revision");
            let told = found.iter().map(|letter| {
                let RefusedBy::Feature(fingerprint) = letter.refused_by else { panic!("{context}: {letter:?}") };
                json!({ "position": letter.position, "feature": names[&fingerprint], "reason": letter.reason })
            });
            assert_eq!(told.collect::<Vec<_>>(), *letters, "{context}");
            checked += 1;
        } else {
            let entity = step["entity"].as_object().expect("an entity").clone().into_iter().collect();
            let view = step["view"].as_str().expect("a view");
            let shown = look(&bench.host(), view, &entity, &BTreeMap::new(), now_us);
            for (name, expected) in step["expect"].as_object().expect("values") {
                let (_, value) = &shown.values[name];
                assert_eq!(value.to_json(), *expected, "{context}: {name}");
                checked += 1;
            }
        }
    }
    bench.verify(&path.display().to_string());
    checked
}

#[test]
fn cases_of_settle_points() {
    let directory = crate::modules::root().join("tests/cases/ordered");
    let mut files: Vec<_> =
        std::fs::read_dir(directory).expect("cases").map(|entry| entry.expect("a file").path()).collect();
    files.sort();
    let checked: Vec<usize> = files.iter().map(|file| run_steps(file)).collect();
    assert!(checked.iter().all(|checked| *checked > 3), "{checked:?}");
}

/// Guards: a late row that was replayed was judged by the row alone, and said to be one that the state lacks by mistake.
#[test]
fn a_late_row_cannot_be_replayed_and_the_answer_says_what_can_be_done() {
    let random = ordered_project(1);
    let mut bench = Bench::new(&random.project.name, newest_us(&random.rows), 1);
    bench.apply(&read_text("definitions", &random.definitions).expect("YAML"));
    for rows in random.rows.chunks(10) {
        bench.push(rows, 10);
        bench.restart();
    }
    let replayed = bench.host().replay(&ReplayRequest::default()).expect("there are letters");
    let late: Vec<_> = replayed.iter().filter(|one| one.letter.reason == Reason::Late).collect();
    assert!(!late.is_empty());
    for one in late {
        assert_eq!(one.outcome, Outcome::Late, "{one:?}");
        assert!(one.letter.message.contains("rebuild"), "{one:?}");
    }
}
