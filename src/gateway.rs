//! Builds the gateway from its settings, and owns the order in which it starts and stops.

mod files;
mod node_files;
mod outcome;
mod serving;
mod surface;
mod tls_files;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use url::Url;
use utoipa::OpenApi;

use crate::auth::usage::UsageTable;
use crate::buffer::{Buffer, BufferConfig, OpenError, Opened};
use crate::config::{Config, OperatorConfig};
use crate::delivery::dead_letter::{Leftover, LetterDirectory};
use crate::delivery::{
    DeadLetterConfig, DeadLetterError, DeadLetters, DeliveryConfig, NodeSource, Signals, TransportError,
    Uplink, Worker,
};
use crate::ingest::{self, Access, Acks, Front};
use crate::listener::{self, Listener, PerAddress};
use crate::metrics::Metrics;
use crate::node::{Latest, LatestApi, Node, NodeError, NodeOptions};
use crate::status::{self, StatusSources, Watch};
use crate::tasks;
use crate::tls::trust::ClientCertificates;
use crate::via::Via;
use crate::watched::{FileWatcher, Watched};

pub use files::FileNotes;
use files::FrontFiles;
pub use node_files::NodeFilesCheck;
use node_files::{CurrentNodeTls, NodeFiles, readable_secrets};
pub use outcome::StopOutcome;
use serving::{OperatorListener, Servers};
use surface::Surface;

/// Preferred address of a gateway's embedded node; if it is taken, the node gets a free port.
const EMBEDDED_NODE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8081);

/// The OpenAPI document's own head; its paths come from the parts.
#[derive(OpenApi)]
#[openapi(info(
    title = "Forebay",
    description = "An ingest gateway for sensor readings.",
    license(name = "Apache-2.0", identifier = "Apache-2.0")
))]
struct GatewayApi;

