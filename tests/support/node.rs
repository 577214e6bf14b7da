//! A node with scripted answers that remembers the requests that it got.

use std::collections::{BTreeMap, VecDeque};
use std::io::Read as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use super::readings::Reading;

/// One answer of a node.
#[derive(Clone, Debug)]
pub struct Answer {
    /// `None`: the node hangs up instead.
    status: Option<u16>,
    is_stored: bool,
    headers: Vec<(&'static str, String)>,
    body: String,
    delay: Duration,
    gate: Option<Gate>,
}

/// Holds answers back until it is opened.
#[derive(Clone, Debug)]
pub struct Gate(Arc<Semaphore>);

impl Default for Gate {
    fn default() -> Gate {
        Gate(Arc::new(Semaphore::new(0)))
    }
}

impl Gate {
    /// Lets one answer pass.
    pub fn pass_one(&self) {
        self.0.add_permits(1);
    }

    /// Lets all answers pass, also those to come.
    pub fn open(&self) {
        self.0.close();
    }

    async fn pass(&self) {
        if let Ok(permit) = self.0.acquire().await {
            permit.forget();
        }
    }
}

impl Answer {
    /// This status with an empty body.
    pub fn status(status: u16) -> Answer {
        Answer {
            status: Some(status),
            is_stored: (200..300).contains(&status),
            headers: Vec::new(),
            body: String::new(),
            delay: Duration::ZERO,
            gate: None,
        }
    }

    /// When the gate lets it pass. The batch counts as stored already.
    pub fn behind(self, gate: &Gate) -> Answer {
        Answer { gate: Some(gate.clone()), ..self }
    }

    /// None: the node reads the request, does not store it, and closes the connection.
    pub fn hang_up() -> Answer {
        Answer { status: None, ..Answer::status(0) }
    }

    /// Although the node has stored the batch.
    pub fn after_storing(self) -> Answer {
        Answer { is_stored: true, ..self }
    }

    /// And this header.
    pub fn header(mut self, name: &'static str, value: impl ToString) -> Answer {
        self.headers.push((name, value.to_string()));
        self
    }

    /// And this body.
    pub fn body(self, body: impl Into<String>) -> Answer {
        Answer { body: body.into(), ..self }
    }

    /// After this time.
    pub fn after(self, delay: Duration) -> Answer {
        Answer { delay, ..self }
    }

    /// Whether it says that the node has stored the batch.
    pub fn is_success(&self) -> bool {
        self.status.is_some_and(|status| (200..300).contains(&status))
    }

    /// Never: the node stores the batch and says nothing.
    pub fn never() -> Answer {
        Answer::status(200).after(Duration::from_secs(3600))
    }
}

/// One request that a node received.
#[derive(Clone, Debug)]
pub struct ReceivedBatch {
    /// When all of it was there.
    pub at: Instant,
    /// Where it was sent: the path and the query.
    pub target: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body as it came.
    pub body: Bytes,
    /// The status that it was answered with; 0 if the node hung up.
    pub status: u16,
    is_stored: bool,
}

impl ReceivedBatch {
    /// The `Idempotency-Key` without its quotes.
    pub fn key(&self) -> String {
        let key = self.header("idempotency-key");
        let bare = key.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        bare.unwrap_or_else(|| panic!("the key is quoted: {key}")).to_owned()
    }

    /// One header.
    pub fn header(&self, name: &str) -> String {
        let value =
            self.headers.get(name).unwrap_or_else(|| panic!("the header {name} in {:?}", self.headers));
        value.to_str().expect("ASCII").to_owned()
    }

    /// The body without its compression.
    pub fn unpacked(&self) -> Vec<u8> {
        let encoding = self.headers.get("content-encoding").map(|value| value.as_bytes());
        let mut plain = Vec::new();
        match encoding {
            None => plain.extend_from_slice(&self.body),
            Some(b"gzip") => {
                let read = flate2::read::GzDecoder::new(&self.body[..]).read_to_end(&mut plain);
                assert!(read.is_ok(), "gzip: {read:?}");
            }
            Some(b"zstd") => plain = zstd::stream::decode_all(&self.body[..]).expect("zstd"),
            Some(other) => panic!("no compression that is promised: {}", String::from_utf8_lossy(other)),
        }
        plain
    }

