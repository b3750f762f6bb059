//! A file system in memory that remembers only what a crash would keep, behind the real storage code: for tests, those
//! of users too.
//!
//! Bytes that were not synced and names whose directory was not synced are lost, kept, torn or zeroed at a crash, as a
//! seed decides: real file systems do each of these. It can also fill up, turn read-only, or stop dead after so many
//! calls or at a named point.

use super::files::{Files, OpenFile};
use super::{LocalStorage, Storage};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The disk, which outlives the processes that use it.
#[derive(Clone, Default)]
pub struct Forgetful {
    world: Arc<Mutex<World>>,
}

/// What goes wrong once the calls that change something have been counted down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A write takes half its bytes, then all fail: no space.
    Full,
    /// All fail: the file system went read-only.
    ReadOnly,
    /// Everything stops, reads too, as in a crash; `Forgetful::crash` goes on from there.
    Stop,
}

impl Forgetful {
    /// An empty disk.
    pub fn new() -> Forgetful {
        Forgetful::default()
    }

    /// The disk as the process that runs now sees it. Handles from before a crash fail for ever.
    pub fn storage(&self) -> Arc<dyn Storage> {
        let generation = self.world().generation;
        Arc::new(LocalStorage::over(Arc::new(Incarnation { world: self.world.clone(), generation })))
    }

    /// A disk of its own that has what this one has now: what a process would find that comes up after this one was
    /// killed at this moment, with the machine going on.
    pub fn copy(&self) -> Forgetful {
        Forgetful { world: Arc::new(Mutex::new(self.world().clone())) }
    }

    /// The machine loses power and comes back: what was not synced is at the mercy of `seed`, faults are gone.
    pub fn crash(&self, seed: u64) {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let world = &mut *self.world();
        world.generation += 1;
        world.stopped = false;
        world.fault = None;
        world.armed = None;
        world.names = surviving_names(&world.names, &world.durable_names, &mut random);
        world.durable_names = world.names.clone();
        for inode in &mut world.inodes {
            inode.crash(&mut random);
        }
    }

    /// After `calls` more calls that change something, `fault` happens to every one.
    pub fn fail_after(&self, calls: u64, fault: Fault) {
        self.world().fault = Some((calls, fault));
    }

    /// Space is there again, the file system writable; a stop stays a stop.
    pub fn heal(&self) {
        self.world().fault = None;
    }

    /// Stops everything when the point `name` is reached for the `hit`th time (1 = the next) from now.
    pub fn stop_at(&self, name: &'static str, hit: u64) {
        self.world().armed = Some((name, hit));
    }

    /// Whether a stop has happened since the last crash.
    pub fn stopped(&self) -> bool {
        self.world().stopped
    }

    /// How often each named point was reached, over all crashes.
    pub fn hits(&self) -> BTreeMap<&'static str, u64> {
        self.world().hits.clone()
    }

    /// Calls so far that changed something: how far a sweep with `fail_after` has to go.
    pub fn changes(&self) -> u64 {
        self.world().changes
    }

    /// Changes bytes in place behind everyone's back, durably: decay of the disk. False when there is no such place.
    pub fn corrupt(&self, path: &str, offset: usize, change: impl Fn(u8) -> u8) -> bool {
        let world = &mut *self.world();
        let Some(Node::File(number)) = world.names.get(path).copied() else { return false };
        let Some(inode) = world.inodes.get_mut(number) else { return false };
        let places = [inode.bytes.get_mut(offset), inode.synced.get_mut(offset)];
        let mut found = false;
        for byte in places.into_iter().flatten() {
            *byte = change(*byte);
            found = true;
        }
        found
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Clone, Default)]
struct World {
    generation: u64,
    stopped: bool,
    inodes: Vec<Inode>,
    names: BTreeMap<String, Node>,
    durable_names: BTreeMap<String, Node>,
    changes: u64,
    fault: Option<(u64, Fault)>,
    armed: Option<(&'static str, u64)>,
    hits: BTreeMap<&'static str, u64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Node {
    Directory,
    File(usize),
}

#[derive(Clone, Default)]
struct Inode {
    bytes: Vec<u8>,
    synced: Vec<u8>,
    /// Where `bytes` and `synced` begin to differ, at the earliest.
    dirty_from: usize,
}

impl Inode {
    fn write(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        self.dirty_from = self.dirty_from.min(offset).min(self.bytes.len());
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes[offset..end].copy_from_slice(bytes);
    }

