//! One process owns a data directory; the others find its address here and speak to it over HTTP.

use super::StorageError;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Locked, never written: a lock is on a file, not on its name, so this one is never replaced.
const LOCK: &str = "owner.lock";
const OWNER: &str = "owner.json";
/// Someone who only looks holds the lock for an instant; an owner holds it for good. Ten looks tell them apart.
const ATTEMPTS: u32 = 10;
const PAUSE: Duration = Duration::from_millis(20);

/// Who holds a data directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    pub pid: u32,
    /// The command it runs, as a person would name it (`onefold dev`).
    pub command: String,
    /// Where its HTTP listens (`127.0.0.1:6566`), once it does.
    pub listen: Option<String>,
}

impl fmt::Display for Owner {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "`{}`, process {}", self.command, self.pid)?;
        match &self.listen {
            Some(listen) => write!(formatter, ", at http://{listen}"),
            None => Ok(()),
        }
    }
}

/// Sole ownership of a data directory, until it is dropped or the process ends, however it ends.
pub struct DataLock {
    directory: PathBuf,
    _file: File,
}

impl DataLock {
    /// Takes the directory (made if missing) or says who has it: `StorageError::Held`.
    pub fn acquire(directory: &Path, owner: &Owner) -> Result<DataLock, StorageError> {
        let failed = |source| StorageError::of("lock", &directory.display().to_string(), source);
        std::fs::create_dir_all(directory).map_err(failed)?;
        let file = open(directory).map_err(failed)?;
        for attempt in 1.. {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(source)) => return Err(failed(source)),
                Err(TryLockError::WouldBlock) if attempt < ATTEMPTS => std::thread::sleep(PAUSE),
                Err(TryLockError::WouldBlock) => {
                    let directory_shown = directory.display().to_string();
                    return Err(StorageError::Held { directory: directory_shown, owner: read_owner(directory) });
                }
            }
        }
        let lock = DataLock { directory: directory.to_owned(), _file: file };
        lock.announce(owner)?;
        Ok(lock)
    }

    /// Says anew who the owner is: at first without an address, then with it.
    pub fn announce(&self, owner: &Owner) -> Result<(), StorageError> {
        let path = self.directory.join(OWNER);
        let failed = |source| StorageError::of("write", &path.display().to_string(), source);
        let text = serde_json::to_vec(owner).map_err(|error| failed(error.into()))?;
        // A reader sees the old file or the new one, never half of one.
        let beside = self.directory.join(".owner.json.new");
        std::fs::write(&beside, text).and_then(|()| std::fs::rename(&beside, &path)).map_err(failed)
    }

    /// Who owns the directory now; `None` when nobody does.
    pub fn holder(directory: &Path) -> Result<Option<Owner>, StorageError> {
        if !directory.join(LOCK).exists() {
            return Ok(None);
        }
        let failed = |source| StorageError::of("lock", &directory.display().to_string(), source);
        match File::open(directory.join(LOCK)).map_err(failed)?.try_lock_shared() {
            Ok(()) => Ok(None),
            Err(TryLockError::Error(source)) => Err(failed(source)),
            Err(TryLockError::WouldBlock) => Ok(read_owner(directory)),
        }
    }
}

impl Drop for DataLock {
    fn drop(&mut self) {
        // Readers ask for the lock first, so a file that stays behind misleads nobody.
        let _ = std::fs::remove_file(self.directory.join(OWNER));
    }
}

fn open(directory: &Path) -> std::io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(directory.join(LOCK))
}

fn read_owner(directory: &Path) -> Option<Owner> {
    serde_json::from_slice(&std::fs::read(directory.join(OWNER)).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_owner_is_told_who_the_first_is() {
        let directory = tempfile::tempdir().unwrap();
        let owner =
            |listen: Option<&str>| Owner { pid: 42, command: "onefold dev".into(), listen: listen.map(str::to_owned) };
        assert_eq!(DataLock::holder(directory.path()).unwrap(), None);
        let lock = DataLock::acquire(directory.path(), &owner(None)).unwrap();
        lock.announce(&owner(Some("127.0.0.1:6566"))).unwrap();
        let refused = DataLock::acquire(directory.path(), &owner(None)).err().unwrap().to_string();
        assert!(refused.contains("`onefold dev`, process 42, at http://127.0.0.1:6566"), "{refused}");
        assert_eq!(DataLock::holder(directory.path()).unwrap(), Some(owner(Some("127.0.0.1:6566"))));
        drop(lock);
        assert_eq!(DataLock::holder(directory.path()).unwrap(), None);
        let _again = DataLock::acquire(directory.path(), &owner(None)).unwrap();
    }
}
