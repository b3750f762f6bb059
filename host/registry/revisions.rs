//! Revisions: whole projects, numbered from 1, each created once.

use super::{Registry, RegistryError, number_in};
use crate::define::{ChangeNote, Project};
use crate::storage::{Creation, sealed_json};
use serde::{Deserialize, Serialize};

/// One applied state of a project.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Revision {
    /// From 1, without gaps.
    pub number: u64,
    /// Wall time of the apply, microseconds since the epoch, UTC. Orders nothing: the number does.
    pub created_at_us: i64,
    pub project: Project,
    /// What it changed of the one before.
    #[serde(default)]
    pub changes: Vec<ChangeNote>,
    /// The revision whose project it brought back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback_to: Option<u64>,
}

/// What a revision says of itself, without its project.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct RevisionNotes {
    pub number: u64,
    pub created_at_us: i64,
    #[serde(default)]
    pub changes: Vec<ChangeNote>,
    #[serde(default)]
    pub rollback_to: Option<u64>,
}

impl Registry {
    /// The revision that is live; `None` before the first apply.
    pub fn newest(&self) -> Result<Option<Revision>, RegistryError> {
        match self.newest_number()? {
            0 => Ok(None),
            number => self.revision(number).map(Some),
        }
    }

    /// The number of the live revision, 0 before the first apply.
    pub fn newest_number(&self) -> Result<u64, RegistryError> {
        Ok(self.numbers()?.last().copied().unwrap_or(0))
    }

    /// One revision, live or not.
    pub fn revision(&self, number: u64) -> Result<Revision, RegistryError> {
        self.read_json(&self.revision_path(number))?.ok_or_else(|| self.no_revision(number))
    }

    /// What one changed: its project, which may be long, is passed over.
    pub fn revision_notes(&self, number: u64) -> Result<RevisionNotes, RegistryError> {
        self.read_json(&self.revision_path(number))?.ok_or_else(|| self.no_revision(number))
    }

    fn no_revision(&self, number: u64) -> RegistryError {
        let project = &self.project;
        RegistryError::NotFound(format!("project `{project}` has no revision {number}: see `onefold revisions`"))
    }

    /// All revisions' numbers, ascending.
    pub fn numbers(&self) -> Result<Vec<u64>, RegistryError> {
        let mut numbers: Vec<u64> =
            self.storage.list(&self.path("revisions/"))?.iter().filter_map(|path| number_in(path)).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Makes a revision live. A conflict when its number is taken.
    pub(super) fn create_revision(&self, revision: Revision) -> Result<Revision, RegistryError> {
        let path = self.revision_path(revision.number);
        let bytes = sealed_json(&path, &revision)?;
        match self.storage.create(&path, &bytes)? {
            Creation::Created => Ok(revision),
            Creation::AlreadyExists => Err(RegistryError::Conflict(format!(
                "someone else applied revision {} of project `{}` meanwhile: plan again on top of it",
                revision.number, self.project
            ))),
        }
    }

    fn revision_path(&self, number: u64) -> String {
        self.path(&format!("revisions/{number:020}.json"))
    }
}
