//! The part of a project that one run needs: nothing else is read, decoded or computed.

use super::BatchError;
use super::settings::Prepare;
use crate::define::{Digest, FeatureView, Project, Source, Transform};
use crate::rows::{Layout, RowSet, Transforms};
use onefold_fold::{Field, Udf};
use std::collections::BTreeSet;

/// One table with its UDFs, over the columns it needs.
pub(super) struct Slice {
    pub layout: Layout,
    pub source: Source,
    pub transforms: Transforms,
    /// For each of the table's features.
    pub udfs: Vec<Udf>,
    /// The definitions of no more than that.
    pub project: Project,
}

/// In batch all features of a source are made of the same rows, so that a view has exactly one table.
pub(super) fn whole_layout(project: &Project) -> Result<Layout, BatchError> {
    Layout::of(project, |source, _, _| RowSet::of_log(&source.lineage))
        .map_err(|error| BatchError::Fold(error.to_string()))
}

impl Slice {
    /// The table of these views, with those of their features that are wanted, by fingerprint.
    pub fn of(
        project: &Project,
        views: &BTreeSet<String>,
        wanted: &BTreeSet<Digest>,
        prepare: &Prepare<'_>,
    ) -> Result<Slice, BatchError> {
        let mut part = project.clone();
        part.on_demand_feature_views.clear();
        part.feature_services.clear();
        part.feature_views.retain(|name, _| views.contains(name));
        for view in part.feature_views.values_mut() {
            view.features.retain(|feature| wanted.contains(&feature.fingerprint));
        }
        let sources: BTreeSet<String> = part.feature_views.values().map(|view| view.source.clone()).collect();
        part.sources.retain(|name, _| sources.contains(name));
        let [source] = part
            .sources
            .values_mut()
            .collect::<Vec<_>>()
            .try_into()
            .map_err(|_| BatchError::Internal(format!("views {views:?} are not of one source")))?;
        let mut needed = BTreeSet::from([source.event_time.clone()]);
        for view in part.feature_views.values_mut() {
            needed.extend(needed_of(view));
        }
        drop_unneeded(&mut source.transforms, &mut needed);
        source.columns.retain(|column| needed.contains(&column.name));
        let source = source.clone();
        let layout = whole_layout(&part)?;
        if layout.tables.len() != 1 {
            return Err(BatchError::Internal(format!("views {views:?} have {} tables", layout.tables.len())));
        }
        let prepared = |udf: &crate::define::UdfUse, inputs: &[Field]| {
            prepare(udf, inputs).map_err(|reason| {
                let text = format!("udf `{}.{}` of the registered definitions cannot be prepared", udf.module, udf.udf);
                BatchError::Fold(format!("{text}: {reason}"))
            })
        };
        let transforms = Transforms::prepare(&layout, |step, inputs| prepared(&step.udf, inputs))?;
        let table = &layout.tables[0];
        let columns = &layout.spaces[table.space].columns;
        let mut udfs = Vec::with_capacity(table.features.len());
        for feature in &table.features {
            let inputs: Vec<Field> = feature.inputs.iter().map(|input| columns[*input].clone()).collect();
            udfs.push(prepared(&feature.udf, &inputs)?);
        }
        Ok(Slice { layout, source, transforms, udfs, project: part })
    }
}

/// The names that a view's own transforms do not make; transforms that nothing uses are dropped.
fn needed_of(view: &mut FeatureView) -> BTreeSet<String> {
    let mut needed: BTreeSet<String> = view.join_keys.iter().map(|key| key.column.clone()).collect();
    for feature in &view.features {
        needed.extend(feature.inputs.iter().map(|input| input.name.clone()));
        needed.extend(feature.filter.iter().map(|comparison| comparison.column.clone()));
    }
    drop_unneeded(&mut view.transforms, &mut needed);
    needed
}

/// Backwards, since a transform may use what one before it makes. One that is not one-to-one makes the rows.
fn drop_unneeded(transforms: &mut Vec<Transform>, needed: &mut BTreeSet<String>) {
    let mut kept = Vec::with_capacity(transforms.len());
    for transform in transforms.drain(..).rev() {
        if !transform.one_to_one || transform.outputs.iter().any(|output| needed.contains(&output.name)) {
            needed.extend(transform.inputs.iter().cloned());
            kept.push(transform);
        }
    }
    kept.reverse();
    *transforms = kept;
}
