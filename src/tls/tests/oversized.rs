//! Certificates of clients that are too large, or broken.

use rcgen::SanType;
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::sign::CertifiedKey;

use super::*;

/// Shows whatever it has to every gateway that asks for a certificate.
#[derive(Debug)]
struct ShownAnyway(Arc<CertifiedKey>);

impl ResolvesClientCert for ShownAnyway {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// A client that shows this chain, with the key of a pair, whether they belong together or not.
fn client_showing(
    authority: &Authority,
    chain: Vec<CertificateDer<'static>>,
    pair: &Pair,
    version: &'static SupportedProtocolVersion,
) -> Arc<ClientConfig> {
    let key = PemFile { path: Path::new("client-key.pem"), contents: pair.key.as_bytes() };
    let key = provider().key_provider.load_private_key(pem::private_key(key).expect("a key")).expect("a key");
    let mut config = (*client(authority, None, version)).clone();
    config.client_auth_cert_resolver = Arc::new(ShownAnyway(Arc::new(CertifiedKey::new(chain, key))));
    Arc::new(config)
}

/// A certificate of some 30 KiB.
fn large(authority: &Authority) -> CertificateDer<'static> {
    let mut many = params(&[]);
    let name = |number| SanType::DnsName(format!("p{number}.example").try_into().expect("a name"));
    many.subject_alt_names = (0..2000).map(name).collect();
    authority.issue(many).der
}

#[tokio::test]
async fn a_client_with_hundreds_of_kibibytes_of_certificates_is_turned_away() {
    let (authority, devices) = (Authority::new("here"), Authority::new("devices"));
    let tls = Files::new(&authority.gateway()).client_ca(devices.pem()).tls();
    let device = devices.issue(params(&["plant-7.example"]));
    let filler = large(&devices);
    for version in VERSIONS {
        let client = |count: usize| {
            let chain = std::iter::once(device.der.clone()).chain(vec![filler.clone(); count]).collect();
            client_showing(&authority, chain, &device, version)
        };
        assert_eq!(names(&tls, &client(0)).await, Some(vec!["plant-7.example".to_owned()]));
        assert_eq!(names(&tls, &client(1)).await, Some(vec!["plant-7.example".to_owned()]));
        for count in [3, 8, 20] {
            assert_eq!(refusal(&tls, &client(count)).await, HandshakeFailure::Protocol, "{count}");
        }
    }
}

#[tokio::test]
async fn a_client_with_a_broken_certificate_is_turned_away() {
    let (authority, devices) = (Authority::new("here"), Authority::new("devices"));
    let tls = Files::new(&authority.gateway()).client_ca(devices.pem()).tls();
    let device = devices.issue(params(&["plant-7.example"]));
    let whole = device.der.to_vec();
    let flipped = |at: usize| {
        let mut der = whole.clone();
        der[at] ^= 1;
        der
    };
    let broken = [
        whole[..whole.len() / 2].to_vec(),
        [&whole[..], b"and more"].concat(),
        // In the name, and in the signature.
        flipped(whole.len() / 2),
        flipped(whole.len() - 1),
        vec![0x30],
        vec![0xff; 30_000],
    ];
    for der in broken {
        for version in VERSIONS {
            let client = client_showing(&authority, vec![der.clone().into()], &device, version);
            let reason = refusal(&tls, &client).await;
            assert_eq!(reason, HandshakeFailure::Certificate, "{} bytes", der.len());
        }
    }
}
