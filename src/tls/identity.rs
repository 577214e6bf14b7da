//! The gateway's own certificate chain and its key, out of two files.
//!
//! Whatever would keep every client away is an error. Everything else is a fault in words, for `check` and for a warning
//! at the start: a gateway whose certificate expired over night must still come up, because its devices may not look, and
//! because its operator needs it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::verify_server_name;
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, ServerName};
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::pem::{self, PemError, PemFile};
use super::provider;
use super::x509::{self, CertificateNames, Signature, Validity};

/// Most certificates in a chain.
pub const CHAIN_MAX: usize = 10;

/// Most names that a message lists.
const LISTED_NAMES_MAX: usize = 10;

/// Which side of a connection a certificate is shown on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Towards clients.
    Server,
    /// Towards nodes.
    Client,
}

/// A certificate chain and its key, which belong together.
#[derive(Clone)]
pub struct TlsIdentity {
    key: Arc<CertifiedKey>,
    leaf: Leaf,
    path: PathBuf,
    /// The faults of the chain that do not depend on the time.
    chain_faults: Vec<IdentityFault>,
    /// The validity of the certificates after the leaf.
    issuers: Vec<Validity>,
}

/// The first certificate of a chain: the gateway's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// SHA-256 of the certificate.
    pub fingerprint: [u8; 32],
    /// From when to when it is valid.
    pub validity: Validity,
    /// Its names.
    pub names: CertificateNames,
}

/// Why two files do not make an identity.
#[derive(Debug, Error)]
pub enum IdentityError {
    /// One of the files cannot be read.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// A block that is no certificate.
    #[error("{}: its certificate number {number} cannot be read as one of X.509", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// Which certificate, from 1.
        number: usize,
    },
    /// More than [`CHAIN_MAX`].
    #[error(
        "{} has {count} certificates; it must have the own certificate and those of its issuers, at most {CHAIN_MAX}",
        path.display()
    )]
    TooLong {
        /// The file.
        path: PathBuf,
        /// How many.
        count: usize,
    },
    /// A key of a kind that TLS has no use for.
    #[error("{}: the private key cannot be used: {reason}; it must be RSA, ECDSA or Ed25519", path.display())]
    UnusableKey {
        /// The file.
        path: PathBuf,
        /// The words of the cryptography library.
        reason: String,
    },
    /// The key is of another certificate.
    #[error(
        "the key in {} does not belong to the first certificate in {}{}",
        key.display(),
        certificate.display(),
        advice(*owner)
    )]
    KeyMismatch {
        /// The key's file.
        key: PathBuf,
        /// The certificate's file.
        certificate: PathBuf,
        /// Which certificate of the chain it belongs to, from 1.
        owner: Option<usize>,
    },
}

impl IdentityError {
    /// Whether someone may just be writing one of the files.
    pub fn is_half_written(&self) -> bool {
        matches!(self, IdentityError::Pem(error) if error.is_half_written())
    }
}

fn advice(owner: Option<usize>) -> String {
    match owner {
        Some(number) => {
            format!(", but to its certificate number {number}: the own certificate must stand first")
        }
        None => ": both must be of the same pair".to_owned(),
    }
}

/// A fault of an identity that can be used nevertheless.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum IdentityFault {
    /// Past its end.
    #[error("{}: its certificate number {number} has expired on {}", path.display(), x509::rfc3339(*not_after))]
    Expired {
        /// The file.
        path: PathBuf,
        /// Which certificate, from 1.
        number: usize,
        /// When.
        not_after: SystemTime,
    },
    /// Before its beginning.
    #[error(
        "{}: its certificate number {number} is valid from {} only; is the clock of this machine right?",
        path.display(),
        x509::rfc3339(*not_before)
    )]
    NotYetValid {
        /// The file.
        path: PathBuf,
        /// Which certificate, from 1.
        number: usize,
        /// From when.
        not_before: SystemTime,
    },
    /// The first certificate may sign others.
    #[error(
        "{}: its first certificate is one of an authority (CA:TRUE), which many clients refuse; it must be one that an \
         authority has issued",
        path.display()
    )]
    LeafIsAuthority {
        /// The file.
        path: PathBuf,
    },
    /// The order, or a certificate that does not belong there.
    #[error(
        "{}: its certificate number {number} is not issued by number {}; the own certificate must stand first, and after \
         each one that of its issuer",
        path.display(),
        number + 1
    )]
    BrokenChain {
        /// The file.
        path: PathBuf,
        /// Which certificate, from 1.
        number: usize,
    },
    /// The extended key usage lacks this side of the connection.
    #[error("{}: its first certificate is not made for a {} (extended key usage)", path.display(), side_name(*side))]
    WrongPurpose {
        /// The file.
        path: PathBuf,
        /// For which it should be made.
        side: Side,
    },
    /// It does not carry a name by which clients call.
    #[error("{}: its name does not fit: clients call {host}, and the certificate is for {names}", path.display())]
    NameDoesNotFit {
        /// The file.
        path: PathBuf,
        /// How clients call.
        host: String,
        /// The names that it has.
        names: String,
    },
}

