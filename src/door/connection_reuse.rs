//! Whether a connection can be used again after a request, and the answer's headers about it.

use axum::response::Response;
use http::header::CONNECTION;
use http::{HeaderValue, Method, Request, Version};
use hyper::body::Body;

use super::has_no_end;

/// Decides whether the connection of a request stays open after the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionReuse {
    version: Version,
    body: BodyEnd,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BodyEnd {
    Clear,
    /// HTTP takes the body for empty, so any bytes of it would be read as the next request.
    Unclear,
}

impl ConnectionReuse {
    /// Reads it from a request.
    pub fn of<B: Body>(request: &Request<B>) -> ConnectionReuse {
        let has_body = matches!(*request.method(), Method::POST | Method::PUT | Method::PATCH);
        let is_unclear = has_body && has_no_end(request.headers(), request.body());
        let body = if is_unclear { BodyEnd::Unclear } else { BodyEnd::Clear };
        ConnectionReuse { version: request.version(), body }
    }

    /// Makes the answer close the connection if the start of a next request would be unknown.
    ///
    /// An answer that closes an HTTP/1.0 connection also becomes HTTP/1.0, because hyper would otherwise add
    /// `Connection: keep-alive` to it.
    pub fn apply(self, response: &mut Response) {
        if self.body == BodyEnd::Unclear {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        let closes = || response.headers().get(CONNECTION).is_some_and(|value| value == "close");
        if self.version == Version::HTTP_10 && closes() {
            *response.version_mut() = Version::HTTP_10;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(method: &str, version: Version, length: Option<&str>, says: Option<&str>) -> Response {
        let mut request = Request::builder().method(method).uri("/query").version(version);
        if let Some(length) = length {
            request = request.header("content-length", length);
        }
        let mut response = Response::default();
        if let Some(says) = says {
            response.headers_mut().insert(CONNECTION, says.parse().expect("a value"));
        }
        ConnectionReuse::of(&request.body(String::new()).expect("a request")).apply(&mut response);
        response
    }

    #[test]
    fn a_body_of_unknown_end_closes_its_connection() {
        for method in ["POST", "PUT", "PATCH"] {
            let response = answered(method, Version::HTTP_11, None, None);
            assert_eq!(response.headers()["connection"], "close", "{method}");
            let response = answered(method, Version::HTTP_11, Some("0"), None);
            assert!(response.headers().is_empty(), "{method}");
        }
        for method in ["GET", "HEAD", "OPTIONS", "DELETE"] {
            assert!(answered(method, Version::HTTP_11, None, None).headers().is_empty(), "{method}");
        }
    }

    #[test]
    fn an_answer_that_closes_an_http_1_0_connection_is_http_1_0_itself() {
        assert_eq!(answered("POST", Version::HTTP_10, None, None).version(), Version::HTTP_10);
        assert_eq!(answered("GET", Version::HTTP_10, None, Some("close")).version(), Version::HTTP_10);
        assert_eq!(answered("GET", Version::HTTP_10, None, None).version(), Version::HTTP_11);
        assert_eq!(answered("POST", Version::HTTP_11, None, None).version(), Version::HTTP_11);
    }
}
