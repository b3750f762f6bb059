//! The life of definitions over HTTP and by commands: renamed, left out, pruned, removed, rolled back, two at once, while
//! events come in and lookups are answered.

use crate::command_line::{Ran, says};
use crate::modules::guest;
use crate::serve::{Server, Told};
use serde_json::{Value, json};
use std::time::Duration;

const PROJECT: &str = "/v1/projects/shop";
const YAML: &[(&str, &str)] = &[("content-type", "application/yaml")];
const JSON: &[(&str, &str)] = &[("content-type", "application/json")];
const NDJSON: &[(&str, &str)] = &[("content-type", "application/x-ndjson")];

const SHOP: &str = "
kind: source
name: orders
stream: { push: {} }
event_time: at
schema: { at: timestamp, item: utf8, count: int64, price: float64 }
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
  sold_of_late: { udf: std.sum, inputs: [count], windows: [1d, 30d] }
  last_price: { udf: std.last, inputs: [price] }
---
kind: on_demand_feature_view
name: asked
request: { price: float64 }
features:
  best_price: { udf: std.coalesce, inputs: [request.price, items.last_price] }
---
kind: feature_service
name: model
features: [items, asked]
";

/// The same under other names.
const RENAMED: &str = "
kind: source
name: purchases
renamed_from: orders
stream: { push: {} }
event_time: at
schema: { at: timestamp, item: utf8, count: int64, price: float64 }
---
kind: entity
name: thing
renamed_from: item
join_keys: { item: utf8 }
---
kind: feature_view
name: things
renamed_from: items
source: purchases
entities: [thing]
features:
  bought: { udf: std.sum, inputs: [count], renamed_from: sold }
  lately: { udf: std.sum, inputs: [count], windows: [1d, 30d], renamed_from: sold_of_late }
  price: { udf: std.last, inputs: [price], renamed_from: last_price }
---
kind: on_demand_feature_view
name: wanted
renamed_from: asked
request: { price: float64 }
features:
  best: { udf: std.coalesce, inputs: [request.price, things.price], renamed_from: best_price }
---
kind: feature_service
name: big_model
renamed_from: model
features: [things, wanted]
";

fn put(server: &Server, text: &str, query: &str, headers: &[(&str, &str)]) -> Told {
    let headers = [YAML, headers].concat();
    server.send("PUT", &format!("{PROJECT}/definitions{query}"), &headers, text.as_bytes())
}

fn put_ok(server: &Server, text: &str, query: &str) -> Value {
    let told = put(server, text, query, &[]);
    assert_eq!(told.status, 200, "{}", told.body);
    told.body
}

fn push(server: &Server, source: &str, events: &[&str]) -> Value {
    let path = format!("{PROJECT}/sources/{source}/events?wait=served");
    let told = server.send("POST", &path, NDJSON, events.join("\n").as_bytes());
    assert_eq!(told.status, 202, "{}", told.body);
    told.body
}

fn event(item: &str, count: i64, price: f64) -> String {
    json!({ "at": "2026-01-02T10:00:00Z", "item": item, "count": count, "price": price }).to_string()
}

/// What a service gives for some items: columns without their names, in order.
fn columns(server: &Server, service: &str) -> Vec<Value> {
    let asked = json!({ "service": service, "entities": { "item": ["a", "b"] }, "request": { "price": [null, 3.5] } });
    let told = server.send("POST", &format!("{PROJECT}/features"), JSON, asked.to_string().as_bytes());
    assert_eq!(told.status, 200, "{}", told.body);
    let mut columns: Vec<Value> = told.body["columns"].as_object().unwrap().values().cloned().collect();
    columns.sort_by_key(|column| column["fingerprint"].to_string());
    columns
}

