//! What a revision needs and nobody folds yet: built beside the running stream, from the same rows.
//!
//! History comes by batch, from the pinned files and the log as it ends when the build begins; what comes after that
//! is folded from the log until the stream stands at the same positions. Nothing is stored before the cut over, so a
//! build that is given up or crashes leaves nothing behind.

use super::batch::log_rows;
use super::history::Pins;
use super::materialize::LogRefusals;
use super::recover::{ReadProgress, Stretch, new_things};
use super::target::Target;
use super::told::Told;
use super::{BatchRequest, PlatformError, ProjectHost};
use crate::batch::{BatchError, BatchHost, MaterializeAsk, RefusalSink, Rows, StateSink};
use crate::define::Project;
use crate::online::Nowhere;
use crate::route::hash;
use crate::rows::{TableFeature, TableLayout};
use crate::source::PushLog;
use crate::state::{EntityTable, SourceClock};
use crate::stream::{Bounds, Compiled, GroupState, Letter, RouteError, Router, Steps, Worker};
use onefold_fold::Window;
use std::collections::BTreeMap;
use std::sync::Arc;

/// State that is being built, at known positions.
pub(super) struct Built {
    target: Target,
    worker: Worker,
    steps: Arc<Steps>,
    /// For each source that something is built of.
    pub positions: BTreeMap<String, u64>,
    pub clocks: BTreeMap<String, SourceClock>,
    pub letters: Vec<Letter>,
    /// How many entities had history, each counted once a table.
    pub entities: u64,
}

impl ProjectHost {
    /// Builds what is missing, up to where the stream stands; sources that it does not read, up to where they end.
    pub(super) fn build(
        &self,
        target: Target,
        stands: &BTreeMap<String, u64>,
        batch: &BatchRequest,
        progress: &Told,
        told: &Arc<dyn RefusalSink>,
    ) -> Result<Built, PlatformError> {
        let logs = self.open_logs(&target.project)?;
        let prepare = self.preparer();
        let layout = &target.compiled.layout;
        let mut groups: Vec<GroupState> =
            target.compiled.groups.all().map(|group| GroupState::new(group, &target.compiled)).collect();
        let (mut positions, mut clocks, mut letters, mut entities) = (BTreeMap::new(), BTreeMap::new(), Vec::new(), 0);
        for source in target.sources() {
            let resumed = target.resumed_of(&source);
            if !resumed.is_empty() {
                let (position, known) = self.go_on(&target, &source, &resumed, &mut groups)?;
                entities += known;
                positions.insert(source, position);
                continue;
            }
            let end = logs.get(&source).map(|log| stands.get(&source).copied().unwrap_or_else(|| log.end_position()));
            for row_set in target.row_sets(&source) {
                let of_rows = |number: usize| {
                    let table = &layout.tables[number];
                    layout.spaces[table.space].source == source && table.row_set == row_set
                };
                let only = |(number, missing): (usize, &Vec<usize>)| match of_rows(number) {
                    true => missing.clone(),
                    false => Vec::new(),
                };
                let features: Vec<Vec<usize>> = target.missing.iter().enumerate().map(only).collect();
                let mut rows = Rows::default();
                rows.pinned.insert(source.clone(), Vec::new());
                if let Some(files) = &row_set.files {
                    let of_target = target.pins.get(&source).filter(|pins| pins.digest() == *files).cloned();
                    let load = || Pins::load(self.storage().as_ref(), self.name(), files);
                    let pins = of_target.map_or_else(load, Ok)?;
                    (rows.from_us, rows.to_us) = (pins.from_us, pins.to_us);
                    rows.pinned.insert(source.clone(), pins.files);
                }
                if let Some((log, end)) = logs.get(&source).zip(end) {
                    let log = log_rows(log.clone(), &row_set, end);
                    if row_set.files.is_none() && log.from >= log.end {
                        continue;
                    }
                    rows.logs.insert(source.clone(), log);
                }
                let refusals = Arc::new(LogRefusals::new(told.clone()));
                let host = BatchHost {
                    project: &target.project,
                    prepare: &prepare,
                    settings: batch.settings.clone(),
                    refusals: refusals.clone(),
                    progress: progress.part(),
                };
                let mut sink = IntoGroups { compiled: &target.compiled, features: &features, groups: &mut groups };
                let done = host.materialize(&MaterializeAsk { layout, features: &features }, &rows, &mut sink)?;
                self.storage().crash_point("while building")?;
                entities += done.entities;
                if let Some(newest_us) = done.clock_us.get(&source).copied().flatten() {
                    let settled_us = done.settled_us.get(&source).copied().flatten().unwrap_or(i64::MIN);
                    let read_at_us = self.clock().now_us();
                    clocks
                        .insert(source.clone(), SourceClock { clock_us: newest_us, newest_us, read_at_us, settled_us });
                    // From here on rows may come too late: what came before was sorted together.
                    for group in &mut groups {
                        group.settled_us.insert(source.clone(), settled_us);
                    }
                }
                let wanted = new_things(&target.compiled, &source, &features);
                let said = self.letters_of(&refusals.positions(), &target.compiled, &target.project, &logs)?;
                letters.extend(said.into_iter().filter(|letter| wanted.contains(&letter.refused_by)));
            }
            positions.insert(source, end.unwrap_or(0));
        }
        let steps = Arc::new(Steps::untimed());
        let mut worker = Worker::new(target.compiled.clone(), Arc::new(Nowhere), 0, groups, steps.clone());
        worker.gather(true);
        Ok(Built { target, worker, steps, positions, clocks, letters, entities })
    }

