//! One request to one node, and what its answer means.
//!
//! The only place in `delivery/` that knows HTTP statuses.

use std::io::Write as _;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HOST, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use reqwest::Client;
use reqwest::redirect::Policy;
use thiserror::Error;
use url::Url;

use crate::registry::Registry;

/// Most of an answer that is kept for people, in bytes.
const EXCERPT_BYTES_MAX: usize = 1024;
/// Most of an answer that is read so that the connection can be used again, in bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Longest that a node's `Retry-After` is honoured.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);
/// How long an idle connection to a node is kept.
const IDLE_MAX: Duration = Duration::from_secs(60);

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const FOREBAY_READINGS: HeaderName = HeaderName::from_static("forebay-readings");

/// How bodies are compressed, by the names in the configuration.
pub const COMPRESSIONS: Registry<Compression> = Registry {
    what: "compression",
    members: &[("none", Compression::None), ("gzip", Compression::Gzip), ("zstd", Compression::Zstd)],
};

/// How bodies are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip (RFC 1952), level 1.
    Gzip,
    /// Zstandard (RFC 8878), level 1.
    Zstd,
}

/// What a transport needs to know.
#[derive(Clone, Debug)]
pub struct TransportConfig {
    /// Longest time from sending a batch to the end of its answer.
    pub timeout: Duration,
    /// Connections that are kept open to a node while idle.
    pub idle_connections: usize,
    /// How bodies are compressed.
    pub compression: Compression,
    /// `Content-Type` of the bodies.
    pub content_type: &'static str,
    /// Headers that the configuration adds to every request.
    pub headers: HeaderMap,
}

/// The batch, as far as the wire is concerned.
#[derive(Clone, Debug)]
pub struct Parcel {
    /// Where it goes.
    pub url: Url,
    /// The `Host`, if it is not that of the address.
    pub host: Option<HeaderValue>,
    /// Its `Idempotency-Key`.
    pub key: String,
    /// How many readings it has.
    pub readings: usize,
    /// Its body, not compressed.
    pub body: Bytes,
}

/// What an answer, or its absence, means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The node has the batch.
    Delivered,
    /// The node cannot take it now.
    Retry(RetryReason),
    /// The node refuses these readings.
    Refused,
    /// The node wants smaller batches.
    TooLarge,
    /// The node is set up wrongly: this would happen to any batch.
    Misconfigured,
}

impl Verdict {
    /// The value of the label `outcome`.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Delivered => "delivered",
            Verdict::Retry(_) => "unavailable",
            Verdict::Refused => "refused",
            Verdict::TooLarge => "too_large",
            Verdict::Misconfigured => "misconfigured",
        }
    }

    /// The value of the label `reason` of a retry.
    pub fn reason(self) -> &'static str {
        match self {
            Verdict::Retry(reason) => reason.name(),
            other => other.name(),
        }
    }
}

/// Why a node could not take a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryReason {
    /// No connection came about; the node has seen nothing.
    Connect,
    /// The connection broke while the batch was under way.
    Broken,
    /// No answer in time.
    Timeout,
    /// The node asked for patience (408, 409, 425, 429, 503).
    Busy,
    /// The node failed (5xx).
    ServerError,
    /// The request could not be made, through a fault of ours.
    Internal,
}

impl RetryReason {
    fn name(self) -> &'static str {
        match self {
            RetryReason::Connect => "connect",
            RetryReason::Broken => "broken",
            RetryReason::Timeout => "timeout",
            RetryReason::Busy => "busy",
            RetryReason::ServerError => "server_error",
            RetryReason::Internal => "internal",
        }
    }

    /// Whether the node may have stored the batch all the same.
    pub fn may_be_stored(self) -> bool {
        match self {
            RetryReason::Connect | RetryReason::Busy | RetryReason::Internal => false,
            RetryReason::Broken | RetryReason::Timeout | RetryReason::ServerError => true,
        }
    }

    /// Whether fewer batches at a time may help.
    pub fn is_overload(self) -> bool {
        matches!(self, RetryReason::Timeout | RetryReason::Busy)
    }
}

/// The answer to one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What it means.
    pub verdict: Verdict,
    /// What people should read: the status, the beginning of the body, or the error.
    pub detail: String,
    /// How long the node asks to be left alone.
    pub retry_after: Option<Duration>,
}

impl Answer {
    /// The answer when no request came about.
    pub fn internal(detail: String) -> Answer {
        Answer { verdict: Verdict::Retry(RetryReason::Internal), detail, retry_after: None }
    }
}

