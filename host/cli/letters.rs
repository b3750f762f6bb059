//! `onefold dead-letters` and `onefold status`.

use super::client::{Reach, escaped};
use super::outline::outline;
use super::table::Table;
use super::{Failure, Global, print};
use serde_json::{Value, json};
use std::process::ExitCode;

/// Rows that could not be processed, and again after the fix.
#[derive(clap::Args)]
#[command(after_help = "Example: onefold dead-letters list --source transactions")]
pub struct LettersArgs {
    #[command(subcommand)]
    action: LettersAction,
}

#[derive(clap::Subcommand)]
enum LettersAction {
    /// One line a letter.
    #[command(after_help = "Example: onefold dead-letters list --source transactions")]
    List {
        /// Of this source only.
        #[arg(long)]
        source: Option<String>,
    },
    /// One letter with the row as it came.
    #[command(after_help = "Example: onefold dead-letters show transactions-41")]
    Show {
        /// Its id, as `list` shows it.
        id: String,
    },
    /// Process letters again, after the fix.
    #[command(after_help = "Example: onefold dead-letters replay --source transactions")]
    Replay {
        /// These only; else all that are open.
        ids: Vec<String>,
        /// Of this source only.
        #[arg(long, conflicts_with = "ids")]
        source: Option<String>,
    },
}

/// How the project stands: sources, lag, watermarks, checkpoints, freshness.
#[derive(clap::Args)]
#[command(after_help = "Example: onefold status --json")]
pub struct StatusArgs {}

pub fn letters(args: &LettersArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let reach = Reach::open(global, "onefold dead-letters")?;
    match &args.action {
        LettersAction::List { source } => {
            let told = listed(&reach, source.as_deref())?;
            if global.json {
                print(&told.to_string())?;
                return Ok(ExitCode::SUCCESS);
            }
            let mut table = Table::new(&["id", "source", "position", "stage", "feature", "reason", "open", "message"]);
            for letter in told["dead_letters"].as_array().into_iter().flatten() {
                let cell = |name: &str| match &letter[name] {
                    Value::String(text) => text.clone(),
                    Value::Null => "-".to_owned(),
                    other => other.to_string(),
                };
                let columns = ["id", "source", "position", "stage", "feature", "reason", "open", "message"];
                table.row(columns.map(cell));
            }
            print(&table.text())?;
        }
        LettersAction::Show { id } => {
            let told = listed(&reach, None)?;
            let letters = told["dead_letters"].as_array().into_iter().flatten();
            let letter = letters.into_iter().find(|letter| letter["id"] == **id).ok_or_else(|| {
                Failure::Input(format!("there is no letter `{id}`: `onefold dead-letters list` shows what there is"))
            })?;
            print(&if global.json { letter.to_string() } else { outline(letter) })?;
        }
        LettersAction::Replay { ids, source } => {
            let ids = (!ids.is_empty()).then_some(ids);
            let told =
                reach.post_json(&reach.path(&["dead-letters", "replay"])?, &json!({ "ids": ids, "source": source }))?;
            print(&if global.json { told.to_string() } else { outline(&told) })?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn listed(reach: &Reach, source: Option<&str>) -> anyhow::Result<Value> {
    let query = source.map(|source| format!("?source={}", escaped(source))).unwrap_or_default();
    reach.get(&format!("{}{query}", reach.path(&["dead-letters"])?))
}

pub fn status(_args: &StatusArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let reach = Reach::open(global, "onefold status")?;
    let told = reach.get(&reach.path(&["status"])?)?;
    print(&if global.json { told.to_string() } else { outline(&told) })?;
    Ok(ExitCode::SUCCESS)
}
