//! `onefold init`: a project to begin with, from data of one's own or from a few sample events.

use super::{Failure, Global, note, print};
use crate::cases::Runner;
use crate::define::{check_name, definition_files};
use crate::draft::{Ask, Data, Draft, DraftError, column_name, counted, drafted, read};
use crate::serve::values::time_text;
use serde_json::{Value, json};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Begin a project: definitions that run and a test that passes, from data of your own or from a few sample events.
///
/// The schema is read from the data: lines of JSON objects (types are widened over the rows, nested objects become
/// columns), or Parquet. Which column says when a row happened, and which say whom it is about, is guessed where one
/// stands out; the files and the terminal say what was guessed and why. Where several could be meant, --time and --key
/// are asked for. Nothing that is there is overwritten.
#[derive(clap::Args)]
#[command(
    after_help = "Examples: onefold init shop\n          onefold init shop --from events.jsonl\n          onefold init shop --from data/orders/ --key customer_id --time ordered_at"
)]
pub struct InitArgs {
    /// Where the project will lie; made if missing.
    dir: PathBuf,
    /// Data to begin from: one JSON object a line, a Parquet file, or a directory of Parquet files.
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// The column that says whom a row is about; several with commas between make a composite key.
    #[arg(long, value_name = "COL", value_delimiter = ',', requires = "from")]
    key: Vec<String>,
    /// The column that says when a row happened.
    #[arg(long, value_name = "COL", requires = "from")]
    time: Option<String>,
    /// The project's name [default: that of the directory].
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
}

const SAMPLE_FILE: &str = "events.jsonl";
/// Customer, item, quantity, price, hours before now.
const SAMPLE: [(&str, &str, i64, f64, i64); 8] = [
    ("c1", "tea", 2, 3.5, 70),
    ("c2", "coffee", 1, 4.25, 66),
    ("c1", "cake", 1, 2.75, 49),
    ("c3", "tea", 5, 3.5, 30),
    ("c2", "cake", 2, 2.75, 26),
    ("c1", "coffee", 1, 4.25, 22),
    ("c3", "tea", 1, 3.25, 5),
    ("c1", "tea", 3, 3.25, 2),
];

