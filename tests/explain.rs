//! `explain` against what is served, against the brute force, and against wrong values that are planted.

use crate::command_line::run;
use crate::reference::{
    Answer, Ask, Chance, Row, Value, answer, by_entity, format_time_us, holds, passes, random_project, transformed,
};
use crate::serve::Server;
use crate::stream::{Bench, modules, value_at};
use crate::verify::edit_state;
use arrow::array::{ArrayRef, Int64Array, StringArray};
use onefold::batch::{BatchSettings, ExplainedValue, Verdict};
use onefold::cases::{BatchWay, Order, Report, Runner, StreamWay, Way};
use onefold::define::{Feature, FeatureView, read_text};
use onefold::platform::{BatchRequest, ExplainRequest, Explanation, ProjectHost};
use onefold::route::{Groups, Keys};
use onefold::storage::{LocalStorage, Storage};
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::sync::Arc;

const SEEDS: u64 = 20;

fn keys_of(key: &[Value]) -> Keys {
    let one = |value: &Value| -> ArrayRef {
        match value {
            Value::Utf8(text) => Arc::new(StringArray::from(vec![text.as_str()])),
            Value::Int64(number) => Arc::new(Int64Array::from(vec![*number])),
            other => panic!("the random projects have no join key like {other:?}"),
        }
    };
    Keys::encode(&key.iter().map(one).collect::<Vec<_>>()).expect("keys")
}

fn explain(host: &ProjectHost, view: &str, feature: &str, key: &[Value], as_of_us: Option<i64>) -> Explanation {
    let mut settings = BatchSettings::new(std::env::temp_dir());
    settings.threads = 1;
    settings.batch_rows = 7;
    let request =
        ExplainRequest { view: view.to_owned(), feature: feature.to_owned(), keys: keys_of(key), as_of_us, rows: 20 };
    let batch = BatchRequest { settings, progress: Arc::new(|_| ()) };
    host.explain(&request, batch).unwrap_or_else(|error| panic!("{view}.{feature} of {key:?}: {error}"))
}

/// One column of some events holds what it cannot: the feature that uses it refuses the row, the others do not.
fn broken(chance: &mut Chance, events: &[String]) -> Vec<String> {
    let columns = ["flag", "whole", "real", "instant", "words", "octets"];
    let mut breaking = |event: &String| {
        let mut event: Json = serde_json::from_str(event).expect("an event");
        if chance.one_in(4) {
            event[*chance.pick(&columns)] = json!({ "no": "value" });
        }
        event.to_string()
    };
    events.iter().map(&mut breaking).collect()
}

fn verdict_name(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::In => "in",
        Verdict::Later => "later",
        Verdict::NotYet { .. } => "not yet",
        Verdict::Left { .. } => "left",
        Verdict::Where(_) => "where",
        Verdict::Refused { stage, .. } => stage,
    }
}

/// What the brute force says of the explained value, the rows that count, and the value after each row.
fn judge(
    view: &FeatureView,
    feature: &Feature,
    output: usize,
    rows: &[Row],
    explained: &Explanation,
    shown: &str,
) -> usize {
    let as_of_us = explained.as_of_us;
    let name = &feature.outputs[output].name;
    let counts = |row: &&Row| {
        row.event_time_us <= as_of_us
            && holds(&feature.window, row.event_time_us, as_of_us, false)
            && passes(&feature.filter, row)
    };
    assert_eq!(explained.rows.total, rows.len() as u64, "{shown}: how many rows there are");
    assert_eq!(explained.rows.counted, rows.iter().filter(counts).count() as u64, "{shown}: how many rows count");
    let by_brute = |rows: &[Row]| match answer(view, rows, Ask { as_of_us, read_at_us: 0, label: false }) {
        Answer::Known(known) => Some((known.event_timestamp_us, known.values[name].value.clone())),
        Answer::NotFound => None,
    };
    let value = |value: &ExplainedValue| value_at(&value.outputs[output], 0);
    let Some((newest_us, expected)) = by_brute(rows) else {
        assert_eq!(explained.rows.newest_us, None, "{shown}: nobody knows it");
        return 0;
    };
    assert_eq!(explained.rows.newest_us, Some(newest_us), "{shown}: the newest row");
    assert_eq!(value(&explained.rows.value), expected, "{shown}: the value");
    for (row, next) in explained.rows.rows.iter().zip(explained.rows.rows.iter().skip(1)) {
        assert!(row.event_time_us <= next.event_time_us, "{shown}: rows are in order");
        if row.event_time_us < next.event_time_us {
            let until = |one: &&Row| one.event_time_us <= row.event_time_us;
            let before: Vec<Row> = rows.iter().filter(until).cloned().collect();
            if let Some((_, expected)) = by_brute(&before) {
                assert_eq!(value(&row.value), expected, "{shown}: the value after the row at {}", row.event_time_us);
            }
        }
    }
    1
}

