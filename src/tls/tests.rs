//! Handshakes in memory between rustls and the gateway, with certificates that are made anew for each test.

mod oversized;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use forebay_reading::clock::wall_time;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, HandshakeKind, ProtocolVersion, RootCertStore, SupportedProtocolVersion};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio_rustls::TlsConnector;

use super::failure::HandshakeFailure;
use super::handshake::{HandshakeError, TlsConnection, accept};
use super::pem::{self, PemFile};
use super::provider;
use super::server::{ServerTls, ServerTlsConfig, ServerTlsError};
use super::trust::ClientCertificates;

/// Longest wait for something that must happen.
const PATIENCE: Duration = Duration::from_secs(20);
pub(super) const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// How the gateway of these tests is called.
pub(super) const HOST: &str = "gateway.example";

/// An authority that issues certificates and revocation lists.
pub(super) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key.
pub(super) struct Pair {
    pub certificate: String,
    pub key: String,
    pub der: CertificateDer<'static>,
    serial: SerialNumber,
}

/// Something for a certificate that is valid for a day around now.
pub(super) fn params(names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("names");
    params.distinguished_name.remove(DnType::CommonName);
    valid(&mut params, wall_time() - DAY, wall_time() + DAY);
    params
}

pub(super) fn valid(params: &mut CertificateParams, from: SystemTime, to: SystemTime) {
    (params.not_before, params.not_after) = (from.into(), to.into());
}

fn serial() -> SerialNumber {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    SerialNumber::from(NEXT.fetch_add(1, Ordering::Relaxed))
}

impl Authority {
    pub fn new(name: &str) -> Authority {
        let issuer =
            CertifiedIssuer::self_signed(Authority::params(name), KeyPair::generate().expect("a key"));
        Authority { issuer: issuer.expect("an authority") }
    }

    /// Its own certificate with its key.
    pub fn own_pair(&self) -> Pair {
        let (certificate, der) = (self.pem(), self.der().clone());
        Pair { certificate, key: self.issuer.key().serialize_pem(), serial: serial_of(&der), der }
    }

    /// One that is issued by this one.
    pub fn below(&self, name: &str) -> Authority {
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::signed_by(Authority::params(name), key, &self.issuer);
        Authority { issuer: issuer.expect("an authority") }
    }

    fn params(name: &str) -> CertificateParams {
        let mut params = params(&[]);
        params.distinguished_name.push(DnType::CommonName, name);
        params.serial_number = Some(serial());
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params
    }

    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    pub fn der(&self) -> &CertificateDer<'static> {
        self.issuer.der()
    }

    pub fn issue(&self, params: CertificateParams) -> Pair {
        self.issue_for(params, &KeyPair::generate().expect("a key"))
    }

    pub fn issue_for(&self, mut params: CertificateParams, key: &KeyPair) -> Pair {
        let serial = params.serial_number.get_or_insert_with(serial).clone();
        let certificate = params.signed_by(key, &self.issuer).expect("a certificate");
        Pair {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
            der: certificate.der().clone(),
            serial,
        }
    }

    /// A certificate of the gateway.
    pub fn gateway(&self) -> Pair {
        self.issue(params(&[HOST]))
    }

    /// A list of the revoked ones, due for a new one at `next_update`.
    pub fn crl(&self, revoked: &[&Pair], next_update: SystemTime) -> String {
        let revoked = revoked.iter().map(|pair| RevokedCertParams {
            serial_number: pair.serial.clone(),
            revocation_time: wall_time().into(),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: (next_update - 2 * DAY).into(),
            next_update: next_update.into(),
            crl_number: serial(),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).expect("a list").pem().expect("PEM")
    }
}

/// The files of a gateway.
#[derive(Clone)]
pub(super) struct Files {
    certificate: String,
    key: String,
    client_ca: Option<String>,
    crl: Option<String>,
    client_certificates: ClientCertificates,
}

impl Files {
    pub fn new(pair: &Pair) -> Files {
        let (certificate, key) = (pair.certificate.clone(), pair.key.clone());
        Files {
            certificate,
            key,
            client_ca: None,
            crl: None,
            client_certificates: ClientCertificates::Optional,
        }
    }

