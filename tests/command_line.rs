//! The program as it is typed: what it prints, where, and with which exit code.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};

pub struct Ran {
    pub code: i32,
    pub out: String,
    pub error: String,
}

fn command(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_onefold"));
    command
        .args(arguments)
        .current_dir(directory)
        .env("COLUMNS", "120")
        .env("XDG_CONFIG_HOME", directory.join(".config"));
    for (variable, _) in std::env::vars_os() {
        if variable.to_str().is_some_and(|name| name.starts_with("ONEFOLD_")) {
            command.env_remove(variable);
        }
    }
    command
}

pub fn run(directory: &Path, arguments: &[&str]) -> Ran {
    let Output { status, stdout, stderr } = command(directory, arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran { code: status.code().unwrap_or(-1), out: text(stdout), error: text(stderr) }
}

impl Ran {
    /// All of it, whatever it was said on.
    pub fn said(&self) -> String {
        format!("{}{}", self.out, self.error)
    }
}

/// Runs the program, and holds it to its exit code and to parts of what it says.
pub fn says(directory: &Path, arguments: &[&str], code: i32, parts: &[&str]) -> Ran {
    let ran = run(directory, arguments);
    let said = ran.said();
    assert_eq!(ran.code, code, "{arguments:?}: {said}");
    for part in parts {
        assert!(said.contains(part), "{arguments:?}: `{part}` is not in\n{said}");
    }
    ran
}

const DEFINITIONS: &str = "
kind: project
name: shop
---
kind: source
name: orders
stream: { push: {} }
event_time: at
schema: { at: timestamp_ms, item: utf8, count: { type: int64, stream: $.line.count } }
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
";

fn shop() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("shop")).unwrap();
    std::fs::write(directory.path().join("shop/shop.yaml"), DEFINITIONS).unwrap();
    directory
}

#[test]
fn every_command_is_listed_with_what_it_does() {
    let directory = tempfile::tempdir().unwrap();
    let ran = run(directory.path(), &["--help"]);
    assert_eq!(ran.code, 0);
    let commands: Vec<&str> = ran
        .out
        .lines()
        .skip_while(|line| !line.starts_with("Commands:"))
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    let expected = [
        "init",
        "dev",
        "generate",
        "udf",
        "test",
        "module",
        "plan",
        "apply",
        "schema",
        "get",
        "pause",
        "resume",
        "push",
        "source",
        "lookup",
        "serve",
        "dead-letters",
        "status",
    ];
    for name in expected {
        assert!(commands.contains(&name), "{name} is missing:\n{}", ran.out);
    }
}

#[test]
fn what_is_typed_wrong_is_said_with_its_remedy() {
    let directory = shop();
    std::fs::write(directory.path().join("wrong.yaml"), DEFINITIONS.replace("std.sum", "std.summ")).unwrap();
    let cases: [(&[&str], i32, &str); 17] = [
        (&["aply", "shop"], 2, "error: there is no command `aply`; did you mean `apply`?\n"),
        (&["compact", "x"], 2, "error: `onefold compact` is not in this version yet\n"),
        (&["plan", "nowhere"], 2, "error: nowhere: there is no such directory\n"),
        (&["plan", "wrong.yaml"], 2, "error: wrong.yaml:20: "),
        (
            &["plan", "shop", "--server", "http://x"],
            2,
            "error: `http://x` is no server: only this machine can be reached",
        ),
        (&["plan", "shop", "--context", "x"], 2, "error: there is no context `x`; there is none yet\n"),
        (&["dev", "shop", "--server", "http://127.0.0.1:1"], 2, "error: `onefold dev` works on the data themselves"),
        (&["jobs", "list"], 2, "error: jobs live in the process that runs them, and none holds these data"),
        (&["dev", "shop", "--listen", "0.0.0.0:6566"], 2, "error: cannot listen at 0.0.0.0:6566: whoever reaches it"),
        (&["dev", "shop", "--watch"], 2, "error: --watch is not in this version yet"),
        (&["dev", "shop", "--halt-at", "somewhere"], 2, "error: invalid value 'somewhere' for '--halt-at"),
        (&["lookup", "items", "item=a"], 2, "error: there is no project yet: `onefold apply DIR` makes one\n"),
        (&["get", "viws"], 2, "error: there is no kind `viws`; "),
        (&["push", "orders", "nofile"], 2, "error: "),
        (&["module", "inspect", "shop/shop.yaml"], 1, "error: shop/shop.yaml: refused: "),
        (&["udf", "new", "Mine"], 2, "error: `Mine` is no name: write a letter a-z"),
        (
            &["udf", "build", "shop"],
            2,
            "error: shop/Cargo.toml: no project of a UDF is there; `onefold udf new NAME` makes one\n",
        ),
    ];
    for (arguments, code, error) in cases {
        let ran = run(directory.path(), arguments);
        assert!(ran.error.starts_with(error), "{arguments:?}: {}", ran.error);
        assert_eq!((ran.code, ran.out.as_str()), (code, ""), "{arguments:?}: {}", ran.error);
    }
    std::fs::write(directory.path().join("onefold.yaml"), "listen: here\n").unwrap();
    let ran = run(directory.path(), &["get", "sources"]);
    assert_eq!(ran.error, "error: onefold.yaml:1: listen: `here` is no address: write 127.0.0.1:6566\n");
    assert_eq!(ran.code, 2);
}

