//! Finds names that occur twice in one place: among the members of an object, the tags, or the fields of a line.

use std::collections::HashSet;
use std::hash::BuildHasher as _;

/// Up to this many names are compared one by one; more are looked up by their hashes.
const FEW_MAX: usize = 16;
/// A table for up to this many hashes is kept for the next place.
const KEPT_MAX: usize = 1024;

/// Remembers the names of a place while it is read. The first name of a place clears the place before.
#[derive(Debug, Default)]
pub(super) struct UniqueNames {
    /// One bit for each name: most names get a bit of their own, and need no comparison.
    bits: u64,
    /// The hashes of all names; empty while there are only a few.
    many: HashSet<u64>,
}

impl UniqueNames {
    /// Adds a name, without its escapes, after the names `before` it. Returns whether it differs from them.
    #[inline]
    pub(super) fn is_new<'n>(
        &mut self,
        name: &str,
        mut before: impl ExactSizeIterator<Item = &'n str> + Clone,
    ) -> bool {
        match before.len() {
            0 => {
                self.forget();
                return true;
            }
            1 => self.bits = before.clone().next().map_or(0, bit),
            2..FEW_MAX => {}
            _ => return self.is_new_among_many(name, before),
        }
        let bit = bit(name);
        let may_be_there = self.bits & bit != 0;
        self.bits |= bit;
        !may_be_there || before.all(|known| known != name)
    }

    fn forget(&mut self) {
        // Clearing a table costs its whole size, and the next place is mostly small again.
        if self.many.capacity() > KEPT_MAX {
            self.many = HashSet::new();
        } else if !self.many.is_empty() {
            self.many.clear();
        }
    }

    #[cold]
    fn is_new_among_many<'n>(
        &mut self,
        name: &str,
        mut before: impl Iterator<Item = &'n str> + Clone,
    ) -> bool {
        let hasher = self.many.hasher().clone();
        if self.many.is_empty() {
            self.many.extend(before.clone().map(|known| hasher.hash_one(known)));
        }
        // Two names may share a hash, but the random seed keeps a sender from choosing such names.
        self.many.insert(hasher.hash_one(name)) || before.all(|known| known != name)
    }
}

/// One of 64 bits, from the length of a name and a few of its bytes.
fn bit(name: &str) -> u64 {
    let byte = |at: usize| name.as_bytes().get(at).map_or(0, |byte| usize::from(*byte));
    let length = name.len();
    1 << ((length + 7 * byte(0) + 13 * byte(length / 2) + 31 * byte(length.saturating_sub(1))) % 64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The place of the first name that occurred before.
    fn first_twice(names: &[String], known: &mut UniqueNames) -> Option<usize> {
        (0..names.len()).find(|at| !known.is_new(&names[*at], names[..*at].iter().map(String::as_str)))
    }

    proptest! {
        #[test]
        fn a_name_that_occurs_twice_is_found_among_few_and_many(
            names in prop::collection::vec("[a-c]{0,3}|[a-z]{4,8}", 0..60)
        ) {
            let expected = (0..names.len()).find(|at| names[..*at].contains(&names[*at]));
            let mut known = UniqueNames::default();
            for _ in 0..2 {
                prop_assert_eq!(first_twice(&names, &mut known), expected, "{:?}", names);
            }
        }
    }

    #[test]
    fn a_hundred_thousand_names_are_compared_in_seconds() {
        let mut names: Vec<_> = (0..100_000).map(|number| format!("n{number}")).collect();
        let mut known = UniqueNames::default();
        assert_eq!(first_twice(&names, &mut known), None);
        names.push("n7".to_owned());
        assert_eq!(first_twice(&names, &mut known), Some(100_000));
        // The names of one place do not count in the next.
        assert_eq!(first_twice(&names[..10], &mut known), None);
    }
}
