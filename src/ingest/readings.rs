//! `POST /v1/readings`: from a request to readings in the buffer.

use std::time::SystemTime;

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, EXPECT};
use http::{HeaderValue, Request, StatusCode};
use hyper::body::{Body as _, Incoming};
use serde::Serialize;
use tokio::time::Instant;
use utoipa::ToSchema;

use super::Front;
use super::body::{self, Held};
use super::content::{Content, Encoding, Strictness};
use super::error::{IngestError, faults};
use crate::buffer;
use crate::codec::{Decoded, Rules};
use crate::problem::ReadingFault;
use crate::timestamp::Timestamp;

/// Bodies up to this size are decoded where they arrive: at most about 0.3 ms. Larger ones, and compressed ones,
/// are decoded on a thread for blocking work.
const INLINE_BYTES_MAX: usize = 64 * 1024;
/// Encoded readings may take this many times the bytes of their body, and [`EXPANSION_FREE_BYTES`] beyond that, but
/// never more than [`EXPANSION_OF_MAX_BODY`] times `server.max_body`. Usually they take less than the body.
const EXPANSION_OF_BODY: usize = 64;
const EXPANSION_FREE_BYTES: usize = 64 * 1024;
const EXPANSION_OF_MAX_BODY: usize = 8;

/// What became of the readings of a request.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Accepted {
    /// How many readings were accepted.
    accepted: usize,
    /// How many were turned away.
    rejected: u64,
    /// What the acknowledgement promises: `memory`, `disk` or `delivered`.
    #[schema(example = "memory")]
    ack: &'static str,
    /// Why readings were turned away, at most 100 of them.
    errors: Vec<ReadingFault>,
}

impl IntoResponse for Accepted {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = (StatusCode::ACCEPTED, body).into_response();
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }
}

/// Takes readings.
#[utoipa::path(
    post,
    path = "/v1/readings",
    request_body(
        description = "One reading or an array of them; or one reading a line.",
        content(
            (super::schema::Readings = "application/json"),
            (super::schema::Reading = "application/x-ndjson"),
            (super::schema::Reading = "application/jsonl"),
        )
    ),
    params(super::schema::Parameters),
    responses(
        (status = 202, description = "At least one reading was accepted, or there was none.", body = Accepted),
        (status = 400, description = "The body is not what it claims to be.", body = crate::problem::Problem, content_type = "application/problem+json"),
        (status = 408, description = "The body did not arrive in time.", body = crate::problem::Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body, or the number of readings, is too large.", body = crate::problem::Problem, content_type = "application/problem+json"),
        (status = 415, description = "A media type or encoding that is not taken.", body = crate::problem::Problem, content_type = "application/problem+json"),
        (status = 422, description = "Every reading was turned away, or one was and the request is strict.", body = crate::problem::Problem, content_type = "application/problem+json"),
        (status = 503, description = "The buffer is full or the gateway is shutting down; `Retry-After` says when to come again.", body = crate::problem::Problem, content_type = "application/problem+json"),
    )
)]
#[expect(dead_code, reason = "the document is made from it; the answer is `Front::post`")]
fn post() {}

impl Front {
    /// Answers `POST /v1/readings`.
    pub(super) async fn post(&self, request: Request<Incoming>) -> Response {
        match self.take(request).await {
            Ok(accepted) => accepted.into_response(),
            Err(error) => error.into_response(),
        }
    }

    /// Takes the readings of a request, whole or not at all.
    ///
    /// Dropped half-way (the client hung up), the readings are in the buffer or not; the books balance either way.
    async fn take(&self, request: Request<Incoming>) -> Result<Accepted, IngestError> {
        let (head, body) = request.into_parts();
        let content = match self.admit(&head, &body) {
            Ok(content) => content,
            Err(error) => {
                self.turn_away(&head, body).await;
                return Err(error);
            }
        };
        let mut held = self.bodies.hold();
        let body = body::read(body, self.config.max_body, self.config.request_timeout, &mut held).await?;
        let mut decoded = self.decode(body, content, &mut held).await?;
        // The body is gone, its readings are here.
        held.replace(decoded.readings.bytes_held())?;

        let rejected = decoded.rejections.count();
        if rejected > 0 {
            if content.strictness == Strictness::AllOrNone {
                decoded.rejections.add_strict(decoded.readings.len());
            }
            self.count_rejections(&decoded);
            if content.strictness == Strictness::AllOrNone {
                return Err(IngestError::Strict(decoded.rejections));
            }
            if decoded.readings.is_empty() {
                return Err(IngestError::AllRejected(decoded.rejections));
            }
        }
        let accepted = decoded.readings.len();
        let ack = self.push(decoded.readings, content, held).await?;
        Ok(Accepted { accepted, rejected, ack: ack.name(), errors: faults(decoded.rejections.listed) })
    }

