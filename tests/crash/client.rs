//! Clients that post, and remember the answers.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use forebay_reading::clock::wall_time;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::support::{LIMIT, Reading, to_json, to_ndjson};

/// The requests of clients.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// The readings with these numbers, in a request that was made at this time.
    pub readings: fn(Range<usize>, SystemTime) -> Vec<Reading>,
    /// Longest that a client waits for an answer before it hangs up.
    pub patience: Duration,
    /// How often a request is sent once more, without a key, as if its client did not know better: percent.
    pub twice: u8,
}

/// The acknowledgement that a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    Memory,
    Disk,
    Delivered,
}

/// A request, and its fate.
#[derive(Clone, Debug)]
pub struct Request {
    pub numbers: Range<usize>,
    pub made_at: SystemTime,
    pub load: Load,
    pub promise: Promise,
    pub lines: bool,
    pub key: Option<String>,
    pub fate: Fate,
}

/// A client's knowledge of its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It was acknowledged with this promise.
    Promised { promise: Promise, at: Instant },
    /// It was refused: nothing was taken.
    Refused,
    /// Unknown: there was no answer, or an answer that leaves it open.
    Unknown,
}

impl Request {
    /// The readings of it.
    pub fn readings(&self) -> Vec<Reading> {
        (self.load.readings)(self.numbers.clone(), self.made_at)
    }

    fn body(&self) -> (&'static str, Vec<u8>) {
        let readings = self.readings();
        match &readings[..] {
            _ if self.lines => ("application/x-ndjson", to_ndjson(&readings)),
            [single] => ("application/json", single.to_string().into_bytes()),
            all => ("application/json", to_json(all)),
        }
    }

    fn path(&self) -> &'static str {
        match self.promise {
            Promise::Memory => "/v1/readings?ack=memory",
            Promise::Disk => "/v1/readings",
            Promise::Delivered => "/v1/readings?ack=delivered",
        }
    }
}

/// Where the gateway is at present, and whether the load goes on.
#[derive(Clone, Debug)]
pub struct Stage {
    pub load: Load,
    pub address: watch::Receiver<Option<SocketAddr>>,
    pub over: Arc<AtomicBool>,
    /// The number of the next reading.
    pub next: Arc<AtomicUsize>,
}

impl Stage {
    /// The beginning of a load.
    pub fn new(load: Load, address: watch::Receiver<Option<SocketAddr>>) -> Stage {
        Stage { load, address, over: Arc::default(), next: Arc::default() }
    }
}

/// Posts one request after the other.
pub struct Client {
    stage: Stage,
    random: fastrand::Rng,
    http: reqwest::Client,
    requests: Vec<Request>,
}

impl Client {
    /// Makes one that has sent nothing.
    pub fn new(stage: &Stage, seed: u64) -> Client {
        let http = forebay_load::client::builder().build().expect("a client");
        Client { stage: stage.clone(), random: fastrand::Rng::with_seed(seed), http, requests: Vec::new() }
    }

    /// Posts until the load is over.
    pub async fn run(mut self) -> Vec<Request> {
        while !self.stage.over.load(Ordering::Relaxed) {
            let request = self.choose();
            let fate = match request.key {
                Some(_) => self.post_until_promised(&request).await,
                None => self.post(&request).await,
            };
            if fate == Fate::Refused {
                sleep(Duration::from_millis(5)).await;
            }
            let request = Request { fate, ..request };
            if self.random.u8(..100) < self.stage.load.twice {
                self.send_twin(&request).await;
            }
            self.requests.push(request);
            if self.random.u8(..10) == 0 {
                self.repeat().await;
            }
        }
        self.requests
    }

    fn choose(&mut self) -> Request {
        let count = if self.random.bool() { 1 } else { self.random.usize(2..60) };
        let first = self.stage.next.fetch_add(count, Ordering::Relaxed);
        let promise = match self.random.u8(..10) {
            0 => Promise::Memory,
            1 => Promise::Delivered,
            _ => Promise::Disk,
        };
        let keyed = promise != Promise::Memory && self.random.u8(..4) == 0;
        let key = keyed.then(|| format!("client-{first}"));
        let lines = self.random.bool();
        let (numbers, made_at, load) = (first..first + count, wall_time(), self.stage.load);
        Request { numbers, made_at, load, promise, lines, key, fate: Fate::Unknown }
    }

    /// Sends the same readings in a request of its own.
    async fn send_twin(&mut self, request: &Request) {
        let twin = Request { key: None, lines: self.random.bool(), fate: Fate::Unknown, ..request.clone() };
        let fate = self.post(&twin).await;
        self.requests.push(Request { fate, ..twin });
    }

    /// Sends a request with a key again and again, also to the gateways to come.
    async fn post_until_promised(&mut self, request: &Request) -> Fate {
        let until = Instant::now() + 3 * LIMIT;
        loop {
            let fate = self.post(request).await;
            if matches!(fate, Fate::Promised { .. }) {
                return fate;
            }
            assert!(Instant::now() < until, "it is answered in time: {request:?}");
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Sends a request with a key once more whose answer is known.
    async fn repeat(&mut self) {
        let keyed = self.requests.iter().filter(|request| request.key.is_some());
        let keyed: Vec<_> = keyed.collect();
        let Some(request) = self.random.choice(keyed).cloned() else { return };
        self.post(&request).await;
    }

    /// Sends a request once.
    pub async fn post(&mut self, request: &Request) -> Fate {
        let address = *self.stage.address.wait_for(Option::is_some).await.expect("there is another round");
        let url = format!("http://{}{}", address.expect("it is there"), request.path());
        let (media_type, body) = request.body();
        let mut post = self.http.post(url).header("content-type", media_type).body(body);
        if let Some(key) = &request.key {
            post = post.header("idempotency-key", format!("\"{key}\""));
        }
        let answer = async {
            let response = post.send().await?;
            Ok::<_, reqwest::Error>((response.status().as_u16(), response.bytes().await?))
        };
        match timeout(self.stage.load.patience, answer).await {
            Ok(Ok((status, body))) => fate(request, status, &body),
            Ok(Err(_)) | Err(_) => Fate::Unknown,
        }
    }
}

/// The meaning of an answer.
fn fate(request: &Request, status: u16, body: &Bytes) -> Fate {
    let text = String::from_utf8_lossy(body);
    match status {
        202 => {
            let answer: Value = serde_json::from_slice(body).expect("JSON");
            assert_eq!(answer["accepted"], request.numbers.len(), "{text}");
            let promise = match answer["ack"].as_str() {
                Some("memory") => Promise::Memory,
                Some("disk") => Promise::Disk,
                Some("delivered") => Promise::Delivered,
                _ => panic!("{text}"),
            };
            Fate::Promised { promise, at: Instant::now() }
        }
        // It may be in the buffer and was not delivered before the stop.
        503 if request.promise == Promise::Delivered => Fate::Unknown,
        // An earlier attempt may have been taken.
        503 if request.key.is_some() => Fate::Unknown,
        503 => Fate::Refused,
        409 if request.key.is_some() => Fate::Unknown,
        other => panic!("{other} to {request:?}: {text}"),
    }
}
