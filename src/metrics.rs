//! The metrics: a table with one row each, in Prometheus' text format.
//!
//! Numbers that live elsewhere (in the ledger, at the nodes) become [`Sample`]s when `/metrics` is asked, all from one
//! snapshot, so that they are consistent with each other.

use std::collections::BTreeMap;

use prometheus::core::Collector;
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder,
    exponential_buckets,
};

/// The prefix of every name.
pub const PREFIX: &str = "forebay_";

/// The type of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts observations in buckets.
    Histogram,
}

/// A metric in [`TABLE`].
#[derive(Clone, Copy, Debug)]
pub struct MetricRow {
    /// Its name without [`PREFIX`].
    pub name: &'static str,
    /// Its kind.
    pub kind: MetricKind,
    /// Its labels; their values come from small fixed sets, never from requests.
    pub labels: &'static [&'static str],
    /// Its help text.
    pub help: &'static str,
}

const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> MetricRow {
    MetricRow { name, kind: MetricKind::Counter, labels, help }
}

const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> MetricRow {
    MetricRow { name, kind: MetricKind::Gauge, labels, help }
}

const fn histogram(name: &'static str, labels: &'static [&'static str], help: &'static str) -> MetricRow {
    MetricRow { name, kind: MetricKind::Histogram, labels, help }
}

/// Every metric of the gateway, apart from the usual `process_*` ones.
pub const TABLE: &[MetricRow] = &[
    counter("readings_accepted_total", &["format"], "Readings taken in, by the format of their request."),
    counter("readings_recovered_total", &[], "Readings found in the buffer at the start."),
    counter("readings_derived_total", &["transform"], "Readings made by aggregation."),
    counter("readings_rejected_total", &["reason"], "Readings turned away, by reason."),
    counter("readings_delivered_total", &["node"], "Readings delivered, by node."),
    counter("readings_dead_lettered_total", &["reason"], "Readings set aside, by reason."),
    counter("readings_filtered_total", &["transform"], "Readings taken out by a filter."),
    counter("readings_merged_total", &["transform"], "Readings folded into others by aggregation."),
    counter("readings_dropped_total", &["reason"], "Accepted readings given up, by reason."),
    gauge("buffer_readings", &[], "Readings accepted and not yet settled, in flight included."),
    gauge("buffer_bytes", &[], "Bytes that they take."),
    gauge("buffer_limit_readings", &[], "Most readings that the buffer may hold."),
    gauge("buffer_limit_bytes", &[], "Most bytes that the buffer may hold."),
    gauge(
        "buffer_oldest_seconds",
        &[],
        "Age of the oldest reading that waits to be delivered, 0 if there is none; those in open windows do not count.",
    ),
    counter(
        "buffer_damaged_records_total",
        &[],
        "Requests in the log on disk that cannot be read; what is left of them is set aside.",
    ),
    histogram("commit_seconds", &[], "Time of one group commit of readings to the log on disk."),
    histogram("commit_readings", &[], "Readings in one group commit."),
    counter("batches_total", &["node", "outcome"], "Requests to nodes, by what their answer meant."),
    histogram("batch_readings", &[], "Readings in a batch when it is first sent."),
    histogram("batch_bytes", &[], "Bytes in a batch's body before compression when it is first sent."),
    histogram("delivery_seconds", &["node"], "Time from sending a batch to its answer."),
    gauge("node_up", &["node"], "Whether the node is taken to be up."),
    gauge("node_failing", &["node"], "Whether the node has failed and has had no success since."),
    gauge("node_ejected", &["node"], "Whether the node is sent nothing but trials because it is down."),
    gauge(
        "node_latency_seconds",
        &["node"],
        "What the node's answers take, as measured; absent before the first one.",
    ),
    gauge(
        "node_oldest_waiting_seconds",
        &["node"],
        "Age of the oldest reading that waits for this node alone, 0 if there is none.",
    ),
    gauge("node_in_flight", &["node"], "Batches on their way to the node."),
    gauge("node_in_flight_limit", &["node"], "Batches that may be on their way to the node at present."),
    counter(
        "transform_failed_total",
        &["transform"],
        "Readings that passed unchanged because the transform could not be applied to them.",
    ),
    counter(
        "transform_late_total",
        &["transform"],
        "Readings that were too late for their window and went into one of their own.",
    ),
    counter(
        "transform_evicted_total",
        &["transform"],
        "What was forgotten, and windows that were closed, before their time to make room.",
    ),
    counter(
        "transform_tags_cut_total",
        &["transform"],
        "Results of windows that lack a tag of their series, because they have as many as there may be.",
    ),
    gauge("transform_remembered", &["transform"], "Series, or readings, that the transform remembers."),
    gauge("transform_open_windows", &["transform"], "Windows of the transform that are open."),
    counter("copies_missing_total", &["reason"], "Copies of batches that were given up, by the reason."),
    counter("retries_total", &["node", "reason"], "Batches that will be sent again, by what went wrong."),
    gauge(
        "connections",
        &[],
        "Connections that are open, those in their handshake and those of the operator's listener included.",
    ),
    counter("http_requests_total", &["path", "status"], "Requests answered, by path and status."),
    counter(
        "requests_refused_total",
        &["reason"],
        "Requests of which nothing was taken, answered with 4xx or 5xx, by reason.",
    ),
    histogram("http_request_seconds", &["path"], "Time from a request's head to its answer's head."),
    counter(
        "key_readings_total",
        &["key", "outcome"],
        "Readings by the name of the key that they came with, for the first 1,000 keys; those of further ones are `other`. The outcome is accepted or rejected.",
    ),
    counter(
        "file_reloads_total",
        &["files", "result"],
        "Changed content of watched files (keys, cluster.headers, cluster.tls), by whether it was taken or refused.",
    ),
    gauge(
        "tls_certificate_expiry_timestamp_seconds",
        &[],
        "End of the listener's own certificate, in seconds since 1970; not there without TLS.",
    ),
    gauge(
        "cluster_tls_certificate_expiry_timestamp_seconds",
        &[],
        "End of the own certificate that nodes are shown, in seconds since 1970; not there without one, or if no node is called over TLS.",
    ),
    counter("tls_reloads_total", &["result"], "Changed files of `server.tls`, taken or refused."),
    counter("tls_handshake_failures_total", &["reason"], "TLS handshakes that came to nothing, by reason."),
    counter(
        "connections_refused_total",
        &["reason"],
        "Connections closed before a request: `address` had as many open as one address may.",
    ),
    counter(
        "idempotency_keys_forgotten_total",
        &[],
        "Keys of clients forgotten before their time: more came than are remembered, the disk had no room for them, or \
         they were damaged there (at least one for each start that finds so).",
    ),
    gauge(
        "ready",
        &["check"],
        "Whether the check of `/readyz` is well: `intake`, `storage`, `nodes`, `dead_letters`.",
    ),
    gauge("dead_letters", &[], "Dead letters that wait in the files for somebody to look at them."),
    gauge("dead_letter_bytes", &[], "Bytes of the files of dead letters."),
    gauge(
        "disk_free_bytes",
        &["directory"],
        "Bytes that can still be written where the buffer and the dead letters are.",
    ),
    gauge("build_info", &["version"], "Always 1; the version is in the label."),
];

/// The row of this name.
///
/// # Panics
///
/// If [`TABLE`] has no such row.
pub fn row(name: &str) -> &'static MetricRow {
    TABLE
        .iter()
        .find(|row| row.name == name)
        .unwrap_or_else(|| panic!("{name} is missing in the table of metrics"))
}

