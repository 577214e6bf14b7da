//! The metrics that are read from the accounts and the nodes when `/metrics` is asked.

use forebay_codec::DECODERS;
use tokio::time::Instant;

use crate::buffer::ledger::{DeadLetterReason, DropReason};
use crate::delivery::TransformStatus;
use crate::metrics::{Sample, sample};

use super::StatusView;
use super::readiness::Readiness;

/// The label for nodes that are gone and whose places other nodes have taken.
const GONE: &str = "gone";

#[expect(clippy::cast_precision_loss, reason = "the text format holds doubles")]
pub(super) fn samples(view: &StatusView) -> Vec<Sample> {
    let ledger = &view.snapshot.ledger;
    let now = Instant::now();
    let mut samples = vec![
        sample("readings_recovered_total", &[], ledger.recovered as f64),
        sample("buffer_readings", &[], ledger.buffered as f64),
        sample("buffer_bytes", &[], view.snapshot.held_bytes as f64),
        sample("buffer_limit_readings", &[], view.snapshot.limit.readings as f64),
        sample("buffer_limit_bytes", &[], view.snapshot.limit.bytes as f64),
        sample("buffer_oldest_seconds", &[], view.oldest_seconds),
    ];
    for (name, check) in Readiness::of(view).checks.named() {
        samples.push(sample("ready", &[name], f64::from(u8::from(check.ok))));
    }
    for (format, accepted) in DECODERS.names().zip(&ledger.accepted) {
        samples.push(sample("readings_accepted_total", &[format], *accepted as f64));
    }
    for ((reason, _), dropped) in DropReason::NAMES.iter().zip(&ledger.dropped) {
        samples.push(sample("readings_dropped_total", &[reason], *dropped as f64));
    }
    for ((reason, _), dead_lettered) in DeadLetterReason::NAMES.iter().zip(&ledger.dead_lettered) {
        samples.push(sample("readings_dead_lettered_total", &[reason], *dead_lettered as f64));
    }
    for (transform, TransformStatus { name, stats }) in view.transforms.iter().enumerate() {
        let (name, account) =
            (&[&**name], |accounts: &Vec<u64>| accounts.get(transform).copied().unwrap_or(0));
        samples.push(sample("readings_filtered_total", name, account(&ledger.filtered) as f64));
        samples.push(sample("readings_merged_total", name, account(&ledger.merged) as f64));
        samples.push(sample("readings_derived_total", name, account(&ledger.derived) as f64));
        samples.push(sample("transform_failed_total", name, stats.failed as f64));
        samples.push(sample("transform_late_total", name, stats.late as f64));
        samples.push(sample("transform_evicted_total", name, stats.evicted as f64));
        samples.push(sample("transform_tags_cut_total", name, stats.tags_cut as f64));
        samples.push(sample("transform_remembered", name, stats.remembered as f64));
        samples.push(sample("transform_open_windows", name, stats.open_windows as f64));
    }
    if ledger.delivered_to_gone > 0 {
        samples.push(sample("readings_delivered_total", &[GONE], ledger.delivered_to_gone as f64));
    }
    for (node, delivered) in view.nodes.iter().zip(&ledger.delivered) {
        let id = &[node.id.as_str()];
        samples.push(sample("readings_delivered_total", id, *delivered as f64));
        if !node.present {
            continue;
        }
        samples.push(sample("node_up", id, f64::from(u8::from(node.up))));
        samples.push(sample("node_ejected", id, f64::from(u8::from(node.ejected))));
        samples.push(sample("node_failing", id, f64::from(u8::from(node.failing))));
        if let Some(seconds) = node.latency_seconds() {
            samples.push(sample("node_latency_seconds", id, seconds));
        }
        samples.push(sample("node_oldest_waiting_seconds", id, node.oldest_waiting_age(now).as_secs_f64()));
        samples.push(sample("node_in_flight", id, node.in_flight as f64));
        samples.push(sample("node_in_flight_limit", id, node.in_flight_limit as f64));
    }
    samples
}
