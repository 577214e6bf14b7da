//! The client's `Idempotency-Key`: the same request sent again is answered as the first one was, and nothing is
//! taken twice.
//!
//! - `digest` cuts keys and requests to 16 bytes each.
//! - `keys` decides: the first, under way, other request, or the first answer again. It is a function of keys and
//!   time; `store` under it holds the answers.
//! - `memo` is what the buffer keeps with the readings of a request, so that the answer is known after a restart.
//! - [`Idempotency`] is the thin layer that has the clock and the lock.
//!
//! Only answers of 202 are remembered: any other took nothing, and the request is done afresh. An answer is given
//! again for `ingest.idempotency_window` after it was first given; after a restart, after its request was received.
//! A request with a key goes on when its client hangs up, so that a key never stands for a request that is neither
//! under way nor answered: a [`Turn`] that is dropped gives its key back.
//!
//! Limits: a key has 1 to 255 bytes; `ingest.idempotency_keys` answers, each about 70 bytes, and
//! [`ERRORS_BYTES_MAX`] of the errors that they list; beyond that the oldest are forgotten early, counted, and told
//! at most once in [`WARN_EVERY`]. As many requests with keys may be under way as there may be connections.
//!
//! Keys are one space for all clients: whoever uses one that another has chosen gets 409, 422 or that answer.

mod digest;
mod keys;
mod memo;
mod store;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use forebay_reading::clock::wall_time;
use forebay_reading::timestamp::Timestamp;
use http::HeaderMap;
use prometheus::IntCounter;
use tokio::time::Instant;
use tracing::{info, warn};

use super::error::IngestError;
use super::key_header;
use digest::{Kept, Of};
use keys::{Begin, Keys, Limits};
use memo::Memo;

pub(super) use digest::{Digest, Fingerprint};
pub(super) use keys::Answer;

/// Most bytes of listed errors that are remembered; the last answer alone may list more.
const ERRORS_BYTES_MAX: usize = 64 << 20;
/// Shortest time between two warnings that keys were forgotten early.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// How clients' keys are remembered.
#[derive(Clone, Copy, Debug)]
pub struct KeysConfig {
    /// How long an answer is given again; zero: keys are not looked at.
    pub window: Duration,
    /// Most answers that are remembered.
    pub answers: usize,
}

/// The keys of the gateway's clients.
#[derive(Debug)]
pub(super) struct Idempotency {
    window: Duration,
    forgotten: IntCounter,
    /// Held for one look-up or change.
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    keys: Keys,
    warned_at: Option<Instant>,
}

/// What a request with a key gets.
#[derive(Debug)]
pub(super) enum Claim {
    /// Its turn: it is the first.
    First(Turn),
    /// The answer that the first one got.
    Again(Answer),
}

/// A key whose request is under way. Dropped, the request took nothing, and the key is free again.
#[derive(Debug)]
pub(super) struct Turn {
    all: Arc<Idempotency>,
    key: Digest,
    digest: Digest,
    received_at: Timestamp,
    /// Whether its answer is remembered. From then on the key may be another's again, if it is forgotten early.
    is_answered: bool,
}

impl Idempotency {
    /// Remembers as `config` says, or nothing if it says so. At most `under_way_max` requests with keys may be under
    /// way; `forgotten` counts the keys that are forgotten early.
    pub(super) fn new(
        config: KeysConfig,
        under_way_max: usize,
        forgotten: IntCounter,
    ) -> Option<Arc<Idempotency>> {
        let KeysConfig { window, answers } = config;
        if window.is_zero() {
            return None;
        }
        let limits = Limits { window, answers, errors_bytes: ERRORS_BYTES_MAX, under_way: under_way_max };
        let state = State { keys: Keys::new(limits, Instant::now()), warned_at: None };
        Some(Arc::new(Idempotency { window, forgotten, state: Mutex::new(state) }))
    }

    /// Reads the key of a request, if it has one.
    ///
    /// # Errors
    ///
    /// [`IngestError::Key`] if the header is there and holds none.
    pub(super) fn key(headers: &HeaderMap) -> Result<Option<Digest>, IngestError> {
        let key = key_header::read(headers).map_err(IngestError::Key)?;
        Ok(key.map(|key| Digest::of_key(&key)))
    }

