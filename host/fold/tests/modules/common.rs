//! The guest that the tests run, built once, and short forms of calls.

use arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use arrow::datatypes::Int64Type;
use onefold_fold::{
    Cells, Engine, FailedRow, Field, FoldCall, FoldJob, Kind, Limits, Module, Planner, Probe, Results, Udf, Window, op,
};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, LazyLock};

/// The bytes of `guests/guest.rs`, built by a bare `rustc` for the wasm target that the toolchain file names.
pub static GUEST: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guests/guest.rs");
    let built = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("guest.wasm");
    let status = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
        .args(["--edition", "2024", "--target", "wasm32-unknown-unknown", "--crate-type", "cdylib", "-O"])
        .args(["-C", "panic=abort", "-o"])
        .arg(&built)
        .arg(&source)
        .status()
        .expect("rustc runs");
    assert!(status.success(), "the guest builds");
    std::fs::read(built).expect("the guest was written")
});

/// The guest's module under limits small enough for quick tests.
pub static MODULE: LazyLock<Module> = LazyLock::new(|| {
    let limits = Limits {
        fuel: 50_000_000,
        fuel_trial: 500_000_000,
        memory_bytes: 64 << 20,
        output_bytes: 8 << 20,
        ..Limits::default()
    };
    Engine::new(limits).expect("the engine starts").load(&GUEST).expect("the guest loads")
});

/// A UDF of the guest over one int64 input, or float64 where it wants that.
pub fn udf(name: &str) -> Udf {
    let inputs = |kind| [Field::new("value", kind)];
    MODULE
        .prepare(name, "{}", &inputs(Kind::Int64))
        .or_else(|_| MODULE.prepare(name, "{}", &inputs(Kind::Float64)))
        .expect("the guest prepares it")
}

pub fn ints(values: &[i64]) -> ArrayRef {
    Arc::new(Int64Array::from(values.to_vec()))
}

/// The tape of these ops: (op, slot, operand).
pub fn tape(ops: &[(u32, u32, u32)]) -> Vec<u32> {
    ops.iter().flat_map(|(kind, slot, operand)| [op::word(*kind, *slot), *operand]).collect()
}

/// A call that starts from nothing.
pub fn fresh<'a>(slots: u32, keep: u32, tape: &'a [u32], rows: usize, columns: &'a [ArrayRef]) -> FoldCall<'a> {
    let rows = u32::try_from(rows).expect("few rows");
    FoldCall { slots, keep, measure: 0, tape, state_offsets: &[], state_data: &[], rows, columns }
}

/// What happens to an entity.
#[derive(Clone, Copy)]
pub enum Step {
    /// A row of the call's columns, with its event time.
    Row(u32, i64),
    /// The value as of this instant is asked.
    Value(i64),
}

/// What a probe gave.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Is(Option<i64>),
    Failed(String),
}

/// Entities with their stored cells: what a host is to the fold.
#[derive(Clone, Default)]
pub struct Entities {
    pub steps: Vec<Vec<Step>>,
    pub stored: Vec<(Vec<u8>, Vec<u8>)>,
    pub values: Vec<Vec<Value>>,
    /// Whether the states are stored.
    pub keep: bool,
}

impl Entities {
    /// New entities to which this happens.
    pub fn new(steps: Vec<Vec<Step>>) -> Entities {
        let stored = vec![Default::default(); steps.len()];
        Entities { stored, values: vec![Vec::new(); steps.len()], steps, keep: true }
    }

    /// Folds the steps into the stored cells; the rows that were refused.
    pub fn fold(&mut self, udf: &Udf, window: Window, columns: &[ArrayRef]) -> Vec<FailedRow> {
        let rows = u32::try_from(columns[0].len()).expect("few rows");
        FoldJob::new(udf.clone(), window).run(rows, columns, self).expect("the job runs")
    }
}

impl Cells for Entities {
    fn count(&self) -> usize {
        self.steps.len()
    }

    fn plan(&self, cell: usize, planner: &mut Planner) {
        let (head, tail) = &self.stored[cell];
        let mut plan = planner.begin(head, tail, i64::MIN);
        for step in &self.steps[cell] {
            match *step {
                Step::Row(row, time_us) => plan.row(row, time_us),
                Step::Value(as_of_us) => plan.probe(as_of_us),
            }
        }
        plan.end(self.keep);
    }

    fn settle(&mut self, first_cell: usize, results: &Results<'_>) {
        for cell in 0..results.len() {
            let outputs = results.outputs()[0].as_primitive::<Int64Type>();
            let value = |probe: Probe<'_>| match probe {
                Probe::Row(row) => Value::Is(outputs.is_valid(row).then(|| outputs.value(row))),
                Probe::Failed(reason) => Value::Failed(reason.to_owned()),
            };
            self.values[first_cell + cell] = results.probes(cell).map(value).collect();
            if !self.keep {
                continue;
            }
            let (mut head, mut tail) = (Vec::new(), Vec::new());
            match results.write(cell, &mut head, &mut tail) {
                onefold_fold::Change::Nothing => {}
                onefold_fold::Change::Head => self.stored[first_cell + cell].0 = head,
                onefold_fold::Change::Both => self.stored[first_cell + cell] = (head, tail),
            }
        }
    }
}
