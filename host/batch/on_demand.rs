//! Features computed from request data and other features, label by label.

use super::BatchError;
use super::label_file::LabelBatch;
use super::settings::Prepare;
use crate::define::{OnDemandFeature, OnDemandInput, Project};
use arrow::array::{Array, ArrayRef, UInt32Array, new_null_array};
use arrow::compute::{concat, take};
use onefold_fold::{CallFailure, Field, Udf};
use std::collections::BTreeMap;

/// The on-demand features of a project that a training set needs, prepared.
pub(super) struct OnDemand<'a> {
    features: BTreeMap<(&'a str, &'a str), (&'a OnDemandFeature, Udf)>,
}

/// Value columns of one batch of labels, by view and name.
pub(super) type Values = BTreeMap<(String, String), ArrayRef>;

impl<'a> OnDemand<'a> {
    /// Those whose view and name `wanted` names.
    pub fn prepare(
        project: &'a Project,
        wanted: &[(&'a str, &'a str)],
        prepare: &Prepare<'_>,
    ) -> Result<OnDemand<'a>, BatchError> {
        let mut features = BTreeMap::new();
        for (view, name) in wanted {
            let found = feature_of(project, view, name)
                .ok_or_else(|| BatchError::internal(format!("no on-demand feature `{view}.{name}`")))?;
            let inputs: Vec<Field> = found.inputs.iter().map(field_of).collect();
            let udf = prepare(&found.udf, &inputs).map_err(|reason| {
                let udf = format!("{}.{}", found.udf.module, found.udf.udf);
                BatchError::Fold(format!("udf `{udf}` of the registered definitions cannot be prepared: {reason}"))
            })?;
            features.insert((*view, found.name.as_str()), (found, udf));
        }
        Ok(OnDemand { features })
    }

    /// Adds every value column of these features. Definitions know no cycles, so each comes to its turn.
    pub fn add(&self, labels: &LabelBatch, values: &mut Values) -> Result<(), BatchError> {
        let mut waiting: Vec<_> = self.features.iter().collect();
        while !waiting.is_empty() {
            let before = waiting.len();
            let mut later = Vec::new();
            for entry in waiting {
                let ((view, _), (feature, udf)) = entry;
                let Some(inputs) = inputs_of(feature, labels, values)? else {
                    later.push(entry);
                    continue;
                };
                let outputs = one_each(udf, labels.len(), &inputs)?;
                for (field, column) in feature.outputs.iter().zip(outputs) {
                    values.insert(((*view).to_owned(), field.name.clone()), column);
                }
            }
            if later.len() == before {
                return Err(BatchError::internal("on-demand features wait for each other"));
            }
            waiting = later;
        }
        Ok(())
    }
}

/// The on-demand feature that has this value column.
pub(super) fn feature_of<'a>(project: &'a Project, view: &str, output: &str) -> Option<&'a OnDemandFeature> {
    let features = &project.on_demand_feature_views.get(view)?.features;
    features.iter().find(|feature| feature.outputs.iter().any(|field| field.name == output))
}

fn field_of(input: &OnDemandInput) -> Field {
    match input {
        OnDemandInput::Request { field } => field.clone(),
        OnDemandInput::Feature { output, kind, .. } => Field::new(output, *kind),
    }
}

fn inputs_of(
    feature: &OnDemandFeature,
    labels: &LabelBatch,
    values: &Values,
) -> Result<Option<Vec<ArrayRef>>, BatchError> {
    let mut inputs = Vec::with_capacity(feature.inputs.len());
    for input in &feature.inputs {
        match input {
            OnDemandInput::Request { field } => inputs.push(labels.column(&field.name)?.clone()),
            OnDemandInput::Feature { view, output, .. } => match values.get(&(view.clone(), output.clone())) {
                Some(column) => inputs.push(column.clone()),
                None => return Ok(None),
            },
        }
    }
    Ok(Some(inputs))
}

/// One value for each row: null where the module fails, or gives none or several.
fn one_each(udf: &Udf, rows: usize, inputs: &[ArrayRef]) -> Result<Vec<ArrayRef>, BatchError> {
    let nulls = || udf.outputs().iter().map(|field| new_null_array(&field.kind.data_type(), rows)).collect();
    match udf.transform(rows, inputs) {
        Ok(mapped) => {
            let mut places: Vec<Option<u32>> = vec![None; rows];
            let mut counts = vec![0u32; rows];
            for (place, row) in mapped.parents.iter().enumerate() {
                if let (Some(slot), Some(count)) = (places.get_mut(*row as usize), counts.get_mut(*row as usize)) {
                    *slot = Some(place as u32);
                    *count += 1;
                }
            }
            let alone = places.into_iter().zip(counts).map(|(place, count)| place.filter(|_| count == 1));
            let places = UInt32Array::from_iter(alone);
            mapped.outputs.iter().map(|column| Ok(take(column, &places, None)?)).collect()
        }
        Err(failure @ CallFailure::Input(_)) => Err(BatchError::Fold(failure.to_string())),
        Err(_) if rows <= 1 => Ok(nulls()),
        Err(_) => {
            let half = rows / 2;
            let part = |start: usize, len: usize| {
                let inputs: Vec<ArrayRef> = inputs.iter().map(|column| column.slice(start, len)).collect();
                one_each(udf, len, &inputs)
            };
            let (first, second) = (part(0, half)?, part(half, rows - half)?);
            let both = first.iter().zip(&second).map(|(first, second)| Ok(concat(&[first.as_ref(), second.as_ref()])?));
            both.collect()
        }
    }
}
