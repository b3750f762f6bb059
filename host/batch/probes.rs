//! Instants whose values are asked for, one entity each.

use super::BatchError;
use super::label_file::Labels;
use super::sort_row::SortSchema;
use arrow::record_batch::RecordBatch;
use std::sync::Arc;

/// Probes of one run. Labels are numbered from 0 in their order; those without a key ask nothing.
pub(super) enum Probes {
    /// The labels of a training set, read once more for each run.
    Labels { labels: Arc<Labels>, keys: Vec<String>, exclusive: bool },
    /// Entities by key.
    Entities { entities: Arc<Vec<(Vec<u8>, i64)>>, batch_rows: usize },
}

type Batches = Box<dyn Iterator<Item = Result<RecordBatch, BatchError>> + Send>;

impl Probes {
    pub fn len(&self) -> u64 {
        match self {
            Probes::Labels { labels, .. } => labels.rows(),
            Probes::Entities { entities, .. } => entities.len() as u64,
        }
    }

    pub fn batches(&self, sort: SortSchema) -> Result<Batches, BatchError> {
        match self {
            Probes::Labels { labels, keys, exclusive } => {
                let (keys, exclusive) = (keys.clone(), *exclusive);
                let mut first = 0u64;
                Ok(Box::new(labels.clone().read()?.map(move |batch| {
                    let batch = batch?;
                    let encoded = batch.keys(&keys)?;
                    let asked = (0..batch.len()).filter(|row| !encoded.is_null(*row));
                    let probes = asked.map(|row| (encoded.key(row), batch.at_us[row], first + row as u64));
                    let probes = sort.probes(exclusive, probes);
                    first += batch.len() as u64;
                    probes
                })))
            }
            Probes::Entities { entities, batch_rows } => {
                let (entities, step) = (entities.clone(), (*batch_rows).max(1));
                let starts = (0..entities.len()).step_by(step);
                Ok(Box::new(starts.map(move |start| {
                    let part = entities.iter().enumerate().skip(start).take(step);
                    sort.probes(false, part.map(|(label, (key, as_of_us))| (&key[..], *as_of_us, label as u64)))
                })))
            }
        }
    }
}
