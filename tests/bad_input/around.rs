//! What is wrong around the events: files, definitions, the clock, limits, other processes, the data directory.

use super::{NDJSON, Wrong, YAML, shown};
use crate::batch::random::read_parquet;
use crate::batch::world::World;
use crate::command_line::{Answering, run};
use crate::serve::Server;
use crate::stream::open_on;
use onefold::clock::{Clock, ManualClock};
use onefold::define::{DefinitionFile, Lock};
use onefold::platform::PlatformSettings;
use onefold::serve::{DIRECTORY_TYPE, Directory};
use onefold::storage::LocalStorage;
use parquet::arrow::ArrowWriter;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;

const PROJECT: &str = "/v1/projects/around";
/// 2026-01-02T12:00:00Z.
const NOW_US: i64 = 1_767_355_200_000_000;
const HOUR_US: i64 = 3_600_000_000;

fn definitions(path: &str, schema: &str) -> String {
    format!(
        "kind: project
name: around
---
kind: source
name: events
stream: {{ push: {{}} }}
batch: {{ parquet: {{ path: {path} }} }}
event_time: at
schema: {schema}
---
kind: entity
name: thing
join_keys: {{ key: utf8 }}
---
kind: feature_view
name: things
entities: [thing]
source: events
features:
  rows: {{ udf: std.count }}
  sum: {{ udf: std.sum, inputs: [number] }}
  texts: {{ udf: std.collect_distinct, inputs: [text] }}
"
    )
}

const SCHEMA: &str = "{ at: timestamp, key: utf8, number: int64, text: utf8 }";

/// A server whose state is made of a file and of what was pushed.
struct Stand {
    world: World,
    clock: Arc<ManualClock>,
    settings: PlatformSettings,
    server: Option<Server>,
    /// Rows of entity `a` that count.
    rows: i64,
}

impl Stand {
    fn new() -> Stand {
        let world = World::apply(&without_files(SCHEMA));
        world.write_parquet("events", &world.path("events.parquet"), &[row(1), row(2)], 10);
        let settings = PlatformSettings { threads: 1, checkpoint_every_us: 1_000, ..PlatformSettings::default() };
        let clock = Arc::new(ManualClock::at(NOW_US));
        let mut stand = Stand { world, clock, settings, server: None, rows: 2 };
        stand.start();
        let text = definitions(&stand.file().display().to_string(), SCHEMA);
        let files = vec![DefinitionFile { file: "all.yaml".to_owned(), directory: "/".into(), text }];
        let body = serde_json::to_vec(&Directory { files, lock: Lock::default(), embedded: false }).expect("JSON");
        let of_directory = &[("content-type", DIRECTORY_TYPE)];
        let told = stand.server().send("PUT", &format!("{PROJECT}/definitions"), of_directory, &body);
        assert_eq!(told.status, 200, "{}", told.body);
        assert_eq!(stand.job(&json!({ "kind": "materialize" })), (200, String::new()));
        assert_eq!(stand.push(&row(3)).0, 202);
        stand.rows = 3;
        stand
    }

    fn file(&self) -> PathBuf {
        self.world.path("events.parquet")
    }

    fn start(&mut self) {
        self.clock.advance(1);
        let storage = Arc::new(LocalStorage::open(&self.world.path("around")).expect("a directory"));
        let platform = open_on(storage, &self.clock, &self.settings).unwrap_or_else(|error| panic!("{error}"));
        self.server = Some(Server::over(platform, self.clock.clone()));
    }

    fn restart(&mut self) {
        self.server = None;
        self.start();
    }

    fn server(&self) -> &Server {
        self.server.as_ref().expect("it runs")
    }

    fn put(&self, text: &str) -> (u16, String) {
        let told = self.server().send("PUT", &format!("{PROJECT}/definitions"), YAML, text.as_bytes());
        (told.status, detail(&told.body))
    }

    fn push(&self, event: &str) -> (u16, String) {
        let path = format!("{PROJECT}/sources/events/events?wait=served");
        let told = self.server().send("POST", &path, NDJSON, event.as_bytes());
        (told.status, detail(&told.body))
    }

