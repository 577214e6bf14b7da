//! The servers of a gateway: one for each of its listeners, each with its door, its gate and its routes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::surface::Surface;
use super::tls_files::CurrentTls;
use crate::config::Config;
use crate::door::Door;
use crate::ingest::Entrance;
use crate::listener::{self, ConnectionGate, ConnectionLimits, Listener, TlsGate};
use crate::metrics::Metrics;
use crate::status;

/// Longest time for the last answers at the end of a stop.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// The operator's listener, bound.
#[derive(Debug)]
pub(super) struct OperatorListener {
    pub(super) listener: TcpListener,
    pub(super) address: SocketAddr,
    /// Whether it asks for a key with the role `read`.
    pub(super) keys: bool,
}

/// The parts that the servers share.
#[derive(Debug)]
pub(super) struct Servers<'a> {
    pub(super) config: &'a Config,
    pub(super) surface: &'a Surface,
    pub(super) metrics: &'a Arc<Metrics>,
    /// Once cancelled, they end.
    pub(super) stop: &'a CancellationToken,
}

impl Servers<'_> {
    /// Starts the server of `server.listen`, over TLS if there is a certificate; it serves `routes`.
    pub(super) fn start<L: Listener>(
        &self,
        (listener, address): (L, SocketAddr),
        routes: Router,
        tls: Option<&CurrentTls>,
    ) -> JoinHandle<()> {
        let door = Door::new(self.config.door.clone(), address);
        let door = if tls.is_some() { door.with_tls() } else { door };
        let front = Arc::clone(&self.surface.front);
        let entrance = Entrance::new(door, front, routes, status::PATHS, self.metrics);
        let tls = tls.map(|tls| TlsGate::new(Arc::clone(tls), &self.metrics.tls_handshake_failures));
        let limits = ConnectionLimits {
            connections_max: self.config.server.max_connections,
            head_timeout: self.config.server.idle_timeout,
        };
        let (gate, stop) = (self.gate().with_tls(tls), self.stop.clone());
        tokio::spawn(listener::serve(listener, entrance, limits, gate, stop, LAST_ANSWERS))
    }

    /// Starts the server of the operator's listener, which is always plain.
    pub(super) fn start_operators(&self, operator: OperatorListener) -> JoinHandle<()> {
        let routes = self.surface.for_operators(operator.keys);
        self.start((operator.listener, operator.address), routes, None)
    }

    fn gate(&self) -> ConnectionGate {
        let refused = self.metrics.connections_refused.with_label_values(&["address"]);
        let exempt = self.config.server.trusted_proxies.clone();
        ConnectionGate::new(self.config.limits.connections, exempt, refused)
            .shown_by(self.metrics.connections.clone())
    }
}
