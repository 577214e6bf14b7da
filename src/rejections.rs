//! The last rejected readings and requests, for a person who misses readings, and their numbers by device, for the log.
//!
//! Accepted readings cost nothing here. Limits: [`ENTRIES_MAX`] entries, at most [`ENTRIES_PER_REQUEST_MAX`] of one
//! request, each with at most [`SAMPLE_BYTES_MAX`] bytes of the body; [`PAIRS_MAX`] pairs of a device and a reason are
//! counted by name until the tally is taken.

mod harmless;
mod masker;

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use forebay_reading::timestamp::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use harmless::beginning;
pub use harmless::{SAMPLE_BYTES_MAX, harmless, sample};

/// Most entries; a new one replaces the oldest.
pub const ENTRIES_MAX: usize = 200;
/// Most readings of one request that get an entry each.
pub const ENTRIES_PER_REQUEST_MAX: usize = 10;
/// Most pairs of a device and a reason that are counted by name; further ones are counted by reason.
pub const PAIRS_MAX: usize = 1000;
/// Longest detail of an entry, in characters.
const DETAIL_CHARS_MAX: usize = 400;
/// Longest path of an entry, in characters.
const PATH_CHARS_MAX: usize = 200;
/// Longest name of a device in an entry, in characters.
const DEVICE_CHARS_MAX: usize = 256;

/// A reading or a whole request that was turned away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct RejectionEntry {
    /// When, as RFC 3339.
    pub at: String,
    /// The path of the request, without its query.
    #[schema(example = "/v1/readings")]
    pub path: String,
    /// The address that the request came from; not set if it is not known.
    #[schema(example = "10.0.0.7")]
    pub address: Option<String>,
    /// The name of the key that the request came with; not set as long as there are no keys.
    pub key: Option<String>,
    /// The device of the reading; of a request that was refused whole, the first device that its body names. Not set if
    /// none can be read.
    #[schema(example = "pump-13")]
    pub device: Option<String>,
    /// Why, in a word: for a reading as in `forebay_readings_rejected_total`, for a request as in
    /// `forebay_requests_refused_total`.
    #[schema(example = "time")]
    pub reason: &'static str,
    /// What was wrong, and what is allowed.
    pub detail: String,
    /// The first 200 bytes of the reading, the line or the body, with control characters written out and without what
    /// looks like a secret; not set if the body was not read.
    pub sample: Option<String>,
    /// Which texts of the entry were cut.
    #[serde(skip)]
    #[schema(ignore)]
    cut: CutTexts,
}

/// Which texts of an entry were cut: a cut text may end in the middle of a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct CutTexts {
    path: bool,
    device: bool,
    detail: bool,
    sample: bool,
}

/// The facts about a rejected reading or request.
#[derive(Clone, Copy, Debug)]
pub struct RejectionFacts<'a> {
    /// The path, without the query.
    pub path: &'a str,
    /// The address of its sender.
    pub address: Option<std::net::IpAddr>,
    /// The name of the key that it came with.
    pub key: Option<&'a str>,
    /// The device of the reading.
    pub device: Option<&'a str>,
    /// The reason, in a word.
    pub reason: &'static str,
    /// The reason, in a sentence.
    pub detail: &'a str,
    /// The beginning of the reading, the line or the body.
    pub sample: Option<&'a [u8]>,
}

