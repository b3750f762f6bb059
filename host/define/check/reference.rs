//! `view`, `view.feature` and Feast's `view:feature`: which value columns a reference means.

use crate::define::names::hint;
use crate::define::{FeatureReference, Project};
use onefold_fold::Kind;

/// A value column that a reference means, with its kind.
#[derive(Clone, Debug, PartialEq)]
pub struct Referred {
    pub reference: FeatureReference,
    pub kind: Kind,
}

impl Project {
    /// The value columns that `view`, `view.feature` or `view:feature` means, of feature views and on-demand views.
    /// The error names what is near.
    pub fn refer(&self, text: &str) -> Result<Vec<Referred>, String> {
        let (view, feature) = match text.split_once(['.', ':']) {
            Some((view, feature)) => (view, Some(feature)),
            None => (text, None),
        };
        let Some(columns) = self.value_columns(view) else {
            let views = self.feature_views.keys().chain(self.on_demand_feature_views.keys());
            return Err(format!("no view `{view}`: {}", hint(view, views.map(String::as_str))));
        };
        let meant: Vec<_> = match feature {
            None => columns.clone(),
            Some(name) => columns.iter().filter(|(of, output, _)| of == name || output == name).cloned().collect(),
        };
        if let (true, Some(name)) = (meant.is_empty(), feature) {
            let near = hint(name, columns.iter().map(|(_, output, _)| output.as_str()));
            return Err(format!("view `{view}` has no feature `{name}`: {near}"));
        }
        let referred = |(_, feature, kind): (String, String, Kind)| Referred {
            reference: FeatureReference { view: view.to_owned(), feature },
            kind,
        };
        Ok(meant.into_iter().map(referred).collect())
    }

    /// Feature, value column and kind of all that a view gives, in order; `None` when there is no such view.
    fn value_columns(&self, view: &str) -> Option<Vec<(String, String, Kind)>> {
        let spelled = |feature: &str, outputs: &[onefold_fold::Field]| {
            outputs.iter().map(|output| (feature.to_owned(), output.name.clone(), output.kind)).collect::<Vec<_>>()
        };
        if let Some(view) = self.feature_views.get(view) {
            return Some(view.features.iter().flat_map(|feature| spelled(&feature.name, &feature.outputs)).collect());
        }
        let view = self.on_demand_feature_views.get(view)?;
        Some(view.features.iter().flat_map(|feature| spelled(&feature.name, &feature.outputs)).collect())
    }
}
