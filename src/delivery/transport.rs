//! Sends one request to one node, and decides what the answer means.
//!
//! The only place in `delivery/` that knows HTTP statuses. `headers` builds the request headers, `answer` interprets the
//! response, `retry_after` reads the wait that the node asks for. Secrets of the settings are removed from every text of a
//! node before it leaves this module ([`super::secrets`]).

mod answer;
mod headers;
mod retry_after;

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forebay_reading::registry::Registry;
use forebay_stores::{Silence, Store, TrialRequest};
use http::header::{CONTENT_LENGTH, HOST};
use http::{HeaderMap, HeaderValue};
use tokio::time::{Instant, timeout_at};
use url::Url;

use super::DeliveryConfig;
use super::credentials::{Credentials, CredentialsInForce};
use super::secrets::Extent;
use super::source::Endpoint;
use super::wire::{Wire, WireError, WireRequest};
use crate::via::{FOREBAY_VIA, Via};
use crate::zstd_contexts;
use answer::{ANSWER_BYTES_MAX, AnswerReader, decompress, read_body, reason};
use headers::{FOREBAY_READINGS, IDEMPOTENCY_KEY};

pub use answer::{Answer, AnswerVerdict, RetryReason, classify};
pub use headers::is_reserved;

/// Longest wait for the answer to a trial where silence is allowed.
const SILENCE_MAX: Duration = Duration::from_secs(3);
/// The compressions by their configuration names.
pub const COMPRESSIONS: Registry<Compression> = Registry {
    what: "compression",
    members: &[("none", Compression::None), ("gzip", Compression::Gzip), ("zstd", Compression::Zstd)],
};

/// How bodies are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Bodies are not compressed.
    None,
    /// gzip (RFC 1952), level 1.
    Gzip,
    /// Zstandard (RFC 8878), level 1.
    Zstd,
}

/// The settings of a transport.
#[derive(Clone, Debug)]
pub struct TransportConfig {
    /// Longest time from sending a batch to the end of its answer.
    pub timeout: Duration,
    /// How bodies are compressed.
    pub compression: Compression,
    /// The kind of store that the nodes are.
    pub store: Arc<dyn Store>,
    /// What requests carry to be let in, and the secrets to hide in every text of a node.
    pub credentials: CredentialsInForce,
    /// The gateways that the readings have passed, for `Forebay-Via`.
    pub via: Arc<Via>,
}

/// One batch on its way to one node.
#[derive(Clone, Debug)]
pub struct BatchRequest {
    /// The node.
    pub endpoint: Endpoint,
    /// The `Idempotency-Key`.
    pub key: String,
    /// The number of readings.
    pub readings: usize,
    /// The body, not yet compressed.
    pub body: Bytes,
}

/// Sends batches.
#[derive(Clone, Debug)]
pub struct Transport {
    wire: Arc<dyn Wire>,
    timeout: Duration,
    compression: Compression,
    store: Arc<dyn Store>,
    /// Headers of every request but those of the settings.
    headers: HeaderMap,
    credentials: CredentialsInForce,
    via: Arc<Via>,
}

impl Transport {
    /// Sends over `wire`.
    pub fn new(config: TransportConfig, wire: Arc<dyn Wire>) -> Transport {
        let (headers, compression) = headers::common(&config);
        let TransportConfig { timeout, store, credentials, via, .. } = config;
        Transport { wire, timeout, compression, store, headers, credentials, via }
    }

    /// Sends a batch and interprets the answer. Takes at most the configured time.
    ///
    /// If the future is dropped, the node may or may not have the batch.
    pub async fn send(&self, request: BatchRequest) -> Answer {
        let BatchRequest { endpoint: Endpoint { url, host, address }, key, readings, body } = request;
        let url = with_query(url, self.store.query(&key));
        let body = match compress(self.compression, body).await {
            Ok(body) => body,
            Err(error) => return Answer::internal(format!("cannot compress the batch: {error}")),
        };
        let Ok(key) = HeaderValue::try_from(format!("\"{key}\"")) else {
            return Answer::internal(format!("the key `{key}` does not fit into a header"));
        };
        let credentials = self.credentials.load_full();
        let mut headers = self.headers(&credentials);
        headers.insert(IDEMPOTENCY_KEY, key);
        headers.insert(FOREBAY_READINGS, HeaderValue::from(readings));
        headers.insert(FOREBAY_VIA, self.via.header(Instant::now()));
        if let Some(host) = host {
            headers.insert(HOST, host);
        }
        let deadline = Instant::now() + self.timeout;
        match timeout_at(deadline, self.wire.post(WireRequest { url, address, headers, body })).await {
            Ok(Ok(answer)) => {
                let (store, secrets) = (&*self.store, credentials.secrets());
                AnswerReader { store, secrets, readings, deadline }.read(answer).await
            }
            Ok(Err(error)) => Answer::none(
                reason(&error),
                credentials.secrets().hide(&error.to_string(), Extent::Whole).into_owned(),
            ),
            Err(_elapsed) => Answer::none(RetryReason::Timeout, "no answer in time".to_owned()),
        }
    }

    /// The headers of the settings, and over them those that Forebay sets itself.
    fn headers(&self, credentials: &Credentials) -> HeaderMap {
        let mut headers = credentials.headers().clone();
        headers.extend(self.headers.clone());
        headers
    }

