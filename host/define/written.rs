//! From what definitions mean back to documents, so that a part of a project can stand in a file of its own.

use super::model::{Feature, FeatureView, Project, Source, Transform, UdfUse};
use super::window_text::duration_text;
use base64::Engine as _;
use onefold_fold::{Comparison, Field, Literal, Operator, Window};
use serde_json::{Map, Value, json};

/// A comparison for people: `quantity ge 10`.
pub fn comparison_text(comparison: &Comparison) -> String {
    let operator = operator_name(comparison.operator);
    let literals: Vec<String> = comparison.values.iter().map(|literal| literal_json(literal).to_string()).collect();
    match (comparison.operator, literals.as_slice()) {
        (Operator::In | Operator::NotIn, all) => format!("{} {operator} [{}]", comparison.column, all.join(", ")),
        (_, []) => format!("{} {operator}", comparison.column),
        (_, all) => format!("{} {operator} {}", comparison.column, all.join(", ")),
    }
}

/// The documents of one view with one feature (by the feature's own name) and of what it hangs on: source, entity,
/// view. All of the source's and the view's columns and transforms are taken to be needed. Columns stand at the top of
/// an event, under their names and of their kinds; the keys are those of one entity.
pub fn documents_of(project: &Project, view: &str, feature: &str) -> Option<Vec<Value>> {
    let view = project.feature_views.get(view)?;
    let source = project.sources.get(&view.source)?;
    let feature = view.features.iter().find(|one| one.name == feature)?;
    let entity = view.entities.join("_");
    let keys: Map<String, Value> =
        view.join_keys.iter().map(|key| (key.name.clone(), json!(key.kind.name()))).collect();
    Some(vec![
        json!({ "kind": "project", "name": project.name }),
        source_document(source),
        json!({ "kind": "entity", "name": entity, "join_keys": keys }),
        view_document(view, feature, &entity),
    ])
}

fn source_document(source: &Source) -> Value {
    let schema: Map<String, Value> =
        source.columns.iter().map(|column| (column.name.clone(), json!(column.decode.kind().name()))).collect();
    let mut document = json!({
        "kind": "source", "name": source.name, "stream": { "push": {} }, "event_time": source.event_time,
    });
    if source.out_of_orderness_us > 0 {
        document["out_of_orderness"] = json!(duration(source.out_of_orderness_us));
    }
    document["max_future"] = json!(duration(source.max_future_us));
    document["schema"] = Value::Object(schema);
    put_transforms(&mut document, &source.transforms);
    document
}

fn view_document(view: &FeatureView, feature: &Feature, entity: &str) -> Value {
    let renamed: Map<String, Value> = view
        .join_keys
        .iter()
        .filter(|key| key.name != key.column)
        .map(|key| (key.name.clone(), json!(key.column)))
        .collect();
    let used = match renamed.is_empty() {
        true => json!(entity),
        false => json!({ entity: renamed }),
    };
    let mut document = json!({ "kind": "feature_view", "name": view.name, "entities": [used], "source": view.source });
    if let Some(ttl_us) = view.ttl_us {
        document["ttl"] = json!(duration(ttl_us));
    }
    if view.right_exclusive {
        document["right"] = json!("exclusive");
    }
    put_transforms(&mut document, &view.transforms);
    // A feature whose values are named by its columns alone is the newest row as it is.
    let is_row = feature
        .outputs
        .iter()
        .all(|output| output.name != feature.name && !output.name.starts_with(&format!("{}__", feature.name)));
    let (name, shape) = if is_row { ("*", json!("last")) } else { (feature.name.as_str(), feature_shape(feature)) };
    document["features"] = json!({ name: shape });
    document
}

fn feature_shape(feature: &Feature) -> Value {
    let mut shape = json!({ "udf": udf_name(&feature.udf) });
    put_inputs(&mut shape, feature.inputs.iter().map(|field| field.name.as_str()), &feature.udf);
    let comparisons: Vec<Value> = feature.filter.iter().map(comparison_shape).collect();
    if !comparisons.is_empty() {
        shape["where"] = json!(comparisons);
    }
    if let Some(window) = window_shape(&feature.window) {
        shape["window"] = window;
    }
    shape
}

