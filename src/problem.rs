//! Problem details (RFC 9457): the error answers of every HTTP surface of the crate.

use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The media type of a problem.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// An error, for the client and its user.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Problem {
    /// The kind of problem; `about:blank` means that the status says it all.
    #[serde(rename = "type")]
    #[schema(example = "about:blank")]
    pub kind: &'static str,
    /// The kind in words, the same for every occurrence.
    pub title: String,
    /// The HTTP status, once more.
    pub status: u16,
    /// This occurrence, and what is allowed.
    pub detail: String,
    /// The readings at fault, at most 100 of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errors: Option<Vec<ReadingFault>>,
    /// How many readings were at fault, listed or not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rejected: Option<u64>,
}

/// The fault of one reading.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ReadingFault {
    /// Place of the reading in the request, from 0.
    pub index: usize,
    /// JSON pointer (RFC 6901) to the fault; lines of NDJSON count like elements of an array.
    #[schema(example = "/3/value")]
    pub pointer: String,
    /// The fault, and what is allowed.
    pub detail: String,
}

impl Problem {
    /// A problem that its status explains.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Problem {
        Problem {
            kind: "about:blank",
            title: status.canonical_reason().unwrap_or("Problem").to_owned(),
            status: status.as_u16(),
            detail: detail.into(),
            errors: None,
            rejected: None,
        }
    }
}

/// Writes the JSON document of an answer, with a line feed at its end so that a terminal's prompt stands below it.
pub fn json_line(value: &impl Serialize) -> Vec<u8> {
    // The answers' own types, whose keys are strings, can always be written.
    let mut line = serde_json::to_vec(value).unwrap_or_default();
    line.push(b'\n');
    line
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, json_line(&self)).into_response();
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        response
    }
}
