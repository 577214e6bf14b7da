//! Which client certificates are trusted: those of the authorities in `client_ca`, unless a revocation list has them.
//!
//! # Revocation
//!
//! The whole chain is looked at, from the client's certificate up to, but not including, the authority in `client_ca`.
//! Where no list says anything of a certificate, it is not revoked: a list for one authority must not lock out the clients
//! of another. A list past its `nextUpdate` goes on to hold, and is told as a fault: a job that failed to fetch a list
//! must not stop a plant. Of several lists of one authority the newest holds.
//!
//! rustls finds the list of an authority by the name alone, and refuses every client if the signature is of another
//! key. An authority that got a new key under its old name would so lock out its clients. Therefore each authority here
//! knows only the lists that it has signed itself (`applicable`), and a list that none of its namesakes has signed is an
//! error.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error as TlsError, RootCertStore,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use thiserror::Error;
use x509_parser::certificate::X509Certificate;

use super::pem::{self, PemError, PemFile};
use super::provider;
use super::x509::{self, Signature};

/// Most certificates in `client_ca`.
pub const AUTHORITIES_MAX: usize = 100;

/// Most bytes of authorities' names that clients are sent to choose a certificate by; beyond it they get none, and
/// choose by themselves.
const HINT_BYTES_MAX: usize = 8 << 10;

/// Whether clients must show a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientCertificates {
    /// A client without one is let in, and may have a key. One that is shown must be trusted.
    #[default]
    Optional,
    /// A client without one is turned away in the handshake.
    Required,
}

/// The authorities of clients and their revocation lists, in force together.
#[derive(Debug)]
pub struct ClientTrust {
    authorities: Vec<CertificateDer<'static>>,
    lists: Vec<CertificateRevocationListDer<'static>>,
    required: ClientCertificates,
    /// Those of every time; [`ClientTrust::faults`] has the ones of a time.
    faults: Vec<ListFault>,
    verifier: Arc<dyn ClientCertVerifier>,
}

impl PartialEq for ClientTrust {
    /// Whether both let in the same clients. How a file is laid out does not matter.
    fn eq(&self, other: &ClientTrust) -> bool {
        self.authorities == other.authorities && self.lists == other.lists && self.required == other.required
    }
}

/// Why the authorities or the revocation lists cannot be used.
#[derive(Debug, Error)]
pub enum ClientTrustError {
    /// One of the files cannot be read.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// A block of `client_ca` that is no certificate.
    #[error("{}: its certificate number {number} cannot be read as one of X.509", path.display())]
    BrokenAuthority {
        /// The file.
        path: PathBuf,
        /// Which certificate, from 1.
        number: usize,
    },
    /// More than [`AUTHORITIES_MAX`].
    #[error("{} has {count} certificates; at most {AUTHORITIES_MAX} authorities are allowed", path.display())]
    TooManyAuthorities {
        /// The file.
        path: PathBuf,
        /// How many.
        count: usize,
    },
    /// A block that is no revocation list, or one of a kind that cannot be used.
    #[error(
        "{}: its revocation list number {number} cannot be used: {reason}; it must be a whole list (no delta) of X.509, \
         version 2",
        path.display()
    )]
    BrokenList {
        /// The file.
        path: PathBuf,
        /// Which list, from 1.
        number: usize,
        /// The fault.
        reason: String,
    },
    /// A list in the name of an authority, which it did not sign.
    #[error(
        "{}: its revocation list number {number}, of {issuer}, is not signed by the authority of that name in client_ca, or \
         that one may not sign lists (key usage)",
        path.display()
    )]
    ForeignList {
        /// The file.
        path: PathBuf,
        /// Which list, from 1.
        number: usize,
        /// In whose name.
        issuer: String,
    },
}

impl ClientTrustError {
    /// Whether someone may just be writing one of the files.
    pub fn is_half_written(&self) -> bool {
        matches!(self, ClientTrustError::Pem(error) if error.is_half_written())
    }
}

/// A fault of a revocation list that is used nevertheless.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ListFault {
    /// There should be a newer one.
    #[error(
        "{}: its revocation list of {issuer} should have been replaced by {}; it goes on to hold",
        path.display(),
        x509::rfc3339(*next_update)
    )]
    Overdue {
        /// The file.
        path: PathBuf,
        /// Whose list.
        issuer: String,
        /// By when.
        next_update: SystemTime,
    },
    /// Not a list of an authority in `client_ca`; it may be one of an authority between.
    #[error(
        "{}: its revocation list of {issuer} is of no authority in client_ca: it holds only if clients show that \
         authority's certificate with their own",
        path.display()
    )]
    UnknownIssuer {
        /// The file.
        path: PathBuf,
        /// Whose list.
        issuer: String,
    },
}

/// Most characters of an issuer's name in a message.
const ISSUER_CHARACTERS_MAX: usize = 200;

