//! The rules of lookups, each at its edge: what is known, how old it may be, until when it holds.

use super::Problem;
use super::lookup::{Found, Lookup, Served, Status, lookup, resolve};
use crate::define::{
    About, Digest, Feature, FeatureReference, FeatureView, JoinKey, OnDemandFeature, OnDemandFeatureView,
    OnDemandInput, Project, UdfUse,
};
use crate::online::{EmbeddedStore, FeatureWrite, NewValue, OnlineBatch, OnlineEntity, OnlineStore};
use crate::route::{Groups, Keys};
use crate::rows::{Layout, RowSet, TableFeature, TableLayout, ViewColumn, ViewLayout};
use crate::std_module::STD_WASM;
use arrow::array::{ArrayRef, AsArray, Int64Array, StringArray};
use arrow::datatypes::Int64Type;
use onefold_fold::{Engine, Field, Kind, Limits, Udf, Window};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

const TTL_US: i64 = 100;
const RETENTION_US: i64 = 1000;

fn digest(number: u8) -> Digest {
    Digest([number; 32])
}

fn udf(name: &str) -> UdfUse {
    UdfUse { module: "std".into(), digest: digest(0), udf: name.into(), params: "{}".into() }
}

/// A view `v` whose features `a` and `b` are in tables of their own, and an on-demand view `d` over `a`.
struct World {
    project: Project,
    layout: Layout,
    online: EmbeddedStore,
    coalesce: Udf,
}

impl World {
    fn new(retention_us: Option<i64>) -> World {
        let names = ["a", "b"];
        let mut layout = Layout::default();
        let mut columns = Vec::new();
        let mut features = Vec::new();
        for (number, name) in names.into_iter().enumerate() {
            let (place, field) = (number as u8, Field::new(name, Kind::Int64));
            let feature = TableFeature {
                fingerprint: digest(10 + place),
                udf: udf("sum"),
                inputs: Vec::new(),
                needs_event_time: false,
                filter: Vec::new(),
                window: Window::Unbounded,
                allowed_lateness_us: None,
                outputs: vec![field.clone()],
            };
            layout.tables.push(TableLayout {
                id: digest(place),
                entity_table: digest(place),
                row_set: RowSet::of_files("s", (number > 0).then(|| digest(99))),
                space: 0,
                key_columns: vec![0],
                key_kinds: vec![Kind::Utf8],
                features: vec![feature],
                retention_us,
            });
            let fingerprint = digest(10 + place);
            let (table, field) = (number, field.clone());
            columns.push(ViewColumn {
                field: field.clone(),
                feature: number,
                table,
                table_feature: 0,
                output: 0,
                fingerprint,
            });
            features.push(Feature {
                name: name.into(),
                udf: udf("sum"),
                inputs: Vec::new(),
                filter: Vec::new(),
                window: Window::Unbounded,
                outputs: vec![field],
                needs_event_time: false,
                allowed_lateness_us: None,
                fingerprint,
            });
        }
        let join_keys = vec![JoinKey { name: "id".into(), column: "id".into(), kind: Kind::Utf8 }];
        layout.views.insert(
            "v".into(),
            ViewLayout {
                name: "v".into(),
                join_keys: join_keys.clone(),
                columns,
                ttl_us: Some(TTL_US),
                retention_us,
                right_exclusive: false,
                online: true,
                source: "s".into(),
            },
        );
        let mut project = Project::empty("p");
        project.feature_views.insert(
            "v".into(),
            FeatureView {
                name: "v".into(),
                about: About::default(),
                entities: vec!["e".into()],
                join_keys,
                source: "s".into(),
                transforms: Vec::new(),
                ttl_us: Some(TTL_US),
                online: true,
                right_exclusive: false,
                paused: None,
                features,
            },
        );
        let instead = Field::new("instead", Kind::Int64);
        let read = OnDemandInput::Feature { view: "v".into(), output: "a".into(), kind: Kind::Int64 };
        let feature = OnDemandFeature {
            name: "or".into(),
            udf: udf("coalesce"),
            inputs: vec![read, OnDemandInput::Request { field: instead.clone() }],
            outputs: vec![Field::new("or", Kind::Int64)],
            fingerprint: digest(20),
        };
        let view = OnDemandFeatureView {
            name: "d".into(),
            about: About::default(),
            request: vec![instead.clone()],
            features: vec![feature],
        };
        project.on_demand_feature_views.insert("d".into(), view);
        let module = Engine::new(Limits::default()).unwrap().load(STD_WASM).unwrap();
        let coalesce = module.prepare("coalesce", "{}", &[Field::new("a", Kind::Int64), instead]).unwrap();
        let online = EmbeddedStore::new(Groups::default());
        online.prepare(&layout);
        World { project, layout, online, coalesce }
    }

