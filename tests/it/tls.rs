//! TLS on the gateway's listener, over real connections: who is served, whose certificate is a key, and what becomes of
//! connections when files change. Certificates themselves are tested in `src/tls/`.

mod hostile;
mod renewal;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use forebay_reading::clock::wall_time;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType, IsCa,
    KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, HandshakeKind, RootCertStore};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::support::{FakeNode, LIMIT, RunningGateway, TestGateway, eventually};

const ONE: &str = r#"{"device":"d","sensor":"s","value":1}"#;
const DAY: Duration = Duration::from_secs(86_400);

/// An authority that issues certificates.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, in PEM.
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: String,
    serial: SerialNumber,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Authority {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key");
        Authority(CertifiedIssuer::self_signed(params, key).expect("an authority"))
    }

    /// Its own certificate.
    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate of this name that holds until a moment.
    pub(crate) fn issue(&self, name: &str, not_after: SystemTime) -> Pair {
        self.issue_as(CertificateParams::new(vec![name.to_owned()]).expect("a name"), not_after)
    }

    fn issue_as(&self, mut params: CertificateParams, not_after: SystemTime) -> Pair {
        (params.not_before, params.not_after) = ((wall_time() - 2 * DAY).into(), not_after.into());
        let serial = SerialNumber::from(fastrand::u64(1..));
        params.serial_number = Some(serial.clone());
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        Pair { certificate: certificate.pem(), key: key.serialize_pem(), serial }
    }

    fn revoking(&self, revoked: &[&Pair]) -> String {
        let revoked_certs = revoked.iter().map(|pair| RevokedCertParams {
            serial_number: pair.serial.clone(),
            revocation_time: wall_time().into(),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: (wall_time() - DAY).into(),
            next_update: (wall_time() + DAY).into(),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked_certs.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.0).expect("a list").pem().expect("PEM")
    }
}

pub(crate) fn later() -> SystemTime {
    wall_time() + 30 * DAY
}

/// A gateway with TLS, and the files of it.
struct Setup {
    gateway: RunningGateway,
    _node: FakeNode,
    directory: TempDir,
    authority: Authority,
}

impl Setup {
    async fn start(settings: impl FnOnce(TestGateway, &Path, &Authority) -> TestGateway) -> Setup {
        let directory = tempfile::tempdir().expect("a directory");
        let authority = Authority::new("ours");
        let files = directory.path();
        let pair = authority.issue("localhost", later());
        write(files, "chain.pem", &pair.certificate);
        write(files, "key.pem", &pair.key);
        let node = FakeNode::start().await;
        let gateway = TestGateway::new()
            .node(&node)
            .set("server.tls.certificate", files.join("chain.pem").display())
            .set("server.tls.key", files.join("key.pem").display())
            .set("server.operator.listen", "127.0.0.1:0");
        let gateway = settings(gateway, files, &authority).start().await;
        Setup { gateway, _node: node, directory, authority }
    }

    fn write(&self, name: &str, content: &str) {
        write(self.directory.path(), name, content);
    }

    fn client(&self, pair: Option<&Pair>) -> Client {
        Client::new(self.gateway.address(), &self.authority, pair)
    }

    async fn metric(&self, line: &str) -> Option<f64> {
        self.gateway.operator().metric(line).await
    }
}

/// The settings of a gateway whose clients must show a certificate of the authority.
fn requiring_certificates(gateway: TestGateway, files: &Path, authority: &Authority) -> TestGateway {
    write(files, "ca.pem", &authority.0.pem());
    gateway
        .set("server.tls.client_ca", files.join("ca.pem").display())
        .set("server.tls.client_certificates", "required")
}

fn write(directory: &Path, name: &str, content: &str) {
    std::fs::write(directory.join(name), content).expect("written");
}

/// A client that may resume its sessions.
struct Client {
    address: SocketAddr,
    connector: TlsConnector,
}

impl Client {
    fn new(address: SocketAddr, authority: &Authority, pair: Option<&Pair>) -> Client {
        let mut roots = RootCertStore::empty();
        roots.add(authority.0.der().clone()).expect("an authority");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots);
        let config = match pair {
            None => builder.with_no_client_auth(),
            Some(pair) => {
                let chain = CertificateDer::pem_slice_iter(pair.certificate.as_bytes());
                let chain = chain.collect::<Result<_, _>>().expect("a chain");
                let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).expect("a key");
                builder.with_client_auth_cert(chain, key).expect("a pair")
            }
        };
        Client { address, connector: TlsConnector::from(Arc::new(config)) }
    }

    async fn connect(&self) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.address).await?;
        let name = ServerName::try_from("localhost").expect("a name");
        timeout(LIMIT, self.connector.connect(name, stream)).await.expect("a handshake ends")
    }

    /// The status of a post on a connection of its own, and whether its session was resumed; `None` without an answer.
    async fn post(&self) -> Option<(u16, bool)> {
        let mut stream = self.connect().await.ok()?;
        let status = post_on(&mut stream).await?;
        let is_resumed = stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
        // Tickets come after the handshake, and are read with what comes next.
        let _ = stream.shutdown().await;
        Some((status, is_resumed))
    }
}

