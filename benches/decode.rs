//! Nanoseconds a row to decode the canonical events, on one core, beside what decoding could cost at least.
//!
//! `cargo bench --bench decode [-- ROWS]`. Each line is the best of several rounds, all in one run, so the ratios hold
//! on any machine.

use onefold::canonical::Canonical;
use onefold::clock::{Clock, SystemClock};
use onefold::decode::JsonDecoder;
use onefold::define::{DecodeAs, Source, SourceColumn};
use onefold_fold::Kind;
use serde::Deserialize;

const BATCH: usize = 4096;
const ROUNDS: usize = 7;

#[expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]
fn main() {
    let asked = std::env::args().skip(1).find_map(|argument| argument.parse().ok());
    let rows: u64 = asked.unwrap_or(200_000);
    let (bytes, ends) = Canonical::new(1, rows).lines();
    let starts = std::iter::once(0).chain(ends.iter().map(|end| end + 1));
    let lines: Vec<&[u8]> = starts.zip(&ends).map(|(start, end)| &bytes[start..*end]).collect();
    println!("{rows} rows of {} bytes", bytes.len() / lines.len().max(1));

    let mut decoder = JsonDecoder::new(&source()).expect("the source has its event time");
    let ours = best(&lines, |batch| {
        let decoded = decoder.decode(batch.iter().copied()).expect("a small batch");
        decoded.batch.num_rows() as u64
    });
    let serde = best(&lines, |batch| {
        let parsed = batch.iter().filter_map(|line| serde_json::from_slice::<Purchase>(line).ok());
        parsed.map(|purchase| u64::from(purchase.quantity.is_some())).sum()
    });
    let scan = best(&lines, |batch| {
        batch.iter().map(|line| u64::from(std::str::from_utf8(line).is_ok_and(|text| text.ends_with('}')))).sum()
    });
    for (what, ns) in [
        ("to columns, every rule of the decoding table", ours),
        ("serde_json to a struct of borrowed text, time not parsed", serde),
        ("UTF-8 check alone", scan),
    ] {
        println!("{ns:7.1} ns a row  {:5.2}x  {what}", ns / ours);
    }
}

fn best(lines: &[&[u8]], mut run: impl FnMut(&[&[u8]]) -> u64) -> f64 {
    let clock = SystemClock::new();
    let mut best_us = u64::MAX;
    for _ in 0..ROUNDS {
        let start = clock.monotonic_us();
        let rows: u64 = lines.chunks(BATCH).map(&mut run).sum();
        best_us = best_us.min(clock.monotonic_us() - start);
        assert_eq!(rows, lines.len() as u64, "every row must be decoded, or less work was measured");
    }
    best_us as f64 * 1000.0 / lines.len() as f64
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "parsing them is the work that is measured")]
struct Purchase<'a> {
    transaction_id: Option<&'a str>,
    transaction_date: Option<&'a str>,
    customer_id: Option<&'a str>,
    product_id: Option<&'a str>,
    category: Option<&'a str>,
    quantity: Option<i64>,
    unit_price: Option<f64>,
    review_rating: Option<i64>,
}

fn source() -> Source {
    let column = |(name, kind): (&str, Kind)| SourceColumn {
        name: name.into(),
        decode: DecodeAs::Kind(kind),
        stream_path: vec![name.into()],
        batch_column: name.into(),
    };
    let columns = [
        ("transaction_id", Kind::Utf8),
        ("transaction_date", Kind::Timestamp),
        ("customer_id", Kind::Utf8),
        ("product_id", Kind::Utf8),
        ("category", Kind::Utf8),
        ("quantity", Kind::Int64),
        ("unit_price", Kind::Float64),
        ("review_rating", Kind::Int64),
    ];
    Source {
        name: "transactions".into(),
        about: Default::default(),
        lineage: "transactions".into(),
        push: true,
        batch_path: None,
        event_time: "transaction_date".into(),
        out_of_orderness_us: 0,
        max_future_us: 3_600_000_000,
        columns: columns.into_iter().map(column).collect(),
        transforms: Vec::new(),
    }
}
