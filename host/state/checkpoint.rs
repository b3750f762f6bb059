//! Checkpoints: what a group's state was at known positions, as files that are written once and never changed.
//!
//! A checkpoint is one *delta* file with a range a group (what changed since the last one), then one *manifest* a
//! group, created if absent under the next epoch: the chain of files and ranges that make the group's state, with the
//! positions and clocks they belong to. A manifest is what commits; a delta that no manifest names never counts. When
//! a chain has grown long, the group's part of the next delta is a full dump and its manifest names that alone.

use super::codec::{CodecError, GroupChanges};
use crate::define::Digest;
use crate::route::Groups;
use crate::rows::RowSet;
use crate::storage::{Creation, Storage, StorageError, sealed_json, unsealed_json};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A group's chain is written anew when it has so many files.
const CHAIN_FILES: usize = 24;
/// Manifests kept before the newest, to fall back on.
const KEEP_MANIFESTS: u64 = 2;

/// What a group's state is, and where in its sources it stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    pub epoch: u64,
    /// Raised by every process that takes the group over: an older one's writes are refused.
    pub generation: u64,
    /// How many groups the project has: keys are spread over that many.
    pub groups: Groups,
    /// Who wrote it: a retried create finds its own.
    pub writer: String,
    /// Oldest first; later ranges replace what earlier ones say of an entity.
    pub files: Vec<FileRange>,
    /// For each source, the next position to read. By name in memory and by lineage in files (`with_sources`): a
    /// renamed source goes on where it stood, and another under its old name does not.
    pub positions: BTreeMap<String, u64>,
    pub clocks: BTreeMap<String, SourceClock>,
    /// The tables of the state, with the row set of each.
    pub tables: Vec<TableRecord>,
    /// What came too late for an ordered feature since the manifest before: letters, which count with this manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub late: Option<FileRange>,
}

/// The clock of a source, as far as it is known here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceClock {
    pub clock_us: i64,
    /// Event time of the newest row that was taken.
    pub newest_us: i64,
    /// Wall time at which the last row was read: from there on, idle time counts.
    pub read_at_us: i64,
    /// The watermark of a stored barrier, which never goes back: what is not after it, less a feature's allowed
    /// lateness, is settled. The least number before the first.
    #[serde(default = "never", skip_serializing_if = "is_never")]
    pub settled_us: i64,
}

fn never() -> i64 {
    i64::MIN
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_never(instant_us: &i64) -> bool {
    *instant_us == i64::MIN
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRange {
    pub path: String,
    pub offset: u64,
    pub length: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableRecord {
    pub id: Digest,
    pub row_set: RowSet,
    pub fingerprints: Vec<Digest>,
    /// Of the ordered ones, the epoch after which their state was begun: what was late up to there is in it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub begun: BTreeMap<Digest, u64>,
}

/// Why state could not be stored or loaded.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error("`{path}` is damaged ({reason}): {way_back}")]
    Damaged { path: String, reason: String, way_back: String },
    #[error("group {group} was taken over by `{writer}` (generation {generation}): this process must stop")]
    Fenced { group: u32, writer: String, generation: u64 },
    #[error(
        "the state of project `{project}` is cut into {stored} groups, `stream.groups` says {asked}: the number cannot \
         change once there is a checkpoint; set it to {stored}"
    )]
    Groups { project: String, stored: usize, asked: usize },
}

/// The checkpoints of one project, written by one process at a time.
pub struct Checkpoints {
    storage: Arc<dyn Storage>,
    project: String,
    writer: String,
    generation: u64,
    groups: Groups,
    /// For each source's name its lineage; a source that is not here is called by its lineage.
    lineages: BTreeMap<String, String>,
    /// The newest manifest of each group.
    newest: BTreeMap<u32, Manifest>,
    /// The greatest epoch that was found, whether or not it counts.
    found_epoch: u64,
}

/// One group's part of a checkpoint.
pub struct GroupPart {
    pub group: u32,
    /// What `codec` wrote; empty when nothing changed.
    pub bytes: Vec<u8>,
    /// The bytes are all of the group's state, not only what changed.
    pub full: bool,
    /// Letters of rows that came too late, as they are stored; often none.
    pub late: Vec<u8>,
}

/// What holds for all groups of a checkpoint.
pub struct Barrier {
    pub positions: BTreeMap<String, u64>,
    pub clocks: BTreeMap<String, SourceClock>,
    pub tables: Vec<TableRecord>,
}

