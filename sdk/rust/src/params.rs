//! Parameters: a struct that serde reads and schemars describes; `()` for a UDF that takes none.

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use std::any::TypeId;

/// The JSON Schema of the parameters; empty for `()`.
pub fn schema<P: JsonSchema + 'static>() -> String {
    if TypeId::of::<P>() == TypeId::of::<()>() {
        return String::new();
    }
    serde_json::to_string(&schemars::schema_for!(P)).unwrap_or_default()
}

/// Reads the parameters of a UDF. Unknown names, missing ones and wrong types are errors that name the value and the rule.
pub fn parse<P: DeserializeOwned + JsonSchema + 'static>(udf: &str, text: &str) -> Result<P, String> {
    let text = if text.trim().is_empty() { "{}" } else { text };
    let value: serde_json::Value =
        serde_json::from_str(text).map_err(|error| format!("params {text}: not JSON ({error})"))?;
    let Some(object) = value.as_object() else {
        return Err(format!("params {text}: not a JSON object; write names and values, as in {{\"n\": 5}}"));
    };
    if TypeId::of::<P>() == TypeId::of::<()>() {
        if let Some(name) = object.keys().next() {
            return Err(format!("param `{name}`: {udf} takes no parameters; remove it"));
        }
        return serde_json::from_value(serde_json::Value::Null).map_err(|error| error.to_string());
    }
    let schema = schemars::schema_for!(P);
    if let Some(known) = schema.get("properties").and_then(|properties| properties.as_object())
        && let Some(unknown) = object.keys().find(|name| !known.contains_key(*name))
    {
        let names = known.keys().cloned().collect::<Vec<_>>().join(", ");
        return Err(format!("param `{unknown}`: {udf} has no such parameter; it takes {names}"));
    }
    serde_json::from_value(value).map_err(|error| format!("params {text}: {error}; see the parameters of {udf}"))
}
