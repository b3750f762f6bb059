//! `onefold udf`: write a UDF, build its module, try it.

use super::udf_cases;
use super::udf_flags;
use super::{Failure, Global, note, print};
use crate::define::check_name;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Write and try UDFs.
#[derive(clap::Args)]
#[command(after_help = "Example: onefold udf new my_features --lang rust")]
pub struct UdfArgs {
    #[command(subcommand)]
    action: UdfAction,
}

#[derive(clap::Subcommand)]
enum UdfAction {
    /// A project that builds and passes its tests at once.
    #[command(after_help = "Example: onefold udf new my_features --lang rust")]
    New {
        /// Of the module and its directory.
        name: String,
        /// The language: rust.
        #[arg(long, default_value = "rust")]
        lang: String,
        /// The SDK's directory, sdk/rust of a checkout [default: that of this program].
        #[arg(long, value_name = "DIR")]
        sdk: Option<PathBuf>,
    },
    /// Build the module of a project: NAME.wasm in its directory.
    #[command(after_help = "Example: onefold udf build my_features")]
    Build {
        /// The project.
        #[arg(default_value = ".")]
        dir: PathBuf,
    },
    /// Build, run the project's own tests, then its cases on every path: stream, snapshot, point in time, on demand.
    #[command(after_help = "Example: onefold udf test my_features")]
    Test {
        /// The project.
        #[arg(default_value = ".")]
        dir: PathBuf,
    },
    #[command(hide = true, after_help = "Example: not in this version")]
    Bench { file: PathBuf },
}

/// The files of a new project, by path.
const TEMPLATE: [(&str, &str); 4] = [
    ("Cargo.toml", include_str!("../../sdk/rust/template/Cargo.toml.in")),
    ("README.md", include_str!("../../sdk/rust/template/README.md.in")),
    ("src/lib.rs", include_str!("../../sdk/rust/template/src/lib.rs.in")),
    ("cases/{{name}}.yaml", include_str!("../../sdk/rust/template/cases/NAME.yaml.in")),
];

/// The name of what every module exports, and `export!` writes.
const EXPORTED: &[u8] = b"cabi_realloc";

/// Where this program was built, if that is still a checkout.
const SDK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/sdk/rust");

