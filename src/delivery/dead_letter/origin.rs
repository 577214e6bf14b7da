//! The batch and the place of a dead letter's reading, which identify a letter that a crash wrote twice.
//!
//! If a crash comes between the line of a letter and the settlement of its reading, the batch is sent again after the next
//! start, under the same key. The node refuses the same reading, and a second line is written. Both lines have the same batch
//! and place, so they are one letter: counted, listed and replayed once. A line without batch and place, as earlier versions
//! wrote it, is always a letter of its own.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

/// The batch and the place of a letter's reading.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LetterOrigin {
    /// The key of the refused batch or piece, which stays the same after a crash.
    pub batch: String,
    /// The reading's index in that batch, from 0.
    pub place: u64,
}

impl LetterOrigin {
    /// 16 bytes that stand for it.
    pub(super) fn digest(&self) -> u128 {
        let mut hash = Xxh3::new();
        hash.update(&self.place.to_le_bytes());
        hash.update(self.batch.as_bytes());
        hash.digest128()
    }
}
