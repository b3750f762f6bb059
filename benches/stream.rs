//! CPU an event of the embedded stream on the canonical job (eight features over four views), beside decoding alone.
//!
//! `cargo bench --workspace --bench stream [-- ROWS [WARM_UP [FOLDING_THREADS]]]`, after `cargo build --release
//! --target wasm32-unknown-unknown` in `udfs/`. Two more modes, and `--json` for one line of JSON on the standard output:
//!
//! - `-- --cores [ROWS [WARM_UP]]`: the same in a process of its own each, held to one core and to two (`taskset`).
//! - `-- --flat [ROWS [FOLDING_THREADS]]`: one stream that goes on, its cost an event up to a hundredth and a tenth of
//!   ROWS, and up to ROWS; once with keys as generated, once with keys that are all known before.
//!
//! Rows are read from the push log (appending them is measured apart, and HTTP in `live.rs`) by a process that has
//! folded the warm-up rows before. CPU is user and system time of the whole process, all threads, from opening the data
//! directory until the last row can be looked up, then the last checkpoint, and letting go; a restart over the warm-up
//! alone, the median of three before the rows are appended, is taken off. All in one run, so that the ratios hold on any
//! machine. The steps are wall time of the threads that do them: they add up to the CPU time as long as there are cores
//! for the reading thread and the folding ones.
//!
//! What is held, and where it is set: keys as generated (`Canonical::new`); at most 8192 rows a batch (pushes of
//! `APPEND_ROWS`, of which as many are read at once as fit `READ_BYTES` of `host/stream/reading.rs`: 7,000 rows; the
//! largest batch is counted here and must hold); no linger (that file's `WAIT` of 5 ms is for a log without rows);
//! checkpoints every 5 s (`PlatformSettings::default`); every push, state file and manifest synced (`LocalStorage` has
//! no other way). Decoding alone is the stream's own decoder (`JsonDecoder`) over the same rows, all eight columns.

use onefold::canonical::{Canonical, Row};
use onefold::clock::{Clock, SystemClock};
use onefold::decode::JsonDecoder;
use onefold::define::{Source, read_directory};
use onefold::platform::{Platform, PlatformSettings, module_cache};
use onefold::registry::{ApplyOptions, ModuleCache};
use onefold::source::{Append, LogSettings, PushLog, Records};
use onefold::storage::{LocalStorage, Storage};
use onefold::stream::{Compiled, Places, Router, Steps};
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::ops::{AddAssign, Sub};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

const PROJECT: &str = "ecommerce";
const SOURCE: &str = "transactions";
/// As in `host/stream/reading.rs`.
const READ_BYTES: usize = 1_600_000;
const LARGEST_BATCH: usize = 8192;
/// Rows of a push.
const APPEND_ROWS: usize = 1000;
/// Rows that are held as text at once.
const PIECE_ROWS: u64 = 250_000;
const RESTARTS: usize = 3;
/// Rows whose keys come again and again where no key is to be new.
const KNOWN_ROWS: u64 = 100_000;
const DAY_US: i64 = 86_400_000_000;
/// Ticks of `/proc/self/stat` are a hundredth of a second on Linux.
const TICK_NS: f64 = 1e7;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let is_asked = |name: &str| arguments.iter().any(|argument| argument == name);
    let numbers: Vec<u64> = arguments.iter().filter_map(|argument| argument.parse().ok()).collect();
    let number = |place: usize, default: u64| numbers.get(place).copied().unwrap_or(default);
    let json = is_asked("--json");
    if is_asked("--cores") {
        let rows = number(0, 5_000_000);
        cores(rows, number(1, rows / 5), json);
    } else if is_asked("--flat") {
        flat(number(0, 10_000_000), number(1, 1) as usize, json);
    } else {
        let rows = number(0, 300_000);
        canonical(rows, number(1, rows / 5), number(2, 1) as usize, json);
    }
}

