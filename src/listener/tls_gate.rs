//! TLS in front of connections: the certificate in force, and how handshakes end.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use prometheus::{IntCounter, IntCounterVec};
use tokio::io::{AsyncRead, AsyncWrite};
use tracing::debug;

use crate::tls::failure::HandshakeFailure;
use crate::tls::handshake::{self, TlsConnection};
use crate::tls::server::ServerTls;

/// Longest time for a handshake.
pub const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

/// Shakes hands with every client before its first request.
#[derive(Clone, Debug)]
pub struct TlsGate {
    /// What new connections are accepted with; it is replaced when its files change.
    current: Arc<ArcSwap<ServerTls>>,
    within: Duration,
    /// Handshakes that failed, one counter for each of [`HandshakeFailure::ALL`].
    failures: Arc<[IntCounter]>,
}

impl TlsGate {
    /// A gate that uses what `current` holds when a client comes, and counts failures by their label `reason`.
    pub fn new(current: Arc<ArcSwap<ServerTls>>, failures: &IntCounterVec) -> TlsGate {
        let counter = |failure: &HandshakeFailure| failures.with_label_values(&[failure.name()]);
        TlsGate {
            current,
            within: HANDSHAKE_MAX,
            failures: HandshakeFailure::ALL.iter().map(counter).collect(),
        }
    }

    /// The same with another time for a handshake.
    #[must_use]
    pub fn within(self, within: Duration) -> TlsGate {
        TlsGate { within, ..self }
    }

    /// Completes a handshake; `None` if it failed, which is counted.
    pub(super) async fn accept<S>(&self, stream: S) -> Option<TlsConnection<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let tls = self.current.load_full();
        match handshake::accept(&tls, stream, self.within).await {
            Ok(connection) => Some(connection),
            Err(error) => {
                let place = HandshakeFailure::ALL.iter().position(|failure| *failure == error.reason);
                place.and_then(|place| self.failures.get(place)).iter().for_each(|counter| counter.inc());
                debug!(%error, "a handshake failed");
                None
            }
        }
    }
}