pub fn run(args: &UdfArgs, global: &Global) -> anyhow::Result<ExitCode> {
    match &args.action {
        UdfAction::New { name, lang, sdk } => new(name, lang, sdk.as_deref())?,
        UdfAction::Build { dir } => {
            let module = build(dir)?;
            print(&module.display().to_string())?;
        }
        UdfAction::Test { dir } => return test(dir, global),
        UdfAction::Bench { .. } => {
            return Err(Failure::Input("`onefold udf bench` is not in this version yet".to_owned()).into());
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn new(name: &str, lang: &str, sdk: Option<&Path>) -> anyhow::Result<()> {
    check_name(name).map_err(Failure::Input)?;
    if lang != "rust" {
        return Err(Failure::Input(format!("--lang {lang}: this version has a template for rust only")).into());
    }
    let sdk = sdk.unwrap_or(Path::new(SDK));
    let sdk = std::fs::canonicalize(sdk).map_err(|error| {
        Failure::Input(format!("no SDK at {}: {error}; name sdk/rust of a checkout with --sdk", sdk.display()))
    })?;
    let directory = Path::new(name);
    if directory.exists() {
        return Err(Failure::Input(format!("{name} is there already: choose another name")).into());
    }
    // As a TOML string: a backslash or a quote in a path must not end it.
    let sdk = sdk.display().to_string().replace('\\', "\\\\").replace('"', "\\\"");
    for (path, text) in TEMPLATE {
        let path = directory.join(path.replace("{{name}}", name));
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(&path, text.replace("{{name}}", name).replace("{{sdk_path}}", &sdk))?;
    }
    print(&format!("{name}: edit {name}/src/lib.rs, then `onefold udf test {name}`"))
}

/// Builds the module of a project as the standard library's is built, and copies it beside the manifest.
fn build(dir: &Path) -> anyhow::Result<PathBuf> {
    let dir = project_directory(dir)?;
    let crate_name = crate_name(&dir)?;
    let target = dir.join("target");
    let mut command = cargo(&dir);
    command.args(udf_flags::CARGO_ARGUMENTS).arg("--target-dir").arg(&target);
    for (variable, _) in std::env::vars_os() {
        if variable.to_str().is_some_and(udf_flags::is_cleared) {
            command.env_remove(variable);
        }
    }
    command.envs(udf_flags::PROFILE);
    command.env("CARGO_ENCODED_RUSTFLAGS", rust_flags(&dir)?);
    let target_hint = format!("; if the target is missing, run `rustup target add {}`", udf_flags::TARGET);
    finish(command, &format!("the module was not built: see above{target_hint}"))?;
    let file = format!("{}.wasm", crate_name.replace('-', "_"));
    let built = target.join(udf_flags::TARGET).join("release").join(&file);
    let module = dir.join(&file);
    let bytes = std::fs::read(&built)
        .map_err(|error| Failure::Outside(format!("{}: {error}; its [lib] must be a cdylib", built.display())))?;
    if memchr::memmem::find(&bytes, EXPORTED).is_none() {
        return Err(Failure::No(format!(
            "{}: the module exports no UDF: name each aggregate and transform in `onefold_udf::export![…]` at the end of \
             src/lib.rs",
            dir.display()
        ))
        .into());
    }
    std::fs::write(&module, bytes).map_err(|error| Failure::Outside(format!("{}: {error}", module.display())))?;
    Ok(module)
}

fn test(dir: &Path, global: &Global) -> anyhow::Result<ExitCode> {
    let module = build(dir)?;
    let mut command = cargo(&project_directory(dir)?);
    command.arg("test");
    if global.json {
        // Standard output is for the report.
        command.stdout(std::io::stderr());
    }
    finish(command, "a test of the project failed: see above")?;
    note(&format!("{} and its own tests are fine", module.display()));
    let name = module.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let holds = udf_cases::run(dir, &module, &name, global)?;
    Ok(if holds { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn project_directory(dir: &Path) -> Result<PathBuf, Failure> {
    let manifest = dir.join("Cargo.toml");
    match manifest.is_file() {
        true => std::fs::canonicalize(dir).map_err(|error| Failure::Input(format!("{}: {error}", dir.display()))),
        false => Err(Failure::Input(format!(
            "{}: no project of a UDF is there; `onefold udf new NAME` makes one",
            manifest.display()
        ))),
    }
}

/// The name in the manifest: its first `name = "…"`, which is the package's.
fn crate_name(dir: &Path) -> anyhow::Result<String> {
    let manifest = std::fs::read_to_string(dir.join("Cargo.toml"))?;
    let package = manifest.split("[package]").nth(1).unwrap_or_default();
    let line = package.lines().find_map(|line| line.trim().strip_prefix("name")?.trim_start().strip_prefix('='));
    match line.map(|value| value.trim().trim_matches('"').to_owned()) {
        Some(name) if !name.is_empty() => Ok(name),
        _ => Err(Failure::Input(format!("{}: [package] has no name", dir.join("Cargo.toml").display())).into()),
    }
}

fn rust_flags(dir: &Path) -> anyhow::Result<String> {
    let said = |arguments: &[&str]| -> anyhow::Result<String> {
        let output = Command::new("rustc").args(arguments).current_dir(dir).output().map_err(missing)?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let sysroot = said(&["--print", "sysroot"])?;
    let version = said(&["-vV"])?;
    let commit = version.lines().find_map(|line| line.strip_prefix("commit-hash: ")).unwrap_or("unknown").to_owned();
    let home = std::env::var("CARGO_HOME").or_else(|_| std::env::var("HOME").map(|home| format!("{home}/.cargo")));
    let home = home.unwrap_or_default();
    Ok(udf_flags::encoded_rustflags(&dir.to_string_lossy(), &home, sysroot.trim(), &commit))
}

fn cargo(dir: &Path) -> Command {
    let mut command = Command::new("cargo");
    command.current_dir(dir);
    command
}

fn finish(mut command: Command, failed: &str) -> anyhow::Result<()> {
    let status = command.status().map_err(missing)?;
    match status.success() {
        true => Ok(()),
        false => Err(Failure::No(failed.to_owned()).into()),
    }
}

fn missing(error: std::io::Error) -> Failure {
    Failure::Outside(format!("cargo and rustc are needed to build a UDF: {error}; install them with rustup"))
}
