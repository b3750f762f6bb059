//! The interface over real sockets: a server over a directory of its own, asked as anyone would ask it.

use onefold::clock::ManualClock;
use onefold::define::{Lock, definition_files};
use onefold::platform::{Platform, PlatformSettings};
use onefold::serve::{self, App, DIRECTORY_TYPE, Directory, ServeSettings};
use onefold::storage::LocalStorage;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// 2026-01-02T12:00:00Z.
const NOW_US: i64 = 1_767_355_200_000_000;
const DAY_US: u64 = 86_400_000_000;
const NDJSON: &str = "application/x-ndjson";
const JSON: &str = "application/json";

pub struct Server {
    base: String,
    pub clock: Arc<ManualClock>,
    platform: Arc<Platform>,
    agent: ureq::Agent,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
    _directory: Option<tempfile::TempDir>,
}

pub struct Told {
    pub status: u16,
    media_type: String,
    pub body: Value,
}

impl Server {
    pub fn start() -> Server {
        let directory = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(NOW_US));
        let storage = Arc::new(LocalStorage::open(directory.path()).unwrap());
        let settings = PlatformSettings { threads: 1, ..PlatformSettings::default() };
        let platform = Platform::open(settings, storage, clock.clone()).unwrap();
        let mut server = Server::over(platform, clock);
        server._directory = Some(directory);
        server
    }

    /// A server of this platform, which it closes.
    pub fn over(platform: Arc<Platform>, clock: Arc<ManualClock>) -> Server {
        let app = App::new(platform.clone(), clock.clone(), ServeSettings { request_entities: 3, read_only: false });
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let (address, listening) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                address.send(listener.local_addr().unwrap()).unwrap();
                let shutdown = async { stopped.await.unwrap_or_default() };
                serve::run(listener, app, shutdown).await.unwrap();
            });
        });
        let base = format!("http://{}", listening.recv().unwrap());
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .timeout_global(Some(Duration::from_secs(60)))
            .build()
            .new_agent();
        let (stop, thread) = (Some(stop), Some(thread));
        Server { base, clock, platform, agent, stop, thread, _directory: None }
    }

    /// A server with the example applied.
    fn with_example() -> Server {
        let server = Server::start();
        let told = server.put_example("");
        assert_eq!(told.status, 200, "{}", told.body);
        server
    }

    fn put_example(&self, query: &str) -> Told {
        crate::modules::ecommerce();
        let files = definition_files(&crate::modules::root().join("examples/ecommerce/definitions")).unwrap();
        let body = serde_json::to_vec(&Directory { files, lock: Lock::default(), embedded: false }).unwrap();
        self.send(
            "PUT",
            &format!("/v1/projects/ecommerce/definitions{query}"),
            &[("content-type", DIRECTORY_TYPE)],
            &body,
        )
    }

    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Told {
        let mut request = ureq::http::Request::builder().method(method).uri(format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let sent = match method {
            "GET" | "DELETE" => self.agent.run(request.body(()).unwrap()),
            _ => self.agent.run(request.body(body).unwrap()),
        };
        let mut response = sent.unwrap();
        let media_type = response.headers().get("content-type").map(|value| value.to_str().unwrap().to_owned());
        let text = response.body_mut().with_config().limit(1 << 30).read_to_string().unwrap();
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Told { status: response.status().as_u16(), media_type: media_type.unwrap_or_default(), body }
    }

    /// Where it answers.
    pub fn base(&self) -> &str {
        &self.base
    }

    pub fn get(&self, path: &str) -> Told {
        self.send("GET", path, &[], b"")
    }

    fn push(&self, events: &[u8]) -> Told {
        let path = "/v1/projects/ecommerce/sources/transactions/events?wait=served";
        self.send("POST", path, &[("content-type", NDJSON)], events)
    }

    fn features(&self, asked: &Value) -> Told {
        let body = asked.to_string();
        self.send("POST", "/v1/projects/ecommerce/features", &[("content-type", JSON)], body.as_bytes())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the server has been printed; the test fails by what it did not get.
            let _ = thread.join();
        }
        let _ = self.platform.close();
    }
}