#[test]
fn a_project_lives_without_a_server() {
    let directory = shop();
    let here = |arguments: &[&str]| run(directory.path(), arguments);
    let check = here(&["plan", "shop", "--check"]);
    assert_eq!(check.code, 1, "{}", check.error);
    assert!(check.out.starts_with("revision 1:\n"), "{}", check.out);
    assert_eq!(here(&["apply", "shop"]).code, 0);
    assert!(directory.path().join("shop/onefold.lock").is_file());
    assert_eq!(here(&["plan", "shop", "--check"]).code, 0);
    let events = "{\"at\": 1767355200000, \"item\": \"a\", \"line\": {\"count\": 2}}\n\n{\"at\": 1767355200001, \"item\": \"a\", \"line\": {\"count\": 40}}\nnothing\n";
    std::fs::write(directory.path().join("orders.jsonl"), events).unwrap();
    let pushed = here(&["push", "orders", "orders.jsonl"]);
    assert_eq!((pushed.code, pushed.out.as_str()), (0, "2 accepted, 1 dead-lettered\n"), "{}", pushed.error);
    assert!(pushed.error.contains("line 4: "), "{}", pushed.error);
    let status: serde_json::Value = serde_json::from_str(&here(&["status", "--json"]).out).unwrap();
    let since = status["views"]["items"]["complete_since"]["sold"].as_str().unwrap_or_default();
    assert!(since.ends_with('Z') && since > "2026-01-02T12:00:00.001000Z", "since the push arrived: {status}");
    let looked_up = here(&["lookup", "items", "item=a"]);
    assert_eq!(
        looked_up.out,
        format!(
            "feature     value  status   newest row                   valid until  complete since\n\
             items.sold  42     PRESENT  2026-01-02T12:00:00.001000Z  -            {}\n",
            since.replace(&since[19..26], "")
        ),
        "{}",
        looked_up.error
    );
    let json = here(&["lookup", "items.sold", "item=b", "--json"]);
    let told: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(told["columns"]["items__sold"]["statuses"], serde_json::json!(["NOT_FOUND"]));
    let letters = here(&["dead-letters", "list", "--json"]);
    let told: serde_json::Value = serde_json::from_str(&letters.out).unwrap();
    assert_eq!(told["dead_letters"][0]["raw"], "nothing", "{told}");
    let replayed = here(&["dead-letters", "replay"]);
    assert_eq!(replayed.code, 0, "{}", replayed.error);
    assert!(
        replayed.out.contains("refused again: ") && replayed.out.ends_with("1 refused again, 0 closed\n"),
        "{}",
        replayed.out
    );
    let id = told["dead_letters"][0]["id"].as_str().unwrap_or_default().to_owned();
    assert!(here(&["dead-letters", "show", &id]).out.contains("raw: nothing"), "{}", told);
    assert_eq!(here(&["dead-letters", "replay", "nothing"]).code, 2);
    assert!(here(&["get", "sources"]).out.contains("orders  at, item, count"));
}

/// A process that answers, and where.
pub struct Answering {
    process: Child,
    pub base: String,
}

impl Answering {
    pub fn start(directory: &Path, arguments: &[&str]) -> Answering {
        let mut process = command(directory, arguments).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let base = line.trim().strip_prefix("listening at ").unwrap_or_else(|| panic!("said `{line}`")).to_owned();
        Answering { process, base }
    }

    fn value(&self, item: &str) -> String {
        let url = format!("{}/v1/projects/shop/feature-views/items/values?item={item}", self.base);
        let agent = ureq::Agent::config_builder().proxy(None).build().new_agent();
        let text = agent.get(url).call().unwrap().body_mut().read_to_string().unwrap();
        let told: serde_json::Value = serde_json::from_str(&text).unwrap();
        told["features"]["sold"]["value"].to_string()
    }

    /// `kill -9`.
    pub fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Asks it to end, as a service manager would.
    pub fn stop(mut self) -> ExitStatus {
        let asked = Command::new("kill").arg(self.process.id().to_string()).status().unwrap();
        assert!(asked.success());
        self.process.wait().unwrap()
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        // It has ended already unless the test failed.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn commands_go_through_the_process_that_owns_the_data() {
    let directory = shop();
    let here = |arguments: &[&str]| run(directory.path(), arguments);
    let dev = Answering::start(directory.path(), &["dev", "shop", "--listen", "127.0.0.1:0"]);
    std::fs::write(
        directory.path().join("one.jsonl"),
        "{\"at\": 1767355200000, \"item\": \"a\", \"line\": {\"count\": 2}}",
    )
    .unwrap();
    assert_eq!(here(&["push", "orders", "one.jsonl"]).out, "1 accepted, 0 dead-lettered\n");
    assert_eq!(here(&["plan", "shop", "--check"]).code, 0);
    let mut value = dev.value("a");
    for _ in 0..100 {
        if value == "2" {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
        value = dev.value("a");
    }
    assert_eq!(value, "2");
    let replica = Answering::start(directory.path(), &["serve", "--listen", "127.0.0.1:0"]);
    assert_eq!(replica.value("a"), "2");
    assert_eq!(here(&["push", "orders", "one.jsonl"]).code, 0, "a replica owns nothing");
    assert_eq!(replica.value("a"), "2", "and stays as it began");
    assert!(replica.stop().success());
    assert!(dev.stop().success());
    let after = here(&["lookup", "items.sold", "item=a", "--json"]);
    let told: serde_json::Value = serde_json::from_str(&after.out).unwrap();
    assert_eq!(told["columns"]["items__sold"]["values"], serde_json::json!([4]), "{}", after.error);
    assert_eq!(here(&["verify"]).code, 0);
}
