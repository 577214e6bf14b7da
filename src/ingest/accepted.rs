//! The answer to a request whose readings were accepted.

use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, StatusCode};
use serde::Serialize;
use utoipa::ToSchema;

use crate::problem::{ReadingFault, json_line};

/// Marks the repetition of the answer to an earlier request with the same key.
const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// What became of the readings of a request.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Accepted)]
pub(super) struct Acceptance {
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

impl IntoResponse for Acceptance {
    fn into_response(self) -> Response {
        let mut response = (StatusCode::ACCEPTED, json_line(&self)).into_response();
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }
}

/// A successful answer: readings were accepted, or the request had none.
#[derive(Debug)]
pub(super) enum Reply {
    /// The readings of this request.
    First(Acceptance),
    /// The readings of an earlier request with the same key.
    Replay(Acceptance),
}

impl Reply {
    /// The answer in the form that `render` gives it.
    pub(super) fn into_response_by(self, render: impl FnOnce(Acceptance) -> Response) -> Response {
        match self {
            Reply::First(accepted) => render(accepted),
            Reply::Replay(accepted) => {
                let mut response = render(accepted);
                response.headers_mut().insert(IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"));
                response
            }
        }
    }
}
