//! A batch: readings that are sent to one node in one request, always under the same key.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use forebay_codec::Unwritable;
use tokio::time::Instant;

use crate::buffer::Part;
use crate::node_id::NodeIndex;

/// Identifies a batch among those that are out of the buffer; a lower id is older. Pieces of a batch share its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchId(pub u64);

/// Generates the ids and keys of batches. A key is a random prefix of this run and the id; clones share one series.
#[derive(Clone, Debug)]
pub struct BatchKeys {
    prefix: Arc<str>,
    next: Arc<AtomicU64>,
}

impl BatchKeys {
    /// Starts a series of keys that is unique to this run.
    pub fn new(random: &mut fastrand::Rng) -> BatchKeys {
        BatchKeys { prefix: format!("{:032x}", random.u128(..)).into(), next: Arc::default() }
    }

    /// The next id and its key.
    pub fn next_key(&mut self) -> (BatchId, String) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        (BatchId(number), format!("{}-{number}", self.prefix))
    }
}

/// The body of a batch's request.
#[derive(Debug)]
pub struct Body {
    /// The readings in the cluster's format; empty if the format can hold none of them.
    pub bytes: Bytes,
    /// The readings that the format cannot hold, in order.
    pub unwritten: Vec<UnwritableReading>,
}

/// A reading that the cluster's format cannot hold. It becomes a dead letter once the rest of its batch is delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnwritableReading {
    /// The index in the batch.
    pub index: usize,
    /// The reason.
    pub why: Unwritable,
}

/// Readings that are sent to one node in one request.
///
/// **Invariant**: a key always goes with the same readings in the same order; any change of the readings makes a batch with
/// another key (`a_key_never_carries_other_readings` in `tests/it/ledger.rs`).
#[derive(Debug)]
pub struct Batch {
    /// The id.
    pub id: BatchId,
    /// The `Idempotency-Key`.
    pub key: String,
    /// The readings, as parts of records.
    pub parts: Vec<Part>,
    /// When the oldest reading was accepted.
    pub oldest: Option<Instant>,
    /// The number of readings.
    pub readings: usize,
    /// The body in the cluster's format, not compressed.
    pub body: Bytes,
    /// The readings that are not in the body, in order.
    pub unwritten: Vec<UnwritableReading>,
    /// Failed attempts.
    pub failures: u32,
    /// The nodes that had the batch in the present round, in which every node gets it once.
    pub tried: Vec<NodeIndex>,
    /// Whether a node may have stored the batch without confirming it.
    pub may_be_stored: bool,
}

impl Batch {
    /// Makes a batch that has not been sent.
    pub fn new(id: BatchId, key: String, parts: Vec<Part>, readings: usize, body: Body) -> Batch {
        let oldest = parts.iter().map(Part::accepted_at).min();
        Batch {
            id,
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

    /// The number of readings in the body.
    pub fn written(&self) -> usize {
        self.readings - self.unwritten.len()
    }

    /// The index in the batch of the `index`-th reading of the body.
    pub fn place(&self, index: usize) -> usize {
        self.unwritten.iter().fold(index, |place, unwritten| place + usize::from(unwritten.index <= place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_in_the_body_maps_to_the_index_in_the_batch() {
        let check = |unwritten: &[usize], places: &[usize]| {
            let unwritten: Vec<_> = unwritten
                .iter()
                .map(|index| UnwritableReading { index: *index, why: Unwritable::NotNumeric })
                .collect();
            let readings = places.len() + unwritten.len();
            let body = Body { bytes: Bytes::new(), unwritten };
            let batch = Batch::new(BatchId(0), "key".to_owned(), Vec::new(), readings, body);
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
