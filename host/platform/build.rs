//! What a revision needs and nobody folds yet: built beside the running stream, from the same rows.
//!
//! History comes by batch, from the pinned files and the log as it ends when the build begins; what comes after that
//! is folded from the log until the stream stands at the same positions. Nothing is stored before the cut over, so a
//! build that is given up or crashes leaves nothing behind.

use super::history::Pins;
use super::materialize::LogRefusals;
use super::recover::{Stretch, keep_earlier, new_things, standing_row_set};
use super::{BatchRequest, Live, PlatformError, ProjectHost};
use crate::batch::{BatchError, BatchHost, LogRows, MaterializeAsk, RefusalSink, Rows, StateSink};
use crate::define::{Digest, Feature, Project, Source};
use crate::online::Nowhere;
use crate::route::hash;
use crate::rows::{Layout, RowSet};
use crate::source::PushLog;
use crate::state::{EntityTable, SourceClock, TableRecord};
use crate::stream::{Bounds, Compiled, GroupState, Letter, RouteError, Router, Steps, Worker, table_records};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What is to be live, over what is.
pub(super) struct Target {
    pub project: Arc<Project>,
    pub compiled: Arc<Compiled>,
    /// For each table, the features that have no state yet.
    pub missing: Vec<Vec<usize>>,
    /// Tables whose entities are kept for longer than before: those that were dropped come back.
    grown: Vec<bool>,
    /// By source, the files that what is missing is made of.
    pins: BTreeMap<String, Pins>,
}

