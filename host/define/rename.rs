//! Renames: a registered project under its new names. Lineages stay, and names are in no fingerprint, so state and
//! values stay too; what refers to a renamed thing follows it.

use super::{ChangeNote, DocumentKind, FeatureReference, OnDemandInput, Project};
use onefold_fold::Field;
use std::collections::BTreeMap;

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

impl Rename {
    /// What undoes the renames that a revision noted, in the order in which to do it.
    pub fn undone(notes: &[ChangeNote]) -> Vec<Rename> {
        let back = |note: &ChangeNote| {
            let from = note.renamed_from.clone()?;
            let what = match &note.feature {
                Some(_) => Renamed::Feature { view: note.name.clone() },
                None => Renamed::Document(kind_named(&note.kind)?),
            };
            Some(Rename { what, to: from, from: note.feature.as_ref().unwrap_or(&note.name).clone() })
        };
        // Features were renamed under the new names of their views, so they go back first.
        notes.iter().rev().filter_map(back).collect()
    }
}

impl Project {
    /// Does renames one after the other, where there is something to rename and the new name is free. Gives what that
    /// comes to in all: documents, then features under the new names of their views.
    pub fn renamed_by(&mut self, renames: &[Rename]) -> Vec<Rename> {
        let mut done: Vec<Rename> = Vec::new();
        for rename in renames {
            let is_there = match &rename.what {
                Renamed::Document(kind) => {
                    self.about(*kind, &rename.from).is_some() && self.about(*kind, &rename.to).is_none()
                }
                Renamed::Feature { view } => {
                    let names = self.feature_names(view);
                    names.contains(&rename.from.as_str()) && !names.contains(&rename.to.as_str())
                }
            };
            if !is_there {
                continue;
            }
            self.rename(rename);
            if rename.what == Renamed::Document(DocumentKind::FeatureView) {
                let views = done.iter_mut().filter_map(|done| match &mut done.what {
                    Renamed::Feature { view } => Some(view),
                    Renamed::Document(_) => None,
                });
                views.filter(|view| **view == rename.from).for_each(|view| view.clone_from(&rename.to));
            }
            match done.iter_mut().find(|one| one.what == rename.what && one.to == rename.from) {
                Some(earlier) => earlier.to.clone_from(&rename.to),
                None => done.push(rename.clone()),
            }
        }
        done.retain(|rename| rename.from != rename.to);
        // As an apply notes them: features under the new names of their views, after these.
        done.sort_by_key(|rename| match rename.what {
            Renamed::Document(kind) => (false, Some(kind)),
            Renamed::Feature { .. } => (true, None),
        });
        done
    }
}

fn kind_named(kind: &str) -> Option<DocumentKind> {
    match kind {
        "source" => Some(DocumentKind::Source),
        "entity" => Some(DocumentKind::Entity),
        "feature_view" | "on_demand_feature_view" => Some(DocumentKind::FeatureView),
        "feature_service" => Some(DocumentKind::FeatureService),
        _ => None,
    }
}
