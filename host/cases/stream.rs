//! A suite as a stream: events pushed as they come due, a checkpoint and a kill in the middle, and lookups.

use super::judge::{self, Told};
use super::{CaseError, Order, Outcome, PROJECT, Runner, Sitting, StreamWay, Suite, events};
use crate::clock::ManualClock;
use crate::define::{EntityStatus, LookupCase, OnDemandInput, Project, TestCase};
use crate::platform::{Platform, PlatformSettings, ProjectHost, Records};
use crate::serve::lookup::{Column, Lookup, Served, Status, lookup};
use crate::storage::forgetful::Forgetful;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// How long rows may take to be served: far more than a case needs.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at a value whose expiry is still due.
const WAIT: Duration = Duration::from_millis(1);

/// An event that is due: its source and its bytes.
type Due<'a> = (&'a str, String);

/// Puts these tests through one world.
pub(super) fn run(
    runner: &Runner,
    suite: &Suite,
    way: &StreamWay,
    sittings: &[Sitting],
    outcome: &mut Outcome,
) -> Result<(), CaseError> {
    let project = suite.project();
    let mut asks: BTreeMap<i64, Vec<(usize, usize)>> = BTreeMap::new();
    for (number, sitting) in sittings.iter().enumerate() {
        for place in &sitting.lookups {
            let lookup = &suite.tests[sitting.test].lookups[*place];
            if !lookup.label && is_streamed(project, &lookup.view) {
                asks.entry(lookup.at_us).or_default().push((number, *place));
            }
        }
    }
    let Some(first_us) = asks.keys().next() else { return Ok(()) };
    let mut world = World::start(runner, suite, way, *first_us)?;
    let (path, middle, mut before_us) = (way.to_string(), asks.len() / 2, i64::MIN);
    for (step, (at_us, asked)) in asks.iter().enumerate() {
        let mut due: Vec<Due> = Vec::new();
        for (number, sitting) in sittings.iter().enumerate() {
            let test = &suite.tests[sitting.test];
            let is_pushed = project.sources.get(&test.source).is_some_and(|source| source.push);
            if !is_pushed || way.late && !asked.iter().any(|(sitting, _)| *sitting == number) {
                continue;
            }
            let come = suite.events[sitting.test].iter();
            let come = come.filter(|event| event.at_us <= *at_us && (way.late || event.at_us > before_us));
            due.extend(come.map(|event| (test.source.as_str(), event.marked(project, &test.source, &sitting.mark))));
        }
        match way.order {
            Order::AsGiven => {}
            Order::Reversed => due.reverse(),
            Order::Shuffled(seed) => shuffle(&mut due, seed.wrapping_add(step as u64)),
        }
        world.clock.set(*at_us);
        if step == middle {
            // What comes between the checkpoint and the kill is in the log alone.
            let rest = due.split_off(due.len() * 2 / 3);
            let between = due.split_off(due.len() / 2);
            world.push(&due, way.batch)?;
            world.restart()?;
            world.push(&between, way.batch)?;
            world.kill()?;
            due = rest;
        }
        world.push(&due, way.batch)?;
        world.tick(project, sittings.iter().map(|sitting| suite.tests[sitting.test].source.as_str()), *at_us)?;
        let host = world.host()?;
        for (number, place) in asked {
            let sitting = &sittings[*number];
            let test = &suite.tests[sitting.test];
            let lookup = &test.lookups[*place];
            let told = look(&host, test, lookup, &sitting.mark)?;
            let differences = judge::differences(project, test, lookup, &told, &path)?;
            outcome.judged(test, lookup.line, &path, differences);
        }
        before_us = *at_us;
    }
    world.platform.close()?;
    Ok(())
}

/// Whether a stream keeps all that a view needs, where lookups find it.
fn is_streamed(project: &Project, view: &str) -> bool {
    if let Some(view) = project.feature_views.get(view) {
        return view.online && project.sources.get(&view.source).is_some_and(|source| source.push);
    }
    let computed = project.on_demand_feature_views.get(view).into_iter().flat_map(|view| &view.features);
    computed.flat_map(|feature| &feature.inputs).all(|input| match input {
        OnDemandInput::Request { .. } => true,
        OnDemandInput::Feature { view, .. } => is_streamed(project, view),
    })
}

fn shuffle(due: &mut [Due], seed: u64) {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    for last in (1..due.len()).rev() {
        let other = usize::try_from(random.next_u64() % (last as u64 + 1)).unwrap_or(0);
        due.swap(last, other);
    }
}

/// A platform over a disk in memory, with a clock that stands still.
struct World<'a> {
    runner: &'a Runner,
    disk: Forgetful,
    clock: Arc<ManualClock>,
    settings: PlatformSettings,
    platform: Arc<Platform>,
    /// By source, the position behind what was pushed.
    pushed: BTreeMap<&'a str, u64>,
}

