//! The settings of who may do what: keys, limits by address, the proxies in front, the operator's own listener.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::layers::{Layers, list};
use super::{DAY, count, duration, optional, socket_address, truth};
use crate::auth::{Rate, parse_rate};

/// The settings of keys.
#[derive(Clone, Debug)]
pub struct AuthConfig {
    /// The file of the keys; `None`: anyone may write.
    pub keys: Option<PathBuf>,
    /// Readings that are older than this draw from the quota for catching up.
    pub live_within: Duration,
}

/// The limits that hold for each address.
#[derive(Clone, Copy, Debug)]
pub struct LimitsConfig {
    /// Connections open at once; 0: no limit.
    pub connections: usize,
    /// Answers of 401; `None`: no limit.
    pub unauthorized: Option<Rate>,
}

/// The listener for those who run the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OperatorConfig {
    /// Address and port.
    pub listen: SocketAddr,
    /// Whether it asks for a key with the role `read`.
    pub keys: bool,
}

pub(super) fn auth(layers: &mut Layers) -> AuthConfig {
    AuthConfig {
        keys: path(layers, "auth.keys"),
        live_within: duration(layers, "auth.live_within", Duration::ZERO..=DAY),
    }
}

pub(super) fn limits(layers: &mut Layers) -> LimitsConfig {
    LimitsConfig {
        connections: count(layers, "limits.connections", 0..=1_000_000),
        unauthorized: optional(layers, "limits.unauthorized", parse_rate),
    }
}

/// Reads `server.operator`; without an address there is no such listener.
pub(super) fn operator(layers: &mut Layers, listen: SocketAddr) -> Option<OperatorConfig> {
    let address = optional(layers, "server.operator.listen", |text| socket_address(text, "127.0.0.1:9090"));
    let keys = truth(layers, "server.operator.keys");
    let address: SocketAddr = address?;
    if address == listen && address.port() != 0 {
        let problem = format!("must be another address than server.listen, which is {listen}");
        layers.fault("server.operator.listen", problem);
    }
    Some(OperatorConfig { listen: address, keys })
}

/// Reads `server.trusted_proxies`: addresses, or networks in CIDR notation (RFC 4632).
pub(super) fn trusted_proxies(layers: &mut Layers) -> Vec<IpNet> {
    let network = |text: &String| {
        let network = text.parse::<IpNet>().ok();
        network.or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from)).ok_or_else(|| {
            format!("must be IP addresses or networks, such as 10.0.0.7 or 10.0.0.0/8, got `{text}`")
        })
    };
    layers.get("server.trusted_proxies", |raw| list(raw)?.iter().map(network).collect())
}

/// Reads an optional path.
pub(super) fn path(layers: &mut Layers, key: &str) -> Option<PathBuf> {
    optional(layers, key, |text| Ok(PathBuf::from(text)))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{check_faults, read};
    use super::*;

    #[test]
    fn all_of_it_is_off_until_it_is_set() {
        let config = read("", &[]).expect("the defaults are good");
        assert_eq!((config.auth.keys, config.auth.live_within), (None, Duration::from_secs(300)));
        assert_eq!((config.limits.connections, config.limits.unauthorized), (0, None));
        assert_eq!(config.server.operator, None);
        assert_eq!(config.server.drain_delay, Duration::ZERO);
        assert!(config.server.trusted_proxies.is_empty());
    }

    #[test]
    fn the_settings_of_the_front_door_are_read() {
        let file = "[auth]\nkeys = \"keys.toml\"\n[limits]\nconnections = 256\nunauthorized = \"10/s\"\n\
                    [server]\ntrusted_proxies = [\"10.0.0.7\", \"fd00::/8\"]\ndrain_delay = \"5s\"\n\
                    [server.operator]\nlisten = \"127.0.0.1:9090\"\nkeys = true\n";
        let config = read(file, &[]).expect("good settings");
        assert_eq!(config.auth.keys, Some(PathBuf::from("keys.toml")));
        let ten = Rate { count: 10, per: Duration::from_secs(1) };
        assert_eq!((config.limits.connections, config.limits.unauthorized), (256, Some(ten)));
        let operator = OperatorConfig { listen: "127.0.0.1:9090".parse().expect("an address"), keys: true };
        assert_eq!(config.server.operator, Some(operator));
        let proxies: Vec<_> = config.server.trusted_proxies.iter().map(ToString::to_string).collect();
        assert_eq!(proxies, ["10.0.0.7/32", "fd00::/8"]);
        assert_eq!(config.server.drain_delay, Duration::from_secs(5));
    }

    #[test]
    fn faults_say_what_is_allowed() {
        check_faults(
            "[limits]\nunauthorized = \"10\"\n[server]\ntrusted_proxies = [\"proxy\"]\n\
             [server.operator]\nlisten = \"127.0.0.1:8080\"\nkeys = true\n",
            &[],
            &[
                "FILE:4: server.trusted_proxies: must be IP addresses or networks, such as 10.0.0.7 or 10.0.0.0/8, got `proxy`",
                "FILE:6: server.operator.listen: must be another address than server.listen, which is 127.0.0.1:8080",
                "FILE:2: limits.unauthorized: must be a whole number from 1 on and a unit (s, m, h, d), such as 200/s, got `10`",
                "FILE:7: server.operator.keys: needs auth.keys, which is not set",
            ],
        );
    }
}
