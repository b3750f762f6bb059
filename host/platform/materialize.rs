//! `materialize`: state from a source's files and log together, as a checkpoint that the stream goes on from.

use super::history::Pins;
use super::letters::judged;
use super::recover::{layout_over, stored_tables};
use super::{PlatformError, ProjectHost};
use crate::batch::{
    BatchError, BatchHost, BatchSettings, LogRows, MaterializeAsk, Place, Progress, Refusal, RefusalSink, Rows,
    StateSink, list_files,
};
use crate::define::{Digest, Feature, Project, Source};
use crate::route::{Groups, hash};
use crate::rows::{Layout, RowSet};
use crate::source::PushLog;
use crate::state::{Barrier, ChangesWriter, Checkpoints, EntityRecord, GroupPart, SourceClock};
use crate::stream::{Compiled, Letter, clocks_of, store_letters, table_records};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

/// What is asked.
#[derive(Clone, Debug, Default)]
pub struct MaterializeRequest {
    /// All views if none are named.
    pub views: Vec<String>,
    pub from_us: Option<i64>,
    pub to_us: Option<i64>,
}

/// What was done.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct MaterializeSummary {
    pub views: Vec<String>,
    pub files: usize,
    pub entities: u64,
    pub checkpoint_epoch: u64,
}

impl ProjectHost {
    /// Builds the state of all views of the named views' sources from their files and logs, and stores it. Nothing
    /// else may run on the project: the caller holds the data directory and has not started the stream.
    pub fn materialize(
        &self,
        request: &MaterializeRequest,
        settings: BatchSettings,
        refusals: Arc<dyn RefusalSink>,
        progress: Arc<dyn Fn(Progress) + Send + Sync>,
    ) -> Result<MaterializeSummary, PlatformError> {
        let revision = self.registry().newest()?.ok_or_else(|| {
            PlatformError::NotFound(format!("project `{}` has no definitions yet: apply some", self.name()))
        })?;
        let project = Arc::new(revision.project);
        let mut views: BTreeSet<String> = request.views.iter().cloned().collect();
        if views.is_empty() {
            let has_files =
                |source: &str| project.sources.get(source).is_some_and(|source| source.batch_path.is_some());
            let with_files = project.feature_views.values().filter(|view| has_files(&view.source));
            views = with_files.map(|view| view.name.clone()).collect();
        }
        let mut pins: BTreeMap<String, Pins> = BTreeMap::new();
        for view in &views {
            let view = project.feature_views.get(view).ok_or_else(|| {
                let known = project.feature_views.keys().cloned().collect::<Vec<_>>().join(", ");
                PlatformError::NotFound(format!("there is no feature view `{view}`: there is {known}"))
            })?;
            let source = project.sources.get(&view.source);
            let Some(path) = source.and_then(|source| source.batch_path.as_ref()) else {
                return Err(PlatformError::Invalid(format!(
                    "source `{}` of view `{}` has no files: add `batch: {{ parquet: {{ path: … }} }}` to it",
                    view.source, view.name
                )));
            };
            if !pins.contains_key(&view.source) {
                let files = list_files(path)?;
                pins.insert(view.source.clone(), Pins { files, from_us: request.from_us, to_us: request.to_us });
            }
        }
        if pins.is_empty() {
            return Err(PlatformError::Invalid(
                "no source of the project has files: there is nothing to materialize".into(),
            ));
        }
        for pins in pins.values() {
            pins.store(self.storage().as_ref(), self.name())?;
        }
        let logs = self.open_logs(&project)?;
        let mut checkpoints =
            Checkpoints::open(self.storage().clone(), self.name(), self.writer_name(), self.groups())?
                .with_sources(project.lineages());
        let stored = layout_over(&project, &stored_tables(&checkpoints))?;
        let layout = Layout::of(&project, |source: &Source, feature: &Feature| match pins.get(&source.name) {
            Some(pins) => RowSet { source: source.lineage.clone(), files: Some(pins.digest()) },
            None => row_set_of(&stored, &feature.fingerprint)
                .unwrap_or(RowSet { source: source.lineage.clone(), files: None }),
        })
        .map_err(|error| PlatformError::Invalid(error.to_string()))?;
        let prepare = self.preparer();
        let compiled = Arc::new(Compiled::new(layout, self.groups(), &prepare)?);
        let ends: BTreeMap<String, u64> = logs.iter().map(|(name, log)| (name.clone(), log.end_position())).collect();
        let rows = Rows {
            logs: logs
                .iter()
                .map(|(name, log)| (name.clone(), LogRows { log: log.clone(), end: ends[name] }))
                .collect(),
            pinned: pins.iter().map(|(source, pins)| (source.clone(), pins.files.clone())).collect(),
            from_us: request.from_us,
            to_us: request.to_us,
        };
        let refusals = Arc::new(LogRefusals { told: refusals, positions: Mutex::default() });
        let host = BatchHost { project: &project, prepare: &prepare, settings, refusals: refusals.clone(), progress };
        let ask = MaterializeAsk { layout: &compiled.layout, views: views.clone() };
        let mut sink = GroupedEntities::new(&compiled);
        let done = host.materialize(&ask, &rows, &mut sink)?;

        let mut positions = checkpoints.manifest(0).map(|manifest| manifest.positions.clone()).unwrap_or_default();
        let mut clocks = clocks_of(&checkpoints);
        for source in pins.keys() {
            if let Some(end) = ends.get(source) {
                positions.insert(source.clone(), *end);
            }
            if let Some(newest_us) = done.clock_us.get(source).copied().flatten() {
                let read_at_us = self.clock().now_us();
                clocks.insert(source.clone(), SourceClock { clock_us: newest_us, newest_us, read_at_us });
            }
        }
        let barrier = Barrier { positions, clocks, tables: table_records(&compiled) };
        let parts = sink.into_parts(&compiled);
        let letters = self.letters_of(&refusals.positions(), &compiled, &project, &logs)?;
        let name = format!("{:020}-{}", checkpoints.epoch() + 1, checkpoints.writer());
        store_letters(self.storage().as_ref(), self.name(), &name, &letters)?;
        let checkpoint_epoch = checkpoints.commit(&barrier, &parts)?;
        Ok(MaterializeSummary {
            views: compiled
                .layout
                .views
                .keys()
                .filter(|view| pins.contains_key(&compiled.layout.views[*view].source))
                .cloned()
                .collect(),
            files: pins.values().map(|pins| pins.files.len()).sum(),
            entities: done.entities,
            checkpoint_epoch,
        })
    }
}

