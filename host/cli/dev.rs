//! `onefold dev` and `onefold serve`: the processes that answer.

use super::apply::Sent;
use super::client::{open_platform, open_platform_over, owner, serve_settings};
use super::{Failure, Global, note, print};
use crate::define::read_files;
use crate::platform::Platform;
use crate::registry::ApplyOptions;
use crate::serve::{self, App, check_listen};
use crate::storage::{DataLock, Halt, LookStorage};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use tokio::net::TcpListener;

/// Run everything in one process: apply definitions, take pushes, stream, serve.
#[derive(clap::Args)]
#[command(after_help = "Example: onefold dev examples/ecommerce/definitions --listen 127.0.0.1:7000")]
pub struct DevArgs {
    /// The definitions: a directory, or one file.
    dir: PathBuf,
    /// Where to listen; on this machine only [default: 127.0.0.1:6566].
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<String>,
    /// Run definitions that name connections with pushes and the embedded store instead.
    #[arg(long)]
    embedded: bool,
    #[arg(long, hide = true)]
    watch: bool,
    /// For tests of the program alone.
    #[arg(long, hide = true, value_name = "POINT;HIT;FILE")]
    halt_at: Option<Halt>,
}

/// Serve lookups from the data as they are now, whoever writes them; as many processes as wanted.
#[derive(clap::Args)]
#[command(after_help = "Example: onefold serve --data ./.onefold --listen 127.0.0.1:6567")]
pub struct ServeArgs {
    /// Where to listen; on this machine only [default: 127.0.0.1:6566].
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<String>,
}

pub fn dev(args: &DevArgs, global: &Global) -> anyhow::Result<ExitCode> {
    if args.watch {
        let message = "--watch is not in this version yet: run `onefold apply DIR` after a change";
        return Err(Failure::Input(message.to_owned()).into());
    }
    global.serves_itself("onefold dev")?;
    check_listen(&global.settings.listen).map_err(Failure::Input)?;
    let sent = Sent::read(&args.dir, global, args.embedded)?;
    let lock = DataLock::acquire(&global.settings.data, &owner("onefold dev", None))?;
    if let Some(halt) = &args.halt_at {
        note(&format!("warning: a test of the program has it halt for good at {halt} (--halt-at)"));
    }
    let platform = open_platform(global, args.halt_at.as_ref())?;
    let definitions = read_files(&sent.body.files)?;
    let definitions = if args.embedded { definitions.embedded() } else { definitions };
    let options = ApplyOptions { lock: sent.body.lock.clone(), ..ApplyOptions::default() };
    let planned = platform.plan(&sent.project, &definitions, &options);
    let proposal = planned.map_err(|error| sent.named(error.into()))?;
    let (text, moved) = (proposal.plan.to_string(), proposal.lock.clone());
    platform.apply(&sent.project, &proposal)?;
    moved.write(&args.dir)?;
    note(text.trim_end());
    listen(global, platform, false, |address| {
        lock.announce(&owner("onefold dev", Some(address.to_owned())))?;
        Ok(())
    })
}

pub fn serve(_args: &ServeArgs, global: &Global) -> anyhow::Result<ExitCode> {
    global.serves_itself("onefold serve")?;
    check_listen(&global.settings.listen).map_err(Failure::Input)?;
    // The data are looked at as they are now, whoever owns them.
    let storage = Arc::new(LookStorage::new(global.storage()?));
    let platform = open_platform_over(global, storage)?;
    note("serving the data as they are now; start again to see what is written later");
    listen(global, platform, true, |_| Ok(()))
}

/// Answers until the process is told to stop; then the last checkpoint is written.
fn listen(
    global: &Global,
    platform: Arc<Platform>,
    read_only: bool,
    announce: impl FnOnce(&str) -> anyhow::Result<()>,
) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let served = runtime.block_on(async {
        let listener = TcpListener::bind(global.settings.listen).await.map_err(|error| {
            Failure::Outside(format!(
                "cannot listen at {}: {error}; choose another address with --listen",
                global.settings.listen
            ))
        })?;
        let address = listener.local_addr()?.to_string();
        announce(&address)?;
        print(&format!("listening at http://{address}"))?;
        let app = App::new(platform.clone(), global.clock.clone(), serve_settings(global, read_only));
        serve::run(listener, app, serve::stop_signal()).await?;
        anyhow::Ok(())
    });
    platform.close()?;
    served.map(|()| ExitCode::SUCCESS)
}