#[test]
fn the_last_value_is_the_served_one_and_what_the_brute_force_says() {
    let (mut served, mut asked, mut verdicts) = (0, 0, BTreeMap::<&str, usize>::new());
    for seed in 0..SEEDS {
        let random = random_project(seed);
        let newest_us = random.rows.iter().map(|row| row.event_time_us).max().expect("there are rows");
        let mut bench = Bench::in_memory(newest_us, 2);
        let name = &random.project.name;
        bench.apply(name, &random.definitions);
        let mut events: Vec<String> = random.rows.iter().map(Row::to_event).collect();
        let is_whole = seed % 2 == 0;
        if !is_whole {
            events = broken(&mut Chance::new(seed), &events);
        }
        let half = events.len() / 2;
        bench.push_texts(name, "events", &events[..half], 7);
        bench.restart();
        bench.push_texts(name, "events", &events[half..], 11);
        let host = bench.platform.project(name).expect("it was applied");
        for view in random.project.feature_views.values() {
            let entities = by_entity(view, &transformed(&random.project, view, &random.rows)).0;
            for (number, (key, rows)) in entities.iter().enumerate() {
                for (place, feature) in view.features.iter().enumerate() {
                    let ask = random.asks_us[(number + place + seed as usize) % random.asks_us.len()];
                    for (output, field) in feature.outputs.iter().enumerate() {
                        for as_of_us in [None, Some(ask)] {
                            let explained = explain(&host, &view.name, &field.name, key, as_of_us);
                            let shown =
                                format!("seed {seed}, {}.{} of {key:?} as of {as_of_us:?}", view.name, field.name);
                            assert_ne!(explained.is_served(), Some(false), "{shown}");
                            served += usize::from(explained.is_served() == Some(true));
                            if let Some(last) = explained.rows.rows.last() {
                                let (last, value) = (&last.value.outputs, &explained.rows.value.outputs);
                                assert_eq!(last, value, "{shown}: the last value is the value");
                            }
                            *verdicts.entry("later").or_default() += explained.rows.later as usize;
                            for row in &explained.rows.rows {
                                assert_ne!(row.verdict, Verdict::Later, "{shown}");
                                *verdicts.entry(verdict_name(&row.verdict)).or_default() += 1;
                            }
                            if is_whole {
                                asked += judge(view, feature, output, rows, &explained, &shown);
                            }
                        }
                    }
                }
            }
        }
    }
    println!("{served} served values, {asked} values against the brute force; rows {verdicts:?}");
    assert!(served > 500 && asked > 500, "{served} served, {asked} asked");
    for verdict in ["in", "later", "not yet", "left", "where", "decode"] {
        assert!(verdicts.get(verdict).is_some_and(|count| *count > 0), "no row was `{verdict}`: {verdicts:?}");
    }
}

/// One late lookup in time, one out of order with a restart, one batch: enough to see that a case says what was meant.
fn ways() -> [Way; 3] {
    let stream = |order, late| Way::Stream(StreamWay { order, batch: 7, threads: 1, groups: Groups::ONE, late });
    [
        stream(Order::AsGiven, true),
        stream(Order::Shuffled(1), false),
        Way::Batch(BatchWay { in_files: false, threads: 1, batch_rows: 8192 }),
    ]
}

