//! Views that stand still and go on, features that begin now, files that lie elsewhere, state that is let go, and applies
//! that somebody watches or gives up.

use crate::batch::world::World;
use crate::command_line::says;
use crate::modules::{ecommerce, sessions, trails};
use crate::reference::{Row, format_time_us, ordered_project};
use crate::serve::{Server, Told};
use crate::stream::Bench;
use onefold::batch::BatchSettings;
use onefold::clock::ManualClock;
use onefold::define::{read_directory, read_text};
use onefold::platform::{
    BatchError, BatchRequest, MaterializeRequest, Platform, PlatformError, PlatformSettings, Progress,
};
use onefold::registry::ApplyOptions;
use onefold::storage::LocalStorage;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const PROJECT: &str = "/v1/projects/shop";
const NOW_US: i64 = 1_767_355_200_000_000;

/// Two views of one table.
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
  sold_of_late: { udf: std.sum, inputs: [count], window: 1h }
---
kind: feature_view
name: others
source: orders
entities: [item]
features:
  n: { udf: std.count }
";

fn view(name: &str, feature: &str) -> String {
    format!("kind: feature_view\nname: {name}\nsource: orders\nentities: [item]\nfeatures: {{ {feature} }}")
}

/// A server over a directory, which another one can be started over.
fn server(directory: &Path, now_us: i64) -> Server {
    let clock = Arc::new(ManualClock::at(now_us));
    let storage = Arc::new(LocalStorage::open(directory).unwrap());
    let settings = PlatformSettings { threads: 1, idle_us: i64::MAX, ..PlatformSettings::default() };
    Server::over(Platform::open(settings, storage, clock.clone()).unwrap(), clock)
}

fn put(server: &Server, text: &str, query: &str) -> Told {
    let yaml = &[("content-type", "application/yaml")];
    server.send("PUT", &format!("{PROJECT}/definitions{query}"), yaml, text.as_bytes())
}

fn put_ok(server: &Server, text: &str, query: &str) -> Value {
    let told = put(server, text, query);
    assert!((200..300).contains(&told.status), "{}", told.body);
    told.body
}

fn post(server: &Server, path: &str, headers: &[(&str, &str)]) -> Told {
    server.send("POST", &format!("{PROJECT}/{path}"), headers, b"")
}

fn event(item: &str, count: i64, second: i64) -> String {
    json!({ "at": format_time_us(NOW_US - 3_000_000_000 + second * 1_000_000), "item": item, "count": count })
        .to_string()
}

fn push(server: &Server, events: &[String]) {
    let path = format!("{PROJECT}/sources/orders/events?wait=served");
    let told = server.send("POST", &path, &[("content-type", "application/x-ndjson")], events.join("\n").as_bytes());
    assert_eq!((told.status, &told.body["served"]), (202, &json!(true)), "{}", told.body);
}

/// A feature of item `a`, with its status.
fn value(server: &Server, view: &str, feature: &str) -> (Value, String) {
    let told = server.get(&format!("{PROJECT}/feature-views/{view}/values?item=a")).body;
    let found = &told["features"][feature];
    (found["value"].clone(), found["status"].as_str().unwrap_or_default().to_owned())
}

fn present(value: i64) -> (Value, String) {
    (json!(value), "PRESENT".to_owned())
}

/// Runs a job to its end.
fn job(server: &Server, body: &Value) -> Value {
    let json = &[("content-type", "application/json")];
    let told = server.send("POST", &format!("{PROJECT}/jobs"), json, body.to_string().as_bytes());
    watch(server, told.body["id"].as_str().unwrap_or_else(|| panic!("{}", told.body)))
}

