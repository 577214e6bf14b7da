//! The connection loop: serves a service on a socket by HTTP/1.1, within limits.
//!
//! [`serve`] drives hyper itself, because its limits lie below axum: the number of connections, the time that a client
//! may take to send the head of a request or to read its answer, the size of that head, and the duration of a stop. The
//! limits of bodies and handlers belong to the service.
//!
//! | limit | value | beyond it |
//! |---|---|---|
//! | connections | [`ConnectionLimits::connections_max`] | no more are accepted until one ends; the kernel queues a few |
//! | connections of one address | [`ConnectionGate::new`] | the connection is closed before a request |
//! | time for the head of a request, and time between two requests | [`ConnectionLimits::head_timeout`] | the connection is closed |
//! | time for which a client may leave an answer unread | [`ConnectionLimits::head_timeout`] | the connection is closed |
//! | bytes of a head | 32 KiB | 431, and the connection is closed |
//! | header fields | 100, which is hyper's own limit; setting it would cost an allocation a request | 431 |
//! | bytes buffered for a connection, each way | 128 KiB | the client waits |
//! | time to stop | `stop_within` | requests in progress are cut off |

mod per_address;
mod tls_gate;

use std::convert::Infallible;
use std::future::Future;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::extract::Request;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use ipnet::IpNet;
use prometheus::{IntCounter, IntGauge};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout};
use tokio_io_timeout::TimeoutWriter;
use tokio_util::sync::CancellationToken;
use tower::Service;
use tracing::{debug, warn};

use crate::tls::client_certificate::ClientCertificate;
pub use per_address::{AddressPlace, PerAddress};
pub use tls_gate::{HANDSHAKE_MAX, TlsGate};

const HEAD_BYTES_MAX: usize = 32 * 1024;
const BUFFER_BYTES_MAX: usize = 128 * 1024;
/// Pause after the system refused a connection: the missing resource (mostly file descriptors) comes back by itself.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Shortest time between two warnings of a lasting refusal.
const ACCEPT_WARNING_EVERY: Duration = Duration::from_secs(1);

/// What one listener allows its clients.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    /// Most open connections; at least one is always allowed.
    pub connections_max: usize,
    /// Longest time for the head of a request. It runs from the end of the previous request, so it also closes idle
    /// connections: it should be longer than clients keep them. A client that leaves an answer unread for this time
    /// loses its connection, too.
    pub head_timeout: Duration,
}

/// Who may connect.
#[derive(Clone, Debug)]
pub struct ConnectionGate {
    per_address: PerAddress,
    /// Connections that were closed because their address had as many as it may.
    refused: Option<IntCounter>,
    /// Connections that are open, those in their handshake among them.
    open: Option<IntGauge>,
    /// Shakes hands with each client; `None`: plain HTTP.
    tls: Option<TlsGate>,
}

impl ConnectionGate {
    /// A gate through which each address may have `limit` connections at once, or any number if that is 0; those in
    /// `exempt` always may. `refused` counts the others.
    pub fn new(limit: usize, exempt: Vec<IpNet>, refused: IntCounter) -> ConnectionGate {
        ConnectionGate { refused: Some(refused), ..ConnectionGate::of(PerAddress::new(limit, exempt)) }
    }

    /// A gate through which everybody may come.
    pub fn open() -> ConnectionGate {
        ConnectionGate::of(PerAddress::new(0, Vec::new()))
    }

    fn of(per_address: PerAddress) -> ConnectionGate {
        ConnectionGate { per_address, refused: None, open: None, tls: None }
    }

    /// The same gate, which shows in a metric how many connections are open.
    #[must_use]
    pub fn shown_by(self, open: IntGauge) -> ConnectionGate {
        ConnectionGate { open: Some(open), ..self }
    }

    /// The same gate with TLS, or without.
    #[must_use]
    pub fn with_tls(self, tls: Option<TlsGate>) -> ConnectionGate {
        ConnectionGate { tls, ..self }
    }

