//! `onefold verify`, `snapshot`, `historical`, `materialize` and `rebuild`: the commands that read all of the history.

use super::first_rows::first_rows;
use super::waiting::{Waiting, run_job};
use super::{Failure, Global, note, print};
use crate::draft::counted;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Compare every streamed value with batch, bit for bit, over the rows that the state is made of.
#[derive(clap::Args)]
#[command(
    after_help = "Example: onefold verify product_stats\nExit code 1: some values differ, or rows cannot be read any more."
)]
pub struct VerifyArgs {
    /// Feature views [default: all].
    views: Vec<String>,
}

/// Write every known entity's values at an instant, computed by batch.
#[derive(clap::Args)]
#[command(
    after_help = "Example: onefold snapshot product_stats --as-of 2026-01-31T00:00:00Z --out product_stats.parquet"
)]
pub struct SnapshotArgs {
    view: String,
    /// The instant, RFC 3339 [default: the newest row].
    #[arg(long, value_name = "T")]
    as_of: Option<String>,
    /// The Parquet file to write.
    #[arg(long)]
    out: PathBuf,
}

/// Make a training set: for each label the features as they were at its time.
#[derive(clap::Args)]
#[command(
    after_help = "Examples: onefold historical --entities labels.csv --features recommendation --out training.parquet\n          onefold historical --reproduce training.parquet --out again.parquet\n\nThe file says what it was made of, under `onefold` in its metadata: revision, fingerprints, digest of the labels, files, positions of the log. --reproduce makes it again and compares every column to the last bit.\nExit code 1: it came out differently, or what it was made of is gone."
)]
pub struct HistoricalArgs {
    /// Parquet or CSV with the join keys, the labels' times and the request data.
    #[arg(long, value_name = "FILE", required_unless_present = "reproduce")]
    entities: Option<PathBuf>,
    /// A feature service, or views and features: view.feature,view.
    #[arg(long, required_unless_present = "reproduce")]
    features: Option<String>,
    /// The column of the labels' times [default: event_timestamp].
    #[arg(long, value_name = "NAME")]
    timestamp: Option<String>,
    /// Make this training set again, from what it says it was made of; --entities says where its labels lie now.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["features", "timestamp"])]
    reproduce: Option<PathBuf>,
    /// The Parquet file to write.
    #[arg(long)]
    out: PathBuf,
    /// Of the rows that the served values are made of, without those that the stream refused.
    #[arg(long)]
    as_served: bool,
    /// Print so many of its rows.
    #[arg(long, value_name = "ROWS", default_value_t = 0)]
    show: usize,
}

/// Build a view's state again from the rows that it is made of, beside what is served.
#[derive(clap::Args)]
#[command(
    after_help = "Examples: onefold rebuild product_stats\n          onefold rebuild product_stats --detach && onefold jobs list"
)]
pub struct RebuildArgs {
    /// The feature view.
    view: String,
    #[command(flatten)]
    waiting: Waiting,
}

/// Build the state of views from their sources' files, for lookups and for the stream to go on from.
#[derive(clap::Args)]
#[command(after_help = "Examples: onefold materialize product_stats\n          onefold materialize --detach")]
pub struct MaterializeArgs {
    /// Feature views; all views of their sources are built [default: every source that has files].
    views: Vec<String>,
    /// Rows of files from this event time on.
    #[arg(long, value_name = "T")]
    from: Option<String>,
    /// Rows of files before this event time.
    #[arg(long, value_name = "T")]
    to: Option<String>,
    /// All of the files, which is what this version always reads.
    #[arg(long)]
    full: bool,
    #[command(flatten)]
    waiting: Waiting,
}

