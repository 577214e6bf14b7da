//! Who may come in: what every request is asked before its path is looked at, on the gateway and on the embedded node.
//!
//! All of it is read from the head of the request, in this order:
//!
//! | what | answer |
//! |---|---|
//! | `Transfer-Encoding` names `chunked` twice | 400 |
//! | it names another coding before `chunked` | 501 |
//! | `Host` is missing (HTTP/1.1), there twice, or none; or the absolute target has no such host | 400 |
//! | the host is no address, not `localhost` and not listed, where names are looked at; `/healthz` and `/readyz` are exempt | 421 |
//! | the request comes from a web page of another origin that is not listed; a navigation to the page is exempt | 403 |
//!
//! **Names are looked at** on a listener on loopback, and on any once names are listed. Without that, a web page whose
//! name is made to mean 127.0.0.1 (DNS rebinding) would be of the gateway's own origin, and could read and write.
//!
//! **An origin is the request's own** if it is `http` at the request's own host and port. Browsers name it with
//! everything that a page could change something by; a request without `Origin` is a program's, or a page's that can
//! neither change nor read anything by it.
//!
//! hyper has refused before what has no clear length (RFC 9112, section 6.3): lengths that differ, a
//! `Transfer-Encoding` whose last coding is not `chunked`, or any with HTTP/1.0. Of a length beside a
//! `Transfer-Encoding` it believes the latter, and closes the connection after the answer.

mod ending;
mod host;
mod origin;

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::OnceLock;

use axum::response::{IntoResponse as _, Response};
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, CONTENT_LENGTH,
    HOST, ORIGIN, TRANSFER_ENCODING, VARY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Version};
use hyper::body::Body;

pub use ending::Ending;
pub use host::Host;
pub use origin::Origin;

/// Paths that may be asked for under any name: probes of balancers and orchestrators use what they have.
const EXEMPT: [&str; 2] = ["/healthz", "/readyz"];
/// The path that a link on another site may lead to.
const NAVIGABLE: &str = "/";
/// Longest piece of a header that a refusal repeats, in characters.
const QUOTE_CHARS_MAX: usize = 100;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const REQUEST_PRIVATE_NETWORK: HeaderName = HeaderName::from_static("access-control-request-private-network");
const ALLOW_PRIVATE_NETWORK: HeaderName = HeaderName::from_static("access-control-allow-private-network");

/// What a listed page may ask for, what it may send along, and what it may see of an answer.
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST");
const HEADERS: HeaderValue =
    HeaderValue::from_static("authorization, x-api-key, content-type, content-encoding, idempotency-key");
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "retry-after, ratelimit, ratelimit-policy, idempotency-replayed, allow, accept, accept-encoding, www-authenticate, \
     x-influxdb-error",
);
/// Seconds for which a browser remembers the answer to a preflight.
const PREFLIGHT_SECONDS: HeaderValue = HeaderValue::from_static("600");

/// Who else may come in, as the settings say.
#[derive(Clone, Debug, Default)]
pub struct DoorConfig {
    /// `server.origins`: the web pages that may use the gateway.
    pub origins: Vec<Origin>,
    /// `server.hosts`: the names under which the gateway is asked for.
    pub hosts: Vec<Host<'static>>,
}

/// Decides which requests come in.
#[derive(Debug)]
pub struct Door {
    config: DoorConfig,
    names: Names,
    /// What to do about a name that is not known.
    advice: &'static str,
    /// Whose pages may use the address.
    admitted: &'static str,
    /// The `Host` of the first request that was let in. Most clients send the same one, which is not read again then.
    usual_host: OnceLock<HeaderValue>,
}

/// Whether the names of hosts are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Names {
    Any,
    Known,
}

/// Why a request does not come in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// 400, 403, 421 or 501.
    pub status: StatusCode,
    /// What was wrong, and what is allowed.
    pub detail: String,
}

impl Refusal {
    fn new(status: StatusCode, detail: impl Into<String>) -> Refusal {
        Refusal { status, detail: detail.into() }
    }
}

/// A request that came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Visitor {
    /// The listed origin that its page is of.
    origin: Option<HeaderValue>,
}

impl Door {
    /// The door of a gateway whose listener is bound to `address`.
    pub fn new(config: DoorConfig, address: SocketAddr) -> Door {
        let is_loopback = address.ip().to_canonical().is_loopback();
        let names = if is_loopback || !config.hosts.is_empty() { Names::Known } else { Names::Any };
        let advice = "use an IP address or `localhost`, or list the name in `server.hosts`";
        let admitted = "`server.origins` lists those that may";
        Door { config, names, advice, admitted, usual_host: OnceLock::new() }
    }

    /// The door of an embedded node, which has no such settings.
    pub fn of_node(address: SocketAddr) -> Door {
        let advice = "use an IP address or `localhost`";
        let admitted = "pages of other sites never may; ask the gateway, or use a program";
        Door { advice, admitted, ..Door::new(DoorConfig::default(), address) }
    }