    /// Refuses what needs no body to be refused.
    fn admit(&self, head: &http::request::Parts, body: &Incoming) -> Result<Content, IngestError> {
        if self.draining.is_cancelled() {
            return Err(IngestError::Push(buffer::PushError::Closed));
        }
        let limit = self.config.max_body;
        if body.size_hint().lower() > limit as u64 {
            return Err(IngestError::BodyTooLarge { limit });
        }
        Content::read(head, self.ack, self.acks)
    }

    /// Lets the sender of a refused request finish, unless it waits to be asked for its body.
    async fn turn_away(&self, head: &http::request::Parts, body: Incoming) {
        if !head.headers.contains_key(EXPECT) {
            let deadline = Instant::now() + self.config.request_timeout;
            body::discard(body, self.config.max_body, deadline).await;
        }
    }

    async fn decode(&self, body: Bytes, content: Content, held: &mut Held) -> Result<Decoded, IngestError> {
        let rules = self.rules(content);
        let limit = self.config.max_body;
        if content.encoding == Encoding::Identity && body.len() <= INLINE_BYTES_MAX {
            return decode_within(&body, content, rules, limit);
        }
        // As many at a time as there are cores: more would only hold more memory.
        let _turn = self.decoding.acquire().await.map_err(|_closed| IngestError::Internal)?;
        let mut lent = std::mem::replace(held, self.bodies.hold());
        let work = move || {
            let plain = body::decompress(&body, content.encoding, limit, &mut lent)?;
            Ok((decode_within(&plain, content, rules, limit)?, lent))
        };
        let done = tokio::task::spawn_blocking(work).await;
        let (decoded, lent) = done.map_err(|_panic| IngestError::Internal).and_then(|result| result)?;
        *held = lent;
        Ok(decoded)
    }

    fn rules(&self, content: Content) -> Rules {
        let received_at = Timestamp::from_system(SystemTime::now());
        let nanos = |duration: std::time::Duration| i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX);
        let (future, past) = (self.config.max_future, self.config.max_past);
        Rules {
            unknown_fields: self.config.unknown_fields,
            precision: content.precision,
            received_at,
            earliest: if past.is_zero() {
                Timestamp::MIN
            } else {
                received_at.saturating_add_nanos(-nanos(past))
            },
            latest: if future.is_zero() {
                Timestamp::MAX
            } else {
                received_at.saturating_add_nanos(nanos(future))
            },
            encoded_bytes_max: usize::MAX,
        }
    }

    fn count_rejections(&self, decoded: &Decoded) {
        for ((_, count), counter) in decoded.rejections.counts().zip(&self.rejected) {
            counter.inc_by(count);
        }
    }

    async fn push(
        &self,
        mut readings: crate::reading::Readings,
        content: Content,
        held: Held,
    ) -> Result<buffer::Ack, IngestError> {
        if readings.is_empty() {
            return Ok(content.ack);
        }
        readings.shrink();
        let mut request = buffer::Request {
            readings,
            format: content.format,
            ack: content.ack,
            until_taken: None,
            memo: None,
        };
        if content.ack != buffer::Ack::Delivered {
            let receipt = self.buffer.push(request).await?;
            drop(held);
            return Ok(receipt.ack);
        }
        // While it waits for delivery, its readings count in the buffer, and no longer here.
        request.until_taken = Some(Box::new(held));
        let _place = self.waiting.try_acquire().map_err(|_none_left| IngestError::TooManyWait)?;
        Ok(self.buffer.push(request).await?.ack)
    }
}

/// Decodes a body whose readings may take only so many times its bytes.
fn decode_within(
    body: &[u8],
    content: Content,
    rules: Rules,
    max_body: usize,
) -> Result<Decoded, IngestError> {
    let expanded = body.len().saturating_mul(EXPANSION_OF_BODY).saturating_add(EXPANSION_FREE_BYTES);
    let limit = expanded.min(max_body.saturating_mul(EXPANSION_OF_MAX_BODY).max(EXPANSION_FREE_BYTES));
    let decoded = content.decoder.decode(body, &Rules { encoded_bytes_max: limit, ..rules })?;
    if decoded.overflowed { Err(IngestError::ExpandsTooFar { limit }) } else { Ok(decoded) }
}