    /// 200 when it was done, else the status of the problem that ended it.
    fn job(&self, asked: &Value) -> (u16, String) {
        let json = &[("content-type", "application/json")];
        let told = self.server().send("POST", &format!("{PROJECT}/jobs"), json, asked.to_string().as_bytes());
        let path = format!("{PROJECT}/jobs/{}", told.body["id"].as_str().unwrap_or_default());
        loop {
            let job = self.server().get(&path).body;
            match job["state"].as_str() {
                Some("running") => std::thread::sleep(std::time::Duration::from_millis(5)),
                Some("done") => {
                    let told = job["result"].to_string();
                    let number = |name: &str| job["result"][name].as_u64().unwrap_or(0);
                    let is_well = number("differ") == 0 && number("unreadable") == 0 && !told.contains("notes");
                    return (200, if is_well { String::new() } else { told });
                }
                _ => return (job["error"]["status"].as_u64().unwrap_or(0) as u16, detail(&job["error"])),
            }
        }
    }

    /// Puts another file in the place of the source's, looks, and puts the first one back.
    fn with_other_file(&mut self, write: impl FnOnce(&Stand), look: impl FnOnce(&mut Stand) -> Said) -> Said {
        let away = self.world.path("away");
        std::fs::rename(self.file(), &away).expect("it can be moved");
        write(self);
        let said = look(self);
        std::fs::rename(&away, self.file()).expect("it can be moved back");
        said
    }

    /// A file of the same rows under another schema.
    fn write_as(&self, schema: &str, rows: &[&str]) {
        let world = World::apply(&without_files(schema));
        let rows: Vec<String> = rows.iter().map(|row| (*row).to_owned()).collect();
        world.write_parquet("events", &self.file(), &rows, 10);
    }

    fn materialize(&mut self) -> Said {
        self.job(&json!({ "kind": "materialize" }))
    }

    /// What is served is what was acknowledged, also after a restart, and batch says the same.
    fn check(&mut self, name: &str, wrong: &mut Wrong) {
        for restarted in [false, true] {
            if restarted {
                self.restart();
            }
            let found = self.server().get(&format!("{PROJECT}/feature-views/things/values?key=a")).body;
            let rows = &found["features"]["rows"]["value"];
            wrong.unless(*rows == self.rows, format!("{name}: {} rows, restarted {restarted}: {found}", self.rows));
            let verified = self.job(&json!({ "kind": "verify" }));
            let is_equal = verified == (200, String::new());
            wrong.unless(is_equal, format!("{name}: verify, restarted {restarted}: {verified:?}"));
        }
    }
}

type Said = (u16, String);

fn without_files(schema: &str) -> String {
    let text = definitions("nowhere", schema).replace("batch: { parquet: { path: nowhere } }\n", "");
    // The features take what the schema has.
    let lacks = |line: &str, input: &str, column: &str| line.contains(input) && !schema.contains(column);
    let kept =
        |line: &&str| !lacks(line, "inputs: [number]", "number: int64") && !lacks(line, "inputs: [text]", "text: utf8");
    text.lines().filter(kept).map(|line| format!("{line}\n")).collect()
}

fn row(number: i64) -> String {
    format!("{{\"at\":\"2026-01-02T10:0{number}:00Z\",\"key\":\"a\",\"number\":{number},\"text\":\"t\"}}")
}

fn detail(body: &Value) -> String {
    match body["detail"].as_str() {
        Some(detail) => detail.to_owned(),
        None => body["errors"][0]["reason"].as_str().unwrap_or_default().to_owned(),
    }
}

/// Each level of these names nine of the level before: 9^8 texts.
fn anchor_bomb() -> String {
    let mut text = "kind: feature_service\nname: bomb\na0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..9 {
        let before = vec![format!("*a{}", level - 1); 9].join(", ");
        text += &format!("a{level}: &a{level} [{before}]\n");
    }
    text + "features: *a8\n"
}

const CYCLE: &str = "
kind: on_demand_feature_view
name: one
features:
  x: { udf: std.coalesce, inputs: [two.y] }
---
kind: on_demand_feature_view
name: two
features:
  y: { udf: std.coalesce, inputs: [one.x] }
";

struct Case {
    name: &'static str,
    act: fn(&mut Stand) -> Said,
    status: u16,
    said: &'static [&'static str],
}