    pub fn pair(self, pair: &Pair) -> Files {
        Files { certificate: pair.certificate.clone(), key: pair.key.clone(), ..self }
    }

    pub fn client_ca(self, pem: String) -> Files {
        Files { client_ca: Some(pem), ..self }
    }

    pub fn crl(self, pem: String) -> Files {
        Files { crl: Some(pem), ..self }
    }

    pub fn required(self) -> Files {
        Files { client_certificates: ClientCertificates::Required, ..self }
    }

    fn config(&self) -> ServerTlsConfig {
        ServerTlsConfig {
            certificate: PathBuf::from("chain.pem"),
            key: PathBuf::from("key.pem"),
            client_ca: self.client_ca.is_some().then(|| PathBuf::from("client-ca.pem")),
            crl: self.crl.is_some().then(|| PathBuf::from("crl.pem")),
            client_certificates: self.client_certificates,
        }
    }

    fn contents(&self, path: &Path) -> &[u8] {
        let text = match path.to_str().expect("a name") {
            "chain.pem" => Some(&self.certificate),
            "key.pem" => Some(&self.key),
            "client-ca.pem" => self.client_ca.as_ref(),
            "crl.pem" => self.crl.as_ref(),
            other => panic!("{other} is none of the files"),
        };
        text.expect("a file that is set").as_bytes()
    }

    pub fn try_tls(&self) -> Result<ServerTls, ServerTlsError> {
        let config = self.config();
        assert!(config.paths().all(|path| !self.contents(path).is_empty()));
        ServerTls::new(&config, |path| self.contents(path))
    }

    pub fn tls(&self) -> ServerTls {
        self.try_tls().expect("files that fit")
    }

    pub fn try_renewed(&self, old: &ServerTls) -> Result<ServerTls, ServerTlsError> {
        let (config, contents) = (self.config(), |path: &Path| self.contents(path));
        old.with_identity(&config, contents, wall_time())?.with_clients(&config, contents)
    }

    pub fn renewed(&self, old: &ServerTls) -> ServerTls {
        self.try_renewed(old).expect("files that fit")
    }
}

pub(super) const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