#[test]
fn a_case_of_an_explained_value_passes() {
    let mut runner = Runner::with_modules(modules()).expect("a directory");
    runner.add_module("ecommerce", crate::modules::ecommerce().to_vec()).expect("it is sound");
    let (mut cases, mut answers) = (0, 0);
    for seed in 0..SEEDS / 2 {
        let random = random_project(seed);
        let newest_us = random.rows.iter().map(|row| row.event_time_us).max().expect("there are rows");
        let bench = Bench::in_memory(newest_us, 1);
        let name = &random.project.name;
        bench.apply(name, &random.definitions);
        let mut events: Vec<String> = random.rows.iter().map(Row::to_event).collect();
        if seed % 2 == 1 {
            events = broken(&mut Chance::new(seed), &events);
        }
        bench.push_texts(name, "events", &events, 7);
        let server = Server::over(bench.platform.clone(), bench.clock.clone());
        for view in random.project.feature_views.values() {
            let entities = by_entity(view, &transformed(&random.project, view, &random.rows)).0;
            let Some((key, _)) = entities.iter().nth(seed as usize % entities.len().max(1)) else { continue };
            for (place, field) in view.features.iter().flat_map(|feature| &feature.outputs).enumerate() {
                let mut query = url::form_urlencoded::Serializer::new(String::new());
                query.extend_pairs([("view", view.name.as_str()), ("feature", &field.name), ("case", "true")]);
                for (join_key, value) in view.join_keys.iter().zip(key) {
                    let text = value.to_json();
                    query.append_pair(&join_key.name, &text.as_str().map_or(text.to_string(), str::to_owned));
                }
                if place % 2 == 0 {
                    let ask = random.asks_us[place % random.asks_us.len()];
                    query.append_pair("as_of", &format_time_us(ask));
                }
                let told = server.get(&format!("/v1/projects/{name}/explain?{}", query.finish()));
                assert_eq!(told.status, 200, "seed {seed}: {}", told.body);
                let documents = told.body["case"]["text"].as_str().expect("a text");
                // The module is at the runner's hand, and no file of it lies here.
                let parts = documents.split("---\n").filter(|part| !part.starts_with("kind: module"));
                let documents = parts.collect::<Vec<_>>().join("---\n");
                let shown = || format!("seed {seed}, {}.{}: {documents}", view.name, field.name);
                let definitions = read_text("case", &documents).unwrap_or_else(|error| panic!("{error}: {}", shown()));
                let suite = runner.suite(&definitions).unwrap_or_else(|error| panic!("{error}: {}", shown()));
                for way in ways() {
                    let outcome = runner.run(&suite, &way).unwrap_or_else(|error| panic!("{error}: {}", shown()));
                    let mut report = Report::default();
                    report.add(outcome);
                    assert!(report.holds(), "{way:?}: {:?}: {}", report.findings(), shown());
                    answers += report.answers();
                }
                cases += 1;
            }
        }
    }
    println!("{cases} cases, {answers} answers");
    assert!(cases > 50 && answers >= 3 * cases, "{cases} cases, {answers} answers");
}

const SHOP: &str = "
kind: project
name: shop
---
kind: source
name: orders
stream: { push: {} }
event_time: at
schema: { at: timestamp, item: utf8, count: int64 }
---
kind: entity
name: item
join_keys: { item: utf8 }
---
kind: feature_view
name: items
entities: [item]
source: orders
features:
  sold: { udf: std.sum, inputs: [count] }
  bulk_1h: { udf: std.sum, inputs: [count], where: { column: count, op: ge, value: 10 }, window: 1h }
---
kind: on_demand_feature_view
name: basket
request: { extra: int64 }
features:
  either: { udf: std.coalesce, inputs: [request.extra, items.sold] }
";

const ORDERS: &str = r#"{"at":"2026-01-02T09:02:00Z","item":"a","count":10}
{"at":"2026-01-02T09:59:00Z","item":"a","count":3}
{"at":"2026-01-02T09:58:00Z","item":"a","count":20}
{"at":"2026-01-02T09:58:30Z","item":"a","count":"many"}
{"at":"2026-01-02T09:58:40Z","item":"b","count":7}
{"at":"tomorrow","item":"a","count":1}
{"at":"2026-01-02T10:05:00Z","item":"a","count":30}
"#;

fn shop() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::create_dir(directory.path().join("shop")).expect("a directory");
    std::fs::write(directory.path().join("shop/shop.yaml"), SHOP).expect("a file");
    std::fs::write(directory.path().join("orders.jsonl"), ORDERS).expect("a file");
    let here = |arguments: &[&str]| run(directory.path(), arguments);
    let applied = here(&["apply", "shop"]);
    assert_eq!(applied.code, 0, "{}", applied.error);
    let pushed = here(&["push", "orders", "orders.jsonl"]);
    assert!(pushed.out.contains('6') || pushed.error.contains('6'), "{} {}", pushed.out, pushed.error);
    directory
}

