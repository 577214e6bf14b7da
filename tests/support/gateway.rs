//! A gateway in this process, with settings for tests.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use forebay::config::{Config, ConfigFault};
use forebay::delivery::Resolve;
use forebay::gateway::{Gateway, StopOutcome};
use forebay::watched::WatchTimes;
use http::{HeaderMap, StatusCode};
use serde_json::Value;

use super::node::FakeNode;
use super::raw::RawClient;
use super::readings::{Reading, to_json};

/// A gateway that is about to start.
#[derive(Debug)]
pub struct TestGateway {
    environment: Vec<(String, String)>,
    nodes: Vec<String>,
    resolver: Option<Arc<dyn Resolve>>,
    /// The text of the configuration file.
    file: String,
}

impl Default for TestGateway {
    fn default() -> TestGateway {
        TestGateway::new()
    }
}

impl TestGateway {
    /// Settings with short times, and a buffer in memory.
    pub fn new() -> TestGateway {
        let gateway =
            TestGateway { environment: Vec::new(), nodes: Vec::new(), resolver: None, file: String::new() };
        gateway
            .set("server.listen", "127.0.0.1:0")
            .set("server.shutdown_timeout", "10s")
            .set("buffer.kind", "memory")
            .set("batch.max_age", "10ms")
            .set("cluster.retry.initial", "5ms")
            .set("cluster.retry.max", "50ms")
            .set("cluster.health.probe", "20ms")
            .set("dead_letter.path", dead_letters())
    }

    /// One setting, by its key in the configuration.
    pub fn set(mut self, key: &str, value: impl ToString) -> TestGateway {
        let name = format!("FOREBAY__{}", key.to_uppercase().replace('.', "__"));
        self.environment.retain(|(known, _)| *known != name);
        self.environment.push((name, value.to_string()));
        self
    }

    /// A buffer on disk, in a directory below this one, and dead letters beside it.
    pub fn on_disk(self, directory: &Path) -> TestGateway {
        self.set("buffer.kind", "disk")
            .set("buffer.path", directory.join("buffer").display())
            .set("dead_letter.path", directory.join("dead-letters").display())
    }

    /// One more node.
    pub fn node(self, node: &FakeNode) -> TestGateway {
        self.node_at(node.url())
    }

    /// One more node, by its address.
    pub fn node_at(mut self, url: impl Into<String>) -> TestGateway {
        self.nodes.push(url.into());
        self
    }

    /// Names of nodes are looked up by this one.
    pub fn resolver(self, resolver: Arc<dyn Resolve>) -> TestGateway {
        TestGateway { resolver: Some(resolver), ..self }
    }

    /// More of the configuration file.
    pub fn file(mut self, toml: &str) -> TestGateway {
        self.file.push_str(toml);
        self
    }

    /// The settings, checked.
    pub fn config(self) -> Config {
        let nodes = self.nodes.join(",");
        let gateway = if nodes.is_empty() { self } else { self.set("cluster.nodes", nodes) };
        let mut config = gateway.read_config().unwrap_or_else(|faults| panic!("{faults:?}"));
        config.watch =
            WatchTimes { look_every: Duration::from_millis(50), settled_after: Duration::from_millis(20) };
        if let Some(resolver) = gateway.resolver {
            config.delivery.resolver = resolver;
        }
        config
    }

    fn read_config(&self) -> Result<Config, Vec<ConfigFault>> {
        if self.file.is_empty() {
            return Config::read(None, &self.environment);
        }
        let file = tempfile::Builder::new().suffix(".toml").tempfile().expect("a file");
        std::fs::write(file.path(), &self.file).expect("written");
        Config::read(Some(file.path()), &self.environment)
    }

    /// Starts it.
    pub async fn start(self) -> RunningGateway {
        let gateway = Gateway::start(self.config()).await.expect("the gateway starts");
        let address = gateway.address();
        RunningGateway { gateway: Some(gateway), ..RunningGateway::at(address) }
    }
}

/// A directory that no other gateway has; it is made with the first dead letter.
fn dead_letters() -> String {
    format!("{}/dead-letters/{:016x}", env!("CARGO_TARGET_TMPDIR"), fastrand::u64(..))
}

/// A gateway that runs.
#[derive(Debug)]
pub struct RunningGateway {
    /// `None` if it runs in another process.
    gateway: Option<Gateway>,
    address: SocketAddr,
    client: reqwest::Client,
}

impl RunningGateway {
    /// A gateway in another process.
    pub fn at(address: SocketAddr) -> RunningGateway {
        let client = forebay_load::client::builder().build().expect("a client");
        RunningGateway { gateway: None, address, client }
    }

