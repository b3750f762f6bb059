//! Bad input, door by door: what is typed, what is answered, and that nothing is lost. `--nocapture` prints the table.
//!
//! Events, modules, definitions, lookups and commands here; large, deep and ancient events in `events.rs`; files, clocks,
//! limits, ports and other processes in `around.rs`.
//!
//! What stands elsewhere: requests that are no requests (`tests/serve.rs`), usage (`tests/command_line.rs`), every
//! wrong definition (`tests/data/define`), every broken module and answer of one (`host/fold/tests/modules`), values of
//! every type (`host/decode/tests.rs`), labels and rows of files (`tests/batch/broken.rs`), a lock that disagrees and two
//! applies at once (`tests/life.rs`), builds at `limits.memory` (`tests/changes.rs`), files of the data directory that
//! decay (`tests/damage.rs`), disks that are full or read-only (`tests/crash.rs`, `tests/full_disk.rs`).

mod around;
mod events;

use crate::command_line::run;
use crate::modules::guest;
use crate::serve::Server;
use serde_json::{Value, json};
use std::time::Duration;

const PROJECT: &str = "/v1/projects/bad";
const NDJSON: &[(&str, &str)] = &[("content-type", "application/x-ndjson")];
const YAML: &[(&str, &str)] = &[("content-type", "application/yaml")];
const WASM: &[(&str, &str)] = &[("content-type", "application/wasm")];
/// The server's clock stands at 12:00.
const AT: &str = "2026-01-02T10:00:00Z";

/// A column of every kind, each with a feature that uses it alone.
const DEFINITIONS: &str = "
kind: project
name: bad
---
kind: source
name: events
stream: { push: {} }
event_time: at
max_future: 1h
schema:
  at: timestamp
  key: utf8
  flag: boolean
  number: int64
  real: float64
  time: timestamp
  millis: timestamp_ms
  text: utf8
  bytes: binary
  numbers: list<int64>
  deep: { type: int64, stream: $.order.count }
  part: { type: json, stream: $.order }
---
kind: entity
name: thing
join_keys: { key: utf8 }
---
kind: feature_view
name: things
entities: [thing]
source: events
features:
  rows: { udf: std.count }
  flag: { udf: std.count, inputs: [flag] }
  number: { udf: std.count, inputs: [number] }
  real: { udf: std.count, inputs: [real] }
  time: { udf: std.count, inputs: [time] }
  millis: { udf: std.count, inputs: [millis] }
  text: { udf: std.count, inputs: [text] }
  bytes: { udf: std.count, inputs: [bytes] }
  numbers: { udf: std.count, inputs: [numbers] }
  deep: { udf: std.count, inputs: [deep] }
  part: { udf: std.count, inputs: [part] }
";

fn shown(door: &str, typed: &str, code: impl std::fmt::Display, said: &str) {
    let short: String = typed.chars().take(110).collect();
    let more = if short.len() < typed.len() { "…" } else { "" };
    println!("{door:<7} {short}{more}\n     -> {code} {}", said.trim_end().replace('\n', "\n        "));
}

/// What was answered and should not have been, told together at the end.
#[derive(Default)]
struct Wrong(Vec<String>);

impl Wrong {
    fn unless(&mut self, holds: bool, what: impl std::fmt::Display) {
        if !holds {
            self.0.push(what.to_string());
        }
    }

    fn unless_says(&mut self, typed: &str, said: &str, parts: &[&str]) {
        for part in parts {
            self.unless(said.contains(part), format!("{typed}: `{said}` lacks `{part}`"));
        }
    }
}

impl Drop for Wrong {
    fn drop(&mut self) {
        assert!(self.0.is_empty() || std::thread::panicking(), "{}", self.0.join("\n"));
    }
}

fn server(definitions: &str) -> Server {
    let server = Server::start();
    let told = server.send("PUT", &format!("{PROJECT}/definitions"), YAML, definitions.as_bytes());
    assert_eq!(told.status, 200, "{}", told.body);
    server
}

fn push(server: &Server, events: &[&str]) -> Value {
    let path = format!("{PROJECT}/sources/events/events?wait=served");
    let told = server.send("POST", &path, NDJSON, events.join("\n").as_bytes());
    assert_eq!(told.status, 202, "{events:?}: {}", told.body);
    told.body
}

