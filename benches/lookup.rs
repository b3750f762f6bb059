//! Lookups over HTTP from another process, open loop: latency, and requests a second per core of the server.
//!
//! `cargo bench --workspace --bench lookup [-- ROWS [SECONDS]]`, after `cargo build --release --target
//! wasm32-unknown-unknown` in `udfs/`. A real `onefold dev` holds the canonical job over ROWS of history; keys are
//! those of its rows, so all eight features are there and hot keys are asked for as often as they sell. What a closed
//! loop gets is measured first; then requests arrive by a schedule fixed before (exponential gaps) at shares of that,
//! whether earlier ones are answered or not, and a request's latency counts from the instant at which it was due: a
//! server that stalls cannot make it look better. CPU is the server's user and system time. The clients run on the
//! same cores.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const CONNECTIONS: usize = 16;
const CLOSED_LOOP_SECONDS: f64 = 3.0;
const SHARES: [f64; 4] = [0.1, 0.5, 0.8, 0.9];
/// Events a second that are pushed beside lookups.
const PUSHED: usize = 2000;
/// Ticks of `/proc/PID/stat` are a hundredth of a second on Linux.
const TICK_S: f64 = 0.01;
const FEATURES: [&str; 4] = ["product_stats", "customer_stats", "customer_product", "category_stats"];

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
        let mut pusher = shop.push(&server.address, seconds);
        let rate = most.per_second() * SHARES[0];
        let found = server.measure(&requests, Load::Open { rate, seconds });
        show(entities, &format!("{:.0} %, and pushes", SHARES[0] * 100.0), &found);
        assert!(matches!(pusher.try_wait(), Ok(None)), "events are pushed until the end");
        end(&mut pusher);
    }
    say(&format!("pushes: {PUSHED} events a second beside, whose CPU is in the last line of each"));
}

#[expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]
fn say(text: &str) {
    println!("{text}");
}

#[expect(clippy::disallowed_methods, reason = "it measures another process: no value of the project depends on it")]
fn now() -> Instant {
    Instant::now()
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

/// Of values in ascending order; 0 of none.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = ((sorted.len() as f64 * share) as usize).min(sorted.len().saturating_sub(1));
    sorted.get(place).copied().unwrap_or_default()
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

struct Server {
    process: Child,
    address: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        end(&mut self.process);
    }
}

impl Server {
    fn start(shop: &Shop) -> Server {
        let mut process = shop.onefold(&["--data", "state", "dev", "definitions", "--listen", "127.0.0.1:0"]);
        let mut process = process.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("onefold dev starts");
        let lines = BufReader::new(process.stdout.take().expect("its output")).lines();
        let said =
            lines.map_while(Result::ok).find_map(|line| Some(line.strip_prefix("listening at http://")?.to_owned()));
        let address = said.expect("onefold dev says where it listens");
        Server { process, address }
    }

    /// User and system time so far, in seconds.
    fn cpu_s(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id())).expect("the server runs");
        let after_name = stat.rsplit(')').next().unwrap_or_default();
        let ticks = |place: usize| after_name.split_whitespace().nth(place).and_then(|field| field.parse::<f64>().ok());
        (ticks(11).unwrap_or(0.0) + ticks(12).unwrap_or(0.0)) * TICK_S
    }

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

/// A connection that stays open.
struct Connection {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Connection {
    fn open(address: &str) -> Connection {
        let stream = TcpStream::connect(address).expect("the server takes connections");
        stream.set_nodelay(true).expect("small requests go out at once");
        Connection { stream, read: Vec::new() }
    }

    /// Gives the body of the answer, which must be 200.
    fn ask(&mut self, request: &[u8]) -> &[u8] {
        self.stream.write_all(request).expect("a request goes out");
        self.read.clear();
        let mut piece = [0; 65_536];
        let mut body = None;
        while body.is_none_or(|(start, length): (usize, usize)| self.read.len() < start + length) {
            let bytes = self.stream.read(&mut piece).expect("an answer");
            assert!(bytes > 0, "the server closed the connection");
            self.read.extend_from_slice(&piece[..bytes]);
            body = body.or_else(|| body_of(&self.read));
        }
        assert!(self.read.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&self.read));
        &self.read[body.map_or(0, |(start, _)| start)..]
    }
}

/// Where the body of an answer begins and how long it is, once its head is there.
fn body_of(read: &[u8]) -> Option<(usize, usize)> {
    let end = read.windows(4).position(|bytes| bytes == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&read[..end]).expect("a head is text").to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")).expect("an answer has a length");
    Some((end + 4, length.trim().parse().expect("a length is a number")))
}

