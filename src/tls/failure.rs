//! Why a handshake failed, as one of a few reasons for a metric's label.

use std::io::{self, ErrorKind};

use rustls::{CertificateError, Error as TlsError};
use thiserror::Error;

/// Why there is no connection. The messages are for the gateway's log; the client gets an alert of TLS.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq, Hash)]
pub enum HandshakeFailure {
    /// The client took longer than a handshake may take.
    #[error("the client did not complete the handshake in time")]
    Timeout,
    /// The client speaks HTTP without TLS.
    #[error("the client speaks plain HTTP on a TLS port: its address must begin with https://")]
    PlainHttp,
    /// No version, cipher or protocol in common, or no TLS at all.
    #[error("the client speaks no TLS that the gateway knows: 1.2 and 1.3, with http/1.1")]
    Protocol,
    /// The client must show a certificate and did not.
    #[error("the client has shown no certificate, and one is required")]
    NoCertificate,
    /// The client's certificate is of no authority that is known, is broken, or is not for clients.
    #[error("the client's certificate is of no known authority, is broken, or is not for clients")]
    Certificate,
    /// The client's certificate is past its end, or before its beginning.
    #[error("the client's certificate has expired, or is not valid yet; or a clock is wrong")]
    Expired,
    /// A revocation list has the client's certificate, or that of an authority between.
    #[error("the client's certificate is revoked")]
    Revoked,
    /// The client turned the gateway's certificate down.
    #[error("the client refused the gateway's certificate: it does not know the authority, or the name")]
    Refused,
    /// The connection ended before the handshake did.
    #[error("the client closed the connection during the handshake")]
    Closed,
}

impl HandshakeFailure {
    /// All of them, for a table of metrics.
    pub const ALL: [HandshakeFailure; 9] = [
        HandshakeFailure::Timeout,
        HandshakeFailure::PlainHttp,
        HandshakeFailure::Protocol,
        HandshakeFailure::NoCertificate,
        HandshakeFailure::Certificate,
        HandshakeFailure::Expired,
        HandshakeFailure::Revoked,
        HandshakeFailure::Refused,
        HandshakeFailure::Closed,
    ];

    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            HandshakeFailure::Timeout => "timeout",
            HandshakeFailure::PlainHttp => "plain_http",
            HandshakeFailure::Protocol => "protocol",
            HandshakeFailure::NoCertificate => "no_certificate",
            HandshakeFailure::Certificate => "certificate",
            HandshakeFailure::Expired => "expired",
            HandshakeFailure::Revoked => "revoked",
            HandshakeFailure::Refused => "refused",
            HandshakeFailure::Closed => "closed",
        }
    }

    /// What an error of the stream means for a client whose connection began with `first` bytes.
    pub(super) fn of(error: &io::Error, first: &[u8]) -> HandshakeFailure {
        let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>());
        match tls {
            Some(TlsError::InvalidMessage(_)) if is_http(first) => HandshakeFailure::PlainHttp,
            Some(tls) => HandshakeFailure::from(tls),
            None if error.kind() == ErrorKind::InvalidData => HandshakeFailure::Protocol,
            None => HandshakeFailure::Closed,
        }
    }
}

impl From<&TlsError> for HandshakeFailure {
    fn from(error: &TlsError) -> HandshakeFailure {
        match error {
            TlsError::NoCertificatesPresented => HandshakeFailure::NoCertificate,
            TlsError::InvalidCertificate(
                CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. },
            ) => HandshakeFailure::Expired,
            TlsError::InvalidCertificate(CertificateError::Revoked) => HandshakeFailure::Revoked,
            TlsError::InvalidCertificate(_) | TlsError::InvalidCertRevocationList(_) => {
                HandshakeFailure::Certificate
            }
            TlsError::AlertReceived(alert) if is_about_a_certificate(*alert) => HandshakeFailure::Refused,
            _ => HandshakeFailure::Protocol,
        }
    }
}

fn is_about_a_certificate(alert: rustls::AlertDescription) -> bool {
    use rustls::AlertDescription as Alert;
    matches!(
        alert,
        Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::AccessDenied
            // What clients say that stop without a reason, such as a browser whose user turns back.
            | Alert::UserCanceled
    )
}

/// The beginnings of requests, the preface of HTTP/2 among them.
const METHODS: &[&[u8]] = &[
    b"GET ",
    b"POST ",
    b"PUT ",
    b"HEAD ",
    b"OPTIONS ",
    b"DELETE ",
    b"PATCH ",
    b"TRACE ",
    b"CONNECT ",
    b"PRI ",
];

/// Whether a connection that began with these bytes is one of plain HTTP.
fn is_http(first: &[u8]) -> bool {
    METHODS.iter().any(|method| first.starts_with(method))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_told_by_its_method() {
        for request in ["GET / HTTP/1.1", "POST /v1/readings", "OPTIONS *", "CONNECT a:1", "PRI * HTTP/2.0"] {
            assert!(is_http(&request.as_bytes()[..8]), "{request}");
        }
        for other in
            [&b"\x16\x03\x01\x02\x00\x01\x00\x01"[..], b"", b"GE", b"SSH-2.0-", b"get / HT", b"GETTING "]
        {
            assert!(!is_http(other), "{other:?}");
        }
    }

    #[test]
    fn every_reason_has_a_name_of_its_own() {
        let names: std::collections::BTreeSet<_> = HandshakeFailure::ALL.map(HandshakeFailure::name).into();
        assert_eq!(names.len(), HandshakeFailure::ALL.len());
    }

    #[test]
    fn errors_of_rustls_have_the_reason_that_an_operator_looks_for() {
        let check = |error: TlsError, expected| {
            let error = io::Error::new(ErrorKind::InvalidData, error);
            assert_eq!(HandshakeFailure::of(&error, b"\x16\x03"), expected, "{error}");
        };
        check(TlsError::NoCertificatesPresented, HandshakeFailure::NoCertificate);
        check(CertificateError::NotValidYet.into(), HandshakeFailure::Expired);
        check(CertificateError::Revoked.into(), HandshakeFailure::Revoked);
        check(CertificateError::BadEncoding.into(), HandshakeFailure::Certificate);
        check(TlsError::AlertReceived(rustls::AlertDescription::UnknownCA), HandshakeFailure::Refused);
        check(TlsError::AlertReceived(rustls::AlertDescription::ProtocolVersion), HandshakeFailure::Protocol);
        check(TlsError::NoApplicationProtocol, HandshakeFailure::Protocol);
        let closed = io::Error::from(ErrorKind::UnexpectedEof);
        assert_eq!(HandshakeFailure::of(&closed, b""), HandshakeFailure::Closed);
    }
}
