//! `verify`: every streamed value against batch, over exactly the rows that the state is made of, bit for bit.
//!
//! Batch starts from rows, never from state: the pinned files and the log up to a barrier. Each entity is compared at
//! max(clock, its newest row), which is the instant of its streamed value.

use super::letters::late_rows;
use super::{Live, PlatformError, ProjectHost};
use crate::batch::{
    AsOf, BatchError, BatchHost, BatchSettings, LateRows, Progress, Refusals, Rows, TableAsk, ValueColumns,
};
use crate::online::{OnlineRows, OnlineStore};
use crate::route::{Keys, decode};
use crate::rows::{TableLayout, ViewLayout};
use crate::stream::Stopped;
use arrow::array::{Array, ArrayRef};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// How many differences are spelled out.
const DIFFERENCES_SHOWN: usize = 100;

/// What verify found.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Verified {
    /// Values compared: one an entity and value column.
    pub compared: u64,
    pub differ: u64,
    /// Values that have failed on either side: neither equal nor different.
    pub failed: u64,
    /// Open dead letters of these views: rows that both sides leave out.
    pub dead_letters: u64,
    /// Tables whose rows cannot be read any more: not equal.
    pub unreadable: u64,
    pub differences: Vec<Difference>,
    /// Why tables are unreadable.
    pub reasons: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    pub view: String,
    /// The value column; null where the entity itself is known to one side only.
    pub feature: Option<String>,
    pub entity: BTreeMap<String, serde_json::Value>,
    pub streamed: String,
    pub batch: String,
}

impl Verified {
    /// Whether everything could be compared and is equal.
    pub fn is_equal(&self) -> bool {
        self.differ == 0 && self.unreadable == 0
    }
}

