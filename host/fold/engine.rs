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
    /// Fuel of one call of `fold` or `transform`, whatever is in it: about a second. One row has as much as thousands,
    /// so what it may use never depends on its company; a call that runs out is cut until one operation is left. A
    /// compiled update takes 10 to 1,000 units with its share of everything, an interpreted one some thousands: 8192
    /// rows stay far below. What needs the most alone is an update of a state of 4 MiB; a merge that is dearer gives a state
    /// that no value may be made from.
    pub fuel: u64,
    /// Fuel of all calls in which one UDF's claims are tried: some seconds. An honest one takes a hundredth.
    pub fuel_trial: u64,
    /// Bytes of everything that one call returns.
    pub output_bytes: usize,
    /// One encoded state.
    pub state_bytes: usize,
    /// One encoded state that a value is made from.
    pub emitted_state_bytes: usize,
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
            fuel: 1_000_000_000,
            fuel_trial: 4_000_000_000,
            output_bytes: 96 << 20,
            state_bytes: 4 << 20,
            emitted_state_bytes: 1 << 20,
            column_value_bytes: 1 << 20,
            message_bytes: 1 << 10,
        }
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
