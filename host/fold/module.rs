//! Modules: an upload as the compiler left it becomes a component of our world, checked, compiled and described.

use crate::adapter::{ENV, WASI, adapter};
use crate::call::Udf;
use crate::engine::{Engine, Limits};
use crate::error::{CallFailure, ModuleRefused, PrepareError};
use crate::kind::{Field, Kind};
use crate::pool::{Guard, Instance, Pool, Spec, SpecKey};
use crate::wire::message;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use wasmparser::{
    ComponentTypeRef, Encoding, ExternalKind, FuncType, Parser, Payload, TypeRef, Validator, WasmFeatures,
};
use wasmtime::component::{Component, Linker};
use wit_component::{ComponentEncoder, StringEncoding};
use wit_parser::{Resolve, WorldId};

/// The contract, as modules' authors read it.
pub const CONTRACT: &str = include_str!("../../sdk/wit/udf.wit");

/// Typed calls of the contract. Parameters borrow, so that a column's bytes go from Arrow into the guest in one copy.
#[expect(clippy::too_many_arguments, reason = "generated: `fold` has the contract's parameters, flat")]
pub(crate) mod contract {
    wasmtime::component::bindgen!({
        path: "../../sdk/wit/udf.wit",
        world: "udf",
        ownership: Borrowing { duplicate_if_necessary: true },
    });
    pub(crate) use onefold::udf::types;
}

/// What a UDF does: keep a state, or map rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    Aggregate,
    Transform,
}

/// What a module says of one of its UDFs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UdfInfo {
    /// `[a-z][a-z0-9_]*`, unique in the module.
    pub name: String,
    pub role: Role,
    pub doc: String,
    /// JSON Schema of the parameters; empty = takes none.
    pub params_schema: String,
}

/// A checked, compiled module. Cheap to clone; shared by all threads.
#[derive(Clone)]
pub struct Module {
    pub(crate) inner: Arc<ModuleInner>,
}

pub(crate) struct ModuleInner {
    pub(crate) limits: Arc<Limits>,
    digest: [u8; 32],
    component: Vec<u8>,
    udfs: Vec<UdfInfo>,
    pub(crate) pool: Pool,
    /// What `prepare` said of each (UDF, parameters, inputs): asked once, and held against every new instance.
    prepared: Mutex<BTreeMap<SpecKey, Arc<Prepared>>>,
}

/// A checked answer of `prepare`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Prepared {
    /// Names this spec in the handle tables of instances.
    pub(crate) id: u64,
    pub(crate) spec: Spec,
    pub(crate) role: Role,
    pub(crate) outputs: Vec<Field>,
    pub(crate) claims: Claims,
}

/// What a UDF says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Claims {
    pub(crate) event_time: bool,
    pub(crate) ordered: bool,
    pub(crate) mergeable: bool,
    pub(crate) one_to_one: bool,
}

impl Engine {
    /// Takes an upload (core module or component), makes a component of it, checks, compiles and asks it what it holds.
    pub fn load(&self, bytes: &[u8]) -> Result<Module, ModuleRefused> {
        let component = componentize(bytes, &self.limits)?;
        let compiled = self.compile(&component)?;
        let pool = Pool::new(self, &compiled)?;
        let udfs = describe(&pool)?;
        Ok(Module {
            inner: Arc::new(ModuleInner {
                limits: self.limits.clone(),
                digest: Sha256::digest(bytes).into(),
                component,
                udfs,
                pool,
                prepared: Mutex::new(BTreeMap::new()),
            }),
        })
    }

    /// The one place where outside code meets the compiler.
    fn compile(&self, component: &[u8]) -> Result<Component, ModuleRefused> {
        Component::from_binary(&self.wasm, component).map_err(|error| {
            ModuleRefused::new(
                format!("the module does not compile: {error:#}"),
                "a module is WebAssembly 2.0 without garbage collection, threads, exceptions and 64-bit memories",
                "switch the feature named here off in the compiler",
            )
        })
    }
}

impl Module {
    /// SHA-256 of the bytes that were uploaded: the identity of the module.
    pub fn digest(&self) -> [u8; 32] {
        self.inner.digest
    }