fn side_name(side: Side) -> &'static str {
    match side {
        Side::Server => "server",
        Side::Client => "client",
    }
}

impl fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsIdentity")
            .field("path", &self.path)
            .field("leaf", &self.leaf)
            .finish_non_exhaustive()
    }
}

impl TlsIdentity {
    /// Takes a chain and its key. Both may stand in the same file.
    ///
    /// # Errors
    ///
    /// A file cannot be read, a block is no certificate, or the key does not belong to the first one. An expired certificate
    /// is no error ([`TlsIdentity::faults`]).
    pub fn new(certificate: PemFile<'_>, key: PemFile<'_>, side: Side) -> Result<TlsIdentity, IdentityError> {
        let path = certificate.path.to_owned();
        let chain = pem::certificates(certificate)?;
        if chain.len() > CHAIN_MAX {
            return Err(IdentityError::TooLong { path, count: chain.len() });
        }
        let parsed = parse(&chain, &path)?;
        let leaf = Leaf {
            fingerprint: Sha256::digest(&chain[0]).into(),
            validity: x509::validity(&parsed[0]),
            names: x509::names(&parsed[0]),
        };
        let issuers = parsed[1..].iter().map(x509::validity).collect();
        let chain_faults = chain_faults(&chain, &parsed, &path, side);
        let key = pair(chain, certificate, key)?;
        Ok(TlsIdentity { key: Arc::new(key), leaf, path, chain_faults, issuers })
    }

    /// The gateway's own certificate.
    pub fn leaf(&self) -> &Leaf {
        &self.leaf
    }

    /// The gateway's own certificate, in DER.
    pub fn leaf_der(&self) -> &CertificateDer<'static> {
        self.key.cert.first().expect("a chain has a leaf")
    }

    /// The faults at `now`, with which it can be used nevertheless.
    pub fn faults(&self, now: SystemTime) -> Vec<IdentityFault> {
        let validities = std::iter::once(&self.leaf.validity).chain(&self.issuers);
        let out_of_time = validities.zip(1..).filter_map(|(validity, number)| {
            let path = self.path.clone();
            match *validity {
                Validity { not_after, .. } if now > not_after => {
                    Some(IdentityFault::Expired { path, number, not_after })
                }
                Validity { not_before, .. } if now < not_before => {
                    Some(IdentityFault::NotYetValid { path, number, not_before })
                }
                Validity { .. } => None,
            }
        });
        out_of_time.chain(self.chain_faults.iter().cloned()).collect()
    }

    /// Whether a client that calls `host`, a name or an address without brackets, accepts the certificate.
    ///
    /// # Errors
    ///
    /// The name does not fit. The common name does not count: clients ignore it.
    pub fn check_host(&self, host: &str) -> Result<(), IdentityFault> {
        let fits = || {
            let name = ServerName::try_from(host).ok()?;
            let leaf = ParsedCertificate::try_from(self.leaf_der()).ok()?;
            verify_server_name(&leaf, &name).ok()
        };
        fits().ok_or_else(|| IdentityFault::NameDoesNotFit {
            path: self.path.clone(),
            host: host.chars().take(x509::NAME_BYTES_MAX).collect(),
            names: listed(&self.leaf.names),
        })
    }

    pub(super) fn certified_key(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.key)
    }
}

fn listed(names: &CertificateNames) -> String {
    let ips = names.ips.iter().map(ToString::to_string);
    let told: Vec<String> = names.dns.iter().cloned().chain(ips).collect();
    match (told.len(), &names.common_name) {
        (0, Some(name)) => {
            format!("none (its common name, {name}, does not count: it needs a subject alternative name)")
        }
        (0, None) => "none".to_owned(),
        (count @ 1..=LISTED_NAMES_MAX, _) => told[..count].join(", "),
        (count, _) => {
            format!("{} and {} more", told[..LISTED_NAMES_MAX].join(", "), count - LISTED_NAMES_MAX)
        }
    }
}

