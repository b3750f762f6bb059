//! Since when the values of features are complete.

use super::history::Pins;
use super::{Live, PlatformError, ProjectHost};
use std::collections::BTreeMap;

/// From which instant on no row is missing in a value, as far as rows were sent at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompleteSince {
    /// There is no row yet.
    NoRows,
    /// All of the history is in.
    Beginning,
    /// Event time in microseconds since the epoch. A window that reaches back before it lacks what came earlier.
    At(i64),
}

impl ProjectHost {
    /// For each view and value column. Values of pushed rows alone are complete since the first push arrived: what
    /// happened before may never have been sent. Those that `materialize` made have the history of its files too; those
    /// that were applied with `--from now` have nothing from before that.
    pub fn complete_since(
        &self,
        live: &Live,
    ) -> Result<BTreeMap<String, BTreeMap<String, CompleteSince>>, PlatformError> {
        let layout = &live.compiled.layout;
        let mut of_tables = Vec::new();
        for table in &layout.tables {
            let log = self.log(&layout.spaces[table.space].source);
            let pushed_us = log.map(|log| log.first_arrival_us()).transpose()?.flatten();
            let pushed = pushed_us.map_or(CompleteSince::NoRows, CompleteSince::At);
            if let Some(since) = table.row_set.since {
                of_tables.push(CompleteSince::At(since.at_us));
                continue;
            }
            of_tables.push(match &table.row_set.files {
                None => pushed,
                Some(digest) => {
                    let pins = Pins::load(self.storage().as_ref(), self.name(), digest)?;
                    let from = pins.from_us.map_or(CompleteSince::Beginning, CompleteSince::At);
                    // Between `--to` and the first push there may be rows that are in neither.
                    if pins.to_us.is_some() && pushed_us.is_some() { pushed } else { from }
                }
            });
        }
        let of_view = |view: &crate::rows::ViewLayout| {
            view.columns.iter().map(|column| (column.field.name.clone(), of_tables[column.table])).collect()
        };
        Ok(layout.views.iter().map(|(name, view)| (name.clone(), of_view(view))).collect())
    }
}
