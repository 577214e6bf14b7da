//! The way of a post of readings into the buffer, on every path that takes readings.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use forebay_codec::{Decoded, Reason, Rules};
use forebay_reading::Readings;
use forebay_reading::clock::wall_time;
use forebay_reading::timestamp::Timestamp;
use http::Request;
use http::header::EXPECT;
use hyper::body::Body as _;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::Front;
use super::accepted::{Acceptance, Reply};
use super::access::{AccessError, Caller};
use super::body::{self, BudgetShare};
use super::content::{RequestContent, Strictness};
use super::dialect::Dialect;
use super::encoding::Encoding;
use super::error::{IngestError, faults};
use super::evidence::{Evidence, Sender};
use super::idempotency::{Digest, Fingerprint, Idempotency, KeyOutcome, KeyReservation, StoredAnswer};
use crate::auth::Role;
use crate::buffer::{self, Ack, Buffer};
use crate::door::has_no_end;
use crate::listener::Peer;
use crate::tasks;

/// Plain bodies up to this size are decoded in the task of their connection, in at most about 0.3 ms. Larger ones and
/// compressed ones are decoded on a thread for blocking work.
const INLINE_BYTES_MAX: usize = 64 * 1024;
/// Encoded readings may take this many times the bytes of their body plus [`EXPANSION_FREE_BYTES`], but at most
/// [`EXPANSION_OF_MAX_BODY`] times `server.max_body`. Usually they take less than the body.
const EXPANSION_OF_BODY: usize = 64;
const EXPANSION_FREE_BYTES: usize = 64 * 1024;
const EXPANSION_OF_MAX_BODY: usize = 8;

/// How long the body of a client is read on that has too much under way already: long enough for one that has been sent, and
/// too short to hold many connections with bodies that never come.
const TURN_AWAY_SOON: Duration = Duration::from_secs(1);

/// A decoded body, unless its request is a repetition.
enum DecodedBody {
    /// The readings to accept, and the reservation of the request's key if it has one.
    First(Decoded, Option<KeyReservation>),
    /// The answer to an earlier request with the same key.
    Replay(StoredAnswer),
}

/// Whether the key of a request was already looked up.
enum KeyProgress {
    /// It was, if the request has one.
    Reserved(Option<KeyReservation>),
    /// It will be, after the body is decompressed.
    Pending(Option<(Digest, Arc<Idempotency>)>),
}

impl Front {
    /// Answers a `POST` to a path that takes readings. The second value is the reason of a refusal.
    pub(super) async fn post(
        &self,
        request: Request<Body>,
        dialect: Dialect,
        path: &'static str,
        peer: &Peer,
    ) -> (Response, Option<&'static str>) {
        let (head, body) = request.into_parts();
        let mut evidence = Evidence::default();
        let address = self.access.address(peer, &head.headers);
        // Held until the request is answered, also where its sender is refused.
        let place = self.access.place(peer, address);
        let caller = match &place {
            Ok(_) => self.caller(&head, dialect, peer),
            Err(error) => Err(error.clone()),
        };
        let outcome = match &caller {
            Ok(caller) => self.take(&head, body, dialect, caller, &mut evidence).await,
            Err(error) => {
                let within = if error.is_by_address() { TURN_AWAY_SOON } else { self.config.request_timeout };
                self.turn_away_within(within, &head, body).await;
                Err(error.clone().into())
            }
        };
        let sender = Sender { path, address, key: caller.as_ref().ok().and_then(Caller::key_name) };
        let error = outcome.as_ref().err();
        evidence.record(sender, error, &self.config.device_tags, &self.rejections);
        let refusal = error.map(IngestError::reason);
        (dialect.answer(outcome), refusal)
    }

    /// Says who sends a request, if that one may send readings.
    fn caller(
        &self,
        head: &http::request::Parts,
        dialect: Dialect,
        peer: &Peer,
    ) -> Result<Caller, AccessError> {
        self.access.caller((&head.headers, head.uri.query()), dialect.key_in_query(), peer, Role::Write)
    }

