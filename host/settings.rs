//! The operator's settings: `onefold.yaml`, then `ONEFOLD_*` from the environment, then flags.
//!
//! Only the file may hold `${NAME}` (from the environment) and `file:PATH` (what is in that file).

use crate::define::{Located, NotYet, Problem, duration_text, parse_duration, read_yaml};
use crate::route::Groups;
use crate::storage::directory_of;
use serde::de::{Deserializer, Visitor};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// The file that is looked for in the working directory and above it.
pub const FILE: &str = "onefold.yaml";

/// What an operator decides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Settings {
    pub data: PathBuf,
    /// Somebody has said which data, so they are not the default by chance.
    pub data_is_said: bool,
    pub listen: SocketAddr,
    /// Of a project whose first checkpoint is still to come; later it must be what it was.
    pub groups: Groups,
    pub threads: usize,
    pub checkpoint_every_us: i64,
    pub idle_us: i64,
    pub memory_bytes: usize,
    pub request_entities: usize,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            data: PathBuf::from("./.onefold"),
            data_is_said: false,
            listen: SocketAddr::from(([127, 0, 0, 1], 6566)),
            groups: Groups::default(),
            threads: 2,
            checkpoint_every_us: 5_000_000,
            idle_us: 60_000_000,
            memory_bytes: 4 << 30,
            request_entities: 1000,
        }
    }
}

/// What stood on the command line.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    pub config: Option<PathBuf>,
    pub data: Option<String>,
    pub listen: Option<String>,
}

/// A setting that cannot be used, with its place and the remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SettingsError(String);

