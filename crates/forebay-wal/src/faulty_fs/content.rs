//! The bytes of one file, on disk and not yet on disk.

use std::collections::BTreeSet;

/// Bytes of a sector, which is written whole or not at all.
const SECTOR_BYTES: usize = 512;

#[derive(Clone, Default)]
pub(super) struct FileContent {
    /// The bytes that reads see.
    pub(super) current: Vec<u8>,
    /// The bytes that survive any crash.
    pub(super) durable: Vec<u8>,
    pub(super) unsynced: Vec<FileChange>,
}

#[derive(Clone)]
pub(super) enum FileChange {
    Empty,
    Write { offset: usize, bytes: Vec<u8> },
}

impl FileContent {
    pub(super) fn write(&mut self, offset: usize, bytes: &[u8]) {
        if !bytes.is_empty() {
            put(&mut self.current, offset, bytes);
            self.unsynced.push(FileChange::Write { offset, bytes: bytes.to_vec() });
        }
    }

    pub(super) fn sync(&mut self) {
        for change in self.unsynced.drain(..) {
            match change {
                FileChange::Empty => self.durable.clear(),
                FileChange::Write { offset, bytes } => put(&mut self.durable, offset, &bytes),
            }
        }
    }

    /// Brings a part of the unsynced changes to the disk and forgets the rest.
    pub(super) fn lose(&mut self, random: &mut fastrand::Rng) {
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

fn put(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[offset..end].copy_from_slice(bytes);
}