/// What a target starts from.
pub(super) enum From {
    /// State that is live; what has none is made of the files that its source's state is made of.
    Standing,
    /// These files, by source: all state of these sources is made anew.
    Files(BTreeMap<String, Pins>),
    /// Nothing: the features of these views are made anew, of the same rows.
    Scratch(BTreeSet<String>),
}

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
    /// What has to be built to make this project live.
    pub(super) fn target(&self, project: &Project, live: &Live, from: From) -> Result<Target, PlatformError> {
        let running = &live.compiled;
        let records = table_records(running);
        let mut pins = match &from {
            From::Files(pins) => pins.clone(),
            From::Standing | From::Scratch(_) => BTreeMap::new(),
        };
        for source in project.sources.values() {
            if let Some(digest) = pinned(&records, source).filter(|_| !pins.contains_key(&source.name)) {
                pins.insert(source.name.clone(), Pins::load(self.storage().as_ref(), self.name(), &digest)?);
            }
        }
        let row_set = |source: &Source, feature: &Feature| {
            let of_pins = || RowSet { source: source.lineage.clone(), files: pins.get(&source.name).map(Pins::digest) };
            match &from {
                From::Files(anew) if anew.contains_key(&source.name) => of_pins(),
                _ => standing_row_set(&records, source, feature).unwrap_or_else(of_pins),
            }
        };
        let layout = Layout::of(project, row_set).map_err(|error| PlatformError::Invalid(error.to_string()))?;
        let mut wider = layout.clone();
        keep_earlier(&mut wider, project, &self.earlier(&live.revision)?, &records);
        let prepare = self.preparer();
        let mut compiled = Compiled::new(wider, self.groups(), &prepare)
            .or_else(|_| Compiled::new(layout, self.groups(), &prepare))?;
        let (mut missing, mut grown): (Vec<Vec<usize>>, Vec<bool>) = (Vec::new(), Vec::new());
        for (number, table) in compiled.layout.tables.iter().enumerate() {
            let standing = running.layout.tables.iter().find(|standing| standing.id == table.id);
            let longer = |one: Option<i64>, other: Option<i64>| match (one, other) {
                (Some(one), Some(other)) => one > other,
                (None, other) => other.is_some(),
                (Some(_), None) => false,
            };
            let is_longer = standing.is_some_and(|standing| longer(table.retention_us, standing.retention_us));
            let anew: BTreeSet<usize> = match &from {
                From::Scratch(views) => {
                    let of_view = |view: &String| compiled.layout.views.get(view).map(|view| &view.columns);
                    let columns = views.iter().filter_map(of_view).flatten();
                    columns.filter(|column| column.table == number).map(|column| column.table_feature).collect()
                }
                From::Standing | From::Files(_) => BTreeSet::new(),
            };
            let has_state = |feature: usize| {
                let fingerprint = table.features[feature].fingerprint;
                !is_longer
                    && !anew.contains(&feature)
                    && standing.is_some_and(|standing| {
                        standing.features.iter().any(|feature| feature.fingerprint == fingerprint)
                    })
            };
            missing.push((0..table.features.len()).filter(|feature| !has_state(*feature)).collect());
            grown.push(is_longer);
        }
        // Later than what is begun anew, also before that was stored.
        let newest = running.begun.iter().flat_map(BTreeMap::values).max().map_or(0, |begun| begun + 1);
        let epoch = self.status().stream.checkpoint_epoch.max(newest);
        compiled.begin(records.iter(), epoch, |table, feature| missing[table].contains(&feature));
        Ok(Target { project: Arc::new(project.clone()), compiled: Arc::new(compiled), missing, grown, pins })
    }

    /// Builds what is missing, up to where the stream stands; sources that it does not read, up to where they end.
    pub(super) fn build(
        &self,
        target: Target,
        stands: &BTreeMap<String, u64>,
        batch: &BatchRequest,
        told: &Arc<dyn RefusalSink>,
    ) -> Result<Built, PlatformError> {
        let logs = self.open_logs(&target.project)?;
        let prepare = self.preparer();
        let layout = &target.compiled.layout;
        let mut groups: Vec<GroupState> =
            target.compiled.groups.all().map(|group| GroupState::new(group, &target.compiled)).collect();
        let (mut positions, mut clocks, mut letters, mut entities) = (BTreeMap::new(), BTreeMap::new(), Vec::new(), 0);
        for source in target.sources() {
            let end = logs.get(&source).map(|log| stands.get(&source).copied().unwrap_or_else(|| log.end_position()));
            for files in target.row_sets(&source) {
                let of_rows = |number: usize| {
                    let table = &layout.tables[number];
                    layout.spaces[table.space].source == source && table.row_set.files == files
                };
                let only = |(number, missing): (usize, &Vec<usize>)| match of_rows(number) {
                    true => missing.clone(),
                    false => Vec::new(),
                };
                let features: Vec<Vec<usize>> = target.missing.iter().enumerate().map(only).collect();
                let mut rows = Rows::default();
                rows.pinned.insert(source.clone(), Vec::new());
                if let Some(pins) =
                    files.and_then(|files| target.pins.get(&source).filter(|pins| pins.digest() == files))
                {
                    (rows.from_us, rows.to_us) = (pins.from_us, pins.to_us);
                    rows.pinned.insert(source.clone(), pins.files.clone());
                }
                if let Some((log, end)) = logs.get(&source).zip(end) {
                    rows.logs.insert(source.clone(), LogRows { log: log.clone(), end });
                }
                let refusals = Arc::new(LogRefusals::new(told.clone()));
                let host = BatchHost {
                    project: &target.project,
                    prepare: &prepare,
                    settings: batch.settings.clone(),
                    refusals: refusals.clone(),
                    progress: batch.progress.clone(),
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

    /// What was live within the time that a rollback is to be quick for, and what is: newest first.
    pub(super) fn earlier(&self, newest: &crate::registry::Revision) -> Result<Vec<Project>, PlatformError> {
        let oldest_us = self.clock().now_us().saturating_sub(self.keep_revisions_us());
        let mut earlier = vec![newest.project.clone()];
        let mut retired_at_us = newest.created_at_us;
        for number in (1..newest.number).rev() {
            if retired_at_us < oldest_us {
                break;
            }
            let revision = self.registry().revision(number)?;
            retired_at_us = revision.created_at_us;
            earlier.push(revision.project);
        }
        Ok(earlier)
    }
}

impl Target {
    /// Whether something is to be built.
    pub fn lacks_something(&self) -> bool {
        self.missing.iter().any(|missing| !missing.is_empty())
    }

    /// How many files something missing is made of.
    pub fn files(&self) -> usize {
        let of = |source: &String| {
            let made_of = self.row_sets(source);
            let pins = self.pins.get(source).filter(|pins| made_of.contains(&Some(pins.digest())));
            pins.map_or(0, |pins| pins.files.len())
        };
        self.sources().iter().map(of).sum()
    }

    /// Sources that something is to be built of.
    fn sources(&self) -> BTreeSet<String> {
        let layout = &self.compiled.layout;
        let missing = layout.tables.iter().zip(&self.missing).filter(|(_, missing)| !missing.is_empty());
        missing.map(|(table, _)| layout.spaces[table.space].source.clone()).collect()
    }

    /// The files that something missing of this source is made of, and whether something is made of none.
    fn row_sets(&self, source: &str) -> BTreeSet<Option<Digest>> {
        let layout = &self.compiled.layout;
        let missing = layout.tables.iter().zip(&self.missing).filter(|(_, missing)| !missing.is_empty());
        let of_source = missing.filter(|(table, _)| layout.spaces[table.space].source == source);
        of_source.map(|(table, _)| table.row_set.files).collect()
    }
}

impl Built {
    /// What it is built for.
    pub fn project(&self) -> &Project {
        &self.target.project
    }

    /// Folds the logs on to these positions; sources without one are folded to where their log ends.
    pub fn catch_up(
        &mut self,
        until: &BTreeMap<String, u64>,
        logs: &BTreeMap<String, Arc<PushLog>>,
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
            self.letters.extend(stretch.fold(&mut self.worker, &mut router, &wanted, &|_, _| {})?);
            *position = until;
        }
        Ok(())
    }

    /// Puts what was built beside what a stream has folded, both at the same positions.
    pub fn join(self, running: &Compiled, stopped: Vec<GroupState>) -> Joined {
        let Target { project, compiled, missing, grown, .. } = self.target;
        let mut stopped: BTreeMap<u32, GroupState> = stopped.into_iter().map(|state| (state.group, state)).collect();
        let mut groups = Vec::new();
        for mut built in self.worker.into_groups() {
            let mut standing: Vec<Option<EntityTable>> = Vec::new();
            if let Some(state) = stopped.remove(&built.group) {
                standing.extend(state.tables.into_iter().map(Some));
                built.late.extend(state.late);
                for (source, settled_us) in state.settled_us {
                    let own = built.settled_us.entry(source).or_insert(settled_us);
                    *own = (*own).max(settled_us);
                }
            }
            let mut tables = Vec::new();
            for (number, (layout, fresh)) in compiled.layout.tables.iter().zip(built.tables).enumerate() {
                let before = running.layout.tables.iter().position(|before| before.id == layout.id);
                let taken = before.and_then(|before| Some((before, standing.get_mut(before)?.take()?)));
                let Some((before, table)) = taken else {
                    tables.push(fresh);
                    continue;
                };
                let before = &running.layout.tables[before].features;
                let columns: Vec<_> = layout
                    .features
                    .iter()
                    .map(|feature| {
                        let was = before.iter().position(|before| before.fingerprint == feature.fingerprint);
                        (feature.window, feature.allowed_lateness_us.is_some(), was)
                    })
                    .collect();
                let is_same = columns.len() == before.len()
                    && columns.iter().enumerate().all(|(column, (.., was))| *was == Some(column));
                let mut table = if is_same { table } else { table.reshape(&columns) };
                if !missing[number].is_empty() {
                    table.absorb(&missing[number], &fresh, grown[number]);
                }
                tables.push(table);
            }
            built.tables = tables;
            groups.push(built);
        }
        let fresh = missing.iter().map(|missing| !missing.is_empty()).collect();
        Joined { project, compiled, groups, fresh, letters: self.letters }
    }
}

/// The state of what is to be live.
pub(super) struct Joined {
    pub project: Arc<Project>,
    pub compiled: Arc<Compiled>,
    pub groups: Vec<GroupState>,
    /// For each table, whether it has features whose values are not online yet.
    pub fresh: Vec<bool>,
    pub letters: Vec<Letter>,
}

/// The files that the state of a source is made of.
fn pinned(records: &[TableRecord], source: &Source) -> Option<Digest> {
    let mut of_source = records.iter().filter(|record| record.row_set.source == source.lineage);
    of_source.find_map(|record| record.row_set.files)
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