    fn sync(&mut self) {
        self.synced.truncate(self.dirty_from);
        self.synced.extend_from_slice(&self.bytes[self.dirty_from..]);
        self.dirty_from = self.bytes.len();
    }

    fn crash(&mut self, random: &mut ChaCha8Rng) {
        let common = self.dirty_from.min(self.bytes.len());
        let fate = random.next_u64() % 4;
        if fate == 0 {
            self.bytes = self.synced.clone();
        } else if fate > 1 {
            self.bytes.truncate(between(random, common, self.bytes.len()));
            if random.next_u64().is_multiple_of(3) {
                // The new length reached the disk, the data did not.
                let zeros_from = between(random, common, self.bytes.len());
                self.bytes[zeros_from..].fill(0);
            }
        }
        self.synced = self.bytes.clone();
        self.dirty_from = self.bytes.len();
    }
}

fn between(random: &mut ChaCha8Rng, low: usize, high: usize) -> usize {
    low + usize::try_from(random.next_u64() % (high - low + 1) as u64).unwrap_or(0)
}

fn surviving_names(
    names: &BTreeMap<String, Node>,
    durable: &BTreeMap<String, Node>,
    random: &mut ChaCha8Rng,
) -> BTreeMap<String, Node> {
    let mut paths: Vec<&String> = names.keys().chain(durable.keys()).collect();
    paths.sort_unstable();
    paths.dedup();
    let mut surviving = BTreeMap::new();
    for path in paths {
        let (now, then) = (names.get(path), durable.get(path));
        let chosen = if now == then || random.next_u64().is_multiple_of(2) { now } else { then };
        let parent = parent_of(path);
        // Paths are sorted, so a parent has been decided before what is in it.
        if let Some(node) = chosen
            && (parent.is_empty() || surviving.contains_key(parent))
        {
            surviving.insert(path.clone(), *node);
        }
    }
    surviving
}

fn parent_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

/// The disk as seen by one process.
struct Incarnation {
    world: Arc<Mutex<World>>,
    generation: u64,
}

impl Incarnation {
    fn look(&self) -> io::Result<MutexGuard<'_, World>> {
        look(&self.world, self.generation)
    }

    fn change(&self) -> io::Result<MutexGuard<'_, World>> {
        change(&self.world, self.generation)
    }
}

fn look(world: &Mutex<World>, generation: u64) -> io::Result<MutexGuard<'_, World>> {
    let world = world.lock().unwrap_or_else(PoisonError::into_inner);
    if world.stopped || world.generation != generation {
        return Err(io::Error::other("the machine has crashed"));
    }
    Ok(world)
}

fn change(world: &Mutex<World>, generation: u64) -> io::Result<MutexGuard<'_, World>> {
    let mut world = look(world, generation)?;
    world.changes += 1;
    match &mut world.fault {
        None => Ok(world),
        Some((calls, _)) if *calls > 0 => {
            *calls -= 1;
            Ok(world)
        }
        Some((_, Fault::Full)) => Err(ErrorKind::StorageFull.into()),
        Some((_, Fault::ReadOnly)) => Err(ErrorKind::ReadOnlyFilesystem.into()),
        Some((_, Fault::Stop)) => {
            world.stopped = true;
            Err(io::Error::other("the machine has crashed"))
        }
    }
}

fn missing() -> io::Error {
    ErrorKind::NotFound.into()
}