    /// Lets a connection of this address in, if that one may have one more.
    fn admit(&self, address: Option<IpAddr>) -> Option<AdmittedConnection> {
        let Some(place) = self.per_address.take(address) else {
            self.refused.iter().for_each(IntCounter::inc);
            return None;
        };
        self.open.iter().for_each(IntGauge::inc);
        Some(AdmittedConnection { _place: place, open: self.open.clone() })
    }
}

/// A connection that was let in. Dropping it makes room for another one.
#[derive(Debug)]
struct AdmittedConnection {
    _place: AddressPlace,
    open: Option<IntGauge>,
}

impl Drop for AdmittedConnection {
    fn drop(&mut self) {
        self.open.iter().for_each(IntGauge::dec);
    }
}

/// A source of connections: a bound socket, or its stand-in in a test.
pub trait Listener: Send + Sync + 'static {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Send + 'static;

    /// Waits for the next connection. Dropping the future loses no connection.
    ///
    /// # Errors
    ///
    /// The system's error; the next call may succeed all the same.
    fn accept(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;

    /// The address of the other end of a connection, if it is known.
    fn peer(_stream: &Self::Stream) -> Option<SocketAddr> {
        None
    }
}

/// The other end of a connection.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    /// Its address, if it is known.
    pub address: Option<IpAddr>,
    /// Its certificate, if it has shown one, which was verified.
    pub certificate: Option<ClientCertificate>,
}

impl Peer {
    /// The names in its certificate; none without a certificate.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.certificate.iter().flat_map(ClientCertificate::names).map(String::as_str)
    }

    /// Whether it came with a certificate that is past its end at `now`. Such a client is refused before anything else is
    /// looked at.
    pub fn is_past(&self, now: SystemTime) -> bool {
        self.certificate.as_ref().is_some_and(|certificate| certificate.is_expired(now))
    }
}

/// A service that knows of its connections.
pub trait ConnectionService: Clone {
    /// The service for one connection from `peer`. It and its clones are dropped when the connection has ended.
    #[must_use]
    fn for_connection(&self, peer: Peer) -> Self;

    /// Called when bytes that are not a request ended the connection; hyper has answered them with 400 or 431.
    fn on_unreadable(&self, _detail: &str) {}
}

/// A service that a listener can serve.
pub trait HttpService:
    Service<Request<Incoming>, Response = Response, Error = Infallible, Future: Send>
    + ConnectionService
    + Send
    + 'static
{
}

impl<S> HttpService for S where
    S: Service<Request<Incoming>, Response = Response, Error = Infallible, Future: Send>
        + ConnectionService
        + Send
        + 'static
{
}

/// A router serves all connections alike.
impl ConnectionService for axum::Router {
    fn for_connection(&self, _: Peer) -> axum::Router {
        self.clone()
    }
}

impl Listener for TcpListener {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<TcpStream> {
        let (stream, _) = TcpListener::accept(self).await?;
        // Without this option a small answer may wait 40 ms for the client's delayed acknowledgement. A connection
        // that refuses it is already gone, which hyper will notice.
        let _ = stream.set_nodelay(true);
        Ok(stream)
    }

    fn peer(stream: &TcpStream) -> Option<SocketAddr> {
        stream.peer_addr().ok()
    }
}

