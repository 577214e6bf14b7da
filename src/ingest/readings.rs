//! From a request to readings in the buffer, on every path that takes some; and the answers of `POST /v1/readings`.

use std::sync::Arc;

use axum::response::Response;
use bytes::Bytes;
use forebay_codec::{Decoded, Reason, Rules};
use forebay_reading::Readings;
use forebay_reading::clock::wall_time;
use forebay_reading::timestamp::Timestamp;
use http::Request;
use http::header::EXPECT;
use hyper::body::{Body as _, Incoming};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::Front;
use super::accepted::{Accepted, Taken};
use super::body::{self, Held};
use super::content::{Content, Strictness};
use super::dialect::Dialect;
use super::encoding::Encoding;
use super::error::{IngestError, faults};
use super::evidence::{Evidence, Sender};
use super::idempotency::{Answer, Claim, Digest, Fingerprint, Idempotency, Turn};
use crate::buffer::{self, Ack, Buffer};
use crate::door::has_no_end;
use crate::tasks;

/// Bodies up to this size are decoded where they arrive: at most about 0.3 ms. Larger ones, and compressed ones,
/// are decoded on a thread for blocking work.
const INLINE_BYTES_MAX: usize = 64 * 1024;
/// Encoded readings may take this many times the bytes of their body, and [`EXPANSION_FREE_BYTES`] beyond that, but
/// never more than [`EXPANSION_OF_MAX_BODY`] times `server.max_body`. Usually they take less than the body.
const EXPANSION_OF_BODY: usize = 64;
const EXPANSION_FREE_BYTES: usize = 64 * 1024;
const EXPANSION_OF_MAX_BODY: usize = 8;

/// A request whose body was read.
enum Begun {
    /// It is to be taken, and this is its turn if it has a key.
    Now(Decoded, Option<Turn>),
    /// It was answered before.
    Before(Answer),
}

/// Whether a key was looked up yet.
enum Turns {
    /// It was, if there is one.
    Claimed(Option<Turn>),
    /// It will be, once the body is decompressed.
    Unclaimed(Option<(Digest, Arc<Idempotency>)>),
}

impl Front {
    /// Answers a `POST` to a path that takes readings. The second value says why nothing was taken, if nothing was.
    pub(super) async fn post(
        &self,
        request: Request<Incoming>,
        dialect: Dialect,
        sender: Sender,
    ) -> (Response, Option<&'static str>) {
        let mut evidence = Evidence::default();
        let outcome = self.take(request, dialect, &mut evidence).await;
        let error = outcome.as_ref().err();
        evidence.record(sender, error, &self.config.device_tags, &self.rejections);
        let refusal = error.map(IngestError::reason);
        (dialect.answer(outcome), refusal)
    }

    /// Takes the readings of a request, whole or not at all.
    ///
    /// Dropped half-way (the client hung up), the readings are in the buffer or not; the books balance either way. A
    /// request with a key that has come as far as the buffer goes on by itself.
    async fn take(
        &self,
        request: Request<Incoming>,
        dialect: Dialect,
        evidence: &mut Evidence,
    ) -> Result<Taken, IngestError> {
        let (head, body) = request.into_parts();
        let (content, key) = match self.admit(&head, &body, dialect) {
            Ok(admitted) => admitted,
            Err(error) => {
                self.turn_away(&head, body).await;
                return Err(error);
            }
        };
        let mut held = self.bodies.hold();
        let body = body::read(body, self.config.max_body, self.config.request_timeout, &mut held).await?;
        evidence.see_body(&body, content.decoder);
        let (decoded, turn) = match self.begin(body, content, key, &mut held, evidence).await? {
            Begun::Now(decoded, turn) => (decoded, turn),
            Begun::Before(answer) => return Ok(Taken::Before(again(answer))),
        };
        // The body is gone, its readings are here.
        held.replace(decoded.readings.bytes_held())?;
        let (readings, mut accepted) = self.judge(decoded, content, evidence)?;
        if self.draining.is_cancelled() {
            return Err(IngestError::Push(buffer::PushError::Closed));
        }
        let request = buffer::Request {
            readings,
            format: content.format,
            ack: content.ack,
            until_taken: None,
            memo: None,
        };
        let ack = match turn {
            None => push(&*self.buffer, &self.waiting, request, held).await?,
            // Its key is free again once it is answered.
            Some(_turn) if !dialect.remembers(&accepted) => {
                push(&*self.buffer, &self.waiting, request, held).await?
            }
            Some(turn) => self.push_in_turn(turn, remembered(&accepted, content.ack), request, held).await?,
        };
        accepted.ack = ack.name();
        Ok(Taken::Now(accepted))
    }