fn event(time: &str, product: &str, quantity: Value, price: f64, rating: Value) -> String {
    json!({
        "transaction_id": "t", "transaction_date": time, "customer_id": "c1", "product_id": product, "category": "k",
        "quantity": quantity, "unit_price": price, "review_rating": rating,
    })
    .to_string()
}

fn events() -> String {
    [
        event("2026-01-02T10:00:00Z", "p1", json!(2), 3.5, json!(4)),
        String::new(),
        "{broken".to_owned(),
        event("2026-01-02T10:05:00Z", "p1", json!(1), 3.0, Value::Null),
        event("2026-01-03T10:05:00Z", "p1", json!(1), 3.0, Value::Null),
        event("2026-01-02T10:06:00Z", "p2", json!("many"), 1.0, json!(1)),
    ]
    .join("\n")
}

#[test]
fn a_push_says_what_was_wrong_with_which_line_and_can_be_repeated() {
    let server = Server::with_example();
    let path = "/v1/projects/ecommerce/sources/transactions/events";
    let headers = [("content-type", NDJSON), ("idempotency-key", "one")];
    let first = server.send("POST", path, &headers, events().as_bytes());
    assert_eq!(first.status, 202, "{}", first.body);
    assert_eq!((&first.body["accepted"], &first.body["dead_lettered"]), (&json!(3), &json!(2)));
    assert_eq!(first.body["position"], 5);
    let lines: Vec<&Value> = first.body["errors"].as_array().unwrap().iter().map(|error| &error["line"]).collect();
    assert_eq!(lines, [3, 5, 6], "{}", first.body);
    let again = server.send("POST", path, &headers, events().as_bytes());
    assert_eq!((again.status, &again.body), (202, &first.body));
    let other = server.send("POST", path, &headers, b"{}");
    assert_eq!((other.status, &other.body["path"]), (422, &json!("Idempotency-Key")));
    let array = format!("[{}]", event("2026-01-02T10:06:00Z", "p3", json!(1), 1.0, json!(1)));
    let array = server.send("POST", path, &[("content-type", JSON)], array.as_bytes());
    assert_eq!((array.status, &array.body["position"]), (202, &json!(6)));
}

