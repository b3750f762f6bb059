//! What was typed: the documents of a definition directory, key by key. What they mean is `check/`.
//!
//! Keys of type `NotYet` are part of the interface, and not of this version: they are read only to be refused by
//! name, and the published schema does not offer them.

use super::located::{Located, NotYet, OneOrMany, Ordered, TextOr};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

/// A document, by its `kind`.
#[derive(Clone, Debug, PartialEq)]
pub enum Typed {
    Project(ProjectDocument),
    Source(SourceDocument),
    Entity(EntityDocument),
    FeatureView(FeatureViewDocument),
    OnDemandFeatureView(OnDemandDocument),
    FeatureService(ServiceDocument),
    Module(ModuleDocument),
    Test(TestDocument),
}

/// The project that all documents beside it belong to.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProjectDocument {
    #[schemars(extend("const" = "project"))]
    pub kind: String,
    /// The top-level namespace: every key in a store and every URL is inside it.
    pub name: Located<String>,
    /// Which of several directories that feed one project this is; the project's name if missing.
    pub set: Option<Located<String>>,
    #[schemars(skip)]
    pub online_store: Option<Located<NotYet>>,
    /// How long the state of what a revision retired is folded on, so that a rollback needs no history; `1h` if missing.
    pub keep_revisions: Option<Located<String>>,
    #[schemars(skip)]
    pub renamed_from: Option<Located<NotYet>>,
    pub description: Option<String>,
    pub owner: Option<String>,
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    pub deprecated: Option<String>,
}

/// Where rows come from, and the columns they have.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SourceDocument {
    #[schemars(extend("const" = "source"))]
    pub kind: String,
    pub name: Located<String>,
    /// How events come as they happen.
    pub stream: Option<Located<StreamIn>>,
    /// Where history lies.
    pub batch: Option<Located<BatchIn>>,
    /// Of the stream's values: json.
    pub format: Option<Located<String>>,
    /// The timestamp column that says when a row happened.
    pub event_time: Located<String>,
    /// How far the watermark stays behind the newest row; `0s` if missing.
    pub out_of_orderness: Option<Located<String>>,
    /// How far a row may lie in the future of its arrival; `1h` if missing.
    pub max_future: Option<Located<String>>,
    #[schemars(skip)]
    pub event_id: Option<Located<NotYet>>,
    /// Its name until now: state and values stay.
    pub renamed_from: Option<Located<String>>,
    /// Column: type, or type and where its value is taken from.
    pub schema: Ordered<TextOr<ColumnShape>>,
    /// Run in order on each row as it comes in; their outputs become columns.
    #[serde(default)]
    pub transforms: Vec<Located<TransformUse>>,
    pub description: Option<String>,
    pub owner: Option<String>,
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    pub deprecated: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StreamIn {
    /// Events come by HTTP into the project's log.
    pub push: Option<Located<Push>>,
    #[schemars(skip)]
    pub kafka: Option<Located<NotYet>>,
}

/// Takes no settings yet: write `push: {}`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Push {}

#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BatchIn {
    pub parquet: Option<ParquetIn>,
    #[schemars(skip)]
    pub complete_after: Option<Located<NotYet>>,
    #[schemars(skip)]
    pub arrival: Option<Located<NotYet>>,
}

#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ParquetIn {
    #[schemars(skip)]
    pub connection: Option<Located<NotYet>>,
    /// A file, a directory or Hive partitions, relative to this definition file.
    pub path: Located<String>,
}

#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ColumnShape {
    /// boolean, int64, float64, timestamp(_ms, _us, _s), utf8, binary, json, list<int64>, …
    #[serde(rename = "type")]
    pub type_name: Located<String>,
    /// Where it stands in an event: `$.order.price`; `$` is all of it.
    pub stream: Option<Located<String>>,
    /// Its column in the files.
    pub batch: Option<Located<String>>,
}

#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TransformUse {
    /// `module.udf`, or `module.udf@3` for one version.
    pub udf: Located<String>,
    #[serde(default)]
    pub inputs: Vec<Located<String>>,
    /// Names of the columns it adds; the UDF's own names if missing.
    pub outputs: Option<Vec<Located<String>>>,
    #[serde(default)]
    pub params: Parameters,
}

/// The parameters of a UDF, checked against the module itself.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Parameters(pub serde_json::Map<String, Value>);

