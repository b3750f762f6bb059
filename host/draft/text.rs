//! A draft as YAML, with the reasons for what was guessed as comments.

use super::features::WINDOW;
use super::guess::{Guess, key_type};
use super::{Column, Draft, counted};
use serde_json::Value;
use std::fmt::Write as _;

/// The file of definitions.
pub fn definitions(draft: &Draft) -> String {
    let Draft { name, source, entity, view, data, shown, .. } = draft;
    let rows = counted(data.rows, "row");
    let read = if data.more { format!("the first {rows}") } else { rows };
    let mut text = format!(
        "# Drafted by `onefold init` from {read} of {}.\n\
         # Change what you want otherwise: `onefold test` tells whether the test still holds, `onefold plan` what it costs.\n\
         kind: project\nname: {}\n---\nkind: source\nname: {}\n",
        comment(shown),
        scalar(name),
        scalar(source)
    );
    line(&mut text, format!("stream: {{ push: {{}} }}   # events come by HTTP, or with `onefold push {source} FILE`"));
    if let Some(path) = &draft.batch {
        line(
            &mut text,
            format!("batch: {{ parquet: {{ path: {} }} }}   # the history; relative to this file", scalar(path)),
        );
    }
    let time = draft.time_column();
    let time_name = time.map_or("", |column| column.name.as_str());
    line(&mut text, reason("When a row happened", &draft.time, "name it here"));
    line(&mut text, format!("event_time: {}", scalar(time_name)));
    line(&mut text, "schema:   # every column may be null".to_owned());
    for column in &data.columns {
        line(&mut text, format!("  {}", declared(column)));
    }
    if !data.left_out.is_empty() {
        line(&mut text, "# Left out:".to_owned());
        for (place, reason) in &data.left_out {
            line(&mut text, format!("#   {}: {reason}", comment(place)));
        }
    }
    let _ = write!(text, "---\nkind: entity\n");
    line(&mut text, reason("Whom a row is about", &draft.key, "name its column and type here"));
    let keys = draft
        .key_columns()
        .map(|column| format!("{}: {}", scalar(&column.name), key_type(column.type_name).unwrap_or(column.type_name)));
    let keys = keys.collect::<Vec<_>>().join(", ");
    line(&mut text, format!("name: {}\njoin_keys: {{ {keys} }}", scalar(entity)));
    let _ = write!(
        text,
        "---\nkind: feature_view\nname: {}\nentities: [{}]\nsource: {}\n",
        scalar(view),
        scalar(entity),
        scalar(source)
    );
    text.push_str(
        "# There is no `ttl`: how long a value may be used after the newest row is known to you, not to the data, and one\n\
         # that is too short makes history look unknown. Without it the state of every key is kept for good; `ttl: 90d`\n\
         # here ends that, and lookups of older keys say OUTSIDE_MAX_AGE.\n",
    );
    line(
        &mut text,
        format!(
            "# Windows of {WINDOW} look back from the moment of a lookup; the others at all rows since the beginning."
        ),
    );
    text.push_str("features:\n");
    for feature in &draft.features {
        let input = feature.input.and_then(|number| data.columns.get(number));
        let inputs = input.map(|column| format!(", inputs: [{}]", scalar(&column.name))).unwrap_or_default();
        let window = if feature.windowed { format!(", window: {WINDOW}") } else { String::new() };
        line(&mut text, format!("  {}: {{ udf: {}{inputs}{window} }}", scalar(&feature.name), feature.udf));
    }
    text
}

/// A comment that says what was guessed, if it was.
fn reason(what: &str, guess: &Guess, other: &str) -> String {
    match guess.asked {
        true => format!("# {what}: {}.", comment(&guess.why)),
        false => format!("# {what}. Guessed: {}. Another one: {other}.", comment(&guess.why)),
    }
}

/// A column of the schema.
fn declared(column: &Column) -> String {
    let Column { name, type_name, path, batch, note, .. } = column;
    let note = note.as_ref().map(|note| format!("   # {}", comment(note))).unwrap_or_default();
    let is_own = path.as_slice() == [name.clone()];
    if is_own {
        return format!("{}: {}{note}", scalar(name), type_name);
    }
    // Files may have names that no path into an event can hold.
    let stream = if path.iter().all(|part| !part.contains(['.', '[', ']', '*', '"']) && !part.is_empty()) {
        format!(", stream: {}", scalar(&format!("$.{}", path.join("."))))
    } else {
        String::new()
    };
    let batch = batch.as_ref().map(|batch| format!(", batch: {}", scalar(batch))).unwrap_or_default();
    format!("{}: {{ type: {}{stream}{batch} }}{note}", scalar(name), type_name)
}

fn line(text: &mut String, line: String) {
    text.push_str(&line);
    text.push('\n');
}

/// Text that may come from data, on one line of a comment.
pub fn comment(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
}

/// Text as a YAML scalar: plain where nobody could take it for anything else.
pub fn scalar(text: &str) -> String {
    const OTHERS: [&str; 8] = ["true", "false", "null", "yes", "no", "on", "off", "nan"];
    let is_plain = |character: char| character.is_ascii_alphanumeric() || matches!(character, '_' | '$' | '.' | '/');
    let starts = text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '$' || text.starts_with("../"));
    let is_other = OTHERS.contains(&text.to_ascii_lowercase().as_str());
    match starts && text.chars().all(is_plain) && !is_other {
        true => text.to_owned(),
        false => value(&Value::from(text)),
    }
}

/// A value as JSON that is YAML too: what YAML does not take as it stands is escaped.
pub fn value(value: &Value) -> String {
    let mut text = String::new();
    for character in value.to_string().chars() {
        match character {
            '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}' => {
                // Writing to a string cannot fail.
                let _ = write!(text, "\\u{:04x}", u32::from(character));
            }
            other => text.push(other),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_comes_back_from_yaml() {
        for text in [
            "a",
            "no",
            "1e5",
            "a: b",
            "# x",
            "\u{85}\u{2028}\u{feff}é😀\u{1}\n",
            "../data/x",
            "$.a.b",
            "$.user-id",
            "",
            "~",
        ] {
            let yaml = format!("{{ k: {} }}", scalar(text));
            let read: std::collections::BTreeMap<String, String> =
                crate::define::read_yaml("f", &yaml).unwrap_or_else(|problem| panic!("{yaml}: {problem}"));
            assert_eq!(read["k"], text, "{yaml}");
        }
    }
}
