//! From files or a request's body to typed documents: the first of two steps, which needs no registry.

use super::error::{DefineError, Problem};
use super::located::Located;
use super::names::hint;
use super::typed::Typed;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_saphyr::{DefaultMessageFormatter, Error as YamlError, MessageFormatter, NonFiniteFloatPolicy, Options};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a person could have written by hand and still maintain; more is a mistake or an attack.
const MOST_FILES: usize = 10_000;
const LARGEST_FILE: u64 = 8 << 20;
const DEEPEST_DIRECTORY: usize = 32;

/// The operator's file may lie beside definitions and is none.
const SETTINGS_FILE: &str = "onefold.yaml";

const NO_DEFINITIONS: &str = "it holds no definitions: put YAML documents with a `kind` into files named *.yaml";

const KINDS: [&str; 8] =
    ["project", "source", "entity", "feature_view", "on_demand_feature_view", "feature_service", "module", "test"];

/// All documents of a directory or of a request, in order of file and line.
#[derive(Clone, Debug, Default)]
pub struct Definitions {
    pub documents: Vec<Document>,
}

/// One document and where it stands.
#[derive(Clone, Debug)]
pub struct Document {
    pub place: DocumentPlace,
    pub typed: Typed,
}

/// Where a document stands: turns places inside it into places for people.
#[derive(Clone, Debug)]
pub struct DocumentPlace {
    /// As shown to people: relative to the directory that was read.
    pub file: Arc<str>,
    /// Lines of the file before the document.
    pub lines_before: u32,
    /// What relative paths in it start from; `None` when it came by HTTP.
    pub directory: Option<PathBuf>,
}

impl DocumentPlace {
    /// A problem at a value of this document.
    pub fn problem<T>(&self, at: &Located<T>, message: impl Into<String>) -> Problem {
        self.problem_at(at.line, at.column, message)
    }

    fn problem_at(&self, line: u32, column: u32, message: impl Into<String>) -> Problem {
        let line = self.lines_before.saturating_add(line.max(1));
        Problem { file: self.file.clone(), line, column, message: message.into() }
    }
}

/// A file of definitions with its text, so that one process can read it and another make sense of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DefinitionFile {
    /// As shown to people: relative to the directory that was read.
    pub file: String,
    /// Absolute: what relative paths in it start from.
    pub directory: PathBuf,
    pub text: String,
}

/// Reads every `*.yaml` and `*.yml` below a directory, or one such file. Hidden directories are passed over.
pub fn read_directory(path: &Path) -> Result<Definitions, DefineError> {
    read_files(&definition_files(path)?)
}

/// The files that `read_directory` reads, unread as to what they mean.
pub fn definition_files(path: &Path) -> Result<Vec<DefinitionFile>, DefineError> {
    let mut files = Vec::new();
    if path.is_dir() {
        list(path, 0, &mut files)?;
        files.sort();
    } else {
        files.push(path.to_path_buf());
    }
    let mut read = Vec::with_capacity(files.len());
    for file in &files {
        let text = read_file(file)?;
        let shown = match file.strip_prefix(path) {
            Ok(below) if !below.as_os_str().is_empty() => below,
            _ => file,
        };
        let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let directory = std::path::absolute(directory).map_err(|error| unreadable(file, error))?;
        read.push(DefinitionFile { file: shown.to_string_lossy().into_owned(), directory, text });
    }
    if read.is_empty() {
        return Err(unreadable(path, NO_DEFINITIONS));
    }
    Ok(read)
}

/// Reads the documents of files.
pub fn read_files(files: &[DefinitionFile]) -> Result<Definitions, DefineError> {
    let (mut definitions, mut problems) = (Definitions::default(), Vec::new());
    for DefinitionFile { file, directory, text } in files {
        read_into(file, Some(directory.clone()), text, &mut definitions, &mut problems);
    }
    if definitions.documents.is_empty() && problems.is_empty() {
        let place = files.first().map_or(Path::new("."), |file| &file.directory);
        return Err(unreadable(place, NO_DEFINITIONS));
    }
    finish(definitions, problems)
}

/// Reads YAML documents, or a JSON list of them, that came without files. `shown` stands in for the file's name.
pub fn read_text(shown: &str, text: &str) -> Result<Definitions, DefineError> {
    let (mut definitions, mut problems) = (Definitions::default(), Vec::new());
    match text.trim_start().starts_with('[') {
        true => read_json(shown, text, &mut definitions, &mut problems),
        false => read_into(shown, None, text, &mut definitions, &mut problems),
    }
    if definitions.documents.is_empty() && problems.is_empty() {
        let message = "there are no definitions in it: send YAML documents or a JSON list of them".to_owned();
        problems.push(Problem { file: shown.into(), line: 0, column: 0, message });
    }
    finish(definitions, problems)
}

