//! The case files of a UDF's project, run on every path.

use super::cases::{self, failure};
use super::{Global, note, print};
use crate::cases::Runner;
use crate::define::definition_files;
use crate::define::{DefinitionFile, read_files};
use std::path::Path;

/// Runs `DIR/cases` with this module at hand, and tells what came of it. Returns whether all holds.
pub fn run(directory: &Path, module: &Path, name: &str, global: &Global) -> anyhow::Result<bool> {
    let cases = directory.join("cases");
    let files = match cases.is_dir() {
        true => definition_files(&cases)?,
        false => Vec::new(),
    };
    if files.is_empty() {
        note(&format!("{}: there are no cases; a file with definitions and `kind: test` makes one", cases.display()));
    }
    let mut runner = Runner::new().map_err(failure)?;
    runner.add_module(name, std::fs::read(module)?).map_err(failure)?;
    let mut suites = Vec::new();
    for DefinitionFile { file, directory, text } in files {
        // Each file is a world of its own; shown as a person would open it.
        let file = cases.join(file).display().to_string();
        let definitions = read_files(&[DefinitionFile { file, directory, text }])?;
        suites.push(runner.suite(&definitions).map_err(failure)?);
    }
    let ran = cases::run(&runner, suites, global)?;
    match global.json {
        true => print(&ran.as_json().to_string())?,
        false => print(&ran.as_text())?,
    }
    Ok(ran.report.holds())
}
