//! On-demand views: computed from the request and from features, in an order that their inputs give.

use super::{Checker, Group, Report, request_kind};
use crate::define::located::Located;
use crate::define::names::{check_name, hint};
use crate::define::read::{Definitions, DocumentPlace};
use crate::define::typed::{OnDemandDocument, OnDemandShape, Typed};
use crate::define::{Digest, OnDemandFeature, OnDemandFeatureView, OnDemandInput};
use onefold_fold::Field;
use std::collections::{BTreeMap, BTreeSet};

const REQUEST: &str = "request";

impl Checker<'_> {
    /// Checks all on-demand views, each after those it reads.
    pub(super) fn on_demand_views(&mut self, definitions: &Definitions) {
        let mut waiting: BTreeMap<&str, (&DocumentPlace, &OnDemandDocument)> = BTreeMap::new();
        for document in &definitions.documents {
            if let Typed::OnDemandFeatureView(typed) = &document.typed {
                waiting.insert(&typed.name.value, (&document.place, typed));
            }
        }
        loop {
            let ready = waiting.iter().find(|(_, (_, typed))| {
                // A view that reads itself waits for itself.
                reads(typed).iter().all(|view| !waiting.contains_key(view.as_str()))
            });
            let Some((name, (place, typed))) = ready.map(|(name, entry)| (*name, *entry)) else { break };
            waiting.remove(name);
            self.on_demand_view(place, typed);
        }
        let circle: Vec<&str> = waiting.keys().copied().collect();
        for (place, typed) in waiting.values() {
            let mut report = Report::new(place);
            let message = format!(
                "on-demand views read each other in a circle ({}): let one of them read feature views only",
                circle.join(", ")
            );
            report.say(&typed.name, message);
            self.problems.append(&mut report.problems);
        }
    }

    fn on_demand_view(&mut self, place: &DocumentPlace, typed: &OnDemandDocument) {
        let mut report = Report::new(place);
        let mut request = Vec::new();
        for (name, type_name) in &typed.request.0 {
            report.take(name, check_name(&name.value));
            let kind = report.take(type_name, request_kind(&type_name.value));
            request.extend(kind.map(|kind| Field::new(&name.value, kind)));
        }
        if typed.features.0.is_empty() {
            report.say(&typed.name, "a view needs a feature: write `features:` and one below it");
        }
        let mut features = Vec::new();
        if report.problems.is_empty() {
            for (name, shape) in &typed.features.0 {
                features.extend(self.on_demand_feature(&mut report, typed, name, shape, &request));
            }
            features.extend(self.kept_on_demand(&typed.name.value, &features, &request));
        }
        let mut taken = BTreeSet::new();
        for output in features.iter().flat_map(|feature| &feature.outputs) {
            if !taken.insert(output.name.clone()) {
                let name = &output.name;
                report.say(&typed.name, format!("two features are called `{name}`: choose another name for one"));
            }
        }
        if report.problems.is_empty() {
            let about = self.about(&typed.description, &typed.owner, &typed.tags, &typed.deprecated);
            let name = typed.name.value.clone();
            let view = OnDemandFeatureView { name: name.clone(), about, request, features };
            self.project.on_demand_feature_views.insert(name, view);
        }
        self.problems.append(&mut report.problems);
    }

    fn on_demand_feature(
        &mut self,
        report: &mut Report<'_>,
        typed: &OnDemandDocument,
        name: &Located<String>,
        shape: &OnDemandShape,
        request: &[Field],
    ) -> Option<OnDemandFeature> {
        report.take(name, check_name(&name.value))?;
        let mut inputs = Vec::new();
        for input in &shape.inputs {
            inputs.extend(self.on_demand_input(report, typed, input, request));
        }
        let udf = report.take(&shape.udf, self.udfs.resolve(&shape.udf.value, &shape.params))?;
        if inputs.len() != shape.inputs.len() {
            return None;
        }
        let fields: Vec<Field> = inputs.iter().map(OnDemandInput::field).collect();
        let facts = report.take(&shape.udf, self.udfs.on_demand(&udf, &fields))?;
        report.take(&shape.udf, self.udfs.try_claims(&format!("feature `{}`", name.value), &udf, &fields));
        let outputs = match facts.outputs.as_slice() {
            [only] => vec![Field::new(&name.value, only.kind)],
            several => {
                several.iter().map(|out| Field::new(format!("{}__{}", name.value, out.name), out.kind)).collect()
            }
        };
        Some(OnDemandFeature { name: name.value.clone(), udf, inputs, outputs, fingerprint: Digest([0; 32]) })
    }

    fn on_demand_input(
        &mut self,
        report: &mut Report<'_>,
        typed: &OnDemandDocument,
        input: &Located<String>,
        request: &[Field],
    ) -> Option<OnDemandInput> {
        let (view, feature) = input.value.split_once(['.', ':']).unwrap_or((&input.value, ""));
        if view == REQUEST {
            let found = request.iter().find(|field| field.name == feature);
            if found.is_none() {
                let near = hint(feature, request.iter().map(|field| field.name.as_str()));
                report.say(input, format!("`request` has no `{feature}`: {near}"));
            }
            return found.map(|field| OnDemandInput::Request { field: field.clone() });
        }
        if feature.is_empty() {
            report.say(input, format!("`{view}` names no value: write `request.name` or `view.feature`"));
            return None;
        }
        if self.project.refer(view).is_err() && self.is_defined(Group::View, view) {
            return None; // That view is wrong itself, and was reported.
        }
        let referred = report.take(input, self.project.refer(&input.value))?;
        let [one] = referred.as_slice() else {
            let outputs: Vec<_> = referred.iter().map(|one| format!("`{view}.{}`", one.reference.feature)).collect();
            report.say(input, format!("`{}` has several values: name one of {}", input.value, outputs.join(", ")));
            return None;
        };
        let deprecated = self.deprecation_of(view);
        self.warn_deprecated("view", view, &format!("on-demand view `{}`", typed.name.value), &deprecated);
        Some(OnDemandInput::Feature {
            view: one.reference.view.clone(),
            output: one.reference.feature.clone(),
            kind: one.kind,
        })
    }

    /// What is said of a deprecated view.
    pub(super) fn deprecation_of(&self, view: &str) -> Option<String> {
        let project = &self.project;
        let about = project.feature_views.get(view).map(|view| &view.about);
        about.or_else(|| project.on_demand_feature_views.get(view).map(|view| &view.about))?.deprecated.clone()
    }
}

/// The views that an on-demand view reads.
fn reads(typed: &OnDemandDocument) -> BTreeSet<String> {
    let inputs = typed.features.0.iter().flat_map(|(_, shape)| &shape.inputs);
    let views = inputs.filter_map(|input| input.value.split_once(['.', ':']).map(|(view, _)| view.to_owned()));
    views.filter(|view| view != REQUEST).collect()
}