impl Checkpoints {
    /// Finds the newest manifests. `writer` is a name that no other process has.
    pub fn open(
        storage: Arc<dyn Storage>,
        project: &str,
        writer: String,
        groups: Groups,
    ) -> Result<Checkpoints, CheckpointError> {
        let (lineages, newest) = (BTreeMap::new(), BTreeMap::new());
        let mut checkpoints = Checkpoints {
            storage,
            project: project.into(),
            writer,
            generation: 1,
            groups,
            lineages,
            newest,
            found_epoch: 0,
        };
        for group in groups.all() {
            if let Some(manifest) = checkpoints.read_newest(group)? {
                if manifest.groups != groups {
                    let (stored, asked) = (manifest.groups.count(), groups.count());
                    return Err(CheckpointError::Groups { project: project.into(), stored, asked });
                }
                checkpoints.generation = checkpoints.generation.max(manifest.generation + 1);
                checkpoints.newest.insert(group, manifest);
            }
        }
        checkpoints.found_epoch = checkpoints.epoch();
        checkpoints.agree_on_tables()?;
        Ok(checkpoints)
    }

    /// Tables change with an epoch that all groups have. A crash between its manifests leaves groups whose state was
    /// built anew beside groups whose state was not: those ahead go back to the newest epoch that all have, and what was
    /// built is given up, as if the crash had come before it.
    fn agree_on_tables(&mut self) -> Result<(), CheckpointError> {
        let mut tables = self.newest.values().map(|manifest| &manifest.tables);
        let first = tables.next();
        if tables.all(|other| Some(other) == first) || self.newest.len() < self.groups.count() {
            return Ok(());
        }
        let mut epochs: BTreeMap<u32, BTreeSet<u64>> = BTreeMap::new();
        for group in self.groups.all() {
            let paths = self.storage.list(&self.manifest_prefix(group))?;
            epochs.insert(group, paths.iter().filter_map(|path| epoch_in(path)).collect());
        }
        let of_all = epochs.values().cloned().reduce(|one, other| &one & &other).unwrap_or_default();
        let Some(complete) = of_all.last().copied() else { return Ok(()) };
        let mut agreed: Option<Vec<TableRecord>> = None;
        for (group, epochs) in epochs {
            if agreed.is_none() {
                agreed = self.read_manifest(&self.manifest_path(group, complete))?.map(|manifest| manifest.tables);
            }
            for epoch in epochs.range(complete..).rev() {
                let manifest = self.read_manifest(&self.manifest_path(group, *epoch))?;
                if let Some(manifest) = manifest.filter(|manifest| agreed.as_ref() == Some(&manifest.tables)) {
                    self.newest.insert(group, manifest);
                    break;
                }
            }
        }
        Ok(())
    }

    /// The same with sources under these names, each with its lineage. What is known of others is forgotten: they are
    /// not read any more, and one that comes back is read from its log's beginning.
    pub fn with_sources(mut self, lineages: BTreeMap<String, String>) -> Checkpoints {
        let stored: BTreeMap<u32, Manifest> =
            self.newest.iter().map(|(group, manifest)| (*group, self.as_stored(manifest))).collect();
        let names: BTreeMap<&str, &str> =
            lineages.iter().map(|(name, lineage)| (lineage.as_str(), name.as_str())).collect();
        for (group, mut manifest) in stored {
            manifest.positions = renamed(&manifest.positions, |lineage| names.get(lineage).copied());
            manifest.clocks = renamed(&manifest.clocks, |lineage| names.get(lineage).copied());
            self.newest.insert(group, manifest);
        }
        self.lineages = lineages;
        self
    }

    /// A manifest as its file has it.
    fn as_stored(&self, manifest: &Manifest) -> Manifest {
        let lineage = |name: &str| Some(self.lineages.get(name).map_or_else(|| name.to_owned(), String::clone));
        Manifest {
            positions: renamed(&manifest.positions, lineage),
            clocks: renamed(&manifest.clocks, lineage),
            ..manifest.clone()
        }
    }

    /// The newest manifest of a group; none before its first checkpoint.
    pub fn manifest(&self, group: u32) -> Option<&Manifest> {
        self.newest.get(&group)
    }

    /// The newest manifests of all groups that have one.
    pub fn manifests(&self) -> impl Iterator<Item = &Manifest> {
        self.newest.values()
    }

    pub fn groups(&self) -> Groups {
        self.groups
    }

    /// The newest committed epoch of all groups.
    pub fn epoch(&self) -> u64 {
        self.newest.values().map(|manifest| manifest.epoch).max().unwrap_or(0).max(self.found_epoch)
    }

