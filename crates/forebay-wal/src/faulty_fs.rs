//! A file system in memory for tests. It fails on demand and loses unsynced writes in a crash; the same seed gives the
//! same faults.
//!
//! It behaves like a real one: the sync of a file makes its bytes and size durable, but not its name; the sync of a
//! directory makes names durable, but not bytes; a sector is written whole or not at all; after a failed sync, the bytes
//! read as before, on disk or not, and the next sync does not write them.

mod content;
mod directory;
mod disk;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::fs::{Fs, LogFile};

use self::content::{FileChange, FileContent};
use self::directory::{Inode, NameChange};
use self::disk::{SimulatedDisk, split};

pub use self::disk::{FaultRates, Shortage};

/// A file system. Its clones share one disk.
#[derive(Clone)]
pub struct FaultyFs {
    disk: Arc<Mutex<SimulatedDisk>>,
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

fn position(offset: u64) -> usize {
    usize::try_from(offset).expect("files are small")
}
