//! The threads that own state: each has some shard groups, and folds the rows of their entities.

use super::compiled::Compiled;
use super::fold_ordered::{Asked, OrderedFold, OrderedRefusal, settle_point};
use super::fold_table::{FoldTableError, Ordered, TableFold, fold_touched};
use super::letter::{self, Letter, Reason, RefusedBy};
use super::router::{Places, Routed, Router};
use super::steps::{Step, Steps};
use super::touched::{GroupTables, NewRows, Touched};
use crate::define::Digest;
use crate::online::{OnlineEntity, OnlineStore};
use crate::route::hash;
use crate::rows::{Layout, RowBatch, Stage, TableLayout};
use crate::state::{ChangesWriter, Checkpoints, EntityTable, GroupChanges, GroupPart, SourceClock, TableRecord};
use onefold_fold::{DamagedCell, FoldJob};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Entities whose timers ring together are folded in slices of so many, between batches of rows.
const DUE_AT_ONCE: usize = 4096;

/// One group's state.
pub struct GroupState {
    pub group: u32,
    /// In the order of the layout's tables.
    pub tables: Vec<EntityTable>,
    /// By source, the watermark at the group's last barrier: ordered features are settled up to it, less their
    /// allowed lateness.
    pub settled_us: BTreeMap<String, i64>,
    /// Letters of rows that came too late: they count with the group's next manifest.
    pub late: Vec<Letter>,
    /// Those of the barrier that is being encoded, and whether all of the group is.
    frozen_late: Vec<u8>,
    frozen_full: bool,
}

impl GroupState {
    /// An empty group.
    pub fn new(group: u32, compiled: &Compiled) -> GroupState {
        let of = |table: &TableLayout| {
            let features = table.features.iter();
            EntityTable::new(features.map(|feature| (feature.window, feature.allowed_lateness_us.is_some())))
        };
        let tables = compiled.layout.tables.iter().map(of).collect();
        GroupState {
            group,
            tables,
            settled_us: BTreeMap::new(),
            late: Vec::new(),
            frozen_late: Vec::new(),
            frozen_full: false,
        }
    }

    /// The group as its checkpoint's files say, as far as the layout has it: tables by id, features by fingerprint,
    /// of these only those that `is_built`.
    pub fn load(
        group: u32,
        changes: Vec<GroupChanges>,
        compiled: &Compiled,
        is_built: &dyn Fn(usize, usize) -> bool,
    ) -> Result<GroupState, DamagedCell> {
        let mut state = GroupState::new(group, compiled);
        for table in changes.into_iter().flat_map(|changes| changes.tables) {
            let Some(place) = compiled.layout.tables.iter().position(|layout| layout.id == table.id) else { continue };
            let layout = &compiled.layout.tables[place];
            let columns: Vec<Option<usize>> = table
                .fingerprints
                .iter()
                .map(|fingerprint| layout.features.iter().position(|feature| feature.fingerprint == *fingerprint))
                .map(|column| column.filter(|column| is_built(place, *column)))
                .collect();
            let entities = &mut state.tables[place];
            for key in &table.dropped {
                if let Some(number) = entities.find(key, hash(key)) {
                    entities.drop_entity(number);
                }
            }
            for record in &table.entities {
                let (number, _) = entities.find_or_insert(&record.key, hash(&record.key));
                entities.touch(number, record.newest_us);
                let cells = record.cells.iter().zip(&columns);
                entities.restore(number, cells.filter_map(|(cell, column)| Some(((*column)?, &cell[..]))))?;
            }
        }
        for table in &mut state.tables {
            table.forget_changes();
        }
        Ok(state)
    }
}

impl GroupState {
    /// Freezes what changed since the last time, or all of it.
    fn freeze(&mut self, full: bool) {
        self.tables.iter_mut().for_each(|table| table.freeze(full));
        self.frozen_late = letter::lines(&std::mem::take(&mut self.late));
        self.frozen_full = full;
    }

    /// What was frozen, encoded.
    fn take_frozen(&mut self, layout: &Layout) -> Result<GroupPart, DamagedCell> {
        let mut writer = ChangesWriter::default();
        for (table, layout) in self.tables.iter_mut().zip(&layout.tables) {
            let fingerprints: Vec<Digest> = layout.features.iter().map(|feature| feature.fingerprint).collect();
            writer.table(layout.id, &fingerprints, table)?;
        }
        let late = std::mem::take(&mut self.frozen_late);
        Ok(GroupPart { group: self.group, bytes: writer.finish(), full: self.frozen_full, late })
    }
}