    /// Decides on a request by its head.
    ///
    /// # Errors
    ///
    /// [`Refusal`] says what is wrong with it. Close its connection: what it may still send is not to be trusted.
    pub fn admit<B>(&self, request: &Request<B>) -> Result<Visitor, Refusal> {
        if self.is_usual(request) {
            return Ok(Visitor { origin: None });
        }
        check_codings(request.headers())?;
        let host = self.host(request)?;
        let origin = self.origin(request, host.as_ref())?;
        // A host that came in because its path is exempt is not let in elsewhere.
        if request.uri().authority().is_none() && host.is_some_and(|host| self.knows(&host)) {
            request.headers().get(HOST).map(|line| self.usual_host.get_or_init(|| line.clone()));
        }
        Ok(Visitor { origin: origin.cloned() })
    }

    /// Whether a request names the usual host, and has nothing else that is looked at here: one pass over its headers.
    fn is_usual<B>(&self, request: &Request<B>) -> bool {
        let Some(usual) = self.usual_host.get() else { return false };
        let mut hosts = 0;
        for (name, value) in request.headers() {
            if *name == HOST {
                hosts += 1;
                if value != usual {
                    return false;
                }
            } else if *name == TRANSFER_ENCODING || *name == ORIGIN || *name == SEC_FETCH_SITE {
                return false;
            }
        }
        hosts == 1 && request.uri().authority().is_none()
    }

    /// The host that a request is for; `None` for one of HTTP/1.0 that does not say.
    fn host<'a, B>(&self, request: &'a Request<B>) -> Result<Option<Host<'a>>, Refusal> {
        let bad = |detail: String| Refusal::new(StatusCode::BAD_REQUEST, detail);
        let mut lines = request.headers().get_all(HOST).iter();
        let line = lines.next();
        if lines.next().is_some() {
            return Err(bad("the header `Host` is there more than once; allowed: once".to_owned()));
        }
        if line.is_none() && request.version() >= Version::HTTP_11 {
            return Err(bad(
                "the header `Host` is missing, which every request of HTTP/1.1 must have".to_owned()
            ));
        }
        let parse = |what: &str, text: &'a [u8]| {
            std::str::from_utf8(text).ok().and_then(Host::parse).ok_or_else(|| {
                let got = shown(text);
                bad(format!("{what} is `{got}`; allowed: a name or an IP address, with a port or without"))
            })
        };
        let host = line.map(|line| parse("the header `Host`", line.as_bytes())).transpose()?;
        // An absolute target goes before the header (RFC 9112, section 3.2.2).
        let host = match request.uri().authority() {
            Some(authority) => {
                Some(parse("the host of the request's target", authority.as_str().as_bytes())?)
            }
            None => host,
        };
        match &host {
            Some(host) if !self.knows(host) && !EXEMPT.contains(&request.uri().path()) => {
                Err(self.misdirected(request))
            }
            _ => Ok(host),
        }
    }

    fn knows(&self, host: &Host<'_>) -> bool {
        self.names == Names::Any
            || host.is_address_or_localhost()
            || self.config.hosts.iter().any(|listed| listed.stands_for(host))
    }

    fn misdirected<B>(&self, request: &Request<B>) -> Refusal {
        let header = || request.headers().get(HOST).map(|line| shown(line.as_bytes())).unwrap_or_default();
        let asked = request.uri().authority().map_or_else(header, |host| shown(host.as_str().as_bytes()));
        let detail = format!("nothing is known here of the host `{asked}`; {}", self.advice);
        Refusal::new(StatusCode::MISDIRECTED_REQUEST, detail)
    }

    /// The listed origin that a request comes from; `None` if it comes from no page, or from one of our own.
    fn origin<'a, B>(
        &self,
        request: &'a Request<B>,
        host: Option<&Host<'_>>,
    ) -> Result<Option<&'a HeaderValue>, Refusal> {
        let headers = request.headers();
        let is_cross_site = has(headers, &SEC_FETCH_SITE, "cross-site");
        let line = headers.get(ORIGIN);
        if line.is_none() && !is_cross_site || is_navigation(request) {
            return Ok(None);
        }
        let is_single = headers.get_all(ORIGIN).iter().nth(1).is_none();
        let text = line.filter(|_| is_single).and_then(|line| line.to_str().ok());
        let origin = text.and_then(Origin::parse);
        if origin.as_ref().is_some_and(|origin| self.config.origins.contains(origin)) {
            return Ok(line);
        }
        let is_own = origin.is_some_and(|origin| host.is_some_and(|host| origin.is_http_at(host)));
        if is_own && !is_cross_site { Ok(None) } else { Err(self.foreign(line)) }
    }

    fn foreign(&self, origin: Option<&HeaderValue>) -> Refusal {
        let from = match origin {
            Some(line) => format!("from the web page of the origin `{}`", shown(line.as_bytes())),
            None => "from the web page of another site".to_owned(),
        };
        let detail = format!("the request comes {from}, which may not use this address; {}", self.admitted);
        Refusal::new(StatusCode::FORBIDDEN, detail)
    }
}