    /// The operator's listener of this gateway.
    pub fn operator(&self) -> RunningGateway {
        let gateway = self.gateway.as_ref().expect("it runs in this process");
        RunningGateway::at(gateway.operator_address().expect("there is such a listener"))
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address of a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Posts readings as a JSON array.
    pub async fn post(&self, readings: &[Reading]) -> Reply {
        self.post_body("application/json", to_json(readings)).await
    }

    /// Posts a body of some media type.
    pub async fn post_body(&self, content_type: &str, body: impl Into<reqwest::Body>) -> Reply {
        self.send(self.request("/v1/readings").header("content-type", content_type).body(body)).await
    }

    /// A `POST` to a path, to be completed and sent by [`RunningGateway::send`].
    pub fn request(&self, path: &str) -> reqwest::RequestBuilder {
        self.client.post(self.url(path))
    }

    /// Gets a path.
    pub async fn get(&self, path: &str) -> Reply {
        self.send(self.client.get(self.url(path))).await
    }

    /// Sends a request and reads the whole answer. Of an empty body the client would not say the length by itself.
    pub async fn send(&self, request: reqwest::RequestBuilder) -> Reply {
        let mut request = request.build().expect("a request");
        let is_empty = request.body().is_none_or(|body| body.as_bytes() == Some(&[]));
        if request.method() == reqwest::Method::POST && is_empty {
            request.headers_mut().insert(http::header::CONTENT_LENGTH, 0.into());
        }
        Reply::read(self.client.execute(request).await.expect("an answer")).await
    }

    /// The ledger, which must add up whenever it is asked for.
    pub async fn ledger(&self) -> Value {
        let status = self.get("/status").await.expect_status(200).json();
        let ledger = status["ledger"].clone();
        let sum =
            |names: &[&str]| names.iter().map(|name| ledger[name].as_u64().expect("a number")).sum::<u64>();
        assert_eq!(
            sum(&["accepted", "recovered", "derived"]),
            sum(&["delivered", "dead_lettered", "filtered", "merged", "dropped", "buffered"]),
            "the ledger adds up: {ledger}"
        );
        ledger
    }

    /// One account of the ledger.
    pub async fn account(&self, name: &str) -> u64 {
        self.ledger().await[name].as_u64().expect("a number")
    }

    /// One metric, as the line with these labels says; `None` if there is no such line.
    pub async fn metric(&self, name_and_labels: &str) -> Option<f64> {
        let text = self.get("/metrics").await.expect_status(200).text();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name_and_labels)?.strip_prefix(' ').map(str::to_owned));
        line.map(|number| number.parse().expect("a number"))
    }

    /// A handle on this gateway for another task; it cannot be stopped from there.
    pub fn handle(&self) -> RunningGateway {
        RunningGateway { gateway: None, address: self.address, client: self.client.clone() }
    }

    /// A connection of its own, for bytes as they are given.
    pub async fn raw(&self) -> RawClient {
        RawClient::connect(self.address).await
    }

    /// Stops it.
    pub async fn stop(self) -> StopOutcome {
        self.gateway.expect("it runs in this process").stop().await
    }
}

/// An answer of the gateway.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    body: Vec<u8>,
}

impl Reply {
    /// An answer that was read.
    pub fn new(status: StatusCode, headers: HeaderMap, body: Vec<u8>) -> Reply {
        Reply { status, headers, body }
    }

    /// Reads a whole answer.
    pub async fn read(response: reqwest::Response) -> Reply {
        let (status, headers) = (response.status(), response.headers().clone());
        Reply { status, headers, body: response.bytes().await.expect("a body").to_vec() }
    }

    /// Fails if the status is another one.
    #[track_caller]
    pub fn expect_status(self, status: u16) -> Reply {
        assert_eq!(self.status.as_u16(), status, "{}", self.text());
        self
    }

    /// Fails if it is not a problem (RFC 9457) with this status.
    #[track_caller]
    pub fn expect_problem(self, status: u16) -> Reply {
        let reply = self.expect_status(status);
        assert_eq!(reply.header("content-type"), "application/problem+json");
        let problem = reply.json();
        assert_eq!(problem["status"], status, "{problem}");
        for member in ["type", "title", "detail"] {
            assert!(problem[member].is_string(), "{member} in {problem}");
        }
        reply
    }

    /// One header; empty if it is not there.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("ASCII"))
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The member `detail` of a problem.
    #[track_caller]
    pub fn detail(&self) -> String {
        self.json()["detail"].as_str().expect("a detail").to_owned()
    }
}
