//! The known keys and their answers. Decisions depend on the keys and the time alone.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::digest::{Digest, DigestKind, Fingerprint, StoredFingerprint};
use super::store::{AnswerEntry, AnswerStore};
use crate::buffer::Ack;

/// Most expired answers that one call removes, so that no call takes long.
const EXPIRED_AT_ONCE: usize = 16;

/// The limits of the known keys.
#[derive(Clone, Copy, Debug)]
pub(super) struct KeyLimits {
    /// How long an answer is repeated.
    pub(super) window: Duration,
    /// Most answers.
    pub(super) answers: usize,
    /// Most bytes of errors listed in all answers.
    pub(super) errors_bytes: usize,
    /// Most reserved keys.
    pub(super) under_way: usize,
}

/// An answer that is stored for repetitions of its request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::ingest) struct StoredAnswer {
    /// Accepted readings.
    pub(in crate::ingest) accepted: u32,
    /// Rejected readings.
    pub(in crate::ingest) rejected: u32,
    /// The acknowledgement that was given.
    pub(in crate::ingest) ack: Ack,
    /// The listed errors as a JSON array; empty if there were none.
    pub(in crate::ingest) errors: Box<[u8]>,
}

/// The decision on a request with a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum KeyDecision {
    /// It is the first: its key is reserved until [`Keys::remember`] or [`Keys::abandon`].
    First,
    /// The first request with the key is still in progress.
    UnderWay,
    /// The key came with another request.
    OtherRequest,
    /// The answer to the first request is repeated.
    Replay(StoredAnswer),
    /// Too many keys are reserved.
    Busy,
}

/// The known keys: reserved ones, and those with an answer.
///
/// Beyond [`KeyLimits::answers`] or [`KeyLimits::errors_bytes`] the oldest answers are forgotten early.
#[derive(Debug)]
pub(super) struct Keys {
    limits: KeyLimits,
    started_at: Instant,
    /// The digests of the requests in progress, by their keys.
    under_way: HashMap<Digest, Digest>,
    answers: AnswerStore,
}

impl Keys {
    /// No keys. Times count from `started_at`.
    pub(super) fn new(limits: KeyLimits, started_at: Instant) -> Keys {
        Keys { limits, started_at, under_way: HashMap::new(), answers: AnswerStore::new() }
    }

    /// Decides on a request with `key` and this `fingerprint`.
    pub(super) fn begin(&mut self, key: Digest, fingerprint: Fingerprint, now: Instant) -> KeyDecision {
        let now = self.millis(now);
        self.expire(now);
        if let Some(first) = self.under_way.get(&key) {
            return if *first == fingerprint.digest {
                KeyDecision::UnderWay
            } else {
                KeyDecision::OtherRequest
            };
        }
        if let Some((first, errors)) = self.answers.find(&key).filter(|(first, _)| first.until_millis > now) {
            if !fingerprint.is_same_as(first.fingerprint) {
                return KeyDecision::OtherRequest;
            }
            let AnswerEntry { accepted, rejected, ack, .. } = *first;
            return KeyDecision::Replay(StoredAnswer { accepted, rejected, ack, errors: errors.into() });
        }
        if self.under_way.len() >= self.limits.under_way {
            return KeyDecision::Busy;
        }
        self.under_way.insert(key, fingerprint.digest);
        KeyDecision::First
    }

    /// Frees a reserved key: the next request with it is a first one.
    pub(super) fn abandon(&mut self, key: &Digest) {
        self.under_way.remove(key);
    }

    /// Stores the answer to the request that reserved `key`. Returns how many other answers were forgotten early.
    pub(super) fn remember(&mut self, key: Digest, answer: StoredAnswer, now: Instant) -> u64 {
        let Some(digest) = self.under_way.remove(&key) else { return 0 };
        let fingerprint = StoredFingerprint { digest, kind: DigestKind::Content };
        self.restore(key, fingerprint, answer, self.limits.window, now)
    }

    /// Stores an answer for the time that is `left`, at most for the window. Several answers must come in the order of
    /// their time left, the shortest first. Returns how many others were forgotten early.
    pub(super) fn restore(
        &mut self,
        key: Digest,
        fingerprint: StoredFingerprint,
        answer: StoredAnswer,
        left: Duration,
        now: Instant,
    ) -> u64 {
        let until_millis = self.millis(now + left.min(self.limits.window));
        let now = self.millis(now);
        self.expire(now);
        let StoredAnswer { accepted, rejected, ack, errors } = answer;
        let forgotten = self.make_room(errors.len(), now);
        let remembered = AnswerEntry { key, fingerprint, until_millis, accepted, rejected, ack };
        self.answers.add(remembered, errors);
        forgotten
    }

    /// Makes room for one more answer. Returns how many answers were removed before their time.
    fn make_room(&mut self, errors_bytes: usize, now: u64) -> u64 {
        let mut forgotten = 0;
        while self.answers.len() >= self.limits.answers
            || (self.answers.len() > 0
                && self.answers.errors_bytes() + errors_bytes > self.limits.errors_bytes)
        {
            let oldest = self.answers.remove_oldest();
            forgotten += u64::from(oldest.is_some_and(|oldest| oldest.until_millis > now));
        }
        forgotten
    }

