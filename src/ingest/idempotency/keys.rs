//! Which keys were given, and what was answered: decided from the keys and the time alone.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::digest::{Digest, Fingerprint, Kept, Of};
use super::store::{Remembered, Store};
use crate::buffer::Ack;

/// Answers past their time that one call takes out at most, so that none takes long.
const EXPIRED_AT_ONCE: usize = 16;

/// How much is remembered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// How long an answer is given again.
    pub(super) window: Duration,
    /// Most answers.
    pub(super) answers: usize,
    /// Most bytes of the errors that they list.
    pub(super) errors_bytes: usize,
    /// Most requests under way.
    pub(super) under_way: usize,
}

/// What is given again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::ingest) struct Answer {
    /// How many readings were accepted.
    pub(in crate::ingest) accepted: u32,
    /// How many were turned away.
    pub(in crate::ingest) rejected: u32,
    /// What was promised.
    pub(in crate::ingest) ack: Ack,
    /// The listed errors as a JSON array; empty if there were none.
    pub(in crate::ingest) errors: Box<[u8]>,
}

/// What to do with a request that has a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Begin {
    /// It is the first: it is under way from now on, until [`Keys::remember`] or [`Keys::abandon`].
    First,
    /// The first one is still under way.
    UnderWay,
    /// The key came with another request.
    OtherRequest,
    /// This was answered to the first one.
    Again(Answer),
    /// As many requests with keys are under way as may be.
    Busy,
}

/// The keys that are known.
///
/// Beyond [`Limits::answers`], and [`Limits::errors_bytes`], the oldest answers are forgotten early.
#[derive(Debug)]
pub(super) struct Keys {
    limits: Limits,
    started_at: Instant,
    /// The digests of the requests under way, by their keys.
    under_way: HashMap<Digest, Digest>,
    answers: Store,
}

impl Keys {
    /// Knows none. Times are counted from `started_at`.
    pub(super) fn new(limits: Limits, started_at: Instant) -> Keys {
        Keys { limits, started_at, under_way: HashMap::new(), answers: Store::new(limits.answers) }
    }

    /// Decides on a request with `key` that asks for what `fingerprint` stands for.
    pub(super) fn begin(&mut self, key: Digest, fingerprint: Fingerprint, now: Instant) -> Begin {
        let now = self.millis(now);
        self.expire(now);
        if let Some(first) = self.under_way.get(&key) {
            return if *first == fingerprint.digest { Begin::UnderWay } else { Begin::OtherRequest };
        }
        if let Some((first, errors)) = self.answers.find(&key).filter(|(first, _)| first.until_millis > now) {
            if !fingerprint.is_same_as(first.fingerprint) {
                return Begin::OtherRequest;
            }
            let Remembered { accepted, rejected, ack, .. } = *first;
            return Begin::Again(Answer { accepted, rejected, ack, errors: errors.into() });
        }
        if self.under_way.len() >= self.limits.under_way {
            return Begin::Busy;
        }
        self.under_way.insert(key, fingerprint.digest);
        Begin::First
    }

    /// The request under way with this key took nothing: the next one with it is the first again.
    pub(super) fn abandon(&mut self, key: &Digest) {
        self.under_way.remove(key);
    }

    /// The request under way with this key was answered. Returns how many others were forgotten early for it.
    pub(super) fn remember(&mut self, key: Digest, answer: Answer, now: Instant) -> u64 {
        let Some(digest) = self.under_way.remove(&key) else { return 0 };
        let fingerprint = Kept { digest, of: Of::Content };
        self.restore(key, fingerprint, answer, self.limits.window, now)
    }

    /// Remembers an answer for as long as is `left` of its time, at most for the window. Of several answers, those
    /// with less time left must come first. Returns how many were forgotten early for it.
    pub(super) fn restore(
        &mut self,
        key: Digest,
        fingerprint: Kept,
        answer: Answer,
        left: Duration,
        now: Instant,
    ) -> u64 {
        let until_millis = self.millis(now + left.min(self.limits.window));
        let now = self.millis(now);
        self.expire(now);
        let Answer { accepted, rejected, ack, errors } = answer;
        let forgotten = self.make_room(errors.len(), now);
        let remembered = Remembered { key, fingerprint, until_millis, accepted, rejected, ack };
        self.answers.add(remembered, errors);
        forgotten
    }

