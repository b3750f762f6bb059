//! What came of a suite: differences, each with all the ways that show it.

use crate::define::TestCase;
use serde::Serialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What one way gave.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Answers that were judged: file, line of the lookup and path.
    pub asked: BTreeSet<(Arc<str>, u32, String)>,
    pub differences: Vec<Difference>,
    /// Why rows took no part, as a batch tells it.
    pub refused: BTreeSet<String>,
}

/// A value that is not what a case expects.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    pub file: Arc<str>,
    /// Of the lookup.
    pub line: u32,
    pub test: String,
    pub view: String,
    /// `key=value`, with commas between.
    pub entity: String,
    /// As of when it was looked up: RFC 3339.
    pub at: String,
    /// A value column, or `status` or `valid_until`.
    pub feature: String,
    pub expected: Value,
    pub found: Value,
    /// Why the value is null, where the feature says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// `stream shuffled, batch 7`, `snapshot, 1 thread`, …; empty where a finding has several.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub path: String,
}

impl Outcome {
    /// Notes that a lookup was asked, and what is wrong with the answer.
    pub(super) fn judged(&mut self, test: &TestCase, line: u32, path: &str, differences: Vec<Difference>) {
        self.asked.insert((test.file.clone(), line, path.to_owned()));
        self.differences.extend(differences);
    }
}

/// What all ways gave, equal differences as one.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Of each lookup, by file and line, the paths that answered it.
    paths: BTreeMap<(Arc<str>, u32), BTreeSet<String>>,
    findings: Vec<Finding>,
    refused: BTreeSet<String>,
}

/// A difference and where it shows.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    #[serde(flatten)]
    pub difference: Difference,
    pub paths: Vec<String>,
    /// No path gave what was expected.
    pub everywhere: bool,
}

impl Report {
    pub fn add(&mut self, outcome: Outcome) {
        for (file, line, path) in outcome.asked {
            self.paths.entry((file, line)).or_default().insert(path);
        }
        for difference in outcome.differences {
            let path = difference.path.clone();
            let difference = Difference { path: String::new(), ..difference };
            match self.findings.iter_mut().find(|finding| finding.difference == difference) {
                Some(finding) if finding.paths.contains(&path) => {}
                Some(finding) => finding.paths.push(path),
                None => self.findings.push(Finding { difference, paths: vec![path], everywhere: false }),
            }
        }
        self.refused.extend(outcome.refused);
    }

    /// In order of file and line.
    pub fn findings(&self) -> Vec<Finding> {
        let mut findings = self.findings.clone();
        for finding in &mut findings {
            let asked = self.paths.get(&(finding.difference.file.clone(), finding.difference.line));
            finding.everywhere = asked.is_some_and(|asked| asked.len() == finding.paths.len());
        }
        findings.sort_by(|one, other| {
            let place = |finding: &Finding| (finding.difference.file.clone(), finding.difference.line);
            place(one).cmp(&place(other))
        });
        findings
    }

    pub fn holds(&self) -> bool {
        self.findings.is_empty()
    }

    /// Lookups of the cases that were asked at all.
    pub fn lookups(&self) -> usize {
        self.paths.len()
    }

    /// Answers that were judged, over all ways.
    pub fn answers(&self) -> usize {
        self.paths.values().map(BTreeSet::len).sum()
    }

    /// Why rows took no part.
    pub fn refused(&self) -> &BTreeSet<String> {
        &self.refused
    }
}

impl Finding {
    /// The paths in a few words.
    pub fn shown_paths(&self) -> String {
        const SHOWN: usize = 2;
        if self.everywhere {
            return "every path".to_owned();
        }
        let shown = self.paths.iter().take(SHOWN).cloned().collect::<Vec<_>>().join("; ");
        match self.paths.len().saturating_sub(SHOWN) {
            0 => shown,
            more => format!("{shown}; and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn difference(line: u32, found: i64, path: &str) -> Difference {
        Difference {
            file: "a.yaml".into(),
            line,
            test: "t".into(),
            view: "v".into(),
            entity: "k=a".into(),
            at: "2026-01-01T00:00:00Z".into(),
            feature: "f".into(),
            expected: json!(1),
            found: json!(found),
            reason: None,
            path: path.into(),
        }
    }

    #[test]
    fn equal_differences_are_told_once_with_all_their_paths() {
        let mut report = Report::default();
        for path in ["one", "two", "three"] {
            let asked = BTreeSet::from([("a.yaml".into(), 7, path.to_owned()), ("a.yaml".into(), 8, path.to_owned())]);
            let mut differences = vec![difference(8, 2, path)];
            if path != "two" {
                differences.push(difference(7, 3, path));
            }
            report.add(Outcome { asked, differences, refused: BTreeSet::new() });
        }
        let findings = report.findings();
        let told: Vec<_> = findings.iter().map(|finding| (finding.difference.line, finding.shown_paths())).collect();
        assert_eq!(told, [(7, "one; three".to_owned()), (8, "every path".to_owned())]);
        assert_eq!((report.lookups(), report.answers(), report.holds()), (2, 6, false));
    }
}
