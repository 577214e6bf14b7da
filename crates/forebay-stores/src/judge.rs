//! The meaning of a node's answer beyond its status, for every store.
//!
//! A 2xx counts as a delivery only if a store of this format gave it. A web page (of a proxy, a sign-in portal, the wrong
//! server) does not count, and neither does a body that reports an error: generic reports are recognised here
//! ([`reports_error`]), those of one store in its [`Store::blame`]. An empty body always counts. Only the body decides; its
//! beginning is enough, as it may have been cut off.

use http::header::CONTENT_TYPE;

use crate::report::reports_error;
use crate::{Blame, NodeAnswer, Store};

/// Beginnings of web pages, in lower case, after white space and a byte order mark.
const PAGES: [&str; 2] = ["<!doctype", "<html"];
/// The answer of servers written in Go that expected TLS.
const GO_EXPECTS_TLS: &str = "Client sent an HTTP request to an HTTPS server.";
/// Parts of the web pages of nginx and Apache about how they are called: without TLS, without a client certificate or with one
/// that has ended, is revoked or of another authority, with headers that are too long.
const PAGES_ABOUT_SETUP: [&str; 5] = [
    "<title>400 The plain HTTP request was sent to HTTPS port</title>",
    "<title>400 No required SSL certificate was sent</title>",
    "<title>400 The SSL certificate error</title>",
    "<title>400 Request Header Or Cookie Too Large</title>",
    "speaking plain HTTP to an SSL-enabled server port",
];

/// The meaning of an answer beyond its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// Whose fault the error is.
    pub blame: Blame,
    /// Why a successful status does not count, for people.
    pub why: Option<&'static str>,
}

/// Judges an answer of a store. `None` leaves the judgement to the status.
pub fn judge(store: &dyn Store, answer: &NodeAnswer<'_>) -> Option<Judgement> {
    let of_store = |why| store.blame(answer).map(|blame| Judgement { blame, why });
    if !(200..300).contains(&answer.status) {
        return match is_about_setup(answer) {
            true => Some(Judgement { blame: Blame::Setup, why: None }),
            false => of_store(None),
        };
    }
    let reported = Some("reports an error");
    if answer.body.is_empty() {
        return of_store(reported);
    }
    let page = || is_page(answer.body).then_some("is a web page, and no answer of such a node");
    let error =
        || (is_problem(answer) || reports_error(answer.body.as_bytes())).then_some("reports an error");
    let why = |why| Judgement { blame: Blame::Node, why: Some(why) };
    page().map(why).or_else(|| of_store(reported)).or_else(|| error().map(why))
}

/// Whether a server in front of the store says that it is not called as it has to be. Its status is 400, which would blame
/// the readings. The whole form of the answer counts, since a store may repeat names that a device has sent.
fn is_about_setup(answer: &NodeAnswer<'_>) -> bool {
    let body = answer.body;
    let is_go = body.strip_prefix(GO_EXPECTS_TLS).is_some_and(|rest| rest.trim().is_empty());
    let is_proxy = || is_page(body) && PAGES_ABOUT_SETUP.iter().any(|part| body.contains(part));
    answer.status == 400 && (is_go || is_proxy())
}

/// Whether a body is a web page.
pub fn is_page(body: &str) -> bool {
    let body =
        body.trim_start_matches(|character: char| character.is_whitespace() || character == '\u{feff}');
    PAGES.iter().any(|page| body.get(..page.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(page)))
}

/// Whether the body is declared a problem document (RFC 9457).
fn is_problem(answer: &NodeAnswer<'_>) -> bool {
    let media_type =
        answer.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    media_type.trim_start().to_ascii_lowercase().starts_with("application/problem+")
}

#[cfg(test)]
mod tests;
