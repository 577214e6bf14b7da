//! The client of a gateway: it posts readings and interprets the answers, in bounded memory and time.
//!
//! `load` counts answers, and `dead-letters` deletes letters by them. Both need to know whether the gateway has the
//! readings now; where no answer can tell, it is [`PostAnswer::Lost`].

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, StatusCode, header};
use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder, RequestBuilder, Response};
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;
use url::{Host, Url};

use crate::advice;
use crate::call_failure;

/// The path that takes readings.
pub const READINGS: &str = "/v1/readings";
/// Largest answer that is read, in bytes.
pub const ANSWER_BYTES_MAX: usize = 4 << 20;
/// Pause after a refusal that names no time.
const RETRY_AFTER_DEFAULT: Duration = Duration::from_secs(1);
/// Longest pause after a refusal.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);
/// The error of an answer that no gateway of this version gives.
const NOT_UNDERSTOOD: &str = "answer not understood";

/// The gateway's decision on the readings of a request, as far as its answer tells.
#[derive(Debug, PartialEq, Eq)]
pub enum PostAnswer {
    /// The gateway took all readings but `rejected` of them.
    Taken {
        /// Readings that it turned away.
        rejected: usize,
        /// The reasons, as far as the answer lists them.
        faults: ReadingFaults,
    },
    /// The gateway took no reading. Without faults, something is wrong with the request as a whole.
    TurnedAway {
        /// The reasons, as far as the answer lists them.
        faults: ReadingFaults,
    },
    /// The gateway took no reading: there are too many, or one of them cannot be read at all.
    Indigestible,
    /// The gateway took no reading now; it may take the same request later.
    NotNow {
        /// Time to wait before the next try.
        retry_after: Duration,
    },
    /// The gateway took no reading, and never will from the same request.
    Denied,
    /// Whether the gateway took the readings is not known.
    Lost {
        /// The kind of error, for counts.
        what: &'static str,
    },
}

/// The reasons for which readings were turned away, by the readings' positions in the request.
pub type ReadingFaults = BTreeMap<usize, String>;

/// An answer that was read to its end.
#[derive(Debug)]
pub struct RawAnswer {
    /// The HTTP status.
    pub status: StatusCode,
    headers: HeaderMap,
    /// Empty if it was longer than [`ANSWER_BYTES_MAX`].
    pub body: Vec<u8>,
}

/// The body of a 202.
#[derive(Deserialize)]
struct ReceiptBody {
    accepted: usize,
    #[serde(default)]
    rejected: usize,
    #[serde(default)]
    errors: Vec<ListedFault>,
}

/// The body of any other answer; fields that no caller needs are left out.
#[derive(Default, Deserialize)]
struct ProblemBody {
    #[serde(default)]
    detail: String,
    #[serde(default)]
    errors: Vec<ListedFault>,
}

#[derive(Deserialize)]
struct ListedFault {
    index: usize,
    #[serde(default)]
    detail: String,
}

