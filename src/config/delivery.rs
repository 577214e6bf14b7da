//! The settings of the delivery.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use forebay_reading::quantity::{format_duration, format_size};
use forebay_reading::registry::Registry;
use forebay_stores::STORES;
use url::Url;

use super::layers::{Layers, Setting, SettingOrigin, list};
use super::{
    HOUR, IneffectiveSetting, MILLISECOND, choice, count, dead_letter, duration, format, headers, ratio,
    size, tls, transform, usize_of,
};
use crate::backoff::Backoff;
use crate::delivery::{
    BatchConfig, COMPRESSIONS, Compression, DNS_PREFIX, DeliveryConfig, Failover, HealthConfig, NODES_MAX,
    NodeSource, ReplicateConfig, ShardConfig, SystemResolver, leads_to,
};
use crate::node;
use crate::node_id::NodeId;
use crate::routing::{Placement, ROUTES};

/// Most nodes, as the bound of a count.
#[expect(clippy::cast_possible_wrap, reason = "a thousand")]
const NODES_MAX_SETTING: i64 = NODES_MAX as i64;

/// The ways to treat readings of a node that is down.
const FAILOVERS: Registry<Failover> =
    Registry { what: "failover", members: &[("next", Failover::Next), ("wait", Failover::Wait)] };

/// Reads the settings of a gateway that listens on `listen`.
pub(super) fn read(layers: &mut Layers, listen: SocketAddr) -> DeliveryConfig {
    let retry = Backoff {
        initial: duration(layers, "cluster.retry.initial", MILLISECOND..=HOUR),
        max: duration(layers, "cluster.retry.max", MILLISECOND..=24 * HOUR),
    };
    if retry.max < retry.initial {
        let initial = format_duration(retry.initial);
        layers.fault(
            "cluster.retry.max",
            format!("must be at least cluster.retry.initial, which is {initial}"),
        );
    }
    let stores = format::read(layers);
    let config = DeliveryConfig {
        transforms: transform::read(layers),
        batch: BatchConfig {
            max_readings: count(layers, "batch.max_readings", 1..=1_000_000),
            max_bytes: usize_of(size(layers, "batch.max_bytes", 1..=1 << 30)),
            max_age: duration(layers, "batch.max_age", Duration::ZERO..=HOUR),
        },
        nodes: layers.get("cluster.nodes", |value| node_sources(&list(value)?)),
        resolve_every: duration(layers, "cluster.resolve_every", MILLISECOND..=24 * HOUR),
        resolver: Arc::new(SystemResolver),
        own_address: Some(listen),
        route: *choice(layers, "cluster.route", &ROUTES),
        store: choice(layers, "cluster.format", &STORES)(&stores),
        compression: *choice(layers, "cluster.compression", &COMPRESSIONS),
        timeout: duration(layers, "cluster.timeout", MILLISECOND..=HOUR),
        max_in_flight: count(layers, "cluster.max_in_flight", 1..=1024),
        headers: headers::read(layers),
        tls: tls::cluster(layers),
        dead_letter: dead_letter::read(layers),
        retry,
        health: HealthConfig {
            failures: u32::try_from(count(layers, "cluster.health.failures", 1..=1_000_000))
                .unwrap_or(u32::MAX),
            failure_ratio: ratio(layers, "cluster.health.failure_ratio", 0.01..=1.0),
            probe: duration(layers, "cluster.health.probe", MILLISECOND..=HOUR),
            max_ejected: ratio(layers, "cluster.health.max_ejected", 0.0..=1.0),
        },
        shard: ShardConfig { failover: *choice(layers, "cluster.shard.failover", &FAILOVERS) },
        replicate: ReplicateConfig {
            copies: count(layers, "cluster.replicate.copies", 0..=NODES_MAX_SETTING),
            quorum: count(layers, "cluster.replicate.quorum", 1..=NODES_MAX_SETTING),
            straggler_timeout: duration(layers, "cluster.replicate.straggler_timeout", Duration::ZERO..=HOUR),
        },
    };
    refuse_own_address(layers, &config, listen);
    refuse_unreachable_copies(layers, &config);
    refuse_unsupported_compression(layers, &config);
    refuse_other_units_of_time(layers, &config);
    refuse_misfits_of_the_embedded_node(layers, &config);
    config
}

