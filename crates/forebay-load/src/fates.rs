//! The fate of each reading that was sent, in two bits a reading.
//!
//! A run at 10,000 readings a second for an hour needs 9 MB. The list is bounded: the fate of a reading past its end
//! is not remembered, and then the audit cannot be done.

/// Most readings whose fate is remembered; together they take 1 GiB.
pub(super) const FATES_MAX: usize = 1 << 32;

const BITS: usize = 2;
const PER_WORD: usize = u64::BITS as usize / BITS;

/// The fate of a reading that was sent, and what it allows on the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SentFate {
    /// Not sent, refused or turned away: no node may have it.
    NotTaken,
    /// Acknowledged by the gateway: the nodes must have it once.
    Acknowledged,
    /// Sent, and the answer was lost: the nodes may have it once, or not at all.
    Unknown,
}

/// The fates of readings by their ordinals. An ordinal never set is [`SentFate::NotTaken`].
#[derive(Debug)]
pub(super) struct Fates {
    words: Vec<u64>,
    most: usize,
    overflowed: bool,
}

impl Fates {
    /// An empty list for at most `most` readings.
    pub(super) fn new(most: usize) -> Fates {
        Fates { words: Vec::new(), most, overflowed: false }
    }

    pub(super) fn set(&mut self, ordinal: usize, fate: SentFate) {
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

    pub(super) fn get(&self, ordinal: usize) -> SentFate {
        let (word, shift) = place(ordinal);
        match self.words.get(word).map_or(0, |word| (word >> shift) & 0b11) {
            1 => SentFate::Acknowledged,
            2 => SentFate::Unknown,
            _ => SentFate::NotTaken,
        }
    }

    /// An ordinal above every one that was set.
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

fn bits(fate: SentFate) -> u64 {
    match fate {
        SentFate::NotTaken => 0,
        SentFate::Acknowledged => 1,
        SentFate::Unknown => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    #[test]
    fn a_reading_past_the_end_is_not_remembered_and_the_list_says_so() {
        let mut fates = Fates::new(10);
        fates.set(9, SentFate::Acknowledged);
        assert!(!fates.overflowed());
        fates.set(10, SentFate::Acknowledged);
        assert!(fates.overflowed());
        assert_eq!(fates.get(10), SentFate::NotTaken);
    }

    proptest! {
        #[test]
        fn each_reading_has_the_fate_that_was_set_last(steps in prop::collection::vec((0..500_usize, 0..3_u8), 0..200)) {
            let mut fates = Fates::new(1000);
            let mut model = HashMap::new();
            for (ordinal, fate) in steps {
                let fate = [SentFate::NotTaken, SentFate::Acknowledged, SentFate::Unknown][usize::from(fate)];
                fates.set(ordinal, fate);
                model.insert(ordinal, fate);
            }
            for ordinal in 0..600 {
                prop_assert_eq!(fates.get(ordinal), model.get(&ordinal).copied().unwrap_or(SentFate::NotTaken));
            }
            prop_assert!(model.keys().all(|ordinal| *ordinal < fates.end()));
        }
    }
}