/// Whether somebody follows a link to the page, or opens it.
fn is_navigation<B>(request: &Request<B>) -> bool {
    request.method() == Method::GET
        && request.uri().path() == NAVIGABLE
        && has(request.headers(), &SEC_FETCH_MODE, "navigate")
}

fn has(headers: &HeaderMap, name: &HeaderName, word: &str) -> bool {
    headers.get_all(name).iter().any(|value| value.as_bytes().eq_ignore_ascii_case(word.as_bytes()))
}

/// Looks at the codings of `Transfer-Encoding`, of which hyper has seen that the last one is `chunked`.
fn check_codings(headers: &HeaderMap) -> Result<(), Refusal> {
    if !headers.contains_key(TRANSFER_ENCODING) {
        return Ok(());
    }
    let lines = headers.get_all(TRANSFER_ENCODING).iter();
    let text = lines.map(|line| String::from_utf8_lossy(line.as_bytes())).collect::<Vec<_>>().join(",");
    let codings: Vec<_> = text.split(',').map(str::trim).filter(|coding| !coding.is_empty()).collect();
    if codings.iter().all(|coding| coding.eq_ignore_ascii_case("chunked")) {
        let detail = "`Transfer-Encoding` names `chunked` more than once; allowed: once, as the last coding";
        let is_good = codings.len() == 1;
        return if is_good { Ok(()) } else { Err(Refusal::new(StatusCode::BAD_REQUEST, detail)) };
    }
    if !codings.last().is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
        let detail =
            "`Transfer-Encoding` does not end with `chunked`, so that nobody knows where the body ends";
        return Err(Refusal::new(StatusCode::BAD_REQUEST, detail));
    }
    let detail = format!(
        "`Transfer-Encoding: {}` is not known here; allowed: `chunked` alone; compressed bodies are named by `Content-Encoding`",
        shown(text.as_bytes())
    );
    Err(Refusal::new(StatusCode::NOT_IMPLEMENTED, detail))
}

/// What is answered, with 411, to a request with a body that does not say where it ends.
pub const NO_LENGTH: &str = "the request says neither `Content-Length` nor `Transfer-Encoding: chunked`, so that nobody knows where its body ends; \
     an empty body has `Content-Length: 0`";

/// Whether a request says where its body ends. HTTP takes the body of one that does not for an empty one (RFC 9112,
/// section 6.3), whatever its client sends then.
pub fn says_length(headers: &HeaderMap) -> bool {
    headers.contains_key(CONTENT_LENGTH) || headers.contains_key(TRANSFER_ENCODING)
}

/// Whether nobody knows where the body of a request ends. Of a body of which something is to come, hyper does: the
/// headers of most requests need no look.
pub fn has_no_end(headers: &HeaderMap, body: &impl Body) -> bool {
    body.is_end_stream() && !says_length(headers)
}

/// Text of a header as a refusal may repeat it: short, and visible.
fn shown(bytes: &[u8]) -> String {
    let mut text = String::new();
    for character in String::from_utf8_lossy(bytes).chars().take(QUOTE_CHARS_MAX) {
        match character {
            ' '..='~' => text.push(character),
            other => {
                // Writing to a string does not fail.
                let _ = write!(text, "{}", other.escape_unicode());
            }
        }
    }
    text
}

impl Visitor {
    /// The answer to a preflight, if the request is one: what a listed page may do. It needs no key.
    pub fn preflight<B>(&self, request: &Request<B>) -> Option<Response> {
        let headers = request.headers();
        if request.method() != Method::OPTIONS || !headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD) {
            return None;
        }
        self.origin.as_ref()?;
        let mut response = StatusCode::NO_CONTENT.into_response();
        let answer = response.headers_mut();
        answer.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
        answer.insert(ACCESS_CONTROL_ALLOW_HEADERS, HEADERS);
        answer.insert(ACCESS_CONTROL_MAX_AGE, PREFLIGHT_SECONDS);
        if has(headers, &REQUEST_PRIVATE_NETWORK, "true") {
            answer.insert(ALLOW_PRIVATE_NETWORK, HeaderValue::from_static("true"));
        }
        self.dress(&mut response);
        Some(response)
    }

    /// Adds what every answer to it has: what browsers must not guess, and what its page may see.
    pub fn dress(&self, response: &mut Response) {
        dress(response);
        if let Some(origin) = &self.origin {
            let headers = response.headers_mut();
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
            headers.append(VARY, HeaderValue::from_static("origin"));
        }
    }
}

/// Adds what every answer has, also a refusal: browsers must not guess another type than the one that is said.
pub fn dress(response: &mut Response) {
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
}

#[cfg(test)]
mod tests;
