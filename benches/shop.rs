//! What benchmarks over the real program share: a directory to run it in, the running `onefold dev`, a connection.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

/// Ticks of `/proc/PID/stat` are a hundredth of a second on Linux.
const TICK_S: f64 = 0.01;
const FEATURES: [&str; 4] = ["product_stats", "customer_stats", "customer_product", "category_stats"];

#[expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]
pub fn say(text: &str) {
    println!("{text}");
}

#[expect(clippy::disallowed_methods, reason = "it measures another process: no value of the project depends on it")]
pub fn now() -> Instant {
    Instant::now()
}

/// Of values in ascending order; 0 of none.
pub fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = ((sorted.len() as f64 * share) as usize).min(sorted.len().saturating_sub(1));
    sorted.get(place).copied().unwrap_or_default()
}

pub struct Server {
    pub process: Child,
    pub address: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        end(&mut self.process);
    }
}

impl Server {
    pub fn start(shop: &Shop) -> Server {
        let mut process = shop.onefold(&["--data", "state", "dev", "definitions", "--listen", "127.0.0.1:0"]);
        let mut process = process.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("onefold dev starts");
        let lines = BufReader::new(process.stdout.take().expect("its output")).lines();
        let said =
            lines.map_while(Result::ok).find_map(|line| Some(line.strip_prefix("listening at http://")?.to_owned()));
        let address = said.expect("onefold dev says where it listens");
        Server { process, address }
    }

    /// User and system time so far, in seconds.
    pub fn cpu_s(&self) -> f64 {
        let [user_s, system_s] = times_s(&self.proc("stat"));
        user_s + system_s
    }

    /// What `/proc` says of it now.
    pub fn proc(&self, name: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{name}", self.process.id())).expect("the server runs")
    }

    /// User and system time so far, in seconds, of each thread that has not ended, by name.
    pub fn threads_s(&self) -> BTreeMap<String, [f64; 2]> {
        let mut threads: BTreeMap<String, [f64; 2]> = BTreeMap::new();
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.process.id())).expect("the server runs");
        for task in tasks.flatten() {
            let read = |name: &str| std::fs::read_to_string(task.path().join(name)).ok();
            let (Some(name), Some(stat)) = (read("comm"), read("stat")) else { continue };
            let sum = threads.entry(name.trim().to_owned()).or_default();
            let [user_s, system_s] = times_s(&stat);
            *sum = [sum[0] + user_s, sum[1] + system_s];
        }
        threads
    }
}

/// User and system time, in seconds, of a `stat` of `/proc`.
pub fn times_s(stat: &str) -> [f64; 2] {
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks = |place: usize| after_name.split_whitespace().nth(place).and_then(|field| field.parse::<f64>().ok());
    [11, 12].map(|place| ticks(place).unwrap_or(0.0) * TICK_S)
}

/// A connection that stays open.
pub struct Connection {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Connection {
    pub fn open(address: &str) -> Connection {
        let stream = TcpStream::connect(address).expect("the server takes connections");
        stream.set_nodelay(true).expect("small requests go out at once");
        Connection { stream, read: Vec::new() }
    }

    /// Gives the body of the answer, whose status must be 200 or 202.
    pub fn ask(&mut self, request: &[u8]) -> &[u8] {
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
        assert!(self.read.starts_with(b"HTTP/1.1 20"), "{}", String::from_utf8_lossy(&self.read));
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

/// A directory with definitions, rows and state.
pub struct Shop {
    pub work: PathBuf,
    /// Gone at the end.
    _directory: tempfile::TempDir,
}

impl Shop {
    /// With the canonical job over so many rows of history, or none.
    pub fn open(rows: u64) -> Shop {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let directory = tempfile::tempdir().expect("a temporary directory");
        let shop = Shop { work: directory.path().to_owned(), _directory: directory };
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
        shop.run(&["--data", "state", "apply", "definitions"]);
        if rows == 0 {
            return shop;
        }
        // Up to now: older values would be outside the views' ttl.
        shop.run(&["generate", "ecommerce", "--rows", &rows.to_string(), "--out", "data", "--end", "now"]);
        shop.run(&["--data", "state", "materialize"]);
        shop
    }

    pub fn onefold(&self, arguments: &[&str]) -> Command {
        let program = std::env::var("ONEFOLD_BIN").ok().or(option_env!("CARGO_BIN_EXE_onefold").map(str::to_owned));
        let mut command = Command::new(program.expect("ONEFOLD_BIN, or `cargo bench`, says where onefold is"));
        command.args(arguments).current_dir(&self.work);
        command
    }

    fn run(&self, arguments: &[&str]) {
        let done = self.onefold(arguments).output().expect("onefold runs");
        assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    }

    /// Pushes so many events a second for up to twice as many seconds.
    pub fn push(&self, address: &str, rate: usize, seconds: f64) -> Child {
        let (rows, rate) = ((seconds * 2.0 * rate as f64).to_string(), rate.to_string());
        let url = format!("http://{address}");
        let arguments = ["generate", "ecommerce", "--rows", &rows, "--rate", &rate, "--seed", "2", "--push", &url];
        self.onefold(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("pushes start")
    }

    /// `count` requests for the keys of rows from all over the history; the first is tried.
    pub fn requests(&self, address: &str, entities: usize, count: usize) -> Vec<Vec<u8>> {
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
pub fn end(process: &mut Child) {
    let _ = process.kill();
    let _ = process.wait();
}
