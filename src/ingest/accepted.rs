//! What is told of readings that were accepted.

use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, StatusCode};
use serde::Serialize;
use utoipa::ToSchema;

use crate::problem::{ReadingFault, json_line};

/// Says that an answer was given before, to the first request with the same key.
const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// What became of the readings of a request.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Accepted {
    /// How many readings were accepted.
    pub(super) accepted: usize,
    /// How many were turned away.
    pub(super) rejected: u64,
    /// What the acknowledgement promises: `memory`, `disk` or `delivered`.
    #[schema(example = "memory")]
    pub(super) ack: &'static str,
    /// Why readings were turned away, at most 100 of them.
    pub(super) errors: Vec<ReadingFault>,
}

impl IntoResponse for Accepted {
    fn into_response(self) -> Response {
        let mut response = (StatusCode::ACCEPTED, json_line(&self)).into_response();
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }
}

/// A request of which readings were accepted, or that had none.
#[derive(Debug)]
pub(super) enum Taken {
    /// Its readings were accepted now.
    Now(Accepted),
    /// They were accepted before, from a request with the same key.
    Before(Accepted),
}

impl Taken {
    /// The answer, as `tell` puts it.
    pub(super) fn told_by(self, tell: impl FnOnce(Accepted) -> Response) -> Response {
        match self {
            Taken::Now(accepted) => tell(accepted),
            Taken::Before(accepted) => {
                let mut response = tell(accepted);
                response.headers_mut().insert(IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"));
                response
            }
        }
    }
}
