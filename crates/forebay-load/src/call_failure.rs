//! Why a call over TLS failed, for people.

use std::error::Error as StdError;
use std::fmt::{self, Display, Formatter};
use std::io;

use rustls::{AlertDescription, CertificateError, Error as TlsError};

/// The fault of TLS that a call ended with. Its text is for people, and names no setting: a server may be called by the
/// gateway or by a command.
#[derive(Clone, Debug, PartialEq)]
pub struct CallFailure(TlsError);

/// Most names of a certificate that a text has, and most characters of each.
const NAMES_MAX: usize = 3;
const NAME_CHARS_MAX: usize = 100;

/// Finds the fault of TLS among the causes of an error.
pub fn of(error: &(dyn StdError + 'static)) -> Option<CallFailure> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(tls) = error.downcast_ref::<TlsError>() {
            return Some(CallFailure(tls.clone()));
        }
        // An error of the system does not name the error inside of it as its source.
        let inside = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = match inside {
            Some(inside) => Some(inside),
            None => error.source(),
        };
    }
    None
}

impl CallFailure {
    /// Whether the server's certificate is of no authority that is trusted.
    pub fn is_unknown_authority(&self) -> bool {
        matches!(self.0, TlsError::InvalidCertificate(CertificateError::UnknownIssuer))
    }

    /// Whether the server turned down the certificate that it was shown, or asks for one.
    pub fn is_about_own_certificate(&self) -> bool {
        matches!(&self.0, TlsError::AlertReceived(alert) if is_about_a_certificate(*alert))
    }
}

impl Display for CallFailure {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        match &self.0 {
            TlsError::InvalidCertificate(error) => write_certificate_error(error, formatter),
            TlsError::InvalidMessage(_) => {
                formatter.write_str("the server does not speak TLS; perhaps its address begins with http://")
            }
            TlsError::AlertReceived(AlertDescription::CertificateRequired) => {
                formatter.write_str("the server asks for a client certificate")
            }
            TlsError::AlertReceived(alert) if is_about_a_certificate(*alert) => {
                write!(formatter, "the server refuses the client certificate, or asks for one ({alert:?})")
            }
            TlsError::AlertReceived(alert) => {
                write!(formatter, "the server ended the handshake of TLS ({alert:?})")
            }
            TlsError::PeerIncompatible(_) => {
                formatter.write_str("the server speaks no TLS that is known here, which is 1.2 and 1.3")
            }
            other => write!(formatter, "TLS: {other}"),
        }
    }
}

fn write_certificate_error(error: &CertificateError, formatter: &mut Formatter<'_>) -> fmt::Result {
    match error {
        CertificateError::UnknownIssuer => {
            formatter.write_str("the server's certificate is of no authority that is trusted")
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            formatter.write_str("the server's certificate has expired; or a clock is wrong")
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            formatter.write_str("the server's certificate is not valid yet; or a clock is wrong")
        }
        CertificateError::NotValidForNameContext { expected, presented } => {
            write!(formatter, "the server's certificate is not for `{}`; it has ", expected.to_str())?;
            write_names(presented, formatter)
        }
        // What a client says that accepts one certificate alone.
        CertificateError::ApplicationVerificationFailure => {
            formatter.write_str("the server shows another certificate than the one that is expected")
        }
        CertificateError::Revoked => formatter.write_str("the server's certificate is revoked"),
        other => write!(formatter, "the server's certificate: {other}"),
    }
}

/// Writes some of the names of a certificate, which may have any number of them.
fn write_names(presented: &[String], formatter: &mut Formatter<'_>) -> fmt::Result {
    if presented.is_empty() {
        return formatter.write_str("no name");
    }
    let name = |name: &String| bare(name).chars().take(NAME_CHARS_MAX).collect::<String>();
    let names: Vec<_> = presented.iter().take(NAMES_MAX).map(name).collect();
    formatter.write_str(&names.join(", "))?;
    match presented.len() - names.len() {
        0 => Ok(()),
        more => write!(formatter, " and {more} more"),
    }
}

/// The name in what rustls says of it, such as `DnsName("store.example")`.
fn bare(presented: &str) -> &str {
    presented.split('"').nth(1).unwrap_or(presented)
}

fn is_about_a_certificate(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::NoCertificate
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
            | AlertDescription::CertificateRequired
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fault_of_tls_is_found_within_other_errors_and_told_in_words() {
        let within = |error: TlsError| io::Error::other(io::Error::new(io::ErrorKind::InvalidData, error));
        let told = |error: TlsError| of(&within(error)).expect("a fault of TLS").to_string();
        let unknown = TlsError::InvalidCertificate(CertificateError::UnknownIssuer);
        assert!(of(&within(unknown.clone())).expect("a fault").is_unknown_authority());
        assert_eq!(told(unknown), "the server's certificate is of no authority that is trusted");
        let required = TlsError::AlertReceived(AlertDescription::CertificateRequired);
        assert!(of(&within(required.clone())).expect("a fault").is_about_own_certificate());
        assert_eq!(told(required), "the server asks for a client certificate");
        let other = CertificateError::NotValidForNameContext {
            expected: "store".try_into().expect("a name"),
            presented: vec![r#"DnsName("a")"#.to_owned(), "b".to_owned()],
        };
        let many = CertificateError::NotValidForNameContext {
            expected: "store".try_into().expect("a name"),
            presented: vec!["n".repeat(1000); 1000],
        };
        let told_of_many = told(TlsError::InvalidCertificate(many));
        assert!(told_of_many.len() < 400 && told_of_many.ends_with("n and 997 more"), "{told_of_many}");
        assert_eq!(
            told(TlsError::InvalidCertificate(other)),
            "the server's certificate is not for `store`; it has a, b"
        );
        assert_eq!(of(&io::Error::other("another fault")), None);
    }
}
