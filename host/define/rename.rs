//! Renames: a registered project under its new names. Lineages stay, and names are in no fingerprint, so state and
//! values stay too; what refers to a renamed thing follows it.

use super::{DocumentKind, FeatureReference, OnDemandInput, Project};
use onefold_fold::Field;
use std::collections::{BTreeMap, BTreeSet};

/// One document or feature that has another name now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rename {
    pub what: Renamed,
    pub from: String,
    pub to: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Renamed {
    Document(DocumentKind),
    /// Of a feature view or on-demand view, by the view's name as it is after all renames.
    Feature {
        view: String,
    },
}

impl Project {
    /// The project with something in it renamed, wherever it is referred to. A new name that is taken is not replaced.
    pub fn rename(&mut self, rename: &Rename) {
        let Rename { what, from, to } = rename;
        match what {
            Renamed::Document(DocumentKind::Source) => {
                moved(&mut self.sources, from, to, |source| source.name.clone_from(to));
                for view in self.feature_views.values_mut().filter(|view| view.source == *from) {
                    view.source.clone_from(to);
                }
            }
            Renamed::Document(DocumentKind::Entity) => {
                moved(&mut self.entities, from, to, |entity| entity.name.clone_from(to));
                for name in self.feature_views.values_mut().flat_map(|view| &mut view.entities) {
                    if name == from {
                        name.clone_from(to);
                    }
                }
            }
            Renamed::Document(DocumentKind::FeatureView) => {
                moved(&mut self.feature_views, from, to, |view| view.name.clone_from(to));
                moved(&mut self.on_demand_feature_views, from, to, |view| view.name.clone_from(to));
                self.each_reference(|view, _| {
                    if view == from {
                        view.clone_from(to);
                    }
                });
            }
            Renamed::Document(DocumentKind::FeatureService) => {
                moved(&mut self.feature_services, from, to, |service| service.name.clone_from(to));
            }
            Renamed::Feature { view } => self.rename_feature(view, from, to),
        }
    }

    fn rename_feature(&mut self, view: &str, from: &str, to: &str) {
        let mut outputs = BTreeMap::new();
        let of_view = self.feature_views.get_mut(view).into_iter().flat_map(|view| &mut view.features);
        for feature in of_view.filter(|feature| feature.name == from) {
            to.clone_into(&mut feature.name);
            rename_outputs(&mut feature.outputs, from, to, &mut outputs);
        }
        let on_demand = self.on_demand_feature_views.get_mut(view).into_iter().flat_map(|view| &mut view.features);
        for feature in on_demand.filter(|feature| feature.name == from) {
            to.clone_into(&mut feature.name);
            rename_outputs(&mut feature.outputs, from, to, &mut outputs);
        }
        self.each_reference(|of, output| {
            if of == view
                && let Some(renamed) = outputs.get(output)
            {
                output.clone_from(renamed);
            }
        });
    }

    /// Every place that names a value column: the view, and the column.
    fn each_reference(&mut self, mut change: impl FnMut(&mut String, &mut String)) {
        let on_demand = self.on_demand_feature_views.values_mut().flat_map(|view| &mut view.features);
        for input in on_demand.flat_map(|feature| &mut feature.inputs) {
            if let OnDemandInput::Feature { view, output, .. } = input {
                change(view, output);
            }
        }
        for FeatureReference { view, feature } in
            self.feature_services.values_mut().flat_map(|service| &mut service.features)
        {
            change(view, feature);
        }
    }
}

fn moved<T>(documents: &mut BTreeMap<String, T>, from: &str, to: &str, change: impl FnOnce(&mut T)) {
    if documents.contains_key(to) {
        return;
    }
    if let Some(mut document) = documents.remove(from) {
        change(&mut document);
        documents.insert(to.to_owned(), document);
    }
}

fn rename_outputs(outputs: &mut [Field], from: &str, to: &str, renamed: &mut BTreeMap<String, String>) {
    for output in outputs {
        let rest = output.name.strip_prefix(from).filter(|rest| rest.is_empty() || rest.starts_with("__"));
        let Some(name) = rest.map(|rest| format!("{to}{rest}")) else { continue };
        renamed.insert(std::mem::replace(&mut output.name, name.clone()), name);
    }
}

/// The renames that lead from one project to another, where nobody has said them: sources by lineage, views by the
/// fingerprints of their features, in order. What is not found looks like one thing removed and another created.
pub fn renames_between(before: &Project, after: &Project) -> Vec<Rename> {
    let mut renames = Vec::new();
    for source in before.sources.values().filter(|source| !after.sources.contains_key(&source.name)) {
        let now = after.sources.values().find(|other| other.lineage == source.lineage);
        if let Some(now) = now.filter(|now| !before.sources.contains_key(&now.name)) {
            renames.push(of_document(DocumentKind::Source, &source.name, &now.name));
        }
    }
    let mut taken = BTreeSet::new();
    for view in before.feature_views.values().filter(|view| !after.feature_views.contains_key(&view.name)) {
        let now = after.feature_views.values().find(|other| {
            let same = |features: &[super::Feature]| features.iter().map(|one| one.fingerprint).collect::<Vec<_>>();
            !before.feature_views.contains_key(&other.name)
                && !taken.contains(&other.name)
                && other.join_keys == view.join_keys
                && same(&other.features) == same(&view.features)
        });
        if let Some(now) = now {
            taken.insert(now.name.clone());
            renames.push(of_document(DocumentKind::FeatureView, &view.name, &now.name));
        }
    }
    renames
}

fn of_document(kind: DocumentKind, from: &str, to: &str) -> Rename {
    Rename { what: Renamed::Document(kind), from: from.to_owned(), to: to.to_owned() }
}