#[test]
fn the_command_tells_people_and_scripts() {
    let directory = shop();
    let here = |arguments: &[&str]| run(directory.path(), arguments);
    let page = here(&["explain", "items", "item=a", "--feature", "bulk_1h", "--as-of", "2026-01-02T10:05:30Z"]);
    assert_eq!((page.code, page.error.as_str()), (0, ""), "{}", page.out);
    let rows: Vec<Vec<&str>> = page
        .out
        .lines()
        .skip_while(|line| !line.starts_with("event time"))
        .skip(1)
        .take_while(|line| !line.is_empty())
        .map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect())
        .collect();
    let expected: [&[&str]; 5] = [
        &[
            "2026-01-02T09:02:00.000000Z",
            "log 0",
            "10",
            "-",
            "null",
            "too old: left the window at 2026-01-02T10:05:00.000000Z",
        ],
        &["2026-01-02T09:58:00.000000Z", "log 2", "20", "in", "20"],
        &["2026-01-02T09:58:30.000000Z", "log 3", "null", "-", "20"],
        &["2026-01-02T09:59:00.000000Z", "log 1", "3", "-", "20", "where count ge 10: it is 3"],
        &["2026-01-02T10:05:00.000000Z", "log 6", "30", "in", "50"],
    ];
    for (row, expected) in rows.iter().zip(expected) {
        assert_eq!(row[..expected.len()], *expected, "{}", page.out);
    }
    assert_eq!(rows.len(), expected.len(), "{}", page.out);
    assert!(page.out.contains("value       50  as of 2026-01-02T10:05:30.000000Z\n"), "{}", page.out);
    assert!(page.out.contains("dead letters: 1 row took no part\n  letter "), "{}", page.out);
    assert!(page.out.contains("1 row of `orders` was refused before anybody could say whose"), "{}", page.out);

    let served = here(&["explain", "items.sold", "item=a", "--rows", "2", "--json"]);
    let told: Json = serde_json::from_str(&served.out).expect("JSON");
    assert_eq!((served.code, &told["value"], &told["served"]["same"]), (0, &json!(63), &json!(true)), "{}", served.out);
    assert_eq!((&told["rows_total"], &told["rows_not_shown"]), (&json!(5), &json!(3)), "{}", served.out);

    let computed = here(&["explain", "basket.either", "item=a", "extra=4"]);
    assert_eq!(computed.code, 0, "{}", computed.error);
    assert!(computed.out.contains("value       4, computed now (PRESENT)"), "{}", computed.out);
    assert!(computed.out.contains("onefold explain items.sold …"), "{}", computed.out);

    for (arguments, code, error) in [
        (vec!["explain", "items", "item=a"], 2, "error: say which feature of `items`"),
        (vec!["explain", "items.sod", "item=a"], 2, "error: view `items` has no feature `sod`; did you mean `sold`?"),
        (vec!["explain", "items.sold"], 2, "error: one entity of view `items` is explained: add item=…"),
        (vec!["explain", "items.sold", "itm=a"], 2, "error: `itm` is no key of view `items`; did you mean `item`?"),
        (vec!["explain", "items.sold", "item=a", "--as-of", "noon"], 2, "error: as_of `noon`: "),
        (
            vec!["explain", "basket.either", "item=a", "extra=4", "--as-of", "2026-01-02T10:05:30Z"],
            2,
            "error: `basket.either` is computed when it is asked for, so it has no rows of its own: explain `items.sold`",
        ),
    ] {
        let ran = here(&arguments);
        assert!(ran.code == code && ran.error.starts_with(error), "{arguments:?}: {} {}", ran.code, ran.error);
    }

    let case = here(&["explain", "items.bulk_1h", "item=a", "--as-of", "2026-01-02T10:05:30Z", "--case", "why.yaml"]);
    assert_eq!(case.code, 0, "{}", case.error);
    let text = std::fs::read_to_string(directory.path().join("why.yaml")).expect("it was written");
    let runner = Runner::with_modules(modules()).expect("a directory");
    let suite = runner.suite(&read_text("why.yaml", &text).expect("definitions")).expect("a sound case");
    assert_eq!(suite.tests[0].events.len(), 5, "{text}");
    let mut report = Report::default();
    for way in ways() {
        report.add(runner.run(&suite, &way).expect("it can be run"));
    }
    assert!(report.holds() && report.answers() > 2, "{:?}\n{text}", report.findings());
}

/// Two entities' cells change places on the disk: what is served is another's, and the command says so.
#[test]
fn a_planted_wrong_value_is_told_and_the_answer_is_no() {
    let directory = shop();
    let status = run(directory.path(), &["explain", "items.sold", "item=a"]);
    assert!(status.code == 0 && status.out.contains("served      63 (the same)"), "{}{}", status.out, status.error);
    let storage: Arc<dyn Storage> =
        Arc::new(LocalStorage::open(&directory.path().join(".onefold")).expect("the data are there"));
    let mut changed = 0;
    edit_state(&storage, "shop", |table| {
        for entity in &mut table.entities {
            // The state of a sum is not a thing to make up: `a` forgets all of it.
            entity.cells.iter_mut().for_each(Vec::clear);
            changed += 1;
        }
    });
    assert!(changed > 0, "there is state");
    let ran = run(directory.path(), &["explain", "items.sold", "item=a"]);
    assert_eq!(ran.code, 1, "{}{}", ran.out, ran.error);
    assert!(
        ran.out.contains("value       63  as of") && ran.out.contains("(ANOTHER: the rows do not give it)"),
        "{}",
        ran.out
    );
}
