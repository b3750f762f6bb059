//! Questions that a checked project answers about itself.

use super::{Project, UdfUse};
use onefold_fold::Kind;
use std::collections::{BTreeMap, BTreeSet};

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
        }
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
