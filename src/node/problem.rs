//! Errors as `application/problem+json` (RFC 9457).

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::store::StoreError;
use crate::codec::Rejections;

/// An answer that says what is wrong, and what to do.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    detail: String,
    header: Option<(HeaderName, HeaderValue)>,
    errors: Vec<ListedError>,
}

/// One reading that breaks the rules, as in the gateway's answers.
#[derive(Debug, Serialize)]
struct ListedError {
    index: usize,
    pointer: String,
    detail: String,
}

#[derive(Serialize)]
struct Document<'a> {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    detail: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [ListedError],
}

impl Problem {
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Problem {
        Problem { status, detail: detail.into(), header: None, errors: Vec::new() }
    }

    pub(super) fn with_header(self, name: HeaderName, value: &'static str) -> Problem {
        Problem { header: Some((name, HeaderValue::from_static(value))), ..self }
    }

    /// A batch with readings that break the rules.
    pub(super) fn rejected(rejections: Rejections) -> Problem {
        let detail =
            format!("readings that break the rules: {}; nothing of the batch was stored", rejections.count());
        let errors = rejections.listed.into_iter().map(|rejection| ListedError {
            index: rejection.index,
            pointer: rejection.pointer,
            detail: rejection.detail,
        });
        Problem { errors: errors.collect(), ..Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail) }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Problem {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()).with_header(header::RETRY_AFTER, "1")
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let document = Document {
            r#type: "about:blank",
            title: self.status.canonical_reason().unwrap_or_default(),
            status: self.status.as_u16(),
            detail: &self.detail,
            errors: &self.errors,
        };
        let body = serde_json::to_vec(&document).expect("texts and numbers are written to memory");
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status;
        let media_type = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, media_type);
        response.headers_mut().extend(self.header);
        response
    }
}
