//! The settings of rustls for a listener, built whole from the contents of its files, and built anew when these change.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::server::danger::ClientCertVerifier;
use rustls::server::{
    NoClientAuth, ProducesTickets, ServerConfig, ServerSessionMemoryCache, StoresServerSessions,
};
use rustls::sign::SingleCertAndKey;
use rustls_pki_types::{CertificateDer, UnixTime};
use thiserror::Error;
use tokio_util::sync::CancellationToken;

use super::failure::HandshakeFailure;
use super::identity::{IdentityError, IdentityFault, Leaf, Side, TlsIdentity};
use super::pem::PemFile;
use super::pinned::OwnLeafVerifier;
use super::trust::{ClientCertificates, ClientTrust, ClientTrustError, ListFault};
use super::{ALPN, provider};

/// Most sessions that are kept for clients of TLS 1.2 that know no tickets. One has a few thousand bytes at most, with the
/// client's certificates.
pub const SESSIONS_MAX: usize = 1024;

/// Which files a listener's TLS is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTlsConfig {
    /// The certificate chain, the own certificate first.
    pub certificate: PathBuf,
    /// The key of the first certificate.
    pub key: PathBuf,
    /// The authorities of client certificates. Without it, clients are not asked for one.
    pub client_ca: Option<PathBuf>,
    /// Which client certificates are revoked; needs `client_ca`.
    pub crl: Option<PathBuf>,
    /// Whether clients must show a certificate; needs `client_ca`.
    pub client_certificates: ClientCertificates,
}

impl ServerTlsConfig {
    /// All files, each of which has to be read and watched.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        let needed = [&self.certificate, &self.key].into_iter();
        needed.chain(&self.client_ca).chain(&self.crl).map(PathBuf::as_path)
    }
}

/// The TLS settings with which a listener accepts connections.
#[derive(Clone, Debug)]
pub struct ServerTls {
    config: Arc<ServerConfig>,
    identity: TlsIdentity,
    trust: Arc<Trust>,
}

/// The parts that are shared for as long as the same clients are trusted.
#[derive(Debug)]
struct Trust {
    clients: Option<ClientTrust>,
    tickets: Arc<dyn ProducesTickets>,
    sessions: Arc<dyn StoresServerSessions>,
    /// Cancelled once other clients are trusted.
    replaced: CancellationToken,
}

/// Why the files make no [`ServerTls`].
#[derive(Debug, Error)]
pub enum ServerTlsError {
    /// The certificate or its key.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The authorities of clients, or the revocation lists.
    #[error(transparent)]
    ClientTrust(#[from] ClientTrustError),
    /// A setting that does nothing without `client_ca`.
    #[error("`{setting}` needs `client_ca`, the authorities of client certificates")]
    NeedsClientCa {
        /// Which one.
        setting: &'static str,
    },
    /// The new certificate is not valid, and the old one is.
    #[error("{fault}; the one in force goes on")]
    NoLongerValid {
        /// The fault of the new one.
        fault: IdentityFault,
    },
    /// The system has no random numbers.
    #[error("no key for session tickets could be made: {reason}")]
    Tickets {
        /// The words of the cryptography library.
        reason: String,
    },
}

impl ServerTlsError {
    /// Whether someone may just be writing one of the files, so that it is worth another look soon.
    pub fn is_half_written(&self) -> bool {
        match self {
            ServerTlsError::Identity(error) => error.is_half_written(),
            ServerTlsError::ClientTrust(error) => error.is_half_written(),
            ServerTlsError::NeedsClientCa { .. }
            | ServerTlsError::NoLongerValid { .. }
            | ServerTlsError::Tickets { .. } => false,
        }
    }
}

/// A fault of files that can be used nevertheless.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ServerTlsFault {
    /// With the certificate.
    #[error(transparent)]
    Identity(#[from] IdentityFault),
    /// With a revocation list.
    #[error(transparent)]
    List(#[from] ListFault),
}

impl ServerTls {
    /// Takes the files; `contents` has those of each of [`ServerTlsConfig::paths`].
    ///
    /// An expired certificate is taken, and told by [`ServerTls::faults`].
    ///
    /// # Errors
    ///
    /// A file cannot be used, or would lock clients out.
    pub fn new<'a>(
        config: &'a ServerTlsConfig,
        contents: impl Fn(&Path) -> &'a [u8],
    ) -> Result<ServerTls, ServerTlsError> {
        let (identity, clients) = (identity(config, &contents)?, clients(config, &contents)?);
        Ok(ServerTls::of(identity, Arc::new(Trust::new(clients)?)))
    }

    /// Takes the certificate and the key again, after a change of their files. Who is trusted stays as it is: sessions and
    /// connections go on, under the new certificate from their next handshake on.
    ///
    /// # Errors
    ///
    /// A file cannot be used, or a valid certificate would be replaced by one that is not valid at `now`.
    pub fn with_identity<'a>(
        &self,
        config: &'a ServerTlsConfig,
        contents: impl Fn(&Path) -> &'a [u8],
        now: SystemTime,
    ) -> Result<ServerTls, ServerTlsError> {
        let identity = identity(config, &contents)?;
        let is_worse = self.leaf().validity.contains(now) && !identity.leaf().validity.contains(now);
        if let (true, Some(fault)) = (is_worse, identity.faults(now).into_iter().next()) {
            return Err(ServerTlsError::NoLongerValid { fault });
        }
        Ok(ServerTls::of(identity, Arc::clone(&self.trust)))
    }

