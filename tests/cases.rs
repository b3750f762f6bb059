//! Every case file through every path: a stream in several orders, batches and thread counts, a snapshot, a training set.

use crate::batch::random::read_parquet;
use crate::batch::world::{World, rows_with};
use crate::modules::root;
use crate::reference::{Chance, Value, documents, parse_time_us};
use crate::served::look;
use crate::stream::{Bench, value_at};
use arrow::array::{ArrayRef, TimestampMicrosecondArray};
use arrow::datatypes::{Field, Schema};
use arrow::record_batch::RecordBatch;
use onefold::batch::{HistoricalAsk, Rows, SnapshotAsk};
use onefold::define::{FeatureReference, OnDemandInput, Project, project_name, read_text};
use onefold::serve::{lookup, values};
use onefold_fold::Kind;
use parquet::arrow::ArrowWriter;
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// A file of definitions and tests.
struct File {
    name: String,
    /// The documents without the tests.
    definitions: String,
    project: String,
    tests: Vec<Test>,
}

struct Test {
    name: String,
    source: String,
    /// As typed, in arrival order.
    events: Vec<Json>,
    asks: Vec<Ask>,
}

struct Ask {
    at_us: i64,
    view: String,
    entity: BTreeMap<String, Json>,
    request: BTreeMap<String, Json>,
    /// Asked as a row of a training set alone.
    label: bool,
    /// `None`: not judged.
    status: Option<Status>,
    expect: BTreeMap<String, Json>,
    valid_until_us: Option<Option<i64>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Known,
    NotFound,
    OutsideMaxAge,
}

/// What a path says; what it cannot tell is `None`.
struct Told {
    status: Option<Status>,
    is_found: Option<bool>,
    values: BTreeMap<String, Value>,
    valid_until_us: Option<Option<i64>>,
}

#[derive(Clone, Copy, Debug)]
enum Order {
    AsGiven,
    Reversed,
    Shuffled(u64),
}

/// One way through the stream.
#[derive(Clone, Copy, Debug)]
struct Way {
    order: Order,
    batch: usize,
    threads: usize,
    /// Each question has an entity of its own, whose rows all come just before it, however late they are. Otherwise
    /// rows come as soon as the clock has reached them, and time alone must do the rest.
    late: bool,
}

fn files() -> Vec<File> {
    let mut directories = vec![(root().join("tests/cases/windows"), Some(Status::Known))];
    for module in ["std", "ecommerce"] {
        directories.push((root().join("udfs").join(module).join("cases"), None));
    }
    let mut files = Vec::new();
    for (directory, default_status) in directories {
        let listing = std::fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
        let mut paths: Vec<PathBuf> = listing.map(|entry| entry.expect("a directory can be listed").path()).collect();
        paths.sort();
        files.extend(paths.iter().map(|path| file(path, default_status)));
    }
    files
}

fn file(path: &std::path::Path, default_status: Option<Status>) -> File {
    let whole = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let definitions: Vec<&str> = whole.split("\n---\n").filter(|part| !part.starts_with("kind: test\n")).collect();
    let definitions = definitions.join("\n---\n");
    let name = path.strip_prefix(root()).expect("a file of the repository").display().to_string();
    let read = read_text(&name, &definitions).unwrap_or_else(|error| panic!("{error}"));
    let project = project_name(&read, Some("cases")).unwrap_or_else(|error| panic!("{error}"));
    let tests = documents(&whole).into_iter().filter(|document| document["kind"] == "test");
    let tests: Vec<Test> = tests.map(|document| test(&document, default_status)).collect();
    assert!(!tests.is_empty(), "{name} tests nothing");
    File { name, definitions, project, tests }
}

fn test(document: &Json, default_status: Option<Status>) -> Test {
    let list = |name: &str| document[name].as_array().cloned().unwrap_or_default();
    Test {
        name: text(&document["name"]),
        source: text(&document["source"]),
        events: list("events"),
        asks: list("lookups").iter().map(|lookup| ask(lookup, default_status)).collect(),
    }
}

