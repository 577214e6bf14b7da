//! A client that sends bytes as they are given, for requests that no HTTP client would make.

use std::net::SocketAddr;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::LIMIT;
use super::gateway::Reply;

/// One connection.
#[derive(Debug)]
pub struct RawClient {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl RawClient {
    /// Connects.
    pub async fn connect(address: SocketAddr) -> RawClient {
        let stream = TcpStream::connect(address).await.expect("a connection");
        stream.set_nodelay(true).expect("a socket");
        RawClient { stream, unread: Vec::new() }
    }

    /// Sends bytes.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        assert!(self.try_send(bytes).await, "the gateway has closed the connection");
    }

    /// Sends bytes unless the connection is closed; says whether it was open.
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        let sent = timeout(LIMIT, self.stream.write_all(bytes.as_ref())).await;
        sent.expect("the gateway reads what is sent").is_ok()
    }

    /// Sends a whole `POST /v1/readings` of JSON.
    pub async fn post(&mut self, body: impl AsRef<[u8]>) {
        let body = body.as_ref();
        self.send(post_head(&format!("Content-Length: {}\r\n", body.len()))).await;
        self.send(body).await;
    }

    /// Reads the next answer, which may be `100 Continue`.
    #[track_caller]
    pub fn reply(&mut self) -> impl Future<Output = Reply> {
        let caller = std::panic::Location::caller();
        async move {
            let reply = self.read_reply(true).await;
            reply.unwrap_or_else(|rest| panic!("{caller}: the connection was closed after {rest:?}"))
        }
    }

    /// Reads the answer to a `HEAD`, which has no body.
    pub async fn reply_to_head(&mut self) -> Reply {
        self.read_reply(false).await.expect("an answer")
    }

    /// The next answer, or nothing if the connection is closed without one.
    pub async fn reply_or_end(&mut self) -> Option<Reply> {
        self.read_reply(true).await.ok()
    }

    /// Waits until the gateway closes the connection, and returns the bytes that it still sent.
    pub async fn end(mut self) -> Vec<u8> {
        while self.read_more().await {}
        self.unread
    }

    /// Whether an answer, or the end, comes within `time`.
    pub async fn hears_within(&mut self, time: Duration) -> bool {
        !self.unread.is_empty() || timeout(time, self.stream.peek(&mut [0])).await.is_ok()
    }

    async fn read_reply(&mut self, has_body: bool) -> Result<Reply, String> {
        let head_end = loop {
            if let Some(at) = self.unread.windows(4).position(|four| four == b"\r\n\r\n") {
                break at;
            }
            if !self.read_more().await {
                return Err(String::from_utf8_lossy(&self.unread).into_owned());
            }
        };
        let head: Vec<u8> = self.unread.drain(..head_end + 4).collect();
        let (status, headers) = parse_head(std::str::from_utf8(&head).expect("an ASCII head").trim_end());
        assert!(!headers.contains_key("transfer-encoding"), "answers have a length: {headers:?}");
        let length = headers
            .get("content-length")
            .map_or(0, |length| length.to_str().expect("ASCII").parse().expect("a number"));
        let length = if has_body && !status.is_informational() { length } else { 0 };
        while self.unread.len() < length {
            if !self.read_more().await {
                return Err("a part of the body".to_owned());
            }
        }
        let body = self.unread.drain(..length).collect();
        Ok(Reply::new(status, headers, body))
    }

    async fn read_more(&mut self) -> bool {
        let read = timeout(LIMIT, self.stream.read_buf(&mut self.unread)).await;
        matches!(read.expect("an answer or an end in time"), Ok(1..))
    }
}

/// The head of a `POST /v1/readings` of JSON with these header lines more, each with its line end.
pub fn post_head(headers: &str) -> String {
    format!(
        "POST /v1/readings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{headers}\r\n"
    )
}

/// One chunk of a chunked body.
pub fn chunk(data: impl AsRef<[u8]>) -> Vec<u8> {
    let data = data.as_ref();
    [format!("{:x}\r\n", data.len()).as_bytes(), data, b"\r\n"].concat()
}

fn parse_head(head: &str) -> (StatusCode, HeaderMap) {
    let mut lines = head.split("\r\n");
    let status_line = lines.next().expect("a status line");
    let status = status_line.split(' ').nth(1).expect("a status");
    let header = |line: &str| {
        let (name, value) = line.split_once(':').expect("a header");
        let name: HeaderName = name.parse().expect("a header name");
        (name, HeaderValue::from_str(value.trim()).expect("a header value"))
    };
    (status.parse().expect("a status"), lines.map(header).collect())
}