/// Why there is no HTTP client.
#[derive(Debug, Error)]
#[error("cannot set up the HTTP client for the nodes: {0}")]
pub struct TransportError(#[from] reqwest::Error);

/// Sends batches.
#[derive(Clone, Debug)]
pub struct Transport {
    client: Client,
    compression: Compression,
    content_type: HeaderValue,
}

impl Transport {
    /// Makes a client with its own pool of connections.
    ///
    /// # Errors
    ///
    /// [`TransportError`] if the client cannot be set up.
    pub fn new(config: TransportConfig) -> Result<Transport, TransportError> {
        let client = Client::builder()
            .user_agent(concat!("forebay/", env!("CARGO_PKG_VERSION")))
            .default_headers(config.headers)
            .timeout(config.timeout)
            .connect_timeout(config.timeout)
            .pool_idle_timeout(IDLE_MAX)
            .pool_max_idle_per_host(config.idle_connections)
            // A redirect means that the address is wrong, and a proxy would be one that nobody configured here.
            .redirect(Policy::none())
            .no_proxy()
            .http1_only()
            .build()?;
        let content_type = HeaderValue::from_static(config.content_type);
        Ok(Transport { client, compression: config.compression, content_type })
    }

    /// Sends a batch and says what the answer means. Takes at most the configured time.
    ///
    /// Dropped half-way, the node may have the batch or not.
    pub async fn send(&self, parcel: Parcel) -> Answer {
        let body = match compress(self.compression, parcel.body).await {
            Ok(body) => body,
            Err(error) => return Answer::internal(format!("cannot compress the batch: {error}")),
        };
        let mut request = self
            .client
            .post(parcel.url)
            .header(CONTENT_TYPE, self.content_type.clone())
            .header(IDEMPOTENCY_KEY, format!("\"{}\"", parcel.key))
            .header(FOREBAY_READINGS, parcel.readings);
        if let Some(host) = parcel.host {
            request = request.header(HOST, host);
        }
        match self.compression {
            Compression::None => {}
            Compression::Gzip => request = request.header(CONTENT_ENCODING, "gzip"),
            Compression::Zstd => request = request.header(CONTENT_ENCODING, "zstd"),
        }
        match request.body(body).send().await {
            Ok(response) => read_answer(response).await,
            Err(error) => {
                Answer { verdict: Verdict::Retry(reason(&error)), detail: chain(&error), retry_after: None }
            }
        }
    }
}

/// What a status means (the table in the crate's contract with nodes).
pub fn classify(status: StatusCode) -> Verdict {
    match status.as_u16() {
        200..=299 => Verdict::Delivered,
        408 | 409 | 425 | 429 | 503 => Verdict::Retry(RetryReason::Busy),
        413 => Verdict::TooLarge,
        400 | 422 => Verdict::Refused,
        501 => Verdict::Misconfigured,
        500..=599 => Verdict::Retry(RetryReason::ServerError),
        // 401, 403, 404, 405 and 3xx by the contract; of what it does not name, nothing is given up either.
        _ => Verdict::Misconfigured,
    }
}

/// Reads `Retry-After` (RFC 9110, section 10.2.3): whole seconds or a date.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(now).unwrap_or_default(),
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

async fn read_answer(mut response: reqwest::Response) -> Answer {
    let status = response.status();
    let retry_after = retry_after(response.headers(), SystemTime::now());
    let mut excerpt = Vec::new();
    let mut read = 0;
    // Read to the end, within reason: a connection with an answer left in it cannot be used again.
    while let Ok(Some(chunk)) = response.chunk().await {
        read += chunk.len();
        excerpt.extend_from_slice(&chunk[..chunk.len().min(EXCERPT_BYTES_MAX - excerpt.len())]);
        if read > ANSWER_BYTES_MAX {
            break;
        }
    }
    let excerpt = String::from_utf8_lossy(&excerpt);
    Answer { verdict: classify(status), detail: format!("{status}: {}", excerpt.trim()), retry_after }
}

fn reason(error: &reqwest::Error) -> RetryReason {
    if error.is_builder() {
        RetryReason::Internal
    } else if error.is_connect() {
        RetryReason::Connect
    } else if error.is_timeout() {
        RetryReason::Timeout
    } else {
        RetryReason::Broken
    }
}

/// The error and what caused it, without the address, which may have a password in it.
fn chain(error: &reqwest::Error) -> String {
    let mut causes = Vec::new();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        causes.push(cause.to_string());
        source = cause.source();
    }
    match causes.last() {
        Some(root) if error.is_timeout() => format!("no answer in time: {root}"),
        Some(root) => root.clone(),
        None if error.is_timeout() => "no answer in time".to_owned(),
        None => "the request failed".to_owned(),
    }
}

/// Compresses on a thread for blocking work: a batch takes longer than a task may hold its worker.
async fn compress(compression: Compression, body: Bytes) -> Result<Bytes, String> {
    let job: fn(&[u8]) -> std::io::Result<Vec<u8>> = match compression {
        Compression::None => return Ok(body),
        Compression::Gzip => gzip,
        Compression::Zstd => |body| zstd::bulk::compress(body, 1),
    };
    let done = tokio::task::spawn_blocking(move || job(&body)).await;
    done.map_err(|error| error.to_string())?.map(Bytes::from).map_err(|error| error.to_string())
}

fn gzip(body: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(body)?;
    encoder.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_status_means_what_the_contract_says() {
        let check = |statuses: &[u16], expected: Verdict| {
            for status in statuses {
                let status = StatusCode::from_u16(*status).expect("a status");
                assert_eq!(classify(status), expected, "{status}");
            }
        };
        check(&[200, 201, 202, 204, 299], Verdict::Delivered);
        check(&[408, 409, 425, 429, 503], Verdict::Retry(RetryReason::Busy));
        check(&[500, 502, 504, 507, 599], Verdict::Retry(RetryReason::ServerError));
        check(&[413], Verdict::TooLarge);
        check(&[400, 422], Verdict::Refused);
        check(
            &[401, 403, 404, 405, 501, 301, 302, 307, 308, 304, 402, 410, 415, 418],
            Verdict::Misconfigured,
        );
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_and_within_reason() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let check = |text: &str, seconds: Option<u64>| {
            let headers =
                HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_str(text).expect("a header"))]);
            assert_eq!(retry_after(&headers, now), seconds.map(Duration::from_secs), "{text}");
        };
        check("7", Some(7));
        check(" 7 ", Some(7));
        check("99999999999", Some(300));
        check(&httpdate::fmt_http_date(now + Duration::from_secs(20)), Some(20));
        check(&httpdate::fmt_http_date(now - Duration::from_secs(20)), Some(0));
        for text in ["-1", "soon", "1.5", ""] {
            check(text, None);
        }
    }
}
