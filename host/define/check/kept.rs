//! What the documents do not name stays registered. What of it they change or break is found here.
//!
//! A view of another directory may read a source that this one changes: its features are held against the new
//! columns, and those that no longer fit are left out and reported as breaks, which an apply refuses unless it is
//! told otherwise.

use super::Checker;
use crate::define::{Feature, FeatureView, OnDemandFeature, OnDemandInput, Project, Source};
use onefold_fold::Field;

/// Something that stays registered and would lose what it reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Break {
    /// The kind of the document that loses something.
    pub kind: &'static str,
    pub name: String,
    /// What it loses, as a sentence.
    pub message: String,
    /// The view, source or module whose change does it.
    pub because_of: String,
}

impl Checker<'_> {
    /// Kept views against changed sources and entities.
    pub(super) fn settle_kept_views(&mut self) {
        let names: Vec<String> = self.project.feature_views.keys().cloned().collect();
        for name in self.kept(super::Group::View, names) {
            let Some(mut view) = self.project.feature_views.remove(&name) else { continue };
            let Some(source) = self.project.sources.get(&view.source) else {
                if !self.is_defined(super::Group::Source, &view.source) {
                    let lost = format!("all features, its source `{}` is removed", view.source);
                    self.broken("feature_view", &name, &view.source, vec![lost]);
                }
                continue; // Else its new definition is wrong, and was reported.
            };
            let is_there = |entity: &&String| {
                self.project.entities.contains_key(*entity) || self.is_defined(super::Group::Entity, entity)
            };
            if let Some(entity) = view.entities.iter().find(|entity| !is_there(entity)) {
                let lost = format!("all features, its entity `{entity}` is removed");
                self.broken("feature_view", &name, entity, vec![lost]);
                continue;
            }
            let before = self.registered.as_ref().and_then(|project| project.sources.get(&view.source));
            let before = before.map(|source| view_columns(source, &view)).unwrap_or_default();
            let now = view_columns(source, &view);
            let fits = |column: &str| before.iter().any(|field| field.name == column && now.contains(field));
            let source_name = source.name.clone();
            let keys = view.join_keys.iter().map(|key| &key.column);
            let shared = keys.chain(view.transforms.iter().flat_map(|transform| &transform.inputs));
            let mut lost = Vec::new();
            let broken = shared.into_iter().find(|column| !fits(column));
            if let Some(column) = broken {
                lost.push(format!(
                    "all features, its keys or transforms need column `{column}`, gone or of another type"
                ));
                view.features.clear();
            }
            view.features.retain(|feature| match uses(feature).find(|column| !fits(column)) {
                None => true,
                Some(column) => {
                    lost.push(format!("`{}`, column `{column}` is gone or of another type", feature.name));
                    false
                }
            });
            self.broken("feature_view", &name, &source_name, lost);
            if !view.features.is_empty() {
                self.project.feature_views.insert(name, view);
            }
        }
    }

    /// Those of these names that the documents do not define.
    fn kept(&self, group: super::Group, names: Vec<String>) -> Vec<String> {
        names.into_iter().filter(|name| !self.is_defined(group, name)).collect()
    }

    /// Kept on-demand views against changed views.
    pub(super) fn settle_kept_on_demand(&mut self) {
        // A view that loses a feature may take one from the next: until nothing changes.
        loop {
            let project = &self.project;
            let loss = project.on_demand_feature_views.values().find_map(|view| {
                let feature = view.features.iter().find(|feature| lost_input(project, feature).is_some())?;
                Some((view.name.clone(), feature.name.clone(), lost_input(project, feature)?))
            });
            let Some((name, feature, because)) = loss else { return };
            if let Some(view) = self.project.on_demand_feature_views.get_mut(&name) {
                view.features.retain(|other| other.name != feature);
                if view.features.is_empty() {
                    self.project.on_demand_feature_views.remove(&name);
                }
            }
            let (view, output) = because;
            let message = format!("`{feature}`, it reads `{view}.{output}`");
            self.broken("on_demand_feature_view", &name, &view, vec![message]);
        }
    }

    /// Kept services against changed views.
    pub(super) fn settle_kept_services(&mut self) {
        let names: Vec<String> = self.project.feature_services.keys().cloned().collect();
        for name in self.kept(super::Group::Service, names) {
            let Some(mut service) = self.project.feature_services.remove(&name) else { continue };
            let mut lost = Vec::new();
            service.features.retain(|reference| {
                let there = self.project.gives(&reference.view, &reference.feature);
                if !there {
                    lost.push((reference.view.clone(), reference.feature.clone()));
                }
                there
            });
            for (view, feature) in lost {
                self.broken("feature_service", &name, &view, vec![format!("`{view}.{feature}`")]);
            }
            if !service.features.is_empty() {
                self.project.feature_services.insert(name, service);
            }
        }
    }

    fn broken(&mut self, kind: &'static str, name: &str, because_of: &str, lost: Vec<String>) {
        self.breaks.extend(lost.into_iter().map(|lost| Break {
            kind,
            name: name.to_owned(),
            message: format!("{} `{name}` loses {lost}", kind.replace('_', " ")),
            because_of: because_of.to_owned(),
        }));
    }
}

