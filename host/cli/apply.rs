//! `onefold plan` and `onefold apply`.

use super::client::{Reach, check_directory, project_path};
use super::waiting::Waiting;
use super::{Failure, Global, code_of, print};
use crate::define::{Lock, definition_files, project_name, read_files};
use crate::serve::{DIRECTORY_TYPE, Directory};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Say what definitions would change, and what each change costs.
#[derive(clap::Args)]
#[command(
    after_help = "Examples: onefold plan examples/ecommerce/definitions --check\n          onefold plan examples/ecommerce/definitions --from now\n\nWith the flags of an apply it says what that apply would do, and is refused where that would be."
)]
pub struct PlanArgs {
    /// The definitions: a directory, or one file.
    dir: PathBuf,
    /// Exit with 1 if anything would change.
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    moves: Moves,
    #[command(flatten)]
    scope: Scope,
    #[command(flatten)]
    history: History,
}

/// Make definitions live.
#[derive(clap::Args)]
#[command(
    after_help = "Examples: onefold apply examples/ecommerce/definitions --upgrade ecommerce\n          onefold apply examples/ecommerce/definitions --prune --wait"
)]
pub struct ApplyArgs {
    /// The definitions: a directory, or one file.
    dir: PathBuf,
    #[command(flatten)]
    moves: Moves,
    #[command(flatten)]
    scope: Scope,
    /// Do it although something would stop working.
    #[arg(long)]
    allow_breaking: bool,
    #[command(flatten)]
    history: History,
    #[command(flatten)]
    waiting: Waiting,
}

/// Which rows the state of what changes is made of.
#[derive(clap::Args, Clone, Default)]
pub struct History {
    /// Let what is new begin empty, where the stream stands, instead of with its history: `--from now`. `status` and
    /// `lookup` say since when its values are complete.
    #[arg(long, value_name = "now", value_parser = ["now"])]
    from: Option<String>,
    /// A source's files at another path hold the rows that its state is made of: keep it.
    #[arg(long)]
    same_rows: bool,
}

/// What of the registered definitions a directory speaks for.
#[derive(clap::Args, Clone, Default)]
pub struct Scope {
    /// Remove what the directory's set has registered and the directory does not have any more.
    #[arg(long)]
    prune: bool,
    /// Let the directory's set claim the documents that it shares with this one.
    #[arg(long, value_name = "SET")]
    take_over: Option<String>,
}

/// Which lines of onefold.lock may move.
#[derive(clap::Args, Clone, Default)]
pub struct Moves {
    /// Fail if a line of onefold.lock would move.
    #[arg(long, conflicts_with = "upgrade")]
    locked: bool,
    /// Let this module, or all of them, move to the newest version.
    #[arg(long, value_name = "MODULE", num_args = 0..=1, default_missing_value = "*")]
    upgrade: Option<String>,
}

/// Definitions as they are sent.
pub struct Sent {
    pub project: String,
    pub body: Directory,
    /// As it was typed.
    directory: PathBuf,
}

impl Sent {
    /// Reads a directory; what is wrong with its text is found here, before anything is asked of anyone.
    pub fn read(dir: &Path, global: &Global, embedded: bool) -> anyhow::Result<Sent> {
        check_directory(dir)?;
        let files = definition_files(dir)?;
        let directory = if dir.is_dir() { dir } else { dir.parent().unwrap_or(Path::new("")) };
        let body = Directory { files, lock: Lock::read(dir)?, embedded };
        let mut sent = Sent { project: String::new(), body, directory: directory.to_owned() };
        let definitions = read_files(&sent.body.files).map_err(|error| sent.named(error.into()))?;
        sent.project = project_name(&definitions, global.project.as_deref())?;
        Ok(sent)
    }

    /// The same error, with files named so that a person can open them from here.
    pub fn named(&self, error: anyhow::Error) -> anyhow::Error {
        if code_of(&error) != 2 {
            return error;
        }
        let said = format!("{error:#}");
        let lines = said.lines().map(|line| {
            let file = self.body.files.iter().map(|file| &file.file);
            let mut named =
                file.filter(|file| line.strip_prefix(file.as_str()).is_some_and(|rest| rest.starts_with(':')));
            match named.next() {
                Some(_) => self.directory.join(line).display().to_string(),
                None => line.to_owned(),
            }
        });
        Failure::Input(lines.collect::<Vec<_>>().join("\n")).into()
    }

    fn put(&self, reach: &Reach, query: &str) -> anyhow::Result<Value> {
        let path = format!("{}?{query}", project_path(&self.project, &["definitions"]));
        let body = serde_json::to_vec(&self.body)?;
        let told = reach.send("PUT", &path, &[("content-type", DIRECTORY_TYPE)], body)?.json();
        told.map_err(|error| self.named(error))
    }
}

pub fn plan(args: &PlanArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let sent = Sent::read(&args.dir, global, false)?;
    let reach = Reach::open(global, "onefold plan")?;
    let told = sent.put(&reach, &format!("dry_run=true{}", query(&args.moves, &args.scope, &args.history)))?;
    show(&told, global)?;
    let changes = told["changes"].as_array().is_some_and(|changes| !changes.is_empty());
    Ok(if args.check && changes { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

pub fn apply(args: &ApplyArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let sent = Sent::read(&args.dir, global, false)?;
    let reach = Reach::open(global, "onefold apply")?;
    args.waiting.check(&reach)?;
    let how = query(&args.moves, &args.scope, &args.history) + &args.waiting.query();
    let told = sent.put(&reach, &format!("allow_breaking={}{how}", args.allow_breaking))?;
    let told = args.waiting.outcome(told, &reach, &sent.project, global)?;
    // Of a job that is not waited for too: its lines are what it is about to make live.
    let lock: Lock = serde_json::from_value(told["lock"].clone())
        .map_err(|error| Failure::Outside(format!("the server sent no lock: {error}")))?;
    lock.write(&args.dir)?;
    show(&told, global)?;
    args.waiting.say_job(&told, global)?;
    let is_live = told["job"].is_null() && told["changes"].as_array().is_some_and(|changes| !changes.is_empty());
    if is_live && !global.json {
        print(&format!("revision {} is live", told["revision"]))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What a plan is told as its apply is.
fn query(moves: &Moves, scope: &Scope, history: &History) -> String {
    moves.query() + &scope.query() + &history.query()
}

impl Moves {
    fn query(&self) -> String {
        let mut query = if self.locked { "&locked=true".to_owned() } else { String::new() };
        if let Some(modules) = &self.upgrade {
            query.push_str(&format!("&upgrade={}", super::client::escaped(modules)));
        }
        query
    }
}

impl Scope {
    fn query(&self) -> String {
        let mut query = if self.prune { "&prune=true".to_owned() } else { String::new() };
        if let Some(set) = &self.take_over {
            query.push_str(&format!("&take_over={}", super::client::escaped(set)));
        }
        query
    }
}

impl History {
    fn query(&self) -> String {
        let mut query = self.from.as_ref().map(|from| format!("&from={from}")).unwrap_or_default();
        if self.same_rows {
            query.push_str("&same_rows=true");
        }
        query
    }
}

/// A plan, or what an apply did, for people or scripts.
pub(super) fn show(told: &Value, global: &Global) -> anyhow::Result<()> {
    if !global.json {
        return print(told["text"].as_str().unwrap_or_default().trim_end());
    }
    let mut told = told.clone();
    if let Value::Object(members) = &mut told {
        for extra in ["text", "lock", "tests"] {
            members.remove(extra);
        }
    }
    print(&told.to_string())
}