    /// Writes one entity of one table.
    fn write(&self, table: usize, key: &str, newest_us: i64, valid_until_us: i64, value: NewValue<'_>) {
        let keys = Keys::encode(&[Arc::new(StringArray::from(vec![key])) as ArrayRef]).unwrap();
        let hash = keys.hash(0);
        let number = u32::from(key.as_bytes()[0]);
        let entity = OnlineEntity {
            group: Groups::default().of(hash),
            number,
            hash,
            key: keys.key(0),
            newest_us,
            valid_until_us,
        };
        let outputs: [ArrayRef; 1] = [Arc::new(Int64Array::from(vec![Some(7), None]))];
        let fingerprint = self.layout.tables[table].features[0].fingerprint;
        let feature = FeatureWrite { fingerprint, outputs: &outputs, rows: &[(0, value)] };
        let batch = OnlineBatch { table: self.layout.tables[table].id, entities: &[entity], features: &[feature] };
        self.online.write(&batch).unwrap();
    }

    fn clock(&self, table: usize, clock_us: i64) {
        let groups: Vec<u32> = Groups::default().all().collect();
        self.online.set_clock(&self.layout.tables[table].id, &groups, clock_us).unwrap();
    }

    fn try_find(&self, names: &[&str], entities: Value, request: Value, now_us: i64) -> Result<Found, Problem> {
        let columns = |value: Value| -> BTreeMap<String, Vec<Value>> { serde_json::from_value(value).unwrap() };
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let udf = |_: &str, _: &str| Some(self.coalesce.clone());
        let served = Served { project: &self.project, layout: &self.layout, online: &self.online, on_demand_udf: &udf };
        let features: Vec<FeatureReference> = resolve(&self.project, &names)?;
        let (entities, request) = (columns(entities), columns(request));
        lookup(&served, &Lookup { features: &features, entities: &entities, request: &request, now_us })
    }

    /// Statuses of features `a` and `b` of one entity.
    fn statuses(&self, key: &str, now_us: i64) -> [Status; 2] {
        let found = self.try_find(&["v"], json!({ "id": [key] }), json!({}), now_us).unwrap();
        [found.columns[0].statuses[0], found.columns[1].statuses[0]]
    }
}

const VALUE: NewValue<'static> = NewValue::Row(0, None);
const NULL: NewValue<'static> = NewValue::Row(1, None);
const NEVER: i64 = i64::MAX;

#[test]
fn a_feature_is_found_where_its_own_table_knows_the_entity() {
    let world = World::new(None);
    assert_eq!(world.statuses("x", 0), [Status::NotFound, Status::NotFound]);
    world.write(0, "x", 10, NEVER, VALUE);
    assert_eq!(world.statuses("x", 10), [Status::Present, Status::NotFound]);
    world.write(1, "x", 10, NEVER, NULL);
    assert_eq!(world.statuses("x", 10), [Status::Present, Status::NullValue]);
    let nobody = world.try_find(&["v"], json!({ "id": [null] }), json!({}), 10).unwrap();
    assert_eq!(nobody.columns[0].statuses, [Status::NotFound], "a null key is no entity");
}

#[test]
fn age_is_that_of_the_newest_row_of_all_tables_and_may_be_the_ttl() {
    let world = World::new(None);
    world.write(0, "x", 10, NEVER, VALUE);
    assert_eq!(world.statuses("x", 10 + TTL_US)[0], Status::Present);
    assert_eq!(world.statuses("x", 10 + TTL_US + 1)[0], Status::OutsideMaxAge);
    world.write(1, "x", 50, NEVER, VALUE);
    assert_eq!(world.statuses("x", 50 + TTL_US), [Status::Present; 2]);
    let found = world.try_find(&["v"], json!({ "id": ["x"] }), json!({}), 51 + TTL_US).unwrap();
    assert_eq!(found.columns[0].statuses, [Status::OutsideMaxAge]);
    assert!(found.columns[0].values.is_null(0), "what is too old is not shown");
    assert_eq!(found.columns[0].rows.event_us, [Some(50)], "how old it is, is");
}