    /// Takes the readings of a request, whole or not at all.
    ///
    /// If the future is dropped (the client hung up), the readings may be in the buffer or not; the ledger adds up
    /// either way. A request with a key that has reached the buffer is completed in its own task.
    async fn take(
        &self,
        head: &http::request::Parts,
        body: Body,
        dialect: Dialect,
        caller: &Caller,
        evidence: &mut Evidence,
    ) -> Result<Reply, IngestError> {
        let (content, key) = match self.admit(head, &body, dialect, caller) {
            Ok(admitted) => admitted,
            Err(error) => {
                self.turn_away(head, body).await;
                return Err(error);
            }
        };
        let mut share = self.bodies.share();
        let body = body::read(body, self.config.max_body, self.config.request_timeout, &mut share).await?;
        evidence.see_body(&body, content.decoder);
        let (decoded, reservation) =
            match self.begin(body, content, caller, key, &mut share, evidence).await? {
                DecodedBody::First(decoded, reservation) => (decoded, reservation),
                DecodedBody::Replay(answer) => return Ok(Reply::Replay(replay(answer))),
            };
        // The body is dropped; from here on its readings count.
        share.replace(decoded.readings.bytes_held())?;
        let (readings, mut accepted) = self.judge(decoded, content, caller, evidence)?;
        if self.draining.is_cancelled() {
            return Err(IngestError::Push(buffer::PushError::Closed));
        }
        let request = buffer::Request {
            readings,
            format: content.format,
            counter: caller.accepted(),
            ack: content.ack,
            until_taken: None,
            memo: None,
        };
        let ack = match reservation {
            None => push(&*self.buffer, &self.waiting, request, share).await?,
            // Dropping the reservation frees the key.
            Some(_reservation) if !dialect.remembers(&accepted) => {
                push(&*self.buffer, &self.waiting, request, share).await?
            }
            Some(reservation) => {
                self.push_reserved(reservation, stored_answer(&accepted, content.ack), request, share).await?
            }
        };
        accepted.ack = ack.name();
        Ok(Reply::First(accepted))
    }

    /// Checks the head of a request, before its body is read; the second value is that of its `Idempotency-Key`.
    fn admit(
        &self,
        head: &http::request::Parts,
        body: &Body,
        dialect: Dialect,
        caller: &Caller,
    ) -> Result<(RequestContent, Option<Digest>), IngestError> {
        self.via.check(&head.headers, Instant::now()).map_err(|_looped| IngestError::Looped)?;
        if has_no_end(&head.headers, body) {
            return Err(IngestError::NoLength);
        }
        let mut content = RequestContent::read(head, dialect, self.ack)?;
        let limit = self.config.max_body;
        if body.size_hint().lower() > limit as u64 {
            return Err(IngestError::BodyTooLarge { limit });
        }
        content.ask(head.uri.query(), dialect, self.acks)?;
        let key = match &self.keys {
            Some(_) => Idempotency::key(&head.headers, caller.key_name())?,
            None => None,
        };
        Ok((content, key))
    }

    /// Reads the rest of a refused request, unless its sender waits for `100 Continue`.
    pub(super) async fn turn_away(&self, head: &http::request::Parts, body: Body) {
        self.turn_away_within(self.config.request_timeout, head, body).await;
    }

    async fn turn_away_within(&self, within: Duration, head: &http::request::Parts, body: Body) {
        if !head.headers.contains_key(EXPECT) {
            let deadline = Instant::now() + within;
            body::discard(body, self.config.max_body, deadline).await;
        }
    }

    /// Decodes a body, unless an earlier request with its key was answered. Requests are compared by their decompressed
    /// bodies.
    async fn begin(
        &self,
        body: Bytes,
        content: RequestContent,
        caller: &Caller,
        key: Option<Digest>,
        share: &mut BudgetShare,
        evidence: &mut Evidence,
    ) -> Result<DecodedBody, IngestError> {
        let claim = key.zip(self.keys.clone());
        if content.encoding != Encoding::Identity {
            return self
                .decode_large(body, content, caller, KeyProgress::Pending(claim), share, evidence)
                .await;
        }
        let reservation = match claim {
            None => None,
            Some((key, keys)) => match keys.reserve(key, Fingerprint::of_plain(content, &body).await)? {
                KeyOutcome::First(reservation) => Some(reservation),
                KeyOutcome::Replay(answer) => return Ok(DecodedBody::Replay(answer)),
            },
        };
        if body.len() <= INLINE_BYTES_MAX {
            let decoded =
                decode_within(&body, content, self.rules(content, caller), self.config.max_body, evidence)?;
            return Ok(DecodedBody::First(decoded, reservation));
        }
        self.decode_large(body, content, caller, KeyProgress::Reserved(reservation), share, evidence).await
    }

