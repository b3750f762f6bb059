//! CPU an event of the embedded stream on the canonical job (eight features over four views), beside decoding alone.
//!
//! `cargo bench --bench stream [-- ROWS [WARM_UP [FOLDING_THREADS]]]`, after `cargo build --release --target wasm32-unknown-unknown` in
//! `udfs/`. Rows are read from the push log (appending them is not counted) by a process that has folded the warm-up
//! rows before; checkpoints every 5 s, files synced. CPU is user and system time of the whole process, from reading
//! the log until the last row can be looked up; what a restart costs by itself is measured apart and taken off. All in
//! one run, so that the ratios hold on any machine. The steps are wall time of the threads that do them: they add up to
//! the CPU time as long as there are cores for the reading thread and the folding ones.

use onefold::canonical::Canonical;
use onefold::clock::{Clock, SystemClock};
use onefold::decode::JsonDecoder;
use onefold::define::{Source, read_directory};
use onefold::platform::{Platform, PlatformSettings, module_cache};
use onefold::registry::ApplyOptions;
use onefold::source::{Append, LogSettings, PushLog, Records};
use onefold::storage::{LocalStorage, Storage};
use onefold::stream::{Compiled, Places, Router, Steps};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const PROJECT: &str = "ecommerce";
const SOURCE: &str = "transactions";
const READ_BYTES: usize = 1_600_000;
const APPEND_ROWS: usize = 20_000;
/// Ticks of `/proc/self/stat` are a hundredth of a second on Linux.
const TICK_NS: f64 = 1e7;

#[expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]
fn main() {
    let numbers: Vec<u64> = std::env::args().skip(1).filter_map(|argument| argument.parse().ok()).collect();
    let rows = numbers.first().copied().unwrap_or(300_000);
    let warm_up = numbers.get(1).copied().unwrap_or(rows / 5);
    let threads = numbers.get(2).copied().unwrap_or(1) as usize;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let storage: Arc<dyn Storage> = Arc::new(LocalStorage::open(directory.path()).expect("storage"));
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let modules = module_cache().expect("an engine");
    let open = || {
        let settings = PlatformSettings { threads, ..PlatformSettings::default() };
        Platform::open_with(settings, storage.clone(), clock.clone(), modules.clone()).expect("the platform opens")
    };
    let platform = open();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let definitions = read_directory(&root.join("examples/ecommerce/definitions")).expect("the definitions");
    let proposal = platform.plan(PROJECT, &definitions, &ApplyOptions::default()).expect("a plan");
    platform.apply(PROJECT, &proposal).expect("applied");
    let host = platform.project(PROJECT).expect("the project");
    let live = host.live().expect("a live revision");
    let source: Source = live.revision.project.sources[SOURCE].clone();
    let compiled = live.compiled.clone();
    drop((host, live));
    platform.close().expect("closed");
    drop(platform);

    // The canonical rows: the warm-up is the first part of the same sixty days.
    let (bytes, ends) = Canonical::new(1, warm_up + rows).lines();
    let starts = std::iter::once(0).chain(ends.iter().map(|end| end + 1));
    let lines: Vec<&[u8]> = starts.zip(&ends).map(|(start, end)| &bytes[start..*end]).collect();
    let (early, measured) = lines.split_at(warm_up as usize);
    let path = format!("projects/{PROJECT}/log/{}", source.lineage);
    let append = |lines: &[&[u8]]| {
        let log = PushLog::open(storage.clone(), &path, clock.clone(), LogSettings::default()).expect("the log");
        let began = (cpu_ns(), clock.monotonic_us());
        for lines in lines.chunks(APPEND_ROWS) {
            let records = Records::from_slices(lines.iter().copied()).expect("less than 4 GiB");
            let append = Append { records, arrival_us: clock.now_us(), idempotency: None, answer: Default::default() };
            log.append(append).expect("appended");
        }
        (cpu_ns() - began.0, (clock.monotonic_us() - began.1) as f64 * 1e3)
    };
    let per_row = |ns: f64| ns / rows as f64;

    append(early);
    drop(open().close());
    let decode = decode_alone(&source, measured);
    let route = route_alone(&compiled, &source, measured);
    let appended = append(measured);
    let mut busy_us = BTreeMap::new();
    let (mut streamed, mut wall) = timed(&*clock, || {
        let platform = open();
        let host = platform.project(PROJECT).expect("the project");
        busy_us = host.status().stream.busy_us;
        platform.close().expect("closed");
    });
    let restart = timed(&*clock, || drop(open().close()));
    streamed -= restart.0;
    wall -= restart.1;

    println!(
        "{rows} events of {} bytes after {warm_up} of warm-up, {threads} folding thread(s)",
        bytes.len() / lines.len()
    );
    println!("{:8.0} ns  {:5.2}x  decoding alone (CPU, one thread)", per_row(decode), 1.0);
    println!("{:8.0} ns  {:5.2}x  decode, transform, key, hash, route", per_row(route), route / decode);
    println!(
        "{:8.0} ns  {:5.2}x  the stream: log to readable (CPU, all threads)",
        per_row(streamed),
        streamed / decode
    );
    println!("{:8.0} ns  {:5.2}x  the same in wall time", per_row(wall), wall / decode);
    println!(
        "{:8.0} ns  {:5.2}x  appending to the log, synced (CPU; not in the above)",
        per_row(appended.0),
        appended.0 / decode
    );
    println!("{:8.0} ms         a restart by itself (wall)\n", restart.1 / 1e6);
    for (step, us) in &busy_us {
        println!("{:8.0} ns  {:5.2}x  {step}", per_row(*us as f64 * 1e3), *us as f64 * 1e3 / decode);
    }
}