/// A thread's state and what it folds it with.
pub struct Worker {
    compiled: Arc<Compiled>,
    online: Arc<dyn OnlineStore>,
    /// By group; groups of others are `None`.
    groups: Vec<Option<GroupState>>,
    number: usize,
    /// For each table, one a feature.
    jobs: Vec<Vec<FoldJob>>,
    /// For each table, the features that are folded: all, or those being built.
    features: Vec<Vec<usize>>,
    touched: Touched,
    /// For each table.
    clocks_us: Vec<i64>,
    pub letters: Vec<Letter>,
    /// Ordered features gather rows and fold none: nobody looks at their values yet.
    gathers: bool,
    steps: Arc<Steps>,
    /// Entities whose values are not all online yet, by table and group.
    refreshing: Vec<(usize, usize, Vec<u32>)>,
    /// Batches of no rows, for entities that change by time alone: columns of the right kinds.
    empty: Vec<RowBatch>,
}

impl Worker {
    pub fn new(
        compiled: Arc<Compiled>,
        online: Arc<dyn OnlineStore>,
        number: usize,
        groups: Vec<GroupState>,
        steps: Arc<Steps>,
    ) -> Worker {
        let tables = &compiled.layout.tables;
        let jobs = compiled.udfs.iter().zip(tables).map(|(udfs, table)| {
            let job = |(udf, feature): (&onefold_fold::Udf, &crate::rows::TableFeature)| {
                FoldJob::new(udf.clone(), feature.window)
            };
            udfs.iter().zip(&table.features).map(job).collect()
        });
        let mut by_group: Vec<Option<GroupState>> = compiled.groups.all().map(|_| None).collect();
        for group in groups {
            let place = group.group as usize;
            by_group[place] = Some(group);
        }
        let empty = tables.iter().map(|table| {
            let columns = &compiled.layout.spaces[table.space].columns;
            let columns = columns.iter().map(|field| arrow::array::new_empty_array(&field.kind.data_type()));
            RowBatch { columns: columns.collect(), ..RowBatch::default() }
        });
        Worker {
            jobs: jobs.collect(),
            features: tables.iter().map(|table| (0..table.features.len()).collect()).collect(),
            clocks_us: vec![i64::MIN; tables.len()],
            empty: empty.collect(),
            touched: Touched::default(),
            refreshing: Vec::new(),
            letters: Vec::new(),
            gathers: false,
            groups: by_group,
            number,
            online,
            compiled,
            steps,
        }
    }

    /// Folds only these features (for each table) from now on.
    pub fn fold_only(&mut self, features: Vec<Vec<usize>>) {
        self.features = features;
    }

    /// Whether ordered features gather rows from now on, and fold none before `settle` or a value is asked for.
    pub fn gather(&mut self, gathers: bool) {
        self.gathers = gathers;
    }

    /// Folds every feature from now on.
    pub fn fold_all(&mut self) {
        self.features = self.compiled.layout.tables.iter().map(|table| (0..table.features.len()).collect()).collect();
    }

    /// Gives the groups back.
    pub fn into_groups(self) -> Vec<GroupState> {
        self.groups.into_iter().flatten().collect()
    }

    /// Folds this thread's rows of a routed batch.
    pub fn rows(&mut self, routed: &Routed, places: &Places) -> Result<(), FoldTableError> {
        let steps = self.steps.clone();
        let mut lap = steps.start();
        for routed_table in &routed.tables {
            let table = routed_table.table;
            let rows = &routed_table.rows[self.number];
            let features = &self.features[table];
            let layout = &self.compiled.layout.tables[table];
            let Some(batch) = &routed.spaces[layout.space] else { continue };
            if rows.is_empty() || features.is_empty() || layout.row_set.paused.is_some() {
                continue;
            }
            let settled_us = self.settled_us(table);
            let mut tables = tables_of(&mut self.groups, table);
            self.touched.of_rows(&routed_table.keys, rows);
            lap.end(Step::Group);
            let fold = TableFold {
                layout,
                jobs: &mut self.jobs[table],
                features,
                online: self.online.as_ref(),
                ordered: Ordered { places, settled_us: &settled_us, gathers: self.gathers },
                new_rows: Some(NewRows {
                    keys: &routed_table.keys,
                    groups: self.compiled.groups,
                    clock_us: self.clocks_us[table],
                }),
            };
            let refused = fold_touched(fold, &mut tables, &mut self.touched, batch, &mut lap)?;
            for refusal in refused.rows {
                let record = batch.records[refusal.row as usize];
                let feature = &layout.features[refusal.feature];
                self.letters.push(Letter {
                    source: routed.lineage.clone(),
                    partition: 0,
                    position: places.position(record),
                    sub_row: batch.sub_rows[refusal.row as usize],
                    stage: Stage::Fold,
                    refused_by: RefusedBy::Feature(feature.fingerprint),
                    intake: None,
                    reason: Reason::Fold,
                    message: refusal.message,
                    module: Some(feature.udf.digest),
                    arrival_us: places.arrival_us(record),
                    begun: None,
                });
            }
            self.told(table, refused.ordered);
        }
        Ok(())
    }

