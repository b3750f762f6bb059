//! Names: which the documents define, under which ones the registered project is read, and what stays or goes.

use super::{Checker, Group, Report, shown};
use crate::define::located::{Located, Ordered, TextOr};
use crate::define::names::{check_name, hint};
use crate::define::read::{Definitions, Document, DocumentPlace};
use crate::define::rename::{Rename, Renamed};
use crate::define::typed::{FeatureShape, OnDemandShape, Typed};
use crate::define::{DocumentKind, Project};
use std::collections::{BTreeMap, BTreeSet};

/// How many names a note spells out.
const NAMES_SHOWN: usize = 12;

/// Something that is taken out of a project without any documents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removed {
    Document { kind: DocumentKind, name: String },
    Feature { view: String, feature: String },
}

impl Removed {
    /// Whether a project has it; else what was meant, perhaps.
    pub fn check(&self, project: &Project) -> Result<(), String> {
        let (what, name, known) = match self {
            Removed::Document { kind, name } => (kind.singular().to_owned(), name, project.names(*kind)),
            Removed::Feature { view, feature } => {
                let views = project.names(DocumentKind::FeatureView);
                if !views.contains(&view.as_str()) {
                    return Err(format!("there is no feature view `{view}`; {}", hint(view, views)));
                }
                (format!("feature of view `{view}`"), feature, project.feature_names(view))
            }
        };
        match known.contains(&name.as_str()) {
            true => Ok(()),
            false => Err(format!("there is no {what} `{name}`; {}", hint(name, known))),
        }
    }
}

/// What a document that is registered says of itself at its top.
struct Head<'a> {
    place: &'a DocumentPlace,
    group: Group,
    name: &'a Located<String>,
    renamed_from: Option<&'a Located<String>>,
}

fn heads(definitions: &Definitions) -> Vec<Head<'_>> {
    definitions.documents.iter().filter_map(head).collect()
}

fn head(Document { place, typed }: &Document) -> Option<Head<'_>> {
    let (group, name, renamed_from) = match typed {
        Typed::Source(typed) => (Group::Source, &typed.name, typed.renamed_from.as_ref()),
        Typed::Entity(typed) => (Group::Entity, &typed.name, typed.renamed_from.as_ref()),
        Typed::FeatureView(typed) => (Group::View, &typed.name, typed.renamed_from.as_ref()),
        Typed::OnDemandFeatureView(typed) => (Group::View, &typed.name, typed.renamed_from.as_ref()),
        Typed::FeatureService(typed) => (Group::Service, &typed.name, typed.renamed_from.as_ref()),
        Typed::Project(_) | Typed::Module(_) | Typed::Test(_) => return None,
    };
    Some(Head { place, group, name, renamed_from })
}

impl Group {
    pub(super) fn kind(self) -> DocumentKind {
        match self {
            Group::Source => DocumentKind::Source,
            Group::Entity => DocumentKind::Entity,
            Group::View => DocumentKind::FeatureView,
            Group::Service => DocumentKind::FeatureService,
        }
    }
}