    /// The component made of the upload.
    pub fn component(&self) -> &[u8] {
        &self.inner.component
    }

    /// The UDFs, in the module's order.
    pub fn udfs(&self) -> &[UdfInfo] {
        &self.inner.udfs
    }

    /// Fixes a UDF's parameters (a JSON object) and input kinds. `inputs` are without the event time: a UDF that
    /// claims `event-time` gets it as one more column behind them in every call (`Udf::needs_event_time`).
    pub fn prepare(&self, udf: &str, params: &str, inputs: &[Field]) -> Result<Udf, PrepareError> {
        let spec = Spec { udf: udf.to_owned(), params: params.to_owned(), inputs: inputs.to_vec() };
        let key = spec.key();
        let known = self.inner.prepared.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some(prepared) = known {
            return Ok(Udf::new(self.clone(), prepared));
        }
        let Some(info) = self.inner.udfs.iter().find(|info| info.name == udf) else {
            let names: Vec<_> = self.inner.udfs.iter().map(|info| info.name.as_str()).collect();
            return Err(PrepareError::Unknown(udf.to_owned(), names.join(", ")));
        };
        let failed = |failure| PrepareError::Failed { udf: udf.to_owned(), failure };
        let mut instance = self.inner.pool.take().map_err(failed)?;
        let answer = instance.prepare(&spec).map_err(failed)?;
        let answer =
            answer.map_err(|reason| PrepareError::Refused(message(&reason, self.inner.limits.message_bytes)))?;
        let (outputs, claims) = check_prepared(info, &answer).map_err(|broken| failed(CallFailure::Invalid(broken)))?;
        let mut all = self.inner.prepared.lock().unwrap_or_else(PoisonError::into_inner);
        let id = u64::try_from(all.len()).unwrap_or(u64::MAX);
        let made = || Arc::new(Prepared { id, spec: spec.clone(), role: info.role, outputs, claims });
        let prepared = all.entry(key).or_insert_with(made).clone();
        drop(all);
        instance.remember(prepared.id, answer.handle);
        self.inner.pool.give_back(instance);
        Ok(Udf::new(self.clone(), prepared))
    }
}

/// Checks what `prepare` answered; the error says what is wrong with it.
pub(crate) fn check_prepared(info: &UdfInfo, answer: &contract::Prepared) -> Result<(Vec<Field>, Claims), String> {
    let mut claims = Claims::default();
    for claim in &answer.claims {
        match (claim.as_str(), info.role) {
            ("event-time", _) => claims.event_time = true,
            ("ordered", Role::Aggregate) => claims.ordered = true,
            ("mergeable", Role::Aggregate) => claims.mergeable = true,
            ("one-to-one", Role::Transform) => claims.one_to_one = true,
            (other, role) => {
                return Err(format!(
                    "udf `{}`, {}, claims `{}`: an aggregate may claim event-time, ordered, mergeable, a transform \
                     event-time, one-to-one",
                    info.name,
                    if role == Role::Aggregate { "an aggregate" } else { "a transform" },
                    message(other, 64),
                ));
            }
        }
    }
    if answer.outputs.is_empty() && info.role == Role::Aggregate {
        return Err(format!("udf `{}` has no output: every aggregate has one or more", info.name));
    }
    let mut names = BTreeSet::new();
    for output in &answer.outputs {
        if !is_name(&output.name) || !names.insert(&output.name) {
            return Err(format!(
                "udf `{}` has the output name `{}`: names are [a-z][a-z0-9_]*, each once",
                info.name,
                message(&output.name, 64)
            ));
        }
    }
    let outputs = answer.outputs.iter().map(|field| Field::new(&field.name, kind_in(field.kind))).collect();
    Ok((outputs, claims))
}

