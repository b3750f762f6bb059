//! Dead letters: what could not be processed, where it stands, and why.

use crate::define::Digest;
use crate::rows::Stage;
use crate::state::{CheckpointError, Checkpoints};
use crate::storage::{Creation, Storage, StorageError, seal, unseal};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a letter's row was refused by: nothing else lacks it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusedBy {
    /// The row could not be decoded as a whole, or came from the future.
    All,
    /// An entity table, by what a row must pass to be one of its: the row's keys, or a transform that makes rows.
    Table(Digest),
    /// One feature, by fingerprint: a column it uses, or its fold.
    Feature(Digest),
}

/// Why, as a word that metrics and scripts can count by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    Decode,
    Future,
    Transform,
    Fold,
    /// It came after its time had been settled, to a feature that takes rows in order.
    Late,
}

/// One letter. The same row refused by the same thing is the same letter, however often it is read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Letter {
    /// The source's lineage, so that the letter stays what it is when the source is renamed.
    pub source: String,
    pub partition: u32,
    /// Position of the record in its partition.
    pub position: u64,
    /// Which of the rows that transforms made of the record.
    pub sub_row: u32,
    pub stage: Stage,
    pub refused_by: RefusedBy,
    /// Of a letter of all: by which intake of the source (`define::intake`) the event was no row. Part of who refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intake: Option<Digest>,
    pub reason: Reason,
    pub message: String,
    /// The module that refused it, where one did.
    pub module: Option<Digest>,
    /// Arrival of the record, microseconds since the epoch, UTC.
    pub arrival_us: i64,
    /// Of a late row: the epoch after which the state that lacks it was begun. One that is begun later has the row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begun: Option<u64>,
}

impl Letter {
    /// Sixteen hex digits, the same wherever and whenever the row is refused.
    pub fn id(&self) -> String {
        let place = (&self.source, self.partition, self.position, self.sub_row, &self.refused_by, &self.intake);
        let mut text = serde_json::to_string(&place).unwrap_or_default();
        // A feature may have two states, made of different rows: the row may be too late for each of them.
        if let Some(begun) = self.begun {
            text.push_str(&format!(" begun {begun}"));
        }
        Digest::of(text.as_bytes()).hex()[..16].to_string()
    }
}

/// Stores letters of one checkpoint. They stand before its manifests do: a letter is true whether or not the
/// checkpoint commits, and reading its row again gives the same letter.
pub fn store(storage: &dyn Storage, project: &str, name: &str, letters: &[Letter]) -> Result<(), StorageError> {
    if letters.is_empty() {
        return Ok(());
    }
    let lines = seal(lines(letters));
    let path = format!("{}{name}.jsonl", prefix(project));
    match storage.create(&path, &lines)? {
        Creation::Created => Ok(()),
        // A store that failed may have come as far as the name, and is tried again.
        Creation::AlreadyExists if storage.read(&path)?.as_deref() == Some(lines.as_slice()) => Ok(()),
        Creation::AlreadyExists => Err(StorageError::Invalid(format!("letters `{name}` were written before"))),
    }
}

/// Letters as they are stored: a line each.
pub fn lines(letters: &[Letter]) -> Vec<u8> {
    let mut lines = Vec::new();
    for letter in letters {
        if let Ok(line) = serde_json::to_vec(letter) {
            lines.extend_from_slice(&line);
            lines.push(b'\n');
        }
    }
    lines
}

/// Stores the letters of late rows where the others are. They have come with manifests: that a row was late is true
/// only once its checkpoint is stored. What was stored before stays as it is; it may say more, never less.
pub fn publish_late(storage: &dyn Storage, project: &str, checkpoints: &Checkpoints) -> Result<(), CheckpointError> {
    for (name, lines) in checkpoints.late_letters()? {
        match storage.create(&format!("{}{name}-late.jsonl", prefix(project)), &seal(lines))? {
            Creation::Created | Creation::AlreadyExists => {}
        }
    }
    Ok(())
}

/// All stored letters of a project, each once as it was written last, by source and position.
pub fn load(storage: &dyn Storage, project: &str) -> Result<Vec<Letter>, StorageError> {
    let mut letters = BTreeMap::new();
    for path in storage.list(&prefix(project))? {
        let Some(bytes) = storage.read(&path)? else { continue };
        let lines = unseal(&bytes).map_err(|reason| damaged(&path, reason))?;
        for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let letter: Letter = serde_json::from_slice(line).map_err(|error| damaged(&path, error))?;
            let refused_by = (letter.refused_by.clone(), letter.intake, letter.begun);
            letters.insert((letter.source.clone(), letter.position, letter.sub_row, refused_by), letter);
        }
    }
    Ok(letters.into_values().collect())
}

/// What of the stored letters is not what was written, each file with its remedy.
pub fn check(storage: &dyn Storage, project: &str) -> Result<Vec<String>, StorageError> {
    let mut told = Vec::new();
    for path in storage.list(&prefix(project))? {
        let bytes = storage.read(&path)?.unwrap_or_default();
        told.extend(unseal(&bytes).err().map(|reason| damaged(&path, reason).to_string()));
    }
    Ok(told)
}

fn damaged(path: &str, reason: impl std::fmt::Display) -> StorageError {
    StorageError::Invalid(format!(
        "the dead letters in `{path}` are damaged ({reason}): restore the file from a copy, or remove it; then its \
         letters are forgotten, their rows are still in the log"
    ))
}

fn prefix(project: &str) -> String {
    format!("projects/{project}/letters/")
}