fn decode_alone(source: &Source, lines: &[&[u8]]) -> f64 {
    let mut decoder = JsonDecoder::new(source).expect("a decoder");
    let began = cpu_ns();
    for lines in lines.chunks(8192) {
        let decoded = decoder.decode(lines.iter().copied()).expect("decoded");
        assert_eq!(decoded.batch.num_rows(), lines.len(), "every row decodes");
    }
    cpu_ns() - began
}

fn route_alone(compiled: &Arc<Compiled>, source: &Source, lines: &[&[u8]]) -> f64 {
    let mut router =
        Router::new(compiled.clone(), source, 1, Arc::new(Steps::new(Arc::new(SystemClock::new())))).expect("a router");
    // Through a log of its own, since that is where a router's batches come from.
    let directory = tempfile::tempdir().expect("a temporary directory");
    let storage: Arc<dyn Storage> = Arc::new(LocalStorage::open(directory.path()).expect("storage"));
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let log = PushLog::open(storage, "log", clock.clone(), LogSettings::default()).expect("the log");
    for lines in lines.chunks(APPEND_ROWS) {
        let records = Records::from_slices(lines.iter().copied()).expect("less than 4 GiB");
        let append = Append { records, arrival_us: clock.now_us(), idempotency: None, answer: Default::default() };
        log.append(append).expect("appended");
    }
    let mut reader = log.reader(0).expect("a reader");
    let began = cpu_ns();
    while reader.position() < log.end_position() {
        let batches = reader.next(READ_BYTES, Duration::ZERO).expect("read");
        let routed = router.route(&batches).expect("routed");
        let places = Places::new(&batches);
        assert!(routed.letters.is_empty() && places.position(0) < log.end_position(), "nothing is refused");
    }
    cpu_ns() - began
}

fn timed(clock: &dyn Clock, work: impl FnOnce()) -> (f64, f64) {
    let began = (cpu_ns(), clock.monotonic_us());
    work();
    (cpu_ns() - began.0, (clock.monotonic_us() - began.1) as f64 * 1e3)
}

/// User and system time of this process.
fn cpu_ns() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux tells a process's times");
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks = |place: usize| after_name.split_whitespace().nth(place).and_then(|field| field.parse::<f64>().ok());
    (ticks(11).unwrap_or(0.0) + ticks(12).unwrap_or(0.0)) * TICK_NS
}
