//! The load: requests that are rendered beforehand, sent from one thread over connections that are kept alive, or over a
//! new one for each request.
//!
//! It is lean so that it does not compete with the servers for the processor, and it checks every answer.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::disallowed_types,
    reason = "figures are rounded for people, and real time is measured"
)]

use std::cell::Cell;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use futures_util::future::try_join_all;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::sample;
use crate::tls::{Handshake, TlsClient};

/// Different requests that are sent in turn: enough that no server sees the same one twice in a row of caches.
const REQUESTS_RENDERED: u64 = 256;
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// The shape of the requests, and the connections that they come over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Workload {
    /// Its name in the report and on the command line.
    pub(crate) name: &'static str,
    content_type: &'static str,
    /// The bytes before, between and after the readings of a request.
    around: [&'static str; 3],
    /// Readings in a request.
    pub(crate) readings_a_request: u64,
    /// Readings in a round: some seconds of processor time.
    pub(crate) readings_a_round: u64,
    /// The handshake before each request, which then has a connection of its own; `None`: clients keep their connections.
    pub(crate) handshake: Option<Handshake>,
}

const SINGLE: Workload = Workload {
    name: "single",
    content_type: "application/json",
    around: ["", "", ""],
    readings_a_request: 1,
    readings_a_round: 200_000,
    handshake: None,
};

const ARRAY_100: Workload = Workload {
    name: "array100",
    around: ["[", ",", "]"],
    readings_a_request: 100,
    readings_a_round: 3_000_000,
    ..SINGLE
};

/// A request with a connection of its own.
const HANDSHAKE: Workload = Workload { readings_a_round: 10_000, ..SINGLE };

/// Every workload, a row each.
pub(crate) const WORKLOADS: &[Workload] = &[
    SINGLE,
    ARRAY_100,
    Workload {
        name: "ndjson100",
        content_type: "application/x-ndjson",
        around: ["", "\n", "\n"],
        ..ARRAY_100
    },
    Workload { name: "full-handshake", handshake: Some(Handshake::Full), ..HANDSHAKE },
    Workload { name: "resumed-handshake", handshake: Some(Handshake::Resumed), ..HANDSHAKE },
];

/// How much is sent, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Requests in all.
    pub(crate) requests: u64,
    /// Time from one request to the next, over all clients; zero: as fast as the answers come.
    pub(crate) spacing: Duration,
}

/// The acknowledged readings.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tally {
    /// Readings that the answers say were accepted.
    pub(crate) readings: u64,
    /// From the first connection to the last answer.
    pub(crate) elapsed: Duration,
}

impl Workload {
    /// The requests, ready to be written to a socket, each with the lines of `header` in its head.
    pub(crate) fn render(&self, header: impl Fn(u64) -> String) -> Vec<Vec<u8>> {
        (0..REQUESTS_RENDERED).map(|index| self.render_request(index, &header(index))).collect()
    }

    fn render_request(&self, index: u64, header: &str) -> Vec<u8> {
        let numbers: Range<u64> = index * self.readings_a_request..(index + 1) * self.readings_a_request;
        let body = sample::body(numbers, self.around);
        let (content_type, length) = (self.content_type, body.len());
        let head = format!(
            "POST /v1/readings HTTP/1.1\r\nHost: localhost\r\n{header}Content-Type: {content_type}\r\n\
             Content-Length: {length}\r\n\r\n"
        );
        (head + &body).into_bytes()
    }
}

/// Sends `plan.requests` requests, in turn from `requests`, and waits for all answers. Each client sends one at a time.
///
/// # Errors
///
/// A connection that breaks, any answer but 202, or one that says that readings were turned away.
pub(crate) async fn send(
    clients: &[Client],
    workload: &Workload,
    requests: &[Vec<u8>],
    plan: Plan,
) -> anyhow::Result<Tally> {
    let (started_at, next, readings) = (Instant::now(), Cell::new(0), Cell::new(0));
    let clients = clients.iter().map(|client| async {
        let mut kept = None;
        loop {
            let ticket = next.get();
            if ticket == plan.requests {
                return anyhow::Ok(());
            }
            next.set(ticket + 1);
            wait_until(started_at, plan.spacing, ticket).await;
            let mut connection = match kept.take() {
                Some(connection) => connection,
                None => client.connect().await?,
            };
            connection.write(&requests[ticket as usize % requests.len()]).await?;
            let sent = workload.readings_a_request;
            let accepted = connection.read_answer().await?.unwrap_or(sent);
            ensure!(accepted == sent, "{accepted} of {sent} readings of a request were accepted");
            readings.set(readings.get() + accepted);
            match workload.handshake {
                None => kept = Some(connection),
                Some(Handshake::Full | Handshake::Resumed) => connection.close().await?,
            }
        }
    });
    try_join_all(clients).await?;
    Ok(Tally { readings: readings.get(), elapsed: started_at.elapsed() })
}

