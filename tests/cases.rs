//! Every case file through every path of the product's runner, and the proof that the runner sees what is wrong.

use crate::modules::root;
use crate::stream::modules;
use onefold::cases::{CaseError, Outcome, Report, Runner, Suite, Way, all_ways};
use onefold::define::{EntityStatus, LookupCase, Project, read_directory, read_text};
use onefold_fold::Kind;
use serde_json::{Value as Json, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

fn runner() -> Runner {
    let mut runner = Runner::with_modules(modules()).expect("a directory for Parquet");
    runner.add_module("ecommerce", crate::modules::ecommerce().to_vec()).expect("it is what it claims to be");
    runner.add_module("sessions", crate::modules::sessions().to_vec()).expect("it is what it claims to be");
    runner
}

/// Every case file with its name.
fn suites(runner: &Runner) -> Vec<(String, Suite)> {
    // The header of the windows' cases says that an entity is known where nothing else is said.
    let mut directories = vec![(root().join("tests/cases/windows"), true), (root().join("tests/cases/forms"), false)];
    directories
        .extend(["std", "ecommerce", "sessions"].map(|module| (root().join("udfs").join(module).join("cases"), false)));
    let mut suites = Vec::new();
    for (directory, known) in directories {
        let listing = std::fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
        let mut paths: Vec<PathBuf> = listing.map(|entry| entry.expect("a directory can be listed").path()).collect();
        paths.sort();
        for path in paths {
            let name = path.strip_prefix(root()).expect("a file of the repository").display().to_string();
            let definitions = read_directory(&path).unwrap_or_else(|error| panic!("{error}"));
            let mut suite = runner.suite(&definitions).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!(!suite.tests.is_empty(), "{name} tests nothing");
            for lookup in suite.tests.iter_mut().flat_map(|test| &mut test.lookups).filter(|_| known) {
                lookup.status.get_or_insert(EntityStatus::Known);
            }
            suites.push((name, suite));
        }
    }
    suites
}

fn run(runner: &Runner, name: &str, suite: &Suite, way: &Way) -> Outcome {
    runner.run(suite, way).unwrap_or_else(|error| panic!("{name}, {way:?}: {error}"))
}

#[test]
fn every_case_holds_on_every_path() {
    let runner = runner();
    let (mut by_path, mut report) = (BTreeMap::<&str, usize>::new(), Report::default());
    for (number, (name, suite)) in suites(&runner).iter().enumerate() {
        for way in all_ways(number as u64) {
            let outcome = run(&runner, name, suite, &way);
            for (_, _, path) in &outcome.asked {
                let path = ["stream", "snapshot", "historical"].into_iter().find(|known| path.starts_with(known));
                *by_path.entry(path.expect("a path of these")).or_default() += 1;
            }
            report.add(outcome);
        }
    }
    println!("{} lookups, answers: {by_path:?}", report.lookups());
    for finding in report.findings() {
        println!("{} {:?}", finding.shown_paths(), finding.difference);
    }
    assert!(report.holds(), "see above");
    assert!(by_path["stream"] > 2000 && by_path["snapshot"] > 250 && by_path["historical"] > 250, "{by_path:?}");
}

/// What the runner must say of a lookup whose expectations are all wrong: features, `status`, `valid_until`.
fn plant(project: &Project, lookup: &mut LookupCase) -> BTreeSet<String> {
    let kinds = kinds(project, &lookup.view);
    let mut planted = BTreeSet::new();
    for (name, value) in &mut lookup.expect {
        *value = wrong(kinds[name], value);
        planted.insert(name.clone());
    }
    if let Some(status) = &mut lookup.status {
        *status = if *status == EntityStatus::Known { EntityStatus::NotFound } else { EntityStatus::Known };
        planted.insert("status".to_owned());
    }
    if let Some(instant) = &mut lookup.valid_until_us {
        *instant = instant.map_or(Some(0), |us| Some(us + 1));
        planted.insert("valid_until".to_owned());
    }
    planted
}

/// Another value of the kind, as near as can be.
fn wrong(kind: Kind, value: &Json) -> Json {
    match (kind, value) {
        (Kind::Boolean, Json::Bool(switch)) => json!(!switch),
        (Kind::Int64, Json::Number(number)) => json!(number.as_i64().expect("an int64").wrapping_add(1)),
        (Kind::Float64, Json::Number(number)) => {
            json!(f64::from_bits(number.as_f64().expect("a float64").to_bits() ^ 1))
        }
        (Kind::Utf8, Json::String(text)) => json!(format!("{text} ")),
        (_, Json::Null) => match kind {
            Kind::Boolean => json!(true),
            Kind::Int64 => json!(0),
            Kind::Float64 => json!(0.0),
            Kind::Timestamp => json!("2026-01-02T10:00:00Z"),
            Kind::Utf8 | Kind::Binary => json!(""),
            Kind::Int64List | Kind::Float32List | Kind::Float64List | Kind::Utf8List => json!([]),
        },
        _ => Json::Null,
    }
}

fn kinds(project: &Project, view: &str) -> BTreeMap<String, Kind> {
    let stored = project.feature_views.get(view).into_iter().flat_map(|view| &view.features);
    let stored = stored.flat_map(|feature| &feature.outputs);
    let computed = project.on_demand_feature_views.get(view).into_iter().flat_map(|view| &view.features);
    let computed = computed.flat_map(|feature| &feature.outputs);
    stored.chain(computed).map(|field| (field.name.clone(), field.kind)).collect()
}

/// Guards against a runner that judges nothing: every expectation is made wrong, and every one must be told, on every
/// path that answers it.
#[test]
fn every_wrong_expectation_is_told_on_every_path() {
    let runner = runner();
    let mut told = 0;
    for (number, (name, mut suite)) in suites(&runner).into_iter().enumerate() {
        let project = suite.project().clone();
        let mut planted = BTreeMap::new();
        for lookup in suite.tests.iter_mut().flat_map(|test| &mut test.lookups) {
            planted.insert(lookup.line, (plant(&project, lookup), lookup.view.clone()));
        }
        let ways = all_ways(number as u64);
        // Of the eighteen streams these have each order, size and number of threads; all batches.
        for way in [&ways[0], &ways[9], &ways[16]].into_iter().chain(&ways[18..]) {
            let outcome = run(&runner, &name, &suite, way);
            for (_, line, path) in &outcome.asked {
                let (planted, view) = &planted[line];
                let of_lookup = outcome.differences.iter();
                let of_lookup = of_lookup.filter(|difference| difference.line == *line && difference.path == *path);
                let found: BTreeSet<&str> = of_lookup.map(|difference| difference.feature.as_str()).collect();
                for feature in planted {
                    // A training set has values alone; a snapshot has no age; an on-demand view is no entity's.
                    let is_told = match feature.as_str() {
                        "status" => path.starts_with("stream") && project.feature_views.contains_key(view),
                        "valid_until" => path.starts_with("stream"),
                        _ => true,
                    };
                    assert!(!is_told || found.contains(feature.as_str()), "{name}:{line}, {path}: {feature} passed");
                    told += usize::from(is_told);
                }
            }
        }
    }
    println!("{told} wrong expectations were told");
    assert!(told > 1000, "{told}");
}

#[test]
fn a_case_that_cannot_be_run_says_what_to_mend() {
    let definitions = "
kind: source
name: events
stream: { push: {} }
event_time: at
schema: { at: timestamp, key: utf8, x: int64 }
---
kind: entity
name: thing
join_keys: { key: utf8 }
---
kind: feature_view
name: values
entities: [thing]
source: events
features: { sum: { udf: std.sum, inputs: [x] } }
---
kind: test
name: t
source: events
events: [EVENT]
lookups:
  - LOOKUP
";
    const EVENT: &str = "{ at: 2026-01-02T10:00:00Z, key: a, x: 1 }";
    const LOOKUP: &str = "{ at: 2026-01-02T10:00:00Z, view: values, entity: { key: a }, expect: { sum: 1 } }";
    let cases = [
        (EVENT, LOOKUP, ""),
        ("{ at: 2026-01-02, key: a }", LOOKUP, "f.yaml:19: event 1 is refused as a whole, so no lookup can see it: "),
        ("{ at: 2026-01-02T10:00:00Z, kex: a }", LOOKUP, "f.yaml:19: event 1: source `events` has no column `kex`"),
        (
            EVENT,
            "{ at: 2026-01-02T10:00:00Z, view: values, entity: { key: a } }",
            "f.yaml:23: this lookup expects nothing",
        ),
        (
            EVENT,
            "{ at: 2026-01-02T10:00:00Z, view: values, entity: { key: 5 }, expect: { sum: 1 } }",
            "f.yaml:23: `key`: 5 is no utf8: write text",
        ),
        (
            EVENT,
            "{ at: 2026-01-02T10:00:00Z, view: values, entity: { key: a }, expect: { sum: x } }",
            "f.yaml:23: expected `sum`: \"x\" is no int64",
        ),
        (
            EVENT,
            "{ at: 2026-01-02T10:00:00Z, view: values, entity: { key: a }, expect: { sum: 1 }, expect_status: THERE }",
            "f.yaml:23: `THERE` is no status: write one of KNOWN, NOT_FOUND, OUTSIDE_MAX_AGE",
        ),
        (
            EVENT,
            "{ at: 2026-01-02T10:00:00Z, view: values, entity: { key: a }, expect_valid_until: soon }",
            "f.yaml:23: expect_valid_until: \"soon\" is no instant: write RFC 3339",
        ),
    ];
    let runner = runner();
    let way = all_ways(0)[0];
    for (event, lookup, message) in cases {
        let definitions = read_text("f.yaml", &definitions.replace("EVENT", event).replace("LOOKUP", lookup));
        let suite = runner.suite(&definitions.expect("it is YAML"));
        match suite.and_then(|suite| runner.run(&suite, &way)) {
            Ok(outcome) => assert_eq!((message, outcome.differences.len(), outcome.asked.len()), ("", 0, 1)),
            Err(CaseError::Wrong(said)) => assert!(said.starts_with(message) && !message.is_empty(), "{said}"),
            Err(CaseError::Failed(said)) => panic!("{message}: {said}"),
        }
    }
}
