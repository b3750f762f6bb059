//! The real program, killed again and again while events come in by HTTP.

use crate::reference::Chance;
use crate::stream::open_on;
use onefold::batch::BatchSettings;
use onefold::clock::{Clock, ManualClock, SystemClock};
use onefold::platform::PlatformSettings;
use onefold::storage::LocalStorage;
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

const DEFINITIONS: &str = "
kind: project
name: chaos
---
kind: source
name: events
stream: { push: {} }
event_time: at
schema: { at: timestamp, key: utf8, x: float64 }
---
kind: entity
name: thing
join_keys: { key: utf8 }
---
kind: feature_view
name: stats
entities: [thing]
source: events
features:
  rows: { udf: std.count }
  sum: { udf: std.sum, inputs: [x] }
  sum_1h: { udf: std.sum, inputs: [x], window: 1h }
  newest: { udf: std.last_n, inputs: [x], params: { n: 3 } }
";
/// 2026-01-02T00:00:00Z.
const BEGIN_US: i64 = 1_767_312_000_000_000;
const ENTITIES: usize = 200;
const PUSHERS: usize = 2;

/// The program in a directory of its own. Killed when let go.
pub struct Program {
    child: Child,
}

impl Program {
    /// With `halt` it comes to a halt where that says (`host/storage/files.rs`), and has said that it will.
    pub fn start(directory: &Path, port: u16, halt: Option<&str>) -> Program {
        let child = Command::new(env!("CARGO_BIN_EXE_onefold"))
            .args(["dev", "definitions", "--listen", &format!("127.0.0.1:{port}")])
            .current_dir(directory)
            .env_remove("ONEFOLD_CONFIG")
            .args(halt.into_iter().flat_map(|halt| ["--halt-at", halt]))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(directory.join("stderr")).expect("a file can be made"))
            .spawn()
            .expect("the program starts");
        Program { child }
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.child.kill().expect("it is ours");
        self.child.wait().expect("it ends");
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have been killed already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One answer, or silence.
pub fn ask(agent: &ureq::Agent, method: &str, url: &str, key: Option<&str>, body: &str) -> Option<(u16, Json)> {
    let mut request = ureq::http::Request::builder().method(method).uri(url);
    if let Some(key) = key {
        request = request.header("Idempotency-Key", key).header("content-type", "application/x-ndjson");
    } else if !body.is_empty() {
        request = request.header("content-type", "application/json");
    }
    let sent = match method {
        "GET" => agent.run(request.body(()).expect("a request")),
        _ => agent.run(request.body(body.to_owned()).expect("a request")),
    };
    let mut response = sent.ok()?;
    let status = response.status().as_u16();
    let body = response.body_mut().read_to_vec().ok()?;
    Some((status, serde_json::from_slice(&body).unwrap_or(Json::Null)))
}

pub fn agent() -> ureq::Agent {
    let timeout = Some(Duration::from_secs(20));
    ureq::Agent::config_builder().http_status_as_error(false).timeout_global(timeout).proxy(None).build().new_agent()
}

/// Waits until it answers, or has come to its halt before.
pub fn wait_ready(base: &str, program: &mut Program, directory: &Path, halted: &dyn Fn() -> bool) {
    for _ in 0..6000 {
        if halted() {
            return;
        }
        if ask(&agent(), "GET", &format!("{base}/readyz"), None, "").is_some_and(|(status, _)| status == 200) {
            return;
        }
        if let Some(ended) = program.child.try_wait().expect("it is ours") {
            let told = std::fs::read_to_string(directory.join("stderr")).unwrap_or_default();
            panic!("the program ended by itself, {ended}: {told}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("the program does not answer");
}

/// What one client has had acknowledged.
#[derive(Default)]
pub struct Told {
    pub events: u64,
    pub by_key: BTreeMap<String, u64>,
    pub resent: u64,
}

/// Pushes until it is told to stop; what gets no answer is sent again under its key.
pub fn push(base: &str, number: u64, seed: u64, pause: Duration, stop: &AtomicBool, pushed: &AtomicU64) -> Told {
    let (agent, mut chance, mut told) = (agent(), Chance::new(seed * 10 + number), Told::default());
    let url = format!("{base}/v1/projects/chaos/sources/events/events");
    for round in 0.. {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        std::thread::sleep(pause);
        let (mut body, mut keys) = (String::new(), Vec::new());
        for _ in 0..1 + chance.below(30) {
            let key = format!("k{}", chance.below(ENTITIES));
            let at = crate::reference::format_time_us(BEGIN_US + chance.below(600) as i64 * 60_000_000);
            body += &format!("{}\n", json!({ "at": at, "key": key, "x": chance.below(1000) as f64 / 7.0 }));
            keys.push(key);
        }
        let idempotency = format!("{seed}-{number}-{round}");
        let mut tries = 0;
        loop {
            match ask(&agent, "POST", &url, Some(&idempotency), &body) {
                Some((202, answer)) => {
                    assert_eq!(answer["accepted"], keys.len(), "{answer}");
                    break;
                }
                Some((status, answer)) if status < 500 => panic!("{status}: {answer}"),
                _ => tries += 1,
            }
            assert!(tries < 3000, "nobody answers");
            std::thread::sleep(Duration::from_millis(20));
        }
        told.resent += u64::from(tries > 0);
        told.events += keys.len() as u64;
        pushed.fetch_add(keys.len() as u64, Ordering::SeqCst);
        keys.into_iter().for_each(|key| *told.by_key.entry(key).or_default() += 1);
    }
    told
}

#[test]
fn kills_lose_and_double_nothing() {
    let kills: u64 = std::env::var("ONEFOLD_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(20);
    let seed: u64 = std::env::var("ONEFOLD_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(4);
    println!("seed {seed}, {kills} kills");
    let temporary = tempfile::tempdir().expect("a directory");
    let directory = temporary.path();
    std::fs::create_dir(directory.join("definitions")).expect("a directory");
    std::fs::write(directory.join("definitions/all.yaml"), DEFINITIONS).expect("a file");
    let settings = "data: ./data\nstream: { threads: 2, checkpoint_every: 200ms, idle: 1h }\n";
    std::fs::write(directory.join("onefold.yaml"), settings).expect("a file");
    let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").port();
    let base = format!("http://127.0.0.1:{port}");
    let (stop, pushed) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut chance = Chance::new(seed);
    let mut program = Program::start(directory, port, None);
    wait_ready(&base, &mut program, directory, &|| false);
    let told: Vec<Told> = std::thread::scope(|scope| {
        let pushers: Vec<_> = (0..PUSHERS as u64)
            .map(|number| {
                let (base, stop, pushed) = (&base, &stop, &pushed);
                scope.spawn(move || push(base, number, seed, Duration::ZERO, stop, pushed))
            })
            .collect();
        // A failure here must not leave the pushers waiting for someone who is gone.
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for kill in 0..kills {
                let before = pushed.load(Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(50 + chance.below(500) as u64));
                program.kill();
                let after = pushed.load(Ordering::SeqCst);
                println!("kill {kill}: {} events acknowledged since the last", after - before);
                program = Program::start(directory, port, None);
                wait_ready(&base, &mut program, directory, &|| false);
            }
        }));
        stop.store(true, Ordering::SeqCst);
        let told = pushers.into_iter().map(|pusher| pusher.join().expect("a pusher ends well")).collect();
        if let Err(panic) = ended {
            std::panic::resume_unwind(panic);
        }
        told
    });
    let total: u64 = told.iter().map(|told| told.events).sum();
    let resent: u64 = told.iter().map(|told| told.resent).sum();
    println!("{total} events acknowledged, {resent} pushes sent more than once");
    assert!(total > kills * 10 && (kills == 0 || resent > 0), "the kills did not reach what they are for");
    let mut by_key: BTreeMap<&str, u64> = BTreeMap::new();
    for (key, count) in told.iter().flat_map(|told| &told.by_key) {
        *by_key.entry(key).or_default() += count;
    }

    let agent = agent();
    let status = format!("{base}/v1/projects/chaos/status");
    let mut at = Json::Null;
    for _ in 0..3000 {
        at = ask(&agent, "GET", &status, None, "").map_or(Json::Null, |(_, status)| status);
        if at["sources"]["events"]["position"] == total {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(at["sources"]["events"]["position"], total, "{at}");
    assert_eq!(at["sources"]["events"]["end_position"], total, "each acknowledged push once: {at}");
    let keys: Vec<&str> = by_key.keys().copied().collect();
    let lookup = json!({ "features": ["stats.rows"], "entities": { "key": keys } }).to_string();
    let (status, found) =
        ask(&agent, "POST", &format!("{base}/v1/projects/chaos/features"), None, &lookup).expect("it answers");
    assert_eq!(status, 200, "{found}");
    let counts = &found["columns"]["stats__rows"]["values"];
    for (place, (key, count)) in by_key.iter().enumerate() {
        // Integers are text in answers for programs, unless asked otherwise.
        let shown = counts[place].as_u64().or_else(|| counts[place].as_str().and_then(|text| text.parse().ok()));
        assert_eq!(shown, Some(*count), "events of {key}: {}", found["columns"]["stats__rows"]);
    }

    program.kill();
    let storage = Arc::new(LocalStorage::open(&directory.join("data")).expect("the data are there"));
    let clock = Arc::new(ManualClock::at(SystemClock::new().now_us()));
    let platform = open_on(storage, &clock, &PlatformSettings::default()).expect("it comes up once more");
    let host = platform.project("chaos").expect("the project is there");
    assert_eq!(host.status().stream.sources["events"].end_position, total);
    let verified = host.verify(&[], &BatchSettings::new(directory), Arc::new(|_| ())).expect("everything can be read");
    println!("verify: {} compared, {} differ", verified.compared, verified.differ);
    assert!(verified.is_equal() && verified.failed == 0, "{verified:?}");
    assert_eq!(verified.compared, by_key.len() as u64 * 4);
    platform.close().expect("a last checkpoint");
}