    /// The name that this process writes under.
    pub fn writer(&self) -> &str {
        &self.writer
    }

    /// Whether the group's next part should be all of its state.
    pub fn wants_full(&self, group: u32) -> bool {
        self.newest.get(&group).is_none_or(|manifest| manifest.files.len() >= CHAIN_FILES)
    }

    /// Everything the group's files say, in order.
    pub fn load(&self, group: u32) -> Result<Vec<GroupChanges>, CheckpointError> {
        let mut changes = Vec::new();
        for file in self.newest.get(&group).map(|manifest| &manifest.files[..]).unwrap_or_default() {
            let damaged = |reason: String| self.damaged(&file.path, reason);
            let bytes = self.storage.read_range(&file.path, file.offset, file.length as usize)?;
            let bytes = bytes.ok_or_else(|| damaged("it is gone".into()))?;
            if bytes.len() as u64 != file.length {
                return Err(damaged(format!("it ends after {} of {} bytes", bytes.len(), file.length)));
            }
            changes.push(GroupChanges::read(&bytes).map_err(|error: CodecError| damaged(error.to_string()))?);
        }
        Ok(changes)
    }

    /// The letters that came with the newest manifests: for each checkpoint its name, and what its groups say.
    pub fn late_letters(&self) -> Result<BTreeMap<String, Vec<u8>>, CheckpointError> {
        let mut letters: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        for manifest in self.newest.values() {
            let Some(file) = &manifest.late else { continue };
            let bytes = self.storage.read_range(&file.path, file.offset, file.length as usize)?.unwrap_or_default();
            let sound = bytes.split_last_chunk::<4>().filter(|(letters, checksum)| {
                bytes.len() as u64 == file.length && crc32fast::hash(letters) == u32::from_le_bytes(**checksum)
            });
            let (said, _) = sound
                .ok_or_else(|| self.damaged(&file.path, "the letters of late rows are not what was written".into()))?;
            letters.entry(format!("{:020}-{}", manifest.epoch, manifest.writer)).or_default().extend_from_slice(said);
        }
        Ok(letters)
    }

    /// Stores a checkpoint durably: the delta, then the groups' manifests. A crash in between leaves some groups at
    /// the epoch before, which is a state like any other: their rows are read again, the others drop them. After an
    /// error of storage the same parts can be committed again: what they say twice holds once.
    pub fn commit(&mut self, barrier: &Barrier, parts: &[GroupPart]) -> Result<u64, CheckpointError> {
        let epoch = self.epoch() + 1;
        let path = format!("projects/{}/state/{epoch:020}-{:06}-{}.delta", self.project, self.generation, self.writer);
        let mut delta = Vec::new();
        let (mut ranges, mut late) = (BTreeMap::new(), BTreeMap::new());
        for part in parts {
            if !part.bytes.is_empty() {
                let range =
                    FileRange { path: path.clone(), offset: delta.len() as u64, length: part.bytes.len() as u64 };
                ranges.insert(part.group, range);
                delta.extend_from_slice(&part.bytes);
            }
            if !part.late.is_empty() {
                let offset = delta.len() as u64;
                delta.extend_from_slice(&part.late);
                delta.extend_from_slice(&crc32fast::hash(&part.late).to_le_bytes());
                let length = delta.len() as u64 - offset;
                late.insert(part.group, FileRange { path: path.clone(), offset, length });
            }
        }
        // A create that failed may have come as far as the name.
        if !delta.is_empty()
            && self.storage.create(&path, &delta)? == Creation::AlreadyExists
            && self.storage.read(&path)?.as_deref() != Some(delta.as_slice())
        {
            return Err(self.damaged(&path, "it exists before it was written".into()));
        }
        self.storage.crash_point("after the delta, before the manifests")?;
        for part in parts {
            let before = self.newest.get(&part.group).filter(|_| !part.full);
            let mut files = before.map(|manifest| manifest.files.clone()).unwrap_or_default();
            files.extend(ranges.remove(&part.group));
            let manifest = Manifest {
                epoch,
                generation: self.generation,
                groups: self.groups,
                writer: self.writer.clone(),
                files,
                positions: barrier.positions.clone(),
                clocks: barrier.clocks.clone(),
                tables: barrier.tables.clone(),
                late: late.remove(&part.group),
            };
            self.create_manifest(part.group, manifest)?;
            self.storage.crash_point("between the manifests")?;
        }
        self.storage.crash_point("after the manifests")?;
        // What is stored counts, whether or not there is room again; the next checkpoint collects what this one could not.
        if let Err(error) = self.collect() {
            tracing::warn!("files of old checkpoints are not removed yet: {error}");
        }
        Ok(epoch)
    }