#[test]
fn lookups_give_values_with_their_statuses() {
    let server = Server::with_example();
    let pushed = server.push(events().as_bytes());
    assert_eq!((pushed.status, &pushed.body["served"]), (202, &json!(true)), "{}", pushed.body);
    let told = server.features(&json!({
        "service": "recommendation",
        "entities": { "product_id": ["p1", "p2", "p9"], "customer_id": ["c1", null, "c9"] },
        "request": { "price": [5.0, 5.0, null] },
    }));
    assert_eq!(told.status, 200, "{}", told.body);
    let column = |name: &str, member: &str| told.body["columns"][name][member].clone();
    assert_eq!(column("product_stats__revenue_30d", "values"), json!([10.0, null, null]));
    assert_eq!(column("product_stats__revenue_30d", "statuses"), json!(["PRESENT", "NULL_VALUE", "NOT_FOUND"]));
    assert_eq!(column("product_stats__units_sold_30d", "values"), json!([3, null, null]));
    assert_eq!(column("product_stats__avg_review_last_5", "values"), json!([4.0, 1.0, null]));
    assert_eq!(
        column("customer_stats__last_purchase_amount", "statuses"),
        json!(["PRESENT", "NOT_FOUND", "NOT_FOUND"])
    );
    // 5 / (10 / 3), and no ratio to nothing.
    assert_eq!(column("basket__price_ratio", "values"), json!([5.0 / (10.0 / 3.0), null, null]));
    assert_eq!(column("basket__price_ratio", "statuses"), json!(["PRESENT", "NULL_VALUE", "NULL_VALUE"]));
    let newest = json!(["2026-01-02T10:05:00.000000Z", "2026-01-02T10:06:00.000000Z", null]);
    assert_eq!(column("product_stats__revenue_30d", "event_timestamps"), newest);
    // Of a window of 30 d with a hop of 1 d, the tile of January 2 leaves 30 d after its end.
    assert_eq!(column("product_stats__revenue_30d", "valid_until")[0], "2026-02-02T00:00:00.000000Z");
    assert_eq!(told.body["revision"], 1);
    assert_eq!(told.body["as_of"]["product_stats"], "2026-01-02T09:56:00.000000Z", "10 min behind the newest row");
    let fingerprint = column("product_stats__revenue_30d", "fingerprint");
    let expect = |expected: Value| {
        server.features(&json!({
            "features": ["product_stats:revenue_30d"], "entities": { "product_id": ["p1"] },
            "expect": { "product_stats.revenue_30d": expected },
        }))
    };
    assert_eq!(expect(fingerprint.clone()).status, 200);
    let unexpected = expect(json!("sha256:00"));
    assert_eq!((unexpected.status, &unexpected.body["found"]), (409, &fingerprint));
    let view = server.get("/v1/projects/ecommerce/feature-views/product_stats/values?product_id=p1&int64=string");
    assert_eq!(view.body["entity"], json!({ "product_id": "p1" }));
    assert_eq!(view.body["features"]["units_sold_30d"], json!({ "value": "3", "status": "PRESENT" }));
    server.clock.advance(91 * DAY_US);
    let old = server.get("/v1/projects/ecommerce/feature-views/product_stats/values?product_id=p1");
    assert_eq!(old.body["features"]["revenue_30d"], json!({ "value": null, "status": "OUTSIDE_MAX_AGE" }));
    assert_eq!(old.body["event_timestamp"], "2026-01-02T10:05:00.000000Z");
}

#[test]
fn definitions_are_planned_applied_and_read_back() {
    let server = Server::start();
    let dry = server.put_example("?dry_run=true");
    assert_eq!((dry.status, &dry.body["revision"]), (200, &json!(1)), "{}", dry.body);
    let views = dry.body["changes"].as_array().unwrap().iter().filter(|change| change["kind"] == "feature_view");
    assert!(views.count() >= 4, "{}", dry.body);
    assert_eq!(server.get("/v1/projects/ecommerce/definitions").status, 404);
    assert_eq!(server.put_example("").status, 200);
    let again = server.put_example("");
    assert_eq!((again.status, &again.body["changes"]), (200, &json!([])));
    let view = server.get("/v1/projects/ecommerce/feature-views/product_stats").body;
    assert_eq!((&view["kind"], &view["entities"]), (&json!("feature_view"), &json!(["product"])));
    assert!(view["features"][0]["fingerprint"].as_str().unwrap().starts_with("sha256:"), "{view}");
    assert_eq!(server.get("/v1/projects/ecommerce/feature-views/basket").body["kind"], "on_demand_feature_view");
    let listed = server.get("/v1/projects/ecommerce/entities").body;
    assert_eq!(listed["entities"].as_array().map(Vec::len), Some(3));
    let service = "kind: feature_service\nname: small\nfeatures: [customer_stats]\n";
    let put = |headers: &[(&str, &str)]| {
        server.send("PUT", "/v1/projects/ecommerce/definitions", headers, service.as_bytes())
    };
    let stale = put(&[("content-type", "application/yaml"), ("if-match", "7")]);
    assert_eq!(stale.status, 409, "{}", stale.body);
    let put = put(&[("content-type", "application/yaml"), ("if-match", "\"1\"")]);
    assert_eq!((put.status, &put.body["revision"]), (200, &json!(2)), "{}", put.body);
    let revisions = server.get("/v1/projects/ecommerce/revisions").body;
    let newest = &revisions["revisions"][0];
    assert_eq!((&newest["revision"], &newest["created_at"]), (&json!(2), &json!("2026-01-02T12:00:00.000000Z")));
}