fn ask(lookup: &Json, default_status: Option<Status>) -> Ask {
    let map = |name: &str| -> BTreeMap<String, Json> {
        lookup[name].as_object().into_iter().flatten().map(|(name, value)| (name.clone(), value.clone())).collect()
    };
    let valid_until = lookup.get("expect_valid_until");
    Ask {
        at_us: time_us(&lookup["at"]),
        view: text(&lookup["view"]),
        entity: map("entity"),
        request: map("request"),
        label: lookup["label"].as_bool().unwrap_or(false),
        status: match lookup["expect_status"].as_str() {
            None => default_status,
            Some("KNOWN") => Some(Status::Known),
            Some("NOT_FOUND") => Some(Status::NotFound),
            Some("OUTSIDE_MAX_AGE") => Some(Status::OutsideMaxAge),
            Some(other) => panic!("`{other}` is no status of a case"),
        },
        expect: map("expect"),
        valid_until_us: valid_until.map(|instant| (!instant.is_null()).then(|| time_us(instant))),
    }
}

fn text(json: &Json) -> String {
    json.as_str().unwrap_or_else(|| panic!("{json} is no text")).to_owned()
}

fn time_us(json: &Json) -> i64 {
    parse_time_us(&text(json)).unwrap_or_else(|| panic!("{json} is no instant"))
}

/// The entity with a name that no other test has.
fn apart(given: &BTreeMap<String, Json>, mark: &str) -> BTreeMap<String, Json> {
    given.iter().map(|(name, value)| (name.clone(), marked(value, mark))).collect()
}

fn marked(value: &Json, mark: &str) -> Json {
    value.as_str().map_or_else(|| value.clone(), |text| json!(format!("{text}{mark}")))
}

/// The event with the same change of its keys.
fn event(project: &Project, given: &Json, mark: &str) -> Json {
    let mut event = given.clone();
    for key in project.feature_views.values().flat_map(|view| &view.join_keys) {
        if given.get(&key.column).is_some() {
            event[&key.column] = marked(&given[&key.column], mark);
        }
    }
    event
}

fn outputs(project: &Project, view: &str) -> BTreeMap<String, Kind> {
    let stored = project.feature_views.get(view).into_iter().flat_map(|view| &view.features);
    let stored = stored.flat_map(|feature| &feature.outputs);
    let computed = project.on_demand_feature_views.get(view).into_iter().flat_map(|view| &view.features);
    let computed = computed.flat_map(|feature| &feature.outputs);
    stored.chain(computed).map(|field| (field.name.clone(), field.kind)).collect()
}

/// What is wrong with an answer, if anything.
fn difference(project: &Project, ask: &Ask, told: &Told) -> Option<String> {
    if let (Some(expected), Some(status)) = (ask.status, told.status)
        && expected != status
    {
        return Some(format!("{status:?}, expected {expected:?}"));
    }
    if let (Some(expected), Some(is_found)) = (ask.status, told.is_found)
        && is_found != (expected != Status::NotFound)
    {
        return Some(format!("found: {is_found}, expected {expected:?}"));
    }
    if matches!(ask.status, Some(Status::NotFound | Status::OutsideMaxAge))
        && let Some((name, value)) = told.values.iter().find(|(_, value)| !value.is_null())
    {
        return Some(format!("{name} is {value:?}, but there is none"));
    }
    if let (Some(expected), Some(found)) = (ask.valid_until_us, told.valid_until_us)
        && expected != found
    {
        return Some(format!("valid until {found:?}, expected {expected:?}"));
    }
    let kinds = outputs(project, &ask.view);
    for (name, expected) in &ask.expect {
        let kind = kinds.get(name).unwrap_or_else(|| panic!("view `{}` has no `{name}`", ask.view));
        let expected = Value::from_json(*kind, expected).unwrap_or_else(|error| panic!("{name}: {error}"));
        let found = told.values.get(name).cloned().unwrap_or(Value::Null);
        if found != expected {
            return Some(format!("{name} is {found:?}, expected {expected:?}"));
        }
    }
    None
}