/// Starts the first instance and checks what `describe` says.
fn describe(pool: &Pool) -> Result<Vec<UdfInfo>, ModuleRefused> {
    let failed = |what: &str, failure: CallFailure| {
        ModuleRefused::new(
            format!("{what} failed: {failure}"),
            "a module starts and describes itself within its limits, without clock, randomness or files",
            "run its initializers and `describe` in a bare runtime to see why",
        )
    };
    let mut instance = pool.take().map_err(|failure| failed("starting the module", failure))?;
    let listed = instance.describe().map_err(|failure| failed("`describe`", failure))?;
    pool.give_back(instance);
    let most = pool.limits().udfs;
    if listed.is_empty() || listed.len() > most {
        return Err(ModuleRefused::new(
            format!("`describe` lists {} udfs", listed.len()),
            format!("a module has 1 to {most} udfs"),
            "export at least one udf (in Rust: onefold_udf::export!), or split the module",
        ));
    }
    let mut names = BTreeSet::new();
    for udf in &listed {
        if !is_name(&udf.name) {
            return Err(ModuleRefused::new(
                format!("`describe` names a udf `{}`", message(&udf.name, 64)),
                "names are [a-z][a-z0-9_]*, at most 64 characters",
                "rename it",
            ));
        }
        if !names.insert(udf.name.clone()) {
            return Err(ModuleRefused::new(
                format!("`describe` names `{}` twice", udf.name),
                "names of udfs are unique in a module",
                "rename one",
            ));
        }
        if let Err(why) = check_schema(&udf.params) {
            return Err(ModuleRefused::new(
                format!("the parameters of udf `{}` have a schema that {why}", udf.name),
                "params is empty or the text of a JSON Schema of an object",
                "derive it from the parameters' type, or write {\"type\": \"object\", \"properties\": {…}}",
            ));
        }
    }
    let info = |udf: contract::UdfInfo| UdfInfo {
        name: udf.name,
        role: match udf.role {
            contract::types::Role::Aggregate => Role::Aggregate,
            contract::types::Role::Transform => Role::Transform,
        },
        doc: udf.doc,
        params_schema: udf.params,
    };
    Ok(listed.into_iter().map(info).collect())
}

fn check_schema(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Ok(());
    }
    let schema: serde_json::Value = serde_json::from_str(text).map_err(|error| format!("is no JSON ({error})"))?;
    let schema = schema.as_object().ok_or("is no JSON object")?;
    match schema.get("type").map(|kind| kind.as_str()) {
        None | Some(Some("object")) => {}
        Some(_) => return Err("has another type than object".to_owned()),
    }
    match schema.get("properties") {
        Some(properties) if !properties.is_object() => Err("has properties that are no object".to_owned()),
        _ => Ok(()),
    }
}

fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    name.len() <= 64
        && bytes.next().is_some_and(|first| first.is_ascii_lowercase())
        && bytes.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

pub(crate) fn kind_in(kind: contract::types::Kind) -> Kind {
    use contract::types::Kind as Wire;
    match kind {
        Wire::Boolean => Kind::Boolean,
        Wire::Int64 => Kind::Int64,
        Wire::Float64 => Kind::Float64,
        Wire::Timestamp => Kind::Timestamp,
        Wire::Utf8 => Kind::Utf8,
        Wire::Binary => Kind::Binary,
        Wire::Int64List => Kind::Int64List,
        Wire::Float32List => Kind::Float32List,
        Wire::Float64List => Kind::Float64List,
        Wire::Utf8List => Kind::Utf8List,
    }
}

pub(crate) fn kind_out(kind: Kind) -> contract::types::Kind {
    use contract::types::Kind as Wire;
    match kind {
        Kind::Boolean => Wire::Boolean,
        Kind::Int64 => Wire::Int64,
        Kind::Float64 => Wire::Float64,
        Kind::Timestamp => Wire::Timestamp,
        Kind::Utf8 => Wire::Utf8,
        Kind::Binary => Wire::Binary,
        Kind::Int64List => Wire::Int64List,
        Kind::Float32List => Wire::Float32List,
        Kind::Float64List => Wire::Float64List,
        Kind::Utf8List => Wire::Utf8List,
    }
}

/// WebAssembly 2.0 and what compilers emit by default today; nothing that the engine's profile leaves out.
fn features() -> WasmFeatures {
    (WasmFeatures::WASM2 | WasmFeatures::EXTENDED_CONST | WasmFeatures::TAIL_CALL).difference(WasmFeatures::GC_TYPES)
}

