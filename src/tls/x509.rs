//! Facts of certificates: names, dates, issuers. Nothing here decides whether a certificate is trusted.
//!
//! Certificates come from strangers, so all that is read of one is bounded: [`CERTIFICATE_BYTES_MAX`], [`NAMES_MAX`] and
//! [`NAME_BYTES_MAX`]. What does not fit is left out and counted.

use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use forebay_reading::timestamp::Timestamp;
use x509_parser::asn1_rs::{Any, FromDer, Tag};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::revocation_list::CertificateRevocationList;
use x509_parser::time::ASN1Time;

use super::provider;

/// Most bytes of one certificate in DER. Real ones have one or two thousand.
pub const CERTIFICATE_BYTES_MAX: usize = 64 << 10;
/// Most names that are read of a certificate.
pub const NAMES_MAX: usize = 100;
/// Most bytes of one name.
pub const NAME_BYTES_MAX: usize = 256;

/// From when to when a certificate is valid, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// Its first second.
    pub not_before: SystemTime,
    /// Its last second.
    pub not_after: SystemTime,
}

impl Validity {
    /// Whether it is valid at `now`.
    pub fn contains(&self, now: SystemTime) -> bool {
        self.not_before <= now && now <= self.not_after
    }
}

/// The names of a certificate, as far as they are text without control characters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateNames {
    /// Host names, a wildcard included.
    pub dns: Vec<String>,
    /// Such as `spiffe://plant/7`.
    pub uris: Vec<String>,
    /// E-mail addresses.
    pub emails: Vec<String>,
    /// Addresses of machines.
    pub ips: Vec<IpAddr>,
    /// The common name of the subject, if there is exactly one.
    pub common_name: Option<String>,
    /// How many names were left out: too many, too long, no text, or with control characters.
    pub omitted: usize,
    /// Whether there is a DNS, URI or e-mail name at all, be it one that was left out.
    pub has_identity: bool,
}

/// Whether `der` is one SEQUENCE and nothing after it.
pub(super) fn is_one_sequence(der: &[u8]) -> bool {
    Any::from_der(der).is_ok_and(|(rest, any)| rest.is_empty() && any.tag() == Tag::Sequence)
}

/// A certificate, if `der` is one, whole and of a sensible size, and nothing else.
pub(super) fn certificate(der: &[u8]) -> Option<X509Certificate<'_>> {
    let fits = der.len() <= CERTIFICATE_BYTES_MAX;
    let (rest, certificate) = fits.then(|| X509Certificate::from_der(der).ok())??;
    rest.is_empty().then_some(certificate)
}

/// A revocation list, if `der` is one and nothing else.
pub(super) fn revocation_list(der: &[u8]) -> Option<CertificateRevocationList<'_>> {
    let (rest, list) = CertificateRevocationList::from_der(der).ok()?;
    rest.is_empty().then_some(list)
}

pub(super) fn validity(certificate: &X509Certificate<'_>) -> Validity {
    let validity = certificate.validity();
    Validity { not_before: time(validity.not_before), not_after: time(validity.not_after) }
}

/// A time of a certificate. They lie between the years 0 and 9999, which the system's time can hold.
pub(super) fn time(time: ASN1Time) -> SystemTime {
    let seconds = time.timestamp();
    let distance = Duration::from_secs(seconds.unsigned_abs());
    let found = match seconds {
        0.. => UNIX_EPOCH.checked_add(distance),
        _ => UNIX_EPOCH.checked_sub(distance),
    };
    found.unwrap_or(UNIX_EPOCH)
}

/// A time for messages, as RFC 3339 has it; before 1970 and after 2262 the nearest that can be written.
pub(super) fn rfc3339(time: SystemTime) -> String {
    let mut text = Vec::new();
    Timestamp::from_system(time).write(&mut text);
    String::from_utf8(text).unwrap_or_default()
}