/// The dead letters, once there are so many records with some.
fn letters(server: &Server, records: usize) -> Vec<Value> {
    // Letters stand in a checkpoint, which time brings about.
    for _ in 0..100 {
        server.clock.advance(6_000_000);
        let told = server.get(&format!("{PROJECT}/dead-letters")).body;
        let letters = told["dead_letters"].as_array().cloned().unwrap_or_default();
        let mut positions: Vec<&Value> = letters.iter().map(|letter| &letter["position"]).collect();
        positions.dedup();
        if positions.len() >= records {
            return letters;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("there are no letters of {records} records")
}

/// The values of a key, by feature.
fn values(server: &Server, view: &str, key: &str) -> Value {
    let told = server.get(&format!("{PROJECT}/feature-views/{view}/values?key={key}"));
    assert_eq!(told.status, 200, "{}", told.body);
    told.body["features"].clone()
}

/// An event with one column that is not of its kind: `KEY` is its key. The column, and what is said of it.
const CELLS: &[(&str, &str, &[&str])] = &[
    (r#""flag":1"#, "flag", &["`1`", "true or false"]),
    (r#""flag":"true""#, "flag", &["text", "true or false"]),
    (r#""number":3.0"#, "number", &["`3.0`", "int64 takes an integer of 64 bits without point"]),
    (r#""number":"12""#, "number", &["`\"12\"` is text", "without point, exponent or quotes"]),
    (r#""number":9223372036854775808"#, "number", &["9223372036854775808", "64 bits"]),
    (r#""number":1,"number":2"#, "number", &["there twice"]),
    (r#""real":"1.5""#, "real", &["text", "\"NaN\""]),
    (r#""real":1e400"#, "real", &["1e400"]),
    (r#""real":true"#, "real", &["true"]),
    (r#""time":"2026-01-02T10:00:00""#, "time", &["2026-01-02T10:00:00", "offset"]),
    (r#""time":1767348000000"#, "time", &["1767348000000", "RFC 3339"]),
    (r#""millis":"2026-01-02T10:00:00Z""#, "millis", &["2026-01-02T10:00:00Z", "number"]),
    (r#""millis":568971820800000"#, "millis", &["568971820800000", "9999"]),
    (r#""text":5"#, "text", &["`5`", "text"]),
    (r#""text":"\ud83d""#, "text", &["surrogate"]),
    (r#""bytes":"a-_""#, "bytes", &["`\"a-_\"` is no base64"]),
    (r#""numbers":[1,"2"]"#, "numbers", &["item 1", "text"]),
    (r#""numbers":7"#, "numbers", &["`7`", "list"]),
    (r#""order":3"#, "deep", &["order"]),
];

/// Events of which nothing can be used.
const WHOLE: &[(&str, &str, &[&str])] = &[
    (r#"{"at":"2026-01-02T10:00:00Z","key":"w""#, "decode", &["the text is no JSON object", "(byte "]),
    (r#"{"at":"2026-01-02T10:00:00Z","key":"w",}"#, "decode", &["the text is no JSON object", "(byte "]),
    ("nothing", "decode", &["the text is no JSON object", "(byte "]),
    (r#"["w"]"#, "decode", &["object"]),
    (r#"{"key":"w"}"#, "decode", &["event_time `at` is missing or null; every event needs one"]),
    (r#"{"at":"yesterday","key":"w"}"#, "decode", &["event_time `at`", "yesterday", "RFC 3339"]),
    (r#"{"at":"20000-01-01T00:00:00Z","key":"w"}"#, "decode", &["20000-01-01T00:00:00Z", "a year of four digits"]),
    (
        r#"{"at":"2026-01-02T13:00:00.000001Z","key":"w"}"#,
        "future",
        &[
            "`at` is 2026-01-02T13:00:00.000001Z, more than 1 h (max_future) after its arrival at 2026-01-02T12:00:00Z",
            "raise max_future",
        ],
    ),
];

#[test]
fn bad_events_are_told_and_kept_and_the_good_ones_beside_them_count() {
    let mut wrong = Wrong::default();
    let server = server(DEFINITIONS);
    let mut pushed = Vec::new();
    for (number, (typed, column, said)) in CELLS.iter().enumerate() {
        let event = format!(r#"{{"at":"{AT}","key":"c{number}",{typed}}}"#);
        let good = format!(r#"{{"at":"{AT}","key":"c{number}","{column}":null}}"#);
        let told = push(&server, &[&good, &event]);
        let message = told["errors"][0]["reason"].as_str().unwrap_or_default().to_owned();
        shown("push", &event, format!("202 line {}:", told["errors"][0]["line"]), &message);
        assert_eq!((&told["accepted"], &told["dead_lettered"]), (&json!(2), &json!(0)), "{event}");
        wrong.unless_says(&event, &message, said);
        wrong.unless_says(&event, &message, &[&format!("`{column}`: ")]);
        pushed.push((event, json!(format!("things.{column}")), "decode", said));
        // What does not use the column has the row.
        let values = values(&server, "things", &format!("c{number}"));
        assert_eq!((&values["rows"]["value"], &values[column]["value"]), (&json!(2), &json!(0)), "{typed}: {values}");
    }
    for (number, (event, reason, said)) in WHOLE.iter().enumerate() {
        let good = format!(r#"{{"at":"{AT}","key":"w{number}"}}"#);
        let told = push(&server, &[event, &good]);
        let message = told["errors"][0]["reason"].as_str().unwrap_or_default().to_owned();
        shown("push", event, format!("202 line {}:", told["errors"][0]["line"]), &message);
        assert_eq!((&told["accepted"], &told["dead_lettered"]), (&json!(1), &json!(1)), "{event}");
        wrong.unless_says(event, &message, said);
        pushed.push(((*event).to_owned(), Value::Null, reason, said));
        assert_eq!(values(&server, "things", &format!("w{number}"))["rows"]["value"], 1, "{event}");
    }
    let letters = letters(&server, pushed.len());
    for (event, feature, reason, said) in pushed {
        let letter = letters.iter().find(|letter| letter["raw"] == event && letter["feature"] == feature);
        let letter = letter.unwrap_or_else(|| panic!("no letter of {feature} keeps {event}: {letters:#?}"));
        assert_eq!((&letter["reason"], &letter["open"]), (&json!(reason), &json!(true)), "{letter}");
        wrong.unless_says(&event, letter["message"].as_str().unwrap_or_default(), said);
    }
    // Of no entity, so it is counted and not refused.
    let keyless = format!(r#"{{"at":"{AT}","key":null,"number":1}}"#);
    let told = push(&server, &[&keyless]);
    let status = server.get(&format!("{PROJECT}/status")).body;
    let null_keys = &status["sources"]["events"]["null_keys"];
    shown("push", &keyless, 202, &format!("accepted {}; status: null_keys {null_keys}", told["accepted"]));
    assert_eq!((&told["accepted"], null_keys), (&json!(1), &json!(1)));
    // A key that cannot be decoded is refused by the table of its entities, with all their features.
    let wrong_key = format!(r#"{{"at":"{AT}","key":7}}"#);
    let told = push(&server, &[&wrong_key]);
    let message = told["errors"][0]["reason"].as_str().unwrap_or_default();
    shown("push", &wrong_key, "202 line 1:", message);
    wrong.unless_says(&wrong_key, message, &["`key`: `7`", "text"]);
}

const HOSTILE: &str = "
kind: project
name: bad
---
kind: source
name: events
stream: { push: {} }
event_time: at
schema: { at: timestamp, key: utf8, number: int64 }
---
kind: entity
name: thing
join_keys: { key: utf8 }
---
kind: feature_view
name: things
entities: [thing]
source: events
features:
  rows: { udf: std.count }
  sum: { udf: hostile.sum, inputs: [number] }
  traps: { udf: hostile.traps_on_13, inputs: [number] }
  loops: { udf: hostile.loops_on_13, inputs: [number] }
  eats: { udf: hostile.eats_memory_on_13, inputs: [number] }
  errs: { udf: hostile.errs_on_negative, inputs: [number] }
";

#[test]
fn rows_that_a_module_fails_on_are_kept_for_that_feature_alone() {
    let mut wrong = Wrong::default();
    let server = Server::start();
    let hostile = guest("sum,traps_on_13,loops_on_13,eats_memory_on_13,errs_on_negative");
    let uploaded = server.send("POST", &format!("{PROJECT}/modules?name=hostile"), WASM, &hostile);
    assert_eq!(uploaded.status, 201, "{}", uploaded.body);
    let told = server.send("PUT", &format!("{PROJECT}/definitions"), YAML, HOSTILE.as_bytes());
    assert_eq!(told.status, 200, "{}", told.body);
    let event = |key: &str, number: i64| format!(r#"{{"at":"{AT}","key":"{key}","number":{number}}}"#);
    let (bad, negative) = (event("a", 13), event("a", -1));
    push(&server, &[&event("a", 1), &bad, &event("b", 2), &negative, &event("a", 40)]);
    let letters = letters(&server, 2);
    let cases: [(&str, &str, &[&str]); 4] = [
        ("traps", &bad, &["trap", "unreachable"]),
        ("loops", &bad, &["fuel"]),
        ("eats", &bad, &["memory", "268435456"]),
        ("errs", &negative, &["the value is negative"]),
    ];
    for (feature, event, said) in cases {
        let name = format!("things.{feature}");
        let letter = letters.iter().find(|letter| letter["feature"] == name && letter["raw"] == event);
        let letter = letter.unwrap_or_else(|| panic!("{name}: {letters:#?}"));
        let message = letter["message"].as_str().unwrap_or_default();
        shown("push", event, format!("letter of {name}:"), message);
        wrong.unless_says(&name, message, said);
        assert_eq!((&letter["stage"], &letter["module"]), (&json!("fold"), &uploaded.body["digest"]), "{letter}");
    }
    assert_eq!(letters.len(), cases.len(), "no other feature lost a row: {letters:#?}");
    let (a, b) = (values(&server, "things", "a"), values(&server, "things", "b"));
    assert_eq!((&a["rows"]["value"], &a["sum"]["value"]), (&json!(4), &json!(53)));
    for feature in ["traps", "loops", "eats"] {
        assert_eq!((&a[feature]["value"], &b[feature]["value"]), (&json!(40), &json!(2)), "{feature}: {a}");
    }
    assert_eq!(a["errs"]["value"], 54, "{a}");
}

#[test]
fn a_module_that_cannot_be_trusted_is_refused_at_upload() {
    let mut wrong = Wrong::default();
    let server = server(DEFINITIONS);
    let wasi = wat("wasi_snapshot_preview2", "get-environment");
    let cases: Vec<(&str, Vec<u8>, &[&str])> = vec![
        ("bytes that are no Wasm", b"#!/bin/sh".to_vec(), &["do not begin", "upload the .wasm"]),
        ("nothing", Vec::new(), &["do not begin"]),
        ("a module with nothing in it", b"\0asm\x01\0\0\0".to_vec(), &["exports no memory", "--export-memory"]),
        ("a module cut in half", cut(guest("sum")), &["not valid"]),
        ("an import of WASI's second preview", wasi, &["wasi_snapshot_preview2"]),
        ("states with offsets that fall", guest("state_offsets_fall"), &["state_offsets_fall", "offsets"]),
        ("states that end beyond their bytes", guest("state_offsets_beyond"), &["state_offsets_beyond", "the data"]),
        ("a pointer beyond the memory", guest("pointer_beyond_memory"), &["pointer_beyond_memory"]),
        ("text that is no UTF-8", guest("not_utf8"), &["not_utf8", "UTF-8"]),
        ("a sum that depends on order", guest("naive_float_sum"), &["naive_float_sum", "order"]),
        ("a mean merged by means", guest("merges_by_mean"), &["merges_by_mean", "mergeable"]),
        ("an update that errs on a full state", guest("errs_when_full"), &["errs_when_full", "row alone"]),
        ("something kept between calls", guest("counts_calls"), &["counts_calls", "between calls"]),
    ];
    for (what, bytes, said) in cases {
        let told = server.send("POST", &format!("{PROJECT}/modules?name=tried"), WASM, &bytes);
        let detail = told.body["detail"].as_str().unwrap_or_default().to_owned();
        shown("upload", what, told.status, &detail);
        wrong.unless(told.status == 422, format!("{what}: {} {}", told.status, told.body));
        wrong.unless_says(what, &detail, said);
    }
    assert_eq!(server.get(&format!("{PROJECT}/modules/tried")).status, 404, "nothing of it is kept");
}

fn cut(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.truncate(bytes.len() / 2);
    bytes
}

/// A module that imports one function and has nothing else: type, import.
fn wat(module: &str, name: &str) -> Vec<u8> {
    let mut bytes = b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0".to_vec();
    let mut import = vec![1, module.len() as u8];
    import.extend_from_slice(module.as_bytes());
    import.push(name.len() as u8);
    import.extend_from_slice(name.as_bytes());
    import.extend_from_slice(&[0, 0]);
    bytes.extend_from_slice(&[2, import.len() as u8]);
    bytes.extend_from_slice(&import);
    bytes
}

#[test]
fn wrong_definitions_and_lookups_change_nothing_and_say_what_to_write() {
    let mut wrong = Wrong::default();
    let server = server(DEFINITIONS);
    let view = |feature: &str| {
        format!("kind: feature_view\nname: more\nentities: [thing]\nsource: events\nfeatures:\n  x: {feature}\n")
    };
    let applied: Vec<(String, &[&str])> = vec![
        (view("{ udf: std.count, windo: 1h }"), &["body:6: ", "unknown key `windo`", "did you mean `window`?"]),
        (view("{ udf: std.count, inputs: [nmber] }"), &["body:6: ", "`nmber`", "did you mean `number`?"]),
        (view("{ udf: std.cuont }"), &["no udf `cuont`", "did you mean `count`?"]),
        (view("{ udf: mine.count }"), &["no module `mine`", "push it"]),
        (
            view("{ udf: std.last_n, inputs: [number], params: { m: 5 } }"),
            &["`std.last_n` refuses", "no such parameter; it takes n"],
        ),
        (view("{ udf: std.last_n, inputs: [number], params: { n: many } }"), &["`std.last_n` refuses", "many"]),
        (view("{ udf: std.last_n, inputs: [number], params: { n: 0 } }"), &["`std.last_n` refuses", "0"]),
        (view("{ udf: std.sum, inputs: [text] }"), &["`std.sum` refuses (text utf8)"]),
        (view("{ udf: std.count, window: 30 days }"), &["`30 days`", "30d"]),
        (view("{ udf: std.count, window: 0d }"), &["`0d` is not above zero"]),
        (view("{ udf: std.count, where: { column: number, op: above, value: 1 } }"), &["above", "gt"]),
        (view("{ udf: std.count, where: { column: number, op: gt, value: one } }"), &["number", "int64"]),
        ("kind: feature_service\nname: s\nfeatures: [thinks]\n".into(), &["thinks", "did you mean `things`?"]),
        ("kind: feature_service\nname: s\nfeatures: [things.rovs]\n".into(), &["rovs", "did you mean `rows`?"]),
        ("kind: source\nname: s\n".into(), &["body:2: ", "`event_time` is missing"]),
        ("name: x\n".into(), &["no `kind`", "feature_view"]),
        ("kind: entity\nname: e\njoin_keys: { k: float64 }\n".into(), &["a join key cannot be `float64`", "`utf8`"]),
        ("kind: entity\n name: e\n".into(), &["body:2: "]),
    ];
    for (typed, said) in &applied {
        let told = server.send("PUT", &format!("{PROJECT}/definitions"), YAML, typed.as_bytes());
        let detail = told.body["detail"].as_str().unwrap_or_default().to_owned();
        shown("apply", typed.lines().last().unwrap_or_default().trim(), told.status, &detail);
        wrong.unless(told.status == 422, format!("{typed}: {} {}", told.status, told.body));
        wrong.unless_says(typed, &detail, said);
    }
    let looked: [(&str, u16, &[&str]); 7] = [
        ("feature-views/thinks/values?key=a", 404, &["no view `thinks`", "did you mean `things`?"]),
        ("feature-views/things/values", 422, &["looked up by key", "give a value of `key`"]),
        ("feature-views/things/values?kee=a", 422, &["`kee` is no key", "did you mean `key`?"]),
        ("features {\"features\":[\"things.rovs\"]}", 404, &["no feature `rovs`", "did you mean `rows`?"]),
        ("features {\"service\":\"all\"}", 404, &["no feature service `all`"]),
        ("features {\"features\":[\"things\"],\"entities\":{\"key\":[5]}}", 422, &["`key`: 5 is no utf8: write text"]),
        (
            "features {\"features\":[\"things\"],\"entity\":{\"key\":[\"a\"]}}",
            422,
            &["unknown field `entity`", "`entities`"],
        ),
    ];
    for (typed, status, said) in looked {
        let told = match typed.split_once(' ') {
            None => server.get(&format!("{PROJECT}/{typed}")),
            Some((path, body)) => server.send(
                "POST",
                &format!("{PROJECT}/{path}"),
                &[("content-type", "application/json")],
                body.as_bytes(),
            ),
        };
        let detail = told.body["detail"].as_str().unwrap_or_default().to_owned();
        shown("lookup", typed, told.status, &detail);
        wrong.unless(told.status == status, format!("{typed}: {} {}", told.status, told.body));
        wrong.unless_says(typed, &detail, said);
    }
    let revisions = server.get(&format!("{PROJECT}/revisions")).body;
    assert_eq!(revisions["revisions"].as_array().map(Vec::len), Some(1), "{revisions}");
}

#[test]
fn the_command_line_says_the_same_with_its_exit_code() {
    let mut wrong = Wrong::default();
    let directory = tempfile::tempdir().expect("a directory");
    let write = |name: &str, text: &[u8]| std::fs::write(directory.path().join(name), text).expect("it can be written");
    write("good.yaml", DEFINITIONS.as_bytes());
    write("wrong.yaml", DEFINITIONS.replace("std.count, inputs: [real]", "std.count, input: [real]").as_bytes());
    write("events.jsonl", format!("{{\"at\":\"{AT}\",\"key\":\"a\"}}\n{{broken\n").as_bytes());
    write("events.parquet", b"PAR0");
    write("hello.wasm", b"hello");
    let cases: [(&[&str], i32, &[&str]); 13] = [
        (&["apply", "wrong.yaml"], 2, &["wrong.yaml:36: ", "unknown key `input`", "did you mean `inputs`?"]),
        (&["apply", "good.yaml"], 0, &[]),
        (&["push", "events", "events.jsonl"], 0, &["1 accepted, 1 dead-lettered", "line 2: "]),
        (&["push", "evnts", "events.jsonl"], 2, &["no source `evnts`", "events"]),
        (&["push", "events", "events.parquet"], 2, &["events.parquet is no Parquet"]),
        (&["push", "events", "gone.jsonl"], 2, &["cannot read gone.jsonl"]),
        (&["lookup", "thinks", "key=a"], 2, &["no view `thinks`", "did you mean `things`?"]),
        (&["lookup", "things.rovs", "key=a"], 2, &["no feature `rovs`", "did you mean `rows`?"]),
        (&["lookup", "things", "kee=a"], 2, &["kee"]),
        (&["lookup", "things", "key"], 2, &["key=value"]),
        (&["module", "push", "hello.wasm", "--name", "hello"], 2, &["hello", "do not begin"]),
        (&["snapshot", "things", "--as-of", "soon", "--out", "x.parquet"], 2, &["soon", "RFC 3339"]),
        (&["lookup", "things.rows", "key=a"], 0, &["1", "PRESENT"]),
    ];
    for (typed, code, said) in cases {
        let ran = run(directory.path(), typed);
        let told = format!("{}{}", ran.out, ran.error);
        shown("onefold", &typed.join(" "), format!("exit {}", ran.code), &told);
        wrong.unless(ran.code == code, format!("{typed:?}: exit {}, {told}", ran.code));
        wrong.unless_says(&typed.join(" "), &told, said);
    }
    // Keys would be looked for in groups that do not have them.
    write("onefold.yaml", b"stream: { groups: 8 }");
    let ran = run(directory.path(), &["lookup", "things.rows", "key=a"]);
    shown("onefold.yaml", "stream: { groups: 8 }", format!("exit {}", ran.code), &ran.error);
    wrong.unless(ran.code == 2, format!("groups: exit {}, {}", ran.code, ran.error));
    wrong.unless_says("groups", &ran.error, &["cut into 16 groups", "says 8", "set it to 16"]);
}
