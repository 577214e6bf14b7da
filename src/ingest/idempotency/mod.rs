//! The client's `Idempotency-Key`: a repetition of a request gets the first answer, and its readings are accepted once.
//!
//! - `digest` cuts keys and requests to 16 bytes each.
//! - `keys` decides whether a request is the first with its key, a repetition, or in conflict with another one. It is
//!   a function of keys and time; `store` below it holds the answers.
//! - `memo` is stored in the buffer with the readings of a request, so that the answer survives a restart.
//! - [`Idempotency`] is the thin layer with the clock and the lock.
//!
//! Only answers of 202 are stored: after any other nothing was accepted, and the next request with the key is a first
//! one. An answer is repeated for `ingest.idempotency_window` after it was first given; after a restart, after its
//! request was received. A request with a key goes on when its client hangs up, and a dropped [`KeyReservation`] frees
//! its key: so a reserved key always belongs to a request in progress.
//!
//! Limits: a key has 1 to 255 bytes; there are at most `ingest.idempotency_keys` answers of about 70 bytes, and
//! [`ERRORS_BYTES_MAX`] of errors listed in them; beyond that the oldest are forgotten early, which is counted, and
//! logged at most once in [`WARN_EVERY`]. At most as many requests with keys are in progress as there may be connections.
//!
//! All clients share one space of keys: a client that uses the key of another gets 409, 422 or the other's answer.

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
use digest::{DigestKind, StoredFingerprint};
use keys::{KeyDecision, KeyLimits, Keys};
use memo::Memo;

pub(super) use digest::{Digest, Fingerprint};
pub(super) use keys::StoredAnswer;

/// Most bytes of errors listed in all answers; the last answer alone may exceed it.
const ERRORS_BYTES_MAX: usize = 64 << 20;
/// Shortest time between two warnings that keys were forgotten early.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// The settings of idempotency keys.
#[derive(Clone, Copy, Debug)]
pub struct KeysConfig {
    /// How long an answer is repeated; zero: keys are ignored.
    pub window: Duration,
    /// Most answers in memory.
    pub answers: usize,
}

/// The keys of the gateway's clients.
#[derive(Debug)]
pub(super) struct Idempotency {
    window: Duration,
    forgotten: IntCounter,
    /// Locked for one look-up or change.
    state: Mutex<LockedKeys>,
}

/// The keys with their lock's other content.
#[derive(Debug)]
struct LockedKeys {
    keys: Keys,
    warned_at: Option<Instant>,
}

/// The result of looking up the key of a request.
#[derive(Debug)]
pub(super) enum KeyOutcome {
    /// The request is the first, and goes on with this.
    First(KeyReservation),
    /// The answer to the first request.
    Replay(StoredAnswer),
}

/// The reservation of a key for a request in progress. Dropping it frees the key.
#[derive(Debug)]
pub(super) struct KeyReservation {
    all: Arc<Idempotency>,
    key: Digest,
    digest: Digest,
    received_at: Timestamp,
    /// Whether the answer was stored. From then on the key may be reserved by another request, if it is forgotten early.
    is_answered: bool,
}

impl Idempotency {
    /// The keys of a gateway; `None` if `config` turns them off. At most `under_way_max` requests with keys may be in
    /// progress; `forgotten` counts keys that are forgotten early.
    pub(super) fn new(
        config: KeysConfig,
        under_way_max: usize,
        forgotten: IntCounter,
    ) -> Option<Arc<Idempotency>> {
        let KeysConfig { window, answers } = config;
        if window.is_zero() {
            return None;
        }
        let limits = KeyLimits { window, answers, errors_bytes: ERRORS_BYTES_MAX, under_way: under_way_max };
        let state = LockedKeys { keys: Keys::new(limits, Instant::now()), warned_at: None };
        Some(Arc::new(Idempotency { window, forgotten, state: Mutex::new(state) }))
    }

    /// Reads the key of a request, if it has one.
    ///
    /// # Errors
    ///
    /// [`IngestError::Key`] if the header is not a valid key.
    pub(super) fn key(headers: &HeaderMap, owner: Option<&str>) -> Result<Option<Digest>, IngestError> {
        let key = key_header::read(headers).map_err(IngestError::Key)?;
        Ok(key.map(|key| Digest::of_key(owner, &key)))
    }

    /// Looks a key up, and reserves it if this request is the first with it.
    ///
    /// # Errors
    ///
    /// The key is reserved or came with another request, or too many keys are reserved.
    pub(super) fn reserve(
        self: &Arc<Self>,
        key: Digest,
        fingerprint: Fingerprint,
    ) -> Result<KeyOutcome, IngestError> {
        match self.state().keys.begin(key, fingerprint, Instant::now()) {
            KeyDecision::First => {
                let received_at = Timestamp::from_system(wall_time());
                Ok(KeyOutcome::First(KeyReservation {
                    all: Arc::clone(self),
                    key,
                    digest: fingerprint.digest,
                    received_at,
                    is_answered: false,
                }))
            }
            KeyDecision::Replay(answer) => Ok(KeyOutcome::Replay(answer)),
            KeyDecision::UnderWay => Err(IngestError::KeyUnderWay),
            KeyDecision::OtherRequest => Err(IngestError::KeyOfOther),
            KeyDecision::Busy => Err(IngestError::TooManyKeys),
        }
    }

    /// Restores the answers in the buffer's memos. Unreadable memos are logged and left out.
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

    fn remember(&self, key: Digest, answer: StoredAnswer) {
        let mut state = self.state();
        let now = Instant::now();
        let forgotten = state.keys.remember(key, answer, now);
        self.count(&mut state, forgotten, now);
    }