fn finish(definitions: Definitions, problems: Vec<Problem>) -> Result<Definitions, DefineError> {
    if problems.is_empty() { Ok(definitions) } else { Err(DefineError::Wrong(problems)) }
}

fn list(directory: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<(), DefineError> {
    if depth > DEEPEST_DIRECTORY {
        return Err(unreadable(directory, format!("more than {DEEPEST_DIRECTORY} directories deep: flatten it")));
    }
    let entries = std::fs::read_dir(directory).map_err(|error| unreadable(directory, error))?;
    for entry in entries {
        let entry = entry.map_err(|error| unreadable(directory, error))?;
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        let kind = entry.file_type().map_err(|error| unreadable(&path, error))?;
        if name.starts_with('.') {
            continue;
        }
        if kind.is_dir() {
            list(&path, depth + 1, files)?;
        } else if (name.ends_with(".yaml") || name.ends_with(".yml")) && name != SETTINGS_FILE && path.is_file() {
            files.push(path);
        }
        if files.len() > MOST_FILES {
            return Err(unreadable(
                directory,
                format!("more than {MOST_FILES} files: name the directory of one project"),
            ));
        }
    }
    Ok(())
}

fn read_file(file: &Path) -> Result<String, DefineError> {
    let size = std::fs::metadata(file).map_err(|error| unreadable(file, error))?.len();
    if size > LARGEST_FILE {
        return Err(unreadable(file, format!("{size} bytes, {LARGEST_FILE} are allowed: split it")));
    }
    std::fs::read_to_string(file).map_err(|error| unreadable(file, error))
}

fn unreadable(path: &Path, reason: impl ToString) -> DefineError {
    DefineError::Unreadable { path: path.display().to_string(), reason: reason.to_string() }
}

/// Reads one YAML document of any shape, under the bounds and with the messages of definitions.
pub fn read_yaml<T: DeserializeOwned>(file: &str, text: &str) -> Result<T, Problem> {
    parse_as(&DocumentPlace { file: file.into(), lines_before: 0, directory: None }, text)
}

/// One document after the other, so that each has its own problem, and a broken one hides no other.
fn read_into(
    shown: &str,
    directory: Option<PathBuf>,
    text: &str,
    definitions: &mut Definitions,
    problems: &mut Vec<Problem>,
) {
    let file: Arc<str> = shown.into();
    for (lines_before, document) in split(text) {
        let place = DocumentPlace { file: file.clone(), lines_before, directory: directory.clone() };
        match parse(&place, document) {
            Ok(typed) => definitions.documents.push(Document { place, typed }),
            Err(problem) => problems.push(problem),
        }
    }
}

fn read_json(shown: &str, text: &str, definitions: &mut Definitions, problems: &mut Vec<Problem>) {
    let file: Arc<str> = shown.into();
    let items = match serde_json::from_str::<Vec<&RawValue>>(text) {
        Ok(items) => items,
        Err(error) => {
            let line = u32::try_from(error.line()).unwrap_or(u32::MAX);
            let column = u32::try_from(error.column()).unwrap_or(u32::MAX);
            let message = format!("no JSON list: {error}");
            return problems.push(Problem { file, line, column, message });
        }
    };
    for item in items {
        // The items borrow from the text, so their distance from its beginning says on which line they stand.
        let start = (item.get().as_ptr() as usize).saturating_sub(text.as_ptr() as usize);
        let lines_before = text.bytes().take(start).filter(|byte| *byte == b'\n').count();
        let lines_before = u32::try_from(lines_before).unwrap_or(u32::MAX);
        let place = DocumentPlace { file: file.clone(), lines_before, directory: None };
        match parse(&place, item.get()) {
            Ok(typed) => definitions.documents.push(Document { place, typed }),
            Err(problem) => problems.push(problem),
        }
    }
}

/// The documents of a stream with the number of lines before each. A line that begins with `---` always begins a
/// document in YAML, even inside quoted or block text.
fn split(text: &str) -> Vec<(u32, &str)> {
    let mut documents = Vec::new();
    let (mut start, mut start_line, mut offset) = (0, 0, 0);
    for (line, content) in text.split_inclusive('\n').enumerate() {
        let is_marker = content
            .strip_prefix("---")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']));
        if is_marker && offset > start {
            documents.push((start_line, &text[start..offset]));
            (start, start_line) = (offset, u32::try_from(line).unwrap_or(u32::MAX));
        }
        offset += content.len();
    }
    documents.push((start_line, &text[start..]));
    documents.retain(|(_, document)| !is_empty(document));
    documents
}

fn is_empty(document: &str) -> bool {
    document.lines().all(|line| {
        let line = line.strip_prefix("---").unwrap_or(line).trim();
        line.is_empty() || line.starts_with('#') || line == "..."
    })
}

fn parse(place: &DocumentPlace, text: &str) -> Result<Typed, Problem> {
    #[derive(Deserialize)]
    struct Head {
        kind: Option<Located<String>>,
    }
    let head: Head = parse_as(place, text)?;
    let Some(kind) = head.kind else {
        let message = format!("this document has no `kind`: write `kind:` and one of {}", KINDS.join(", "));
        return Err(place.problem_at(first_line(text), 1, message));
    };
    Ok(match kind.value.as_str() {
        "project" => Typed::Project(parse_as(place, text)?),
        "source" => Typed::Source(parse_as(place, text)?),
        "entity" => Typed::Entity(parse_as(place, text)?),
        "feature_view" => Typed::FeatureView(parse_as(place, text)?),
        "on_demand_feature_view" => Typed::OnDemandFeatureView(parse_as(place, text)?),
        "feature_service" => Typed::FeatureService(parse_as(place, text)?),
        "module" => Typed::Module(parse_as(place, text)?),
        "test" => Typed::Test(parse_as(place, text)?),
        unknown => {
            return Err(place.problem(&kind, format!("unknown kind `{unknown}`: {}", hint(unknown, KINDS))));
        }
    })
}

/// The line of the first thing in a document that is neither its marker nor a comment.
fn first_line(text: &str) -> u32 {
    let line = text.lines().position(|line| !is_empty(line)).unwrap_or(0);
    u32::try_from(line).unwrap_or(u32::MAX).saturating_add(1)
}

fn parse_as<T: DeserializeOwned>(place: &DocumentPlace, text: &str) -> Result<T, Problem> {
    serde_saphyr::from_str_with_options(text, options()).map_err(|error| {
        let location = error.location();
        let number = |number: Option<u64>| u32::try_from(number.unwrap_or(0)).unwrap_or(u32::MAX);
        let line = number(location.map(|location| location.line()));
        let column = number(location.map(|location| location.column()));
        place.problem_at(if line == 0 { first_line(text) } else { line }, column, explain(&error))
    })
}

/// Bounds on one document: a thousand times what a person writes, and far from what would hurt a server.
fn options() -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_events: 1_000_000,
            max_nodes: 500_000,
            max_depth: 64,
            max_aliases: 1_000,
            max_anchors: 1_000,
            max_documents: 1,
            max_total_scalar_bytes: 16 << 20,
            max_recorded_anchor_events: 100_000,
        },
        strict_booleans: true,
        with_snippet: false,
        non_finite_float_policy: NonFiniteFloatPolicy::Reject,
    }
}

