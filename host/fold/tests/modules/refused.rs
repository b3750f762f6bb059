//! Uploads that cannot become modules: what each is told. And the imports that compilers add, answered.

use crate::common::GUEST;
use onefold_fold::{Engine, Limits, ModuleRefused};
use std::sync::LazyLock;

static ENGINE: LazyLock<Engine> = LazyLock::new(|| Engine::new(Limits::default()).expect("the engine starts"));

/// The same as a component, as it is made of an upload.
static COMPONENT: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let bytes = wat::parse_str(whole("", "")).expect("the text parses");
    ENGINE.load(&bytes).expect("it is whole").component().to_vec()
});

/// Everything that a module needs, with one UDF `a` that nobody calls. `start` is the body of `_initialize`,
/// `describe` what points at the list (at 16: one record at 32, its name at 8).
const WHOLE: &str = r#"
  (memory (export "memory") 1)
  (data (i32.const 8) "a\00\00\00\00\00\00\00\20\00\00\00\01\00\00\00")
  (data (i32.const 32) "\08\00\00\00\01\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00")
  (func (export "describe") (result i32) (i32.const 16))
  (func (export "prepare") (param i32 i32 i32 i32 i32 i32) (result i32) unreachable)
  (func (export "fold") (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32) unreachable)
  (func (export "transform") (param i32 i32 i32 i32) (result i32) unreachable)"#;
const REALLOC: &str = r#"(func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))"#;

fn load(text: &str) -> Result<Vec<String>, ModuleRefused> {
    let bytes = wat::parse_str(text).expect("the text parses");
    let module = ENGINE.load(&bytes)?;
    Ok(module.udfs().iter().map(|udf| udf.name.clone()).collect())
}

fn whole(before: &str, after: &str) -> String {
    format!("(module {before} {WHOLE} {REALLOC} {after})")
}

#[test]
fn a_module_in_text_form_loads() {
    assert_eq!(load(&whole("", "")), Ok(vec!["a".to_owned()]));
}

