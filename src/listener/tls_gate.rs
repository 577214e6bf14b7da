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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use prometheus::Opts;
    use tokio::io::{AsyncWriteExt as _, duplex};
    use tokio::time::{Instant, sleep};

    use super::*;
    use crate::tls::server::ServerTlsConfig;
    use crate::tls::trust::ClientCertificates;

    fn failures() -> IntCounterVec {
        IntCounterVec::new(Opts::new("failures", "of a test"), &["reason"]).expect("a good name")
    }

    fn gate(failures: &IntCounterVec) -> TlsGate {
        let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a pair");
        let (certificate, key) = (own.cert.pem(), own.signing_key.serialize_pem());
        let config = ServerTlsConfig {
            certificate: "chain.pem".into(),
            key: "key.pem".into(),
            client_ca: None,
            crl: None,
            client_certificates: ClientCertificates::Optional,
        };
        let content = |path: &Path| if path == config.key { key.as_bytes() } else { certificate.as_bytes() };
        let tls = ServerTls::new(&config, content).expect("a pair");
        TlsGate::new(Arc::new(ArcSwap::from_pointee(tls)), failures)
    }

    #[tokio::test(start_paused = true)]
    async fn a_handshake_that_trickles_or_never_ends_is_over_after_ten_seconds() {
        for trickles in [false, true] {
            let failures = failures();
            let gate = gate(&failures);
            let (near, mut far) = duplex(1 << 10);
            let client = async {
                // The beginning of a record of 512 bytes, and then perhaps a byte of it a second.
                far.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00]).await.expect("room");
                for _ in 0..60 {
                    sleep(Duration::from_secs(1)).await;
                    if trickles {
                        far.write_all(&[0]).await.expect("room");
                    }
                }
            };
            let begun = Instant::now();
            tokio::select! {
                accepted = gate.accept(near) => assert!(accepted.is_none()),
                () = client => {}
            }
            assert_eq!(begun.elapsed().as_secs(), 10, "{trickles}");
            assert_eq!(failures.with_label_values(&["timeout"]).get(), 1, "{trickles}");
        }
    }
}