    /// Posts a trial the way a batch is posted, though it stores nothing. Returns the answer with the start of its body.
    pub(super) async fn try_out(
        &self,
        endpoint: Endpoint,
        trial: &TrialRequest,
    ) -> Result<TrialAnswer, WireError> {
        let Endpoint { url, host, address } = endpoint;
        let url = with_query(url, trial.query.clone());
        let body =
            compress(self.compression, trial.body.clone().into()).await.map_err(WireError::Internal)?;
        let mut headers = self.headers(&self.credentials.load());
        headers.extend(host.map(|host| (HOST, host)));
        headers.insert(FOREBAY_VIA, self.via.header(Instant::now()));
        // reqwest omits the length of an empty body, and ClickHouse insists on it.
        headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        let patience = match trial.silence {
            Silence::Fault => self.timeout,
            Silence::Allowed => self.timeout.min(SILENCE_MAX),
        };
        let deadline = Instant::now() + patience;
        let posted = timeout_at(deadline, self.wire.post(WireRequest { url, address, headers, body })).await;
        let (head, body) = posted.map_err(|elapsed| WireError::Timeout(elapsed.to_string()))??.into_parts();
        let body = read_body(body, ANSWER_BYTES_MAX, deadline).await;
        let body = decompress(body, &head.headers, ANSWER_BYTES_MAX).await;
        let body = String::from_utf8_lossy(&body.bytes).into_owned();
        Ok(TrialAnswer { status: head.status.as_u16(), headers: head.headers, body })
    }
}

/// The answer to a trial.
#[derive(Debug)]
pub(super) struct TrialAnswer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    /// The start of the body.
    pub(super) body: String,
}

impl TransportConfig {
    /// The settings of a delivery.
    pub fn new(config: &DeliveryConfig, credentials: CredentialsInForce) -> TransportConfig {
        TransportConfig {
            timeout: config.timeout,
            compression: config.compression,
            store: Arc::clone(&config.store),
            credentials,
            via: Arc::new(Via::new(fastrand::u128(..))),
        }
    }
}

#[cfg(test)]
impl TransportConfig {
    /// Plain NDJSON, with neither headers nor secrets.
    fn for_tests() -> TransportConfig {
        TransportConfig {
            timeout: Duration::from_secs(10),
            compression: Compression::None,
            store: forebay_stores::STORES.find("ndjson").expect("a format")(
                &forebay_stores::StoreConfig::default(),
            ),
            credentials: CredentialsInForce::default(),
            via: Arc::new(Via::new(7)),
        }
    }
}

/// Adds the store's own parameters to the query of an address.
fn with_query(mut url: Url, query: Option<String>) -> Url {
    if let Some(query) = query {
        // The store's parameters come first: for a repeated parameter, stores use the first `query` and the last setting.
        let query = url.query().map_or(query.clone(), |known| format!("{query}&{known}"));
        url.set_query(Some(&query));
    }
    url
}

/// Compresses on the blocking thread pool: a batch takes longer than a task may occupy an async thread.
async fn compress(compression: Compression, body: Bytes) -> Result<Bytes, String> {
    let job: fn(&[u8]) -> std::io::Result<Vec<u8>> = match compression {
        Compression::None => return Ok(body),
        Compression::Gzip => gzip,
        Compression::Zstd => zstd_contexts::compress,
    };
    let compressed = tokio::task::spawn_blocking(move || job(&body)).await;
    compressed.map_err(|error| error.to_string())?.map(Bytes::from).map_err(|error| error.to_string())
}

fn gzip(body: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(body)?;
    encoder.finish()
}

#[cfg(test)]
mod tests {
    use futures_util::future::BoxFuture;
    use futures_util::{FutureExt as _, StreamExt as _};
    use http::StatusCode;

    use super::*;
    use crate::delivery::wire::WireAnswer;

    const TIMEOUT: Duration = Duration::from_secs(10);

    /// A wire that always answers the same: an error, or 201 with an endless body. `None`: it never answers.
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

    /// Sends a batch over the wire; returns the answer and the time it took.
    async fn send_over(wire: Scripted) -> (Answer, Duration) {
        let config = TransportConfig { timeout: TIMEOUT, ..TransportConfig::for_tests() };
        let transport = Transport::new(config, Arc::new(wire));
        let url = "http://node/".parse().expect("a URL");
        let started = Instant::now();
        let answer = transport
            .send(BatchRequest {
                endpoint: Endpoint::at(url),
                key: "k".to_owned(),
                readings: 1,
                body: Bytes::new(),
            })
            .await;
        (answer, started.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_ends_at_the_timeout_and_a_status_that_arrived_before_it_counts() {
        let (answer, took) = send_over(Scripted(None)).await;
        assert_eq!((answer.verdict, took), (AnswerVerdict::Retry(RetryReason::Timeout), TIMEOUT));
        assert_eq!(answer.detail, "no answer in time");
        let (answer, took) = send_over(Scripted(Some(Ok(())))).await;
        assert_eq!((answer.verdict, took), (AnswerVerdict::Delivered, TIMEOUT));
        assert_eq!(answer.detail, "201 Created: so it is");
    }

    #[tokio::test(start_paused = true)]
    async fn a_wire_error_leads_to_a_retry_with_its_reason_and_its_text() {
        let words = || "words".to_owned();
        let cases = [
            (WireError::Connect(words()), RetryReason::Connect),
            (WireError::Broken(words()), RetryReason::Broken),
            (WireError::Timeout(words()), RetryReason::Timeout),
            (WireError::Internal(words()), RetryReason::Internal),
        ];
        for (error, reason) in cases {
            let (answer, _) = send_over(Scripted(Some(Err(error)))).await;
            assert_eq!(answer.verdict, AnswerVerdict::Retry(reason));
            assert!(answer.detail.ends_with("words"), "{}", answer.detail);
        }
    }
}
