//! A layout with its UDFs prepared: what worker threads run.

use crate::define::UdfUse;
use crate::route::Groups;
use crate::rows::{Layout, Transforms};
use onefold_fold::{Field, Udf};

/// Everything one revision of a project runs. Shared by all threads.
pub struct Compiled {
    pub layout: Layout,
    pub groups: Groups,
    pub transforms: Transforms,
    /// For each table, for each of its features.
    pub udfs: Vec<Vec<Udf>>,
}

/// A UDF that a registered definition uses cannot be prepared any more.
#[derive(Debug, thiserror::Error)]
#[error("udf `{module}.{udf}` of the registered definitions cannot be prepared: {reason}")]
pub struct CompileError {
    pub module: String,
    pub udf: String,
    pub reason: String,
}

impl Compiled {
    /// Prepares every UDF of the layout.
    pub fn new(
        layout: Layout,
        groups: Groups,
        prepare: impl Fn(&UdfUse, &[Field]) -> Result<Udf, String>,
    ) -> Result<Compiled, CompileError> {
        let prepare = |udf: &UdfUse, inputs: &[Field]| {
            prepare(udf, inputs).map_err(|reason| CompileError {
                module: udf.module.clone(),
                udf: udf.udf.clone(),
                reason,
            })
        };
        let transforms = Transforms::prepare(&layout, |step, inputs| prepare(&step.udf, inputs))?;
        let mut udfs = Vec::with_capacity(layout.tables.len());
        for table in &layout.tables {
            let columns = &layout.spaces[table.space].columns;
            let of = |feature: &crate::rows::TableFeature| {
                let inputs: Vec<Field> = feature.inputs.iter().map(|input| columns[*input].clone()).collect();
                prepare(&feature.udf, &inputs)
            };
            udfs.push(table.features.iter().map(of).collect::<Result<Vec<_>, _>>()?);
        }
        Ok(Compiled { layout, groups, transforms, udfs })
    }
}
