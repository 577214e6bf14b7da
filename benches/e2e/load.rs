//! The load: requests that are rendered beforehand, sent over kept-alive connections from one thread.
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
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::sample;

/// Different requests that are sent in turn: enough that no server sees the same one twice in a row of caches.
const REQUESTS_RENDERED: u64 = 256;
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// The shape of the requests.
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
}

/// Every workload, a row each.
pub(crate) const WORKLOADS: &[Workload] = &[
    Workload {
        name: "single",
        content_type: "application/json",
        around: ["", "", ""],
        readings_a_request: 1,
        readings_a_round: 200_000,
    },
    Workload {
        name: "array100",
        content_type: "application/json",
        around: ["[", ",", "]"],
        readings_a_request: 100,
        readings_a_round: 3_000_000,
    },
    Workload {
        name: "ndjson100",
        content_type: "application/x-ndjson",
        around: ["", "\n", "\n"],
        readings_a_request: 100,
        readings_a_round: 3_000_000,
    },
];

/// How much is sent, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Requests in all.
    pub(crate) requests: u64,
    /// Connections that send them, each with one request at a time.
    pub(crate) connections: usize,
    /// Time from one request to the next, over all connections; zero: as fast as the answers come.
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
    /// The requests, ready to be written to a socket.
    pub(crate) fn render(&self) -> Vec<Vec<u8>> {
        (0..REQUESTS_RENDERED).map(|index| self.render_request(index)).collect()
    }

    fn render_request(&self, index: u64) -> Vec<u8> {
        let numbers: Range<u64> = index * self.readings_a_request..(index + 1) * self.readings_a_request;
        let body = sample::body(numbers, self.around);
        let (content_type, length) = (self.content_type, body.len());
        let head = format!(
            "POST /v1/readings HTTP/1.1\r\nHost: localhost\r\nContent-Type: {content_type}\r\n\
             Content-Length: {length}\r\n\r\n"
        );
        (head + &body).into_bytes()
    }
}

/// Sends `plan.requests` requests, in turn from `requests`, and waits for all answers.
///
/// # Errors
///
/// A connection that breaks, any answer but 202, or one that says that readings were turned away.
pub(crate) async fn send(
    address: SocketAddr,
    workload: &Workload,
    requests: &[Vec<u8>],
    plan: Plan,
) -> anyhow::Result<Tally> {
    let (started_at, next, readings) = (Instant::now(), Cell::new(0), Cell::new(0));
    let connections = (0..plan.connections).map(|_| async {
        let mut connection = Connection::open(address).await?;
        loop {
            let ticket = next.get();
            if ticket == plan.requests {
                return anyhow::Ok(());
            }
            next.set(ticket + 1);
            wait_until(started_at, plan.spacing, ticket).await;
            connection.write(&requests[ticket as usize % requests.len()]).await?;
            let sent = workload.readings_a_request;
            let accepted = connection.read_answer().await?.unwrap_or(sent);
            ensure!(accepted == sent, "{accepted} of {sent} readings of a request were accepted");
            readings.set(readings.get() + accepted);
        }
    });
    try_join_all(connections).await?;
    Ok(Tally { readings: readings.get(), elapsed: started_at.elapsed() })
}

/// Waits until the `ticket`-th of things that are spaced so is due.
pub(crate) async fn wait_until(started_at: Instant, spacing: Duration, ticket: u64) {
    if !spacing.is_zero() {
        let due = started_at + spacing.mul_f64(ticket as f64);
        tokio::time::sleep_until(due.into()).await;
    }
}

/// A connection that sends one request at a time.
pub(crate) struct Connection {
    stream: TcpStream,
    answer: Vec<u8>,
}

impl Connection {
    /// Connects.
    pub(crate) async fn open(address: SocketAddr) -> anyhow::Result<Connection> {
        let stream = TcpStream::connect(address).await.with_context(|| format!("connecting to {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Connection { stream, answer: Vec::with_capacity(4096) })
    }

    /// Sends a request.
    pub(crate) async fn write(&mut self, request: &[u8]) -> anyhow::Result<()> {
        self.stream.write_all(request).await.context("sending a request")
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
