//! What is said before it is done, and by whom: a plan with the flags of its apply, and commands that wait for their
//! work or leave it to a job.

use crate::batch::world::World;
use crate::command_line::{Answering, says};
use crate::serve::Server;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

const PROJECT: &str = "/v1/projects/shop";
const YAML: &[(&str, &str)] = &[("content-type", "application/yaml")];

const SHOP: &str = "kind: project
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
source: orders
entities: [item]
features:
  sold: { udf: std.sum, inputs: [count] }
  sold_7d: { udf: std.sum, inputs: [count], window: 7d }
";

/// A feature that is another now, one more, and a view of other keys.
fn changed() -> String {
    let other = SHOP.replace("sold: { udf: std.sum", "sold: { udf: std.max");
    let more = "  n: { udf: std.count }\n  n_30d: { udf: std.count, window: 30d }\n---\nkind: entity\nname: number\n\
                join_keys: { count: int64 }\n---\nkind: feature_view\nname: counts\nsource: orders\n\
                entities: [number]\nfeatures: { rows: { udf: std.count } }\n";
    format!("{other}{more}")
}

fn events(first: i64, count: i64) -> String {
    let event = |number| json!({ "at": "2026-01-02T10:00:00Z", "item": format!("i{}", number % 10), "count": number });
    (first..first + count).map(|number| event(number).to_string()).collect::<Vec<_>>().join("\n")
}

fn put(server: &Server, text: &str, query: &str) -> Value {
    let told = server.send("PUT", &format!("{PROJECT}/definitions{query}"), YAML, text.as_bytes());
    assert!((200..300).contains(&told.status), "{}", told.body);
    told.body
}

/// A job once it has ended.
fn ended(server: &Server, id: &Value) -> Value {
    let path = format!("{PROJECT}/jobs/{}", id.as_str().unwrap());
    let look = || {
        std::thread::sleep(Duration::from_millis(5));
        Some(server.get(&path).body).filter(|job| job["state"] != "running")
    };
    (0..6000).find_map(|_| look()).unwrap()
}

/// Guards: a plan knew no `--from now`, and showed a history that the apply would not read.
#[test]
fn a_plan_says_what_the_apply_of_its_flags_does() {
    let expected = [("", 50, false), ("&from=now", 0, true), ("&same_rows=true", 50, false)];
    for (flags, rows, is_empty) in expected {
        let server = Server::start();
        put(&server, SHOP, "");
        let path = format!("{PROJECT}/sources/orders/events?wait=served");
        let pushed = server.send("POST", &path, &[("content-type", "application/x-ndjson")], events(0, 50).as_bytes());
        assert_eq!(pushed.status, 202, "{}", pushed.body);
        let plan = put(&server, &changed(), &format!("?dry_run=true{flags}"));
        let told = put(&server, &changed(), &format!("?wait=false{flags}"));
        let job = ended(&server, &told["job"]);
        assert_eq!(job["state"], "done", "{job}");
        for part in ["changes", "warnings", "revision"] {
            assert_eq!(plan[part], job["result"][part], "{flags}: {part}");
        }
        let costs = |member: &str| -> Vec<Value> {
            let changes = plan["changes"].as_array().unwrap().iter().map(|change| &change["cost"]);
            changes.filter(|cost| cost["build"] != "none").map(|cost| cost[member].clone()).collect()
        };
        // Three features of `items`, the view `counts` and its feature.
        assert_eq!(costs("history_rows"), vec![json!(rows); 5], "{plan}");
        assert_eq!(job["progress"]["rows"], rows, "what it said it would read: {job}");
        let empty = if is_empty { json!(true) } else { Value::Null };
        assert_eq!(costs("begins_empty"), vec![empty; 5], "{plan}");
        let warnings = plan["warnings"].to_string();
        let notes = [
            "feature view `items`: `sold`, `n`, `n_30d` begin empty, where the stream stands: their windows lack what was \
             before for up to 31 d, `sold`, `n` never get it, what `sold` served until now is gone; `onefold rebuild \
             items` gives them the history",
            "feature view `counts`: `rows` begins empty, where the stream stands: `rows` never gets it",
        ];
        for note in notes {
            assert_eq!(warnings.contains(note), is_empty, "{note}: {warnings}");
        }
        assert_eq!(warnings.contains("--same-rows means nothing here"), flags.contains("same_rows"), "{warnings}");
        let value = server.get(&format!("{PROJECT}/feature-views/items/values?item=i3")).body["features"].clone();
        let served = ["sold", "sold_7d", "n"].map(|feature| value[feature]["value"].clone());
        let all = [json!(43), json!(3 + 13 + 23 + 33 + 43), json!(5)];
        let kept = [Value::Null, all[1].clone(), Value::Null];
        assert_eq!(served, if is_empty { kept } else { all }, "{value}");
        let nothing = put(&server, &changed(), "?dry_run=true&from=now");
        assert_eq!(nothing["changes"], json!([]), "{nothing}");
        assert!(nothing["warnings"].to_string().contains("--from now means nothing here"), "{nothing}");
    }
}

