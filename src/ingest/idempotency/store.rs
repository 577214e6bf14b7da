//! The stored answers, in the order of their arrival and by their keys.
//!
//! The order is kept in chunks that are freed as they empty, and the keys in many small tables: a table is now and then
//! rebuilt as a whole, so with a single one a call could take long. A key takes
//! [`size_of::<AnswerEntry>()`](AnswerEntry), 56 bytes, and up to 24 in its table; the errors listed in its answer come
//! on top.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher as _, RandomState};

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::digest::{Digest, StoredFingerprint};
use crate::buffer::Ack;

/// Answers in a chunk of the queue.
const CHUNK: usize = 512;
/// Tables of keys. With 500,000 keys a rebuild of one moves about 1,000.
const TABLES: usize = 512;

/// One answer, without its listed errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AnswerEntry {
    pub(super) key: Digest,
    pub(super) fingerprint: StoredFingerprint,
    /// When the answer expires, in milliseconds since the start.
    pub(super) until_millis: u64,
    pub(super) accepted: u32,
    pub(super) rejected: u32,
    pub(super) ack: Ack,
}

/// The place of an answer in the order of arrival. Numbers wrap around, but those of the answers in a store are distinct.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct AnswerNumber(u32);

/// The answers of a gateway.
#[derive(Debug)]
pub(super) struct AnswerStore {
    queue: AnswerQueue,
    /// The latest answer of each key, in the table and at the place of the key's hash.
    ///
    /// **Invariant**: the tables have the latest answer of each key and no other
    /// (`the_store_finds_the_same_as_a_naive_one`).
    latest: Box<[HashTable<AnswerNumber>]>,
    /// Seeded at random, so that no client can choose keys that collide.
    hasher: RandomState,
    /// The listed errors as JSON.
    errors: HashMap<AnswerNumber, Box<[u8]>>,
    errors_bytes: usize,
}

/// The answers in the order of their arrival.
#[derive(Debug)]
struct AnswerQueue {
    chunks: VecDeque<Vec<AnswerEntry>>,
    /// Answers that were removed from the front of the first chunk.
    removed: usize,
    len: usize,
    /// The number of the oldest answer.
    first: AnswerNumber,
}

impl AnswerStore {
    /// An empty store. Its memory is allocated as the answers come.
    pub(super) fn new() -> AnswerStore {
        AnswerStore {
            queue: AnswerQueue { chunks: VecDeque::new(), removed: 0, len: 0, first: AnswerNumber(0) },
            latest: (0..TABLES).map(|_| HashTable::new()).collect(),
            hasher: RandomState::new(),
            errors: HashMap::new(),
            errors_bytes: 0,
        }
    }

    /// The number of answers, including those whose key has a later one.
    pub(super) fn len(&self) -> usize {
        self.queue.len
    }

    /// Bytes of all listed errors.
    pub(super) fn errors_bytes(&self) -> usize {
        self.errors_bytes
    }

    /// The latest answer of a key and its listed errors, which are empty if there were none.
    pub(super) fn find(&self, key: &Digest) -> Option<(&AnswerEntry, &[u8])> {
        let hash = self.hasher.hash_one(key);
        let number = self.latest[table(hash)].find(hash, |number| self.queue.get(*number).key == *key)?;
        let errors = self.errors.get(number).map_or(&[][..], |errors| errors);
        Some((self.queue.get(*number), errors))
    }

    /// The oldest answer.
    pub(super) fn oldest(&self) -> Option<&AnswerEntry> {
        self.queue.oldest()
    }

    /// Adds an answer. Fewer than 2^32 answers may be in the store.
    pub(super) fn add(&mut self, answer: AnswerEntry, errors: Box<[u8]>) {
        let number = self.queue.push(answer);
        let (queue, hasher) = (&self.queue, &self.hasher);
        let is_of_key = |other: &AnswerNumber| queue.get(*other).key == answer.key;
        let hash_of = |other: &AnswerNumber| hasher.hash_one(queue.get(*other).key);
        let hash = hasher.hash_one(answer.key);
        match self.latest[table(hash)].entry(hash, is_of_key, hash_of) {
            Entry::Occupied(mut earlier) => *earlier.get_mut() = number,
            Entry::Vacant(slot) => drop(slot.insert(number)),
        }
        if !errors.is_empty() {
            self.errors_bytes += errors.len();
            self.errors.insert(number, errors);
        }
    }

    /// Removes the oldest answer, and returns it unless its key has a later one.
    pub(super) fn remove_oldest(&mut self) -> Option<AnswerEntry> {
        let (number, oldest) = self.queue.pop()?;
        if let Some(errors) = self.errors.remove(&number) {
            self.errors_bytes -= errors.len();
        }
        let hash = self.hasher.hash_one(oldest.key);
        let latest = self.latest[table(hash)].find_entry(hash, |other| *other == number).ok()?;
        latest.remove();
        Some(oldest)
    }
}

/// The table for a hash. The tables themselves use its lowest and highest bits.
fn table(hash: u64) -> usize {
    (hash >> 32) as usize % TABLES
}

impl AnswerQueue {
    fn oldest(&self) -> Option<&AnswerEntry> {
        self.chunks.front().map(|chunk| &chunk[self.removed])
    }