/// The settings of TLS of a client that speaks plain HTTP alone: no certificate is trusted.
pub fn trusting_nobody() -> ClientConfig {
    let provider = Arc::new(aws_lc_rs::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider knows TLS 1.2 and 1.3")
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth()
}

/// Begins an HTTP client for plain HTTP.
pub fn builder() -> ClientBuilder {
    builder_over(trusting_nobody())
}

/// Begins an HTTP client with these settings of TLS. It follows no redirect, which would mean that the address is wrong, and it
/// does not use the proxies that the environment names.
///
/// All HTTP clients begin here or in [`builder`]: without settings of TLS, reqwest would read the certificates of the
/// system for each client.
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub fn builder_over(tls: ClientConfig) -> ClientBuilder {
    Client::builder().no_proxy().redirect(Policy::none()).tls_backend_preconfigured(tls)
}

/// Sends a request and reads its answer.
///
/// # Errors
///
/// There is no answer, or it broke off.
pub async fn exchange(request: RequestBuilder) -> reqwest::Result<RawAnswer> {
    let mut response = request.send().await?;
    let body = read(&mut response).await?.unwrap_or_default();
    Ok(RawAnswer { status: response.status(), headers: response.headers().clone(), body })
}

impl RawAnswer {
    /// Interprets the answer to a request with this number of readings.
    pub fn answer(&self, readings: usize, now: SystemTime) -> PostAnswer {
        match self.status {
            StatusCode::ACCEPTED => {
                taken(&self.body, readings).unwrap_or(PostAnswer::Lost { what: NOT_UNDERSTOOD })
            }
            StatusCode::UNPROCESSABLE_ENTITY => PostAnswer::TurnedAway { faults: self.faults(readings) },
            StatusCode::PAYLOAD_TOO_LARGE | StatusCode::BAD_REQUEST => PostAnswer::Indigestible,
            // A conflict: an earlier try of the same request, whose client stopped waiting, is still under way.
            StatusCode::TOO_MANY_REQUESTS
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::REQUEST_TIMEOUT
            | StatusCode::CONFLICT => PostAnswer::NotNow { retry_after: retry_after(&self.headers, now) },
            // A proxy in between does not know whether the gateway took the readings.
            StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT => {
                PostAnswer::Lost { what: "lost by a proxy" }
            }
            StatusCode::FORBIDDEN => match self.faults(readings) {
                faults if faults.is_empty() => PostAnswer::Denied,
                // The key covers none of the readings, and the answer says so of each.
                faults => PostAnswer::TurnedAway { faults },
            },
            status if status.is_server_error() => PostAnswer::Lost { what: "defect in the gateway" },
            status if status.is_success() => PostAnswer::Lost { what: NOT_UNDERSTOOD },
            _ => PostAnswer::Denied,
        }
    }

    /// The answer's explanation for people: the detail of a problem (RFC 9457), or else the body.
    pub fn detail(&self) -> String {
        let detail = self.problem().unwrap_or_default().detail;
        if detail.is_empty() { String::from_utf8_lossy(&self.body).into_owned() } else { detail }
    }

    fn faults(&self, readings: usize) -> ReadingFaults {
        faults(self.problem().unwrap_or_default().errors, readings)
    }

    fn problem(&self) -> Option<ProblemBody> {
        serde_json::from_slice(&self.body).ok()
    }
}

/// The receipt in the body of a 202, if its counts add up to the readings of the request.
fn taken(body: &[u8], readings: usize) -> Option<PostAnswer> {
    let ReceiptBody { accepted, rejected, errors } = serde_json::from_slice(body).ok()?;
    let is_whole = accepted.checked_add(rejected) == Some(readings);
    is_whole.then(|| PostAnswer::Taken { rejected, faults: faults(errors, readings) })
}

fn faults(errors: Vec<ListedFault>, readings: usize) -> ReadingFaults {
    errors
        .into_iter()
        .filter(|fault| fault.index < readings)
        .map(|fault| (fault.index, fault.detail))
        .collect()
}

/// Reads a body; `None` if it is longer than [`ANSWER_BYTES_MAX`].
///
/// # Errors
///
/// The answer broke off.
pub async fn read(response: &mut Response) -> Result<Option<Vec<u8>>, reqwest::Error> {
    let mut body = Vec::new();
    while let Some(part) = response.chunk().await? {
        if body.len() + part.len() > ANSWER_BYTES_MAX {
            return Ok(None);
        }
        body.extend_from_slice(&part);
    }
    Ok(Some(body))
}

/// Reads `Retry-After`: seconds or a date (RFC 9110).
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Duration {
    let text = headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let seconds = text.trim().parse().ok().map(Duration::from_secs);
    let date =
        || httpdate::parse_http_date(text).ok().map(|date| date.duration_since(now).unwrap_or_default());
    seconds.or_else(date).unwrap_or(RETRY_AFTER_DEFAULT).min(RETRY_AFTER_MAX)
}

/// Reads the address of a gateway or a node.
///
/// # Errors
///
/// The fault, in words for people.
pub fn parse_address(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("{error}; write it as http://127.0.0.1:8080"))?;
    match url.scheme() {
        "http" | "https" if url.has_host() => Ok(url),
        _ => Err("only http and https are spoken; write it as http://127.0.0.1:8080".to_owned()),
    }
}

/// `base` with `path` after its own path.
pub fn join(base: &Url, path: &str) -> Url {
    let mut url = base.clone();
    url.set_path(&format!("{}{path}", base.path().trim_end_matches('/')));
    url.set_query(None);
    url.set_fragment(None);
    url
}

/// Whether an address leads to this machine itself, as its host tells: a loopback address, or a name of it (RFC 6761).
pub fn is_loopback(address: &Url) -> bool {
    match address.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.to_canonical().is_loopback(),
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        None => false,
    }
}

/// An address for people, without user name and password.
pub fn shown(url: &Url) -> String {
    let mut url = url.clone();
    // Neither fails: an address of HTTP has a host.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.into()
}

/// An error with its causes, and what to do about it: the outermost error alone says only that the request failed.
pub fn causes(error: &reqwest::Error) -> String {
    // The callers put the address in front.
    let mut text = if error.is_timeout() { "timed out".to_owned() } else { "no answer".to_owned() };
    if let Some(failure) = call_failure::of(error) {
        let _ = write!(text, ": {failure}");
    } else {
        write_sources(error, &mut text);
    }
    if let Some(advice) = advice::on_fault(error) {
        let _ = write!(text, "; {advice}");
    }
    text
}