#[test]
fn what_compilers_import_is_answered_by_constants() {
    let imports = r#"
      (import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
      (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
      (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
      (import "wasi_snapshot_preview1" "environ_sizes_get" (func $environ (param i32 i32) (result i32)))
      (import "wasi_snapshot_preview1" "path_open"
        (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
      (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
      (import "env" "abort" (func $abort (param i32 i32 i32 i32)))"#;
    // Each answer that is not the expected one traps, and a module that traps at its start does not load.
    let start = r#"
      (func $is (param i32 i32) (if (i32.ne (local.get 0) (local.get 1)) (then unreachable)))
      (func (export "_initialize")
        (call $is (call $clock (i32.const 0) (i64.const 0) (i32.const 256)) (i32.const 0))
        (if (i64.ne (i64.load (i32.const 256)) (i64.const 1000000000)) (then unreachable))
        (i64.store (i32.const 264) (i64.const -1))
        (call $is (call $random (i32.const 264) (i32.const 4)) (i32.const 0))
        (if (i64.ne (i64.load (i32.const 264)) (i64.const 0xffffffff00000000)) (then unreachable))
        (i32.store (i32.const 276) (i32.const 77))
        (call $is (call $write (i32.const 1) (i32.const 272) (i32.const 1) (i32.const 280)) (i32.const 0))
        (call $is (i32.load (i32.const 280)) (i32.const 77))
        (i32.store (i32.const 284) (i32.const 5))
        (call $is (call $environ (i32.const 284) (i32.const 288)) (i32.const 0))
        (call $is (i32.load (i32.const 284)) (i32.const 0))
        (call $is (call $open (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i64.const 0)
          (i64.const 0) (i32.const 0) (i32.const 0)) (i32.const 52)))"#;
    assert_eq!(load(&whole(imports, start)), Ok(vec!["a".to_owned()]));
    for ending in
        ["(call $exit (i32.const 0))", "(call $abort (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))"]
    {
        let refused = load(&whole(imports, &format!(r#"(func (export "_initialize") {ending})"#))).expect_err(ending);
        assert!(refused.saw.contains("starting the module failed: trap"), "{refused}");
    }
}

#[test]
fn uploads_are_refused_with_what_to_change() {
    let without = |part: &str| whole("", "").replacen(part, "", 1);
    let memory = |kind: &str| {
        whole("", "").replacen(r#"(memory (export "memory") 1)"#, &format!(r#"(memory (export "memory") {kind})"#), 1)
    };
    let name = |name: &str| whole("", "").replacen("\"a\\00", &format!("\"{name}\\00"), 1);
    for (text, saw, remedy) in [
        (whole("", r#"(func (export "_start"))"#), "command", "-mexec-model=reactor"),
        (
            format!(r#"(module (import "env" "memory" (memory 1)) {REALLOC})"#),
            "imports its memory",
            "--import-memory",
        ),
        (whole(r#"(import "env" "seed" (func (result f64)))"#, ""), "`env.seed`", "Math.random"),
        (whole(r#"(import "wbg" "f" (func))"#, ""), "`wbg.f`", "wasm-bindgen"),
        (whole(r#"(import "env" "t" (table 1 funcref))"#, ""), "no function", "not one to be linked"),
        (format!("(module {WHOLE})"), "no `cabi_realloc`", "wit-bindgen"),
        (without(r#"(export "memory")"#), "no memory", "--export-memory"),
        (without(r#"(export "fold")"#), "fold", "export all four"),
        (memory("1 1 shared"), "does not validate", "without threads"),
        (memory("i64 1"), "does not validate", "wasm32"),
        (whole("", "(type (struct))"), "does not validate", "GC"),
        (whole("", "(tag)"), "does not validate", "exceptions"),
        (name("A"), "names a udf `A`", "rename"),
        (
            whole("", "").replacen(r"\20\00\00\00\01\00\00\00", r"\20\00\00\00\00\00\00\00", 1),
            "lists 0 udfs",
            "at least one",
        ),
        (
            whole("", "").replacen(
                r#"(i32.const 32) "\08\00\00\00\01\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00""#,
                r#"(i32.const 32) "\08\00\00\00\01\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\08\00\00\00\01\00\00\00""#,
                1,
            ),
            "is no JSON",
            "properties",
        ),
        (whole("", r#"(func (export "_initialize") (loop (br 0)))"#), "out of fuel", "initializers"),
        (memory("5000"), "out of memory", "initializers"),
    ] {
        let refused = load(&text).expect_err(saw);
        assert!(refused.saw.contains(saw) && refused.remedy.contains(remedy), "wanted {saw:?}, {remedy:?}: {refused}");
    }
}

#[test]
fn bytes_that_are_no_module_are_refused() {
    let component = wat::parse_str(r#"(component (import "wasi:cli/environment@0.2.6" (instance)))"#).expect("parses");
    let empty = wat::parse_str("(component)").expect("parses");
    let mut large = GUEST.clone();
    large.resize(Limits::default().module_bytes + 1, 0);
    for (bytes, saw) in [
        (&b""[..], "do not begin"),
        (b"(module)", "do not begin"),
        (b"\x7fELF\x02\x01\x01", "precompiled"),
        (b"\0asm\x01\0\0\0\xff", "not valid"),
        (&GUEST[..GUEST.len() / 2], "not valid"),
        (&component, "wasi:cli/environment"),
        (&empty, "not of the world"),
        (&large, "bytes"),
    ] {
        let refused = ENGINE.load(bytes).err().expect(saw);
        assert!(refused.saw.contains(saw), "wanted {saw:?}: {refused}");
    }
}

/// What was made of an upload is itself an upload: the component loads as it is.
#[test]
fn a_component_loads() {
    let module = ENGINE.load(&GUEST).expect("the guest loads");
    let again = ENGINE.load(module.component()).expect("its component loads");
    assert_eq!(again.udfs(), module.udfs());
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(512))]

    /// Guards against a parser or compiler that an upload can bring down: sections are moved, lengths are wrong.
    #[test]
    fn mangled_modules_load_or_are_refused(
        changes in proptest::collection::vec((proptest::prelude::any::<proptest::sample::Index>(), 0u8..3, proptest::prelude::any::<u8>()), 1..5),
        core: bool,
    ) {
        let text = whole("", "");
        let core_bytes = wat::parse_str(&text).expect("the text parses");
        let mut bytes = match core {
            true => core_bytes,
            false => COMPONENT.clone(),
        };
        for (at, what, byte) in changes {
            let at = at.index(bytes.len());
            match what {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => drop(bytes.remove(at)),
            }
        }
        if let Err(refused) = ENGINE.load(&bytes) {
            proptest::prop_assert!(!refused.saw.is_empty() && !refused.remedy.is_empty(), "{refused}");
        }
    }
}
