//! The command line: one tree of commands, each a thin client of the interface that HTTP has.
//!
//! Exit codes: 0 done; 1 the answer is no; 2 wrong usage or bad input; 3 something outside failed.

mod apply;
mod batch;
mod cases;
mod client;
mod context;
mod dev;
mod explain;
mod first_rows;
pub mod generate;
mod get;
mod init;
mod jobs;
mod junit;
mod letters;
mod lookup;
mod module;
mod outline;
mod progress;
mod push;
mod revisions;
mod source;
mod table;
mod test;
mod udf;
mod udf_cases;
mod udf_flags;
mod waiting;

use crate::clock::{Clock, SystemClock};
use crate::define::{DefineError, hint};
use crate::platform::PlatformError;
use crate::registry::RegistryError;
use crate::settings::{self, Flags, Settings};
use crate::state::CheckpointError;
use crate::storage::{LocalStorage, Storage};
use clap::{CommandFactory, Parser, Subcommand};
use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

/// Features written once in WebAssembly, the same in a stream and in a batch.
#[derive(Parser)]
#[command(
    name = "onefold",
    version,
    after_help = "Example: onefold dev examples/ecommerce/definitions",
    disable_help_subcommand = true
)]
pub struct Command {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    action: Action,
}

/// Above the options that every command takes, so that its own stand together.
const EVERYWHERE: &str = "Options of every command";

#[derive(clap::Args)]
struct Options {
    /// Where the data are: a directory or file:// URL [default: ./.onefold].
    #[arg(long, global = true, help_heading = EVERYWHERE, value_name = "URL", conflicts_with_all = ["server", "context"])]
    data: Option<String>,
    /// The project [default: the only one, or that of the definitions].
    #[arg(long, global = true, help_heading = EVERYWHERE, value_name = "NAME", env = "ONEFOLD_PROJECT")]
    project: Option<String>,
    /// The operator's settings [default: onefold.yaml here or above].
    #[arg(long, global = true, help_heading = EVERYWHERE, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Answer in JSON, for scripts.
    #[arg(long, global = true, help_heading = EVERYWHERE)]
    json: bool,
    /// Send the command to this server instead of working on data: http://127.0.0.1:6566.
    #[arg(long, global = true, help_heading = EVERYWHERE, value_name = "URL", conflicts_with = "context")]
    server: Option<String>,
    /// Send it to the server of this name (`onefold context`; also ONEFOLD_CONTEXT).
    #[arg(long, global = true, help_heading = EVERYWHERE, value_name = "NAME")]
    context: Option<String>,
}

#[derive(Subcommand)]
enum Action {
    /// Begin a project, from data of your own.
    Init(init::InitArgs),
    /// Run everything in one process: apply definitions, take pushes, stream, serve.
    Dev(dev::DevArgs),
    /// Make the canonical rows, as files or live.
    Generate(generate::GenerateArgs),
    /// Write and try UDFs.
    Udf(udf::UdfArgs),
    /// Run the tests of definitions on every path.
    Test(test::TestArgs),
    /// Modules on the platform.
    Module(module::ModuleArgs),
    /// Say what definitions would change, and what each change costs.
    Plan(apply::PlanArgs),
    /// Make definitions live.
    Apply(apply::ApplyArgs),
    /// Print the JSON Schema of definitions, for editors.
    Schema(get::SchemaArgs),
    /// Show what is registered.
    Get(get::GetArgs),
    /// Take something out of what is registered.
    Delete(revisions::DeleteArgs),
    /// Say what was applied when.
    Revisions(revisions::RevisionsArgs),
    /// Make the project again what it was in an older revision, as a new revision.
    Rollback(revisions::RollbackArgs),
    /// Let a view's values stay as they are: they are looked up and not folded.
    Pause(revisions::PauseArgs),
    /// Let a paused view's values go on, with all that has come meanwhile.
    Resume(revisions::ResumeArgs),
    /// Send a file's events to a source's stream.
    Push(push::PushArgs),
    /// What comes in: a look at a source's rows.
    Source(source::SourceArgs),
    /// Look features up, once, for people.
    Lookup(lookup::LookupArgs),
    /// Build the state of views from their sources' files, for lookups and for the stream to go on from.
    Materialize(batch::MaterializeArgs),
    Rebuild(batch::RebuildArgs),
    /// Write every known entity's values at an instant, computed by batch.
    Snapshot(batch::SnapshotArgs),
    /// Make a training set: for each label the features as they were at its time.
    Historical(batch::HistoricalArgs),
    /// Compare every streamed value with batch, bit for bit, over the rows that the state is made of.
    Verify(batch::VerifyArgs),
    /// Say why a value is what it is: its rows, in or out and why, and the value after each.
    Explain(explain::ExplainArgs),
    /// Serve lookups from the data as they are now, whoever writes them.
    Serve(dev::ServeArgs),
    /// Rows that could not be processed.
    DeadLetters(letters::LettersArgs),
    /// Long work that runs in a server.
    Jobs(jobs::JobsArgs),
    /// Names for servers, so that commands go to one of them.
    Context(context::ContextArgs),
    /// How the project stands: sources, lag, watermarks, checkpoints, freshness.
    Status(letters::StatusArgs),
    #[command(external_subcommand)]
    Other(Vec<OsString>),
}

