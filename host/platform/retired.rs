//! What revisions have retired: how long it is folded on, and how it is let go.

use super::target::From;
use super::{BatchRequest, Live, PlatformError, ProjectHost};
use crate::batch::Refusals;
use crate::define::Project;
use crate::registry::Revision;
use crate::stream::Compiled;
use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, TryLockError};

/// So many revisions before the live one are folded on at most, however young they are: each may bring features that
/// every row is folded for, and a rollback further than that is no slip of the hand.
const MOST_REVISIONS: usize = 32;
/// When letting go fails (a full disk), it is tried again after so long.
const AGAIN_US: i64 = 60_000_000;

/// When a revision was created, wall time, and what it was.
pub(super) type Past = (i64, Arc<Project>);

/// The projects whose state is folded on.
pub(super) struct Earlier {
    /// The live one, and those before it: newest first.
    pub projects: Vec<Arc<Project>>,
    /// When the oldest of them is to be let go; the greatest number where there is none before the live one.
    pub until_us: i64,
}

impl ProjectHost {
    /// What was live within the time that a rollback is to be quick for, and what is.
    pub(super) fn earlier(&self, newest: &Revision) -> Result<Earlier, PlatformError> {
        let (now_us, keep_us) = (self.clock().now_us(), self.keep_revisions_us(&newest.project));
        let mut earlier = Earlier { projects: vec![Arc::new(newest.project.clone())], until_us: i64::MAX };
        let mut retired_at_us = newest.created_at_us;
        for number in (1..newest.number).rev().take(MOST_REVISIONS) {
            let until_us = retired_at_us.saturating_add(keep_us);
            if until_us <= now_us {
                break;
            }
            earlier.until_us = until_us;
            let (created_at_us, project) = self.past(number)?;
            retired_at_us = created_at_us;
            earlier.projects.push(project);
        }
        Ok(earlier)
    }

    /// When a revision was created, and its project. Every change asks for the same ones again, and they never change.
    fn past(&self, number: u64) -> Result<Past, PlatformError> {
        let mut past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = past.get(&number) {
            return Ok(known.clone());
        }
        let revision = self.registry().revision(number)?;
        let read = (revision.created_at_us, Arc::new(revision.project));
        past.insert(number, read.clone());
        while past.len() > MOST_REVISIONS {
            past.pop_first();
        }
        Ok(read)
    }

    /// Notes when something of what is folded now is to be let go.
    pub(super) fn note_retired(&self, live: &Live) -> Result<(), PlatformError> {
        let until_us = match has_retired(&live.compiled) {
            true => {
                let earlier = self.earlier(&live.revision)?;
                // What nothing holds any more goes at once.
                if earlier.projects.len() > 1 { earlier.until_us } else { i64::MIN }
            }
            false => i64::MAX,
        };
        self.let_go_at_us.store(until_us, Ordering::Relaxed);
        Ok(())
    }

    /// Lets go of what was retired long enough ago, if it is time to. Called every now and then.
    pub(super) fn let_go(&self) {
        let now_us = self.clock().now_us();
        if now_us < self.let_go_at_us.load(Ordering::Relaxed) {
            return;
        }
        let _changing = match self.changing.try_lock() {
            Ok(changing) => changing,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            // Whoever changes definitions lets go of it on the way.
            Err(TryLockError::WouldBlock) => return,
        };
        if let Err(error) = self.let_go_now() {
            tracing::warn!("what project `{}` has retired is folded on for a minute more: {error}", self.name());
            self.let_go_at_us.store(now_us.saturating_add(AGAIN_US), Ordering::Relaxed);
        }
    }

    /// The same, for one who changes definitions.
    pub(super) fn let_go_now(&self) -> Result<(), PlatformError> {
        let live = self.live()?;
        let target = self.target(&live.revision.project, &live, From::default())?;
        if target.lacks_something() || folded(&target.compiled) == folded(&live.compiled) {
            return self.note_retired(&live);
        }
        let refusals = Arc::new(Refusals::default());
        self.change(&live, target, &BatchRequest::unwatched(), refusals, || Ok(live.revision.clone())).map(drop)
    }
}

/// Whether something is folded that no view reads.
fn has_retired(compiled: &Compiled) -> bool {
    let columns = compiled.layout.views.values().flat_map(|view| &view.columns);
    let read: BTreeSet<(usize, usize)> = columns.map(|column| (column.table, column.table_feature)).collect();
    let features = compiled.layout.tables.iter().map(|table| table.features.len()).sum::<usize>();
    read.len() < features
}

/// What is folded, whatever its order.
fn folded(compiled: &Compiled) -> BTreeSet<(crate::define::Digest, crate::define::Digest)> {
    let tables = compiled.layout.tables.iter();
    tables.flat_map(|table| table.features.iter().map(|feature| (table.id, feature.fingerprint))).collect()
}
