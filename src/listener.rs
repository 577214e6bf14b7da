//! The connection loop: serves a service on a socket by HTTP/1.1, within limits.
//!
//! [`serve`] drives hyper itself, because its limits lie below axum: the number of connections, the time that a client
//! may take to send the head of a request or to read its answer, the size of that head, and the duration of a stop. The
//! limits of bodies and handlers belong to the service.
//!
//! | limit | value | beyond it |
//! |---|---|---|
//! | connections | [`ConnectionLimits::connections_max`] | no more are accepted until one ends; the kernel queues a few |
//! | time for the head of a request, and time between two requests | [`ConnectionLimits::head_timeout`] | the connection is closed |
//! | time for which a client may leave an answer unread | [`ConnectionLimits::head_timeout`] | the connection is closed |
//! | bytes of a head | 32 KiB | 431, and the connection is closed |
//! | header fields | 100, which is hyper's own limit; setting it would cost an allocation a request | 431 |
//! | bytes buffered for a connection, each way | 128 KiB | the client waits |
//! | time to stop | `stop_within` | requests in progress are cut off |

use std::convert::Infallible;
use std::future::Future;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout};
use tokio_io_timeout::TimeoutWriter;
use tokio_util::sync::CancellationToken;
use tower::Service;
use tracing::{debug, warn};

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

/// A service that knows of its connections.
pub trait ConnectionService: Clone {
    /// The service for one connection from `peer`. It and its clones are dropped when the connection has ended.
    #[must_use]
    fn for_connection(&self, peer: Option<SocketAddr>) -> Self;

    /// Called when bytes that are not a request ended the connection; hyper has answered them with 400 or 431.
    fn on_unreadable(&self, _detail: &str) {}
}