impl Files for Incarnation {
    fn open(&self, path: &str, new: bool) -> io::Result<Box<dyn OpenFile>> {
        let known = self.look()?.names.get(path).copied();
        let number = match known {
            Some(_) if new => return Err(ErrorKind::AlreadyExists.into()),
            Some(Node::Directory) => return Err(ErrorKind::IsADirectory.into()),
            Some(Node::File(number)) => number,
            None => {
                let mut world = self.change()?;
                let parent = parent_of(path);
                if !parent.is_empty() && world.names.get(parent) != Some(&Node::Directory) {
                    return Err(missing());
                }
                let number = world.inodes.len();
                world.inodes.push(Inode::default());
                world.names.insert(path.to_owned(), Node::File(number));
                number
            }
        };
        Ok(Box::new(IncarnationFile { world: self.world.clone(), generation: self.generation, number }))
    }

    fn read(&self, path: &str, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let world = self.look()?;
        match world.names.get(path) {
            Some(Node::File(number)) => Ok(range_of(&world.inodes[*number].bytes, offset, length)),
            _ => Err(missing()),
        }
    }

    fn size(&self, path: &str) -> io::Result<u64> {
        let world = self.look()?;
        match world.names.get(path) {
            Some(Node::File(number)) => Ok(world.inodes[*number].bytes.len() as u64),
            _ => Err(missing()),
        }
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        let mut world = self.change()?;
        if world.names.contains_key(to) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        let node = world.names.get(from).copied().ok_or_else(missing)?;
        world.names.insert(to.to_owned(), node);
        Ok(())
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        // Freeing space works on a full disk too.
        if !self.look()?.names.contains_key(path) {
            return Err(missing());
        }
        let mut world = match self.change() {
            Err(error) if error.kind() == ErrorKind::StorageFull => self.look()?,
            other => other?,
        };
        world.names.remove(path).map(|_| ()).ok_or_else(missing)
    }

    fn make_directory(&self, path: &str) -> io::Result<()> {
        if self.look()?.names.contains_key(path) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        self.change()?.names.insert(path.to_owned(), Node::Directory);
        Ok(())
    }

    fn sync_directory(&self, path: &str) -> io::Result<()> {
        let world = &mut *self.change()?;
        world.durable_names.retain(|name, _| parent_of(name) != path);
        let inside = world.names.iter().filter(|(name, _)| parent_of(name) == path);
        world.durable_names.extend(inside.map(|(name, node)| (name.clone(), *node)));
        Ok(())
    }

    fn entries(&self, path: &str) -> io::Result<Vec<(String, bool)>> {
        let world = self.look()?;
        if !path.is_empty() && world.names.get(path) != Some(&Node::Directory) {
            return Err(missing());
        }
        let inside = world.names.iter().filter(|(name, _)| parent_of(name) == path);
        let name_of = |name: &str| name.rsplit_once('/').map_or(name, |(_, last)| last).to_owned();
        Ok(inside.map(|(name, node)| (name_of(name), *node == Node::Directory)).collect())
    }

    fn crash_point(&self, name: &'static str) -> io::Result<()> {
        let mut world = self.look()?;
        *world.hits.entry(name).or_default() += 1;
        match &mut world.armed {
            Some((armed, hit)) if *armed == name && *hit > 1 => *hit -= 1,
            Some((armed, _)) if *armed == name => {
                world.stopped = true;
                return Err(io::Error::other("the machine has crashed"));
            }
            _ => {}
        }
        Ok(())
    }
}

struct IncarnationFile {
    world: Arc<Mutex<World>>,
    generation: u64,
    number: usize,
}

