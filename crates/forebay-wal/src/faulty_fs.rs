//! A file system in memory for tests. It fails on demand and loses unsynced writes in a crash; the same seed gives the
//! same faults.
//!
//! It behaves like a real one: the sync of a file makes its bytes and size durable, but not its name; the sync of a
//! directory makes names durable, but not bytes; a sector is written whole or not at all; after a failed sync, the bytes
//! read as before, on disk or not, and the next sync does not write them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::{Fs, LogFile};

/// Bytes of a sector, which is written whole or not at all.
const SECTOR_BYTES: usize = 512;
/// Bytes of a block, the unit of allocation.
const BLOCK_BYTES: usize = 4096;

/// The probability, from 0 to 1, that each kind of call fails.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct FaultRates {
    /// A write stops half-way.
    pub write: f64,
    /// The sync of a file fails; its bytes may be on disk or not.
    pub sync: f64,
    /// A read of bytes or of the size fails.
    pub read: f64,
    /// The making, opening, renaming or removing of a file fails, or the listing of a directory.
    pub name: f64,
    /// The sync of a directory fails.
    pub directory_sync: f64,
}

/// How long a full disk stays full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortage {
    /// For one call.
    Once,
    /// From then on; calls that need no more room work.
    Lasting,
}

/// A file system. Its clones share one disk.
#[derive(Clone)]
pub struct FaultyFs {
    disk: Arc<Mutex<SimulatedDisk>>,
}

/// The number of a file, independent of its name.
type Inode = u64;

#[derive(Clone)]
struct SimulatedDisk {
    random: fastrand::Rng,
    faults: FaultRates,
    /// Calls that still work before the process is gone.
    calls_left: Option<u32>,
    /// Capacity in bytes; `None` is unlimited.
    room: Option<usize>,
    /// Calls so far that may need room.
    roomy_calls: u32,
    /// The number of the call that finds the disk full.
    full_at: Option<(u32, Shortage)>,
    /// Crashes so far. Older file handles are dead.
    crashes: u64,
    last_inode: Inode,
    files: BTreeMap<Inode, FileContent>,
    directories: BTreeMap<PathBuf, DirectoryEntries>,
}

#[derive(Clone, Default)]
struct FileContent {
    /// The bytes that reads see.
    current: Vec<u8>,
    /// The bytes that survive any crash.
    durable: Vec<u8>,
    unsynced: Vec<FileChange>,
}

#[derive(Clone)]
enum FileChange {
    Empty,
    Write { offset: usize, bytes: Vec<u8> },
}

#[derive(Clone, Default)]
struct DirectoryEntries {
    current: BTreeMap<String, Inode>,
    durable: BTreeMap<String, Inode>,
    unsynced: Vec<(Inode, NameChange)>,
}

#[derive(Clone)]
enum NameChange {
    Create(String),
    Rename { from: String, to: String },
    Remove(String),
}

impl fmt::Debug for FaultyFs {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("FaultyFs")
    }
}

impl FaultyFs {
    /// An empty file system without faults.
    pub fn new(seed: u64) -> FaultyFs {
        FaultyFs::of(SimulatedDisk {
            random: fastrand::Rng::with_seed(seed),
            faults: FaultRates::default(),
            calls_left: None,
            room: None,
            roomy_calls: 0,
            full_at: None,
            crashes: 0,
            last_inode: 0,
            files: BTreeMap::new(),
            directories: BTreeMap::new(),
        })
    }

    fn of(disk: SimulatedDisk) -> FaultyFs {
        FaultyFs { disk: Arc::new(Mutex::new(disk)) }
    }

    /// An independent copy.
    pub fn copy(&self) -> FaultyFs {
        FaultyFs::of(self.disk().clone())
    }

    fn disk(&self) -> MutexGuard<'_, SimulatedDisk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the probability of faults from now on.
    pub fn set_faults(&self, faults: FaultRates) {
        self.disk().faults = faults;
    }

    /// Limits the free space, in bytes, from now on; `None` is no limit.
    pub fn set_free(&self, free: Option<usize>) {
        let mut disk = self.disk();
        disk.room = free.map(|free| disk.used() + free);
    }

    /// Lets so many calls write or make a file; the next such call finds the disk full.
    pub fn set_full_after(&self, calls: u32, full: Shortage) {
        let mut disk = self.disk();
        disk.roomy_calls = 0;
        disk.full_at = Some((calls, full));
    }

    /// Calls that have written or made a file since [`FaultyFs::set_full_after`].
    pub fn roomy_calls(&self) -> u32 {
        self.disk().roomy_calls
    }

