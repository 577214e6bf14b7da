//! The names of one directory, on disk and not yet on disk.

use std::collections::{BTreeMap, BTreeSet};

/// The number of a file, independent of its name.
pub(super) type Inode = u64;

#[derive(Clone, Default)]
pub(super) struct DirectoryEntries {
    pub(super) current: BTreeMap<String, Inode>,
    pub(super) durable: BTreeMap<String, Inode>,
    pub(super) unsynced: Vec<(Inode, NameChange)>,
}

#[derive(Clone)]
pub(super) enum NameChange {
    Create(String),
    Rename { from: String, to: String },
    Remove(String),
}

impl DirectoryEntries {
    pub(super) fn change(&mut self, inode: Inode, change: NameChange) {
        change.apply(inode, &mut self.current);
        self.unsynced.push((inode, change));
    }

    pub(super) fn lose(&mut self, random: &mut fastrand::Rng) {
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
