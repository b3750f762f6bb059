//! From a checkpoint and definitions to state in memory: load what is there, fold what is new from the log.

use super::PlatformError;
use crate::batch::Prepare;
use crate::clock::Clock;
use crate::define::{Digest, Feature, FeatureView, Project, Source};
use crate::online::EmbeddedStore;
use crate::route::Groups;
use crate::rows::{Layout, RowSet, TableLayout, retention_us};
use crate::source::PushLog;
use crate::state::{Checkpoints, TableRecord};
use crate::storage::Storage;
use crate::stream::{
    Bounds, Compiled, GroupState, Letter, Places, RefusedBy, RouteError, Router, Steps, StreamError, StreamParts,
    StreamStatus, Worker, clocks_of, publish_late,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// How much of a log is decoded at once while state is built.
const READ_BYTES: usize = 4 << 20;

/// Told how many records of how many have been read; an error ends the reading.
pub type ReadProgress<'a> = dyn Fn(u64, u64) -> Result<(), PlatformError> + 'a;

/// What is needed to bring a project's state up.
pub struct Recovery<'a> {
    pub project: Arc<Project>,
    /// What revisions before it had, whose state is folded on.
    pub earlier: Vec<Arc<Project>>,
    pub storage: Arc<dyn Storage>,
    pub clock: Arc<dyn Clock>,
    pub logs: BTreeMap<String, Arc<PushLog>>,
    /// How many groups the state has, or will have.
    pub groups: Groups,
    pub prepare: &'a Prepare<'a>,
    /// Distinguishes this process's files from those of all others.
    pub writer: String,
    /// Told how far it is while features are built.
    pub progress: &'a ReadProgress<'a>,
}

/// What the stored state of a project is, as far as every group that has a checkpoint holds it: what new definitions
/// go on from. In the order of the newest checkpoint, in which what it replaces comes last.
pub fn stored_tables(checkpoints: &Checkpoints) -> Vec<TableRecord> {
    let mut manifests = checkpoints.manifests();
    let mut records = manifests.next().map(|manifest| manifest.tables.clone()).unwrap_or_default();
    for manifest in manifests {
        for record in &mut records {
            let others = manifest.tables.iter().filter(|other| other.id == record.id);
            let held: BTreeSet<Digest> = others.flat_map(|other| other.fingerprints.iter().copied()).collect();
            record.fingerprints.retain(|fingerprint| held.contains(fingerprint));
        }
    }
    records.retain(|record| !record.fingerprints.is_empty());
    records
}

/// The layout of a project over stored state: a feature that has state keeps the rows it is made of, a new one is
/// made of what is in the log. So is one whose table has become another: its state is not found there, and must not
/// be said to hold rows that nobody will read again.
pub fn layout_over(project: &Project, records: &[TableRecord]) -> Result<Layout, PlatformError> {
    let mut moved = BTreeSet::new();
    loop {
        let row_set = |source: &Source, view: &FeatureView, feature: &Feature| {
            let of_log = || RowSet::of_log(&source.lineage);
            match moved.contains(&feature.fingerprint) {
                true => of_log(),
                false => standing_row_set(records, source, feature, view.paused).unwrap_or_else(of_log),
            }
        };
        let layout = Layout::of(project, row_set).map_err(|error| PlatformError::Invalid(error.to_string()))?;
        let known = moved.len();
        for table in layout.tables.iter().filter(|table| table.row_set.files.is_some()) {
            let of_table = |record: &&TableRecord| record.id == table.id;
            let is_stored =
                |feature: &Digest| records.iter().filter(of_table).any(|record| record.fingerprints.contains(feature));
            let fingerprints = table.features.iter().map(|feature| feature.fingerprint);
            moved.extend(fingerprints.filter(|fingerprint| !is_stored(fingerprint)));
        }
        if moved.len() == known {
            return Ok(layout);
        }
    }
}

/// What the state of a feature is made of, if there is any: that which a revision has paused, or that which goes on.
pub fn standing_row_set(
    records: &[TableRecord],
    source: &Source,
    feature: &Feature,
    paused: Option<u64>,
) -> Option<RowSet> {
    let is_it = |record: &&TableRecord| {
        record.row_set.source == source.lineage && record.row_set.paused.map(|paused| paused.revision) == paused
    };
    let mut of_source = records.iter().filter(is_it);
    let holding = of_source.find(|record| record.fingerprints.contains(&feature.fingerprint));
    holding.map(|record| record.row_set.clone())
}

