//! Letters that were met already, and the removal of those that a crash wrote twice.

use std::collections::HashSet;

use super::letter::{self, Letter};
use super::{DeadLetterError, LetterDirectory};

/// A set of letters, by the digests of their origins; 16 bytes each.
#[derive(Debug, Default)]
pub struct LetterSet(HashSet<u128>);

impl LetterSet {
    /// Adds a letter. Returns whether it is new; a letter without an origin always is.
    pub fn insert(&mut self, letter: &Letter) -> bool {
        letter.origin.as_ref().is_none_or(|origin| self.0.insert(origin.digest()))
    }

    /// The number of letters with an origin.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the set has no letters.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the set has a letter with this origin.
    pub fn contains(&self, letter: &Letter) -> bool {
        letter.origin.as_ref().is_some_and(|origin| self.0.contains(&origin.digest()))
    }
}

impl LetterDirectory {
    /// Removes duplicate lines of letters; returns their number when the change is on stable storage.
    ///
    /// # Errors
    ///
    /// [`DeadLetterError`]; lines removed before it stay removed.
    pub fn remove_doubles(&self) -> Result<u64, DeadLetterError> {
        let (mut met, mut removed) = (LetterSet::default(), 0);
        for file in self.files()? {
            let mut has_doubles = false;
            let mut in_file = LetterSet::default();
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
