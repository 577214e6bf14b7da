//! What is missing in the log of memos.

use std::fmt;
use std::ops::RangeInclusive;

use forebay_wal::{Damage, SegmentNumber, Seq, Truncation};

/// Remembered keys that cannot be read any more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LostKeys {
    /// What cannot be read, and is not set aside yet.
    pub damaged: Vec<Damage>,
    /// The youngest segment, if it is shorter than it was made.
    pub cut_short: Option<Truncation>,
    /// How many there were, if that is known.
    number: Option<u64>,
}

impl LostKeys {
    /// Whether nothing is missing.
    pub fn is_empty(&self) -> bool {
        self.damaged.is_empty() && self.cut_short.is_none()
    }

    /// How many there were, at least one; `None` if nobody knows.
    pub fn number(&self) -> Option<u64> {
        self.number
    }

    /// Adds what cannot be read. Segments that are not there before the first one were let go, or nobody can tell.
    pub fn add_damage(&mut self, damage: Damage) {
        let was_let_go = damage.bytes == (0..0) && damage.seqs.start == Seq::FIRST;
        if !was_let_go {
            self.damaged.push(damage);
        }
    }

    /// Nothing that is missing up to here, in this segment, is a loss.
    pub fn none_up_to(&mut self, segment: SegmentNumber) {
        self.damaged.retain(|damage| damage.segment > segment);
    }

    /// Counts them. The number in a segment that cannot be told apart shows in those around it, if there are any:
    /// `readable` goes from the first that can be read to the last.
    pub fn count(&mut self, readable: Option<RangeInclusive<SegmentNumber>>) {
        let is_counted = |damage: &Damage| {
            !damage.seqs.is_empty()
                || readable.as_ref().is_some_and(|readable| readable.contains(&damage.segment))
        };
        let is_known = self.cut_short.is_none() && self.damaged.iter().all(is_counted);
        let number = self.damaged.iter().map(Damage::records).sum();
        self.number = Some(number).filter(|number| is_known && *number > 0);
    }
}

impl fmt::Display for LostKeys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.number {
            Some(number) => write!(formatter, "{number}"),
            None => formatter.write_str("an unknown number"),
        }
    }
}
