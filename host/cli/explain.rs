//! `onefold explain`: why a value is what it is, as a page for people or as a test.

use super::client::{Reach, escaped};
use super::table::Table;
use super::{Failure, Global, note, print};
use crate::draft::counted;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Say why a value is what it is: its rows in canonical order, in or out and why, and the value after each.
#[derive(clap::Args)]
#[command(
    after_help = "Examples: onefold explain product_stats product_id=p-000001 --feature revenue_30d\n          onefold explain product_stats.revenue_30d product_id=p-000001 --as-of 2026-01-31T00:00:00Z\n          onefold explain product_stats.revenue_30d product_id=p-000001 --case why.yaml\n\nThe rows are those that the state is made of: the files that `materialize` pinned, and the push log. The value after a row is the one that these rows up to it would give as of T, so the last is the value as of T. Without --as-of, T is the instant of the served value, and the two are compared to the last bit.\nExit code 1: what is served differs."
)]
pub struct ExplainArgs {
    /// The view, or `view.feature`.
    view: String,
    /// The entity's join keys; of an on-demand feature the request data too.
    #[arg(value_name = "KEY=VALUE")]
    keys: Vec<String>,
    /// The feature (a value column of the view).
    #[arg(long, short, value_name = "F")]
    feature: Option<String>,
    /// The instant, RFC 3339 [default: that of the served value].
    #[arg(long, value_name = "T")]
    as_of: Option<String>,
    /// So many rows are shown, the last ones.
    #[arg(long, value_name = "N", default_value_t = 50)]
    rows: usize,
    /// Also write it as a `kind: test` with the definitions it needs; modules come to lie beside it.
    #[arg(long, value_name = "FILE")]
    case: Option<PathBuf>,
}

