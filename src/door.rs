//! Admission: checks on every request before routing, for the gateway and for the embedded node.
//!
//! The checks read only the head of the request, in this order:
//!
//! | fault | answer |
//! |---|---|
//! | `Transfer-Encoding` names `chunked` twice | 400 |
//! | it names another coding before `chunked` | 501 |
//! | `Host` is missing (HTTP/1.1), repeated or malformed, or the host of the absolute target is malformed | 400 |
//! | the host is a name other than `localhost` and not listed, on a listener that checks names; `/healthz` and `/readyz` are exempt | 421 |
//! | a web page of another origin sent the request, and the origin is not listed; a navigation to `/` is exempt | 403 |
//!
//! **Host names are checked** on a loopback listener, and on any listener if `server.hosts` lists names. Otherwise a web
//! page whose name is pointed at 127.0.0.1 (DNS rebinding) would share the gateway's origin and could read and write.
//!
//! **A request is of the same origin** if its `Origin` is `http`, or `https` behind TLS, at its own host and port. Browsers send `Origin` with
//! every request by which a page could change something. A request without it comes from a program, or from a page that
//! can neither change anything by it nor read the answer.
//!
//! hyper has already refused requests without a clear length (RFC 9112, section 6.3): lengths that differ, a
//! `Transfer-Encoding` whose last coding is not `chunked`, and any `Transfer-Encoding` with HTTP/1.0. If a length stands
//! beside a `Transfer-Encoding`, hyper ignores the length and closes the connection after the answer.

mod connection_reuse;
mod forwarded;
mod host;
mod web_origin;

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

pub use connection_reuse::ConnectionReuse;
pub use forwarded::{client_address, network_of};
pub use host::Host;
pub use web_origin::WebOrigin;

/// Paths that answer under any host name, because probes of balancers and orchestrators often cannot set one.
const EXEMPT: [&str; 2] = ["/healthz", "/readyz"];
/// The path that links on other sites may lead to.
const NAVIGABLE: &str = "/";
/// Longest part of a header that a refusal quotes, in characters.
const QUOTE_CHARS_MAX: usize = 100;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const REQUEST_PRIVATE_NETWORK: HeaderName = HeaderName::from_static("access-control-request-private-network");
const ALLOW_PRIVATE_NETWORK: HeaderName = HeaderName::from_static("access-control-allow-private-network");

/// Methods that a page of a listed origin may use.
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST");
/// Request headers that such a page may send.
const HEADERS: HeaderValue =
    HeaderValue::from_static("authorization, x-api-key, content-type, content-encoding, idempotency-key");
/// Response headers that such a page may read.
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "retry-after, ratelimit, ratelimit-policy, idempotency-replayed, allow, accept, accept-encoding, www-authenticate, \
     x-influxdb-error",
);
/// Seconds for which a browser remembers the answer to a preflight.
const PREFLIGHT_SECONDS: HeaderValue = HeaderValue::from_static("600");

/// Settings of the door.
#[derive(Clone, Debug, Default)]
pub struct DoorConfig {
    /// `server.origins`: the web pages that may use the gateway.
    pub origins: Vec<WebOrigin>,
    /// `server.hosts`: the names under which clients reach the gateway.
    pub hosts: Vec<Host<'static>>,
}

/// Admits or refuses each request.
#[derive(Debug)]
pub struct Door {
    config: DoorConfig,
    host_check: HostCheck,
    /// Advice in the refusal of an unknown host name.
    host_advice: &'static str,
    /// Advice in the refusal of a foreign origin.
    origin_advice: &'static str,
    /// The scheme that requests come over: `http` or `https`.
    scheme: &'static str,
    /// The `Host` of the first admitted request. Most clients send the same one, so it need not be parsed again.
    usual_host: OnceLock<HeaderValue>,
}

/// Which host names a request may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HostCheck {
    AnyName,
    KnownNames,
}

/// Why a request was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DoorRefusal {
    /// 400, 403, 421 or 501.
    pub status: StatusCode,
    /// The fault, and what is allowed.
    pub detail: String,
}

impl DoorRefusal {
    fn new(status: StatusCode, detail: impl Into<String>) -> DoorRefusal {
        DoorRefusal { status, detail: detail.into() }
    }
}

/// The sender of an admitted request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Visitor {
    /// The listed origin of the page that sent it; `None` for programs and for pages of the same origin.
    origin: Option<HeaderValue>,
}