    /// The readings of the body, an array or one a line.
    pub fn readings(&self) -> Vec<Reading> {
        let body = self.unpacked();
        if self.header("content-type") == "application/json" {
            return serde_json::from_slice(&body).expect("an array");
        }
        let lines = body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| serde_json::from_slice(line).expect("a line of JSON")).collect()
    }

    /// Whether the node has stored it.
    pub fn is_stored(&self) -> bool {
        self.is_stored
    }
}

#[derive(Debug, Default)]
struct Script {
    answers: VecDeque<Answer>,
    otherwise: Otherwise,
    received: Vec<ReceivedBatch>,
    connections: usize,
    in_flight: usize,
    in_flight_peak: usize,
}

/// The answers after the script.
#[derive(Default)]
enum Otherwise {
    #[default]
    Success,
    Always(Answer),
    Judged(Box<dyn FnMut(&ReceivedBatch) -> Answer + Send>),
}

impl std::fmt::Debug for Otherwise {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Otherwise::Success => formatter.write_str("Success"),
            Otherwise::Always(answer) => write!(formatter, "Always({answer:?})"),
            Otherwise::Judged(_) => formatter.write_str("Judged"),
        }
    }
}

impl Script {
    fn answer(&mut self, batch: &ReceivedBatch) -> Answer {
        self.answers.pop_front().unwrap_or_else(|| match &mut self.otherwise {
            Otherwise::Success => Answer::status(200),
            Otherwise::Always(answer) => answer.clone(),
            Otherwise::Judged(judge) => judge(batch),
        })
    }
}

/// A node in this process. It gives the answers of its script, in order, and 200 afterwards.
#[derive(Debug)]
pub struct FakeNode {
    address: SocketAddr,
    script: Arc<Mutex<Script>>,
    server: JoinHandle<()>,
}

impl FakeNode {
    /// A node that takes everything.
    pub async fn start() -> FakeNode {
        FakeNode::answering([]).await
    }

    /// A node with a script.
    pub async fn answering(answers: impl IntoIterator<Item = Answer>) -> FakeNode {
        let script = Script { answers: answers.into_iter().collect(), ..Script::default() };
        FakeNode::with("127.0.0.1:0".parse().expect("an address"), script).await
    }

    /// A node that always answers the same, until [`FakeNode::answer_otherwise`] says something else.
    pub async fn always(answer: Answer) -> FakeNode {
        let node = FakeNode::start().await;
        node.answer_otherwise(answer);
        node
    }

    /// A node whose every answer is chosen when it is asked.
    pub async fn choosing(mut choose: impl FnMut() -> Answer + Send + 'static) -> FakeNode {
        FakeNode::judging(move |_| choose()).await
    }

    /// A node that decides every answer by the request.
    pub async fn judging(judge: impl FnMut(&ReceivedBatch) -> Answer + Send + 'static) -> FakeNode {
        let node = FakeNode::start().await;
        node.judge_otherwise(judge);
        node
    }

    async fn with(address: SocketAddr, script: Script) -> FakeNode {
        let listener = TcpListener::bind(address).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let script = Arc::new(Mutex::new(script));
        let server = tokio::spawn(serve(listener, Arc::clone(&script)));
        FakeNode { address, script, server }
    }

    /// Adds to the script: the next requests are answered like this.
    pub fn script_next(&self, answers: impl IntoIterator<Item = Answer>) {
        self.script().answers.extend(answers);
    }

    /// From now on, after the script, every request is answered like this.
    pub fn answer_otherwise(&self, answer: Answer) {
        self.script().otherwise = Otherwise::Always(answer);
    }