    /// Takes the authorities and the revocation lists again, after a change of their files. The certificate stays as it is.
    ///
    /// Where the same clients are trusted as before (the same authorities, revocation lists and need of a certificate),
    /// sessions and connections go on. Otherwise no session is resumed. The old value is as it was: after putting the new
    /// one in its place, the caller calls [`ServerTls::supersede`].
    ///
    /// # Errors
    ///
    /// A file cannot be used, or would lock clients out.
    pub fn with_clients<'a>(
        &self,
        config: &'a ServerTlsConfig,
        contents: impl Fn(&Path) -> &'a [u8],
    ) -> Result<ServerTls, ServerTlsError> {
        let clients = clients(config, &contents)?;
        let trust = match clients == self.trust.clients {
            true => Arc::clone(&self.trust),
            false => Arc::new(Trust::new(clients)?),
        };
        Ok(ServerTls::of(self.identity.clone(), trust))
    }

    /// Ends the connections of `old` after the request under way, if it trusted other clients. To be called once new
    /// connections are accepted with `self`.
    pub fn supersede(&self, old: &ServerTls) {
        if !Arc::ptr_eq(&self.trust, &old.trust) {
            old.trust.replaced.cancel();
        }
    }

    /// Cancelled once other clients are trusted: every connection has to end after the request under way.
    pub fn trust_replaced(&self) -> &CancellationToken {
        &self.trust.replaced
    }

    /// The gateway's certificate: its fingerprint, its end, its names.
    pub fn leaf(&self) -> &Leaf {
        self.identity.leaf()
    }

    /// The gateway's certificate and key.
    pub fn identity(&self) -> &TlsIdentity {
        &self.identity
    }

    /// By when the first revocation list should be replaced, if there is one.
    pub fn next_update(&self) -> Option<SystemTime> {
        self.trust.clients.as_ref()?.next_update()
    }

    /// The faults at `now` of files that are used nevertheless.
    pub fn faults(&self, now: SystemTime) -> Vec<ServerTlsFault> {
        let lists = self.trust.clients.iter().flat_map(|clients| clients.faults(now));
        let identity = self.identity.faults(now).into_iter().map(ServerTlsFault::from);
        identity.chain(lists.map(ServerTlsFault::from)).collect()
    }

    /// Verifies a client's certificates once more: after a resumed handshake, in which rustls does not, or for a
    /// connection that has lasted. `chain` is as the client sent it, empty if it showed none. It takes some 100 µs.
    ///
    /// # Errors
    ///
    /// The client would not be let in by a full handshake at `now`.
    pub fn verify_client(
        &self,
        chain: &[CertificateDer<'_>],
        now: SystemTime,
    ) -> Result<(), HandshakeFailure> {
        if chain.first().is_some_and(|leaf| self.is_own(leaf)) {
            return Ok(());
        }
        let (Some(clients), Some((leaf, issuers))) = (&self.trust.clients, chain.split_first()) else {
            return match self.trust.required() {
                ClientCertificates::Required => Err(HandshakeFailure::NoCertificate),
                ClientCertificates::Optional => Ok(()),
            };
        };
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let verified = clients.verifier().verify_client_cert(leaf, issuers, UnixTime::since_unix_epoch(now));
        verified.map(|_| ()).map_err(|error| HandshakeFailure::from(&error))
    }

    /// Whether a certificate that a client has shown is the gateway's own. Such a client is trusted, and has no names.
    pub(super) fn is_own(&self, certificate: &CertificateDer<'_>) -> bool {
        certificate == self.identity.leaf_der()
    }

    pub(super) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }

    fn of(identity: TlsIdentity, trust: Arc<Trust>) -> ServerTls {
        let verifier: Arc<dyn ClientCertVerifier> = match &trust.clients {
            Some(clients) => {
                let (leaf, others) = (identity.leaf_der().clone(), clients.verifier());
                Arc::new(OwnLeafVerifier { leaf, others })
            }
            None => Arc::new(NoClientAuth {}),
        };
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("the provider knows TLS 1.2 and 1.3");
        let resolver = Arc::new(SingleCertAndKey::from(identity.certified_key()));
        let mut config = builder.with_client_cert_verifier(verifier).with_cert_resolver(resolver);
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.ticketer = Arc::clone(&trust.tickets);
        config.session_storage = Arc::clone(&trust.sessions);
        ServerTls { config: Arc::new(config), identity, trust }
    }
}

