//! TLS 1.3 between clients and servers: the servers' certificate, and clients that trust it.

use std::cell::Cell;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::version::TLS13;
use rustls::{ClientConfig, HandshakeKind, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// File of the certificate in a server's directory.
pub(crate) const CERTIFICATE: &str = "chain.pem";
/// File of its key.
pub(crate) const KEY: &str = "key.pem";
/// The name in it.
pub(crate) const HOST: &str = "localhost";

/// The certificate of a server, with a key on the curve P-256.
pub(crate) struct Certificate {
    authority: CertificateDer<'static>,
}

/// The kinds of handshake at the beginning of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handshake {
    /// Certificates and a new session.
    Full,
    /// The session of the connection before, by a ticket.
    Resumed,
}

/// A client that can connect again and again.
pub(crate) struct TlsClient {
    connector: TlsConnector,
    handshake: Option<Handshake>,
    connected: Cell<u64>,
}

impl Certificate {
    /// Makes one and writes it with its key into `directory`.
    pub(crate) fn write(directory: &Path) -> anyhow::Result<Certificate> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "authority of the benchmark");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new([HOST.to_owned()])?.signed_by(&key, &authority)?;
        fs::write(directory.join(CERTIFICATE), certificate.pem()).context("writing the certificate")?;
        fs::write(directory.join(KEY), key.serialize_pem()).context("writing its key")?;
        Ok(Certificate { authority: authority.der().clone() })
    }

    /// A client of the server; `handshake` is what each of its connections must begin with, if that matters.
    ///
    /// All servers get the same work: the client offers X25519 alone, which every library has.
    pub(crate) fn client(&self, handshake: Option<Handshake>) -> anyhow::Result<TlsClient> {
        let kx_groups = vec![aws_lc_rs::kx_group::X25519];
        let provider = CryptoProvider { kx_groups, ..aws_lc_rs::default_provider() };
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.clone())?;
        let builder = ClientConfig::builder_with_provider(Arc::new(provider));
        let builder = builder.with_protocol_versions(&[&TLS13])?.with_root_certificates(roots);
        let mut config = builder.with_no_client_auth();
        config.resumption = match handshake {
            Some(Handshake::Resumed) => Resumption::default(),
            Some(Handshake::Full) | None => Resumption::disabled(),
        };
        let connector = TlsConnector::from(Arc::new(config));
        Ok(TlsClient { connector, handshake, connected: Cell::new(0) })
    }
}

impl TlsClient {
    /// Shakes hands.
    ///
    /// # Errors
    ///
    /// The handshake failed, or was not of the wanted kind. The first one cannot be a resumed one.
    pub(crate) async fn connect(&self, stream: TcpStream) -> anyhow::Result<TlsStream<TcpStream>> {
        let stream =
            self.connector.connect(ServerName::try_from(HOST)?, stream).await.context("a handshake")?;
        let kind = stream.get_ref().1.handshake_kind();
        let earlier = self.connected.replace(self.connected.get() + 1);
        let expected = match self.handshake {
            Some(Handshake::Resumed) if earlier > 0 => HandshakeKind::Resumed,
            Some(Handshake::Resumed | Handshake::Full) | None => HandshakeKind::Full,
        };
        ensure!(kind == Some(expected), "handshake {earlier} of a client was {kind:?}, not {expected:?}");
        Ok(stream)
    }
}