pub(super) fn names(certificate: &X509Certificate<'_>) -> CertificateNames {
    let mut names = CertificateNames::default();
    match certificate.subject_alternative_name() {
        Ok(Some(extension)) => extension.value.general_names.iter().for_each(|name| names.add(name)),
        Ok(None) => {}
        // Names that cannot be read, or are there twice, are names: the common name must not stand in for them.
        Err(_) => {
            names.has_identity = true;
            names.omitted += 1;
        }
    }
    let mut common_names = certificate.subject().iter_common_name();
    if let (Some(name), None) = (common_names.next(), common_names.next()) {
        match name.as_str() {
            Ok(name) if is_text(name) => names.common_name = Some(name.to_owned()),
            Ok(_) | Err(_) => names.omitted += 1,
        }
    }
    names
}

impl CertificateNames {
    fn add(&mut self, name: &GeneralName<'_>) {
        let count = self.dns.len() + self.uris.len() + self.emails.len() + self.ips.len();
        let (list, name) = match name {
            GeneralName::DNSName(name) => (&mut self.dns, Some(*name)),
            GeneralName::URI(name) => (&mut self.uris, Some(*name)),
            GeneralName::RFC822Name(name) => (&mut self.emails, Some(*name)),
            GeneralName::Invalid(Tag(1 | 2 | 6), _) => (&mut self.dns, None),
            GeneralName::IPAddress(bytes) => {
                match address(bytes) {
                    Some(address) if count < NAMES_MAX => self.ips.push(address),
                    Some(_) | None => self.omitted += 1,
                }
                return;
            }
            _ => return,
        };
        self.has_identity = true;
        match name.filter(|name| count < NAMES_MAX && is_text(name)) {
            Some(name) => list.push(name.to_owned()),
            None => self.omitted += 1,
        }
    }
}

/// Whether a name is one that people and settings can write.
fn is_text(name: &str) -> bool {
    !name.is_empty() && name.len() <= NAME_BYTES_MAX && !name.chars().any(char::is_control)
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from);
    v4.or_else(|| <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from))
}

/// Whether a signature is the signer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signature {
    Valid,
    Invalid,
    /// By an algorithm that Forebay does not know.
    Unknown,
}

/// Whether the certificate or revocation list `signed` carries a signature of `signer`.
pub(super) fn signature(signed: &[u8], signer: &X509Certificate<'_>) -> Signature {
    let (Some(signed), Some(key)) = (Signed::from_der(signed), PublicKey::of(signer)) else {
        return Signature::Invalid;
    };
    let mut found = Signature::Unknown;
    for algorithm in provider().signature_verification_algorithms.all {
        let fits = algorithm.public_key_alg_id().as_ref() == key.algorithm
            && algorithm.signature_alg_id().as_ref() == signed.algorithm;
        if fits {
            match algorithm.verify_signature(key.bits, signed.message, signed.signature) {
                Ok(()) => return Signature::Valid,
                Err(_) => found = Signature::Invalid,
            }
        }
    }
    found
}

/// The three parts of which certificates and revocation lists are made.
struct Signed<'a> {
    message: &'a [u8],
    /// The contents of the algorithm's SEQUENCE.
    algorithm: &'a [u8],
    signature: &'a [u8],
}

impl<'a> Signed<'a> {
    fn from_der(der: &'a [u8]) -> Option<Signed<'a>> {
        let (_, whole) = Any::from_der(der).ok()?;
        let parts = whole.data;
        let (rest, _) = Any::from_der(parts).ok()?;
        let message = &parts[..parts.len() - rest.len()];
        let (rest, algorithm) = Any::from_der(rest).ok()?;
        let (_, signature) = Any::from_der(rest).ok()?;
        Some(Signed { message, algorithm: algorithm.data, signature: bits(signature.data)? })
    }
}

struct PublicKey<'a> {
    /// The contents of the algorithm's SEQUENCE.
    algorithm: &'a [u8],
    bits: &'a [u8],
}

impl<'a> PublicKey<'a> {
    fn of(certificate: &X509Certificate<'a>) -> Option<PublicKey<'a>> {
        let (_, whole) = Any::from_der(certificate.tbs_certificate.subject_pki.raw).ok()?;
        let (rest, algorithm) = Any::from_der(whole.data).ok()?;
        let (_, key) = Any::from_der(rest).ok()?;
        Some(PublicKey { algorithm: algorithm.data, bits: bits(key.data)? })
    }
}

/// The bytes of a BIT STRING, all of whose bits are used.
fn bits(contents: &[u8]) -> Option<&[u8]> {
    contents.strip_prefix(&[0])
}
