//! From definitions as typed to a `Project`, by hand: as much of the interface as the cases and the generators write.
//!
//! The product's own parser must come to the same project; that it does is a test of its own. Fingerprints and digests
//! are zero here, for no value depends on them. Anything that is wrong in a document is a panic: the test data is at fault.

use super::value::parse_time_us;
use onefold::define::{
    About, DecodeAs, Digest, Entity, Feature, FeatureView, JoinKey, ModuleVersion, Project, Source, SourceColumn,
    Transform, UdfUse,
};
use onefold_fold::{Comparison, Field, Kind, Literal, Operator, Window};
use serde_json::Value as Json;
use std::collections::BTreeMap;

/// The documents of a YAML text.
pub fn documents(text: &str) -> Vec<Json> {
    serde_saphyr::from_multiple(text).unwrap_or_else(|error| panic!("no YAML: {error}\n{text}"))
}

/// The project that these documents define; other kinds of document are passed over.
pub fn project(documents: &[Json]) -> Project {
    let of_kind = |kind: &'static str| documents.iter().filter(move |document| document["kind"] == kind);
    let mut project = Project {
        name: of_kind("project").next().map_or_else(|| "test".to_owned(), |document| text(&document["name"])),
        sources: of_kind("source").map(source).map(|source| (source.name.clone(), source)).collect(),
        entities: of_kind("entity").map(entity).map(|entity| (entity.name.clone(), entity)).collect(),
        feature_views: BTreeMap::new(),
        on_demand_feature_views: BTreeMap::new(),
        feature_services: BTreeMap::new(),
        modules: ["std", "ecommerce", "sessions", "trails"]
            .map(|name| ModuleVersion { name: name.to_owned(), version: 1, digest: Digest([0; 32]) })
            .into(),
        keep_revisions_us: None,
    };
    for document in of_kind("feature_view") {
        let view = feature_view(&project, document);
        project.feature_views.insert(view.name.clone(), view);
    }
    project
}

fn source(document: &Json) -> Source {
    let mut columns = Vec::new();
    for (name, declared) in object(&document["schema"]) {
        let decode = match text(declared).as_str() {
            "timestamp_s" => DecodeAs::TimestampSeconds,
            "timestamp_ms" => DecodeAs::TimestampMillis,
            "timestamp_us" => DecodeAs::TimestampMicros,
            "json" => DecodeAs::Json,
            kind => DecodeAs::Kind(Kind::from_name(kind).unwrap_or_else(|| panic!("`{kind}` is no type"))),
        };
        let (stream_path, batch_column) = (vec![name.clone()], name.clone());
        columns.push(SourceColumn { name: name.clone(), decode, stream_path, batch_column });
    }
    let mut kinds = columns.iter().map(|column| (column.name.clone(), column.decode.kind())).collect();
    Source {
        name: text(&document["name"]),
        about: About::default(),
        lineage: text(&document["name"]),
        push: document["stream"].get("push").is_some(),
        batch_path: None,
        event_time: text(&document["event_time"]),
        out_of_orderness_us: optional_duration_us(&document["out_of_orderness"]).unwrap_or(0),
        max_future_us: optional_duration_us(&document["max_future"]).unwrap_or(3_600_000_000),
        columns,
        transforms: transforms(&document["transforms"], &mut kinds),
    }
}

fn entity(document: &Json) -> Entity {
    let join_keys =
        object(&document["join_keys"]).iter().map(|(name, kind)| Field::new(name, named_kind(kind))).collect();
    Entity { name: text(&document["name"]), about: About::default(), join_keys }
}

fn feature_view(project: &Project, document: &Json) -> FeatureView {
    let entities: Vec<String> = items(&document["entities"]).iter().map(text).collect();
    let keys = entities.iter().flat_map(|name| &project.entities[name].join_keys);
    let join_keys =
        keys.map(|key| JoinKey { name: key.name.clone(), column: key.name.clone(), kind: key.kind }).collect();
    let source = &project.sources[&text(&document["source"])];
    let mut kinds: BTreeMap<String, Kind> =
        source.columns.iter().map(|column| (column.name.clone(), column.decode.kind())).collect();
    let made = source.transforms.iter().flat_map(|transform| &transform.outputs);
    kinds.extend(made.map(|output| (output.name.clone(), output.kind)));
    let transforms = transforms(&document["transforms"], &mut kinds);
    let mut features = Vec::new();
    for (name, declared) in object(&document["features"]) {
        match declared.get("windows") {
            None => features.push(feature(name.clone(), declared, declared.get("window"), &kinds)),
            Some(windows) => {
                for window in items(windows) {
                    features.push(feature(format!("{name}_{}", text(window)), declared, Some(window), &kinds));
                }
            }
        }
    }
    let lateness_us = optional_duration_us(&document["allowed_lateness"]).unwrap_or(0);
    for given_us in features.iter_mut().filter_map(|feature| feature.allowed_lateness_us.as_mut()) {
        *given_us = lateness_us;
    }
    FeatureView {
        name: text(&document["name"]),
        about: About::default(),
        entities,
        join_keys,
        source: source.name.clone(),
        transforms,
        ttl_us: optional_duration_us(&document["ttl"]),
        online: document["online"].as_bool().unwrap_or(true),
        right_exclusive: document["right"] == "exclusive",
        paused: None,
        features,
    }
}

