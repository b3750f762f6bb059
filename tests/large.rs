//! Random projects with many rows on every path: the stream with restarts and kills, snapshots, training sets, as served,
//! on demand, and `verify`, against the brute force.
//!
//! `ONEFOLD_SEED=7 ONEFOLD_PROJECTS=20 ONEFOLD_PROJECT_ROWS=100000 cargo test --release --workspace --test it --
//! --nocapture large::`

use crate::batch::random::{check_snapshot, read_parquet};
use crate::ordered::{Bench, Model, check_letters, check_served, check_training, newest_us, one_in};
use crate::reference::{
    Answer, Ask, Coverage, LARGE_PRICE, OrderedProject, Row, Value, answer, by_entity, large_project, price_ratio,
    transformed,
};
use crate::served::look;
use onefold::batch::BatchSettings;
use onefold::define::read_text;
use onefold::platform::{BatchRequest, ProjectHost};
use serde_json::json;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

const SEED: u64 = 1;
/// Few and small; the whole are 20 of 100,000 rows.
const PROJECTS: usize = 2;
const ROWS: usize = 3_000;
const PARTS: usize = 6;
/// Of entities with about so many rows in each view the situations are counted.
const OBSERVED_ROWS: usize = 2000;

/// What the projects have come to together.
#[derive(Default)]
struct Totals {
    coverage: Mutex<Coverage>,
    served: AtomicUsize,
    on_demand: AtomicUsize,
    labels: AtomicUsize,
    snapshots: AtomicUsize,
    verified: AtomicUsize,
    late: AtomicUsize,
    restarts: AtomicUsize,
    kills: AtomicUsize,
}

fn add(total: &AtomicUsize, count: usize) {
    total.fetch_add(count, Ordering::Relaxed);
}

fn run(random: &mut OrderedProject, number: usize, totals: &Totals) {
    let name = random.project.name.clone();
    let wall_us = newest_us(&random.rows);
    let mut bench = Bench::new(&name, wall_us, 1 + number % 2);
    bench.apply(&read_text("definitions", &random.definitions).expect("YAML"));
    let mut model = Model::new(random);
    let mut done = 0;
    for part in 1..=PARTS {
        let end = random.rows.len() * part / PARTS;
        bench.push(&random.rows[done..end], *random.chance.pick(&[97, 1024, 8192]));
        model.push(&random.rows[done..end]);
        done = end;
        let context = format!("{name}, {done} rows");
        match (part + number) % 3 {
            0 => {
                bench.restart();
                model.barrier();
                add(&totals.restarts, 1);
            }
            1 => {
                bench.kill();
                add(&totals.kills, 1);
            }
            _ => {
                add(&totals.verified, bench.verify(&context) as usize);
                model.barrier();
            }
        }
        let every = if part == PARTS { 1 } else { 1 + random.rows.len() / 5000 };
        add(&totals.served, check_served(random, &model, &bench.host(), wall_us, every, &context));
    }
    let host = bench.host();
    add(&totals.on_demand, check_on_demand(random, &model, &host, wall_us));
    observe(random, &model, wall_us, &totals.coverage);
    add(&totals.labels, check_training(random, &model, &host, true, number as u64));
    model.barrier();
    add(&totals.labels, check_training(random, &model, &host, false, number as u64));
    add(&totals.snapshots, check_snapshots(random, &host));
    add(&totals.verified, bench.verify(&name) as usize);
    add(&totals.late, check_letters(random, &model, &host, &name));
}

fn clock_us(random: &OrderedProject) -> i64 {
    newest_us(&random.rows) - random.project.sources["events"].out_of_orderness_us
}

/// What the request is divided by is what the view `sums` says.
fn check_on_demand(random: &OrderedProject, model: &Model, host: &ProjectHost, wall_us: i64) -> usize {
    let view = &random.project.feature_views["sums"];
    let mut compared = 0;
    for (key, rows) in by_entity(view, &transformed(&random.project, view, &model.rows_of(view, |_| true))).0 {
        let expected = match answer(view, &rows, Ask::online(clock_us(random), &rows, wall_us)) {
            Answer::Known(known) if !known.outside_max_age => {
                let of = |name: &str| known.values[name].value.clone();
                price_ratio(&Value::Float64(LARGE_PRICE), &of("revenue"), &of("units"))
            }
            _ => Value::Null,
        };
        let entity = [("key".to_owned(), key[0].to_json())].into();
        let request = [("price".to_owned(), json!(LARGE_PRICE))].into();
        let shown = look(host, "basket", &entity, &request, wall_us);
        assert_eq!(shown.values["ratio"].1, expected, "{}: `basket.ratio` of {key:?}", random.project.name);
        compared += 1;
    }
    compared
}

