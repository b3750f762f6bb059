//! The real program, measured from outside: what a push over HTTP costs, memory, the pause of a checkpoint, recovery.
//!
//! `cargo bench --workspace --bench live [-- [append] [memory] [pause] [recovery] [ROWS [SECONDS [KILLS]]]]`, after
//! `cargo build --release --target wasm32-unknown-unknown` in `udfs/`; all four without a name. A real `onefold dev`
//! runs the canonical job with its defaults (two folding threads, checkpoints every 5 s) over ROWS rows of history: the
//! default of 1,080,000 makes 1,000,000 (entity, view) states. Clients run on the same cores.
//!
//! - **append**: ROWS rows pushed into an empty server in bodies of 1000 lines, one after the other. CPU by thread:
//!   those of HTTP read, split and look through a push, `push-log` appends and syncs it; the others are the stream.
//! - **memory**: resident size with ROWS rows less that of a server that has none, by entities over views; after a
//!   restart over state built from history, and after the pushes of `append`. Beside it the encoded tiles: what the one
//!   full dump of a checkpoint holds of each state (keys and framing with it), that is the tiles alone, without what is
//!   cached of them; and the bytes of keys and states as they lie in memory (`onefold_state_bytes`).
//! - **pause**: RATE events a second of known entities are pushed for SECONDS seconds, and `/status` is asked each
//!   millisecond how far the log is synced and how far lookups see it. *Fresh after* is how long what is synced at an
//!   instant takes until it is seen; *stood still* is how long nothing became visible while something waited, which is
//!   an upper bound of how long a folding thread stood still. Both apart for instants within a checkpoint, from its
//!   barrier until it is stored, and for those between. After 24 checkpoints, so after 120 s, one is a full dump.
//! - **recovery**: events are pushed as above, then stop; the process is killed with SIGKILL and started again. Time is
//!   from before the process is made to the first answer that is, byte for byte, what it was before the kill: the last
//!   event's own customer and a hundred rows of history, all eight features. KILLS times, each further from a checkpoint.

#[allow(dead_code, reason = "`lookup.rs` uses more of it")]
mod shop;

use onefold::canonical::{Canonical, Row};
use onefold::clock::{Clock, SystemClock};
use serde_json::Value as Json;
use shop::{Connection, Server, Shop, end, quantile, say, times_s};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Events a second, and of one push, where pushes come at a steady rate.
const RATE: u64 = 20_000;
const PUSH_ROWS: u64 = 100;
/// Rows of a push where they come as fast as they are taken.
const BODY_ROWS: usize = 1000;
const STATUS_EVERY_US: u64 = 1000;
const SETTLE: Duration = Duration::from_secs(7);
const EVENTS: &str = "/v1/projects/ecommerce/sources/transactions/events";
const STATUS: &str = "/v1/projects/ecommerce/status";
const PARTS: [&str; 4] = ["append", "memory", "pause", "recovery"];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let named: Vec<&String> = arguments.iter().filter(|argument| PARTS.contains(&argument.as_str())).collect();
    let is_asked = |part: &str| named.is_empty() || named.iter().any(|name| *name == part);
    let numbers: Vec<u64> = arguments.iter().filter_map(|argument| argument.parse().ok()).collect();
    let number = |place: usize, default: u64| numbers.get(place).copied().unwrap_or(default);
    let (rows, seconds, kills) = (number(0, 1_080_000), number(1, 140), number(2, 3));
    let clock = SystemClock::new();

    let pushed = (is_asked("append") || is_asked("memory")).then(|| append(rows, &clock));
    if !["memory", "pause", "recovery"].into_iter().any(is_asked) {
        return;
    }
    progress(&format!("building the state of {rows} rows of history"));
    let shop = Shop::open(rows);
    let encoded_bytes = bytes_below(&shop.work.join("state/projects/ecommerce/state"));
    let server = Server::start(&shop);
    if let Some(pushed) = pushed.filter(|_| is_asked("memory")) {
        std::thread::sleep(SETTLE);
        memory(&Memory::of(&server), &pushed, encoded_bytes);
    }
    if is_asked("pause") {
        pause(&server, rows, seconds, &clock);
    }
    if is_asked("recovery") {
        recovery(&shop, server, rows, kills, &clock);
    }
}

fn progress(text: &str) {
    eprintln!("{text}");
}