impl Door {
    /// Creates the door of a gateway whose listener is bound to `address`.
    pub fn new(config: DoorConfig, address: SocketAddr) -> Door {
        let is_loopback = address.ip().to_canonical().is_loopback();
        let is_checked = is_loopback || !config.hosts.is_empty();
        Door {
            config,
            host_check: if is_checked { HostCheck::KnownNames } else { HostCheck::AnyName },
            host_advice: "use an IP address or `localhost`, or list the name in `server.hosts`",
            origin_advice: "`server.origins` lists those that may",
            scheme: "http",
            usual_host: OnceLock::new(),
        }
    }

    /// The same door for a listener that speaks HTTPS.
    #[must_use]
    pub fn with_tls(self) -> Door {
        Door { scheme: "https", ..self }
    }

    /// Creates the door of an embedded node, which has no list of origins or hosts.
    pub fn of_node(address: SocketAddr) -> Door {
        let host_advice = "use an IP address or `localhost`";
        let origin_advice = "pages of other sites never may; ask the gateway, or use a program";
        Door { host_advice, origin_advice, ..Door::new(DoorConfig::default(), address) }
    }

    /// Admits or refuses a request by its head.
    ///
    /// # Errors
    ///
    /// [`DoorRefusal`] says what is wrong. Close the connection then: the rest of its bytes cannot be trusted.
    pub fn admit<B>(&self, request: &Request<B>) -> Result<Visitor, DoorRefusal> {
        if self.is_usual(request) {
            return Ok(Visitor { origin: None });
        }
        check_codings(request.headers())?;
        let host = self.host(request)?;
        let origin = self.origin(request, host.as_ref())?;
        // A host that was admitted only because its path is exempt must not become the usual one.
        if request.uri().authority().is_none() && host.is_some_and(|host| self.knows(&host)) {
            request.headers().get(HOST).map(|line| self.usual_host.get_or_init(|| line.clone()));
        }
        Ok(Visitor { origin: origin.cloned() })
    }

    /// Whether a request names the usual host and has no other header that the door checks, in one pass over its headers.
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

    /// The host that a request is for; `None` for an HTTP/1.0 request that names no host.
    fn host<'a, B>(&self, request: &'a Request<B>) -> Result<Option<Host<'a>>, DoorRefusal> {
        let bad = |detail: String| DoorRefusal::new(StatusCode::BAD_REQUEST, detail);
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
                let got = quoted(text);
                bad(format!("{what} is `{got}`; allowed: a name or an IP address, with a port or without"))
            })
        };
        let host = line.map(|line| parse("the header `Host`", line.as_bytes())).transpose()?;
        // An absolute target takes precedence over the header (RFC 9112, section 3.2.2).
        let host = match request.uri().authority() {
            Some(authority) => {
                Some(parse("the host of the request's target", authority.as_str().as_bytes())?)
            }
            None => host,
        };
        match &host {
            Some(host) if !self.knows(host) && !EXEMPT.contains(&request.uri().path()) => {
                Err(self.unknown_host(request))
            }
            _ => Ok(host),
        }
    }

    fn knows(&self, host: &Host<'_>) -> bool {
        self.host_check == HostCheck::AnyName
            || host.is_address_or_localhost()
            || self.config.hosts.iter().any(|listed| listed.covers(host))
    }

    fn unknown_host<B>(&self, request: &Request<B>) -> DoorRefusal {
        let header = || request.headers().get(HOST).map(|line| quoted(line.as_bytes())).unwrap_or_default();
        let asked = request.uri().authority().map_or_else(header, |host| quoted(host.as_str().as_bytes()));
        let detail = format!("nothing is known here of the host `{asked}`; {}", self.host_advice);
        DoorRefusal::new(StatusCode::MISDIRECTED_REQUEST, detail)
    }

    /// The listed origin of a request; `None` if a program sent it, or a page of the same origin.
    fn origin<'a, B>(
        &self,
        request: &'a Request<B>,
        host: Option<&Host<'_>>,
    ) -> Result<Option<&'a HeaderValue>, DoorRefusal> {
        let headers = request.headers();
        let is_cross_site = has(headers, &SEC_FETCH_SITE, "cross-site");
        let line = headers.get(ORIGIN);
        if line.is_none() && !is_cross_site || is_navigation(request) {
            return Ok(None);
        }
        let is_single = headers.get_all(ORIGIN).iter().nth(1).is_none();
        let text = line.filter(|_| is_single).and_then(|line| line.to_str().ok());
        let origin = text.and_then(WebOrigin::parse);
        if origin.as_ref().is_some_and(|origin| self.config.origins.contains(origin)) {
            return Ok(line);
        }
        let is_own = origin.is_some_and(|origin| host.is_some_and(|host| origin.is_at(self.scheme, host)));
        if is_own && !is_cross_site { Ok(None) } else { Err(self.foreign_origin(line)) }
    }

    fn foreign_origin(&self, origin: Option<&HeaderValue>) -> DoorRefusal {
        let from = match origin {
            Some(line) => format!("from the web page of the origin `{}`", quoted(line.as_bytes())),
            None => "from the web page of another site".to_owned(),
        };
        let detail =
            format!("the request comes {from}, which may not use this address; {}", self.origin_advice);
        DoorRefusal::new(StatusCode::FORBIDDEN, detail)
    }
}