/// Settings of a process that was started in `directory`. `environment` gives the value of a variable.
pub fn load(
    flags: &Flags,
    directory: &Path,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Settings, SettingsError> {
    let mut settings = Settings::default();
    let named = flags.config.clone().or_else(|| environment("ONEFOLD_CONFIG").map(PathBuf::from));
    let file = named.or_else(|| directory.ancestors().map(|above| above.join(FILE)).find(|file| file.is_file()));
    if let Some(file) = file {
        let text = std::fs::read_to_string(&file)
            .map_err(|error| SettingsError(format!("cannot read {}: {error}", file.display())))?;
        let shown = file.strip_prefix(directory).unwrap_or(&file).display().to_string();
        let base = file.parent().unwrap_or(directory);
        settings.read(&shown, base, &text, environment).map_err(|problem| SettingsError(problem.to_string()))?;
    }
    for key in KEYS {
        let variable = format!("ONEFOLD_{}", key.replace('.', "_").to_ascii_uppercase());
        if let Some(value) = environment(&variable) {
            settings.set(key, &value).map_err(|wrong| SettingsError(format!("{variable}: {wrong}")))?;
        }
    }
    for (key, flag, value) in [("data", "--data", &flags.data), ("listen", "--listen", &flags.listen)] {
        if let Some(value) = value {
            settings.set(key, value).map_err(|wrong| SettingsError(format!("{flag}: {wrong}")))?;
        }
    }
    Ok(settings)
}

/// All that can be set.
const KEYS: [&str; 8] = [
    "data",
    "listen",
    "stream.groups",
    "stream.threads",
    "stream.checkpoint_every",
    "stream.idle",
    "limits.memory",
    "limits.request_entities",
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    data: Option<Located<Scalar>>,
    listen: Option<Located<Scalar>>,
    #[serde(default)]
    connections: BTreeMap<String, Located<NotYet>>,
    #[serde(default)]
    stream: StreamFile,
    #[serde(default)]
    limits: LimitsFile,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct StreamFile {
    groups: Option<Located<Scalar>>,
    threads: Option<Located<Scalar>>,
    checkpoint_every: Option<Located<Scalar>>,
    idle: Option<Located<Scalar>>,
    exchange: Option<Located<NotYet>>,
    group_id: Option<Located<NotYet>>,
    exchange_topic: Option<Located<NotYet>>,
    dead_letter_topic: Option<Located<NotYet>>,
    create_topics: Option<Located<NotYet>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct LimitsFile {
    memory: Option<Located<Scalar>>,
    request_entities: Option<Located<Scalar>>,
}

/// Text or a number, as text.
struct Scalar(String);

impl Settings {
    fn read(
        &mut self,
        shown: &str,
        base: &Path,
        text: &str,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<(), Problem> {
        if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
            return Ok(());
        }
        let file: File = read_yaml(shown, text)?;
        let problem = |line: u32, column: u32, message: String| Problem { file: shown.into(), line, column, message };
        if let Some((name, place)) = file.connections.first_key_value() {
            let message = format!(
                "connection `{name}` cannot be used yet: this version has pushes by HTTP and the embedded store only; \
                 remove it"
            );
            return Err(problem(place.line, place.column, message));
        }
        let stream = &file.stream;
        let later = [
            ("exchange", &stream.exchange),
            ("group_id", &stream.group_id),
            ("exchange_topic", &stream.exchange_topic),
            ("dead_letter_topic", &stream.dead_letter_topic),
            ("create_topics", &stream.create_topics),
        ];
        for (name, place) in later {
            if let Some(place) = place {
                let message = format!("`stream.{name}` cannot be used yet: this version has no Kafka; remove it");
                return Err(problem(place.line, place.column, message));
            }
        }
        let values = [
            &file.data,
            &file.listen,
            &stream.groups,
            &stream.threads,
            &stream.checkpoint_every,
            &stream.idle,
            &file.limits.memory,
            &file.limits.request_entities,
        ];
        for (key, typed) in KEYS.into_iter().zip(values) {
            let Some(typed) = typed else { continue };
            let set = expand(&typed.value.0, base, environment).and_then(|value| self.set(key, &value));
            set.map_err(|wrong| problem(typed.line, typed.column, format!("{key}: {wrong}")))?;
            if key == "data" && self.data.is_relative() {
                self.data = base.join(&self.data);
            }
        }
        Ok(())
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        match key {
            "data" => {
                self.data = directory_of(value).map_err(|error| error.to_string())?;
                self.data_is_said = true;
            }
            "listen" => {
                let wrong = |_| format!("`{value}` is no address: write 127.0.0.1:6566");
                self.listen = value.replace("localhost:", "127.0.0.1:").parse().map_err(wrong)?;
            }
            "stream.groups" => {
                let groups = value.parse().ok().and_then(Groups::new);
                let wrong = || format!("`{value}`: write a whole number from 1 to {}", Groups::MOST);
                self.groups = groups.ok_or_else(wrong)?;
            }
            "stream.threads" => self.threads = count(value, 64)?,
            "stream.checkpoint_every" => self.checkpoint_every_us = duration(value)?,
            "stream.idle" => self.idle_us = duration(value)?,
            "limits.memory" => self.memory_bytes = bytes(value)?,
            "limits.request_entities" => self.request_entities = count(value, 1_000_000)?,
            unknown => return Err(format!("`{unknown}` is no setting")),
        }
        Ok(())
    }
}

fn count(value: &str, most: usize) -> Result<usize, String> {
    match value.parse() {
        Ok(number) if (1..=most).contains(&number) => Ok(number),
        _ => Err(format!("`{value}`: write a whole number from 1 to {most}")),
    }
}

fn duration(value: &str) -> Result<i64, String> {
    match parse_duration(value)? {
        us if us > 0 => Ok(us),
        us => Err(format!("`{}`: it must be longer than nothing", duration_text(us))),
    }
}

/// `512MiB`, `4GiB`, `2GB`, or a number of bytes.
fn bytes(value: &str) -> Result<usize, String> {
    let wrong = || format!("`{value}` is no size: write 512MiB or 4GiB");
    let (number, unit) = value.split_at(value.find(|c: char| !c.is_ascii_digit()).unwrap_or(value.len()));
    let factor: usize = match unit.trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "kB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        _ => return Err(wrong()),
    };
    let size = number.parse::<usize>().ok().and_then(|number| number.checked_mul(factor)).ok_or_else(wrong)?;
    match size {
        0..0x100_0000 => Err(format!("`{value}`: less than 16MiB holds nothing")),
        size => Ok(size),
    }
}

/// Puts in what `${NAME}` and `file:PATH` stand for. Values are never shown in errors.
fn expand(text: &str, base: &Path, environment: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    if let Some(path) = text.strip_prefix("file:")
        && !path.starts_with("//")
    {
        let content = std::fs::read_to_string(base.join(path));
        return content
            .map(|content| content.trim().to_owned())
            .map_err(|error| format!("cannot read {path}: {error}"));
    }
    let mut expanded = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let (name, after) = after.split_once('}').ok_or("`${` without its `}`: write ${NAME}")?;
        expanded.push_str(before);
        let value = environment(name);
        expanded.push_str(&value.ok_or_else(|| format!("the environment has no {name}: set it"))?);
        rest = after;
    }
    expanded.push_str(rest);
    Ok(expanded)
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Scalar, D::Error> {
        struct Any;
        impl Visitor<'_> for Any {
            type Value = Scalar;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("text or a number")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Scalar, E> {
                Ok(Scalar(text.to_owned()))
            }

            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Scalar, E> {
                Ok(Scalar(number.to_string()))
            }

            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Scalar, E> {
                Ok(Scalar(number.to_string()))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Settings, String> {
        let mut settings = Settings::default();
        let environment = |name: &str| (name == "THREADS").then(|| "3".to_owned());
        let read = settings.read("onefold.yaml", Path::new("/etc/onefold"), text, &environment);
        read.map(|()| settings).map_err(|problem| problem.to_string())
    }

    #[test]
    fn the_file_is_read_with_what_stands_for_other_things() {
        let text = "data: state\nlisten: 127.0.0.1:7000\nstream: { groups: 8, threads: \"${THREADS}\", checkpoint_every: 1s, idle: 2m }\nlimits: { memory: 512MiB, request_entities: 5 }\n";
        let expected = Settings {
            data_is_said: true,
            data: PathBuf::from("/etc/onefold/state"),
            listen: SocketAddr::from(([127, 0, 0, 1], 7000)),
            groups: Groups::new(8).unwrap(),
            threads: 3,
            checkpoint_every_us: 1_000_000,
            idle_us: 120_000_000,
            memory_bytes: 512 << 20,
            request_entities: 5,
        };
        assert_eq!(read(text), Ok(expected));
        assert_eq!(read("# nothing\n"), Ok(Settings::default()));
    }

    #[test]
    fn what_cannot_be_used_is_named_with_its_line() {
        let cases = [
            ("dada: x", "onefold.yaml:1: unknown key `dada`: did you mean `data`?"),
            (
                "data: s3://bucket",
                "onefold.yaml:1: data: `s3://bucket` cannot hold data: s3:// is not supported yet, only directories and file:// are",
            ),
            ("stream:\n  groups: 257", "onefold.yaml:2: stream.groups: `257`: write a whole number from 1 to 256"),
            (
                "stream:\n  exchange: true",
                "onefold.yaml:2: `stream.exchange` cannot be used yet: this version has no Kafka; remove it",
            ),
            ("limits: { memory: lots }", "onefold.yaml:1: limits.memory: `lots` is no size: write 512MiB or 4GiB"),
            ("listen: ${NOWHERE}", "onefold.yaml:1: listen: the environment has no NOWHERE: set it"),
            (
                "connections:\n  events: { kafka: { brokers: k } }",
                "onefold.yaml:2: connection `events` cannot be used yet: this version has pushes by HTTP and the embedded store only; remove it",
            ),
        ];
        for (text, message) in cases {
            assert_eq!(read(text).unwrap_err(), message);
        }
    }

    #[test]
    fn flags_win_over_the_environment_and_that_over_the_file() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(FILE), "listen: 127.0.0.1:1\nstream: { threads: 1, idle: 1s }\n").unwrap();
        let below = directory.path().join("a/b");
        std::fs::create_dir_all(&below).unwrap();
        let environment = |name: &str| match name {
            "ONEFOLD_LISTEN" => Some("127.0.0.1:2".to_owned()),
            "ONEFOLD_STREAM_THREADS" => Some("4".to_owned()),
            _ => None,
        };
        let flags = Flags { listen: Some("localhost:3".to_owned()), ..Flags::default() };
        let settings = load(&flags, &below, &environment).unwrap();
        assert_eq!((settings.listen.port(), settings.threads, settings.idle_us), (3, 4, 1_000_000));
        let wrong = Flags { listen: Some("here".to_owned()), ..Flags::default() };
        let error = load(&wrong, &below, &environment).unwrap_err();
        assert_eq!(error.to_string(), "--listen: `here` is no address: write 127.0.0.1:6566");
    }
}