/// Commands of the interface that later versions bring.
const LATER: [&str; 10] =
    ["stream", "topics", "compact", "sql", "token", "import", "consistency", "archive", "web", "migrate"];

/// What every command is told.
pub struct Global {
    pub settings: Settings,
    /// Where commands are sent; none: they work on the data.
    pub server: Option<context::Server>,
    /// `--project`.
    pub project: Option<String>,
    /// Answer in JSON.
    pub json: bool,
    /// A person watches: show progress.
    pub progress: bool,
    pub clock: Arc<dyn Clock>,
}

impl Global {
    /// Refuses a command that only works on the data themselves, where another server was meant.
    pub fn on_the_data(&self, command: &str) -> Result<(), Failure> {
        match &self.server {
            None => Ok(()),
            Some(server) => Err(Failure::Input(format!(
                "`{command}` works on the data themselves and cannot be sent to {} ({}): run it where the data are, with \
                 --data",
                server.url, server.chosen_by
            ))),
        }
    }

    /// The same for a process that is itself a server: one that is in use for commands does not concern it.
    pub fn serves_itself(&self, command: &str) -> Result<(), Failure> {
        match &self.server {
            Some(server) if server.is_explicit => self.on_the_data(command),
            _ => Ok(()),
        }
    }

    /// The data directory, made if missing.
    pub fn storage(&self) -> anyhow::Result<Arc<dyn Storage>> {
        Ok(Arc::new(LocalStorage::open(&self.settings.data)?))
    }
}

/// Why a command did not do it, by what its exit code says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// 1: it was done, and the answer is no.
    #[error("{0}")]
    No(String),
    /// 2: what was typed, or what it names, is wrong.
    #[error("{0}")]
    Input(String),
    /// 3: something that is no fault of the command's.
    #[error("{0}")]
    Outside(String),
}

impl Failure {
    /// What a status of HTTP that is no success comes to.
    fn of_status(status: u16, detail: String) -> Failure {
        match status {
            409 => Failure::No(detail),
            400..=499 | 501 => Failure::Input(detail),
            _ => Failure::Outside(detail),
        }
    }

