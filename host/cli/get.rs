//! `onefold get` and `onefold schema`.

use super::client::Reach;
use super::outline::outline;
use super::table::Table;
use super::{Failure, Global, print};
use crate::define::{definition_schema, hint};
use serde_json::Value;
use std::process::ExitCode;

/// Print the JSON Schema of definitions, for editors.
#[derive(clap::Args)]
#[command(after_help = "Example: onefold schema > onefold.schema.json")]
pub struct SchemaArgs {}

/// Show what is registered.
#[derive(clap::Args)]
#[command(
    after_help = "Examples: onefold get feature-views --tag team=growth\n          onefold get source transactions"
)]
pub struct GetArgs {
    /// sources, entities, feature-views, feature-services, modules or revisions.
    kind: String,
    /// One of them, as it is registered.
    name: Option<String>,
    /// Only those with this tag.
    #[arg(long, value_name = "K=V")]
    tag: Vec<String>,
}

const KINDS: [&str; 6] = ["sources", "entities", "feature-views", "feature-services", "modules", "revisions"];

pub fn schema(_args: &SchemaArgs, _global: &Global) -> anyhow::Result<ExitCode> {
    print(&serde_json::to_string_pretty(&definition_schema())?)?;
    Ok(ExitCode::SUCCESS)
}

pub fn get(args: &GetArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let kind = kind(&args.kind)?;
    let tags = args.tag.iter().map(|tag| tag.split_once('=').ok_or(tag)).collect::<Result<Vec<_>, _>>();
    let tags = tags.map_err(|tag| Failure::Input(format!("--tag {tag}: write --tag name=value")))?;
    let reach = Reach::open(global, "onefold get")?;
    if let Some(name) = &args.name {
        let told = reach.get(&reach.path(&[kind, name])?)?;
        print(&if global.json { told.to_string() } else { outline(&told) })?;
        return Ok(ExitCode::SUCCESS);
    }
    let told = reach.get(&reach.path(&[kind])?)?;
    let listed = told.get(kind.replace('-', "_")).and_then(Value::as_array).cloned().unwrap_or_default();
    let has_tags = |one: &Value| tags.iter().all(|(name, value)| one["about"]["tags"][*name] == **value);
    let listed: Vec<Value> = listed.into_iter().filter(has_tags).collect();
    match global.json {
        true => print(&Value::Array(listed).to_string())?,
        false => print(&table(kind, &listed))?,
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn kind(typed: &str) -> Result<&'static str, Failure> {
    let plain = typed.replace('_', "-");
    let matches = |kind: &&&str| {
        **kind == plain || kind.strip_suffix('s') == Some(&plain) || (plain == "entity" && **kind == "entities")
    };
    match KINDS.iter().find(matches) {
        Some(kind) => Ok(kind),
        None => Err(Failure::Input(format!("there is no kind `{typed}`; {}", hint(&plain, KINDS)))),
    }
}

fn table(kind: &str, listed: &[Value]) -> String {
    let text = |value: &Value| match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let mut table = match kind {
        "modules" => Table::new(&["module", "version", "udfs", "digest"]),
        "revisions" => Table::new(&["revision", "applied"]),
        _ => Table::new(&["name", "holds", "owner", "description"]),
    };
    for one in listed {
        let names = |list: &Value, member: &str| {
            let items = list.as_array().into_iter().flatten();
            items.map(|item| text(if item.is_object() { &item[member] } else { item })).collect::<Vec<_>>().join(", ")
        };
        match kind {
            "modules" => {
                let udfs = names(&one["udfs"], "name");
                table.row([text(&one["name"]), text(&one["version"]), udfs, text(&one["digest"])]);
            }
            "revisions" => table.row([text(&one["revision"]), text(&one["created_at"])]),
            _ => {
                let holds = match kind {
                    "sources" => names(&one["columns"], "name"),
                    "entities" => names(&one["join_keys"], "name"),
                    "feature-services" => {
                        let features = one["features"].as_array().into_iter().flatten();
                        let name = |one: &Value| format!("{}.{}", text(&one["view"]), text(&one["feature"]));
                        features.map(name).collect::<Vec<_>>().join(", ")
                    }
                    _ => names(&one["features"], "name"),
                };
                table.row([
                    text(&one["name"]),
                    holds,
                    text(&one["about"]["owner"]),
                    text(&one["about"]["description"]),
                ]);
            }
        }
    }
    table.text()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_understood_in_one_and_in_many() {
        for (typed, meant) in [("source", "sources"), ("entity", "entities"), ("feature_view", "feature-views")] {
            assert_eq!(kind(typed).unwrap(), meant);
        }
        assert_eq!(kind("viws").unwrap_err().to_string().split(';').next(), Some("there is no kind `viws`"));
    }
}