/// Settings that are set for routes, formats and nodes that are not used.
pub(super) fn without_effect(layers: &Layers, config: &DeliveryConfig) -> Vec<IneffectiveSetting> {
    let placement = config.route.placement();
    let format = layers.settings.iter().find(|setting| setting.key == "cluster.format");
    let is_other_format = |name: &str| format.is_some_and(|format| format.value != name);
    let why = |key: &str| match key {
        _ if format::format_of(key).is_some_and(is_other_format) => {
            let name = format::format_of(key).unwrap_or_default();
            Some(format!("with another format than `{name}`"))
        }
        _ if key.starts_with("cluster.shard.") && placement != Placement::ByDevice => {
            Some("with another route than `shard`".to_owned())
        }
        _ if key.starts_with("cluster.replicate.") && placement != Placement::Copies => {
            Some("with another route than `replicate`".to_owned())
        }
        "cluster.resolve_every" if config.fixed_nodes() == config.nodes.len() => {
            Some("without `dns+http://` or `dns+https://` nodes".to_owned())
        }
        _ if key.starts_with("cluster.tls.") && !config.has_tls() => {
            Some("without `https://` or `dns+https://` nodes".to_owned())
        }
        _ => None,
    };
    let made = layers.settings.iter().filter(|setting| !matches!(setting.origin, SettingOrigin::Default));
    let without = |setting: &Setting| {
        let why = why(&setting.key)?;
        Some(IneffectiveSetting { setting: setting.clone(), why })
    };
    made.filter_map(without).collect()
}

/// Records a fault if a node is this gateway itself: readings sent there would come in again.
fn refuse_own_address(layers: &mut Layers, config: &DeliveryConfig, listen: SocketAddr) {
    for node in config.nodes.iter().filter(|node| leads_to(node, listen)) {
        let fault = format!(
            "must name other servers: `{node}` is this gateway itself (server.listen = {listen}), and readings that are \
             sent there come in again; leave cluster.nodes out to use the gateway's own node"
        );
        layers.fault("cluster.nodes", fault);
    }
}

/// Records a fault if batches need more nodes than there are, or a larger quorum than copies.
fn refuse_unreachable_copies(layers: &mut Layers, config: &DeliveryConfig) {
    let ReplicateConfig { copies, quorum, .. } = config.replicate;
    if copies > 0 && quorum > copies {
        let allowed = format!("must be at most cluster.replicate.copies, which is {copies}, got {quorum}");
        layers.fault("cluster.replicate.quorum", allowed);
    }
    if config.route.placement() != Placement::Copies || config.nodes.len() > config.fixed_nodes() {
        // The number of nodes behind a DNS name is not known yet.
        return;
    }
    // Without nodes, the embedded one is used.
    let nodes = config.nodes.len().max(1);
    for (key, wanted) in [("cluster.replicate.copies", copies), ("cluster.replicate.quorum", quorum)] {
        if wanted > nodes && !layers.faults.iter().any(|fault| fault.key == "cluster.nodes") {
            let allowed =
                format!("must be at most the number of cluster.nodes, which is {nodes}, got {wanted}");
            layers.fault(key, allowed);
        }
    }
}

/// Records a fault if an address has nodes read times in another unit than the gateway writes.
fn refuse_other_units_of_time(layers: &mut Layers, config: &DeliveryConfig) {
    let is_influx = |setting: &Setting| setting.key == "cluster.format" && setting.value == "influx";
    let mut queries = config.nodes.iter().flat_map(|node| node.url().query_pairs());
    let other = queries.find(|(name, value)| name == "precision" && !matches!(value.as_ref(), "ns" | "n"));
    if let Some((_, value)) = other
        && layers.settings.iter().any(is_influx)
    {
        let fault =
            format!("must not have `precision={value}`: times are sent in nanoseconds (`precision=ns`)");
        layers.fault("cluster.nodes", fault);
    }
}

/// Records a fault if nodes of the format cannot undo this compression. Some would acknowledge bodies that they cannot
/// read.
fn refuse_unsupported_compression(layers: &mut Layers, config: &DeliveryConfig) {
    let value =
        |key: &str| layers.settings.iter().find(|setting| setting.key == key).map(|it| it.value.clone());
    let (Some(format), Some(compression)) = (value("cluster.format"), value("cluster.compression")) else {
        return;
    };
    let known = config.store.compressions();
    if config.compression == Compression::None || known.contains(&&*compression) {
        return;
    }
    let allowed: Vec<_> = std::iter::once("none").chain(known.iter().copied()).collect();
    let why = match config.store.encoder().content_encoding() {
        Some(encoding) => format!("whose bodies are in {encoding} already"),
        None => "whose nodes cannot undo others".to_owned(),
    };
    let allowed = allowed.join(" or ");
    let fault = format!("must be {allowed} with cluster.format = \"{format}\", {why}; got {compression}");
    layers.fault("cluster.compression", fault);
}