/// Adds what earlier revisions read and this one does not, as far as there is state of it and the sources still have
/// all that it is made of.
pub fn keep_earlier(layout: &mut Layout, project: &Project, earlier: &[Arc<Project>], records: &[TableRecord]) {
    let stands_still = paused_features(earlier.first().map(Arc::as_ref));
    for (age, before) in earlier.iter().enumerate() {
        for view in before.feature_views.values() {
            let Some(old) = before.sources.get(&view.source) else { continue };
            let goes_on = |source: &&Source| {
                source.lineage == old.lineage
                    && (source.push, &source.event_time, source.max_future_us)
                        == (old.push, &old.event_time, old.max_future_us)
                    && source.transforms == old.transforms
                    && old.columns.iter().all(|column| source.columns.contains(column))
            };
            let Some(source) = project.sources.values().find(goes_on) else { continue };
            // What is paused is let go elsewhere, as soon as the revision that did it is live, and the other way round.
            if age > 0 && view.paused.is_some() {
                continue;
            }
            let mut view = view.clone();
            let kept_us = retention_us(&view);
            // What is laid out already costs nothing more to know: there may be dozens of revisions that hardly differ.
            let is_there = |row_set: &RowSet, feature: &Feature| {
                let of_rows = layout.tables.iter().filter(|table| table.row_set == *row_set);
                let mut holding =
                    of_rows.filter(|table| table.features.iter().any(|one| one.fingerprint == feature.fingerprint));
                holding.any(|table| match (table.retention_us, kept_us) {
                    (None, _) => true,
                    (Some(kept_us), Some(wanted_us)) => kept_us >= wanted_us,
                    (Some(_), None) => false,
                })
            };
            view.features.retain(|feature| {
                let goes_on = age == 0 || !stands_still.contains(&feature.fingerprint);
                let row_set = standing_row_set(records, source, feature, view.paused).filter(|_| goes_on);
                row_set.is_some_and(|row_set| !is_there(&row_set, feature))
            });
            if view.features.is_empty() {
                continue;
            }
            let row_set = |source: &Source, view: &FeatureView, feature: &Feature| {
                let of_log = || RowSet::of_log(&source.lineage);
                standing_row_set(records, source, feature, view.paused).unwrap_or_else(of_log)
            };
            // What cannot be laid out any more is let go: a rollback to it builds it again.
            let mut wider = layout.clone();
            if wider.keep(source, &view, &row_set).is_ok() {
                *layout = wider;
            }
        }
    }
}

/// The features that are read by paused views alone.
fn paused_features(project: Option<&Project>) -> BTreeSet<Digest> {
    let views = || project.into_iter().flat_map(|project| project.feature_views.values());
    let of = |view: &FeatureView| view.features.iter().map(|feature| feature.fingerprint).collect::<Vec<_>>();
    let mut paused: BTreeSet<Digest> = views().filter(|view| view.paused.is_some()).flat_map(of).collect();
    for fingerprint in views().filter(|view| view.paused.is_none()).flat_map(of) {
        paused.remove(&fingerprint);
    }
    paused
}