/// Why a gateway did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The address cannot be bound.
    #[error("cannot listen on {address}: {error}{}", listener::advice_on_address(*address, error))]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's error.
        error: io::Error,
    },
    /// A file of keys, certificates or secrets does not fit.
    #[error("{0}")]
    Files(String),
    /// The embedded node did not start.
    #[error("the embedded node does not start: {0}")]
    Node(NodeError),
    /// The buffer did not open.
    #[error(transparent)]
    Buffer(#[from] OpenError),
    /// Dead letters could not be stored.
    #[error(
        "dead letters could not be kept: {0}; `dead_letter.path` must name a directory that this user can make and write"
    )]
    DeadLetters(#[from] DeadLetterError),
    /// The HTTP client could not be built.
    #[error(transparent)]
    Transport(#[from] TransportError),
}

/// The outer parts of a gateway: normally the network and the disk of this machine; a test brings its own.
#[derive(Debug)]
pub struct GatewayParts<L> {
    /// Accepts the clients' connections.
    pub listener: L,
    /// The listener's address.
    pub address: SocketAddr,
    /// The opened buffer.
    pub buffer: Opened,
    /// The way to the nodes.
    pub uplink: Uplink,
    /// Random numbers for the keys of batches, delays and choices.
    pub random: fastrand::Rng,
    /// The gateway's metrics.
    pub metrics: Arc<Metrics>,
}

/// A running gateway.
#[derive(Debug)]
pub struct Gateway {
    address: SocketAddr,
    operator_address: Option<SocketAddr>,
    drain_delay: Duration,
    shutdown_timeout: Duration,
    buffer: Arc<dyn Buffer>,
    /// Once cancelled, `/readyz` answers 503.
    leaving: CancellationToken,
    /// Once cancelled, no more readings are taken.
    draining: CancellationToken,
    signals: Signals,
    worker: JoinHandle<()>,
    stop_serving: CancellationToken,
    server: JoinHandle<()>,
    operator_server: Option<JoinHandle<()>>,
    file_watcher: JoinHandle<()>,
    watch: Watch,
    embedded: Option<Node>,
}

impl Gateway {
    /// Starts a gateway: the embedded node if no other node is configured, the delivery, and the HTTP front last, so
    /// that no reading is accepted before it can be delivered.
    ///
    /// # Errors
    ///
    /// [`StartError`]; nothing is left running then.
    pub async fn start(mut config: Config) -> Result<Gateway, StartError> {
        let (files, node_files) = read_files(&config).await?;
        let (listener, address) = bind(config.server.listen).await?;
        let operator = match config.server.operator {
            Some(OperatorConfig { listen, keys }) => {
                let (listener, address) = bind(listen).await?;
                Some(OperatorListener { listener, address, keys })
            }
            None => None,
        };
        warn_of_open_doors(&config, address);
        try_out(config.delivery.dead_letter.clone()).await?;
        let embedded = start_embedded_node(&mut config).await?;
        let client = Arc::new(node_files.client(&config.delivery)?);
        let uplink = node_files.uplink(client.clone(), &config.delivery)?;
        let metrics = Arc::new(Metrics::new());
        let nodes = config.delivery.fixed_nodes();
        let buffer = open_buffer(config.buffer.clone(), nodes, Arc::clone(&metrics)).await?;
        let node_files = node_files.put_in_force(&config.delivery, &client, &uplink.credentials, &metrics);
        let random = fastrand::Rng::new();
        let parts = GatewayParts { listener, address, buffer, uplink, random, metrics };
        let gateway = Gateway::assemble(parts, &config, embedded, operator, (files, node_files));
        gateway.watch.look_after_dead_letters();
        Ok(gateway)
    }

    /// Starts a gateway from `parts` in the current runtime; `config` names its nodes.
    pub fn start_with<L: Listener>(parts: GatewayParts<L>, config: &Config) -> Gateway {
        Gateway::assemble(parts, config, None, None, (FrontFiles::default(), (None, Vec::new())))
    }

    fn assemble<L: Listener>(
        parts: GatewayParts<L>,
        config: &Config,
        embedded: Option<Node>,
        operator: Option<OperatorListener>,
        (files, (node_tls, mut watched)): (FrontFiles, (Option<CurrentNodeTls>, Vec<Watched>)),
    ) -> Gateway {
        let GatewayParts { listener, address, buffer, uplink, random, metrics } = parts;
        let Opened { buffer, outlet, memos } = buffer;
        let (leaving, draining) = (CancellationToken::new(), CancellationToken::new());
        let signals = Signals::default();
        let worker = Worker::new(
            uplink.clone(),
            DeliveryConfig { own_address: Some(address), ..config.delivery.clone() },
            outlet,
            Arc::clone(&metrics),
            signals.clone(),
            random,
        );
        let usage = Arc::new(UsageTable::new(metrics.key_readings.clone()));
        let access = access(config, &usage);
        let (tls, front_watched) = files.put_in_force(&access, &metrics);
        watched.extend(front_watched);
        let front = Arc::new(front(config, &access, &buffer, &memos, &draining, &metrics, worker.via()));
        let status = Arc::new(StatusSources {
            started_at: Instant::now(),
            buffer_config: config.buffer.clone(),
            buffer: Arc::clone(&buffer),
            delivery: worker.status(),
            dead_letters: worker.dead_letters(),
            draining: leaving.clone(),
            keys: Arc::clone(&usage),
            tls: tls.clone(),
            node_tls,
            rejections: front.rejections(),
            credentials: uplink.credentials,
            metrics: Arc::clone(&metrics),
            openapi: openapi(),
        });
        let latest = embedded.as_ref().map_or(Latest::InNodes, Node::latest);
        let surface = Surface { access, front, status: Arc::clone(&status), latest };
        let stop_serving = CancellationToken::new();
        let servers = Servers { config, surface: &surface, metrics: &metrics, stop: &stop_serving };
        let routes = if operator.is_some() { surface.for_senders() } else { surface.whole() };
        let server = servers.start((listener, address), routes, tls.as_ref());
        let operator_address = operator.as_ref().map(|operator| operator.address);
        let operator_server = operator.map(|operator| servers.start_operators(operator));
        let file_watcher = tokio::spawn(FileWatcher::new(watched, config.watch).run(stop_serving.clone()));
        Gateway {
            address,
            operator_address,
            drain_delay: config.server.drain_delay,
            shutdown_timeout: config.server.shutdown_timeout,
            buffer,
            leaving,
            draining,
            signals,
            worker: tokio::spawn(worker.run()),
            stop_serving,
            server,
            operator_server,
            file_watcher,
            watch: Watch::start(status),
            embedded,
        }
    }

    /// The address that the gateway listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address of the operator's listener, if there is one.
    pub fn operator_address(&self) -> Option<SocketAddr> {
        self.operator_address
    }

    /// Returns when a worker has ended without being stopped. Stop the gateway then: a half-alive gateway is worse
    /// than a restart.
    pub async fn failed(&mut self) {
        tokio::select! {
            _ = &mut self.worker => error!("the delivery ended by itself"),
            _ = &mut self.server => error!("the HTTP server ended by itself"),
            _ = &mut self.file_watcher => error!("the watch of keys and certificates ended by itself"),
            () = ended(self.operator_server.as_mut()) => error!("the HTTP server of the operator ended by itself"),
        }
    }

    /// Stops the gateway. The order:
    ///
    /// 1. `/readyz` turns 503, and after `server.drain_delay` no new readings are accepted;
    /// 2. the buffer is closed: requests that wait for room get 503;
    /// 3. the buffered readings are delivered, for up to `server.shutdown_timeout`; batches no longer wait to fill. If
    ///    the buffer outlives the process, this ends a second after the last batch that could make progress;
    /// 4. the buffer ends: the readings that it keeps for the next start are on stable storage;
    /// 5. the last answers go out (to requests that waited for delivery), and the connections are closed;
    /// 6. the embedded node ends.
    pub async fn stop(self) -> StopOutcome {
        info!(buffered = self.buffer.accounts().buffered(), "stopping");
        // Before the buffer closes, which ends an idle worker: a task that has ended by now has failed. `failed` may
        // have awaited it already, and a second await would panic.
        let worker_ended = self.worker.is_finished();
        let server_ended =
            self.server.is_finished() || self.operator_server.as_ref().is_some_and(JoinHandle::is_finished);
        self.leaving.cancel();
        if !self.drain_delay.is_zero() {
            tokio::time::sleep(self.drain_delay).await;
        }
        self.draining.cancel();
        self.buffer.close();
        self.signals.drain.cancel();
        let worker_failed =
            worker_ended || finish(self.worker, &self.signals.abort, self.shutdown_timeout).await.is_err();
        let rest = self.buffer.finish().await;
        let undelivered = self.buffer.accounts().buffered();
        self.stop_serving.cancel();
        let mut server_failed = server_ended || self.server.await.is_err();
        if let Some(operator) = self.operator_server.filter(|_| !server_ended) {
            server_failed |= operator.await.is_err();
        }
        if let Some(node) = self.embedded {
            node.stop().await;
        }
        if worker_failed || server_failed {
            error!(delivery = worker_failed, http_server = server_failed, "stopped after a part had failed");
        }
        // Dropping the watch logs the losses that it has not logged yet.
        drop(self.watch);
        let outcome = StopOutcome { undelivered, rest, failed: worker_failed || server_failed };
        outcome.log();
        outcome
    }
}

/// Waits for the delivery to end, and aborts it when `within` is over.
async fn finish(
    mut worker: JoinHandle<()>,
    abort: &CancellationToken,
    within: Duration,
) -> Result<(), JoinError> {
    match tokio::time::timeout(within, &mut worker).await {
        Ok(ended) => ended,
        Err(_elapsed) => {
            abort.cancel();
            worker.await
        }
    }
}

/// Starts a node in this process if none is configured, and adds it to the configuration.
async fn start_embedded_node(config: &mut Config) -> Result<Option<Node>, StartError> {
    if !config.delivery.nodes.is_empty() {
        return Ok(None);
    }
    let node = embedded_node(&config.embedded_node_data).await.map_err(StartError::Node)?;
    let url: Url = format!("http://{}/v1/batches", node.address()).parse().expect("an address makes a URL");
    info!(url = %url, data = %config.embedded_node_data.display(), "no nodes configured, using the embedded one");
    config.delivery.nodes.push(NodeSource::Address(url));
    Ok(Some(node))
}

/// Starts a node at its usual address, or at a free port of the loopback if that is taken.
async fn embedded_node(data: &Path) -> Result<Node, NodeError> {
    let options = |listen| NodeOptions { listen, data: data.to_owned() };
    match Node::start(options(EMBEDDED_NODE)).await {
        Err(NodeError::Bind { source, .. }) => {
            info!(address = %EMBEDDED_NODE, error = %source, "the embedded node listens on a free port instead");
            Node::start(options(SocketAddr::new(EMBEDDED_NODE.ip(), 0))).await
        }
        started => started,
    }
}

/// Makes the directory of dead letters and tries it out, before the first reading has to go there.
async fn try_out(config: DeadLetterConfig) -> Result<(), DeadLetterError> {
    let try_out = move || {
        LetterDirectory::new(&config.path).try_out(Leftover::TheDirectory)?;
        // Reserved before the log takes the room. The start goes on without a reserve: there may be room for letters
        // anyway, and the reserve is tried again later.
        let _ = DeadLetters::new(config).keep_reserve();
        Ok(())
    };
    tokio::task::spawn_blocking(try_out).await.expect("trying out does not panic")
}

/// Opens the buffer on a thread for blocking work, because it may have a log to read.
async fn open_buffer(config: BufferConfig, nodes: usize, metrics: Arc<Metrics>) -> Result<Opened, OpenError> {
    let opened = tokio::task::spawn_blocking(move || (config.kind().open)(&config, nodes, &metrics)).await;
    tasks::outcome(opened).await
}

/// Checks the files that the front door is made of: keys, certificates and what belongs to them.
///
/// # Errors
///
/// A line for each fault that would stop the start.
pub fn check_files(config: &Config) -> Result<FileNotes, String> {
    FrontFiles::read(config).map(|files| files.notes(&config.door.hosts))
}

/// Checks the files for calls to nodes.
///
/// # Errors
///
/// The fault that would stop the start.
pub fn check_node_files(config: &DeliveryConfig) -> Result<NodeFilesCheck, StartError> {
    NodeFiles::read(config).map_err(StartError::Files)?.check(config)
}

/// Returns when a task that is there has ended.
async fn ended(task: Option<&mut JoinHandle<()>>) {
    match task {
        Some(task) => _ = task.await,
        None => std::future::pending().await,
    }
}

async fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let problem = |error| StartError::Listen { address, error };
    let listener = TcpListener::bind(address).await.map_err(problem)?;
    let bound = listener.local_addr().map_err(problem)?;
    Ok((listener, bound))
}