/// Records a fault if the embedded node is used and would refuse every full batch, or every batch.
fn refuse_misfits_of_the_embedded_node(layers: &mut Layers, config: &DeliveryConfig) {
    // A node with a fault still means that the embedded node is not used.
    let is_embedded =
        config.nodes.is_empty() && !layers.faults.iter().any(|fault| fault.key == "cluster.nodes");
    if !is_embedded {
        return;
    }
    let unless = "which is what the gateway's own node takes, unless cluster.nodes names others";
    if config.batch.max_bytes > node::BODY_BYTES_MAX {
        let max = format_size(node::BODY_BYTES_MAX as u64);
        layers.fault("batch.max_bytes", format!("must be at most {max}, {unless}"));
    }
    let format = layers.settings.iter().find(|setting| setting.key == "cluster.format");
    if let Some(format) = format.filter(|format| format.value != node::FORMAT) {
        let wanted = format!("must be {}, {unless}, got `{}`", node::FORMAT, format.value);
        layers.fault("cluster.format", wanted);
    }
}

fn node_sources(texts: &[String]) -> Result<Vec<NodeSource>, String> {
    let sources: Vec<NodeSource> = texts.iter().map(|text| node_source(text)).collect::<Result<_, _>>()?;
    if sources.len() > NODES_MAX {
        return Err(format!("must be at most {NODES_MAX} nodes, got {}", sources.len()));
    }
    // Prometheus refuses all metrics if two have the same name and labels.
    let urls: Vec<Url> = sources.iter().map(|source| source.url().clone()).collect();
    let mut seen = BTreeSet::new();
    match NodeId::for_urls(&urls).into_iter().find(|id| !seen.insert(id.clone())) {
        Some(id) => Err(format!("two nodes are `{id}`; they must differ in host, port or path")),
        None => Ok(sources),
    }
}

fn node_source(text: &str) -> Result<NodeSource, String> {
    match text.strip_prefix(DNS_PREFIX) {
        Some(url) => node_url(url, "such as dns+http://nodes.example:9000/v1/batches").map(NodeSource::Name),
        None => node_url(text, "such as http://127.0.0.1:9000/v1/batches").map(NodeSource::Address),
    }
}

