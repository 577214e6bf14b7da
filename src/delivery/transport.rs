//! One request to one node, and what its answer means.
//!
//! The only place in `delivery/` that knows HTTP statuses.

use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tokio::time::{Instant, timeout_at};
use url::Url;

use super::DeliveryConfig;
use super::trial::Tried;
use super::wire::{Wire, WireAnswer, WireError, WireRequest};
use crate::codec::{Blame, Encoder, FailedItem, NodeAnswer, Trial};
use crate::registry::Registry;
use crate::zstd_contexts;

/// Most of an answer that is kept for people, in bytes.
const EXCERPT_BYTES_MAX: usize = 1024;
/// Most of an answer that is read so that the connection can be used again, in bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Longest that a node's `Retry-After` is honoured.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);

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
    /// How bodies are compressed.
    pub compression: Compression,
    /// The format of the bodies.
    pub format: Arc<dyn Encoder>,
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
    /// The node failed (5xx), or its answer cannot be understood.
    ServerError,
    /// The node has some of the readings, and could not take others.
    Partly,
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
            RetryReason::Partly => "partly",
            RetryReason::Internal => "internal",
        }
    }

    /// Whether the node may have stored the batch all the same.
    pub fn may_be_stored(self) -> bool {
        match self {
            RetryReason::Connect | RetryReason::Busy | RetryReason::Internal => false,
            RetryReason::Broken | RetryReason::Timeout | RetryReason::ServerError | RetryReason::Partly => {
                true
            }
        }
    }

    /// Whether fewer batches at a time may help.
    pub fn is_overload(self) -> bool {
        matches!(self, RetryReason::Timeout | RetryReason::Busy | RetryReason::Partly)
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
    /// The status, if there is an answer.
    pub status: Option<u16>,
    /// The beginning of the body.
    pub body: String,
    /// Of a batch that was delivered, the readings that the node refused, by their places in the body.
    pub refused: Vec<FailedItem>,
    /// Whether the node has some of the readings of a batch that is to be sent again.
    pub is_stored_in_part: bool,
}

impl Answer {
    /// The answer when no request came about.
    pub fn internal(detail: String) -> Answer {
        Answer::none(RetryReason::Internal, detail)
    }

    fn none(reason: RetryReason, detail: String) -> Answer {
        let verdict = Verdict::Retry(reason);
        Answer {
            verdict,
            detail,
            retry_after: None,
            status: None,
            body: String::new(),
            refused: Vec::new(),
            is_stored_in_part: false,
        }
    }
}

/// Sends batches.
#[derive(Clone, Debug)]
pub struct Transport {
    wire: Arc<dyn Wire>,
    timeout: Duration,
    compression: Compression,
    format: Arc<dyn Encoder>,
    /// What every request has.
    headers: HeaderMap,
}

