//! Suites run on every path, and what is told of them: for people, for scripts, for CI servers.

use super::{Failure, Global};
use crate::cases::{CaseError, Difference, Finding, Report, Runner, Suite, all_ways};
use crate::define::duration_text;
use crate::serve::values::time_text;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

/// So that a shuffle that finds something finds it again.
const SEED: u64 = 1;
/// Rows of an entity that are shown below a difference, the newest.
const ROWS_SHOWN: usize = 10;
/// Characters of a row that are shown.
const ROW_LENGTH: usize = 200;

/// Suites with what came of them.
pub struct Ran {
    pub suites: Vec<Suite>,
    pub report: Report,
    /// Microseconds that it took.
    pub took_us: u64,
}

/// Puts suites through every way.
pub fn run(runner: &Runner, suites: Vec<Suite>, global: &Global) -> Result<Ran, Failure> {
    let started_us = global.clock.monotonic_us();
    let ways = all_ways(SEED);
    let bar = bar(suites.len() * ways.len(), global.progress);
    let mut report = Report::default();
    for suite in &suites {
        for way in &ways {
            report.add(runner.run(suite, way).map_err(failure)?);
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    let took_us = global.clock.monotonic_us().saturating_sub(started_us);
    Ok(Ran { suites, report, took_us })
}

fn bar(steps: usize, watched: bool) -> ProgressBar {
    if !watched {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} ways through the cases  {eta} left");
    ProgressBar::new(steps as u64).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

pub fn failure(error: CaseError) -> Failure {
    match error {
        CaseError::Wrong(text) => Failure::Input(text),
        CaseError::Failed(text) => Failure::Outside(text),
    }
}

impl Ran {
    pub fn tests(&self) -> usize {
        self.suites.iter().map(|suite| suite.tests.len()).sum()
    }

    pub fn as_json(&self) -> Value {
        let findings = self.report.findings();
        let cases = self.suites.iter().flat_map(|suite| &suite.tests).map(|test| {
            let failed = findings.iter().any(|finding| is_of(finding, test));
            json!({ "file": test.file, "line": test.line, "test": test.name, "passed": !failed })
        });
        json!({
            "tests": self.tests(),
            "lookups": self.report.lookups(),
            "answers": self.report.answers(),
            "differ": findings.len(),
            "cases": cases.collect::<Value>(),
            "differences": findings,
            "refused": self.report.refused(),
        })
    }

    pub fn as_text(&self) -> String {
        let counted = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
        let (lookups, answers) = (counted(self.report.lookups(), "lookup"), counted(self.report.answers(), "answer"));
        let asked = format!("{}, {lookups}, {answers}", counted(self.tests(), "test"));
        let findings = self.report.findings();
        if findings.is_empty() {
            return format!("{asked}: as expected in every stream, snapshot and training set");
        }
        let failed = self.suites.iter().flat_map(|suite| &suite.tests);
        let failed = failed.filter(|test| findings.iter().any(|finding| is_of(finding, test))).count();
        let mut lines = vec![self.told(&findings), String::new()];
        lines.push(format!("{asked}: {} failed, {}", counted(failed, "test"), counted(findings.len(), "difference")));
        lines.extend(self.report.refused().iter().map(|reason| format!("a row took no part: {reason}")));
        lines.join("\n")
    }

    /// Differences, those of one lookup together with the rows of its entity.
    pub fn told(&self, findings: &[Finding]) -> String {
        let mut lines: Vec<String> = Vec::new();
        for of_lookup in findings.chunk_by(|one, other| {
            (&one.difference.file, one.difference.line) == (&other.difference.file, other.difference.line)
        }) {
            let Some(Finding { difference: first, .. }) = of_lookup.first() else { continue };
            if !lines.is_empty() {
                lines.push(String::new());
            }
            let (file, line, test) = (&first.file, first.line, &first.test);
            lines.push(format!("{file}:{line}: `{test}`: {} of {} at {}", first.view, first.entity, first.at));
            for Finding { difference, .. } in of_lookup.iter() {
                let reason = difference.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
                let (feature, expected, found) = (&difference.feature, &difference.expected, &difference.found);
                lines.push(format!("  {feature}: expected {expected}, found {found}{reason}"));
            }
            let mut ways: Vec<String> = of_lookup.iter().map(Finding::shown_paths).collect();
            ways.dedup();
            lines.push(format!("  on {}", ways.join(" | ")));
            lines.extend(of_lookup.iter().find_map(|finding| self.order_hint(finding)));
            lines.extend(self.rows(first.file.as_ref(), first.line));
        }
        lines.join("\n")
    }

    /// What helps where only the order of arrival makes the difference, and the feature asks for one.
    fn order_hint(&self, finding: &Finding) -> Option<String> {
        let Difference { file, line, view, feature, .. } = &finding.difference;
        let is_stream = finding.paths.iter().all(|path| path.starts_with("stream"));
        if finding.everywhere || !is_stream {
            return None;
        }
        let suite = self.suites.iter().find(|suite| suite.lookup_at(file, *line).is_some())?;
        let features = &suite.project().feature_views.get(view)?.features;
        let ordered = features.iter().find(|one| one.outputs.iter().any(|output| output.name == *feature))?;
        let lateness = duration_text(ordered.allowed_lateness_us?);
        Some(format!(
            "  `{feature}` takes its rows in order: those that come later than the view's `allowed_lateness` ({lateness}) \
             are set aside, and a test also sends them in another order; let the view have as much as its rows may be late"
        ))
    }

    /// What an entity is made of, as its test gives it.
    fn rows(&self, file: &str, line: u32) -> Vec<String> {
        let found = self.suites.iter().find_map(|suite| Some((suite, suite.lookup_at(file, line)?)));
        let Some((suite, (test, lookup))) = found else { return Vec::new() };
        let rows = suite.rows_of(test, lookup);
        let left_out = rows.len().saturating_sub(ROWS_SHOWN);
        let mut lines = match left_out {
            0 => Vec::new(),
            rows => vec![format!("  {rows} older rows, and")],
        };
        for (at_us, row) in rows.iter().skip(left_out) {
            let after = if *at_us > lookup.at_us { ", after the lookup" } else { "" };
            let text = row.to_string();
            let text = match text.char_indices().nth(ROW_LENGTH) {
                Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
                None => text,
            };
            lines.push(format!("  row {} {text}{after}", time_text(*at_us).unwrap_or_default()));
        }
        lines
    }
}

/// Whether a finding is one of this test.
pub fn is_of(finding: &Finding, test: &crate::define::TestCase) -> bool {
    finding.difference.file == test.file && test.lookups.iter().any(|lookup| lookup.line == finding.difference.line)
}
