//! Carries a request to a node and the answer back, without interpreting either.
//!
//! The real [`Wire`] is [`HttpClient`]. Tests put others in its place, such as a simulated network.

mod client_set;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use http::{HeaderMap, Response};
use rustls::ClientConfig;
use thiserror::Error;
use url::Url;

use forebay_load::call_failure::{self, CallFailure};

pub use client_set::ClientLimits;
use client_set::ClientSet;

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
    /// The address to connect to, if it is not to be found by the host of the URL.
    pub address: Option<SocketAddr>,
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

/// HTTP/1.1 over TCP or TLS, with pools of connections.
#[derive(Debug)]
pub struct HttpClient {
    limits: ClientLimits,
    clients: ArcSwap<ClientSet>,
}

impl HttpClient {
    /// Makes a client with these settings of TLS.
    ///
    /// # Errors
    ///
    /// [`TransportError`] if the client cannot be set up.
    pub fn new(limits: ClientLimits, tls: Arc<ClientConfig>) -> Result<HttpClient, TransportError> {
        let clients = ArcSwap::from_pointee(ClientSet::new(limits, tls)?);
        Ok(HttpClient { limits, clients })
    }

    /// Has later requests go over new connections with these settings of TLS. Requests under way end as they began.
    ///
    /// # Errors
    ///
    /// [`TransportError`] if a client cannot be set up; the old settings stay in force then.
    pub fn set_tls(&self, tls: Arc<ClientConfig>) -> Result<(), TransportError> {
        self.clients.store(Arc::new(ClientSet::new(self.limits, tls)?));
        Ok(())
    }

    async fn post(&self, request: WireRequest) -> Result<WireAnswer, WireError> {
        let WireRequest { url, address, mut headers, body } = request;
        let client = self.clients.load().client(url.host_str().unwrap_or_default(), address);
        let client = client.map_err(|error| cause(&error))?;
        let mut request = client.post(url).body(body).build().map_err(|error| cause(&error))?;
        // Headers made from the node's own URL, such as its password, win over those for all nodes.
        headers.extend(std::mem::take(request.headers_mut()));
        *request.headers_mut() = headers;
        let answer = client.execute(request).await.map_err(|error| cause(&error))?;
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

/// A fault of TLS for people, with the settings that may be at fault.
pub fn tls_problem(failure: &CallFailure) -> String {
    if failure.is_unknown_authority() {
        format!("{failure}; cluster.tls.ca names the file of the authority")
    } else if failure.is_about_own_certificate() {
        format!("{failure}; cluster.tls.certificate and cluster.tls.key name the files of the gateway's own")
    } else {
        failure.to_string()
    }
}

fn cause(error: &reqwest::Error) -> WireError {
    let root = match call_failure::of(error) {
        Some(failure) => tls_problem(&failure),
        None => root(error).unwrap_or_else(|| "the request failed".to_owned()),
    };
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