#[test]
fn what_a_view_does_not_keep_is_not_found() {
    let world = World::new(Some(RETENTION_US));
    world.write(0, "x", 10, 500, VALUE);
    assert_eq!(world.statuses("x", 10 + RETENTION_US)[0], Status::OutsideMaxAge);
    assert_eq!(world.statuses("x", 11 + RETENTION_US)[0], Status::NotFound);
    let found = world.try_find(&["v.a"], json!({ "id": ["x"] }), json!({}), 11 + RETENTION_US).unwrap();
    let rows = &found.columns[0].rows;
    assert_eq!((rows.event_us[0], rows.valid_until_us[0], rows.stale[0]), (None, None, false));
}

#[test]
fn a_row_is_stale_from_the_instant_on_that_it_held_until() {
    let world = World::new(None);
    world.write(0, "x", 10, 40, VALUE);
    world.write(1, "x", 10, 60, VALUE);
    let rows = |clock_us: [i64; 2]| {
        world.clock(0, clock_us[0]);
        world.clock(1, clock_us[1]);
        let found = world.try_find(&["v.b"], json!({ "id": ["x"] }), json!({}), 10).unwrap();
        (found.columns[0].rows.valid_until_us[0], found.columns[0].rows.stale[0], found.as_of_us["v"])
    };
    assert_eq!(rows([39, 50]), (Some(40), false, Some(39)));
    assert_eq!(rows([40, 50]), (Some(40), true, Some(40)));
}

#[test]
fn failures_and_reasons_come_along() {
    let world = World::new(None);
    world.write(0, "x", 10, NEVER, NewValue::Failed("trap"));
    world.write(1, "x", 10, NEVER, NewValue::Row(1, Some("overflow")));
    let found = world.try_find(&["v"], json!({ "id": ["x"] }), json!({}), 10).unwrap();
    let of = |column: usize| (found.columns[column].statuses[0], found.columns[column].reasons[0].as_deref());
    assert_eq!(of(0), (Status::Error, Some("trap")));
    assert_eq!(of(1), (Status::NullValue, Some("overflow")));
}

#[test]
fn an_on_demand_feature_reads_what_a_reader_would_see() {
    let world = World::new(None);
    world.write(0, "x", 10, 40, VALUE);
    let request = json!({ "instead": [1, 2, null] });
    let found = world.try_find(&["d.or"], json!({ "id": ["x", "y", "z"] }), request.clone(), 10).unwrap();
    let values: Vec<Option<i64>> = found.columns[0].values.as_primitive::<Int64Type>().iter().collect();
    assert_eq!(values, [Some(7), Some(2), None]);
    assert_eq!(found.columns[0].statuses, [Status::Present, Status::Present, Status::NullValue]);
    assert_eq!(found.columns[0].rows.valid_until_us, [Some(40), None, None]);
    let later = world.try_find(&["d.or"], json!({ "id": ["x", "y", "z"] }), request, 11 + TTL_US).unwrap();
    let value = later.columns[0].values.as_primitive::<Int64Type>().value(0);
    assert_eq!(value, 1, "a value outside its age is null to an on-demand feature too");
}

#[test]
fn wrong_questions_name_what_is_wrong() {
    let world = World::new(None);
    let ask = |names: &[&str], entities: Value, request: Value| {
        let problem = world.try_find(names, entities, request, 0).unwrap_err();
        (problem.status.as_u16(), problem.path.unwrap_or_default())
    };
    assert_eq!(ask(&["w"], json!({}), json!({})), (404, "/features/0".into()));
    assert_eq!(ask(&["v.a", "v.c"], json!({}), json!({})), (404, "/features/1".into()));
    assert_eq!(ask(&["v"], json!({}), json!({})), (422, "/entities/id".into()));
    assert_eq!(ask(&["v"], json!({ "id": ["x", 5] }), json!({})), (422, "/entities/id/1".into()));
    assert_eq!(ask(&["d"], json!({ "id": ["x"] }), json!({})), (422, "/request/instead".into()));
    assert_eq!(ask(&["d"], json!({ "id": ["x"] }), json!({ "instead": [1, 2] })), (422, "/request/instead".into()));
}
