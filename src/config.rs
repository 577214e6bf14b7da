//! The settings: read from their layers, checked at the start, and handed to each part as a struct of its own.

mod auth;
mod buffer;
mod dead_letter;
mod delivery;
mod door;
mod file;
mod format;
mod headers;
mod ingest;
mod layers;
mod places;
mod server;
mod tls;
mod transform;
mod transform_table;
mod values;

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use forebay_codec::UnknownFields;
use forebay_reading::quantity::{format_size, parse_size};
use forebay_reading::registry::Registry;
use forebay_reading::setting::{SettingValue, duration_within, within};

use crate::buffer::BufferConfig;
use crate::delivery::DeliveryConfig;
use crate::door::DoorConfig;
use crate::ingest::{IngestConfig, KeysConfig};
use crate::watched::WatchTimes;

pub use auth::{AuthConfig, LimitsConfig, OperatorConfig};
use layers::Layers;
pub use layers::{ConfigFault, Setting, SettingOrigin};
pub use server::ServerConfig;

/// The directory of the embedded node's readings, for a gateway without other nodes.
const EMBEDDED_NODE_DATA: &str = "data/node";

const UNKNOWN_FIELDS: Registry<UnknownFields> = Registry {
    what: "way with unknown fields",
    members: &[("reject", UnknownFields::Reject), ("ignore", UnknownFields::Ignore)],
};

const LOG_FORMATS: Registry<LogFormat> =
    Registry { what: "log format", members: &[("text", LogFormat::Text), ("json", LogFormat::Json)] };

const LOG_LEVELS: Registry<tracing::Level> = Registry {
    what: "log level",
    members: &[
        ("error", tracing::Level::ERROR),
        ("warn", tracing::Level::WARN),
        ("info", tracing::Level::INFO),
        ("debug", tracing::Level::DEBUG),
        ("trace", tracing::Level::TRACE),
    ],
};

/// All settings.
#[derive(Clone, Debug)]
pub struct Config {
    /// The HTTP server.
    pub server: ServerConfig,
    /// The origins and hosts that are let in.
    pub door: DoorConfig,
    /// The keys of clients.
    pub auth: AuthConfig,
    /// The limits that hold for each address.
    pub limits: LimitsConfig,
    /// The HTTP front.
    pub ingest: IngestConfig,
    /// The buffer.
    pub buffer: BufferConfig,
    /// The delivery. Without nodes, the gateway starts the embedded one.
    pub delivery: DeliveryConfig,
    /// The directory of the embedded node's readings.
    pub embedded_node_data: PathBuf,
    /// How often watched files are looked at; no setting.
    pub watch: WatchTimes,
    /// The log.
    pub log: LoggingConfig,
    /// Every effective setting, for people; secrets are hidden.
    pub settings: Vec<Setting>,
    /// Settings that are set and have no effect.
    pub without_effect: Vec<IneffectiveSetting>,
}

/// A setting that is set and has no effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IneffectiveSetting {
    /// The setting.
    pub setting: Setting,
    /// The circumstance that makes it ineffective: "with a buffer of the kind …".
    pub why: String,
}

/// The settings of the log.
#[derive(Clone, Copy, Debug)]
pub struct LoggingConfig {
    /// Form of the lines.
    pub format: LogFormat,
    /// Least severe level that is logged.
    pub level: tracing::Level,
}

