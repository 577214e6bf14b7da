//! How a connection goes on after a request: what its answer says of that.

use axum::response::Response;
use http::header::CONNECTION;
use http::{HeaderValue, Method, Request, Version};
use hyper::body::Body;

use super::has_no_end;

/// What a request says of the end of its body and of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ending {
    version: Version,
    body: BodyEnd,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BodyEnd {
    Clear,
    /// HTTP takes the request for one without a body; what its client sends as one would be read as the next request.
    Unclear,
}

impl Ending {
    /// Of a request.
    pub fn of<B: Body>(request: &Request<B>) -> Ending {
        let has_body = matches!(*request.method(), Method::POST | Method::PUT | Method::PATCH);
        let is_unclear = has_body && has_no_end(request.headers(), request.body());
        let body = if is_unclear { BodyEnd::Unclear } else { BodyEnd::Clear };
        Ending { version: request.version(), body }
    }

    /// Has its answer close the connection if the next request could not be found on it; and has an answer that closes
    /// the connection of HTTP/1.0 say so alone: hyper would otherwise add that it stays open.
    pub fn settle(self, response: &mut Response) {
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

    fn settled(method: &str, version: Version, length: Option<&str>, says: Option<&str>) -> Response {
        let mut request = Request::builder().method(method).uri("/query").version(version);
        if let Some(length) = length {
            request = request.header("content-length", length);
        }
        let mut response = Response::default();
        if let Some(says) = says {
            response.headers_mut().insert(CONNECTION, says.parse().expect("a value"));
        }
        Ending::of(&request.body(String::new()).expect("a request")).settle(&mut response);
        response
    }

    #[test]
    fn the_connection_of_a_request_whose_body_has_no_clear_end_is_closed() {
        for method in ["POST", "PUT", "PATCH"] {
            let response = settled(method, Version::HTTP_11, None, None);
            assert_eq!(response.headers()["connection"], "close", "{method}");
            let response = settled(method, Version::HTTP_11, Some("0"), None);
            assert!(response.headers().is_empty(), "{method}");
        }
        for method in ["GET", "HEAD", "OPTIONS", "DELETE"] {
            assert!(settled(method, Version::HTTP_11, None, None).headers().is_empty(), "{method}");
        }
    }

    #[test]
    fn an_answer_that_closes_a_connection_of_http_1_0_is_of_http_1_0_itself() {
        assert_eq!(settled("POST", Version::HTTP_10, None, None).version(), Version::HTTP_10);
        assert_eq!(settled("GET", Version::HTTP_10, None, Some("close")).version(), Version::HTTP_10);
        assert_eq!(settled("GET", Version::HTTP_10, None, None).version(), Version::HTTP_11);
        assert_eq!(settled("POST", Version::HTTP_11, None, None).version(), Version::HTTP_11);
    }
}