    fn create_manifest(&mut self, group: u32, manifest: Manifest) -> Result<(), CheckpointError> {
        let path = self.manifest_path(group, manifest.epoch);
        let bytes = sealed_json(&path, &self.as_stored(&manifest))?;
        if self.storage.create(&path, &bytes)? == Creation::AlreadyExists {
            let standing = self.read_manifest(&path)?;
            if let Some(other) = standing.filter(|standing| standing.writer != self.writer) {
                return Err(CheckpointError::Fenced { group, writer: other.writer, generation: other.generation });
            }
        }
        self.newest.insert(group, manifest);
        Ok(())
    }

    /// Removes manifests that nobody falls back on any more, and the files that none of the others names.
    fn collect(&self) -> Result<(), CheckpointError> {
        let mut named = Vec::new();
        for (group, newest) in &self.newest {
            let paths = self.storage.list(&self.manifest_prefix(*group))?;
            for path in paths {
                let Some(epoch) = epoch_in(&path) else { continue };
                if epoch + KEEP_MANIFESTS < newest.epoch {
                    self.storage.delete(&path)?;
                } else if let Some(manifest) = self.read_manifest(&path)? {
                    named.extend(manifest.files.into_iter().chain(manifest.late).map(|file| file.path));
                }
            }
        }
        named.sort_unstable();
        named.dedup();
        for path in self.storage.list(&format!("projects/{}/state/", self.project))? {
            if named.binary_search(&path).is_err() {
                self.storage.delete(&path)?;
            }
        }
        Ok(())
    }

    fn read_newest(&self, group: u32) -> Result<Option<Manifest>, CheckpointError> {
        match self.storage.list(&self.manifest_prefix(group))?.last() {
            None => Ok(None),
            Some(path) => self.read_manifest(path),
        }
    }

    fn read_manifest(&self, path: &str) -> Result<Option<Manifest>, CheckpointError> {
        let Some(bytes) = self.storage.read(path)? else { return Ok(None) };
        unsealed_json(&bytes).map(Some).map_err(|reason| self.damaged(path, reason))
    }

    /// A file that is not what was written, and how to go on without it: from the checkpoint before, if every group
    /// still has one that does not need the file.
    fn damaged(&self, path: &str, reason: String) -> CheckpointError {
        let way_back = self.way_back(path).unwrap_or_else(|| {
            let project = &self.project;
            format!(
                "no older checkpoint does without it: restore it from a copy, or remove `projects/{project}/manifests` \
                 and `projects/{project}/state`, and the state is folded anew from the log; then run `onefold \
                 materialize` for what came from files"
            )
        });
        CheckpointError::Damaged { path: path.to_owned(), reason, way_back }
    }

    fn way_back(&self, path: &str) -> Option<String> {
        let epoch: u64 = path.rsplit('/').next()?.split(['-', '.']).next()?.parse().ok()?;
        let mut leaving = BTreeSet::new();
        for group in self.groups.all() {
            let paths = self.storage.list(&self.manifest_prefix(group)).ok()?;
            let (older, newer): (Vec<String>, Vec<String>) =
                paths.into_iter().partition(|path| epoch_in(path).is_some_and(|own| own < epoch));
            // A group that had no checkpoint before would be folded from the log alone.
            older.last()?;
            leaving.extend(newer.iter().filter_map(|path| path.rsplit('/').next().map(str::to_owned)));
        }
        let files: Vec<String> =
            leaving.iter().map(|name| format!("`projects/{}/manifests/*/{name}`", self.project)).collect();
        Some(format!(
            "remove {} to go on from the checkpoint before; what came since is folded again from the log",
            files.join(" and ")
        ))
    }

    fn manifest_prefix(&self, group: u32) -> String {
        format!("projects/{}/manifests/{group:02}/", self.project)
    }

    fn manifest_path(&self, group: u32, epoch: u64) -> String {
        format!("{}{epoch:020}.json", self.manifest_prefix(group))
    }
}

fn renamed<V: Clone, N: Into<String>>(
    by_name: &BTreeMap<String, V>,
    name: impl Fn(&str) -> Option<N>,
) -> BTreeMap<String, V> {
    by_name.iter().filter_map(|(old, value)| Some((name(old)?.into(), value.clone()))).collect()
}

fn epoch_in(path: &str) -> Option<u64> {
    path.rsplit('/').next()?.strip_suffix(".json")?.parse().ok()
}