const CASES: &[Case] = &[
    Case {
        name: "a Parquet file with a column of another type",
        act: |stand| {
            let other = r#"{"at":"2026-01-02T10:01:00Z","key":"a","number":"one","text":"t"}"#;
            let schema = SCHEMA.replace("number: int64", "number: utf8");
            stand.with_other_file(|stand| stand.write_as(&schema, &[other]), Stand::materialize)
        },
        status: 422,
        said: &["events.parquet", "`number` is Utf8", "int64", "declare it utf8, or name another column with `batch:`"],
    },
    Case {
        name: "a Parquet file without the event time",
        act: |stand| {
            let away = stand.world.path("away");
            let write = |stand: &Stand| {
                let rows = read_parquet(&away).project(&[1, 2, 3]).expect("it has more columns");
                let file = std::fs::File::create(stand.file()).expect("a file can be made");
                let mut writer = ArrowWriter::try_new(file, rows.schema(), None).expect("Parquet");
                writer.write(&rows).expect("rows can be written");
                writer.close().expect("the file can be ended");
            };
            stand.with_other_file(write, Stand::materialize)
        },
        status: 422,
        said: &["events.parquet", "no column `at`, which holds the event_time", "name the file's column with `batch:`"],
    },
    Case {
        name: "a Parquet file that lacks a column",
        act: |stand| {
            let schema = SCHEMA.replace(" number: int64,", "");
            let said = stand.with_other_file(
                |stand| stand.write_as(&schema, &[r#"{"at":"2026-01-02T10:01:00Z","key":"a"}"#]),
                Stand::materialize,
            );
            assert_eq!(stand.materialize(), (200, String::new()), "the right file, once it is there");
            said
        },
        status: 200,
        said: &["no file of source `events` has the column `number`", "null in all their rows", "batch: NAME"],
    },
    Case {
        name: "a Parquet file that was cut off in the middle",
        act: |stand| {
            let cut = |stand: &Stand| {
                let whole = std::fs::read(stand.world.path("away")).expect("it is there");
                std::fs::write(stand.file(), &whole[..whole.len() / 2]).expect("it can be written");
            };
            stand.with_other_file(cut, Stand::materialize)
        },
        status: 422,
        said: &["events.parquet", "no whole Parquet file", "cut off", "write it again"],
    },
    Case {
        name: "a pinned file that changed, looked at by verify",
        act: |stand| {
            let two = [row(1), row(2)];
            let write = |stand: &Stand| stand.write_as(SCHEMA, &[&two[0], &two[1]]);
            stand.with_other_file(write, |stand| stand.job(&json!({ "kind": "verify" })))
        },
        status: 200,
        said: &["\"unreadable\":1", "events.parquet", "restore it, or materialize again"],
    },
    Case {
        name: "a pinned file that changed, needed by a new feature",
        act: |stand| {
            let two = [row(1), row(2)];
            let write = |stand: &Stand| stand.write_as(SCHEMA, &[&two[0], &two[1], &two[1]]);
            let more = "kind: feature_view\nname: more\nentities: [thing]\nsource: events\nfeatures:\n  x: { udf: std.max, inputs: [number] }\n";
            stand.with_other_file(write, |stand| stand.put(more))
        },
        status: 422,
        said: &["events.parquet", "restore it, or materialize again"],
    },
    Case {
        name: "a clock that goes back an hour, and a start",
        act: |stand| {
            stand.clock.set(stand.clock.now_us() - HOUR_US);
            let said = stand.push(&row(4));
            stand.rows += i64::from(said.0 == 202);
            stand.restart();
            let again = stand.push(&row(5));
            stand.rows += i64::from(again.0 == 202);
            again
        },
        status: 202,
        said: &[],
    },
    Case {
        name: "YAML with a tab",
        act: |stand| stand.put("kind: feature_service\nname: s\nfeatures:\n\t- things\n"),
        status: 422,
        said: &["body:4: ", "tabs", "indent with spaces"],
    },
    Case {
        name: "a bomb of anchors",
        act: |stand| stand.put(&anchor_bomb()),
        status: 422,
        said: &["body:", "anchors", "write it out"],
    },
    Case {
        name: "a circle of on-demand views",
        act: |stand| stand.put(CYCLE),
        status: 422,
        said: &["read each other in a circle (one, two)", "let one of them read feature views only"],
    },
    Case {
        name: "a UDF whose state goes over the limit",
        act: |stand| {
            let module = crate::modules::guest("grows");
            let wasm = &[("content-type", "application/wasm")];
            let told = stand.server().send("POST", &format!("{PROJECT}/modules?name=hostile"), wasm, &module);
            (told.status, detail(&told.body))
        },
        status: 422,
        said: &["state too large", "the limit of 4194304 bytes", "bound the state another way"],
    },
    Case {
        name: "a state over its limit",
        act: |stand| {
            let long = "x".repeat(100_000);
            for number in 0..50 {
                let event = row(4).replace("\"t\"", &format!("\"{number}{long}\""));
                assert_eq!(stand.push(&event).0, 202);
                stand.rows += 1;
            }
            let found = stand.server().get(&format!("{PROJECT}/feature-views/things/values?key=a"));
            (found.status, found.body["features"]["texts"].to_string())
        },
        status: 200,
        said: &["ERROR", "the state is above the limit of 4194304 bytes", "keep less in it"],
    },
    Case {
        name: "limits.memory reached",
        act: |stand| {
            stand.settings.memory_bytes = 1;
            stand.restart();
            let said = stand.push(&row(4));
            stand.settings.memory_bytes = PlatformSettings::default().memory_bytes;
            stand.restart();
            said
        },
        status: 503,
        said: &["at most 1 are allowed", "raise limits.memory"],
    },
];

#[test]
fn whatever_is_wrong_around_them_is_told_and_nothing_is_lost() {
    let mut wrong = Wrong::default();
    for Case { name, act, status, said } in CASES {
        let mut stand = Stand::new();
        let (found, detail) = act(&mut stand);
        shown("around", name, found, &detail);
        wrong.unless(found == *status, format!("{name}: {found} {detail}"));
        wrong.unless_says(name, &detail, said);
        stand.check(name, &mut wrong);
    }
}

const SMALL: &str = "kind: project
name: small
---
kind: source
name: events
stream: { push: {} }
event_time: at
schema: { at: timestamp, key: utf8 }
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
";

/// The program beside another one, and over data that are not its own.
#[test]
fn a_port_a_directory_and_a_format_that_are_not_its_own_are_told_with_exit_codes() {
    let mut wrong = Wrong::default();
    let (first, other) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    for directory in [&first, &other] {
        std::fs::create_dir(directory.path().join("small")).expect("a directory");
        std::fs::write(directory.path().join("small/all.yaml"), SMALL).expect("a file");
        let event = "{\"at\":\"2026-01-02T10:00:00Z\",\"key\":\"a\"}\n";
        std::fs::write(directory.path().join("one.jsonl"), event).expect("a file");
    }
    let counted = |directory: &tempfile::TempDir, wrong: &mut Wrong| {
        let ran = run(directory.path(), &["lookup", "things.rows", "key=a", "--json"]);
        let told: Value = serde_json::from_str(&ran.out).unwrap_or(Value::Null);
        wrong.unless(told["columns"]["things__rows"]["values"] == json!([1]), format!("{}{}", ran.out, ran.error));
    };
    assert_eq!(run(other.path(), &["apply", "small"]).code, 0);
    assert_eq!(run(other.path(), &["push", "events", "one.jsonl"]).code, 0);

    let dev = Answering::start(first.path(), &["dev", "small", "--listen", "127.0.0.1:0"]);
    assert_eq!(run(first.path(), &["push", "events", "one.jsonl"]).code, 0);
    let address = dev.base.trim_start_matches("http://").to_owned();
    let mut told = |name: &str, directory: &tempfile::TempDir, typed: &[&str], code: i32, said: &[&str]| {
        let ran = run(directory.path(), typed);
        shown("onefold", name, format!("exit {}", ran.code), &ran.error);
        wrong.unless(ran.code == code, format!("{name}: exit {}, {}", ran.code, ran.error));
        wrong.unless_says(name, &ran.error, said);
    };
    let held: &[&str] = &["belongs to a running process (`onefold dev`, process ", &address, "stop it"];
    told("a second process on the same data", &first, &["dev", "small", "--listen", "127.0.0.1:0"], 3, held);
    let taken: &[&str] = &["cannot listen at", &address, "in use", "choose another address with --listen"];
    told("a port in use", &other, &["dev", "small", "--listen", &address], 3, taken);
    told("a port in use, for a replica", &other, &["serve", "--listen", &address], 3, taken);
    assert!(dev.stop().success());
    let format = other.path().join(".onefold/format.json");
    let own = std::fs::read(&format).expect("it says its format");
    std::fs::write(&format, "{\"format\":2,\"written_by\":\"onefold 9.1\",\"more\":[]}").expect("it can be written");
    let newer: &[&str] =
        &["format 2, written by onefold 9.1", "reads and writes format 1", "run the version that wrote it"];
    told("data of a newer version", &other, &["lookup", "things.rows", "key=a"], 3, newer);
    told("data of a newer version, plan", &other, &["plan", "small"], 3, newer);
    std::fs::write(&format, "{\"form").expect("it can be written");
    told("a torn format", &other, &["lookup", "things.rows", "key=a"], 3, &["format.json", "restore it"]);
    std::fs::write(&format, own).expect("it can be written");
    counted(&first, &mut wrong);
    counted(&other, &mut wrong);
}
