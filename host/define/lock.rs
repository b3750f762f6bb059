//! `onefold.lock`: which bytes each module's bare name means, beside the definitions.

use super::{DefineError, Digest, ModuleVersion, Pins};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

const FILE: &str = "onefold.lock";
const HEADER: &str = "# Which bytes each module means. Written by `onefold apply`: commit it with the definitions.\n";

/// The lines of a lock, by module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    #[serde(default)]
    pub modules: BTreeMap<String, LockLine>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockLine {
    /// The number where it was resolved; other registries may count otherwise, the digest decides.
    pub version: u32,
    pub digest: Digest,
}

impl Lock {
    /// The lock beside the definitions; empty when there is none.
    pub fn read(definitions: &Path) -> Result<Lock, DefineError> {
        let path = Lock::path(definitions);
        let unreadable = |reason: String| DefineError::Unreadable { path: path.display().to_string(), reason };
        match std::fs::read_to_string(&path) {
            Ok(text) => serde_saphyr::from_str(&text).map_err(|error| {
                unreadable(format!("{error}; restore it from your version control, or remove it to resolve anew"))
            }),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Lock::default()),
            Err(error) => Err(unreadable(error.to_string())),
        }
    }

    /// Writes the lock beside the definitions, if it differs from what is there.
    pub fn write(&self, definitions: &Path) -> Result<(), DefineError> {
        let path = Lock::path(definitions);
        let text = self.to_text();
        if std::fs::read_to_string(&path).is_ok_and(|before| before == text) {
            return Ok(());
        }
        let failed = |error: std::io::Error| DefineError::Unreadable {
            path: path.display().to_string(),
            reason: format!("it cannot be written: {error}"),
        };
        std::fs::write(&path, text).map_err(failed)
    }

    fn path(definitions: &Path) -> PathBuf {
        let directory = if definitions.is_dir() { Some(definitions) } else { definitions.parent() };
        directory.unwrap_or(definitions).join(FILE)
    }

    fn to_text(&self) -> String {
        let mut text = HEADER.to_owned();
        text.push_str(if self.modules.is_empty() { "modules: {}\n" } else { "modules:\n" });
        for (module, line) in &self.modules {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "  {module}: {{ version: {}, digest: \"{}\" }}", line.version, line.digest);
        }
        text
    }

    /// What bare names mean: the lock's lines, but for modules of this directory (`own`) and those to be upgraded.
    pub fn pins(&self, own: &BTreeSet<String>, upgrade: &Upgrade) -> Pins {
        let follows = |module: &str| !own.contains(module) && !upgrade.moves(module);
        let lines = self.modules.iter().filter(|(module, _)| follows(module));
        lines.map(|(module, line)| (module.clone(), line.digest)).collect()
    }

    /// The lock after resolving: a line whose bytes are the same keeps its number.
    pub fn moved_to(&self, resolved: &BTreeMap<String, ModuleVersion>) -> Lock {
        let line = |module: &ModuleVersion| match self.modules.get(&module.name) {
            Some(line) if line.digest == module.digest => line.clone(),
            _ => LockLine { version: module.version, digest: module.digest },
        };
        Lock { modules: resolved.iter().map(|(name, module)| (name.clone(), line(module))).collect() }
    }

    /// `--locked`: fails if a line would move, come or go.
    pub fn check_unmoved(&self, after: &Lock) -> Result<(), DefineError> {
        let names: BTreeSet<&String> = self.modules.keys().chain(after.modules.keys()).collect();
        let moved: Vec<String> = names
            .into_iter()
            .filter(|name| self.modules.get(*name) != after.modules.get(*name))
            .map(|name| format!("`{name}`"))
            .collect();
        match moved.is_empty() {
            true => Ok(()),
            false => Err(DefineError::Locked(format!(
                "onefold.lock would change for {}: run `onefold apply` without --locked and commit the lock",
                moved.join(", ")
            ))),
        }
    }
}

/// Which lines of the lock may move to the newest version: `--upgrade [MODULE]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Upgrade {
    #[default]
    None,
    All,
    Modules(BTreeSet<String>),
}

impl Upgrade {
    /// From names with commas between; `*` is all of them.
    pub fn named(modules: &str) -> Upgrade {
        match modules {
            "*" => Upgrade::All,
            names => Upgrade::Modules(names.split(',').map(str::to_owned).collect()),
        }
    }

    fn moves(&self, module: &str) -> bool {
        match self {
            Upgrade::None => false,
            Upgrade::All => true,
            Upgrade::Modules(names) => names.contains(module),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(name: &str, version: u32) -> (String, ModuleVersion) {
        let digest = Digest::of(format!("{name}{version}").as_bytes());
        (name.to_owned(), ModuleVersion { name: name.to_owned(), version, digest })
    }

    #[test]
    fn a_lock_is_read_as_it_was_written_and_moves_only_where_it_may() {
        let directory = tempfile::tempdir().unwrap();
        let before = Lock::default().moved_to(&BTreeMap::from([version("std", 1), version("mine", 4)]));
        before.write(directory.path()).unwrap();
        assert_eq!(Lock::read(directory.path()).unwrap(), before);

        let own = BTreeSet::from(["mine".to_owned()]);
        assert_eq!(before.pins(&own, &Upgrade::None).keys().collect::<Vec<_>>(), ["std"]);
        assert!(before.pins(&own, &Upgrade::All).is_empty());

        let after = before.moved_to(&BTreeMap::from([version("std", 1), version("mine", 5)]));
        assert!(before.check_unmoved(&before).is_ok());
        let error = before.check_unmoved(&after).unwrap_err().to_string();
        assert!(error.contains("`mine`") && !error.contains("`std`"), "{error}");
    }
}