    fn get(&self, AnswerNumber(number): AnswerNumber) -> &AnswerEntry {
        let index = self.removed + number.wrapping_sub(self.first.0) as usize;
        &self.chunks[index / CHUNK][index % CHUNK]
    }

    #[expect(clippy::cast_possible_truncation, reason = "numbers wrap around")]
    fn push(&mut self, answer: AnswerEntry) -> AnswerNumber {
        if self.chunks.back().is_none_or(|chunk| chunk.len() == CHUNK) {
            self.chunks.push_back(Vec::with_capacity(CHUNK));
        }
        self.chunks.back_mut().expect("a chunk was just added").push(answer);
        self.len += 1;
        AnswerNumber(self.first.0.wrapping_add(self.len as u32 - 1))
    }

    fn pop(&mut self) -> Option<(AnswerNumber, AnswerEntry)> {
        let popped = (self.first, *self.oldest()?);
        self.first.0 = self.first.0.wrapping_add(1);
        self.len -= 1;
        self.removed += 1;
        if self.len == 0 || self.removed == CHUNK {
            self.chunks.pop_front();
            self.removed = 0;
        }
        Some(popped)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::cast_possible_truncation, reason = "numbers of a test are small")]

    use proptest::prelude::*;

    use super::*;
    use crate::ingest::idempotency::digest::DigestKind;

    fn remembered(key: u8, accepted: u32) -> AnswerEntry {
        let digest = Digest([key; Digest::BYTES]);
        AnswerEntry {
            key: digest,
            fingerprint: StoredFingerprint { digest, kind: DigestKind::Content },
            until_millis: 0,
            accepted,
            rejected: 0,
            ack: Ack::Memory,
        }
    }

    /// The answer `count`, which has a key of its own.
    fn numbered(count: u32) -> AnswerEntry {
        let mut answer = remembered(0, count);
        answer.key.0[..4].copy_from_slice(&count.to_le_bytes());
        answer
    }

    #[test]
    fn a_key_takes_few_bytes() {
        let answers = 100_000;
        let mut store = AnswerStore::new();
        // Tables that lose as many keys as they get are rebuilt now and then, and must not grow each time.
        for count in 0..5 * answers as u32 {
            if store.len() == answers {
                store.remove_oldest();
            }
            store.add(numbered(count), Box::default());
        }
        for count in (0..5 * answers as u32).step_by(97) {
            let found = store.find(&numbered(count).key).map(|(answer, _)| answer.accepted);
            assert_eq!(found, (count >= 4 * answers as u32).then_some(count));
        }
        let tables: usize = store.latest.iter().map(HashTable::allocation_size).sum();
        let bytes = size_of::<AnswerEntry>() + tables.div_ceil(answers);
        assert!(size_of::<AnswerEntry>() <= 56 && bytes <= 80, "{bytes}");
        let largest = store.latest.iter().map(HashTable::len).max().expect("there are tables");
        assert!(largest <= 2 * answers / TABLES, "{largest} keys in one table");
    }

    proptest! {
        #[test]
        fn the_store_finds_the_same_as_a_naive_one(
            steps in prop::collection::vec(prop_oneof![3 => (0_u8..40).prop_map(Some), 2 => Just(None)], 1..600),
            answers_max in 1_usize..40,
        ) {
            let mut store = AnswerStore::new();
            let mut naive: VecDeque<(AnswerEntry, Vec<u8>)> = VecDeque::new();
            for (count, step) in steps.into_iter().enumerate() {
                if step.is_none() || naive.len() == answers_max {
                    let oldest = naive.pop_front().map(|(answer, _)| answer);
                    let is_latest = |answer: &AnswerEntry| naive.iter().all(|(other, _)| other.key != answer.key);
                    prop_assert_eq!(store.remove_oldest(), oldest.filter(is_latest));
                }
                if let Some(key) = step {
                    let answer = remembered(key, count as u32);
                    let errors = vec![b'e'; usize::from(key % 4)];
                    store.add(answer, errors.clone().into_boxed_slice());
                    naive.push_back((answer, errors));
                }
                prop_assert_eq!(store.len(), naive.len());
                prop_assert_eq!(store.oldest(), naive.front().map(|(answer, _)| answer));
                prop_assert_eq!(store.errors_bytes(), naive.iter().map(|(_, errors)| errors.len()).sum::<usize>());
                for key in 0..40 {
                    let digest = remembered(key, 0).key;
                    let latest = naive.iter().rev().find(|(answer, _)| answer.key == digest);
                    prop_assert_eq!(store.find(&digest), latest.map(|(answer, errors)| (answer, &errors[..])));
                }
            }
        }
    }

    #[test]
    fn chunks_are_freed_as_they_empty_and_numbers_wrap_around() {
        let mut store = AnswerStore::new();
        store.queue.first = AnswerNumber(u32::MAX - 5 * CHUNK as u32);
        for count in 0..20 * CHUNK as u32 {
            if store.len() == 3 * CHUNK {
                assert_eq!(
                    store.remove_oldest().map(|oldest| oldest.accepted),
                    Some(count - 3 * CHUNK as u32)
                );
            }
            store.add(numbered(count), Box::default());
            assert!(store.queue.chunks.len() <= 4, "{}", store.queue.chunks.len());
        }
        while store.remove_oldest().is_some() {}
        assert!(store.queue.chunks.is_empty() && store.latest.iter().all(HashTable::is_empty));
    }
}
