//! The names that a client's certificate gives its owner.

use std::time::SystemTime;

use rustls_pki_types::CertificateDer;
use thiserror::Error;

use super::x509::{self, CERTIFICATE_BYTES_MAX, CertificateNames};

/// A client's certificate, as far as it says who the client is. That it is trusted was found out before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    names: Vec<String>,
    omitted: usize,
    not_after: SystemTime,
}

/// Why nothing can be said of the owner of a certificate.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum ClientCertificateError {
    /// More than [`CERTIFICATE_BYTES_MAX`].
    #[error("the client's certificate has {bytes} bytes; at most {CERTIFICATE_BYTES_MAX} are allowed")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// No X.509.
    #[error("the client's certificate cannot be read as one of X.509")]
    Broken,
}

impl ClientCertificate {
    /// Reads the names and the end of a certificate.
    ///
    /// Its names are exactly the DNS, URI and e-mail names among its subject alternative names, of which it has at most
    /// [`x509::NAMES_MAX`] of [`x509::NAME_BYTES_MAX`] bytes. Only where there is no such name at all, not even one that
    /// was left out, its one common name counts. A name that is too long, no text, or has control characters is left
    /// out ([`ClientCertificate::omitted`]); the others hold.
    ///
    /// # Errors
    ///
    /// The certificate is too large or broken.
    pub fn from_der(der: &CertificateDer<'_>) -> Result<ClientCertificate, ClientCertificateError> {
        if der.len() > CERTIFICATE_BYTES_MAX {
            return Err(ClientCertificateError::TooLarge { bytes: der.len() });
        }
        let certificate = x509::certificate(der).ok_or(ClientCertificateError::Broken)?;
        let not_after = x509::validity(&certificate).not_after;
        let CertificateNames { dns, uris, emails, ips: _, common_name, omitted, has_identity } =
            x509::names(&certificate);
        let names = match has_identity {
            true => [dns, uris, emails].concat(),
            false => common_name.into_iter().collect(),
        };
        Ok(ClientCertificate { names, omitted, not_after })
    }

    /// Its names, to be compared byte by byte.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// How many names were left out; more than 0 is worth a line in the log.
    pub fn omitted(&self) -> usize {
        self.omitted
    }

    /// Its last second. Connections outlive it, so it is looked at with every request.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// Whether its owner is nobody any more at `now`.
    pub fn is_expired(&self, now: SystemTime) -> bool {
        now > self.not_after
    }
}

#[cfg(test)]
mod tests {
    use forebay_reading::clock::wall_time;
    use proptest::prelude::*;
    use rcgen::{CertificateParams, CustomExtension, DnType, DnValue, SanType};

    use super::super::tests::{Authority, DAY, params};
    use super::super::x509::{NAME_BYTES_MAX, NAMES_MAX};
    use super::*;

    fn read(params: CertificateParams) -> ClientCertificate {
        ClientCertificate::from_der(&Authority::new("devices").issue(params).der).expect("a certificate")
    }

    fn text<T: TryFrom<String, Error: std::fmt::Debug>>(text: &str) -> T {
        T::try_from(text.to_owned()).expect("ASCII")
    }

    #[test]
    fn names_are_those_of_the_three_kinds_and_the_common_name_only_without_them() {
        let check = |alternatives: &[SanType], expected: &[&str]| {
            let mut params = params(&[]);
            params.subject_alt_names = alternatives.to_vec();
            params.distinguished_name.push(DnType::CommonName, "common");
            let certificate = read(params);
            assert_eq!(certificate.names(), expected, "{alternatives:?}");
            assert_eq!(certificate.omitted(), 0);
        };
        let dns = || SanType::DnsName(text("plant-7.example"));
        let uri = || SanType::URI(text("spiffe://plants/7"));
        let email = || SanType::Rfc822Name(text("plant-7@example.org"));
        let ip = || SanType::IpAddress([192, 0, 2, 7].into());
        check(&[email(), uri(), dns()], &["plant-7.example", "spiffe://plants/7", "plant-7@example.org"]);
        check(&[uri(), ip()], &["spiffe://plants/7"]);
        check(&[ip()], &["common"]);
        check(&[], &["common"]);
    }

    #[test]
    fn its_end_is_an_end() {
        let certificate = read(params(&["plant-7.example"]));
        assert!(!certificate.is_expired(wall_time()));
        assert!(!certificate.is_expired(certificate.not_after()));
        assert!(certificate.is_expired(wall_time() + DAY));
    }