    /// Refuses what needs no body to be refused.
    fn admit(
        &self,
        head: &http::request::Parts,
        body: &Incoming,
        dialect: Dialect,
    ) -> Result<(Content, Option<Digest>), IngestError> {
        self.via.check(&head.headers, Instant::now()).map_err(|_looped| IngestError::Looped)?;
        if has_no_end(&head.headers, body) {
            return Err(IngestError::NoLength);
        }
        let mut content = Content::read(head, dialect, self.ack)?;
        let limit = self.config.max_body;
        if body.size_hint().lower() > limit as u64 {
            return Err(IngestError::BodyTooLarge { limit });
        }
        content.ask(head.uri.query(), dialect, self.acks)?;
        let key = if self.keys.is_some() { Idempotency::key(&head.headers)? } else { None };
        Ok((content, key))
    }

    /// Lets the sender of a refused request finish, unless it waits to be asked for its body.
    pub(super) async fn turn_away(&self, head: &http::request::Parts, body: Incoming) {
        if !head.headers.contains_key(EXPECT) {
            let deadline = Instant::now() + self.config.request_timeout;
            body::discard(body, self.config.max_body, deadline).await;
        }
    }

    /// Reads the readings of a body, unless a request with its key was answered before: what counts for that is what
    /// was in the body, and not how it was compressed.
    async fn begin(
        &self,
        body: Bytes,
        content: Content,
        key: Option<Digest>,
        held: &mut Held,
        evidence: &mut Evidence,
    ) -> Result<Begun, IngestError> {
        let claim = key.zip(self.keys.clone());
        if content.encoding != Encoding::Identity {
            return self.decode_large(body, content, Turns::Unclaimed(claim), held, evidence).await;
        }
        let turn = match claim {
            None => None,
            Some((key, keys)) => match keys.claim(key, Fingerprint::of_plain(content, &body).await)? {
                Claim::First(turn) => Some(turn),
                Claim::Again(answer) => return Ok(Begun::Before(answer)),
            },
        };
        if body.len() <= INLINE_BYTES_MAX {
            let decoded = decode_within(&body, content, self.rules(content), self.config.max_body, evidence)?;
            return Ok(Begun::Now(decoded, turn));
        }
        self.decode_large(body, content, Turns::Claimed(turn), held, evidence).await
    }

    /// The same on a thread for blocking work, for as many bodies at a time as there are cores: more would only hold
    /// more memory.
    async fn decode_large(
        &self,
        body: Bytes,
        content: Content,
        turns: Turns,
        held: &mut Held,
        evidence: &mut Evidence,
    ) -> Result<Begun, IngestError> {
        let (rules, limit) = (self.rules(content), self.config.max_body);
        let _permit = self.decoding.acquire().await.map_err(|_closed| IngestError::Internal)?;
        let mut lent = std::mem::replace(held, self.bodies.hold());
        let mut seen = std::mem::take(evidence);
        let work = move || {
            let begun = decompress_and_decode(body, content, turns, (rules, limit), &mut lent, &mut seen);
            (begun, lent, seen)
        };
        let done = tokio::task::spawn_blocking(work).await;
        let (begun, lent, seen) = done.map_err(|_panic| IngestError::Internal)?;
        (*held, *evidence) = (lent, seen);
        begun
    }