    /// An independent copy in which a directory, with everything below it, is moved.
    pub fn moved(&self, from: &Path, to: &Path) -> FaultyFs {
        let mut disk = SimulatedDisk { calls_left: None, ..self.disk().clone() };
        let directories = std::mem::take(&mut disk.directories).into_iter().map(|(path, names)| {
            let moved = path.strip_prefix(from).map(|below| to.join(below).components().collect());
            (moved.unwrap_or(path), names)
        });
        disk.directories = directories.collect();
        FaultyFs::of(disk)
    }

    /// Lets so many calls work and all later ones fail, as in a process that is killed; a write as the last call is done
    /// in part. `None` or a [`FaultyFs::crash`] makes calls work again.
    pub fn set_calls_left(&self, calls: Option<u32>) {
        self.disk().calls_left = calls;
    }

    /// Whether the calls of [`FaultyFs::set_calls_left`] are used up.
    pub fn is_out_of_calls(&self) -> bool {
        self.disk().calls_left == Some(0)
    }

    /// Cuts the power: any part of the unsynced changes is lost, and all open files are dead.
    pub fn crash(&self) {
        let disk = &mut *self.disk();
        disk.crashes += 1;
        disk.calls_left = None;
        for content in disk.files.values_mut() {
            content.lose(&mut disk.random);
            content.current = content.durable.clone();
        }
        for names in disk.directories.values_mut() {
            names.lose(&mut disk.random);
        }
        let named: BTreeSet<_> = disk.directories.values().flat_map(|names| names.current.values()).collect();
        disk.files.retain(|inode, _| named.contains(inode));
    }

    /// Changes a byte of a file, durably.
    pub fn flip(&self, path: &Path, offset: usize, mask: u8) {
        self.damage(path, |bytes| bytes[offset] ^= mask);
    }

    /// Makes a file shorter, durably.
    pub fn cut(&self, path: &Path, bytes: usize) {
        self.damage(path, |content| content.truncate(bytes));
    }

    /// The bytes of a file.
    pub fn content(&self, path: &Path) -> Vec<u8> {
        let disk = self.disk();
        let inode = disk.find(path).expect("a file of this name");
        disk.files[&inode].current.clone()
    }

    fn damage(&self, path: &Path, change: impl Fn(&mut Vec<u8>)) {
        let mut disk = self.disk();
        let inode = disk.find(path).expect("a file of this name");
        let content = disk.files.get_mut(&inode).expect("names have files");
        content.sync();
        change(&mut content.current);
        content.durable = content.current.clone();
    }
}

impl SimulatedDisk {
    /// Counts a call; an error if none is left.
    fn call(&mut self) -> io::Result<()> {
        match &mut self.calls_left {
            Some(0) => return Err(io::Error::other("the process is gone")),
            Some(left) => *left -= 1,
            None => {}
        }
        Ok(())
    }

    fn fails(&mut self, call: impl Fn(&FaultRates) -> f64) -> io::Result<()> {
        let probability = call(&self.faults);
        // Without faults no random number is drawn, so that only crashes use them.
        if probability > 0.0 && self.random.f64() < probability { Err(io_error()) } else { Ok(()) }
    }

    /// Counts a call that may need room; an error if the disk is full.
    fn needs_room(&mut self) -> io::Result<()> {
        let call = self.roomy_calls;
        self.roomy_calls += 1;
        match self.full_at {
            Some((at, full)) if at == call => {
                if full == Shortage::Lasting {
                    self.room = Some(self.used());
                }
                Err(io::ErrorKind::StorageFull.into())
            }
            _ => Ok(()),
        }
    }

    fn find(&self, path: &Path) -> io::Result<Inode> {
        let (directory, name) = split(path);
        let names = self.directories.get(directory).ok_or(io::ErrorKind::NotFound)?;
        Ok(*names.current.get(name).ok_or(io::ErrorKind::NotFound)?)
    }

