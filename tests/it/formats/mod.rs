//! The promises of the formats towards nodes, over HTTP: the body that a node is sent, and the consequences of its answer.

mod answers;
mod burying;
mod check;
mod clickhouse;
mod elasticsearch;
mod influx;
mod remote_write;

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::support::{Reading, RunningGateway, eventually};

/// Longer than any test: a pause of this length never ends.
const NEVER: &str = "1h";

/// The dead letters below a directory, in their order.
fn letters(directory: &Path) -> Vec<Value> {
    let file = directory.join("dead-letters/00000001.ndjson");
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

async fn all_settled(gateway: &RunningGateway) {
    eventually("all are settled", || async { gateway.account("buffered").await == 0 }).await;
}

/// So many readings were delivered, so many became dead letters, and none is left.
async fn expect_settled(gateway: &RunningGateway, delivered: u64, dead: u64) {
    all_settled(gateway).await;
    let ledger = gateway.ledger().await;
    assert_eq!(
        (ledger["delivered"].as_u64(), ledger["dead_lettered"].as_u64()),
        (Some(delivered), Some(dead))
    );
}

/// The lines of a body as JSON.
fn json_lines(body: &[u8]) -> Vec<Reading> {
    let lines = body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).expect("a line of JSON")).collect()
}