    /// Makes room for one more answer. Returns how many with time left had to go.
    fn make_room(&mut self, errors_bytes: usize, now: u64) -> u64 {
        let mut forgotten = 0;
        while self.answers.len() >= self.limits.answers
            || (self.answers.len() > 0
                && self.answers.errors_bytes() + errors_bytes > self.limits.errors_bytes)
        {
            let oldest = self.answers.take_oldest();
            forgotten += u64::from(oldest.is_some_and(|oldest| oldest.until_millis > now));
        }
        forgotten
    }

    /// Takes out what is past its time, the oldest first.
    fn expire(&mut self, now: u64) {
        for _ in 0..EXPIRED_AT_ONCE {
            if self.answers.oldest().is_none_or(|oldest| oldest.until_millis > now) {
                return;
            }
            self.answers.take_oldest();
        }
    }

    fn millis(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.started_at).as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::cast_possible_truncation, reason = "numbers of a test are small")]

    use proptest::prelude::*;

    use super::*;
    use crate::ingest::idempotency::digest::Came;

    fn asked(number: u8) -> Fingerprint {
        Fingerprint { digest: digest(number), came: Came::Plain }
    }

    fn kept(number: u8) -> Kept {
        Kept { digest: digest(number), of: Of::Content }
    }

    fn digest(number: u8) -> Digest {
        Digest([number; Digest::BYTES])
    }

    fn answer(accepted: u32, errors_bytes: usize) -> Answer {
        Answer { accepted, rejected: 0, ack: Ack::Memory, errors: vec![b'e'; errors_bytes].into() }
    }

    /// What the naive registry knows of one key, in the order of the answers.
    #[derive(Clone, Debug)]
    struct Known {
        key: u8,
        body: u8,
        until: Duration,
        answer: Answer,
    }

    /// All in two lists, looked through from the front.
    #[derive(Debug)]
    struct Naive {
        limits: Limits,
        under_way: Vec<(u8, u8)>,
        known: Vec<Known>,
    }

    impl Naive {
        fn begin(&mut self, key: u8, body: u8, now: Duration) -> Begin {
            self.known.retain(|known| known.until > now);
            if let Some((_, first)) = self.under_way.iter().find(|(other, _)| *other == key) {
                return if *first == body { Begin::UnderWay } else { Begin::OtherRequest };
            }
            match self.known.iter().find(|known| known.key == key) {
                Some(known) if known.body == body => return Begin::Again(known.answer.clone()),
                Some(_) => return Begin::OtherRequest,
                None if self.under_way.len() == self.limits.under_way => return Begin::Busy,
                None => {}
            }
            self.under_way.push((key, body));
            Begin::First
        }

        fn remember(&mut self, key: u8, answer: Answer, now: Duration) -> u64 {
            self.known.retain(|known| known.until > now);
            let Some(place) = self.under_way.iter().position(|(other, _)| *other == key) else { return 0 };
            let (_, body) = self.under_way.remove(place);
            let before = self.known.len();
            let bytes = |known: &[Known]| known.iter().map(|known| known.answer.errors.len()).sum::<usize>();
            while self.known.len() == self.limits.answers
                || (!self.known.is_empty()
                    && bytes(&self.known) + answer.errors.len() > self.limits.errors_bytes)
            {
                self.known.remove(0);
            }
            let forgotten = before - self.known.len();
            self.known.push(Known { key, body, until: now + self.limits.window, answer });
            forgotten as u64
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Begin { key: u8, body: u8 },
        Remember { key: u8, errors_bytes: usize },
        Abandon { key: u8 },
        Pass { millis: u64 },
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            6 => (0_u8..12, 0_u8..8).prop_map(|(key, body)| Step::Begin { key, body: body / 7 }),
            5 => (0_u8..12, 0_usize..8).prop_map(|(key, bytes)| {
                Step::Remember { key, errors_bytes: bytes.saturating_sub(3) }
            }),
            1 => (0_u8..12).prop_map(|key| Step::Abandon { key }),
            2 => prop_oneof![0_u64..40, Just(100)].prop_map(|millis| Step::Pass { millis }),
        ];
        prop::collection::vec(step, 1..300)
    }

    proptest! {
        #[test]
        fn keys_do_what_a_naive_registry_does(
            steps in steps(), answers in 1_usize..8, errors_bytes in 0_usize..12, under_way in 1_usize..8,
        ) {
            let limits = Limits { window: Duration::from_millis(100), answers, errors_bytes, under_way };
            let started_at = Instant::now();
            let mut keys = Keys::new(limits, started_at);
            let mut naive = Naive { limits, under_way: Vec::new(), known: Vec::new() };
            let mut passed = Duration::ZERO;
            for (count, step) in steps.into_iter().enumerate() {
                let now = started_at + passed;
                match step {
                    Step::Begin { key, body } => {
                        let begun = keys.begin(digest(key), asked(body), now);
                        prop_assert_eq!(begun, naive.begin(key, body, passed));
                    }
                    Step::Remember { key, errors_bytes } => {
                        let answer = answer(count as u32, errors_bytes);
                        let forgotten = keys.remember(digest(key), answer.clone(), now);
                        prop_assert_eq!(forgotten, naive.remember(key, answer, passed));
                    }
                    Step::Abandon { key } => {
                        keys.abandon(&digest(key));
                        naive.under_way.retain(|(other, _)| *other != key);
                    }
                    Step::Pass { millis } => passed += Duration::from_millis(millis),
                }
                prop_assert!(keys.answers.len() <= answers);
                prop_assert!(keys.under_way.len() <= under_way);
            }
        }
    }

    const LIMITS: Limits =
        Limits { window: Duration::from_secs(10), answers: 1000, errors_bytes: 1000, under_way: 1000 };

    #[test]
    fn many_keys_past_their_time_are_taken_out_bit_by_bit_and_never_found() {
        let started_at = Instant::now();
        let mut keys = Keys::new(LIMITS, started_at);
        for key in 0..200 {
            assert_eq!(keys.begin(digest(key), asked(0), started_at), Begin::First);
            assert_eq!(keys.remember(digest(key), answer(1, 0), started_at), 0);
        }
        let later = started_at + LIMITS.window;
        for key in (0..200).rev() {
            assert_eq!(keys.begin(digest(key), asked(1), later), Begin::First);
        }
        assert_eq!(keys.answers.len(), 0);
    }

    #[test]
    fn answers_past_their_time_make_room_without_being_counted() {
        let started_at = Instant::now();
        let mut keys = Keys::new(LIMITS, started_at);
        for key in 0..100 {
            keys.restore(digest(key), kept(0), answer(1, 10), LIMITS.window, started_at);
        }
        let full = |keys: &mut Keys, errors_bytes, at| {
            keys.restore(digest(200), kept(0), answer(1, errors_bytes), LIMITS.window, at)
        };
        assert_eq!(full(&mut keys, 10, started_at), 1);
        assert_eq!(full(&mut keys, 1000, started_at + LIMITS.window), 0);
        assert_eq!(keys.answers.len(), 1);
    }

    #[test]
    fn a_restored_answer_has_the_time_that_is_left_and_the_later_of_two_counts() {
        let started_at = Instant::now();
        let mut keys = Keys::new(LIMITS, started_at);
        let (key, first, second) = (digest(1), 2, 3);
        keys.restore(key, kept(first), answer(1, 0), Duration::from_secs(2), started_at);
        keys.restore(key, kept(second), answer(2, 0), Duration::from_secs(5), started_at);
        keys.restore(digest(4), kept(first), answer(3, 0), 100 * LIMITS.window, started_at);
        let at = |seconds| started_at + Duration::from_secs(seconds);
        assert_eq!(keys.begin(key, asked(first), at(1)), Begin::OtherRequest);
        assert_eq!(keys.begin(key, asked(second), at(4)), Begin::Again(answer(2, 0)));
        assert_eq!(keys.begin(key, asked(second), at(5)), Begin::First);
        assert_eq!(keys.begin(digest(4), asked(first), at(9)), Begin::Again(answer(3, 0)));
        assert_eq!(keys.begin(digest(4), asked(first), at(10)), Begin::First);
    }
}