impl RejectionEntry {
    /// Creates an entry: shortened, with secrets hidden and control characters escaped.
    pub fn new(rejected: RejectionFacts<'_>, now: SystemTime) -> RejectionEntry {
        let cut = CutTexts {
            path: is_longer(rejected.path, PATH_CHARS_MAX),
            device: rejected.device.is_some_and(|device| is_longer(device, DEVICE_CHARS_MAX)),
            detail: is_longer(rejected.detail, DETAIL_CHARS_MAX),
            // Callers pass at most this many bytes of a longer body.
            sample: rejected.sample.is_some_and(|sample| sample.len() >= SAMPLE_BYTES_MAX),
        };
        RejectionEntry {
            at: Timestamp::from_system(now).to_string(),
            path: beginning(rejected.path, PATH_CHARS_MAX),
            address: rejected.address.map(|address| address.to_canonical().to_string()),
            key: rejected.key.map(str::to_owned),
            device: rejected.device.map(|device| beginning(device, DEVICE_CHARS_MAX)),
            reason: rejected.reason,
            detail: beginning(rejected.detail, DETAIL_CHARS_MAX),
            sample: rejected.sample.map(sample),
            cut,
        }
    }

    /// The entry with `hide` applied to each of its texts; the second argument of `hide` is whether the text was cut.
    #[must_use]
    pub fn with_hidden(&self, hide: impl Fn(&str, bool) -> String) -> RejectionEntry {
        RejectionEntry {
            path: hide(&self.path, self.cut.path),
            device: self.device.as_deref().map(|device| hide(device, self.cut.device)),
            detail: hide(&self.detail, self.cut.detail),
            sample: self.sample.as_deref().map(|sample| hide(sample, self.cut.sample)),
            ..self.clone()
        }
    }
}

/// A number of rejected readings of one device, for one reason.
#[derive(Clone, Copy, Debug)]
pub struct RejectionCount<'a> {
    /// The device, if it is known.
    pub device: Option<&'a str>,
    /// The reason.
    pub reason: &'static str,
    /// The number.
    pub readings: u64,
}

/// Numbers of rejections since the last tally.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct RejectionTally {
    /// Readings, by device and reason.
    pairs: HashMap<(Box<str>, &'static str), u64>,
    /// Readings of unknown devices, and of pairs beyond [`PAIRS_MAX`], by reason.
    others: HashMap<&'static str, u64>,
    /// Requests whose readings are unknown, by reason.
    requests: HashMap<&'static str, u64>,
}

impl RejectionTally {
    fn add(&mut self, RejectionCount { device, reason, readings }: RejectionCount<'_>) {
        let Some(device) = device.filter(|_| self.pairs.len() < PAIRS_MAX) else {
            *self.others.entry(reason).or_default() += readings;
            return;
        };
        let device: String = device.chars().take(DEVICE_CHARS_MAX).collect();
        *self.pairs.entry((device.into_boxed_str(), reason)).or_default() += readings;
    }

    /// Describes the tally, and returns how many pairs of a device and a reason it named: at most `devices_max`, those with
    /// the most readings first; the rest is summed up. `hide` hides secrets in the name of a device; its second argument is
    /// whether the name may have been cut.
    pub fn words(&self, devices_max: usize, hide: impl Fn(&str, bool) -> String) -> (String, usize) {
        let mut pairs: Vec<_> = self.pairs.iter().collect();
        pairs.sort_by(|(left, most), (right, more)| more.cmp(most).then(left.cmp(right)));
        let (named, rest) = pairs.split_at(devices_max.min(pairs.len()));
        let mut words: Vec<String> = named
            .iter()
            .map(|((device, reason), readings)| {
                // A name of the full length may be the beginning of a longer one.
                let shown = hide(device, is_longer(device, DEVICE_CHARS_MAX - 1));
                format!("{}: {readings} ({reason})", beginning(&shown, DEVICE_CHARS_MAX))
            })
            .collect();
        let mut others = self.others.clone();
        for ((_, reason), readings) in rest {
            *others.entry(*reason).or_default() += **readings;
        }
        let what = if named.is_empty() { "devices not named" } else { "all others" };
        words.extend(by_reason(what, &others));
        words.extend(by_reason("whole requests", &self.requests));
        (words.join("; "), named.len())
    }
}

/// Whether a text has more than `chars` characters.
fn is_longer(text: &str, chars: usize) -> bool {
    text.chars().nth(chars).is_some()
}