/// In the middle, and long after.
fn snapshot_instants(random: &OrderedProject) -> [i64; 2] {
    [random.asks_us[1], random.asks_us[random.asks_us.len() - 2]]
}

fn check_snapshots(random: &OrderedProject, host: &ProjectHost) -> usize {
    let directory = tempfile::tempdir().expect("a directory");
    let out = directory.path().join("snapshot.parquet");
    let mut compared = 0;
    for view in random.project.feature_views.values() {
        let entities = by_entity(view, &transformed(&random.project, view, &random.rows)).0;
        for as_of_us in snapshot_instants(random) {
            let request = BatchRequest { settings: BatchSettings::new(directory.path()), progress: Arc::new(|_| ()) };
            let done = host.snapshot(&view.name, Some(as_of_us), &out, request);
            drop(done.unwrap_or_else(|error| panic!("{}: {error}", random.project.name)));
            compared += check_snapshot(0, view, &entities, as_of_us, &read_parquet(&out));
        }
    }
    compared
}

/// Counts what was compared and met on the way: some entities online and in snapshots, those of labels at their instants.
fn observe(random: &OrderedProject, model: &Model, wall_us: i64, coverage: &Mutex<Coverage>) {
    let mut coverage = coverage.lock().expect("no thread panicked");
    for view in random.project.feature_views.values() {
        let every = 1 + random.rows.len() / OBSERVED_ROWS;
        let is_asked = |row: &Row| one_in(every, row) || row.value("key") == Value::Utf8("a".to_owned());
        for (key, rows) in by_entity(view, &transformed(&random.project, view, &model.rows_of(view, is_asked))).0 {
            let snapshots = snapshot_instants(random).map(Ask::snapshot);
            let mut asks = vec![Ask::online(clock_us(random), &rows, wall_us)];
            asks.extend(snapshots);
            if key[0] == Value::Utf8("a".to_owned()) {
                asks.extend(random.asks_us.iter().map(|at_us| Ask::label(*at_us)));
            }
            for ask in asks {
                coverage.observe(view, &rows, ask, &answer(view, &rows, ask));
            }
        }
    }
}

#[test]
fn projects_with_many_rows_are_what_the_brute_force_says_on_every_path() {
    let number =
        |name: &str, standard: usize| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(standard);
    let seed = number("ONEFOLD_SEED", SEED as usize) as u64;
    let (projects, rows) = (number("ONEFOLD_PROJECTS", PROJECTS), number("ONEFOLD_PROJECT_ROWS", ROWS));
    println!("ONEFOLD_SEED={seed} ONEFOLD_PROJECTS={projects} ONEFOLD_PROJECT_ROWS={rows}");
    // One project of them alone.
    let only: Option<usize> = std::env::var("ONEFOLD_PROJECT").ok().and_then(|text| text.parse().ok());
    let (first, projects) = only.map_or((0, projects), |only| (only, only + 1));
    let (totals, next) = (Totals::default(), AtomicUsize::new(first));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= projects {
                        break;
                    }
                    run(&mut large_project(seed, number, rows), number, &totals);
                    println!("project {number}: equal");
                }
            });
        }
    });
    let told = |total: &AtomicUsize| total.load(Ordering::Relaxed);
    println!(
        "{} values served, {} on demand, {} in training sets, {} in snapshots, {} verified; {} late letters; {} restarts, \
         {} kills",
        told(&totals.served),
        told(&totals.on_demand),
        told(&totals.labels),
        told(&totals.snapshots),
        told(&totals.verified),
        told(&totals.late),
        told(&totals.restarts),
        told(&totals.kills)
    );
    for total in [&totals.served, &totals.on_demand, &totals.labels, &totals.snapshots, &totals.verified] {
        assert!(told(total) > (projects - first) * 50, "a path was hardly taken");
    }
    assert!(told(&totals.restarts) > 0 && told(&totals.kills) > 0 && told(&totals.late) > 0);
    let coverage = totals.coverage.into_inner().expect("no thread panicked");
    println!("{coverage}");
    // Few projects have not all aggregates.
    if projects >= first + 20 {
        coverage.check().unwrap_or_else(|missing| panic!("{missing}"));
    }
}