fn write_sources(error: &reqwest::Error, text: &mut String) {
    let mut source: Option<&dyn std::error::Error> = std::error::Error::source(error);
    while let Some(cause) = source {
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(status: u16, body: &str) -> RawAnswer {
        let status = StatusCode::from_u16(status).expect("a status");
        let headers = HeaderMap::from_iter([(header::RETRY_AFTER, "7".parse().expect("a header"))]);
        RawAnswer { status, headers, body: body.as_bytes().to_vec() }
    }

    #[track_caller]
    fn check(status: u16, body: &str, expected: &PostAnswer) {
        let answer = raw(status, body).answer(3, SystemTime::UNIX_EPOCH);
        assert_eq!(answer, *expected, "{status} {body}");
    }

    #[test]
    fn loopback_is_known_by_number_and_by_name() {
        for near in [
            "http://127.0.0.1:1",
            "http://127.9.9.9",
            "http://[::1]:1",
            "http://[::ffff:127.0.0.1]",
            "http://localhost",
            "http://a.localhost",
        ] {
            assert!(is_loopback(&near.parse().expect("an address")), "{near}");
        }
        for far in
            ["http://10.0.0.1", "http://[2001:db8::1]", "http://gateway.example", "http://localhost.example"]
        {
            assert!(!is_loopback(&far.parse().expect("an address")), "{far}");
        }
    }

    #[test]
    fn an_address_is_shown_without_its_password() {
        let url = "https://me:s3cret@gateway.example:8443/status?x=1".parse().expect("an address");
        assert_eq!(shown(&url), "https://gateway.example:8443/status?x=1");
    }

    #[test]
    fn an_answer_tells_which_readings_the_gateway_took() {
        let taken = |rejected, faults: &[(usize, &str)]| {
            let faults = faults.iter().map(|(at, detail)| (*at, (*detail).to_owned())).collect();
            PostAnswer::Taken { rejected, faults }
        };
        check(202, r#"{"accepted":3,"rejected":0,"ack":"disk"}"#, &taken(0, &[]));
        check(
            202,
            r#"{"accepted":2,"rejected":1,"errors":[{"index":1,"pointer":"/1","detail":"x"}]}"#,
            &taken(1, &[(1, "x")]),
        );
        check(202, r#"{"accepted":1,"rejected":2,"errors":[{"index":1}]}"#, &taken(2, &[(1, "")]));
        let not_understood = PostAnswer::Lost { what: NOT_UNDERSTOOD };
        check(202, r#"{"accepted":2,"rejected":0}"#, &not_understood);
        check(202, r#"{"accepted":18446744073709551615,"rejected":4}"#, &not_understood);
        for status in [200, 202, 204] {
            check(status, "<html>", &not_understood);
        }
        check(
            422,
            r#"{"detail":"x","errors":[{"index":1,"pointer":"/1","detail":"no"},{"index":3,"pointer":"/3","detail":"?"}]}"#,
            &PostAnswer::TurnedAway { faults: [(1, "no".to_owned())].into() },
        );
        for body in ["", r#"{"detail":"acknowledgement"}"#] {
            check(422, body, &PostAnswer::TurnedAway { faults: ReadingFaults::new() });
        }
    }

    #[test]
    fn a_status_alone_decides_about_the_next_try() {
        for status in [400, 413] {
            check(status, "plain", &PostAnswer::Indigestible);
        }
        for status in [408, 409, 429, 503] {
            check(status, "", &PostAnswer::NotNow { retry_after: Duration::from_secs(7) });
        }
        check(
            403,
            r#"{"detail":"x","errors":[{"index":1,"pointer":"/1/device","detail":"no"}]}"#,
            &PostAnswer::TurnedAway { faults: [(1, "no".to_owned())].into() },
        );
        for status in [301, 401, 403, 404, 405, 415] {
            check(status, r#"{"accepted":3,"rejected":0}"#, &PostAnswer::Denied);
        }
        for (status, what) in [
            (500, "defect in the gateway"),
            (501, "defect in the gateway"),
            (502, "lost by a proxy"),
            (504, "lost by a proxy"),
        ] {
            check(status, r#"{"accepted":3,"rejected":0}"#, &PostAnswer::Lost { what });
        }
    }

    #[test]
    fn the_detail_of_a_problem_or_else_the_body_is_for_people() {
        assert_eq!(raw(413, r#"{"detail":"too\nlarge"}"#).detail(), "too\nlarge");
        assert_eq!(raw(400, "plain").detail(), "plain");
    }

    #[test]
    fn a_path_is_appended_to_the_path_of_the_base() {
        for (base, expected) in [
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080/v1/readings"),
            ("http://127.0.0.1:8080/", "http://127.0.0.1:8080/v1/readings"),
            ("http://[::1]:1/in/?a=b#c", "http://[::1]:1/in/v1/readings"),
        ] {
            let base = Url::parse(base).expect("an address");
            assert_eq!(join(&base, "/v1/readings").as_str(), expected);
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_and_never_more_than_a_minute() {
        for (text, seconds) in [
            ("7", 7),
            ("0", 0),
            ("86400", 60),
            ("99999999999999999999", 1),
            ("soon", 1),
            ("Thu, 01 Jan 1970 00:00:09 GMT", 9),
            ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, text.parse().expect("a header"));
            assert_eq!(retry_after(&headers, SystemTime::UNIX_EPOCH), Duration::from_secs(seconds), "{text}");
        }
    }
}
