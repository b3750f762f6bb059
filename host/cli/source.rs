//! `onefold source`: a look at what comes in.

use super::client::Reach;
use super::table::Table;
use super::{Global, print};
use serde_json::Value;
use std::process::ExitCode;

/// What comes in.
#[derive(clap::Args)]
#[command(after_help = "Example: onefold source peek transactions -n 10")]
pub struct SourceArgs {
    #[command(subcommand)]
    action: SourceAction,
}

#[derive(clap::Subcommand)]
enum SourceAction {
    /// A few rows as they are decoded, and what could not be read, with the reason.
    ///
    /// Of the log the newest rows are shown: what features have just seen. A column that could not be decoded is `!`,
    /// and costs the row only what uses it; a row that is refused as a whole is a dead letter.
    #[command(
        after_help = "Examples: onefold source peek transactions\n          onefold source peek transactions -n 20 --from-start\n          onefold source peek transactions --batch --json"
    )]
    Peek {
        /// The source.
        source: String,
        /// How many rows.
        #[arg(short = 'n', long = "rows", value_name = "ROWS", default_value_t = 5)]
        rows: u32,
        /// The first rows of its files, instead of its log.
        #[arg(long)]
        batch: bool,
        /// The oldest rows of the log, instead of the newest.
        #[arg(long, conflicts_with = "batch")]
        from_start: bool,
    },
}

pub fn run(args: &SourceArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let SourceAction::Peek { source, rows, batch, from_start } = &args.action;
    let reach = Reach::open(global, "onefold source")?;
    let path = reach.path(&["sources", source, "peek"])?;
    let told = reach.get(&format!("{path}?n={rows}&batch={batch}&from_start={from_start}"))?;
    print(&if global.json { told.to_string() } else { as_text(source, &told) })?;
    Ok(ExitCode::SUCCESS)
}

fn as_text(source: &str, told: &Value) -> String {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let (columns, rows) = (list(&told["columns"]), list(&told["rows"]));
    if rows.is_empty() {
        return match told["from"].as_str() {
            Some("files") => format!("the files of `{source}` hold no row"),
            _ => format!(
                "nothing was pushed to `{source}` yet: `onefold push {source} FILE`, or look at its files with --batch"
            ),
        };
    }
    let names: Vec<String> = columns.iter().map(&text).collect();
    let mut table = Table::new(&std::iter::once("row").chain(names.iter().map(String::as_str)).collect::<Vec<_>>());
    let mut failed: Vec<String> = Vec::new();
    for row in &rows {
        let place = short_place(&text(&row["place"]));
        let failures = list(&row["failures"]);
        if let Some(reason) = row["refused"]["reason"].as_str() {
            failed.push(format!("{place} is no row ({reason}): {}", text(&row["refused"]["message"])));
        }
        for failure in &failures {
            let (column, reason, message) =
                (text(&failure["column"]), text(&failure["reason"]), text(&failure["message"]));
            failed.push(format!("{place} lacks `{column}` ({reason}): {message}"));
        }
        if let Some(raw) = row["raw"].as_str() {
            failed.push(format!("  {}", raw.replace(char::is_control, " ")));
        }
        if row["values"].is_null() {
            continue;
        }
        let cells = names.iter().map(|name| match &row["values"][name] {
            Value::Null if failures.iter().any(|failure| failure["column"] == **name) => "!".to_owned(),
            Value::Null => "-".to_owned(),
            value => text(value),
        });
        table.row(std::iter::once(place).chain(cells));
    }
    let mut lines = vec![table.text()];
    if !failed.is_empty() {
        lines.push(String::new());
        lines.append(&mut failed);
    }
    for missing in list(&told["missing"]) {
        lines.push(format!(
            "{} has no column `{}`: null in all its rows",
            text(&missing["file"]),
            text(&missing["column"])
        ));
    }
    lines.join("\n")
}

/// The name of a file without its directories; a position as it is.
fn short_place(place: &str) -> String {
    place.rsplit('/').next().unwrap_or(place).to_owned()
}
