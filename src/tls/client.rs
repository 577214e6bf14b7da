//! The settings of rustls for calls to nodes: which authorities they trust, and the gateway's own certificate.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::ResolvesClientCert;
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, RootCertStore};
use rustls_native_certs::CertificateResult;
use thiserror::Error;

use super::identity::{IdentityError, IdentityFault, Side, TlsIdentity};
use super::pem::{self, PemError, PemFile};
use super::{ALPN, provider};

/// Which files the TLS of calls to nodes is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientTlsConfig {
    /// The authorities of the nodes' certificates, in place of those that the system trusts.
    pub ca: Option<PathBuf>,
    /// The certificate chain that nodes are shown if they ask, the own certificate first; needs `key`.
    pub certificate: Option<PathBuf>,
    /// The key of the first certificate; needs `certificate`.
    pub key: Option<PathBuf>,
}

impl ClientTlsConfig {
    /// All files, each of which has to be read and watched.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        [&self.ca, &self.certificate, &self.key].into_iter().flatten().map(PathBuf::as_path)
    }
}

/// The TLS settings of all calls to nodes.
#[derive(Clone, Debug)]
pub struct ClientTls {
    config: Arc<ClientConfig>,
    identity: Option<TlsIdentity>,
}

/// Why nodes cannot be called over TLS.
#[derive(Debug, Error)]
pub enum ClientTlsError {
    /// The file of authorities cannot be read.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// The own certificate or its key is at fault.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A block of `ca` that is no certificate.
    #[error("{}: its certificate number {number} cannot be read as one of X.509", path.display())]
    BrokenAuthority {
        /// The file.
        path: PathBuf,
        /// Which certificate, from 1.
        number: usize,
    },
    /// A certificate that has ended, or is not valid yet, in place of one that is valid.
    #[error("{fault}; the certificate in force is valid")]
    NoLongerValid {
        /// The fault of the new one.
        fault: IdentityFault,
    },
    /// One of two settings without the other.
    #[error("`{present}` needs `{absent}`: a certificate and its key go together")]
    HalfIdentity {
        /// The one that is set.
        present: &'static str,
        /// The one that is not.
        absent: &'static str,
    },
    /// The system has no authorities, and `ca` is not set.
    #[error(
        "the system has no certificate authorities to check nodes against ({reason}): install its package \
         `ca-certificates`, or set `ca` to the authority of the nodes"
    )]
    NoSystemAuthorities {
        /// The first fault of the search.
        reason: String,
    },
}

impl ClientTlsError {
    /// Whether someone may just be writing one of the files, so that it is worth another look soon.
    pub fn is_half_written(&self) -> bool {
        match self {
            ClientTlsError::Pem(error) => error.is_half_written(),
            ClientTlsError::Identity(error) => error.is_half_written(),
            ClientTlsError::BrokenAuthority { .. }
            | ClientTlsError::NoLongerValid { .. }
            | ClientTlsError::HalfIdentity { .. }
            | ClientTlsError::NoSystemAuthorities { .. } => false,
        }
    }
}

impl ClientTls {
    /// Takes the files; `contents` has those of each of [`ClientTlsConfig::paths`].
    ///
    /// Without `ca` it reads the authorities of the system, which may take some 10 ms of disk and processor. Where these
    /// are depends on the system; `SSL_CERT_FILE` and `SSL_CERT_DIR` name others.
    ///
    /// # Errors
    ///
    /// A file cannot be used, or there are no authorities to check nodes against.
    pub fn new<'a>(
        config: &'a ClientTlsConfig,
        contents: impl Fn(&Path) -> &'a [u8],
    ) -> Result<ClientTls, ClientTlsError> {
        let file = |path: &'a PathBuf| PemFile { path, contents: contents(path) };
        let roots = match &config.ca {
            Some(ca) => own_authorities(file(ca))?,
            None => system_authorities(rustls_native_certs::load_native_certs())?,
        };
        let half = |present, absent| ClientTlsError::HalfIdentity { present, absent };
        let identity = match (&config.certificate, &config.key) {
            (Some(certificate), Some(key)) => {
                Some(TlsIdentity::new(file(certificate), file(key), Side::Client)?)
            }
            (None, None) => None,
            (Some(_), None) => return Err(half("certificate", "key")),
            (None, Some(_)) => return Err(half("key", "certificate")),
        };
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("the provider knows TLS 1.2 and 1.3")
            .with_root_certificates(roots);
        let mut config = match &identity {
            Some(identity) => {
                let resolver: Arc<dyn ResolvesClientCert> =
                    Arc::new(SingleCertAndKey::from(identity.certified_key()));
                builder.with_client_cert_resolver(resolver)
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(ClientTls { config: Arc::new(config), identity })
    }

    /// The settings of rustls, to be shared by all connections: they remember sessions.
    pub fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.config)
    }

    /// The own certificate, if there is one.
    pub fn identity(&self) -> Option<&TlsIdentity> {
        self.identity.as_ref()
    }

    /// Checks `new` before it takes the place of this.
    ///
    /// # Errors
    ///
    /// [`ClientTlsError::NoLongerValid`] if nodes would be shown a certificate that is not valid at `now` in place of one that
    /// is.
    pub fn replaced_by(&self, new: ClientTls, now: SystemTime) -> Result<ClientTls, ClientTlsError> {
        let is_valid = |tls: &ClientTls| {
            tls.identity.as_ref().is_none_or(|identity| identity.leaf().validity.contains(now))
        };
        let is_worse = is_valid(self) && !is_valid(&new);
        match new.faults(now).into_iter().next().filter(|_| is_worse) {
            Some(fault) => Err(ClientTlsError::NoLongerValid { fault }),
            None => Ok(new),
        }
    }

    /// The faults at `now` of an own certificate that is used nevertheless.
    pub fn faults(&self, now: SystemTime) -> Vec<IdentityFault> {
        self.identity.iter().flat_map(|identity| identity.faults(now)).collect()
    }
}

