//! Questions that a checked project answers about itself.

use super::{About, Project, Source, UdfUse};
use onefold_fold::Kind;
use std::collections::{BTreeMap, BTreeSet};

/// The kinds of registered documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DocumentKind {
    Source,
    Entity,
    /// On-demand views among them: both are asked for as `view.feature`, so they share their names.
    FeatureView,
    FeatureService,
}

impl DocumentKind {
    pub const ALL: [DocumentKind; 4] =
        [DocumentKind::Source, DocumentKind::Entity, DocumentKind::FeatureView, DocumentKind::FeatureService];

    /// As a member of answers.
    pub fn name(self) -> &'static str {
        match self {
            DocumentKind::Source => "sources",
            DocumentKind::Entity => "entities",
            DocumentKind::FeatureView => "feature_views",
            DocumentKind::FeatureService => "feature_services",
        }
    }

    /// In a sentence.
    pub fn singular(self) -> &'static str {
        match self {
            DocumentKind::Source => "source",
            DocumentKind::Entity => "entity",
            DocumentKind::FeatureView => "feature view",
            DocumentKind::FeatureService => "feature service",
        }
    }
}

impl Project {
    /// A project in which nothing is defined yet.
    pub fn empty(name: &str) -> Project {
        Project {
            name: name.to_owned(),
            sources: BTreeMap::new(),
            entities: BTreeMap::new(),
            feature_views: BTreeMap::new(),
            on_demand_feature_views: BTreeMap::new(),
            feature_services: BTreeMap::new(),
            modules: BTreeSet::new(),
            keep_revisions_us: None,
        }
    }

    /// What is said of a document, if there is one of this kind and name.
    pub fn about(&self, kind: DocumentKind, name: &str) -> Option<&About> {
        match kind {
            DocumentKind::Source => self.sources.get(name).map(|source| &source.about),
            DocumentKind::Entity => self.entities.get(name).map(|entity| &entity.about),
            DocumentKind::FeatureView => {
                let view = self.feature_views.get(name).map(|view| &view.about);
                view.or_else(|| self.on_demand_feature_views.get(name).map(|view| &view.about))
            }
            DocumentKind::FeatureService => self.feature_services.get(name).map(|service| &service.about),
        }
    }

    /// The names of all documents of a kind.
    pub fn names(&self, kind: DocumentKind) -> Vec<&str> {
        let names: Vec<&String> = match kind {
            DocumentKind::Source => self.sources.keys().collect(),
            DocumentKind::Entity => self.entities.keys().collect(),
            DocumentKind::FeatureView => self.feature_views.keys().chain(self.on_demand_feature_views.keys()).collect(),
            DocumentKind::FeatureService => self.feature_services.keys().collect(),
        };
        names.into_iter().map(String::as_str).collect()
    }

    /// The names of a view's features, of feature views and on-demand views alike.
    pub fn feature_names(&self, view: &str) -> Vec<&str> {
        let of_view = self.feature_views.get(view).into_iter().flat_map(|view| &view.features);
        let on_demand = self.on_demand_feature_views.get(view).into_iter().flat_map(|view| &view.features);
        of_view.map(|feature| &*feature.name).chain(on_demand.map(|feature| &*feature.name)).collect()
    }

    /// The source of a lineage: what logs, positions and dead letters are kept under.
    pub fn source_of_lineage(&self, lineage: &str) -> Option<&Source> {
        self.sources.values().find(|source| source.lineage == lineage)
    }

    /// For each source's name its lineage.
    pub fn lineages(&self) -> BTreeMap<String, String> {
        self.sources.values().map(|source| (source.name.clone(), source.lineage.clone())).collect()
    }

    /// Every use of a UDF: transforms, features, on-demand features.
    pub fn udf_uses(&self) -> Vec<&UdfUse> {
        let of_sources = self.sources.values().flat_map(|source| &source.transforms);
        let of_views = self.feature_views.values().flat_map(|view| &view.transforms);
        let transforms = of_sources.chain(of_views).map(|transform| &transform.udf);
        let features = self.feature_views.values().flat_map(|view| &view.features).map(|feature| &feature.udf);
        let on_demand = self.on_demand_feature_views.values().flat_map(|view| &view.features).map(|one| &one.udf);
        transforms.chain(features).chain(on_demand).collect()
    }

    /// The kind of a view's value column, of feature views and on-demand views alike.
    pub fn kind_of(&self, view: &str, value: &str) -> Option<Kind> {
        let of_view = self.feature_views.get(view).into_iter().flat_map(|view| &view.features);
        let on_demand = self.on_demand_feature_views.get(view).into_iter().flat_map(|view| &view.features);
        let outputs = of_view.flat_map(|feature| &feature.outputs).chain(on_demand.flat_map(|one| &one.outputs));
        outputs.into_iter().find(|output| output.name == value).map(|output| output.kind)
    }

    /// Whether a view has this value column.
    pub fn gives(&self, view: &str, value: &str) -> bool {
        self.kind_of(view, value).is_some()
    }
}
