//! The ledger: every accepted reading is at all times in exactly one account.

use crate::codec::DECODERS;

/// Why readings are given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropReason {
    /// The buffer was full and newer readings came (`on_full = "drop_oldest"`).
    Full,
}

impl DropReason {
    /// Every reason with its name.
    pub const NAMES: &[(&str, DropReason)] = &[("full", DropReason::Full)];
}

/// Why readings are set aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeadLetterReason {
    /// Their record on disk could not be read; it is set aside.
    Damaged,
    /// A node refused each of them by itself (400 or 422).
    Refused,
    /// A node found each of them too large by itself (413).
    TooLarge,
    /// The format of the nodes holds numbers only, and their values are texts.
    NotNumeric,
    /// The format of the nodes has no way to write one of their names or tags.
    Unwritable,
}

impl DeadLetterReason {
    /// Every reason with its name.
    pub const NAMES: &[(&str, DeadLetterReason)] = &[
        ("damaged", DeadLetterReason::Damaged),
        ("refused", DeadLetterReason::Refused),
        ("too_large", DeadLetterReason::TooLarge),
        ("not_numeric", DeadLetterReason::NotNumeric),
        ("unwritable", DeadLetterReason::Unwritable),
    ];

    /// Its name in dead letters and metrics.
    pub fn name(self) -> &'static str {
        DeadLetterReason::NAMES[self as usize].0
    }
}

/// What became of readings that were handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The node of this index has them.
    Delivered {
        /// Index of the node.
        node: usize,
    },
    /// They were given up.
    Dropped(DropReason),
    /// They were set aside, for a person to look at.
    DeadLettered(DeadLetterReason),
}

/// The accounts. Numbers are readings since the start.
///
/// **Invariant**: `accepted + recovered + derived = delivered + dead_lettered + filtered + merged + dropped +
/// buffered`, at every moment (`buffer::accounts::tests::the_books_balance_whatever_happens`, and over HTTP
/// `the_ledger_adds_up_and_every_accepted_reading_arrives_once` in `tests/ledger.rs`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ledger {
    /// Taken in, by the format of their request, in the order of [`DECODERS`].
    pub accepted: Vec<u64>,
    /// Found in the buffer at the start.
    pub recovered: u64,
    /// Made by aggregation.
    pub derived: u64,
    /// Delivered, by node, in the order of their indices.
    pub delivered: Vec<u64>,
    /// Delivered to nodes that have gone, and whose index another node has.
    pub delivered_to_gone: u64,
    /// Set aside, by reason, in the order of [`DeadLetterReason::NAMES`].
    pub dead_lettered: Vec<u64>,
    /// Taken out by a filter.
    pub filtered: u64,
    /// Folded into readings that aggregation made.
    pub merged: u64,
    /// Given up, by reason, in the order of [`DropReason::NAMES`].
    pub dropped: Vec<u64>,
    /// Still to be delivered, in flight included.
    pub buffered: u64,
}

impl Ledger {
    /// Opens the accounts for a number of nodes.
    pub fn new(nodes: usize) -> Ledger {
        Ledger {
            accepted: vec![0; DECODERS.members.len()],
            recovered: 0,
            derived: 0,
            delivered: vec![0; nodes],
            delivered_to_gone: 0,
            dead_lettered: vec![0; DeadLetterReason::NAMES.len()],
            filtered: 0,
            merged: 0,
            dropped: vec![0; DropReason::NAMES.len()],
            buffered: 0,
        }
    }

    /// Takes in readings of the format with this index.
    pub fn accept(&mut self, format: usize, readings: u64) {
        self.accepted[format] += readings;
        self.buffered += readings;
    }

    /// Takes in readings that were found at the start.
    pub fn recover(&mut self, readings: u64) {
        self.recovered += readings;
        self.buffered += readings;
    }

    /// Moves buffered readings to the account of their outcome.
    pub fn settle(&mut self, outcome: Outcome, readings: u64) {
        match outcome {
            Outcome::Delivered { node } => self.delivered[node] += readings,
            Outcome::Dropped(reason) => self.dropped[reason as usize] += readings,
            Outcome::DeadLettered(reason) => self.dead_lettered[reason as usize] += readings,
        }
        self.buffered =
            self.buffered.checked_sub(readings).expect("only buffered readings are settled, and once");
    }

    /// Opens an account for one more node.
    pub fn add_node(&mut self) {
        self.delivered.push(0);
    }

    /// Moves what was delivered to a node that has gone out of its account, which another node gets.
    pub fn close_node(&mut self, node: usize) {
        self.delivered_to_gone += std::mem::take(&mut self.delivered[node]);
    }

    /// Readings that were delivered, to whichever node.
    pub fn delivered_to_all(&self) -> u64 {
        self.delivered.iter().sum::<u64>() + self.delivered_to_gone
    }

    /// Whether the invariant holds.
    pub fn balances(&self) -> bool {
        let came = self.accepted.iter().sum::<u64>() + self.recovered + self.derived;
        let went = self.delivered_to_all()
            + self.dead_lettered.iter().sum::<u64>()
            + self.filtered
            + self.merged
            + self.dropped.iter().sum::<u64>();
        came == went + self.buffered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accounts_of_reasons_stand_in_the_order_of_their_names() {
        for (place, (name, reason)) in DeadLetterReason::NAMES.iter().enumerate() {
            assert_eq!((*reason as usize, reason.name()), (place, *name));
        }
        for (place, (_, reason)) in DropReason::NAMES.iter().enumerate() {
            assert_eq!(*reason as usize, place);
        }
    }
}
