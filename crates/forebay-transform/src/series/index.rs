//! From the hash of a key to the place where the key and all that belongs to it lie.
//!
//! A hash table with linear probing, written for few misses of the cache: all that a lookup touches lies side by side,
//! and nothing is left behind where an entry was taken out (Knuth, *The Art of Computer Programming*, volume 3,
//! algorithm R of section 6.4). An entry holds half of the hash, so that keys are rarely compared in vain, and that
//! nothing else is looked at as the table grows.
//!
//! It is in many parts, each of which grows by itself: to grow takes a pause that is as long as what is moved, and this
//! way the pauses are short and apart from each other.

use std::num::NonZeroU32;

/// How many parts there are: a part of ten million entries has about 40,000.
const PARTS: usize = 256;
/// Slots of a part when it gets its first entry.
const SLOTS_MIN: usize = 4;

/// Places by the hashes of their keys.
#[derive(Debug)]
pub(crate) struct Index {
    parts: Box<[IndexPart]>,
    /// How many places there are in all parts.
    places: usize,
}

/// **Invariant**: the number of slots is a power of two, or none; at least a quarter of them are empty; and there is no
/// empty one between the slot that an entry's hash names and the one where it is (`it_agrees_with_a_list`).
#[derive(Debug, Default)]
struct IndexPart {
    slots: Box<[Option<IndexEntry>]>,
    entries: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct IndexEntry {
    /// The lower half of the hash, but for a bit; the part is chosen by the upper half.
    hash: NonZeroU32,
    place: u32,
}

impl Default for Index {
    fn default() -> Index {
        Index { parts: (0..PARTS).map(|_| IndexPart::default()).collect(), places: 0 }
    }
}

impl Index {
    /// How many places there are.
    pub fn len(&self) -> usize {
        self.places
    }

    /// The place of a key with this hash of which `is_it` says that the key lies there.
    pub fn find(&self, hash: u64, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        let part = &self.parts[part(hash)];
        let slot = part.find(kept(hash), is_it)?;
        part.slots[slot].map(|entry| entry.place)
    }

    /// Adds a place. It is to be one that this hash does not have yet.
    pub fn insert(&mut self, hash: u64, place: u32) {
        self.parts[part(hash)].insert(IndexEntry { hash: kept(hash), place });
        self.places += 1;
    }

    /// Takes out a place, if this hash has it.
    pub fn remove(&mut self, hash: u64, place: u32) {
        let part = &mut self.parts[part(hash)];
        if let Some(slot) = part.find(kept(hash), |other| other == place) {
            part.empty(slot);
            self.places -= 1;
        }
    }
}

impl IndexPart {
    /// The slot of an entry.
    fn find(&self, hash: NonZeroU32, is_it: impl Fn(u32) -> bool) -> Option<usize> {
        let mut slot = self.wrap(hash.get() as usize);
        while let Some(entry) = *self.slots.get(slot)? {
            if entry.hash == hash && is_it(entry.place) {
                return Some(slot);
            }
            slot = self.wrap(slot + 1);
        }
        None
    }

    fn insert(&mut self, entry: IndexEntry) {
        if (self.entries + 1) * 4 > self.slots.len() * 3 {
            self.grow();
        }
        self.put(entry);
        self.entries += 1;
    }

    fn put(&mut self, entry: IndexEntry) {
        let mut slot = self.wrap(entry.hash.get() as usize);
        while self.slots[slot].is_some() {
            slot = self.wrap(slot + 1);
        }
        self.slots[slot] = Some(entry);
    }

    fn grow(&mut self) {
        let slots = vec![None; (self.slots.len() * 2).max(SLOTS_MIN)];
        let old = std::mem::replace(&mut self.slots, slots.into_boxed_slice());
        old.into_iter().flatten().for_each(|entry| self.put(entry));
    }

    /// Empties a slot, and moves into it what would be cut off from the slot that its hash names.
    fn empty(&mut self, slot: usize) {
        let (mut hole, mut next) = (slot, self.wrap(slot + 1));
        while let Some(entry) = self.slots[next] {
            let from_home = self.wrap(next.wrapping_sub(entry.hash.get() as usize));
            if from_home >= self.wrap(next.wrapping_sub(hole)) {
                self.slots[hole] = Some(entry);
                hole = next;
            }
            next = self.wrap(next + 1);
        }
        self.slots[hole] = None;
        self.entries -= 1;
    }

    fn wrap(&self, slot: usize) -> usize {
        slot & self.slots.len().wrapping_sub(1)
    }
}

fn part(hash: u64) -> usize {
    (hash >> 32) as usize % PARTS
}

#[expect(clippy::cast_possible_truncation, reason = "the other half chooses the part")]
fn kept(hash: u64) -> NonZeroU32 {
    // The highest bit would be the last to choose a slot.
    NonZeroU32::new(hash as u32 | 1 << 31).expect("a bit is set")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn places_of_one_hash_are_told_apart_by_their_keys() {
        let mut index = Index::default();
        for place in [1, 2] {
            index.insert(7, place);
        }
        assert_eq!(index.find(7, |place| place == 2), Some(2));
        index.remove(7, 3);
        index.remove(7, 2);
        assert_eq!(index.find(7, |place| place == 2), None);
        assert_eq!(index.find(7, |_| true), Some(1));
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_list(
            steps in prop::collection::vec((any::<bool>(), 0u64..40, any::<prop::sample::Index>()), 1..400),
        ) {
            let mut index = Index::default();
            let mut model: Vec<(u64, u32)> = Vec::new();
            for (place, (is_removed, hash, which)) in (0..).zip(steps) {
                // Two parts; hashes that follow each other, and hashes that name the last slots.
                let hash = ((hash % 2) << 32) | ((hash / 2).wrapping_sub(5) & 0xffff_ffff);
                if is_removed && !model.is_empty() {
                    let (hash, place) = model.swap_remove(which.index(model.len()));
                    index.remove(hash, place);
                    prop_assert_eq!(index.find(hash, |other| other == place), None);
                } else {
                    index.insert(hash, place);
                    model.push((hash, place));
                }
                for (hash, place) in &model {
                    prop_assert_eq!(index.find(*hash, |other| other == *place), Some(*place));
                }
                let entries: usize = index.parts.iter().map(|part| part.entries).sum();
                prop_assert_eq!((entries, index.len()), (model.len(), model.len()));
                for part in &index.parts {
                    let taken = part.slots.iter().flatten().count();
                    prop_assert!(taken == part.entries && taken * 4 <= part.slots.len() * 3);
                }
            }
        }
    }
}