/// Makes a component of our world from an upload, without imports.
pub(crate) fn componentize(bytes: &[u8], limits: &Limits) -> Result<Vec<u8>, ModuleRefused> {
    let bytes_rule = "a module is the .wasm file as the compiler left it";
    if bytes.len() > limits.module_bytes {
        return Err(ModuleRefused::new(
            format!("the module has {} bytes", bytes.len()),
            format!("a module has at most {} bytes", limits.module_bytes),
            "strip it and build it for size (in Rust: opt-level = \"s\", strip = true)",
        ));
    }
    if bytes.starts_with(b"\x7fELF") || wasmtime::Engine::detect_precompiled(bytes).is_some() {
        return Err(ModuleRefused::new(
            "the bytes are a precompiled artifact of a machine",
            bytes_rule,
            "upload the .wasm, not what was compiled from it",
        ));
    }
    if !bytes.starts_with(b"\0asm") {
        return Err(ModuleRefused::new(
            "the bytes do not begin as WebAssembly does (\\0asm)",
            bytes_rule,
            "upload the .wasm; text (.wat) is turned into it by wat2wasm or wasm-tools parse",
        ));
    }
    let (resolve, world) = world()?;
    if Parser::is_component(bytes) {
        check_component(bytes)?
    }
    let component = if Parser::is_component(bytes) { bytes.to_vec() } else { encode(bytes, &resolve, world)? };
    wit_component::targets(&resolve, world, &component).map_err(|error| {
        ModuleRefused::new(
            format!("the component is not of the world onefold:udf/udf: {error:#}"),
            "a component exports describe, prepare, fold and transform with the types of udf.wit and imports nothing",
            "build from sdk/wit/udf.wit, and without WASI: for Rust wasm32-unknown-unknown, for Python \
             componentize-py --stub-wasi, for JavaScript componentize-js -d stdio -d random -d clocks -d http -d \
             fetch-event",
        )
    })?;
    Ok(component)
}

fn world() -> Result<(Resolve, WorldId), ModuleRefused> {
    let mut resolve = Resolve::default();
    let world = resolve.push_str("udf.wit", CONTRACT).and_then(|package| resolve.select_world(&[package], Some("udf")));
    match world {
        Ok(world) => Ok((resolve, world)),
        Err(error) => Err(ModuleRefused::new(format!("{error:#}"), "the contract parses", "reinstall this program")),
    }
}

/// What a ready-made component imports besides the names of our own types is refused by name.
fn check_component(bytes: &[u8]) -> Result<(), ModuleRefused> {
    for payload in Parser::new(0).parse_all(bytes) {
        let payload = payload.map_err(broken)?;
        match payload {
            Payload::ComponentImportSection(imports) => {
                for import in imports {
                    let import = import.map_err(broken)?;
                    let name = import.name.name;
                    // Types come in by name, as our own interface or one by one: nothing runs behind them.
                    let is_type = matches!(import.ty, ComponentTypeRef::Type(_));
                    if !is_type && !name.starts_with("onefold:udf/types@") {
                        return Err(ModuleRefused::new(
                            format!("the component imports `{}`", message(name, 128)),
                            "a component imports nothing",
                            "build without WASI: Rust for wasm32-unknown-unknown instead of wasm32-wasip2, \
                             componentize-py --stub-wasi, componentize-js -d stdio -d random -d clocks -d http -d \
                             fetch-event",
                        ));
                    }
                }
            }
            // Only the imports of the outermost component count; its parts import from one another.
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => break,
            _ => {}
        }
    }
    Ok(())
}

fn broken(error: wasmparser::BinaryReaderError) -> ModuleRefused {
    ModuleRefused::new(
        format!("the bytes are not valid WebAssembly: {error}"),
        "a module is the .wasm file as the compiler left it",
        "build it again, and upload the file in binary mode",
    )
}

/// What a core module asks for and offers.
#[derive(Default)]
struct Surface {
    imports: Vec<(String, String, FuncType)>,
    exports: BTreeMap<String, ExternalKind>,
}