fn canonical(rows: u64, warm_up: u64, threads: usize, json: bool) {
    let bench = Bench::new(threads);
    let mut all = Canonical::new(1, warm_up + rows).rows();
    let (mut appended, mut decode, mut bytes) = (Times::default(), Times::default(), 0);
    bench.append_all(&mut all, warm_up, |_, _| ());
    drop(bench.open().close());
    let restart = bench.restart();
    bench.append_all(&mut all, rows, |lines, took| {
        appended += took;
        decode += bench.decode_alone(lines);
        bytes += lines.bytes.len();
    });
    let (route, largest) = bench.route_alone(warm_up);
    say(&format!("streaming {rows} rows"));
    let streamed = bench.stream();
    let (cpu, wall) = (streamed.all - restart.all, streamed.readable - restart.readable);

    let lines = [
        ("decoding alone (one thread)", decode),
        ("decode, transform, key, hash, route (one thread)", route),
        ("the stream: log to readable, and its checkpoints (all threads)", cpu),
        ("appending to the log, synced (not in the above)", appended),
    ];
    if json {
        let told = |times: &Times| times.an_event(rows);
        let busy: BTreeMap<&str, f64> =
            streamed.busy_us.iter().map(|(step, us)| (*step, *us as f64 * 1e3 / rows as f64)).collect();
        print(
            &json!({
                "rows": rows, "warm_up": warm_up, "threads": threads, "largest_batch": largest,
                "decode": told(&decode), "route": told(&route), "stream": told(&cpu), "append": told(&appended),
                "wall_ns": wall.wall_ns / rows as f64, "restart_ms": restart.readable.wall_ns / 1e6, "steps_ns": busy,
            })
            .to_string(),
        );
        return;
    }
    print(&format!(
        "{rows} events of {} bytes after {warm_up} of warm-up, {threads} folding thread(s), batches of up to {largest} \
         rows, {} entities in the end\n",
        bytes as u64 / rows,
        streamed.entities
    ));
    print("ns an event:  CPU    user  system  x decoding");
    for (what, times) in &lines {
        let [cpu, user, system] = [times.cpu_ns(), times.user_ns, times.system_ns].map(|ns| ns / rows as f64);
        print(&format!("         {cpu:8.0}{user:8.0}{system:8.0}{:10.2}x  {what}", times.cpu_ns() / decode.cpu_ns()));
    }
    print(&format!(
        "\n{:8.0} ns  {:5.2}x  wall time an event of the stream, until the last is readable: {:.0} events/s",
        wall.wall_ns / rows as f64,
        wall.wall_ns / decode.cpu_ns(),
        rows as f64 / wall.wall_ns * 1e9
    ));
    print(&format!("{:8.0} ms         a restart by itself (wall)\n", restart.readable.wall_ns / 1e6));
    for (step, us) in &streamed.busy_us {
        let ns = *us as f64 * 1e3;
        print(&format!("{:8.0} ns  {:5.2}x  {step}", ns / rows as f64, ns / decode.cpu_ns()));
    }
}

