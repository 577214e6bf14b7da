//! Answers in the order in which they came, found by their keys.
//!
//! The order is kept in pieces that are given back as they empty, and the index is a table that never grows: no
//! single call has much to do, however many keys there are. A key takes [`size_of::<AnswerEntry>()`](AnswerEntry),
//! 56 bytes, and 8 to 16 in the table when the store is full; listed errors come on top where an answer had any.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher as _, RandomState};

use super::digest::{Digest, StoredFingerprint};
use crate::buffer::Ack;

/// Answers in a piece of the order.
const PIECE: usize = 512;
/// A place of the table that points nowhere.
const FREE: u32 = 0;

/// One answer, without the errors that it listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AnswerEntry {
    pub(super) key: Digest,
    pub(super) fingerprint: StoredFingerprint,
    /// When it is forgotten, in milliseconds since the start.
    pub(super) until_millis: u64,
    pub(super) accepted: u32,
    pub(super) rejected: u32,
    pub(super) ack: Ack,
}

/// What is remembered.
#[derive(Debug)]
pub(super) struct AnswerStore {
    pieces: VecDeque<Vec<AnswerEntry>>,
    /// Answers at the front of the first piece that are gone.
    gone: usize,
    len: usize,
    /// Number of the oldest answer; they are numbered as they come, modulo the size of the table.
    first: u32,
    /// The numbers of the answers plus one, each at its key's hash or in the next place that was free. At most half
    /// of the table is taken, so that a search ends soon.
    ///
    /// **Invariant**: it points at the latest answer of each key, and at nothing else
    /// (`the_store_finds_what_a_naive_one_finds`).
    table: Box<[u32]>,
    hasher: RandomState,
    /// The listed errors as JSON, by the answer's number.
    errors: HashMap<u32, Box<[u8]>>,
    errors_bytes: usize,
}

impl AnswerStore {
    /// Has room for `answers_max` answers. Their memory is taken as they come.
    pub(super) fn new(answers_max: usize) -> AnswerStore {
        let places = (answers_max.max(1) * 2).next_power_of_two();
        assert!(
            u32::try_from(places).is_ok_and(|places| places < u32::MAX),
            "{answers_max} are not too many"
        );
        AnswerStore {
            pieces: VecDeque::new(),
            gone: 0,
            len: 0,
            first: 0,
            table: vec![FREE; places].into_boxed_slice(),
            hasher: RandomState::new(),
            errors: HashMap::new(),
            errors_bytes: 0,
        }
    }

    /// How many answers there are, those included whose key has a later one.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Bytes of all listed errors.
    pub(super) fn errors_bytes(&self) -> usize {
        self.errors_bytes
    }

    /// The latest answer of a key, and the errors that it listed; empty if it listed none.
    pub(super) fn find(&self, key: &Digest) -> Option<(&AnswerEntry, &[u8])> {
        let number = self.table[self.place(key).ok()?] - 1;
        let errors = self.errors.get(&number).map_or(&[][..], |errors| errors);
        Some((self.answer(number), errors))
    }

    /// The oldest answer.
    pub(super) fn oldest(&self) -> Option<&AnswerEntry> {
        self.pieces.front().map(|piece| &piece[self.gone])
    }

    /// Adds an answer. There must be room for it.
    pub(super) fn add(&mut self, answer: AnswerEntry, errors: Box<[u8]>) {
        assert!(self.len < self.table.len() / 2, "room is made before");
        let number = self.number(self.len);
        let (Ok(place) | Err(place)) = self.place(&answer.key);
        self.table[place] = number + 1;
        if self.pieces.back().is_none_or(|piece| piece.len() == PIECE) {
            self.pieces.push_back(Vec::with_capacity(PIECE));
        }
        self.pieces.back_mut().expect("there is one now").push(answer);
        self.len += 1;
        if !errors.is_empty() {
            self.errors_bytes += errors.len();
            self.errors.insert(number, errors);
        }
    }

