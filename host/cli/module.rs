//! `onefold module`: modules on the platform.

use super::client::{Reach, escaped, project_path};
use super::outline::outline;
use super::table::Table;
use super::{Failure, Global, print};
use crate::define::Digest;
use onefold_fold::{Engine, Limits, Role};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Modules on the platform.
#[derive(clap::Args)]
#[command(after_help = "Example: onefold module push my_features.wasm --name my_features")]
pub struct ModuleArgs {
    #[command(subcommand)]
    action: ModuleAction,
}

#[derive(clap::Subcommand)]
enum ModuleAction {
    /// Upload a module; the same bytes again are no new version.
    #[command(after_help = "Example: onefold module push my_features.wasm --name my_features --project ecommerce")]
    Push {
        /// The .wasm as the compiler left it.
        file: PathBuf,
        /// What definitions call it.
        #[arg(long)]
        name: String,
    },
    /// All versions of all modules.
    #[command(after_help = "Example: onefold module list")]
    List,
    /// The UDFs of a module with their parameters.
    #[command(
        after_help = "Examples: onefold module inspect my_features.wasm\n          onefold module inspect ecommerce@1"
    )]
    Inspect {
        /// A .wasm file, or a module on the platform, with `@version` for another than the newest.
        #[arg(value_name = "FILE|NAME[@V]")]
        which: String,
    },
    /// Delete a version that nothing uses.
    #[command(after_help = "Example: onefold module delete ecommerce@1")]
    Delete {
        #[arg(value_name = "NAME@V")]
        which: String,
    },
}

pub fn run(args: &ModuleArgs, global: &Global) -> anyhow::Result<ExitCode> {
    match &args.action {
        ModuleAction::Push { file, name } => push(file, name, global)?,
        ModuleAction::List => list(global)?,
        ModuleAction::Inspect { which } => inspect(which, global)?,
        ModuleAction::Delete { which } => {
            let Some((name, version)) = which.split_once('@') else {
                return Err(Failure::Input(format!("`{which}`: say which version, {which}@1")).into());
            };
            let reach = Reach::open(global, "onefold module delete")?;
            reach.send("DELETE", &reach.path(&["modules", name, version])?, &[], Vec::new())?.json()?;
            print(&format!("{which} is deleted"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn push(file: &Path, name: &str, global: &Global) -> anyhow::Result<()> {
    let bytes = read(file)?;
    let reach = Reach::open(global, "onefold module push")?;
    let path = format!("{}?name={}", project_path(&reach.project_to_be()?, &["modules"]), escaped(name));
    let answer = reach.send("POST", &path, &[("content-type", "application/wasm")], bytes)?;
    let is_new = answer.status == 201;
    let told = answer.json()?;
    if global.json {
        return print(&told.to_string());
    }
    let known = if is_new { "" } else { " (these bytes were there already)" };
    print(&format!("{name}@{}{known}  {}\n{}", told["version"], text(&told["digest"]), udfs(&told["udfs"])))
}

fn list(global: &Global) -> anyhow::Result<()> {
    let reach = Reach::open(global, "onefold module list")?;
    let told = reach.get(&reach.path(&["modules"])?)?;
    if global.json {
        return print(&told.to_string());
    }
    let mut table = Table::new(&["module", "version", "bytes", "digest", "udfs"]);
    for one in told["modules"].as_array().into_iter().flatten() {
        let names = one["udfs"].as_array().into_iter().flatten().map(|udf| text(&udf["name"]));
        let names = names.collect::<Vec<_>>().join(", ");
        table.row([text(&one["name"]), text(&one["version"]), text(&one["size"]), text(&one["digest"]), names]);
    }
    print(&table.text())
}

fn inspect(which: &str, global: &Global) -> anyhow::Result<()> {
    let file = Path::new(which);
    let told = if file.is_file() {
        described(file)?
    } else {
        let reach = Reach::open(global, "onefold module inspect")?;
        match which.split_once('@') {
            Some((name, version)) => reach.get(&reach.path(&["modules", name, version])?)?,
            None => {
                let told = reach.get(&reach.path(&["modules", which])?)?;
                told["versions"].as_array().and_then(|versions| versions.last().cloned()).unwrap_or_default()
            }
        }
    };
    print(&if global.json { told.to_string() } else { outline(&told) })
}

/// What a file holds, as the platform would see it.
fn described(file: &Path) -> anyhow::Result<Value> {
    let bytes = read(file)?;
    let module = Engine::new(Limits::default())?
        .load(&bytes)
        .map_err(|refused| Failure::No(format!("{}: refused: {refused}", file.display())))?;
    let udfs = module.udfs().iter().map(|udf| {
        let role = match udf.role {
            Role::Aggregate => "aggregate",
            Role::Transform => "transform",
        };
        let params: Value = serde_json::from_str(&udf.params_schema).unwrap_or(Value::Null);
        json!({ "name": udf.name, "role": role, "doc": udf.doc, "params": params })
    });
    Ok(json!({ "digest": Digest::of(&bytes).to_string(), "size": bytes.len(), "udfs": udfs.collect::<Value>() }))
}

fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(file).map_err(|error| Failure::Input(format!("cannot read {}: {error}", file.display())))
}

fn udfs(udfs: &Value) -> String {
    let mut table = Table::new(&["udf", "role", "what it does"]);
    for udf in udfs.as_array().into_iter().flatten() {
        table.row([text(&udf["name"]), text(&udf["role"]), text(&udf["doc"])]);
    }
    table.text()
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
