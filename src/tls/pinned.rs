//! Trust in one exact certificate, whoever issued it: the gateway's own. With it `forebay healthcheck` recognizes the
//! gateway, and the gateway recognizes `forebay healthcheck`.
//!
//! The certificate is compared byte by byte. Its issuer, names, purposes and validity do not count, so that a health check
//! does not depend on an authority, on the name of the host, or on the end of the certificate. The handshake proves that the
//! other end has the key: its signature is verified as always.

use std::sync::Arc;

use rustls::client::ResolvesClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error as TlsError,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::identity::TlsIdentity;
use super::{ALPN, provider};

/// Whether a client shows a certificate to a server that asks for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShownCertificate {
    /// The gateway's own.
    Own,
    /// None.
    None,
}

/// The settings of rustls for a client that connects to the gateway with this identity, and to no other server.
pub fn client_config(identity: &TlsIdentity, shown: ShownCertificate) -> ClientConfig {
    let verifier = PinnedVerifier { leaf: identity.leaf_der().clone(), provider: provider() };
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("the provider knows TLS 1.2 and 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match shown {
        ShownCertificate::Own => {
            let resolver: Arc<dyn ResolvesClientCert> =
                Arc::new(SingleCertAndKey::from(identity.certified_key()));
            builder.with_client_cert_resolver(resolver)
        }
        ShownCertificate::None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    config
}

/// Accepts servers with one certificate.
#[derive(Debug)]
struct PinnedVerifier {
    leaf: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinnedVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        match *end_entity == self.leaf {
            true => Ok(ServerCertVerified::assertion()),
            false => Err(TlsError::InvalidCertificate(CertificateError::ApplicationVerificationFailure)),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Accepts clients with the gateway's own certificate, and leaves all others to another verifier.
#[derive(Debug)]
pub(super) struct OwnLeafVerifier {
    pub(super) leaf: CertificateDer<'static>,
    pub(super) others: Arc<dyn ClientCertVerifier>,
}

impl ClientCertVerifier for OwnLeafVerifier {
    fn offer_client_auth(&self) -> bool {
        self.others.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.others.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.others.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, TlsError> {
        match *end_entity == self.leaf {
            true => Ok(ClientCertVerified::assertion()),
            false => self.others.verify_client_cert(end_entity, intermediates, now),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.others.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.others.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.others.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use forebay_reading::clock::wall_time;
    use rustls::sign::CertifiedKey;
    use rustls::{HandshakeKind, ServerConfig};
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::super::failure::HandshakeFailure;
    use super::super::identity::Side;
    use super::super::pem::PemFile;
    use super::super::tests::{
        Authority, DAY, Files, HOST, Pair, VERSIONS, client, kind, params, refusal, shake, valid,
    };
    use super::*;

    fn identity(pair: &Pair) -> TlsIdentity {
        let file = |text: &'static str| PemFile { path: Path::new("own.pem"), contents: text.as_bytes() };
        let (certificate, key) = (pair.certificate.clone().leak(), pair.key.clone().leak());
        TlsIdentity::new(file(certificate), file(key), Side::Server).expect("a pair")
    }

    /// A client that accepts only a gateway with this pair.
    fn pinned(pair: &Pair, shown: ShownCertificate) -> Arc<ClientConfig> {
        Arc::new(client_config(&identity(pair), shown))
    }

    #[tokio::test]
    async fn a_client_with_the_gateways_own_pair_is_accepted_and_has_no_names() {
        let devices = Authority::new("devices");
        let mut expired = params(&["elsewhere.example"]);
        valid(&mut expired, wall_time() - 2 * DAY, wall_time() - DAY);
        // A self-signed certificate, one of an authority that is unknown, and one that is past its end.
        let (here, other) = (Authority::new("here"), Authority::new("other"));
        for own in [here.own_pair(), here.gateway(), here.issue(expired)] {
            let tls = Files::new(&own).client_ca(devices.pem()).required().tls();
            let client = pinned(&own, ShownCertificate::Own);
            let (server, client_end) = shake(&tls, &client).await;
            client_end.expect("the client is let in");
            assert_eq!(server.expect("the client is let in").client, None);
            assert_eq!(kind(&tls, &client).await, HandshakeKind::Resumed, "it is verified once more");
            tls.verify_client(std::slice::from_ref(&own.der), wall_time()).expect("it is verified once more");

            let none = pinned(&own, ShownCertificate::None);
            assert_eq!(refusal(&tls, &none).await, HandshakeFailure::NoCertificate);
            // Not the gateway's own, although the names are the same.
            for stranger in [other.own_pair(), here.gateway()] {
                let refused = tls.verify_client(std::slice::from_ref(&stranger.der), wall_time());
                assert_eq!(refused.expect_err("a stranger"), HandshakeFailure::Certificate);
                let client = pinned_and_showing(&own, &stranger);
                assert_eq!(refusal(&tls, &client).await, HandshakeFailure::Certificate);
            }
        }
    }

    /// A client that knows only `own`, and shows another pair.
    fn pinned_and_showing(own: &Pair, other: &Pair) -> Arc<ClientConfig> {
        let mut config = (*pinned(own, ShownCertificate::None)).clone();
        config.client_auth_cert_resolver =
            Arc::clone(&pinned(other, ShownCertificate::Own).client_auth_cert_resolver);
        Arc::new(config)
    }

    #[tokio::test]
    async fn a_session_of_the_former_certificate_is_not_resumed_under_the_new_one() {
        let (here, devices) = (Authority::new("here"), Authority::new("devices"));
        let former = here.gateway();
        let files = Files::new(&former).client_ca(devices.pem()).required();
        let old = files.tls();
        let client = pinned(&former, ShownCertificate::Own);
        assert_eq!(kind(&old, &client).await, HandshakeKind::Full);
        let new = files.clone().pair(&here.gateway()).renewed(&old);
        assert_eq!(refusal(&new, &client).await, HandshakeFailure::Certificate);
    }

    /// The certificate of one pair with the key of another.
    fn mismatched(own: &Pair, other: &Pair) -> Arc<SingleCertAndKey> {
        let (own, other) = (identity(own).certified_key(), identity(other).certified_key());
        let key = CertifiedKey::new(own.cert.clone(), Arc::clone(&other.key));
        Arc::new(SingleCertAndKey::from(key))
    }

    #[tokio::test]
    async fn a_server_with_another_certificate_is_refused() {
        let here = Authority::new("here");
        let own = here.gateway();
        let client = pinned(&own, ShownCertificate::Own);
        let other = Files::new(&here.gateway()).tls();
        assert!(shake(&other, &client).await.1.is_err(), "it has the same authority and name");
        shake(&Files::new(&own).tls(), &client).await.1.expect("the own certificate");
    }

    #[tokio::test]
    async fn a_server_with_the_certificate_and_without_its_key_is_refused() {
        let here = Authority::new("here");
        let (own, other) = (here.gateway(), here.gateway());
        let client = pinned(&own, ShownCertificate::None);
        for version in VERSIONS {
            let server = ServerConfig::builder_with_provider(provider())
                .with_protocol_versions(&[version])
                .expect("a version")
                .with_no_client_auth()
                .with_cert_resolver(mismatched(&own, &other));
            let (near, far) = tokio::io::duplex(64 << 10);
            let name = ServerName::try_from(HOST).expect("a name");
            let accepted = TlsAcceptor::from(Arc::new(server)).accept(near);
            let connected = TlsConnector::from(Arc::clone(&client)).connect(name, far);
            let (_, connected) = tokio::join!(accepted, connected);
            let error = connected.expect_err("the signature is of another key").to_string();
            assert!(error.contains("BadSignature"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_client_with_the_own_certificate_and_without_its_key_is_refused() {
        let (here, devices) = (Authority::new("here"), Authority::new("devices"));
        let (own, other) = (here.gateway(), here.gateway());
        let tls = Files::new(&own).client_ca(devices.pem()).required().tls();
        for version in VERSIONS {
            let mut config = (*client(&here, None, version)).clone();
            config.client_auth_cert_resolver = mismatched(&own, &other);
            let (server, _) = shake(&tls, &Arc::new(config)).await;
            let error = server.expect_err("the signature is of another key").to_string();
            assert!(error.contains("BadSignature"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_client_that_is_trusted_keeps_its_names_beside_the_own_certificate() {
        let (here, devices) = (Authority::new("here"), Authority::new("devices"));
        let tls = Files::new(&here.gateway()).client_ca(devices.pem()).required().tls();
        let device = devices.issue(params(&["plant-7.example"]));
        for version in VERSIONS {
            let (server, _) = shake(&tls, &client(&here, Some(&device), version)).await;
            let shown = server.expect("the device is known").client.expect("a certificate");
            assert_eq!(shown.names(), ["plant-7.example"]);
        }
    }
}