impl<'a> World<'a> {
    fn start(runner: &'a Runner, suite: &Suite, way: &StreamWay, now_us: i64) -> Result<World<'a>, CaseError> {
        // Time passes by events, and an event can be put on any microsecond.
        let settings = PlatformSettings {
            groups: way.groups,
            threads: way.threads,
            idle_us: i64::MAX,
            ..PlatformSettings::default()
        };
        let disk = Forgetful::new();
        runner.registry(disk.storage())?;
        let clock = Arc::new(ManualClock::at(now_us));
        let platform = open(runner, &disk, &clock, &settings)?;
        platform.apply(PROJECT, &suite.proposal)?;
        Ok(World { runner, disk, clock, settings, platform, pushed: BTreeMap::new() })
    }

    fn host(&self) -> Result<Arc<ProjectHost>, CaseError> {
        self.platform.project(PROJECT).ok_or_else(|| CaseError::failed("the project is not running"))
    }

    fn push(&mut self, due: &[Due<'a>], batch: usize) -> Result<(), CaseError> {
        let host = self.host()?;
        let mut by_source: BTreeMap<&str, Vec<&[u8]>> = BTreeMap::new();
        for (source, event) in due {
            by_source.entry(source).or_default().push(event.as_bytes());
        }
        for (source, events) in by_source {
            for events in events.chunks(batch.max(1)) {
                let records = Records::from_slices(events.iter().copied());
                let records = records.ok_or_else(|| CaseError::Wrong("a case holds 4 GiB of events".into()))?;
                let position = host.push(source, records, None)?.position;
                self.pushed.insert(source, position);
            }
        }
        Ok(())
    }

    /// Moves the clock of each source to this instant, and waits until lookups see all that was pushed.
    fn tick(
        &mut self,
        project: &'a Project,
        sources: impl Iterator<Item = &'a str>,
        at_us: i64,
    ) -> Result<(), CaseError> {
        for source in sources.collect::<BTreeSet<_>>() {
            let Some(source) = project.sources.get(source).filter(|source| source.push) else { continue };
            let time_us = at_us.saturating_add(source.out_of_orderness_us);
            // However far ahead of the rows the source lets its clock stand, this event is not from the future.
            self.clock.set(time_us);
            self.push(&[(&source.name, events::tick(project, source, time_us))], 1)?;
            self.clock.set(at_us);
        }
        let host = self.host()?;
        for (source, position) in &self.pushed {
            if !host.wait_served(source, *position, PATIENCE) {
                let status = host.status().stream.error.unwrap_or_else(|| "it is still reading".into());
                return Err(CaseError::Failed(format!("the stream of `{source}` does not come to its end: {status}")));
            }
        }
        Ok(())
    }

    /// Stores a checkpoint, ends everything, and comes up again from it.
    fn restart(&mut self) -> Result<(), CaseError> {
        self.platform.close()?;
        self.reopen()
    }

    /// Ends as a killed process does, in the middle of what it did, and comes up from what lay on the disk.
    fn kill(&mut self) -> Result<(), CaseError> {
        let left = self.disk.copy();
        self.platform.close()?;
        self.disk = left;
        self.reopen()
    }

    fn reopen(&mut self) -> Result<(), CaseError> {
        // Each process has a name of its own, which comes from the time.
        self.clock.advance(1);
        self.platform = open(self.runner, &self.disk, &self.clock, &self.settings)?;
        Ok(())
    }
}

fn open(
    runner: &Runner,
    disk: &Forgetful,
    clock: &Arc<ManualClock>,
    settings: &PlatformSettings,
) -> Result<Arc<Platform>, CaseError> {
    Ok(Platform::open_with(settings.clone(), disk.storage(), clock.clone(), runner.modules.clone())?)
}

/// Looks an entity up, once the expiries that the clock asks for have been folded.
fn look(host: &ProjectHost, test: &TestCase, asked: &LookupCase, mark: &str) -> Result<Told, CaseError> {
    let live = host.live()?;
    let project = &live.revision.project;
    let features = judge::asked(project, asked);
    let one_row = |given: &BTreeMap<String, Value>| -> BTreeMap<String, Vec<Value>> {
        given.iter().map(|(name, value)| (name.clone(), vec![value.clone()])).collect()
    };
    let (entities, request) = (one_row(&events::marked(&asked.entity, mark)), one_row(&asked.request));
    let udf = |view: &str, feature: &str| live.on_demand.get(&(view.to_owned(), feature.to_owned())).cloned();
    let served = Served { project, layout: &live.compiled.layout, online: &*live.online, on_demand_udf: &udf };
    let question = Lookup { features: &features, entities: &entities, request: &request, now_us: asked.at_us };
    let looks = PATIENCE.as_micros() / WAIT.as_micros();
    for _ in 0..looks {
        let found = lookup(&served, &question).map_err(|problem| match problem.status.is_client_error() {
            true => CaseError::at(test, asked.line, &problem.detail),
            false => CaseError::Failed(problem.detail),
        })?;
        let is_stale = |column: &Arc<Column>| column.rows.stale.iter().any(|stale| *stale);
        if found.columns.iter().any(is_stale) {
            std::thread::sleep(WAIT);
            continue;
        }
        let mut told = Told::default();
        for (reference, column) in features.iter().zip(&found.columns) {
            told.values.insert(reference.feature.clone(), column.values.clone());
            if let Some(reason) = column.reasons.first().cloned().flatten() {
                told.reasons.insert(reference.feature.clone(), reason);
            }
        }
        if let Some(first) = found.columns.first().filter(|_| project.feature_views.contains_key(&asked.view)) {
            told.status = first.statuses.first().map(|status| match status {
                Status::NotFound => EntityStatus::NotFound,
                Status::OutsideMaxAge => EntityStatus::OutsideMaxAge,
                Status::Present | Status::NullValue | Status::Error => EntityStatus::Known,
            });
        }
        told.valid_until_us = found.columns.first().and_then(|column| column.rows.valid_until_us.first().copied());
        return Ok(told);
    }
    Err(CaseError::Failed(format!("values of `{}` stay behind the clock", asked.view)))
}