/// Serves `service`, such as an axum router, on `listener` until `stop` is cancelled, and returns when the last
/// connection has ended.
///
/// A stop accepts no more connections, closes idle ones, and lets requests in progress finish for up to `stop_within`;
/// then it drops them. Dropping the future stops accepting at once; open connections then go on until `stop` is
/// cancelled or their clients close them.
pub async fn serve<L, S>(
    listener: L,
    service: S,
    limits: ConnectionLimits,
    gate: ConnectionGate,
    stop: CancellationToken,
    stop_within: Duration,
) where
    L: Listener,
    S: HttpService,
{
    let connections_max = u32::try_from(limits.connections_max).unwrap_or(u32::MAX).max(1);
    let slots = Arc::new(Semaphore::new(connections_max as usize));
    let connections = Connections {
        http: http(limits.head_timeout),
        gate,
        write_timeout: limits.head_timeout,
        service: HyperService { service },
        stop,
        cut_off: CancellationToken::new(),
    };

    accept(&listener, &slots, &connections).await;
    // Closing the socket makes later connections fail at once instead of waiting for nobody.
    drop(listener);

    if timeout(stop_within, slots.acquire_many(connections_max)).await.is_err() {
        let open = connections_max as usize - slots.available_permits();
        warn!(connections = open, "stop took too long, connections are cut off");
        connections.cut_off.cancel();
        // The semaphore is never closed, so all permits are back only when the last connection has ended.
        let _ = slots.acquire_many(connections_max).await;
    }
}

fn http(head_timeout: Duration) -> http1::Builder {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(head_timeout)
        .max_header_size(HEAD_BYTES_MAX)
        .max_buf_size(BUFFER_BYTES_MAX);
    http
}

/// Accepts connections, each once it has a slot, until `stop` is cancelled.
async fn accept<L, S>(listener: &L, slots: &Arc<Semaphore>, connections: &Connections<S>)
where
    L: Listener,
    S: HttpService,
{
    let mut warnings = Warnings::default();
    while let Some(slot) = connections.unless_stopped(Arc::clone(slots).acquire_owned()).await {
        let slot = slot.expect("the semaphore is never closed");
        let Some(accepted) = connections.unless_stopped(listener.accept()).await else { return };
        match accepted {
            Ok(stream) => {
                let address = L::peer(&stream).map(|peer| peer.ip());
                if let Some(admitted) = connections.gate.admit(address) {
                    connections.start(address, stream, (slot, admitted));
                }
            }
            Err(error) if is_about_one_connection(&error) => {}
            Err(error) => {
                if warnings.is_due(Instant::now()) {
                    warn!(error = %error, retry_in = ?ACCEPT_PAUSE, "connection could not be accepted");
                }
                let _ = connections.unless_stopped(sleep(ACCEPT_PAUSE)).await;
            }
        }
    }
}

/// The state that all connections of a listener share.
struct Connections<S> {
    http: http1::Builder,
    gate: ConnectionGate,
    /// Longest time that a write may stay pending.
    write_timeout: Duration,
    service: HyperService<S>,
    /// Once cancelled, connections finish the request in progress and close.
    stop: CancellationToken,
    /// Once cancelled, connections close at once.
    cut_off: CancellationToken,
}

impl<S> Connections<S>
where
    S: HttpService,
{
    async fn unless_stopped<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        self.stop.run_until_cancelled(work).await
    }

    /// Serves one connection in a task of its own, which holds `places` until it ends.
    fn start<I>(&self, address: Option<IpAddr>, stream: I, places: (OwnedSemaphorePermit, AdmittedConnection))
    where
        I: AsyncRead + AsyncWrite + Send + 'static,
    {
        let connection = NewConnection {
            http: self.http.clone(),
            write_timeout: self.write_timeout,
            service: self.service.service.clone(),
            // Each connection has a token of its own: with a shared one, all would contend for its lock at every request.
            stop: self.stop.child_token(),
            cut_off: self.cut_off.clone(),
            _places: places,
        };
        match self.gate.tls.clone() {
            None => tokio::spawn(connection.serve(Peer { address, certificate: None }, stream, None)),
            Some(tls) => tokio::spawn(connection.serve_over_tls(tls, address, stream)),
        };
    }
}

/// A connection before its first request.
struct NewConnection<S> {
    http: http1::Builder,
    write_timeout: Duration,
    service: S,
    stop: CancellationToken,
    cut_off: CancellationToken,
    _places: (OwnedSemaphorePermit, AdmittedConnection),
}

