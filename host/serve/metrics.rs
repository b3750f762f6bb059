//! What a scraper reads: names begin with `onefold_` and end with their unit.

use crate::platform::Platform;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// From a lookup in memory to a build that takes minutes.
const REQUEST_SECONDS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 10.0, 60.0];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabels {
    method: String,
    route: String,
    status: u16,
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
}

impl Default for Metrics {
    fn default() -> Metrics {
        let mut registry = Registry::with_prefix("onefold");
        let requests: Family<RequestLabels, Histogram> =
            Family::new_with_constructor(|| Histogram::new(REQUEST_SECONDS));
        let rows: Family<SourceLabels, Counter> = Family::default();
        let entities = Counter::default();
        let help = "How long requests took, by route";
        registry.register_with_unit("request", help, Unit::Seconds, requests.clone());
        registry.register("pushed_rows", "Pushed rows, by source and outcome", rows.clone());
        registry.register("looked_up_entities", "Entity rows that lookups asked for", entities.clone());
        Metrics { registry, requests, rows, entities }
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

    /// All of it as text, with what the platform says of itself.
    pub fn text(&self, _platform: &Platform) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}
