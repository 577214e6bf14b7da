//! The reasons to refuse a request, and the only map from errors to HTTP. `influx` gives the same answers another form.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use forebay_codec::{DECODERS, DecodeError, Reason, Rejection, Rejections};
use forebay_reading::quantity::{format_duration, format_size};
use http::header::{ACCEPT, ACCEPT_ENCODING, CONNECTION, RETRY_AFTER};
use http::{HeaderName, HeaderValue, StatusCode};
use thiserror::Error;

use crate::buffer::{Ack, PushError};
use crate::door::NO_LENGTH;
use crate::problem::{Problem, ReadingFault};

use super::access::AccessError;
use super::encoding::ENCODINGS;
use super::key_header::KeyError;
use super::refusal::whole_seconds;

/// `Retry-After` of refusals that do not depend on how fast the buffer empties.
const RETRY_SOON: Duration = Duration::from_secs(5);
/// `Retry-After` while the first request with the same key is in progress.
const RETRY_UNDER_WAY: Duration = Duration::from_secs(1);

/// Why a request is refused. Nothing of it was accepted, except with [`IngestError::NotDelivered`].
#[derive(Debug, Error)]
pub(super) enum IngestError {
    #[error("{NO_LENGTH}")]
    NoLength,
    #[error("media type `{got}` is not taken here; known: {}{}", media_types(), media_hint(.got))]
    MediaType { got: String },
    #[error(
        "the header `Content-Type` is there more than once; allowed: once, with one of {}",
        media_types()
    )]
    MediaTypeTwice,
    #[error("content encoding `{got}` is not taken here; known: {}", ENCODINGS.names().collect::<Vec<_>>().join(", "))]
    Encoding { got: String },
    #[error("query parameter `{name}` is `{got}`; allowed: {allowed}")]
    Query { name: &'static str, got: String, allowed: String },
    #[error("query parameter `{name}` is not known here, did you mean `{nearest}`? Known: {}", known.join(", "))]
    UnknownQuery { name: String, nearest: &'static str, known: &'static [&'static str] },
    #[error("query parameter `{name}` is there more than once; allowed: once")]
    QueryTwice { name: &'static str },
    #[error("acknowledgement `{got}` cannot be given by this gateway; it can give: {}", ack_names(.allowed))]
    Ack { got: String, allowed: &'static [Ack] },
    #[error(
        "`Idempotency-Key`: {0}; allowed: one line with 1 to 255 bytes of visible ASCII and spaces, in double quotes \
         (`\\\"` for a quote, `\\\\` for a backslash) or bare"
    )]
    Key(KeyError),
    #[error(
        "this `Idempotency-Key` came with another request; use a new key, or send the same body with the same type and \
         parameters"
    )]
    KeyOfOther,
    #[error("the first request with this `Idempotency-Key` is still under way")]
    KeyUnderWay,
    #[error("too many requests with an `Idempotency-Key` are under way")]
    TooManyKeys,
    #[error("the body is larger than {}, the most that is taken (after decompression)", format_size(*.limit as u64))]
    BodyTooLarge { limit: usize },
    #[error(
        "the readings take more than {} once the device and the tags of each are written out; send fewer `values` or \
         fields, or shorter tags, in one request", format_size(*.limit as u64)
    )]
    ExpandsTooFar { limit: usize },
    #[error("the body did not arrive within {}", format_duration(*.limit))]
    BodyTooSlow { limit: Duration },
    #[error("the body broke off: {0}")]
    BodyBroken(String),
    #[error("too many request bodies are being read at the moment")]
    Busy,
    #[error("too many requests wait for delivery already; ask for another acknowledgement, or come again")]
    TooManyWait,
    #[error("the body is not valid {encoding}: {detail}")]
    Compression { encoding: &'static str, detail: String },
    #[error(transparent)]
    Access(#[from] AccessError),
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error("{}", all_rejected(.0))]
    AllRejected(Rejections),
    #[error("{}", strict(.0))]
    Strict(Rejections),
    #[error(
        "a loop: these readings have come through this gateway before (its id is in `Forebay-Via`); nothing of them was \
         taken. Correct the nodes of the gateways, so that none leads back to one before it"
    )]
    Looped,
    #[error("the gateway failed while it read the request; nothing of it was taken")]
    Internal,
    #[error("{0}; nothing of the request was taken")]
    Push(PushError),
    #[error("{0}")]
    NotDelivered(PushError),
}

impl From<PushError> for IngestError {
    fn from(error: PushError) -> IngestError {
        match error {
            PushError::Full { .. }
            | PushError::TooLarge { .. }
            | PushError::Storage { .. }
            | PushError::Closed => IngestError::Push(error),
            PushError::Dropped | PushError::Refused | PushError::Damaged | PushError::Undelivered => {
                IngestError::NotDelivered(error)
            }
        }
    }
}

