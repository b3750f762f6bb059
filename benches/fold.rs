//! Nanoseconds a row to fold in Wasm, with all limits on, beside the same Rust compiled natively.
//!
//! `cargo bench --workspace --bench fold`. Both sides get the same tape, states and columns and must give the same
//! bytes. Wasm includes what a host pays for the call: columns copied in, fuel counted, every number that comes back
//! checked. Native is the module's own `fold`, called directly: no copy, no check, no limit. Each figure is the best
//! of many rounds that alternate, all in one run, so the ratios hold on any machine.

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array, TimestampMicrosecondArray};
use arrow::datatypes::{Float64Type, Int64Type, TimestampMicrosecondType};
use onefold::clock::{Clock, SystemClock};
use onefold::std_module::STD_WASM;
use onefold_fold::{Engine, Field, FoldCall, Kind, Limits, Module, Udf, op};
use onefold_udf::column::Column;
use onefold_udf::fold::Call;
use onefold_udf::{Instance, Kind as NativeKind};
use std::sync::Arc;

const ROUNDS: usize = 25;
/// A round is long enough for a clock of microseconds.
const ROUND_US: u64 = 3_000;
const GRID: [(u32, u32); 6] = [(1, 1), (64, 1), (64, 64), (4096, 1), (4096, 64), (4096, 4096)];
/// Of states of 100 KB, 64 would take more fuel than a call has; the hosts close a call long before.
const LARGE_GRID: [(u32, u32); 5] = [(1, 1), (64, 1), (64, 16), (4096, 1), (4096, 16)];
const LARGE_STATE_BYTES: usize = 10_000;

struct Feature {
    udf: &'static str,
    params: &'static str,
    input: Kind,
    /// Rows in every state that comes in.
    folded_rows: u32,
}