fn parse<'a>(
    chain: &'a [CertificateDer<'_>],
    path: &Path,
) -> Result<Vec<x509_parser::certificate::X509Certificate<'a>>, IdentityError> {
    let certificates = chain.iter().zip(1..);
    certificates
        .map(|(der, number)| {
            x509::certificate(der).ok_or_else(|| IdentityError::Broken { path: path.to_owned(), number })
        })
        .collect()
}

fn chain_faults(
    chain: &[CertificateDer<'_>],
    parsed: &[x509_parser::certificate::X509Certificate<'_>],
    path: &Path,
    side: Side,
) -> Vec<IdentityFault> {
    let mut faults = Vec::new();
    if parsed[0].is_ca() {
        faults.push(IdentityFault::LeafIsAuthority { path: path.to_owned() });
    }
    if let Ok(Some(usage)) = parsed[0].extended_key_usage() {
        let fits = match side {
            Side::Server => usage.value.server_auth,
            Side::Client => usage.value.client_auth,
        };
        if !fits && !usage.value.any {
            faults.push(IdentityFault::WrongPurpose { path: path.to_owned(), side });
        }
    }
    for (number, pair) in (1..).zip(parsed.windows(2)) {
        let is_named = pair[0].issuer().as_raw() == pair[1].subject().as_raw();
        if !is_named || x509::signature(&chain[number - 1], &pair[1]) == Signature::Invalid {
            faults.push(IdentityFault::BrokenChain { path: path.to_owned(), number });
        }
    }
    faults
}

/// The chain with its key, once they are seen to belong together.
fn pair(
    chain: Vec<CertificateDer<'static>>,
    certificate: PemFile<'_>,
    key: PemFile<'_>,
) -> Result<CertifiedKey, IdentityError> {
    let unusable = |reason: rustls::Error| IdentityError::UnusableKey {
        path: key.path.to_owned(),
        reason: reason.to_string(),
    };
    let signer = provider().key_provider.load_private_key(pem::private_key(key)?).map_err(unusable)?;
    let fits = |der: &CertificateDer<'static>| {
        CertifiedKey::new(vec![der.clone()], Arc::clone(&signer)).keys_match().is_ok()
    };
    if !fits(&chain[0]) {
        return Err(IdentityError::KeyMismatch {
            key: key.path.to_owned(),
            certificate: certificate.path.to_owned(),
            owner: chain.iter().position(fits).map(|index| index + 1),
        });
    }
    Ok(CertifiedKey::new(chain, signer))
}

#[cfg(test)]
mod tests {
    use forebay_reading::clock::wall_time;
    use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose};

    use super::super::tests::{Authority, DAY, HOST, Pair, params, valid};
    use super::*;

    fn identity(certificate: &str, key: &str) -> Result<TlsIdentity, IdentityError> {
        let file = |path, contents| PemFile { path: Path::new(path), contents };
        TlsIdentity::new(
            file("chain.pem", certificate.as_bytes()),
            file("key.pem", key.as_bytes()),
            Side::Server,
        )
    }

    /// The faults of a chain, with the key of the pair that it begins with.
    fn faults(chain: &[&str], pair: &Pair) -> Vec<String> {
        let identity = identity(&chain.concat(), &pair.key).expect("an identity");
        identity.faults(wall_time()).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_chain_in_order_has_no_faults_with_or_without_its_root() {
        let root = Authority::new("root");
        let between = root.below("between");
        let pair = between.gateway();
        assert_eq!(faults(&[&pair.certificate], &pair), [""; 0]);
        assert_eq!(faults(&[&pair.certificate, &between.pem()], &pair), [""; 0]);
        assert_eq!(faults(&[&pair.certificate, &between.pem(), &root.pem()], &pair), [""; 0]);
    }

    #[test]
    fn a_chain_out_of_order_is_told() {
        let root = Authority::new("root");
        let between = root.below("between");
        let pair = between.gateway();
        let told = "chain.pem: its certificate number 1 is not issued by number 2; the own certificate must stand first, and \
                    after each one that of its issuer";
        assert_eq!(faults(&[&pair.certificate, &root.pem(), &between.pem()], &pair)[0], told);
        // Another authority of the same name.
        assert_eq!(faults(&[&pair.certificate, &root.below("between").pem()], &pair), [told]);
    }

    #[test]
    fn a_key_that_does_not_fit_is_told_with_the_certificate_that_it_fits() {
        let root = Authority::new("root");
        let (pair, other) = (root.gateway(), root.gateway());
        let told =
            |chain: &[&str], key: &str| identity(&chain.concat(), key).expect_err("no pair").to_string();
        assert_eq!(
            told(&[&root.pem(), &pair.certificate], &pair.key),
            "the key in key.pem does not belong to the first certificate in chain.pem, but to its certificate number 2: the \
             own certificate must stand first"
        );
        assert_eq!(
            told(&[&pair.certificate], &other.key),
            "the key in key.pem does not belong to the first certificate in chain.pem: both must be of the same pair"
        );
        let chain = [pair.certificate.as_str(); CHAIN_MAX + 1];
        assert!(told(&chain, &pair.key).starts_with("chain.pem has 11 certificates; "));
        let broken = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
        assert_eq!(
            told(&[&pair.certificate, broken], &pair.key),
            "chain.pem: its certificate number 2 cannot be read as one of X.509"
        );
    }

    #[test]
    fn certificates_out_of_their_time_are_faults_and_no_errors() {
        let root = Authority::new("root");
        let mut old = params(&[HOST]);
        valid(&mut old, wall_time() - 3 * DAY, wall_time() - 2 * DAY);
        let mut young = params(&[HOST]);
        valid(&mut young, wall_time() + DAY, wall_time() + 2 * DAY);
        let told = |params| {
            let pair = root.issue(params);
            faults(&[&pair.certificate], &pair).join("\n")
        };
        let (old, young) = (told(old), told(young));
        assert!(
            old.starts_with("chain.pem: its certificate number 1 has expired on 20") && old.ends_with('Z'),
            "{old}"
        );
        assert!(young.starts_with("chain.pem: its certificate number 1 is valid from 20"), "{young}");
    }

    #[test]
    fn an_end_beyond_all_times_is_none_at_all() {
        let mut never = params(&[HOST]);
        never.not_after = rcgen::date_time_ymd(9999, 12, 31);
        never.not_before = rcgen::date_time_ymd(1950, 1, 1);
        let pair = Authority::new("root").issue(never);
        assert_eq!(faults(&[&pair.certificate], &pair), [""; 0]);
    }

    #[test]
    fn a_certificate_of_an_authority_or_for_something_else_is_told() {
        let pair = Authority::new("self-signed").own_pair();
        assert_eq!(
            faults(&[&pair.certificate], &pair),
            [
                "chain.pem: its first certificate is one of an authority (CA:TRUE), which many clients refuse; it must be one \
              that an authority has issued"
            ]
        );
        let mut client = params(&[HOST]);
        client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let pair = Authority::new("root").issue(client);
        assert_eq!(
            faults(&[&pair.certificate], &pair),
            ["chain.pem: its first certificate is not made for a server (extended key usage)"]
        );
    }

    #[test]
    fn a_host_fits_by_name_wildcard_or_address_and_never_by_the_common_name() {
        let issue = |params: CertificateParams| {
            let pair = Authority::new("root").issue(params);
            identity(&pair.certificate, &pair.key).expect("an identity")
        };
        let named = issue(params(&["gateway.example", "*.plants.example", "192.0.2.7", "2001:db8::7"]));
        for host in ["gateway.example", "GATEWAY.example", "p7.plants.example", "192.0.2.7", "2001:db8::7"] {
            assert_eq!(named.check_host(host), Ok(()), "{host}");
        }
        for host in ["plants.example", "a.b.plants.example", "192.0.2.8", "", "\0", "not a name"] {
            assert!(named.check_host(host).is_err(), "{host}");
        }
        assert_eq!(
            named.check_host("other.example").expect_err("another").to_string(),
            "chain.pem: its name does not fit: clients call other.example, and the certificate is for gateway.example, \
             *.plants.example, 192.0.2.7, 2001:db8::7"
        );
        let mut common = params(&[]);
        common.distinguished_name.push(DnType::CommonName, HOST);
        let error = issue(common).check_host(HOST).expect_err("a common name").to_string();
        assert!(
            error.ends_with(
                "is for none (its common name, gateway.example, does not count: it needs a subject \
                                 alternative name)"
            ),
            "{error}"
        );
    }

    #[test]
    fn a_leaf_says_who_it_is() {
        let pair = Authority::new("root").issue(params(&["gateway.example", "192.0.2.7"]));
        let identity = identity(&pair.certificate, &pair.key).expect("an identity");
        let leaf = identity.leaf();
        assert_eq!(leaf.names.dns, ["gateway.example"]);
        assert_eq!(leaf.names.ips, ["192.0.2.7".parse::<std::net::IpAddr>().expect("an address")]);
        assert_eq!(leaf.names.common_name, None);
        assert_eq!(leaf.fingerprint, <[u8; 32]>::from(Sha256::digest(&pair.der)));
        assert!(leaf.validity.contains(wall_time()) && !leaf.validity.contains(wall_time() + 2 * DAY));
        let shown = format!("{identity:?}");
        assert!(!shown.contains("key"), "{shown}");
    }
}
