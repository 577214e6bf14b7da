//! A node with scripted answers that remembers what it was sent.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::readings::Reading;

/// One answer of a node.
#[derive(Clone, Debug)]
pub struct Answer {
    status: u16,
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
        Answer { status, headers: Vec::new(), body: String::new(), delay: Duration::ZERO, gate: None }
    }

    /// When the gate lets it pass. What was sent counts as stored already.
    pub fn behind(self, gate: &Gate) -> Answer {
        Answer { gate: Some(gate.clone()), ..self }
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

    /// Never: the node stores the batch and says nothing.
    pub fn never() -> Answer {
        Answer::status(200).after(Duration::from_secs(3600))
    }
}

/// One request that a node received.
#[derive(Clone, Debug)]
pub struct ReceivedBatch {
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body as it came.
    pub body: Bytes,
    /// The status that it was answered with.
    pub status: u16,
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

    /// The readings of an NDJSON body.
    pub fn readings(&self) -> Vec<Reading> {
        let lines = self.body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| serde_json::from_slice(line).expect("a line of JSON")).collect()
    }

    fn is_stored(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

#[derive(Debug, Default)]
struct Script {
    answers: VecDeque<Answer>,
    otherwise: Option<Answer>,
    received: Vec<ReceivedBatch>,
}

/// A node in this process. It answers what its script says, in order, and 200 afterwards.
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

    async fn with(address: SocketAddr, script: Script) -> FakeNode {
        let listener = TcpListener::bind(address).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let script = Arc::new(Mutex::new(script));
        let router = Router::new()
            .fallback(receive)
            .layer(axum::extract::DefaultBodyLimit::disable())
            .with_state(Arc::clone(&script));
        let server = tokio::spawn(async move { axum::serve(listener, router).await.expect("serves") });
        FakeNode { address, script, server }
    }

    /// From now on, after the script, every request is answered like this.
    pub fn answer_otherwise(&self, answer: Answer) {
        self.script.lock().expect("not poisoned").otherwise = Some(answer);
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
        self.script.lock().expect("not poisoned").received.clone()
    }

    /// The requests that were answered with success.
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

    /// Goes away: connections are refused from now on. Returns the address, to come back to.
    pub async fn stop(self) -> SocketAddr {
        self.server.abort();
        let address = self.address;
        // The socket is closed when the task has ended.
        let _ = (&mut { self }.server).await;
        address
    }

    /// A node at an address that was another's.
    pub async fn start_at(address: SocketAddr) -> FakeNode {
        FakeNode::with(address, Script::default()).await
    }
}

impl Drop for FakeNode {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn receive(State(script): State<Arc<Mutex<Script>>>, headers: HeaderMap, body: Bytes) -> Response {
    let answer = {
        let mut script = script.lock().expect("not poisoned");
        let answer =
            script.answers.pop_front().or_else(|| script.otherwise.clone()).unwrap_or(Answer::status(200));
        script.received.push(ReceivedBatch { headers, body, status: answer.status });
        answer
    };
    tokio::time::sleep(answer.delay).await;
    if let Some(gate) = answer.gate {
        gate.pass().await;
    }
    let mut response = Response::new(Body::from(answer.body));
    *response.status_mut() = StatusCode::from_u16(answer.status).expect("a status");
    for (name, value) in answer.headers {
        response.headers_mut().insert(name, value.parse().expect("a header"));
    }
    response
}
