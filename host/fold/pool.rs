//! Instances of a module: started, lent to one call at a time, and thrown away when they cannot be trusted any more.

use crate::engine::{Engine, Limits};
use crate::error::{CallFailure, ModuleRefused};
use crate::kind::{Field, Kind};
use crate::module::{contract, kind_out, link};
use std::sync::{Arc, Mutex, PoisonError};
use wasmtime::component::Component;
use wasmtime::{ResourceLimiter, Store, Trap};

/// What `prepare` is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Spec {
    pub(crate) udf: String,
    pub(crate) params: String,
    pub(crate) inputs: Vec<Field>,
}

impl Spec {
    /// What orders specs in a table.
    pub(crate) fn key(&self) -> SpecKey {
        let inputs = self.inputs.iter().map(|field| (field.name.clone(), field.kind)).collect();
        (self.udf.clone(), self.params.clone(), inputs)
    }
}

/// UDF, parameters, names and kinds of the inputs.
pub(crate) type SpecKey = (String, String, Vec<(String, Kind)>);

/// The idle instances of one module.
pub(crate) struct Pool {
    engine: Engine,
    pre: contract::UdfPre<Guard>,
    idle: Mutex<Vec<Instance>>,
}

/// One running instance. It is lost, not given back, when a call on it fails in any way but by the UDF's own word:
/// after a trap nothing in it can be relied on.
pub(crate) struct Instance {
    store: Store<Guard>,
    udf: contract::Udf,
    limits: Arc<Limits>,
    /// (id of what was prepared, the guest's handle). Few, so a scan is the fastest table.
    handles: Vec<(u64, u32)>,
}

impl Pool {
    pub(crate) fn new(engine: &Engine, component: &Component) -> Result<Pool, ModuleRefused> {
        Ok(Pool { engine: engine.clone(), pre: link(engine, component)?, idle: Mutex::new(Vec::new()) })
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.engine.limits
    }

    /// An idle instance, or a new one.
    pub(crate) fn take(&self) -> Result<Instance, CallFailure> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        idle.map_or_else(|| self.start(), Ok)
    }

    /// A new instance, on fuel of its own.
    pub(crate) fn start(&self) -> Result<Instance, CallFailure> {
        let limits = self.engine.limits.clone();
        let mut store = Store::new(&self.engine.wasm, Guard::new(&limits));
        store.limiter(|guard| guard);
        store.set_hostcall_fuel(limits.output_bytes);
        set_fuel(&mut store, limits.fuel_start);
        match self.pre.instantiate(&mut store) {
            Ok(udf) => Ok(Instance { store, udf, limits, handles: Vec::new() }),
            Err(error) => Err(failure(&error, &store, &limits, limits.fuel_start)),
        }
    }

    /// Keeps an instance for the next call, unless its memory has grown so large that a new one is better.
    pub(crate) fn give_back(&self, instance: Instance) {
        if instance.store.data().memory_bytes > self.engine.limits.recycle_bytes {
            return;
        }
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < self.engine.limits.idle_instances {
            idle.push(instance);
        }
    }
}

impl Instance {
    /// The handle of what was prepared here before.
    pub(crate) fn handle(&self, id: u64) -> Option<u32> {
        self.handles.iter().find(|(known, _)| *known == id).map(|(_, handle)| *handle)
    }

    /// Notes a handle.
    pub(crate) fn remember(&mut self, id: u64, handle: u32) {
        if self.handle(id).is_none() {
            self.handles.push((id, handle));
        }
    }

    /// What the last `fold` or `transform` took of its fuel.
    pub(crate) fn fuel_spent(&self) -> u64 {
        self.limits.fuel.saturating_sub(self.store.get_fuel().unwrap_or(0))
    }

    pub(crate) fn describe(&mut self) -> Result<Vec<contract::UdfInfo>, CallFailure> {
        let fuel = self.limits.fuel_prepare;
        set_fuel(&mut self.store, fuel);
        let answer = self.udf.call_describe(&mut self.store);
        answer.map_err(|error| failure(&error, &self.store, &self.limits, fuel))
    }

    pub(crate) fn prepare(&mut self, spec: &Spec) -> Result<Result<contract::Prepared, String>, CallFailure> {
        let fuel = self.limits.fuel_prepare;
        set_fuel(&mut self.store, fuel);
        let inputs: Vec<_> = (spec.inputs.iter())
            .map(|field| contract::types::FieldParam { name: &field.name, kind: kind_out(field.kind) })
            .collect();
        let answer = self.udf.call_prepare(&mut self.store, &spec.udf, &spec.params, &inputs);
        answer.map_err(|error| failure(&error, &self.store, &self.limits, fuel))
    }