impl Trust {
    fn new(clients: Option<ClientTrust>) -> Result<Trust, ServerTlsError> {
        let tickets = rustls::crypto::aws_lc_rs::Ticketer::new();
        let tickets = tickets.map_err(|error| ServerTlsError::Tickets { reason: error.to_string() })?;
        let sessions = ServerSessionMemoryCache::new(SESSIONS_MAX);
        Ok(Trust { clients, tickets, sessions, replaced: CancellationToken::new() })
    }

    fn required(&self) -> ClientCertificates {
        self.clients.as_ref().map_or(ClientCertificates::Optional, ClientTrust::required)
    }
}

fn identity<'a>(
    config: &'a ServerTlsConfig,
    contents: &impl Fn(&Path) -> &'a [u8],
) -> Result<TlsIdentity, ServerTlsError> {
    let file = |path: &'a PathBuf| PemFile { path, contents: contents(path) };
    Ok(TlsIdentity::new(file(&config.certificate), file(&config.key), Side::Server)?)
}

fn clients<'a>(
    config: &'a ServerTlsConfig,
    contents: &impl Fn(&Path) -> &'a [u8],
) -> Result<Option<ClientTrust>, ServerTlsError> {
    let file = |path: &'a PathBuf| PemFile { path, contents: contents(path) };
    let crl = config.crl.as_ref().map(file);
    match &config.client_ca {
        Some(client_ca) => Ok(Some(ClientTrust::new(file(client_ca), crl, config.client_certificates)?)),
        None if crl.is_some() => Err(ServerTlsError::NeedsClientCa { setting: "crl" }),
        None => match config.client_certificates {
            ClientCertificates::Optional => Ok(None),
            ClientCertificates::Required => {
                Err(ServerTlsError::NeedsClientCa { setting: "client_certificates" })
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use forebay_reading::clock::wall_time;
    use rustls::HandshakeKind;

    use super::super::tests::{Authority, DAY, Files, VERSIONS, client, kind, params, refusal, shake, valid};
    use super::*;

    /// The new one with the tickets of the old one, as if nobody had ended them.
    fn with_tickets(new: ServerTls, old: &ServerTls) -> ServerTls {
        let trust = Arc::into_inner(new.trust).expect("nobody else has it");
        let (tickets, sessions) = (Arc::clone(&old.trust.tickets), Arc::clone(&old.trust.sessions));
        ServerTls::of(new.identity, Arc::new(Trust { tickets, sessions, ..trust }))
    }

    #[tokio::test]
    async fn a_resumed_session_of_a_client_that_would_not_be_let_in_now_is_refused() {
        let (authority, devices) = (Authority::new("here"), Authority::new("devices"));
        let device = devices.issue(params(&["plant-7.example"]));
        let files = Files::new(&authority.gateway()).client_ca(devices.pem());
        let revoked = || files.clone().crl(devices.crl(&[&device], wall_time() + DAY)).tls();
        let unknown = || files.clone().client_ca(authority.pem()).tls();
        for version in VERSIONS {
            let old = files.tls();
            for (new, expected) in
                [(revoked(), HandshakeFailure::Revoked), (unknown(), HandshakeFailure::Certificate)]
            {
                let client = client(&authority, Some(&device), version);
                assert_eq!(kind(&old, &client).await, HandshakeKind::Full);
                assert_eq!(kind(&old, &client).await, HandshakeKind::Resumed);
                assert_eq!(refusal(&with_tickets(new, &old), &client).await, expected);
            }
            // One that came without a certificate, and needs one now.
            let client = client(&authority, None, version);
            assert_eq!(kind(&old, &client).await, HandshakeKind::Full);
            let required = with_tickets(files.clone().required().tls(), &old);
            assert_eq!(refusal(&required, &client).await, HandshakeFailure::NoCertificate);
        }
    }

    #[tokio::test]
    async fn the_gateway_tells_its_certificate_to_those_who_look() {
        let authority = Authority::new("here");
        let mut short = params(&["gateway.example"]);
        let end = SystemTime::UNIX_EPOCH
            + std::time::Duration::from_secs(
                (wall_time() + DAY).duration_since(SystemTime::UNIX_EPOCH).expect("later").as_secs(),
            );
        valid(&mut short, wall_time() - DAY, end);
        let pair = authority.issue(short);
        let tls = Files::new(&pair).tls();
        assert!(tls.config().ticketer.enabled(), "sessions are the clients' to remember");
        assert_eq!(tls.leaf().validity.not_after, end);
        assert_eq!(tls.identity().leaf_der(), &pair.der);
        let (_server, seen) = shake(&tls, &client(&authority, None, VERSIONS[1])).await;
        let seen = seen.expect("a connection");
        assert_eq!(seen.get_ref().1.peer_certificates(), Some(&[pair.der][..]));
    }
}