/// States of about 100 B and of about 100 KB.
const FEATURES: [Feature; 6] = [
    Feature { udf: "sum", params: "{}", input: Kind::Float64, folded_rows: 100 },
    Feature { udf: "last_n_mean", params: r#"{"n":6}"#, input: Kind::Float64, folded_rows: 100 },
    Feature { udf: "last_n", params: r#"{"n":7}"#, input: Kind::Int64, folded_rows: 100 },
    Feature { udf: "count_distinct", params: "{}", input: Kind::Int64, folded_rows: 17 },
    Feature { udf: "count_distinct", params: "{}", input: Kind::Int64, folded_rows: 17_000 },
    Feature { udf: "collect_distinct", params: "{}", input: Kind::Int64, folded_rows: 17_000 },
];

#[expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]
fn main() {
    let engine = Engine::new(Limits::default()).expect("the engine starts");
    let module = engine.load(STD_WASM).expect("std loads");
    let clock = SystemClock::new();
    println!("| udf | state bytes | rows | slots | native ns/row | Wasm ns/row | ratio |");
    println!("|---|---:|---:|---:|---:|---:|---:|");
    for feature in &FEATURES {
        let mut both = Both::prepare(&module, feature);
        let state = both.state_of(feature.folded_rows);
        let grid = if state.len() > LARGE_STATE_BYTES { &LARGE_GRID[..] } else { &GRID[..] };
        for &(rows, slots) in grid {
            let work = Work::new(&both, &state, rows, slots);
            work.assert_equal(&mut both);
            let (native, wasm) = work.time(&both, &clock);
            println!(
                "| {} {} | {} | {rows} | {slots} | {native:.1} | {wasm:.1} | {:.2} |",
                feature.udf,
                feature.params,
                state.len(),
                wasm / native
            );
        }
    }
}

/// One UDF on both sides.
struct Both {
    wasm: Udf,
    native: Instance,
    handle: u32,
}

impl Both {
    fn prepare(module: &Module, feature: &Feature) -> Both {
        let inputs = [Field::new("value", feature.input)];
        let wasm = module.prepare(feature.udf, feature.params, &inputs).expect("the module prepares it");
        let kind = if feature.input == Kind::Float64 { NativeKind::Float64 } else { NativeKind::Int64 };
        let mut native = Instance::new(onefold_std::MODULE);
        let inputs = [onefold_udf::Field::new("value", kind)];
        let (handle, _) = native.prepare(feature.udf, feature.params, &inputs).expect("the library prepares it");
        Both { wasm, native, handle }
    }

    /// The inputs of rows: different values in no order, and times that rise.
    fn columns(&self, first: u32, rows: u32) -> Vec<ArrayRef> {
        let value = |row: u32| i64::from(row.wrapping_mul(0x9e37_79b1) >> 2);
        let rows = first..first + rows;
        let values: ArrayRef = match self.wasm.columns()[0].kind {
            Kind::Float64 => Arc::new(Float64Array::from_iter_values(rows.clone().map(|row| value(row) as f64 * 0.01))),
            _ => Arc::new(Int64Array::from_iter_values(rows.clone().map(value))),
        };
        let mut columns = vec![values];
        if self.wasm.needs_event_time() {
            let times = rows.map(|row| 1_767_225_600_000_000 + i64::from(row) * 1_000_000);
            columns.push(Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC")));
        }
        columns
    }

    /// A state of so many rows.
    fn state_of(&self, rows: u32) -> Vec<u8> {
        let tape: Vec<u32> = (0..rows).flat_map(|row| [op::word(op::UPDATE, 0), row]).collect();
        let columns = self.columns(0, rows);
        let call = FoldCall {
            slots: 1,
            keep: 1,
            measure: 0,
            tape: &tape,
            state_offsets: &[],
            state_data: &[],
            rows,
            columns: &columns,
        };
        self.wasm.fold(&call).expect("it folds").state_data
    }
}

/// One call, in the form of each side.
struct Work {
    rows: u32,
    slots: u32,
    tape: Vec<u32>,
    state_offsets: Vec<u32>,
    state_data: Vec<u8>,
    columns: Vec<ArrayRef>,
    tape_bytes: Vec<u8>,
    state_offset_bytes: Vec<u8>,
    column_bytes: Vec<Vec<u8>>,
}

impl Work {
    /// Rows dealt to slots in turn, every slot emitted and kept, as the host does with a batch.
    fn new(both: &Both, state: &[u8], rows: u32, slots: u32) -> Work {
        let updates = (0..rows).flat_map(|row| [op::word(op::UPDATE, row % slots), row]);
        let tape: Vec<u32> = updates.chain((0..slots).flat_map(|slot| [op::word(op::EMIT, slot), 0])).collect();
        let state_offsets: Vec<u32> = (0..=slots).map(|slot| slot * state.len() as u32).collect();
        let columns = both.columns(1_000_000, rows);
        let bytes = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect();
        Work {
            rows,
            slots,
            tape_bytes: bytes(&tape),
            state_offset_bytes: bytes(&state_offsets),
            column_bytes: columns.iter().map(value_bytes).collect(),
            tape,
            state_offsets,
            state_data: state.repeat(slots as usize),
            columns,
        }
    }

    fn wasm(&self, both: &Both) -> onefold_fold::Folded {
        let call = FoldCall {
            slots: self.slots,
            keep: self.slots,
            measure: 0,
            tape: &self.tape,
            state_offsets: &self.state_offsets,
            state_data: &self.state_data,
            rows: self.rows,
            columns: &self.columns,
        };
        both.wasm.fold(&call).expect("Wasm folds")
    }

    fn native(&self, both: &Both) -> onefold_udf::fold::Folded {
        let columns: Vec<Column<'_>> =
            self.column_bytes.iter().map(|data| Column { data, ..Column::default() }).collect();
        let call = Call {
            slots: self.slots,
            keep: self.slots,
            tape: &self.tape_bytes,
            state_offsets: &self.state_offset_bytes,
            state_data: &self.state_data,
            rows: self.rows,
            columns: &columns,
        };
        both.native.fold(both.handle, &call).expect("native folds")
    }

    /// Both did the same work, or a comparison of them says nothing.
    fn assert_equal(&self, both: &mut Both) {
        let (wasm, native) = (self.wasm(both), self.native(both));
        assert_eq!(wasm.state_data, native.state_data, "the states are equal");
        assert_ne!(wasm.state_data, self.state_data, "and the rows went into them");
        let emitted = native.outputs.first().map_or(0, |output| output.data.len());
        assert!(emitted > 0 && wasm.outputs[0].len() == self.slots as usize, "every slot gave a value");
    }

    /// Nanoseconds a row: native, Wasm.
    fn time(&self, both: &Both, clock: &dyn Clock) -> (f64, f64) {
        let native = Timed::new(clock, || drop(std::hint::black_box(self.native(both))));
        let wasm = Timed::new(clock, || drop(std::hint::black_box(self.wasm(both))));
        let mut best = (f64::MAX, f64::MAX);
        for _ in 0..ROUNDS {
            best.0 = best.0.min(native.round());
            best.1 = best.1.min(wasm.round());
        }
        (best.0 / f64::from(self.rows), best.1 / f64::from(self.rows))
    }
}

/// Something that is done often enough to be timed.
struct Timed<'a, Act: Fn()> {
    clock: &'a dyn Clock,
    act: Act,
    times: u64,
}

impl<'a, Act: Fn()> Timed<'a, Act> {
    fn new(clock: &'a dyn Clock, act: Act) -> Self {
        let mut timed = Timed { clock, act, times: 1 };
        while timed.round() * (timed.times as f64) < (ROUND_US * 1_000) as f64 {
            timed.times *= 2;
        }
        timed
    }

    /// Nanoseconds for one.
    fn round(&self) -> f64 {
        let began = self.clock.monotonic_us();
        (0..self.times).for_each(|_| (self.act)());
        (self.clock.monotonic_us() - began) as f64 * 1_000.0 / self.times as f64
    }
}

/// The values of a column without nulls, as they cross.
fn value_bytes(column: &ArrayRef) -> Vec<u8> {
    match Kind::of(column.data_type()) {
        Some(Kind::Float64) => column.as_primitive::<Float64Type>().values().inner().as_slice().to_vec(),
        Some(Kind::Int64) => column.as_primitive::<Int64Type>().values().inner().as_slice().to_vec(),
        _ => column.as_primitive::<TimestampMicrosecondType>().values().inner().as_slice().to_vec(),
    }
}