pub fn verify(args: &VerifyArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let found = run_job(global, "onefold verify", &json!({ "kind": "verify", "views": args.views }))?;
    let number = |name: &str| found[name].as_u64().unwrap_or(0);
    if global.json {
        print(&found.to_string())?;
    } else {
        print(&format!(
            "{} values compared, {} differ, {} failed, {} dead letters, {} unreadable",
            number("compared"),
            number("differ"),
            number("failed"),
            number("dead_letters"),
            number("unreadable")
        ))?;
        for difference in found["differences"].as_array().into_iter().flatten() {
            let text = |name: &str| difference[name].as_str().unwrap_or("(entity)").to_owned();
            print(&format!(
                "  {}.{} of {}: streamed {}, batch {}",
                text("view"),
                text("feature"),
                difference["entity"],
                text("streamed"),
                text("batch")
            ))?;
        }
        for reason in found["reasons"].as_array().into_iter().flatten() {
            print(&format!("  {}", reason.as_str().unwrap_or_default()))?;
        }
    }
    let equal = number("differ") == 0 && number("unreadable") == 0;
    Ok(if equal { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

pub fn snapshot(args: &SnapshotArgs, global: &Global) -> anyhow::Result<ExitCode> {
    check_out(&args.out)?;
    let request = json!({
        "kind": "snapshot", "view": args.view, "as_of": args.as_of, "out": absolute(&args.out)?,
    });
    let done = run_job(global, "onefold snapshot", &request)?;
    refused_rows(&done);
    match global.json {
        true => print(&done.to_string())?,
        false => print(&format!("{} entities in {}", done["entities"], args.out.display()))?,
    }
    Ok(ExitCode::SUCCESS)
}

pub fn historical(args: &HistoricalArgs, global: &Global) -> anyhow::Result<ExitCode> {
    check_out(&args.out)?;
    let given = |path: &Option<PathBuf>| path.as_deref().map(absolute).transpose();
    let request = json!({
        "kind": "historical", "entities": given(&args.entities)?, "features": args.features,
        "timestamp": args.timestamp, "reproduce": given(&args.reproduce)?, "out": absolute(&args.out)?,
        "as_served": args.as_served,
    });
    let done = run_job(global, "onefold historical", &request)?;
    refused_rows(&done);
    if let Some(file) = &args.reproduce {
        return reproduced(file, &done, global);
    }
    match global.json {
        true => print(&done.to_string())?,
        false => {
            let labels = done["labels"].as_u64().unwrap_or(0);
            print(&format!("{} in {}", counted(labels, "label"), args.out.display()))?
        }
    }
    if args.show > 0 && !global.json {
        print(&first_rows(&args.out, args.show)?)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What became of a training set that was to be made again.
fn reproduced(file: &Path, done: &Value, global: &Global) -> anyhow::Result<ExitCode> {
    let same = done["same"] == true;
    if global.json {
        print(&done.to_string())?;
        return Ok(if same { ExitCode::SUCCESS } else { ExitCode::from(1) });
    }
    let all = |name: &str| -> Vec<String> {
        let told = done[name].as_array().into_iter().flatten();
        told.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    all("notes").iter().for_each(|text| note(&format!("note: {text}")));
    let (shown, gone) = (file.display(), all("gone"));
    if !gone.is_empty() {
        print(&format!("{shown} cannot be made again:\n  {}", gone.join("\n  ")))?;
    } else if same {
        print(&format!("{} labels: every column is what it was, to the last bit", done["labels"]))?;
    } else {
        print(&format!("{} labels: another than in {shown}: {}", done["labels"], all("differing").join(", ")))?;
    }
    Ok(if same { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

pub fn materialize(args: &MaterializeArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let request = json!({ "kind": "materialize", "views": args.views, "from": args.from, "to": args.to });
    built(args.waiting.run_job(global, "onefold materialize", &request)?, global)
}

pub fn rebuild(args: &RebuildArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let request = json!({ "kind": "rebuild", "view": args.view });
    built(args.waiting.run_job(global, "onefold rebuild", &request)?, global)
}

/// What was built, where that was waited for.
fn built(done: Option<Value>, global: &Global) -> anyhow::Result<ExitCode> {
    let Some(done) = done else { return Ok(ExitCode::SUCCESS) };
    refused_rows(&done);
    for said in done["notes"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        note(&format!("warning: {said}"));
    }
    let views: Vec<&str> = done["views"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    match global.json {
        true => print(&done.to_string())?,
        false => print(&format!("{} entities of {} from {} files", done["entities"], views.join(", "), done["files"]))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn refused_rows(done: &Value) {
    if let Some(count) = done["refused_rows"].as_u64().filter(|count| *count > 0) {
        let first = done["refused"][0].as_str().unwrap_or_default();
        let which = if count == 1 { "" } else { ", the first" };
        note(&format!("warning: {} took no part{which}: {first}", counted(count, "row")));
    }
}

/// Refuses a name that promises what is not written.
fn check_out(out: &Path) -> Result<(), Failure> {
    let extension = out.extension().map(|extension| extension.to_string_lossy().to_ascii_lowercase());
    match extension.as_deref() {
        Some("csv" | "tsv" | "json" | "jsonl" | "ndjson" | "arrow" | "feather") => Err(Failure::Input(format!(
            "--out {}: Parquet is what is written: let its name end in .parquet",
            out.display()
        ))),
        _ => Ok(()),
    }
}

/// The process that does the work may run in another directory.
fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    Ok(std::path::absolute(path)?)
}