/// The registry, and the metrics that the parts of the gateway count themselves.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// `readings_rejected_total`
    pub readings_rejected: IntCounterVec,
    /// `buffer_damaged_records_total`
    pub buffer_damaged_records: IntCounter,
    /// `commit_seconds`
    pub commit_seconds: Histogram,
    /// `commit_readings`
    pub commit_readings: Histogram,
    /// `batches_total`
    pub batches: IntCounterVec,
    /// `batch_readings`
    pub batch_readings: Histogram,
    /// `batch_bytes`
    pub batch_bytes: Histogram,
    /// `delivery_seconds`
    pub delivery_seconds: HistogramVec,
    /// `copies_missing_total`
    pub copies_missing: IntCounterVec,
    /// `retries_total`
    pub retries: IntCounterVec,
    /// `connections`
    pub connections: IntGauge,
    /// `key_readings_total`
    pub key_readings: IntCounterVec,
    /// `file_reloads_total`
    pub file_reloads: IntCounterVec,
    /// `tls_reloads_total`
    pub tls_reloads: IntCounterVec,
    /// `tls_handshake_failures_total`
    pub tls_handshake_failures: IntCounterVec,
    /// `connections_refused_total`
    pub connections_refused: IntCounterVec,
    /// `http_requests_total`
    pub http_requests: IntCounterVec,
    /// `requests_refused_total`
    pub requests_refused: IntCounterVec,
    /// `http_request_seconds`
    pub http_request_seconds: HistogramVec,
    /// `idempotency_keys_forgotten_total`
    pub idempotency_keys_forgotten: IntCounter,
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new()
    }
}