/// What features are about.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EntityDocument {
    #[schemars(extend("const" = "entity"))]
    pub kind: String,
    pub name: Located<String>,
    /// Key: type (utf8, int64, boolean, binary or timestamp).
    pub join_keys: Ordered<Located<String>>,
    /// Its name until now: state and values stay.
    pub renamed_from: Option<Located<String>>,
    pub description: Option<String>,
    pub owner: Option<String>,
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    pub deprecated: Option<String>,
}

/// Features of an entity, folded from the rows of one source.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FeatureViewDocument {
    #[schemars(extend("const" = "feature_view"))]
    pub kind: String,
    pub name: Located<String>,
    /// Several make a composite key.
    pub entities: Vec<EntityUse>,
    pub source: Located<String>,
    /// How old the newest row of an entity may be when its values are read.
    pub ttl: Option<Located<String>>,
    /// Whether lookups are served; true if missing.
    pub online: Option<Located<OnlineIn>>,
    /// `exclusive`: a label does not see the row of its own instant.
    pub right: Option<Located<String>>,
    /// How long after the watermark a row of an ordered aggregate may come; only in a view that has one. 0 if missing.
    pub allowed_lateness: Option<Located<String>>,
    /// Its name until now: state and values stay.
    pub renamed_from: Option<Located<String>>,
    /// After those of the source.
    #[serde(default)]
    pub transforms: Vec<Located<TransformUse>>,
    /// Name: definition; or `"*": last` for the newest row as it is.
    pub features: Ordered<TextOr<FeatureShape>>,
    pub description: Option<String>,
    pub owner: Option<String>,
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    pub deprecated: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum OnlineIn {
    Switch(bool),
    /// A connection or a layout of its own.
    Elsewhere,
}

/// An entity in a view: `product`, or in a role: `{ customer: { customer_id: buyer_id }, as: buyer_id }`.
#[derive(Clone, Debug, PartialEq)]
pub struct EntityUse {
    pub name: Located<String>,
    /// Join key: the source's column that holds it.
    pub columns: Vec<(Located<String>, Located<String>)>,
    /// What lookups and labels call the key.
    pub alias: Option<Located<String>>,
}

#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FeatureShape {
    /// `module.udf`, or `module.udf@3` for one version.
    pub udf: Located<String>,
    #[serde(default)]
    pub inputs: Vec<Located<String>>,
    #[serde(default)]
    pub params: Parameters,
    /// Rows that fail it take no part in this feature.
    #[serde(rename = "where", default)]
    pub filter: OneOrMany<ComparisonShape>,
    /// `30d`, or a mapping; all rows since the beginning if missing.
    pub window: Option<Located<TextOr<WindowShape>>>,
    /// Several lengths: one feature each, named `feature_30d`.
    pub windows: Option<Vec<Located<TextOr<WindowShape>>>>,
    /// Its name until now: state and values stay.
    pub renamed_from: Option<Located<String>>,
    pub description: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ComparisonShape {
    pub column: Located<String>,
    /// eq, ne, lt, le, gt, ge, in, not_in, is_null, not_null.
    pub op: Located<String>,
    pub value: Option<Value>,
}

#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WindowShape {
    /// The length of a window that slides.
    pub sliding: Option<String>,
    /// How far it slides at a time; by its length if missing.
    pub hop: Option<String>,
    /// How long before the moment of reading it ends.
    pub offset: Option<String>,
    /// The length of windows that stand side by side.
    pub tumbling: Option<String>,
    /// The last whole window instead of the running one.
    pub closed: Option<bool>,
    /// Moves the edges: `-9h` lets days begin at 15:00 UTC.
    pub align: Option<String>,
}

/// Features computed at request time and, the same way, for every training row.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OnDemandDocument {
    #[schemars(extend("const" = "on_demand_feature_view"))]
    pub kind: String,
    pub name: Located<String>,
    /// What comes with the request: name: type.
    #[serde(default)]
    pub request: Ordered<Located<String>>,
    pub features: Ordered<OnDemandShape>,
    /// Its name until now: state and values stay.
    pub renamed_from: Option<Located<String>>,
    pub description: Option<String>,
    pub owner: Option<String>,
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    pub deprecated: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OnDemandShape {
    pub udf: Located<String>,
    /// `request.price`, or `view.feature`.
    pub inputs: Vec<Located<String>>,
    #[serde(default)]
    pub params: Parameters,
    /// Its name until now: state and values stay.
    pub renamed_from: Option<Located<String>>,
    pub description: Option<String>,
}

