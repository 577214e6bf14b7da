//! Calls to nodes over TLS, over real connections: whose certificate is believed, what nodes are shown, and what becomes of
//! both when files change.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use forebay_reading::clock::wall_time;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::support::{Answer, FakeNode, Names, RunningGateway, TestGateway, eventually, reading, readings};
use crate::tls::{Authority, Pair, later};

/// A node, and what speaks TLS in front of it.
struct TlsNode {
    node: FakeNode,
    address: SocketAddr,
    front: JoinHandle<()>,
}

impl TlsNode {
    /// A node with this certificate at a free port of an address; with `clients`, its clients must show a certificate of
    /// that authority.
    async fn start(listen: SocketAddr, pair: &Pair, clients: Option<&Authority>) -> TlsNode {
        let (node, listener) = (FakeNode::start().await, TcpListener::bind(listen).await.expect("a port"));
        let address = listener.local_addr().expect("an address");
        let behind: SocketAddr = node.id().parse().expect("an address");
        let acceptor = TlsAcceptor::from(Arc::new(server_config(pair, clients)));
        let front = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let mut client = acceptor.accept(stream).await?;
                    let mut node = TcpStream::connect(behind).await?;
                    tokio::io::copy_bidirectional(&mut client, &mut node).await
                });
            }
        });
        TlsNode { node, address, front }
    }

    fn url(&self, host: &str) -> String {
        format!("https://{host}:{}/v1/batches", self.address.port())
    }
}

impl Drop for TlsNode {
    fn drop(&mut self) {
        self.front.abort();
    }
}

fn server_config(pair: &Pair, clients: Option<&Authority>) -> ServerConfig {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("TLS 1.2 and 1.3");
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(clients) => {
            let mut roots = rustls::RootCertStore::empty();
            let authority = CertificateDer::from_pem_slice(clients.pem().as_bytes()).expect("PEM");
            roots.add(authority).expect("an authority");
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().expect("a verifier"))
        }
    };
    let chain = vec![CertificateDer::from_pem_slice(pair.certificate.as_bytes()).expect("PEM")];
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).expect("PEM");
    builder.with_single_cert(chain, key).expect("a pair")
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// A directory with the file of an authority that nodes are checked against.
fn trusting(authority: &Authority) -> TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    write(directory.path(), "ca.pem", &authority.pem());
    directory
}

fn write(directory: &Path, name: &str, content: &str) {
    std::fs::write(directory.join(name), content).expect("written");
}

fn gateway(files: &TempDir) -> TestGateway {
    TestGateway::new().set("cluster.tls.ca", files.path().join("ca.pem").display())
}

/// Writes the certificate that nodes are shown, and its key.
fn show(files: &TempDir, own: &Pair) {
    write(files.path(), "chain.pem", &own.certificate);
    write(files.path(), "key.pem", &own.key);
}

/// The settings of a gateway that shows nodes this certificate.
fn showing(own: &Pair, files: &TempDir, gateway: TestGateway) -> TestGateway {
    show(files, own);
    gateway
        .set("cluster.tls.certificate", files.path().join("chain.pem").display())
        .set("cluster.tls.key", files.path().join("key.pem").display())
}

async fn deliver(gateway: &RunningGateway, index: usize) {
    gateway.post(&[reading(index)]).await.expect_status(202);
    eventually("it is settled", || async { gateway.account("buffered").await == 0 }).await;
}

