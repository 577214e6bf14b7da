//! From the hash of a key to the place where the key and all that belongs to it lie.
//!
//! The table is in many parts, each of which grows by itself: to grow takes a pause that is as long as what is moved,
//! and this way the pauses are short and apart from each other. An entry holds half of the hash, so that nothing else
//! is looked at as a part grows, and keys are rarely compared in vain.

use hashbrown::HashTable;

/// How many parts there are: a part of ten million entries has about 40,000.
const PARTS: usize = 256;

/// Places by the hashes of their keys.
#[derive(Debug)]
pub(in crate::transform) struct Index {
    parts: Box<[HashTable<Entry>]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    /// The lower half of the hash; the part is chosen by the upper one.
    hash: u32,
    place: u32,
}

impl Entry {
    fn new(hash: u64, place: u32) -> Entry {
        Entry { hash: hash as u32, place }
    }

    /// The table takes some bits from the lower end and some from the upper one.
    fn spread(&self) -> u64 {
        u64::from(self.hash) << 32 | u64::from(self.hash)
    }
}

impl Default for Index {
    fn default() -> Index {
        Index { parts: (0..PARTS).map(|_| HashTable::new()).collect() }
    }
}

impl Index {
    /// The place of a key with this hash of which `is_it` says that the key lies there.
    pub fn find(&self, hash: u64, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        let wanted = Entry::new(hash, 0);
        let is_it = |entry: &Entry| entry.hash == wanted.hash && is_it(entry.place);
        self.parts[part(hash)].find(wanted.spread(), is_it).map(|entry| entry.place)
    }

    /// Adds a place. It is to be one that this hash does not have yet.
    pub fn insert(&mut self, hash: u64, place: u32) {
        let entry = Entry::new(hash, place);
        self.parts[part(hash)].insert_unique(entry.spread(), entry, Entry::spread);
    }

    /// Takes out a place, if this hash has it.
    pub fn remove(&mut self, hash: u64, place: u32) {
        let wanted = Entry::new(hash, place);
        if let Ok(entry) = self.parts[part(hash)].find_entry(wanted.spread(), |entry| *entry == wanted) {
            entry.remove();
        }
    }
}

fn part(hash: u64) -> usize {
    (hash >> 32) as usize % PARTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_of_one_hash_are_told_apart_by_their_keys() {
        let mut index = Index::default();
        // The last one shares only the part, and the one before it only the half that is kept.
        for (hash, place) in [(7, 1), (7, 2), (7 | 1 << 32, 3), (8, 4)] {
            index.insert(hash, place);
        }
        let mut seen = Vec::new();
        index.find(7, |place| {
            seen.push(place);
            false
        });
        seen.sort_unstable();
        assert_eq!(seen, [1, 2]);
        assert_eq!(index.find(7, |place| place == 2), Some(2));
        index.remove(7, 3);
        index.remove(7, 2);
        assert_eq!(index.find(7, |place| place == 2), None);
        assert_eq!(index.find(7, |_| true), Some(1));
        assert_eq!(index.find(7 | 1 << 32, |_| true), Some(3));
    }
}
