//! The test of a draft: its first rows, and what the fold makes of them.

use super::features::{FORGOTTEN_US, WINDOW};
use super::text::{comment, scalar, value};
use super::{Ask, Column, Data, Draft, DraftError};
use crate::cases::{CaseError, Report, Runner, Suite, Way, all_ways};
use crate::decode::{LAST_US, parse_rfc3339};
use crate::define::{DefinitionFile, read_files};
use crate::serve::values::{time_json, time_text};
use serde_json::{Map, Value};

/// Rows of the test: of one key, and of others.
const OF_ONE: usize = 4;
const OF_OTHERS: usize = 2;
/// So that a shuffle that finds something finds it again.
const SEED: u64 = 1;
const SECOND_US: i64 = 1_000_000;

/// Drafts a project from what was read, with a test that was seen to pass.
pub fn drafted(runner: &Runner, ask: &Ask, data: Data) -> Result<Draft, DraftError> {
    let mut draft = Draft::new(ask, data)?;
    let rows = chosen(&draft)?;
    draft.entity_values = rows.first().map(|row| entity_of(&draft, row)).unwrap_or_default();
    let instants = instants(&draft, &rows);
    let bare: Vec<_> = instants.iter().map(|at| (*at, vec![("events".to_owned(), Value::Null)])).collect();
    let mut suite = suite(runner, ask, &draft, &text(&draft, &rows, &bare))?;
    let ways = all_ways(SEED);
    let batch = ways.iter().find(|way| matches!(way, Way::Batch(_))).ok_or_else(|| failed("there is no batch"))?;
    runner.fill(&mut suite, batch).map_err(failed)?;
    let lookups = suite.tests.iter().flat_map(|test| &test.lookups);
    let found: Vec<_> = lookups
        .map(|lookup| {
            let value =
                |feature: &super::Feature| Some((feature.name.clone(), lookup.expect.get(&feature.name)?.clone()));
            (lookup.at_us, draft.features.iter().filter_map(value).collect::<Vec<_>>())
        })
        .collect();
    draft.test = text(&draft, &rows, &found);
    check(runner, ask, &draft, &ways)?;
    Ok(draft)
}

/// What was written must pass as it was written, in a stream too.
fn check(runner: &Runner, ask: &Ask, draft: &Draft, ways: &[Way]) -> Result<(), DraftError> {
    let suite = suite(runner, ask, draft, &draft.test)?;
    let mut report = Report::default();
    let streams = ways.iter().filter(|way| matches!(way, Way::Stream(_))).take(2);
    for way in streams.chain(ways.iter().filter(|way| matches!(way, Way::Batch(_)))) {
        report.add(runner.run(&suite, way).map_err(failed)?);
    }
    match report.findings().first() {
        None => Ok(()),
        Some(finding) => Err(failed(format!(
            "the drafted test does not hold: {} is {}, not {}: this is a fault of onefold, please report it",
            finding.difference.feature, finding.difference.found, finding.difference.expected
        ))),
    }
}

fn suite(runner: &Runner, ask: &Ask, draft: &Draft, test: &str) -> Result<Suite, DraftError> {
    let file = |file: &str, text: &str| DefinitionFile {
        file: file.to_owned(),
        directory: ask.directory.clone(),
        text: text.to_owned(),
    };
    let files = [file("definitions", &draft.definitions), file("test", test)];
    let definitions = read_files(&files).map_err(failed)?;
    runner.suite(&definitions).map_err(|error| match error {
        CaseError::Wrong(text) => DraftError::Ask(text),
        CaseError::Failed(text) => DraftError::Failed(text),
    })
}

fn failed(error: impl ToString) -> DraftError {
    DraftError::Failed(error.to_string())
}

/// The first rows that have a time and a key: some of the first one's key, then of others.
fn chosen(draft: &Draft) -> Result<Vec<Map<String, Value>>, DraftError> {
    let has = |row: &Map<String, Value>, column: &Column| at(row, column).is_some();
    let is_whole = |row: &&Map<String, Value>| {
        let fits = |column: &Column| at(row, column).is_none_or(|value| fits(column, value));
        draft.time_column().is_some_and(|time| has(row, time))
            && draft.key_columns().all(|key| has(row, key))
            && draft.data.columns.iter().filter(|column| column.odd > 0).all(fits)
    };
    let rows: Vec<_> = draft.data.first.iter().filter(is_whole).collect();
    let Some(first) = rows.first() else {
        let message = "none of the first rows has both a time and a key: say which columns with --time and --key";
        return Err(DraftError::Ask(message.to_owned()));
    };
    let key = keys_of(draft, first);
    let (mut own, mut others) = (0, 0);
    let take = |row: &&Map<String, Value>| {
        let (count, most) = match keys_of(draft, row) == key {
            true => (&mut own, OF_ONE),
            false => (&mut others, OF_OTHERS),
        };
        *count += 1;
        *count <= most
    };
    let mut kept: Vec<_> = rows.into_iter().filter(take).cloned().collect();
    // The entity that is asked for comes first.
    if let Some(place) = kept.iter().position(|row| keys_of(draft, row) == key) {
        kept.swap(0, place);
    }
    Ok(kept)
}