/// A directory with definitions, rows and state, gone at the end.
struct Shop {
    work: PathBuf,
}

impl Drop for Shop {
    fn drop(&mut self) {
        // A directory that stays is no reason to fail.
        let _ = std::fs::remove_dir_all(&self.work);
    }
}

impl Shop {
    fn open(rows: u64) -> Shop {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let shop = Shop { work: std::env::temp_dir().join(format!("onefold-lookup-{}", std::process::id())) };
        std::fs::create_dir_all(shop.work.join("definitions")).expect("a temporary directory");
        let module = root.join("udfs/target/wasm32-unknown-unknown/release/ecommerce.wasm");
        std::fs::copy(&module, shop.work.join("ecommerce.wasm")).expect("udfs/ is built");
        for name in ["project.yaml", "transactions.yaml", "views.yaml"] {
            let text = std::fs::read_to_string(root.join("examples/ecommerce/definitions").join(name));
            let moved = |line: &str| match line.starts_with("path: ") {
                true => "path: ../ecommerce.wasm\n".to_owned(),
                false => format!("{line}\n"),
            };
            let text: String = text.expect("the definitions").lines().map(moved).collect();
            std::fs::write(shop.work.join("definitions").join(name), text).expect("written");
        }
        // Up to now: older values would be outside the views' ttl.
        shop.run(&["generate", "ecommerce", "--rows", &rows.to_string(), "--out", "data", "--end", "now"]);
        shop.run(&["--data", "state", "apply", "definitions"]);
        shop.run(&["--data", "state", "materialize"]);
        shop
    }

    fn onefold(&self, arguments: &[&str]) -> Command {
        let program = std::env::var("ONEFOLD_BIN").ok().or(option_env!("CARGO_BIN_EXE_onefold").map(str::to_owned));
        let mut command = Command::new(program.expect("ONEFOLD_BIN, or `cargo bench`, says where onefold is"));
        command.args(arguments).current_dir(&self.work);
        command
    }

    fn run(&self, arguments: &[&str]) {
        let done = self.onefold(arguments).output().expect("onefold runs");
        assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    }

    fn push(&self, address: &str, seconds: f64) -> Child {
        let (rows, rate) = ((seconds * 2.0 * PUSHED as f64).to_string(), PUSHED.to_string());
        let url = format!("http://{address}");
        let arguments = ["generate", "ecommerce", "--rows", &rows, "--rate", &rate, "--seed", "2", "--push", &url];
        self.onefold(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("pushes start")
    }

    /// `count` requests for the keys of rows from all over the history; the first is tried.
    fn requests(&self, address: &str, entities: usize, count: usize) -> Vec<Vec<u8>> {
        let text = std::fs::read_to_string(self.work.join("data/transactions.jsonl")).expect("the rows");
        let step = text.len() / (count * entities);
        let mut places = (0..count * entities).map(|number| {
            let start = text[..number * step].rfind('\n').map_or(0, |end| end + 1);
            text[start..].lines().next().unwrap_or_default()
        });
        let features = FEATURES.map(|name| format!("\"{name}\"")).join(",");
        let request = |_| {
            let lines: Vec<&str> = places.by_ref().take(entities).collect();
            let list = |key: &str| lines.iter().map(|line| text_of(line, key)).collect::<Vec<_>>().join(",");
            let keys =
                ["product_id", "customer_id", "category"].map(|key| format!("\"{key}\":[{}]", list(key))).join(",");
            let body = format!("{{\"features\":[{features}],\"entities\":{{{keys}}}}}");
            let head = format!(
                "POST /v1/projects/ecommerce/features HTTP/1.1\r\nhost: {address}\r\n\
                 content-type: application/json\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            (head + &body).into_bytes()
        };
        let requests: Vec<Vec<u8>> = (0..count).map(request).collect();
        let mut connection = Connection::open(address);
        let answer = String::from_utf8_lossy(connection.ask(&requests[count / 2])).into_owned();
        // Of eight features a review may be missing: the row that was asked for need not be rated.
        let present = answer.matches("\"PRESENT\"").count();
        assert!(present >= entities * 6 && !answer.contains("NOT_FOUND"), "{present} values present in {answer}");
        requests
    }
}

/// The quoted text of a member of a flat JSON object.
fn text_of<'a>(line: &'a str, key: &str) -> &'a str {
    let name = format!("\"{key}\":");
    let start = line.find(&name).map(|start| start + name.len()).expect("every row has its keys");
    let length = line[start + 1..].find('"').expect("a key is text") + 2;
    &line[start..start + length]
}

/// Ends a process and waits for it.
fn end(process: &mut Child) {
    let _ = process.kill();
    let _ = process.wait();
}