pub fn run(args: &InitArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let directory = absolute(&args.dir)?;
    let name = match args.name.as_ref().or(global.project.as_ref()) {
        Some(name) => check_name(name).map_err(Failure::Input).map(|()| name.clone())?,
        None => name_of(&directory),
    };
    refuse_to_overwrite(&args.dir)?;
    let mut files: Vec<(PathBuf, String)> = Vec::new();
    let (shown, data, source) = match &args.from {
        Some(from) => (from.display().to_string(), read(from).map_err(failure)?, name_of(from)),
        None => {
            let text = sample(global.clock.now_us());
            let path = args.dir.join(SAMPLE_FILE);
            files.push((path.clone(), text.clone()));
            (path.display().to_string(), sample_data(&text)?, "events".to_owned())
        }
    };
    tell_of_rows(&shown, &data);
    let (key, time) = (args.key.clone(), args.time.clone());
    let ask = Ask { name: name.clone(), source, key, time, shown, directory };
    let runner = Runner::new().map_err(super::cases::failure)?;
    let draft = drafted(&runner, &ask, data).map_err(failure)?;
    files.push((args.dir.join(format!("{name}.yaml")), draft.definitions.clone()));
    files.push((args.dir.join(format!("{name}_test.yaml")), draft.test.clone()));
    write(&args.dir, &files)?;
    match global.json {
        true => print(&as_json(&draft, &files).to_string())?,
        false => print(&as_text(&draft, &files, &args.dir, global))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn failure(error: DraftError) -> Failure {
    match error {
        DraftError::Ask(text) => Failure::Input(text),
        DraftError::Failed(text) => Failure::Outside(text),
    }
}

/// The path without links and dots, whether all of it is there yet or not.
fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    for there in path.ancestors() {
        if let Ok(found) = std::fs::canonicalize(there) {
            return Ok(found.join(path.strip_prefix(there).unwrap_or(Path::new(""))));
        }
    }
    Ok(path)
}

/// A name made of that of a file or directory.
fn name_of(path: &Path) -> String {
    let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    match column_name(&[stem], |_| false) {
        name if name == "column" => "project".to_owned(),
        name => name,
    }
}

fn refuse_to_overwrite(dir: &Path) -> Result<(), Failure> {
    if dir.exists() && !dir.is_dir() {
        return Err(Failure::Input(format!("{}: it is no directory: name one, new or empty", dir.display())));
    }
    let there = definition_files(dir).ok().filter(|_| dir.is_dir());
    match there.as_deref().and_then(<[_]>::first) {
        None => Ok(()),
        Some(file) => Err(Failure::Input(format!(
            "{}: there are definitions already, {} among them: name another directory, nothing is overwritten",
            dir.display(),
            file.file
        ))),
    }
}

fn write(dir: &Path, files: &[(PathBuf, String)]) -> Result<(), Failure> {
    let outside = |path: &Path, error: std::io::Error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => Failure::Input(format!(
            "{}: it is there already: name another directory, nothing is overwritten",
            path.display()
        )),
        _ => Failure::Outside(format!("{}: {error}", path.display())),
    };
    if let Some((path, _)) = files.iter().find(|(path, _)| path.exists()) {
        return Err(outside(path, std::io::ErrorKind::AlreadyExists.into()));
    }
    std::fs::create_dir_all(dir).map_err(|error| outside(dir, error))?;
    for (path, text) in files {
        let created = std::fs::File::create_new(path);
        created.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|error| outside(path, error))?;
    }
    Ok(())
}

/// The sample's events, in the days before now, so that windows see them.
fn sample(now_us: i64) -> String {
    const HOUR_US: i64 = 3_600_000_000;
    let now_us = now_us.div_euclid(1_000_000) * 1_000_000;
    let line = |(customer, item, quantity, price, hours): (&str, &str, i64, f64, i64)| {
        let at = time_text(now_us.saturating_sub(hours * HOUR_US)).unwrap_or_default().replace(".000000", "");
        let event = json!({
            "at": at,
            "customer_id": customer,
            "item": item,
            "quantity": quantity,
            "price": price,
        });
        format!("{event}\n")
    };
    SAMPLE.map(line).concat()
}

/// The sample as it would be read from its file, which is not there yet.
fn sample_data(text: &str) -> anyhow::Result<Data> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join(SAMPLE_FILE);
    std::fs::write(&path, text)?;
    Ok(read(&path).map_err(failure)?)
}

/// What was passed over.
fn tell_of_rows(shown: &str, data: &Data) {
    if data.broken > 0 {
        note(&format!("{shown}: skipped {}: no JSON object", counted(data.broken, "line")));
        for (line, reason) in &data.broken_lines {
            note(&format!("  line {line}: {reason}"));
        }
    }
    if data.more {
        note(&format!("{shown}: types were read from the first {}", counted(data.rows, "row")));
    }
}

fn as_json(draft: &Draft, files: &[(PathBuf, String)]) -> Value {
    let names = |columns: &[usize]| {
        let columns = columns.iter().filter_map(|number| draft.data.columns.get(*number));
        columns.map(|column| column.name.clone()).collect::<Vec<_>>()
    };
    let columns = draft.data.columns.iter().map(|column| json!({ "name": column.name, "type": column.type_name }));
    json!({
        "project": draft.name,
        "source": draft.source,
        "entity": draft.entity,
        "view": draft.view,
        "files": files.iter().map(|(path, _)| path.display().to_string()).collect::<Vec<_>>(),
        "rows": draft.data.rows,
        "broken": draft.data.broken,
        "columns": columns.collect::<Value>(),
        "left_out": draft.data.left_out.iter().map(|(place, why)| json!({ "column": place, "why": why })).collect::<Value>(),
        "time": { "column": names(&draft.time.columns).first(), "why": draft.time.why },
        "key": { "columns": names(&draft.key.columns), "why": draft.key.why },
    })
}

