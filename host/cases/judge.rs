//! What a path told against what a case expects, bit for bit.

use super::{CaseError, Difference};
use crate::define::{EntityStatus, FeatureReference, LookupCase, Project, TestCase};
use crate::serve::lookup::value_columns;
use crate::serve::values::{self, Int64As, time_json};
use arrow::array::{Array, ArrayRef};
use onefold_fold::{Field, Kind};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// An answer. What a path cannot tell is `None`.
#[derive(Default)]
pub(super) struct Told {
    pub status: Option<EntityStatus>,
    /// Where nothing more is known than whether there is such an entity.
    pub is_found: Option<bool>,
    /// One row each, by value column.
    pub values: BTreeMap<String, ArrayRef>,
    /// Why a value is null.
    pub reasons: BTreeMap<String, String>,
    pub valid_until_us: Option<Option<i64>>,
}

/// Everything that is wrong with an answer.
pub(super) fn differences(
    project: &Project,
    test: &TestCase,
    lookup: &LookupCase,
    told: &Told,
    path: &str,
) -> Result<Vec<Difference>, CaseError> {
    let entity = lookup.entity.iter().map(|(name, value)| format!("{name}={}", plain(value)));
    let entity = entity.collect::<Vec<_>>().join(",");
    let mut found_wrong = Vec::new();
    let mut wrong = |feature: &str, expected: Value, found: Value, reason: Option<String>| {
        found_wrong.push(Difference {
            file: test.file.clone(),
            line: lookup.line,
            test: test.name.clone(),
            view: lookup.view.clone(),
            entity: entity.clone(),
            at: values::time_text(lookup.at_us).unwrap_or_default(),
            feature: feature.to_owned(),
            expected,
            found,
            reason,
            path: path.to_owned(),
        });
    };
    if let Some(expected) = lookup.status {
        let is_there = expected != EntityStatus::NotFound;
        match (told.status, told.is_found) {
            (Some(status), _) if status != expected => {
                wrong("status", json!(expected.name()), json!(status.name()), None);
            }
            (None, Some(is_found)) if is_found != is_there => {
                let found = if is_found { "there" } else { EntityStatus::NotFound.name() };
                wrong("status", json!(expected.name()), json!(found), None);
            }
            _ => {}
        }
        if expected != EntityStatus::Known {
            let given =
                told.values.iter().filter(|(name, value)| !value.is_null(0) && !lookup.expect.contains_key(*name));
            for (name, value) in given {
                wrong(name, Value::Null, values::to_json(value, 0, Int64As::Number), None);
            }
        }
    }
    if let (Some(expected), Some(found)) = (lookup.valid_until_us, told.valid_until_us)
        && expected != found
    {
        let instant = |us: Option<i64>| us.map_or(Value::Null, time_json);
        wrong("valid_until", instant(expected), instant(found), None);
    }
    let kinds = kinds(project, &lookup.view);
    for (name, expected) in &lookup.expect {
        let expected = one(&kinds, name, expected).map_err(|message| CaseError::at(test, lookup.line, message))?;
        let found = told.values.get(name);
        if found.is_none_or(|found| !is_same(found, &expected)) {
            let found = found.map_or(Value::Null, |found| values::to_json(found, 0, Int64As::Number));
            let reason = told.reasons.get(name).cloned();
            wrong(name, values::to_json(&expected, 0, Int64As::Number), found, reason);
        }
    }
    Ok(found_wrong)
}

/// The value columns that a lookup asks for.
pub(super) fn asked(project: &Project, lookup: &LookupCase) -> Vec<FeatureReference> {
    let all = value_columns(project, &lookup.view).unwrap_or_default();
    let wanted = |name: &String| match &lookup.features {
        None => true,
        Some(features) => features.contains(name) || lookup.expect.contains_key(name),
    };
    let wanted = all.into_iter().filter(wanted);
    wanted.map(|feature| FeatureReference { view: lookup.view.clone(), feature }).collect()
}

/// Sees to it that every expected value is of its feature's kind.
pub(super) fn check_expectations(project: &Project, tests: &[TestCase]) -> Result<(), CaseError> {
    let mut problems = Vec::new();
    for test in tests {
        for lookup in &test.lookups {
            let kinds = kinds(project, &lookup.view);
            for (name, expected) in &lookup.expect {
                if let Err(message) = one(&kinds, name, expected) {
                    problems.push(CaseError::at(test, lookup.line, message).to_string());
                }
            }
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(CaseError::Wrong(problems.join("\n"))) }
}

/// An expected value as a column of one row.
fn one(kinds: &BTreeMap<String, Kind>, name: &str, expected: &Value) -> Result<ArrayRef, String> {
    let kind = kinds.get(name).ok_or_else(|| format!("the view has no feature `{name}`"))?;
    values::from_json(*kind, [expected].into_iter()).map_err(|wrong| format!("expected `{name}`: {wrong}"))
}

fn kinds(project: &Project, view: &str) -> BTreeMap<String, Kind> {
    let stored = project.feature_views.get(view).into_iter().flat_map(|view| &view.features);
    let stored = stored.flat_map(|feature| &feature.outputs);
    let computed = project.on_demand_feature_views.get(view).into_iter().flat_map(|view| &view.features);
    let computed = computed.flat_map(|feature| &feature.outputs);
    stored.chain(computed).map(|Field { name, kind }| (name.clone(), *kind)).collect()
}

/// Whether two values of one kind are the same, to the bit: their texts are as long as it takes to tell them apart, and
/// -0.0 is not 0.0.
fn is_same(one: &ArrayRef, other: &ArrayRef) -> bool {
    let text = |value: &ArrayRef| values::to_json(value, 0, Int64As::Number).to_string();
    one.is_null(0) == other.is_null(0) && text(one) == text(other)
}

/// A value for people: text without quotes.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
