//! Carries a request to a node and the answer back, without interpreting either.
//!
//! The real [`Wire`] is [`HttpClient`]. Tests put others in its place, such as a simulated network.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use http::{HeaderMap, Response};
use reqwest::redirect::Policy;
use thiserror::Error;
use url::Url;

/// How long an idle connection to a node stays open.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// Carries requests to nodes.
///
/// There is no timeout here: the caller ends a request by dropping the future, or the body of the answer.
pub trait Wire: Send + Sync + fmt::Debug {
    /// Posts one request and returns the head of the answer; the caller reads the body.
    ///
    /// If the future is dropped, the node may or may not have the request.
    fn post(&self, request: WireRequest) -> BoxFuture<'_, Result<WireAnswer, WireError>>;
}

/// One outgoing request.
#[derive(Clone, Debug)]
pub struct WireRequest {
    /// The node's URL.
    pub url: Url,
    /// All headers except those of the connection itself.
    pub headers: HeaderMap,
    /// The body, already compressed where the settings say so.
    pub body: Bytes,
}

/// The head of an answer, with its body as a stream.
pub type WireAnswer = Response<BoxStream<'static, Result<Bytes, WireError>>>;

/// The reason why no answer arrived.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum WireError {
    /// No connection was made; the node has seen nothing.
    #[error("{0}")]
    Connect(String),
    /// The connection broke during the exchange.
    #[error("{0}")]
    Broken(String),
    /// It took longer than the wire allows.
    #[error("no answer in time: {0}")]
    Timeout(String),
    /// The request could not be built: an internal error.
    #[error("{0}")]
    Internal(String),
}

/// The HTTP client could not be set up.
#[derive(Debug, Error)]
#[error("cannot set up the HTTP client for the nodes: {0}")]
pub struct TransportError(#[from] reqwest::Error);

/// HTTP/1.1 over TCP, with a pool of connections.
#[derive(Clone, Debug)]
pub struct HttpClient {
    client: reqwest::Client,
}

impl HttpClient {
    /// Makes a client that keeps up to `idle_connections` idle connections open to each node, and gives up connecting after
    /// `connect_timeout`.
    ///
    /// # Errors
    ///
    /// [`TransportError`] if the client cannot be set up.
    pub fn new(connect_timeout: Duration, idle_connections: usize) -> Result<HttpClient, TransportError> {
        let client = reqwest::Client::builder()
            .connect_timeout(connect_timeout)
            .pool_idle_timeout(IDLE_MAX)
            .pool_max_idle_per_host(idle_connections)
            // A redirect means that the address is wrong, and a proxy could only come from the environment, not the settings.
            .redirect(Policy::none())
            .no_proxy()
            .http1_only()
            .build()?;
        Ok(HttpClient { client })
    }

    async fn post(&self, request: WireRequest) -> Result<WireAnswer, WireError> {
        let WireRequest { url, mut headers, body } = request;
        let mut request = self.client.post(url).body(body).build().map_err(|error| cause(&error))?;
        // Headers made from the node's own URL, such as its password, win over those for all nodes.
        headers.extend(std::mem::take(request.headers_mut()));
        *request.headers_mut() = headers;
        let answer = self.client.execute(request).await.map_err(|error| cause(&error))?;
        let (mut head, ()) = Response::new(()).into_parts();
        head.status = answer.status();
        head.headers = answer.headers().clone();
        let body = answer.bytes_stream().map_err(|error| cause(&error)).boxed();
        Ok(Response::from_parts(head, body))
    }
}

impl Wire for HttpClient {
    fn post(&self, request: WireRequest) -> BoxFuture<'_, Result<WireAnswer, WireError>> {
        self.post(request).boxed()
    }
}

fn cause(error: &reqwest::Error) -> WireError {
    let root = root(error).unwrap_or_else(|| "the request failed".to_owned());
    if error.is_builder() {
        WireError::Internal(root)
    } else if error.is_connect() {
        WireError::Connect(root)
    } else if error.is_timeout() {
        WireError::Timeout(root)
    } else {
        WireError::Broken(root)
    }
}

/// The root cause of the error, without the address, which may contain a password.
fn root(error: &reqwest::Error) -> Option<String> {
    let mut source = std::error::Error::source(error);
    let mut root = None;
    while let Some(cause) = source {
        root = Some(cause.to_string());
        source = cause.source();
    }
    root
}