impl ClientTrust {
    /// Takes the authorities, and the revocation lists if there are any.
    ///
    /// # Errors
    ///
    /// A file cannot be read, or has something that would lock clients out.
    pub fn new(
        client_ca: PemFile<'_>,
        crl: Option<PemFile<'_>>,
        required: ClientCertificates,
    ) -> Result<ClientTrust, ClientTrustError> {
        let authorities = pem::certificates(client_ca)?;
        if authorities.len() > AUTHORITIES_MAX {
            let path = client_ca.path.to_owned();
            return Err(ClientTrustError::TooManyAuthorities { path, count: authorities.len() });
        }
        let parsed = parse_authorities(&authorities, client_ca)?;
        let lists = match crl {
            Some(file) => read_lists(file)?,
            None => Vec::new(),
        };
        let mut faults = Vec::new();
        if let Some(file) = crl {
            for list in &lists {
                faults.extend(list.check(&parsed, file)?);
            }
        }
        let groups = groups(&authorities, &parsed, &lists, client_ca)?;
        let verifier = Arc::new(Verifiers::new(groups, &lists, required, crl.unwrap_or(client_ca))?);
        let lists = lists.into_iter().map(|list| list.der).collect();
        Ok(ClientTrust { authorities, lists, required, faults, verifier })
    }

    /// Whether clients must show a certificate.
    pub fn required(&self) -> ClientCertificates {
        self.required
    }

    /// The faults of the lists at `now`.
    pub fn faults(&self, now: SystemTime) -> Vec<ListFault> {
        let is_due = |fault: &&ListFault| match fault {
            ListFault::Overdue { next_update, .. } => now > *next_update,
            ListFault::UnknownIssuer { .. } => true,
        };
        self.faults.iter().filter(is_due).cloned().collect()
    }

    /// By when the first of the lists should be replaced.
    pub fn next_update(&self) -> Option<SystemTime> {
        let times = self.faults.iter().filter_map(|fault| match fault {
            ListFault::Overdue { next_update, .. } => Some(*next_update),
            ListFault::UnknownIssuer { .. } => None,
        });
        times.min()
    }

    pub(super) fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        Arc::clone(&self.verifier)
    }
}

fn parse_authorities<'a>(
    authorities: &'a [CertificateDer<'_>],
    file: PemFile<'_>,
) -> Result<Vec<X509Certificate<'a>>, ClientTrustError> {
    let broken = |number| ClientTrustError::BrokenAuthority { path: file.path.to_owned(), number };
    authorities
        .iter()
        .zip(1..)
        .map(|(der, number)| x509::certificate(der).ok_or_else(|| broken(number)))
        .collect()
}

/// A revocation list, and the facts of it that decide where it holds.
struct RevocationList {
    der: CertificateRevocationListDer<'static>,
    /// The issuer's name in DER.
    issuer: Vec<u8>,
    /// The issuer's name for people.
    issuer_text: String,
    this_update: SystemTime,
    next_update: Option<SystemTime>,
    /// Its place in the file, from 1.
    number: usize,
}

/// The lists of a file, the newest first: of several lists of one authority rustls asks the first alone.
fn read_lists(file: PemFile<'_>) -> Result<Vec<RevocationList>, ClientTrustError> {
    let read = |(der, number): (CertificateRevocationListDer<'static>, usize)| {
        let broken = || ClientTrustError::BrokenList {
            path: file.path.to_owned(),
            number,
            reason: "it cannot be decoded".to_owned(),
        };
        let list = x509::revocation_list(&der).ok_or_else(broken)?;
        Ok(RevocationList {
            issuer: list.issuer().as_raw().to_vec(),
            issuer_text: list.issuer().to_string().chars().take(ISSUER_CHARACTERS_MAX).collect(),
            this_update: x509::time(list.last_update()),
            next_update: list.next_update().map(x509::time),
            number,
            der,
        })
    };
    let mut lists = pem::revocation_lists(file)?
        .into_iter()
        .zip(1..)
        .map(read)
        .collect::<Result<Vec<_>, ClientTrustError>>()?;
    lists.sort_by_key(|list| std::cmp::Reverse(list.this_update));
    Ok(lists)
}

