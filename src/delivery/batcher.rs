//! Gathers readings into batches, which close when they are full, by count or bytes, or old enough.
//!
//! Readings are encoded once, as they arrive, so the limit in bytes is exactly the size of the body. Time is passed in;
//! nothing here waits.

use std::sync::Arc;
use std::time::Duration;

use forebay_codec::{Encoder, Unwritable};
use forebay_reading::ReadingRef;
use tokio::time::Instant;

use super::batch::{Batch, BatchId, BatchKeys, Body, UnwritableReading};
use crate::buffer::Part;

/// The limits of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchConfig {
    /// Most readings in a batch, at least one.
    pub max_readings: usize,
    /// Most bytes in a batch's body before compression. A single larger reading goes alone.
    pub max_bytes: usize,
    /// Longest wait of a batch for more readings, counted from its first one.
    pub max_age: Duration,
}

/// Gathers readings into one open batch at a time.
#[derive(Debug)]
pub struct Batcher {
    config: BatchConfig,
    encoder: Arc<dyn Encoder>,
    keys: BatchKeys,
    open: OpenBatch,
    /// Size of the last body, reserved for the next one.
    body_bytes: usize,
    /// When the batch that was last taken apart was opened; the next batch inherits this time.
    since: Option<Instant>,
}

#[derive(Debug, Default)]
struct OpenBatch {
    parts: Vec<Part>,
    readings: usize,
    rendered: BodyDraft,
    since: Option<Instant>,
}

/// An unfinished body.
#[derive(Debug, Default)]
struct BodyDraft {
    body: Vec<u8>,
    /// Number of readings in the body.
    written: usize,
    /// The readings that the format cannot hold.
    unwritten: Vec<UnwritableReading>,
}

impl BodyDraft {
    /// Encodes the `index`-th reading of a batch.
    fn add(&mut self, encoder: &dyn Encoder, index: usize, reading: ReadingRef<'_>) {
        match encoder.write(self.written, reading, &mut self.body) {
            Ok(()) => self.written += 1,
            Err(why) => self.unwritten.push(UnwritableReading { index, why }),
        }
    }

    fn finish(mut self, encoder: &dyn Encoder, key: &str) -> Body {
        if self.written > 0 {
            let unfit = encoder.arrange(&mut self.body);
            self.leave_out(unfit);
            encoder.finish(key, &mut self.body);
        }
        Body { bytes: self.body.into(), unwritten: self.unwritten }
    }

    /// Records the encoded readings that the encoder has removed from the body again, by their indices in the body, in order.
    fn leave_out(&mut self, unfit: Vec<(usize, Unwritable)>) {
        if unfit.is_empty() {
            return;
        }
        let mut skipped = 0;
        let mut unwritten = self.unwritten.iter().peekable();
        let mut left_out = Vec::with_capacity(unfit.len());
        for (nth, why) in unfit {
            while unwritten.next_if(|unwritten| unwritten.index <= nth + skipped).is_some() {
                skipped += 1;
            }
            left_out.push(UnwritableReading { index: nth + skipped, why });
        }
        self.unwritten.extend(left_out);
        self.unwritten.sort_unstable_by_key(|unwritten| unwritten.index);
    }
}

impl Batcher {
    /// Starts without an open batch.
    pub fn new(config: BatchConfig, encoder: Arc<dyn Encoder>, keys: BatchKeys) -> Batcher {
        Batcher { config, encoder, keys, open: OpenBatch::default(), body_bytes: 0, since: None }
    }

    /// Moves readings from the front of `part` into the open batch until `part` is empty or the batch is full. Returns the
    /// batch if it is full; the rest of `part` is for the next one.
    pub fn add(&mut self, part: &mut Part, now: Instant) -> Option<Batch> {
        let mut iter = part.iter();
        let mut end = iter.position();
        let mut full = false;
        if self.open.readings == 0 {
            self.open.rendered.body.reserve(self.body_bytes);
        }
        while !full {
            let Some(reading) = iter.next() else { break };
            let rendered = &mut self.open.rendered;
            let (before, written) = (rendered.body.len(), rendered.written);
            rendered.add(&*self.encoder, self.open.readings, reading);
            let bytes = rendered.body.len() + self.encoder.finish_bytes();
            if bytes > self.config.max_bytes && written > 0 && rendered.written > written {
                rendered.body.truncate(before);
                rendered.written = written;
                full = true;
                break;
            }
            self.open.readings += 1;
            end = iter.position();
            full = self.open.readings >= self.config.max_readings || bytes >= self.config.max_bytes;
        }
        let taken = part.split_to(end);
        if !taken.is_empty() {
            self.open.parts.push(taken);
            let since = self.since.take().unwrap_or(now);
            self.open.since.get_or_insert(since);
        }
        if full { self.close() } else { None }
    }