/// Fails when the answer is wrong, and when nothing could have been.
fn hold(shown: &str, project: &Project, ask: &Ask, told: Told) {
    if let Some(wrong) = difference(project, ask, &told) {
        panic!("{shown}, at {} us, {:?}: {wrong}", ask.at_us, ask.entity);
    }
    let planted = Value::Binary(b"planted".to_vec());
    let mut told = told;
    told.values = ask.expect.keys().map(|name| (name.clone(), planted.clone())).collect();
    (told.status, told.is_found) = (None, told.is_found.map(|is_found| !is_found));
    assert!(
        difference(project, ask, &told).is_some() || ask.expect.is_empty(),
        "{shown}, at {} us judges nothing",
        ask.at_us
    );
}

#[test]
fn every_case_holds_in_the_stream() {
    let mut asked = 0;
    for (number, file) in files().iter().enumerate() {
        for order in [Order::AsGiven, Order::Reversed, Order::Shuffled(number as u64)] {
            for (place, batch) in [1, 7, 4096].into_iter().enumerate() {
                for late in [false, true] {
                    let threads = 1 + (place + usize::from(late)) % 2;
                    asked += streamed(file, Way { order, batch, threads, late });
                }
            }
        }
    }
    println!("{asked} answers of lookups");
    assert!(asked > 2000, "{asked} answers");
}

fn streamed(file: &File, way: Way) -> usize {
    let mut asks: BTreeMap<i64, Vec<(usize, usize)>> = BTreeMap::new();
    for (number, test) in file.tests.iter().enumerate() {
        for (place, ask) in test.asks.iter().enumerate().filter(|(_, ask)| !ask.label) {
            asks.entry(ask.at_us).or_default().push((number, place));
        }
    }
    let Some(first_us) = asks.keys().next() else { return 0 };
    let source = &file.tests[0].source;
    let mut bench = Bench::in_memory(*first_us, way.threads);
    // Time passes by events here, and an event can be put on any microsecond.
    bench.settings.idle_us = i64::MAX;
    bench.restart();
    bench.apply(&file.project, &file.definitions);
    let project = bench.platform.project(&file.project).unwrap().live().unwrap().revision.project.clone();
    let definition = &project.sources[source];
    let of = |event: &Json| time_us(&event[&definition.event_time]);
    let mark = |number: usize, place: usize| match way.late {
        true => format!("#{number}.{place}"),
        false => format!("#{number}"),
    };
    let (mut before_us, mut count, middle) = (i64::MIN, 0, asks.len() / 2);
    for (step, (at_us, asked)) in asks.iter().enumerate() {
        let mut events = Vec::new();
        for (number, test) in file.tests.iter().enumerate() {
            for (place, _) in test.asks.iter().enumerate().filter(|(place, _)| way.late || *place == 0) {
                let now = match way.late {
                    true => asked.contains(&(number, place)),
                    false => true,
                };
                let is_due = |event: &&Json| now && of(event) <= *at_us && (way.late || of(event) > before_us);
                let due = test.events.iter().filter(is_due);
                events.extend(due.map(|given| event(&project, given, &mark(number, place)).to_string()));
            }
        }
        match way.order {
            Order::AsGiven => {}
            Order::Reversed => events.reverse(),
            Order::Shuffled(seed) => Chance::new(seed + step as u64).shuffle(&mut events),
        }
        bench.clock.set(*at_us);
        let half = if step == middle { events.len() / 2 } else { 0 };
        if step == middle {
            bench.push_texts(&file.project, source, &events[..half], way.batch);
            bench.restart();
        }
        // Without a key it belongs to no entity; all it does is move the clock.
        let tick = tick(&definition.event_time, at_us + definition.out_of_orderness_us);
        bench.push_texts(&file.project, source, &events[half..], way.batch);
        bench.push_texts(&file.project, source, &[tick], 1);
        let host = bench.platform.project(&file.project).unwrap();
        for (number, place) in asked {
            let test = &file.tests[*number];
            let ask = &test.asks[*place];
            let shown = look(&host, &ask.view, &apart(&ask.entity, &mark(*number, *place)), &ask.request, *at_us);
            let stored = project.feature_views.contains_key(&ask.view);
            let status = shown.values.values().next().map(|(status, _)| match status {
                lookup::Status::NotFound => Status::NotFound,
                lookup::Status::OutsideMaxAge => Status::OutsideMaxAge,
                _ => Status::Known,
            });
            let told = Told {
                status: status.filter(|_| stored),
                is_found: None,
                values: shown.values.into_iter().map(|(name, (_, value))| (name, value)).collect(),
                valid_until_us: Some(shown.valid_until_us),
            };
            hold(&format!("{} `{}` {way:?}", file.name, test.name), &project, ask, told);
            count += 1;
        }
        before_us = *at_us;
    }
    count
}

