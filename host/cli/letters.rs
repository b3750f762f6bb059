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
        /// Only those whose row is still missing somewhere.
        #[arg(long)]
        open: bool,
    },
    /// One letter with the row as it came.
    #[command(after_help = "Example: onefold dead-letters show 3f0a5c1be2d94706")]
    Show {
        /// Its id, as `list` shows it.
        id: String,
    },
    /// Feed letters' rows again to what is live, after the fix, and say what becomes of them.
    ///
    /// A fix is a revision: what it changes is folded from the log's beginning, refused rows included, and their
    /// letters are closed by that. A row that what is live still refuses stays open, with the reason. Nothing is
    /// changed here, so nothing is counted twice, however often it is asked.
    #[command(
        after_help = "Examples: onefold dead-letters replay\n          onefold dead-letters replay --feature product_stats.revenue_30d\n          onefold dead-letters replay 3f0a5c1be2d94706 --json"
    )]
    Replay {
        /// These only, as `list` shows them; else all.
        ids: Vec<String>,
        /// Of this source only.
        #[arg(long, conflicts_with = "ids")]
        source: Option<String>,
        /// What this feature refused (view.feature), now or under an earlier definition.
        #[arg(long, conflicts_with = "ids")]
        feature: Option<String>,
    },
}

/// How the project stands: sources, lag, watermarks, checkpoints, freshness.
#[derive(clap::Args)]
#[command(after_help = "Example: onefold status --json")]
pub struct StatusArgs {}

pub fn letters(args: &LettersArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let reach = Reach::open(global, "onefold dead-letters")?;
    match &args.action {
        LettersAction::List { source, open } => {
            let mut query = vec![format!("open={open}")];
            query.extend(source.as_ref().map(|source| format!("source={}", escaped(source))));
            let told = listed(&reach, &query.join("&"))?;
            if global.json {
                print(&told.to_string())?;
                return Ok(ExitCode::SUCCESS);
            }
            let columns = ["id", "source", "position", "stage", "feature", "reason", "open", "message"];
            print(&table(&told["dead_letters"], &columns))?;
        }
        LettersAction::Show { id } => {
            let told = listed(&reach, &format!("id={}", escaped(id)))?;
            let letter = told["dead_letters"].get(0).ok_or_else(|| {
                Failure::Input(format!("there is no letter `{id}`: `onefold dead-letters list` shows what there is"))
            })?;
            print(&if global.json { letter.to_string() } else { outline(letter) })?;
        }
        LettersAction::Replay { ids, source, feature } => {
            let ids = (!ids.is_empty()).then_some(ids);
            let asked = json!({ "ids": ids, "source": source, "feature": feature });
            let told = reach.post_json(&reach.path(&["dead-letters", "replay"])?, &asked)?;
            print(&if global.json { told.to_string() } else { replayed(&told) })?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What became of letters: those that something still lacks, and how many there are of each kind.
fn replayed(told: &Value) -> String {
    let number = |name: &str| told[name].as_u64().unwrap_or(0);
    let mut text = table(&told["letters"], &["id", "source", "position", "feature", "outcome", "message"]);
    text.push_str(&format!("\n{} refused again, {} closed", number("refused"), number("closed")));
    if number("late") > 0 {
        text.push_str(&format!(", {} came too late: `onefold rebuild VIEW` takes them in", number("late")));
    }
    if number("taken") > 0 {
        text.push_str(&format!(", {} would be taken now and are missing", number("taken")));
    }
    text
}

fn table(rows: &Value, columns: &[&str]) -> String {
    let mut table = Table::new(columns);
    for row in rows.as_array().into_iter().flatten() {
        table.row(columns.iter().map(|name| match &row[*name] {
            Value::String(text) => text.clone(),
            Value::Null => "-".to_owned(),
            other => other.to_string(),
        }));
    }
    table.text()
}

fn listed(reach: &Reach, query: &str) -> anyhow::Result<Value> {
    reach.get(&format!("{}?{query}", reach.path(&["dead-letters"])?))
}

pub fn status(_args: &StatusArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let reach = Reach::open(global, "onefold status")?;
    let told = reach.get(&reach.path(&["status"])?)?;
    print(&if global.json { told.to_string() } else { outline(&told) })?;
    Ok(ExitCode::SUCCESS)
}