/// A component from a core module: its own claims about worlds are dropped and ours imposed.
fn encode(bytes: &[u8], resolve: &Resolve, world: WorldId) -> Result<Vec<u8>, ModuleRefused> {
    Validator::new_with_features(features()).validate_all(bytes).map_err(feature_refused)?;
    let surface = surface(bytes)?;
    check_surface(&surface)?;
    let refused = |error: &dyn std::fmt::Display| {
        ModuleRefused::new(
            format!("no component can be made of the module: {error}"),
            "a module exports `describe`, `prepare`, `fold` and `transform` with the core types of udf.wit",
            "export all four with these names and types (cabi_post_* are optional)",
        )
    };
    let stripped = wit_component::metadata::decode(bytes).map_err(|error| refused(&format!("{error:#}")))?.0;
    let mut core = stripped.unwrap_or_else(|| bytes.to_vec());
    wit_component::embed_component_metadata(&mut core, resolve, world, StringEncoding::UTF8)
        .map_err(|error| refused(&format!("{error:#}")))?;
    let mut encoder =
        ComponentEncoder::default().validate(true).module(&core).map_err(|error| refused(&format!("{error:#}")))?;
    for answered in [WASI, ENV] {
        let wanted: BTreeMap<String, FuncType> = surface
            .imports
            .iter()
            .filter(|(module, _, _)| module == answered)
            .map(|(_, name, signature)| (name.clone(), signature.clone()))
            .collect();
        if !wanted.is_empty() {
            let wanted: Vec<_> = wanted.into_iter().collect();
            encoder = encoder
                .adapter(answered, &adapter(answered, &wanted)?)
                .map_err(|error| refused(&format!("{error:#}")))?;
        }
    }
    encoder.encode().map_err(|error| refused(&format!("{error:#}")))
}

fn feature_refused(error: wasmparser::BinaryReaderError) -> ModuleRefused {
    let text = error.message();
    let remedy = [
        ("thread", "build without threads (no -pthread, no target feature +atomics)"),
        ("shared", "build without threads (no -pthread, no target feature +atomics)"),
        ("exception", "build without exceptions (-fno-exceptions; in Rust panic = \"abort\")"),
        ("gc", "languages that need WebAssembly GC (Kotlin, Dart, Java) cannot run here yet"),
        ("reference type", "languages that need WebAssembly GC (Kotlin, Dart, Java) cannot run here yet"),
        ("relaxed", "build without the target feature +relaxed-simd: its results depend on the machine"),
        ("memory64", "build for wasm32, not wasm64"),
        ("64-bit", "build for wasm32, not wasm64"),
    ]
    .into_iter()
    .find(|(word, _)| text.to_ascii_lowercase().contains(word));
    match remedy {
        Some((_, remedy)) => ModuleRefused::new(
            format!("the module does not validate: {text} (at byte {})", error.offset()),
            "a module is WebAssembly 2.0 without garbage collection, threads, exceptions, relaxed SIMD and 64-bit \
             memories",
            remedy,
        ),
        None => broken(error),
    }
}

fn surface(bytes: &[u8]) -> Result<Surface, ModuleRefused> {
    let mut surface = Surface::default();
    let mut types: Vec<Option<FuncType>> = Vec::new();
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(broken)? {
            Payload::Version { encoding: Encoding::Component, .. } => break,
            Payload::TypeSection(section) => {
                for group in section {
                    for sub in group.map_err(broken)?.into_types() {
                        types.push(match sub.composite_type.inner {
                            wasmparser::CompositeInnerType::Func(signature) => Some(signature),
                            _ => None,
                        });
                    }
                }
            }
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    let import = import.map_err(broken)?;
                    let signature = match import.ty {
                        TypeRef::Func(index) => types.get(index as usize).cloned().flatten(),
                        _ => None,
                    };
                    let name = format!("`{}.{}`", message(import.module, 64), message(import.name, 64));
                    match (import.ty, signature) {
                        (_, Some(signature)) => {
                            surface.imports.push((import.module.to_owned(), import.name.to_owned(), signature));
                        }
                        (TypeRef::Memory(_), _) => {
                            return Err(ModuleRefused::new(
                                format!("the module imports its memory, {name}"),
                                "a module has a memory of its own and exports it as `memory`",
                                "build without --import-memory (in AssemblyScript --importMemory)",
                            ));
                        }
                        _ => {
                            return Err(ModuleRefused::new(
                                format!("the module imports {name}, which is no function"),
                                "a module imports nothing but functions of WASI preview 1 and env.abort",
                                "build a complete module, not one to be linked (no -shared, no --import-table)",
                            ));
                        }
                    }
                }
            }
            Payload::ExportSection(section) => {
                for export in section {
                    let export = export.map_err(broken)?;
                    surface.exports.insert(export.name.to_owned(), export.kind);
                }
            }
            _ => {}
        }
    }
    Ok(surface)
}