fn own_authorities(file: PemFile<'_>) -> Result<RootCertStore, ClientTlsError> {
    let mut roots = RootCertStore::empty();
    for (certificate, number) in pem::certificates(file)?.into_iter().zip(1..) {
        let broken = |_| ClientTlsError::BrokenAuthority { path: file.path.to_owned(), number };
        roots.add(certificate).map_err(broken)?;
    }
    Ok(roots)
}

/// The readable ones among the authorities of the system: one broken certificate is no reason to lose all others.
fn system_authorities(found: CertificateResult) -> Result<RootCertStore, ClientTlsError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    match roots.is_empty() {
        true => {
            let reason =
                found.errors.first().map_or_else(|| "none was found".to_owned(), ToString::to_string);
            Err(ClientTlsError::NoSystemAuthorities { reason })
        }
        false => Ok(roots),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Authority, Files, Pair, params, refusal, shake};
    use super::*;

    fn client(authority: &Authority, pair: &Pair) -> ClientTls {
        let set = |name| Some(PathBuf::from(name));
        let config =
            ClientTlsConfig { ca: set("ca.pem"), certificate: set("chain.pem"), key: set("key.pem") };
        assert_eq!(config.paths().count(), 3);
        let authority = authority.pem();
        let contents = |path: &Path| match path.to_str() {
            Some("ca.pem") => authority.as_bytes(),
            Some("chain.pem") => pair.certificate.as_bytes(),
            _ => pair.key.as_bytes(),
        };
        ClientTls::new(&config, contents).expect("files that fit")
    }

    #[tokio::test]
    async fn a_node_is_checked_against_the_own_authority_and_shown_the_own_certificate() {
        let (nodes, gateways) = (Authority::new("nodes"), Authority::new("gateways"));
        let own = gateways.issue(params(&["forebay.example"]));
        let node = Files::new(&nodes.gateway()).client_ca(gateways.pem()).required().tls();
        let (server, client_end) = shake(&node, &client(&nodes, &own).config()).await;
        client_end.expect("the node is known");
        let shown = server.expect("the gateway is known").client.expect("a certificate");
        assert_eq!(shown.names(), ["forebay.example"]);

        let stranger = client(&gateways, &own);
        assert_eq!(refusal(&node, &stranger.config()).await.name(), "refused");
    }

    #[test]
    fn half_an_identity_is_told() {
        let authority = Authority::new("nodes").pem();
        let config = ClientTlsConfig {
            ca: Some(PathBuf::from("ca.pem")),
            certificate: None,
            key: Some(PathBuf::from("key.pem")),
        };
        let error = ClientTls::new(&config, |_| authority.as_bytes()).expect_err("half");
        assert_eq!(error.to_string(), "`key` needs `certificate`: a certificate and its key go together");
    }

    #[test]
    fn a_system_without_authorities_is_told_in_words() {
        let error = system_authorities(CertificateResult::default()).expect_err("there is none");
        assert_eq!(
            error.to_string(),
            "the system has no certificate authorities to check nodes against (none was found): install its package \
             `ca-certificates`, or set `ca` to the authority of the nodes"
        );
    }
}