    fn code(&self) -> u8 {
        match self {
            Failure::No(_) => 1,
            Failure::Input(_) => 2,
            Failure::Outside(_) => 3,
        }
    }
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let command = Command::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_env("ONEFOLD_LOG");
    let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match run(command) {
        Ok(code) => code,
        Err(error) => {
            // Nowhere to say that standard error is closed.
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::from(code_of(&error))
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    let Command { options, action } = command;
    let listen = match &action {
        Action::Dev(args) => args.listen.clone(),
        Action::Serve(args) => args.listen.clone(),
        _ => None,
    };
    let flags = Flags { config: options.config, data: options.data, listen };
    let directory = std::env::current_dir()?;
    let environment = |name: &str| std::env::var(name).ok();
    let settings = settings::load(&flags, &directory, &environment)?;
    let data = match (&flags.data, settings.data_is_said) {
        (Some(_), _) => context::DataSaid::ByFlag,
        (None, true) => context::DataSaid::BySettings,
        (None, false) => context::DataSaid::Nowhere,
    };
    let server = match &action {
        // Whatever the contexts are, this is what they are mended with.
        Action::Context(_) => None,
        _ => context::server(options.server.as_deref(), options.context.as_deref(), data, &environment)?,
    };
    let global = Global {
        settings,
        server,
        project: options.project,
        json: options.json,
        progress: std::io::stderr().is_terminal(),
        clock: Arc::new(SystemClock::new()),
    };
    match action {
        Action::Dev(args) => dev::dev(&args, &global),
        Action::Serve(args) => dev::serve(&args, &global),
        Action::Generate(args) => generated(&args, &global),
        Action::Udf(args) => udf::run(&args, &global),
        Action::Init(args) => init::run(&args, &global),
        Action::Test(args) => test::run(&args, &global),
        Action::Module(args) => module::run(&args, &global),
        Action::Plan(args) => apply::plan(&args, &global),
        Action::Apply(args) => apply::apply(&args, &global),
        Action::Schema(args) => get::schema(&args, &global),
        Action::Get(args) => get::get(&args, &global),
        Action::Delete(args) => revisions::delete(&args, &global),
        Action::Revisions(args) => revisions::revisions(&args, &global),
        Action::Rollback(args) => revisions::rollback(&args, &global),
        Action::Pause(args) => revisions::pause(&args, &global),
        Action::Resume(args) => revisions::resume(&args, &global),
        Action::Push(args) => push::run(&args, &global),
        Action::Source(args) => source::run(&args, &global),
        Action::Lookup(args) => lookup::run(&args, &global),
        Action::Materialize(args) => batch::materialize(&args, &global),
        Action::Rebuild(args) => batch::rebuild(&args, &global),
        Action::Snapshot(args) => batch::snapshot(&args, &global),
        Action::Historical(args) => batch::historical(&args, &global),
        Action::Verify(args) => batch::verify(&args, &global),
        Action::Explain(args) => explain::run(&args, &global),
        Action::DeadLetters(args) => letters::letters(&args, &global),
        Action::Jobs(args) => jobs::run(&args, &global),
        Action::Context(args) => context::run(&args, &global),
        Action::Status(args) => letters::status(&args, &global),
        Action::Other(words) => Err(unknown_command(&words).into()),
    }
}

fn generated(args: &generate::GenerateArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let made = generate::generate(args, &*global.clock, global.progress)?;
    match global.json {
        true => print(&serde_json::json!({ "rows": made.rows, "broken": made.broken }).to_string())?,
        false => print(&format!("{} rows, {} of them broken", made.rows, made.broken))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn unknown_command(words: &[OsString]) -> Failure {
    let name = words.first().map(|word| word.to_string_lossy().into_owned()).unwrap_or_default();
    if LATER.contains(&name.as_str()) {
        return Failure::Input(format!("`onefold {name}` is not in this version yet"));
    }
    let tree = Command::command();
    let known: Vec<&str> = tree.get_subcommands().map(clap::Command::get_name).collect();
    Failure::Input(format!("there is no command `{name}`; {}", hint(&name, known)))
}

fn code_of(error: &anyhow::Error) -> u8 {
    for cause in error.chain() {
        if let Some(failure) = cause.downcast_ref::<Failure>() {
            return failure.code();
        }
        let groups = matches!(cause.downcast_ref(), Some(PlatformError::Checkpoint(CheckpointError::Groups { .. })));
        let registry = match cause.downcast_ref() {
            Some(PlatformError::Registry(error)) => Some(error),
            _ => cause.downcast_ref::<RegistryError>(),
        };
        match registry {
            None | Some(RegistryError::Storage(_) | RegistryError::Damaged { .. }) => {}
            // As by HTTP, which answers them with 409.
            Some(RegistryError::Conflict(_) | RegistryError::Breaks(_)) => return 1,
            Some(_) => return 2,
        }
        if groups || cause.is::<DefineError>() || cause.is::<settings::SettingsError>() {
            return 2;
        }
    }
    3
}

/// One line (or several) on standard output. A reader that has gone away is no error: `| head` has seen enough.
pub fn print(text: &str) -> anyhow::Result<()> {
    let written = writeln!(std::io::stdout().lock(), "{text}");
    match written {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

/// One line for people on standard error.
pub fn note(text: &str) {
    // Nothing depends on it being seen.
    let _ = writeln!(std::io::stderr(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_holds_together_and_every_command_has_an_example() {
        Command::command().debug_assert();
        let mut waiting = vec![Command::command()];
        while let Some(mut command) = waiting.pop() {
            let name = command.get_name().to_owned();
            let help = command.render_long_help().to_string();
            assert!(help.contains("Example"), "`{name} --help` shows no example:\n{help}");
            waiting.extend(command.get_subcommands().cloned());
        }
    }

    #[test]
    fn commands_that_do_not_exist_are_told_from_those_to_come() {
        let said = |word: &str| unknown_command(&[OsString::from(word)]).to_string();
        assert_eq!(said("compact"), "`onefold compact` is not in this version yet");
        assert_eq!(said("aply"), "there is no command `aply`; did you mean `apply`?");
    }
}
