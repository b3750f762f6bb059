//! Modules that tests upload, built by the toolchain that builds the tests.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

/// The repository.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The bytes of the e-commerce module, in the place where the example's definitions look for it.
pub fn ecommerce() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| built("ecommerce"))
}

/// The bytes of the module `sessions`.
pub fn sessions() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| built("sessions"))
}

/// The guest's ordered aggregates.
pub fn trails() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| guest("trail,trail_alone"))
}

/// A module of `udfs/`, all of which are built.
fn built(module: &str) -> Vec<u8> {
    static UDFS: OnceLock<PathBuf> = OnceLock::new();
    let directory = UDFS.get_or_init(|| {
        let udfs = root().join("udfs");
        let target = udfs.join("target");
        let built = Command::new(env!("CARGO"))
            .args(["build", "--release", "--locked", "--target", "wasm32-unknown-unknown"])
            .env("CARGO_TARGET_DIR", &target)
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .env_remove("RUSTFLAGS")
            .current_dir(&udfs)
            .output()
            .expect("cargo runs");
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        target.join("wasm32-unknown-unknown/release")
    });
    std::fs::read(directory.join(format!("{module}.wasm"))).expect("the module was built")
}

/// The guest of `host/fold/tests/guests/` with these of its UDFs, names with commas between: good ones and liars.
pub fn guest(only: &str) -> Vec<u8> {
    let directory = tempfile::tempdir().expect("a directory for the guest");
    let module = directory.path().join("guest.wasm");
    let built = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
        .args(["--edition", "2024", "--target", "wasm32-unknown-unknown", "--crate-type", "cdylib", "-O"])
        .args(["-C", "panic=abort", "-o"])
        .arg(&module)
        .arg(root().join("host/fold/tests/guests/guest.rs"))
        .env("ONLY_UDF", only)
        .current_dir(root())
        .output()
        .expect("rustc runs");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    std::fs::read(module).expect("the guest was written")
}
