//! `onefold context`: names for servers, in the user's own configuration.

use super::table::Table;
use super::{Failure, Global, print};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use url::{Host, Url};

/// Its name below the user's directory of configurations.
const FILE: &str = "onefold/contexts.json";

/// Names for servers, so that commands go to one of them.
#[derive(clap::Args)]
#[command(after_help = "Example: onefold context add staging http://127.0.0.1:6566")]
pub struct ContextArgs {
    #[command(subcommand)]
    action: ContextAction,
}

#[derive(clap::Subcommand)]
enum ContextAction {
    /// Name a server.
    #[command(after_help = "Example: onefold context add staging http://127.0.0.1:6566")]
    Add { name: String, url: String },
    /// Let commands go to this server where nothing else is said; without a name to none.
    #[command(after_help = "Examples: onefold context use staging\n          onefold context use")]
    Use { name: Option<String> },
    /// Show all names.
    #[command(after_help = "Example: onefold context list")]
    List,
    /// Forget a name.
    #[command(after_help = "Example: onefold context remove staging")]
    Remove { name: String },
}

/// The user's servers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contexts {
    /// What commands go to where nothing else is said.
    #[serde(default)]
    current: Option<String>,
    /// URLs by name.
    #[serde(default)]
    servers: BTreeMap<String, String>,
}

/// A server that commands are sent to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Without a `/` at its end.
    pub url: String,
    /// `--server`, or the context; how it was chosen, for people.
    pub chosen_by: String,
    /// Said with this command or in its environment, not once for all with `context use`.
    pub is_explicit: bool,
}