    /// Writes letters of what ordered features refused. Of a row of a file there is none, as of all such rows.
    fn told(&mut self, table: usize, refusals: Vec<OrderedRefusal>) {
        let layout = &self.compiled.layout;
        for refusal in refusals {
            let feature = &layout.tables[table].features[refusal.feature];
            let Some(position) = refusal.place.position else {
                tracing::warn!("a row of a file is refused by `{}`: {}", feature.udf.udf, refusal.message);
                continue;
            };
            let begun = self.compiled.begun[table].get(&feature.fingerprint).copied();
            let letter = Letter {
                source: layout.spaces[layout.tables[table].space].source.clone(),
                partition: 0,
                position,
                sub_row: refusal.place.sub_row,
                stage: Stage::Fold,
                refused_by: RefusedBy::Feature(feature.fingerprint),
                intake: None,
                reason: if refusal.is_late { Reason::Late } else { Reason::Fold },
                message: refusal.message,
                module: (!refusal.is_late).then_some(feature.udf.digest),
                arrival_us: refusal.place.arrival_us,
                begun: begun.filter(|_| refusal.is_late),
            };
            match self.groups[refusal.group as usize].as_mut().filter(|_| refusal.is_late) {
                Some(group) => group.late.push(letter),
                None => self.letters.push(letter),
            }
        }
    }

    /// What each group has settled of a table's source, where that concerns a feature.
    fn settled_us(&self, table: usize) -> BTreeMap<u32, i64> {
        let layout = &self.compiled.layout;
        if layout.tables[table].features.iter().all(|feature| feature.allowed_lateness_us.is_none()) {
            return BTreeMap::new();
        }
        let source = &layout.spaces[layout.tables[table].space].source;
        let groups = self.groups.iter().flatten();
        groups.filter_map(|group| Some((group.group, *group.settled_us.get(source)?))).collect()
    }

    /// Sets what each group has settled, by source.
    pub fn settle_as(&mut self, settled_us: impl Fn(u32) -> BTreeMap<String, i64>) {
        for group in self.groups.iter_mut().flatten() {
            group.settled_us = settled_us(group.group);
        }
    }

    /// Raises the settle points of all groups (by source), and folds what they pass into the states of ordered
    /// features.
    pub fn settle(&mut self, settled_us: &BTreeMap<String, i64>) -> Result<(), FoldTableError> {
        for group in self.groups.iter_mut().flatten() {
            for (source, settled_us) in settled_us {
                let standing = group.settled_us.entry(source.clone()).or_insert(i64::MIN);
                *standing = (*standing).max(*settled_us);
            }
        }
        let compiled = self.compiled.clone();
        for (table, layout) in compiled.layout.tables.iter().enumerate() {
            if layout.row_set.paused.is_some() {
                continue;
            }
            let ordered = layout.features.iter().enumerate();
            for (column, spec) in ordered.filter(|(_, feature)| feature.allowed_lateness_us.is_some()) {
                let mut refusals = Vec::new();
                for (group, watermark_us) in self.settled_us(table) {
                    let settled_us = settle_point(Some(watermark_us), spec.allowed_lateness_us.unwrap_or(0));
                    let state = self.groups[group as usize].as_ref();
                    let (Some(settled_us), Some(state)) = (settled_us, state) else { continue };
                    let entities = &state.tables[table];
                    let as_of_us = |number: u32| self.clocks_us[table].max(entities.newest_us(number));
                    let asked = entities.to_settle(column, settled_us).into_iter().map(|number| Asked {
                        entity: 0,
                        group,
                        number,
                        as_of_us: as_of_us(number),
                    });
                    let asked: Vec<Asked> = asked.collect();
                    let mut tables = tables_of(&mut self.groups, table);
                    let (tables, job) = (&mut tables, &mut self.jobs[table][column]);
                    OrderedFold { tables, job, spec, column, refusals: &mut refusals }.settle(&asked, settled_us)?;
                }
                self.told(table, refusals);
            }
        }
        Ok(())
    }

