//! A handshake with a client, in bounded time, and the reason why one failed.

use std::io;
use std::time::Duration;

use forebay_reading::clock::wall_time;
use rustls::HandshakeKind;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use super::client_certificate::ClientCertificate;
use super::failure::HandshakeFailure;
use super::first_bytes::FirstBytes;
use super::server::ServerTls;

/// A connection with a client after its handshake.
#[derive(Debug)]
pub struct TlsConnection<S> {
    /// Plain bytes in and out.
    pub stream: TlsStream<FirstBytes<S>>,
    /// The client's certificate, which is trusted, if it has shown one other than the
    /// gateway's own. Its end is to be looked at with every request.
    pub client: Option<ClientCertificate>,
    /// Cancelled once other clients are trusted: the connection has to end after the request under way.
    pub trust_replaced: CancellationToken,
}

/// A failed handshake; the reason is for metrics, the detail for the log.
#[derive(Debug, Error)]
#[error("{reason}{}", detail.as_ref().map(|detail| format!(" ({detail})")).unwrap_or_default())]
pub struct HandshakeError {
    /// One of a few.
    pub reason: HandshakeFailure,
    /// The words of rustls or of the system.
    pub detail: Option<io::Error>,
}

impl From<HandshakeFailure> for HandshakeError {
    fn from(reason: HandshakeFailure) -> HandshakeError {
        HandshakeError { reason, detail: None }
    }
}

/// Shakes hands with a client, within a time. It belongs into the connection's own task.
///
/// A client that resumes a session is verified as if it came for the first time, which rustls does not do: its
/// certificate may have expired since, or been revoked.
///
/// Dropped half-way, it drops the connection.
///
/// # Errors
///
/// The handshake failed, and the stream is closed. A client that speaks TLS got an alert.
pub async fn accept<S>(
    tls: &ServerTls,
    stream: S,
    within: Duration,
) -> Result<TlsConnection<S>, HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let handshake = TlsAcceptor::from(tls.config()).accept(FirstBytes::new(stream)).into_fallible();
    let stream = match timeout(within, handshake).await {
        Ok(Ok(stream)) => stream,
        Ok(Err((error, stream))) => {
            let reason = HandshakeFailure::of(&error, stream.first());
            return Err(HandshakeError { reason, detail: Some(error) });
        }
        Err(_) => return Err(HandshakeFailure::Timeout.into()),
    };
    let (_, connection) = stream.get_ref();
    let chain = connection.peer_certificates().unwrap_or_default();
    if connection.handshake_kind() == Some(HandshakeKind::Resumed) {
        tls.verify_client(chain, wall_time())?;
    }
    let leaf = chain.first().filter(|leaf| !tls.is_own(leaf));
    let client = leaf.map(ClientCertificate::from_der).transpose();
    let client = client.map_err(|error| HandshakeError {
        reason: HandshakeFailure::Certificate,
        detail: Some(io::Error::other(error)),
    })?;
    Ok(TlsConnection { stream, client, trust_replaced: tls.trust_replaced().clone() })
}
