//! The one engine of the process: which Wasm it runs, and every limit that a module meets.

use crate::error::FoldError;
use std::num::NonZeroUsize;
use std::sync::Arc;
use wasmtime::{Config, Strategy};

/// What a module may use. The values are constants of the product, not of a place: a row that is refused in a stream
/// is refused in a batch. Tests make them smaller.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of an upload. Compiled languages stay far below; the ones that carry an interpreter need 32 MiB.
    pub module_bytes: usize,
    /// UDFs in one module: bounds what `describe` may return.
    pub udfs: usize,
    /// Linear memory of an instance, all its memories together. Holds the columns of a batch, decoded states and
    /// results, each at its own limit, with room for the guest's allocator.
    pub memory_bytes: usize,
    /// An instance whose memory has grown beyond this is dropped after the call: memories never shrink.
    pub recycle_bytes: usize,
    /// Idle instances kept for each module: one a worker thread is enough.
    pub idle_instances: usize,
    /// Elements of all tables of an instance: function pointers of the largest interpreters.
    pub table_elements: usize,
    /// Fuel to start an instance: interpreters set up a heap there.
    pub fuel_start: u64,
    /// Fuel of one `describe` or `prepare`: they parse a small JSON text.
    pub fuel_prepare: u64,
    /// Fuel of every call, whatever its size: about a tenth of a second.
    pub fuel_base: u64,
    /// Fuel on top for each op of a tape and each row of a transform. A compiled op takes 10 to 1,000 units, an
    /// interpreted one a hundred times that.
    pub fuel_per_op: u64,
    /// Fuel on top for each byte of states and columns that goes in: they are decoded and encoded again.
    pub fuel_per_byte: u64,
    /// Bytes of everything that one call returns.
    pub output_bytes: usize,
    /// One encoded state.
    pub state_bytes: usize,
    /// One value of a column.
    pub column_value_bytes: usize,
    /// One message or reason; a longer one is cut.
    pub message_bytes: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            module_bytes: 32 << 20,
            udfs: 256,
            memory_bytes: 256 << 20,
            recycle_bytes: 64 << 20,
            idle_instances: 16,
            table_elements: 100_000,
            fuel_start: 2_000_000_000,
            fuel_prepare: 200_000_000,
            fuel_base: 100_000_000,
            fuel_per_op: 1_000_000,
            fuel_per_byte: 100,
            output_bytes: 96 << 20,
            state_bytes: 4 << 20,
            column_value_bytes: 1 << 20,
            message_bytes: 1 << 10,
        }
    }
}

impl Limits {
    /// The fuel of a call of so many ops (or rows of a transform) that takes in so many bytes. It depends on nothing
    /// else, so that one op alone has the same budget wherever it runs.
    pub(crate) fn fuel(&self, ops: usize, bytes: usize) -> u64 {
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        self.fuel_base
            .saturating_add(self.fuel_per_op.saturating_mul(count(ops)))
            .saturating_add(self.fuel_per_byte.saturating_mul(count(bytes)))
    }
}

/// Compiles and runs modules. Cheap to clone; a process has one, since types must never be mixed between two.
#[derive(Clone)]
pub struct Engine {
    pub(crate) wasm: wasmtime::Engine,
    pub(crate) limits: Arc<Limits>,
}

impl Engine {
    /// Fails when the machine cannot run the profile.
    pub fn new(limits: Limits) -> Result<Engine, FoldError> {
        let mut config = Config::new();
        config
            .strategy(Strategy::Cranelift)
            .consume_fuel(true)
            // Without it a call costs 245 ns more, and a family of security advisories applies.
            .concurrency_support(false)
            // Determinism and a small surface. Multi-memory stays on: components are encoded with it.
            .gc_support(false)
            .wasm_memory64(false)
            .wasm_relaxed_simd(false)
            .wasm_backtrace_max_frames(NonZeroUsize::new(16))
            // The same everywhere, since recursion that overflows is an outcome; threads need more than this.
            .max_wasm_stack(512 << 10);
        let wasm = wasmtime::Engine::new(&config)
            .map_err(|error| FoldError(format!("the WebAssembly engine does not start: {error:#}")))?;
        Ok(Engine { wasm, limits: Arc::new(limits) })
    }

    /// The limits that every module of this engine meets.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }
}