pub fn run(args: &ContextArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let path = path(&|name| std::env::var(name).ok())?;
    let mut contexts = Contexts::read(&path)?;
    match &args.action {
        ContextAction::Add { name, url } => {
            crate::define::check_name(name).map_err(Failure::Input)?;
            contexts.servers.insert(name.clone(), checked(url)?);
            contexts.write(&path)?;
            print(&format!("{name}: {url}; `onefold context use {name}` lets commands go there"))?;
        }
        ContextAction::Use { name } => {
            if let Some(name) = name {
                contexts.url(name)?;
            }
            contexts.current.clone_from(name);
            contexts.write(&path)?;
            print(&match name {
                Some(name) => format!("commands go to {name} now, {}", contexts.url(name)?),
                None => "commands work on --data again".to_owned(),
            })?;
        }
        ContextAction::List => {
            if global.json {
                print(&json!({ "current": contexts.current, "servers": contexts.servers }).to_string())?;
            } else {
                let mut table = Table::new(&["context", "server", ""]);
                for (name, url) in &contexts.servers {
                    let used = if contexts.current.as_ref() == Some(name) { "in use" } else { "" };
                    table.row([name.clone(), url.clone(), used.to_owned()]);
                }
                print(&table.text())?;
            }
        }
        ContextAction::Remove { name } => {
            contexts.url(name)?;
            contexts.servers.remove(name);
            contexts.current = contexts.current.filter(|current| current != name);
            contexts.write(&path)?;
            print(&format!("{name} is forgotten"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The server that commands go to; none where they work on the data: `--server`, then `--context`, then `--data`, then
/// `ONEFOLD_CONTEXT`, then data of the environment or the settings' file, then the context in use.
pub fn server(
    server: Option<&str>,
    context: Option<&str>,
    data: DataSaid,
    environment: &dyn Fn(&str) -> Option<String>,
) -> anyhow::Result<Option<Server>> {
    if let Some(url) = server {
        return Ok(Some(Server { url: checked(url)?, chosen_by: "--server".to_owned(), is_explicit: true }));
    }
    let named = |name: &str, chosen_by: String, is_explicit: bool| {
        let url = Contexts::read(&path(environment)?)?.url(name)?;
        anyhow::Ok(Some(Server { url: checked(&url)?, chosen_by, is_explicit }))
    };
    if let Some(name) = context {
        return named(name, format!("--context {name}"), true);
    }
    if data == DataSaid::ByFlag {
        return Ok(None);
    }
    if let Some(name) = environment("ONEFOLD_CONTEXT").filter(|name| !name.is_empty()) {
        return named(&name, format!("ONEFOLD_CONTEXT={name}"), true);
    }
    // Without a home there is no context in use.
    let Ok(path) = path(environment) else { return Ok(None) };
    match Contexts::read(&path)?.current.filter(|_| data == DataSaid::Nowhere) {
        Some(name) => named(&name, format!("context `{name}`, which is in use"), false),
        None => Ok(None),
    }
}

/// Where it was said which data are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataSaid {
    Nowhere,
    ByFlag,
    /// In the environment or the settings' file.
    BySettings,
}

impl Contexts {
    fn read(path: &Path) -> Result<Contexts, Failure> {
        let wrong = |reason: String| Failure::Input(format!("{}: {reason}; mend or remove it", path.display()));
        match std::fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Contexts::default()),
            Err(error) => Err(wrong(error.to_string())),
        }
    }

    fn write(&self, path: &Path) -> anyhow::Result<()> {
        let failed = |error: std::io::Error| Failure::Outside(format!("cannot write {}: {error}", path.display()));
        let directory = path.parent().unwrap_or(path);
        std::fs::create_dir_all(directory).map_err(failed)?;
        let mut file = tempfile::NamedTempFile::new_in(directory).map_err(failed)?;
        serde_json::to_writer_pretty(&mut file, self)?;
        file.persist(path).map_err(|error| failed(error.error))?;
        Ok(())
    }

    fn url(&self, name: &str) -> Result<String, Failure> {
        self.servers.get(name).cloned().ok_or_else(|| {
            let hint = crate::define::hint(name, self.servers.keys().map(String::as_str));
            Failure::Input(format!("there is no context `{name}`; {hint}"))
        })
    }
}

/// Where the user's contexts are.
fn path(environment: &dyn Fn(&str) -> Option<String>) -> Result<PathBuf, Failure> {
    let said = |name: &str| environment(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    // A relative one is not to be heeded, says its specification.
    let directory = said("XDG_CONFIG_HOME").filter(|path| path.is_absolute());
    let directory = directory.or_else(|| said("HOME").map(|home| home.join(".config")));
    let message = "neither XDG_CONFIG_HOME nor HOME says where your configuration is: set one";
    directory.map(|directory| directory.join(FILE)).ok_or_else(|| Failure::Input(message.to_owned()))
}

/// A server's URL as requests begin with it.
fn checked(typed: &str) -> Result<String, Failure> {
    let wrong = |why: &str| Failure::Input(format!("`{typed}` is no server: {why}"));
    let url = Url::parse(typed).map_err(|error| wrong(&format!("{error}; write http://127.0.0.1:6566")))?;
    if url.scheme() != "http" || !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("write http://, a host and a port, and nothing behind them"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("there are no users yet, and a password in a URL is seen by all"));
    }
    let is_here = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    match is_here {
        true => Ok(url.as_str().trim_end_matches('/').to_owned()),
        false => Err(wrong(
            "only this machine can be reached yet, since there are no tokens and no TLS: whoever stands on the way could \
             read and change everything; use 127.0.0.1, and a tunnel of your own where it is another machine",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_servers_of_this_machine_are_taken() {
        for (typed, taken) in [
            ("http://127.0.0.1:6566", "http://127.0.0.1:6566"),
            ("http://localhost:1/", "http://localhost:1"),
            ("http://[::1]:6566", "http://[::1]:6566"),
            ("HTTP://LOCALHOST", "http://localhost"),
        ] {
            assert_eq!(checked(typed).unwrap(), taken);
        }
        for wrong in [
            "127.0.0.1:6566",
            "https://127.0.0.1",
            "http://example.com",
            "http://10.0.0.1:6566",
            "http://localhost.example.com",
            "http://me:secret@localhost",
            "http://localhost/v1",
            "http://localhost?x",
        ] {
            assert!(checked(wrong).is_err(), "{wrong}");
        }
    }

    /// Data that were named are never passed over for a server that was chosen some other day.
    #[test]
    fn what_is_said_later_and_nearer_comes_first() {
        let home = tempfile::tempdir().unwrap();
        let at = home.path().to_str().unwrap().to_owned();
        let contexts = Contexts {
            current: Some("used".into()),
            servers: [("used", "http://localhost:4"), ("named", "http://localhost:5")]
                .map(|(name, url)| (name.to_owned(), url.to_owned()))
                .into(),
        };
        contexts.write(&home.path().join(FILE)).unwrap();
        let chosen = |flag: Option<&str>, context: Option<&str>, data: DataSaid, variable: Option<&str>| {
            let environment = |name: &str| match name {
                "XDG_CONFIG_HOME" => Some(at.clone()),
                "ONEFOLD_CONTEXT" => variable.map(str::to_owned),
                _ => None,
            };
            server(flag, context, data, &environment).map(|server| server.map(|server| server.url))
        };
        let url = |port: u16| Some(format!("http://localhost:{port}"));
        assert_eq!(chosen(None, None, DataSaid::Nowhere, None).unwrap(), url(4));
        assert_eq!(chosen(None, None, DataSaid::BySettings, None).unwrap(), None);
        assert_eq!(chosen(None, None, DataSaid::BySettings, Some("named")).unwrap(), url(5));
        assert_eq!(chosen(None, None, DataSaid::ByFlag, Some("named")).unwrap(), None);
        assert_eq!(chosen(None, Some("named"), DataSaid::Nowhere, None).unwrap(), url(5));
        assert_eq!(chosen(Some("http://localhost:9"), None, DataSaid::Nowhere, Some("named")).unwrap(), url(9));
        let error = chosen(None, Some("usd"), DataSaid::Nowhere, None).unwrap_err().to_string();
        assert_eq!(error, "there is no context `usd`; did you mean `used`?");
    }
}
