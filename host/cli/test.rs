//! `onefold test`: the tests of a definition directory on every path, with nothing but the directory.

use super::cases::{self, Ran, failure};
use super::client::check_directory;
use super::junit;
use super::{Failure, Global, print};
use crate::cases::{Runner, Suite};
use crate::define::{DefinitionFile, Lock, Upgrade, definition_files, read_files};
use crate::registry::ApplyOptions;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Run the tests of definitions (`kind: test`) on every path.
///
/// Each test's events go through the stream (as given, reversed, shuffled, one by one and all at once, in time and
/// late, with a checkpoint and a kill in the middle), through snapshots and through training sets, and every path must
/// give what the lookups expect, to the bit. Nothing but the directory is needed: modules are those of its
/// `kind: module` documents and `std`, under its onefold.lock.
///
/// Exit codes: 0 all tests passed; 1 a test failed; 2 there is no test, or something is wrong with the definitions.
#[derive(clap::Args)]
#[command(after_help = "Examples: onefold test shop\n          onefold test shop --junit target/onefold.xml")]
pub struct TestArgs {
    /// The definitions: a directory, or one file.
    dir: PathBuf,
    /// Write what came of each test here, as CI servers read it.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Do not hold this module, or any, to its line of onefold.lock.
    #[arg(long, value_name = "MODULE", num_args = 0..=1, default_missing_value = "*")]
    upgrade: Option<String>,
}

pub fn run(args: &TestArgs, global: &Global) -> anyhow::Result<ExitCode> {
    check_directory(&args.dir)?;
    match try_run(args, global) {
        Ok(ran) => {
            write(args, || junit::report(&ran))?;
            match global.json {
                true => print(&ran.as_json().to_string())?,
                false => print(&ran.as_text())?,
            }
            Ok(if ran.report.holds() { ExitCode::SUCCESS } else { ExitCode::from(1) })
        }
        Err(error) => {
            // What could not be run is no green build either.
            write(args, || junit::broken(&args.dir.display().to_string(), &format!("{error:#}")))?;
            Err(error)
        }
    }
}

fn try_run(args: &TestArgs, global: &Global) -> anyhow::Result<Ran> {
    let runner = Runner::new().map_err(failure)?;
    let suite = suite(&runner, &args.dir, args.upgrade.as_deref())?;
    if suite.tests.is_empty() {
        // As pytest has it: a path without tests is a wrong path, and a build must not be green for it.
        let message = format!(
            "{}: there is no test in it: add a document with `kind: test`, events, and lookups with what they expect",
            args.dir.display()
        );
        return Err(Failure::Input(message).into());
    }
    Ok(cases::run(&runner, vec![suite], global)?)
}

/// The tests of a directory or a file, checked with its definitions. Files are shown as a person would open them.
pub fn suite(runner: &Runner, dir: &Path, upgrade: Option<&str>) -> anyhow::Result<Suite> {
    let files = definition_files(dir)?.into_iter().map(|file| match dir.is_dir() {
        true => DefinitionFile { file: dir.join(&file.file).display().to_string(), ..file },
        false => file,
    });
    let definitions = read_files(&files.collect::<Vec<_>>())?;
    let options = ApplyOptions {
        lock: Lock::read(dir)?,
        upgrade: upgrade.map_or(Upgrade::None, Upgrade::named),
        ..ApplyOptions::default()
    };
    Ok(runner.suite_of(&definitions, options).map_err(failure)?)
}

fn write(args: &TestArgs, text: impl FnOnce() -> String) -> anyhow::Result<()> {
    let Some(path) = &args.junit else { return Ok(()) };
    std::fs::write(path, text())
        .map_err(|error| Failure::Outside(format!("{}: {error}; its directory must be there", path.display())).into())
}
