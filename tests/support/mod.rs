//! Shared by the tests of the whole gateway: a gateway in this process, nodes with scripted answers, and readings.
//!
//! ```ignore
//! let node = FakeNode::answering([Answer::status(503), Answer::status(200)]).await;
//! let gateway = TestGateway::new().node(&node).start().await;
//! gateway.post(&readings(3)).await.expect_status(202);
//! eventually("the readings arrive", || async { node.readings() == readings(3) }).await;
//! ```
//!
//! Ports are 0, times are short, and whatever must happen is awaited with a limit ([`eventually`]).
#![allow(dead_code, reason = "each test binary uses a part")]

pub mod arrivals;
pub mod compression;
mod gateway;
mod names;
mod node;
pub mod process;
mod raw;
mod raw_node;
mod readings;
pub mod records;
pub mod site;

use std::future::Future;
use std::time::Duration;

use forebay::delivery::{DeliveryConfig, Uplink};
use forebay::gateway::check_node_files;

#[allow(unused_imports, reason = "each test binary uses a part")]
pub use gateway::{Reply, RunningGateway, TestGateway};
#[allow(unused_imports, reason = "each test binary uses a part")]
pub use names::Names;
#[allow(unused_imports, reason = "each test binary uses a part")]
pub use node::{Answer, FakeNode, Gate, ReceivedBatch};
#[allow(unused_imports, reason = "each test binary uses a part")]
pub use raw::{RawClient, chunk, post_head};
#[allow(unused_imports, reason = "each test binary uses a part")]
pub use raw_node::{RawNode, read_head};
#[allow(unused_imports, reason = "each test binary uses a part")]
pub use readings::{Reading, at, reading, readings, to_json, to_ndjson};

/// Longest time that something may take that must happen.
pub const LIMIT: Duration = Duration::from_secs(20);

/// The way to the nodes of these settings, over real connections.
pub fn uplink(config: &DeliveryConfig) -> Uplink {
    check_node_files(config).expect("good files").uplink
}

/// Waits until `holds` says true, and fails after [`LIMIT`].
#[track_caller]
pub fn eventually<F: Future<Output = bool>>(
    what: &str,
    mut holds: impl FnMut() -> F,
) -> impl Future<Output = ()> {
    let caller = std::panic::Location::caller();
    async move {
        let until = tokio::time::Instant::now() + LIMIT;
        while !holds().await {
            assert!(tokio::time::Instant::now() < until, "{caller}: within {LIMIT:?} it must be that {what}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

/// The seed of a test that uses random numbers: that of `FOREBAY_TEST_SEED`, to repeat a run, or any. It is printed.
pub fn seed() -> u64 {
    let seed = std::env::var("FOREBAY_TEST_SEED").ok().map(|text| text.parse().expect("a whole number"));
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("FOREBAY_TEST_SEED={seed}");
    seed
}

/// How often a test does something that never goes the same way twice: `short`, or `long` with `FOREBAY_TEST_LONG=1`.
pub fn rounds(short: usize, long: usize) -> usize {
    if std::env::var_os("FOREBAY_TEST_LONG").is_some_and(|value| value == "1") { long } else { short }
}

/// A node in `/status`.
pub async fn node_status(gateway: &RunningGateway, id: &str) -> serde_json::Value {
    let status = gateway.get("/status").await.expect_status(200).json();
    let nodes = status["nodes"].as_array().expect("nodes");
    nodes.iter().find(|node| node["id"] == id).expect("the node").clone()
}