fn put_transforms(document: &mut Value, transforms: &[Transform]) {
    if transforms.is_empty() {
        return;
    }
    let shapes = transforms.iter().map(|transform| {
        let mut shape = json!({ "udf": udf_name(&transform.udf) });
        put_inputs(&mut shape, transform.inputs.iter().map(String::as_str), &transform.udf);
        if !transform.outputs.is_empty() {
            let names = transform.outputs.iter().map(|Field { name, .. }| name.as_str());
            shape["outputs"] = names.collect();
        }
        shape
    });
    document["transforms"] = shapes.collect();
}

fn put_inputs<'a>(shape: &mut Value, inputs: impl Iterator<Item = &'a str>, udf: &UdfUse) {
    let inputs: Vec<&str> = inputs.collect();
    if !inputs.is_empty() {
        shape["inputs"] = json!(inputs);
    }
    let params: Value = serde_json::from_str(&udf.params).unwrap_or_default();
    if params.as_object().is_some_and(|params| !params.is_empty()) {
        shape["params"] = params;
    }
}

fn udf_name(udf: &UdfUse) -> String {
    format!("{}.{}", udf.module, udf.udf)
}

fn window_shape(window: &Window) -> Option<Value> {
    let (mut shape, align_us) = match *window {
        Window::Unbounded => return None,
        Window::Sliding { size_us, hop_us, offset_us, align_us } => {
            let mut shape = json!({ "sliding": duration(size_us), "hop": duration(hop_us) });
            if offset_us != 0 {
                shape["offset"] = json!(duration(offset_us));
            }
            (shape, align_us)
        }
        Window::Tumbling { size_us, closed, align_us } => {
            let mut shape = json!({ "tumbling": duration(size_us) });
            if closed {
                shape["closed"] = json!(true);
            }
            (shape, align_us)
        }
    };
    if align_us != 0 {
        shape["align"] = json!(duration(align_us));
    }
    Some(shape)
}

fn comparison_shape(comparison: &Comparison) -> Value {
    let mut shape = json!({ "column": comparison.column, "op": operator_name(comparison.operator) });
    match (comparison.operator, comparison.values.as_slice()) {
        (Operator::IsNull | Operator::NotNull, _) => {}
        (Operator::In | Operator::NotIn, values) => shape["value"] = values.iter().map(literal_json).collect(),
        (_, values) => shape["value"] = values.first().map_or(Value::Null, literal_json),
    }
    shape
}

fn operator_name(operator: Operator) -> &'static str {
    match operator {
        Operator::Eq => "eq",
        Operator::Ne => "ne",
        Operator::Lt => "lt",
        Operator::Le => "le",
        Operator::Gt => "gt",
        Operator::Ge => "ge",
        Operator::In => "in",
        Operator::NotIn => "not_in",
        Operator::IsNull => "is_null",
        Operator::NotNull => "not_null",
    }
}

fn literal_json(literal: &Literal) -> Value {
    match literal {
        Literal::Boolean(boolean) => json!(boolean),
        Literal::Int64(number) => json!(number),
        Literal::Float64Bits(bits) => match f64::from_bits(*bits) {
            float if float.is_nan() => json!("NaN"),
            f64::INFINITY => json!("Infinity"),
            f64::NEG_INFINITY => json!("-Infinity"),
            float => json!(float),
        },
        Literal::Timestamp(us) => {
            jiff::Timestamp::from_microsecond(*us).map_or(Value::Null, |time| json!(format!("{time:.6}")))
        }
        Literal::Utf8(text) => json!(text),
        Literal::Binary(bytes) => json!(base64::engine::general_purpose::STANDARD.encode(bytes)),
    }
}

/// As durations are typed: `1h30m`.
fn duration(us: i64) -> String {
    duration_text(us).replace(' ', "")
}