    #[test]
    fn names_that_nobody_could_write_are_left_out_and_counted() {
        let check = |alternatives: Vec<SanType>, common: &str, expected: &[&str], omitted: usize| {
            let mut params = params(&[]);
            params.subject_alt_names = alternatives;
            params.distinguished_name.push(DnType::CommonName, common);
            let certificate = read(params);
            assert_eq!(certificate.names(), expected);
            assert_eq!(certificate.omitted(), omitted);
        };
        let dns = |name: &str| SanType::DnsName(text(name));
        check(vec![dns("good.example\0.evil.example"), dns("b.example")], "common", &["b.example"], 1);
        // Nor does the common name stand in for it.
        check(vec![dns("a\nb")], "common", &[], 1);
        check(vec![dns("")], "common", &[], 1);
        let long = "x".repeat(NAME_BYTES_MAX);
        check(vec![dns(&long), dns(&format!("{long}x"))], "common", &[&long], 1);
        check(vec![], "com\0mon", &[], 1);
        check(vec![], &format!("{long}x"), &[], 1);
    }

    #[test]
    fn common_names_that_are_several_or_no_text_are_none() {
        let mut several = params(&[]);
        several.distinguished_name.push(DnType::CommonName, "one");
        several.distinguished_name.push(DnType::CustomDnType(vec![2, 5, 4, 3]), "two");
        assert_eq!(read(several).names(), [""; 0]);
        let mut other = params(&[]);
        let name = rcgen::string::BmpString::try_from("plant").expect("text");
        other.distinguished_name.push(DnType::CommonName, DnValue::BmpString(name));
        let certificate = read(other);
        assert_eq!((certificate.names(), certificate.omitted()), (&[][..], 1));
    }

    #[test]
    fn thousands_of_names_are_read_up_to_the_limit() {
        let mut many = params(&[]);
        many.subject_alt_names =
            (0..2000).map(|n| SanType::DnsName(text(&format!("p{n}.example")))).collect();
        let certificate = read(many);
        assert_eq!((certificate.names().len(), certificate.omitted()), (NAMES_MAX, 2000 - NAMES_MAX));
        let mut huge = params(&[]);
        huge.subject_alt_names =
            (0..8000).map(|n| SanType::DnsName(text(&format!("p{n}.example")))).collect();
        let huge = Authority::new("devices").issue(huge).der;
        let bytes = huge.len();
        assert_eq!(ClientCertificate::from_der(&huge), Err(ClientCertificateError::TooLarge { bytes }));
    }

    #[test]
    fn broken_alternative_names_are_not_replaced_by_the_common_name() {
        for content in
            [b"\x30\x03\x82\x05a".to_vec(), b"\x04\x01a".to_vec(), b"\x30\x03\x82\x01\xff".to_vec()]
        {
            let mut params = params(&[]);
            params.distinguished_name.push(DnType::CommonName, "common");
            params.custom_extensions = vec![CustomExtension::from_oid_content(&[2, 5, 29, 17], content)];
            let der = Authority::new("devices").issue(params).der;
            let names = ClientCertificate::from_der(&der).map(|certificate| certificate.names().to_vec());
            assert!(
                names.as_deref().is_ok_and(<[String]>::is_empty)
                    || names == Err(ClientCertificateError::Broken)
            );
        }
    }

    #[test]
    fn broken_certificates_never_panic() {
        let authority = Authority::new("devices");
        let whole = authority.issue(params(&["plant-7.example", "192.0.2.7"])).der;
        for end in 0..whole.len() {
            let cut = CertificateDer::from(whole[..end].to_vec());
            assert_eq!(
                ClientCertificate::from_der(&cut),
                Err(ClientCertificateError::Broken),
                "cut at {end}"
            );
        }
        let more = CertificateDer::from([&whole[..], &[0]].concat());
        assert_eq!(ClientCertificate::from_der(&more), Err(ClientCertificateError::Broken));
        let places = proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..6);
        proptest!(ProptestConfig::with_cases(2000), |(places in places, cut in any::<proptest::sample::Index>())| {
            let mut der = whole.to_vec();
            for (place, byte) in places {
                *place.get_mut(&mut der) = byte;
            }
            let signer = x509::certificate(authority.der()).expect("an authority");
            for der in [&der[..], &der[..cut.index(der.len())]] {
                let _ = ClientCertificate::from_der(&CertificateDer::from(der));
                let _ = (x509::revocation_list(der), x509::signature(der, &signer));
            }
        });
    }
}