/// Posts on a connection that is kept; `None` if it is closed.
async fn post_on(stream: &mut TlsStream<TcpStream>) -> Option<u16> {
    let head =
        format!("POST /v1/readings HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", ONE.len());
    stream.write_all(format!("{head}{ONE}").as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    while !String::from_utf8_lossy(&answer).contains("}\n") {
        let read = timeout(LIMIT, stream.read_buf(&mut answer)).await.expect("an answer or an end").ok()?;
        if read == 0 {
            return None;
        }
    }
    String::from_utf8_lossy(&answer).split(' ').nth(1)?.parse().ok()
}

#[tokio::test]
async fn readings_come_over_tls_and_sessions_are_resumed() {
    let setup = Setup::start(|gateway, _, _| gateway).await;
    let client = setup.client(None);
    assert_eq!(client.post().await, Some((202, false)));
    assert_eq!(client.post().await, Some((202, true)));
    let expiry = setup.metric("forebay_tls_certificate_expiry_timestamp_seconds").await.expect("the metric");
    let left = expiry - wall_time().duration_since(SystemTime::UNIX_EPOCH).expect("now").as_secs_f64();
    assert!((29.0 * 86_400.0..=30.0 * 86_400.0).contains(&left), "{left}");
    let status = setup.gateway.operator().get("/status").await.json();
    assert!(status["certificate"]["ends_in_seconds"].as_i64().expect("a number") > 29 * 86_400, "{status}");
}

#[tokio::test]
async fn plain_http_and_garbage_on_the_tls_port_are_closed_and_counted() {
    let setup = Setup::start(|gateway, _, _| gateway).await;
    for bytes in ["GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "\0\x01\x02 nothing of the kind \r\n\r\n"] {
        let mut client = setup.gateway.raw().await;
        client.try_send(bytes).await;
        timeout(LIMIT, client.end()).await.expect("it is closed");
    }
    let plain = r#"forebay_tls_handshake_failures_total{reason="plain_http"}"#;
    eventually("the plain request is counted", || async { setup.metric(plain).await == Some(1.0) }).await;
    let protocol = r#"forebay_tls_handshake_failures_total{reason="protocol"}"#;
    eventually("the garbage is counted", || async { setup.metric(protocol).await == Some(1.0) }).await;
    assert_eq!(setup.client(None).post().await, Some((202, false)), "others are served");
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_to_the_next_client_and_a_bad_one_never() {
    let setup = Setup::start(|gateway, _, _| gateway).await;
    let client = setup.client(None);
    let mut kept = client.connect().await.expect("a connection");
    let leaf = |stream: &TlsStream<TcpStream>| {
        stream
            .get_ref()
            .1
            .peer_certificates()
            .and_then(|chain| chain.first())
            .expect("a certificate")
            .to_vec()
    };
    let before = leaf(&kept);
    let new = setup.authority.issue("localhost", later());
    // Half of the pair: it does not fit the key that is there.
    setup.write("chain.pem", &new.certificate);
    let refused = r#"forebay_tls_reloads_total{result="refused"}"#;
    eventually("the half is refused", || async { setup.metric(refused).await == Some(1.0) }).await;
    assert_eq!(leaf(&setup.client(None).connect().await.expect("a connection")), before);
    setup.write("key.pem", &new.key);
    let taken = r#"forebay_tls_reloads_total{result="taken"}"#;
    eventually("the pair is taken", || async { setup.metric(taken).await == Some(1.0) }).await;
    assert_ne!(leaf(&setup.client(None).connect().await.expect("a connection")), before);
    assert_eq!(post_on(&mut kept).await, Some(202), "connections go on");
    assert_eq!(client.post().await.map(|(status, _)| status), Some(202));
}

#[tokio::test]
async fn where_client_certificates_are_required_nobody_else_is_served() {
    let setup = Setup::start(requiring_certificates).await;
    let good = setup.authority.issue("device.example", later());
    assert_eq!(setup.client(Some(&good)).post().await, Some((202, false)));
    assert_eq!(setup.client(None).post().await, None);
    let expired = setup.authority.issue("device.example", wall_time() - DAY);
    assert_eq!(setup.client(Some(&expired)).post().await, None);
    let foreign = Authority::new("ours").issue("device.example", later());
    assert_eq!(setup.client(Some(&foreign)).post().await, None);
    for reason in ["no_certificate", "expired", "certificate"] {
        let line = format!("forebay_tls_handshake_failures_total{{reason=\"{reason}\"}}");
        eventually(&line, || async { setup.metric(&line).await == Some(1.0) }).await;
    }
}

#[tokio::test]
async fn a_revoked_client_is_out_on_its_kept_and_on_its_resumed_connection() {
    let settings = |gateway: TestGateway, files: &Path, authority: &Authority| {
        write(files, "crl.pem", &authority.revoking(&[]));
        requiring_certificates(gateway, files, authority)
            .set("server.tls.crl", files.join("crl.pem").display())
    };
    let setup = Setup::start(settings).await;
    let pair = setup.authority.issue("device.example", later());
    let other = setup.authority.issue("other.example", later());
    let client = setup.client(Some(&pair));
    assert_eq!(client.post().await, Some((202, false)));
    let mut kept = client.connect().await.expect("a connection");
    assert_eq!(post_on(&mut kept).await, Some(202));
    setup.write("crl.pem", &setup.authority.revoking(&[&pair]));
    let end = timeout(LIMIT, kept.read(&mut [0])).await.expect("the kept connection ends");
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    assert_eq!(client.post().await, None, "the session is not resumed");
    assert_eq!(setup.client(Some(&other)).post().await, Some((202, false)));
}

#[tokio::test]
async fn a_client_certificate_that_ends_on_a_kept_connection_is_401_and_closes_it() {
    let setup = Setup::start(requiring_certificates).await;
    let pair = setup.authority.issue("device.example", wall_time() + Duration::from_secs(3));
    let client = setup.client(Some(&pair));
    let mut kept = client.connect().await.expect("a connection");
    assert_eq!(post_on(&mut kept).await, Some(202));
    let mut status = Some(202);
    while status == Some(202) {
        tokio::time::sleep(Duration::from_millis(50)).await;
        status = post_on(&mut kept).await;
    }
    assert_eq!(status, Some(401));
    assert_eq!(post_on(&mut kept).await, None, "the connection is closed");
    eventually("nor is its session resumed", || async { client.post().await.is_none() }).await;
}

#[tokio::test]
async fn a_certificate_is_the_key_that_names_it_and_no_other() {
    let settings = |gateway: TestGateway, files: &Path, authority: &Authority| {
        write(files, "ca.pem", &authority.0.pem());
        write(
            files,
            "keys.toml",
            "[[key]]\nname = \"plant-7\"\ncertificate = \"plant-7.example\"\n[[key]]\nname = \"operator\"\nrole = \"read\"\ncertificate = \"operator.example\"\n",
        );
        gateway
            .set("server.tls.client_ca", files.join("ca.pem").display())
            .set("auth.keys", files.join("keys.toml").display())
    };
    let setup = Setup::start(settings).await;
    let post_as = |name: &'static str| {
        let pair = setup.authority.issue(name, later());
        let client = setup.client(Some(&pair));
        async move { client.post().await.map(|(status, _)| status) }
    };
    assert_eq!(post_as("plant-7.example").await, Some(202));
    assert_eq!(post_as("operator.example").await, Some(403));
    assert_eq!(post_as("PLANT-7.example").await, Some(401));
    assert_eq!(setup.client(None).post().await.map(|(status, _)| status), Some(401));
    let accepted = r#"forebay_key_readings_total{key="plant-7",outcome="accepted"}"#;
    assert_eq!(setup.metric(accepted).await, Some(1.0));
}

#[tokio::test]
async fn handshakes_that_never_end_keep_nobody_out() {
    let setup = Setup::start(|gateway, _, _| gateway.set("server.max_connections", 50)).await;
    let mut held = Vec::new();
    for _ in 0..40 {
        let mut client = setup.gateway.raw().await;
        // The beginning of a record that is never completed.
        client.send([0x16, 0x03, 0x01, 0x02, 0x00]).await;
        held.push(client);
    }
    assert_eq!(setup.client(None).post().await, Some((202, false)));
    // With the one that asks.
    eventually("they count as connections", || async {
        setup.metric("forebay_connections").await == Some(41.0)
    })
    .await;
    drop(held);
    eventually("they count no more", || async { setup.metric("forebay_connections").await == Some(1.0) })
        .await;
}

#[tokio::test]
async fn files_that_do_not_fit_stop_the_start_with_words() {
    let directory = tempfile::tempdir().expect("a directory");
    let authority = Authority::new("ours");
    let (one, other) = (authority.issue("localhost", later()), authority.issue("localhost", later()));
    write(directory.path(), "chain.pem", &one.certificate);
    write(directory.path(), "key.pem", &other.key);
    let config = TestGateway::new()
        .set("server.tls.certificate", directory.path().join("chain.pem").display())
        .set("server.tls.key", directory.path().join("key.pem").display())
        .config();
    let error = forebay::gateway::Gateway::start(config).await.expect_err("the key is another's");
    assert!(error.to_string().contains("key.pem"), "{error}");
}
