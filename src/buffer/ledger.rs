//! The ledger: every accepted reading is at all times in exactly one account.

use forebay_codec::DECODERS;

use crate::node_id::NodeIndex;

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
    /// Those for which a letter is written; of a damaged reading nothing is left that could stand in one.
    pub const LETTERS: [DeadLetterReason; 4] = [
        DeadLetterReason::Refused,
        DeadLetterReason::TooLarge,
        DeadLetterReason::NotNumeric,
        DeadLetterReason::Unwritable,
    ];

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
        node: NodeIndex,
    },
    /// They were given up.
    Dropped(DropReason),
    /// They were set aside, for a person to look at.
    DeadLettered(DeadLetterReason),
    /// A transform took them out.
    Filtered {
        /// Its place among the transforms.
        transform: usize,
    },
    /// They are part of readings that a transform made of them, which are in the buffer in their place.
    Merged {
        /// Its place among the transforms.
        transform: usize,
    },
}

/// The accounts. Numbers are readings since the start.
///
/// **Invariant**: `accepted + recovered + derived = delivered + dead_lettered + filtered + merged + dropped +
/// buffered`, at every moment (`buffer::accounts::tests::the_books_balance_whatever_happens`, and over HTTP
/// `the_ledger_adds_up_and_every_accepted_reading_arrives_once` in `tests/it/ledger.rs`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ledger {
    /// Taken in, by the format of their request, in the order of [`DECODERS`].
    pub accepted: Vec<u64>,
    /// Found in the buffer at the start.
    pub recovered: u64,
    /// Made by transforms, by the place of the transform.
    pub derived: Vec<u64>,
    /// Delivered, by node, in the order of their indices.
    pub delivered: Vec<u64>,
    /// Delivered to nodes that have gone, and whose index another node has.
    pub delivered_to_gone: u64,
    /// Set aside, by reason, in the order of [`DeadLetterReason::NAMES`].
    pub dead_lettered: Vec<u64>,
    /// Taken out by transforms, by the place of the transform.
    pub filtered: Vec<u64>,
    /// Folded into readings that transforms made, by the place of the transform.
    pub merged: Vec<u64>,
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
            derived: Vec::new(),
            delivered: vec![0; nodes],
            delivered_to_gone: 0,
            dead_lettered: vec![0; DeadLetterReason::NAMES.len()],
            filtered: Vec::new(),
            merged: Vec::new(),
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

    /// Takes in readings that a transform made.
    pub fn derive(&mut self, transform: usize, readings: u64) {
        add(&mut self.derived, transform, readings);
        self.buffered += readings;
    }

    /// Moves buffered readings to the account of their outcome.
    pub fn settle(&mut self, outcome: Outcome, readings: u64) {
        match outcome {
            Outcome::Delivered { node } => self.delivered[node.0] += readings,
            Outcome::Dropped(reason) => self.dropped[reason as usize] += readings,
            Outcome::DeadLettered(reason) => self.dead_lettered[reason as usize] += readings,
            Outcome::Filtered { transform } => add(&mut self.filtered, transform, readings),
            Outcome::Merged { transform } => add(&mut self.merged, transform, readings),
        }
        self.buffered =
            self.buffered.checked_sub(readings).expect("only buffered readings are settled, and once");
    }

    /// Opens an account for one more node.
    pub fn add_node(&mut self) {
        self.delivered.push(0);
    }

    /// Moves what was delivered to a node that has gone out of its account, which another node gets.
    pub fn close_node(&mut self, node: NodeIndex) {
        self.delivered_to_gone += std::mem::take(&mut self.delivered[node.0]);
    }

    /// Readings that were delivered, to whichever node.
    pub fn delivered_to_all(&self) -> u64 {
        self.delivered.iter().sum::<u64>() + self.delivered_to_gone
    }

    /// Whether the invariant holds.
    pub fn balances(&self) -> bool {
        let came = self.accepted.iter().sum::<u64>() + self.recovered + self.derived.iter().sum::<u64>();
        let went = self.delivered_to_all()
            + self.dead_lettered.iter().sum::<u64>()
            + self.filtered.iter().sum::<u64>()
            + self.merged.iter().sum::<u64>()
            + self.dropped.iter().sum::<u64>();
        came == went + self.buffered
    }
}

/// Adds to the account of a transform. Accounts are opened when they are needed.
fn add(accounts: &mut Vec<u64>, transform: usize, readings: u64) {
    if accounts.len() <= transform {
        accounts.resize(transform + 1, 0);
    }
    accounts[transform] += readings;
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