impl Transport {
    /// Sends over `wire`.
    pub fn new(config: TransportConfig, wire: Arc<dyn Wire>) -> Transport {
        let agent = HeaderValue::from_static(concat!("forebay/", env!("CARGO_PKG_VERSION")));
        let mut headers = HeaderMap::from_iter([(USER_AGENT, agent)]);
        headers.extend(config.headers);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(config.format.content_type()));
        for (name, value) in config.format.headers() {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        // A body that is compressed as part of its format is not compressed once more.
        let (compression, encoding) = match (config.format.content_encoding(), config.compression) {
            (Some(encoding), _) => (Compression::None, Some(encoding)),
            (None, Compression::None) => (Compression::None, None),
            (None, Compression::Gzip) => (Compression::Gzip, Some("gzip")),
            (None, Compression::Zstd) => (Compression::Zstd, Some("zstd")),
        };
        if let Some(encoding) = encoding {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static(encoding));
        }
        Transport { wire, timeout: config.timeout, compression, format: config.format, headers }
    }

    /// Sends a batch and says what the answer means. Takes at most the configured time.
    ///
    /// Dropped half-way, the node may have the batch or not.
    pub async fn send(&self, parcel: Parcel) -> Answer {
        let Parcel { url, host, key, readings, body } = parcel;
        let url = with_query(url, self.format.query(&key));
        let body = match compress(self.compression, body).await {
            Ok(body) => body,
            Err(error) => return Answer::internal(format!("cannot compress the batch: {error}")),
        };
        let Ok(key) = HeaderValue::try_from(format!("\"{key}\"")) else {
            return Answer::internal(format!("the key `{key}` does not fit into a header"));
        };
        let mut headers = self.headers.clone();
        headers.insert(IDEMPOTENCY_KEY, key);
        headers.insert(FOREBAY_READINGS, HeaderValue::from(readings));
        if let Some(host) = host {
            headers.insert(HOST, host);
        }
        let deadline = Instant::now() + self.timeout;
        match timeout_at(deadline, self.wire.post(WireRequest { url, headers, body })).await {
            Ok(Ok(answer)) => read_answer(answer, &*self.format, readings, deadline).await,
            Ok(Err(error)) => Answer::none(reason(&error), error.to_string()),
            Err(_elapsed) => Answer::none(RetryReason::Timeout, "no answer in time".to_owned()),
        }
    }

    /// Posts what stores nothing, as a batch would be posted, and gives the answer with the beginning of its body.
    pub(super) async fn try_out(
        &self,
        url: Url,
        host: Option<HeaderValue>,
        trial: &Trial,
    ) -> Result<Tried, WireError> {
        let url = with_query(url, trial.query.clone());
        let body =
            compress(self.compression, trial.body.clone().into()).await.map_err(WireError::Internal)?;
        let mut headers = self.headers.clone();
        headers.extend(host.map(|host| (HOST, host)));
        // Of an empty body nothing is said otherwise, and ClickHouse for one wants it said.
        headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        let deadline = Instant::now() + self.timeout;
        let posted = timeout_at(deadline, self.wire.post(WireRequest { url, headers, body })).await;
        let (head, body) = posted.map_err(|elapsed| WireError::Timeout(elapsed.to_string()))??.into_parts();
        let body = read_body(body, ANSWER_BYTES_MAX, deadline).await;
        let body = String::from_utf8_lossy(&body.kept).into_owned();
        Ok(Tried { status: head.status.as_u16(), headers: head.headers, body })
    }
}

impl From<&DeliveryConfig> for TransportConfig {
    fn from(config: &DeliveryConfig) -> TransportConfig {
        TransportConfig {
            timeout: config.timeout,
            compression: config.compression,
            format: Arc::clone(&config.format),
            headers: config.headers.clone(),
        }
    }
}