#[test]
fn a_module_is_uploaded_once_and_stays_while_it_is_used() {
    let server = Server::start();
    let bytes = crate::modules::ecommerce();
    let upload = |bytes: &[u8]| {
        let headers = [("content-type", "application/wasm")];
        server.send("POST", "/v1/projects/ecommerce/modules?name=ecommerce", &headers, bytes)
    };
    let first = upload(bytes);
    assert_eq!((first.status, &first.body["version"]), (201, &json!(1)), "{}", first.body);
    assert_eq!(first.body["udfs"][0]["name"], "amount");
    let again = upload(bytes);
    assert_eq!((again.status, &again.body), (200, &first.body));
    let refused = upload(b"\0asm\x01\0\0\0");
    assert_eq!((refused.status, &refused.body["title"]), (422, &json!("the module is refused")), "{}", refused.body);
    let path = "/v1/projects/ecommerce/modules/ecommerce/1";
    let mut sent =
        server.agent.get(format!("{}{path}", server.base)).header("accept", "application/wasm").call().unwrap();
    assert_eq!(sent.body_mut().read_to_vec().unwrap(), bytes);
    server.put_example("");
    assert_eq!(server.send("DELETE", path, &[], b"").status, 409);
    assert_eq!(server.get(path).body["digest"], first.body["digest"]);
}