    /// Sets a source's clock for its tables; it never goes back. That of a paused one stands still.
    pub fn clock(&mut self, source: &str, clock_us: i64) -> Result<(), FoldTableError> {
        for (table, layout) in self.compiled.layout.tables.iter().enumerate() {
            let own = &mut self.clocks_us[table];
            let clock_us = layout.row_set.clock_us(clock_us);
            if self.compiled.layout.spaces[layout.space].source == source && *own < clock_us {
                *own = clock_us;
                let groups: Vec<u32> = self.groups.iter().flatten().map(|group| group.group).collect();
                self.online.set_clock(&layout.id, &groups, clock_us)?;
            }
        }
        Ok(())
    }

    /// Folds some of the entities whose values change by time alone. Returns whether more are due.
    pub fn due(&mut self) -> Result<bool, FoldTableError> {
        let mut more = false;
        for table in 0..self.clocks_us.len() {
            if self.compiled.layout.tables[table].row_set.paused.is_some() {
                continue;
            }
            let clock_us = self.clocks_us[table];
            for group in 0..self.groups.len() {
                let Some(state) = &mut self.groups[group] else { continue };
                let entities = &mut state.tables[table];
                let due = entities.take_due(clock_us, DUE_AT_ONCE);
                if !due.is_empty() {
                    let retention_us = self.compiled.layout.tables[table].retention_us;
                    let (gone, due): (Vec<u32>, Vec<u32>) = due.into_iter().partition(|number| {
                        retention_us
                            .is_some_and(|kept_us| entities.newest_us(*number).saturating_add(kept_us) < clock_us)
                    });
                    self.drop_entities(table, group, &gone)?;
                    self.fold_entities(table, group, &due, false)?;
                }
                let Some(state) = &self.groups[group] else { continue };
                more |= state.tables[table].is_due(clock_us);
            }
        }
        Ok(more)
    }

    /// Writes every entity's values online, after a restart.
    pub fn refresh(&mut self) -> Result<(), FoldTableError> {
        self.refresh_later(&vec![true; self.clocks_us.len()]);
        while self.refresh_some()? {}
        Ok(())
    }

    /// Has every entity's values in some of the tables written online, when `refresh_some` is called. All of them, not
    /// those of new features alone: the instant until which a row holds is that of all its values.
    pub fn refresh_later(&mut self, tables: &[bool]) {
        for (table, _) in tables.iter().enumerate().filter(|(_, is_fresh)| **is_fresh) {
            for (group, state) in self.groups.iter().enumerate() {
                let Some(state) = state else { continue };
                self.refreshing.push((table, group, state.tables[table].numbers().collect()));
            }
        }
    }

    /// Writes some of what is to be refreshed. Returns whether there is more.
    pub fn refresh_some(&mut self) -> Result<bool, FoldTableError> {
        let Some((table, group, mut entities)) = self.refreshing.pop() else { return Ok(false) };
        let mut some = entities.split_off(entities.len().saturating_sub(DUE_AT_ONCE));
        // An entity may have been dropped since; its number may be another's, which does no harm.
        some.retain(|number| self.groups[group].as_ref().is_some_and(|state| state.tables[table].is_known(*number)));
        self.fold_entities(table, group, &some, true)?;
        if !entities.is_empty() {
            self.refreshing.push((table, group, entities));
        }
        Ok(!self.refreshing.is_empty())
    }

    fn fold_entities(
        &mut self,
        table: usize,
        group: usize,
        numbers: &[u32],
        all_values: bool,
    ) -> Result<(), FoldTableError> {
        let Some(state) = &self.groups[group] else { return Ok(()) };
        if numbers.is_empty() || self.features[table].is_empty() {
            return Ok(());
        }
        let steps = self.steps.clone();
        let mut lap = steps.start();
        let (settled_us, places) = (self.settled_us(table), Places::new(&[]));
        self.touched.of_due(group as u32, &state.tables[table], numbers, self.clocks_us[table], all_values);
        let mut tables = tables_of(&mut self.groups, table);
        lap.end(Step::Group);
        let fold = TableFold {
            layout: &self.compiled.layout.tables[table],
            jobs: &mut self.jobs[table],
            features: &self.features[table],
            online: self.online.as_ref(),
            ordered: Ordered { places: &places, settled_us: &settled_us, gathers: self.gathers },
            new_rows: None,
        };
        let refused = fold_touched(fold, &mut tables, &mut self.touched, &self.empty[table], &mut lap)?;
        self.told(table, refused.ordered);
        Ok(())
    }

