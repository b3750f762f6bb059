//! Files of a data directory that decay: a bit flipped, an end cut off. What is opened is right, or says which file is
//! wrong and what to do, and what it says to do works.
//!
//! `ONEFOLD_SEED=7 ONEFOLD_DAMAGES=3000 cargo test --release --workspace --test it -- --nocapture damage::`

use crate::batch::world::{World, read_as_file};
use crate::modules::trails;
use crate::reference::{Chance, format_time_us};
use crate::served::look;
use crate::stream::open_on;
use onefold::batch::BatchSettings;
use onefold::clock::ManualClock;
use onefold::platform::{BatchRequest, MaterializeRequest, Pins, Platform, PlatformError, PlatformSettings, Records};
use onefold::registry::ApplyOptions;
use onefold::route::Groups;
use onefold::storage::LocalStorage;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

const PROJECT: &str = "decay";
const SOURCE: &str = "events";
const SEED: u64 = 1;
const DAMAGES: u64 = 250;
const KEYS: usize = 6;
const MINUTE_US: i64 = 60_000_000;
/// 2026-01-02T00:00:00Z.
const BEGIN_US: i64 = 1_767_312_000_000_000;
/// What a data directory is made of, by a part of the path.
const KINDS: [&str; 10] = [
    "/manifests/",
    ".delta",
    "/log/",
    "/letters/",
    "-late.jsonl",
    "/pins/",
    "/revisions/",
    "/modules/std/",
    "/modules/trails/",
    "format.json",
];

fn definitions(file: &Path, more: &str) -> String {
    format!(
        "kind: project
name: {PROJECT}
---
kind: source
name: {SOURCE}
stream: {{ push: {{}} }}
batch: {{ parquet: {{ path: {} }} }}
event_time: at
out_of_orderness: 1h
schema: {{ at: timestamp, key: utf8, x: int64, number: int64 }}
---
kind: entity
name: thing
join_keys: {{ key: utf8 }}
---
kind: feature_view
name: trails
entities: [thing]
source: {SOURCE}
allowed_lateness: 30m
features:
  trail: {{ udf: trails.trail, inputs: [number] }}
---
kind: feature_view
name: stats
entities: [thing]
source: {SOURCE}
features:
  rows: {{ udf: std.count }}
  sum: {{ udf: std.sum, inputs: [x] }}
  newest: {{ udf: std.last_n, inputs: [x], params: {{ n: 3 }} }}
  sum_2h: {{ udf: std.sum, inputs: [x], window: 2h }}
{more}",
        file.display()
    )
}

/// A sound data directory, and what is answered from it.
struct Sound {
    world: World,
    clock: Arc<ManualClock>,
    directory: PathBuf,
    answers: Answers,
}

#[derive(Debug, PartialEq)]
struct Answers {
    values: BTreeMap<String, String>,
    letters: Vec<String>,
}

fn open(directory: &Path, clock: &Arc<ManualClock>) -> Result<Arc<Platform>, PlatformError> {
    clock.advance(1_000_000);
    let settings = PlatformSettings {
        groups: Groups::new(2).expect("a number of groups"),
        threads: 1,
        checkpoint_every_us: 1_000,
        idle_us: i64::MAX,
        ..PlatformSettings::default()
    };
    open_on(Arc::new(LocalStorage::open(directory).expect("a directory")), clock, &settings)
}

/// The values of all entities, and the letters; or the error of what cannot be read.
fn answers(platform: &Platform, clock: &ManualClock) -> Result<Answers, PlatformError> {
    use onefold::clock::Clock;
    let host = platform.project(PROJECT).ok_or_else(|| PlatformError::NotFound("there is no project".to_owned()))?;
    let live = host.live()?;
    let mut values = BTreeMap::new();
    for view in live.revision.project.feature_views.keys() {
        for key in 0..KEYS {
            let entity = [("key".to_owned(), serde_json::json!(format!("k{key}")))].into();
            let shown = look(&host, view, &entity, &BTreeMap::new(), clock.now_us());
            values.insert(format!("{view} k{key}"), format!("{:?} {:?}", shown.event_us, shown.values));
        }
    }
    let letters = host.dead_letters(None)?.iter().map(|letter| format!("{letter:?}")).collect();
    Ok(Answers { values, letters })
}

