//! From one revision to the next while rows come in and are looked up.
//!
//! What is missing is built beside. Then the stream stops at a stored barrier, for as long as it takes to put both
//! together in memory, and goes on with what it had and what is new. Readers see the old revision until every new
//! value is online, the state behind it is stored, and the revision is committed; then they see the new one as a whole.

use super::build::{From, Joined, Target};
use super::{BatchRequest, Live, PlatformError, ProjectHost};
use crate::batch::{RefusalSink, Refusals};
use crate::define::Project;
use crate::registry::{Proposal, Revision, commit, upload_modules};
use crate::source::PushLog;
use crate::state::Checkpoints;
use crate::stream::{Stopped, Stream, StreamParts, StreamStatus, Watch};
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// The stream is stopped when a build lacks no more records than this: some tens of milliseconds.
const NEAR_RECORDS: u64 = 20_000;
/// How often a build tries to come near a log that grows as fast as it reads.
const CATCH_UPS: u32 = 100;
/// Between two looks at whether what is new is online and stored.
const LOOK_EVERY: Duration = Duration::from_millis(1);

impl ProjectHost {
    /// Makes a proposal live. Rows go on being folded, and lookups answered from the old revision, until the new one
    /// is whole. When anything fails the old revision runs on.
    pub(super) fn apply(&self, proposal: &Proposal, batch: &BatchRequest) -> Result<Revision, PlatformError> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let live = self.live().ok();
        if proposal.plan.changes.is_empty() && live.as_ref().is_some_and(|live| live.revision.number == proposal.base) {
            return Ok(commit(self.registry(), self.modules(), proposal, self.clock().now_us())?);
        }
        proposal.check_breaks()?;
        // A module that is not registered yet is found by its digest once it has been uploaded.
        upload_modules(self.registry(), self.modules(), proposal)?;
        let revision = proposal.revision(self.clock().now_us());
        let Some(live) = live else {
            let mut stream = self.stream();
            self.run(&mut stream, revision, |created_at_us| {
                Ok(commit(self.registry(), self.modules(), proposal, created_at_us).map(drop)?)
            })?;
            return Ok(self.live()?.revision.clone());
        };
        let target = self.target(&proposal.project, &live, From::Standing)?;
        let refusals: Arc<dyn RefusalSink> = Arc::new(Refusals::default());
        let (revision, _) = self.change(&live, target, batch, refusals, || {
            self.storage().crash_point("before the revision")?;
            Ok(commit(self.registry(), self.modules(), proposal, revision.created_at_us)?)
        })?;
        Ok(revision)
    }

    /// Builds what a target lacks, cuts over to it, and commits. Also gives how many entities had history.
    pub(super) fn change(
        &self,
        live: &Arc<Live>,
        target: Target,
        batch: &BatchRequest,
        refusals: Arc<dyn RefusalSink>,
        commit: impl FnOnce() -> Result<Revision, PlatformError>,
    ) -> Result<(Revision, u64), PlatformError> {
        if target.lacks_something() {
            self.check_memory()?;
        }
        let on_demand = self.on_demand_udfs(&target.project)?;
        let logs = self.open_logs(&target.project)?;
        // Never beyond the stream: where that stops, the build must be able to come to.
        let stands = self.stands(&target.project);
        let mut built = self.build(target, &stands, batch, &refusals)?;
        let entities = built.entities;
        for _ in 0..CATCH_UPS {
            let stands = self.stands(built.project());
            let lacks = |(source, position): (&String, &u64)| {
                stands.get(source).map_or(0, |stands| stands.saturating_sub(*position))
            };
            if built.positions.iter().map(lacks).max().unwrap_or(0) <= NEAR_RECORDS {
                break;
            }
            built.catch_up(&stands, &logs)?;
        }
        let _cutting = self.cutting.lock().unwrap_or_else(PoisonError::into_inner);
        let cut = || -> Result<Arc<Live>, PlatformError> {
            let mut stream = self.stream();
            let stopped = under_new_names(self.halt(&mut stream)?, built.project());
            built.catch_up(&stopped.positions, &logs)?;
            self.storage().crash_point("while the stream is stopped")?;
            let (mut positions, mut clocks) = (built.positions.clone(), built.clocks.clone());
            positions.extend(stopped.positions);
            for (source, clock) in stopped.clocks {
                let built = clocks.entry(source).or_insert(clock);
                let settled_us = built.settled_us.max(clock.settled_us);
                // A stream that has read nothing has no clock.
                *built = if clock.clock_us > i64::MIN { clock } else { *built };
                built.settled_us = settled_us;
            }
            let checkpoints = stopped.checkpoints;
            let joined = built.join(&stopped.compiled, stopped.groups);
            live.online.prepare(&joined.compiled.layout);
            let compiled = joined.compiled.clone();
            let is_fresh = joined.fresh.contains(&true);
            // Nothing waits for state that is stored already.
            let stored_after = is_fresh.then(|| checkpoints.epoch());
            let parts = self.parts(live, joined, checkpoints, &positions, clocks, stopped.said, logs);
            let running = Stream::start(parts, self.stream_settings())?;
            let watch = running.watch();
            *stream = Some(running);
            drop(stream);
            settled(&watch, stored_after)?;
            let revision = commit()?;
            self.storage().crash_point("after the cut over")?;
            Ok(Arc::new(Live { revision, compiled, online: live.online.clone(), on_demand }))
        };
        match cut() {
            Ok(next) => {
                let revision = next.revision.clone();
                next.online.retire(&next.compiled.layout);
                *self.live.write().unwrap_or_else(PoisonError::into_inner) = Some(next);
                Ok((revision, entities))
            }
            Err(error) => {
                let mut stream = self.stream();
                drop(stream.take());
                if let Some(revision) = self.registry().newest()? {
                    self.run(&mut stream, revision, |_| Ok(()))?;
                }
                Err(error)
            }
        }
    }

    /// Up to where the running stream has folded each source, under the names that they have in this project.
    fn stands(&self, project: &Project) -> BTreeMap<String, u64> {
        let stream = self.stream();
        let positions = stream.as_ref().map(|stream| of_names(stream.positions(), stream.project(), project));
        positions.unwrap_or_default()
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of a stream, put together in one place")]
    fn parts(
        &self,
        live: &Live,
        joined: Joined,
        checkpoints: Checkpoints,
        positions: &BTreeMap<String, u64>,
        clocks: BTreeMap<String, crate::state::SourceClock>,
        said: crate::stream::StreamStatus,
        logs: BTreeMap<String, Arc<PushLog>>,
    ) -> StreamParts {
        let at = |source: &String| vec![positions.get(source).copied().unwrap_or(0); self.groups().count()];
        StreamParts {
            positions: logs.keys().map(|source| (source.clone(), at(source))).collect(),
            project: joined.project,
            compiled: joined.compiled,
            online: live.online.clone(),
            logs,
            storage: self.storage().clone(),
            clock: self.clock_handle(),
            checkpoints,
            groups: joined.groups,
            clocks,
            letters: joined.letters,
            said,
            fresh: joined.fresh,
        }
    }
}

/// What a stream stood at, under the names that its sources have in another project.
fn under_new_names(stopped: Stopped, project: &Project) -> Stopped {
    Stopped {
        checkpoints: stopped.checkpoints.with_sources(project.lineages()),
        positions: of_names(stopped.positions, &stopped.project, project),
        clocks: of_names(stopped.clocks, &stopped.project, project),
        said: StreamStatus { sources: of_names(stopped.said.sources, &stopped.project, project), ..stopped.said },
        ..stopped
    }
}

fn of_names<V>(by_name: BTreeMap<String, V>, before: &Project, now: &Project) -> BTreeMap<String, V> {
    let renamed = |(name, value): (String, V)| {
        let lineage = &before.sources.get(&name)?.lineage;
        Some((now.source_of_lineage(lineage)?.name.clone(), value))
    };
    by_name.into_iter().filter_map(renamed).collect()
}

/// Waits until all that is new is online and stored.
fn settled(watch: &Watch, stored_after: Option<u64>) -> Result<(), PlatformError> {
    let failed = |error| PlatformError::Unavailable(format!("what was built cannot be stored: {error}"));
    while !watch.is_settled(stored_after).map_err(failed)? {
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(())
}
