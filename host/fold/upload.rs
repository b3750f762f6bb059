//! Uploads: what the compiler left becomes a component of our world without imports, or is refused with the remedy.

use crate::adapter::{ENV, WASI, adapter};
use crate::engine::Limits;
use crate::error::ModuleRefused;
use crate::module::CONTRACT;
use crate::wire::message;
use std::collections::BTreeMap;
use wasmparser::{
    ComponentTypeRef, Encoding, ExternalKind, FuncType, Parser, Payload, TypeRef, Validator, WasmFeatures,
};
use wit_component::{ComponentEncoder, StringEncoding};
use wit_parser::{Resolve, WorldId};

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

/// WebAssembly 2.0 and what compilers emit by default today; nothing that the engine's profile leaves out.
fn features() -> WasmFeatures {
    (WasmFeatures::WASM2 | WasmFeatures::EXTENDED_CONST | WasmFeatures::TAIL_CALL).difference(WasmFeatures::GC_TYPES)
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
