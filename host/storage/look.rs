//! Storage that is looked at and never changed: what is written goes to memory, over what lies below.
//!
//! A process that only answers lookups runs the same recovery as an owner; its checkpoints and the mending of a torn log
//! must not reach the data, which someone else may own.

use super::{AppendFile, Creation, Storage, StorageError};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Another storage as it was when each of its files was first written to here.
pub struct LookStorage {
    below: Arc<dyn Storage>,
    over: Arc<Over>,
}

#[derive(Default)]
struct Over {
    /// What differs from below; `None`: deleted.
    entries: Mutex<BTreeMap<String, Option<Entry>>>,
}

/// The first bytes of the file below, then others.
#[derive(Default)]
struct Entry {
    below_bytes: u64,
    tail: Vec<u8>,
}

impl LookStorage {
    pub fn new(below: Arc<dyn Storage>) -> LookStorage {
        LookStorage { below, over: Arc::default() }
    }
}

impl Over {
    fn entries(&self) -> MutexGuard<'_, BTreeMap<String, Option<Entry>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn length(&self) -> u64 {
        self.below_bytes.saturating_add(count(self.tail.len()))
    }

    fn read(&self, below: &dyn Storage, path: &str, offset: u64, length: usize) -> Result<Bytes, StorageError> {
        let mut bytes = Vec::new();
        if offset < self.below_bytes {
            let wanted = size(self.below_bytes - offset).min(length);
            bytes.extend_from_slice(&below.read_range(path, offset, wanted)?.unwrap_or_default());
        }
        let start = size(offset.saturating_sub(self.below_bytes)).min(self.tail.len());
        let rest = (length - bytes.len()).min(self.tail.len() - start);
        if bytes.len() < length && offset.saturating_add(count(bytes.len())) >= self.below_bytes {
            bytes.extend_from_slice(self.tail.get(start..start + rest).unwrap_or_default());
        }
        Ok(bytes.into())
    }
}

fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

fn size(length: u64) -> usize {
    usize::try_from(length).unwrap_or(usize::MAX)
}

impl Storage for LookStorage {
    fn create(&self, path: &str, bytes: &[u8]) -> Result<Creation, StorageError> {
        let mut entries = self.over.entries();
        let exists = match entries.get(path) {
            Some(entry) => entry.is_some(),
            None => self.below.size(path)?.is_some(),
        };
        if exists {
            return Ok(Creation::AlreadyExists);
        }
        entries.insert(path.to_owned(), Some(Entry { below_bytes: 0, tail: bytes.to_vec() }));
        Ok(Creation::Created)
    }

    fn read(&self, path: &str) -> Result<Option<Bytes>, StorageError> {
        match self.over.entries().get(path) {
            Some(None) => Ok(None),
            Some(Some(entry)) => entry.read(&*self.below, path, 0, size(entry.length())).map(Some),
            None => self.below.read(path),
        }
    }

    fn read_range(&self, path: &str, offset: u64, length: usize) -> Result<Option<Bytes>, StorageError> {
        match self.over.entries().get(path) {
            Some(None) => Ok(None),
            Some(Some(entry)) => entry.read(&*self.below, path, offset, length).map(Some),
            None => self.below.read_range(path, offset, length),
        }
    }

    fn size(&self, path: &str) -> Result<Option<u64>, StorageError> {
        match self.over.entries().get(path) {
            Some(entry) => Ok(entry.as_ref().map(Entry::length)),
            None => self.below.size(path),
        }
    }

    fn list(&self, prefix: &str) -> Result<Vec<String>, StorageError> {
        let entries = self.over.entries();
        let mut paths = self.below.list(prefix)?;
        paths.retain(|path| !matches!(entries.get(path), Some(None)));
        paths.extend(
            entries
                .iter()
                .filter(|(path, entry)| path.starts_with(prefix) && entry.is_some())
                .map(|(path, _)| path.clone()),
        );
        paths.sort_unstable();
        paths.dedup();
        Ok(paths)
    }