/// Pushes into an empty server, and says what that cost.
fn append(rows: u64, clock: &SystemClock) -> Pushed {
    let shop = Shop::open(0);
    let server = Server::start(&shop);
    std::thread::sleep(SETTLE);
    let empty = Memory::of(&server);
    let mut connection = Connection::open(&server.address);
    let mut all = Canonical::new(1, rows).rows();
    let (before, whole_before) = (server.threads_s(), times_s(&server.proc("stat")));
    let (began_us, mut took_us, mut sent) = (clock.monotonic_us(), 0, 0);
    while sent < rows {
        let body: Vec<Row> = all.by_ref().take(BODY_ROWS).collect();
        let request = push_request(&server.address, &body, false);
        let sent_us = clock.monotonic_us();
        connection.ask(&request);
        took_us += clock.monotonic_us() - sent_us;
        sent += body.len() as u64;
        if sent.is_multiple_of(100 * BODY_ROWS as u64) {
            progress(&format!("pushed {sent} of {rows} rows"));
        }
    }
    let pushed = server.threads_s();
    let pushed_us = clock.monotonic_us() - began_us;
    while status(&mut connection, &server.address).lag() > 0 {
        std::thread::sleep(Duration::from_millis(10));
    }
    let served_us = clock.monotonic_us() - began_us;
    let served = server.threads_s();
    let whole = times_s(&server.proc("stat"));
    std::thread::sleep(SETTLE);

    say(&format!(
        "push {rows} events over HTTP, {BODY_ROWS} a request, one connection: {:.0} events/s acknowledged, {:.0} \
         readable; an answer takes {:.2} ms",
        rows as f64 / pushed_us as f64 * 1e6,
        rows as f64 / served_us as f64 * 1e6,
        took_us as f64 / 1e3 / (rows as f64 / BODY_ROWS as f64)
    ));
    say("ns an event:  CPU    user  system");
    let is_stream = |name: &str| name == "read" || name == "checkpoint" || name.starts_with("fold-");
    let show = |what: &str, [user_s, system_s]: [f64; 2]| {
        let [user, system] = [user_s, system_s].map(|s| s * 1e9 / rows as f64);
        say(&format!("         {:8.0}{user:8.0}{system:8.0}  {what}", user + system));
    };
    let sum = |of: &dyn Fn(&str) -> bool, until: &std::collections::BTreeMap<String, [f64; 2]>| {
        let own = until.iter().filter(|(name, _)| of(name)).map(|(name, [user_s, system_s])| {
            let [user_before_s, system_before_s] = before.get(name).copied().unwrap_or_default();
            [user_s - user_before_s, system_s - system_before_s]
        });
        own.fold([0.0; 2], |sum, part| [sum[0] + part[0], sum[1] + part[1]])
    };
    let http = sum(&|name| !is_stream(name) && name != "push-log", &pushed);
    let log = sum(&|name| name == "push-log", &pushed);
    let stream = sum(&is_stream, &served);
    show("HTTP: requests read, lines split and looked through, answers", http);
    show("the log: appended, synced", log);
    show("the stream's threads (read, fold)", stream);
    let rest = |place: usize| whole[place] - whole_before[place] - http[place] - log[place] - stream[place];
    show("the rest: threads that have ended, which stored checkpoints", [rest(0), rest(1)]);
    say("");
    Pushed { empty, full: Memory::of(&server) }
}

/// A server before pushes, and after.
struct Pushed {
    empty: Memory,
    full: Memory,
}

struct Memory {
    resident_bytes: f64,
    peak_bytes: f64,
    /// Entities over views.
    states: f64,
    /// Of keys and states as they lie in memory.
    state_bytes: f64,
}

impl Memory {
    fn of(server: &Server) -> Memory {
        let told = server.proc("status");
        let kib = |name: &str| {
            let line = told.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            line.split_whitespace().nth(1).and_then(|number| number.parse::<f64>().ok()).unwrap_or(f64::NAN)
        };
        let status = status(&mut Connection::open(&server.address), &server.address);
        let tables = status.0["tables"].as_array().cloned().unwrap_or_default();
        let sum = |member: &str| tables.iter().filter_map(|table| table[member].as_f64()).sum();
        Memory {
            resident_bytes: kib("VmRSS") * 1024.0,
            peak_bytes: kib("VmHWM") * 1024.0,
            states: sum("entities"),
            state_bytes: sum("state_bytes"),
        }
    }
}