#[test]
fn whatever_is_wrong_is_a_problem_that_says_so() {
    let server = Server::with_example();
    let project = "/v1/projects/ecommerce";
    let asked = |asked: Value| asked.to_string();
    let too_many = json!({ "features": ["product_stats"], "entities": { "product_id": ["a", "b", "c", "d"] } });
    let cases: Vec<(&str, String, &str, String, u16, &str)> = vec![
        ("GET", "/nothing".into(), "", String::new(), 404, "there is nothing at /nothing"),
        ("PUT", "/healthz".into(), JSON, String::new(), 405, "does not take PUT"),
        ("GET", "/v1/projects/ecomerce/definitions".into(), "", String::new(), 404, "did you mean `ecommerce`?"),
        (
            "GET",
            format!("{project}/feature-views/product_stat"),
            "",
            String::new(),
            404,
            "did you mean `product_stats`?",
        ),
        ("GET", format!("{project}/modules/nope"), "", String::new(), 404, "there is no module `nope`"),
        ("GET", format!("{project}/dead-letters?source=nope"), "", String::new(), 404, "there is no source `nope`"),
        ("GET", format!("{project}/dead-letters?sauce=x"), "", String::new(), 422, "did you mean `source`?"),
        ("POST", format!("{project}/rollback"), "", String::new(), 415, "send application/json"),
        ("DELETE", format!("{project}/entities/produkt"), "", String::new(), 404, "did you mean `product`?"),
        ("DELETE", format!("{project}/entities/product?prune=true"), "", String::new(), 422, "means nothing here"),
        ("DELETE", format!("{project}/jobs/7"), "", String::new(), 404, "there is no job `7`"),
        (
            "GET",
            format!("{project}/feature-views/product_stats/values"),
            "",
            String::new(),
            422,
            "looked up by product_id",
        ),
        ("GET", format!("{project}/feature-views/product_stats/values?id=1"), "", String::new(), 422, "`id` is no key"),
        ("POST", format!("{project}/features"), JSON, "{".into(), 400, "the body is no JSON"),
        ("POST", format!("{project}/features"), JSON, "[]".into(), 422, "send a JSON object"),
        ("POST", format!("{project}/features"), "text/plain", "{}".into(), 415, "send application/json"),
        ("POST", format!("{project}/features"), JSON, "{}".into(), 422, "either `service` or `features`"),
        (
            "POST",
            format!("{project}/features"),
            JSON,
            asked(json!({ "service": "recomendation" })),
            404,
            "did you mean",
        ),
        (
            "POST",
            format!("{project}/features"),
            JSON,
            asked(json!({ "features": ["product_stats.x"] })),
            404,
            "no feature `x`",
        ),
        ("POST", format!("{project}/features"), JSON, asked(too_many), 422, "3 are taken at once"),
        (
            "POST",
            format!("{project}/features"),
            JSON,
            asked(json!({ "features": ["product_stats"], "entities": { "product_id": ["p", 7] } })),
            422,
            "7 is no utf8",
        ),
        (
            "POST",
            format!("{project}/features"),
            JSON,
            asked(json!({ "features": ["basket"], "entities": { "product_id": ["p"] } })),
            422,
            "computes with `price`",
        ),
        ("POST", format!("{project}/sources/nope/events"), NDJSON, "{}".into(), 404, "no source `nope`"),
        ("POST", format!("{project}/sources/transactions/events"), "", "{}".into(), 415, "application/x-ndjson"),
        ("POST", format!("{project}/sources/transactions/events"), JSON, "[{]".into(), 400, "no JSON array"),
        ("POST", format!("{project}/sources/transactions/events"), NDJSON, "\n".into(), 422, "no event in the body"),
        ("POST", format!("{project}/modules"), "application/wasm", String::new(), 422, "name the module"),
        ("POST", format!("{project}/modules?name=A"), "application/wasm", String::new(), 422, "is no name"),
        ("POST", format!("{project}/modules?name=a"), JSON, String::new(), 415, "send application/wasm"),
        (
            "PUT",
            format!("{project}/definitions"),
            "application/yaml",
            "kind: entty\nname: x".into(),
            422,
            "body:1: unknown kind",
        ),
        ("PUT", format!("{project}/definitions"), "text/html", String::new(), 415, "application/yaml"),
        ("PUT", format!("{project}/definitions?dry_run=maybe"), JSON, "[]".into(), 422, "write true or false"),
        ("PUT", "/v1/projects/No/definitions".into(), "application/yaml", "kind: entity".into(), 422, "missing"),
    ];
    for (method, path, media_type, body, status, detail) in cases {
        let headers = [("content-type", media_type)];
        let headers = if media_type.is_empty() { &[][..] } else { &headers[..] };
        let told = server.send(method, &path, headers, body.as_bytes());
        let shown = format!("{method} {path} {body}: {} {}", told.status, told.body);
        assert_eq!(told.status, status, "{shown}");
        assert_eq!(told.media_type, "application/problem+json", "{shown}");
        assert_eq!(told.body["status"], status, "{shown}");
        assert!(told.body["detail"].as_str().is_some_and(|said| said.contains(detail)), "{shown}");
        assert!(told.body["type"].is_string() && told.body["title"].is_string(), "{shown}");
    }
    let foreign = server.send("GET", "/v1/projects", &[("origin", "https://example.com")], b"");
    assert_eq!((foreign.status, foreign.media_type.as_str()), (403, "application/problem+json"));
    let length = (64 << 20) + 1;
    let too_large = server.push(&vec![b' '; length]);
    assert_eq!((too_large.status, too_large.media_type.as_str()), (413, "application/problem+json"));
}