    fn names(&mut self, directory: &Path) -> io::Result<&mut DirectoryEntries> {
        self.directories.get_mut(directory).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn used(&self) -> usize {
        let named: BTreeSet<_> = self.directories.values().flat_map(|names| names.current.values()).collect();
        named.iter().map(|inode| self.files[inode].current.len().next_multiple_of(BLOCK_BYTES)).sum()
    }

    /// The first byte of a file that no longer fits on the disk.
    fn end_of_room(&self, inode: Inode) -> usize {
        let Some(room) = self.room else { return usize::MAX };
        let has = self.files[&inode].current.len().next_multiple_of(BLOCK_BYTES);
        has + room.saturating_sub(self.used()) / BLOCK_BYTES * BLOCK_BYTES
    }

    fn write(&mut self, inode: Inode, bytes: &[u8], offset: usize) -> io::Result<()> {
        self.call()?;
        self.needs_room()?;
        let last = self.calls_left == Some(0);
        let torn = if last { Err(io_error()) } else { self.fails(|faults| faults.write) };
        let torn = torn.map_err(|error| (self.random.usize(..bytes.len()), error));
        let room = self.end_of_room(inode).saturating_sub(offset);
        let full = if room < bytes.len() { Err((room, io::ErrorKind::StorageFull.into())) } else { Ok(()) };
        let (written, result) = match torn.and(full) {
            Ok(()) => (bytes.len(), Ok(())),
            Err((written, error)) => (written.min(room), Err(error)),
        };
        self.files.get_mut(&inode).expect("open files are there").write(offset, &bytes[..written]);
        result
    }

    fn sync(&mut self, inode: Inode) -> io::Result<()> {
        self.call()?;
        let failed = self.fails(|faults| faults.sync);
        let content = self.files.get_mut(&inode).expect("open files are there");
        match failed {
            Ok(()) => content.sync(),
            Err(_) => content.lose(&mut self.random),
        }
        failed
    }
}

impl FileContent {
    fn write(&mut self, offset: usize, bytes: &[u8]) {
        if !bytes.is_empty() {
            put(&mut self.current, offset, bytes);
            self.unsynced.push(FileChange::Write { offset, bytes: bytes.to_vec() });
        }
    }

    fn sync(&mut self) {
        for change in self.unsynced.drain(..) {
            match change {
                FileChange::Empty => self.durable.clear(),
                FileChange::Write { offset, bytes } => put(&mut self.durable, offset, &bytes),
            }
        }
    }

    /// Brings a part of the unsynced changes to the disk and forgets the rest.
    fn lose(&mut self, random: &mut fastrand::Rng) {
        let mut changes = std::mem::take(&mut self.unsynced);
        if let Some(emptied) = changes.iter().rposition(|change| matches!(change, FileChange::Empty)) {
            if random.bool() {
                return;
            }
            self.durable.clear();
            changes.drain(..=emptied);
        }
        let survivors = Survivors::choose(random, changes.len());
        // A sector is on disk as it was at one moment, with all changes up to then.
        let mut closed = BTreeSet::new();
        for (index, change) in changes.iter().enumerate() {
            let FileChange::Write { offset, bytes } = change else { continue };
            let mut from = 0;
            while from < bytes.len() {
                let sector = (offset + from) / SECTOR_BYTES;
                let to = ((sector + 1) * SECTOR_BYTES - offset).min(bytes.len());
                if !closed.contains(&sector) && survivors.includes(random, index) {
                    put(&mut self.durable, offset + from, &bytes[from..to]);
                } else {
                    closed.insert(sector);
                }
                from = to;
            }
        }
    }
}

/// The unsynced changes of a file that reach the disk.
#[derive(Clone, Copy)]
enum Survivors {
    All,
    /// The first so many.
    First(usize),
    /// All but this one.
    AllBut(usize),
    /// A random part, from 0 to 1, of all sectors.
    Sectors(f64),
    /// The first so many, and some sectors of the rest.
    FirstAndSectors(usize, f64),
}

impl Survivors {
    fn choose(random: &mut fastrand::Rng, changes: usize) -> Survivors {
        match random.u8(..6) {
            0 => Survivors::All,
            1 => Survivors::First(0),
            2 => Survivors::First(random.usize(..=changes)),
            3 => Survivors::AllBut(random.usize(..=changes)),
            4 => Survivors::Sectors(random.f64()),
            _ => Survivors::FirstAndSectors(random.usize(..=changes), random.f64()),
        }
    }

    /// Whether a sector of this change reaches the disk.
    fn includes(self, random: &mut fastrand::Rng, change: usize) -> bool {
        match self {
            Survivors::All => true,
            Survivors::First(count) => change < count,
            Survivors::AllBut(lost) => change != lost,
            Survivors::Sectors(part) => random.f64() < part,
            Survivors::FirstAndSectors(count, part) => change < count || random.f64() < part,
        }
    }
}

impl DirectoryEntries {
    fn change(&mut self, inode: Inode, change: NameChange) {
        change.apply(inode, &mut self.current);
        self.unsynced.push((inode, change));
    }

