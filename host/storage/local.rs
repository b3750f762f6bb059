//! A directory as storage: files are complete, synced and named durably before anyone is told that they exist.

use super::files::{Disk, Files, Halt, OpenFile};
use super::{AppendFile, Creation, Storage, StorageError, check_path};
use bytes::Bytes;
use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Objects are written here first and linked to their names when they are complete. What a crash leaves behind is
/// nobody's and removed by `clear_temporary`.
const TEMPORARY: &str = ".temporary";

/// Storage in a local directory.
pub struct LocalStorage {
    files: Arc<dyn Files>,
    next_temporary: AtomicU64,
    /// Directories known to exist, durably.
    directories: Mutex<BTreeSet<String>>,
}

impl LocalStorage {
    /// Storage in this directory, which is made if it is missing.
    pub fn open(directory: &Path) -> Result<LocalStorage, StorageError> {
        LocalStorage::open_to_halt(directory, None)
    }

    /// The same, in which a test may let the process halt.
    pub fn open_to_halt(directory: &Path, halt: Option<Halt>) -> Result<LocalStorage, StorageError> {
        let shown = directory.display().to_string();
        std::fs::create_dir_all(directory).map_err(|source| StorageError::of("make", &shown, source))?;
        // Its own name must survive as well; of its ancestors only those made just now would need it, and syncing one
        // that is not ours to open is no reason to fail.
        if let Some(parent) = directory.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            let _ = std::fs::File::open(parent).and_then(|parent| parent.sync_all());
        }
        Ok(LocalStorage::over(Arc::new(Disk::new(directory, halt))))
    }

    /// The same over another file system: how crashes are tested.
    pub(super) fn over(files: Arc<dyn Files>) -> LocalStorage {
        LocalStorage { files, next_temporary: AtomicU64::new(0), directories: Mutex::new(BTreeSet::new()) }
    }

    /// Removes what an earlier process left half written. Only the owner of the directory may call it.
    pub fn clear_temporary(&self) -> Result<(), StorageError> {
        let entries = match self.files.entries(TEMPORARY) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            other => other.map_err(|source| StorageError::of("list", TEMPORARY, source))?,
        };
        for (name, _) in entries {
            let path = format!("{TEMPORARY}/{name}");
            ignore_missing(self.files.remove(&path)).map_err(|source| StorageError::of("remove", &path, source))?;
        }
        Ok(())
    }

    /// Makes a directory and its parents, and their names durable.
    fn ensure_directory(&self, directory: &str) -> io::Result<()> {
        if directory.is_empty() || self.known_directories().contains(directory) {
            return Ok(());
        }
        let parent = parent_of(directory);
        self.ensure_directory(parent)?;
        match self.files.make_directory(directory) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        // Also when it existed: whoever made it may not have come as far as syncing its name.
        self.files.sync_directory(parent)?;
        self.known_directories().insert(directory.to_owned());
        Ok(())
    }

    fn known_directories(&self) -> std::sync::MutexGuard<'_, BTreeSet<String>> {
        self.directories.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_temporary(&self, path: &str, bytes: &[u8]) -> io::Result<()> {
        let file = self.files.open(path, true)?;
        file.write_at(0, bytes)?;
        file.sync()
    }

    fn create_at(&self, path: &str, bytes: &[u8]) -> io::Result<Creation> {
        let directory = parent_of(path);
        self.ensure_directory(directory)?;
        self.ensure_directory(TEMPORARY)?;
        let number = self.next_temporary.fetch_add(1, Ordering::Relaxed);
        let temporary = format!("{TEMPORARY}/{}-{number}", std::process::id());
        // A name left by an earlier process with our number is nobody's any more.
        ignore_missing(self.files.remove(&temporary))?;
        let linked = self.write_temporary(&temporary, bytes).and_then(|()| self.files.link(&temporary, path));
        // A leftover costs space, not correctness; after a full disk this gives the space back.
        let _ = self.files.remove(&temporary);
        let creation = match linked {
            Ok(()) => Creation::Created,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Creation::AlreadyExists,
            Err(error) => return Err(error),
        };
        // Also for an object that exists: its writer may not have come as far, and we act on its being there.
        self.files.sync_directory(directory)?;
        Ok(creation)
    }

    fn list_into(&self, directory: &str, prefix: &str, found: &mut Vec<String>) -> io::Result<()> {
        let entries = match self.files.entries(directory) {
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(()),
            other => other?,
        };
        for (name, is_directory) in entries {
            if name.starts_with('.') {
                continue;
            }
            let path = if directory.is_empty() { name } else { format!("{directory}/{name}") };
            if is_directory {
                self.list_into(&path, prefix, found)?;
            } else if path.starts_with(prefix) {
                found.push(path);
            }
        }
        Ok(())
    }
}

impl Storage for LocalStorage {
    fn create(&self, path: &str, bytes: &[u8]) -> Result<Creation, StorageError> {
        check_path(path)?;
        self.create_at(path, bytes).map_err(|source| StorageError::of("write", path, source))
    }

    fn read(&self, path: &str) -> Result<Option<Bytes>, StorageError> {
        self.read_range(path, 0, usize::MAX)
    }

    fn read_range(&self, path: &str, offset: u64, length: usize) -> Result<Option<Bytes>, StorageError> {
        check_path(path)?;
        if_there(self.files.read(path, offset, length))
            .map(|bytes| bytes.map(Bytes::from))
            .map_err(|source| StorageError::of("read", path, source))
    }