impl Metrics {
    /// Creates the registry with these metrics and the `process_*` ones.
    pub fn new() -> Metrics {
        let registry = Registry::new();
        let register = |collector: Box<dyn Collector>| {
            registry.register(collector).expect("names are unique: they come from one table");
        };
        let seconds = exponential_buckets(0.000_1, 2.0, 18).expect("good bounds");
        let readings = exponential_buckets(1.0, 4.0, 10).expect("good bounds");
        let bytes = exponential_buckets(256.0, 4.0, 10).expect("good bounds");
        let metrics = Metrics {
            readings_rejected: counters("readings_rejected_total"),
            batches: counters("batches_total"),
            buffer_damaged_records: counters("buffer_damaged_records_total").with_label_values::<&str>(&[]),
            commit_seconds: single(histograms("commit_seconds", seconds.clone())),
            commit_readings: single(histograms("commit_readings", readings.clone())),
            batch_readings: single(histograms("batch_readings", readings)),
            batch_bytes: single(histograms("batch_bytes", bytes)),
            delivery_seconds: histograms("delivery_seconds", seconds.clone()),
            copies_missing: counters("copies_missing_total"),
            retries: counters("retries_total"),
            connections: IntGauge::new(format!("{PREFIX}connections"), row("connections").help)
                .expect("a good name"),
            key_readings: counters("key_readings_total"),
            file_reloads: counters("file_reloads_total"),
            tls_reloads: counters("tls_reloads_total"),
            tls_handshake_failures: counters("tls_handshake_failures_total"),
            connections_refused: counters("connections_refused_total"),
            http_requests: counters("http_requests_total"),
            requests_refused: counters("requests_refused_total"),
            http_request_seconds: histograms("http_request_seconds", seconds),
            idempotency_keys_forgotten: counters("idempotency_keys_forgotten_total")
                .with_label_values::<&str>(&[]),
            registry: registry.clone(),
        };
        let counters =
            [&metrics.readings_rejected, &metrics.batches, &metrics.retries, &metrics.requests_refused];
        for counters in counters.into_iter().chain([
            &metrics.http_requests,
            &metrics.copies_missing,
            &metrics.key_readings,
            &metrics.file_reloads,
            &metrics.connections_refused,
            &metrics.tls_reloads,
            &metrics.tls_handshake_failures,
        ]) {
            register(Box::new(counters.clone()));
        }
        register(Box::new(metrics.idempotency_keys_forgotten.clone()));
        register(Box::new(metrics.connections.clone()));
        register(Box::new(metrics.buffer_damaged_records.clone()));
        for histograms in
            [&metrics.batch_readings, &metrics.batch_bytes, &metrics.commit_seconds, &metrics.commit_readings]
        {
            register(Box::new(histograms.clone()));
        }
        for histograms in [&metrics.delivery_seconds, &metrics.http_request_seconds] {
            register(Box::new(histograms.clone()));
        }
        register(Box::new(prometheus::process_collector::ProcessCollector::for_self()));
        metrics
    }

    /// Removes the metrics of a node that is gone, so that the labels do not grow for ever.
    pub fn forget_node(&self, node: &str) {
        forget(&self.batches, node, |labels| self.batches.remove_label_values(labels).is_ok());
        forget(&self.retries, node, |labels| self.retries.remove_label_values(labels).is_ok());
        forget(&self.delivery_seconds, node, |labels| {
            self.delivery_seconds.remove_label_values(labels).is_ok()
        });
    }

    /// All metrics in Prometheus' text format, version 0.0.4, with `samples` among them.
    pub fn encode(&self, mut samples: Vec<Sample>) -> String {
        samples.push(sample("build_info", &[env!("CARGO_PKG_VERSION")], 1.0));
        let mut families = self.registry.gather();
        families.extend(sample_families(samples));
        TextEncoder::new().encode_to_string(&families).unwrap_or_else(|error| format!("# {error}\n"))
    }
}

/// A number for one row, taken when `/metrics` is asked.
#[derive(Debug)]
pub struct Sample {
    row: &'static MetricRow,
    labels: Vec<String>,
    number: f64,
}

/// Creates a sample for the row `name`, with the values of its labels.
pub fn sample(name: &str, labels: &[&str], number: f64) -> Sample {
    let row = row(name);
    assert_eq!(row.labels.len(), labels.len(), "{name} has the labels {:?}", row.labels);
    Sample { row, labels: labels.iter().map(|label| (*label).to_owned()).collect(), number }
}