    /// Does the same on a thread for blocking work, for as many bodies at a time as there are cores: more would only
    /// hold more memory.
    async fn decode_large(
        &self,
        body: Bytes,
        content: RequestContent,
        caller: &Caller,
        key: KeyProgress,
        share: &mut BudgetShare,
        evidence: &mut Evidence,
    ) -> Result<DecodedBody, IngestError> {
        let (rules, limit) = (self.rules(content, caller), self.config.max_body);
        let _permit = self.decoding.acquire().await.map_err(|_closed| IngestError::Internal)?;
        let mut lent = std::mem::replace(share, self.bodies.share());
        let mut seen = std::mem::take(evidence);
        let work = move || {
            let begun = decompress_and_decode(body, content, key, (rules, limit), &mut lent, &mut seen);
            (begun, lent, seen)
        };
        let done = tokio::task::spawn_blocking(work).await;
        let (begun, lent, seen) = done.map_err(|_panic| IngestError::Internal)?;
        (*share, *evidence) = (lent, seen);
        begun
    }

    fn rules(&self, content: RequestContent, caller: &Caller) -> Rules {
        let received_at = Timestamp::from_system(wall_time());
        let nanos = |duration: Duration| i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX);
        let (future, past) = (self.config.max_future, self.config.max_past);
        Rules {
            unknown_fields: self.config.unknown_fields,
            precision: content.precision,
            received_at,
            earliest: if past.is_zero() {
                self.config.earliest
            } else {
                received_at.saturating_add_nanos(-nanos(past)).max(self.config.earliest)
            },
            latest: if future.is_zero() {
                Timestamp::MAX
            } else {
                received_at.saturating_add_nanos(nanos(future))
            },
            encoded_bytes_max: usize::MAX,
            device_tags: self.config.device_tags.clone(),
            grant: caller.grant(),
        }
    }

    fn count_rejections(&self, decoded: &Decoded) {
        for ((_, count), counter) in decoded.rejections.counts().zip(&self.rejected) {
            counter.inc_by(count);
        }
    }

    /// Applies the strictness of a request to its rejections, counts them, and prepares the answer for the case that the
    /// buffer accepts the readings.
    fn judge(
        &self,
        mut decoded: Decoded,
        content: RequestContent,
        caller: &Caller,
        evidence: &mut Evidence,
    ) -> Result<(Readings, Acceptance), IngestError> {
        let rejected = decoded.rejections.count();
        if rejected > 0 {
            if content.strictness == Strictness::AllOrNone {
                evidence.see_strict(decoded.readings.len());
                decoded.rejections.count_unlisted(Reason::Strict, decoded.readings.len() as u64);
            }
            self.count_rejections(&decoded);
            caller.count_rejected(decoded.rejections.count());
            if content.strictness == Strictness::AllOrNone {
                return Err(IngestError::Strict(decoded.rejections));
            }
            if decoded.readings.is_empty() {
                return Err(IngestError::AllRejected(decoded.rejections));
            }
        }
        let errors = faults(decoded.rejections.listed);
        let accepted =
            Acceptance { accepted: decoded.readings.len(), rejected, ack: content.ack.name(), errors };
        Ok((decoded.readings, accepted))
    }

    /// Pushes the readings of a request with a key in a task of its own, which also completes if the client hangs up:
    /// its repetition then gets the answer.
    async fn push_reserved(
        &self,
        reservation: KeyReservation,
        answer: StoredAnswer,
        request: buffer::Request,
        share: BudgetShare,
    ) -> Result<Ack, IngestError> {
        let (buffer, waiting) = (Arc::clone(&self.buffer), Arc::clone(&self.waiting));
        let request = buffer::Request { memo: Some(reservation.memo(answer.clone())), ..request };
        let ack_if_refused = if self.acks.contains(&Ack::Disk) { Ack::Disk } else { Ack::Memory };
        let task = tokio::spawn(async move {
            let pushed = push(&*buffer, &waiting, request, share).await;
            match &pushed {
                Ok(ack) => reservation.remember(StoredAnswer { ack: *ack, ..answer }),
                // The readings were accepted, and must not be accepted again: a repetition is told the acknowledgement
                // that all of them have.
                Err(IngestError::NotDelivered(buffer::PushError::Refused)) => {
                    reservation.remember(StoredAnswer { ack: ack_if_refused, ..answer });
                }
                Err(_) => {}
            }
            pushed
        });
        // A panic in the task goes on here, as if the push had run in this one.
        tasks::outcome(task.await).await
    }
}