impl<S> NewConnection<S>
where
    S: HttpService,
{
    /// Shakes hands, and serves the requests of a client that can.
    async fn serve_over_tls<I>(self, tls: TlsGate, address: Option<IpAddr>, stream: I)
    where
        I: AsyncRead + AsyncWrite + Send + 'static,
    {
        let accepted = self.stop.run_until_cancelled(tls.accept(Box::pin(stream))).await;
        if let Some(Some(connection)) = accepted {
            let peer = Peer { address, certificate: connection.client };
            self.serve(peer, connection.stream, Some(connection.trust_replaced)).await;
        }
    }

    /// Serves requests until the client closes the connection, or its trust is replaced, or the listener stops.
    async fn serve<I>(self, peer: Peer, stream: I, trust_replaced: Option<CancellationToken>)
    where
        I: AsyncRead + AsyncWrite + Send + 'static,
    {
        // Without this timeout a client that sends requests and reads no answer would keep its slot for ever: while a
        // write is pending no head is read, so the timeout for heads does not run.
        let mut stream = TimeoutWriter::new(stream);
        stream.set_timeout(Some(self.write_timeout));
        let service = self.service.for_connection(peer);
        let served = HyperService { service: service.clone() };
        let mut connection = pin!(self.http.serve_connection(TokioIo::new(Box::pin(stream)), served));
        let ended = tokio::select! {
            // The connection comes first: nearly every wake-up is for it.
            biased;
            ended = connection.as_mut() => Some(ended),
            () = until_either(&self.stop, trust_replaced.as_ref()) => {
                connection.as_mut().graceful_shutdown();
                self.cut_off.run_until_cancelled(connection).await
            }
        };
        if let Some(Err(error)) = ended {
            if error.is_parse() {
                service.on_unreadable(&error.to_string());
            }
            debug!(error = %error, "connection ended with an error");
        }
    }
}

/// Returns once one of the tokens is cancelled.
async fn until_either(one: &CancellationToken, other: Option<&CancellationToken>) {
    match other {
        None => one.cancelled().await,
        Some(other) => tokio::select! {
            () = one.cancelled() => {}
            () = other.cancelled() => {}
        },
    }
}

/// Adapts a service to hyper without a layer, a box or an allocation.
struct HyperService<S> {
    service: S,
}

impl<S> hyper::service::Service<Request<Incoming>> for HyperService<S>
where
    S: Service<Request<Incoming>, Response = Response, Error = Infallible> + Clone,
{
    type Response = Response;
    type Error = Infallible;
    type Future = S::Future;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        // The gateway's services are always ready, and a clone of one only counts a reference.
        self.service.clone().call(request)
    }
}

/// Whether the error concerns a single connection, whose client gave up before it was accepted, and not the next ones.
fn is_about_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::ConnectionRefused
    )
}

/// ConnectionLimits how often refused connections are logged.
#[derive(Default)]
struct Warnings {
    last: Option<Instant>,
}

impl Warnings {
    fn is_due(&mut self, now: Instant) -> bool {
        let due = self.last.is_none_or(|last| now.duration_since(last) >= ACCEPT_WARNING_EVERY);
        if due {
            self.last = Some(now);
        }
        due
    }
}

/// Advice to append to the system's error about an address: what is wrong with it, and what to do.
pub fn advice_on_address(address: SocketAddr, error: &io::Error) -> String {
    let (ip, port) = (address.ip(), address.port());
    match error.kind() {
        ErrorKind::AddrInUse => "; another program listens there: stop it, or choose another port".to_owned(),
        ErrorKind::AddrNotAvailable => {
            format!(
                "; {ip} is no address of this machine: choose one that is, or 0.0.0.0 or [::] for all of them"
            )
        }
        ErrorKind::PermissionDenied => format!(
            "; the system keeps port {port} for privileged programs: choose a port from 1024 on, or give the program the \
             capability CAP_NET_BIND_SERVICE"
        ),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests;
