//! Disks that are full or cannot be written, seen by those who send requests: pushes are refused and say why, lookups go
//! on, nothing acknowledged is lost, and it goes on by itself.

use crate::command_line::{Answering, run};
use crate::serve::Server;
use crate::stream::open_on;
use onefold::clock::ManualClock;
use onefold::platform::PlatformSettings;
use onefold::storage::forgetful::{Fault, Forgetful};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

const DEFINITIONS: &str = "kind: project
name: full
---
kind: source
name: events
stream: { push: {} }
event_time: at
schema: { at: timestamp, key: utf8, text: utf8 }
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
const MORE: &str = "kind: feature_view\nname: more\nentities: [thing]\nsource: events\nfeatures:\n  x: { udf: std.last, inputs: [text] }\n";
const PROJECT: &str = "/v1/projects/full";
const NDJSON: &[(&str, &str)] = &[("content-type", "application/x-ndjson")];
const YAML: &[(&str, &str)] = &[("content-type", "application/yaml")];

fn event(text: &str) -> String {
    format!("{{\"at\":\"2026-01-02T10:00:00Z\",\"key\":\"a\",\"text\":\"{text}\"}}")
}

/// Whoever pushes, applies or uploads is told 503, which rule and what to do; whoever looks up has an answer.
#[test]
fn a_disk_that_takes_nothing_is_a_problem_of_503_until_it_takes_something() {
    for (fault, said) in [(Fault::Full, "no storage space"), (Fault::ReadOnly, "read-only filesystem")] {
        let disk = Forgetful::new();
        let clock = Arc::new(ManualClock::at(1_767_355_200_000_000));
        let settings = PlatformSettings { threads: 1, checkpoint_every_us: 1_000, ..PlatformSettings::default() };
        let server = Server::over(open_on(disk.storage(), &clock, &settings).expect("an empty disk"), clock.clone());
        let put = |text: &str| server.send("PUT", &format!("{PROJECT}/definitions"), YAML, text.as_bytes());
        let push = || {
            let path = format!("{PROJECT}/sources/events/events?wait=served");
            server.send("POST", &path, NDJSON, event("t").as_bytes())
        };
        let rows = || {
            let told = server.get(&format!("{PROJECT}/feature-views/things/values?key=a"));
            assert_eq!(told.status, 200, "{}", told.body);
            told.body["features"]["rows"]["value"].clone()
        };
        let told = put(DEFINITIONS);
        assert_eq!(told.status, 200, "{}", told.body);
        assert_eq!((push().status, push().status), (202, 202));
        disk.fail_after(0, fault);
        for (what, told) in [("push", push()), ("apply", put(MORE)), ("push", push())] {
            let detail = told.body["detail"].as_str().unwrap_or_default();
            println!("{fault:?}, {what} -> {} {detail}", told.status);
            assert_eq!(told.status, 503, "{fault:?}, {what}: {}", told.body);
            for part in ["cannot write", said, "then it goes on by itself"] {
                assert!(detail.contains(part), "{fault:?}, {what}: `{detail}` lacks `{part}`");
            }
            assert_eq!(rows(), 2, "{fault:?}: lookups go on");
        }
        // A checkpoint cannot be stored either: the status says so, and folding goes on.
        let mut error = Value::Null;
        for _ in 0..500 {
            clock.advance(2_000);
            error = server.get(&format!("{PROJECT}/status")).body["checkpoint_error"].clone();
            if error.is_string() {
                break;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        assert!(error.as_str().is_some_and(|error| error.contains(said)), "{fault:?}: {error}");
        disk.heal();
        assert_eq!(push().status, 202, "{fault:?}: there is room again");
        let told = put(MORE);
        assert_eq!(told.status, 200, "{fault:?}: {}", told.body);
        assert_eq!(rows(), 3, "{fault:?}");
        for tries in 0.. {
            clock.advance(2_000);
            let status = server.get(&format!("{PROJECT}/status")).body;
            if status["checkpoint_error"].is_null() {
                break;
            }
            assert!(tries < 2000, "{fault:?}: no checkpoint is stored: {status}");
            std::thread::sleep(Duration::from_millis(2));
        }
        drop(server);
        disk.crash(1);
        let server = Server::over(open_on(disk.storage(), &clock, &settings).expect("it comes up"), clock.clone());
        let told = server.get(&format!("{PROJECT}/feature-views/things/values?key=a"));
        assert_eq!(told.body["features"]["rows"]["value"], 3, "{fault:?}, after a crash: {}", told.body);
    }
}

/// A file system of a few megabytes in memory; unmounted when let go.
struct Mount(PathBuf);

impl Mount {
    fn new(at: &Path) -> Option<Mount> {
        std::fs::create_dir(at).expect("a directory");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=6m", "onefold-test"]).arg(at).output();
        mounted.is_ok_and(|output| output.status.success()).then(|| Mount(at.to_owned()))
    }

    fn again(&self, how: &str) {
        let output = Command::new("mount").args(["-o", &format!("remount,{how}")]).arg(&self.0).output();
        let output = output.expect("it was mounted by the same program");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: a process that was not ended yet must not keep it for good.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Sends one event; the status and what was said.
fn push(base: &str, text: &str) -> (u16, String) {
    let agent = ureq::Agent::config_builder().http_status_as_error(false).proxy(None).build().new_agent();
    let request = agent.post(format!("{base}{PROJECT}/sources/events/events?wait=served"));
    let mut response = request.content_type("application/x-ndjson").send(event(text)).expect("it answers");
    let text = response.body_mut().read_to_string().expect("text");
    let body: Value = serde_json::from_str(&text).unwrap_or_default();
    (response.status().as_u16(), body["detail"].as_str().unwrap_or_default().to_owned())
}

/// The real program on a real file system that fills up, and on one that can only be read.
#[test]
fn a_real_disk_fills_up_and_becomes_read_only() {
    let directory = tempfile::tempdir().expect("a directory");
    let Some(mount) = Mount::new(&directory.path().join("data")) else {
        println!("NOT TRIED: no tmpfs can be mounted here (it takes root); the same faults are tried in memory");
        return;
    };
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).expect("a file");
    write("all.yaml", DEFINITIONS);
    write("onefold.yaml", "data: ./data\nstream: { threads: 1, checkpoint_every: 100ms }\n");
    let dev = Answering::start(directory.path(), &["dev", "all.yaml", "--listen", "127.0.0.1:0"]);
    let text = "x".repeat(100_000);
    let (mut acknowledged, mut refused, mut said) = (0, 0, String::new());
    for _ in 0..400 {
        match push(&dev.base, &text) {
            (202, _) => acknowledged += 1,
            (status, detail) => {
                assert_eq!(status, 503, "{detail}");
                refused += 1;
                said = detail;
            }
        }
        if refused >= 20 {
            break;
        }
    }
    println!("full: {acknowledged} acknowledged, {refused} refused: {said}");
    assert!(acknowledged > 5 && refused >= 20, "{acknowledged} acknowledged, {refused} refused");
    assert!(said.contains("No space left on device") && said.contains("then it goes on by itself"), "{said}");
    let rows = |data: &str| {
        let ran = run(directory.path(), &["lookup", "things.rows", "key=a", "--json", "--data", data]);
        let told: Value = serde_json::from_str(&ran.out).unwrap_or_else(|_| panic!("{}{}", ran.out, ran.error));
        told["columns"]["things__rows"]["values"][0].as_i64()
    };
    assert_eq!(rows("data"), Some(acknowledged), "lookups go on");
    mount.again("size=40m");
    let again = push(&dev.base, &text);
    println!("room again: {} {}", again.0, again.1);
    assert_eq!(again.0, 202, "it goes on by itself: {}", again.1);
    acknowledged += 1;
    assert_eq!(rows("data"), Some(acknowledged));
    dev.kill();
    assert_eq!(rows("data"), Some(acknowledged), "after kill -9");
    assert_eq!(run(directory.path(), &["verify"]).code, 0);

    mount.again("ro");
    let ran = run(directory.path(), &["dev", "all.yaml", "--listen", "127.0.0.1:0"]);
    println!("read-only, dev: exit {} {}", ran.code, ran.error.trim_end());
    assert_eq!(ran.code, 3, "{}", ran.error);
    assert!(ran.error.contains("Read-only file system") && ran.error.contains("make it writable"), "{}", ran.error);
    let replica = Answering::start(directory.path(), &["serve", "--listen", "127.0.0.1:0"]);
    let agent = ureq::Agent::config_builder().proxy(None).build().new_agent();
    let url = format!("{}{PROJECT}/feature-views/things/values?key=a", replica.base);
    let told = agent.get(url).call().expect("it answers").body_mut().read_to_string().expect("text");
    let told: Value = serde_json::from_str(&told).expect("JSON");
    assert_eq!(told["features"]["rows"]["value"], json!(acknowledged), "what can be read is served: {told}");
    assert!(replica.stop().success());
    mount.again("rw");
    let dev = Answering::start(directory.path(), &["dev", "all.yaml", "--listen", "127.0.0.1:0"]);
    assert_eq!(push(&dev.base, "t").0, 202);
    assert_eq!(rows("data"), Some(acknowledged + 1));
    assert!(dev.stop().success());
    assert_eq!(run(directory.path(), &["verify"]).code, 0);
}
