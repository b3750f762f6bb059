//! `kind: test`: events and what lookups must then say. Checked with the project, never registered.

use super::{Checker, Group, Report, filter};
use crate::define::names::hint;
use crate::define::read::DocumentPlace;
use crate::define::typed::{LookupShape, TestDocument};
use serde_json::Value;
use std::collections::BTreeMap;

/// One test: the events in the order in which they arrive, and the lookups after them.
#[derive(Clone, Debug, PartialEq)]
pub struct TestCase {
    pub name: String,
    /// `file:line` of the document, for reports.
    pub place: String,
    pub source: String,
    pub events: Vec<Value>,
    pub lookups: Vec<LookupCase>,
}

/// One lookup of a test, and the values it must give.
#[derive(Clone, Debug, PartialEq)]
pub struct LookupCase {
    /// Microseconds since the epoch, UTC.
    pub at_us: i64,
    pub view: String,
    pub entity: BTreeMap<String, Value>,
    pub request: BTreeMap<String, Value>,
    /// Which value columns to ask for; all of the view's if none are named.
    pub features: Option<Vec<String>>,
    /// By value column. What is not named is not compared.
    pub expect: BTreeMap<String, Value>,
}

impl Checker<'_> {
    pub(super) fn test(&mut self, place: &DocumentPlace, typed: &TestDocument) -> Option<TestCase> {
        let mut report = Report::new(place);
        let source = &typed.source;
        if !self.project.sources.contains_key(&source.value) && !self.is_defined(Group::Source, &source.value) {
            let near = hint(&source.value, self.names_in(Group::Source));
            report.say(source, format!("no source `{}`: {near}", source.value));
        }
        for (number, event) in typed.events.iter().enumerate() {
            if !event.is_object() {
                let number = number + 1;
                report.say(&typed.name, format!("event {number} is no mapping: write {{ column: value, … }}"));
            }
        }
        let lookups: Vec<_> = typed.lookups.iter().filter_map(|lookup| self.lookup(&mut report, lookup)).collect();
        let correct = report.problems.is_empty();
        self.problems.append(&mut report.problems);
        correct.then(|| TestCase {
            name: typed.name.value.clone(),
            place: super::shown(place, &typed.name),
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
        Some(LookupCase {
            at_us: at_us?,
            view: view.value.clone(),
            entity: typed.entity.clone(),
            request: typed.request.clone(),
            features: typed.features.as_ref().map(|names| names.iter().map(|name| name.value.clone()).collect()),
            expect: typed.expect.clone(),
        })
    }
}