/// What services lose between two projects: a model that reads one finds less in it, or nothing.
pub fn services_lose(before: &Project, after: &Project) -> Vec<Break> {
    let mut breaks = Vec::new();
    for service in before.feature_services.values() {
        let name = &service.name;
        let mut say = |lost: String, because_of: &str| {
            breaks.push(Break {
                kind: "feature_service",
                name: name.clone(),
                message: format!("feature service `{name}` loses {lost}"),
                because_of: because_of.to_owned(),
            });
        };
        let Some(now) = after.feature_services.get(name) else {
            say("all features, it is removed".to_owned(), name);
            continue;
        };
        for reference in service.features.iter().filter(|reference| !now.features.contains(reference)) {
            say(format!("`{}.{}`", reference.view, reference.feature), name);
        }
    }
    breaks
}

impl Checker<'_> {
    /// The features that a view has registered and its document does not have any more: nothing is removed without
    /// `--prune`. `columns` are those that the view's features can use now.
    pub(super) fn kept_features(&mut self, view: &FeatureView, columns: &[Field]) -> Vec<Feature> {
        let Some(registered) = &self.registered else { return Vec::new() };
        let Some(old) = registered.feature_views.get(&view.name) else { return Vec::new() };
        let source = registered.sources.get(&old.source);
        let before = source.map(|source| view_columns(source, old)).unwrap_or_default();
        let fits = |column: &str| before.iter().any(|field| field.name == column && columns.contains(field));
        let is_gone = |feature: &&Feature| !view.features.iter().any(|other| other.name == feature.name);
        let (mut kept, mut lost) = (Vec::new(), Vec::new());
        for feature in old.features.iter().filter(is_gone).filter(|_| !self.prune) {
            match uses(feature).find(|column| !fits(column)) {
                None => kept.push(feature.clone()),
                Some(column) => {
                    lost.push(format!("`{}`, column `{column}` is gone or of another type", feature.name));
                }
            }
        }
        self.left.extend(kept.iter().map(|feature| format!("feature `{}.{}`", view.name, feature.name)));
        self.broken("feature_view", &view.name, &view.name, lost);
        kept
    }

    /// The same of an on-demand view. What they read is looked at with that of all others.
    pub(super) fn kept_on_demand(
        &mut self,
        name: &str,
        given: &[OnDemandFeature],
        request: &[Field],
    ) -> Vec<OnDemandFeature> {
        let Some(registered) = &self.registered else { return Vec::new() };
        let Some(old) = registered.on_demand_feature_views.get(name) else { return Vec::new() };
        let is_gone = |feature: &&OnDemandFeature| !given.iter().any(|other| other.name == feature.name);
        let (mut kept, mut lost) = (Vec::new(), Vec::new());
        for feature in old.features.iter().filter(is_gone).filter(|_| !self.prune) {
            let missing = feature.inputs.iter().find_map(|input| match input {
                OnDemandInput::Request { field } if !request.contains(field) => Some(field),
                _ => None,
            });
            match missing {
                None => kept.push(feature.clone()),
                Some(field) => {
                    lost.push(format!("`{}`, `request.{}` is gone or of another type", feature.name, field.name));
                }
            }
        }
        self.left.extend(kept.iter().map(|feature| format!("feature `{name}.{}`", feature.name)));
        self.broken("on_demand_feature_view", name, name, lost);
        kept
    }
}

/// The columns that a view's features can use.
fn view_columns(source: &Source, view: &FeatureView) -> Vec<Field> {
    let mut columns = source.fields();
    columns.extend(view.transforms.iter().flat_map(|transform| transform.outputs.iter().cloned()));
    columns
}

/// The columns that a feature uses.
fn uses(feature: &Feature) -> impl Iterator<Item = &String> {
    let inputs = feature.inputs.iter().map(|input| &input.name);
    inputs.chain(feature.filter.iter().map(|comparison| &comparison.column))
}

/// The view and value that an on-demand feature reads and that are gone, or of another kind.
fn lost_input(project: &Project, feature: &OnDemandFeature) -> Option<(String, String)> {
    feature.inputs.iter().find_map(|input| match input {
        OnDemandInput::Request { .. } => None,
        OnDemandInput::Feature { view, output, kind } => {
            let there = project.kind_of(view, output) == Some(*kind);
            (!there).then(|| (view.clone(), output.clone()))
        }
    })
}