#[test]
fn a_plan_of_files_that_moved_says_and_refuses_what_its_apply_does() {
    let world = World::apply(&SHOP.replace("name: shop\n", "name: test\n"));
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let rows = |first, count| events(first, count).lines().map(str::to_owned).collect::<Vec<_>>();
    for (name, rows) in [("before", rows(0, 20)), ("copy", rows(0, 20)), ("other", rows(5, 30))] {
        std::fs::create_dir(at.join(name)).unwrap();
        world.write_parquet("orders", &at.join(name).join("rows.parquet"), &rows, 100);
    }
    let write = |path: &str, text: &str| {
        let batch = format!("batch: {{ parquet: {{ path: {path} }} }}\nevent_time: at");
        std::fs::write(at.join("all.yaml"), text.replace("event_time: at", &batch)).unwrap();
    };
    write("before", SHOP);
    says(at, &["apply", "all.yaml"], 0, &[]);
    says(at, &["materialize"], 0, &["10 entities"]);
    std::fs::write(at.join("events"), events(0, 7)).unwrap();
    says(at, &["push", "orders", "events"], 0, &["7 accepted"]);

    write("other", SHOP);
    let anew = ["~ source orders [built from its rows: reads 37 rows]", "is built anew", "--same-rows keeps it"];
    says(at, &["plan", "all.yaml", "--check"], 1, &anew);
    // Files that are read anew leave nothing to begin empty.
    let said = says(at, &["plan", "all.yaml", "--from", "now"], 0, &anew);
    assert!(!said.out.contains("begin empty") && said.out.contains("--from now means nothing here"), "{}", said.out);
    for command in ["plan", "apply"] {
        says(
            at,
            &[command, "all.yaml", "--same-rows"],
            2,
            &["--same-rows says that only the place has changed", "rows.parquet"],
        );
    }
    write("nowhere", SHOP);
    for command in ["plan", "apply"] {
        says(at, &[command, "all.yaml"], 2, &["nowhere", "must be there"]);
    }
    write("copy", &format!("{SHOP}  n: {{ udf: std.count }}\n"));
    let kept = [
        "hold the same rows; state is kept",
        "+ n: std.count(), covers all rows since the beginning [a new column: reads 27 rows;",
    ];
    says(at, &["plan", "all.yaml", "--same-rows"], 0, &kept);
    let now =
        ["state is kept", "[a new column: begins empty; reads 0 rows]", "`n` never gets it; `onefold rebuild items`"];
    let plan = says(at, &["plan", "all.yaml", "--same-rows", "--from", "now"], 0, &now).out;
    std::fs::remove_dir_all(at.join("before")).unwrap();
    let applied = says(at, &["apply", "all.yaml", "--same-rows", "--from", "now"], 0, &[]).out;
    assert_eq!(applied, plan + "revision 2 is live\n");
    let found = told(at, &["lookup", "items", "item=i3", "--json"], 0);
    let values = ["items__sold", "items__n"].map(|column| found["columns"][column]["values"][0].clone());
    assert_eq!(values, [json!(3 + 13 + 3), Value::Null], "{found}");
    says(at, &["verify"], 0, &["0 differ", "0 unreadable"]);
}

/// What `--json` has printed.
fn told(directory: &Path, arguments: &[&str], code: i32) -> Value {
    let ran = says(directory, arguments, code, &[]);
    serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{error}: {}", ran.said()))
}