/// A router serves all connections alike.
impl ConnectionService for axum::Router {
    fn for_connection(&self, _: Option<SocketAddr>) -> axum::Router {
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
    stop: CancellationToken,
    stop_within: Duration,
) where
    L: Listener,
    S: Service<Request<Incoming>, Response = Response, Error = Infallible>
        + ConnectionService
        + Send
        + 'static,
    S::Future: Send,
{
    let connections_max = u32::try_from(limits.connections_max).unwrap_or(u32::MAX).max(1);
    let slots = Arc::new(Semaphore::new(connections_max as usize));
    let connections = Connections {
        http: http(limits.head_timeout),
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
    S: Service<Request<Incoming>, Response = Response, Error = Infallible>
        + ConnectionService
        + Send
        + 'static,
    S::Future: Send,
{
    let mut warnings = Warnings::default();
    while let Some(slot) = connections.unless_stopped(Arc::clone(slots).acquire_owned()).await {
        let slot = slot.expect("the semaphore is never closed");
        let Some(accepted) = connections.unless_stopped(listener.accept()).await else { return };
        match accepted {
            Ok(stream) => connections.start(L::peer(&stream), stream, slot),
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
    S: Service<Request<Incoming>, Response = Response, Error = Infallible>
        + ConnectionService
        + Send
        + 'static,
    S::Future: Send,
{
    async fn unless_stopped<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        self.stop.run_until_cancelled(work).await
    }

    /// Serves one connection in a task of its own, which holds `slot` until it ends.
    fn start<I>(&self, peer: Option<SocketAddr>, stream: I, slot: OwnedSemaphorePermit)
    where
        I: AsyncRead + AsyncWrite + Send + 'static,
    {
        // Without this timeout a client that sends requests and reads no answer would keep its slot for ever: while a
        // write is pending no head is read, so the timeout for heads does not run.
        let mut stream = TimeoutWriter::new(stream);
        stream.set_timeout(Some(self.write_timeout));
        let service = self.service.service.for_connection(peer);
        let served = HyperService { service: service.clone() };
        let connection = self.http.serve_connection(TokioIo::new(Box::pin(stream)), served);
        // Each connection has a token of its own: with a shared one, all would contend for its lock at every request.
        let stop = self.stop.child_token();
        let cut_off = self.cut_off.clone();
        tokio::spawn(async move {
            let _slot = slot;
            let mut connection = pin!(connection);
            let ended = tokio::select! {
                // The connection comes first: nearly every wake-up is for it.
                biased;
                ended = connection.as_mut() => Some(ended),
                () = stop.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    cut_off.run_until_cancelled(connection).await
                }
            };
            if let Some(Err(error)) = ended {
                if error.is_parse() {
                    service.on_unreadable(&error.to_string());
                }
                debug!(error = %error, "connection ended with an error");
            }
        });
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
mod tests {
    use super::*;
    use axum::Router;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::Notify;
    use tokio::task::JoinHandle;

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n";
    /// Longest wait for something that must happen.
    const PATIENCE: Duration = Duration::from_secs(20);
    /// How long a test watches for something that must not happen.
    const WATCH: Duration = Duration::from_millis(100);

    struct Server {
        address: SocketAddr,
        stop: CancellationToken,
        task: JoinHandle<()>,
        /// Notified when a handler has begun.
        begun: Arc<Notify>,
        /// Lets the handler of `/slow` finish.
        go_on: Arc<Notify>,
    }

    async fn start(limits: ConnectionLimits, stop_within: Duration) -> Server {
        let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let slow = {
            let (begun, go_on) = (Arc::clone(&begun), Arc::clone(&go_on));
            move || async move {
                begun.notify_one();
                go_on.notified().await;
                "slow"
            }
        };
        let router = Router::new()
            .route("/", get(|| async { "quick" }))
            .route("/large", get(|| async { vec![b'x'; 1 << 20] }))
            .route("/slow", get(slow));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let stop = CancellationToken::new();
        let task = tokio::spawn(serve(listener, router, limits, stop.clone(), stop_within));
        Server { address, stop, task, begun, go_on }
    }

    impl Server {
        async fn connect(&self) -> TcpStream {
            TcpStream::connect(self.address).await.expect("a connection")
        }

        async fn ended(self) {
            timeout(PATIENCE, self.task).await.expect("it returns").expect("it does not panic");
        }
    }

    fn limits() -> ConnectionLimits {
        ConnectionLimits { connections_max: 10, head_timeout: PATIENCE }
    }

    /// Reads an answer up to its last word.
    async fn read_answer(stream: &mut TcpStream, word: &str) -> String {
        let mut answer = Vec::new();
        while !answer.ends_with(word.as_bytes()) {
            let read = timeout(PATIENCE, stream.read_buf(&mut answer)).await.expect("an answer");
            assert_ne!(read.expect("bytes"), 0, "closed after {:?}", String::from_utf8_lossy(&answer));
        }
        String::from_utf8(answer).expect("text")
    }

    async fn read_to_end(stream: &mut TcpStream) -> String {
        let mut rest = Vec::new();
        // A reset also ends the connection.
        let _ = timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("the end");
        String::from_utf8(rest).expect("text")
    }

    #[tokio::test]
    async fn a_connection_beyond_the_limit_waits_until_another_ends() {
        let server = start(ConnectionLimits { connections_max: 2, ..limits() }, PATIENCE).await;
        let (mut first, mut second) = (server.connect().await, server.connect().await);
        for stream in [&mut first, &mut second] {
            stream.write_all(REQUEST).await.expect("sent");
            read_answer(stream, "quick").await;
        }
        let mut third = server.connect().await;
        third.write_all(REQUEST).await.expect("sent");
        let mut byte = [0];
        assert!(timeout(WATCH, third.peek(&mut byte)).await.is_err(), "answered beyond the limit");
        drop(first);
        read_answer(&mut third, "quick").await;
    }

    #[tokio::test]
    async fn a_head_that_trickles_in_is_cut_off_and_other_clients_are_served() {
        let server = start(
            ConnectionLimits { head_timeout: Duration::from_millis(200), connections_max: 1 },
            PATIENCE,
        )
        .await;
        let mut trickle = server.connect().await;
        let begun = Instant::now();
        for byte in REQUEST.iter().cycle() {
            // The line feeds that would end the head never come.
            if *byte != b'\n' && trickle.write_all(&[*byte]).await.is_err() {
                break;
            }
            sleep(Duration::from_millis(10)).await;
            assert!(begun.elapsed() < PATIENCE, "never cut off");
        }
        let mut other = server.connect().await;
        other.write_all(REQUEST).await.expect("sent");
        read_answer(&mut other, "quick").await;
    }

    #[tokio::test]
    async fn an_idle_connection_is_closed_after_the_head_timeout() {
        let server =
            start(ConnectionLimits { head_timeout: Duration::from_millis(50), ..limits() }, PATIENCE).await;
        let mut stream = server.connect().await;
        stream.write_all(REQUEST).await.expect("sent");
        read_answer(&mut stream, "quick").await;
        assert_eq!(read_to_end(&mut stream).await, "");
    }

    #[tokio::test]
    async fn a_client_that_sends_requests_and_never_reads_loses_its_connection() {
        let server = start(
            ConnectionLimits { head_timeout: Duration::from_millis(200), connections_max: 1 },
            PATIENCE,
        )
        .await;
        let mut deaf = server.connect().await;
        // The answers are far larger than the socket buffers of both sides.
        let requests = b"GET /large HTTP/1.1\r\nHost: here\r\n\r\n".repeat(64);
        deaf.write_all(&requests).await.expect("sent");
        let mut other = server.connect().await;
        other.write_all(REQUEST).await.expect("sent");
        read_answer(&mut other, "quick").await;
        let answers = read_to_end(&mut deaf).await;
        assert!(answers.len() < 64 << 20, "all was sent to a client that did not read");
    }

    #[tokio::test]
    async fn a_head_that_is_too_large_is_answered_with_431() {
        let server = start(limits(), PATIENCE).await;
        let start_line = "GET / HTTP/1.1\r\nHost: here\r\n";
        let many = format!("{start_line}{}\r\n", "X-Field: 1\r\n".repeat(101));
        // Exactly as many bytes as the server reads: closing with unread bytes could discard the answer.
        let long = format!("{:x<HEAD_BYTES_MAX$}", format!("{start_line}X-Field: "));
        for head in [many, long] {
            let mut stream = server.connect().await;
            stream.write_all(head.as_bytes()).await.expect("sent");
            let answer = read_to_end(&mut stream).await;
            assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
        }
    }

    #[tokio::test]
    async fn a_stop_lets_a_request_in_progress_finish_and_closes_idle_connections() {
        let server = start(limits(), PATIENCE).await;
        let (mut slow, mut idle) = (server.connect().await, server.connect().await);
        idle.write_all(REQUEST).await.expect("sent");
        read_answer(&mut idle, "quick").await;
        slow.write_all(b"GET /slow HTTP/1.1\r\nHost: here\r\n\r\n").await.expect("sent");
        timeout(PATIENCE, server.begun.notified()).await.expect("the handler begins");

        server.stop.cancel();
        assert_eq!(read_to_end(&mut idle).await, "");
        let refused = async { while TcpStream::connect(server.address).await.is_ok() {} };
        timeout(PATIENCE, refused).await.expect("new connections are refused");
        assert!(!server.task.is_finished());

        server.go_on.notify_one();
        assert!(read_to_end(&mut slow).await.ends_with("slow"));
        server.ended().await;
    }

    #[tokio::test]
    async fn a_stop_cuts_off_requests_at_its_deadline() {
        let server = start(limits(), Duration::from_millis(50)).await;
        let mut stuck = server.connect().await;
        stuck.write_all(b"GET /slow HTTP/1.1\r\nHost: here\r\n\r\n").await.expect("sent");
        timeout(PATIENCE, server.begun.notified()).await.expect("the handler begins");
        server.stop.cancel();
        assert_eq!(read_to_end(&mut stuck).await, "");
        server.ended().await;
    }

    #[test]
    fn a_lasting_refusal_is_logged_at_most_once_a_second() {
        let mut warnings = Warnings::default();
        let start = Instant::now();
        let warned = (0..25).filter(|step| warnings.is_due(start + ACCEPT_PAUSE * *step)).count();
        assert_eq!(warned, 3);
    }

    #[test]
    fn errors_of_a_single_client_cause_no_pause() {
        assert!(is_about_one_connection(&ErrorKind::ConnectionAborted.into()));
        // EMFILE, too many open files.
        assert!(!is_about_one_connection(&io::Error::from_raw_os_error(24)));
    }
}
