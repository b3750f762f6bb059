//! An explained value as a file of definitions with a `kind: test`, and the modules beside it.

use super::Failure;
use super::client::Reach;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Members of a document that are written one entry a line.
const LONG: [&str; 6] = ["schema", "transforms", "features", "events", "lookups", "join_keys"];

/// Writes the case, and returns the files that were written.
pub fn write(file: &Path, case: &Value, told: &Value, reach: &Reach) -> anyhow::Result<Vec<PathBuf>> {
    let mut documents = case["documents"].as_array().cloned().unwrap_or_default();
    let mut written = Vec::new();
    let stem = file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    for module in case["modules"].as_array().into_iter().flatten() {
        let name = module["name"].as_str().unwrap_or_default();
        let version = module["version"].to_string();
        let path = reach.path(&["modules", name, &version])?;
        let answer = reach.send("GET", &path, &[("accept", "application/wasm")], Vec::new())?;
        if answer.status != 200 {
            return Err(Failure::Outside(format!("module `{name}` version {version} cannot be had")).into());
        }
        let beside = format!("{stem}.{name}.wasm");
        let path = file.with_file_name(&beside);
        std::fs::write(&path, answer.body).map_err(|error| cannot_write(&path, &error))?;
        documents.insert(1.min(documents.len()), json!({ "kind": "module", "name": name, "path": beside }));
        written.push(path);
    }
    let mut text = format!(
        "# Why {}.{} was what it was: written by `onefold explain --case`, revision {}.\n# {} is {} of {}.\n",
        told["view"].as_str().unwrap_or_default(),
        told["feature"].as_str().unwrap_or_default(),
        told["revision"],
        told["udf"].as_str().unwrap_or_default(),
        told["fingerprint"].as_str().unwrap_or_default(),
        told["module"].as_str().unwrap_or_default(),
    );
    text.push_str(&documents.iter().map(document).collect::<Vec<_>>().join("---\n"));
    std::fs::write(file, text).map_err(|error| cannot_write(file, &error))?;
    written.push(file.to_owned());
    Ok(written)
}

fn cannot_write(path: &Path, error: &std::io::Error) -> Failure {
    Failure::Outside(format!("cannot write {}: {error}", path.display()))
}

/// One YAML document.
pub fn document(document: &Value) -> String {
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

    proptest! {
        #[test]
        fn every_text_comes_back(text in any::<String>(), key in "[a-z]{1,4}") {
            let document = document(&json!({ "events": [{ key.clone(): text }], key.clone(): text }));
            let read: Value = crate::define::read_yaml("case.yaml", &document).unwrap();
            prop_assert_eq!(&read["events"][0][&key], &json!(text), "{}", document);
        }
    }
}