impl Recovery<'_> {
    /// Loads, builds and writes everything online. The stream can start from what is returned.
    pub fn run(self) -> Result<(StreamParts, Arc<EmbeddedStore>), PlatformError> {
        let checkpoints =
            Checkpoints::open(self.storage.clone(), &self.project.name, self.writer.clone(), self.groups)?
                .with_sources(self.project.lineages());
        publish_late(self.storage.as_ref(), &self.project.name, &checkpoints)?;
        let records = stored_tables(&checkpoints);
        let layout = layout_over(&self.project, &records)?;
        let mut wider = layout.clone();
        keep_earlier(&mut wider, &self.project, &self.earlier, &records);
        let mut compiled = Compiled::new(wider, self.groups, self.prepare)
            .or_else(|_| Compiled::new(layout, self.groups, self.prepare))?;
        let built = built_features(&checkpoints, &compiled);
        compiled.begin(records.iter(), checkpoints.epoch(), |table, feature| !built[table][feature]);
        let compiled = Arc::new(compiled);
        let groups = on_all_cores(self.groups.all().collect(), |groups| {
            let load = |group: u32| {
                let changes = checkpoints.load(group)?;
                let state = GroupState::load(group, changes, &compiled, &|table, feature| built[table][feature]);
                Ok(state.map_err(StreamError::from)?)
            };
            groups.into_iter().map(load).collect::<Result<_, PlatformError>>()
        })?;
        let mut positions: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for name in self.logs.keys() {
            let position = |group| {
                checkpoints.manifest(group).and_then(|manifest| manifest.positions.get(name)).copied().unwrap_or(0)
            };
            positions.insert(name.clone(), self.groups.all().map(position).collect());
        }
        self.check_logs(&positions)?;
        let clocks = clocks_of(&checkpoints);
        let online = Arc::new(EmbeddedStore::new(self.groups));
        online.prepare(&compiled.layout);
        let steps = Arc::new(Steps::untimed());
        let mut worker = Worker::new(compiled.clone(), online.clone(), 0, groups, steps.clone());
        worker.gather(true);
        let mut letters = self.build(&compiled, &built, &positions, &mut worker, &steps)?;
        worker.gather(false);
        for (source, clock) in &clocks {
            worker.clock(source, clock.clock_us).map_err(StreamError::from)?;
        }
        worker.fold_all();
        // What was built is settled as far as what was loaded. Before that none of its rows was too late.
        worker.settle_as(|group| {
            let clocks = checkpoints.manifest(group).into_iter().flat_map(|manifest| &manifest.clocks);
            clocks.map(|(source, clock)| (source.clone(), clock.settled_us)).collect()
        });
        worker.settle(&BTreeMap::new()).map_err(StreamError::from)?;
        letters.append(&mut worker.letters);
        let written = on_all_cores(worker.into_groups(), |groups| {
            let mut worker = Worker::new(compiled.clone(), online.clone(), 0, groups, steps.clone());
            for (source, clock) in &clocks {
                worker.clock(source, clock.clock_us).map_err(StreamError::from)?;
            }
            worker.refresh().map_err(StreamError::from)?;
            let letters = std::mem::take(&mut worker.letters);
            Ok(vec![(worker.into_groups(), letters)])
        })?;
        let mut groups = Vec::new();
        for (of_core, of_letters) in written {
            groups.extend(of_core);
            letters.extend(of_letters);
        }
        let parts = StreamParts {
            project: self.project,
            compiled,
            online: online.clone(),
            logs: self.logs,
            storage: self.storage,
            clock: self.clock,
            checkpoints,
            groups,
            positions,
            clocks,
            letters,
            said: StreamStatus::default(),
            fresh: Vec::new(),
            waits: false,
        };
        Ok((parts, online))
    }

    /// A log that ends before a checkpoint's position has lost records that were acknowledged.
    fn check_logs(&self, positions: &BTreeMap<String, Vec<u64>>) -> Result<(), PlatformError> {
        for (name, log) in &self.logs {
            let wanted = positions.get(name).and_then(|positions| positions.iter().max()).copied().unwrap_or(0);
            let end = log.end_position();
            if end < wanted {
                return Err(PlatformError::Invalid(format!(
                    "the log of source `{name}` ends at position {end}, but a checkpoint holds state up to {wanted}: \
                     records that were acknowledged are gone; restore the log's files from a copy \
                     (`projects/{}/log/{}/`)",
                    self.project.name,
                    self.project.lineages().get(name).unwrap_or(name)
                )));
            }
        }
        Ok(())
    }

    /// Folds the features that have no state yet from the log's beginning up to where each group stands.
    fn build(
        &self,
        compiled: &Arc<Compiled>,
        built: &[Vec<bool>],
        positions: &BTreeMap<String, Vec<u64>>,
        worker: &mut Worker,
        steps: &Arc<Steps>,
    ) -> Result<Vec<Letter>, PlatformError> {
        let missing: Vec<Vec<usize>> =
            built.iter().map(|built| (0..built.len()).filter(|feature| !built[*feature]).collect()).collect();
        let mut letters = Vec::new();
        for (name, log) in &self.logs {
            let Some(source) = self.project.sources.get(name) else { continue };
            let of_source: Vec<Vec<usize>> = missing
                .iter()
                .zip(&compiled.layout.tables)
                .map(|(missing, table)| match compiled.layout.spaces[table.space].source == *name {
                    true => missing.clone(),
                    false => Vec::new(),
                })
                .collect();
            let until = positions.get(name).cloned().unwrap_or_default();
            let end = until.iter().copied().max().unwrap_or(0);
            if end == 0 || of_source.iter().all(Vec::is_empty) {
                continue;
            }
            // What was begun without history begins there again.
            let begins = |table: &TableLayout| table.row_set.stretch(log.first_position(), end).0;
            let tables = || compiled.layout.tables.iter().zip(&of_source).filter(|(_, missing)| !missing.is_empty());
            let begin: BTreeSet<u64> = tables().map(|(table, _)| begins(table)).filter(|from| *from < end).collect();
            for from in begin {
                let those = compiled
                    .layout
                    .tables
                    .iter()
                    .zip(&of_source)
                    .map(|(table, missing)| if begins(table) == from { missing.clone() } else { Vec::new() });
                let those: Vec<Vec<usize>> = those.collect();
                let wanted = new_things(compiled, name, &those);
                worker.fold_only(those);
                let mut router = Router::new(compiled.clone(), source, 1, steps.clone()).map_err(RouteError::from)?;
                for (bounds, until) in router.bounds.iter_mut().zip(&until) {
                    *bounds = Bounds { from: 0, until: *until };
                }
                let stretch = Stretch { log, from, until: end };
                letters.extend(stretch.fold(worker, &mut router, &wanted, self.progress)?);
            }
        }
        Ok(letters)
    }
}