    fn drop_entities(&mut self, table: usize, group: usize, numbers: &[u32]) -> Result<(), FoldTableError> {
        let Some(state) = &mut self.groups[group] else { return Ok(()) };
        let entities = &mut state.tables[table];
        for number in numbers {
            let key = entities.key(*number).to_vec();
            let gone = OnlineEntity {
                group: group as u32,
                number: *number,
                hash: hash(&key),
                key: &key,
                newest_us: entities.newest_us(*number),
                valid_until_us: i64::MAX,
            };
            self.online.remove(&self.compiled.layout.tables[table].id, &[gone])?;
            entities.drop_entity(*number);
        }
        Ok(())
    }

    /// Freezes what changed in this thread's groups since the last time; of some groups everything.
    pub fn freeze(&mut self, full: &dyn Fn(u32) -> bool) {
        self.groups.iter_mut().flatten().for_each(|state| state.freeze(full(state.group)));
    }

    /// Encodes up to `limit` frozen entities. Returns whether all are encoded.
    pub fn encode_some(&mut self, limit: usize) -> bool {
        let mut lap = self.steps.start();
        let tables = self.groups.iter_mut().flatten().flat_map(|state| &mut state.tables);
        let left = tables.fold(limit, |left, table| if left > 0 { table.encode_some(left) } else { 0 });
        lap.end(Step::Checkpoint);
        left > 0
    }

    /// Takes what was frozen, once all of it is encoded.
    pub fn take_frozen(&mut self) -> Result<Vec<GroupPart>, DamagedCell> {
        let mut lap = self.steps.start();
        let layout = &self.compiled.layout;
        let parts = self.groups.iter_mut().flatten().map(|state| state.take_frozen(layout)).collect();
        lap.end(Step::Checkpoint);
        parts
    }

    /// Entities and bytes of state, by table.
    pub fn sizes(&self) -> Vec<(usize, usize)> {
        let mut sizes = vec![(0, 0); self.clocks_us.len()];
        for state in self.groups.iter().flatten() {
            for (size, table) in sizes.iter_mut().zip(&state.tables) {
                size.0 += table.len();
                size.1 += table.state_bytes();
            }
        }
        sizes
    }
}

fn tables_of(groups: &mut [Option<GroupState>], table: usize) -> GroupTables<'_> {
    groups.iter_mut().map(|group| group.as_mut().map(|group| &mut group.tables[table])).collect()
}

/// The records that manifests carry of a layout's tables.
pub fn table_records(compiled: &Compiled) -> Vec<TableRecord> {
    let record = |(table, begun): (&TableLayout, &BTreeMap<Digest, u64>)| TableRecord {
        id: table.id,
        row_set: table.row_set.clone(),
        fingerprints: table.features.iter().map(|feature| feature.fingerprint).collect(),
        begun: begun.clone(),
    };
    compiled.layout.tables.iter().zip(&compiled.begun).map(record).collect()
}

/// Splits groups among threads.
pub fn split_groups(groups: Vec<GroupState>, workers: usize) -> Vec<Vec<GroupState>> {
    let mut split: Vec<Vec<GroupState>> = (0..workers).map(|_| Vec::new()).collect();
    for group in groups {
        split[Router::worker_of(group.group, workers)].push(group);
    }
    split
}

/// The clocks of all groups' manifests together: each source's furthest.
pub fn clocks_of(checkpoints: &Checkpoints) -> BTreeMap<String, SourceClock> {
    let mut clocks: BTreeMap<String, SourceClock> = BTreeMap::new();
    for group in checkpoints.groups().all() {
        for (source, clock) in checkpoints.manifest(group).into_iter().flat_map(|manifest| &manifest.clocks) {
            let standing = clocks.entry(source.clone()).or_insert(*clock);
            let settled_us = standing.settled_us.max(clock.settled_us);
            if standing.clock_us < clock.clock_us {
                *standing = *clock;
            }
            standing.settled_us = settled_us;
        }
    }
    clocks
}