    /// Takes the oldest answer out. Says which it was, unless its key has a later one.
    pub(super) fn take_oldest(&mut self) -> Option<AnswerEntry> {
        let oldest = *self.oldest()?;
        let place = self.place(&oldest.key).ok().filter(|place| self.table[*place] == self.first + 1);
        if let Some(place) = place {
            self.free(place);
        }
        if let Some(errors) = self.errors.remove(&self.first) {
            self.errors_bytes -= errors.len();
        }
        self.first = self.number(1);
        self.len -= 1;
        self.gone += 1;
        if self.len == 0 || self.gone == PIECE {
            self.pieces.pop_front();
            self.gone = 0;
        }
        place.map(|_| oldest)
    }

    /// The number of the answer this many behind the oldest.
    #[expect(clippy::cast_possible_truncation, reason = "numbers go round")]
    fn number(&self, behind: usize) -> u32 {
        self.wrap(self.first as usize + behind) as u32
    }

    fn answer(&self, number: u32) -> &AnswerEntry {
        let behind = self.wrap((number as usize).wrapping_sub(self.first as usize));
        let place = self.gone + behind;
        &self.pieces[place / PIECE][place % PIECE]
    }

    /// Where the table points at the answer of `key`; or else, as an error, the free place where it would.
    fn place(&self, key: &Digest) -> Result<usize, usize> {
        let mut place = self.home(key);
        while self.table[place] != FREE {
            if self.answer(self.table[place] - 1).key == *key {
                return Ok(place);
            }
            place = self.wrap(place + 1);
        }
        Err(place)
    }

    /// Frees a place of the table. Those behind it that could not have their own move up.
    fn free(&mut self, place: usize) {
        let (mut hole, mut next) = (place, self.wrap(place + 1));
        while self.table[next] != FREE {
            let home = self.home(&self.answer(self.table[next] - 1).key);
            if self.wrap(next.wrapping_sub(home)) >= self.wrap(next.wrapping_sub(hole)) {
                self.table[hole] = self.table[next];
                hole = next;
            }
            next = self.wrap(next + 1);
        }
        self.table[hole] = FREE;
    }

    /// Where a key is looked for first. The hash is not the digest itself: who chooses keys cannot fill one place.
    #[expect(clippy::cast_possible_truncation, reason = "any part of a hash is a hash")]
    fn home(&self, key: &Digest) -> usize {
        self.wrap(self.hasher.hash_one(key) as usize)
    }

    /// The size of the table is a power of two, of which `usize` and `u32` hold whole multiples.
    fn wrap(&self, number: usize) -> usize {
        number & (self.table.len() - 1)
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

    #[test]
    fn a_key_takes_few_bytes() {
        assert!(size_of::<AnswerEntry>() <= 56, "{}", size_of::<AnswerEntry>());
        let answers = 500_000;
        let store = AnswerStore::new(answers);
        let bytes = size_of::<AnswerEntry>() + size_of_val(&*store.table).div_ceil(answers);
        assert!(bytes <= 80, "{bytes}");
    }

    proptest! {
        #[test]
        fn the_store_finds_what_a_naive_one_finds(
            steps in prop::collection::vec(prop_oneof![3 => (0_u8..40).prop_map(Some), 2 => Just(None)], 1..600),
            answers_max in 1_usize..40,
        ) {
            let mut store = AnswerStore::new(answers_max);
            let mut naive: VecDeque<(AnswerEntry, Vec<u8>)> = VecDeque::new();
            for (count, step) in steps.into_iter().enumerate() {
                if step.is_none() || naive.len() == answers_max {
                    let oldest = naive.pop_front().map(|(answer, _)| answer);
                    let is_latest = |answer: &AnswerEntry| naive.iter().all(|(other, _)| other.key != answer.key);
                    prop_assert_eq!(store.take_oldest(), oldest.filter(is_latest));
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
    fn pieces_are_given_back_as_they_empty_and_numbers_go_round() {
        let mut store = AnswerStore::new(3 * PIECE);
        for count in 0..20 * PIECE as u32 {
            if store.len() == 3 * PIECE {
                assert_eq!(store.take_oldest().map(|oldest| oldest.accepted), Some(count - 3 * PIECE as u32));
            }
            let mut answer = remembered(0, count);
            answer.key.0[..4].copy_from_slice(&count.to_le_bytes());
            store.add(answer, Box::default());
            assert!(store.pieces.len() <= 4, "{}", store.pieces.len());
        }
        while store.take_oldest().is_some() {}
        assert!(store.pieces.is_empty() && store.table.iter().all(|place| *place == FREE));
    }
}
