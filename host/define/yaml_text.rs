//! Documents as YAML text that a person can read, and that reads back as the same documents.

use serde_json::Value;

/// Members of a document that are written one entry a line.
const LONG: [&str; 6] = ["schema", "transforms", "features", "events", "lookups", "join_keys"];

/// One YAML document.
pub fn document_text(document: &Value) -> String {
    let mut text = String::new();
    for (key, value) in document.as_object().into_iter().flatten() {
        match value {
            Value::Object(members) if LONG.contains(&key.as_str()) && !members.is_empty() => {
                text.push_str(&format!("{key}:\n"));
                for (name, member) in members {
                    text.push_str(&format!("  {}: {}\n", scalar(name), flow(member)));
                }
            }
            Value::Array(items) if LONG.contains(&key.as_str()) && !items.is_empty() => {
                text.push_str(&format!("{key}:\n"));
                for item in items {
                    text.push_str(&format!("  - {}\n", flow(item)));
                }
            }
            value => text.push_str(&format!("{}: {}\n", scalar(key), flow(value))),
        }
    }
    text
}

/// A value on one line.
fn flow(value: &Value) -> String {
    match value {
        Value::Object(members) if members.is_empty() => "{}".to_owned(),
        Value::Object(members) => {
            let members = members.iter().map(|(name, member)| format!("{}: {}", scalar(name), flow(member)));
            format!("{{ {} }}", members.collect::<Vec<_>>().join(", "))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", ")),
        Value::String(text) => scalar(text),
        other => other.to_string(),
    }
}

/// Text that is a name is bare; all else is quoted as JSON is, which YAML reads, with escapes for what YAML does not
/// take as it is.
fn scalar(text: &str) -> String {
    const WORDS: [&str; 9] = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    let is_name = text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.chars().all(|one| one.is_ascii_lowercase() || one.is_ascii_digit() || matches!(one, '_' | '.'));
    if is_name && !WORDS.contains(&text) {
        return text.to_owned();
    }
    let escape = |character: char| match u32::from(character) {
        0x20..0x7f => character.to_string(),
        _ if character.is_alphanumeric() => character.to_string(),
        code @ ..0x10000 => format!("\\u{code:04x}"),
        code => format!("\\U{code:08x}"),
    };
    Value::from(text).to_string().chars().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    proptest! {
        #[test]
        fn every_text_comes_back(text in any::<String>(), key in "[a-z]{1,4}") {
            let document = document_text(&json!({ "events": [{ key.clone(): text }], key.clone(): text }));
            let read: Value = super::super::read_yaml("case.yaml", &document).unwrap();
            prop_assert_eq!(&read["events"][0][&key], &json!(text), "{}", document);
        }
    }
}