/// Waits until the `ticket`-th of things that are spaced so is due.
pub(crate) async fn wait_until(started_at: Instant, spacing: Duration, ticket: u64) {
    if !spacing.is_zero() {
        let due = started_at + spacing.mul_f64(ticket as f64);
        tokio::time::sleep_until(due.into()).await;
    }
}

/// A client of a server.
pub(crate) struct Client {
    /// Where the server listens.
    pub(crate) address: SocketAddr,
    /// Shakes hands, if the server wants it.
    pub(crate) tls: Option<TlsClient>,
}

impl Client {
    /// Connects once more.
    pub(crate) async fn connect(&self) -> anyhow::Result<Connection> {
        let stream = connect(self.address).await?;
        match &self.tls {
            None => Ok(Connection::over(stream)),
            Some(tls) => Ok(Connection::over(tls.connect(stream).await?)),
        }
    }
}

/// A stream that is read and written: TCP, or TLS over it.
trait Duplex: AsyncRead + AsyncWrite + Unpin {}

impl<S: AsyncRead + AsyncWrite + Unpin> Duplex for S {}

/// A connection that sends one request at a time.
pub(crate) struct Connection {
    stream: Box<dyn Duplex>,
    answer: Vec<u8>,
}

impl Connection {
    /// Connects without TLS.
    pub(crate) async fn open(address: SocketAddr) -> anyhow::Result<Connection> {
        Ok(Connection::over(connect(address).await?))
    }

    fn over(stream: impl Duplex + 'static) -> Connection {
        Connection { stream: Box::new(stream), answer: Vec::with_capacity(4096) }
    }

    /// Sends a request.
    pub(crate) async fn write(&mut self, request: &[u8]) -> anyhow::Result<()> {
        self.stream.write_all(request).await.context("sending a request")?;
        // Only then the last bytes of TLS are on their way.
        self.stream.flush().await.context("sending a request")
    }

    /// Says goodbye and hangs up.
    async fn close(mut self) -> anyhow::Result<()> {
        self.stream.shutdown().await.context("closing a connection")
    }

    /// Reads one answer: how many readings it says were accepted, or nothing if it has no body.
    pub(crate) async fn read_answer(&mut self) -> anyhow::Result<Option<u64>> {
        self.answer.clear();
        let mut whole = None;
        while whole.is_none_or(|bytes| self.answer.len() < bytes) {
            ensure!(
                self.answer.len() < ANSWER_BYTES_MAX,
                "an answer is longer than {ANSWER_BYTES_MAX} bytes"
            );
            let read = self.stream.read_buf(&mut self.answer).await.context("reading an answer")?;
            ensure!(read > 0, "the server closed a connection instead of answering");
            whole = whole.or(answer_bytes(&self.answer)?);
        }
        if !self.answer.starts_with(b"HTTP/1.1 202 ") {
            bail!("expected a 202, got: {}", String::from_utf8_lossy(&self.answer));
        }
        accepted(&self.answer)
    }
}

async fn connect(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect(address).await.with_context(|| format!("connecting to {address}"))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// How long the whole answer is, once its head is there.
fn answer_bytes(answer: &[u8]) -> anyhow::Result<Option<usize>> {
    let Some(head_bytes) = find(answer, b"\r\n\r\n") else { return Ok(None) };
    let head = std::str::from_utf8(&answer[..head_bytes])?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>())
    });
    let length = length.with_context(|| format!("an answer without Content-Length: {head}"))??;
    Ok(Some(head_bytes + 4 + length))
}

/// The number after `"accepted":`, if it is there.
fn accepted(answer: &[u8]) -> anyhow::Result<Option<u64>> {
    const NAME: &[u8] = b"\"accepted\":";
    let Some(at) = find(answer, NAME) else { return Ok(None) };
    let rest = &answer[at + NAME.len()..];
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    Ok(Some(std::str::from_utf8(&rest[..digits])?.parse()?))
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|window| window == wanted)
}