async fn reason(gateway: &RunningGateway, index: usize) -> String {
    let status = gateway.get("/status").await.expect_status(200).json();
    status["nodes"][index]["reason"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn nodes_of_the_own_authority_get_batches_and_are_shown_the_own_certificate() {
    let (nodes, gateways) = (Authority::new("nodes"), Authority::new("gateways"));
    let node = TlsNode::start(local(0), &nodes.issue("localhost", later()), Some(&gateways)).await;
    let files = trusting(&nodes);
    let own = gateways.issue("forebay.example", later());
    let gateway = showing(&own, &files, gateway(&files)).node_at(node.url("localhost")).start().await;
    gateway.post(&readings(3)).await.expect_status(202);
    eventually("they arrive", || async { node.node.readings() == readings(3) }).await;
    let host = format!("localhost:{}", node.address.port());
    assert_eq!(node.node.received().remove(0).header("host"), host);
}

#[tokio::test]
async fn the_end_of_the_certificate_that_nodes_are_shown_is_told_also_after_a_renewal() {
    let (nodes, gateways) = (Authority::new("nodes"), Authority::new("gateways"));
    let node = TlsNode::start(local(0), &nodes.issue("localhost", later()), Some(&gateways)).await;
    let files = trusting(&nodes);
    let ends_in = |days: u32| wall_time() + Duration::from_secs(86_400) * days;
    let own = gateways.issue("forebay.example", ends_in(20));
    let gateway = showing(&own, &files, gateway(&files)).node_at(node.url("localhost")).start().await;
    let days_left = async || {
        let end = gateway.metric("forebay_cluster_tls_certificate_expiry_timestamp_seconds").await;
        let now = wall_time().duration_since(SystemTime::UNIX_EPOCH).expect("now").as_secs_f64();
        ((end.expect("the metric") - now) / 86_400.0).round()
    };
    assert_eq!(days_left().await, 20.0);
    show(&files, &gateways.issue("forebay.example", ends_in(90)));
    eventually("the new end is told", || async { days_left().await == 90.0 }).await;
    let status = gateway.get("/status").await.json();
    let seconds = status["node_certificate"]["ends_in_seconds"].as_i64().expect("a number");
    assert!((89 * 86_400..=90 * 86_400).contains(&seconds), "{status}");
    assert!(status["certificate"].is_null(), "the listener is plain");
}

#[tokio::test]
async fn bodies_of_every_format_go_over_tls() {
    let authority = Authority::new("nodes");
    let node = TlsNode::start(local(0), &authority.issue("127.0.0.1", later()), None).await;
    let files = trusting(&authority);
    for format in ["ndjson", "json", "elasticsearch", "clickhouse", "influx", "remote-write"] {
        let gateway =
            gateway(&files).node_at(node.url("127.0.0.1")).set("cluster.format", format).start().await;
        let before = node.node.requests();
        deliver(&gateway, 0).await;
        assert_eq!((gateway.account("delivered").await, node.node.requests()), (1, before + 1), "{format}");
    }
}

#[tokio::test]
async fn a_node_that_cannot_prove_who_it_is_gets_nothing_and_the_reason_is_told() {
    let (ours, others) = (Authority::new("ours"), Authority::new("others"));
    let files = trusting(&ours);
    let stranger = TlsNode::start(local(0), &others.issue("localhost", later()), None).await;
    let misnamed = TlsNode::start(local(0), &ours.issue("other.example", later()), None).await;
    let demanding = TlsNode::start(local(0), &ours.issue("localhost", later()), Some(&others)).await;
    let plain = FakeNode::start().await;
    let plain_url = plain.url().replace("http://", "https://");
    for (url, node, expected) in [
        (stranger.url("localhost"), &stranger.node, "of no authority that is trusted; cluster.tls.ca names"),
        (misnamed.url("localhost"), &misnamed.node, "is not for `localhost`; it has other.example"),
        (
            demanding.url("localhost"),
            &demanding.node,
            "asks for a client certificate; cluster.tls.certificate",
        ),
        (plain_url, &plain, "the server does not speak TLS"),
    ] {
        let gateway = gateway(&files).node_at(url).set("server.shutdown_timeout", "10ms").start().await;
        gateway.post(&readings(1)).await.expect_status(202);
        eventually("the reason is told", || async { reason(&gateway, 0).await.contains(expected) }).await;
        assert_eq!((node.requests(), gateway.account("buffered").await), (0, 1), "{expected}");
    }
}

#[tokio::test]
async fn the_certificate_of_a_name_is_checked_at_each_of_its_addresses() {
    let authority = Authority::new("nodes");
    let files = trusting(&authority);
    let good = TlsNode::start(local(0), &authority.issue("store.example", later()), None).await;
    let port = good.address.port();
    let second = SocketAddr::from(([127, 0, 0, 2], port));
    let third = SocketAddr::from(([127, 0, 0, 3], port));
    let also_good = TlsNode::start(second, &authority.issue("store.example", later()), None).await;
    let other = TlsNode::start(third, &authority.issue("other.example", later()), None).await;
    let names = Names::default();
    names.set_addresses(&[good.address, second, third]);
    let gateway = gateway(&files)
        .node_at(format!("dns+https://store.example:{port}/v1/batches"))
        .resolver(Arc::new(names.clone()))
        .set("cluster.resolve_every", "20ms")
        .start()
        .await;
    let mut index = 0;
    while good.node.requests() == 0 || also_good.node.requests() == 0 || reason(&gateway, 2).await.is_empty()
    {
        deliver(&gateway, index).await;
        index += 1;
    }
    let told = reason(&gateway, 2).await;
    assert!(told.contains("is not for `store.example`; it has other.example"), "{told}");
    assert_eq!(other.node.requests(), 0);
    assert_eq!(good.node.received().remove(0).header("host"), format!("store.example:{port}"));
    let status = gateway.get("/status").await.expect_status(200).json();
    assert_eq!(status["nodes"][1]["url"], format!("https://127.0.0.2:{port}/v1/batches"));

    names.set_addresses(&[second]);
    eventually("one has gone", || async {
        let status = gateway.get("/status").await.expect_status(200).json();
        status["nodes"][0]["present"] == false
    })
    .await;
    let before = good.node.requests();
    for index in index..index + 5 {
        deliver(&gateway, index).await;
    }
    assert_eq!(good.node.requests(), before, "no connection to the one that has gone is used for its name");
}

#[tokio::test]
async fn a_changed_authority_and_certificate_are_in_force_without_a_restart() {
    let (old, new, gateways) = (Authority::new("old"), Authority::new("new"), Authority::new("gateways"));
    let files = trusting(&old);
    let node = TlsNode::start(local(0), &new.issue("localhost", later()), Some(&gateways)).await;
    let strangers = Authority::new("strangers").issue("forebay.example", later());
    let gateway = showing(&strangers, &files, gateway(&files)).node_at(node.url("localhost")).start().await;
    gateway.post(&readings(1)).await.expect_status(202);
    eventually("the node is unknown", || async { reason(&gateway, 0).await.contains("cluster.tls.ca") })
        .await;
    let refused = "forebay_file_reloads_total{files=\"cluster.tls\",result=\"refused\"}";
    write(files.path(), "ca.pem", "-----BEGIN CERTIFICATE-----\nhalf");
    eventually("half a file is refused", || async { gateway.metric(refused).await == Some(1.0) }).await;
    write(files.path(), "ca.pem", &new.pem());
    eventually("the gateway is unknown", || async {
        reason(&gateway, 0).await.contains("cluster.tls.certificate")
    })
    .await;
    let own = gateways.issue("forebay.example", later());
    show(&files, &own);
    eventually("it arrives", || async { node.node.readings() == readings(1) }).await;
}

#[tokio::test]
async fn the_value_of_a_header_stands_in_a_file_that_may_change() {
    let directory = tempfile::tempdir().expect("a directory");
    let token = directory.path().join("token");
    let say = |token: &str| write(directory.path(), "token", token);
    say("t0ken-of-old\n");
    let node = FakeNode::judging(|batch| match batch.headers.get("authorization") {
        Some(value) if value == "Bearer t0ken-of-today" => Answer::status(200),
        other => Answer::status(401).body(format!("{other:?} is not known, nor is t0ken-of-today")),
    })
    .await;
    let gateway = TestGateway::new()
        .node(&node)
        .file(&format!(
            "[cluster.headers]\nauthorization = {{ file = \"{}\", prefix = \"Bearer \" }}\n",
            token.display()
        ))
        .start()
        .await;
    gateway.post(&readings(2)).await.expect_status(202);
    eventually("the node refuses", || async { reason(&gateway, 0).await.contains("401") }).await;
    let told = reason(&gateway, 0).await;
    assert!(told.contains("***") && !told.contains("t0ken-of-old"), "{told}");
    let refused = "forebay_file_reloads_total{files=\"cluster.headers\",result=\"refused\"}";
    say("two\nlines");
    eventually("two lines are refused", || async { gateway.metric(refused).await == Some(1.0) }).await;
    say("t0ken-of-today\n");
    eventually("they arrive", || async { node.readings() == readings(2) }).await;
    assert_eq!(gateway.metric(refused).await, Some(1.0));
}

#[tokio::test]
async fn a_certificate_that_has_ended_does_not_replace_one_that_is_valid_nor_hold_an_authority_back() {
    let (old, new, gateways) = (Authority::new("old"), Authority::new("new"), Authority::new("gateways"));
    let files = trusting(&old);
    let node = TlsNode::start(local(0), &new.issue("localhost", later()), Some(&gateways)).await;
    let own = gateways.issue("forebay.example", later());
    let gateway = showing(&own, &files, gateway(&files)).node_at(node.url("localhost")).start().await;
    let ended = gateways.issue("forebay.example", wall_time() - Duration::from_secs(3600));
    show(&files, &ended);
    let reloads =
        |result: &str| format!("forebay_file_reloads_total{{files=\"cluster.tls\",result=\"{result}\"}}");
    let (taken, refused) = (reloads("taken"), reloads("refused"));
    eventually("it is refused", || async { gateway.metric(&refused).await == Some(1.0) }).await;
    write(files.path(), "ca.pem", &new.pem());
    eventually("the authority is taken", || async { gateway.metric(&taken).await == Some(1.0) }).await;
    gateway.post(&readings(1)).await.expect_status(202);
    eventually("it arrives", || async { node.node.readings() == readings(1) }).await;
}

#[tokio::test]
async fn a_file_of_a_header_that_is_gone_holds_no_other_back() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name).display().to_string();
    write(directory.path(), "one", "value-of-one");
    write(directory.path(), "other", "old-value");
    let node = FakeNode::start().await;
    let gateway = TestGateway::new()
        .node(&node)
        .set("cluster.headers.x-one.file", path("one"))
        .set("cluster.headers.x-other.file", path("other"))
        .start()
        .await;
    let reloads =
        |result: &str| format!("forebay_file_reloads_total{{files=\"cluster.headers\",result=\"{result}\"}}");
    let (taken, refused) = (reloads("taken"), reloads("refused"));
    std::fs::remove_file(path("one")).expect("removed");
    eventually("its end is noticed", || async { gateway.metric(&refused).await == Some(1.0) }).await;
    write(directory.path(), "other", "new-value");
    eventually("the other is taken", || async { gateway.metric(&taken).await == Some(1.0) }).await;
    deliver(&gateway, 0).await;
    let batch = node.received().remove(0);
    assert_eq!(
        (batch.header("x-one"), batch.header("x-other")),
        ("value-of-one".to_owned(), "new-value".to_owned())
    );
}

#[tokio::test]
async fn files_for_calls_to_nodes_that_do_not_fit_stop_the_start() {
    let authority = Authority::new("nodes");
    let files = trusting(&authority);
    write(files.path(), "token", "");
    let path = |name: &str| files.path().join(name).display().to_string();
    let config = gateway(&files)
        .node_at("https://localhost:9/v1/batches")
        .set("cluster.headers.authorization.file", path("token"))
        .set("cluster.tls.certificate", path("none.pem"))
        .set("cluster.tls.key", path("none.pem"))
        .config();
    let fault =
        |config| async { forebay::gateway::Gateway::start(config).await.expect_err("it fails").to_string() };
    assert!(fault(config.clone()).await.contains("none.pem cannot be read"), "{}", fault(config).await);
    let config = gateway(&files)
        .node_at("https://localhost:9/v1/batches")
        .set("cluster.headers.authorization.file", path("token"))
        .config();
    let expected =
        format!("{}: is empty; it must have the value of the header `authorization`", path("token"));
    assert_eq!(fault(config).await, expected);
}