/// Form of the log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Config {
    /// Reads the settings from the defaults, `file` and `environment` (names and values). A later layer overrides
    /// those before it.
    ///
    /// # Errors
    ///
    /// All faults, not only the first.
    pub fn read(file: Option<&Path>, environment: &[(String, String)]) -> Result<Config, Vec<ConfigFault>> {
        let mut layers = Layers::read(file, environment);
        let mut without_effect = Vec::new();
        let request_timeout = duration(&mut layers, "server.request_timeout", MILLISECOND..=HOUR);
        let server = server::read(&mut layers);
        let door = door::read(&mut layers);
        let (auth, limits) = (auth::auth(&mut layers), auth::limits(&mut layers));
        if auth.keys.is_none() && server.operator.is_some_and(|operator| operator.keys) {
            layers.fault("server.operator.keys", "needs auth.keys, which is not set".to_owned());
        }
        let ingest = ingest(&mut layers, request_timeout);
        let buffer = buffer::read(&mut layers, request_timeout, ingest.keys.window);
        without_effect.extend(buffer::without_effect(&layers, &buffer));
        let delivery = delivery::read(&mut layers, server.listen);
        without_effect.extend(delivery::without_effect(&layers, &delivery));
        places::check(&mut layers, &buffer, &delivery.dead_letter);
        let config = Config {
            server,
            door,
            auth,
            limits,
            ingest,
            buffer,
            delivery,
            embedded_node_data: PathBuf::from(EMBEDDED_NODE_DATA),
            watch: WatchTimes::default(),
            log: log(&mut layers),
            settings: Vec::new(),
            without_effect,
        };
        layers.refuse_unknown();
        if layers.faults.is_empty() {
            Ok(Config { settings: layers.settings, ..config })
        } else {
            Err(layers.faults)
        }
    }
}

const MILLISECOND: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
const CENTURY: Duration = Duration::from_secs(100 * 366 * 86_400);

fn ingest(layers: &mut Layers, request_timeout: Duration) -> IngestConfig {
    let config = IngestConfig {
        max_body: usize_of(size(layers, "server.max_body", 1..=1 << 30)),
        max_pending: size(layers, "server.max_pending", 1..=1 << 40),
        request_timeout,
        unknown_fields: *choice(layers, "ingest.unknown_fields", &UNKNOWN_FIELDS),
        max_future: duration(layers, "ingest.max_future", Duration::ZERO..=CENTURY),
        max_past: duration(layers, "ingest.max_past", Duration::ZERO..=CENTURY),
        earliest: ingest::earliest(layers),
        keys: KeysConfig {
            window: duration(layers, "ingest.idempotency_window", Duration::ZERO..=30 * 24 * HOUR),
            answers: count(layers, "ingest.idempotency_keys", 1..=100_000_000),
        },
        device_tags: ingest::device_tags(layers),
    };
    if config.max_pending < config.max_body as u64 {
        let body = format_size(config.max_body as u64);
        layers.fault("server.max_pending", format!("must be at least server.max_body, which is {body}"));
    }
    config
}

fn log(layers: &mut Layers) -> LoggingConfig {
    LoggingConfig {
        format: *choice(layers, "log.format", &LOG_FORMATS),
        level: *choice(layers, "log.level", &LOG_LEVELS),
    }
}

fn duration(layers: &mut Layers, key: &str, allowed: RangeInclusive<Duration>) -> Duration {
    layers.get(key, |value| duration_within(value.text()?, &allowed))
}

fn size(layers: &mut Layers, key: &str, allowed: RangeInclusive<u64>) -> u64 {
    layers.get(key, |value| {
        let bytes = parse_size(value.text()?).map_err(|error| error.to_string())?;
        within(bytes, &allowed, |bytes| format_size(*bytes))
    })
}

fn count(layers: &mut Layers, key: &str, allowed: RangeInclusive<i64>) -> usize {
    let number = layers.get(key, |value| within(value.integer()?, &allowed, i64::to_string));
    usize::try_from(number).expect("the allowed ranges have no negative numbers")
}

fn truth(layers: &mut Layers, key: &str) -> bool {
    layers.get(key, |value| Ok(value.truth()?))
}

fn ratio(layers: &mut Layers, key: &str, allowed: RangeInclusive<f64>) -> f64 {
    layers.get(key, |value| within(value.number()?, &allowed, f64::to_string))
}

