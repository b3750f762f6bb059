//! What a project's definitions mean: names resolved, types checked, windows and parameters in canonical form.
//!
//! This is the only form the hosts see. It is what a revision of the registry stores (as JSON), so every type here
//! is plain data. What was typed, with its lines, is `typed.rs`; the way from there to here is `check.rs`.

use onefold_fold::{Comparison, Field, Kind, Window};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// SHA-256, written `sha256:<64 hex digits>` wherever a person sees it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(pub [u8; 32]);

/// A whole project as of one revision. Maps are ordered by name, so equal projects have equal bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Project {
    pub name: String,
    pub sources: BTreeMap<String, Source>,
    pub entities: BTreeMap<String, Entity>,
    pub feature_views: BTreeMap<String, FeatureView>,
    pub on_demand_feature_views: BTreeMap<String, OnDemandFeatureView>,
    pub feature_services: BTreeMap<String, FeatureService>,
    /// Every module that something above uses; several versions of one where definitions pin them.
    pub modules: BTreeSet<ModuleVersion>,
    /// How long what a revision retired is folded on; none: as the host has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_revisions_us: Option<i64>,
}

/// What every document takes, and no fingerprint contains.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    pub description: Option<String>,
    pub owner: Option<String>,
    pub tags: BTreeMap<String, String>,
    pub deprecated: Option<String>,
    /// Which set of directories made it (`--prune` touches only its own).
    pub set: String,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ModuleVersion {
    pub name: String,
    pub version: u32,
    pub digest: Digest,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Source {
    pub name: String,
    pub about: About,
    /// The name under which it was first applied: what fingerprints contain, so that a rename keeps state.
    pub lineage: String,
    /// Events come by HTTP into the project's log.
    pub push: bool,
    /// Parquet: a file, a directory or Hive partitions. Absolute, or relative to nothing but itself (resolved).
    pub batch_path: Option<String>,
    pub event_time: String,
    pub out_of_orderness_us: i64,
    pub max_future_us: i64,
    /// In declared order; the decoded batch has exactly these columns, in this order.
    pub columns: Vec<SourceColumn>,
    pub transforms: Vec<Transform>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SourceColumn {
    pub name: String,
    pub decode: DecodeAs,
    /// Where the value stands in an event: object keys from the root; empty = the whole event (`$`).
    pub stream_path: Vec<String>,
    /// Its column in the Parquet files.
    pub batch_column: String,
}

/// The declared type of a source column: how outside bytes become a value of `kind()`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DecodeAs {
    Kind(Kind),
    TimestampSeconds,
    TimestampMillis,
    TimestampMicros,
    /// The exact bytes of that part of the event, as utf8.
    Json,
}

impl DecodeAs {
    pub fn kind(self) -> Kind {
        match self {
            DecodeAs::Kind(kind) => kind,
            DecodeAs::TimestampSeconds | DecodeAs::TimestampMillis | DecodeAs::TimestampMicros => Kind::Timestamp,
            DecodeAs::Json => Kind::Utf8,
        }
    }
}

/// A UDF as a definition uses it: resolved to the bytes of a module, with its parameters as canonical JSON
/// (keys sorted, no white space; `{}` for none).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct UdfUse {
    pub module: String,
    pub digest: Digest,
    pub udf: String,
    pub params: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Transform {
    pub udf: UdfUse,
    pub inputs: Vec<String>,
    /// The columns it adds, with the kinds `prepare` said.
    pub outputs: Vec<Field>,
    /// Whether the UDF asked for the event time as a last input.
    pub needs_event_time: bool,
    pub one_to_one: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entity {
    pub name: String,
    pub about: About,
    /// In declared order.
    pub join_keys: Vec<Field>,
}

/// One join key of a view: which column of the source holds it, and what lookups and labels call it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct JoinKey {
    pub name: String,
    pub column: String,
    pub kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FeatureView {
    pub name: String,
    pub about: About,
    pub entities: Vec<String>,
    /// Of all its entities, in declared order: what the key bytes are made of.
    pub join_keys: Vec<JoinKey>,
    pub source: String,
    /// The view's own, after the source's.
    pub transforms: Vec<Transform>,
    pub ttl_us: Option<i64>,
    pub online: bool,
    pub right_exclusive: bool,
    /// The revision in which it was paused, if it is: its values stand still. No document says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<u64>,
    /// In declared order.
    pub features: Vec<Feature>,
}

/// One aggregate over one window. Several outputs make several columns of values (`outputs`), one state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Feature {
    /// As declared, with the window's suffix where `windows` gave several (`units_sold_30d`).
    pub name: String,
    pub udf: UdfUse,
    pub inputs: Vec<Field>,
    /// All must hold for a row to take part.
    pub filter: Vec<Comparison>,
    pub window: Window,
    /// The value columns: `name` alone, or `name__output` each.
    pub outputs: Vec<Field>,
    /// Whether the UDF asked for the event time as a last input.
    pub needs_event_time: bool,
    /// Of an aggregate that takes its rows in order: how long after the watermark a row may come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_lateness_us: Option<i64>,
    pub fingerprint: Digest,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OnDemandFeatureView {
    pub name: String,
    pub about: About,
    pub request: Vec<Field>,
    pub features: Vec<OnDemandFeature>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OnDemandFeature {
    pub name: String,
    pub udf: UdfUse,
    pub inputs: Vec<OnDemandInput>,
    pub outputs: Vec<Field>,
    pub fingerprint: Digest,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnDemandInput {
    Request {
        field: Field,
    },
    /// A value column (`output`) of a feature view or of another on-demand view.
    Feature {
        view: String,
        output: String,
        kind: Kind,
    },
}

impl OnDemandInput {
    /// The input as the transform sees it.
    pub fn field(&self) -> Field {
        match self {
            OnDemandInput::Request { field } => field.clone(),
            OnDemandInput::Feature { output, kind, .. } => Field::new(output, *kind),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FeatureService {
    pub name: String,
    pub about: About,
    /// Value columns in the order asked for, whole views spelled out.
    pub features: Vec<FeatureReference>,
}

/// One value column of one view; a training set calls it `view__feature`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FeatureReference {
    pub view: String,
    pub feature: String,
}
