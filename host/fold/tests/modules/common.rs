//! The guest that the tests run, built once, and short forms of calls.

use arrow::array::{ArrayRef, Int64Array};
use onefold_fold::{Engine, Field, FoldCall, Kind, Limits, Module, Udf, op};
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
    let limits = Limits { fuel_base: 20_000_000, memory_bytes: 64 << 20, output_bytes: 8 << 20, ..Limits::default() };
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
    FoldCall { slots, keep, tape, state_offsets: &[], state_data: &[], rows, columns }
}