fn choice<T>(layers: &mut Layers, key: &str, registry: &Registry<T>) -> &'static T {
    layers.get(key, |value| registry.find(value.text()?).map_err(|error| error.to_string()))
}

fn choice_name<T>(layers: &mut Layers, key: &str, registry: &Registry<T>) -> &'static str {
    layers.get(key, |value| {
        let text = value.text()?;
        registry.find(text).map_err(|error| error.to_string())?;
        registry.names().find(|name| *name == text).ok_or_else(|| text.to_owned())
    })
}

/// Reads an optional setting. `config/default.toml` writes the absent value as an empty text.
fn optional<T>(layers: &mut Layers, key: &str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
    layers.get(key, |value| match value.text()? {
        "" => Ok(None),
        text => parse(text).map(Some),
    })
}

fn socket_address(text: &str, example: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("must be an IP address and a port, such as {example}, got `{text}`"))
}

fn directory(value: &SettingValue) -> Result<PathBuf, String> {
    let path = PathBuf::from(value.text()?);
    if path.as_os_str().is_empty() {
        return Err("must be the path of a directory, got nothing".to_owned());
    }
    Ok(path)
}

fn usize_of(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backoff::Backoff;
    use crate::buffer::{Ack, Amount, Fsync};
    use crate::delivery::{BatchConfig, DeadLetterConfig, HealthConfig};

    pub(super) fn read(file: &str, environment: &[(&str, &str)]) -> Result<Config, String> {
        let path = tempfile::Builder::new().suffix(".toml").tempfile().expect("a file");
        std::fs::write(path.path(), file).expect("written");
        let environment: Vec<_> =
            environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Config::read(Some(path.path()), &environment).map_err(|faults| {
            let lines: Vec<_> = faults.iter().map(ToString::to_string).collect();
            lines.join("\n").replace(&path.path().display().to_string(), "FILE")
        })
    }

    #[track_caller]
    pub(super) fn check_faults(file: &str, environment: &[(&str, &str)], expected: &[&str]) {
        let faults = read(file, environment).expect_err("must be refused");
        assert_eq!(faults.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn the_defaults_are_the_promised_ones() {
        let config = read("", &[]).expect("the defaults are good");
        assert_eq!(config.server.listen.to_string(), "127.0.0.1:8080");
        assert_eq!(config.ingest.max_body, 8 << 20);
        assert_eq!(config.ingest.request_timeout, Duration::from_secs(10));
        assert_eq!(config.server.shutdown_timeout, Duration::from_secs(25));
        assert_eq!(config.ingest.unknown_fields, UnknownFields::Reject);
        assert_eq!((config.ingest.max_future, config.ingest.max_past), (HOUR, Duration::ZERO));
        assert_eq!(config.ingest.earliest.to_string(), "2001-01-01T00:00:00Z");
        assert_eq!((config.ingest.keys.window, config.ingest.keys.answers), (HOUR / 6, 500_000));
        assert_eq!(config.buffer.limit, Amount { readings: 10_000_000, bytes: 1 << 30 });
        assert_eq!((config.buffer.kind, config.buffer.ack), ("disk", Ack::Disk));
        assert_eq!((config.buffer.path, config.buffer.fsync), (PathBuf::from("data/buffer"), Fsync::Always));
        assert_eq!(
            config.delivery.batch,
            BatchConfig { max_readings: 1000, max_bytes: 1 << 20, max_age: Duration::from_secs(1) }
        );
        assert!(config.delivery.nodes.is_empty());
        assert_eq!(config.delivery.timeout, Duration::from_secs(10));
        assert_eq!(config.delivery.max_in_flight, 16);
        assert_eq!(
            config.delivery.retry,
            Backoff { initial: Duration::from_millis(100), max: Duration::from_secs(30) }
        );
        let (failure_ratio, max_ejected) = (0.5, 0.9);
        let probe = Duration::from_secs(1);
        assert_eq!(config.delivery.health, HealthConfig { failures: 5, failure_ratio, probe, max_ejected });
        let DeadLetterConfig { path, max_bytes } = config.delivery.dead_letter;
        assert_eq!((path, max_bytes), (PathBuf::from("data/dead-letters"), 1 << 30));
        assert_eq!((config.log.format, config.log.level), (LogFormat::Text, tracing::Level::INFO));
    }

    #[test]
    fn the_environment_overrides_the_file_and_the_file_the_defaults() {
        let config = read(
            "[batch]\nmax_readings = 5\nmax_age = \"2s\"\n[cluster]\nnodes = [\"http://a/x\"]\n[cluster.headers]\nX-Token = \"a\"",
            &[
                ("FOREBAY__BATCH__MAX_READINGS", "7"),
                ("FOREBAY__CLUSTER__NODES", "http://b:1/x, http://c:2/y"),
                ("FOREBAY__CLUSTER__HEADERS__AUTHORIZATION", "Bearer b"),
                ("FOREBAY_CONFIG", "elsewhere"),
                ("HOME", "/"),
            ],
        )
        .expect("good settings");
        assert_eq!(config.delivery.batch.max_readings, 7);
        assert_eq!(config.delivery.batch.max_age, Duration::from_secs(2));
        let nodes: Vec<_> = config.delivery.nodes.iter().map(|node| node.url().as_str()).collect();
        assert_eq!(nodes, ["http://b:1/x", "http://c:2/y"]);
        assert_eq!(config.delivery.headers.fixed["x-token"], "a");
        assert_eq!(config.delivery.headers.fixed["authorization"], "Bearer b");
        let shown: Vec<_> =
            config.settings.iter().filter(|s| s.key.contains("headers")).map(|s| s.value.as_str()).collect();
        assert_eq!(shown, ["(hidden)", "(hidden)"]);
    }

    #[test]
    fn every_fault_has_its_place_its_key_and_the_allowed_values() {
        check_faults(
            "[server]\nlisten = \"nowhere\"\nmax_body = 5\n\n[buffer]\nkind = \"disc\"\nmax_readings = 0\n[batch]\nmax_age = \"1 sec\"\nmaxage = 1\n[cluster]\nnodes = [\"ftp://a\"]\n",
            &[("FOREBAY__BATCH__MAX_READINGS", "many"), ("FOREBAY__BUFER__KIND", "memory")],
            &[
                "FILE:2: server.listen: must be an IP address and a port, such as 127.0.0.1:8080, got `nowhere`",
                "FILE:3: server.max_body: must be a string, got a whole number",
                "FILE:6: buffer.kind: `disc` is no kind of buffer; known: disk, memory",
                "FILE:7: buffer.max_readings: must be from 1 to 1000000000000, got 0",
                "environment variable FOREBAY__BATCH__MAX_READINGS: batch.max_readings: must be a whole number, got `many`",
                "FILE:9: batch.max_age: must be a whole number and a unit (ms, s, m, h, d), such as 500ms or 10s",
                "FILE:12: cluster.nodes: `ftp` is no scheme for a node; allowed: http, https, dns+http and dns+https, such as http://127.0.0.1:9000/v1/batches",
                "FILE:10: batch.maxage: unknown key, did you mean `batch.max_age`?",
                "environment variable FOREBAY__BUFER__KIND: bufer.kind: unknown key, did you mean `buffer.kind`?",
            ],
        );
    }

    #[test]
    fn ratios_are_numbers_with_or_without_a_fraction() {
        let file = "[cluster.health]\nmax_ejected = 0\nfailure_ratio = 0.25\n";
        let config = read(file, &[("FOREBAY__CLUSTER__HEALTH__MAX_EJECTED", "0.5")]).expect("good settings");
        assert_eq!((config.delivery.health.max_ejected, config.delivery.health.failure_ratio), (0.5, 0.25));
        assert_eq!(read(file, &[]).expect("good settings").delivery.health.max_ejected, 0.0);
        check_faults(
            "[cluster.health]\nmax_ejected = 1.5\nfailure_ratio = \"half\"\n",
            &[],
            &[
                "FILE:3: cluster.health.failure_ratio: must be a number, got a string",
                "FILE:2: cluster.health.max_ejected: must be from 0 to 1, got 1.5",
            ],
        );
        check_faults(
            "[cluster.health]\nfailure_ratio = 0\n",
            &[("FOREBAY__CLUSTER__HEALTH__MAX_EJECTED", "nan")],
            &[
                "FILE:2: cluster.health.failure_ratio: must be from 0.01 to 1, got 0",
                "environment variable FOREBAY__CLUSTER__HEALTH__MAX_EJECTED: cluster.health.max_ejected: must be from 0 to 1, got NaN",
            ],
        );
    }

    #[test]
    fn variables_that_lack_an_underscore_are_faults_and_unrelated_ones_are_not() {
        check_faults(
            "",
            &[
                ("FOREBAY_BATCH__MAX_AGE", "5s"),
                ("FOREBAY_SERVER_LISTEN", "0.0.0.0:80"),
                ("FOREBAY_BATCH__MAXAGE", "5s"),
            ],
            &[
                "environment variable FOREBAY_BATCH__MAX_AGE: did you mean `FOREBAY__BATCH__MAX_AGE`?",
                "environment variable FOREBAY_SERVER_LISTEN: did you mean `FOREBAY__SERVER__LISTEN`?",
                "environment variable FOREBAY_BATCH__MAXAGE: a setting begins with `FOREBAY__`, with two underscores",
            ],
        );
        let others = [("FOREBAY_CONFIG", "x"), ("FOREBAY_PORT", "tcp://10.0.0.1:80"), ("FOREBAY_IMAGE", "x")];
        read("", &others).expect("these are not settings");
    }

    #[test]
    fn dns_names_of_nodes_are_checked_like_addresses() {
        let file = "[cluster]\nnodes = [\"http://a/x\", \"dns+http://b:9000/x\"]\nresolve_every = \"2s\"\n";
        let delivery = read(file, &[]).expect("good settings").delivery;
        let shown: Vec<_> = delivery.nodes.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["http://a:80/x", "dns+http://b:9000/x"]);
        assert_eq!((delivery.fixed_nodes(), delivery.resolve_every), (1, Duration::from_secs(2)));
        let nodes = |nodes: &str| format!("[cluster]\nnodes = [{nodes}]\n");
        check_faults(
            &nodes("\"dns+ftp://a\""),
            &[],
            &[
                "FILE:2: cluster.nodes: `ftp` is no scheme for a node; allowed: http, https, dns+http and dns+https, such as dns+http://nodes.example:9000/v1/batches",
            ],
        );
        check_faults(
            &nodes("\"http://a/x\", \"dns+http://a/x\""),
            &[],
            &["FILE:2: cluster.nodes: two nodes are `http://a:80/x`; they must differ in host, port or path"],
        );
        check_faults(
            "[cluster]\nresolve_every = \"0s\"\n",
            &[],
            &["FILE:2: cluster.resolve_every: must be from 1ms to 1d, got 0s"],
        );
    }

    #[test]
    fn nodes_that_would_share_a_name_are_a_fault() {
        check_faults(
            "[cluster]\nnodes = [\"http://a/x?shard=1\", \"http://a/x?shard=2\"]\n",
            &[],
            &["FILE:2: cluster.nodes: two nodes are `http://a:80/x`; they must differ in host, port or path"],
        );
        read("[cluster]\nnodes = [\"http://a/x\", \"http://a/y\"]\n", &[]).expect("two nodes");
    }

    #[test]
    fn settings_that_contradict_each_other_are_faults() {
        check_faults(
            "[buffer]\nkind = \"memory\"\nack = \"disk\"\n[cluster.retry]\ninitial = \"1m\"\n",
            &[],
            &[
                "FILE:3: buffer.ack: `disk` cannot be given by a buffer of the kind `memory`; allowed: memory, delivered",
                "default: cluster.retry.max: must be at least cluster.retry.initial, which is 1m",
            ],
        );
    }

    #[test]
    fn batches_that_the_embedded_node_would_refuse_are_a_fault() {
        let larger = "[batch]\nmax_bytes = \"65MiB\"\n";
        check_faults(
            larger,
            &[],
            &[
                "FILE:2: batch.max_bytes: must be at most 64MiB, which is what the gateway's own node takes, unless cluster.nodes names others",
            ],
        );
        read("[batch]\nmax_bytes = \"64MiB\"\n", &[]).expect("the node takes as much");
        read(larger, &[("FOREBAY__CLUSTER__NODES", "http://a/x")]).expect("another node may take more");
        // A node with a fault still means that the embedded node is not used.
        let faults = read(larger, &[("FOREBAY__CLUSTER__NODES", "ftp://a")]).expect_err("no such node");
        assert!(!faults.contains("batch.max_bytes"), "{faults}");
    }

    #[test]
    fn a_format_that_the_embedded_node_does_not_read_is_a_fault() {
        for format in forebay_stores::STORES.names().filter(|name| *name != "ndjson") {
            let file = format!("[cluster]\nformat = \"{format}\"\n");
            let expected = format!(
                "FILE:2: cluster.format: must be ndjson, which is what the gateway's own node takes, unless cluster.nodes names others, got `{format}`"
            );
            check_faults(&file, &[], &[&expected]);
            read(&file, &[("FOREBAY__CLUSTER__NODES", "http://a/x")]).expect("another node may take it");
            let faults = read(&file, &[("FOREBAY__CLUSTER__NODES", "ftp://a")]).expect_err("no such node");
            assert!(!faults.contains("cluster.format"), "{faults}");
        }
    }

    #[test]
    fn a_file_that_is_missing_unreadable_or_not_toml_is_a_fault() {
        let faults = read("[server\n", &[]).expect_err("no TOML");
        assert!(faults.starts_with("FILE:1: "), "{faults}");
        let faults = Config::read(Some(Path::new("/nonexistent/forebay.toml")), &[]).expect_err("no file");
        assert_eq!(
            faults[0].to_string(),
            "/nonexistent/forebay.toml: cannot be read: No such file or directory (os error 2)"
        );
        let faults = Config::read(Some(Path::new("/dev/zero")), &[]).expect_err("no settings");
        assert_eq!(
            faults[0].to_string(),
            "/dev/zero: cannot be read: it is larger than 4MiB, the most that settings may take"
        );
        check_faults(
            "[server.listen]\nx = 1\n",
            &[],
            &["FILE:2: server.listen.x: unknown key, did you mean `server.listen`?"],
        );
    }

    #[test]
    fn misspelt_settings_are_faults_also_where_the_right_ones_had_no_effect() {
        check_faults(
            "[dead_letter]\nptah = \"x\"\n[cluster.shard]\nfailovr = \"wait\"\n[buffer.path]\nx = 1\n",
            &[("FOREBAY_BUFFER__FSYNC", "200ms")],
            &[
                "environment variable FOREBAY_BUFFER__FSYNC: did you mean `FOREBAY__BUFFER__FSYNC`?",
                "FILE:6: buffer.path.x: unknown key, did you mean `buffer.path`?",
                "FILE:4: cluster.shard.failovr: unknown key, did you mean `cluster.shard.failover`?",
                "FILE:2: dead_letter.ptah: unknown key, did you mean `dead_letter.path`?",
            ],
        );
    }

    #[test]
    fn ineffective_settings_are_listed_with_the_reason() {
        let check = |file: &str, environment: &[(&str, &str)], expected: &[(&str, &str)]| {
            let config = read(file, environment).expect("known keys");
            let named = config.without_effect.iter();
            let named: Vec<_> = named.map(|named| (named.setting.key.as_str(), named.why.as_str())).collect();
            assert_eq!(named, expected, "{file}");
        };
        let memory = "with a buffer of the kind `memory`";
        let other_format = "with another format than `clickhouse`";
        let path = ("FOREBAY__BUFFER__PATH", "x");
        check(
            "[cluster.clickhouse]\ntable = \"x\"\n",
            &[path],
            &[("cluster.clickhouse.table", other_format)],
        );
        let shard = ("cluster.shard.failover", "with another route than `shard`");
        check("[cluster.shard]\nfailover = \"wait\"\n", &[], &[shard]);
        check("[cluster]\nroute = \"shard\"\n[cluster.shard]\nfailover = \"wait\"\n", &[], &[]);
        check("[buffer]\nkind = \"memory\"\n", &[], &[]);
        check("[buffer]\nkind = \"memory\"\n", &[path], &[("buffer.path", memory)]);
        check("[buffer]\nkind = \"memory\"\nfsync = \"1s\"\n", &[], &[("buffer.fsync", memory)]);
    }

    #[test]
    fn the_acknowledgement_has_the_default_of_the_buffer_kind_unless_it_is_set() {
        let check = |file: &str, environment: &[(&str, &str)], expected: Ack, origin: &str| {
            let config = read(file, environment).expect("good settings");
            assert_eq!(config.buffer.ack, expected, "{file}");
            let shown = config.settings.iter().find(|setting| setting.key == "buffer.ack").expect("shown");
            let place = shown.origin.to_string();
            assert_eq!((shown.value.as_str(), place.ends_with(origin)), (expected.name(), true), "{place}");
        };
        check("", &[], Ack::Disk, "default");
        check("[buffer]\nkind = \"memory\"\n", &[], Ack::Memory, "default");
        check("", &[("FOREBAY__BUFFER__KIND", "memory")], Ack::Memory, "default");
        check("[buffer]\nkind = \"memory\"\nack = \"delivered\"\n", &[], Ack::Delivered, ":3");
        check("[buffer]\nack = \"memory\"\n", &[], Ack::Memory, ":2");
        check_faults(
            "[buffer]\nkind = \"memory\"\n",
            &[("FOREBAY__BUFFER__ACK", "disk")],
            &[
                "environment variable FOREBAY__BUFFER__ACK: buffer.ack: `disk` cannot be given by a buffer of the kind `memory`; allowed: memory, delivered",
            ],
        );
    }

    #[test]
    fn settings_of_a_single_buffer_kind_are_checked_with_every_kind() {
        let made = "[ingest]\nidempotency_window = \"1h\"\n[buffer]\npath = \"x\"\nfsync = \"200ms\"\n";
        for kind in ["disk", "memory"] {
            let config = read(made, &[("FOREBAY__BUFFER__KIND", kind)]).expect("good settings");
            assert_eq!((config.buffer.path, config.buffer.memos_kept), (PathBuf::from("x"), HOUR));
            assert_eq!(config.buffer.fsync, Fsync::Every(Duration::from_millis(200)));
        }
        check_faults(
            "[buffer]\npath = \"\"\nfsync = \"never\"\n[ingest]\nidempotency_window = 10\n",
            &[],
            &[
                "FILE:5: ingest.idempotency_window: must be a string, got a whole number",
                "FILE:2: buffer.path: must be the path of a directory, got nothing",
                "FILE:3: buffer.fsync: must be `always`, or an interval such as 200ms, got `never`",
            ],
        );
        check_faults(
            "[buffer]\nfsync = \"0s\"\n",
            &[],
            &["FILE:2: buffer.fsync: must be from 1ms to 1h, got 0s"],
        );
    }
}