    fn delete(&self, path: &str) -> Result<(), StorageError> {
        self.over.entries().insert(path.to_owned(), None);
        Ok(())
    }

    fn open_append(&self, path: &str) -> Result<Box<dyn AppendFile>, StorageError> {
        let mut entries = self.over.entries();
        let below_bytes = match entries.get(path) {
            Some(Some(_)) => None,
            Some(None) => Some(0),
            None => Some(self.below.size(path)?.unwrap_or(0)),
        };
        if let Some(below_bytes) = below_bytes {
            entries.insert(path.to_owned(), Some(Entry { below_bytes, tail: Vec::new() }));
        }
        Ok(Box::new(LookFile { below: self.below.clone(), over: self.over.clone(), path: path.to_owned() }))
    }
}

struct LookFile {
    below: Arc<dyn Storage>,
    over: Arc<Over>,
    path: String,
}

impl LookFile {
    fn entry<T>(&self, work: impl FnOnce(&mut Entry) -> T) -> T {
        let mut entries = self.over.entries();
        work(entries.entry(self.path.clone()).or_default().get_or_insert_default())
    }
}

impl AppendFile for LookFile {
    fn append(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        self.entry(|entry| entry.tail.extend_from_slice(bytes));
        Ok(())
    }

    fn sync(&mut self) -> Result<(), StorageError> {
        Ok(())
    }

    fn length(&self) -> u64 {
        self.entry(|entry| entry.length())
    }

    fn truncate(&mut self, length: u64) -> Result<(), StorageError> {
        self.entry(|entry| {
            entry.tail.truncate(size(length.saturating_sub(entry.below_bytes)));
            entry.below_bytes = entry.below_bytes.min(length);
        });
        Ok(())
    }

    fn read_at(&self, offset: u64, length: usize) -> Result<Bytes, StorageError> {
        self.entry(|entry| entry.read(&*self.below, &self.path, offset, length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::LocalStorage;

    #[test]
    fn writes_are_seen_here_and_nowhere_else() {
        let directory = tempfile::tempdir().unwrap();
        let below = Arc::new(LocalStorage::open(directory.path()).unwrap());
        assert_eq!(below.create("a/1", b"one").unwrap(), Creation::Created);
        let mut log = below.open_append("log").unwrap();
        log.append(b"01234567").unwrap();
        log.sync().unwrap();

        let look = LookStorage::new(below.clone());
        assert_eq!(look.create("a/1", b"other").unwrap(), Creation::AlreadyExists);
        assert_eq!(look.create("a/2", b"two").unwrap(), Creation::Created);
        assert_eq!(look.list("a/").unwrap(), ["a/1", "a/2"]);
        look.delete("a/1").unwrap();
        assert_eq!((look.read("a/1").unwrap(), look.list("a/").unwrap()), (None, vec!["a/2".to_owned()]));
        assert_eq!(look.create("a/1", b"again").unwrap(), Creation::Created);

        let mut tail = look.open_append("log").unwrap();
        log.append(b"89").unwrap();
        assert_eq!(tail.length(), 8, "what an owner appends later is not there");
        tail.truncate(6).unwrap();
        tail.append(b"abc").unwrap();
        for (offset, length, expected) in
            [(0, 9, "012345abc"), (4, 3, "45a"), (6, 9, "abc"), (7, 1, "b"), (20, 1, ""), (2, 2, "23")]
        {
            assert_eq!(tail.read_at(offset, length).unwrap(), expected.as_bytes());
            assert_eq!(look.read_range("log", offset, length).unwrap().unwrap(), expected.as_bytes());
        }
        assert_eq!(below.list("a/").unwrap(), ["a/1"]);
        assert_eq!(below.read("log").unwrap().unwrap(), &b"0123456789"[..]);
    }
}