impl Sound {
    fn new() -> Sound {
        let without_files =
            definitions(Path::new("nowhere"), "").replace("batch: { parquet: { path: nowhere } }\n", "");
        let without_ordered = without_files.replace("trails.trail", "std.last").replace("allowed_lateness: 30m\n", "");
        let world = World::apply(&without_ordered);
        let file = world.path("events.parquet");
        let mut chance = Chance::new(1);
        world.write_parquet(SOURCE, &file, &events(&mut chance, 0, 60, false), 20);
        let directory = world.path("decay");
        let clock = Arc::new(ManualClock::at(BEGIN_US + 2 * 1440 * MINUTE_US));
        let platform = open(&directory, &clock).expect("an empty directory");
        platform.push_module(PROJECT, "trails", trails()).expect("a module");
        let apply = |more: &str| {
            let definitions = read_as_file(&definitions(&file, more));
            let proposal = platform.plan(PROJECT, &definitions, &ApplyOptions::default()).expect("a plan");
            platform.apply(PROJECT, &proposal).unwrap_or_else(|error| panic!("{error}"));
        };
        apply("");
        let host = platform.project(PROJECT).expect("it was applied");
        let batch = BatchRequest { settings: BatchSettings::new(world.directory.path()), progress: Arc::new(|_| ()) };
        host.materialize(&MaterializeRequest::default(), &batch).unwrap_or_else(|error| panic!("{error}"));
        for part in 0..8 {
            let events = events(&mut chance, 60 + part * 20, 20, true);
            let records = Records::from_slices(events.iter().map(|event| event.as_bytes())).expect("few bytes");
            let pushed = host.push(SOURCE, records, None).expect("it is taken");
            assert!(host.wait_served(SOURCE, pushed.position, Duration::from_secs(30)));
            let before = host.status().stream.checkpoint_epoch;
            while host.status().stream.checkpoint_epoch == before {
                clock.advance(2_000);
                std::thread::sleep(Duration::from_millis(1));
            }
            if part == 5 {
                apply("  most: { udf: std.max, inputs: [x] }\n");
            }
        }
        drop(host);
        platform.close().expect("a last checkpoint");
        let platform = open(&directory, &clock).expect("it is sound");
        let answers = answers(&platform, &clock).expect("all can be read");
        platform.close().expect("a last checkpoint");
        assert!(answers.letters.iter().any(|letter| letter.contains("Late")), "no row came too late");
        assert!(answers.letters.iter().any(|letter| letter.contains("Decode")), "no event was broken");
        Sound { world, clock, directory, answers }
    }

    /// A copy of the directory.
    fn copy(&self, number: u64) -> PathBuf {
        let to = self.world.path(&format!("copy-{number}"));
        for file in files(&self.directory) {
            let target = to.join(&file);
            std::fs::create_dir_all(target.parent().expect("it has one")).expect("a directory");
            std::fs::copy(self.directory.join(&file), target).expect("a copy");
        }
        to
    }

    /// Opens a directory and compares; the error's text when it says that something is wrong.
    fn check(&self, directory: &Path, context: &str) -> Result<(), String> {
        let platform = open(directory, &self.clock).map_err(|error| error.to_string())?;
        let found = answers(&platform, &self.clock);
        let damaged = platform.project(PROJECT).map(|host| host.status().damaged).unwrap_or_default();
        let closed = platform.close();
        let found = found.map_err(|error| error.to_string())?;
        assert_eq!(found, self.answers, "{context}: silently another answer");
        closed.map_err(|error| error.to_string())?;
        // Not needed to answer, and said all the same.
        if damaged.is_empty() { Ok(()) } else { Err(damaged.join("\n")) }
    }
}

/// Events of which, if `broken`, some cannot be decoded or come too late.
fn events(chance: &mut Chance, from: usize, count: usize, broken: bool) -> Vec<String> {
    let event = |number: usize| {
        let late = if broken && number.is_multiple_of(11) { 400 } else { 0 };
        let at = format_time_us(BEGIN_US + (number as i64 * 5 - late) * MINUTE_US);
        let x = match broken && number.is_multiple_of(9) {
            true => "\"no number\"".to_owned(),
            false => chance.below(1000).to_string(),
        };
        format!("{{\"at\":\"{at}\",\"key\":\"k{}\",\"x\":{x},\"number\":{number}}}", number % KEYS)
    };
    (from..from + count).map(event).collect()
}

/// All files below, relative, but for those that say who owns the directory.
fn files(directory: &Path) -> Vec<String> {
    let (mut found, mut left) = (Vec::new(), vec![PathBuf::new()]);
    while let Some(below) = left.pop() {
        for entry in std::fs::read_dir(directory.join(&below)).expect("it can be listed") {
            let entry = entry.expect("it can be listed");
            let path = below.join(entry.file_name());
            let text = path.to_str().expect("text").to_owned();
            if text.starts_with('.') || text.starts_with("owner.") {
                continue;
            }
            match entry.file_type().expect("it has one").is_dir() {
                true => left.push(path),
                false => found.push(text),
            }
        }
    }
    found.sort();
    found
}

/// What a message says to remove.
fn told_to_remove(message: &str) -> Vec<String> {
    let Some((_, told)) = message.split_once(": remove `") else { return Vec::new() };
    let quoted = told.split('`').step_by(2).filter(|text| text.starts_with("projects/"));
    quoted.map(str::to_owned).collect()
}

