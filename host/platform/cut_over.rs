//! From one revision to the next while rows come in and are looked up.
//!
//! What is missing is built beside. Then the stream stops at a stored barrier, for as long as it takes to put both
//! together in memory, and goes on with what it had and what is new. Readers see the old revision until every new
//! value is online, the state behind it is stored, and the revision is committed; then they see the new one as a whole.

use super::build::{Halted, Joined};
use super::target::Target;
use super::told::Told;
use super::{BatchRequest, Live, PlatformError, ProjectHost};
use crate::batch::{Progress, RefusalSink, Refusals};
use crate::define::{Change, ChangeKind, Project};
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

/// What an apply has done.
#[derive(Clone, Debug)]
pub struct Applied {
    pub revision: Revision,
    /// How long no row was folded while both states were put together, in microseconds; none where nothing was cut over.
    pub cut_over_pause_us: Option<u64>,
}

/// What a change has done.
pub(super) struct Changed {
    pub revision: Revision,
    /// How many entities had history.
    pub entities: u64,
    /// As in [`Applied`].
    pub pause_us: u64,
}

/// How often it is looked whether requests of the old revision are under way still: training sets take hours.
const READERS_LOOKS: u32 = 200;

impl ProjectHost {
    /// Makes a proposal live. Rows go on being folded, and lookups answered from the old revision, until the new one
    /// is whole. When anything fails the old revision runs on.
    pub(super) fn apply(&self, proposal: &Proposal, batch: &BatchRequest) -> Result<Applied, PlatformError> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let live = self.live().ok();
        if proposal.plan.changes.is_empty() && live.as_ref().is_some_and(|live| live.revision.number == proposal.base) {
            let revision = commit(self.registry(), self.modules(), proposal, self.clock().now_us())?;
            return Ok(Applied { revision, cut_over_pause_us: None });
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
            return Ok(Applied { revision: self.live()?.revision.clone(), cut_over_pause_us: None });
        };
        let from = self.start_of(proposal, &live)?;
        let target = self.target(&proposal.project, &live, from)?;
        let refusals: Arc<dyn RefusalSink> = Arc::new(Refusals::default());
        let changed = self.change(&live, target, batch, refusals, || {
            self.storage().crash_point("before the revision")?;
            Ok(commit(self.registry(), self.modules(), proposal, revision.created_at_us)?)
        })?;
        let is_of_pause = |change: &Change| matches!(change.change, ChangeKind::Pause | ChangeKind::Resume);
        if proposal.plan.changes.iter().any(is_of_pause)
            && let Err(error) = self.let_go_now()
        {
            // It is live; what it stands beside goes with the next change.
            tracing::warn!("what revision {} has paused or resumed is there twice: {error}", changed.revision.number);
        }
        Ok(Applied { revision: changed.revision, cut_over_pause_us: Some(changed.pause_us) })
    }

    /// Builds what a target lacks, cuts over to it, and commits.
    pub(super) fn change(
        &self,
        live: &Arc<Live>,
        target: Target,
        batch: &BatchRequest,
        refusals: Arc<dyn RefusalSink>,
        commit: impl FnOnce() -> Result<Revision, PlatformError>,
    ) -> Result<Changed, PlatformError> {
        if target.lacks_something() {
            self.check_memory()?;
        }
        let on_demand = self.on_demand_udfs(&target.project)?;
        let logs = self.open_logs(&target.project)?;
        // Never beyond the stream: where that stops, the build must be able to come to.
        let stands = target.stands.clone();
        let told = Told::new(batch.progress.clone());
        let mut built = self.build(target, &stands, batch, &told, &refusals)?;
        let entities = built.entities;
        for _ in 0..CATCH_UPS {
            let stands = self.stands(built.project());
            let lacks = |(source, position): (&String, &u64)| {
                stands.get(source).map_or(0, |stands| stands.saturating_sub(*position))
            };
            if built.positions.iter().map(lacks).max().unwrap_or(0) <= NEAR_RECORDS {
                break;
            }
            let part = told.part();
            built.catch_up(&stands, &logs, &|rows, total| {
                part(Progress { rows, total });
                Ok(batch.settings.check_wanted()?)
            })?;
        }
        batch.settings.check_wanted()?;
        let _cutting = self.cutting.lock().unwrap_or_else(PoisonError::into_inner);
        self.check_open()?;
        let cut = || -> Result<(Arc<Live>, u64), PlatformError> {
            let mut stream = self.stream();
            let stopped_at_us = self.clock().monotonic_us();
            let stopped = under_new_names(self.halt(&mut stream)?, built.project());
            built.catch_up(&stopped.positions, &logs, &|_, _| Ok(()))?;
            self.storage().crash_point("while the stream is stopped")?;
            let (mut positions, mut clocks) = (built.positions.clone(), built.clocks.clone());
            positions.extend(stopped.positions.clone());
            for (source, clock) in &stopped.clocks {
                let (source, clock) = (source.clone(), *clock);
                let built = clocks.entry(source).or_insert(clock);
                let settled_us = built.settled_us.max(clock.settled_us);
                // A stream that has read nothing has no clock.
                *built = if clock.clock_us > i64::MIN { clock } else { *built };
                built.settled_us = settled_us;
            }
            let Stopped { compiled: running, groups, positions: at, clocks: standing, said, checkpoints, .. } = stopped;
            let joined = built.join(&running, Halted { groups, positions: at, clocks: standing })?;
            live.online.prepare(&joined.compiled.layout);
            let compiled = joined.compiled.clone();
            let (is_fresh, waits) = (joined.fresh.contains(&true), joined.waits);
            // Nothing waits for state that is stored already.
            let stored_after = is_fresh.then(|| checkpoints.epoch());
            let parts = self.parts(live, joined, checkpoints, &positions, clocks, said, logs);
            let running = Stream::start(parts, self.stream_settings())?;
            let watch = running.watch();
            *stream = Some(running);
            drop(stream);
            let stood_us = || self.clock().monotonic_us().saturating_sub(stopped_at_us);
            let mut pause_us = stood_us();
            settled(&watch, stored_after)?;
            let revision = commit()?;
            self.storage().crash_point("after the cut over")?;
            let next = Arc::new(Live { revision, compiled, online: live.online.clone(), on_demand });
            *self.live.write().unwrap_or_else(PoisonError::into_inner) = Some(next.clone());
            if waits {
                // A request that began with the old revision must not see a row that one after it does not see.
                let mut looks = READERS_LOOKS;
                while Arc::strong_count(live) > 1 && looks > 0 {
                    std::thread::sleep(LOOK_EVERY);
                    looks -= 1;
                }
                self.stream().iter().for_each(Stream::go_on);
                pause_us = stood_us();
            }
            self.note_pause(pause_us);
            Ok((next, pause_us))
        };
        match cut() {
            Ok((next, pause_us)) => {
                let revision = next.revision.clone();
                next.online.retire(&next.compiled.layout);
                self.note_retired(&next)?;
                Ok(Changed { revision, entities, pause_us })
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
    pub(super) fn stands(&self, project: &Project) -> BTreeMap<String, u64> {
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
            waits: joined.waits,
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
