//! How a request gets to a node and its answer back; nothing of what either means.
//!
//! The real [`Wire`] is [`HttpClient`]. A test can put another in its place, such as one on a simulated network.

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

/// How long an idle connection to a node is kept.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// Carries requests to nodes.
///
/// Nobody but the caller ends a request that takes too long: it drops the future, or the body of the answer.
pub trait Wire: Send + Sync + fmt::Debug {
    /// Posts one request and returns the head of the answer; its body is still to be read.
    ///
    /// Dropped half-way, the node may have the request or not.
    fn post(&self, request: WireRequest) -> BoxFuture<'_, Result<WireAnswer, WireError>>;
}

/// One request, as it goes out.
#[derive(Clone, Debug)]
pub struct WireRequest {
    /// Where it goes.
    pub url: Url,
    /// All headers but those that the connection itself asks for.
    pub headers: HeaderMap,
    /// The body, compressed if it is to be.
    pub body: Bytes,
}

/// The head of an answer, and its body as it comes in.
pub type WireAnswer = Response<BoxStream<'static, Result<Bytes, WireError>>>;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum WireError {
    /// No connection came about; the node has seen nothing.
    #[error("{0}")]
    Connect(String),
    /// The connection broke while the request or the answer was under way.
    #[error("{0}")]
    Broken(String),
    /// It took longer than the wire allows.
    #[error("no answer in time: {0}")]
    Timeout(String),
    /// The request could not be made, through a fault of ours.
    #[error("{0}")]
    Internal(String),
}

/// Why there is no HTTP client.
#[derive(Debug, Error)]
#[error("cannot set up the HTTP client for the nodes: {0}")]
pub struct TransportError(#[from] reqwest::Error);

/// HTTP/1.1 over TCP, with a pool of connections.
#[derive(Clone, Debug)]
pub struct HttpClient {
    client: reqwest::Client,
}

impl HttpClient {
    /// Makes a client that keeps up to `idle_connections` to a node while they are idle, and does not try to connect
    /// for longer than `connect_timeout`.
    ///
    /// # Errors
    ///
    /// [`TransportError`] if the client cannot be set up.
    pub fn new(connect_timeout: Duration, idle_connections: usize) -> Result<HttpClient, TransportError> {
        let client = reqwest::Client::builder()
            .connect_timeout(connect_timeout)
            .pool_idle_timeout(IDLE_MAX)
            .pool_max_idle_per_host(idle_connections)
            // A redirect means that the address is wrong, and a proxy would be one that nobody configured here.
            .redirect(Policy::none())
            .no_proxy()
            .http1_only()
            .build()?;
        Ok(HttpClient { client })
    }

    async fn post(&self, request: WireRequest) -> Result<WireAnswer, WireError> {
        let WireRequest { url, mut headers, body } = request;
        let mut request = self.client.post(url).body(body).build().map_err(|error| cause(&error))?;
        // What the address says of itself, such as a password, comes before what is set for all nodes.
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

/// What caused the error in the first place, without the address, which may have a password in it.
fn root(error: &reqwest::Error) -> Option<String> {
    let mut source = std::error::Error::source(error);
    let mut root = None;
    while let Some(cause) = source {
        root = Some(cause.to_string());
        source = cause.source();
    }
    root
}