    pub(crate) fn fold(
        &mut self,
        handle: u32,
        call: &WireFold<'_>,
    ) -> Result<Result<contract::Folded, contract::FoldError>, CallFailure> {
        let fuel = self.limits.fuel;
        set_fuel(&mut self.store, fuel);
        let WireFold { slots, keep, tape, state_offsets, state_data, rows, columns } = *call;
        let states = contract::types::StatesParam { offsets: state_offsets, data: state_data };
        let answer = self.udf.call_fold(&mut self.store, handle, slots, keep, tape, states, rows, columns);
        answer.map_err(|error| failure(&error, &self.store, &self.limits, fuel))
    }

    pub(crate) fn transform(
        &mut self,
        handle: u32,
        rows: u32,
        columns: &[contract::types::ColumnParam<'_>],
    ) -> Result<contract::Mapped, CallFailure> {
        let fuel = self.limits.fuel;
        set_fuel(&mut self.store, fuel);
        let answer = self.udf.call_transform(&mut self.store, handle, rows, columns);
        answer.map_err(|error| failure(&error, &self.store, &self.limits, fuel))
    }
}

/// The arguments of `fold`, as they cross.
#[derive(Clone, Copy)]
pub(crate) struct WireFold<'a> {
    pub(crate) slots: u32,
    pub(crate) keep: u32,
    pub(crate) tape: &'a [u8],
    pub(crate) state_offsets: &'a [u8],
    pub(crate) state_data: &'a [u8],
    pub(crate) rows: u32,
    pub(crate) columns: &'a [contract::types::ColumnParam<'a>],
}

/// Counts what an instance holds, and says no.
pub(crate) struct Guard {
    memory_limit: usize,
    table_limit: usize,
    memory_bytes: usize,
    refused: bool,
}

#[derive(Debug, thiserror::Error)]
#[error("more memory than a module may have")]
struct MemoryRefused;

impl Guard {
    fn new(limits: &Limits) -> Guard {
        Guard { memory_limit: limits.memory_bytes, table_limit: limits.table_elements, memory_bytes: 0, refused: false }
    }
}

/// Growth that fails ends the call: a guest that could see it fail would compute something else near the limit.
impl ResourceLimiter for Guard {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let total = self.memory_bytes.saturating_add(desired.saturating_sub(current));
        if total > self.memory_limit || maximum.is_some_and(|maximum| desired > maximum) {
            self.refused = true;
            return Err(wasmtime::Error::new(MemoryRefused));
        }
        self.memory_bytes = total;
        Ok(true)
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        self.refused = true;
        Err(error)
    }

    fn table_growing(&mut self, _: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        if desired > self.table_limit || maximum.is_some_and(|maximum| desired > maximum) {
            self.refused = true;
            return Err(wasmtime::Error::new(MemoryRefused));
        }
        Ok(true)
    }

    fn instances(&self) -> usize {
        MOST_INSTANCES
    }

    fn tables(&self) -> usize {
        MOST_INSTANCES
    }

    fn memories(&self) -> usize {
        MOST_MEMORIES
    }
}

/// Core instances (and tables) of a component: the module, its adapters and shims; Python's has about twenty.
const MOST_INSTANCES: usize = 30;
/// Components of interpreters have one memory, adapters share it.
const MOST_MEMORIES: usize = 2;

fn set_fuel(store: &mut Store<Guard>, fuel: u64) {
    // Fails only where the engine counts no fuel; ours always does. Without fuel set the call would end at once.
    let _ = store.set_fuel(fuel);
}

/// Which limit or trap an error of the engine stands for. Its text never holds an address.
fn failure(error: &wasmtime::Error, store: &Store<Guard>, limits: &Limits, fuel: u64) -> CallFailure {
    let bytes = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    if store.data().refused {
        return CallFailure::Memory(bytes(limits.memory_bytes));
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::OutOfFuel) => CallFailure::Fuel(fuel),
        Some(trap) => CallFailure::Trap(trap.to_string()),
        None => {
            let text = error.root_cause().to_string();
            if text.contains("hostcalls has been exhausted") {
                return CallFailure::OutputTooLarge {
                    what: "the result".to_owned(),
                    limit: bytes(limits.output_bytes),
                };
            }
            CallFailure::Invalid(text)
        }
    }
}
