//! `onefold revisions`, `rollback`, `pause`, `resume` and `delete`: what was applied, and what goes again.

use super::apply::show;
use super::client::Reach;
use super::get::kind;
use super::table::Table;
use super::waiting::Waiting;
use super::{Failure, Global, print};
use crate::define::{ChangeKind, ChangeNote};
use serde_json::{Value, json};
use std::process::ExitCode;

/// How many changes of a revision a line spells out.
const CHANGES_SHOWN: usize = 3;

/// Say what was applied when.
#[derive(clap::Args)]
#[command(after_help = "Example: onefold revisions")]
pub struct RevisionsArgs {}

/// Make the project again what it was in an older revision, as a new revision.
#[derive(clap::Args)]
#[command(after_help = "Examples: onefold rollback 7 --dry-run\n          onefold rollback 7 --wait")]
pub struct RollbackArgs {
    /// Its number, as `onefold revisions` shows it.
    revision: u64,
    #[command(flatten)]
    how: How,
}

/// Let a view's values stay as they are: lookups are answered, rows and time change nothing. It survives a restart.
#[derive(clap::Args)]
#[command(after_help = "Examples: onefold pause product_stats --dry-run\n          onefold pause product_stats --wait")]
pub struct PauseArgs {
    /// The feature view.
    view: String,
    /// Only say what would change.
    #[arg(long, conflicts_with_all = ["wait", "detach"])]
    dry_run: bool,
    #[command(flatten)]
    waiting: Waiting,
}

/// Let a paused view's values go on. Rows that came meanwhile are read from the log first: none is missing.
#[derive(clap::Args)]
#[command(
    after_help = "Examples: onefold resume product_stats --dry-run\n          onefold resume product_stats --wait"
)]
pub struct ResumeArgs {
    /// The feature view.
    view: String,
    /// Only say what would change.
    #[arg(long, conflicts_with_all = ["wait", "detach"])]
    dry_run: bool,
    #[command(flatten)]
    waiting: Waiting,
}

/// Take something out of what is registered.
#[derive(clap::Args)]
#[command(
    after_help = "Examples: onefold delete feature-view product_stats --allow-breaking\n          onefold delete feature product_stats.revenue_30d --wait"
)]
pub struct DeleteArgs {
    /// source, entity, feature-view, feature-service or feature.
    kind: String,
    /// Its name; of a feature `view.feature`.
    name: String,
    #[command(flatten)]
    how: How,
}

#[derive(clap::Args)]
struct How {
    /// Only say what would change.
    #[arg(long, conflicts_with_all = ["wait", "detach"])]
    dry_run: bool,
    /// Do it although something would stop working.
    #[arg(long)]
    allow_breaking: bool,
    #[command(flatten)]
    waiting: Waiting,
}

impl How {
    fn query(&self) -> String {
        format!("dry_run={}&allow_breaking={}", self.dry_run, self.allow_breaking)
    }
}

pub fn revisions(_args: &RevisionsArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let reach = Reach::open(global, "onefold revisions")?;
    let told = reach.get(&reach.path(&["revisions"])?)?;
    if global.json {
        print(&told["revisions"].to_string())?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new(&["revision", "applied", "changes"]);
    for one in told["revisions"].as_array().into_iter().flatten() {
        let live = if one["live"] == true { " (live)" } else { "" };
        let applied = one["created_at"].as_str().unwrap_or_default().to_owned();
        table.row([format!("{}{live}", one["revision"]), applied, summary(one)]);
    }
    print(&table.text())?;
    Ok(ExitCode::SUCCESS)
}

pub fn rollback(args: &RollbackArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let reach = Reach::open(global, "onefold rollback")?;
    let path = format!("{}?{}", reach.path(&["rollback"])?, args.how.query());
    change(&reach, "POST", &path, Some(json!({ "revision": args.revision })), args.how.waiting, global)
}

pub fn pause(args: &PauseArgs, global: &Global) -> anyhow::Result<ExitCode> {
    stand_still(&args.view, "pause", args.dry_run, args.waiting, global)
}

pub fn resume(args: &ResumeArgs, global: &Global) -> anyhow::Result<ExitCode> {
    stand_still(&args.view, "resume", args.dry_run, args.waiting, global)
}

fn stand_still(view: &str, what: &str, dry_run: bool, waiting: Waiting, global: &Global) -> anyhow::Result<ExitCode> {
    let reach = Reach::open(global, &format!("onefold {what}"))?;
    let path = format!("{}?dry_run={dry_run}", reach.path(&["feature-views", view, what])?);
    change(&reach, "POST", &path, None, waiting, global)
}

pub fn delete(args: &DeleteArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let reach;
    let path = if args.kind == "feature" {
        let Some((view, feature)) = args.name.split_once(['.', ':']) else {
            return Err(Failure::Input(format!("`{}` names no feature: write view.feature", args.name)).into());
        };
        reach = Reach::open(global, "onefold delete")?;
        reach.path(&["feature-views", view, "features", feature])?
    } else {
        let kind = match kind(&args.kind)? {
            "modules" => {
                let message = "a module is deleted a version at a time: onefold module delete NAME@VERSION";
                return Err(Failure::Input(message.to_owned()).into());
            }
            "revisions" => {
                let message = "revisions are kept: `onefold rollback REVISION` makes an older one live again";
                return Err(Failure::Input(message.to_owned()).into());
            }
            kind => kind,
        };
        reach = Reach::open(global, "onefold delete")?;
        reach.path(&[kind, &args.name])?
    };
    let path = format!("{path}?{}", args.how.query());
    change(&reach, "DELETE", &path, None, args.how.waiting, global)
}

/// Asks for a change at a path with a query, and shows what it has done, or would do.
fn change(
    reach: &Reach,
    method: &str,
    path: &str,
    body: Option<Value>,
    waiting: Waiting,
    global: &Global,
) -> anyhow::Result<ExitCode> {
    waiting.check(reach)?;
    let path = format!("{path}{}", waiting.query());
    let told = match body {
        Some(body) => reach.post_json(&path, &body)?,
        None => reach.send(method, &path, &[], Vec::new())?.json()?,
    };
    let told = waiting.outcome(told, reach, &reach.project()?, global)?;
    show(&told, global)?;
    waiting.say_job(&told, global)?;
    Ok(ExitCode::SUCCESS)
}

/// What a revision changed, in a line.
fn summary(revision: &Value) -> String {
    let changes: Vec<ChangeNote> = serde_json::from_value(revision["changes"].clone()).unwrap_or_default();
    let mut parts = Vec::new();
    if let Some(number) = revision["rollback_to"].as_u64() {
        parts.push(format!("back to {number}"));
    }
    for note in changes.iter().take(CHANGES_SHOWN) {
        let name = match &note.feature {
            Some(feature) => format!("{}.{feature}", note.name),
            None => note.name.clone(),
        };
        let from = note.renamed_from.as_ref().filter(|_| note.change == ChangeKind::Rename);
        let from = from.map(|from| format!(" (was {from})")).unwrap_or_default();
        parts.push(format!("{} {name}{from}", note.change.sign()));
    }
    if let more @ 1.. = changes.len().saturating_sub(CHANGES_SHOWN) {
        parts.push(format!("and {more} more"));
    }
    parts.join(", ")
}