/// The same in processes that are held to cores: a process of one core does all its work there, reading and storing
/// too.
fn cores(rows: u64, warm_up: u64, json: bool) {
    let own = std::env::current_exe().expect("this program has a path");
    let measure = |cores: &str, threads: &str| -> Json {
        say(&format!("cores {cores}, {threads} folding thread(s)"));
        let mut command = Command::new("taskset");
        command.args(["-c", cores]).arg(&own).args([&rows.to_string(), &warm_up.to_string(), threads, "--json"]);
        let done = command.stderr(Stdio::inherit()).output().expect("taskset (util-linux) runs");
        assert!(done.status.success(), "the benchmark on cores {cores} failed: {}", done.status);
        serde_json::from_slice(&done.stdout).expect("one line of JSON")
    };
    let cases = [("0", "1"), ("0", "2"), ("0,1", "1"), ("0,1", "2")];
    let measured = cases.map(|(cores, threads)| measure(cores, threads));
    let wall_ns = |case: usize| measured[case]["wall_ns"].as_f64().unwrap_or(f64::NAN);
    let ratio = wall_ns(0).min(wall_ns(1)) / wall_ns(2).min(wall_ns(3));
    if json {
        let cases: Vec<Json> = cases
            .iter()
            .zip(&measured)
            .map(|((cores, threads), found)| json!({ "cores": cores, "threads": threads, "found": found }))
            .collect();
        return print(&json!({ "cases": cases, "two_cores_over_one": ratio }).to_string());
    }
    print(&format!("{rows} events after {warm_up} of warm-up; a process each, held to these cores\n"));
    print("cores  folding threads   wall ns an event   events/s   CPU ns an event   against one core, one thread");
    for (case, (cores, threads)) in cases.iter().enumerate() {
        let cpu_ns = measured[case]["stream"]["cpu_ns"].as_f64().unwrap_or(f64::NAN);
        print(&format!(
            "{cores:5}  {threads:>15}   {:16.0}   {:8.0}   {cpu_ns:15.0}   {:27.2}x",
            wall_ns(case),
            1e9 / wall_ns(case),
            wall_ns(0) / wall_ns(case)
        ));
    }
    print(&format!("\nthe faster of two cores against the faster of one: {ratio:.2}x"));
}

/// One stream that goes on. Its rows cover sixty days, however many they are. Where no key is to be new, each row has the
/// keys of one of the first rows in turn, and all of them have come once over the thirty days before.
fn flat(rows: u64, threads: usize, json: bool) {
    let mut told = Vec::new();
    for is_known in [false, true] {
        let what = if is_known { "keys that are all known before" } else { "keys as generated" };
        let bench = Bench::new(threads);
        let warm_up = if is_known { KNOWN_ROWS } else { 0 };
        let shape = Canonical::new(1, warm_up + rows);
        let keys: Vec<[u64; 3]> =
            shape.rows().take(warm_up as usize).map(|row| [row.customer, row.product, row.category]).collect();
        let (begin_us, warm_up_us) = (shape.end_us - shape.span_us, 30 * DAY_US);
        let mut all = shape.rows().map(|mut row| {
            if let Some(known) = keys.get((row.number % KNOWN_ROWS) as usize) {
                [row.customer, row.product, row.category] = *known;
            }
            if row.number < warm_up {
                row.transaction_date_us = begin_us - warm_up_us + warm_up_us / warm_up as i64 * row.number as i64;
            }
            row
        });
        bench.append_all(&mut all, warm_up, |_, _| ());
        drop(bench.open().close());
        if !json {
            print(&format!("\n{what}, {threads} folding thread(s)"));
            print("  rows so far   entities      CPU ns an event of these rows (user, system)   of all so far");
        }
        let (mut so_far, mut before) = (Times::default(), 0);
        for until in [rows / 100, rows / 10, rows] {
            let restart = bench.restart();
            bench.append_all(&mut all, until - before, |_, _| ());
            say(&format!("streaming up to row {until} of {rows}, {what}"));
            let streamed = bench.stream();
            let part = streamed.all - restart.all;
            so_far += part;
            let [cpu, user, system] =
                [part.cpu_ns(), part.user_ns, part.system_ns].map(|ns| ns / (until - before) as f64);
            let all = so_far.cpu_ns() / until as f64;
            if !json {
                print(&format!("{until:13}{:11}{cpu:21.0} ({user:.0}, {system:.0}){all:27.0}", streamed.entities));
            }
            told.push(json!({
                "known": is_known, "rows": until, "entities": streamed.entities, "cpu_ns": cpu, "user_ns": user,
                "system_ns": system, "all_cpu_ns": all,
            }));
            before = until;
        }
        let of_reading = &told[told.len() - 3..];
        let cpu_ns: Vec<f64> = of_reading.iter().filter_map(|part| part["cpu_ns"].as_f64()).collect();
        let (least, most) = cpu_ns.iter().fold((f64::MAX, 0.0_f64), |(low, high), ns| (low.min(*ns), high.max(*ns)));
        if !json {
            print(&format!("the dearest rows cost {:.0} % more than the cheapest", (most / least - 1.0) * 100.0));
        }
    }
    if json {
        print(&Json::from(told).to_string());
    }
}

