//! Where a dead letter's reading was: by that a letter is known that a crash wrote twice.
//!
//! A crash between a letter's line and the settlement of its reading brings the batch again after the next start, under
//! the same key, and the node refuses the same reading again: a second line. Both name the same batch and place, so they
//! are one letter, counted, listed and replayed once. A line without these, as earlier versions wrote them, is a letter of
//! its own, also if another is the same in every byte.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use super::letter::{self, Letter};
use super::{DeadLetterError, Directory};

/// Which reading of which batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The key of the batch with which it was refused: a batch, or a piece of one, keeps it over a crash.
    pub batch: String,
    /// Its place in that batch, from 0.
    pub place: u64,
}

/// The letters that were met, by their origins; 16 bytes each.
#[derive(Debug, Default)]
pub struct Letters(HashSet<u128>);

impl Letters {
    /// Notes a letter. Returns whether it was not there; one without an origin never was.
    pub fn insert(&mut self, letter: &Letter) -> bool {
        letter.origin.as_ref().is_none_or(|origin| self.0.insert(origin.digest()))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a letter with this origin was noted.
    pub fn contains(&self, letter: &Letter) -> bool {
        letter.origin.as_ref().is_some_and(|origin| self.0.contains(&origin.digest()))
    }
}

impl Origin {
    fn digest(&self) -> u128 {
        let mut hash = Xxh3::new();
        hash.update(&self.place.to_le_bytes());
        hash.update(self.batch.as_bytes());
        hash.digest128()
    }
}

impl Directory {
    /// Removes the lines of letters that an earlier line has already, on stable storage. Returns how many went.
    ///
    /// # Errors
    ///
    /// [`DeadLetterError`]; what was removed until then stays removed.
    pub fn remove_doubles(&self) -> Result<u64, DeadLetterError> {
        let (mut met, mut removed) = (Letters::default(), 0);
        for file in self.files()? {
            let mut has_doubles = false;
            let mut in_file = Letters::default();
            for line in self.read(file.number)?.into_iter().flatten() {
                if let Ok(letter) = line?.letter {
                    has_doubles |= met.contains(&letter) || !in_file.insert(&letter);
                }
            }
            let is_double = &mut |line: &[u8]| letter::read(line).is_ok_and(|letter| !met.insert(&letter));
            match has_doubles {
                true => removed += self.remove(file.number, is_double)?,
                false => met.0.extend(in_file.0),
            }
        }
        Ok(removed)
    }
}
