//! HTTP/1.1 over the simulated network: hyper's own client on turmoil's streams, with connections that are kept.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use forebay::delivery::wire::{Wire, WireAnswer, WireError, WireRequest};
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _};
use http::header::HOST;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use turmoil::net::TcpStream;
use url::Url;

/// A connection is used again when it was quiet for so long after an answer: unasked bytes of a node show by then.
const QUIET: Duration = Duration::from_millis(20);

/// Carries requests over the simulated network. Its clones share their connections.
#[derive(Clone, Debug, Default)]
pub struct SimulatedWire {
    idle: Arc<Mutex<BTreeMap<String, Vec<Connection>>>>,
}

#[derive(Debug)]
struct Connection {
    sender: SendRequest<Full<Bytes>>,
    _driver: Driver,
}

/// Ends the connection when it is let go of.
#[derive(Debug)]
struct Driver(tokio::task::JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The body of an answer, and the connection that it comes over.
struct Coming {
    wire: SimulatedWire,
    authority: String,
    connection: Connection,
    body: Incoming,
}

impl SimulatedWire {
    /// Sends one request and returns the head of the answer.
    pub async fn send(
        &self,
        method: Method,
        url: &Url,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<WireAnswer, WireError> {
        let authority = url.authority().to_owned();
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = url[url::Position::BeforePath..].parse().map_err(internal)?;
        *request.headers_mut() = headers;
        request.headers_mut().insert(HOST, authority.parse().map_err(internal)?);

        let mut connection = self.connection(&authority).await?;
        let answer = connection.sender.send_request(request).await.map_err(broken)?;
        let (head, body) = answer.into_parts();
        let coming = Coming { wire: self.clone(), authority, connection, body };
        let body = futures_util::stream::unfold(Some(coming), |coming| async { coming?.next().await });
        Ok(WireAnswer::from_parts(head, body.boxed()))
    }

    async fn connection(&self, authority: &str) -> Result<Connection, WireError> {
        while let Some(mut connection) = self.take(authority) {
            if connection.sender.ready().await.is_ok() {
                return Ok(connection);
            }
        }
        let stream = TcpStream::connect(authority).await.map_err(connect)?;
        let (sender, driver) = handshake(TokioIo::new(stream)).await.map_err(connect)?;
        // The end of a connection is seen by the task that waits for an answer over it.
        let driver = tokio::spawn(async move { drop(driver.await) });
        Ok(Connection { sender, _driver: Driver(driver) })
    }

    fn take(&self, authority: &str) -> Option<Connection> {
        let mut idle = self.idle.lock().expect("not poisoned");
        let connection = idle.get_mut(authority)?.pop();
        drop(idle);
        connection
    }

    /// Keeps a connection for the next request, once it was quiet for a while.
    fn keep(self, authority: String, connection: Connection) {
        tokio::spawn(async move {
            tokio::time::sleep(QUIET).await;
            if !connection.sender.is_closed() {
                self.idle.lock().expect("not poisoned").entry(authority).or_default().push(connection);
            }
        });
    }
}

impl Coming {
    async fn next(mut self) -> Option<(Result<Bytes, WireError>, Option<Coming>)> {
        loop {
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Some((Ok(data), Some(self)));
                    }
                }
                Some(Err(error)) => return Some((Err(broken(error)), None)),
                None => {
                    self.wire.keep(self.authority, self.connection);
                    return None;
                }
            }
        }
    }
}

impl Wire for SimulatedWire {
    fn post(&self, request: WireRequest) -> BoxFuture<'_, Result<WireAnswer, WireError>> {
        async move { self.send(Method::POST, &request.url, request.headers, request.body).await }.boxed()
    }
}

fn connect(error: impl ToString) -> WireError {
    WireError::Connect(error.to_string())
}

fn broken(error: impl ToString) -> WireError {
    WireError::Broken(error.to_string())
}

fn internal(error: impl ToString) -> WireError {
    WireError::Internal(error.to_string())
}
