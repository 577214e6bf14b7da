//! The memos that the front gives to the buffer and gets back after a restart.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::auth::usage::UsageTable;
use crate::buffer::accounts::Bounds;
use crate::buffer::lease::Record;
use crate::buffer::{Accounts, Amount, PushError, Receipt, Request, Rest};
use crate::config::Config;
use crate::door::{Door, DoorConfig};
use crate::listener::{self, ConnectionGate, ConnectionLimits, PerAddress};

/// A buffer that collects the memos of pushed requests, and accepts them like the buffer on disk.
#[derive(Debug)]
struct MemoBuffer {
    accounts: Arc<Accounts>,
    memos: Mutex<Vec<Option<Bytes>>>,
    /// The failure of the first push.
    failure: Mutex<Option<fn() -> PushError>>,
}

impl MemoBuffer {
    fn new() -> Arc<MemoBuffer> {
        let limit = Amount { readings: 1000, bytes: 1 << 20 };
        let bounds = Bounds { limit, least: Record::AMOUNT_MIN };
        let accounts = Accounts::new(bounds, 1, tokio::time::Instant::now());
        Arc::new(MemoBuffer { accounts, memos: Mutex::default(), failure: Mutex::default() })
    }

    fn failing(failure: fn() -> PushError) -> Arc<MemoBuffer> {
        let buffer = MemoBuffer::new();
        *buffer.failure.lock().unwrap() = Some(failure);
        buffer
    }

    fn memos(&self) -> Vec<Option<Bytes>> {
        self.memos.lock().unwrap().clone()
    }
}

impl Buffer for MemoBuffer {
    fn push(&self, request: Request) -> BoxFuture<'_, Result<Receipt, PushError>> {
        async move {
            let failure = self.failure.lock().unwrap().take();
            if let Some(failure) = failure {
                return Err(failure());
            }
            self.memos.lock().unwrap().push(request.memo);
            Ok(Receipt { ack: request.ack })
        }
        .boxed()
    }

    fn accounts(&self) -> &Arc<Accounts> {
        &self.accounts
    }

    fn close(&self) {}

    fn trouble(&self) -> Option<String> {
        None
    }

    fn finish(&self) -> BoxFuture<'_, Rest> {
        async { Rest::Lost }.boxed()
    }
}

/// A front that serves until it is dropped.
struct Served {
    address: SocketAddr,
    server: JoinHandle<()>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Served {
    async fn start(buffer: &Arc<MemoBuffer>, memos: &[Bytes]) -> Served {
        let config = Config::read(None, &[]).expect("the defaults are good").ingest;
        let metrics = Arc::new(Metrics::new());
        let buffer: Arc<dyn Buffer> = Arc::<MemoBuffer>::clone(buffer);
        let acks = &[Ack::Memory, Ack::Disk, Ack::Delivered];
        let access = Arc::new(UsageTable::new(metrics.key_readings.clone()));
        let access = Arc::new(Access::new(access, None, PerAddress::new(0, Vec::new())));
        let acks = Acks { default: Ack::Disk, allowed: acks };
        let front = Front::new(config, access, 10, buffer, acks, CancellationToken::new(), &metrics);
        front.restore(memos);
        let socket = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = socket.local_addr().expect("an address");
        let door = Door::new(DoorConfig::default(), address);
        let front = Arc::new(front);
        let entrance = Entrance::new(door, Arc::clone(&front), readings_routes(&front), &[], &metrics);
        let limits = ConnectionLimits { connections_max: 10, head_timeout: Duration::from_secs(10) };
        let stop = CancellationToken::new();
        let server = tokio::spawn(listener::serve(
            socket,
            entrance,
            limits,
            ConnectionGate::open(),
            stop,
            Duration::ZERO,
        ));
        Served { address, server }
    }

    /// Posts a reading. Returns the status and body of the answer, and whether it is a replay.
    async fn post(&self, key: Option<&str>, ack: &str) -> (u16, String, bool) {
        let client = forebay_load::client::builder().build().expect("a client");
        let request = client.post(format!("http://{}{READINGS_PATH}?ack={ack}", self.address));
        let request = key.into_iter().fold(request, |request, key| request.header("idempotency-key", key));
        let body = r#"[{"device":"d","sensor":"s","value":1},{}]"#;
        let reply = request.body(body).send().await.expect("an answer");
        let replayed = reply.headers().contains_key("idempotency-replayed");
        (reply.status().as_u16(), reply.text().await.expect("a body"), replayed)
    }
}

#[tokio::test]
async fn an_answer_is_replayed_after_a_restart_from_its_memo_in_the_buffer() {
    let buffer = MemoBuffer::new();
    let before = Served::start(&buffer, &[]).await;
    let (_, disk, _) = before.post(Some("disk"), "disk").await;
    let (_, delivered, _) = before.post(Some("delivered"), "delivered").await;
    assert!(disk.contains(r#""accepted":1,"rejected":1,"ack":"disk","errors":[{"index":1,"#), "{disk}");
    let memos: Vec<Bytes> = buffer.memos().into_iter().flatten().collect();
    assert_eq!(memos.len(), 2);

    let buffer = MemoBuffer::new();
    let after = Served::start(&buffer, &memos).await;
    assert_eq!(after.post(Some("disk"), "disk").await, (202, disk, true));
    let not_known = delivered.replace(r#""ack":"delivered""#, r#""ack":"disk""#);
    assert_eq!(after.post(Some("delivered"), "delivered").await, (202, not_known, true));
    assert_eq!(after.post(Some("disk"), "memory").await.0, 422);
    assert!(buffer.memos().is_empty(), "nothing is taken again");
}

#[tokio::test]
async fn a_request_without_a_key_has_no_memo() {
    let buffer = MemoBuffer::new();
    let served = Served::start(&buffer, &[]).await;
    assert_eq!(served.post(None, "disk").await.0, 202);
    assert_eq!(served.post(Some("a"), "disk").await.0, 202);
    let memos: Vec<_> = buffer.memos().iter().map(Option::is_some).collect();
    assert_eq!(memos, [false, true]);
}

#[tokio::test]
async fn a_push_that_fails_frees_the_key_and_one_that_panics_too() {
    let failing: [(fn() -> PushError, u16); 5] = [
        (|| PushError::Closed, 503),
        (|| PushError::Dropped, 503),
        (|| PushError::Damaged, 503),
        (|| PushError::Refused, 422),
        (|| panic!("the buffer has a defect"), 500),
    ];
    for (failure, status) in failing {
        let buffer = MemoBuffer::failing(failure);
        let served = Served::start(&buffer, &[]).await;
        assert_eq!(served.post(Some("a"), "disk").await.0, status);
        let (again, _, replayed) = served.post(Some("a"), "disk").await;
        // Readings that nodes refused had been accepted, so the repetition is not accepted again.
        assert_eq!((again, replayed), (202, status == 422), "after {status}");
    }
}
