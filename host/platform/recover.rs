//! From a checkpoint and definitions to state in memory: load what is there, fold what is new from the log.

use super::PlatformError;
use crate::batch::Prepare;
use crate::clock::Clock;
use crate::define::{Digest, Feature, Project, Source};
use crate::online::EmbeddedStore;
use crate::route::Groups;
use crate::rows::{Layout, RowSet};
use crate::source::PushLog;
use crate::state::{Checkpoints, TableRecord};
use crate::storage::Storage;
use crate::stream::{
    Bounds, Compiled, GroupState, Letter, Places, RefusedBy, RouteError, Router, Steps, StreamError, StreamParts,
    StreamStatus, Worker, clocks_of,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// How much of a log is decoded at once while state is built.
const READ_BYTES: usize = 4 << 20;

/// What is needed to bring a project's state up.
pub struct Recovery<'a> {
    pub project: Arc<Project>,
    pub storage: Arc<dyn Storage>,
    pub clock: Arc<dyn Clock>,
    pub logs: BTreeMap<String, Arc<PushLog>>,
    /// How many groups the state has, or will have.
    pub groups: Groups,
    pub prepare: &'a Prepare<'a>,
    /// Distinguishes this process's files from those of all others.
    pub writer: String,
    /// Told how many records of how many have been read while features are built.
    pub progress: &'a dyn Fn(u64, u64),
}

/// The row sets that the stored state of a project has: what new definitions go on from.
pub fn stored_tables(checkpoints: &Checkpoints) -> Vec<TableRecord> {
    let mut records: Vec<TableRecord> = Vec::new();
    for record in checkpoints.manifests().flat_map(|manifest| &manifest.tables) {
        if !records.contains(record) {
            records.push(record.clone());
        }
    }
    records
}

/// The layout of a project over stored state: a feature that has state keeps the rows it is made of, a new one is
/// made of what is in the log. So is one whose table has become another: its state is not found there, and must not
/// be said to hold rows that nobody will read again.
pub fn layout_over(project: &Project, records: &[TableRecord]) -> Result<Layout, PlatformError> {
    let mut moved = BTreeSet::new();
    loop {
        let layout = layout_without(project, records, &moved)?;
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

fn layout_without(
    project: &Project,
    records: &[TableRecord],
    moved: &BTreeSet<Digest>,
) -> Result<Layout, PlatformError> {
    let row_set = |source: &Source, feature: &Feature| {
        if moved.contains(&feature.fingerprint) {
            return RowSet { source: source.lineage.clone(), files: None };
        }
        let of_source = records.iter().filter(|record| record.row_set.source == source.lineage);
        let mut holding = of_source.filter(|record| record.fingerprints.contains(&feature.fingerprint));
        let with_files = holding.clone().find(|record| record.row_set.files.is_some());
        match with_files.or_else(|| holding.next()) {
            Some(record) => record.row_set.clone(),
            None => RowSet { source: source.lineage.clone(), files: None },
        }
    };
    Layout::of(project, row_set).map_err(|error| PlatformError::Invalid(error.to_string()))
}

impl Recovery<'_> {
    /// Loads, builds and writes everything online. The stream can start from what is returned.
    pub fn run(self) -> Result<(StreamParts, Arc<EmbeddedStore>), PlatformError> {
        let checkpoints =
            Checkpoints::open(self.storage.clone(), &self.project.name, self.writer.clone(), self.groups)?
                .with_sources(self.project.lineages());
        let layout = layout_over(&self.project, &stored_tables(&checkpoints))?;
        let compiled = Arc::new(Compiled::new(layout, self.groups, self.prepare)?);
        let built = built_features(&checkpoints, &compiled);
        let mut groups = Vec::new();
        for group in self.groups.all() {
            let changes = checkpoints.load(group)?;
            let state = GroupState::load(group, changes, &compiled, &|table, feature| built[table][feature]);
            groups.push(state.map_err(StreamError::from)?);
        }
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
        let letters = self.build(&compiled, &built, &positions, &mut worker, &steps)?;
        for (source, clock) in &clocks {
            worker.clock(source, clock.clock_us).map_err(StreamError::from)?;
        }
        worker.fold_all();
        worker.refresh().map_err(StreamError::from)?;
        let parts = StreamParts {
            project: self.project,
            compiled,
            online: online.clone(),
            logs: self.logs,
            storage: self.storage,
            clock: self.clock,
            checkpoints,
            groups: worker.into_groups(),
            positions,
            clocks,
            letters,
            said: StreamStatus::default(),
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
                     records that were acknowledged are gone; restore the log's files from a copy"
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
            let wanted = new_things(compiled, name, &of_source);
            worker.fold_only(of_source);
            let mut router = Router::new(compiled.clone(), source, 1, steps.clone()).map_err(RouteError::from)?;
            for (bounds, until) in router.bounds.iter_mut().zip(&until) {
                *bounds = Bounds { from: 0, until: *until };
            }
            let mut reader = log.reader(log.first_position())?;
            while reader.position() < end {
                let mut batches = reader.next(READ_BYTES, Duration::ZERO)?;
                if batches.is_empty() {
                    break;
                }
                batches.retain(|batch| batch.first_position < end);
                let routed = router.route(&batches)?;
                worker.rows(&routed, &Places::new(&batches)).map_err(StreamError::from)?;
                letters.extend(routed.letters.into_iter().filter(|letter| wanted.contains(&letter.refused_by)));
                letters.append(&mut worker.letters);
                (self.progress)(reader.position().min(end), end);
            }
        }
        Ok(letters)
    }
}

/// What letters of a build may be about: the features that are built. Where all of a source are, its intake may be
/// another than before.
fn new_things(compiled: &Compiled, source: &str, missing: &[Vec<usize>]) -> BTreeSet<RefusedBy> {
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
