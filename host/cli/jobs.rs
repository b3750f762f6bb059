//! `onefold jobs`: long work that runs in a server.

use super::client::Reach;
use super::table::Table;
use super::waiting::watch_job;
use super::{Failure, Global, print};
use serde_json::Value;
use std::process::ExitCode;

/// Work that runs in the process that holds the data: materialize, rebuild, verify, snapshots, training sets.
#[derive(clap::Args)]
#[command(after_help = "Example: onefold jobs list")]
pub struct JobsArgs {
    #[command(subcommand)]
    action: JobsAction,
}

#[derive(clap::Subcommand)]
enum JobsAction {
    /// All that the process remembers.
    #[command(after_help = "Example: onefold jobs list --json")]
    List,
    /// Wait for the end of one, and show its result.
    #[command(after_help = "Example: onefold jobs watch 3")]
    Watch {
        /// Its number.
        id: String,
    },
    /// End one before it is done.
    #[command(after_help = "Example: onefold jobs cancel 3")]
    Cancel {
        /// Its number.
        id: String,
    },
}

pub fn run(args: &JobsArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let reach = Reach::open(global, "onefold jobs")?;
    if !reach.is_elsewhere() {
        let message = "jobs live in the process that runs them, and none holds these data: start `onefold dev`, or name \
                       another with --server";
        return Err(Failure::Input(message.to_owned()).into());
    }
    match &args.action {
        JobsAction::List => {
            let told = reach.get(&reach.path(&["jobs"])?)?;
            print(&if global.json { told["jobs"].to_string() } else { table(&told["jobs"]) })?;
        }
        JobsAction::Watch { id } => print(&watch_job(&reach, &reach.project()?, id, global)?.to_string())?,
        JobsAction::Cancel { id } => {
            let told = reach.send("DELETE", &reach.path(&["jobs", id])?, &[], Vec::new())?.json()?;
            print(&if global.json { told.to_string() } else { format!("job {id} is being cancelled") })?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn table(jobs: &Value) -> String {
    let mut table = Table::new(&["job", "kind", "state", "rows", "of", "error"]);
    for job in jobs.as_array().into_iter().flatten() {
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let error = job["error"]["detail"].as_str().unwrap_or_default().to_owned();
        let progress = &job["progress"];
        let row = [&job["id"], &job["kind"], &job["state"], &progress["rows"], &progress["total"]].map(text);
        table.row(row.into_iter().chain([error]));
    }
    table.text()
}