/// A client of one version, which trusts the authority, and has a certificate if one is given.
pub(super) fn client(
    authority: &Authority,
    pair: Option<&Pair>,
    version: &'static SupportedProtocolVersion,
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.der().clone()).expect("an authority");
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[version])
        .expect("a version")
        .with_root_certificates(roots);
    let file =
        |contents: &'static str| PemFile { path: Path::new("client.pem"), contents: contents.as_bytes() };
    let mut config = match pair {
        Some(pair) => {
            let chain = pem::certificates(file(pair.certificate.clone().leak())).expect("a chain");
            let key = pem::private_key(file(pair.key.clone().leak())).expect("a key");
            builder.with_client_auth_cert(chain, key).expect("a pair")
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}

type ServerEnd = Result<TlsConnection<DuplexStream>, HandshakeError>;
type ClientEnd = io::Result<tokio_rustls::client::TlsStream<DuplexStream>>;

/// Shakes hands, and has the client read a byte: with TLS 1.3 it learns of a refusal and of tickets only then.
pub(super) async fn shake(tls: &ServerTls, client: &Arc<ClientConfig>) -> (ServerEnd, ClientEnd) {
    let (near, far) = duplex(64 << 10);
    let server = async {
        let mut connection = accept(tls, near, PATIENCE).await?;
        // A client that has left is told by the other end.
        let _ = connection.stream.write_all(b"x").await;
        let _ = connection.stream.flush().await;
        Ok(connection)
    };
    let client = async {
        let name = ServerName::try_from(HOST).expect("a name");
        let mut stream = TlsConnector::from(Arc::clone(client)).connect(name, far).await?;
        stream.read_u8().await?;
        Ok(stream)
    };
    tokio::join!(server, client)
}

/// The names that a client is known by, which is let in.
async fn names(tls: &ServerTls, client: &Arc<ClientConfig>) -> Option<Vec<String>> {
    let (server, client) = shake(tls, client).await;
    client.expect("the client is let in");
    server.expect("the client is let in").client.map(|client| client.names().to_vec())
}

/// Why a client is turned away, and that it is.
pub(super) async fn refusal(tls: &ServerTls, client: &Arc<ClientConfig>) -> HandshakeFailure {
    let (server, client) = shake(tls, client).await;
    assert!(client.is_err(), "the client takes itself for connected");
    server.expect_err("the client is turned away").reason
}

pub(super) async fn kind(tls: &ServerTls, client: &Arc<ClientConfig>) -> HandshakeKind {
    let connection = shake(tls, client).await.0.expect("the client is let in");
    connection.stream.get_ref().1.handshake_kind().expect("it is complete")
}

#[tokio::test]
async fn both_versions_of_tls_carry_http_1_1() {
    let authority = Authority::new("here");
    let tls = Files::new(&authority.gateway()).tls();
    for (version, expected) in VERSIONS.into_iter().zip([ProtocolVersion::TLSv1_2, ProtocolVersion::TLSv1_3])
    {
        let (server, client) = shake(&tls, &client(&authority, None, version)).await;
        let (server, client) = (server.expect("a connection"), client.expect("a connection"));
        assert_eq!(server.client, None);
        let (_, session) = client.get_ref();
        assert_eq!(session.protocol_version(), Some(expected));
        assert_eq!(session.alpn_protocol(), Some(&b"http/1.1"[..]));
    }
}

#[tokio::test]
async fn a_client_of_another_protocol_is_turned_away_for_it() {
    let authority = Authority::new("here");
    let tls = Files::new(&authority.gateway()).tls();
    for version in VERSIONS {
        let mut h2 = (*client(&authority, None, version)).clone();
        h2.alpn_protocols = vec![b"h2".to_vec()];
        assert_eq!(refusal(&tls, &Arc::new(h2)).await, HandshakeFailure::Protocol);
    }
}

#[tokio::test]
async fn a_client_that_does_not_know_the_authority_says_so() {
    let tls = Files::new(&Authority::new("here").gateway()).tls();
    for version in VERSIONS {
        let client = client(&Authority::new("elsewhere"), None, version);
        assert_eq!(refusal(&tls, &client).await, HandshakeFailure::Refused);
    }
}

#[tokio::test]
async fn an_optional_client_certificate_names_its_owner_and_must_be_trusted() {
    let (authority, devices) = (Authority::new("here"), Authority::new("devices"));
    let tls = Files::new(&authority.gateway()).client_ca(devices.pem()).tls();
    let (known, unknown) =
        (devices.issue(params(&["plant-7.example"])), authority.issue(params(&["plant-7.example"])));
    for version in VERSIONS {
        let client = |pair| client(&authority, pair, version);
        assert_eq!(names(&tls, &client(None)).await, None);
        assert_eq!(names(&tls, &client(Some(&known))).await, Some(vec!["plant-7.example".to_owned()]));
        assert_eq!(refusal(&tls, &client(Some(&unknown))).await, HandshakeFailure::Certificate);
    }
}

#[tokio::test]
async fn where_a_client_certificate_is_required_nobody_comes_without_one() {
    let (authority, devices) = (Authority::new("here"), Authority::new("devices"));
    let tls = Files::new(&authority.gateway()).client_ca(devices.pem()).required().tls();
    let known = devices.issue(params(&["plant-7.example"]));
    for version in VERSIONS {
        let client = |pair| client(&authority, pair, version);
        assert_eq!(refusal(&tls, &client(None)).await, HandshakeFailure::NoCertificate);
        assert_eq!(names(&tls, &client(Some(&known))).await, Some(vec!["plant-7.example".to_owned()]));
    }
    assert_eq!(tls.verify_client(&[], wall_time()), Err(HandshakeFailure::NoCertificate));
}

#[tokio::test]
async fn a_client_certificate_out_of_its_time_or_not_for_clients_is_refused() {
    let (authority, devices) = (Authority::new("here"), Authority::new("devices"));
    let tls = Files::new(&authority.gateway()).client_ca(devices.pem()).tls();
    let mut old = params(&["old.example"]);
    valid(&mut old, wall_time() - 2 * DAY, wall_time() - DAY);
    let mut young = params(&["young.example"]);
    valid(&mut young, wall_time() + DAY, wall_time() + 2 * DAY);
    let mut server = params(&["server.example"]);
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let cases = [
        (old, HandshakeFailure::Expired),
        (young, HandshakeFailure::Expired),
        (server, HandshakeFailure::Certificate),
    ];
    for (params, expected) in cases {
        let pair = devices.issue(params);
        for version in VERSIONS {
            assert_eq!(refusal(&tls, &client(&authority, Some(&pair), version)).await, expected);
        }
    }
}

#[tokio::test]
async fn a_list_revokes_what_it_names_and_locks_nobody_else_out() {
    let (authority, devices, others) =
        (Authority::new("here"), Authority::new("devices"), Authority::new("others"));
    let (good, bad) = (devices.issue(params(&["good.example"])), devices.issue(params(&["bad.example"])));
    let other = others.issue(params(&["other.example"]));
    let files = Files::new(&authority.gateway()).client_ca(devices.pem() + &others.pem());
    let tls = files.clone().crl(devices.crl(&[&bad], wall_time() + DAY)).tls();
    assert_eq!(tls.faults(wall_time()), []);
    for version in VERSIONS {
        let client = |pair| client(&authority, Some(pair), version);
        assert_eq!(refusal(&tls, &client(&bad)).await, HandshakeFailure::Revoked);
        assert!(names(&tls, &client(&good)).await.is_some());
        assert!(names(&tls, &client(&other)).await.is_some());
    }
    assert_eq!(
        tls.verify_client(std::slice::from_ref(&bad.der), wall_time()),
        Err(HandshakeFailure::Revoked)
    );
    assert_eq!(tls.verify_client(std::slice::from_ref(&good.der), wall_time()), Ok(()));
    assert_eq!(
        tls.verify_client(std::slice::from_ref(&good.der), wall_time() + 2 * DAY),
        Err(HandshakeFailure::Expired)
    );

    // One that should have been replaced goes on to hold, and is told; of two the newer holds.
    let overdue = devices.crl(&[&bad], wall_time() - DAY);
    let tls = files.clone().crl(overdue.clone()).tls();
    assert_eq!(
        tls.verify_client(std::slice::from_ref(&bad.der), wall_time()),
        Err(HandshakeFailure::Revoked)
    );
    assert_eq!(tls.verify_client(std::slice::from_ref(&good.der), wall_time()), Ok(()));
    let faults = tls.faults(wall_time());
    assert!(
        faults[0].to_string().starts_with("crl.pem: its revocation list of CN=devices should"),
        "{faults:?}"
    );
    let both = overdue + &devices.crl(&[&good], wall_time() + DAY);
    let tls = files.crl(both).tls();
    assert_eq!(
        tls.verify_client(std::slice::from_ref(&good.der), wall_time()),
        Err(HandshakeFailure::Revoked)
    );
}

#[tokio::test]
async fn an_authority_between_can_be_revoked() {
    let (authority, devices) = (Authority::new("here"), Authority::new("devices"));
    let plant = devices.below("plant 7");
    let device = plant.issue(params(&["plant-7.example"]));
    let between = plant.own_pair();
    let chain = [device.der.clone(), plant.der().clone()];
    let files = Files::new(&authority.gateway()).client_ca(devices.pem());
    assert_eq!(files.tls().verify_client(&chain, wall_time()), Ok(()));
    assert_eq!(files.tls().verify_client(&chain[..1], wall_time()), Err(HandshakeFailure::Certificate));
    let tls = files.clone().crl(devices.crl(&[&between], wall_time() + DAY)).tls();
    assert_eq!(tls.verify_client(&chain, wall_time()), Err(HandshakeFailure::Revoked));
    // A list of the authority between is told, as it may be one of nobody.
    let tls = files.crl(plant.crl(&[&device], wall_time() + DAY)).tls();
    assert_eq!(tls.verify_client(&chain, wall_time()), Err(HandshakeFailure::Revoked));
    let faults = tls.faults(wall_time());
    assert!(faults[0].to_string().contains("CN=plant 7 is of no authority in client_ca"), "{faults:?}");
}

fn serial_of(der: &CertificateDer<'_>) -> SerialNumber {
    SerialNumber::from_slice(super::x509::certificate(der).expect("a certificate").raw_serial())
}

#[tokio::test]
async fn an_authority_with_a_new_key_and_its_old_name_keeps_both_kinds_of_clients() {
    let authority = Authority::new("here");
    let (old, new) = (Authority::new("devices"), Authority::new("devices"));
    let issued = |by: &Authority| (by.issue(params(&["good.example"])), by.issue(params(&["bad.example"])));
    let ((old_good, old_bad), (new_good, new_bad)) = (issued(&old), issued(&new));
    let files = Files::new(&authority.gateway()).client_ca(old.pem() + &new.pem());
    let lists = [old.crl(&[&old_bad], wall_time() + DAY), new.crl(&[&new_bad], wall_time() + DAY)];
    for lists in [lists.concat(), lists[0].clone()] {
        let tls = files.clone().crl(lists).tls();
        assert_eq!(
            tls.verify_client(std::slice::from_ref(&old_bad.der), wall_time()),
            Err(HandshakeFailure::Revoked)
        );
        for good in [&old_good, &new_good] {
            assert_eq!(tls.verify_client(std::slice::from_ref(&good.der), wall_time()), Ok(()));
        }
    }
    let tls = files.crl(lists.concat()).tls();
    assert_eq!(refusal(&tls, &client(&authority, Some(&new_bad), &TLS13)).await, HandshakeFailure::Revoked);
    assert!(names(&tls, &client(&authority, Some(&new_good), &TLS13)).await.is_some());
}

#[test]
fn a_list_that_would_lock_clients_out_is_refused() {
    let (authority, devices) = (Authority::new("here"), Authority::new("devices"));
    let foreign = Authority::new("devices").crl(&[], wall_time() + DAY);
    let files = Files::new(&authority.gateway()).client_ca(devices.pem());
    let error = files.clone().crl(foreign).try_tls().expect_err("of another key");
    assert!(
        error.to_string().starts_with("crl.pem: its revocation list number 1, of CN=devices, is not"),
        "{error}"
    );
    let error = Files::new(&authority.gateway()).crl(devices.crl(&[], wall_time() + DAY)).try_tls();
    assert_eq!(
        error.expect_err("alone").to_string(),
        "`crl` needs `client_ca`, the authorities of client certificates"
    );
    let error = Files::new(&authority.gateway()).required().try_tls();
    assert!(matches!(error, Err(ServerTlsError::NeedsClientCa { setting: "client_certificates" })));
}

#[tokio::test]
async fn tickets_and_connections_go_on_under_a_new_certificate() {
    let (authority, devices) = (Authority::new("here"), Authority::new("devices"));
    let device = devices.issue(params(&["plant-7.example"]));
    let files =
        Files::new(&authority.gateway()).client_ca(devices.pem()).crl(devices.crl(&[], wall_time() + DAY));
    for version in VERSIONS {
        let client = client(&authority, Some(&device), version);
        let old = files.tls();
        assert_eq!(kind(&old, &client).await, HandshakeKind::Full);
        assert_eq!(kind(&old, &client).await, HandshakeKind::Resumed);
        let new = files.clone().pair(&authority.gateway()).renewed(&old);
        assert_ne!(new.leaf().fingerprint, old.leaf().fingerprint);
        assert_eq!(kind(&new, &client).await, HandshakeKind::Resumed);
        // Who the client is, is known of a resumed session, too.
        assert!(names(&new, &client).await.is_some());
        new.supersede(&old);
        assert!(!old.trust_replaced().is_cancelled());
    }
}

#[tokio::test]
async fn tickets_and_connections_end_when_other_clients_are_trusted() {
    let (authority, devices) = (Authority::new("here"), Authority::new("devices"));
    let device = devices.issue(params(&["plant-7.example"]));
    let files = Files::new(&authority.gateway()).client_ca(devices.pem());
    let changed = [
        files.clone().client_ca(devices.pem() + &Authority::new("more").pem()),
        files.clone().crl(devices.crl(&[], wall_time() + DAY)),
        files.clone().required(),
    ];
    for version in VERSIONS {
        for changed in &changed {
            let client = client(&authority, Some(&device), version);
            let old = files.tls();
            assert_eq!(kind(&old, &client).await, HandshakeKind::Full);
            let new = changed.renewed(&old);
            assert!(!old.trust_replaced().is_cancelled(), "nothing ends before the new one is in force");
            assert_eq!(kind(&new, &client).await, HandshakeKind::Full);
            new.supersede(&old);
            assert!(old.trust_replaced().is_cancelled());
            assert!(!new.trust_replaced().is_cancelled());
        }
    }
}

#[test]
fn a_valid_certificate_is_never_replaced_by_an_expired_one() {
    let authority = Authority::new("here");
    let mut expired = params(&[HOST]);
    valid(&mut expired, wall_time() - 2 * DAY, wall_time() - DAY);
    let expired = Files::new(&authority.issue(expired));
    let valid = Files::new(&authority.gateway());
    let error = expired.try_renewed(&valid.tls()).expect_err("it is worse").to_string();
    assert!(error.starts_with("chain.pem: its certificate number 1 has expired on 20"), "{error}");
    assert!(error.ends_with("; the one in force goes on"), "{error}");
    // At a start it is better than nothing, and told.
    let started = expired.tls();
    assert!(!started.faults(wall_time()).is_empty());
    assert!(expired.try_renewed(&started).is_ok());
    assert!(valid.renewed(&started).faults(wall_time()).is_empty());
}

/// Why a client that sends these bytes, and then closes or not, is turned away.
async fn refusal_of(bytes: &[u8], closes: bool) -> HandshakeFailure {
    let tls = Files::new(&Authority::new("here").gateway()).tls();
    let (near, mut far) = duplex(64 << 10);
    far.write_all(bytes).await.expect("room");
    let mut far = (!closes).then_some(far);
    let reason = accept(&tls, near, PATIENCE).await.expect_err("no handshake").reason;
    if let Some(far) = &mut far {
        // Closed, not hung.
        let mut rest = Vec::new();
        far.read_to_end(&mut rest).await.expect("the end");
    }
    reason
}

#[tokio::test(start_paused = true)]
async fn what_is_no_tls_is_closed_with_its_reason() {
    let request = b"POST /v1/readings HTTP/1.1\r\nHost: here\r\n\r\n";
    assert_eq!(refusal_of(request, false).await, HandshakeFailure::PlainHttp);
    assert_eq!(refusal_of(b"SSH-2.0-OpenSSH_9.2\r\n", false).await, HandshakeFailure::Protocol);
    assert_eq!(refusal_of(b"", true).await, HandshakeFailure::Closed);
    assert_eq!(refusal_of(b"\x16\x03\x01\x02", true).await, HandshakeFailure::Closed);
    // The time of this test jumps.
    assert_eq!(refusal_of(b"\x16\x03\x01\x02", false).await, HandshakeFailure::Timeout);
}

#[test]
fn garbage_in_a_handshake_is_refused_and_never_panics() {
    use proptest::prelude::*;
    let tls = Files::new(&Authority::new("here").gateway()).tls();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let bytes = proptest::collection::vec(any::<u8>(), 0..600);
    let strategy = (any::<bool>(), bytes);
    proptest!(|((is_record, mut bytes) in strategy)| {
        if is_record && bytes.len() > 9 {
            let length = u16::try_from(bytes.len() - 5).expect("short").to_be_bytes();
            bytes[..6].copy_from_slice(&[0x16, 0x03, 0x01, length[0], length[1], 0x01]);
        }
        let refused = runtime.block_on(async {
            let (near, mut far) = duplex(1 << 10);
            far.write_all(&bytes).await.expect("room");
            drop(far);
            accept(&tls, near, PATIENCE).await.is_err()
        });
        prop_assert!(refused);
    });
}
