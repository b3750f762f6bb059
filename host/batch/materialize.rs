//! The state of whole tables from their history, as a stream would have it.

use super::BatchError;
use super::files::PinnedFile;
use super::fold_exec::Wanted;
use super::run::Run;
use super::settings::{BatchHost, Rows};
use super::slice::Slice;
use crate::define::Digest;
use crate::rows::Layout;
use arrow::array::{Array, AsArray};
use arrow::datatypes::Int64Type;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

/// Takes states, entity by entity, table after table.
pub trait StateSink {
    /// `cells`: for each feature of the table that was asked for, the persisted cell; empty where no row took part.
    fn entity(&mut self, table: usize, key: &[u8], newest_us: i64, cells: &[&[u8]]) -> Result<(), BatchError>;
}

#[derive(Clone, Debug)]
pub struct MaterializeAsk<'a> {
    /// Where tables and features have their numbers.
    pub layout: &'a Layout,
    /// For each table, the features that are folded, ascending; a table without is left out.
    pub features: &'a [Vec<usize>],
}

/// What the states were made of.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Materialized {
    /// The tables that were given, ascending.
    pub tables: Vec<usize>,
    /// By source.
    pub files: BTreeMap<String, Vec<PinnedFile>>,
    /// By source the instant of its newest decoded row: the clock of the new state. None: there was no row.
    pub clock_us: BTreeMap<String, Option<i64>>,
    /// By source the watermark up to which ordered features are settled, less their allowed lateness.
    pub settled_us: BTreeMap<String, Option<i64>>,
    /// Entities given, those that retention has forgotten by the clock left out.
    pub entities: u64,
    /// Rows that belong to no entity, of each table.
    pub null_keys: u64,
}

impl BatchHost<'_> {
    /// Folds files and log rows of the tables, and gives each entity's state to `sink`. Entities of one table come
    /// in no order.
    pub fn materialize(
        &self,
        ask: &MaterializeAsk<'_>,
        rows: &Rows,
        sink: &mut dyn StateSink,
    ) -> Result<Materialized, BatchError> {
        let mut rows = rows.clone();
        let mut done = Materialized::default();
        for (number, table) in ask.layout.tables.iter().enumerate() {
            let source = &ask.layout.spaces[table.space].source;
            let features = &ask.features[number];
            if features.is_empty() {
                continue;
            }
            let views =
                ask.layout.views.values().filter(|view| view.columns.iter().any(|column| column.table == number));
            let views = views.filter(|view| {
                view.columns.iter().any(|column| column.table == number && features.contains(&column.table_feature))
            });
            let views: BTreeSet<String> = views.map(|view| view.name.clone()).collect();
            let fingerprints: Vec<Digest> =
                features.iter().map(|feature| table.features[*feature].fingerprint).collect();
            let wanted = fingerprints.iter().copied().collect();
            let slice = Slice::of(self.project, &views, &wanted, self.prepare)?;
            let of_slice: Vec<Digest> =
                slice.layout.tables[0].features.iter().map(|feature| feature.fingerprint).collect();
            let places: Vec<Option<usize>> =
                fingerprints.iter().map(|wanted| of_slice.iter().position(|other| other == wanted)).collect();
            let run = Run::new(self, slice, &rows, Wanted::States, None, false)?;
            let mut entities = 0;
            let (seen, pins) = run.each(|batch, scan| {
                let clock_us = scan.newest_us.load(Ordering::Acquire);
                let keys = batch.column(0).as_binary::<i32>();
                let newest = batch.column(1).as_primitive::<Int64Type>();
                let states: Vec<_> = batch.columns()[2..].iter().map(|states| states.as_binary::<i32>()).collect();
                for row in 0..batch.num_rows() {
                    let newest_us = newest.value(row);
                    let forgotten = |retention_us: i64| clock_us > newest_us.saturating_add(retention_us);
                    if newest.is_null(row) || table.retention_us.is_some_and(forgotten) {
                        continue;
                    }
                    let cell = |place: &Option<usize>| place.map_or(&[][..], |place| states[place].value(row));
                    let cells: Vec<&[u8]> = places.iter().map(cell).collect();
                    sink.entity(number, keys.value(row), newest_us, &cells)?;
                    entities += 1;
                }
                Ok(())
            })?;
            // Every table of a source is made of the same files; one that changes meanwhile is an error.
            rows.pinned.insert(source.clone(), pins.clone());
            done.tables.push(number);
            done.files.insert(source.clone(), pins);
            done.clock_us.insert(source.clone(), seen.newest_us);
            done.settled_us.insert(source.clone(), seen.settled_us);
            done.entities += entities;
            done.null_keys += seen.null_keys;
        }
        Ok(done)
    }
}
