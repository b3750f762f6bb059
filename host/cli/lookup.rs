//! `onefold lookup`: one entity's values as a table.

use super::client::Reach;
use super::table::Table;
use super::{Failure, Global, print};
use crate::define::{FeatureView, OnDemandFeatureView, hint};
use crate::serve::values::from_text;
use onefold_fold::Kind;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::process::ExitCode;

/// Look features up, once, for people.
#[derive(clap::Args)]
#[command(
    after_help = "Examples: onefold lookup product_stats product_id=product-000001\n          onefold lookup recommendation product_id=product-000001 customer_id=customer-0000001 price=9.5"
)]
pub struct LookupArgs {
    /// A view, a feature (`view.feature`) or a service.
    name: String,
    /// Join keys, and the request data of on-demand views.
    #[arg(value_name = "KEY=VALUE")]
    keys: Vec<String>,
    #[arg(long, hide = true)]
    watch: bool,
}

pub fn run(args: &LookupArgs, global: &Global) -> anyhow::Result<ExitCode> {
    if args.watch {
        return Err(Failure::Input("--watch is not in this version yet".to_owned()).into());
    }
    let reach = Reach::open(global, "onefold lookup")?;
    let registered = Registered::of(&reach.get(&reach.path(&["definitions"])?)?);
    let (mut entities, mut request) = (Map::new(), Map::new());
    for typed in &args.keys {
        let (name, text) = typed
            .split_once('=')
            .ok_or_else(|| Failure::Input(format!("`{typed}` is no key: write key=value (product_id=p1)")))?;
        if let Some(kind) = registered.keys.get(name) {
            entities.insert(name.to_owned(), json!([from_text(*kind, text)]));
        } else if let Some(kind) = registered.request.get(name) {
            request.insert(name.to_owned(), json!([from_text(*kind, text)]));
        } else {
            let known = registered.keys.keys().chain(registered.request.keys()).map(String::as_str);
            return Err(Failure::Input(format!("`{name}` is no key of any view; {}", hint(name, known))).into());
        }
    }
    let mut asked = json!({ "entities": entities, "request": request });
    match registered.services.contains(&args.name) && !registered.views.contains(&args.name) {
        true => asked["service"] = json!(args.name),
        false => asked["features"] = json!([args.name]),
    }
    let told = reach.post_json(&reach.path(&["features"])?, &asked)?;
    if global.json {
        print(&told.to_string())?;
    } else {
        print(&table(&told, &reach.get(&reach.path(&["status"])?)?["views"]))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What a person's words can mean.
#[derive(Default)]
struct Registered {
    views: Vec<String>,
    services: Vec<String>,
    keys: BTreeMap<String, Kind>,
    request: BTreeMap<String, Kind>,
}

impl Registered {
    fn of(definitions: &Value) -> Registered {
        let mut registered = Registered::default();
        for view in definitions["feature_views"].as_array().into_iter().flatten() {
            if let Ok(view) = serde_json::from_value::<FeatureView>(view.clone()) {
                registered.keys.extend(view.join_keys.into_iter().map(|key| (key.name, key.kind)));
                registered.views.push(view.name);
            } else if let Ok(view) = serde_json::from_value::<OnDemandFeatureView>(view.clone()) {
                registered.request.extend(view.request.into_iter().map(|field| (field.name, field.kind)));
                registered.views.push(view.name);
            }
        }
        let services = definitions["feature_services"].as_array().into_iter().flatten();
        registered.services = services.filter_map(|one| one["name"].as_str().map(str::to_owned)).collect();
        registered
    }
}

/// `views`: since when the values of each are complete.
fn table(told: &Value, views: &Value) -> String {
    let mut table = Table::new(&["feature", "value", "status", "newest row", "valid until", "complete since", ""]);
    for (name, column) in told["columns"].as_object().into_iter().flatten() {
        let first = |member: &str| match &column[member][0] {
            Value::Null => "-".to_owned(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let stale = column["stale"][0] == true;
        let remark = match (&column["reasons"][0], stale) {
            (Value::String(reason), _) => reason.clone(),
            (_, true) => "stale: an expiry is still due".to_owned(),
            _ => String::new(),
        };
        let (view, value) = name.split_once("__").unwrap_or((name, ""));
        // Whole seconds are enough for people; on-demand values are as complete as what they are computed from.
        let since = match views[view]["complete_since"][value].as_str() {
            Some(time) if time.ends_with('Z') => format!("{}Z", time.split('.').next().unwrap_or_default()),
            Some(word) => word.to_owned(),
            None => "-".to_owned(),
        };
        let shown = format!("{view}.{value}");
        let (newest, until) = (first("event_timestamps"), first("valid_until"));
        table.row([shown, first("values"), first("statuses"), newest, until, since, remark]);
    }
    table.text()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stand_below_each_other() {
        let column = |value: Value, status: &str, stale: bool, reason: Value| {
            json!({
                "values": [value], "statuses": [status], "event_timestamps": ["2026-01-02T10:00:00.000000Z"],
                "valid_until": [null], "stale": [stale], "reasons": [reason],
            })
        };
        let told = json!({ "columns": {
            "v__a": column(json!(12.5), "PRESENT", false, Value::Null),
            "v__b__c": column(Value::Null, "ERROR", false, json!("division by zero")),
            "v__d": column(json!(1), "PRESENT", true, Value::Null),
        } });
        let views = json!({ "v": { "complete_since": { "a": "beginning", "d": "2026-01-01T10:00:00.123456Z" } } });
        let lines = [
            "feature  value  status   newest row                   valid until  complete since",
            "v.a      12.5   PRESENT  2026-01-02T10:00:00.000000Z  -            beginning",
            "v.b__c   -      ERROR    2026-01-02T10:00:00.000000Z  -            -                     division by zero",
            "v.d      1      PRESENT  2026-01-02T10:00:00.000000Z  -            2026-01-01T10:00:00Z  stale: an expiry is still due",
        ];
        assert_eq!(table(&told, &views), lines.join("\n"));
    }
}