    /// Begins a request with a key.
    ///
    /// # Errors
    ///
    /// The request is not done if its key is under way or came with another request, or too many are under way.
    pub(super) fn claim(
        self: &Arc<Self>,
        key: Digest,
        fingerprint: Fingerprint,
    ) -> Result<Claim, IngestError> {
        match self.state().keys.begin(key, fingerprint, Instant::now()) {
            Begin::First => {
                let received_at = Timestamp::from_system(wall_time());
                Ok(Claim::First(Turn {
                    all: Arc::clone(self),
                    key,
                    digest: fingerprint.digest,
                    received_at,
                    is_answered: false,
                }))
            }
            Begin::Again(answer) => Ok(Claim::Again(answer)),
            Begin::UnderWay => Err(IngestError::KeyUnderWay),
            Begin::OtherRequest => Err(IngestError::KeyOfOther),
            Begin::Busy => Err(IngestError::TooManyKeys),
        }
    }

    /// Remembers what the buffer kept of requests before the start. What cannot be read is told and left out.
    pub(super) fn restore(&self, memos: &[Bytes], now: SystemTime) {
        let now = Timestamp::from_system(now);
        let (mut restored, mut unreadable) = (Vec::with_capacity(memos.len()), None);
        for memo in memos {
            match Memo::decode(memo) {
                Ok(memo) => restored.push((memo.left(self.window, now), memo)),
                Err(error) => unreadable = Some(error),
            }
        }
        if let Some(error) = unreadable {
            let keys = memos.len() - restored.len();
            warn!(keys, %error, "idempotency keys in the buffer cannot be read; their requests would be taken again");
        }
        restored.retain(|(left, _)| !left.is_zero());
        restored.sort_by_key(|(left, _)| *left);
        if !restored.is_empty() {
            info!(keys = restored.len(), "idempotency keys are known from before the start");
        }
        let mut state = self.state();
        let now = Instant::now();
        let mut forgotten = 0;
        for (left, memo) in restored {
            let (key, fingerprint) = (memo.key, memo.fingerprint);
            forgotten += state.keys.restore(key, fingerprint, memo.restored_answer(), left, now);
        }
        self.count(&mut state, forgotten, now);
    }

    fn remember(&self, key: Digest, answer: Answer) {
        let mut state = self.state();
        let now = Instant::now();
        let forgotten = state.keys.remember(key, answer, now);
        self.count(&mut state, forgotten, now);
    }