fn sample_families(samples: Vec<Sample>) -> impl Iterator<Item = MetricFamily> {
    let mut families: BTreeMap<&str, MetricFamily> = BTreeMap::new();
    for Sample { row, labels, number } in samples {
        let family = families.entry(row.name).or_insert_with(|| {
            let mut family = MetricFamily::default();
            family.set_name(format!("{PREFIX}{}", row.name));
            family.set_help(row.help.to_owned());
            family.set_field_type(match row.kind {
                MetricKind::Counter => MetricType::COUNTER,
                MetricKind::Gauge | MetricKind::Histogram => MetricType::GAUGE,
            });
            family
        });
        family.mut_metric().push(metric(row, &labels, number));
    }
    families.into_values()
}

fn metric(row: &MetricRow, labels: &[String], number: f64) -> Metric {
    let pair = |(name, value): (&&str, &String)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value(value.clone());
        pair
    };
    let mut metric = Metric::from_label(row.labels.iter().zip(labels).map(pair).collect());
    match row.kind {
        MetricKind::Counter => {
            let mut counter = Counter::default();
            counter.set_value(number);
            metric.set_counter(counter);
        }
        MetricKind::Gauge | MetricKind::Histogram => {
            let mut gauge = Gauge::default();
            gauge.set_value(number);
            metric.set_gauge(gauge);
        }
    }
    metric
}

fn counters(name: &str) -> IntCounterVec {
    let row = row(name);
    IntCounterVec::new(Opts::new(format!("{PREFIX}{name}"), row.help), row.labels).expect("good names")
}

fn histograms(name: &str, buckets: Vec<f64>) -> HistogramVec {
    let row = row(name);
    let options = HistogramOpts::new(format!("{PREFIX}{name}"), row.help).buckets(buckets);
    HistogramVec::new(options, row.labels).expect("good names")
}

/// Calls `remove` for every metric of the family whose label `node` is `node`, with all label values in the row's order.
fn forget(family: &dyn Collector, node: &str, remove: impl Fn(&[&str]) -> bool) {
    for collected in family.collect() {
        let labels = row(collected.name().trim_start_matches(PREFIX)).labels;
        for metric in collected.get_metric() {
            let value = |label: &&str| {
                metric.get_label().iter().find(|pair| pair.name() == *label).map(LabelPair::value)
            };
            let values: Vec<&str> = labels.iter().filter_map(value).collect();
            if value(&"node") == Some(node) && !remove(&values) {
                tracing::debug!(node, "nothing was counted of a node that is to be forgotten");
            }
        }
    }
}

fn single(histograms: HistogramVec) -> Histogram {
    histograms.with_label_values::<&str>(&[])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counted_or_sampled_row_is_encoded_with_its_type_and_labels() {
        let metrics = Metrics::new();
        metrics.readings_rejected.with_label_values(&["time"]).inc_by(3);
        let text = metrics.encode(vec![
            sample("node_up", &["a:1"], 1.0),
            sample("node_up", &["b:1"], 0.0),
            sample("buffer_bytes", &[], 5.0),
        ]);
        for line in [
            "# TYPE forebay_readings_rejected_total counter",
            "forebay_readings_rejected_total{reason=\"time\"} 3",
            "# TYPE forebay_node_up gauge",
            "forebay_node_up{node=\"b:1\"} 0",
            "forebay_buffer_bytes 5",
            &format!("forebay_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION")),
            "forebay_batch_readings_count 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
        assert!(text.contains("process_resident_memory_bytes"), "{text}");
    }

    #[test]
    fn only_the_metrics_of_a_forgotten_node_are_removed() {
        let metrics = Metrics::new();
        for node in ["a:1", "b:1"] {
            metrics.batches.with_label_values(&[node, "delivered"]).inc();
            metrics.batches.with_label_values(&[node, "refused"]).inc();
            metrics.retries.with_label_values(&[node, "busy"]).inc();
            metrics.delivery_seconds.with_label_values(&[node]).observe(0.1);
        }
        let lines = |text: &str, node: &str| text.lines().filter(|line| line.contains(node)).count();
        let before = lines(&metrics.encode(Vec::new()), "b:1");
        metrics.forget_node("a:1");
        let text = metrics.encode(Vec::new());
        assert_eq!((lines(&text, "a:1"), lines(&text, "b:1")), (0, before), "{text}");
    }

    #[test]
    fn names_are_unique_and_counters_end_in_total() {
        for row in TABLE {
            assert_eq!(TABLE.iter().filter(|other| other.name == row.name).count(), 1, "{}", row.name);
            assert_eq!(row.kind == MetricKind::Counter, row.name.ends_with("_total"), "{}", row.name);
        }
    }
}