/// Pushes the readings of a request into the buffer, and waits until its acknowledgement holds.
async fn push(
    buffer: &dyn Buffer,
    waiting: &Semaphore,
    mut request: buffer::Request,
    share: BudgetShare,
) -> Result<Ack, IngestError> {
    if request.readings.is_empty() {
        return Ok(request.ack);
    }
    request.readings.shrink();
    if request.ack != Ack::Delivered {
        let receipt = buffer.push(request).await?;
        drop(share);
        return Ok(receipt.ack);
    }
    // While the request waits for delivery, its readings count in the buffer and no longer in this budget.
    request.until_taken = Some(Box::new(share));
    let _place = waiting.try_acquire().map_err(|_none_left| IngestError::TooManyWait)?;
    Ok(buffer.push(request).await?.ack)
}

/// Decompresses and decodes a body. Between the two it looks its key up, if that is pending.
fn decompress_and_decode(
    body: Bytes,
    content: RequestContent,
    key: KeyProgress,
    (rules, max_body): (Rules, usize),
    share: &mut BudgetShare,
    evidence: &mut Evidence,
) -> Result<DecodedBody, IngestError> {
    let plain = body::decompress(body, content.encoding, max_body, share)?;
    evidence.see_body(&plain, content.decoder);
    let reservation = match key {
        KeyProgress::Reserved(reservation) => reservation,
        KeyProgress::Pending(None) => None,
        KeyProgress::Pending(Some((key, keys))) => {
            match keys.reserve(key, Fingerprint::of_decompressed(content, &plain))? {
                KeyOutcome::First(reservation) => Some(reservation),
                KeyOutcome::Replay(answer) => return Ok(DecodedBody::Replay(answer)),
            }
        }
    };
    let decoded = decode_within(&plain, content, rules, max_body, evidence)?;
    Ok(DecodedBody::First(decoded, reservation))
}

/// Decodes a body whose readings may take only a bounded multiple of its bytes.
fn decode_within(
    body: &[u8],
    content: RequestContent,
    rules: Rules,
    max_body: usize,
    evidence: &mut Evidence,
) -> Result<Decoded, IngestError> {
    let expanded = body.len().saturating_mul(EXPANSION_OF_BODY).saturating_add(EXPANSION_FREE_BYTES);
    let limit = expanded.min(max_body.saturating_mul(EXPANSION_OF_MAX_BODY).max(EXPANSION_FREE_BYTES));
    let rules = Rules { encoded_bytes_max: limit, ..rules };
    let decoded = content.decoder.decode(body, &rules)?;
    evidence.see_rejections(body, &decoded.rejections, &rules.device_tags);
    if decoded.overflowed { Err(IngestError::ExpandsTooFar { limit }) } else { Ok(decoded) }
}

/// The form in which an answer is stored for repetitions.
fn stored_answer(accepted: &Acceptance, ack: Ack) -> StoredAnswer {
    let errors = match accepted.errors.is_empty() {
        true => Vec::new(),
        false => serde_json::to_vec(&accepted.errors).unwrap_or_default(),
    };
    StoredAnswer {
        // Even the largest body that settings can allow holds fewer readings.
        accepted: u32::try_from(accepted.accepted).unwrap_or(u32::MAX),
        rejected: u32::try_from(accepted.rejected).unwrap_or(u32::MAX),
        ack,
        errors: errors.into_boxed_slice(),
    }
}

/// The answer of a repetition, byte for byte the first one.
fn replay(answer: StoredAnswer) -> Acceptance {
    Acceptance {
        accepted: answer.accepted as usize,
        rejected: answer.rejected.into(),
        ack: answer.ack.name(),
        errors: serde_json::from_slice(&answer.errors).unwrap_or_default(),
    }
}