fn explain(error: &YamlError) -> String {
    match error {
        YamlError::SerdeUnknownField { field, expected, .. } => {
            format!("unknown key `{field}`: {}", hint(field, expected.iter().copied()))
        }
        YamlError::SerdeMissingField { field, .. } => format!("`{field}` is missing here: write `{field}:`"),
        YamlError::DuplicateMappingKey { key: Some(key), .. } => {
            format!("`{key}` stands here twice: remove one of them")
        }
        YamlError::DuplicateMappingKey { key: None, .. } => "a key stands here twice: remove one of them".to_owned(),
        YamlError::NonFiniteFloat { .. } => {
            "YAML's .nan and .inf are not JSON: write \"NaN\", \"Infinity\" or \"-Infinity\" in quotes".to_owned()
        }
        YamlError::NullIntoString { .. } => "there is nothing here: write text".to_owned(),
        other => {
            let said = DefaultMessageFormatter.format_message(other).replace(['\n', '\r'], " ");
            match said.as_str() {
                tab if tab.contains("tabs disallowed") => format!("{tab}: indent with spaces"),
                "expected sequence start" => "a list is wanted here: write `[a, b]`, also of one".into(),
                "expected mapping start" => "keys with values are wanted here: write `{ key: value }`".into(),
                deeper if deeper.contains("mapping values are not allowed") => {
                    format!("{deeper}: begin it in the column of the keys that it belongs to")
                }
                anchors if anchors.contains("budget breached") && anchors.contains("Anchor") => {
                    "anchors and aliases make more of this than a person writes: write it out without `&` and `*`"
                        .into()
                }
                deep if deep.contains("budget breached: Depth") => {
                    "this is nested more than 64 deep: make it flatter".into()
                }
                much if much.contains("budget breached") => {
                    format!("this is more than one document may hold ({much}): split it into several")
                }
                _ => said,
            }
        }
    }
}