impl IngestError {
    /// The HTTP status.
    pub(super) fn status(&self) -> StatusCode {
        match self {
            IngestError::Access(error) => error.status(),
            IngestError::AllRejected(rejections) if rejections.are_all_of(Reason::Key) => {
                StatusCode::FORBIDDEN
            }
            IngestError::NoLength => StatusCode::LENGTH_REQUIRED,
            IngestError::MediaType { .. } | IngestError::MediaTypeTwice | IngestError::Encoding { .. } => {
                StatusCode::UNSUPPORTED_MEDIA_TYPE
            }
            IngestError::Query { .. }
            | IngestError::UnknownQuery { .. }
            | IngestError::QueryTwice { .. }
            | IngestError::Key(_)
            | IngestError::BodyBroken(_)
            | IngestError::Compression { .. }
            | IngestError::Decode(_) => StatusCode::BAD_REQUEST,
            IngestError::Ack { .. }
            | IngestError::KeyOfOther
            | IngestError::AllRejected(_)
            | IngestError::Strict(_)
            | IngestError::NotDelivered(PushError::Refused) => StatusCode::UNPROCESSABLE_ENTITY,
            IngestError::KeyUnderWay => StatusCode::CONFLICT,
            IngestError::BodyTooLarge { .. }
            | IngestError::ExpandsTooFar { .. }
            | IngestError::Push(PushError::TooLarge { .. }) => StatusCode::PAYLOAD_TOO_LARGE,
            IngestError::BodyTooSlow { .. } => StatusCode::REQUEST_TIMEOUT,
            IngestError::Busy
            | IngestError::TooManyWait
            | IngestError::TooManyKeys
            | IngestError::Push(_)
            | IngestError::NotDelivered(_) => StatusCode::SERVICE_UNAVAILABLE,
            IngestError::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            IngestError::Looped => StatusCode::LOOP_DETECTED,
        }
    }

    /// The label `reason` of `forebay_requests_refused_total`: one of [`super::refusal::REASONS`].
    pub(super) fn reason(&self) -> &'static str {
        match self {
            IngestError::Access(error) => error.reason(),
            IngestError::AllRejected(rejections) if rejections.are_all_of(Reason::Key) => "key",
            IngestError::MediaType { .. } | IngestError::MediaTypeTwice => "media_type",
            IngestError::Encoding { .. } => "encoding",
            IngestError::NoLength => "length",
            IngestError::Query { .. } | IngestError::UnknownQuery { .. } | IngestError::QueryTwice { .. } => {
                "query"
            }
            IngestError::Ack { .. } => "ack",
            IngestError::Key(_) | IngestError::KeyOfOther | IngestError::KeyUnderWay => "idempotency_key",
            IngestError::BodyTooLarge { .. }
            | IngestError::ExpandsTooFar { .. }
            | IngestError::Push(PushError::TooLarge { .. }) => "too_large",
            IngestError::BodyTooSlow { .. } => "too_slow",
            IngestError::BodyBroken(_) | IngestError::Compression { .. } | IngestError::Decode(_) => "body",
            IngestError::AllRejected(_) | IngestError::Strict(_) => "readings",
            IngestError::Busy | IngestError::TooManyWait | IngestError::TooManyKeys => "busy",
            IngestError::Push(PushError::Full { .. }) => "full",
            IngestError::Push(PushError::Storage { .. }) => "storage",
            IngestError::Push(PushError::Closed) => "stopping",
            IngestError::Push(_) | IngestError::NotDelivered(_) => "not_delivered",
            IngestError::Internal => "internal",
            IngestError::Looped => "loop",
        }
    }

    /// Whether the sender must correct the request, and no single reading is at fault.
    pub(super) fn is_of_sender(&self) -> bool {
        let is_other = matches!(
            self,
            IngestError::AllRejected(_)
                | IngestError::Strict(_)
                | IngestError::Push(PushError::Full { .. } | PushError::Storage { .. } | PushError::Closed)
                | IngestError::NotDelivered(_)
                | IngestError::KeyUnderWay
                | IngestError::Internal
        );
        !is_other
    }

    /// The header that belongs to this error, if there is one.
    pub(super) fn header(&self) -> Option<(HeaderName, HeaderValue)> {
        match self {
            IngestError::Access(error) => error.header(),
            IngestError::MediaType { .. } | IngestError::MediaTypeTwice => {
                Some((ACCEPT, text(&media_types())))
            }
            IngestError::Encoding { .. } => {
                Some((ACCEPT_ENCODING, text(&ENCODINGS.names().collect::<Vec<_>>().join(", "))))
            }
            // A retry would not help: nodes would refuse the same readings.
            IngestError::NotDelivered(PushError::Refused) => None,
            // No further request can be read from this connection: the rest of a slow body is still to come, and a body
            // without a known end must not be read as the next request.
            IngestError::BodyTooSlow { .. } | IngestError::NoLength => {
                Some((CONNECTION, HeaderValue::from_static("close")))
            }
            IngestError::KeyUnderWay => Some((RETRY_AFTER, whole_seconds(RETRY_UNDER_WAY))),
            IngestError::Push(PushError::Full { retry_after } | PushError::Storage { retry_after, .. }) => {
                Some((RETRY_AFTER, whole_seconds(*retry_after)))
            }
            IngestError::Busy
            | IngestError::TooManyWait
            | IngestError::TooManyKeys
            | IngestError::Push(PushError::Closed)
            | IngestError::NotDelivered(_) => Some((RETRY_AFTER, whole_seconds(RETRY_SOON))),
            _ => None,
        }
    }
}

