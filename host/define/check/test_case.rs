//! `kind: test`: events and what lookups must then say. Checked with the project, never registered.

use super::{Checker, Group, Report, filter};
use crate::define::Source;
use crate::define::names::hint;
use crate::define::read::DocumentPlace;
use crate::define::typed::{LookupShape, TestDocument};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// One test: the events in the order in which they arrive, and the lookups after them.
#[derive(Clone, Debug, PartialEq)]
pub struct TestCase {
    pub name: String,
    /// As shown to people.
    pub file: Arc<str>,
    /// Of the test's name.
    pub line: u32,
    pub source: String,
    /// Values by column, or as the events of the source are.
    pub events: Vec<Value>,
    pub lookups: Vec<LookupCase>,
}

/// One lookup of a test, and the values it must give.
#[derive(Clone, Debug, PartialEq)]
pub struct LookupCase {
    /// Of its `at`, in the file of the test.
    pub line: u32,
    /// Microseconds since the epoch, UTC.
    pub at_us: i64,
    pub view: String,
    pub entity: BTreeMap<String, Value>,
    pub request: BTreeMap<String, Value>,
    /// Which value columns to ask for; all of the view's if none are named.
    pub features: Option<Vec<String>>,
    /// By value column. What is not named is not compared.
    pub expect: BTreeMap<String, Value>,
    /// `None`: not compared.
    pub status: Option<EntityStatus>,
    /// `None`: not compared; `Some(None)`: the values must hold for good.
    pub valid_until_us: Option<Option<i64>>,
    /// Asked as a row of a training set alone.
    pub label: bool,
}

/// What is known of an entity, whatever its values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntityStatus {
    Known,
    NotFound,
    OutsideMaxAge,
}

impl EntityStatus {
    const ALL: [EntityStatus; 3] = [EntityStatus::Known, EntityStatus::NotFound, EntityStatus::OutsideMaxAge];

    /// As a case writes it.
    pub fn name(self) -> &'static str {
        match self {
            EntityStatus::Known => "KNOWN",
            EntityStatus::NotFound => "NOT_FOUND",
            EntityStatus::OutsideMaxAge => "OUTSIDE_MAX_AGE",
        }
    }
}

impl Checker<'_> {
    pub(super) fn test(&mut self, place: &DocumentPlace, typed: &TestDocument) -> Option<TestCase> {
        let mut report = Report::new(place);
        let source = &typed.source;
        if !self.project.sources.contains_key(&source.value) && !self.is_defined(Group::Source, &source.value) {
            let near = hint(&source.value, self.names_in(Group::Source));
            report.say(source, format!("no source `{}`: {near}", source.value));
        }
        for (number, event) in (1..).zip(&typed.events) {
            let Some(event) = event.as_object() else {
                report.say(&typed.name, format!("event {number} is no mapping: write {{ column: value, … }}"));
                continue;
            };
            let Some(source) = self.project.sources.get(&source.value) else { continue };
            for key in event.keys().filter(|key| !means_something(source, key)) {
                let near = hint(key, source.columns.iter().map(|column| column.name.as_str()));
                report.say(
                    &typed.name,
                    format!("event {number}: source `{}` has no column `{key}`; {near}", source.name),
                );
            }
        }
        let lookups: Vec<_> = typed.lookups.iter().filter_map(|lookup| self.lookup(&mut report, lookup)).collect();
        let correct = report.problems.is_empty();
        self.problems.append(&mut report.problems);
        correct.then(|| TestCase {
            name: typed.name.value.clone(),
            file: place.file.clone(),
            line: place.problem(&typed.name, "").line,
            source: source.value.clone(),
            events: typed.events.clone(),
            lookups,
        })
    }

    fn lookup(&self, report: &mut Report<'_>, typed: &LookupShape) -> Option<LookupCase> {
        let view = &typed.view;
        let at_us = filter::timestamp(&typed.at.value);
        if at_us.is_none() {
            let message = format!("`{}` is no instant: write RFC 3339 with an offset", typed.at.value);
            report.say(&typed.at, message);
        }
        if self.project.refer(&view.value).is_err() && self.is_defined(Group::View, &view.value) {
            return None; // That view is wrong itself, and was reported.
        }
        report.take(view, self.project.refer(&view.value))?;
        let asked = typed.features.iter().flatten().map(|feature| (feature.clone(), feature.value.clone()));
        let expected = typed.expect.keys().map(|feature| (view.clone(), feature.clone()));
        for (at, feature) in asked.chain(expected) {
            report.take(&at, self.project.refer(&format!("{}.{feature}", view.value)));
        }
        if let Some(view) = self.project.feature_views.get(&view.value) {
            for key in view.join_keys.iter().filter(|key| !typed.entity.contains_key(&key.name)) {
                report.say(
                    &typed.view,
                    format!("the entity has no `{}`: write `entity: {{ {}: … }}`", key.name, key.name),
                );
            }
        }
        let status = typed.expect_status.as_ref().and_then(|status| {
            let found = EntityStatus::ALL.into_iter().find(|known| known.name() == status.value);
            let names = EntityStatus::ALL.map(EntityStatus::name).join(", ");
            report.take(status, found.ok_or_else(|| format!("`{}` is no status: write one of {names}", status.value)))
        });
        let valid_until_us = typed.expect_valid_until.as_ref().and_then(|instant| match instant {
            Value::Null => Some(None),
            other => {
                let instant = other.as_str().and_then(filter::timestamp).map(Some);
                let wrong =
                    format!("expect_valid_until: {other} is no instant: write RFC 3339 with an offset, or null");
                report.take(&typed.at, instant.ok_or(wrong))
            }
        });
        if typed.expect.is_empty() && typed.expect_status.is_none() && typed.expect_valid_until.is_none() {
            report.say(&typed.at, "this lookup expects nothing: write `expect: { feature: value }`");
        }
        Some(LookupCase {
            line: report.place.problem(&typed.at, "").line,
            at_us: at_us?,
            view: view.value.clone(),
            entity: typed.entity.clone(),
            request: typed.request.clone(),
            features: typed.features.as_ref().map(|names| names.iter().map(|name| name.value.clone()).collect()),
            expect: typed.expect.clone(),
            status,
            valid_until_us,
            label: typed.label,
        })
    }
}

/// Whether a key of an event is a column, or begins the way to one.
fn means_something(source: &Source, key: &str) -> bool {
    source.columns.iter().any(|column| column.name == key || column.stream_path.first().is_some_and(|part| part == key))
}