fn memory(restarted: &Memory, pushed: &Pushed, encoded_bytes: u64) {
    let encoded = encoded_bytes as f64 / restarted.states;
    let empty_bytes = pushed.empty.resident_bytes;
    say(&format!(
        "memory: {:.1} MB resident when empty; the encoded tiles of a state are {encoded:.0} bytes",
        empty_bytes / 1e6
    ));
    say("                          states   resident MB   peak MB   bytes a state   x encoded   of it keys and states");
    for (what, found) in [("restarted over history", restarted), ("after pushes", &pushed.full)] {
        let each = (found.resident_bytes - empty_bytes) / found.states;
        say(&format!(
            "{what:24}{:8.0}{:14.1}{:10.1}{each:16.0}{:11.2}x{:24.0}",
            found.states,
            found.resident_bytes / 1e6,
            found.peak_bytes / 1e6,
            each / encoded,
            found.state_bytes / found.states
        ));
    }
    say("");
}

fn bytes_below(directory: &Path) -> u64 {
    let entries = std::fs::read_dir(directory).expect("a checkpoint's files");
    entries.flatten().filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum()
}

/// What `/status` said.
struct Status(Json);

impl Status {
    fn number(&self, path: &str) -> u64 {
        self.0.pointer(path).and_then(Json::as_u64).unwrap_or(0)
    }

    fn position(&self) -> u64 {
        self.number("/sources/transactions/position")
    }

    fn end_position(&self) -> u64 {
        self.number("/sources/transactions/end_position")
    }

    fn lag(&self) -> u64 {
        self.end_position().saturating_sub(self.position())
    }
}

fn status(connection: &mut Connection, address: &str) -> Status {
    let request = format!("GET {STATUS} HTTP/1.1\r\nhost: {address}\r\n\r\n");
    let status = Status(serde_json::from_slice(connection.ask(request.as_bytes())).expect("a status is JSON"));
    assert!(status.0["error"].is_null(), "the stream has stopped: {}", status.0["error"]);
    status
}

fn push_request(address: &str, rows: &[Row], wait: bool) -> Vec<u8> {
    let mut body = Vec::new();
    for row in rows {
        row.write_json(&mut body);
        body.push(b'\n');
    }
    let path = if wait { format!("{EVENTS}?wait=served") } else { EVENTS.to_owned() };
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/x-ndjson\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    [head.into_bytes(), body].concat()
}

/// Pushes the keys of history as events of now, at a steady rate, until it is told to stop or `seconds` are over. Gives
/// how late the latest push was sent, in microseconds.
fn push_steadily(address: &str, rows: u64, seconds: f64, stop: &AtomicBool, clock: &SystemClock) -> u64 {
    let mut connection = Connection::open(address);
    let mut keys = (0..).flat_map(|_| Canonical::new(1, rows).rows());
    let (began_us, mut latest_us) = (clock.monotonic_us(), 0);
    for number in 0.. {
        let due_us = number * PUSH_ROWS * 1_000_000 / RATE;
        if stop.load(Ordering::Relaxed) || due_us as f64 > seconds * 1e6 {
            break;
        }
        let now_us = clock.now_us();
        let mut events: Vec<Row> = keys.by_ref().take(PUSH_ROWS as usize).collect();
        events.iter_mut().for_each(|row| row.transaction_date_us = now_us);
        let request = push_request(address, &events, false);
        let passed_us = clock.monotonic_us() - began_us;
        std::thread::sleep(Duration::from_micros(due_us.saturating_sub(passed_us)));
        latest_us = latest_us.max((clock.monotonic_us() - began_us).saturating_sub(due_us));
        connection.ask(&request);
    }
    latest_us
}

/// One answer of `/status`.
struct Seen {
    at_us: u64,
    asked_for_us: u64,
    position: u64,
    end_position: u64,
}

/// A checkpoint, from its barrier until it is stored.
struct Checkpoint {
    began_us: u64,
    stored_us: u64,
    bytes: u64,
}