    /// Closes the open batch, if it has readings.
    pub fn close(&mut self) -> Option<Batch> {
        if self.open.readings == 0 {
            return None;
        }
        let OpenBatch { parts, readings, rendered, .. } = std::mem::take(&mut self.open);
        self.body_bytes = rendered.body.len() + self.encoder.finish_bytes();
        let (id, key) = self.keys.next_key();
        let body = rendered.finish(&*self.encoder, &key);
        Some(Batch::new(id, key, parts, readings, body))
    }

    /// When the open batch must close; `None` if it has no readings.
    pub fn due(&self) -> Option<Instant> {
        self.open.since.map(|since| since + self.config.max_age)
    }

    /// When the open batch, or the one that was last taken apart, was opened.
    pub fn since(&self) -> Option<Instant> {
        self.open.since.or(self.since)
    }

    /// Sets the time at which the next batch counts as opened, as after [`Batcher::take_open`], if no batch is open.
    pub fn set_since(&mut self, since: Option<Instant>) {
        self.since = since;
    }

    /// When the first reading of the open batch was accepted.
    pub fn oldest(&self) -> Option<Instant> {
        self.open.parts.first().map(Part::accepted_at)
    }

    /// Takes the open batch apart. The next batch is due when this one was, so that batches still close while the oldest
    /// readings are dropped all the time.
    pub fn take_open(&mut self) -> Vec<Part> {
        let open = std::mem::take(&mut self.open);
        self.since = open.since.or(self.since);
        open.parts
    }

    /// Makes a batch of the remaining readings of another one, with its id and a new key.
    pub fn rebatch(&mut self, id: BatchId, parts: Vec<Part>) -> Batch {
        let (_, key) = self.keys.next_key();
        self.batch_of(id, key, parts)
    }

    /// Makes a piece of a refused batch, with the batch's id and the piece's own noted key.
    pub fn piece(&mut self, id: BatchId, key: String, parts: Vec<Part>) -> Batch {
        self.batch_of(id, key, parts)
    }

    /// Makes a batch that an earlier run may have sent under `key`, so that a node may have stored it. Its id is new.
    pub fn resume(&mut self, key: String, parts: Vec<Part>) -> Batch {
        let (id, _) = self.keys.next_key();
        Batch { may_be_stored: true, ..self.batch_of(id, key, parts) }
    }

