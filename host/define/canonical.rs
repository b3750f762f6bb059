//! JSON with one spelling for one value: keys sorted, no white space. What parameters and fingerprints are made of.

use serde_json::Value;
use std::collections::BTreeMap;

/// The canonical text of a value.
pub fn canonical_json(value: &Value) -> String {
    sorted(value).to_string()
}

/// `serde_json` is built to keep the order of keys, so inserting them in order is what sorts them.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
        Value::Object(entries) => {
            let ordered: BTreeMap<&String, &Value> = entries.iter().collect();
            Value::Object(ordered.into_iter().map(|(key, value)| (key.clone(), sorted(value))).collect())
        }
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_order_of_keys_does_not_matter_and_the_order_of_items_does() {
        let text = canonical_json(&json!({ "b": [2, { "z": null, "a": 1.5 }], "a": "x" }));
        assert_eq!(text, r#"{"a":"x","b":[2,{"a":1.5,"z":null}]}"#);
        assert_ne!(canonical_json(&json!([1, 2])), canonical_json(&json!([2, 1])));
    }
}