pub fn run(args: &ExplainArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let (view, feature) = named(args)?;
    let mut query = vec![
        format!("view={}", escaped(&view)),
        format!("feature={}", escaped(&feature)),
        format!("rows={}", args.rows),
    ];
    for typed in &args.keys {
        let (name, text) = typed
            .split_once('=')
            .ok_or_else(|| Failure::Input(format!("`{typed}` is no key: write key=value (product_id=p1)")))?;
        query.push(format!("{}={}", escaped(name), escaped(text)));
    }
    query.extend(args.as_of.as_ref().map(|instant| format!("as_of={}", escaped(instant))));
    if args.case.is_some() {
        query.push("case=true".to_owned());
    }
    let reach = Reach::open(global, "onefold explain")?;
    let path = format!("{}?{}", reach.path(&["explain"])?, query.join("&"));
    let text = reach.send("GET", &path, &[], Vec::new())?.text()?;
    let told: Value = serde_json::from_str(&text)?;
    if let Some(file) = &args.case {
        write_case(file, &told["case"], &reach)?;
    }
    print(&if global.json { text } else { page(&told) })?;
    Ok(if told["served"]["same"] == false { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

/// Writes the case, and the modules that it names beside it.
fn write_case(file: &Path, case: &Value, reach: &Reach) -> anyhow::Result<()> {
    let write = |path: &Path, bytes: &[u8]| {
        std::fs::write(path, bytes)
            .map_err(|error| Failure::Outside(format!("cannot write {}: {error}", path.display())))?;
        note(&format!("wrote {}", path.display()));
        Ok::<(), Failure>(())
    };
    for module in case["modules"].as_array().into_iter().flatten() {
        let (name, version) = (plain(&module["name"]), module["version"].to_string());
        let path = reach.path(&["modules", &name, &version])?;
        let answer = reach.send("GET", &path, &[("accept", "application/wasm")], Vec::new())?;
        if answer.status != 200 {
            return Err(Failure::Outside(format!("module `{name}`, version {version}, cannot be had")).into());
        }
        write(&file.with_file_name(plain(&module["file"])), &answer.body)?;
    }
    Ok(write(file, case["text"].as_str().unwrap_or_default().as_bytes())?)
}

/// View and feature, however they were typed.
fn named(args: &ExplainArgs) -> Result<(String, String), Failure> {
    match (args.view.split_once(['.', ':']), &args.feature) {
        (None, Some(feature)) => Ok((args.view.clone(), feature.clone())),
        (Some((view, feature)), None) => Ok((view.to_owned(), feature.to_owned())),
        (Some((view, typed)), Some(feature)) if typed == feature => Ok((view.to_owned(), feature.clone())),
        (Some(_), Some(_)) => Err(Failure::Input("the feature is named twice: leave --feature away".to_owned())),
        (None, None) => {
            let view = &args.view;
            let text =
                format!("say which feature of `{view}`: --feature F (`onefold get feature_view {view}` lists them)");
            Err(Failure::Input(text))
        }
    }
}

/// A value for people: text without quotes.
fn plain(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn with_reason(value: &Value, reason: &Value) -> String {
    match reason.as_str() {
        Some(reason) => format!("{} ({reason})", plain(value)),
        None => plain(value),
    }
}

fn page(told: &Value) -> String {
    let entity = told["entity"].as_object().into_iter().flatten();
    let entity = entity.map(|(name, key)| format!("{name}={}", plain(key))).collect::<Vec<_>>().join(" ");
    let mut lines = vec![format!("{}.{} of {entity}", plain(&told["view"]), plain(&told["feature"]))];
    let mut say = |name: &str, text: String| lines.push(format!("  {name:<11} {text}"));
    say("value", value_line(told));
    if told["on_demand"] == true {
        say("udf", udf_line(told, inputs_of(told)));
        say("module", plain(&told["module"]));
        say("revision", format!("{}, fingerprint {}", told["revision"], plain(&told["fingerprint"])));
        lines.push(String::new());
        lines.push(on_demand_inputs(told));
        return lines.join("\n");
    }
    if let Some(served) = served_line(told) {
        say("served", served);
    }
    say("udf", udf_line(told, names(&told["inputs"])));
    say("module", plain(&told["module"]));
    if told["where"].as_array().is_some_and(|all| !all.is_empty()) {
        say("where", names(&told["where"]).join(" and "));
    }
    say("window", plain(&told["window"]));
    say("newest row", told["event_timestamp"].as_str().unwrap_or("none by then").to_owned());
    say(
        "complete",
        match told["complete_since"].as_str() {
            Some("beginning") => "since the beginning".to_owned(),
            Some(since) => format!("since {since}"),
            None => "there is no row yet".to_owned(),
        },
    );
    say("revision", format!("{}, fingerprint {}", told["revision"], plain(&told["fingerprint"])));
    let number = |name: &str| told[name].as_u64().unwrap_or(0);
    let later = number("rows_later");
    let mut not_shown = match later {
        0 => String::new(),
        later => format!("; {later} are later than the instant"),
    };
    let told_rows = told["rows"].as_array().map_or(0, |rows| rows.len() as u64);
    let hidden = number("rows_not_shown").saturating_sub(later);
    if hidden > 0 {
        not_shown.push_str(&format!("; the first {hidden} are not shown (--rows)"));
    }
    say("rows", format!("{} of {} are in the value{not_shown}", number("rows_in"), number("rows_total")));
    if told_rows > 0 {
        lines.push(String::new());
        lines.push(rows_table(told));
    }
    lines.extend(refusals(told));
    lines.join("\n")
}

fn value_line(told: &Value) -> String {
    let value = with_reason(&told["value"], &told["reason"]);
    if told["on_demand"] == true {
        return format!("{value}, computed now ({})", plain(&told["status"]));
    }
    let what = if told["served"].is_null() { "" } else { ", the instant of the served value" };
    let as_of = format!("{value}  as of {}{what}", plain(&told["as_of"]));
    match told["status"].as_str() {
        Some("NOT_FOUND") => format!("{as_of}: the entity is not known then"),
        Some("OUTSIDE_MAX_AGE") => format!("{as_of}: older than the view's ttl then, so a lookup gives null"),
        _ => as_of,
    }
}

fn served_line(told: &Value) -> Option<String> {
    let served = &told["served"];
    if served.is_null() {
        return None;
    }
    if served["online"] == false {
        return Some("nothing: the view says `online: false`".to_owned());
    }
    let value = match served["found"] == true {
        true => with_reason(&served["value"], &served["reason"]),
        false => "not known".to_owned(),
    };
    let newest = &served["event_timestamp"];
    Some(match served["same"].as_bool() {
        Some(true) => format!("{value} (the same)"),
        None => format!("{value} (failed: neither the same nor another)"),
        Some(false) if served["found"] == true && *newest != told["event_timestamp"] => {
            format!("{value} (ANOTHER: its newest row is of {})", plain(newest))
        }
        Some(false) => format!("{value} (ANOTHER: the rows do not give it)"),
    })
}

fn names(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().map(plain).collect()
}

fn udf_line(told: &Value, inputs: Vec<String>) -> String {
    let params = match plain(&told["params"]).as_str() {
        "{}" => String::new(),
        params => format!("  params {params}"),
    };
    format!("{}({}){params}", plain(&told["udf"]), inputs.join(", "))
}

fn rows_table(told: &Value) -> String {
    let inputs = names(&told["inputs"]);
    let mut headings = vec!["event time", "place"];
    headings.extend(inputs.iter().map(String::as_str));
    headings.extend(["in", "value after", "why not"]);
    let mut table = Table::new(&headings);
    for row in told["rows"].as_array().into_iter().flatten() {
        let mut cells = vec![plain(&row["event_time"]), place(row)];
        cells.extend(inputs.iter().map(|input| plain(&row["inputs"][input])));
        cells.push(if row["in"] == true { "in" } else { "-" }.to_owned());
        cells.push(with_reason(&row["value"], &row["reason"]));
        cells.push(row["why"].as_str().unwrap_or_default().to_owned());
        table.row(cells);
    }
    table.text()
}

/// Where a row stands, as short as it can be told.
fn place(row: &Value) -> String {
    let place = match row["position"].as_str() {
        Some(position) => format!("log {}", position.rsplit(':').next().unwrap_or_default()),
        None => {
            let file = row["file"].as_str().unwrap_or_default();
            format!("{} row {}", file.rsplit('/').next().unwrap_or_default(), row["row"])
        }
    };
    match row["sub_row"].as_u64() {
        Some(number) => format!("{place} ({number})"),
        None => place,
    }
}

/// Rows that the feature refused, and what cannot be told of whom it is.
fn refusals(told: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    let letters = told["dead_letters"].as_array().map_or(&[][..], Vec::as_slice);
    if !letters.is_empty() {
        lines.push(String::new());
        lines.push(format!(
            "dead letters: {} took no part",
            counted(told["dead_letters_total"].as_u64().unwrap_or(0), "row")
        ));
        for letter in letters {
            let id = letter["letter"].as_str().map_or(String::new(), |id| format!("letter {id}, "));
            lines.push(format!(
                "  {}{}, {}: {}",
                id,
                place(letter),
                plain(&letter["stage"]),
                plain(&letter["message"])
            ));
        }
    }
    let strangers = &told["refused_unknown_entity"];
    if let Some(count) = strangers["total"].as_u64().filter(|count| *count > 0) {
        lines.push(String::new());
        lines.push(format!(
            "{} of `{}` {} refused before anybody could say whose:",
            counted(count, "row"),
            plain(&told["source"]),
            if count == 1 { "was" } else { "were" }
        ));
        lines.extend(names(&strangers["examples"]).into_iter().map(|example| format!("  {example}")));
    }
    lines
}

fn inputs_of(told: &Value) -> Vec<String> {
    let input = |input: &Value| match input["request"].as_str() {
        Some(name) => format!("request.{name}"),
        None => format!("{}.{}", plain(&input["view"]), plain(&input["feature"])),
    };
    told["inputs"].as_array().into_iter().flatten().map(input).collect()
}

/// The inputs of an on-demand feature, each with the command that explains it.
fn on_demand_inputs(told: &Value) -> String {
    let mut table = Table::new(&["input", "value", "status", "explained by"]);
    for (name, input) in inputs_of(told).into_iter().zip(told["inputs"].as_array().into_iter().flatten()) {
        let (status, how) = match input["request"].is_string() {
            true => ("-".to_owned(), "the request".to_owned()),
            false => (plain(&input["status"]), format!("onefold explain {name} …")),
        };
        table.row([name, plain(&input["value"]), status, how]);
    }
    table.text()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_page_can_be_read() {
        let row = |time: &str, position: u64, x: Value, verdict: &str, why: Value, value: f64| {
            json!({
                "event_time": time, "position": format!("0:{position}"), "inputs": { "x": x }, "in": verdict == "in",
                "verdict": verdict, "why": why, "value": value, "reason": null, "letter": null,
            })
        };
        let told = json!({
            "view": "v", "feature": "sum_1h", "entity": { "key": "a" }, "revision": 3, "fingerprint": "sha256:f",
            "udf": "std.sum", "params": {}, "module": "sha256:m", "inputs": ["x"], "where": ["x gt 0"],
            "window": "covers 1 h to 1 h 5 m, hop 5 m", "source": "events", "complete_since": "beginning",
            "as_of": "T", "status": "KNOWN", "event_timestamp": "E", "value": 2.5, "reason": null,
            "served": { "found": true, "value": 2.5, "reason": null, "event_timestamp": "E", "online": true, "same": true },
            "rows_total": 9, "rows_in": 1, "rows_not_shown": 7, "rows_later": 5,
            "rows": [
                row("D", 4, json!(-1.0), "where", json!("where x gt 0: it is -1.0"), 0.0),
                row("E", 7, json!(2.5), "in", Value::Null, 2.5),
            ],
            "dead_letters": [{ "event_time": "C", "position": "0:2", "stage": "decode", "message": "`x`: no", "letter": "ab" }],
            "dead_letters_total": 1, "refused_unknown_entity": { "total": 0, "examples": [] },
        });
        let expected = [
            "v.sum_1h of key=a",
            "  value       2.5  as of T, the instant of the served value",
            "  served      2.5 (the same)",
            "  udf         std.sum(x)",
            "  module      sha256:m",
            "  where       x gt 0",
            "  window      covers 1 h to 1 h 5 m, hop 5 m",
            "  newest row  E",
            "  complete    since the beginning",
            "  revision    3, fingerprint sha256:f",
            "  rows        1 of 9 are in the value; 5 are later than the instant; the first 2 are not shown (--rows)",
            "",
            "event time  place  x     in  value after  why not",
            "D           log 4  -1.0  -   0.0          where x gt 0: it is -1.0",
            "E           log 7  2.5   in  2.5",
            "",
            "dead letters: 1 row took no part",
            "  letter ab, log 2, decode: `x`: no",
        ];
        assert_eq!(page(&told), expected.join("\n"));
    }

    /// Guards: without `float_roundtrip` serde_json reads this number one bit too high.
    #[test]
    fn fractions_are_shown_as_they_came() {
        let text = r#"{"value":1.9778231890896223e+18,"rows":[{"value":-0.0}],"total":3}"#;
        let told: Value = serde_json::from_str(text).unwrap();
        assert_eq!(plain(&told["value"]), "1.9778231890896223e+18");
        assert_eq!((plain(&told["rows"][0]["value"]).as_str(), told["total"].as_u64()), ("-0.0", Some(3)));
    }
}