/// Whether a value is of its column's kind, where some are not.
fn fits(column: &Column, value: &Value) -> bool {
    match column.type_name {
        "boolean" => value.is_boolean(),
        "int64" => value.is_i64(),
        "float64" => value.is_number(),
        "utf8" => value.is_string(),
        _ => time_us(column, value).is_some(),
    }
}

fn keys_of(draft: &Draft, row: &Map<String, Value>) -> Vec<(String, Value)> {
    draft.key_columns().filter_map(|key| Some((key.name.clone(), at(row, key)?.clone()))).collect()
}

/// The keys as a lookup names them: times are text there, whatever they are in the data.
fn entity_of(draft: &Draft, row: &Map<String, Value>) -> Vec<(String, Value)> {
    let value = |key: &Column| {
        let value = at(row, key)?;
        let is_time = value.is_number() && key.type_name.starts_with("timestamp");
        let time = is_time.then(|| time_us(key, value)).flatten();
        Some((key.name.clone(), time.map_or_else(|| value.clone(), time_json)))
    };
    draft.key_columns().filter_map(value).collect()
}

/// The time that a value of a column says.
fn time_us(column: &Column, value: &Value) -> Option<i64> {
    match value {
        Value::String(text) => parse_rfc3339(text.as_bytes()).ok(),
        number => Some((number.as_f64()? * unit_us(column)) as i64),
    }
}

/// Microseconds of one of a column's numbers, where they are times.
fn unit_us(column: &Column) -> f64 {
    match column.type_name {
        "timestamp_s" => 1e6,
        "timestamp_ms" => 1e3,
        _ => 1.0,
    }
}

impl Draft {
    /// Event time of the newest row that was read.
    pub fn newest_us(&self) -> Option<i64> {
        let column = self.time_column()?;
        column.seen.newest_us.or_else(|| Some((column.seen.most? * unit_us(column)) as i64))
    }

    /// Whether windows that look back from this instant see nothing of the data any more.
    pub fn is_forgotten_at(&self, now_us: i64) -> bool {
        !self.data.more && self.newest_us().is_some_and(|newest| newest.saturating_add(FORGOTTEN_US) < now_us)
    }
}

/// The value of a column; none where it is null.
fn at<'a>(row: &'a Map<String, Value>, column: &Column) -> Option<&'a Value> {
    let (first, rest) = column.path.split_first()?;
    let value = rest.iter().try_fold(row.get(first)?, |part, name| part.get(name))?;
    Some(value).filter(|value| !value.is_null())
}

/// When the test looks: just after its newest row, and when windows have forgotten all of them.
fn instants(draft: &Draft, rows: &[Map<String, Value>]) -> Vec<i64> {
    let times = rows.iter().filter_map(|row| {
        let column = draft.time_column()?;
        time_us(column, at(row, column)?)
    });
    let newest = times.max().unwrap_or(0);
    let just_after = (newest.div_euclid(SECOND_US) + 1).saturating_mul(SECOND_US);
    [just_after.min(LAST_US), just_after.saturating_add(FORGOTTEN_US)].into_iter().filter(|at| *at <= LAST_US).collect()
}

/// The file of the test.
fn text(draft: &Draft, rows: &[Map<String, Value>], lookups: &[(i64, Vec<(String, Value)>)]) -> String {
    let mut text = format!(
        "# Drafted by `onefold init` from the first rows of {}: the values are what they gave then.\n\
         # `onefold test` asks for them on every path: stream, snapshot, training set.\n\
         kind: test\nname: {}\nsource: {}\nevents:\n",
        comment(&draft.shown),
        scalar(&format!("the first rows of {}", draft.source)),
        scalar(&draft.source)
    );
    let inputs = draft.features.iter().filter_map(|feature| feature.input);
    let mut used: Vec<usize> = draft.time.columns.iter().chain(&draft.key.columns).copied().chain(inputs).collect();
    let mut seen = std::collections::BTreeSet::new();
    used.retain(|number| seen.insert(*number));
    for row in rows {
        let columns = used.iter().filter_map(|number| draft.data.columns.get(*number));
        let cells = columns.filter_map(|column| Some(format!("{}: {}", scalar(&column.name), value(at(row, column)?))));
        text.push_str(&format!("  - {{ {} }}\n", cells.collect::<Vec<_>>().join(", ")));
    }
    text.push_str("lookups:\n");
    let cells = |values: &[(String, Value)]| {
        let cells = values.iter().map(|(name, found)| format!("{}: {}", scalar(name), value(found)));
        cells.collect::<Vec<_>>().join(", ")
    };
    for (number, (at_us, found)) in lookups.iter().enumerate() {
        if number > 0 {
            text.push_str(&format!("  # Later all of them have left the windows of {WINDOW}.\n"));
        }
        text.push_str(&format!(
            "  - {{ at: {}, view: {}, entity: {{ {} }},\n      expect: {{ {} }} }}\n",
            time_text(*at_us).unwrap_or_default().replace(".000000", ""),
            scalar(&draft.view),
            cells(&draft.entity_values),
            cells(found)
        ));
    }
    text
}
