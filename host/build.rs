//! Builds `udfs/std` to Wasm, so that the binary brings the standard library with it: the same bytes from every checkout.
//!
//! Cargo puts the absolute path of a package outside its workspace into the names of symbols, and so into type ids and the
//! order of functions. `udfs/` and `sdk/rust` are therefore copied side by side into one workspace below `OUT_DIR`, where
//! all paths are relative to its root; what is left of it in panics is remapped (`udf_flags`).

#[path = "cli/udf_flags.rs"]
mod udf_flags;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// What the module is made of, below the checkout.
const SOURCES: [&str; 10] = [
    "udfs/Cargo.toml",
    "udfs/Cargo.lock",
    "udfs/std/Cargo.toml",
    "udfs/std/src",
    "udfs/ecommerce/Cargo.toml",
    "udfs/ecommerce/src",
    "udfs/sessions/Cargo.toml",
    "udfs/sessions/src",
    "sdk/rust/Cargo.toml",
    "sdk/rust/src",
];
const DERIVE: [&str; 2] = ["sdk/rust/derive/Cargo.toml", "sdk/rust/derive/src"];

fn main() -> Result<(), Box<dyn Error>> {
    let checkout = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(env::var("OUT_DIR")?);
    println!("cargo::rerun-if-changed=host/build.rs");
    println!("cargo::rerun-if-changed=host/cli/udf_flags.rs");
    let stage = out.join("modules");
    if stage.exists() {
        fs::remove_dir_all(&stage)?;
    }
    for source in SOURCES.iter().chain(&DERIVE) {
        println!("cargo::rerun-if-changed={source}");
        copy(&checkout.join(source), &stage.join(source))?;
    }
    stage_workspace(&stage)?;
    let target = out.join("modules-target");
    build(&stage, &target)?;
    let built = target.join(udf_flags::TARGET).join("release/onefold_std.wasm");
    fs::copy(&built, out.join("std.wasm")).map_err(|error| format!("{}: {error}", built.display()))?;
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<(), Box<dyn Error>> {
    if from.is_dir() {
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            copy(&entry.path(), &to.join(entry.file_name()))?;
        }
        return Ok(());
    }
    if let Some(directory) = to.parent() {
        fs::create_dir_all(directory)?;
    }
    fs::copy(from, to).map_err(|error| format!("{}: {error}", from.display()))?;
    Ok(())
}

/// Makes the copy one workspace, with the lock file of `udfs/`.
fn stage_workspace(stage: &Path) -> Result<(), Box<dyn Error>> {
    let manifest = fs::read_to_string(stage.join("udfs/Cargo.toml"))?;
    let members = r#"members = ["std", "ecommerce", "sessions"]"#;
    if !manifest.contains(members) {
        return Err(format!("udfs/Cargo.toml: its members are not `{members}`; name them in host/build.rs too").into());
    }
    // The SDK is no member: its own test dependencies are not in the lock file.
    let staged = r#"members = ["udfs/std", "udfs/ecommerce", "udfs/sessions"]
exclude = ["sdk"]"#;
    let staged = manifest.replace(members, staged);
    fs::write(stage.join("Cargo.toml"), staged)?;
    fs::rename(stage.join("udfs/Cargo.lock"), stage.join("Cargo.lock"))?;
    fs::remove_file(stage.join("udfs/Cargo.toml"))?;
    Ok(())
}

fn build(stage: &Path, target: &Path) -> Result<(), Box<dyn Error>> {
    let cargo = env::var("CARGO")?;
    let rustc = env::var("RUSTC")?;
    let sysroot = output(Command::new(&rustc).args(["--print", "sysroot"]))?;
    let version = output(Command::new(&rustc).arg("-vV"))?;
    let commit = version.lines().find_map(|line| line.strip_prefix("commit-hash: ")).unwrap_or("unknown");
    let cargo_home = match env::var("CARGO_HOME") {
        Ok(home) => home,
        Err(_) => format!("{}/.cargo", env::var("HOME")?),
    };
    let mut command = Command::new(cargo);
    command.args(udf_flags::CARGO_ARGUMENTS).args(["--locked", "--package", "onefold-std"]);
    command.current_dir(stage).arg("--target-dir").arg(target);
    for (variable, _) in env::vars_os() {
        if variable.to_str().is_some_and(udf_flags::is_cleared) {
            command.env_remove(variable);
        }
    }
    command.envs(udf_flags::PROFILE).env("RUSTC", &rustc);
    let sources = stage.to_string_lossy();
    let flags = udf_flags::encoded_rustflags(&sources, &cargo_home, sysroot.trim(), commit);
    command.env("CARGO_ENCODED_RUSTFLAGS", flags);
    let status = command.status()?;
    if !status.success() {
        let target = udf_flags::TARGET;
        return Err(format!(
            "the standard library's module was not built ({status}): see above; if the target is missing, run `rustup target add {target}`"
        )
        .into());
    }
    Ok(())
}

fn output(command: &mut Command) -> Result<String, Box<dyn Error>> {
    let output = command.output()?;
    if !output.status.success() {
        return Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}
