//! On-demand features: a transform over rows that are at hand, exactly one row out for each.
//!
//! Lookups and training sets both come here, so a value is the same in both.

use arrow::array::{ArrayRef, UInt32Array, new_null_array};
use arrow::compute::{concat, take};
use onefold_fold::{CallFailure, Udf};

/// What an on-demand UDF gave.
#[derive(Debug, Clone)]
pub struct OnDemandValues {
    /// One array an output, one row for each input row; null where it failed.
    pub outputs: Vec<ArrayRef>,
    /// Rows without a value, ascending, and why.
    pub failed: Vec<(usize, String)>,
}

/// Computes all rows. A row that fails, or gives another number of rows than one, is null with its reason; the others
/// are not touched by it. The error is for columns that do not fit the UDF: the definitions are to be applied again.
pub fn on_demand_values(udf: &Udf, rows: usize, inputs: &[ArrayRef]) -> Result<OnDemandValues, CallFailure> {
    match udf.transform(rows, inputs) {
        Err(failure @ CallFailure::Input(_)) => Err(failure),
        Ok(mapped) => {
            let mut places: Vec<Option<u32>> = vec![None; rows];
            let mut counts = vec![0usize; rows];
            for (output, row) in mapped.parents.iter().enumerate() {
                if let (Some(place), Some(count)) = (places.get_mut(*row as usize), counts.get_mut(*row as usize)) {
                    *place = u32::try_from(output).ok();
                    *count += 1;
                }
            }
            let mut reasons: Vec<Option<String>> = vec![None; rows];
            for (row, message) in mapped.failed {
                if let Some(reason) = reasons.get_mut(row as usize) {
                    *reason = Some(message);
                }
            }
            let mut failed = Vec::new();
            for (row, (place, reason)) in places.iter_mut().zip(reasons).enumerate() {
                let count = counts.get(row).copied().unwrap_or(0);
                let reason = reason.or_else(|| {
                    (count != 1).then(|| format!("{} gave {count} rows, an on-demand feature needs one", udf.name()))
                });
                if let Some(reason) = reason {
                    *place = None;
                    failed.push((row, reason));
                }
            }
            let places = UInt32Array::from(places);
            let own = |error: arrow::error::ArrowError| CallFailure::Invalid(error.to_string());
            let outputs = mapped.outputs.iter().map(|output| take(output, &places, None).map_err(own));
            Ok(OnDemandValues { outputs: outputs.collect::<Result<_, _>>()?, failed })
        }
        Err(failure) if rows <= 1 => {
            let outputs = udf.outputs().iter().map(|field| new_null_array(&field.kind.data_type(), rows)).collect();
            Ok(OnDemandValues { outputs, failed: (0..rows).map(|row| (row, failure.to_string())).collect() })
        }
        // The call failed as a whole: in halves, until the rows to blame stand alone.
        Err(_) => {
            let half = rows / 2;
            let part = |start: usize, count: usize| {
                let inputs: Vec<ArrayRef> = inputs.iter().map(|column| column.slice(start, count)).collect();
                on_demand_values(udf, count, &inputs)
            };
            let (first, second) = (part(0, half)?, part(half, rows - half)?);
            let own = |error: arrow::error::ArrowError| CallFailure::Invalid(error.to_string());
            let pairs = first.outputs.iter().zip(&second.outputs);
            let outputs = pairs.map(|(a, b)| concat(&[a.as_ref(), b.as_ref()]).map_err(own));
            let outputs = outputs.collect::<Result<_, _>>()?;
            let behind = second.failed.into_iter().map(|(row, reason)| (row + half, reason));
            Ok(OnDemandValues { outputs, failed: first.failed.into_iter().chain(behind).collect() })
        }
    }
}