/// Reads the files of keys, certificates and secrets on a thread for blocking work.
async fn read_files(config: &Config) -> Result<(FrontFiles, NodeFiles), StartError> {
    let config = config.clone();
    let read = move || files::both(FrontFiles::read(&config), NodeFiles::read(&config.delivery));
    tasks::outcome(tokio::task::spawn_blocking(read).await).await.map_err(StartError::Files)
}

/// Says which listeners anybody on the network may use, and which secrets anybody may read.
fn warn_of_open_doors(config: &Config, address: SocketAddr) {
    let is_beyond = |address: SocketAddr| !address.ip().to_canonical().is_loopback();
    let tls = config.server.tls.as_ref();
    let knows_clients = tls.is_some_and(|tls| tls.client_certificates == ClientCertificates::Required);
    if is_beyond(address) && config.auth.keys.is_none() && !knows_clients {
        warn!(%address, "whoever reaches this address may write and look: set auth.keys, or listen on loopback");
    }
    if is_beyond(address) && tls.is_none() {
        warn!(%address, "readings and keys come to this address unencrypted: set server.tls, or listen on loopback");
    }
    if let Some(node) = readable_secrets(&config.delivery) {
        warn!(
            node,
            "secrets of cluster.headers or of the address go to this node unencrypted: call it at https://"
        );
    }
    if let Some(operator) = config.server.operator
        && is_beyond(operator.listen)
        && !operator.keys
    {
        warn!(
            address = %operator.listen,
            "whoever reaches the operator's listener may look: set server.operator.keys, or listen on loopback"
        );
    }
}

