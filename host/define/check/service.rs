//! Feature services: whole views are spelled out, so that a service is a list of value columns.

use super::{Checker, Group, Report};
use crate::define::read::DocumentPlace;
use crate::define::typed::ServiceDocument;
use crate::define::{FeatureReference, FeatureService};

impl Checker<'_> {
    pub(super) fn service(&mut self, place: &DocumentPlace, typed: &ServiceDocument) {
        let mut report = Report::new(place);
        let mut features: Vec<FeatureReference> = Vec::new();
        for written in &typed.features {
            let view = written.value.split(['.', ':']).next().unwrap_or_default();
            if self.project.refer(view).is_err() && self.is_defined(Group::View, view) {
                continue; // That view is wrong itself, and was reported.
            }
            let Some(referred) = report.take(written, self.project.refer(&written.value)) else { continue };
            for one in referred {
                if features.contains(&one.reference) {
                    let FeatureReference { view, feature } = &one.reference;
                    report.say(written, format!("`{view}.{feature}` is in this service already: name it once"));
                } else {
                    features.push(one.reference);
                }
            }
            let deprecated = self.deprecation_of(view);
            self.warn_deprecated("view", view, &format!("service `{}`", typed.name.value), &deprecated);
        }
        if typed.features.is_empty() {
            report.say(&typed.name, "a service needs a feature: write `features: [view, view.feature]`");
        }
        if report.problems.is_empty() {
            let about = self.about(&typed.description, &typed.owner, &typed.tags, &typed.deprecated);
            let name = typed.name.value.clone();
            self.project.feature_services.insert(name.clone(), FeatureService { name, about, features });
        }
        self.problems.append(&mut report.problems);
    }
}