    /// From now on, after the script, the request decides every answer.
    pub fn judge_otherwise(&self, judge: impl FnMut(&ReceivedBatch) -> Answer + Send + 'static) {
        self.script().otherwise = Otherwise::Judged(Box::new(judge));
    }

    /// Where batches go.
    pub fn url(&self) -> String {
        format!("http://{}/v1/batches", self.address)
    }

    /// The name that the gateway gives it.
    pub fn id(&self) -> String {
        self.address.to_string()
    }

    /// Every request so far that has been read, answered or not, in the order in which they came.
    pub fn received(&self) -> Vec<ReceivedBatch> {
        self.script().received.clone()
    }

    /// How many that is.
    pub fn requests(&self) -> usize {
        self.script().received.len()
    }

    /// Connections that were opened so far.
    pub fn connections(&self) -> usize {
        self.script().connections
    }

    /// Requests that were read and not answered at the same moment, at most.
    pub fn in_flight_peak(&self) -> usize {
        self.script().in_flight_peak
    }

    /// The requests that were stored: those that were answered with success, unless the script says otherwise.
    pub fn stored(&self) -> Vec<ReceivedBatch> {
        self.received().into_iter().filter(ReceivedBatch::is_stored).collect()
    }

    /// The readings of these, each batch once, however often it came.
    pub fn readings(&self) -> Vec<Reading> {
        let mut seen = BTreeMap::new();
        let mut all = Vec::new();
        for batch in self.stored() {
            if seen.insert(batch.key(), ()).is_none() {
                all.extend(batch.readings());
            }
        }
        all
    }

    /// How many readings that is.
    pub fn count(&self) -> usize {
        self.readings().len()
    }

    /// Goes away: its connections break and new ones are refused. Returns the address, to come back to.
    pub async fn stop(self) -> SocketAddr {
        self.server.abort();
        let address = self.address;
        // The sockets are closed when the task has ended.
        let _ = (&mut { self }.server).await;
        address
    }

    /// A node at an address that was another's.
    pub async fn start_at(address: SocketAddr) -> FakeNode {
        FakeNode::with(address, Script::default()).await
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().expect("not poisoned")
    }
}

impl Drop for FakeNode {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Serves until it is dropped; the connections end with it.
async fn serve(listener: TcpListener, script: Arc<Mutex<Script>>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        script.lock().expect("not poisoned").connections += 1;
        let script = Arc::clone(&script);
        connections.spawn(async move {
            let service = service_fn(move |request| receive(Arc::clone(&script), request));
            // Whether the other side left early is not the node's business.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
        while connections.try_join_next().is_some() {}
    }
}

/// Counts a request as under way until it is answered or dropped.
struct UnderWay(Arc<Mutex<Script>>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.lock().expect("not poisoned").in_flight -= 1;
    }
}

async fn receive(
    script: Arc<Mutex<Script>>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, std::io::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
    let (answer, _under_way) = {
        let mut guard = script.lock().expect("not poisoned");
        let at = Instant::now();
        let (target, headers) = (head.uri.to_string(), head.headers);
        let batch = ReceivedBatch { at, target, headers, body, status: 0, is_stored: false };
        let answer = guard.answer(&batch);
        let (status, is_stored) = (answer.status.unwrap_or(0), answer.is_stored);
        guard.received.push(ReceivedBatch { status, is_stored, ..batch });
        guard.in_flight += 1;
        guard.in_flight_peak = guard.in_flight_peak.max(guard.in_flight);
        (answer, UnderWay(Arc::clone(&script)))
    };
    tokio::time::sleep(answer.delay).await;
    if let Some(gate) = answer.gate {
        gate.pass().await;
    }
    let status = answer.status.ok_or_else(|| std::io::Error::other("hangs up"))?;
    let mut response = Response::new(Full::new(Bytes::from(answer.body)));
    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
    for (name, value) in answer.headers {
        response.headers_mut().insert(name, value.parse().expect("a header"));
    }
    Ok(response)
}