/// Whether other projects have data here: then commands must be told which is meant.
fn others_live(data: &Path, name: &str) -> bool {
    let projects = std::fs::read_dir(data.join("projects"));
    projects.is_ok_and(|mut projects| projects.any(|project| project.is_ok_and(|project| project.file_name() != *name)))
}

fn as_text(draft: &Draft, files: &[(PathBuf, String)], dir: &Path, global: &Global) -> String {
    let mut lines = vec![format!("{} of {}", counted(draft.data.rows, "row"), draft.shown)];
    let keys = draft.key_columns().map(|column| column.name.as_str()).collect::<Vec<_>>().join(", ");
    let time = draft.time_column().map_or("", |column| column.name.as_str());
    lines.push(format!("  time  {time}: {}", draft.time.why));
    if let Some(column) = draft.time_column()
        && column.seen.present < draft.data.rows
    {
        let without = draft.data.rows - column.seen.present;
        lines.push(format!("        {} without {time}, which would be a dead letter each", counted(without, "row")));
    }
    lines.push(format!("  key   {keys}: {}", draft.key.why));
    for column in draft.data.columns.iter().filter(|column| column.odd > 0) {
        let note = column.note.as_deref().unwrap_or_default();
        lines.push(format!("  {}: taken for {}: {note}", column.name, column.type_name));
    }
    for (place, why) in &draft.data.left_out {
        lines.push(format!("  left out: {place}: {why}"));
    }
    lines.push("wrote".to_owned());
    for (path, _) in files {
        lines.push(format!("  {}", path.display()));
    }
    let counts = (draft.data.columns.len(), draft.features());
    lines.push(format!(
        "with source `{}` ({} columns), entity `{}`, view `{}` ({} features) and a test of the first rows",
        draft.source, counts.0, draft.entity, draft.view, counts.1
    ));
    if let Some(newest) = draft.newest_us().filter(|_| draft.is_forgotten_at(global.clock.now_us())) {
        lines.push(format!(
            "the newest row is of {}: windows look back from the moment of a lookup, and give null or 0 today",
            time_text(newest).unwrap_or_default().get(..10).unwrap_or_default()
        ));
    }
    lines.push("next".to_owned());
    let dir = quoted(&dir.display().to_string());
    let others = others_live(&global.settings.data, &draft.name);
    let project = if others { format!(" --project {}", draft.name) } else { String::new() };
    let mut steps = vec![(format!("onefold test {dir}"), "")];
    match draft.batch {
        None => {
            steps.push((format!("onefold dev {dir}"), "leave it running; then, in another terminal here:"));
            steps.push((format!("onefold push {} {}{project}", draft.source, quoted(&draft.shown)), ""));
        }
        Some(_) => {
            steps.push((format!("onefold apply {dir}"), ""));
            steps.push((format!("onefold materialize{project}"), "reads the history"));
            steps.push((format!("onefold dev {dir}"), "leave it running; then, in another terminal here:"));
        }
    }
    let plain = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let entity = draft.entity_values.iter().map(|(name, value)| quoted(&format!("{name}={}", plain(value))));
    let entity = entity.collect::<Vec<_>>().join(" ");
    steps.push((format!("onefold lookup {} {entity}{project}", draft.view), ""));
    let width = steps.iter().map(|(step, _)| step.chars().count()).max().unwrap_or(0);
    for (step, said) in steps {
        let said = if said.is_empty() { String::new() } else { format!("  # {said}") };
        lines.push(format!("  {step:<width$}{said}").trim_end().to_owned());
    }
    lines.join("\n")
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let is_plain = |character: char| character.is_ascii_alphanumeric() || "_-./=:@%+,".contains(character);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}
