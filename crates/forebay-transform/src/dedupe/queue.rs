//! The readings that passed, in the order in which they did, each with a number that stays as others leave.

use std::collections::VecDeque;

/// Readings that lie beside each other in memory, and leave it together.
const CHUNK: usize = 1024;

/// A reading that passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Passed {
    /// What makes it the same as another.
    pub hash: [u64; 2],
    /// When it passed, in nanoseconds since the first reading came.
    pub at: u64,
}

/// Readings, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Queue {
    chunks: VecDeque<Vec<Passed>>,
    /// The number of the oldest. Numbers start again at 0 after `u32::MAX`; there are far fewer readings than that.
    front: u32,
    length: usize,
}

impl Queue {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.length
    }

    /// The oldest.
    pub fn front(&self) -> Option<&Passed> {
        (self.length > 0).then(|| self.get(self.front))
    }

    /// The one of this number, which must not have left.
    pub fn get(&self, number: u32) -> &Passed {
        let place = number.wrapping_sub(self.front) as usize + self.skipped();
        &self.chunks[place / CHUNK][place % CHUNK]
    }

    /// Adds one at the end and gives its number.
    #[expect(clippy::cast_possible_truncation, reason = "numbers go round")]
    pub fn push(&mut self, passed: Passed) -> u32 {
        if self.chunks.back().is_none_or(|chunk| chunk.len() == CHUNK) {
            self.chunks.push_back(Vec::with_capacity(CHUNK));
        }
        self.chunks.back_mut().expect("there is one now").push(passed);
        self.length += 1;
        self.front.wrapping_add(self.length as u32 - 1)
    }

    /// Takes out the oldest, with its number.
    pub fn pop(&mut self) -> Option<(u32, Passed)> {
        let (number, passed) = (self.front, *self.front()?);
        self.front = number.wrapping_add(1);
        self.length -= 1;
        if self.skipped() == 0 {
            self.chunks.pop_front();
        }
        Some((number, passed))
    }

    /// Places of the first chunk whose readings left.
    fn skipped(&self) -> usize {
        // Chunks begin at multiples of their length, at the end of the numbers too.
        self.front as usize % CHUNK
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::cast_possible_truncation, reason = "numbers of a test are small")]

    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_stay_as_readings_come_and_go(
            start in prop_oneof![Just(0), Just((u32::MAX - 2 * CHUNK as u32) + 1)],
            steps in prop::collection::vec((any::<bool>(), 1usize..1500), 1..20),
        ) {
            let mut queue = Queue { front: start, ..Queue::default() };
            let mut model: VecDeque<(u32, Passed)> = VecDeque::new();
            let mut next = start;
            for (is_push, times) in steps {
                for _ in 0..times {
                    if is_push {
                        let passed = Passed { hash: [next.into(), 7], at: next.into() };
                        prop_assert_eq!(queue.push(passed), next);
                        model.push_back((next, passed));
                        next = next.wrapping_add(1);
                    } else {
                        prop_assert_eq!(queue.pop(), model.pop_front());
                    }
                }
                prop_assert_eq!(queue.len(), model.len());
                prop_assert_eq!(queue.front(), model.front().map(|(_, passed)| passed));
                prop_assert!(queue.chunks.len() <= model.len().div_ceil(CHUNK) + 1);
                for (number, passed) in &model {
                    prop_assert_eq!(queue.get(*number), passed);
                }
            }
        }
    }
}