impl OpenFile for IncarnationFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let offset = usize::try_from(offset).map_err(|_| ErrorKind::FileTooLarge)?;
        match change(&self.world, self.generation) {
            Ok(mut world) => {
                world.inodes[self.number].write(offset, bytes);
                Ok(())
            }
            Err(error) => {
                // What did not fit, or was under way when the power went: a part of it may be there.
                let world = &mut *self.world.lock().unwrap_or_else(PoisonError::into_inner);
                if world.generation == self.generation && error.kind() != ErrorKind::ReadOnlyFilesystem {
                    world.inodes[self.number].write(offset, &bytes[..bytes.len() / 2]);
                }
                Err(error)
            }
        }
    }

    fn read_at(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        Ok(range_of(&look(&self.world, self.generation)?.inodes[self.number].bytes, offset, length))
    }

    fn size(&self) -> io::Result<u64> {
        Ok(look(&self.world, self.generation)?.inodes[self.number].bytes.len() as u64)
    }

    fn set_size(&self, size: u64) -> io::Result<()> {
        let size = usize::try_from(size).map_err(|_| ErrorKind::FileTooLarge)?;
        // Cutting needs no space.
        let mut world = match change(&self.world, self.generation) {
            Err(error) if error.kind() == ErrorKind::StorageFull => look(&self.world, self.generation)?,
            other => other?,
        };
        let inode = &mut world.inodes[self.number];
        inode.dirty_from = inode.dirty_from.min(size).min(inode.bytes.len());
        inode.bytes.resize(size, 0);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        change(&self.world, self.generation)?.inodes[self.number].sync();
        Ok(())
    }
}

fn range_of(bytes: &[u8], offset: u64, length: usize) -> Vec<u8> {
    let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
    bytes[start..start.saturating_add(length).min(bytes.len())].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Creation;

    /// Every single call of `create` may be the last: afterwards the object is whole or absent, and there if it was
    /// reported. Guards: a name linked before its bytes are synced, a directory never synced.
    #[test]
    fn objects_survive_whole_or_not_at_all() {
        let value = vec![7; 1000];
        let mut survived = 0;
        for calls in 0..30 {
            for seed in 0..20 {
                let disk = Forgetful::new();
                disk.fail_after(calls, Fault::Stop);
                let told = disk.storage().create("a/b/c", &value).is_ok();
                disk.crash(seed);
                let found = disk.storage().read("a/b/c").unwrap();
                assert!(found.is_none() || found.as_deref() == Some(value.as_slice()), "torn after {calls} calls");
                assert!(!told || found.is_some(), "reported and lost after {calls} calls, seed {seed}");
                survived += u32::from(found.is_some());
            }
        }
        assert!(survived > 0, "nothing ever survived: the test would not notice a loss");
    }

    /// The disk must really forget, or tests over it prove nothing.
    #[test]
    fn what_was_not_synced_is_lost_sometimes() {
        let mut lengths = std::collections::BTreeSet::new();
        for seed in 0..50 {
            let disk = Forgetful::new();
            let mut file = disk.storage().open_append("log").unwrap();
            file.append(b"synced").unwrap();
            file.sync().unwrap();
            file.append(b"not synced").unwrap();
            disk.crash(seed);
            assert!(file.append(b"from before").is_err());
            let bytes = disk.storage().read("log").unwrap().unwrap();
            assert!(bytes.starts_with(b"synced"));
            lengths.insert(bytes.len());
        }
        assert!(lengths.contains(&6) && lengths.contains(&16) && lengths.len() > 4, "{lengths:?}");
    }

    #[test]
    fn a_full_disk_recovers() {
        let disk = Forgetful::new();
        let storage = disk.storage();
        assert_eq!(storage.create("a/one", b"1").unwrap(), Creation::Created);
        disk.fail_after(0, Fault::Full);
        assert!(storage.create("a/two", b"2").unwrap_err().is_unwritable());
        assert_eq!(storage.read("a/two").unwrap(), None);
        disk.heal();
        assert_eq!(storage.create("a/two", b"2").unwrap(), Creation::Created);
    }

    #[test]
    fn named_points_stop_everything() {
        let disk = Forgetful::new();
        let storage = disk.storage();
        disk.stop_at("here", 2);
        storage.crash_point("here").unwrap();
        storage.crash_point("there").unwrap();
        assert!(storage.crash_point("here").is_err() && disk.stopped());
        assert!(storage.read("x").is_err());
        assert_eq!(disk.hits().get("here"), Some(&2));
    }
}