fn pause(server: &Server, rows: u64, seconds: u64, clock: &SystemClock) {
    let stop = AtomicBool::new(false);
    let (mut seen, mut checkpoints, mut busy_us) = (Vec::new(), Vec::new(), [0; 2]);
    let latest_us = std::thread::scope(|scope| {
        let pusher = scope.spawn(|| push_steadily(&server.address, rows, seconds as f64, &stop, clock));
        let mut connection = Connection::open(&server.address);
        let mut epoch = None;
        let (began_us, mut told_us) = (clock.monotonic_us(), 0);
        while !pusher.is_finished() {
            let asked_us = clock.monotonic_us();
            let status = status(&mut connection, &server.address);
            let at_us = clock.monotonic_us();
            let (now, spent_us) = (status.number("/checkpoint_epoch"), status.number("/busy_us/checkpoint"));
            busy_us = [if epoch.is_none() { spent_us } else { busy_us[0] }, spent_us];
            if epoch.replace(now).is_some_and(|before| before != now) {
                let began_us = at_us.saturating_sub(status.number("/checkpoint_us"));
                checkpoints.push(Checkpoint { began_us, stored_us: at_us, bytes: status.number("/checkpoint_bytes") });
            }
            let (position, end_position) = (status.position(), status.end_position());
            seen.push(Seen { at_us, asked_for_us: at_us - asked_us, position, end_position });
            if at_us - told_us > 10_000_000 {
                told_us = at_us;
                progress(&format!("{} s of {seconds}, lag {}", (at_us - began_us) / 1_000_000, status.lag()));
            }
            let passed_us = clock.monotonic_us() - asked_us;
            std::thread::sleep(Duration::from_micros(STATUS_EVERY_US.saturating_sub(passed_us)));
        }
        pusher.join().expect("the pusher ends")
    });

    let stored = checkpoints.len().max(1) as f64;
    let of_checkpoints = |of: fn(&Checkpoint) -> u64| {
        let mut all: Vec<f64> = checkpoints.iter().map(|checkpoint| of(checkpoint) as f64).collect();
        all.sort_by(f64::total_cmp);
        (quantile(&all, 0.5), all.last().copied().unwrap_or(0.0))
    };
    let (took, bytes) = (of_checkpoints(|one| one.stored_us - one.began_us), of_checkpoints(|one| one.bytes));
    let longest_us = status(&mut Connection::open(&server.address), &server.address).number("/checkpoint_pause_us");
    say(&format!(
        "pause: a folding thread took no rows because of a checkpoint for {:.1} ms at most",
        longest_us as f64 / 1e3
    ));
    say(&format!(
        "pause: {RATE} events/s for {seconds} s, {PUSH_ROWS} a push; {} checkpoints, median (largest) {:.0} ({:.0}) ms, \
         {:.1} ({:.1}) MB; busy with one {:.0} ms (encoding and storing)",
        checkpoints.len(),
        took.0 / 1e3,
        took.1 / 1e3,
        bytes.0 / 1e6,
        bytes.1 / 1e6,
        (busy_us[1] - busy_us[0]) as f64 / 1e3 / stored
    ));
    say(
        "ms                        instants   fresh after: p50      p99    p99.9      max   stood still: p99    p99.9      max",
    );
    let (fresh, stood) = (fresh_after(&seen), stood_still(&seen));
    for (what, is_within) in [("within a checkpoint", true), ("between checkpoints", false)] {
        // The poll that sees a checkpoint stored is late by up to its own period.
        let is_of = |from_us: u64, until_us: u64| {
            let within = checkpoints.iter().any(|one| until_us + 2000 >= one.began_us && from_us <= one.stored_us);
            within == is_within
        };
        let of = |spans: &[(u64, u64)]| {
            let spans = spans.iter().filter(|(from_us, until_us)| is_of(*from_us, *until_us));
            let mut lengths: Vec<f64> = spans.map(|(from_us, until_us)| (until_us - from_us) as f64 / 1e3).collect();
            lengths.sort_by(f64::total_cmp);
            lengths
        };
        let (fresh, stood) = (of(&fresh), of(&stood));
        let at = |of: &[f64], share: f64| quantile(of, share);
        say(&format!(
            "{what:24}{:10}{:19.2}{:9.1}{:9.1}{:9.1}{:19.1}{:9.1}{:9.1}",
            fresh.len(),
            at(&fresh, 0.5),
            at(&fresh, 0.99),
            at(&fresh, 0.999),
            at(&fresh, 1.0),
            at(&stood, 0.99),
            at(&stood, 0.999),
            at(&stood, 1.0)
        ));
    }
    let mut asked: Vec<f64> = seen.iter().map(|seen| seen.asked_for_us as f64 / 1e3).collect();
    asked.sort_by(f64::total_cmp);
    say(&format!(
        "the measure itself: {} questions, answered in {:.2} ms (p50), {:.2} (p99), {:.1} (max); the latest push left \
         {:.0} ms late\n",
        asked.len(),
        quantile(&asked, 0.5),
        quantile(&asked, 0.99),
        quantile(&asked, 1.0),
        latest_us as f64 / 1e3
    ));
}

