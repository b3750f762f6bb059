//! Answers for the imports that compilers add by themselves: nothing is given, and every answer is a constant.

use crate::error::ModuleRefused;
use wasm_encoder::{
    BlockType, CodeSection, EntityType, ExportKind, ExportSection, Function, FunctionSection, ImportSection, MemArg,
    MemoryType, Module, TypeSection, ValType,
};
use wasmparser::FuncType;

/// The module names that an adapter answers.
pub(crate) const WASI: &str = "wasi_snapshot_preview1";
pub(crate) const ENV: &str = "env";

/// The clock that never moves. Not zero: Go's runtime throws at start-up when it reads a zero clock.
const CLOCK_NS: i64 = 1_000_000_000;
const SUCCESS: i32 = 0;
const BAD_DESCRIPTOR: i32 = 8;
const NOT_SUPPORTED: i32 = 52;

/// A core module that answers these imports (name and type) of the import module `module`. WASI calls are denied
/// with the error codes that libraries expect, the clock stands still, randomness is zero; `env` answers `abort`
/// alone, by a trap.
pub(crate) fn adapter(module: &str, imports: &[(String, FuncType)]) -> Result<Vec<u8>, ModuleRefused> {
    let mut types = TypeSection::new();
    let mut functions = FunctionSection::new();
    let mut exports = ExportSection::new();
    let mut code = CodeSection::new();
    for (index, (name, signature)) in (0u32..).zip(imports) {
        let params = value_types(module, name, signature.params())?;
        let results = value_types(module, name, signature.results())?;
        types.ty().function(params.iter().copied(), results.iter().copied());
        functions.function(index);
        exports.export(name, ExportKind::Func, index);
        code.function(&body(module, name, &params, &results));
    }
    let mut adapter = Module::new();
    adapter.section(&types);
    if module == WASI {
        let mut memory = ImportSection::new();
        let any = MemoryType { minimum: 0, maximum: None, memory64: false, shared: false, page_size_log2: None };
        memory.import(ENV, "memory", EntityType::Memory(any));
        adapter.section(&memory);
    }
    adapter.section(&functions).section(&exports).section(&code);
    Ok(adapter.finish())
}

fn value_types(module: &str, name: &str, types: &[wasmparser::ValType]) -> Result<Vec<ValType>, ModuleRefused> {
    types
        .iter()
        .map(|value| match value {
            wasmparser::ValType::I32 => Ok(ValType::I32),
            wasmparser::ValType::I64 => Ok(ValType::I64),
            wasmparser::ValType::F32 => Ok(ValType::F32),
            wasmparser::ValType::F64 => Ok(ValType::F64),
            other => Err(ModuleRefused::new(
                format!("import `{module}.{name}` has a {other} in its type"),
                "imports that are answered take and give numbers",
                "build without this import",
            )),
        })
        .collect()
}

/// The body of one answer. A signature that is not the one of the specification gets the generic refusal.
fn body(module: &str, name: &str, params: &[ValType], results: &[ValType]) -> Function {
    use ValType::{I32, I64};
    let mut function = Function::new([]);
    let mut code = function.instructions();
    let word = MemArg { offset: 0, align: 2, memory_index: 0 };
    let wide = MemArg { offset: 0, align: 3, memory_index: 0 };
    let answer = if module == WASI && results == [I32] { name } else { "" };
    match (answer, params) {
        ("random_get", [I32, I32]) => {
            code.local_get(0).i32_const(0).local_get(1).memory_fill(0).i32_const(SUCCESS);
        }
        ("clock_time_get", [I32, I64, I32]) => {
            code.local_get(2).i64_const(CLOCK_NS).i64_store(wide).i32_const(SUCCESS);
        }
        ("clock_res_get", [I32, I32]) => {
            code.local_get(1).i64_const(CLOCK_NS).i64_store(wide).i32_const(SUCCESS);
        }
        ("environ_sizes_get" | "args_sizes_get", [I32, I32]) => {
            code.local_get(0).i32_const(0).i32_store(word);
            code.local_get(1).i32_const(0).i32_store(word).i32_const(SUCCESS);
        }
        ("environ_get" | "args_get", [I32, I32]) | ("sched_yield", []) => {
            code.i32_const(SUCCESS);
        }
        // Writing "succeeds", or a failing runtime would fail again while it prints why. One buffer a call is
        // written; callers ask again for the others.
        ("fd_write", [I32, I32, I32, I32]) => {
            code.local_get(3).local_get(2).if_(BlockType::Result(I32));
            code.local_get(1).i32_load(MemArg { offset: 4, ..word }).else_().i32_const(0).end();
            code.i32_store(word).i32_const(SUCCESS);
        }
        ("fd_prestat_get", _) => {
            code.i32_const(BAD_DESCRIPTOR);
        }
        _ if module == WASI && results == [I32] => {
            code.i32_const(NOT_SUPPORTED);
        }
        _ => {
            code.unreachable();
        }
    }
    code.end();
    function
}