impl RevocationList {
    /// The faults of the list, now or later, or the error that it would lock clients out.
    fn check(
        &self,
        authorities: &[X509Certificate<'_>],
        file: PemFile<'_>,
    ) -> Result<Vec<ListFault>, ClientTrustError> {
        let (path, issuer) = (file.path.to_owned(), self.issuer_text.clone());
        let namesakes: Vec<_> = authorities.iter().filter(|one| self.is_in_the_name_of(one)).collect();
        let mut faults = Vec::new();
        if namesakes.is_empty() {
            faults.push(ListFault::UnknownIssuer { path: path.clone(), issuer: issuer.clone() });
        } else if !namesakes.iter().any(|authority| self.is_signed_by(authority)) {
            return Err(ClientTrustError::ForeignList { path, number: self.number, issuer });
        }
        if let Some(next_update) = self.next_update {
            faults.push(ListFault::Overdue { path, issuer, next_update });
        }
        Ok(faults)
    }

    fn unusable(&self, file: PemFile<'_>, reason: String) -> ClientTrustError {
        ClientTrustError::BrokenList { path: file.path.to_owned(), number: self.number, reason }
    }

    fn is_in_the_name_of(&self, authority: &X509Certificate<'_>) -> bool {
        self.issuer == authority.subject().as_raw()
    }

    fn is_signed_by(&self, authority: &X509Certificate<'_>) -> bool {
        let may_sign = match authority.key_usage() {
            Ok(usage) => usage.is_none_or(|usage| usage.value.crl_sign()),
            Err(_) => false,
        };
        may_sign && x509::signature(&self.der, authority) == Signature::Valid
    }
}

/// Which of the lists an authority knows: all but those in its name that it did not sign. That keeps lists of authorities
/// between it and the clients.
fn applicable(lists: &[RevocationList], authority: &X509Certificate<'_>) -> Vec<usize> {
    let applies = |list: &RevocationList| !list.is_in_the_name_of(authority) || list.is_signed_by(authority);
    (0..lists.len()).filter(|index| applies(&lists[*index])).collect()
}

/// The authorities, by the lists that they know; nearly always all know the same.
fn groups(
    authorities: &[CertificateDer<'static>],
    parsed: &[X509Certificate<'_>],
    lists: &[RevocationList],
    file: PemFile<'_>,
) -> Result<BTreeMap<Vec<usize>, RootCertStore>, ClientTrustError> {
    let mut groups: BTreeMap<Vec<usize>, RootCertStore> = BTreeMap::new();
    for ((der, parsed), number) in authorities.iter().zip(parsed).zip(1..) {
        let roots = groups.entry(applicable(lists, parsed)).or_insert_with(RootCertStore::empty);
        let path = || file.path.to_owned();
        roots.add(der.clone()).map_err(|_| ClientTrustError::BrokenAuthority { path: path(), number })?;
    }
    Ok(groups)
}

/// Hints for clients, unless they are so long that they would do harm.
fn hints<'a>(roots: impl Iterator<Item = &'a RootCertStore>) -> Vec<DistinguishedName> {
    let hints: Vec<_> = roots.flat_map(RootCertStore::subjects).collect();
    let bytes: usize = hints.iter().map(|hint| hint.as_ref().len()).sum();
    if bytes > HINT_BYTES_MAX { Vec::new() } else { hints }
}

/// One verifier for each group of authorities.
#[derive(Debug)]
struct Verifiers {
    /// At least one.
    verifiers: Vec<Arc<dyn ClientCertVerifier>>,
    hints: Vec<DistinguishedName>,
}

impl Verifiers {
    fn new(
        groups: BTreeMap<Vec<usize>, RootCertStore>,
        lists: &[RevocationList],
        required: ClientCertificates,
        crl: PemFile<'_>,
    ) -> Result<Verifiers, ClientTrustError> {
        let hints = hints(groups.values());
        let mut verifiers = Vec::new();
        for (indices, roots) in groups {
            let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
                .allow_unknown_revocation_status();
            if required == ClientCertificates::Optional {
                builder = builder.allow_unauthenticated();
            }
            let mut known = indices.iter().map(|index| &lists[*index]);
            // One by one first, so that the error names the list.
            for list in known.clone() {
                let alone = builder.clone().with_crls([list.der.clone()]);
                alone.build().map_err(|error| list.unusable(crl, error.to_string()))?;
            }
            let built = builder.with_crls(known.by_ref().map(|list| list.der.clone())).build();
            verifiers.push(built.expect("each list was taken alone"));
        }
        Ok(Verifiers { verifiers, hints })
    }

    fn first(&self) -> &dyn ClientCertVerifier {
        self.verifiers.first().expect("there is an authority").as_ref()
    }
}

impl ClientCertVerifier for Verifiers {
    fn offer_client_auth(&self) -> bool {
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        self.first().client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, TlsError> {
        let mut verdict = TlsError::InvalidCertificate(CertificateError::UnknownIssuer);
        for verifier in &self.verifiers {
            match verifier.verify_client_cert(end_entity, intermediates, now) {
                Ok(verified) => return Ok(verified),
                // A certificate that one authority has revoked is not saved by a namesake of it.
                Err(error @ TlsError::InvalidCertificate(CertificateError::Revoked)) => return Err(error),
                // The verdict of the certificate's own authority is the one to report.
                Err(error) if is_about_the_issuer(&error) && self.verifiers.len() > 1 => {}
                Err(error) => verdict = error,
            }
        }
        Err(verdict)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.first().verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.first().verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.first().supported_verify_schemes()
    }
}

fn is_about_the_issuer(error: &TlsError) -> bool {
    matches!(
        error,
        TlsError::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature)
    )
}