fn watch(server: &Server, id: &str) -> Value {
    for _ in 0..6000 {
        let job = server.get(&format!("{PROJECT}/jobs/{id}")).body;
        if job["state"] != "running" && job["state"] != "cancelling" {
            return job;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("job {id} does not end")
}

fn verified(server: &Server, compared: u64) {
    let result = job(server, &json!({ "kind": "verify" }))["result"].clone();
    let found = ["compared", "differ", "unreadable"].map(|member| result[member].as_u64());
    assert_eq!(found, [Some(compared), Some(0), Some(0)], "{result}");
}

#[test]
fn a_paused_view_stands_still_over_a_restart_and_lacks_nothing_when_it_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let shop = server(directory.path(), NOW_US);
    put_ok(&shop, SHOP, "");
    push(&shop, &[event("a", 2, 0), event("b", 1, 1)]);
    assert_eq!(post(&shop, "feature-views/items/pause", &[("if-match", "7")]).status, 409);
    let told = post(&shop, "feature-views/items/pause?dry_run=true", &[]);
    assert_eq!(told.body["changes"][0]["change"], "pause", "{}", told.body);
    let told = post(&shop, "feature-views/items/pause", &[("if-match", "1")]);
    assert_eq!((told.status, &told.body["revision"]), (200, &json!(2)), "{}", told.body);
    let again = post(&shop, "feature-views/items/pause", &[]);
    assert_eq!(again.status, 409);
    assert!(again.body["detail"].as_str().unwrap().contains("paused since revision 2"), "{}", again.body);

    // Neither rows nor time move it, and its neighbour in the same table goes on.
    push(&shop, &[event("a", 5, 2), event("c", 1, 2900)]);
    assert_eq!((value(&shop, "items", "sold"), value(&shop, "others", "n")), (present(2), present(2)));
    assert_eq!(value(&shop, "items", "sold_of_late"), present(2));
    let standing = &shop.get(&format!("{PROJECT}/status")).body["views"]["items"]["paused"];
    assert_eq!((&standing["revision"], &standing["position"]), (&json!(2), &json!(2)), "{standing}");
    assert_eq!(shop.get(&format!("{PROJECT}/status")).body["views"]["others"]["paused"], Value::Null);
    // Two items of two features, three of one.
    verified(&shop, 7);
    let why = shop.get(&format!("{PROJECT}/explain?view=items&feature=sold&item=a")).body;
    assert_eq!((&why["served"]["same"], &why["rows_total"]), (&json!(true), &json!(1)), "{why}");

    // What would need rows that it does not read is refused; all else goes on.
    let changed = SHOP.replace("sold: { udf: std.sum", "sold: { udf: std.max");
    let refused = put(&shop, &changed, "");
    assert_eq!(refused.status, 422);
    assert!(refused.body["detail"].as_str().unwrap().contains("`onefold resume items` first"), "{}", refused.body);
    let rebuilt = job(&shop, &json!({ "kind": "rebuild", "view": "items" }));
    assert!(rebuilt["error"]["detail"].as_str().unwrap().contains("is paused"), "{rebuilt}");
    put_ok(&shop, &view("more", "most: { udf: std.max, inputs: [count] }"), "");
    assert_eq!((value(&shop, "items", "sold"), value(&shop, "more", "most")), (present(2), present(5)));

    drop(shop);
    let shop = server(directory.path(), NOW_US + 1);
    assert_eq!((value(&shop, "items", "sold"), value(&shop, "others", "n")), (present(2), present(2)));
    assert_eq!(value(&shop, "items", "sold_of_late"), present(2));
    push(&shop, &[event("a", 10, 3), event("d", 1, 3)]);
    verified(&shop, 4 + 4 + 4);
    // Going back brings definitions back, not what was paused.
    let json = &[("content-type", "application/json")];
    let told = shop.send("POST", &format!("{PROJECT}/rollback"), json, br#"{"revision": 1}"#);
    assert_eq!(told.status, 200, "{}", told.body);
    assert_eq!((value(&shop, "items", "sold"), value(&shop, "others", "n")), (present(2), present(3)));

    let told = post(&shop, "feature-views/items/resume", &[]);
    assert_eq!((told.status, &told.body["changes"][0]["change"]), (200, &json!("resume")), "{}", told.body);
    assert_eq!((value(&shop, "items", "sold"), value(&shop, "others", "n")), (present(17), present(3)));
    assert_eq!(shop.get(&format!("{PROJECT}/status")).body["views"]["items"]["paused"], Value::Null);
    verified(&shop, 12);
    push(&shop, &[event("a", 100, 4)]);
    assert_eq!((value(&shop, "items", "sold"), value(&shop, "others", "n")), (present(117), present(4)));
    let changes = shop.get(&format!("{PROJECT}/revisions")).body["revisions"].clone();
    let changes: Vec<_> = changes.as_array().unwrap().iter().map(|one| one["changes"][0]["change"].clone()).collect();
    assert_eq!(changes[0], "resume");
    assert_eq!(changes[changes.len() - 2], "pause");
    assert_eq!(post(&shop, "feature-views/items/resume", &[]).status, 409);
    assert_eq!(post(&shop, "feature-views/nobody/pause", &[]).status, 404);
}

/// Ordered features among them: what was settled when they were paused stays so, and waiting rows wait.
#[test]
fn random_views_stand_still_and_go_on_with_restarts_between() {
    let (mut stood_still, mut late) = (0, 0);
    for seed in 0..40 {
        let mut random = ordered_project(seed);
        let name = random.project.name.clone();
        let newest_us = random.rows.iter().map(|row| row.event_time_us).max().unwrap();
        let mut bench = Bench::in_memory(newest_us, 1 + (seed % 2) as usize);
        (bench.settings.idle_us, bench.settings.checkpoint_every_us) = (i64::MAX, i64::MAX);
        bench.restart();
        for (module, bytes) in [("ecommerce", ecommerce()), ("sessions", sessions()), ("trails", trails())] {
            bench.platform.push_module(&name, module, bytes).unwrap();
        }
        bench.apply(&name, &random.definitions);
        let views: Vec<String> = random.project.feature_views.keys().cloned().collect();
        let rows = random.rows.clone();
        for (number, rows) in rows.chunks(9).enumerate() {
            let events: Vec<String> = rows.iter().map(Row::to_event).collect();
            bench.push_texts(&name, "events", &events, 4);
            if random.chance.below(3) == 0 {
                bench.clock.advance(1);
                bench.restart();
            }
            let view = &views[random.chance.below(views.len())];
            let host = bench.platform.project(&name).unwrap();
            let is_paused = host.live().unwrap().revision.project.feature_views[view].paused.is_some();
            if random.chance.below(2) == 0 || (is_paused && number > 0 && random.chance.below(2) == 0) {
                bench.clock.advance(1);
                let proposal = bench.platform.plan_pause(&name, view, !is_paused, &ApplyOptions::default()).unwrap();
                bench.platform.apply(&name, &proposal).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
                stood_still += u32::from(is_paused);
            }
        }
        let host = bench.platform.project(&name).unwrap();
        let temporary = tempfile::tempdir().unwrap();
        for going_on in [false, true] {
            for view in views.iter().filter(|_| going_on) {
                if host.live().unwrap().revision.project.feature_views[view].paused.is_some() {
                    let proposal = bench.platform.plan_pause(&name, view, false, &ApplyOptions::default()).unwrap();
                    bench.platform.apply(&name, &proposal).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
                }
            }
            let verified = host.verify(&[], &BatchSettings::new(temporary.path()), Arc::new(|_| ())).unwrap();
            assert!(verified.is_equal() && verified.compared > 0, "seed {seed}, {going_on}: {verified:?}");
        }
        late += host.status().stream.dead_letters.get("late").copied().unwrap_or(0);
    }
    println!("{stood_still} views went on again, {late} rows were late");
    assert!(stood_still > 20 && late > 20, "{stood_still} {late}");
}

/// What goes on from where it was paused has one position, what is built beside it another: both are built whole then.
#[test]
fn a_view_goes_on_beside_what_is_built_anew() {
    let directory = tempfile::tempdir().unwrap();
    let shop = server(directory.path(), NOW_US);
    let brief = "sold_of_late: { udf: std.sum, inputs: [count], window: 1h }";
    let brief = view("brief", brief).replace("entities:", "ttl: 1h\nentities:");
    let only = SHOP.split("---\nkind: feature_view").next().unwrap();
    put_ok(
        &shop,
        &format!("{only}---\n{}\n---\n{brief}", view("items", "sold: { udf: std.sum, inputs: [count] }")),
        "",
    );
    push(&shop, &[event("a", 2, 0), event("b", 1, 1)]);
    shop.clock.advance(1_000_000);
    let more = view("items", "sold: { udf: std.sum, inputs: [count] }, since: { udf: std.count }");
    put_ok(&shop, &more, "?from=now");
    push(&shop, &[event("a", 5, 2)]);
    let both = |server: &Server| (value(server, "items", "sold"), value(server, "items", "since"));
    assert_eq!(both(&shop), (present(7), present(1)));
    assert_eq!(post(&shop, "feature-views/items/pause", &[]).status, 200);
    // Nothing but `brief` holds the table now, so `a` is dropped from it an hour after its newest row.
    push(&shop, &[event("a", 10, 3), event("z", 1, 6_000)]);
    assert_ne!(value(&shop, "brief", "sold_of_late").1, "PRESENT");
    assert_eq!(both(&shop), (present(7), present(1)));
    let told = post(&shop, "feature-views/items/resume", &[]);
    assert_eq!(told.status, 200, "{}", told.body);
    assert_eq!(both(&shop), (present(17), present(2)));
    push(&shop, &[event("a", 100, 4)]);
    assert_eq!(both(&shop), (present(117), present(3)));
    let compared = job(&shop, &json!({ "kind": "verify" }))["result"].clone();
    assert_eq!((&compared["differ"], &compared["unreadable"]), (&json!(0), &json!(0)), "{compared}");
    // Items a, b and z of what has the history, a and z of what began later.
    assert!(compared["compared"].as_u64() >= Some(5), "{compared}");
}

#[test]
fn a_feature_that_begins_now_says_so_and_is_what_it_says() {
    let directory = tempfile::tempdir().unwrap();
    let shop = server(directory.path(), NOW_US);
    put_ok(&shop, SHOP, "");
    push(&shop, &[event("a", 2, 0), event("b", 1, 1)]);
    let fresh =
        view("fresh", "sold_since: { udf: std.sum, inputs: [count], where: { column: count, op: gt, value: 0 } }");
    shop.clock.advance(1_000_000);
    assert_eq!(put(&shop, &fresh, "?from=yesterday").status, 422);
    put_ok(&shop, &fresh, "?from=now");
    assert_eq!(value(&shop, "fresh", "sold_since"), (Value::Null, "NOT_FOUND".to_owned()));
    assert_eq!(value(&shop, "items", "sold"), present(2));
    let since = |shop: &Server, view: &str, feature: &str| {
        shop.get(&format!("{PROJECT}/status")).body["views"][view]["complete_since"][feature].clone()
    };
    assert_eq!(since(&shop, "fresh", "sold_since"), "2026-01-02T12:00:01.000000Z");
    push(&shop, &[event("a", 5, 2)]);
    assert_eq!((value(&shop, "fresh", "sold_since"), value(&shop, "items", "sold")), (present(5), present(7)));
    verified(&shop, 2 * 3 + 1);
    drop(shop);
    let shop = server(directory.path(), NOW_US + 2_000_000);
    push(&shop, &[event("a", 10, 3)]);
    assert_eq!(value(&shop, "fresh", "sold_since"), present(15));
    assert_eq!(since(&shop, "fresh", "sold_since"), "2026-01-02T12:00:01.000000Z");
    // What is applied again stays what it is; what is paused meanwhile too.
    assert_eq!(put_ok(&shop, &fresh, "")["changes"], json!([]));
    post(&shop, "feature-views/fresh/pause", &[]);
    push(&shop, &[event("b", 3, 4)]);
    verified(&shop, 2 * 3 + 1);
    post(&shop, "feature-views/fresh/resume", &[]);
    verified(&shop, 2 * 3 + 2);
    // A rebuild gives it the history that it did without.
    assert_eq!(job(&shop, &json!({ "kind": "rebuild", "view": "fresh" }))["state"], "done");
    assert_eq!(value(&shop, "fresh", "sold_since"), present(17));
    assert_ne!(since(&shop, "fresh", "sold_since"), "2026-01-02T12:00:01.000000Z");
    verified(&shop, 2 * 4);
}

/// Guards: what a revision retired was folded on until the next apply or start, however long that took.
#[test]
fn what_was_retired_is_let_go_by_time() {
    let tables = |server: &Server| {
        let status = server.get(&format!("{PROJECT}/status")).body;
        status["tables"].as_array().unwrap().iter().map(|table| table["table"].to_string()).collect::<Vec<_>>()
    };
    let let_go = |server: &Server, what: &str| {
        let gone = (0..1000).any(|_| {
            std::thread::sleep(Duration::from_millis(10));
            !tables(server).contains(&"\"retired\"".to_owned())
        });
        assert!(gone, "{what}: {:?}", tables(server));
    };
    let own_table = "---\nkind: entity\nname: number\njoin_keys: { count: int64 }\n---\nkind: feature_view\nname: counts\n\
                     source: orders\nentities: [number]\nfeatures: { n: { udf: std.count } }\n";
    let wider = format!("{SHOP}{own_table}");
    let directory = tempfile::tempdir().unwrap();
    let shop = server(directory.path(), NOW_US);
    put_ok(&shop, &wider, "");
    push(&shop, &[event("a", 2, 0)]);
    put_ok(&shop, SHOP, "?prune=true");
    shop.clock.advance(3_590_000_000);
    std::thread::sleep(Duration::from_millis(1200));
    assert!(tables(&shop).contains(&"\"retired\"".to_owned()), "{:?}", tables(&shop));
    shop.clock.advance(20_000_000);
    let_go(&shop, "after an hour");
    push(&shop, &[event("a", 3, 1)]);
    assert_eq!(value(&shop, "items", "sold"), present(5));
    // It was folded on no more, so it is folded from the log, when it is back; and gone at once where that is said.
    put_ok(&shop, &wider, "");
    verified(&shop, 3 + 2);
    let at_once = SHOP.replace("name: shop\n", "name: shop\nkeep_revisions: 0s\n");
    let plan = put_ok(&shop, &at_once, "?prune=true");
    assert_eq!((&plan["changes"][0]["kind"], &plan["changes"][0]["name"]), (&json!("project"), &json!("shop")));
    shop.clock.advance(1);
    let_go(&shop, "with keep_revisions: 0s");
    verified(&shop, 3);
    let refused = put(&shop, &SHOP.replace("name: shop\n", "name: shop\nkeep_revisions: -1h\n"), "");
    assert_eq!(refused.status, 422);
    assert!(refused.body["detail"].as_str().unwrap().contains("`-1h` is negative"), "{}", refused.body);
}

#[test]
fn an_apply_can_be_watched_and_given_up_and_begun_again() {
    let directory = tempfile::tempdir().unwrap();
    let shop = server(directory.path(), NOW_US);
    put_ok(&shop, SHOP, "");
    push(&shop, &[event("a", 2, 0)]);
    let more = view("more", "most: { udf: std.max, inputs: [count] }");
    let told = put(&shop, &more, "?wait=false");
    assert_eq!((told.status, &told.body["revision"]), (202, &json!(2)), "{}", told.body);
    let done = watch(&shop, told.body["job"].as_str().unwrap());
    assert_eq!(
        (&done["kind"], &done["state"], &done["result"]["revision"]),
        (&json!("apply"), &json!("done"), &json!(2))
    );
    assert!(done["result"]["cut_over_pause_us"].is_u64(), "{done}");
    assert!(done["progress"]["rows"].as_u64() > Some(0), "{done}");
    let metrics = shop.get("/metrics").body;
    assert!(
        metrics.as_str().unwrap().contains("onefold_cut_over_pause_seconds_count{project=\"shop\"} 1"),
        "{metrics}"
    );
    assert_eq!(value(&shop, "more", "most"), present(2));

    // Also one that only folds on from the log.
    post(&shop, "feature-views/items/pause", &[]);
    for part in 0..10 {
        let events: Vec<String> = (0..20_000).map(|number| event("a", 1, 1 + part * 100 + number % 100)).collect();
        push(&shop, &events);
    }
    let another = view("another", "least: { udf: std.min, inputs: [count] }");
    let built = put(&shop, &another, "?wait=false").body["job"].as_str().unwrap().to_owned();
    assert_eq!(shop.send("DELETE", &format!("{PROJECT}/jobs/{built}"), &[], b"").status, 202);
    assert_eq!(watch(&shop, &built)["state"], "cancelled");
    let resumed = post(&shop, "feature-views/items/resume?wait=false", &[]).body["job"].as_str().unwrap().to_owned();
    assert_eq!(shop.send("DELETE", &format!("{PROJECT}/jobs/{resumed}"), &[], b"").status, 202);
    assert_eq!(watch(&shop, &resumed)["state"], "cancelled");
    assert_eq!(shop.get(&format!("{PROJECT}/revisions")).body["revisions"][0]["revision"], 3);
    assert_eq!((value(&shop, "items", "sold"), value(&shop, "others", "n")), (present(2), present(200_001)));
    assert_eq!(post(&shop, "feature-views/items/resume", &[]).status, 200);
    put_ok(&shop, &another, "");
    assert_eq!((value(&shop, "items", "sold"), value(&shop, "another", "least")), (present(200_002), present(1)));
    verified(&shop, 5);
}

/// Guards: a build that had come to its last stretch, and only folded on, heard nothing of a cancellation.
#[test]
fn folding_on_is_given_up_between_two_batches() {
    let bench = Bench::in_memory(NOW_US, 1);
    bench.apply("shop", SHOP);
    let pause = |paused| bench.platform.plan_pause("shop", "items", paused, &ApplyOptions::default()).unwrap();
    bench.push_texts("shop", "orders", &[event("a", 2, 0)], 1);
    bench.platform.apply("shop", &pause(true)).unwrap();
    let events: Vec<String> = (0..150_000).map(|number| event("a", 1, 1 + number % 1000)).collect();
    bench.push_texts("shop", "orders", &events, 50_000);
    let cancelled = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let progress = {
        let cancelled = cancelled.clone();
        // Whoever looks again has more to say than this.
        move |progress: Progress| {
            assert!(!cancelled.swap(true, std::sync::atomic::Ordering::SeqCst), "{progress:?} after the end");
        }
    };
    let given_up = bench.platform.apply_watched("shop", &pause(false), Arc::new(progress), cancelled.clone());
    assert!(matches!(given_up, Err(PlatformError::Batch(BatchError::Cancelled))), "{:?}", given_up.map(|_| ()));
    bench.platform.apply("shop", &pause(false)).unwrap();
}

#[test]
fn files_that_only_lie_elsewhere_keep_the_state_and_others_make_it_anew() {
    let world = World::apply(&SHOP.replace("name: shop\n", "name: test\n"));
    let (before, after, other) = (world.path("before"), world.path("after"), world.path("other"));
    for directory in [&before, &after, &other] {
        std::fs::create_dir(directory).unwrap();
    }
    world.write_parquet("orders", &before.join("rows.parquet"), &[event("a", 2, 0), event("b", 3, 1)], 10);
    world.write_parquet(
        "orders",
        &other.join("rows.parquet"),
        &[event("a", 50, 0), event("c", 3, 1), event("c", 1, 1)],
        10,
    );
    let bench = Bench::in_memory(NOW_US, 1);
    let with_files = |path: &Path| {
        SHOP.replace("event_time: at", &format!("batch: {{ parquet: {{ path: {} }} }}\nevent_time: at", path.display()))
    };
    let written = |text: &str| {
        std::fs::write(world.path("all.yaml"), text).unwrap();
        read_directory(&world.path("all.yaml")).unwrap()
    };
    let plan = |text: &str, options: &ApplyOptions| bench.platform.plan("shop", &written(text), options);
    let first = plan(&with_files(&before), &ApplyOptions::default()).unwrap();
    bench.platform.apply("shop", &first).unwrap();
    let host = bench.platform.project("shop").unwrap();
    let temporary = tempfile::tempdir().unwrap();
    let batch =
        || BatchRequest { settings: BatchSettings::new(temporary.path()), progress: Arc::new(|_: Progress| ()) };
    host.materialize(&MaterializeRequest::default(), &batch()).unwrap_or_else(|error| panic!("{error}"));
    bench.push_texts("shop", "orders", &[event("a", 5, 2)], 1);
    let apply = |path: &Path, same_rows: bool| {
        let options = ApplyOptions { same_rows, ..ApplyOptions::default() };
        let proposal = plan(&with_files(path), &options)?;
        let said = proposal.plan.to_string();
        bench.platform.apply("shop", &proposal).map(|_| said)
    };
    let verified = || {
        let verified = host.verify(&[], &batch().settings, Arc::new(|_| ())).unwrap();
        assert!(verified.is_equal(), "{verified:?}");
        verified.compared
    };
    assert_eq!(verified(), 6);
    let Err(PlatformError::Invalid(refused)) = apply(&other, true) else { panic!("other rows are not the same") };
    assert!(refused.contains("`rows.parquet` with") && refused.contains("is not there"), "{refused}");
    assert_eq!(verified(), 6);

    std::fs::rename(before.join("rows.parquet"), after.join("rows.parquet")).unwrap();
    // What was planned is looked at again when it is applied.
    let whole = std::fs::read(after.join("rows.parquet")).unwrap();
    let planned = plan(&with_files(&after), &ApplyOptions { same_rows: true, ..ApplyOptions::default() }).unwrap();
    std::fs::copy(other.join("rows.parquet"), after.join("rows.parquet")).unwrap();
    let refused = bench.platform.apply("shop", &planned).map(|_| ()).unwrap_err().to_string();
    assert!(refused.contains("is not there"), "{refused}");
    std::fs::write(after.join("rows.parquet"), whole).unwrap();
    let said = apply(&after, true).unwrap_or_else(|error| panic!("{error}"));
    assert!(said.contains("hold the same rows; state is kept"), "{said}");
    // The old place is empty, and what is kept says that it is made of the new one.
    assert_eq!(verified(), 6);
    bench.push_texts("shop", "orders", &[event("c", 5, 3)], 1);
    assert_eq!(verified(), 9);

    let said = apply(&other, false).unwrap_or_else(|error| panic!("{error}"));
    assert!(said.contains("the state of its 2 views is built anew") && said.contains("reads 5 rows"), "{said}");
    assert_eq!(verified(), 6, "a and c of two views");
    let options = ApplyOptions { from_now: true, ..ApplyOptions::default() };
    let pushless = with_files(&other).replace("stream: { push: {} }\n", "").replace("name: orders", "name: filed");
    let pushless = pushless.replace("source: orders", "source: filed").replace("name: items", "name: filed_items");
    let pushless = pushless.replace("name: others", "name: filed_others");
    let refused = plan(&pushless, &options).map(|_| ()).unwrap_err().to_string();
    assert!(refused.contains("source `filed` takes no pushes"), "{refused}");
}

#[test]
fn commands_pause_resume_and_apply_as_they_are_told() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let says = |arguments: &[&str], code: i32, parts: &[&str]| says(at, arguments, code, parts).out;
    std::fs::write(at.join("all.yaml"), SHOP).unwrap();
    says(&["apply", "all.yaml", "--wait"], 0, &["revision 1:"]);
    says(&["apply", "all.yaml", "--detach"], 2, &["leave --detach out"]);
    std::fs::write(at.join("events"), event("a", 2, 0)).unwrap();
    says(&["push", "orders", "events"], 0, &["1 accepted"]);
    says(&["pause", "items"], 0, &["= feature view items (paused: its values stay as they are)"]);
    says(&["pause", "items"], 1, &["paused since revision 2"]);
    says(&["push", "orders", "events"], 0, &["1 accepted"]);
    let sold =
        |expected: &str| says(&["lookup", "items.sold", "item=a", "--json"], 0, &[&format!("\"values\":[{expected}]")]);
    sold("2");
    says(&["status", "--json"], 0, &["\"paused\":{"]);
    says(&["verify"], 0, &[]);
    says(&["resume", "items", "--dry-run"], 0, &["* feature view items (resumed"]);
    sold("2");
    says(&["resume", "items"], 0, &["* feature view items"]);
    sold("4");
    says(&["revisions"], 0, &["3 (live)", "* items", "= items"]);
    std::fs::write(
        at.join("more.yaml"),
        format!("kind: project\nname: shop\n---\n{}", view("more", "n: { udf: std.count, inputs: [item] }")),
    )
    .unwrap();
    says(&["apply", "more.yaml", "--from", "tomorrow"], 2, &["now"]);
    says(&["apply", "more.yaml", "--from", "now", "--same-rows"], 0, &["revision 4:"]);
    says(&["lookup", "more.n", "item=a"], 0, &["NOT_FOUND"]);
    says(&["verify"], 0, &[]);
}

/// Guards: an hour of changes had every row folded for all that had ever been live in it.
#[test]
fn however_many_changes_an_hour_has_few_revisions_are_folded_on() {
    let bench = Bench::in_memory(NOW_US, 1);
    for number in 0..25 {
        let own = format!(
            "{SHOP}---\nkind: feature_view\nname: view_{number}\nsource: orders\nentities: [item]\nttl: {}h\n\
             features: {{ n: {{ udf: std.count, where: {{ column: count, op: gt, value: {number} }} }} }}\n",
            number + 1
        );
        for text in [own.as_str(), SHOP] {
            let options = ApplyOptions { prune: true, ..ApplyOptions::default() };
            let definitions = read_text("all", text).unwrap();
            let proposal = bench.platform.plan("shop", &definitions, &options).unwrap();
            bench.platform.apply("shop", &proposal).unwrap();
        }
    }
    let live = bench.platform.project("shop").unwrap().live().unwrap();
    assert_eq!(live.revision.number, 50);
    let folded: usize = live.compiled.layout.tables.iter().map(|table| table.features.len()).sum();
    // Three that are read, and one of every second revision.
    assert!((3 + 10..=3 + 17).contains(&folded), "{folded}");
}