fn feature(name: String, declared: &Json, window: Option<&Json>, kinds: &BTreeMap<String, Kind>) -> Feature {
    let udf = udf_use(declared);
    let inputs: Vec<Field> = columns(&declared["inputs"], kinds);
    let filter = match &declared["where"] {
        Json::Null => Vec::new(),
        Json::Array(all) => all.iter().map(|one| comparison(one, kinds)).collect(),
        one => vec![comparison(one, kinds)],
    };
    let made = output_kinds(&udf.udf, &inputs);
    let outputs = match made.as_slice() {
        [one] => vec![Field::new(&name, one.kind)],
        several => several.iter().map(|output| Field::new(format!("{name}__{}", output.name), output.kind)).collect(),
    };
    let window = window.map_or(Window::Unbounded, window_of);
    let allowed_lateness_us = matches!(udf.module.as_str(), "sessions" | "trails").then_some(0);
    let (needs_event_time, fingerprint) = (false, Digest([0; 32]));
    Feature { name, udf, inputs, filter, window, outputs, needs_event_time, allowed_lateness_us, fingerprint }
}

fn output_kinds(udf: &str, inputs: &[Field]) -> Vec<Field> {
    let input = inputs.first().map_or(Kind::Int64, |input| input.kind);
    let kind = match udf {
        "count" | "count_distinct" => Kind::Int64,
        "mean" | "last_n_mean" | "var_samp" | "var_pop" | "stddev_samp" | "stddev_pop" => Kind::Float64,
        "first_n" | "last_n" | "collect_distinct" => match input {
            Kind::Int64 => Kind::Int64List,
            Kind::Float64 => Kind::Float64List,
            Kind::Utf8 => Kind::Utf8List,
            other => panic!("{other} has no list kind"),
        },
        "last_row" => return inputs.to_vec(),
        "sessions" => {
            let length = |name| Field::new(name, Kind::Float64);
            return vec![Field::new("count", Kind::Int64), length("mean_length_s"), length("last_length_s")];
        }
        _ => input,
    };
    vec![Field::new("value", kind)]
}

fn transforms(list: &Json, kinds: &mut BTreeMap<String, Kind>) -> Vec<Transform> {
    let list = list.as_array().map_or(&[][..], Vec::as_slice);
    let resolve = |declared: &Json| {
        let udf = udf_use(declared);
        let inputs: Vec<Field> = columns(&declared["inputs"], kinds);
        let made = match udf.udf.as_str() {
            "filter" => None,
            "coalesce" => Some(inputs[0].kind),
            "cast" => Some(named_kind(&declared["params"]["to"])),
            "amount" => Some(Kind::Float64),
            other => panic!("the tests use no transform `{other}`"),
        };
        let names = declared["outputs"].as_array().map_or(&[][..], Vec::as_slice).iter().map(text);
        let outputs: Vec<Field> = names.zip(made).map(|(name, kind)| Field::new(name, kind)).collect();
        kinds.extend(outputs.iter().map(|output| (output.name.clone(), output.kind)));
        let one_to_one = udf.udf != "filter";
        let inputs = inputs.into_iter().map(|input| input.name).collect();
        Transform { udf, inputs, outputs, one_to_one, needs_event_time: false }
    };
    list.iter().map(resolve).collect()
}

fn udf_use(declared: &Json) -> UdfUse {
    let name = text(&declared["udf"]);
    let (module, udf) = name.split_once('.').unwrap_or_else(|| panic!("`{name}` names no module"));
    let params = declared.get("params").map_or_else(|| "{}".to_owned(), Json::to_string);
    UdfUse { module: module.to_owned(), digest: Digest([0; 32]), udf: udf.to_owned(), params }
}

