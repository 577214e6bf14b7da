//! The disk behind a file system: all its files and directories, and the faults that it still has to produce.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use super::content::FileContent;
use super::directory::{DirectoryEntries, Inode};

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

#[derive(Clone)]
pub(super) struct SimulatedDisk {
    pub(super) random: fastrand::Rng,
    pub(super) faults: FaultRates,
    /// Calls that still work before the process is gone.
    pub(super) calls_left: Option<u32>,
    /// Capacity in bytes; `None` is unlimited.
    pub(super) room: Option<usize>,
    /// Calls so far that may need room.
    pub(super) roomy_calls: u32,
    /// The number of the call that finds the disk full.
    pub(super) full_at: Option<(u32, Shortage)>,
    /// Crashes so far. Older file handles are dead.
    pub(super) crashes: u64,
    pub(super) last_inode: Inode,
    pub(super) files: BTreeMap<Inode, FileContent>,
    pub(super) directories: BTreeMap<PathBuf, DirectoryEntries>,
}

impl SimulatedDisk {
    /// Counts a call; an error if none is left.
    pub(super) fn call(&mut self) -> io::Result<()> {
        match &mut self.calls_left {
            Some(0) => return Err(io::Error::other("the process is gone")),
            Some(left) => *left -= 1,
            None => {}
        }
        Ok(())
    }

    pub(super) fn fails(&mut self, call: impl Fn(&FaultRates) -> f64) -> io::Result<()> {
        let probability = call(&self.faults);
        // Without faults no random number is drawn, so that only crashes use them.
        if probability > 0.0 && self.random.f64() < probability { Err(io_error()) } else { Ok(()) }
    }

    /// Counts a call that may need room; an error if the disk is full.
    pub(super) fn needs_room(&mut self) -> io::Result<()> {
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

    pub(super) fn find(&self, path: &Path) -> io::Result<Inode> {
        let (directory, name) = split(path);
        let names = self.directories.get(directory).ok_or(io::ErrorKind::NotFound)?;
        Ok(*names.current.get(name).ok_or(io::ErrorKind::NotFound)?)
    }

    pub(super) fn names(&mut self, directory: &Path) -> io::Result<&mut DirectoryEntries> {
        self.directories.get_mut(directory).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    pub(super) fn used(&self) -> usize {
        let named: BTreeSet<_> = self.directories.values().flat_map(|names| names.current.values()).collect();
        named.iter().map(|inode| self.files[inode].current.len().next_multiple_of(BLOCK_BYTES)).sum()
    }

    /// The first byte of a file that no longer fits on the disk.
    fn end_of_room(&self, inode: Inode) -> usize {
        let Some(room) = self.room else { return usize::MAX };
        let has = self.files[&inode].current.len().next_multiple_of(BLOCK_BYTES);
        has + room.saturating_sub(self.used()) / BLOCK_BYTES * BLOCK_BYTES
    }

    pub(super) fn write(&mut self, inode: Inode, bytes: &[u8], offset: usize) -> io::Result<()> {
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

    pub(super) fn sync(&mut self, inode: Inode) -> io::Result<()> {
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

pub(super) fn split(path: &Path) -> (&Path, &str) {
    let directory = path.parent().expect("a file has a directory");
    (directory, path.file_name().and_then(|name| name.to_str()).expect("a name that is text"))
}

fn io_error() -> io::Error {
    io::Error::from_raw_os_error(5)
}
