//! The node's error answers: a problem, and sometimes a header field.

use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use forebay_codec::Rejections;

use super::database::StoreError;
use crate::problem::{Problem, ReadingFault};

/// An error answer: what is wrong, and what to do.
#[derive(Debug)]
pub(super) struct NodeRefusal {
    /// Boxed to keep results small.
    problem: Box<Problem>,
    /// A header field beside it, with its name in lower case.
    header: Option<(&'static str, &'static str)>,
}

impl NodeRefusal {
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> NodeRefusal {
        NodeRefusal { problem: Box::new(Problem::new(status, detail)), header: None }
    }

    /// Adds a header field; `name` is in lower case.
    pub(super) fn with_header(self, name: &'static str, value: &'static str) -> NodeRefusal {
        NodeRefusal { header: Some((name, value)), ..self }
    }

    /// The refusal of a batch with readings that break the rules.
    pub(super) fn rejected(rejections: Rejections) -> NodeRefusal {
        let rejected = rejections.count();
        let detail = format!("readings that break the rules: {rejected}; nothing of the batch was stored");
        let faults = rejections.listed.into_iter().map(|rejection| ReadingFault {
            index: rejection.index,
            pointer: rejection.pointer,
            detail: rejection.detail,
        });
        let problem = Problem {
            errors: Some(faults.collect()),
            rejected: Some(rejected),
            ..Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
        };
        NodeRefusal { problem: Box::new(problem), header: None }
    }
}

impl From<StoreError> for NodeRefusal {
    fn from(error: StoreError) -> NodeRefusal {
        NodeRefusal::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()).with_header("retry-after", "1")
    }
}

impl IntoResponse for NodeRefusal {
    fn into_response(self) -> Response {
        let mut response = self.problem.into_response();
        if let Some((name, value)) = self.header {
            response.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        response
    }
}