impl IntoResponse for IngestError {
    fn into_response(self) -> Response {
        let mut problem = Problem::new(self.status(), self.to_string());
        let header = self.header();
        if let IngestError::AllRejected(rejections) | IngestError::Strict(rejections) = self {
            problem.rejected = Some(rejections.count_at_fault());
            problem.errors = Some(faults(rejections.listed));
        }
        let mut response = problem.into_response();
        response.headers_mut().extend(header);
        response
    }
}

/// The rejections in the form of answers.
pub(super) fn faults(listed: Vec<Rejection>) -> Vec<ReadingFault> {
    let fault = |Rejection { index, pointer, detail, .. }| ReadingFault { index, pointer, detail };
    listed.into_iter().map(fault).collect()
}

fn all_rejected(rejections: &Rejections) -> String {
    match rejections.listed.first() {
        Some(first) if rejections.count() == 1 => first.detail.clone(),
        Some(first) => {
            format!("all {} readings were turned away; the first: {}", rejections.count(), first.detail)
        }
        None => "every reading was turned away".to_owned(),
    }
}

fn strict(rejections: &Rejections) -> String {
    let count = rejections.count_at_fault();
    let subject = if count == 1 { "reading was" } else { "readings were" };
    let first = rejections.listed.first().map(|first| format!("; the first: {}", first.detail));
    format!(
        "{count} {subject} turned away, and the request is strict: nothing was taken{}",
        first.unwrap_or_default()
    )
}

/// Advice for a client that probably meant another media type.
fn media_hint(got: &str) -> &'static str {
    match got.to_ascii_lowercase().as_str() {
        "application/x-www-form-urlencoded" => {
            "; `curl -d` says so unless it is told otherwise: add `-H 'Content-Type: application/json'`"
        }
        "text/plain" => "; line protocol goes to `/api/v2/write` or `/write`",
        _ => "",
    }
}

fn media_types() -> String {
    let types: Vec<_> =
        DECODERS.members.iter().flat_map(|(_, decoder)| decoder.media_types()).copied().collect();
    types.join(", ")
}

fn ack_names(acks: &[Ack]) -> String {
    acks.iter().map(|ack| ack.name()).collect::<Vec<_>>().join(", ")
}

fn text(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("the names in the tables are visible ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storage_failure_is_answered_with_its_reason_and_retry_after() {
        let retry_after = Duration::from_secs(7);
        let error = IngestError::from(PushError::Storage { reason: "no space left".to_owned(), retry_after });
        assert_eq!(
            error.to_string(),
            "readings cannot be stored now: no space left; nothing of the request was taken"
        );
        let response = error.into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[RETRY_AFTER], "7");
    }

    #[test]
    fn a_strict_refusal_says_how_many_readings_are_at_fault_and_that_nothing_was_taken() {
        let message = |at_fault: u64| {
            let mut rejections = Rejections::default();
            for index in 0..at_fault {
                let describe = || (String::new(), format!("fault {index}"));
                rejections.add(usize::try_from(index).expect("few"), Reason::Field, 1, describe);
            }
            rejections.count_unlisted(Reason::Strict, 2);
            IngestError::Strict(rejections).to_string()
        };
        let rest = "turned away, and the request is strict: nothing was taken; the first: fault 0";
        assert_eq!(message(1), format!("1 reading was {rest}"));
        assert_eq!(message(2), format!("2 readings were {rest}"));
        assert_eq!(message(150), format!("150 readings were {rest}"));
    }

    #[test]
    fn readings_that_nodes_refused_are_answered_with_422_and_no_retry_after() {
        let error = IngestError::from(PushError::Refused);
        let text = error.to_string();
        assert!(
            text.starts_with("nodes refused readings of the request, which are kept as dead letters"),
            "{text}"
        );
        assert!(!text.contains("nothing of the request was taken"), "{text}");
        let response = error.into_response();
        assert_eq!(response.status(), StatusCode::UNPROCESSABLE_ENTITY);
        assert!(!response.headers().contains_key(RETRY_AFTER));
    }
}