/// For each answer, from its instant until what was synced by then was seen to be readable.
fn fresh_after(seen: &[Seen]) -> Vec<(u64, u64)> {
    let mut readable = 0;
    let mut spans = Vec::new();
    for (place, at) in seen.iter().enumerate() {
        readable = readable.max(place);
        while seen.get(readable).is_some_and(|later| later.position < at.end_position) {
            readable += 1;
        }
        spans.extend(seen.get(readable).map(|later| (at.at_us, later.at_us)));
    }
    spans
}

/// How long each time nothing became readable, from the first answer that said something waits.
fn stood_still(seen: &[Seen]) -> Vec<(u64, u64)> {
    let mut spans = Vec::new();
    let mut waits: Option<&Seen> = None;
    for at in seen {
        if let Some(since) = waits.filter(|since| since.position < at.position) {
            spans.push((since.at_us, at.at_us));
            waits = None;
        }
        waits = waits.or((at.position < at.end_position).then_some(at));
    }
    spans
}

fn recovery(shop: &Shop, mut server: Server, rows: u64, kills: u64, clock: &SystemClock) {
    let hundred = shop.requests(&server.address, 100, 20);
    say("recovery: kill  states     events after the last checkpoint   listens after ms   right answer after ms");
    for kill in 0..kills {
        let seconds = 2.0 + 0.9 * kill as f64;
        progress(&format!("pushing for {seconds:.1} s before kill {}", kill + 1));
        push_steadily(&server.address, rows, seconds, &AtomicBool::new(false), clock);
        let mut last = Canonical::new(1, 1).rows().next().expect("a row");
        (last.customer, last.transaction_date_us, last.unit_price_cents) = (9_999_999, clock.now_us(), 100 + kill);
        let mut connection = Connection::open(&server.address);
        connection.ask(&push_request(&server.address, &[last], true));
        let own = format!("GET {} HTTP/1.1\r\nhost: {}\r\n\r\n", LAST_CUSTOMER, server.address).into_bytes();
        let questions: Vec<&Vec<u8>> = std::iter::once(&own).chain(&hundred).collect();
        let before: Vec<Vec<u8>> = questions.iter().map(|question| connection.ask(question).to_vec()).collect();
        let told = status(&mut connection, &server.address);
        let states: u64 =
            told.0["tables"].as_array().into_iter().flatten().filter_map(|table| table["entities"].as_u64()).sum();
        end(&mut server.process);
        let stored = stored_position(&shop.work.join("state/projects/ecommerce/manifests/00"));

        let began_us = clock.monotonic_us();
        server = Server::start(shop);
        let listens_us = clock.monotonic_us() - began_us;
        let mut connection = Connection::open(&server.address);
        let right = |connection: &mut Connection| (0..2).all(|place| connection.ask(questions[place]) == before[place]);
        while !right(&mut connection) {
            assert!(clock.monotonic_us() - began_us < 60_000_000, "values are not what they were after a minute");
        }
        let right_us = clock.monotonic_us() - began_us;
        for (question, before) in questions.iter().zip(&before) {
            assert_eq!(connection.ask(question), before, "every value is what it was");
        }
        say(&format!(
            "{:14}{states:8}{:35}{:19.0}{:24.0}",
            kill + 1,
            told.end_position() - stored,
            listens_us as f64 / 1e3,
            right_us as f64 / 1e3
        ));
    }
}

const LAST_CUSTOMER: &str = "/v1/projects/ecommerce/feature-views/customer_stats/values?customer_id=c-9999999";

/// The position that the newest manifest of a group names.
fn stored_position(manifests: &Path) -> u64 {
    let entries = std::fs::read_dir(manifests).expect("manifests");
    let newest = entries.flatten().map(|entry| entry.path()).max().expect("a manifest");
    let text = std::fs::read_to_string(newest).expect("a manifest is text");
    let manifest: Json = serde_json::from_str(text.lines().next().unwrap_or_default()).expect("JSON, then its seal");
    manifest["positions"]["transactions"].as_u64().unwrap_or(0)
}