impl Checker<'_> {
    /// Finds names that are defined twice or belong to another set, and forgets what the documents replace.
    pub(super) fn note_names(&mut self, definitions: &Definitions) {
        let heads = heads(definitions);
        for Head { place, group, name, .. } in &heads {
            let mut report = Report::new(place);
            report.take(name, check_name(&name.value));
            if *group == Group::View && name.value == "request" {
                report.say(name, "`request` is what on-demand inputs call the request: give the view another name");
            }
            let here = shown(place, name);
            if let Some(first) = self.defined.insert((*group, name.value.clone()), here) {
                report.say(name, format!("`{}` is defined twice, first at {first}: remove one", name.value));
            }
            self.problems.append(&mut report.problems);
        }
        self.rename_documents(&heads);
        for Head { place, group, name, .. } in &heads {
            let mut report = Report::new(place);
            self.check_claim(&mut report, *group, name, &name.value);
            if self.kind_changes(*group, &name.value, &name.value) && !self.prune {
                let message =
                    format!("`{}` is registered as a view of the other kind, and nothing is removed", name.value);
                report.say(name, format!("{message} without --prune: choose another name, or use that"));
            }
            self.problems.append(&mut report.problems);
        }
        self.rename_features(definitions);
        self.project = match &self.registered {
            Some(registered) => Project { name: self.project.name.clone(), ..registered.clone() },
            None => Project::empty(&self.project.name),
        };
        self.forget(!heads.is_empty());
    }

    /// A document of another set is that set's to change.
    fn check_claim(&self, report: &mut Report<'_>, group: Group, at: &Located<String>, name: &str) {
        let about = self.registered.as_ref().and_then(|project| project.about(group.kind(), name));
        if let Some(set) = about.map(|about| &about.set)
            && *set != self.set
            && self.take_over != Some(set.as_str())
        {
            let message = format!(
                "`{name}` belongs to set `{set}`, this is set `{}`: choose another name, or take all of these over \
                 with --take-over {set}",
                self.set
            );
            report.say(at, message);
        }
    }

    /// Reads the registered project under the new names of `renamed_from`.
    fn rename_documents(&mut self, heads: &[Head<'_>]) {
        let mut taken: BTreeMap<(Group, String), String> = BTreeMap::new();
        let mut renames = Vec::new();
        for Head { place, group, name, renamed_from } in heads {
            let Some(from) = renamed_from else { continue };
            let mut report = Report::new(place);
            let what = group.kind().singular();
            let twice = taken.insert((*group, from.value.clone()), shown(place, from));
            let still = self.defined.get(&(*group, from.value.clone())).filter(|_| from.value != name.value);
            if self.check_renamed_from(&mut report, from, &name.value, still, twice) {
                let nothing = Project::empty("");
                let registered = self.registered.as_ref().unwrap_or(&nothing);
                let has = |name: &str| registered.about(group.kind(), name).is_some();
                match (has(&from.value), has(&name.value)) {
                    (true, false) if self.kind_changes(*group, &from.value, &name.value) => {
                        let message = format!("`{}` is a view of the other kind, which is no rename", from.value);
                        report.say(from, format!("{message}: remove `renamed_from`"));
                    }
                    (true, false) => {
                        self.check_claim(&mut report, *group, from, &from.value);
                        let what = Renamed::Document(group.kind());
                        renames.push(Rename { what, from: from.value.clone(), to: name.value.clone() });
                    }
                    (old, true) => self.warnings.push(done_before(what, &from.value, &name.value, old)),
                    (false, false) => {
                        let known = registered.names(group.kind());
                        let message = format!("no {what} `{}` is registered that could be renamed", from.value);
                        match known.is_empty() {
                            true => self.warnings.push(format!("{message}: `{}` is created anew", name.value)),
                            false => report.say(from, format!("{message}: {}", hint(&from.value, known))),
                        }
                    }
                }
            }
            self.problems.append(&mut report.problems);
        }
        self.take_renames(renames);
    }

    /// Whether a view of the documents is on-demand and a registered one is not, or the other way round.
    fn kind_changes(&self, group: Group, registered: &str, name: &str) -> bool {
        let Some(project) = self.registered.as_ref().filter(|_| group == Group::View) else { return false };
        let is_on_demand = self.on_demand.contains(name);
        match is_on_demand {
            true => project.feature_views.contains_key(registered),
            false => project.on_demand_feature_views.contains_key(registered),
        }
    }

    /// Whether an old name can be one at all.
    fn check_renamed_from(
        &self,
        report: &mut Report<'_>,
        from: &Located<String>,
        to: &str,
        still_at: Option<&String>,
        twice: Option<String>,
    ) -> bool {
        let before = report.problems.len();
        report.take(from, check_name(&from.value));
        if from.value == to {
            report.say(from, format!("`{to}` is renamed from itself: remove `renamed_from`"));
        }
        if let Some(still) = still_at {
            let message =
                format!("`{}` is still defined, at {still}: remove it there, or this `renamed_from`", from.value);
            report.say(from, message);
        }
        if let Some(first) = twice {
            report.say(from, format!("`{}` is renamed twice, first at {first}: it can have one new name", from.value));
        }
        report.problems.len() == before
    }

    fn take_renames(&mut self, renames: Vec<Rename>) {
        if let Some(registered) = &mut self.registered {
            renames.iter().for_each(|rename| registered.rename(rename));
        }
        self.renames.extend(renames);
    }

    fn rename_features(&mut self, definitions: &Definitions) {
        for Document { place, typed } in &definitions.documents {
            let mut report = Report::new(place);
            let (view, features) = match typed {
                Typed::FeatureView(typed) => (&typed.name.value, named_features(&typed.features)),
                Typed::OnDemandFeatureView(typed) => (&typed.name.value, named_on_demand(&typed.features)),
                _ => continue,
            };
            self.rename_features_of(&mut report, view, &features);
            self.problems.append(&mut report.problems);
        }
    }

    fn rename_features_of(&mut self, report: &mut Report<'_>, view: &str, features: &[NamedFeature<'_>]) {
        let registered: BTreeSet<String> = self
            .registered
            .as_ref()
            .map(|project| project.feature_names(view).into_iter().map(str::to_owned).collect())
            .unwrap_or_default();
        let defined: BTreeMap<String, &Located<String>> = features
            .iter()
            .flat_map(|feature| feature.suffixes.iter().map(|suffix| (feature.full(suffix), feature.name)))
            .collect();
        let mut taken: BTreeMap<String, String> = BTreeMap::new();
        let mut renames = Vec::new();
        for feature in features {
            let Some(from) = feature.renamed_from else { continue };
            let mut found = false;
            for suffix in &feature.suffixes {
                let (old, new) = (format!("{}{suffix}", from.value), feature.full(suffix));
                let still = defined.get(&old).filter(|_| old != new).map(|name| shown(report.place, name));
                let twice = taken.insert(old.clone(), shown(report.place, from));
                if !self.check_renamed_from(report, from, &feature.name.value, still.as_ref(), twice) {
                    found = true;
                    break;
                }
                match (registered.contains(&old), registered.contains(&new)) {
                    (true, false) => {
                        let what = Renamed::Feature { view: view.to_owned() };
                        renames.push(Rename { what, from: old, to: new });
                        found = true;
                    }
                    (before, true) => {
                        self.warnings.push(done_before("feature", &old, &format!("{view}.{new}"), before));
                        found = true;
                    }
                    (false, false) => {}
                }
            }
            if !found {
                let message = format!("view `{view}` has no feature `{}` registered that could be renamed", from.value);
                match registered.is_empty() {
                    true => self.warnings.push(format!("{message}: `{}` is created anew", feature.name.value)),
                    false => report
                        .say(from, format!("{message}: {}", hint(&from.value, registered.iter().map(String::as_str)))),
                }
            }
        }
        self.take_renames(renames);
    }

    /// Takes what the documents replace out of the project, and with `--prune` what their set no longer has.
    fn forget(&mut self, has_documents: bool) {
        let mut left = Vec::new();
        for group in [Group::Source, Group::Entity, Group::View, Group::Service] {
            let kind = group.kind();
            let names: Vec<String> = self.project.names(kind).into_iter().map(str::to_owned).collect();
            for name in names {
                let removed = Removed::Document { kind, name: name.clone() };
                let is_defined = self.is_defined(group, &name);
                let of_set = self.project.about(kind, &name).is_some_and(|about| about.set == self.set);
                if of_set && !is_defined && !self.prune && has_documents {
                    left.push(format!("{} `{name}`", kind.singular()));
                }
                if is_defined || (self.prune && of_set) || self.removed == Some(&removed) {
                    self.take_out(kind, &name);
                }
            }
        }
        if let Some(Removed::Feature { view, feature }) = self.removed {
            self.take_feature_out(view, feature);
        }
        self.left = left;
    }

    fn take_out(&mut self, kind: DocumentKind, name: &str) {
        match kind {
            DocumentKind::Source => drop(self.project.sources.remove(name)),
            DocumentKind::Entity => drop(self.project.entities.remove(name)),
            DocumentKind::FeatureView => {
                self.project.feature_views.remove(name);
                self.project.on_demand_feature_views.remove(name);
            }
            DocumentKind::FeatureService => drop(self.project.feature_services.remove(name)),
        }
    }

    /// A view without features is none.
    fn take_feature_out(&mut self, view: &str, feature: &str) {
        if let Some(of_view) = self.project.feature_views.get_mut(view) {
            of_view.features.retain(|one| one.name != feature);
        }
        if let Some(of_view) = self.project.on_demand_feature_views.get_mut(view) {
            of_view.features.retain(|one| one.name != feature);
        }
        self.project.feature_views.retain(|_, view| !view.features.is_empty());
        self.project.on_demand_feature_views.retain(|_, view| !view.features.is_empty());
    }

    /// Says what stays although the documents of its set do not have it any more.
    pub(super) fn warn_of_what_is_left(&mut self) {
        if self.left.is_empty() {
            return;
        }
        let mut names = self.left.iter().take(NAMES_SHOWN).cloned().collect::<Vec<_>>().join(", ");
        if let more @ 1.. = self.left.len().saturating_sub(NAMES_SHOWN) {
            names.push_str(&format!(" and {more} more"));
        }
        let set = &self.set;
        self.warnings
            .push(format!("set `{set}` has registered what is not here, and it stays: {names}; --prune removes it"));
    }
}