    /// Copies what paused tables hold to those that go on from them. Gives where they stand, and how many entities
    /// they know.
    fn go_on(
        &self,
        target: &Target,
        source: &str,
        resumed: &[(usize, usize)],
        groups: &mut [GroupState],
    ) -> Result<(u64, u64), PlatformError> {
        let gone = || PlatformError::Unavailable("what was paused is not there any more: try again".into());
        self.while_stopped(|live, stopped| {
            let (mut position, mut entities) = (0, 0);
            for (table, paused) in resumed {
                let features = &target.compiled.layout.tables[*table].features;
                let held = live.compiled.layout.tables.get(*paused).ok_or_else(gone)?;
                let stands = held.row_set.paused.ok_or_else(gone)?;
                position = stands.position;
                let columns: Vec<_> = features
                    .iter()
                    .map(|feature| {
                        let was = held.features.iter().position(|held| held.fingerprint == feature.fingerprint);
                        (feature.window, feature.allowed_lateness_us.is_some(), was)
                    })
                    .collect();
                for state in &stopped.groups {
                    let group = &mut groups[state.group as usize];
                    group.tables[*table] = state.tables[*paused].copy(&columns);
                    group.settled_us.insert(source.to_owned(), stands.settled_us);
                    entities += group.tables[*table].len() as u64;
                }
            }
            Ok((position, entities))
        })
    }
}

impl Built {
    /// What it is built for.
    pub fn project(&self) -> &Project {
        &self.target.project
    }

    /// Folds the logs on to these positions; sources without one are folded to where their log ends. Whoever is told of
    /// the progress may end it by an error: the build is good for nothing then.
    pub fn catch_up(
        &mut self,
        until: &BTreeMap<String, u64>,
        logs: &BTreeMap<String, Arc<PushLog>>,
        progress: &ReadProgress<'_>,
    ) -> Result<(), PlatformError> {
        let layout = &self.target.compiled.layout;
        for (name, position) in &mut self.positions {
            let (Some(source), Some(log)) = (self.target.project.sources.get(name), logs.get(name)) else { continue };
            let until = until.get(name).copied().unwrap_or_else(|| log.end_position());
            if *position >= until {
                continue;
            }
            let of_source = layout.tables.iter().zip(&self.target.missing).map(|(table, missing)| {
                if layout.spaces[table.space].source == *name { missing.clone() } else { Vec::new() }
            });
            let of_source: Vec<Vec<usize>> = of_source.collect();
            let wanted = new_things(&self.target.compiled, name, &of_source);
            self.worker.fold_only(of_source);
            let mut router =
                Router::new(self.target.compiled.clone(), source, 1, self.steps.clone()).map_err(RouteError::from)?;
            router.bounds.fill(Bounds { from: *position, until });
            let stretch = Stretch { log, from: *position, until };
            self.letters.extend(stretch.fold(&mut self.worker, &mut router, &wanted, progress)?);
            *position = until;
        }
        Ok(())
    }