fn tick(event_time: &str, at_us: i64) -> String {
    json!({ event_time: crate::reference::format_time_us(at_us) }).to_string()
}

#[test]
fn every_case_holds_in_batch() {
    let mut asked = 0;
    for file in files() {
        for (in_files, threads, batch_rows) in [(false, 1, 1), (false, 2, 8192), (true, 2, 2)] {
            let mut world = World::apply(&file.definitions);
            (world.threads, world.batch_rows) = (threads, batch_rows);
            let source = file.tests[0].source.clone();
            let mut events = Vec::new();
            for (number, test) in file.tests.iter().enumerate() {
                let of_test = test.events.iter();
                events.extend(of_test.map(|given| event(&world.project, given, &format!("#{number}")).to_string()));
            }
            let rows = match in_files {
                false => rows_with(&source, Some(world.log(&events, i64::MAX / 2))),
                true => {
                    let (first, second) = events.split_at(events.len() / 2);
                    let directory = world.path("events");
                    world.write_parquet(&source, &directory.join("a.parquet"), second, 3);
                    world.write_parquet(&source, &directory.join("b.parquet"), first, 100);
                    if let Some(source) = world.project.sources.get_mut(&source) {
                        source.batch_path = Some(directory.display().to_string());
                    }
                    rows_with(&source, None)
                }
            };
            let way = format!("{}, in files: {in_files}, {threads} threads", file.name);
            asked += snapshots(&way, &file, &world, &rows) + labels(&way, &file, &world, &rows);
        }
    }
    println!("{asked} answers of batch");
    assert!(asked > 500, "{asked} answers");
}

fn snapshots(way: &str, file: &File, world: &World, rows: &Rows) -> usize {
    let mut count = 0;
    for (number, test) in file.tests.iter().enumerate() {
        for ask in test.asks.iter().filter(|ask| !ask.label) {
            let Some(view) = world.project.feature_views.get(&ask.view) else { continue };
            let out = world.path("snapshot.parquet");
            let snapshot = SnapshotAsk { view: ask.view.clone(), as_of_us: Some(ask.at_us) };
            let done = world.with_host(|host| host.snapshot_file(&snapshot, rows, &out));
            done.unwrap_or_else(|error| panic!("{way} `{}`: {error}", test.name));
            let found = read_parquet(&out);
            let column = |name: &str| found.column_by_name(name).unwrap_or_else(|| panic!("no column `{name}`"));
            let entity = apart(&ask.entity, &format!("#{number}"));
            let is_it = |row: &usize| {
                view.join_keys.iter().all(|key| {
                    let wanted = Value::from_json(key.kind, &entity[&key.name]).expect("a key is of its kind");
                    value_at(column(&key.name), *row) == wanted
                })
            };
            let row = (0..found.num_rows()).find(is_it);
            let valid_until = row.map(|row| match value_at(column("valid_until"), row) {
                Value::Timestamp(us) => Some(us),
                _ => None,
            });
            let names = outputs(&world.project, &ask.view).into_keys();
            let told = Told {
                status: None,
                is_found: Some(row.is_some()),
                values: names
                    .map(|name| (name.clone(), row.map_or(Value::Null, |row| value_at(column(&name), row))))
                    .collect(),
                valid_until_us: valid_until,
            };
            hold(&format!("{way} `{}`, snapshot", test.name), &world.project, ask, told);
            count += 1;
        }
    }
    count
}