    /// Removes expired answers, the oldest first.
    fn expire(&mut self, now: u64) {
        for _ in 0..EXPIRED_AT_ONCE {
            if self.answers.oldest().is_none_or(|oldest| oldest.until_millis > now) {
                return;
            }
            self.answers.remove_oldest();
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
    use crate::ingest::idempotency::digest::BodyForm;

    fn asked(number: u8) -> Fingerprint {
        Fingerprint { digest: digest(number), form: BodyForm::Plain }
    }

    fn stored(number: u8) -> StoredFingerprint {
        StoredFingerprint { digest: digest(number), kind: DigestKind::Content }
    }

    fn digest(number: u8) -> Digest {
        Digest([number; Digest::BYTES])
    }

    fn answer(accepted: u32, errors_bytes: usize) -> StoredAnswer {
        StoredAnswer { accepted, rejected: 0, ack: Ack::Memory, errors: vec![b'e'; errors_bytes].into() }
    }

    /// An answer in the naive registry.
    #[derive(Clone, Debug)]
    struct Known {
        key: u8,
        body: u8,
        until: Duration,
        answer: StoredAnswer,
    }

    /// A registry of two lists, searched from the front.
    #[derive(Debug)]
    struct Naive {
        limits: KeyLimits,
        under_way: Vec<(u8, u8)>,
        known: Vec<Known>,
    }

    impl Naive {
        fn begin(&mut self, key: u8, body: u8, now: Duration) -> KeyDecision {
            self.known.retain(|known| known.until > now);
            if let Some((_, first)) = self.under_way.iter().find(|(other, _)| *other == key) {
                return if *first == body { KeyDecision::UnderWay } else { KeyDecision::OtherRequest };
            }
            match self.known.iter().find(|known| known.key == key) {
                Some(known) if known.body == body => return KeyDecision::Replay(known.answer.clone()),
                Some(_) => return KeyDecision::OtherRequest,
                None if self.under_way.len() == self.limits.under_way => return KeyDecision::Busy,
                None => {}
            }
            self.under_way.push((key, body));
            KeyDecision::First
        }

        fn remember(&mut self, key: u8, answer: StoredAnswer, now: Duration) -> u64 {
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
            let limits = KeyLimits { window: Duration::from_millis(100), answers, errors_bytes, under_way };
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

    const LIMITS: KeyLimits =
        KeyLimits { window: Duration::from_secs(10), answers: 1000, errors_bytes: 1000, under_way: 1000 };

    #[test]
    fn expired_keys_are_removed_step_by_step_and_never_found() {
        let started_at = Instant::now();
        let mut keys = Keys::new(LIMITS, started_at);
        for key in 0..200 {
            assert_eq!(keys.begin(digest(key), asked(0), started_at), KeyDecision::First);
            assert_eq!(keys.remember(digest(key), answer(1, 0), started_at), 0);
        }
        let later = started_at + LIMITS.window;
        for key in (0..200).rev() {
            assert_eq!(keys.begin(digest(key), asked(1), later), KeyDecision::First);
        }
        assert_eq!(keys.answers.len(), 0);
    }

    #[test]
    fn expired_answers_make_room_without_being_counted() {
        let started_at = Instant::now();
        let mut keys = Keys::new(LIMITS, started_at);
        for key in 0..100 {
            keys.restore(digest(key), stored(0), answer(1, 10), LIMITS.window, started_at);
        }
        let full = |keys: &mut Keys, errors_bytes, at| {
            keys.restore(digest(200), stored(0), answer(1, errors_bytes), LIMITS.window, at)
        };
        assert_eq!(full(&mut keys, 10, started_at), 1);
        assert_eq!(full(&mut keys, 1000, started_at + LIMITS.window), 0);
        assert_eq!(keys.answers.len(), 1);
    }

    #[test]
    fn a_restored_answer_has_its_remaining_time_and_the_later_of_two_counts() {
        let started_at = Instant::now();
        let mut keys = Keys::new(LIMITS, started_at);
        let (key, first, second) = (digest(1), 2, 3);
        keys.restore(key, stored(first), answer(1, 0), Duration::from_secs(2), started_at);
        keys.restore(key, stored(second), answer(2, 0), Duration::from_secs(5), started_at);
        keys.restore(digest(4), stored(first), answer(3, 0), 100 * LIMITS.window, started_at);
        let at = |seconds| started_at + Duration::from_secs(seconds);
        assert_eq!(keys.begin(key, asked(first), at(1)), KeyDecision::OtherRequest);
        assert_eq!(keys.begin(key, asked(second), at(4)), KeyDecision::Replay(answer(2, 0)));
        assert_eq!(keys.begin(key, asked(second), at(5)), KeyDecision::First);
        assert_eq!(keys.begin(digest(4), asked(first), at(9)), KeyDecision::Replay(answer(3, 0)));
        assert_eq!(keys.begin(digest(4), asked(first), at(10)), KeyDecision::First);
    }
}