    /// Makes a batch of exactly these readings, whatever the limits are.
    fn batch_of(&self, id: BatchId, key: String, parts: Vec<Part>) -> Batch {
        let mut rendered = BodyDraft::default();
        let mut readings = 0;
        for reading in parts.iter().flat_map(Part::iter) {
            rendered.add(&*self.encoder, readings, reading);
            readings += 1;
        }
        let body = rendered.finish(&*self.encoder, &key);
        Batch::new(id, key, parts, readings, body)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::buffer::lease::{Record, RecordParts};
    use crate::buffer::tests::{numbered, numbers};
    use crate::buffer::waiters::Waiters;
    use forebay_codec::ENCODERS;
    use forebay_reading::timestamp::Timestamp;
    use forebay_reading::{ReadingParts, Readings, Value};

    /// The formats that can hold every reading, and whose bodies grow with each reading and do not depend on the key.
    const FORMATS: [&str; 2] = ["ndjson", "json"];

    fn make(format: &str) -> Arc<dyn Encoder> {
        ENCODERS.find(format).expect("a format")()
    }

    fn batcher(max_readings: usize, max_bytes: usize, format: &str) -> Batcher {
        let config = BatchConfig { max_readings, max_bytes, max_age: Duration::from_secs(1) };
        let keys = BatchKeys::new(&mut fastrand::Rng::with_seed(7));
        Batcher::new(config, make(format), keys)
    }

    fn part(readings: Readings) -> Part {
        let held_bytes = Record::amount(&readings).bytes;
        let accepted_at = Instant::now();
        Part::whole(Record::new(RecordParts {
            readings,
            seq: None,
            made_by: None,
            held_bytes,
            accepted_at,
            waiters: Waiters::default(),
        }))
    }

    /// Readings with texts of these lengths.
    fn texts(lengths: &[usize]) -> Readings {
        let mut readings = Readings::default();
        for length in lengths {
            let time = Timestamp::from_nanos(0).expect("1970");
            let text = "x".repeat(*length);
            let value = Value::Text(&text);
            let parts =
                ReadingParts { device: "d", sensor: "s", value: value.into(), time, unit: None, tags: &[] };
            readings.push(&parts).expect("good parts");
        }
        readings
    }

    /// Adds all of a part; returns the full batches.
    fn add_all(batcher: &mut Batcher, mut part: Part, now: Instant) -> Vec<Batch> {
        let mut full = Vec::new();
        while !part.is_empty() {
            full.extend(batcher.add(&mut part, now));
        }
        full
    }

    fn contents(batch: &Batch) -> Vec<i64> {
        batch.parts.iter().flat_map(numbers).collect()
    }

    #[test]
    fn a_batch_is_full_by_count_and_the_rest_goes_into_the_next() {
        let check = |max_readings, requests: &[i64], expected: &[usize], left: usize| {
            let mut batcher = batcher(max_readings, 1 << 20, "ndjson");
            let mut next = 0;
            let mut full = Vec::new();
            for count in requests {
                full.extend(add_all(&mut batcher, part(numbered(next..next + count)), Instant::now()));
                next += count;
            }
            assert_eq!(full.iter().map(|batch| batch.readings).collect::<Vec<_>>(), expected, "{requests:?}");
            let rest = batcher.close();
            assert_eq!(rest.as_ref().map_or(0, |batch| batch.readings), left, "{requests:?}");
            let all: Vec<_> = full.iter().chain(&rest).flat_map(contents).collect();
            assert_eq!(all, (0..next).collect::<Vec<_>>());
        };
        check(5, &[4], &[], 4);
        check(5, &[5], &[5], 0);
        check(5, &[12], &[5, 5], 2);
        check(5, &[2, 2, 2], &[5], 1);
        check(1, &[3], &[1, 1, 1], 0);
    }

    #[test]
    fn a_batch_is_due_when_its_first_reading_has_waited_max_age() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut batcher = batcher(3, 1 << 20, "ndjson");
        assert_eq!((batcher.due(), batcher.close().is_none()), (None, true));
        add_all(&mut batcher, part(numbered(0..1)), at(0));
        add_all(&mut batcher, part(numbered(1..2)), at(700));
        assert_eq!(batcher.due(), Some(at(1000)));
        // The next batch after a full one starts its own wait.
        assert_eq!(add_all(&mut batcher, part(numbered(2..4)), at(900)).len(), 1);
        assert_eq!(batcher.due(), Some(at(1900)));
        assert!(batcher.close().is_some());
        assert_eq!(batcher.due(), None);
    }

    #[test]
    fn a_batch_that_is_taken_apart_passes_its_age_to_the_next() {
        let start = Instant::now();
        let mut batcher = batcher(10, 1 << 20, "ndjson");
        for round in 0..3 {
            add_all(&mut batcher, part(numbered(0..3)), start + Duration::from_millis(400) * round);
            assert_eq!(batcher.due(), Some(start + Duration::from_secs(1)), "round {round}");
            let open = batcher.take_open();
            assert_eq!(open.iter().flat_map(numbers).collect::<Vec<_>>(), [0, 1, 2]);
            assert_eq!((batcher.due(), batcher.oldest()), (None, None), "there is nothing to wait for");
        }
        add_all(&mut batcher, part(numbered(0..3)), start);
        assert_eq!(batcher.close().expect("three").readings, 3);
        let later = start + Duration::from_secs(60);
        add_all(&mut batcher, part(numbered(0..3)), later);
        assert_eq!(batcher.due(), Some(later + Duration::from_secs(1)), "the next one is young");
    }

    #[test]
    fn the_remaining_readings_of_a_batch_keep_its_id_and_get_a_new_key() {
        for format in FORMATS {
            let mut batcher = batcher(5, 1 << 20, format);
            let full = add_all(&mut batcher, part(numbered(0..10)), Instant::now());
            let [first, second] = <[Batch; 2]>::try_from(full).expect("two batches");
            assert!(first.id < second.id && first.key != second.key);
            let (id, key) = (first.id, first.key);
            let mut parts = first.parts;
            let dropped = parts[0].split_first(2);
            let rest = batcher.rebatch(id, parts);
            assert_eq!((contents(&rest), rest.readings, rest.id), (vec![2, 3, 4], 3, id));
            assert!(rest.key != key && rest.key != second.key);
            // The body is the same as for a new batch of these readings.
            let mut fresh = self::batcher(3, 1 << 20, format);
            let fresh = add_all(&mut fresh, part(numbered(2..5)), Instant::now());
            assert_eq!(rest.body, fresh[0].body, "{format}");
            drop(dropped);
        }
    }

