//! A layout with its UDFs prepared: what worker threads run.

use super::letter::{Letter, RefusedBy};
use crate::define::{Digest, UdfUse};
use crate::route::Groups;
use crate::rows::{Layout, Transforms};
use crate::state::TableRecord;
use onefold_fold::{Field, Udf};
use std::collections::BTreeMap;

/// Everything one revision of a project runs. Shared by all threads.
pub struct Compiled {
    pub layout: Layout,
    pub groups: Groups,
    pub transforms: Transforms,
    /// For each table, for each of its features.
    pub udfs: Vec<Vec<Udf>>,
    /// For each table, its ordered features by fingerprint with the epoch after which their state was begun.
    pub begun: Vec<BTreeMap<Digest, u64>>,
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
        let begun = vec![BTreeMap::new(); layout.tables.len()];
        Ok(Compiled { layout, groups, transforms, udfs, begun })
    }

    /// Says after which checkpoint the state of ordered features was begun: what is recorded of that which has some
    /// (`is_new` does not say otherwise), and for the rest this epoch.
    pub fn begin<'r>(
        &mut self,
        records: impl Iterator<Item = &'r TableRecord> + Clone,
        epoch: u64,
        is_new: impl Fn(usize, usize) -> bool,
    ) {
        for (number, (table, begun)) in self.layout.tables.iter().zip(&mut self.begun).enumerate() {
            for (place, feature) in table.features.iter().enumerate() {
                if feature.allowed_lateness_us.is_some() {
                    let of_table = records.clone().filter(|record| record.id == table.id && !is_new(number, place));
                    let recorded = of_table.filter_map(|record| record.begun.get(&feature.fingerprint)).max();
                    begun.insert(feature.fingerprint, recorded.copied().unwrap_or(epoch));
                }
            }
        }
    }

    /// Whether a table's state of an ordered feature is the one that lacks a late letter's row.
    pub fn lacks(&self, table: usize, letter: &Letter) -> bool {
        match &letter.refused_by {
            RefusedBy::Feature(fingerprint) => {
                letter.begun.is_some() && self.begun[table].get(fingerprint).copied() == letter.begun
            }
            RefusedBy::All | RefusedBy::Table(_) => false,
        }
    }
}