#[test]
fn dead_letters_name_the_feature_and_keep_the_row() {
    let server = Server::with_example();
    server.push(events().as_bytes());
    let mut letters = Vec::new();
    // Letters stand in a checkpoint, which time brings about.
    for _ in 0..100 {
        server.clock.advance(6_000_000);
        let told = server.get("/v1/projects/ecommerce/dead-letters?source=transactions");
        letters = told.body["dead_letters"].as_array().cloned().unwrap_or_default();
        if !letters.is_empty() {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let find = |reason: &str, feature: Value| {
        letters.iter().find(|letter| letter["reason"] == reason && letter["feature"] == feature).cloned()
    };
    let broken = find("decode", Value::Null).unwrap_or_else(|| panic!("{letters:?}"));
    assert_eq!((&broken["raw"], &broken["position"]), (&json!("{broken"), &json!("0:1")));
    assert_eq!(find("future", Value::Null).map(|letter| letter["position"].clone()), Some(json!("0:3")));
    let of_feature = find("decode", json!("product_stats.revenue_30d")).unwrap_or_else(|| panic!("{letters:?}"));
    assert_eq!((&of_feature["open"], &of_feature["at"]), (&json!(true), &json!("2026-01-02T12:00:00.000000Z")));
    assert_eq!(find("decode", json!("product_stats.avg_review_30d")), None, "that feature does not use the column");
    let replay = |body: Value| {
        let path = "/v1/projects/ecommerce/dead-letters/replay";
        server.send("POST", path, &[("content-type", JSON)], body.to_string().as_bytes())
    };
    let told = replay(json!({ "source": "transactions" })).body;
    assert_eq!((&told["refused"], &told["closed"], &told["taken"]), (&json!(letters.len()), &json!(0), &json!(0)));
    let told = replay(json!({ "ids": [of_feature["id"]] })).body;
    let letter = &told["letters"][0];
    assert_eq!(
        (&letter["outcome"], &letter["open"], &letter["id"]),
        (&json!("refused"), &json!(true), &of_feature["id"])
    );
    assert!(letter["message"].as_str().is_some_and(|said| said.starts_with("refused again: ")), "{told}");
    for (body, path) in [
        (json!({ "ids": ["nope"] }), "/ids"),
        (json!({ "source": "nope" }), "/source"),
        (json!({ "feature": "nope.nope" }), "/feature"),
    ] {
        let told = replay(body);
        assert_eq!((told.status, told.media_type.as_str()), (404, "application/problem+json"), "{}", told.body);
        assert_eq!(told.body["path"], path, "{}", told.body);
    }
    let open = server.get("/v1/projects/ecommerce/dead-letters?open=true").body;
    assert_eq!(open["total"], letters.len());
}

#[test]
fn a_machine_finds_health_metrics_and_a_description_of_everything() {
    let server = Server::with_example();
    assert_eq!(server.get("/healthz").status, 200);
    assert_eq!(server.get("/readyz").body["projects"], json!(["ecommerce"]));
    server.push(events().as_bytes());
    let metrics = server.get("/metrics").body.as_str().unwrap().to_owned();
    for name in [
        "onefold_request_seconds_count",
        "onefold_pushed_rows_total",
        "onefold_source_lag_events",
        "onefold_state_bytes",
    ] {
        assert!(metrics.contains(name), "{name}:\n{metrics}");
    }
    let body = json!({ "kind": "verify", "views": ["product_stats"] }).to_string();
    let started = server.send("POST", "/v1/projects/ecommerce/jobs", &[("content-type", JSON)], body.as_bytes());
    assert_eq!(started.status, 202, "{}", started.body);
    let path = format!("/v1/projects/ecommerce/jobs/{}", started.body["id"].as_str().unwrap());
    let mut job = server.get(&path).body;
    while job["state"] == "running" {
        std::thread::sleep(Duration::from_millis(20));
        job = server.get(&path).body;
    }
    assert_eq!((&job["result"]["compared"], &job["result"]["differ"]), (&json!(8), &json!(0)), "{job}");
    let status = server.get("/v1/projects/ecommerce/status").body;
    assert_eq!(status["sources"]["transactions"]["lag"], 0, "{status}");
    // The stream that goes on after a verify stands where the one before it stood.
    assert!(status["checkpoint_epoch"].as_u64().is_some_and(|epoch| epoch > 0), "{status}");
    assert!(status["sources"]["transactions"]["rows"].as_u64().is_some_and(|rows| rows > 0), "{status}");
    let entities = |status: &Value| {
        let tables = status["tables"].as_array().into_iter().flatten();
        tables.map(|table| table["entities"].as_u64().unwrap_or(0)).collect::<Vec<_>>()
    };
    assert!(entities(&status).iter().all(|entities| *entities > 0), "{status}");
    let since = &status["views"]["product_stats"]["complete_since"];
    assert_eq!(since["revenue_30d"], "2026-01-02T12:00:00.000000Z", "the first push: {status}");
    let document = server.get("/openapi.json").body;
    for (path, operations) in document["paths"].as_object().unwrap() {
        let filled = path.replace("{project}", "ecommerce").replace("{version}", "1").replace("{name}", "nope");
        for method in ["get", "put", "post", "delete"] {
            let told = server.send(&method.to_uppercase(), &filled, &[], b"");
            let is_described = operations.get(method).is_some();
            // What is to come is served as such, and not described yet.
            let is_served = told.status != 405 && told.status != 501;
            assert_eq!(is_described, is_served, "{method} {path}: {}", told.status);
        }
    }
}

/// A model is asked with the fingerprints that it was made with: another definition is no answer, however alike.
#[test]
fn a_lookup_that_expects_another_fingerprint_is_refused() {
    let server = Server::with_example();
    let asked = json!({ "features": ["product_stats.revenue_30d", "product_stats.units_sold_30d"], "entities": { "product_id": ["p1"] } });
    let found = server.features(&asked);
    assert_eq!(found.status, 200, "{}", found.body);
    let of = |name: &str| found.body["columns"][name]["fingerprint"].as_str().unwrap().to_owned();
    let (revenue, units) = (of("product_stats__revenue_30d"), of("product_stats__units_sold_30d"));
    let mut expecting = asked.clone();
    expecting["expect"] = json!({ "product_stats.revenue_30d": revenue });
    assert_eq!(server.features(&expecting).status, 200);
    expecting["expect"] = json!({ "product_stats.revenue_30d": units, "product_stats.units_sold_30d": units });
    let refused = server.features(&expecting);
    assert_eq!((refused.status, refused.media_type.as_str()), (409, "application/problem+json"), "{}", refused.body);
    assert_eq!((&refused.body["expected"], &refused.body["found"]), (&json!(units), &json!(revenue)));
    assert_eq!(refused.body["path"], "/expect/product_stats.revenue_30d");
    let all = json!({ "product_stats.revenue_30d": { "expected": units, "found": revenue } });
    assert_eq!(refused.body["mismatches"], all);
    expecting["expect"] = json!({ "product_stats.no": units });
    assert_eq!(server.features(&expecting).status, 404);
}

/// Guards: a float64 of a request was read one bit off, and its on-demand value was another than in a training set.
#[test]
fn floats_of_a_request_are_read_to_the_last_bit() {
    let server = Server::start();
    let definitions = "kind: project
name: echo
---
kind: on_demand_feature_view
name: said
request: { x: float64 }
features:
  x: { udf: std.coalesce, inputs: [request.x, request.x] }
";
    let yaml = &[("content-type", "application/yaml")];
    let told = server.send("PUT", "/v1/projects/echo/definitions", yaml, definitions.as_bytes());
    assert_eq!(told.status, 200, "{}", told.body);
    for text in ["1.9778231890896223e18", "2.2250738585072011e-308", "9007199254740993.0", "0.1", "-123456789.12345679"]
    {
        let request = format!("{{\"features\":[\"said.x\"],\"entities\":{{}},\"request\":{{\"x\":[{text}]}}}}");
        let json = &[("content-type", "application/json")];
        let told = server.send("POST", "/v1/projects/echo/features", json, request.as_bytes());
        let value = told.body["columns"]["said__x"]["values"][0].as_f64().unwrap_or_else(|| panic!("{}", told.body));
        assert_eq!(value.to_bits(), text.parse::<f64>().unwrap().to_bits(), "{text} became {value}");
    }
}
