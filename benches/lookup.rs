//! Lookups over HTTP from another process, open loop: latency, and requests a second per core of the server.
//!
//! `cargo bench --workspace --bench lookup [-- ROWS [SECONDS]]`, after `cargo build --release --target
//! wasm32-unknown-unknown` in `udfs/`. A real `onefold dev` holds the canonical job over ROWS of history; keys are
//! those of its rows, so all eight features are there and hot keys are asked for as often as they sell. What a closed
//! loop gets is measured first; then requests arrive by a schedule fixed before (exponential gaps) at shares of that,
//! whether earlier ones are answered or not, and a request's latency counts from the instant at which it was due: a
//! server that stalls cannot make it look better. CPU is the server's user and system time. The clients run on the
//! same cores.

#[allow(dead_code, reason = "`live.rs` uses more of it")]
mod shop;

use shop::{Connection, Server, Shop, end, now, quantile, say};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const CONNECTIONS: usize = 16;
const CLOSED_LOOP_SECONDS: f64 = 3.0;
const SHARES: [f64; 4] = [0.1, 0.5, 0.8, 0.9];
/// Events a second that are pushed beside lookups.
const PUSHED: usize = 2000;

fn main() {
    let numbers: Vec<u64> = std::env::args().skip(1).filter_map(|argument| argument.parse().ok()).collect();
    let rows = numbers.first().copied().unwrap_or(1_000_000);
    let seconds = numbers.get(1).copied().unwrap_or(10) as f64;
    let shop = Shop::open(rows);
    let server = Server::start(&shop);
    say(&format!(
        "{rows} rows of history, 8 features of 4 views a request, {CONNECTIONS} connections, {seconds} s each"
    ));
    say("entities  load                 asked/s   done/s   p50 ms   p99 ms  p99.9 ms  sent late p99  server CPU us  \
         req/s/core");
    for entities in [1, 100] {
        let requests = shop.requests(&server.address, entities, 40_000 / entities + 100);
        let most = server.measure(&requests, Load::Closed { seconds: CLOSED_LOOP_SECONDS });
        show(entities, "closed loop", &most);
        for share in SHARES {
            let rate = most.per_second() * share;
            let found = server.measure(&requests, Load::Open { rate, seconds });
            show(entities, &format!("open, {:.0} % of that", share * 100.0), &found);
        }
        let mut pusher = shop.push(&server.address, PUSHED, seconds);
        let rate = most.per_second() * SHARES[0];
        let found = server.measure(&requests, Load::Open { rate, seconds });
        show(entities, &format!("{:.0} %, and pushes", SHARES[0] * 100.0), &found);
        assert!(matches!(pusher.try_wait(), Ok(None)), "events are pushed until the end");
        end(&mut pusher);
    }
    say(&format!("pushes: {PUSHED} events a second beside, whose CPU is in the last line of each"));
}

fn show(entities: usize, load: &str, found: &Found) {
    let [median, high, highest] = [0.5, 0.99, 0.999].map(|share| quantile(&found.latencies_s, share) * 1e3);
    let asked = found.rate.map_or("-".to_owned(), |rate| format!("{rate:.0}"));
    let late = quantile(&found.send_late_s, 0.99) * 1e3;
    let (cpu_us, per_core) = (found.cpu_s / found.done() * 1e6, found.done() / found.cpu_s);
    say(&format!(
        "{entities:8}  {load:20} {asked:>7}  {:7.0}  {median:7.2}  {high:7.2}  {highest:8.2}  {late:13.2}  \
         {cpu_us:13.0}  {per_core:10.0}",
        found.per_second()
    ));
}

enum Load {
    /// Each connection asks again as soon as it is answered.
    Closed { seconds: f64 },
    /// `rate` requests a second, due by a schedule.
    Open { rate: f64, seconds: f64 },
}

struct Found {
    rate: Option<f64>,
    wall_s: f64,
    cpu_s: f64,
    /// From the instant at which a request was due to the last byte of its answer, ascending.
    latencies_s: Vec<f64>,
    /// How late requests were sent for which a connection was free: the clients' own share, ascending.
    send_late_s: Vec<f64>,
}

impl Found {
    fn done(&self) -> f64 {
        self.latencies_s.len() as f64
    }

    fn per_second(&self) -> f64 {
        self.done() / self.wall_s
    }
}

impl Server {
    fn measure(&self, requests: &[Vec<u8>], load: Load) -> Found {
        let (due_s, rate, seconds) = match load {
            Load::Closed { seconds } => (None, None, seconds),
            Load::Open { rate, seconds } => (Some(schedule(rate, seconds)), Some(rate), seconds),
        };
        let next = AtomicUsize::new(0);
        let connections: Vec<Connection> = (0..CONNECTIONS).map(|_| Connection::open(&self.address)).collect();
        let (cpu_s, began) = (self.cpu_s(), now());
        let parts: Vec<(Vec<f64>, Vec<f64>)> = std::thread::scope(|scope| {
            let ask = |mut connection: Connection| {
                let (mut latencies_s, mut send_late_s) = (Vec::new(), Vec::new());
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let free_s = began.elapsed().as_secs_f64();
                    let start_s = match due_s.as_ref().map(|due_s| due_s.get(number)) {
                        Some(Some(due_s)) => *due_s,
                        None if free_s < seconds => free_s,
                        _ => return (latencies_s, send_late_s),
                    };
                    if start_s > free_s {
                        std::thread::sleep(Duration::from_secs_f64(start_s - free_s));
                        send_late_s.push((began.elapsed().as_secs_f64() - start_s).max(0.0));
                    }
                    connection.ask(&requests[number % requests.len()]);
                    latencies_s.push(began.elapsed().as_secs_f64() - start_s);
                }
            };
            let threads: Vec<_> =
                connections.into_iter().map(|connection| scope.spawn(move || ask(connection))).collect();
            threads.into_iter().map(|thread| thread.join().expect("a client ends")).collect()
        });
        let (wall_s, cpu_s) = (began.elapsed().as_secs_f64(), self.cpu_s() - cpu_s);
        let (mut latencies_s, mut send_late_s) = (Vec::new(), Vec::new());
        for (latencies, late) in parts {
            latencies_s.extend(latencies);
            send_late_s.extend(late);
        }
        latencies_s.sort_by(f64::total_cmp);
        send_late_s.sort_by(f64::total_cmp);
        Found { rate, wall_s, cpu_s, latencies_s, send_late_s }
    }
}

/// Seconds from the beginning at which requests are due, with exponential gaps, the same in each run.
fn schedule(rate: f64, seconds: f64) -> Vec<f64> {
    let (mut due_s, mut at_s, mut state) = (Vec::new(), 0.0, 1_u64);
    loop {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let uniform = ((state >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
        at_s -= uniform.ln() / rate;
        if at_s > seconds {
            return due_s;
        }
        due_s.push(at_s);
    }
}