    fn rules(&self, content: Content) -> Rules {
        let received_at = Timestamp::from_system(wall_time());
        let nanos = |duration: std::time::Duration| i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX);
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
        }
    }

    fn count_rejections(&self, decoded: &Decoded) {
        for ((_, count), counter) in decoded.rejections.counts().zip(&self.rejected) {
            counter.inc_by(count);
        }
    }

    /// Decides what a request whose body was read is answered with, if the buffer takes its readings.
    fn judge(
        &self,
        mut decoded: Decoded,
        content: Content,
        evidence: &mut Evidence,
    ) -> Result<(Readings, Accepted), IngestError> {
        let rejected = decoded.rejections.count();
        if rejected > 0 {
            if content.strictness == Strictness::AllOrNone {
                evidence.see_strict(decoded.readings.len());
                decoded.rejections.count_unlisted(Reason::Strict, decoded.readings.len() as u64);
            }
            self.count_rejections(&decoded);
            if content.strictness == Strictness::AllOrNone {
                return Err(IngestError::Strict(decoded.rejections));
            }
            if decoded.readings.is_empty() {
                return Err(IngestError::AllRejected(decoded.rejections));
            }
        }
        let errors = faults(decoded.rejections.listed);
        let accepted =
            Accepted { accepted: decoded.readings.len(), rejected, ack: content.ack.name(), errors };
        Ok((decoded.readings, accepted))
    }

    /// Puts the readings of a request with a key into the buffer, in a task of its own: if the client hangs up, it
    /// goes on, and its answer is there when the client comes again.
    async fn push_in_turn(
        &self,
        turn: Turn,
        answer: Answer,
        request: buffer::Request,
        held: Held,
    ) -> Result<Ack, IngestError> {
        let (buffer, waiting) = (Arc::clone(&self.buffer), Arc::clone(&self.waiting));
        let request = buffer::Request { memo: Some(turn.memo(answer.clone())), ..request };
        let kept = if self.acks.contains(&Ack::Disk) { Ack::Disk } else { Ack::Memory };
        let task = tokio::spawn(async move {
            let pushed = push(&*buffer, &waiting, request, held).await;
            match &pushed {
                Ok(ack) => turn.remember(Answer { ack: *ack, ..answer }),
                // The readings were taken, and must not be again: who asks hears what is true of all of them.
                Err(IngestError::NotDelivered(buffer::PushError::Refused)) => {
                    turn.remember(Answer { ack: kept, ..answer });
                }
                Err(_) => {}
            }
            pushed
        });
        // A panic is passed on: who waits is answered as if it had been here.
        tasks::outcome(task.await).await
    }
}

/// Puts the readings of a request into the buffer, and waits until the promise of its `ack` is kept.
async fn push(
    buffer: &dyn Buffer,
    waiting: &Semaphore,
    mut request: buffer::Request,
    held: Held,
) -> Result<Ack, IngestError> {
    if request.readings.is_empty() {
        return Ok(request.ack);
    }
    request.readings.shrink();
    if request.ack != Ack::Delivered {
        let receipt = buffer.push(request).await?;
        drop(held);
        return Ok(receipt.ack);
    }
    // While it waits for delivery, its readings count in the buffer, and no longer here.
    request.until_taken = Some(Box::new(held));
    let _place = waiting.try_acquire().map_err(|_none_left| IngestError::TooManyWait)?;
    Ok(buffer.push(request).await?.ack)
}

/// What a large or compressed body comes to; its key is looked up between the two if it was not before.
fn decompress_and_decode(
    body: Bytes,
    content: Content,
    turns: Turns,
    (rules, max_body): (Rules, usize),
    held: &mut Held,
    evidence: &mut Evidence,
) -> Result<Begun, IngestError> {
    let plain = body::decompress(body, content.encoding, max_body, held)?;
    evidence.see_body(&plain, content.decoder);
    let turn = match turns {
        Turns::Claimed(turn) => turn,
        Turns::Unclaimed(None) => None,
        Turns::Unclaimed(Some((key, keys))) => {
            match keys.claim(key, Fingerprint::of_decompressed(content, &plain))? {
                Claim::First(turn) => Some(turn),
                Claim::Again(answer) => return Ok(Begun::Before(answer)),
            }
        }
    };
    let decoded = decode_within(&plain, content, rules, max_body, evidence)?;
    Ok(Begun::Now(decoded, turn))
}

/// Decodes a body whose readings may take only so many times its bytes.
fn decode_within(
    body: &[u8],
    content: Content,
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

/// What is remembered of an answer.
fn remembered(accepted: &Accepted, ack: Ack) -> Answer {
    let errors = match accepted.errors.is_empty() {
        true => Vec::new(),
        false => serde_json::to_vec(&accepted.errors).unwrap_or_default(),
    };
    Answer {
        // The largest body that may be allowed holds fewer.
        accepted: u32::try_from(accepted.accepted).unwrap_or(u32::MAX),
        rejected: u32::try_from(accepted.rejected).unwrap_or(u32::MAX),
        ack,
        errors: errors.into_boxed_slice(),
    }
}

/// What was remembered, byte for byte as it was.
fn again(answer: Answer) -> Accepted {
    Accepted {
        accepted: answer.accepted as usize,
        rejected: answer.rejected.into(),
        ack: answer.ack.name(),
        errors: serde_json::from_slice(&answer.errors).unwrap_or_default(),
    }
}