impl ProjectHost {
    /// Compares the values of these views (all if none are named). Rows are not folded meanwhile; pushes are taken.
    pub fn verify(
        &self,
        views: &[String],
        settings: &BatchSettings,
        progress: Arc<dyn Fn(Progress) + Send + Sync>,
    ) -> Result<Verified, PlatformError> {
        for view in views {
            if !self.live()?.compiled.layout.views.contains_key(view) {
                return Err(PlatformError::NotFound(format!("there is no feature view `{view}`")));
            }
        }
        let mut verified = self.while_stopped(|live, stopped| {
            let mut verified = Verified::default();
            let letters = self.dead_letters(None)?;
            for (number, table) in live.compiled.layout.tables.iter().enumerate() {
                let reads = |view: &&ViewLayout| view.columns.iter().any(|column| column.table == number);
                let of_table: Vec<&ViewLayout> = live.compiled.layout.views.values().filter(reads).collect();
                let wanted = |view: &&&ViewLayout| views.is_empty() || views.contains(&view.name);
                let asked: Vec<&ViewLayout> = of_table.iter().filter(wanted).copied().collect();
                if asked.is_empty() {
                    continue;
                }
                let late = late_rows(&live.compiled, &letters, std::iter::once(number));
                let compared =
                    self.verify_table(live, stopped, number, table, &asked, late, settings, &progress, &mut verified);
                match compared {
                    Ok(()) => {}
                    Err(PlatformError::Batch(error @ (BatchError::Changed { .. } | BatchError::Unreadable { .. }))) => {
                        verified.unreadable += 1;
                        verified.reasons.push(format!("{}: {error}", asked[0].name));
                    }
                    Err(error) => return Err(error),
                }
            }
            Ok(verified)
        })?;
        let live = self.live()?;
        let all = live.compiled.layout.views.keys().map(String::as_str);
        let asked: BTreeSet<&str> =
            all.filter(|view| views.is_empty() || views.iter().any(|one| one == view)).collect();
        let letters = self.dead_letters(None)?;
        let missing = letters.iter().filter(|letter| live.is_open(letter) && live.concerns(letter, &asked));
        verified.dead_letters = missing.count() as u64;
        Ok(verified)
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one comparison, used once")]
    fn verify_table(
        &self,
        live: &Live,
        stopped: &Stopped,
        number: usize,
        table: &TableLayout,
        views: &[&ViewLayout],
        late: BTreeMap<String, Arc<LateRows>>,
        settings: &BatchSettings,
        progress: &Arc<dyn Fn(Progress) + Send + Sync>,
        verified: &mut Verified,
    ) -> Result<(), PlatformError> {
        let project = &live.revision.project;
        let source = &live.compiled.layout.spaces[table.space].source;
        let end = stopped.positions.get(source).copied().unwrap_or(0);
        let rows = Rows { late, ..self.rows_of_state(live, table, end)? };
        let clock_us = table.row_set.clock_us(stopped.clocks.get(source).map_or(i64::MIN, |clock| clock.clock_us));
        let prepare = self.preparer();
        let refusals = Arc::new(Refusals::default());
        let host =
            BatchHost { project, prepare: &prepare, settings: settings.clone(), refusals, progress: progress.clone() };
        let columns: Vec<_> = views
            .iter()
            .flat_map(|view| view.columns.iter().filter(|column| column.table == number).map(|column| (*view, column)))
            .collect();
        let ask = TableAsk {
            views: views.iter().map(|view| view.name.clone()).collect(),
            features: columns.iter().map(|(_, column)| column.fingerprint).collect(),
        };
        let fingerprints: Vec<_> = ask.features.iter().copied().collect();
        let mut seen = BTreeSet::new();
        let mut failure = None;
        host.table_values(&ask, &rows, AsOf::ClockOrNewest(clock_us), |values: ValueColumns| {
            let Some(key_bytes) = &values.keys else { return Ok(()) };
            let keys = Keys::from_bytes(key_bytes.iter().flatten());
            let online = match live.online.read(&table.id, &fingerprints, &keys) {
                Ok(online) => online,
                Err(error) => {
                    failure = Some(PlatformError::from(error));
                    return Ok(());
                }
            };
            for row in 0..values.len() {
                if values.newest_us.is_null(row) {
                    continue;
                }
                let newest_us = values.newest_us.value(row);
                if table.retention_us.is_some_and(|kept_us| newest_us.saturating_add(kept_us) < clock_us) {
                    // Rule 7 has let go of it; it must not be there.
                    continue;
                }
                seen.insert(keys.key(row).to_vec());
                let entity = || entity_of(views[0], table, keys.key(row));
                if !online.found[row] || online.newest_us[row] != newest_us {
                    let streamed = match online.found[row] {
                        true => format!("newest row at {} us", online.newest_us[row]),
                        false => "not known".to_owned(),
                    };
                    verified.add(Difference {
                        view: views[0].name.clone(),
                        feature: None,
                        entity: entity(),
                        streamed,
                        batch: format!("newest row at {newest_us} us"),
                    });
                    continue;
                }
                for (view, column) in &columns {
                    let place = fingerprints.iter().position(|fingerprint| *fingerprint == column.fingerprint);
                    let batch = values.features.iter().find(|feature| feature.fingerprint == column.fingerprint);
                    let (Some(place), Some(batch)) = (place, batch) else { continue };
                    verified.compared += 1;
                    let streamed_failed = failed_at(&online, place, row);
                    if batch.failed.value(row) || streamed_failed {
                        verified.failed += 1;
                        continue;
                    }
                    let streamed = &online.features[place].outputs[column.output];
                    let by_batch = &batch.outputs[column.output];
                    if !same(streamed, row, by_batch, row) {
                        verified.add(Difference {
                            view: view.name.clone(),
                            feature: Some(column.field.name.clone()),
                            entity: entity(),
                            streamed: shown(streamed, row),
                            batch: shown(by_batch, row),
                        });
                    }
                }
            }
            Ok(())
        })?;
        if let Some(failure) = failure {
            return Err(failure);
        }
        for group in &stopped.groups {
            let entities = &group.tables[number];
            for key in entities.numbers().map(|entity| entities.key(entity)).filter(|key| !seen.contains(*key)) {
                verified.add(Difference {
                    view: views[0].name.clone(),
                    feature: None,
                    entity: entity_of(views[0], table, key),
                    streamed: "known".to_owned(),
                    batch: "no row".to_owned(),
                });
            }
        }
        Ok(())
    }
}

impl Verified {
    fn add(&mut self, difference: Difference) {
        self.differ += 1;
        if self.differences.len() < DIFFERENCES_SHOWN {
            self.differences.push(difference);
        }
    }
}

fn failed_at(online: &OnlineRows, feature: usize, row: usize) -> bool {
    online.features[feature].reasons.iter().any(|(at, failed, _)| *at == row && *failed)
}

/// Whether two values are the same to the last bit.
fn same(left: &ArrayRef, left_row: usize, right: &ArrayRef, right_row: usize) -> bool {
    left.data_type() == right.data_type() && left.slice(left_row, 1).to_data() == right.slice(right_row, 1).to_data()
}

fn shown(column: &ArrayRef, row: usize) -> String {
    if column.is_null(row) {
        return "null".to_owned();
    }
    arrow::util::display::array_value_to_string(column, row).unwrap_or_else(|error| error.to_string())
}

fn entity_of(view: &ViewLayout, table: &TableLayout, key: &[u8]) -> BTreeMap<String, serde_json::Value> {
    let Ok(columns) = decode(&table.key_kinds, [key].into_iter()) else { return BTreeMap::new() };
    let named = view.join_keys.iter().zip(&columns);
    named.map(|(join_key, column)| (join_key.name.clone(), shown(column, 0).into())).collect()
}
