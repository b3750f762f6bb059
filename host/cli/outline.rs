//! An answer in JSON, shown to people as an indented outline.

use serde_json::Value;

/// The outline without a line feed at its end.
pub fn outline(value: &Value) -> String {
    let mut text = String::new();
    put(value, 0, &mut text);
    text.trim_end().to_owned()
}

fn put(value: &Value, depth: usize, text: &mut String) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                match simple(member) {
                    Some(shown) => text.push_str(&format!("{indent}{name}: {shown}\n")),
                    None => {
                        text.push_str(&format!("{indent}{name}:\n"));
                        put(member, depth + 1, text);
                    }
                }
            }
        }
        Value::Array(items) => {
            for item in items {
                match simple(item) {
                    Some(shown) => text.push_str(&format!("{indent}- {shown}\n")),
                    None => {
                        let mut inner = String::new();
                        put(item, depth + 1, &mut inner);
                        // The first line moves up beside its dash.
                        text.push_str(&format!("{indent}- {}", inner.trim_start()));
                    }
                }
            }
        }
        other => text.push_str(&format!("{indent}{}\n", simple(other).unwrap_or_default())),
    }
}

fn simple(value: &Value) -> Option<String> {
    match value {
        Value::Null => Some("-".to_owned()),
        Value::String(text) => Some(text.clone()),
        Value::Array(items) if items.is_empty() => Some("none".to_owned()),
        Value::Object(members) if members.is_empty() => Some("none".to_owned()),
        Value::Array(_) | Value::Object(_) => None,
        other => Some(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn members_are_indented() {
        let value =
            json!({ "revision": 7, "sources": [{ "name": "s", "lag": null, "partitions": [1, 2] }], "jobs": [] });
        let text = "revision: 7\nsources:\n  - name: s\n    lag: -\n    partitions:\n      - 1\n      - 2\njobs: none";
        assert_eq!(outline(&value), text);
    }
}