fn remove(directory: &Path, pattern: &str) -> usize {
    let (before, after) = pattern.split_once('*').unwrap_or((pattern, ""));
    let named = files(directory).into_iter().filter(|file| file.starts_with(before) && file.ends_with(after));
    named.map(|file| std::fs::remove_file(directory.join(file)).expect("it can be removed")).count()
}

#[test]
fn a_damaged_file_is_named_or_does_not_matter() {
    let number =
        |name: &str, standard: u64| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(standard);
    let (seed, damages) = (number("ONEFOLD_SEED", SEED), number("ONEFOLD_DAMAGES", DAMAGES));
    println!("ONEFOLD_SEED={seed} ONEFOLD_DAMAGES={damages}");
    let sound = Sound::new();
    assert_eq!(sound.check(&sound.copy(u64::MAX), "a copy"), Ok(()));
    let all = files(&sound.directory);
    let mut chance = Chance::new(seed);
    // Damaged, noticed, remedies carried out.
    let mut counts: BTreeMap<&str, [u64; 3]> = KINDS.iter().map(|kind| (*kind, [0; 3])).collect();
    for round in 0..damages {
        let kind = KINDS[round as usize % KINDS.len()];
        let of_kind: Vec<&String> = all.iter().filter(|file| file.contains(kind)).collect();
        assert!(!of_kind.is_empty(), "there is no file of {kind}: {all:#?}");
        let file = *chance.pick(&of_kind);
        let directory = sound.copy(round);
        let path = directory.join(file);
        let whole = std::fs::read(&path).expect("it is there");
        let mut bytes = whole.clone();
        let what = if bytes.is_empty() {
            continue;
        } else if chance.one_in(2) {
            bytes.truncate(chance.below(bytes.len()));
            format!("{file} cut to {} of {} bytes", bytes.len(), whole.len())
        } else {
            let bit = chance.below(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            format!("{file}, bit {bit} of {} bytes", whole.len())
        };
        std::fs::write(&path, &bytes).expect("it can be written");
        let context = format!("seed {seed}, round {round}: {what}");
        let count = counts.get_mut(kind).expect("it is there");
        count[0] += 1;
        let Err(message) = sound.check(&directory, &context) else {
            std::fs::remove_dir_all(&directory).expect("it can be removed");
            continue;
        };
        count[1] += 1;
        let folder = file.rsplit_once('/').map_or("", |(folder, _)| folder);
        // That a log lacks its end is known of the log, not of a file of it.
        let is_named = message.contains(file) || file.contains("/log/") && message.contains(folder);
        assert!(is_named, "{context}: the file is not named: {message}");
        let has_remedy = ["restore", "remove", "push the module", "run the version"];
        assert!(has_remedy.iter().any(|remedy| message.contains(remedy)), "{context}: no remedy: {message}");
        let patterns = told_to_remove(&message);
        if !patterns.is_empty() {
            let removed: usize = patterns.iter().map(|pattern| remove(&directory, pattern)).sum();
            assert!(removed > 0, "{context}: there is nothing to remove: {message}");
            assert_eq!(sound.check(&directory, &context), Ok(()), "{context}: after what is said to help: {message}");
            count[2] += 1;
        } else {
            // Looking at what is damaged has made nothing worse.
            std::fs::write(&path, &whole).expect("it can be written");
            assert_eq!(sound.check(&directory, &context), Ok(()), "{context}: restored");
        }
        std::fs::remove_dir_all(&directory).expect("it can be removed");
    }
    println!("what was damaged: how often, noticed, mended as the message said");
    for (kind, [damaged, noticed, mended]) in &counts {
        println!("{kind}: {damaged}, {noticed}, {mended}");
        assert!(*noticed > 0, "damage of {kind} was never noticed in {damaged} times");
    }
    assert!(counts["/manifests/"][2] > 0 && counts[".delta"][2] > 0, "no remedy of a checkpoint was carried out");
}

/// Guards: what damage leaves readable is found by the digest alone, and whoever goes by it reads other rows.
#[test]
fn a_list_of_files_that_says_something_else_is_not_gone_by() {
    let directory = tempfile::tempdir().expect("a directory");
    let storage = LocalStorage::open(directory.path()).expect("a directory");
    let pins = Pins { files: Vec::new(), from_us: Some(1), to_us: None };
    let digest = pins.store(&storage, "shop").expect("it can be stored");
    assert_eq!(Pins::load(&storage, "shop", &digest).expect("it is what it was"), pins);
    let path = directory.path().join(format!("projects/shop/pins/{}.json", digest.hex()));
    let text = std::fs::read_to_string(&path).expect("it is there");
    std::fs::write(&path, text.replace("\"from_us\":1", "\"from_us\":2")).expect("it can be written");
    let error = Pins::load(&storage, "shop", &digest).expect_err("it is another list").to_string();
    assert!(error.contains("another list than its name says") && error.contains("materialize again"), "{error}");
}
