//! A batch: readings that go to one node in one request, always under the same key.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use forebay_codec::Unwritable;
use tokio::time::Instant;

use crate::buffer::Part;

/// Names batches: a random prefix of this run, and a number. Clones go on with the same series.
#[derive(Clone, Debug)]
pub struct BatchKeys {
    prefix: Arc<str>,
    next: Arc<AtomicU64>,
}

impl BatchKeys {
    /// Starts a series of keys that no other run has.
    pub fn new(random: &mut fastrand::Rng) -> BatchKeys {
        BatchKeys { prefix: format!("{:032x}", random.u128(..)).into(), next: Arc::default() }
    }

    /// The next number and its key.
    pub fn next_key(&mut self) -> (u64, String) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        (number, format!("{}-{number}", self.prefix))
    }
}

/// What a batch's request carries.
#[derive(Debug)]
pub struct Body {
    /// The readings, in the format of the cluster; empty if it can hold none of them.
    pub bytes: Bytes,
    /// The readings that it cannot hold, in their order.
    pub unwritten: Vec<Unwritten>,
}

/// A reading that the format of the cluster cannot hold. It becomes a dead letter when the others are delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unwritten {
    /// Its place in the batch.
    pub index: usize,
    /// Why.
    pub why: Unwritable,
}

/// Readings that go to one node in one request.
///
/// **Invariant**: the same key always goes with the same readings in the same order; whatever changes the readings
/// makes a batch with another key (`a_key_never_carries_other_readings` in `tests/it/ledger.rs`).
#[derive(Debug)]
pub struct Batch {
    /// Its place among the batches: a lower number is older.
    pub number: u64,
    /// The `Idempotency-Key`.
    pub key: String,
    /// What it is made of.
    pub parts: Vec<Part>,
    /// When its oldest reading was accepted.
    pub oldest: Option<Instant>,
    /// How many readings it has.
    pub readings: usize,
    /// The body, in the format of the cluster, not compressed.
    pub body: Bytes,
    /// The readings that are not in the body, in their order.
    pub unwritten: Vec<Unwritten>,
    /// Tries that failed.
    pub failures: u32,
    /// Nodes that were tried since every node had its turn.
    pub tried: Vec<usize>,
    /// Whether a node may have stored it although its answer did not say so.
    pub may_be_stored: bool,
}

impl Batch {
    /// Makes a batch that was not sent yet.
    pub fn new(number: u64, key: String, parts: Vec<Part>, readings: usize, body: Body) -> Batch {
        let oldest = parts.iter().map(Part::accepted_at).min();
        Batch {
            number,
            key,
            parts,
            readings,
            oldest,
            body: body.bytes,
            unwritten: body.unwritten,
            failures: 0,
            tried: Vec::new(),
            may_be_stored: false,
        }
    }

    /// How many readings are in the body.
    pub fn written(&self) -> usize {
        self.readings - self.unwritten.len()
    }

    /// The place in the batch of the `index`-th reading of the body.
    pub fn place(&self, index: usize) -> usize {
        self.unwritten.iter().fold(index, |place, unwritten| place + usize::from(unwritten.index <= place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reading_of_the_body_has_its_place_among_those_that_are_not_in_it() {
        let check = |unwritten: &[usize], places: &[usize]| {
            let unwritten: Vec<_> = unwritten
                .iter()
                .map(|index| Unwritten { index: *index, why: Unwritable::NotNumeric })
                .collect();
            let readings = places.len() + unwritten.len();
            let body = Body { bytes: Bytes::new(), unwritten };
            let batch = Batch::new(0, "key".to_owned(), Vec::new(), readings, body);
            assert_eq!(batch.written(), places.len());
            let found: Vec<_> = (0..batch.written()).map(|index| batch.place(index)).collect();
            assert_eq!(found, places);
        };
        check(&[], &[0, 1, 2]);
        check(&[0], &[1, 2]);
        check(&[1], &[0, 2]);
        check(&[0, 1, 4], &[2, 3, 5]);
        check(&[2], &[0, 1]);
        check(&[0, 1], &[]);
    }
}
