//! What a scraper reads: names begin with `onefold_` and end with their unit.

use crate::platform::Platform;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use std::sync::atomic::AtomicU64;

/// From a lookup in memory to a build that takes minutes.
const REQUEST_SECONDS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 10.0, 60.0];

/// From a few entities in memory to a state of millions.
const PAUSE_SECONDS: [f64; 9] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabels {
    method: String,
    route: String,
    status: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ProjectLabels {
    project: String,
}

/// `name` is that of a source, a reason or a table.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct NamedLabels {
    project: String,
    name: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct SourceLabels {
    project: String,
    source: String,
    outcome: &'static str,
}

/// The counters of this process.
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Histogram>,
    rows: Family<SourceLabels, Counter>,
    entities: Counter,
    pauses: Family<ProjectLabels, Histogram>,
}

impl Default for Metrics {
    fn default() -> Metrics {
        let mut registry = Registry::with_prefix("onefold");
        let requests: Family<RequestLabels, Histogram> =
            Family::new_with_constructor(|| Histogram::new(REQUEST_SECONDS));
        let rows: Family<SourceLabels, Counter> = Family::default();
        let entities = Counter::default();
        let pauses: Family<ProjectLabels, Histogram> = Family::new_with_constructor(|| Histogram::new(PAUSE_SECONDS));
        let help = "How long requests took, by route";
        registry.register_with_unit("request", help, Unit::Seconds, requests.clone());
        registry.register("pushed_rows", "Pushed rows, by source and outcome", rows.clone());
        registry.register("looked_up_entities", "Entity rows that lookups asked for", entities.clone());
        let help = "How long no row was folded while a build was put beside what runs";
        registry.register_with_unit("cut_over_pause", help, Unit::Seconds, pauses.clone());
        Metrics { registry, requests, rows, entities, pauses }
    }
}

impl Metrics {
    pub fn request(&self, method: &str, route: &str, status: u16, took_us: u64) {
        let labels = RequestLabels { method: method.to_owned(), route: route.to_owned(), status };
        self.requests.get_or_create(&labels).observe(took_us as f64 / 1e6);
    }

    pub fn pushed(&self, project: &str, source: &str, accepted: u64, dead_lettered: u64) {
        for (outcome, rows) in [("accepted", accepted), ("dead_lettered", dead_lettered)] {
            let labels = SourceLabels { project: project.to_owned(), source: source.to_owned(), outcome };
            self.rows.get_or_create(&labels).inc_by(rows);
        }
    }

    pub fn lookups(&self, entity_rows: usize) {
        self.entities.inc_by(u64::try_from(entity_rows).unwrap_or(u64::MAX));
    }

    /// All of it as text, with what the platform says of itself now.
    pub fn text(&self, platform: &Platform) -> Result<String, std::fmt::Error> {
        for project in platform.projects() {
            let pauses_us = platform.project(&project).map(|host| host.take_pauses()).unwrap_or_default();
            let pauses = self.pauses.get_or_create_owned(&ProjectLabels { project });
            pauses_us.iter().for_each(|pause_us| pauses.observe(*pause_us as f64 / 1e6));
        }
        let mut text = String::new();
        prometheus_client::encoding::text::encode_registry(&mut text, &self.registry)?;
        prometheus_client::encoding::text::encode(&mut text, &standing(platform))?;
        Ok(text)
    }
}

/// Gauges that are read when they are asked for.
fn standing(platform: &Platform) -> Registry {
    let mut registry = Registry::with_prefix("onefold");
    let position = Family::<NamedLabels, Gauge>::default();
    let lag = Family::<NamedLabels, Gauge>::default();
    let rows = Family::<NamedLabels, Gauge>::default();
    let null_keys = Family::<NamedLabels, Gauge>::default();
    let watermark = Family::<NamedLabels, Gauge<f64, AtomicU64>>::default();
    let newest = Family::<NamedLabels, Gauge<f64, AtomicU64>>::default();
    let letters = Family::<NamedLabels, Gauge>::default();
    let (entities, state) = (Family::<NamedLabels, Gauge>::default(), Family::<NamedLabels, Gauge>::default());
    let busy = Family::<NamedLabels, Gauge<f64, AtomicU64>>::default();
    let checkpoint_took = Family::<ProjectLabels, Gauge<f64, AtomicU64>>::default();
    let checkpoint_pause = Family::<ProjectLabels, Gauge<f64, AtomicU64>>::default();
    let checkpoint_size = Family::<ProjectLabels, Gauge>::default();
    let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    for project in platform.projects() {
        let Some(host) = platform.project(&project) else { continue };
        let status = host.status().stream;
        let named = |name: &str| NamedLabels { project: project.clone(), name: name.to_owned() };
        for (source, status) in &status.sources {
            let labels = named(source);
            position.get_or_create(&labels).set(whole(status.position));
            lag.get_or_create(&labels).set(whole(status.end_position.saturating_sub(status.position)));
            rows.get_or_create(&labels).set(whole(status.rows));
            null_keys.get_or_create(&labels).set(whole(status.null_keys));
            if let Some(us) = status.clock_us {
                watermark.get_or_create(&labels).set(us as f64 / 1e6);
            }
            if let Some(us) = status.newest_us {
                newest.get_or_create(&labels).set(us as f64 / 1e6);
            }
        }
        for (reason, count) in &status.dead_letters {
            letters.get_or_create(&named(reason)).set(whole(*count));
        }
        for table in &status.tables {
            entities.get_or_create(&named(&table.table)).set(whole(table.entities));
            state.get_or_create(&named(&table.table)).set(whole(table.state_bytes));
        }
        for (step, us) in &status.busy_us {
            busy.get_or_create(&named(step)).set(*us as f64 / 1e6);
        }
        let labels = ProjectLabels { project: project.clone() };
        checkpoint_took.get_or_create(&labels).set(status.checkpoint_us as f64 / 1e6);
        checkpoint_pause.get_or_create(&labels).set(status.checkpoint_pause_us as f64 / 1e6);
        checkpoint_size.get_or_create(&labels).set(whole(status.checkpoint_bytes));
    }
    registry.register("source_position", "Events of a source that a lookup sees", position);
    registry.register("source_lag_events", "Events of a source that no lookup sees yet", lag);
    registry.register("source_rows", "Rows of a source since the start", rows);
    registry.register("source_null_key_rows", "Rows without a key of some view, since the start", null_keys);
    registry.register_with_unit("source_clock", "The clock of a source", Unit::Seconds, watermark);
    registry.register_with_unit("source_newest", "The newest event time of a source", Unit::Seconds, newest);
    registry.register("dead_letters", "Rows that could not be processed, by reason", letters);
    registry.register("entities", "Known entities, by table", entities);
    registry.register_with_unit("state", "State in memory, by table", Unit::Bytes, state);
    let help = "How long the stream's threads were busy since the start, by step";
    registry.register_with_unit("stream_busy", help, Unit::Seconds, busy);
    registry.register_with_unit("checkpoint", "How long the last checkpoint took", Unit::Seconds, checkpoint_took);
    let help = "The longest that a folding thread took no rows because of a checkpoint, since the start";
    registry.register_with_unit("checkpoint_pause", help, Unit::Seconds, checkpoint_pause);
    registry.register_with_unit("checkpoint_size", "What the last checkpoint wrote", Unit::Bytes, checkpoint_size);
    registry
}