    #[test]
    fn a_resumed_batch_keeps_its_key_and_readings_and_precedes_all_new_ones() {
        for format in FORMATS {
            let mut batcher = batcher(2, 1 << 20, format);
            let resumed =
                batcher.resume("old-7".to_owned(), vec![part(numbered(0..2)), part(numbered(2..3))]);
            assert_eq!(
                (contents(&resumed), resumed.readings),
                (vec![0, 1, 2], 3),
                "whatever the bounds are now"
            );
            assert_eq!(resumed.key, "old-7");
            assert!(resumed.may_be_stored, "it may have been sent before");
            let fresh = add_all(&mut batcher, part(numbered(3..5)), Instant::now());
            assert!(resumed.id < fresh[0].id && resumed.key != fresh[0].key);
            let mut same = self::batcher(3, 1 << 20, format);
            assert_eq!(resumed.body, add_all(&mut same, part(numbered(0..3)), Instant::now())[0].body);
        }
    }

    #[test]
    fn two_runs_never_share_a_key() {
        let mut keys: Vec<_> = (0..2)
            .flat_map(|seed| {
                let mut keys = BatchKeys::new(&mut fastrand::Rng::with_seed(seed));
                (0..3).map(move |_| keys.next_key().1)
            })
            .collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), 6);
    }

    #[test]
    fn readings_that_the_format_cannot_hold_are_left_out_and_known_by_their_index() {
        let mut readings = Readings::default();
        let text = Value::Text("x");
        // Not sent: texts, and all but one value of each millisecond.
        for (value, nanos) in [
            (text, 0),
            (Value::Integer(1), 0),
            (text, 0),
            (Value::Integer(1), 1),
            (Value::Integer(2), 2),
            (text, 0),
            (text, 0),
            (Value::Integer(3), 3),
            (Value::Integer(4), 1_000_000),
            (text, 0),
        ] {
            let time = Timestamp::from_nanos(nanos).expect("1970");
            let parts =
                ReadingParts { device: "d", sensor: "s", value: value.into(), time, unit: None, tags: &[] };
            readings.push(&parts).expect("good parts");
        }
        let mut batcher = batcher(10, 1 << 20, "remote-write");
        let batch = batcher.add(&mut part(readings), Instant::now()).expect("it is full");
        let places = |why| batch.unwritten.iter().filter(move |it| it.why == why).map(|it| it.index);
        assert_eq!(places(Unwritable::NotNumeric).collect::<Vec<_>>(), [0, 2, 5, 6, 9]);
        assert_eq!(places(Unwritable::SameTime).collect::<Vec<_>>(), [4, 7]);
        assert!(batch.unwritten.is_sorted_by_key(|unwritten| unwritten.index));
        assert_eq!((batch.readings, batch.written()), (10, 3));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn batches_hold_every_reading_once_in_order_and_within_the_limits(
            requests in prop::collection::vec(prop::collection::vec(prop_oneof![0..40usize, 0..600usize], 1..20), 1..12),
            max_readings in 1..30usize,
            max_bytes in prop_oneof![1..300usize, 300..3000usize],
            close_after in prop::collection::vec(any::<bool>(), 12),
        ) {
            for format in FORMATS {
                let encoder = make(format);
                let mut batcher = batcher(max_readings, max_bytes, format);
                // Each batch, and whether it closed because it was full.
                let mut batches = Vec::new();
                for (lengths, close) in requests.iter().zip(&close_after) {
                    let full = add_all(&mut batcher, part(texts(lengths)), Instant::now());
                    batches.extend(full.into_iter().map(|batch| (batch, true)));
                    if *close {
                        batches.extend(batcher.close().map(|batch| (batch, false)));
                    }
                }
                batches.extend(batcher.close().map(|batch| (batch, false)));

                let all: Vec<usize> = requests.concat();
                let mut next = 0;
                for (batch, full) in &batches {
                    let lengths = &all[next..next + batch.readings];
                    next += batch.readings;
                    prop_assert!((1..=max_readings).contains(&batch.readings));
                    prop_assert!(batch.body.len() <= max_bytes || batch.readings == 1, "{}", batch.body.len());
                    prop_assert_eq!(batch.parts.iter().map(Part::len).sum::<usize>(), batch.readings);
                    let render = |lengths: &[usize]| {
                        let mut body = Vec::new();
                        let readings = texts(lengths);
                        for (index, reading) in readings.iter().enumerate() {
                            encoder.write(index, reading, &mut body).expect("both formats hold texts");
                        }
                        encoder.finish(&batch.key, &mut body);
                        body
                    };
                    prop_assert!(batch.body == render(lengths), "{}", format);
                    if *full && batch.readings < max_readings && batch.body.len() < max_bytes {
                        let more = render(&all[next - batch.readings..=next]);
                        prop_assert!(more.len() > max_bytes, "one more would have fitted");
                    }
                }
                prop_assert_eq!(next, all.len());
            }
        }
    }
}