impl ProjectHost {
    /// The letters of these records of logs, as far as they are not stored yet: the stream goes on behind them and
    /// would never write them.
    fn letters_of(
        &self,
        positions: &BTreeMap<String, BTreeSet<u64>>,
        compiled: &Arc<Compiled>,
        project: &Project,
        logs: &BTreeMap<String, Arc<PushLog>>,
    ) -> Result<Vec<Letter>, PlatformError> {
        let stored: BTreeSet<Letter> = self.dead_letters(None)?.into_iter().collect();
        let mut letters = Vec::new();
        for (name, positions) in positions {
            let (Some(source), Some(log)) = (project.sources.get(name), logs.get(name)) else { continue };
            letters.extend(judged(compiled, source, log, positions)?);
        }
        letters.retain(|letter| !stored.contains(letter));
        Ok(letters)
    }
}

/// Passes refusals on, and notes where in the logs they were.
struct LogRefusals {
    told: Arc<dyn RefusalSink>,
    positions: Mutex<BTreeMap<String, BTreeSet<u64>>>,
}

impl LogRefusals {
    fn positions(&self) -> BTreeMap<String, BTreeSet<u64>> {
        self.positions.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl RefusalSink for LogRefusals {
    fn refused(&self, refusal: Refusal) {
        if let Place::Log { position } = refusal.place {
            let mut positions = self.positions.lock().unwrap_or_else(PoisonError::into_inner);
            positions.entry(refusal.source.clone()).or_default().insert(position);
        }
        self.told.refused(refusal);
    }
}

fn row_set_of(layout: &Layout, fingerprint: &Digest) -> Option<RowSet> {
    let holds =
        |table: &&crate::rows::TableLayout| table.features.iter().any(|feature| feature.fingerprint == *fingerprint);
    layout.tables.iter().find(holds).map(|table| table.row_set.clone())
}

/// Entities by table and group, as they come.
struct GroupedEntities {
    shards: Groups,
    /// For each group, for each table.
    groups: Vec<Vec<Vec<EntityRecord>>>,
}

impl GroupedEntities {
    fn new(compiled: &Compiled) -> GroupedEntities {
        let of_group = || compiled.layout.tables.iter().map(|_| Vec::new()).collect();
        GroupedEntities { shards: compiled.groups, groups: compiled.groups.all().map(|_| of_group()).collect() }
    }

    fn into_parts(self, compiled: &Compiled) -> Vec<GroupPart> {
        let part = |(group, tables): (usize, Vec<Vec<EntityRecord>>)| {
            let mut writer = ChangesWriter::default();
            for (entities, layout) in tables.iter().zip(&compiled.layout.tables) {
                if !entities.is_empty() {
                    let fingerprints: Vec<Digest> = layout.features.iter().map(|feature| feature.fingerprint).collect();
                    writer.entities(layout.id, &fingerprints, entities);
                }
            }
            GroupPart { group: group as u32, bytes: writer.finish(), full: false }
        };
        self.groups.into_iter().enumerate().map(part).collect()
    }
}

impl StateSink for GroupedEntities {
    fn entity(&mut self, table: usize, key: &[u8], newest_us: i64, cells: &[&[u8]]) -> Result<(), BatchError> {
        let group = self.shards.of(hash(key)) as usize;
        let cells = cells.iter().map(|cell| cell.to_vec()).collect();
        self.groups[group][table].push(EntityRecord { key: key.to_vec(), newest_us, cells });
        Ok(())
    }
}
