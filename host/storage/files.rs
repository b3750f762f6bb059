//! The few calls of a file system that local storage is made of.
//!
//! They are a seam so that the very code that syncs files and directories can run on a file system that forgets what
//! was not synced (`forgetful.rs`). Paths are those of `Storage`, plus the root as the empty text.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A file system, seen from the root of a data directory.
pub trait Files: Send + Sync {
    /// Opens for reading and writing. With `new` the file must not exist; else it is made if missing.
    fn open(&self, path: &str, new: bool) -> io::Result<Box<dyn OpenFile>>;
    /// All bytes from `offset` on, at most `length`.
    fn read(&self, path: &str, offset: u64, length: usize) -> io::Result<Vec<u8>>;
    fn size(&self, path: &str) -> io::Result<u64>;
    /// A second name for a file; an error of kind `AlreadyExists` when the name is taken.
    fn link(&self, from: &str, to: &str) -> io::Result<()>;
    fn remove(&self, path: &str) -> io::Result<()>;
    fn make_directory(&self, path: &str) -> io::Result<()>;
    /// Makes the names in this directory survive a crash.
    fn sync_directory(&self, path: &str) -> io::Result<()>;
    /// Names in a directory, and whether each is a directory itself.
    fn entries(&self, path: &str) -> io::Result<Vec<(String, bool)>>;
    fn crash_point(&self, _name: &'static str) -> io::Result<()> {
        Ok(())
    }
}

/// An open file.
pub trait OpenFile: Send {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    fn read_at(&self, offset: u64, length: usize) -> io::Result<Vec<u8>>;
    fn size(&self) -> io::Result<u64>;
    fn set_size(&self, size: u64) -> io::Result<()>;
    fn sync(&self) -> io::Result<()>;
}

/// The machine's file system, below a directory.
pub struct Disk {
    root: PathBuf,
    halt: Option<Halt>,
}

/// A named point at which a test of the program lets the process come to a halt, to kill it there: `POINT;HIT;FILE`,
/// the hit counted from 1, and the file that says that it was reached. Nothing but a flag of the command line that the
/// process was started with makes one (`onefold dev --halt-at`): what a process inherits cannot.
#[derive(Clone, Debug)]
pub struct Halt {
    point: String,
    hit: u64,
    told: PathBuf,
    reached: Arc<AtomicU64>,
}

impl FromStr for Halt {
    type Err = String;

    fn from_str(text: &str) -> Result<Halt, String> {
        let mut parts = text.splitn(3, ';');
        let mut part = || parts.next().filter(|part| !part.is_empty());
        match (part(), part().and_then(|hit| hit.parse().ok()), part()) {
            (Some(point), Some(hit @ 1..), Some(told)) => {
                Ok(Halt { point: point.to_owned(), hit, told: told.into(), reached: Arc::default() })
            }
            _ => Err(format!("`{text}` is no point to halt at: write POINT;HIT;FILE")),
        }
    }
}

impl fmt::Display for Halt {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "hit {} of `{}`", self.hit, self.point)
    }
}

impl Halt {
    fn pass(&self, name: &str) {
        if name == self.point && self.reached.fetch_add(1, Ordering::SeqCst) + 1 == self.hit {
            // Without the file nobody would come to kill it.
            while fs::write(&self.told, name).is_ok() {
                std::thread::park();
            }
        }
    }
}

impl Disk {
    pub fn new(root: &Path, halt: Option<Halt>) -> Disk {
        Disk { root: root.to_owned(), halt }
    }

    fn at(&self, path: &str) -> PathBuf {
        if path.is_empty() { self.root.clone() } else { self.root.join(path) }
    }
}

impl Files for Disk {
    fn open(&self, path: &str, new: bool) -> io::Result<Box<dyn OpenFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        if new {
            options.create_new(true);
        } else {
            options.create(true);
        }
        Ok(Box::new(DiskFile(options.open(self.at(path))?)))
    }

    fn read(&self, path: &str, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        read_file_at(&File::open(self.at(path))?, offset, length)
    }

    fn size(&self, path: &str) -> io::Result<u64> {
        Ok(fs::metadata(self.at(path))?.len())
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        fs::hard_link(self.at(from), self.at(to))
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        fs::remove_file(self.at(path))
    }

    fn make_directory(&self, path: &str) -> io::Result<()> {
        fs::create_dir(self.at(path))
    }

    fn sync_directory(&self, path: &str) -> io::Result<()> {
        File::open(self.at(path))?.sync_all()
    }

    fn entries(&self, path: &str) -> io::Result<Vec<(String, bool)>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(self.at(path))? {
            let entry = entry?;
            // A name that is not UTF-8 is none of ours: every path that we write is text.
            if let Ok(name) = entry.file_name().into_string() {
                entries.push((name, entry.file_type()?.is_dir()));
            }
        }
        Ok(entries)
    }

    fn crash_point(&self, name: &'static str) -> io::Result<()> {
        if let Some(halt) = &self.halt {
            halt.pass(name);
        }
        Ok(())
    }
}

struct DiskFile(File);

impl OpenFile for DiskFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn read_at(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        read_file_at(&self.0, offset, length)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn set_size(&self, size: u64) -> io::Result<()> {
        self.0.set_len(size)
    }

    fn sync(&self) -> io::Result<()> {
        // Not `sync_data`: the length of a file that grew is metadata too, and not every file system takes it along.
        self.0.sync_all()
    }
}

fn read_file_at(file: &File, offset: u64, length: usize) -> io::Result<Vec<u8>> {
    // The file's own length bounds the buffer, so that "all of it" can be asked for with usize::MAX.
    let left = file.metadata()?.len().saturating_sub(offset);
    let mut bytes = vec![0; usize::try_from(left).unwrap_or(usize::MAX).min(length)];
    let mut filled = 0;
    while let Some(space) = bytes.get_mut(filled..).filter(|space| !space.is_empty()) {
        match file.read_at(space, offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}