/// `verify` over everything: how many values were compared, none of which may differ.
fn verified(server: &Server) -> u64 {
    let told = server.send("POST", &format!("{PROJECT}/jobs"), JSON, br#"{"kind": "verify"}"#);
    let path = format!("{PROJECT}/jobs/{}", told.body["id"].as_str().unwrap_or_default());
    loop {
        let job = server.get(&path).body;
        if job["state"] == "running" {
            std::thread::sleep(Duration::from_millis(5));
            continue;
        }
        assert_eq!((&job["result"]["differ"], &job["result"]["unreadable"]), (&json!(0), &json!(0)), "{job}");
        return job["result"]["compared"].as_u64().unwrap_or(0);
    }
}

/// A checkpoint, so that what was refused is in its letters.
fn letters(server: &Server) -> Vec<Value> {
    for _ in 0..100 {
        server.clock.advance(6_000_000);
        let told = server.get(&format!("{PROJECT}/dead-letters")).body;
        let letters = told["dead_letters"].as_array().cloned().unwrap_or_default();
        if !letters.is_empty() {
            return letters;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Vec::new()
}

#[test]
fn renamed_things_keep_state_values_log_and_letters() {
    let server = Server::start();
    put_ok(&server, SHOP, "");
    push(&server, "orders", &[&event("a", 2, 1.5), &event("b", 3, 2.5), "{broken"]);
    let before = columns(&server, "model");
    let refused = letters(&server);
    assert_eq!((refused.len(), &refused[0]["source"]), (1, &json!("orders")));

    let plan = put_ok(&server, RENAMED, "?dry_run=true");
    let changes = plan["changes"].as_array().unwrap();
    assert_eq!(changes.len(), 10, "{plan}");
    assert!(changes.iter().all(|change| change["change"] == "rename" && change["cost"]["build"] == "none"), "{plan}");
    put_ok(&server, RENAMED, "");
    assert_eq!(columns(&server, "big_model"), before);
    let renamed = letters(&server);
    assert_eq!((&renamed[0]["id"], &renamed[0]["source"]), (&refused[0]["id"], &json!("purchases")));
    assert_eq!(renamed[0]["raw"], "{broken");

    // The log goes on where it stood; another source under the old name begins at nothing.
    assert_eq!(push(&server, "purchases", &[&event("a", 5, 9.0)])["position"], 4);
    let other = "kind: source\nname: orders\nstream: { push: {} }\nevent_time: at\nschema: { at: timestamp, item: utf8 }\n---\n\
                 kind: feature_view\nname: others\nsource: orders\nentities: [thing]\nfeatures: { n: { udf: std.count } }";
    put_ok(&server, other, "");
    assert_eq!(push(&server, "orders", &[&event("a", 5, 9.0)])["position"], 1);
    let values =
        |view: &str| server.get(&format!("{PROJECT}/feature-views/{view}/values?item=a")).body["features"].clone();
    assert_eq!(values("others")["n"]["value"], 1);
    assert_eq!(values("things")["bought"]["value"], 7);
    assert_eq!(values("things")["lately_30d"]["value"], 7);
    assert_eq!(server.get(&format!("{PROJECT}/feature-views/items/values?item=a")).status, 404);
    assert_eq!(verified(&server), 9, "two items of four features, and one");
    put_ok(&server, RENAMED, "");
    assert_eq!(values("things")["bought"]["value"], 7);
}

#[test]
fn nothing_goes_without_prune_and_then_only_what_the_set_made() {
    let server = Server::start();
    put_ok(&server, SHOP, "");
    let web = "kind: project\nname: shop\nset: web\n---\nkind: feature_view\nname: web_items\nsource: orders\n\
               entities: [item]\nfeatures: { n: { udf: std.count } }";
    put_ok(&server, web, "");
    push(&server, "orders", &[&event("a", 2, 1.5)]);

    let documents: Vec<&str> = SHOP.split("---").collect();
    let fewer = [documents[0], documents[1], &documents[2].replace("  last_price:", "  # last_price:")].join("---");
    let plan = put_ok(&server, &fewer, "");
    assert_eq!((&plan["revision"], &plan["changes"]), (&json!(2), &json!([])), "{plan}");
    let model = columns(&server, "model");
    let plan = put_ok(&server, &fewer, "?prune=true&dry_run=true");
    let gone: Vec<&Value> = plan["changes"].as_array().unwrap().iter().map(|change| &change["name"]).collect();
    assert_eq!(gone, ["items", "asked", "model"], "{plan}");
    assert_eq!(columns(&server, "model"), model, "a dry run changes nothing");
    put_ok(&server, &fewer, "?prune=true");
    for (path, status) in [
        ("feature-views/asked", 404),
        ("feature-services/model", 404),
        ("feature-views/items", 200),
        ("feature-views/web_items", 200),
    ] {
        assert_eq!(server.get(&format!("{PROJECT}/{path}")).status, status, "{path}");
    }
    // The other set stands on the first one's source.
    let told = put(&server, "kind: project\nname: shop", "?prune=true", &[]);
    assert_eq!(told.status, 409, "{}", told.body);
    assert!(told.body["detail"].as_str().unwrap().contains("its source `orders` is removed"), "{}", told.body);
    let claimed = put(&server, &web.replace("web_items", "items"), "", &[]);
    assert_eq!(claimed.status, 422);
    assert!(claimed.body["detail"].as_str().unwrap().contains("belongs to set `shop`, this is set `web`"));
}

#[test]
fn each_kind_is_removed_by_itself_and_what_it_breaks_is_refused_first() {
    let server = Server::start();
    put_ok(&server, SHOP, "");
    push(&server, "orders", &[&event("a", 2, 1.5)]);
    for (path, breaks) in [
        ("feature-views/asked", "feature service `model` loses `asked.best_price`"),
        ("feature-views/items/features/sold", "feature service `model` loses `items.sold`"),
        ("feature-views/items", "on demand feature view `asked` loses `best_price`"),
        ("entities/item", "feature view `items` loses all features, its entity `item` is removed"),
        ("sources/orders", "feature view `items` loses all features, its source `orders` is removed"),
    ] {
        let told = server.send("DELETE", &format!("{PROJECT}/{path}"), &[], b"");
        assert_eq!(told.status, 409, "{path}: {}", told.body);
        let said = told.body["breaks"].to_string();
        assert!(said.contains(breaks), "{path}: {said}");
        let plan = server.send("DELETE", &format!("{PROJECT}/{path}?dry_run=true"), &[], b"");
        assert_eq!((plan.status, &plan.body["revision"]), (200, &json!(2)), "{path}: {}", plan.body);
    }
    for (number, path) in [
        (2, "feature-services/model"),
        (3, "feature-views/asked"),
        (4, "feature-views/items/features/sold"),
        (5, "feature-views/items"),
        (6, "entities/item"),
        (7, "sources/orders"),
    ] {
        let told = server.send("DELETE", &format!("{PROJECT}/{path}"), &[], b"");
        assert_eq!((told.status, &told.body["revision"]), (200, &json!(number)), "{path}: {}", told.body);
        let gone = server.send("DELETE", &format!("{PROJECT}/{path}"), &[], b"");
        assert_eq!(gone.status, 404, "{path}: {}", gone.body);
    }
    // What comes back finds the events that it had.
    put_ok(&server, SHOP, "");
    assert_eq!(
        server.get(&format!("{PROJECT}/feature-views/items/values?item=a")).body["features"]["sold"]["value"],
        2
    );
    assert_eq!(verified(&server), 4);
}

#[test]
fn a_rollback_brings_back_what_was_and_nobody_is_overtaken_unseen() {
    let server = Server::start();
    put_ok(&server, SHOP, "");
    push(&server, "orders", &[&event("a", 2, 1.5), &event("b", 3, 2.5)]);
    let before = columns(&server, "model");
    put_ok(
        &server,
        &SHOP.replace("inputs: [count] }", "inputs: [count], where: { column: count, op: gt, value: 2 } }"),
        "",
    );
    assert_ne!(columns(&server, "model"), before);
    push(&server, "orders", &[&event("a", 0, 1.5)]);

    let rollback = |body: &str, query: &str, headers: &[(&str, &str)]| {
        let headers = [JSON, headers].concat();
        server.send("POST", &format!("{PROJECT}/rollback{query}"), &headers, body.as_bytes())
    };
    let one = r#"{"revision": 1}"#;
    for (body, headers, status, said) in [
        (r#"{"revision": 9}"#, &[][..], 404, "has no revision 9"),
        (r#"{"to": 1}"#, &[], 422, "unknown field `to`"),
        (one, &[("if-match", "1")], 409, "revision 2 of project `shop` is live, not 1: plan again"),
    ] {
        let told = rollback(body, "", headers);
        assert_eq!(told.status, status, "{}", told.body);
        assert!(told.body["detail"].as_str().unwrap().contains(said), "{}", told.body);
    }
    let told = rollback(one, "?dry_run=true", &[]);
    assert_eq!((told.status, &told.body["changes"][0]["feature"]), (200, &json!("sold")), "{}", told.body);
    assert_eq!(told.body["changes"][0]["cost"]["build"], "none", "what was retired is folded on: {}", told.body);
    let told = rollback(one, "", &[("if-match", "\"2\"")]);
    assert_eq!((told.status, &told.body["revision"]), (200, &json!(3)), "{}", told.body);
    assert_eq!(columns(&server, "model"), before);
    assert_eq!(verified(&server), 8);

    let revisions = server.get(&format!("{PROJECT}/revisions")).body["revisions"].clone();
    let numbers: Vec<_> = revisions.as_array().unwrap().iter().map(|one| (&one["revision"], &one["live"])).collect();
    assert_eq!(numbers, [(&json!(3), &json!(true)), (&json!(2), &json!(false)), (&json!(1), &json!(false))]);
    assert_eq!(revisions[0]["rollback_to"], 1);
    assert_eq!(
        revisions[1]["changes"],
        json!([{ "kind": "feature_view", "name": "items", "change": "update", "feature": "sold" }])
    );

    // Whoever has seen an older revision is told, whatever is asked.
    for told in [
        put(&server, SHOP, "", &[("if-match", "2")]),
        server.send("DELETE", &format!("{PROJECT}/feature-services/model"), &[("if-match", "2")], b""),
    ] {
        assert_eq!(told.status, 409, "{}", told.body);
    }
}

/// Two that planned on the same revision: one is live, the other is told.
#[test]
fn of_two_applies_at_once_each_is_live_or_told() {
    let server = Server::start();
    put_ok(&server, SHOP, "");
    let answers: Vec<u16> = std::thread::scope(|scope| {
        let apply = |number: usize| {
            let entity = format!("kind: entity\nname: extra_{number}\njoin_keys: {{ item: utf8 }}");
            put(&server, &entity, "", &[("if-match", "1")]).status
        };
        let threads: Vec<_> = (0..4).map(|number| scope.spawn(move || apply(number))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let count = |status| answers.iter().filter(|answer| **answer == status).count();
    assert_eq!((count(200), count(409)), (1, 3), "{answers:?}");
    let entities = server.get(&format!("{PROJECT}/entities")).body["entities"].as_array().map(Vec::len);
    assert_eq!(entities, Some(2));
}

#[test]
fn a_plan_says_what_it_costs() {
    let server = Server::start();
    put_ok(&server, SHOP, "");
    let events: Vec<String> = (0..50).map(|number| event(&format!("i{number}"), number, 1.0)).collect();
    push(&server, "orders", &events.iter().map(String::as_str).collect::<Vec<_>>());
    let more = SHOP.replace("  last_price:", "  n: { udf: std.count }\n  last_price:");
    let plan = put_ok(&server, &more, "?dry_run=true");
    let cost = &plan["changes"][0]["cost"];
    assert_eq!((&cost["build"], &cost["history_rows"], &cost["entities"]), (&json!("column"), &json!(50), &json!(50)));
    assert!(cost["state_bytes"].as_u64().is_some_and(|bytes| (50 * 8..50 * 2000).contains(&bytes)), "{plan}");
    let narrower = SHOP.replace("item: utf8, count", "item: { type: utf8, stream: $.item, batch: thing }, count");
    let plan = put_ok(&server, &narrower, "?dry_run=true");
    let rebuilt = plan["changes"].as_array().unwrap().iter().find(|change| change["kind"] == "feature_view").unwrap();
    assert_eq!((&rebuilt["cost"]["build"], &rebuilt["cost"]["history_rows"]), (&json!("rebuild"), &json!(50)));
    assert!(plan["warnings"].to_string().contains("without a ttl the state of an entity is never dropped"));
}

/// Each command opens the data anew, so each is a restart.
#[test]
fn commands_rename_prune_and_roll_back_over_restarts() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let write = |name: &str, text: &str| {
        std::fs::create_dir_all(at.join(name)).unwrap();
        std::fs::write(at.join(name).join("all.yaml"), format!("kind: project\nname: shop\nset: {name}\n---{text}"))
            .unwrap();
    };
    let ok = |arguments: &[&str]| -> Ran { says(at, arguments, 0, &[]) };
    write("base", SHOP);
    write(
        "web",
        "\nkind: feature_view\nname: web_items\nsource: orders\nentities: [item]\nfeatures: { n: { udf: std.count } }",
    );
    ok(&["apply", "base"]);
    ok(&["apply", "web"]);
    std::fs::write(at.join("events"), [event("a", 2, 1.5), event("b", 3, 2.5)].join("\n")).unwrap();
    ok(&["push", "orders", "events"]);
    let before = ok(&["lookup", "items", "item=a", "--json"]).out;

    write("base", RENAMED);
    says(at, &["plan", "base", "--check"], 1, &["> source purchases (until now `orders`; state and values stay)"]);
    ok(&["apply", "base"]);
    let value = |text: &str, feature: &str| -> Value {
        let told: Value = serde_json::from_str(text).unwrap();
        told["columns"][feature]["values"][0].clone()
    };
    let after = ok(&["lookup", "things", "item=a", "--json"]).out;
    assert_eq!(
        (value(&before, "items__sold"), value(&after, "things__bought")),
        (json!(2), json!(2)),
        "{before}{after}"
    );
    ok(&["push", "purchases", "events"]);
    let after = ok(&["lookup", "things", "item=a", "--json"]).out;
    assert_eq!(value(&after, "things__bought"), json!(4));
    ok(&["verify"]);
    // The other directory still says `orders`, which is no more.
    says(at, &["plan", "web"], 2, &["all.yaml:7: no source `orders`: ", "`purchases`"]);
    says(at, &["plan", "base", "--check"], 0, &["nothing changes", "can go once that is so everywhere"]);

    says(at, &["delete", "feature-service", "big_model"], 0, &["- feature service big_model"]);
    says(at, &["delete", "view", "things"], 2, &["there is no kind `view`"]);
    says(at, &["delete", "feature", "things"], 2, &["write view.feature"]);
    says(at, &["delete", "feature-view", "things"], 1, &["use --allow-breaking"]);
    says(at, &["revisions"], 0, &["4 (live)", "- big_model", "> purchases (was orders)"]);
    says(at, &["rollback", "3", "--dry-run"], 0, &["+ feature service big_model"]);
    let back =
        ["> source orders (until now `purchases`", "    > items.sold (until now `bought`", "- feature view web_items"];
    says(at, &["rollback", "1"], 0, &back);
    let after = ok(&["lookup", "items", "item=a", "--json"]).out;
    assert_eq!(value(&after, "items__sold"), json!(4));
    ok(&["verify"]);
    says(at, &["revisions"], 0, &["5 (live)", "back to 1, > orders (was purchases)"]);
}

/// A lock of one directory, what follows it, what moves it, and what it does not agree with.
#[test]
fn a_lock_is_followed_moved_and_disagreed_with() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    std::fs::create_dir(at.join("shop")).unwrap();
    std::fs::write(at.join("shop/all.yaml"), format!("kind: project\nname: shop\n---{SHOP}")).unwrap();
    says(at, &["plan", "shop", "--locked"], 1, &["onefold.lock would change for `std`"]);
    says(at, &["apply", "shop", "--locked"], 1, &["onefold.lock would change for `std`"]);
    says(at, &["apply", "shop"], 0, &["revision 1:"]);
    says(at, &["plan", "shop", "--locked", "--check"], 0, &["nothing changes"]);
    let lock = at.join("shop/onefold.lock");
    let text = std::fs::read_to_string(&lock).unwrap();
    let digest = text.split("sha256:").nth(1).unwrap()[..64].to_owned();
    std::fs::write(&lock, text.replace(&digest, &"0".repeat(64))).unwrap();
    let (wanted, brought) = (format!("wants sha256:{}", "0".repeat(64)), format!("program brings sha256:{digest}"));
    says(at, &["plan", "shop"], 2, &[&wanted, &brought, "use --upgrade std"]);
    says(at, &["plan", "shop", "--upgrade", "std", "--locked"], 2, &["cannot be used with"]);
    says(at, &["apply", "shop", "--upgrade", "std"], 0, &["nothing changes"]);
    assert_eq!(std::fs::read_to_string(&lock).unwrap(), text);
    // Where nothing is registered yet it is the lock all the same that names what is not there.
    std::fs::write(&lock, text.replace(&digest, &"0".repeat(64))).unwrap();
    let anew =
        ["all.yaml:19: onefold.lock ", &wanted, &brought, "use --upgrade std", "the onefold that wrote the lock"];
    says(at, &["plan", "shop", "--data", "empty"], 2, &anew);
    says(at, &["plan", "shop", "--data", "empty", "--upgrade", "std"], 0, &["revision 1:"]);
    let other = "modules:\n  mine: { version: 3, digest: \"sha256:DIGEST\" }\n".replace("DIGEST", &"0".repeat(64));
    std::fs::write(&lock, other).unwrap();
    std::fs::write(
        at.join("shop/all.yaml"),
        format!("kind: project\nname: shop\n---{SHOP}").replace("sold: { udf: std.sum,", "sold: { udf: mine.sum,"),
    )
    .unwrap();
    let none = [
        wanted.as_str(),
        "of module `mine`",
        "the registry has no module of that name",
        "module push FILE --name mine",
    ];
    says(at, &["plan", "shop"], 2, &none);
    std::fs::write(at.join("mine.wasm"), guest("sum")).unwrap();
    says(at, &["module", "push", "mine.wasm", "--name", "mine"], 0, &[]);
    says(at, &["plan", "shop"], 2, &[&wanted, "the newest of 1 in the registry is sha256:", "use --upgrade mine"]);
    says(at, &["plan", "shop", "--upgrade", "mine"], 0, &["sold: mine.sum(count)"]);
    std::fs::write(&lock, "modules: 7").unwrap();
    says(at, &["plan", "shop"], 2, &["onefold.lock", "restore it from your version control"]);
}

/// One that nobody wants any more ends by itself, and the stream goes on.
#[test]
fn a_job_is_cancelled_between_two_batches() {
    let server = Server::start();
    put_ok(&server, SHOP, "");
    let events: Vec<String> = (0..100_000).map(|number| event(&format!("i{number}"), number, 1.0)).collect();
    push(&server, "orders", &events.iter().map(String::as_str).collect::<Vec<_>>());
    for body in [r#"{"kind": "verify"}"#, r#"{"kind": "rebuild", "view": "items"}"#] {
        let told = server.send("POST", &format!("{PROJECT}/jobs"), JSON, body.as_bytes());
        let path = format!("{PROJECT}/jobs/{}", told.body["id"].as_str().unwrap());
        let told = server.send("DELETE", &path, &[], b"");
        assert_eq!((told.status, &told.body["state"]), (202, &json!("cancelling")), "{}", told.body);
        let ended = || Some(server.get(&path).body).filter(|job| job["state"] != "cancelling");
        let job = (0..6000).find_map(|_| {
            std::thread::sleep(Duration::from_millis(5));
            ended()
        });
        assert_eq!(job.unwrap()["state"], "cancelled", "{body}");
        assert_eq!(server.send("DELETE", &path, &[], b"").status, 409);
    }
    assert_eq!(verified(&server), 400_000);
    push(&server, "orders", &[&event("a", 2, 1.5)]);
}

#[test]
fn commands_go_to_the_server_that_was_named() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let server = Server::start();
    let url = server.base();
    std::fs::write(at.join("all.yaml"), format!("kind: project\nname: shop\n---{SHOP}")).unwrap();
    says(at, &["apply", "all.yaml", "--server", url], 0, &["revision 1:"]);
    says(at, &["context", "add", "here", url], 0, &["onefold context use here"]);
    says(at, &["context", "add", "there", "http://10.0.0.1"], 2, &["only this machine can be reached yet"]);
    says(at, &["get", "sources", "--context", "here"], 0, &["orders"]);
    says(at, &["get", "sources"], 2, &["there is no project yet"]);
    says(at, &["context", "use", "here"], 0, &["commands go to here now"]);
    says(at, &["context", "list"], 0, &["here", url, "in use"]);
    std::fs::write(at.join("events"), event("a", 2, 1.5)).unwrap();
    says(at, &["push", "orders", "events"], 0, &["1 accepted"]);
    for command in [&["plan", "all.yaml", "--check"][..], &["lookup", "items", "item=a"], &["verify"], &["revisions"]] {
        says(at, command, 0, &[]);
    }
    says(at, &["jobs", "list"], 0, &["verify", "done"]);
    says(at, &["jobs", "watch", "1"], 0, &["\"compared\""]);
    says(at, &["jobs", "cancel", "1"], 1, &["has ended"]);
    says(at, &["materialize"], 2, &["there is nothing to materialize"]);
    // What was named here comes before what was chosen some other day.
    says(at, &["get", "sources", "--data", "data"], 2, &["there is no project yet"]);
    says(at, &["get", "sources", "--data", "data", "--server", url], 2, &["cannot be used with"]);
    says(at, &["context", "remove", "here"], 0, &["here is forgotten"]);
    says(at, &["get", "sources"], 2, &["there is no project yet"]);
}

/// By HTTP there is no lock: what is live keeps its versions until one is told to move.
#[test]
fn a_module_moves_where_it_is_told_to_by_http_and_by_lock() {
    let server = Server::start();
    let sum = "{ udf: mine.sum, inputs: [count] }";
    let text = SHOP.replace("{ udf: std.sum, inputs: [count] }", sum);
    let upload = |only: &str| {
        let headers = &[("content-type", "application/wasm")];
        let told = server.send("POST", &format!("{PROJECT}/modules?name=mine"), headers, &guest(only));
        assert_eq!(told.status, 201, "{}", told.body);
    };
    upload("sum");
    put_ok(&server, &text, "");
    upload("sum,errs_on_negative");
    assert_eq!(put_ok(&server, &text, "")["changes"], json!([]));
    assert_eq!(put_ok(&server, &text, "?upgrade=std")["changes"], json!([]));
    let moved = |plan: &Value| {
        let changes = plan["changes"].as_array().unwrap().iter();
        changes.map(|change| (change["name"].to_string(), change["feature"].to_string())).collect::<Vec<_>>()
    };
    let expected = [("\"mine\"", "null"), ("\"items\"", "\"sold\"")];
    let expected = expected.map(|(name, feature)| (name.to_owned(), feature.to_owned()));
    assert_eq!(moved(&put_ok(&server, &text, "?upgrade=mine&dry_run=true")), expected);
    assert_eq!(moved(&put_ok(&server, &text, "?upgrade=*&dry_run=true")), expected);
    let pinned = text.replace("mine.sum", "mine.sum@2");
    assert_eq!(moved(&put_ok(&server, &pinned, "?dry_run=true")), expected);
    let told = put(&server, &text, "?upgrade=mine&locked=true", &[]);
    assert_eq!(told.status, 409, "{}", told.body);
    put_ok(&server, &text, "?upgrade=mine");
    assert_eq!(server.send("DELETE", &format!("{PROJECT}/modules/mine/2"), &[], b"").status, 409);
    // An older revision's module that is gone is said before anything is done.
    assert_eq!(server.send("DELETE", &format!("{PROJECT}/modules/mine/1"), &[], b"").status, 204);
    let told = server.send("POST", &format!("{PROJECT}/rollback"), JSON, br#"{"revision": 1}"#);
    assert_eq!(told.status, 409);
    assert!(told.body["detail"].as_str().unwrap().contains("`mine@1`, which has been deleted"), "{}", told.body);
}
