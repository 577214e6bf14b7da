//! How many readings came with each key.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::{IntCounter, IntCounterVec};

/// Most keys that are counted by name; all further ones are counted together.
pub const KEYS_COUNTED_MAX: usize = 1000;
/// What further keys are counted as. No key may have this name.
pub const OTHER_KEYS: &str = "other";

/// The counters of one key.
#[derive(Clone, Debug)]
pub struct KeyUsage {
    /// Readings that were accepted.
    pub accepted: IntCounter,
    /// Readings that were turned away.
    pub rejected: IntCounter,
}

/// The counters of all keys that have been in force since the start.
#[derive(Debug)]
pub struct UsageTable {
    counters: IntCounterVec,
    by_name: Mutex<BTreeMap<Arc<str>, Arc<KeyUsage>>>,
}

impl UsageTable {
    /// Counts in a metric with the labels `key` and `outcome`.
    pub fn new(counters: IntCounterVec) -> UsageTable {
        UsageTable { counters, by_name: Mutex::default() }
    }

    /// The counters of a key: those of an earlier key of the same name, or new ones.
    pub fn of(&self, name: &Arc<str>) -> Arc<KeyUsage> {
        let mut by_name = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(usage) = by_name.get(name) {
            return Arc::clone(usage);
        }
        let name = if by_name.len() < KEYS_COUNTED_MAX { Arc::clone(name) } else { OTHER_KEYS.into() };
        let counter = |outcome| self.counters.with_label_values(&[&*name, outcome]);
        let make = || Arc::new(KeyUsage { accepted: counter("accepted"), rejected: counter("rejected") });
        Arc::clone(by_name.entry(Arc::clone(&name)).or_insert_with(make))
    }

    /// The counters by name.
    pub fn all(&self) -> Vec<(Arc<str>, Arc<KeyUsage>)> {
        let by_name = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        by_name.iter().map(|(name, usage)| (Arc::clone(name), Arc::clone(usage))).collect()
    }
}

#[cfg(test)]
mod tests {
    use prometheus::Opts;

    use super::*;

    #[test]
    fn a_key_keeps_its_counters_and_those_beyond_the_limit_share_some() {
        let counters = IntCounterVec::new(Opts::new("readings", "of a test"), &["key", "outcome"]);
        let table = UsageTable::new(counters.expect("a good name"));
        table.of(&"a".into()).accepted.inc_by(3);
        assert_eq!(table.of(&"a".into()).accepted.get(), 3, "also after the file was read anew");
        for number in 0..2 * KEYS_COUNTED_MAX {
            table.of(&format!("key-{number}").into()).rejected.inc();
        }
        let all = table.all();
        assert_eq!(all.len(), KEYS_COUNTED_MAX + 1);
        let other = all.iter().find(|(name, _)| &**name == OTHER_KEYS).expect("the others");
        assert_eq!(other.1.rejected.get(), (KEYS_COUNTED_MAX + 1) as u64);
    }
}