fn check_surface(surface: &Surface) -> Result<(), ModuleRefused> {
    let exports = |name: &str, kind| surface.exports.get(name) == Some(&kind);
    if exports("_start", ExternalKind::Func) {
        return Err(ModuleRefused::new(
            "the module is a command: it exports `_start`",
            "a module is a library whose functions are called",
            "build a reactor: -mexec-model=reactor (C, C++, Zig), -buildmode=c-shared (Go, TinyGo), crate-type = \
             [\"cdylib\"] (Rust)",
        ));
    }
    for (module, name, _) in &surface.imports {
        if module == WASI || (module == ENV && name == "abort") {
            continue;
        }
        let remedy = match module.as_str() {
            ENV => {
                "link what the module needs into it (no --allow-undefined); AssemblyScript's seed and trace are not \
                    given: do without Math.random and trace"
            }
            "__wbindgen_placeholder__" | "wbg" => "build without wasm-bindgen: it needs JavaScript",
            "wasi_unstable" => "build for wasi_snapshot_preview1",
            "gojs" | "go" => "build with GOOS=wasip1 -buildmode=c-shared, not GOOS=js",
            _ => "build without this import",
        };
        return Err(ModuleRefused::new(
            format!("the module imports `{}.{}`", message(module, 64), message(name, 64)),
            "a module imports nothing but functions of WASI preview 1 (all denied) and env.abort",
            remedy,
        ));
    }
    let standard = surface.exports.keys().any(|name| name.starts_with("cm32p2"));
    if !standard && !exports("memory", ExternalKind::Memory) {
        return Err(ModuleRefused::new(
            "the module exports no memory",
            "a module exports its memory as `memory`",
            "link with --export-memory, or name the memory `memory`",
        ));
    }
    if !standard && !exports("cabi_realloc", ExternalKind::Func) {
        return Err(ModuleRefused::new(
            "the module exports no `cabi_realloc`",
            "a module exports cabi_realloc(old pointer, old size, align, new size) -> pointer, through which \
             arguments get their memory",
            "use wit-bindgen's guest bindings, or export the five lines that the SDK of your language has for it",
        ));
    }
    Ok(())
}

/// Links nothing: what a module imports has been answered inside the component.
pub(crate) fn link(engine: &Engine, component: &Component) -> Result<contract::UdfPre<Guard>, ModuleRefused> {
    let linker: Linker<Guard> = Linker::new(&engine.wasm);
    linker.instantiate_pre(component).and_then(contract::UdfPre::new).map_err(|error| {
        ModuleRefused::new(
            format!("the component does not link: {error:#}"),
            "a component exports the four functions of udf.wit and imports nothing",
            "build from sdk/wit/udf.wit, without WASI",
        )
    })
}

impl ModuleInner {
    /// The checked description of a UDF of this module.
    pub(crate) fn info(&self, udf: &str) -> Option<&UdfInfo> {
        self.udfs.iter().find(|info| info.name == udf)
    }

    /// The instance's handle for what was prepared; prepares it there when it is new to the instance.
    pub(crate) fn handle(&self, instance: &mut Instance, prepared: &Prepared) -> Result<u32, CallFailure> {
        if let Some(handle) = instance.handle(prepared.id) {
            return Ok(handle);
        }
        let changed =
            |what: String| CallFailure::Invalid(format!("prepare answers differently in a new instance: {what}"));
        let answer = instance.prepare(&prepared.spec)?.map_err(changed)?;
        let info = self.info(&prepared.spec.udf).ok_or_else(|| changed("the udf is gone".to_owned()))?;
        let (outputs, claims) = check_prepared(info, &answer).map_err(changed)?;
        if outputs != prepared.outputs || claims != prepared.claims {
            return Err(changed("other outputs or claims".to_owned()));
        }
        instance.remember(prepared.id, answer.handle);
        Ok(answer.handle)
    }
}