/// An address with what a format adds to its query.
fn with_query(mut url: Url, query: Option<String>) -> Url {
    if let Some(query) = query {
        // The format's own comes first: of what is there twice, stores take the first query and the last setting.
        let query = url.query().map_or(query.clone(), |known| format!("{query}&{known}"));
        url.set_query(Some(&query));
    }
    url
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

async fn read_answer(answer: WireAnswer, format: &dyn Encoder, readings: usize, deadline: Instant) -> Answer {
    let (head, body) = answer.into_parts();
    let items_max = format.item_answer_bytes_max(readings).filter(|_| head.status.is_success());
    // Whatever comes of the body, the status has been said.
    let body = read_body(body, items_max.unwrap_or(EXCERPT_BYTES_MAX), deadline).await;
    let excerpt = String::from_utf8_lossy(&body.kept[..body.kept.len().min(EXCERPT_BYTES_MAX)]).into_owned();
    let (status, retry_after) = (Some(head.status.as_u16()), retry_after(&head.headers, SystemTime::now()));
    let answer = Answer {
        verdict: classify(head.status),
        detail: format!("{}: {}", head.status, excerpt.trim()),
        retry_after,
        status,
        body: excerpt,
        refused: Vec::new(),
        is_stored_in_part: false,
    };
    match items_max {
        Some(most) => judge_items(answer, items(&body, format, readings, most), readings),
        None => {
            let (status, headers) = (head.status.as_u16(), &head.headers);
            let blame = match expects_tls(&answer.body) && !head.status.is_success() {
                true => Some(Blame::Setup),
                false => format.blame(&NodeAnswer { status, headers, body: &answer.body }),
            };
            Answer { verdict: blame.map_or(answer.verdict, verdict_of), ..answer }
        }
    }
}

/// Whether a server says that it was spoken to without TLS: servers written in Go, nginx and Apache tell it with 400, which
/// says nothing of the readings.
fn expects_tls(body: &str) -> bool {
    let words = [
        "Client sent an HTTP request to an HTTPS server",
        "plain HTTP request was sent to HTTPS port",
        "speaking plain HTTP to an SSL-enabled server port",
    ];
    words.iter().any(|words| body.contains(words))
}

/// The beginning of a body.
#[derive(Debug)]
struct Beginning {
    kept: Vec<u8>,
    /// Whether that is all.
    is_whole: bool,
}

/// Keeps the beginning of a body. It is read to the end, within reason: a connection with an answer left in it cannot be
/// used again.
async fn read_body(
    mut body: futures_util::stream::BoxStream<'static, Result<Bytes, WireError>>,
    kept_max: usize,
    deadline: Instant,
) -> Beginning {
    let mut kept = Vec::new();
    let mut read = 0;
    loop {
        match timeout_at(deadline, body.next()).await {
            Ok(None) => return Beginning { is_whole: read == kept.len(), kept },
            Ok(Some(Ok(chunk))) if read <= kept_max.max(ANSWER_BYTES_MAX) => {
                read += chunk.len();
                kept.extend_from_slice(&chunk[..chunk.len().min(kept_max - kept.len())]);
            }
            Ok(Some(_)) | Err(_) => return Beginning { is_whole: false, kept },
        }
    }
}

/// What an answer says of readings one by one.
fn items(
    body: &Beginning,
    format: &dyn Encoder,
    readings: usize,
    bytes_max: usize,
) -> Result<Vec<FailedItem>, String> {
    if !body.is_whole {
        return Err(format!("it is longer than {bytes_max} bytes, or not complete"));
    }
    let failed = format.failed_items(&body.kept, readings)?;
    match failed.iter().find(|item| item.index >= readings) {
        Some(item) => Err(format!("it speaks of item {} of {readings}", item.index)),
        None => Ok(failed),
    }
}

/// What follows when a node took a batch, and not all of its readings. What would stop any batch comes before what stops
/// some readings for a while, and that before what is refused for ever: the whole batch is sent again then.
fn judge_items(answer: Answer, items: Result<Vec<FailedItem>, String>, readings: usize) -> Answer {
    let failed = match items {
        Ok(failed) => failed,
        Err(error) => {
            let detail = format!("the answer cannot be understood: {error}; it begins: {}", answer.body);
            return Answer { verdict: Verdict::Retry(RetryReason::ServerError), detail, ..answer };
        }
    };
    let by_status = |item: &FailedItem| {
        StatusCode::from_u16(item.status).map_or(Verdict::Retry(RetryReason::ServerError), classify)
    };
    let meaning = |item: &FailedItem| item.blame.map_or_else(|| by_status(item), verdict_of);
    let first = |is_it: fn(Verdict) -> bool| failed.iter().find(|item| is_it(meaning(item)));
    let setup = first(|verdict| verdict == Verdict::Misconfigured).map(|item| (Verdict::Misconfigured, item));
    let again = first(|verdict| matches!(verdict, Verdict::Retry(_) | Verdict::Delivered));
    let again = again.map(|item| (Verdict::Retry(RetryReason::Partly), item));
    match setup.or(again) {
        Some((verdict, item)) => {
            let detail = format!("item {} of the batch: {} {}", item.index, item.status, item.detail);
            Answer { verdict, detail, is_stored_in_part: failed.len() < readings, ..answer }
        }
        None => Answer { refused: failed, ..answer },
    }
}

fn verdict_of(blame: Blame) -> Verdict {
    match blame {
        Blame::Readings => Verdict::Refused,
        Blame::Setup => Verdict::Misconfigured,
        Blame::Node => Verdict::Retry(RetryReason::ServerError),
    }
}

fn reason(error: &WireError) -> RetryReason {
    match error {
        WireError::Connect(_) => RetryReason::Connect,
        WireError::Broken(_) => RetryReason::Broken,
        WireError::Timeout(_) => RetryReason::Timeout,
        WireError::Internal(_) => RetryReason::Internal,
    }
}

/// Compresses on a thread for blocking work: a batch takes longer than a task may hold its worker.
async fn compress(compression: Compression, body: Bytes) -> Result<Bytes, String> {
    let job: fn(&[u8]) -> std::io::Result<Vec<u8>> = match compression {
        Compression::None => return Ok(body),
        Compression::Gzip => gzip,
        Compression::Zstd => zstd_contexts::compress,
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
    use futures_util::FutureExt as _;
    use futures_util::future::BoxFuture;

    use super::*;
    use crate::codec::FormatConfig;

    const TIMEOUT: Duration = Duration::from_secs(10);

    /// A wire with an answer that is always the same: an error, or 201 with a body that does not end. With neither,
    /// nothing comes.
    #[derive(Debug)]
    struct Scripted(Option<Result<(), WireError>>);

    impl Wire for Scripted {
        fn post(&self, _: WireRequest) -> BoxFuture<'_, Result<WireAnswer, WireError>> {
            let Some(script) = self.0.clone() else { return std::future::pending().boxed() };
            let beginning = futures_util::stream::iter([Ok(Bytes::from_static(b"so it is"))]);
            let body = beginning.chain(futures_util::stream::pending()).boxed();
            let mut answer = WireAnswer::new(body);
            *answer.status_mut() = StatusCode::CREATED;
            std::future::ready(script.map(|()| answer)).boxed()
        }
    }

    /// What comes of a batch over a wire, and after how long.
    async fn send_over(wire: Scripted) -> (Answer, Duration) {
        let config = TransportConfig {
            timeout: TIMEOUT,
            compression: Compression::None,
            format: crate::codec::ENCODERS.find("ndjson").expect("a format")(&FormatConfig::default()),
            headers: HeaderMap::new(),
        };
        let transport = Transport::new(config, Arc::new(wire));
        let url = "http://node/".parse().expect("a URL");
        let started = Instant::now();
        let answer = transport
            .send(Parcel { url, host: None, key: "k".to_owned(), readings: 1, body: Bytes::new() })
            .await;
        (answer, started.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_takes_at_most_the_time_that_is_set_and_a_status_that_was_said_counts() {
        let (answer, took) = send_over(Scripted(None)).await;
        assert_eq!((answer.verdict, took), (Verdict::Retry(RetryReason::Timeout), TIMEOUT));
        assert_eq!(answer.detail, "no answer in time");
        let (answer, took) = send_over(Scripted(Some(Ok(())))).await;
        assert_eq!((answer.verdict, took), (Verdict::Delivered, TIMEOUT));
        assert_eq!(answer.detail, "201 Created: so it is");
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_of_the_wire_is_a_retry_with_its_reason_and_its_words() {
        let words = || "words".to_owned();
        let cases = [
            (WireError::Connect(words()), RetryReason::Connect),
            (WireError::Broken(words()), RetryReason::Broken),
            (WireError::Timeout(words()), RetryReason::Timeout),
            (WireError::Internal(words()), RetryReason::Internal),
        ];
        for (error, reason) in cases {
            let (answer, _) = send_over(Scripted(Some(Err(error)))).await;
            assert_eq!(answer.verdict, Verdict::Retry(reason));
            assert!(answer.detail.ends_with("words"), "{}", answer.detail);
        }
    }

    #[test]
    fn what_is_stored_in_part_is_known_whatever_stops_the_rest() {
        let item = |index| FailedItem { index, status: 403, detail: String::new(), blame: None };
        let judged = |failed: Vec<FailedItem>| {
            judge_items(
                Answer { verdict: Verdict::Delivered, ..Answer::internal(String::new()) },
                Ok(failed),
                3,
            )
        };
        let in_part = judged(vec![item(0), item(2)]);
        assert_eq!((in_part.verdict, in_part.is_stored_in_part), (Verdict::Misconfigured, true));
        let not_at_all = judged((0..3).map(item).collect());
        assert_eq!((not_at_all.verdict, not_at_all.is_stored_in_part), (Verdict::Misconfigured, false));
    }

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