#[test]
fn commands_that_take_long_are_waited_for_or_left_to_a_job() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    std::fs::write(at.join("all.yaml"), SHOP).unwrap();
    std::fs::write(at.join("events"), events(0, 20)).unwrap();
    says(at, &["apply", "all.yaml"], 0, &[]);
    says(at, &["push", "orders", "events"], 0, &[]);
    let commands: [&[&str]; 6] = [
        &["rollback", "1"],
        &["pause", "items"],
        &["resume", "items"],
        &["delete", "feature", "items.sold_7d"],
        &["rebuild", "items"],
        &["materialize"],
    ];
    for command in commands {
        // Without a process nobody would go on with it; and both at once mean nothing.
        says(at, &[command, &["--detach"]].concat(), 2, &["leave --detach out, or start `onefold dev`"]);
        says(at, &[command, &["--detach", "--wait"]].concat(), 2, &["cannot be used with"]);
    }
    says(at, &["pause", "items", "--wait"], 0, &["= feature view items"]);
    says(at, &["resume", "items", "--wait"], 0, &["* feature view items"]);
    says(at, &["rebuild", "items", "--wait"], 0, &["10 entities of items"]);
    assert_eq!(told(at, &["revisions", "--json"], 0)[0]["revision"], 3);

    let dev = Answering::start(at, &["dev", "all.yaml", "--listen", "127.0.0.1:0"]);
    let left = |arguments: &[&str]| -> String {
        let ran = says(at, &[arguments, &["--detach"]].concat(), 0, &["makes it live: onefold jobs watch "]);
        ran.out.trim_end().rsplit(' ').next().unwrap().to_owned()
    };
    let job = left(&["pause", "items"]);
    says(at, &["jobs", "watch", &job], 0, &["\"revision\":4", "\"change\":\"pause\"", "cut_over_pause_us"]);
    // What is wrong at once is said at once, with the code that it always has.
    says(at, &["pause", "items", "--detach"], 1, &["paused since revision 4"]);
    says(at, &["pause", "items", "--wait"], 1, &["paused since revision 4"]);
    says(at, &["pause", "items", "--dry-run", "--detach"], 2, &["cannot be used with"]);
    says(at, &["rollback", "99", "--detach"], 2, &["has no revision 99"]);
    let resumed = told(at, &["resume", "items", "--detach", "--json"], 0);
    assert_eq!((&resumed["revision"], &resumed["changes"][0]["change"]), (&json!(5), &json!("resume")), "{resumed}");
    assert!(resumed.get("text").is_none(), "{resumed}");
    says(at, &["jobs", "watch", resumed["job"].as_str().unwrap()], 0, &["\"revision\":5"]);
    let job = left(&["rebuild", "items"]);
    says(at, &["jobs", "watch", &job], 0, &["\"entities\":10"]);
    let job = told(at, &["rebuild", "items", "--detach", "--json"], 0);
    assert_eq!(job.as_object().unwrap().len(), 1, "{job}");
    assert_eq!(told(at, &["jobs", "watch", job["job"].as_str().unwrap()], 0)["views"], json!(["items"]));
    assert_eq!(told(at, &["rebuild", "items", "--wait", "--json"], 0)["entities"], 10);
    let job = left(&["delete", "feature", "items.sold_7d"]);
    says(at, &["jobs", "watch", &job], 0, &["\"revision\":6"]);
    let back = told(at, &["rollback", "5", "--wait", "--json"], 0);
    assert_eq!((&back["revision"], &back["changes"][0]["feature"]), (&json!(7), &json!("sold_7d")), "{back}");
    assert!(back["cut_over_pause_us"].is_u64() && back.get("job").is_none(), "{back}");
    // A job that fails says so where it is watched.
    let job = left(&["materialize"]);
    says(at, &["jobs", "watch", &job], 2, &["there is nothing to materialize"]);
    says(at, &["materialize", "--wait"], 2, &["there is nothing to materialize"]);
    let kinds: Vec<Value> =
        told(at, &["jobs", "list", "--json"], 0).as_array().unwrap().iter().map(|job| job["kind"].clone()).collect();
    let expected =
        ["pause", "resume", "rebuild", "rebuild", "rebuild", "delete", "rollback", "materialize", "materialize"];
    assert_eq!(kinds, expected);
    says(at, &["lookup", "items.sold", "item=i3", "--json"], 0, &["\"values\":[16]"]);
    assert!(dev.stop().success());
}

#[test]
fn by_http_too_changes_and_builds_are_jobs_where_nobody_waits() {
    let server = Server::start();
    put(&server, SHOP, "");
    let json = &[("content-type", "application/json")];
    let send =
        |method: &str, path: &str, body: &str| server.send(method, &format!("{PROJECT}/{path}"), json, body.as_bytes());
    assert_eq!(put(&server, &changed(), "")["revision"], 2);
    let changes = [
        ("rollback", "POST", "rollback?wait=false&allow_breaking=true", "{\"revision\": 1}"),
        ("pause", "POST", "feature-views/items/pause?wait=false", ""),
        ("resume", "POST", "feature-views/items/resume?wait=false", ""),
        ("delete", "DELETE", "feature-views/items/features/sold_7d?wait=false", ""),
    ];
    for ((kind, method, path, body), revision) in changes.into_iter().zip(3..) {
        let answer = send(method, path, body);
        assert_eq!(answer.status, 202, "{kind}: {}", answer.body);
        let job = ended(&server, &answer.body["job"]);
        assert_eq!((&job["kind"], &job["result"]["revision"]), (&json!(kind), &json!(revision)), "{job}");
    }
    let rebuilt = send("POST", "jobs?wait=false", "{\"kind\": \"rebuild\", \"view\": \"items\"}");
    assert_eq!(rebuilt.status, 202, "{}", rebuilt.body);
    assert_eq!(ended(&server, &rebuilt.body["id"])["state"], "done");
    for (query, said) in
        [("?wait=true", "a job is started and not waited for"), ("?wiat=false", "`wiat` means nothing here")]
    {
        let refused = send("POST", &format!("jobs{query}"), "{\"kind\": \"verify\"}");
        assert_eq!(refused.status, 422);
        assert!(refused.body["detail"].as_str().unwrap().contains(said), "{}", refused.body);
    }
}