#[expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]
fn print(text: &str) {
    println!("{text}");
}

fn say(text: &str) {
    eprintln!("{text}");
}

/// Time of this process.
#[derive(Clone, Copy, Default)]
struct Times {
    user_ns: f64,
    system_ns: f64,
    wall_ns: f64,
}

impl Times {
    fn cpu_ns(&self) -> f64 {
        self.user_ns + self.system_ns
    }

    fn an_event(&self, rows: u64) -> Json {
        let [cpu, user, system] = [self.cpu_ns(), self.user_ns, self.system_ns].map(|ns| ns / rows as f64);
        json!({ "cpu_ns": cpu, "user_ns": user, "system_ns": system })
    }
}

impl Sub for Times {
    type Output = Times;

    fn sub(self, other: Times) -> Times {
        Times {
            user_ns: self.user_ns - other.user_ns,
            system_ns: self.system_ns - other.system_ns,
            wall_ns: self.wall_ns - other.wall_ns,
        }
    }
}

impl AddAssign for Times {
    fn add_assign(&mut self, other: Times) {
        self.user_ns += other.user_ns;
        self.system_ns += other.system_ns;
        self.wall_ns += other.wall_ns;
    }
}

/// A life of the platform: until its log is readable, and until it is closed and gone.
struct Streamed {
    readable: Times,
    all: Times,
    busy_us: BTreeMap<&'static str, u64>,
    /// Of all views together.
    entities: u64,
}

struct Lines {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Lines {
    fn of(rows: impl Iterator<Item = Row>) -> Lines {
        let mut lines = Lines { bytes: Vec::new(), ends: Vec::new() };
        for row in rows {
            row.write_json(&mut lines.bytes);
            lines.ends.push(lines.bytes.len());
        }
        lines
    }

    fn slices(&self) -> Vec<&[u8]> {
        let starts = std::iter::once(&0).chain(&self.ends);
        starts.zip(&self.ends).map(|(start, end)| &self.bytes[*start..*end]).collect()
    }
}

/// The canonical job over a data directory of its own.
struct Bench {
    threads: usize,
    clock: Arc<dyn Clock>,
    storage: Arc<dyn Storage>,
    modules: Arc<ModuleCache>,
    source: Source,
    compiled: Arc<Compiled>,
    /// Gone at the end.
    _directory: tempfile::TempDir,
}

impl Bench {
    fn new(threads: usize) -> Bench {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let storage: Arc<dyn Storage> = Arc::new(LocalStorage::open(directory.path()).expect("storage"));
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let modules = module_cache().expect("an engine");
        let platform = open(threads, &storage, &clock, &modules);
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let definitions = read_directory(&root.join("examples/ecommerce/definitions")).expect("the definitions");
        let proposal = platform.plan(PROJECT, &definitions, &ApplyOptions::default()).expect("a plan");
        platform.apply(PROJECT, &proposal).expect("applied");
        let live = platform.project(PROJECT).expect("the project").live().expect("a live revision");
        let source = live.revision.project.sources[SOURCE].clone();
        let compiled = live.compiled.clone();
        drop(live);
        platform.close().expect("closed");
        Bench { threads, clock, storage, modules, source, compiled, _directory: directory }
    }

    fn open(&self) -> Arc<Platform> {
        open(self.threads, &self.storage, &self.clock, &self.modules)
    }

    fn times(&self) -> Times {
        let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux tells a process's times");
        let after_name = stat.rsplit(')').next().unwrap_or_default();
        let ticks = |place: usize| after_name.split_whitespace().nth(place).and_then(|field| field.parse::<f64>().ok());
        let ns = |place: usize| ticks(place).unwrap_or(0.0) * TICK_NS;
        Times { user_ns: ns(11), system_ns: ns(12), wall_ns: self.clock.monotonic_us() as f64 * 1e3 }
    }