    fn size(&self, path: &str) -> Result<Option<u64>, StorageError> {
        check_path(path)?;
        if_there(self.files.size(path)).map_err(|source| StorageError::of("read", path, source))
    }

    fn list(&self, prefix: &str) -> Result<Vec<String>, StorageError> {
        let directory = parent_of(prefix);
        if !directory.is_empty() {
            check_path(directory)?;
        }
        let mut found = Vec::new();
        self.list_into(directory, prefix, &mut found).map_err(|source| StorageError::of("list", prefix, source))?;
        found.sort_unstable();
        Ok(found)
    }

    fn delete(&self, path: &str) -> Result<(), StorageError> {
        check_path(path)?;
        ignore_missing(self.files.remove(path)).map_err(|source| StorageError::of("remove", path, source))
    }

    fn open_append(&self, path: &str) -> Result<Box<dyn AppendFile>, StorageError> {
        check_path(path)?;
        let open = || {
            let directory = parent_of(path);
            self.ensure_directory(directory)?;
            let file = self.files.open(path, false)?;
            self.files.sync_directory(directory)?;
            Ok(LocalAppend { length: file.size()?, file, path: path.to_owned() })
        };
        let file = open().map_err(|source| StorageError::of("open", path, source))?;
        Ok(Box::new(file))
    }

    fn crash_point(&self, name: &'static str) -> Result<(), StorageError> {
        self.files.crash_point(name).map_err(|source| StorageError::of("go past", name, source))
    }
}

struct LocalAppend {
    path: String,
    file: Box<dyn OpenFile>,
    /// Where the next byte goes. After a failed write it stays: what may stand behind it is overwritten or cut.
    length: u64,
}

impl AppendFile for LocalAppend {
    fn append(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        self.file.write_at(self.length, bytes).map_err(|source| StorageError::of("append to", &self.path, source))?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    fn sync(&mut self) -> Result<(), StorageError> {
        self.file.sync().map_err(|source| StorageError::of("sync", &self.path, source))
    }

    fn length(&self) -> u64 {
        self.length
    }

    fn truncate(&mut self, length: u64) -> Result<(), StorageError> {
        self.file.set_size(length).map_err(|source| StorageError::of("cut", &self.path, source))?;
        self.length = length;
        Ok(())
    }

    fn read_at(&self, offset: u64, length: usize) -> Result<Bytes, StorageError> {
        self.file
            .read_at(offset, length)
            .map(Bytes::from)
            .map_err(|source| StorageError::of("read", &self.path, source))
    }
}

fn parent_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

fn if_there<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error),
    }
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    if_there(result).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_created_once() {
        let directory = tempfile::tempdir().unwrap();
        let storage = LocalStorage::open(&directory.path().join("data")).unwrap();
        assert_eq!(storage.create("a/b/one", b"first").unwrap(), Creation::Created);
        assert_eq!(storage.create("a/b/one", b"second").unwrap(), Creation::AlreadyExists);
        assert_eq!(storage.read("a/b/one").unwrap().unwrap(), "first");
        assert_eq!(storage.read_range("a/b/one", 2, 2).unwrap().unwrap(), "rs");
        assert_eq!(storage.size("a/b/one").unwrap(), Some(5));
        assert_eq!(storage.read("a/b/two").unwrap(), None);
        assert_eq!(storage.read("a/b/one/below").unwrap(), None);
    }

    #[test]
    fn lists_are_sorted_and_show_nothing_temporary() {
        let directory = tempfile::tempdir().unwrap();
        let storage = LocalStorage::open(directory.path()).unwrap();
        for path in ["p/b", "p/a/2", "p/a/1", "q", "p/a.x"] {
            let _ = storage.create(path, b"").unwrap();
        }
        std::fs::write(directory.path().join(TEMPORARY).join("1-1"), "left by a crash").unwrap();
        assert_eq!(storage.list("").unwrap(), ["p/a.x", "p/a/1", "p/a/2", "p/b", "q"]);
        assert_eq!(storage.list("p/a").unwrap(), ["p/a.x", "p/a/1", "p/a/2"]);
        assert_eq!(storage.list("p/a/").unwrap(), ["p/a/1", "p/a/2"]);
        assert!(storage.list("nothing/here").unwrap().is_empty());
        storage.clear_temporary().unwrap();
        assert_eq!(std::fs::read_dir(directory.path().join(TEMPORARY)).unwrap().count(), 0);
        storage.delete("p/a/1").unwrap();
        storage.delete("p/a/1").unwrap();
        assert_eq!(storage.list("p/a/").unwrap(), ["p/a/2"]);
    }

    #[test]
    fn appended_bytes_are_found_again() {
        let directory = tempfile::tempdir().unwrap();
        let storage = LocalStorage::open(directory.path()).unwrap();
        let mut file = storage.open_append("log/0").unwrap();
        file.append(b"hello ").unwrap();
        file.append(b"world").unwrap();
        file.sync().unwrap();
        file.truncate(8).unwrap();
        assert_eq!(file.read_at(6, 100).unwrap(), "wo");
        drop(file);
        let file = storage.open_append("log/0").unwrap();
        assert_eq!(file.length(), 8);
        assert_eq!(storage.read("log/0").unwrap().unwrap(), "hello wo");
    }
}
