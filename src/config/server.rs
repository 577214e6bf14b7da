//! The settings of the HTTP server.

use std::net::SocketAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::auth::{self, OperatorConfig};
use super::layers::Layers;
use super::{HOUR, MILLISECOND, count, duration, socket_address, tls};
use crate::tls::server::ServerTlsConfig;

/// The settings of the HTTP server.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Address and port.
    pub listen: SocketAddr,
    /// Connections open at once.
    pub max_connections: usize,
    /// Longest time for the head of a request, and between two requests.
    pub idle_timeout: Duration,
    /// How long readings are still taken after `/readyz` has turned 503.
    pub drain_delay: Duration,
    /// Longest time that a stop takes to deliver buffered readings.
    pub shutdown_timeout: Duration,
    /// The networks of proxies that are believed when they say whose request they pass on.
    pub trusted_proxies: Vec<IpNet>,
    /// TLS on the listener; `None`: plain HTTP.
    pub tls: Option<ServerTlsConfig>,
    /// The listener for those who run the gateway.
    pub operator: Option<OperatorConfig>,
}

pub(super) fn read(layers: &mut Layers) -> ServerConfig {
    let listen = layers.get("server.listen", |value| socket_address(value.text()?, "127.0.0.1:8080"));
    ServerConfig {
        listen,
        max_connections: count(layers, "server.max_connections", 1..=1_000_000),
        idle_timeout: duration(layers, "server.idle_timeout", MILLISECOND..=HOUR),
        drain_delay: duration(layers, "server.drain_delay", Duration::ZERO..=HOUR),
        shutdown_timeout: duration(layers, "server.shutdown_timeout", Duration::ZERO..=HOUR),
        trusted_proxies: auth::trusted_proxies(layers),
        tls: tls::server(layers),
        operator: auth::operator(layers, listen),
    }
}