    fn lose(&mut self, random: &mut fastrand::Rng) {
        let changes = std::mem::take(&mut self.unsynced);
        let first = random.usize(..=changes.len());
        // A journal keeps all changes up to one moment. Without one, each file has a moment of its own.
        let as_journal = random.bool();
        let mut closed = BTreeSet::new();
        for (index, (inode, change)) in changes.into_iter().enumerate() {
            let survives = if as_journal { index < first } else { !closed.contains(&inode) && random.bool() };
            if survives {
                change.apply(inode, &mut self.durable);
            } else {
                closed.insert(inode);
            }
        }
        self.current = self.durable.clone();
    }
}

impl NameChange {
    fn apply(&self, inode: Inode, names: &mut BTreeMap<String, Inode>) {
        let forget = |names: &mut BTreeMap<String, Inode>, name: &String| {
            if names.get(name) == Some(&inode) {
                names.remove(name);
            }
        };
        match self {
            NameChange::Create(name) => _ = names.insert(name.clone(), inode),
            NameChange::Remove(name) => forget(names, name),
            NameChange::Rename { from, to } => {
                forget(names, from);
                names.insert(to.clone(), inode);
            }
        }
    }
}

impl Fs for FaultyFs {
    fn create_directory(&self, path: &Path) -> io::Result<()> {
        self.disk().directories.entry(path.to_owned()).or_default();
        Ok(())
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let mut disk = self.disk();
        disk.call()?;
        disk.fails(|faults| faults.name)?;
        Ok(disk.names(directory)?.current.keys().cloned().collect())
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn LogFile>> {
        let mut disk = self.disk();
        disk.call()?;
        disk.fails(|faults| faults.name)?;
        disk.needs_room()?;
        if let Ok(inode) = disk.find(path) {
            let content = disk.files.get_mut(&inode).expect("names have files");
            content.current.clear();
            content.unsynced.push(FileChange::Empty);
        } else {
            disk.last_inode += 1;
            let inode = disk.last_inode;
            let (directory, name) = split(path);
            disk.names(directory)?.change(inode, NameChange::Create(name.to_owned()));
            disk.files.insert(inode, FileContent::default());
        }
        drop(disk);
        self.open_any(path)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn LogFile>> {
        let mut disk = self.disk();
        disk.call()?;
        disk.fails(|faults| faults.name)?;
        drop(disk);
        self.open_any(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        disk.call()?;
        disk.fails(|faults| faults.name)?;
        let inode = disk.find(from)?;
        let ((from_directory, from), (to_directory, to)) = (split(from), split(to));
        let (from, to) = (from.to_owned(), to.to_owned());
        if from_directory == to_directory {
            disk.names(from_directory)?.change(inode, NameChange::Rename { from, to });
        } else {
            disk.names(to_directory)?.change(inode, NameChange::Create(to));
            disk.names(from_directory)?.change(inode, NameChange::Remove(from));
        }
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        disk.call()?;
        disk.fails(|faults| faults.name)?;
        let inode = disk.find(path)?;
        let (directory, name) = split(path);
        disk.names(directory)?.change(inode, NameChange::Remove(name.to_owned()));
        Ok(())
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        disk.call()?;
        disk.fails(|faults| faults.directory_sync)?;
        // Directories above the log's own are always durable.
        let Ok(names) = disk.names(path) else { return Ok(()) };
        names.unsynced.clear();
        names.durable = names.current.clone();
        Ok(())
    }
}

impl FaultyFs {
    fn open_any(&self, path: &Path) -> io::Result<Arc<dyn LogFile>> {
        let disk = self.disk();
        let (inode, crashes) = (disk.find(path)?, disk.crashes);
        Ok(Arc::new(FaultyFile { fs: self.clone(), inode, crashes }))
    }
}

#[derive(Debug)]
struct FaultyFile {
    fs: FaultyFs,
    inode: Inode,
    /// The number of crashes when the file was opened.
    crashes: u64,
}

impl FaultyFile {
    fn disk(&self) -> io::Result<MutexGuard<'_, SimulatedDisk>> {
        let disk = self.fs.disk();
        if disk.crashes == self.crashes { Ok(disk) } else { Err(io::Error::other("opened before the crash")) }
    }
}

impl LogFile for FaultyFile {
    fn size(&self) -> io::Result<u64> {
        let mut disk = self.disk()?;
        disk.call()?;
        disk.fails(|faults| faults.read)?;
        Ok(disk.files[&self.inode].current.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut disk = self.disk()?;
        disk.call()?;
        disk.fails(|faults| faults.read)?;
        let current = &disk.files[&self.inode].current;
        let rest = current.get(position(offset)..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.disk()?.write(self.inode, bytes, position(offset))
    }

    fn sync(&self) -> io::Result<()> {
        self.disk()?.sync(self.inode)
    }
}

fn split(path: &Path) -> (&Path, &str) {
    let directory = path.parent().expect("a file has a directory");
    (directory, path.file_name().and_then(|name| name.to_str()).expect("a name that is text"))
}

fn position(offset: u64) -> usize {
    usize::try_from(offset).expect("files are small")
}

fn put(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[offset..end].copy_from_slice(bytes);
}

fn io_error() -> io::Error {
    io::Error::from_raw_os_error(5)
}
