//! `dedupe`: filters duplicates, readings with the same series, time and value as one that passed within `window`.
//!
//! A series is a device, a sensor and a set of tags; with `by = "sensor"` tags do not count. Units never do. Values are
//! the same if they are of one kind and have the same canonical form: 1 and 1.0 are different, and so are 1 and "1", and
//! 0.0 and -0.0; 1.50 and 1.5 are the same. The window is by the clock that never jumps and begins when a reading passes.
//! Duplicates do not lengthen it: the first one that comes after it passes, and is remembered anew.
//!
//! A reading is remembered by a hash of 128 bits: two SipHash-1-3 of 64 bits each, with different random keys, so that
//! no device can make its readings look like those of others. With n readings remembered, a new one counts as a duplicate
//! by chance with a probability of n / 2^128: for n = 10^8, the maximum, that is 2.9e-31, or one reading in 1e17 years at
//! a million readings a second. The probability that any two of 10^8 have the same hash is n^2 / 2^129 = 1.5e-23.
//!
//! The hashes are in a queue in the order of time ([`queue`]). At most `max_readings` are remembered: when one more
//! passes, the oldest is forgotten, which is counted if its window is not over. Each takes 50 to 65 bytes (measured with
//! 100,000 and with a million).

mod queue;
#[cfg(test)]
mod tests;

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use forebay_reading::quantity::format_duration;
use forebay_reading::{ReadingRef, Readings, Token};
use queue::{PassedQueue, PassedReading};
use tokio::time::Instant;

use crate::series::{By, Index};
use crate::settings::Settings;
use crate::{Moment, Stats, Transform, TransformKind, Verdict};

const WINDOW_MIN: Duration = Duration::from_millis(1);
const WINDOW_MAX: Duration = Duration::from_hours(30 * 24);
/// Largest `max_readings`.
const MAX_READINGS_MAX: i64 = 100_000_000;
const MAX_READINGS_DEFAULT: usize = 1_000_000;
/// Most expired readings that are forgotten when another one comes, which bounds the pause. More than one, so that
/// their number falls.
const FORGET_AT_ONCE: usize = 4;

/// The settings.
#[derive(Clone, Copy, Debug)]
struct Dedupe {
    by: By,
    window: Duration,
    max_readings: usize,
}

/// Reads `by`, `window` and `max_readings`.
pub(super) fn read(settings: &mut Settings) -> Option<Arc<dyn TransformKind>> {
    let by = By::read(settings);
    let window = settings.duration("window", WINDOW_MIN..=WINDOW_MAX);
    let max_readings = settings.count("max_readings", 1..=MAX_READINGS_MAX).unwrap_or(MAX_READINGS_DEFAULT);
    if window.is_none() {
        settings.require("window", "for how long the same reading is taken out, such as 10m");
    }
    Some(Arc::new(Dedupe { by, window: window?, max_readings }))
}

impl TransformKind for Dedupe {
    fn make(&self) -> Box<dyn Transform> {
        Box::new(DedupeTransform {
            config: *self,
            seeds: [RandomState::new(), RandomState::new()],
            origin: None,
            queue: PassedQueue::default(),
            index: Index::default(),
            identity: Vec::new(),
            sorted_tags: Vec::new(),
            evicted: 0,
        })
    }

    fn why(&self) -> String {
        format!("the same reading came within {}", format_duration(self.window))
    }
}

/// The instance of the transform.
#[derive(Debug)]
struct DedupeTransform {
    config: Dedupe,
    seeds: [RandomState; 2],
    /// The instant of the first reading, from which the queue's times count.
    origin: Option<Instant>,
    /// The readings that passed, the oldest first. A reading that passed again after its window is in it twice for a
    /// while.
    queue: PassedQueue,
    /// The number in the queue of each reading's last passing.
    index: Index,
    /// A buffer for the identity of a reading.
    identity: Vec<u8>,
    /// A buffer for sorted tags.
    sorted_tags: Vec<u8>,
    evicted: u64,
}

impl DedupeTransform {
    /// Whether the same reading passed within the window. If not, this one is remembered.
    fn is_known(&mut self, reading: ReadingRef<'_>, now: Instant) -> bool {
        let now = nanos(now.saturating_duration_since(*self.origin.get_or_insert(now)));
        // The hash comes first, so that the processor can fetch for both next steps at once.
        let hash = self.hash(reading);
        self.forget_old(now);
        if let Some(number) = self.index.find(hash[0], |number| self.queue.get(number).hash == hash) {
            if !self.is_over(self.queue.get(number), now) {
                return true;
            }
            self.index.remove(hash[0], number);
        }
        self.make_room(now);
        let number = self.queue.push(PassedReading { hash, at: now });
        self.index.insert(hash[0], number);
        false
    }

    /// Forgets a few readings whose window is over.
    fn forget_old(&mut self, now: u64) {
        for _ in 0..FORGET_AT_ONCE {
            if !self.queue.front().is_some_and(|passed| self.is_over(passed, now)) {
                return;
            }
            self.forget_oldest();
        }
    }

    fn make_room(&mut self, now: u64) {
        while self.queue.len() >= self.config.max_readings {
            let is_early = self.queue.front().is_some_and(|passed| !self.is_over(passed, now));
            self.evicted += u64::from(is_early);
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((number, passed)) = self.queue.pop() {
            // If the reading passed again since then, the index has another number for it, which stays.
            self.index.remove(passed.hash[0], number);
        }
    }

    fn is_over(&self, passed: &PassedReading, now: u64) -> bool {
        now.saturating_sub(passed.at) > nanos(self.config.window)
    }

    fn hash(&mut self, reading: ReadingRef<'_>) -> [u64; 2] {
        self.identity.clear();
        let tags = self.config.by.tags(reading, &mut self.sorted_tags);
        write_identity(reading, tags, &mut self.identity);
        self.seeds.each_ref().map(|seed| {
            let mut hasher = seed.build_hasher();
            hasher.write(&self.identity);
            hasher.finish()
        })
    }
}

impl Transform for DedupeTransform {
    fn apply(&mut self, reading: ReadingRef<'_>, now: Moment, _out: &mut Readings) -> Verdict {
        if self.is_known(reading, now.instant) { Verdict::Filter } else { Verdict::Pass }
    }

    fn apply_again(&mut self, reading: ReadingRef<'_>, now: Moment, _out: &mut Readings) -> Verdict {
        self.is_known(reading, now.instant);
        Verdict::Pass
    }

    fn stats(&self) -> Stats {
        Stats { evicted: self.evicted, remembered: self.queue.len() as u64, ..Stats::default() }
    }
}

/// Appends the identity of a reading, which no different reading has: names have no control characters, and the length
/// of the tags and the time stand between them and the value.
#[expect(clippy::cast_possible_truncation, reason = "tags take less than 64 KiB")]
fn write_identity(reading: ReadingRef<'_>, tags: &[u8], out: &mut Vec<u8>) {
    let (kind, value) = match reading.value_token() {
        Token::Literal(text) => (b'=', text),
        Token::Text(text) => (b'"', text),
    };
    let (length, time) = ((tags.len() as u32).to_le_bytes(), reading.time().nanos().to_le_bytes());
    let names = [reading.device_bytes(), b"\n", reading.sensor_bytes(), b"\n"];
    for part in names.into_iter().chain([&length[..], tags, &time, &[kind], value]) {
        out.extend_from_slice(part);
    }
}

/// Nanoseconds; saturates at 584 years.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