    fn log(&self) -> PushLog {
        let path = format!("projects/{PROJECT}/log/{}", self.source.lineage);
        PushLog::open(self.storage.clone(), &path, self.clock.clone(), LogSettings::default()).expect("the log")
    }

    /// Appends the next `count` rows, a piece at a time; each piece and the times of its append are given to `see`.
    fn append_all(&self, rows: &mut impl Iterator<Item = Row>, count: u64, mut see: impl FnMut(&Lines, Times)) {
        let log = self.log();
        let mut left = count;
        while left > 0 {
            let piece = left.min(PIECE_ROWS);
            let lines = Lines::of(rows.by_ref().take(piece as usize));
            let before = self.times();
            for slices in lines.slices().chunks(APPEND_ROWS) {
                let records = Records::from_slices(slices.iter().copied()).expect("less than 4 GiB");
                let arrival_us = self.clock.now_us();
                let append = Append { records, arrival_us, idempotency: None, answer: Default::default() };
                log.append(append).expect("appended");
            }
            see(&lines, self.times() - before);
            left -= piece;
            say(&format!("appended {} of {count} rows", count - left));
        }
    }

    /// Opens, folds what the log has, and closes.
    fn stream(&self) -> Streamed {
        let before = self.times();
        let platform = self.open();
        let readable = self.times() - before;
        let status = platform.project(PROJECT).expect("the project").status().stream;
        platform.close().expect("closed");
        drop(platform);
        let entities = status.tables.iter().map(|table| table.entities).sum();
        Streamed { readable, all: self.times() - before, busy_us: status.busy_us, entities }
    }

    /// The same where the log has nothing new: the median by CPU of some.
    fn restart(&self) -> Streamed {
        let mut restarts: Vec<Streamed> = (0..RESTARTS).map(|_| self.stream()).collect();
        restarts.sort_by(|one, other| one.all.cpu_ns().total_cmp(&other.all.cpu_ns()));
        restarts.swap_remove(RESTARTS / 2)
    }

    fn decode_alone(&self, lines: &Lines) -> Times {
        let mut decoder = JsonDecoder::new(&self.source).expect("a decoder");
        let slices = lines.slices();
        let before = self.times();
        for slices in slices.chunks(LARGEST_BATCH) {
            let decoded = decoder.decode(slices.iter().copied()).expect("decoded");
            assert_eq!(decoded.batch.num_rows(), slices.len(), "every row decodes");
        }
        self.times() - before
    }

    /// Reads and routes the log from a position, as the stream's reading thread does. Also gives the largest batch.
    fn route_alone(&self, from: u64) -> (Times, usize) {
        let steps = Arc::new(Steps::new(self.clock.clone()));
        let mut router = Router::new(self.compiled.clone(), &self.source, 1, steps).expect("a router");
        let log = self.log();
        let mut reader = log.reader(from).expect("a reader");
        let mut largest = 0;
        let before = self.times();
        while reader.position() < log.end_position() {
            let batches = reader.next(READ_BYTES, Duration::ZERO).expect("read");
            largest = largest.max(batches.iter().map(|batch| batch.records.len()).sum());
            let routed = router.route(&batches).expect("routed");
            let places = Places::new(&batches);
            assert!(routed.letters.is_empty() && places.position(0) < log.end_position(), "nothing is refused");
        }
        let took = self.times() - before;
        assert!(largest <= LARGEST_BATCH, "a batch of {largest} rows is larger than {LARGEST_BATCH}");
        (took, largest)
    }
}

fn open(
    threads: usize,
    storage: &Arc<dyn Storage>,
    clock: &Arc<dyn Clock>,
    modules: &Arc<ModuleCache>,
) -> Arc<Platform> {
    let settings = PlatformSettings { threads, ..PlatformSettings::default() };
    Platform::open_with(settings, storage.clone(), clock.clone(), modules.clone()).expect("the platform opens")
}
