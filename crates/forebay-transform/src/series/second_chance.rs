//! Second chance: finds a place that was not used for long, without a list that every use would rearrange.
//!
//! Each place has a bit that a use sets. A hand goes round the places: it takes the first place whose bit is clear, and
//! clears the bits that it passes (F. J. Corbató, *A Paging Experiment with the Multics System*, 1968). A new series is
//! behind the hand and not marked, so that it has a whole round to be used a second time, and series that come only once
//! do not evict those that come again and again.

/// The bits and the hand.
#[derive(Debug, Default)]
pub(super) struct SecondChance {
    /// A bit for each place, 64 to a word: the hand passes ten million places in 156,250 steps.
    used: Vec<u64>,
    hand: usize,
}

impl SecondChance {
    /// Marks a place as used.
    pub fn mark(&mut self, place: usize) {
        let word = place / 64;
        if word >= self.used.len() {
            self.used.resize(word + 1, 0);
        }
        self.used[word] |= 1 << (place % 64);
    }

    /// Finds a place that was not used since the hand passed it, among the first `places` (at least one), and moves the
    /// hand behind it.
    pub fn unused(&mut self, places: usize) -> usize {
        let words = places.div_ceil(64);
        self.used.resize(words.max(self.used.len()), 0);
        loop {
            let (word, bit) = (self.hand / 64 % words, self.hand % 64);
            let last = if word == words - 1 { (places - 1) % 64 } else { 63 };
            let ahead = (u64::MAX << bit) & (u64::MAX >> (63 - last));
            let unused = !self.used[word] & ahead;
            if unused != 0 {
                let found = unused.trailing_zeros() as usize;
                self.used[word] &= !(ahead & ((1 << found) - 1));
                self.hand = word * 64 + found + 1;
                return word * 64 + found;
            }
            self.used[word] &= !ahead;
            self.hand = (word + 1) % words * 64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_hand_takes_the_same_places_as_a_walk_bit_by_bit(
            places in 1usize..200,
            steps in prop::collection::vec(any::<Option<prop::sample::Index>>(), 1..500),
        ) {
            let mut chance = SecondChance::default();
            let (mut used, mut hand) = (vec![false; places], 0);
            for step in steps {
                if let Some(place) = step {
                    let place = place.index(places);
                    chance.mark(place);
                    used[place] = true;
                    continue;
                }
                while used[hand] {
                    used[hand] = false;
                    hand = (hand + 1) % places;
                }
                prop_assert_eq!(chance.unused(places), hand);
                hand = (hand + 1) % places;
            }
        }
    }
}