/// Describes numbers by reason; `None` if there are no numbers.
fn by_reason(what: &str, numbers: &HashMap<&'static str, u64>) -> Option<String> {
    let mut numbers: Vec<_> = numbers.iter().collect();
    numbers.sort_unstable();
    let numbers: Vec<_> =
        numbers.into_iter().map(|(reason, number)| format!("{number} ({reason})")).collect();
    (!numbers.is_empty()).then(|| format!("{what}: {}", numbers.join(", ")))
}

/// The last rejected readings and requests.
#[derive(Debug, Default)]
pub struct RejectionLog {
    /// The lock is held to move a few pointers and to count; never while a body is examined, never across an await.
    state: Mutex<RejectionState>,
    /// Rejected readings so far, and rejected requests whose readings are unknown.
    count: AtomicU64,
}

#[derive(Debug, Default)]
struct RejectionState {
    /// The newest last.
    entries: VecDeque<Arc<RejectionEntry>>,
    tally: RejectionTally,
}

impl RejectionLog {
    /// Adds entries, the newest last, and counts readings.
    pub fn record<'a>(
        &self,
        entries: Vec<RejectionEntry>,
        counts: impl IntoIterator<Item = RejectionCount<'a>>,
    ) {
        let entries: Vec<_> = entries.into_iter().map(Arc::new).collect();
        let mut state = self.lock();
        state.entries.extend(entries);
        let beyond = state.entries.len().saturating_sub(ENTRIES_MAX);
        let removed: Vec<_> = state.entries.drain(..beyond).collect();
        let mut readings = 0;
        for count in counts {
            readings += count.readings;
            state.tally.add(count);
        }
        drop(state);
        drop(removed);
        self.count.fetch_add(readings, Ordering::Relaxed);
    }

    /// Counts a request that was rejected before its readings were known, through its sender's fault.
    pub fn count_request(&self, reason: &'static str) {
        *self.lock().tally.requests.entry(reason).or_default() += 1;
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    /// The entries, the newest first.
    pub fn newest(&self) -> Vec<Arc<RejectionEntry>> {
        self.lock().entries.iter().rev().cloned().collect()
    }

    /// Rejected readings so far, and rejected requests whose readings are unknown.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Takes the tally since the last call.
    pub fn take_tally(&self) -> RejectionTally {
        std::mem::take(&mut self.lock().tally)
    }

    fn lock(&self) -> MutexGuard<'_, RejectionState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use forebay_reading::clock::wall_time;

    use super::*;

    fn unchanged(text: &str, _is_cut: bool) -> String {
        text.to_owned()
    }

    fn entry(detail: &str) -> RejectionEntry {
        let (address, device, sample) = (Some([10, 0, 0, 7].into()), Some("pump-13"), Some(&b"{}"[..]));
        let rejected =
            RejectionFacts { path: "/write", address, key: None, device, reason: "time", detail, sample };
        RejectionEntry::new(rejected, SystemTime::UNIX_EPOCH)
    }

    #[test]
    fn the_last_two_hundred_entries_are_there_the_newest_first() {
        let log = RejectionLog::default();
        for number in 0..250 {
            log.record(vec![entry(&number.to_string())], []);
        }
        let kept: Vec<_> = log.newest().iter().map(|entry| entry.detail.clone()).collect();
        assert_eq!(kept, (50..250).rev().map(|number: i32| number.to_string()).collect::<Vec<_>>());
    }

    #[test]
    fn neither_detail_nor_path_nor_sample_shows_a_secret() {
        let rejected = RejectionFacts {
            path: "/x;token=hunter2",
            address: None,
            key: None,
            device: Some("Bearer hunter2"),
            reason: "type",
            detail: "the field `password` is `hunter2`; allowed: a number. `POST http://u:hunter2@127.0.0.1/write`",
            sample: Some(b"m,device=d password=hunter2"),
        };
        let entry = RejectionEntry::new(rejected, wall_time());
        assert!(!format!("{entry:?}").contains("hunter2"), "{entry:?}");
        assert!(entry.detail.contains("allowed: a number"), "{entry:?}");
        let log = RejectionLog::default();
        log.record(
            Vec::new(),
            [RejectionCount { device: Some("Bearer hunter2"), reason: "type", readings: 1 }],
        );
        assert_eq!(log.take_tally().words(1, unchanged), ("Bearer ***: 1 (type)".to_owned(), 1));
        // Secrets are hidden before the text is cut.
        let long = format!("{}`http://u:hunter2@h/`", "x".repeat(DETAIL_CHARS_MAX - 15));
        assert!(!self::entry(&long).detail.contains("hunt"));
    }

    #[test]
    fn an_entry_is_small_whatever_was_sent() {
        let long = "x\u{202e}".repeat(100_000);
        let rejected = RejectionFacts {
            path: &long,
            address: None,
            key: None,
            device: Some(&long),
            reason: "limit",
            detail: &long,
            sample: Some(long.as_bytes()),
        };
        let entry = RejectionEntry::new(rejected, wall_time());
        let bytes = entry.path.len() + entry.detail.len() + entry.device.map_or(0, |device| device.len());
        assert!(bytes + entry.sample.map_or(0, |sample| sample.len()) < 8 * 1024, "{bytes}");
    }

    #[test]
    fn devices_are_counted_by_name_up_to_a_limit_and_listed_by_their_numbers() {
        let log = RejectionLog::default();
        let count = |device, reason, readings| RejectionCount { device, reason, readings };
        log.record(Vec::new(), [count(Some("b"), "time", 2), count(Some("a"), "type", 2)]);
        log.record(Vec::new(), [count(Some("c"), "time", 9), count(None, "strict", 4)]);
        assert_eq!(log.count(), 17);
        let tally = log.take_tally();
        let check = |devices, words: &str, named| {
            assert_eq!(tally.words(devices, unchanged), (words.to_owned(), named))
        };
        check(20, "c: 9 (time); a: 2 (type); b: 2 (time); all others: 4 (strict)", 3);
        check(1, "c: 9 (time); all others: 4 (strict), 2 (time), 2 (type)", 1);
        check(0, "devices not named: 4 (strict), 11 (time), 2 (type)", 0);
        assert_eq!(log.take_tally(), RejectionTally::default());
        log.count_request("body");
        assert_eq!(
            (log.take_tally().words(20, unchanged), log.count()),
            (("whole requests: 1 (body)".to_owned(), 0), 18)
        );

        let names: Vec<String> = (0..2 * PAIRS_MAX).map(|number| number.to_string()).collect();
        log.record(Vec::new(), names.iter().map(|name| count(Some(name), "time", 1)));
        let tally = log.take_tally();
        assert_eq!((tally.pairs.len(), tally.others["time"]), (PAIRS_MAX, PAIRS_MAX as u64));
        assert_eq!(log.count(), 18 + 2 * PAIRS_MAX as u64);
    }

    #[test]
    fn a_name_of_full_length_is_hidden_as_one_that_may_be_cut() {
        let log = RejectionLog::default();
        let (longest, longer) = ("d".repeat(DEVICE_CHARS_MAX), "e".repeat(DEVICE_CHARS_MAX + 1));
        for (device, readings) in [("whole", 3), (&longest, 2), (&longer, 1)] {
            log.record(Vec::new(), [RejectionCount { device: Some(device), reason: "type", readings }]);
        }
        let hide =
            |device: &str, is_cut| format!("{}{}", &device[..1], if is_cut { " may be cut" } else { "" });
        let words = "w: 3 (type); d may be cut: 2 (type); e may be cut: 1 (type)";
        assert_eq!(log.take_tally().words(20, hide), (words.to_owned(), 3));
    }
}
