//! The case files of a UDF's project, run on every path.

use super::table::Table;
use super::{Failure, Global, note, print};
use crate::cases::{CaseError, Finding, Report, Runner, all_ways};
use crate::define::definition_files;
use crate::define::{DefinitionFile, read_files};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use std::path::Path;

/// So that a shuffle that finds something finds it again.
const SEED: u64 = 1;

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
    let ways = all_ways(SEED);
    let bar = bar(suites.len() * ways.len(), global.progress);
    let (mut report, mut tests) = (Report::default(), 0);
    for suite in &suites {
        tests += suite.tests.len();
        for way in &ways {
            report.add(runner.run(suite, way).map_err(failure)?);
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    match global.json {
        true => print(&as_json(tests, &report).to_string())?,
        false => print(&as_text(tests, &report))?,
    }
    Ok(report.holds())
}

fn bar(steps: usize, watched: bool) -> ProgressBar {
    if !watched {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} ways through the cases  {eta} left");
    ProgressBar::new(steps as u64).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn failure(error: CaseError) -> Failure {
    match error {
        CaseError::Wrong(text) => Failure::Input(text),
        CaseError::Failed(text) => Failure::Outside(text),
    }
}

fn as_json(tests: usize, report: &Report) -> Value {
    let findings = report.findings();
    json!({
        "tests": tests,
        "lookups": report.lookups(),
        "answers": report.answers(),
        "differ": findings.len(),
        "differences": findings,
        "refused": report.refused(),
    })
}

fn as_text(tests: usize, report: &Report) -> String {
    let counted = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    let (lookups, answers) = (counted(report.lookups(), "lookup"), counted(report.answers(), "answer"));
    let asked = format!("{}, {lookups}, {answers}", counted(tests, "test"));
    let findings = report.findings();
    if findings.is_empty() {
        return format!("{asked}: as expected in every stream, snapshot and training set");
    }
    let mut table = Table::new(&["lookup", "test", "entity", "feature", "expected", "found", "path"]);
    for finding in &findings {
        let Finding { difference, .. } = finding;
        let found = match &difference.reason {
            Some(reason) => format!("{} ({reason})", difference.found),
            None => difference.found.to_string(),
        };
        table.row([
            format!("{}:{}", difference.file, difference.line),
            difference.test.clone(),
            difference.entity.clone(),
            format!("{}.{}", difference.view, difference.feature),
            difference.expected.to_string(),
            found,
            finding.shown_paths(),
        ]);
    }
    let mut lines = vec![table.text(), String::new(), format!("{asked}: {} differ", findings.len())];
    lines.extend(report.refused().iter().map(|reason| format!("a row took no part: {reason}")));
    lines.join("\n")
}