fn done_before(what: &str, from: &str, to: &str, old_is_there: bool) -> String {
    match old_is_there {
        false => format!("{what} `{from}` is called `{to}` already: `renamed_from` can go once that is so everywhere"),
        true => format!(
            "{what} `{to}` is registered, so `renamed_from` does nothing, and `{from}` stays: remove one of them"
        ),
    }
}

/// The features that one entry below `features:` makes.
struct NamedFeature<'a> {
    name: &'a Located<String>,
    renamed_from: Option<&'a Located<String>>,
    /// What follows the name, one for each feature.
    suffixes: Vec<String>,
}

impl NamedFeature<'_> {
    fn full(&self, suffix: &str) -> String {
        format!("{}{suffix}", self.name.value)
    }
}

fn named_features(features: &Ordered<TextOr<FeatureShape>>) -> Vec<NamedFeature<'_>> {
    let named = features.0.iter().map(|(name, shape)| match shape {
        TextOr::Text(_) => NamedFeature { name, renamed_from: None, suffixes: vec![String::new()] },
        TextOr::Shape(shape) => {
            let suffix = |typed: &Located<TextOr<_>>| match &typed.value {
                TextOr::Text(text) => format!("_{text}"),
                TextOr::Shape(_) => String::new(),
            };
            let suffixes = match &shape.windows {
                Some(windows) => windows.iter().map(suffix).collect(),
                None => vec![String::new()],
            };
            NamedFeature { name, renamed_from: shape.renamed_from.as_ref(), suffixes }
        }
    });
    named.collect()
}

fn named_on_demand(features: &Ordered<OnDemandShape>) -> Vec<NamedFeature<'_>> {
    let named = features.0.iter().map(|(name, shape)| NamedFeature {
        name,
        renamed_from: shape.renamed_from.as_ref(),
        suffixes: vec![String::new()],
    });
    named.collect()
}