    /// Counts keys that were forgotten early, and warns of them once in a while.
    fn count(&self, state: &mut State, forgotten: u64, now: Instant) {
        if forgotten == 0 {
            return;
        }
        self.forgotten.inc_by(forgotten);
        if state.warned_at.is_some_and(|at| now.saturating_duration_since(at) < WARN_EVERY) {
            return;
        }
        state.warned_at = Some(now);
        warn!(
            forgotten = self.forgotten.get(),
            window = ?self.window,
            "more idempotency keys came than are remembered: the oldest were forgotten before their time; raise \
             ingest.idempotency_keys, or shorten ingest.idempotency_window"
        );
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn {
    /// What the buffer is to keep with the readings, if they are answered like this.
    pub(super) fn memo(&self, answer: Answer) -> Bytes {
        let Turn { key, digest, received_at, .. } = *self;
        let fingerprint = Kept { digest, of: Of::Content };
        Memo { key, fingerprint, received_at, answer }.encode()
    }

    /// The request was answered: from now on this is given again.
    pub(super) fn remember(mut self, answer: Answer) {
        self.is_answered = true;
        self.all.remember(self.key, answer);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if !self.is_answered {
            self.all.state().keys.abandon(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::digest::Came;
    use super::*;
    use crate::buffer::Ack;
    use crate::metrics::Metrics;

    const WINDOW: Duration = Duration::from_secs(600);

    fn idempotency(answers: usize) -> Arc<Idempotency> {
        let config = KeysConfig { window: WINDOW, answers };
        let forgotten = Metrics::new().idempotency_keys_forgotten;
        Idempotency::new(config, 10, forgotten).expect("keys are looked at")
    }

    fn claim(all: &Arc<Idempotency>, key: &[u8], body: &[u8]) -> Result<Claim, IngestError> {
        let fingerprint = Fingerprint { digest: Digest::of_key(body), came: Came::Plain };
        all.claim(Digest::of_key(key), fingerprint)
    }

    #[track_caller]
    fn turn(all: &Arc<Idempotency>, key: &[u8], body: &[u8]) -> Turn {
        match claim(all, key, body) {
            Ok(Claim::First(turn)) => turn,
            other => panic!("it is the first: {other:?}"),
        }
    }

    #[track_caller]
    fn again(all: &Arc<Idempotency>, key: &[u8], body: &[u8]) -> Answer {
        match claim(all, key, body) {
            Ok(Claim::Again(answer)) => answer,
            other => panic!("it was answered: {other:?}"),
        }
    }

    fn answer(accepted: u32, ack: Ack) -> Answer {
        let errors = br#"[{"index":0,"pointer":"/0","detail":"no"}]"#;
        Answer { accepted, rejected: 1, ack, errors: errors[..].into() }
    }

    #[tokio::test]
    async fn a_turn_that_is_dropped_gives_its_key_back_and_one_that_was_answered_does_not() {
        let all = idempotency(10);
        let first = turn(&all, b"key", b"body");
        assert!(matches!(claim(&all, b"key", b"body"), Err(IngestError::KeyUnderWay)));
        assert!(matches!(claim(&all, b"key", b"other"), Err(IngestError::KeyOfOther)));
        drop(first);
        turn(&all, b"key", b"other").remember(answer(7, Ack::Memory));
        assert_eq!(again(&all, b"key", b"other"), answer(7, Ack::Memory));
        assert!(matches!(claim(&all, b"key", b"body"), Err(IngestError::KeyOfOther)));
    }

    #[tokio::test]
    async fn as_many_keys_are_under_way_as_may_be_and_not_more() {
        let all = idempotency(10);
        let mut turns: Vec<_> = (0..10_u8).map(|key| turn(&all, &[key], b"")).collect();
        assert!(matches!(claim(&all, b"key", b""), Err(IngestError::TooManyKeys)));
        turns.pop();
        turn(&all, b"key", b"");
    }

    #[tokio::test]
    async fn what_is_forgotten_early_is_counted() {
        let all = idempotency(3);
        for key in 0..5_u8 {
            turn(&all, &[key], b"").remember(answer(1, Ack::Memory));
        }
        assert_eq!(all.forgotten.get(), 2);
        turn(&all, &[1], b"");
        again(&all, &[2], b"");
    }

    #[tokio::test]
    async fn memos_bring_keys_back_with_what_is_left_of_their_time() {
        let all = idempotency(10);
        let turns: Vec<_> = (0..4_u8).map(|key| turn(&all, &[key], b"body")).collect();
        let acks = [Ack::Disk, Ack::Delivered, Ack::Memory, Ack::Disk];
        let mut memos: Vec<_> = turns.iter().zip(acks).map(|(turn, ack)| turn.memo(answer(5, ack))).collect();
        // One is broken, and others are kept all the same.
        memos[3].truncate(20);

        let restarted = idempotency(10);
        restarted.restore(&memos, wall_time());
        assert_eq!(again(&restarted, &[0], b"body"), answer(5, Ack::Disk));
        assert_eq!(again(&restarted, &[1], b"body"), answer(5, Ack::Disk), "delivery is not known");
        assert_eq!(again(&restarted, &[2], b"body"), answer(5, Ack::Memory));
        assert!(matches!(claim(&restarted, &[0], b"other"), Err(IngestError::KeyOfOther)));
        turn(&restarted, &[3], b"body");

        let late = idempotency(10);
        late.restore(&memos, wall_time() + WINDOW);
        turn(&late, &[0], b"body");
    }

    #[tokio::test]
    async fn the_latest_memo_of_a_key_counts_whatever_their_order() {
        let now = Timestamp::from_system(wall_time());
        let memo = |body: &[u8], seconds_ago: i64| {
            let memo = Memo {
                key: Digest::of_key(b"key"),
                fingerprint: Kept { digest: Digest::of_key(body), of: Of::Content },
                received_at: now.saturating_add_nanos(-seconds_ago * 1_000_000_000),
                answer: answer(1, Ack::Disk),
            };
            memo.encode()
        };
        for memos in [[memo(b"old", 500), memo(b"new", 5)], [memo(b"new", 5), memo(b"old", 500)]] {
            let all = idempotency(10);
            all.restore(&memos, wall_time());
            again(&all, b"key", b"new");
        }
    }

    #[test]
    fn a_window_of_zero_turns_keys_off() {
        let config = KeysConfig { window: Duration::ZERO, answers: 10 };
        assert!(Idempotency::new(config, 10, Metrics::new().idempotency_keys_forgotten).is_none());
    }
}
