//! The cases of the window rules as data: `tests/cases/windows/*.yaml`, whose header says their form.

use super::resolve::{documents, items, object, project, text, time_us};
use super::value::{Row, Value};
use onefold::define::{Project, Source};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// One `kind: test` document with the definitions of its file. `rows` stand in arrival order.
pub struct Case {
    pub file: PathBuf,
    pub name: String,
    pub project: Project,
    pub rows: Vec<Row>,
    pub lookups: Vec<Lookup>,
}

/// One question of a case and what it expects.
pub struct Lookup {
    pub at_us: i64,
    pub view: String,
    /// The join key values in the view's order.
    pub keys: Vec<Value>,
    pub label: bool,
    pub status: Status,
    /// By value column, of its kind. Columns that are not named are not judged.
    pub expect: BTreeMap<String, Value>,
    /// `None`: not judged; `Some(None)`: never changes.
    pub valid_until_us: Option<Option<i64>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Known,
    NotFound,
    OutsideMaxAge,
}

/// All cases of a directory, by file name.
pub fn load_cases(directory: &Path) -> Vec<Case> {
    let listing = std::fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut files: Vec<PathBuf> = listing.map(|entry| entry.expect("a directory can be listed").path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    files.iter().flat_map(|file| cases_of(file)).collect()
}

fn cases_of(file: &Path) -> Vec<Case> {
    let whole = std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let documents = documents(&whole);
    let project = project(&documents);
    let tests = documents.iter().filter(|document| document["kind"] == "test");
    tests
        .map(|test| {
            let source = &project.sources[&text(&test["source"])];
            let rows: Vec<Row> = items(&test["events"]).iter().map(|event| row(source, event)).collect();
            Case {
                file: file.to_owned(),
                name: text(&test["name"]),
                project: project.clone(),
                rows,
                lookups: items(&test["lookups"]).iter().map(|declared| lookup(&project, declared)).collect(),
            }
        })
        .collect()
}

fn row(source: &Source, event: &serde_json::Value) -> Row {
    let mut values = BTreeMap::new();
    for name in object(event).keys() {
        assert!(source.columns.iter().any(|column| column.name == *name), "no column `{name}`");
    }
    for column in &source.columns {
        let value = Value::from_json(column.decode.kind(), &event[&column.name]);
        values.insert(column.name.clone(), value.unwrap_or_else(|error| panic!("{}: {error}", column.name)));
    }
    Row { event_time_us: time_us(&event[&source.event_time]), values }
}

fn lookup(project: &Project, declared: &serde_json::Value) -> Lookup {
    const KEYS: [&str; 7] = ["at", "view", "entity", "label", "expect", "expect_status", "expect_valid_until"];
    for key in object(declared).keys() {
        assert!(KEYS.contains(&key.as_str()), "a lookup has no `{key}`");
    }
    let view = &project.feature_views[&text(&declared["view"])];
    let key = |key: &onefold::define::JoinKey| Value::from_json(key.kind, &declared["entity"][&key.name]);
    let outputs: BTreeMap<&str, _> = view
        .features
        .iter()
        .flat_map(|feature| &feature.outputs)
        .map(|output| (output.name.as_str(), output.kind))
        .collect();
    let expect = declared.get("expect").map(object).into_iter().flatten();
    Lookup {
        at_us: time_us(&declared["at"]),
        view: view.name.clone(),
        keys: view.join_keys.iter().map(|join_key| key(join_key).expect("a case's key is of its kind")).collect(),
        label: declared["label"].as_bool().unwrap_or(false),
        status: match declared["expect_status"].as_str() {
            None | Some("KNOWN") => Status::Known,
            Some("NOT_FOUND") => Status::NotFound,
            Some("OUTSIDE_MAX_AGE") => Status::OutsideMaxAge,
            Some(other) => panic!("`{other}` is no status of a case"),
        },
        expect: expect
            .map(|(name, value)| {
                let kind = outputs.get(name.as_str()).unwrap_or_else(|| panic!("no feature `{name}`"));
                (name.clone(), Value::from_json(*kind, value).expect("an expected value is of its kind"))
            })
            .collect(),
        valid_until_us: declared
            .get("expect_valid_until")
            .map(|instant| if instant.is_null() { None } else { Some(time_us(instant)) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::{Answer, Ask, answer, by_entity, transformed};

    /// What is wrong with the brute force's answer to a lookup, if anything.
    fn difference(case: &Case, lookup: &Lookup) -> Option<String> {
        let view = &case.project.feature_views[&lookup.view];
        let (entities, _) = by_entity(view, &transformed(&case.project, view, &case.rows));
        let rows = entities.get(&lookup.keys).cloned().unwrap_or_default();
        let ask = if lookup.label { Ask::label(lookup.at_us) } else { Ask::snapshot(lookup.at_us) };
        let known = match answer(view, &rows, ask) {
            Answer::NotFound => return (lookup.status != Status::NotFound).then(|| "not found".to_owned()),
            Answer::Known(known) => known,
        };
        let status = if known.outside_max_age { Status::OutsideMaxAge } else { Status::Known };
        if status != lookup.status {
            return Some(format!("{status:?}, expected {:?}", lookup.status));
        }
        if lookup.valid_until_us.is_some_and(|expected| expected != known.valid_until_us) {
            return Some(format!("valid until {:?}, expected {:?}", known.valid_until_us, lookup.valid_until_us));
        }
        let wrong = lookup.expect.iter().find(|(name, value)| known.values[*name].value != **value);
        wrong.map(|(name, value)| format!("{name} is {:?}, expected {value:?}", known.values[name]))
    }

    fn windows() -> Vec<Case> {
        load_cases(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/windows"))
    }

    #[test]
    fn the_brute_force_gives_the_values_of_the_window_rules() {
        let cases = windows();
        let lookups: usize = cases.iter().map(|case| case.lookups.len()).sum();
        assert!(cases.len() >= 22 && lookups >= 40, "only {} cases with {lookups} lookups", cases.len());
        for case in &cases {
            for lookup in &case.lookups {
                if let Some(wrong) = difference(case, lookup) {
                    panic!("{} `{}` at {}: {wrong}", case.file.display(), case.name, lookup.at_us);
                }
            }
        }
    }

    #[test]
    fn the_order_of_the_rows_changes_nothing() {
        for mut case in windows() {
            case.rows.reverse();
            for lookup in &case.lookups {
                assert_eq!(difference(&case, lookup), None, "`{}` at {}", case.name, lookup.at_us);
            }
        }
    }

    #[test]
    fn a_changed_expectation_is_seen() {
        for mut case in windows() {
            for lookup in &mut case.lookups {
                for value in lookup.expect.values_mut() {
                    *value = Value::Binary(b"planted".to_vec());
                }
                if lookup.status == Status::NotFound {
                    lookup.status = Status::Known;
                }
            }
            for lookup in &case.lookups {
                assert!(difference(&case, lookup).is_some(), "`{}` at {} judges nothing", case.name, lookup.at_us);
            }
        }
    }
}