/// All questions about a view as one training set. Those of a lookup mean the same there, unless labels see less.
fn labels(way: &str, file: &File, world: &World, rows: &Rows) -> usize {
    let mut by_view: BTreeMap<&str, Vec<(usize, &Ask)>> = BTreeMap::new();
    for (number, test) in file.tests.iter().enumerate() {
        for ask in &test.asks {
            let exclusive = world.project.feature_views.get(&ask.view).is_some_and(|view| view.right_exclusive);
            if ask.label || !exclusive {
                by_view.entry(&ask.view).or_default().push((number, ask));
            }
        }
    }
    let mut count = 0;
    for (view, asks) in by_view {
        let entities: Vec<_> = asks.iter().map(|(number, ask)| apart(&ask.entity, &format!("#{number}"))).collect();
        let requests: Vec<_> = asks.iter().map(|(_, ask)| ask.request.clone()).collect();
        let times: Vec<i64> = asks.iter().map(|(_, ask)| ask.at_us).collect();
        let mut columns: Vec<(String, ArrayRef)> =
            vec![("at".into(), Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC")))];
        let all_keys = world.project.feature_views.values().flat_map(|view| &view.join_keys);
        let keys: BTreeMap<String, Kind> = all_keys.map(|key| (key.name.clone(), key.kind)).collect();
        columns.extend(keys.into_iter().map(|(name, kind)| (name.clone(), column(kind, &name, &entities))));
        let computed = world.project.on_demand_feature_views.get(view).into_iter().flat_map(|view| &view.features);
        for input in computed.flat_map(|feature| &feature.inputs) {
            if let OnDemandInput::Request { field } = input {
                columns.push((field.name.clone(), column(field.kind, &field.name, &requests)));
            }
        }
        let fields = columns.iter().map(|(name, column)| Field::new(name, column.data_type().clone(), true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let arrays = columns.iter().map(|(_, column)| column.clone()).collect();
        let batch = RecordBatch::try_new(schema, arrays).expect("columns of one length");
        let path = world.path("labels.parquet");
        let file = std::fs::File::create(&path).expect("a file can be made");
        let mut writer = ArrowWriter::try_new(file, batch.schema(), None).expect("Parquet");
        writer.write(&batch).expect("labels can be written");
        writer.close().expect("the file can be ended");
        let names: Vec<String> = outputs(&world.project, view).into_keys().collect();
        let reference = |name: &String| FeatureReference { view: view.to_owned(), feature: name.clone() };
        let historical =
            HistoricalAsk { labels: path, features: names.iter().map(reference).collect(), timestamp: "at".into() };
        let out = world.path("training.parquet");
        let done = world.with_host(|host| host.historical(&historical, rows, &out));
        done.unwrap_or_else(|error| panic!("{way}, labels of `{view}`: {error}"));
        let set = read_parquet(&out);
        for (row, (_, ask)) in asks.iter().enumerate() {
            let value = |name: &String| {
                let column = set.column_by_name(&format!("{view}__{name}")).expect("what was asked for is there");
                (name.clone(), value_at(column, row))
            };
            let told =
                Told { status: None, is_found: None, values: names.iter().map(value).collect(), valid_until_us: None };
            hold(&format!("{way}, label {row} of `{view}`"), &world.project, ask, told);
            count += 1;
        }
    }
    count
}

fn column(kind: Kind, name: &str, rows: &[BTreeMap<String, Json>]) -> ArrayRef {
    let given: Vec<Json> = rows.iter().map(|row| row.get(name).cloned().unwrap_or(Json::Null)).collect();
    values::from_json(kind, given.iter()).unwrap_or_else(|error| panic!("`{name}`: {error}"))
}
