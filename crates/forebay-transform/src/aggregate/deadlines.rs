//! When open windows are due, the first one always at hand.
//!
//! A heap with four children a node (Johnson, *Priority queues with update and finding minimum spanning trees*, 1975)
//! that knows the place of each window in it. So a window that is closed earlier leaves at once: the heap is never
//! larger than the number of open windows, and nothing has to be cleaned up in one go.

use tokio::time::Instant;

use crate::WindowId;

const CHILDREN: usize = 4;

/// Open windows by when they are due.
#[derive(Debug, Default)]
pub struct Deadlines {
    /// **Invariant**: no window is due before its parent, which stands at its own place less one, divided by four
    /// (`the_first_deadline_is_the_least_whatever_comes_and_goes`).
    heap: Vec<(Instant, WindowId)>,
    /// The place in the heap by the number of the window. Numbers of windows that are not in it have any place.
    places: Vec<u32>,
}

impl Deadlines {
    /// How many windows are open.
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// The window that is due first, and when.
    pub fn first(&self) -> Option<(Instant, WindowId)> {
        self.heap.first().copied()
    }

    /// Adds a window that is not there.
    pub fn insert(&mut self, due: Instant, window: WindowId) {
        let number = window.0 as usize;
        if self.places.len() <= number {
            self.places.resize(number + 1, 0);
        }
        self.heap.push((due, window));
        self.rise(self.heap.len() - 1);
    }

    /// Takes out a window that is there.
    pub fn remove(&mut self, window: WindowId) {
        let place = self.places[window.0 as usize] as usize;
        debug_assert_eq!(self.heap.get(place).map(|(_, there)| *there), Some(window));
        self.heap.swap_remove(place);
        if place < self.heap.len() {
            // What was last may belong on either side of this place; one of the two does nothing.
            self.rise(place);
            self.sink(self.places[self.heap[place].1.0 as usize] as usize);
        }
    }

    /// Moves what stands at `place` up until its parent is not due later.
    fn rise(&mut self, mut place: usize) {
        let rising = self.heap[place];
        while place > 0 {
            let parent = (place - 1) / CHILDREN;
            if self.heap[parent].0 <= rising.0 {
                break;
            }
            self.put(place, self.heap[parent]);
            place = parent;
        }
        self.put(place, rising);
    }

    /// Moves what stands at `place` down until none of its children is due earlier.
    fn sink(&mut self, mut place: usize) {
        let sinking = self.heap[place];
        loop {
            let first = CHILDREN * place + 1;
            let children = first..self.heap.len().min(first + CHILDREN);
            let Some(child) = children.min_by_key(|child| self.heap[*child].0) else { break };
            if self.heap[child].0 >= sinking.0 {
                break;
            }
            self.put(place, self.heap[child]);
            place = child;
        }
        self.put(place, sinking);
    }

    fn put(&mut self, place: usize, entry: (Instant, WindowId)) {
        self.heap[place] = entry;
        self.places[entry.1.0 as usize] =
            u32::try_from(place).expect("there are no more windows than numbers for them");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_first_deadline_is_the_least_whatever_comes_and_goes(
            steps in prop::collection::vec((0_u32..40, 0_u64..30), 0..400),
        ) {
            let start = Instant::now();
            let (mut deadlines, mut model) = (Deadlines::default(), BTreeMap::new());
            for (number, seconds) in steps {
                let window = WindowId(number);
                if model.remove(&window).is_some() {
                    deadlines.remove(window);
                } else {
                    let due = start + Duration::from_secs(seconds);
                    deadlines.insert(due, window);
                    model.insert(window, due);
                }
                prop_assert_eq!(deadlines.first().map(|(due, _)| due), model.values().min().copied());
                prop_assert_eq!(deadlines.heap.len(), model.len());
            }
            while let Some((due, window)) = deadlines.first() {
                prop_assert_eq!(Some(due), model.values().min().copied());
                prop_assert_eq!(model.remove(&window), Some(due));
                deadlines.remove(window);
            }
            prop_assert!(model.is_empty());
        }
    }
}