/// Does something with the groups of a project, a share of them on each core. What it gives comes in their order.
fn on_all_cores<G: Send, T: Send>(
    groups: Vec<G>,
    work: impl Fn(Vec<G>) -> Result<Vec<T>, PlatformError> + Sync,
) -> Result<Vec<T>, PlatformError> {
    let share = groups.len().div_ceil(std::thread::available_parallelism().map_or(1, usize::from)).max(1);
    let mut groups = groups.into_iter();
    std::thread::scope(|scope| {
        let mut running = Vec::new();
        loop {
            let own: Vec<G> = groups.by_ref().take(share).collect();
            if own.is_empty() {
                break;
            }
            running.push(scope.spawn(|| work(own)));
        }
        let mut done = Vec::new();
        for thread in running {
            done.extend(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
        }
        Ok(done)
    })
}

/// Records of a log, for features that are built.
pub struct Stretch<'a> {
    pub log: &'a PushLog,
    pub from: u64,
    pub until: u64,
}

impl Stretch<'_> {
    /// Folds the records and gives the letters that are about what is `wanted`.
    pub fn fold(
        &self,
        worker: &mut Worker,
        router: &mut Router,
        wanted: &BTreeSet<RefusedBy>,
        progress: &ReadProgress<'_>,
    ) -> Result<Vec<Letter>, PlatformError> {
        let mut letters = Vec::new();
        let mut reader = self.log.reader(self.from)?;
        while reader.position() < self.until {
            let mut batches = reader.next(READ_BYTES, Duration::ZERO)?;
            if batches.is_empty() {
                break;
            }
            batches.retain(|batch| batch.first_position < self.until);
            let routed = router.route(&batches)?;
            worker.rows(&routed, &Places::new(&batches)).map_err(StreamError::from)?;
            letters.extend(routed.letters.into_iter().filter(|letter| wanted.contains(&letter.refused_by)));
            letters.append(&mut worker.letters);
            progress(reader.position().min(self.until) - self.from, self.until - self.from)?;
        }
        Ok(letters)
    }
}

/// What letters of a build may be about: the features that are built. Where all of a source are, its intake may be
/// another than before.
pub fn new_things(compiled: &Compiled, source: &str, missing: &[Vec<usize>]) -> BTreeSet<RefusedBy> {
    let mut things = BTreeSet::from([RefusedBy::All]);
    for (table, missing) in compiled.layout.tables.iter().zip(missing) {
        if compiled.layout.spaces[table.space].source != source {
            continue;
        }
        things.extend(missing.iter().map(|feature| RefusedBy::Feature(table.features[*feature].fingerprint)));
        if missing.len() == table.features.len() {
            things.insert(RefusedBy::Table(table.entity_table));
        } else {
            things.remove(&RefusedBy::All);
        }
    }
    things
}

/// For each table and feature: whether every group that has a checkpoint holds its state.
fn built_features(checkpoints: &Checkpoints, compiled: &Compiled) -> Vec<Vec<bool>> {
    let holds = |table: &Digest, fingerprint: &Digest| {
        checkpoints.manifests().all(|manifest| {
            let mut tables = manifest.tables.iter().filter(|record| record.id == *table);
            tables.any(|record| record.fingerprints.contains(fingerprint))
        })
    };
    let of = |table: &crate::rows::TableLayout| {
        table.features.iter().map(|feature| holds(&table.id, &feature.fingerprint)).collect()
    };
    compiled.layout.tables.iter().map(of).collect()
}