    /// Counts keys that were forgotten early, and logs a warning from time to time.
    fn count(&self, state: &mut LockedKeys, forgotten: u64, now: Instant) {
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

    fn state(&self) -> MutexGuard<'_, LockedKeys> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl KeyReservation {
    /// The memo to store with the readings if the request gets this answer.
    pub(super) fn memo(&self, answer: StoredAnswer) -> Bytes {
        let KeyReservation { key, digest, received_at, .. } = *self;
        let fingerprint = StoredFingerprint { digest, kind: DigestKind::Content };
        Memo { key, fingerprint, received_at, answer }.encode()
    }

    /// Stores the answer to the request for its repetitions.
    pub(super) fn remember(mut self, answer: StoredAnswer) {
        self.is_answered = true;
        self.all.remember(self.key, answer);
    }
}

impl Drop for KeyReservation {
    fn drop(&mut self) {
        if !self.is_answered {
            self.all.state().keys.abandon(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::digest::BodyForm;
    use super::*;
    use crate::buffer::Ack;
    use crate::metrics::Metrics;

    const WINDOW: Duration = Duration::from_secs(600);

    fn idempotency(answers: usize) -> Arc<Idempotency> {
        let config = KeysConfig { window: WINDOW, answers };
        let forgotten = Metrics::new().idempotency_keys_forgotten;
        Idempotency::new(config, 10, forgotten).expect("keys are looked at")
    }

    fn claim(all: &Arc<Idempotency>, key: &[u8], body: &[u8]) -> Result<KeyOutcome, IngestError> {
        let fingerprint = Fingerprint { digest: Digest::of_key(None, body), form: BodyForm::Plain };
        all.reserve(Digest::of_key(None, key), fingerprint)
    }

    #[track_caller]
    fn reservation(all: &Arc<Idempotency>, key: &[u8], body: &[u8]) -> KeyReservation {
        match claim(all, key, body) {
            Ok(KeyOutcome::First(reservation)) => reservation,
            other => panic!("it is the first: {other:?}"),
        }
    }

    #[track_caller]
    fn again(all: &Arc<Idempotency>, key: &[u8], body: &[u8]) -> StoredAnswer {
        match claim(all, key, body) {
            Ok(KeyOutcome::Replay(answer)) => answer,
            other => panic!("it was answered: {other:?}"),
        }
    }

    fn answer(accepted: u32, ack: Ack) -> StoredAnswer {
        let errors = br#"[{"index":0,"pointer":"/0","detail":"no"}]"#;
        StoredAnswer { accepted, rejected: 1, ack, errors: errors[..].into() }
    }

    #[tokio::test]
    async fn a_dropped_reservation_frees_its_key_and_an_answered_one_does_not() {
        let all = idempotency(10);
        let first = reservation(&all, b"key", b"body");
        assert!(matches!(claim(&all, b"key", b"body"), Err(IngestError::KeyUnderWay)));
        assert!(matches!(claim(&all, b"key", b"other"), Err(IngestError::KeyOfOther)));
        drop(first);
        reservation(&all, b"key", b"other").remember(answer(7, Ack::Memory));
        assert_eq!(again(&all, b"key", b"other"), answer(7, Ack::Memory));
        assert!(matches!(claim(&all, b"key", b"body"), Err(IngestError::KeyOfOther)));
    }

    #[tokio::test]
    async fn no_more_keys_are_reserved_than_the_limit_allows() {
        let all = idempotency(10);
        let mut reservations: Vec<_> = (0..10_u8).map(|key| reservation(&all, &[key], b"")).collect();
        assert!(matches!(claim(&all, b"key", b""), Err(IngestError::TooManyKeys)));
        reservations.pop();
        reservation(&all, b"key", b"");
    }

    #[tokio::test]
    async fn keys_forgotten_early_are_counted() {
        let all = idempotency(3);
        for key in 0..5_u8 {
            reservation(&all, &[key], b"").remember(answer(1, Ack::Memory));
        }
        assert_eq!(all.forgotten.get(), 2);
        reservation(&all, &[1], b"");
        again(&all, &[2], b"");
    }

    #[tokio::test]
    async fn memos_restore_keys_for_the_rest_of_their_window() {
        let all = idempotency(10);
        let reservations: Vec<_> = (0..4_u8).map(|key| reservation(&all, &[key], b"body")).collect();
        let acks = [Ack::Disk, Ack::Delivered, Ack::Memory, Ack::Disk];
        let mut memos: Vec<_> = reservations
            .iter()
            .zip(acks)
            .map(|(reservation, ack)| reservation.memo(answer(5, ack)))
            .collect();
        // One memo is broken; the others are restored all the same.
        memos[3].truncate(20);

        let restarted = idempotency(10);
        restarted.restore(&memos, wall_time());
        assert_eq!(again(&restarted, &[0], b"body"), answer(5, Ack::Disk));
        assert_eq!(again(&restarted, &[1], b"body"), answer(5, Ack::Disk), "delivery is not known");
        assert_eq!(again(&restarted, &[2], b"body"), answer(5, Ack::Memory));
        assert!(matches!(claim(&restarted, &[0], b"other"), Err(IngestError::KeyOfOther)));
        reservation(&restarted, &[3], b"body");

        let late = idempotency(10);
        late.restore(&memos, wall_time() + WINDOW);
        reservation(&late, &[0], b"body");
    }

    #[tokio::test]
    async fn the_latest_memo_of_a_key_counts_in_any_order() {
        let now = Timestamp::from_system(wall_time());
        let memo = |body: &[u8], seconds_ago: i64| {
            let memo = Memo {
                key: Digest::of_key(None, b"key"),
                fingerprint: StoredFingerprint {
                    digest: Digest::of_key(None, body),
                    kind: DigestKind::Content,
                },
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