fn node_url(text: &str, example: &str) -> Result<Url, String> {
    // The text before an `@` or behind a `?` may be a password, and faults are logged.
    let shown = text.rsplit_once('@').map_or(text.to_owned(), |(_, rest)| format!("…@{rest}"));
    let shown = shown.split_once('?').map_or(shown.clone(), |(before, _)| format!("{before}?…"));
    let url: Url =
        text.parse().map_err(|error| format!("`{shown}` is not an address, {example}: {error}"))?;
    match url.scheme() {
        "http" | "https" if url.host_str().is_some_and(|host| !host.is_empty()) => Ok(url),
        "http" | "https" => Err(format!("`{shown}` has no host, {example}")),
        other => Err(format!(
            "`{other}` is no scheme for a node; allowed: http, https, dns+http and dns+https, {example}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;
    use crate::delivery::{Failover, ReplicateConfig};

    fn read(settings: &[(&str, &str)]) -> Result<Config, Vec<String>> {
        let name = |key: &str| format!("FOREBAY__{}", key.to_uppercase().replace('.', "__"));
        let set: Vec<_> = settings.iter().map(|(key, value)| (name(key), (*value).to_owned())).collect();
        let text = |fault: &crate::config::ConfigFault| {
            let text = fault.to_string();
            text.split_once(": ").map_or(text.clone(), |(_, fault)| fault.to_owned())
        };
        Config::read(None, &set).map_err(|faults| faults.iter().map(text).collect())
    }

    #[test]
    fn routes_have_the_promised_defaults() {
        let config = read(&[]).expect("the defaults are good").delivery;
        assert_eq!(config.shard.failover, Failover::Next);
        let straggler_timeout = std::time::Duration::from_secs(30);
        assert_eq!(config.replicate, ReplicateConfig { copies: 2, quorum: 2, straggler_timeout });
    }

    #[test]
    fn a_compression_that_nodes_of_the_format_cannot_undo_is_a_fault() {
        let check = |format: &str, compression: &str, expected: Option<&str>| {
            let nodes = ("cluster.nodes", "http://a/x");
            let read = read(&[nodes, ("cluster.format", format), ("cluster.compression", compression)]);
            assert_eq!(read.err(), expected.map(|fault| vec![format!("cluster.compression: {fault}")]));
        };
        let already =
            "must be none with cluster.format = \"remote-write\", whose bodies are in snappy already; got";
        check("remote-write", "gzip", Some(&format!("{already} gzip")));
        check("remote-write", "zstd", Some(&format!("{already} zstd")));
        let others =
            "must be none or gzip with cluster.format = \"influx\", whose nodes cannot undo others; got zstd";
        check("influx", "zstd", Some(others));
        check("elasticsearch", "zstd", Some(&others.replace("influx", "elasticsearch")));
        for (format, compression) in [("remote-write", "none"), ("influx", "gzip"), ("ndjson", "zstd")] {
            check(format, compression, None);
        }
    }

    #[test]
    fn an_influx_address_with_another_unit_of_time_is_a_fault() {
        let check = |format: &str, query: &str, expected: &[&str]| {
            let nodes = format!("http://a/write?{query}");
            let read = read(&[("cluster.nodes", &nodes), ("cluster.format", format)]);
            assert_eq!(read.err().unwrap_or_default(), expected, "{query}");
        };
        let fault =
            "cluster.nodes: must not have `precision=s`: times are sent in nanoseconds (`precision=ns`)";
        check("influx", "db=d&precision=s", &[fault]);
        check("influx", "db=d&precision=ns", &[]);
        check("influx", "db=d", &[]);
        check("ndjson", "precision=s", &[]);
    }

    #[test]
    fn a_node_that_is_this_gateway_itself_is_a_fault() {
        let check = |listen: &str, nodes: &str, is_fault: bool| {
            let read = read(&[("server.listen", listen), ("cluster.nodes", nodes)]);
            let faults = read.err().unwrap_or_default();
            let is_it = |fault: &String| fault.starts_with("cluster.nodes: must name other servers: `");
            assert_eq!(faults.iter().any(is_it), is_fault, "{listen} {nodes}: {faults:?}");
        };
        for (listen, node) in [
            ("127.0.0.1:8080", "http://127.0.0.1:8080/v1/readings"),
            ("127.0.0.1:8080", "http://localhost:8080/"),
            ("127.0.0.1:8080", "http://0.0.0.0:8080/write?db=x"),
            ("127.0.0.1:80", "http://localhost/v1/readings"),
            ("0.0.0.0:8080", "http://me:secret@127.0.0.9:8080/"),
            ("[::]:8080", "http://[::1]:8080/"),
            ("[::]:8080", "http://127.0.0.1:8080/"),
            ("127.0.0.1:8080", "dns+http://localhost:8080/"),
        ] {
            check(listen, node, true);
            check(listen, &format!("http://192.0.2.1:9000/x,{node}"), true);
        }
        check("127.0.0.1:8080", "http://127.0.0.1:8081/v1/readings", false);
        check("127.0.0.1:8080", "http://192.0.2.1:8080/v1/readings", false);
        check("127.0.0.1:0", "http://127.0.0.1:8080/v1/readings", false);
    }

    #[test]
    fn a_header_that_forebay_sets_itself_is_a_fault_in_any_spelling() {
        for name in [
            "content-length",
            "Content-Encoding",
            "HOST",
            "user-agent",
            "forebay-via",
            "content_length",
            "X-Prometheus-Remote-Write-Version",
        ] {
            let variable = format!("FOREBAY__CLUSTER__HEADERS__{name}");
            let faults = Config::read(None, &[(variable.clone(), "3".to_owned())]).expect_err("a fault");
            let [fault] = &faults[..] else { panic!("one fault: {faults:?}") };
            let text = fault.to_string();
            assert!(
                text.starts_with(&format!("environment variable {variable}: cluster.headers."))
                    && text.contains("must not be set here")
                    && text.contains("allowed are others"),
                "{text}"
            );
        }
        assert!(
            read(&[("cluster.headers.authorization", "Bearer x"), ("cluster.headers.x-api-key", "y")])
                .is_ok()
        );
    }

    #[test]
    fn the_fault_of_a_malformed_address_shows_no_secret() {
        for node in ["http://me:hush-hush@:80/x", "http://?p=hush-hush", "http://[::1/x?token=hush-hush"] {
            let faults = read(&[("cluster.nodes", node)]).expect_err("a fault").join("\n");
            assert!(!faults.contains("hush"), "{faults}");
        }
    }

    #[test]
    fn copies_and_quorums_that_cannot_be_reached_are_faults() {
        let check = |settings: &[(&str, &str)], expected: &[&str]| {
            assert_eq!(read(settings).expect_err("a fault"), expected, "{settings:?}");
        };
        let replicate = ("cluster.route", "replicate");
        let one = ("cluster.nodes", "http://a/x");
        check(
            &[replicate, one],
            &[
                "cluster.replicate.copies: must be at most the number of cluster.nodes, which is 1, got 2",
                "cluster.replicate.quorum: must be at most the number of cluster.nodes, which is 1, got 2",
            ],
        );
        let two = ("cluster.nodes", "http://a/x,http://b/x");
        check(
            &[replicate, two, ("cluster.replicate.copies", "1")],
            &["cluster.replicate.quorum: must be at most cluster.replicate.copies, which is 1, got 2"],
        );
        assert!(read(&[replicate, two, ("cluster.replicate.copies", "0")]).is_ok());
        assert!(
            read(&[replicate, ("cluster.nodes", "dns+http://a:1/x")]).is_ok(),
            "the number of nodes is not known yet"
        );
    }
}
