//! The queue of readings that passed, each with a number that does not change as others leave.

use std::collections::VecDeque;

/// Readings in one allocation, which is freed when all have left.
const CHUNK: usize = 1024;

/// A reading that passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PassedReading {
    /// The hash of its identity.
    pub hash: [u64; 2],
    /// The instant at which it passed, in nanoseconds since the first reading came.
    pub at: u64,
}

/// Readings, the oldest first.
#[derive(Debug, Default)]
pub(super) struct PassedQueue {
    chunks: VecDeque<Vec<PassedReading>>,
    /// The number of the oldest reading. Numbers wrap around after `u32::MAX`; there are far fewer readings than that.
    front: u32,
    length: usize,
}

impl PassedQueue {
    /// Readings in the queue.
    pub fn len(&self) -> usize {
        self.length
    }

    /// The oldest reading.
    pub fn front(&self) -> Option<&PassedReading> {
        (self.length > 0).then(|| self.get(self.front))
    }

    /// The reading of this number, which must not have left.
    pub fn get(&self, number: u32) -> &PassedReading {
        let place = number.wrapping_sub(self.front) as usize + self.skipped();
        &self.chunks[place / CHUNK][place % CHUNK]
    }

    /// Adds a reading at the end and gives its number.
    #[expect(clippy::cast_possible_truncation, reason = "numbers wrap around")]
    pub fn push(&mut self, passed: PassedReading) -> u32 {
        if self.chunks.back().is_none_or(|chunk| chunk.len() == CHUNK) {
            self.chunks.push_back(Vec::with_capacity(CHUNK));
        }
        self.chunks.back_mut().expect("there is one now").push(passed);
        self.length += 1;
        self.front.wrapping_add(self.length as u32 - 1)
    }

    /// Removes the oldest reading, and gives it with its number.
    pub fn pop(&mut self) -> Option<(u32, PassedReading)> {
        let (number, passed) = (self.front, *self.front()?);
        self.front = number.wrapping_add(1);
        self.length -= 1;
        if self.skipped() == 0 {
            self.chunks.pop_front();
        }
        Some((number, passed))
    }

    /// Places of the first chunk whose readings have left.
    fn skipped(&self) -> usize {
        // Chunks begin at multiples of their length, also where numbers wrap around.
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
            let mut queue = PassedQueue { front: start, ..PassedQueue::default() };
            let mut model: VecDeque<(u32, PassedReading)> = VecDeque::new();
            let mut next = start;
            for (is_push, times) in steps {
                for _ in 0..times {
                    if is_push {
                        let passed = PassedReading { hash: [next.into(), 7], at: next.into() };
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
