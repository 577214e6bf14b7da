//! From the buffer to the nodes.
//!
//! One [`Worker`] pulls readings from the buffer, gathers them into batches ([`batcher`]; in [`lanes`] where a route
//! keeps the readings of some devices apart, as [`shards`] says), asks the route for a node ([`crate::routing`]), and
//! sends them, several at a time, each in a task of its own ([`transport`], over a [`wire`]). What an answer means is
//! decided there; what follows from it is decided here:
//!
//! - delivered: the readings are settled, with `replicate` when enough nodes have them;
//! - not now: the batch waits (exponential backoff with full jitter) and is sent again, to another node first where the
//!   route allows;
//! - set up wrongly: the same, and the node is down at once;
//! - refused, too large: the batch is halved until the readings stand alone that are refused; those become dead letters
//!   ([`dead_letter`]).
//!
//! Nodes come from addresses, or from names that are looked up again and again (`lookups`); which of them may be sent a
//! batch now, `nodes` decides.
//!
//! Where the buffer outlives the process, what a batch is made of is noted there before the batch is first sent, and
//! what was noted before a stop is resumed after it, ahead of all new batches; where every device has its own node, behind
//! earlier readings of its devices ([`resumption`]). A log that cannot be written holds nothing up: the batch is sent
//! without a note.
//!
//! Limits: batches that are out of the buffer (to be noted, waiting or on their way) are at most `cluster.max_in_flight`
//! for each node, and one more is open; where every device has its own node, two for each lane, one that is open, and
//! what is parked ([`lanes`]). The rest stays in the buffer. The same batch always has the same key and the same readings.
//!
//! Pure parts, with time passed in: [`batcher`], [`breaker`], [`budget`], [`lanes`], `latency`, `limit`, `nodes`,
//! [`resumption`], [`shards`], [`crate::backoff`].

pub mod batch;
pub mod batcher;
pub mod breaker;
pub mod budget;
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
pub mod wire;
mod worker;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use forebay_stores::Store;
use forebay_transform::TransformConfig;
use http::HeaderMap;

use crate::backoff::Backoff;
use crate::routing::Routing;
use secrets::Secrets;

pub use batcher::BatchConfig;
pub use breaker::{BreakerState, HealthConfig};
pub use dead_letter::{DeadLetter, DeadLetterConfig, DeadLetterError, DeadLetters, Waiting};
pub use lookups::{Resolve, SystemResolver};
pub use node_status::{ClusterNodeStatus, DeliveryStatus, NodeFailure, NodeHealth, TransformStatus};
pub use nodes::NODES_MAX;
pub use own_address::{is_own, leads_to};
pub use shards::Failover;
pub use source::{DNS_PREFIX, NodeSource};
pub use transport::{COMPRESSIONS, Compression, is_reserved};
pub use trial::Trials;
pub use wire::TransportError;
pub use worker::{Signals, Worker};

/// The settings of the delivery.
#[derive(Clone, Debug)]
pub struct DeliveryConfig {
    /// What is done to readings before they are gathered.
    pub transforms: Vec<TransformConfig>,
    /// When a batch is full.
    pub batch: BatchConfig,
    /// Where batches go.
    pub nodes: Vec<NodeSource>,
    /// How often the names among them are looked up.
    pub resolve_every: Duration,
    /// Who looks them up.
    pub resolver: Arc<dyn Resolve>,
    /// Where this gateway listens itself: no node may be there.
    pub own_address: Option<SocketAddr>,
    /// Which of the nodes a batch goes to.
    pub route: &'static dyn Routing,
    /// What kind of store the nodes are.
    pub store: Arc<dyn Store>,
    /// How bodies are compressed.
    pub compression: Compression,
    /// Longest time from sending a batch to the end of its answer.
    pub timeout: Duration,
    /// Most batches on their way to one node.
    pub max_in_flight: usize,
    /// Headers that are added to every request.
    pub headers: HeaderMap,
    /// Where readings go that nodes refuse.
    pub dead_letter: DeadLetterConfig,
    /// Delays between tries.
    pub retry: Backoff,
    /// When a node counts as down.
    pub health: HealthConfig,
    /// For routes that give every device its own node.
    pub shard: ShardConfig,
    /// For routes that send each batch to several nodes.
    pub replicate: ReplicateConfig,
}

/// The settings of routes that give every device its own node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardConfig {
    /// What happens to the readings of a node that is down.
    pub failover: Failover,
}

/// The settings of routes that send each batch to several nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicateConfig {
    /// How many nodes are to have each batch; 0: every node.
    pub copies: usize,
    /// How many are enough for it to count as delivered.
    pub quorum: usize,
    /// How long the others are tried from then on.
    pub straggler_timeout: Duration,
}

impl DeliveryConfig {
    /// What must not be shown of these settings.
    pub fn secrets(&self) -> Secrets {
        Secrets::of(self.nodes.iter().map(NodeSource::url), &self.headers)
    }

    /// How many nodes are there from the start; others are found by their names.
    pub fn fixed_nodes(&self) -> usize {
        self.nodes.iter().filter(|source| matches!(source, NodeSource::Address(_))).count()
    }
}