/// Whether a browser opens `/` itself, by a link or by its address bar.
fn is_navigation<B>(request: &Request<B>) -> bool {
    request.method() == Method::GET
        && request.uri().path() == NAVIGABLE
        && has(request.headers(), &SEC_FETCH_MODE, "navigate")
}

fn has(headers: &HeaderMap, name: &HeaderName, word: &str) -> bool {
    headers.get_all(name).iter().any(|value| value.as_bytes().eq_ignore_ascii_case(word.as_bytes()))
}

/// Checks the codings of `Transfer-Encoding`. hyper has already checked that the last one is `chunked`.
fn check_codings(headers: &HeaderMap) -> Result<(), DoorRefusal> {
    if !headers.contains_key(TRANSFER_ENCODING) {
        return Ok(());
    }
    let lines = headers.get_all(TRANSFER_ENCODING).iter();
    let text = lines.map(|line| String::from_utf8_lossy(line.as_bytes())).collect::<Vec<_>>().join(",");
    let codings: Vec<_> = text.split(',').map(str::trim).filter(|coding| !coding.is_empty()).collect();
    if codings.iter().all(|coding| coding.eq_ignore_ascii_case("chunked")) {
        let detail = "`Transfer-Encoding` names `chunked` more than once; allowed: once, as the last coding";
        let is_good = codings.len() == 1;
        return if is_good { Ok(()) } else { Err(DoorRefusal::new(StatusCode::BAD_REQUEST, detail)) };
    }
    if !codings.last().is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
        let detail =
            "`Transfer-Encoding` does not end with `chunked`, so that nobody knows where the body ends";
        return Err(DoorRefusal::new(StatusCode::BAD_REQUEST, detail));
    }
    let detail = format!(
        "`Transfer-Encoding: {}` is not known here; allowed: `chunked` alone; compressed bodies are named by `Content-Encoding`",
        quoted(text.as_bytes())
    );
    Err(DoorRefusal::new(StatusCode::NOT_IMPLEMENTED, detail))
}

/// The detail of a 411: the request has a body of unknown length.
pub const NO_LENGTH: &str = "the request says neither `Content-Length` nor `Transfer-Encoding: chunked`, so that nobody knows where its body ends; \
     an empty body has `Content-Length: 0`";

/// Whether a request says where its body ends. Without a length HTTP takes the body for empty (RFC 9112, section 6.3),
/// whatever bytes follow.
pub fn has_length(headers: &HeaderMap) -> bool {
    headers.contains_key(CONTENT_LENGTH) || headers.contains_key(TRANSFER_ENCODING)
}

/// Whether a request's body may have an unknown end. hyper knows the end of a body that is still to come, so most
/// requests need no look at their headers.
pub fn has_no_end(headers: &HeaderMap, body: &impl Body) -> bool {
    body.is_end_stream() && !has_length(headers)
}

/// Quotes a header in a refusal: shortened, with invisible characters escaped.
fn quoted(bytes: &[u8]) -> String {
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
    /// The answer to a CORS preflight from a listed origin; `None` for any other request. It needs no key.
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
        self.add_headers(&mut response);
        Some(response)
    }

    /// Adds the headers of every answer to this visitor: `nosniff`, and for a listed origin its CORS headers.
    pub fn add_headers(&self, response: &mut Response) {
        add_common_headers(response);
        if let Some(origin) = &self.origin {
            let headers = response.headers_mut();
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
            headers.append(VARY, HeaderValue::from_static("origin"));
        }
    }
}

/// Adds the header of every answer, refusals included: browsers must not guess another content type.
pub fn add_common_headers(response: &mut Response) {
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
}

#[cfg(test)]
mod tests;
