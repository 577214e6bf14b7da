//! What became of each reading that was sent, in two bits a reading.
//!
//! A run at 10,000 readings a second for an hour needs 9 MB. The list has an end all the same: a reading past it
//! is not remembered, and then the audit cannot be done.

/// Most readings whose fate is remembered; together they take 1 GiB.
pub(super) const FATES_MAX: usize = 1 << 32;

const BITS: usize = 2;
const PER_WORD: usize = u64::BITS as usize / BITS;

/// What is known of a reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It was not sent, or it was refused or turned away: no node may have it.
    NotTaken,
    /// The gateway has acknowledged it: the nodes must have it once.
    Acknowledged,
    /// It was sent and the answer was lost: the nodes may have it once, or not at all.
    Unknown,
}

/// The fates of readings by their ordinals. An ordinal never set is [`Fate::NotTaken`].
#[derive(Debug)]
pub(super) struct Fates {
    words: Vec<u64>,
    most: usize,
    overflowed: bool,
}

impl Fates {
    /// An empty list that remembers `most` readings at most.
    pub(super) fn new(most: usize) -> Fates {
        Fates { words: Vec::new(), most, overflowed: false }
    }

    pub(super) fn set(&mut self, ordinal: usize, fate: Fate) {
        if ordinal >= self.most {
            self.overflowed = true;
            return;
        }
        let (word, shift) = place(ordinal);
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        self.words[word] &= !(0b11 << shift);
        self.words[word] |= bits(fate) << shift;
    }

    pub(super) fn get(&self, ordinal: usize) -> Fate {
        let (word, shift) = place(ordinal);
        match self.words.get(word).map_or(0, |word| (word >> shift) & 0b11) {
            1 => Fate::Acknowledged,
            2 => Fate::Unknown,
            _ => Fate::NotTaken,
        }
    }

    /// An ordinal that lies above all that were set.
    pub(super) fn end(&self) -> usize {
        self.words.len() * PER_WORD
    }

    /// Whether some reading lay past the end of the list.
    pub(super) fn overflowed(&self) -> bool {
        self.overflowed
    }
}

fn place(ordinal: usize) -> (usize, usize) {
    (ordinal / PER_WORD, ordinal % PER_WORD * BITS)
}

fn bits(fate: Fate) -> u64 {
    match fate {
        Fate::NotTaken => 0,
        Fate::Acknowledged => 1,
        Fate::Unknown => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    #[test]
    fn a_reading_past_the_end_is_not_remembered_and_that_is_known() {
        let mut fates = Fates::new(10);
        fates.set(9, Fate::Acknowledged);
        assert!(!fates.overflowed());
        fates.set(10, Fate::Acknowledged);
        assert!(fates.overflowed());
        assert_eq!(fates.get(10), Fate::NotTaken);
    }

    proptest! {
        #[test]
        fn the_fates_are_those_that_were_set_last(steps in prop::collection::vec((0..500_usize, 0..3_u8), 0..200)) {
            let mut fates = Fates::new(1000);
            let mut model = HashMap::new();
            for (ordinal, fate) in steps {
                let fate = [Fate::NotTaken, Fate::Acknowledged, Fate::Unknown][usize::from(fate)];
                fates.set(ordinal, fate);
                model.insert(ordinal, fate);
            }
            for ordinal in 0..600 {
                prop_assert_eq!(fates.get(ordinal), model.get(&ordinal).copied().unwrap_or(Fate::NotTaken));
            }
            prop_assert!(model.keys().all(|ordinal| *ordinal < fates.end()));
        }
    }
}
