//! What a lookup shows of one entity, through the code that answers requests.

use crate::reference::Value;
use crate::stream::value_at;
use onefold::define::FeatureReference;
use onefold::platform::ProjectHost;
use onefold::serve::lookup::{Lookup, Served, Status, lookup, value_columns};
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::time::Duration;

/// One entity of a view.
pub struct Shown {
    /// By value column.
    pub values: BTreeMap<String, (Status, Value)>,
    pub event_us: Option<i64>,
}

/// Looks an entity up at `now_us`, once the expiries that the clock asks for have been folded.
pub fn look(
    host: &ProjectHost,
    view: &str,
    entity: &BTreeMap<String, Json>,
    request: &BTreeMap<String, Json>,
    now_us: i64,
) -> Shown {
    let live = host.live().expect("something is applied");
    let project = &live.revision.project;
    let names = value_columns(project, view).unwrap_or_else(|| panic!("no view `{view}`"));
    let features: Vec<FeatureReference> =
        names.into_iter().map(|feature| FeatureReference { view: view.to_owned(), feature }).collect();
    let one_row = |given: &BTreeMap<String, Json>| -> BTreeMap<String, Vec<Json>> {
        given.iter().map(|(name, value)| (name.clone(), vec![value.clone()])).collect()
    };
    let (entities, request) = (one_row(entity), one_row(request));
    let udf = |view: &str, feature: &str| live.on_demand.get(&(view.to_owned(), feature.to_owned())).cloned();
    let served = Served { project, layout: &live.compiled.layout, online: &*live.online, on_demand_udf: &udf };
    let asked = Lookup { features: &features, entities: &entities, request: &request, now_us };
    for _ in 0..6000 {
        let found = lookup(&served, &asked).unwrap_or_else(|problem| panic!("`{view}`: {problem:?}"));
        if found.columns.iter().any(|column| column.rows.stale[0]) {
            std::thread::sleep(Duration::from_millis(1));
            continue;
        }
        let times = &found.columns[0].rows;
        let value = |column: &onefold::serve::lookup::Column| (column.statuses[0], value_at(&column.values, 0));
        let columns = features.iter().zip(&found.columns);
        return Shown {
            values: columns.map(|(reference, column)| (reference.feature.clone(), value(column))).collect(),
            event_us: times.event_us[0],
        };
    }
    panic!("values of `{view}` stay behind the clock: {entity:?}")
}