fn columns(names: &Json, kinds: &BTreeMap<String, Kind>) -> Vec<Field> {
    let names = names.as_array().map_or(&[][..], Vec::as_slice);
    names.iter().map(|name| Field::new(text(name), column_kind(&text(name), kinds))).collect()
}

fn comparison(declared: &Json, kinds: &BTreeMap<String, Kind>) -> Comparison {
    let column = text(&declared["column"]);
    let kind = column_kind(&column, kinds);
    let values = match &declared["value"] {
        Json::Null => Vec::new(),
        Json::Array(values) => values.iter().map(|value| literal(kind, value)).collect(),
        value => vec![literal(kind, value)],
    };
    Comparison { column, operator: operator(&declared["op"]), values }
}

/// An operator as it is typed.
pub fn operator(name: &Json) -> Operator {
    serde_json::from_value(name.clone()).unwrap_or_else(|_| panic!("{name} is no operator"))
}

fn literal(kind: Kind, value: &Json) -> Literal {
    use super::value::Value;
    match Value::from_json(kind, value) {
        Ok(Value::Boolean(value)) => Literal::Boolean(value),
        Ok(Value::Int64(value)) => Literal::Int64(value),
        Ok(Value::Float64(value)) => Literal::Float64Bits(value.to_bits()),
        Ok(Value::Timestamp(value)) => Literal::Timestamp(value),
        Ok(Value::Utf8(value)) => Literal::Utf8(value),
        Ok(Value::Binary(value)) => Literal::Binary(value),
        other => panic!("{value} is no constant of a comparison: {other:?}"),
    }
}

fn window_of(declared: &Json) -> Window {
    if declared.is_string() {
        return window_of(&serde_json::json!({ "sliding": declared }));
    }
    let align_us = optional_duration_us(&declared["align"]).unwrap_or(0);
    if let Some(size_us) = optional_duration_us(&declared["tumbling"]) {
        return Window::Tumbling { size_us, closed: declared["closed"].as_bool().unwrap_or(false), align_us };
    }
    let size_us = optional_duration_us(&declared["sliding"]).unwrap_or_else(|| panic!("{declared} is no window"));
    const HOUR_US: i64 = 3_600_000_000;
    let by_size = match size_us {
        size if size < 12 * HOUR_US => HOUR_US / 12,
        size if size < 12 * 24 * HOUR_US => HOUR_US,
        _ => 24 * HOUR_US,
    };
    let hop_us = optional_duration_us(&declared["hop"]).unwrap_or(by_size);
    Window::Sliding { size_us, hop_us, offset_us: optional_duration_us(&declared["offset"]).unwrap_or(0), align_us }
}

/// `1h30m`, `-9h`, `30d`; null is `None`.
pub fn optional_duration_us(declared: &Json) -> Option<i64> {
    let written = declared.as_str()?;
    let (sign, mut rest) = written.strip_prefix('-').map_or((1, written), |rest| (-1, rest));
    let mut total_us = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or_else(|| panic!("`{written}` has no unit"));
        let number: i64 = rest[..digits].parse().unwrap_or_else(|_| panic!("`{written}` is no duration"));
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        total_us += number
            * match &rest[..letters] {
                "us" => 1,
                "ms" => 1_000,
                "s" => 1_000_000,
                "m" => 60_000_000,
                "h" => 3_600_000_000,
                "d" => 86_400_000_000,
                unit => panic!("`{unit}` in `{written}` is no unit of time"),
            };
        rest = &rest[letters..];
    }
    Some(sign * total_us)
}

/// A time as it is typed in a case.
pub fn time_us(declared: &Json) -> i64 {
    declared.as_str().and_then(parse_time_us).unwrap_or_else(|| panic!("{declared} is no time"))
}

pub fn text(json: &Json) -> String {
    json.as_str().unwrap_or_else(|| panic!("{json} is no text")).to_owned()
}

pub fn items(json: &Json) -> &[Json] {
    json.as_array().unwrap_or_else(|| panic!("{json} is no list"))
}

pub fn object(json: &Json) -> &serde_json::Map<String, Json> {
    json.as_object().unwrap_or_else(|| panic!("{json} is no mapping"))
}

fn named_kind(json: &Json) -> Kind {
    Kind::from_name(&text(json)).unwrap_or_else(|| panic!("{json} is no kind"))
}

fn column_kind(name: &str, kinds: &BTreeMap<String, Kind>) -> Kind {
    *kinds.get(name).unwrap_or_else(|| panic!("no column `{name}`"))
}