    /// Puts what was built beside what a stream has folded, both at the same positions.
    pub fn join(self, running: &Compiled, stopped: Halted) -> Result<Joined, PlatformError> {
        let Target { project, mut compiled, missing, grown, copied, .. } = self.target;
        let built_groups = self.worker.into_groups();
        // Nobody else has it any more; where a table stands still is known only now.
        let in_use = || PlatformError::Engine("the new layout is in use before it is whole".into());
        let layout = &mut Arc::get_mut(&mut compiled).ok_or_else(in_use)?.layout;
        for (table, _) in layout.tables.iter_mut().zip(&copied).filter(|(_, copied)| copied.is_some()) {
            let source = &layout.spaces[table.space].source;
            if let Some(paused) = &mut table.row_set.paused {
                let clock = stopped.clocks.get(source);
                paused.position = stopped.positions.get(source).copied().unwrap_or(0);
                paused.clock_us = clock.map_or(i64::MIN, |clock| clock.clock_us);
                paused.settled_us = clock.map_or(i64::MIN, |clock| clock.settled_us);
            }
        }
        let mut stopped: BTreeMap<u32, GroupState> =
            stopped.groups.into_iter().map(|state| (state.group, state)).collect();
        let columns = |number: usize, before: usize| -> Vec<(Window, bool, Option<usize>)> {
            let before = &running.layout.tables[before].features;
            let column = |feature: &TableFeature| {
                let was = before.iter().position(|before| before.fingerprint == feature.fingerprint);
                (feature.window, feature.allowed_lateness_us.is_some(), was)
            };
            compiled.layout.tables[number].features.iter().map(column).collect()
        };
        let mut groups = Vec::new();
        for mut built in built_groups {
            let mut standing: Vec<Option<EntityTable>> = Vec::new();
            if let Some(state) = stopped.remove(&built.group) {
                standing.extend(state.tables.into_iter().map(Some));
                built.late.extend(state.late);
                for (source, settled_us) in state.settled_us {
                    let own = built.settled_us.entry(source).or_insert(settled_us);
                    *own = (*own).max(settled_us);
                }
            }
            // Before what they are copies of goes on as something else.
            let mut copies: Vec<Option<EntityTable>> = copied
                .iter()
                .enumerate()
                .map(|(number, before)| {
                    let before = (*before)?;
                    Some(standing.get(before)?.as_ref()?.copy(&columns(number, before)))
                })
                .collect();
            let mut tables = Vec::new();
            for (number, (layout, fresh)) in compiled.layout.tables.iter().zip(built.tables).enumerate() {
                let mut table = match copies[number].take() {
                    Some(copy) => copy,
                    None => {
                        let before = running.layout.tables.iter().position(|before| before.id == layout.id);
                        let taken = before.and_then(|before| Some((before, standing.get_mut(before)?.take()?)));
                        let Some((before, table)) = taken else {
                            tables.push(fresh);
                            continue;
                        };
                        let columns = columns(number, before);
                        let is_same = columns.len() == running.layout.tables[before].features.len()
                            && columns.iter().enumerate().all(|(column, (.., was))| *was == Some(column));
                        if is_same { table } else { table.reshape(&columns) }
                    }
                };
                if !missing[number].is_empty() {
                    table.absorb(&missing[number], &fresh, grown[number]);
                }
                tables.push(table);
            }
            built.tables = tables;
            groups.push(built);
        }
        let is_fresh = |(missing, copied): (&Vec<usize>, &Option<usize>)| !missing.is_empty() || copied.is_some();
        let fresh = missing.iter().zip(&copied).map(is_fresh).collect();
        // What readers see of it until the change is live is what they see of it from then on.
        let stands_still =
            |(table, copied): (&TableLayout, &Option<usize>)| copied.is_some() && table.row_set.paused.is_some();
        let waits = compiled.layout.tables.iter().zip(&copied).any(stands_still);
        Ok(Joined { project, compiled, groups, fresh, waits, letters: self.letters })
    }
}

/// What a stream has folded, and where it stands.
pub(super) struct Halted {
    pub groups: Vec<GroupState>,
    pub positions: BTreeMap<String, u64>,
    pub clocks: BTreeMap<String, SourceClock>,
}

/// The state of what is to be live.
pub(super) struct Joined {
    pub project: Arc<Project>,
    pub compiled: Arc<Compiled>,
    pub groups: Vec<GroupState>,
    /// For each table, whether it has features whose values are not online yet.
    pub fresh: Vec<bool>,
    /// Whether no row may be folded before it is live.
    pub waits: bool,
    pub letters: Vec<Letter>,
}

/// Takes states as batch gives them.
pub(super) struct IntoGroups<'a> {
    pub compiled: &'a Compiled,
    /// For each table, the features that come.
    pub features: &'a [Vec<usize>],
    pub groups: &'a mut [GroupState],
}

impl StateSink for IntoGroups<'_> {
    fn entity(&mut self, table: usize, key: &[u8], newest_us: i64, cells: &[&[u8]]) -> Result<(), BatchError> {
        let hash = hash(key);
        let entities = &mut self.groups[self.compiled.groups.of(hash) as usize].tables[table];
        let (number, _) = entities.find_or_insert(key, hash);
        entities.mark_dirty(number);
        entities.touch(number, newest_us);
        let cells = self.features[table].iter().copied().zip(cells.iter().copied());
        entities.restore(number, cells).map_err(|error| BatchError::Fold(error.to_string()))
    }
}