/// What one model reads.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServiceDocument {
    #[schemars(extend("const" = "feature_service"))]
    pub kind: String,
    pub name: Located<String>,
    /// Views, or `view.feature`.
    pub features: Vec<Located<String>>,
    /// Its name until now: state and values stay.
    pub renamed_from: Option<Located<String>>,
    pub description: Option<String>,
    pub owner: Option<String>,
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    pub deprecated: Option<String>,
}

/// A module built beside the definitions, uploaded when its bytes are new.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModuleDocument {
    #[schemars(extend("const" = "module"))]
    pub kind: String,
    pub name: Located<String>,
    /// The `.wasm`, relative to this definition file.
    pub path: Located<String>,
    pub description: Option<String>,
    pub owner: Option<String>,
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    pub deprecated: Option<String>,
}

/// Not registered: events, and what lookups must then say.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TestDocument {
    #[schemars(extend("const" = "test"))]
    pub kind: String,
    /// Any text.
    pub name: Located<String>,
    pub source: Located<String>,
    pub events: Vec<Value>,
    pub lookups: Vec<LookupShape>,
    pub description: Option<String>,
    pub owner: Option<String>,
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    pub deprecated: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LookupShape {
    /// RFC 3339.
    pub at: Located<String>,
    pub view: Located<String>,
    #[serde(default)]
    pub entity: BTreeMap<String, Value>,
    #[serde(default)]
    pub request: BTreeMap<String, Value>,
    /// All of the view's if missing.
    pub features: Option<Vec<Located<String>>>,
    /// Values by feature; what is not named is not compared.
    #[serde(default)]
    pub expect: BTreeMap<String, Value>,
    /// KNOWN, NOT_FOUND or OUTSIDE_MAX_AGE: what the entity must be.
    pub expect_status: Option<Located<String>>,
    /// RFC 3339, or null for never: until when the values must hold without a new event.
    #[serde(default, deserialize_with = "given")]
    pub expect_valid_until: Option<Value>,
    /// Asked as a row of a training set alone.
    #[serde(default)]
    pub label: bool,
}

/// Tells a null that was typed from nothing at all.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

impl<'de> Deserialize<'de> for OnlineIn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Online;
        impl<'de> Visitor<'de> for Online {
            type Value = OnlineIn;

            fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
                formatter.write_str("true or false")
            }

            fn visit_bool<E: serde::de::Error>(self, switch: bool) -> Result<OnlineIn, E> {
                Ok(OnlineIn::Switch(switch))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<OnlineIn, A::Error> {
                while map.next_entry::<NotYet, NotYet>()?.is_some() {}
                Ok(OnlineIn::Elsewhere)
            }
        }
        deserializer.deserialize_any(Online)
    }
}

impl JsonSchema for OnlineIn {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Online".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "boolean" })
    }
}

impl<'de> Deserialize<'de> for EntityUse {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wrong = "write an entity's name, or { entity: { join_key: column }, as: name }";
        let typed = Located::<TextOr<Ordered<TextOr<Ordered<Located<String>>>>>>::deserialize(deserializer)?;
        let name = match &typed.value {
            TextOr::Text(name) => typed.with(name.clone()),
            TextOr::Shape(_) => typed.with(String::new()),
        };
        let mut entity = EntityUse { name, columns: Vec::new(), alias: None };
        let TextOr::Shape(Ordered(entries)) = typed.value else { return Ok(entity) };
        for (key, value) in entries {
            match value {
                TextOr::Text(alias) if key.value == "as" => entity.alias = Some(key.with(alias)),
                TextOr::Shape(Ordered(columns)) if key.value != "as" && entity.name.value.is_empty() => {
                    entity.name = key;
                    entity.columns = columns;
                }
                _ => return Err(serde::de::Error::custom(wrong)),
            }
        }
        match entity.name.value.is_empty() {
            true => Err(serde::de::Error::custom(wrong)),
            false => Ok(entity),
        }
    }
}

impl JsonSchema for EntityUse {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "EntityUse".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [
                { "type": "string" },
                {
                    "type": "object",
                    "properties": { "as": { "type": "string" } },
                    "additionalProperties": { "type": "object", "additionalProperties": { "type": "string" } },
                    "minProperties": 1
                }
            ]
        })
    }
}
