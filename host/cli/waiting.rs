//! Whether a command waits for the end of its work: `--wait`, `--detach`, and the jobs behind them.

use super::client::{Reach, project_path};
use super::progress::rows_bar;
use super::{Failure, Global, print};
use serde_json::{Value, json};
use std::time::Duration;

const POLL: Duration = Duration::from_millis(50);

/// What of commands that make something live may take long.
#[derive(clap::Args, Clone, Copy, Default)]
pub struct Waiting {
    /// Show how far it is until it is live.
    #[arg(long)]
    wait: bool,
    /// Do not wait until it is live: say which job makes it so.
    #[arg(long, conflicts_with = "wait")]
    detach: bool,
}

impl Waiting {
    /// Refuses to leave work behind that would end with this process.
    pub fn check(self, reach: &Reach) -> Result<(), Failure> {
        match self.detach && !reach.is_elsewhere() {
            false => Ok(()),
            true => Err(Failure::Input(
                "no process holds these data, so nobody would go on with it: leave --detach out, or start `onefold dev`"
                    .to_owned(),
            )),
        }
    }

    /// For the query of a change: whether its answer is to come when it is live.
    pub fn query(self) -> String {
        format!("&wait={}", !self.wait && !self.detach)
    }

    /// What a change has done, once it is live; where nobody waits what it is about to do, with its `job`.
    pub fn outcome(self, told: Value, reach: &Reach, project: &str, global: &Global) -> anyhow::Result<Value> {
        match told["job"].as_str().filter(|_| self.wait) {
            Some(job) => watch_job(reach, project, job, global),
            None => Ok(told),
        }
    }

    /// Runs work that is a job in any case, and shows how far it is: its result, none where nobody waits for it.
    pub fn run_job(self, global: &Global, command: &str, request: &Value) -> anyhow::Result<Option<Value>> {
        let reach = Reach::open(global, command)?;
        self.check(&reach)?;
        let project = reach.project()?;
        let started = reach.post_json(&project_path(&project, &["jobs"]), request)?;
        let id = started["id"].as_str().unwrap_or_default();
        if !self.detach {
            return watch_job(&reach, &project, id, global).map(Some);
        }
        let told = json!({ "job": id });
        match global.json {
            true => print(&told.to_string())?,
            false => self.say_job(&told, global)?,
        }
        Ok(None)
    }

    /// Says which job goes on with what nobody waits for.
    pub fn say_job(self, told: &Value, global: &Global) -> anyhow::Result<()> {
        match told["job"].as_str().filter(|_| self.detach && !global.json) {
            Some(job) => print(&format!("job {job} makes it live: onefold jobs watch {job}")),
            None => Ok(()),
        }
    }
}

/// Starts a job and waits for its end.
pub fn run_job(global: &Global, command: &str, request: &Value) -> anyhow::Result<Value> {
    let done = Waiting::default().run_job(global, command, request)?;
    done.ok_or_else(|| Failure::Outside("the job ended without a result".to_owned()).into())
}

/// The result of a job, once it has one.
pub fn watch_job(reach: &Reach, project: &str, id: &str, global: &Global) -> anyhow::Result<Value> {
    let bar = rows_bar(0, global.progress);
    let path = project_path(project, &["jobs", id]);
    let job = loop {
        let job = reach.get(&path)?;
        bar.set_length(job["progress"]["total"].as_u64().unwrap_or(0));
        bar.set_position(job["progress"]["rows"].as_u64().unwrap_or(0));
        match job["state"].as_str() {
            Some("running" | "cancelling") => std::thread::sleep(POLL),
            _ => break job,
        }
    };
    bar.finish_and_clear();
    match job["state"].as_str() {
        Some("done") => Ok(job["result"].clone()),
        Some("cancelled") => Err(Failure::No(format!("job {id} was cancelled")).into()),
        _ => {
            let detail = job["error"]["detail"].as_str().unwrap_or("the job ended without a result").to_owned();
            let status = job["error"]["status"].as_u64().and_then(|status| u16::try_from(status).ok());
            Err(Failure::of_status(status.unwrap_or(500), detail).into())
        }
    }
}