fn access(config: &Config, usage: &Arc<UsageTable>) -> Arc<Access> {
    let proxies = config.server.trusted_proxies.clone();
    let under_way = PerAddress::new(config.limits.connections, proxies.clone());
    Arc::new(Access::new(Arc::clone(usage), config.limits.unauthorized, under_way).behind(proxies))
}

fn front(
    config: &Config,
    access: &Arc<Access>,
    buffer: &Arc<dyn Buffer>,
    memos: &[Bytes],
    draining: &CancellationToken,
    metrics: &Arc<Metrics>,
    via: Arc<Via>,
) -> Front {
    let front = Front::new(
        config.ingest.clone(),
        Arc::clone(access),
        config.server.max_connections,
        Arc::clone(buffer),
        Acks { default: config.buffer.ack, allowed: config.buffer.kind().acks },
        draining.clone(),
        metrics,
    )
    .with_via(via);
    front.restore(memos);
    front
}

/// The OpenAPI document of the whole surface, as JSON.
pub fn openapi() -> String {
    let mut document = GatewayApi::openapi();
    document.merge(ingest::IngestApi::openapi());
    document.merge(status::StatusApi::openapi());
    document.merge(LatestApi::openapi());
    document.to_json().expect("the document is made of our own types")
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use futures_util::future::BoxFuture;

    use super::*;
    use crate::buffer::{Accounts, Amount, OnFull, PushError, Receipt, Request, Rest};

    /// A buffer whose `finish` returns a set rest and notes that it was called.
    #[derive(Debug)]
    struct FixedRestBuffer {
        buffer: Arc<dyn Buffer>,
        rest: Rest,
        finished: CancellationToken,
    }

    impl Buffer for FixedRestBuffer {
        fn push(&self, request: Request) -> BoxFuture<'_, Result<Receipt, PushError>> {
            self.buffer.push(request)
        }

        fn accounts(&self) -> &Arc<Accounts> {
            self.buffer.accounts()
        }

        fn close(&self) {
            self.buffer.close();
        }

        fn trouble(&self) -> Option<String> {
            None
        }

        fn finish(&self) -> BoxFuture<'_, Rest> {
            self.finished.cancel();
            std::future::ready(self.rest).boxed()
        }
    }

    /// A gateway on a free port, with a node at an address where nothing listens.
    async fn gateway() -> Gateway {
        let settings = [
            ("SERVER__LISTEN", "127.0.0.1:0"),
            ("BUFFER__KIND", "memory"),
            ("CLUSTER__NODES", "http://127.0.0.1:9/v1/batches"),
        ];
        let environment = settings.map(|(key, value)| (format!("FOREBAY__{key}"), value.to_owned()));
        let config = Config::read(None, &environment).expect("good settings");
        Gateway::start(config).await.expect("it starts")
    }

    #[test]
    fn each_health_answer_has_its_own_schema() {
        let document: serde_json::Value = serde_json::from_str(&openapi()).expect("JSON");
        let properties = |name: &str| {
            let schema = &document["components"]["schemas"][name]["properties"];
            schema.as_object().expect("a schema").keys().cloned().collect::<Vec<_>>()
        };
        assert_eq!(properties("Health"), ["status"]);
        assert!(properties("InfluxdbHealth").contains(&"checks".to_owned()));
    }

    #[tokio::test]
    async fn a_gateway_that_is_stopped_has_not_failed() {
        assert_eq!(
            gateway().await.stop().await,
            StopOutcome { undelivered: 0, rest: Rest::Lost, failed: false }
        );
    }

    #[tokio::test]
    async fn a_gateway_whose_worker_ended_reports_a_failure() {
        let ways: [fn(&Gateway); 4] = [
            |gateway| gateway.signals.abort.cancel(),
            |gateway| gateway.worker.abort(),
            |gateway| gateway.stop_serving.cancel(),
            |gateway| gateway.server.abort(),
        ];
        for (number, end) in ways.into_iter().enumerate() {
            let mut gateway = gateway().await;
            end(&gateway);
            let found = tokio::time::timeout(Duration::from_secs(10), gateway.failed()).await;
            assert!(found.is_ok(), "way {number} is found");
            let ended = StopOutcome { undelivered: 0, rest: Rest::Lost, failed: true };
            assert_eq!(gateway.stop().await, ended, "way {number}");
        }
    }

    #[tokio::test]
    async fn a_worker_that_fails_during_the_stop_is_a_failure_too() {
        let ways: [fn(&Gateway); 2] = [|gateway| gateway.worker.abort(), |gateway| gateway.server.abort()];
        for end in ways {
            let gateway = gateway().await;
            // The task does not run before the stop begins, so the stop does not find it ended.
            end(&gateway);
            assert!(gateway.stop().await.failed);
        }
    }

    #[tokio::test]
    async fn the_buffer_decides_at_its_end_whether_undelivered_readings_are_lost_or_kept() {
        for (rest, has_lost) in [(Rest::Lost, true), (Rest::Kept, false)] {
            let mut gateway = gateway().await;
            let room = gateway.buffer.accounts().reserve(Amount { readings: 3, bytes: 3 }, OnFull::Reject);
            room.await.expect("room").accept(0);
            let finished = CancellationToken::new();
            let buffer = Arc::clone(&gateway.buffer);
            gateway.buffer = Arc::new(FixedRestBuffer { buffer, rest, finished: finished.clone() });
            let ended = gateway.stop().await;
            assert_eq!(ended, StopOutcome { undelivered: 3, rest, failed: false });
            assert_eq!(ended.has_lost(), has_lost);
            assert!(finished.is_cancelled());
        }
        for rest in [Rest::Lost, Rest::Kept] {
            assert!(!StopOutcome { undelivered: 0, rest, failed: false }.has_lost());
        }
    }
}
