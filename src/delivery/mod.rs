//! Delivers readings from the buffer to the nodes.
//!
//! One [`Worker`] pulls readings from the buffer and gathers them into batches ([`batcher`]). If the route keeps devices apart
//! ([`shards`]), it gathers them in separate [`lanes`]. It asks the route for a node ([`crate::routing`]) and sends several
//! batches at a time, each in its own task ([`transport`], over a [`wire`]). The transport interprets the answer; the worker
//! acts on it:
//!
//! - delivered: the readings are settled; with `replicate`, once enough nodes have stored them;
//! - not available now: the batch waits (exponential backoff with full jitter) and is sent again, first to another node if
//!   the route allows that;
//! - misconfigured: the same, and the node is down at once;
//! - refused or too large: the batch is halved until each refused reading is alone; those become dead letters
//!   ([`dead_letter`]).
//!
//! Nodes have fixed addresses or DNS names that are looked up periodically (`lookups`). `nodes` decides which of them may get
//! a batch now.
//!
//! If the buffer outlives the process, it stores a note of each batch's readings before the batch is first sent. After a stop,
//! batches with a note are resumed ahead of all new batches; if every device has its own node, behind earlier readings of
//! their devices ([`resumption`]). A log that cannot be written does not delay delivery: the batch is sent without a note.
//!
//! Limits: at most `cluster.max_in_flight` batches for each node are out of the buffer (waiting for their note, for a node, or
//! in flight), plus one open batch. If every device has its own node, each lane has at most two batches out of the buffer and
//! an open one, and parked readings are bounded ([`lanes`]). All other readings stay in the buffer. A batch always has the
//! same key and the same readings.
//!
//! Parts without side effects, with time passed in: [`batcher`], [`breaker`], [`budget`], [`lanes`], `latency`, `limit`,
//! `nodes`, [`resumption`], [`shards`], [`crate::backoff`].

pub mod batch;
pub mod batcher;
pub mod breaker;
pub mod budget;
pub mod credentials;
pub mod dead_letter;
pub mod lanes;
mod latency;
mod limit;
mod lookups;
mod node_status;
mod nodes;
mod own_address;
pub mod resumption;
pub mod secrets;
pub mod shards;
mod source;
pub mod transforms;
pub mod transport;
mod trial;
mod uplink;
pub mod wire;
mod worker;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use forebay_stores::Store;
use forebay_transform::TransformConfig;

use crate::backoff::Backoff;
use crate::routing::Routing;
use crate::tls::client::ClientTlsConfig;
use credentials::HeadersConfig;

pub use batcher::BatchConfig;
pub use breaker::{BreakerState, HealthConfig};
pub use dead_letter::{DeadLetter, DeadLetterConfig, DeadLetterError, DeadLetters, LetterTotals};
pub use lookups::{Resolve, SystemResolver};
pub use node_status::{ClusterNodeStatus, DeliveryStatus, NodeFailure, NodeHealth, TransformStatus};
pub use nodes::NODES_MAX;
pub use own_address::{is_own, leads_to};
pub use shards::Failover;
pub use source::{DNS_PREFIX, NodeSource};
pub use transport::{COMPRESSIONS, Compression, is_reserved};
pub use trial::Trials;
pub use uplink::Uplink;
pub use wire::TransportError;
pub use worker::{Signals, Worker};

/// The settings of the delivery.
#[derive(Clone, Debug)]
pub struct DeliveryConfig {
    /// The transforms, applied in this order before readings are gathered into batches.
    pub transforms: Vec<TransformConfig>,
    /// The limits of a batch.
    pub batch: BatchConfig,
    /// The entries of `cluster.nodes`.
    pub nodes: Vec<NodeSource>,
    /// Time between look-ups of the DNS names among them.
    pub resolve_every: Duration,
    /// The resolver of DNS names.
    pub resolver: Arc<dyn Resolve>,
    /// The address at which this gateway listens, which is never used as a node.
    pub own_address: Option<SocketAddr>,
    /// The routing policy.
    pub route: &'static dyn Routing,
    /// The kind of store that the nodes are.
    pub store: Arc<dyn Store>,
    /// How bodies are compressed.
    pub compression: Compression,
    /// Longest time from sending a batch to the end of its answer.
    pub timeout: Duration,
    /// Most batches in flight to one node.
    pub max_in_flight: usize,
    /// Headers added to every request.
    pub headers: HeadersConfig,
    /// The files for calls over TLS.
    pub tls: ClientTlsConfig,
    /// The settings of dead letters.
    pub dead_letter: DeadLetterConfig,
    /// Delays between attempts.
    pub retry: Backoff,
    /// When a node is down.
    pub health: HealthConfig,
    /// The settings of routes that give every device its own node.
    pub shard: ShardConfig,
    /// The settings of routes that send each batch to several nodes.
    pub replicate: ReplicateConfig,
}

/// The settings of routes that give every device its own node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardConfig {
    /// The handling of readings whose node is down.
    pub failover: Failover,
}

/// The settings of routes that send each batch to several nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicateConfig {
    /// How many nodes should store each batch; 0: every node.
    pub copies: usize,
    /// How many copies are enough for a batch to count as delivered.
    pub quorum: usize,
    /// How long the remaining copies are attempted after that.
    pub straggler_timeout: Duration,
}

impl DeliveryConfig {
    /// Whether any node is called over TLS.
    pub fn has_tls(&self) -> bool {
        self.nodes.iter().any(NodeSource::is_over_tls)
    }

    /// The number of nodes with fixed addresses; the others come from DNS.
    pub fn fixed_nodes(&self) -> usize {
        self.nodes.iter().filter(|source| matches!(source, NodeSource::Address(_))).count()
    }
}
