//! Clients that mean no good, or cannot do better: handshakes that stop half-way, certificates that claim too much, files
//! that are none.

use rcgen::SanType;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustls::ClientConnection;
use tokio::net::TcpSocket;

use super::*;
use crate::support::process::{Process, forebay};
use crate::support::rounds;

/// The beginning of a record of 512 bytes.
const HALF_RECORD: [u8; 5] = [0x16, 0x03, 0x01, 0x02, 0x00];
/// Most memory that a half handshake may take.
const HALF_HANDSHAKE_BYTES_MAX: u64 = 40 << 10;

/// The first message of a handshake, whole.
fn client_hello(client: &Client) -> Vec<u8> {
    let name = ServerName::try_from("localhost").expect("a name");
    let config = Arc::clone(client.connector.config());
    let mut bytes = Vec::new();
    let mut connection = ClientConnection::new(config, name).expect("a client");
    connection.write_tls(&mut bytes).expect("memory");
    bytes
}

/// Raises the limit of open files as far as it goes, for this process and those that it starts, and returns it.
fn open_files() -> usize {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).expect("not above the maximum");
    limit.maximum.map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX))
}

#[tokio::test]
async fn thousands_of_half_handshakes_take_little_memory_keep_nobody_out_and_end_by_themselves() {
    let count = rounds(1_000, 10_000).min(open_files().saturating_sub(500));
    let (home, node, authority) =
        (tempfile::tempdir().expect("a directory"), FakeNode::start().await, Authority::new("ours"));
    let pair = authority.issue("localhost", later());
    write(home.path(), "chain.pem", &pair.certificate);
    write(home.path(), "key.pem", &pair.key);
    let connections = (count + 100).to_string();
    let settings = [
        ("server.listen", "127.0.0.1:0"),
        ("server.tls.certificate", "chain.pem"),
        ("server.tls.key", "key.pem"),
        ("server.max_connections", &*connections),
        ("buffer.kind", "memory"),
        ("cluster.nodes", &*node.url()),
    ];
    let process = Process::start(forebay(home.path(), &["serve"], &settings));
    let client = Client::new(process.address(), &authority, None);
    assert_eq!(client.post().await, Some((202, false)));
    let (before, hello) = (process.peak_memory(), client_hello(&client));
    let mut held = Vec::new();
    for number in 0..count {
        let mut stream = TcpStream::connect(process.address()).await.expect("a connection");
        // Some say nothing after their first bytes, and some after their first message, which is answered.
        let bytes = if number % 2 == 0 { &HALF_RECORD[..] } else { &hello };
        stream.write_all(bytes).await.expect("sent");
        held.push(stream);
    }
    assert_eq!(client.post().await.map(|(status, _)| status), Some(202), "others are served");
    let bytes = process.peak_memory().saturating_sub(before);
    println!("{count} half handshakes: {bytes} bytes, {} each", bytes / count as u64);
    assert!(bytes / count as u64 <= HALF_HANDSHAKE_BYTES_MAX, "{bytes} bytes for {count}");
    for mut stream in held {
        let mut rest = Vec::new();
        // A reset is an end, too.
        let _ = timeout(LIMIT, stream.read_to_end(&mut rest)).await.expect("the gateway ends it");
    }
    assert_eq!(client.post().await.map(|(status, _)| status), Some(202));
}

/// A connection to the gateway from another address of this machine.
async fn connect_from(address: [u8; 4], to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind((address, 0).into()).expect("an address of this machine");
    socket.connect(to).await.expect("a connection")
}

#[tokio::test]
async fn an_address_that_takes_all_its_connections_by_half_handshakes_keeps_out_itself_alone() {
    let setup = Setup::start(|gateway, _, _| gateway.set("limits.connections", 20)).await;
    let mut held = Vec::new();
    for _ in 0..20 {
        let mut client = setup.gateway.raw().await;
        client.send(HALF_RECORD).await;
        held.push(client);
    }
    // With the one that asks.
    eventually("they are there", || async { setup.metric("forebay_connections").await == Some(21.0) }).await;
    for _ in 0..20 {
        let mut client = setup.gateway.raw().await;
        client.try_send(HALF_RECORD).await;
        timeout(LIMIT, client.end()).await.expect("it is closed");
    }
    let refused = r#"forebay_connections_refused_total{reason="address"}"#;
    assert_eq!(setup.metric(refused).await, Some(20.0));
    let client = setup.client(None);
    let stream = connect_from([127, 0, 0, 2], setup.gateway.address()).await;
    let name = ServerName::try_from("localhost").expect("a name");
    let mut other = client.connector.connect(name, stream).await.expect("a handshake");
    assert_eq!(post_on(&mut other).await, Some(202), "another address is served");
    held.pop();
    eventually("there is room again", || async { client.post().await.is_some() }).await;
}

#[tokio::test]
async fn a_common_name_that_claims_the_key_of_another_is_nothing_beside_other_names() {
    let settings = |gateway: TestGateway, files: &Path, authority: &Authority| {
        write(files, "ca.pem", &authority.0.pem());
        write(files, "keys.toml", "[[key]]\nname = \"plant-7\"\ncertificate = \"plant-7.example\"\n");
        gateway
            .set("server.tls.client_ca", files.join("ca.pem").display())
            .set("auth.keys", files.join("keys.toml").display())
    };
    let setup = Setup::start(settings).await;
    let dns = |name: &str| SanType::DnsName(name.try_into().expect("a name"));
    let cases = [
        (vec![dns("plant-8.example")], 401),
        (vec![SanType::URI("spiffe://plants/8".try_into().expect("a URI"))], 401),
        (vec![SanType::Rfc822Name("plant-8@example.org".try_into().expect("an address"))], 401),
        // Without a name of these kinds the common name counts.
        (vec![], 202),
    ];
    for (names, expected) in cases {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.distinguished_name.push(DnType::CommonName, "plant-7.example");
        params.subject_alt_names = names;
        let pair = setup.authority.issue_as(params, later());
        assert_eq!(setup.client(Some(&pair)).post().await.map(|(status, _)| status), Some(expected));
    }
}

#[tokio::test]
async fn files_that_cannot_be_taken_leave_the_old_ones_in_force() {
    let setup = Setup::start(|gateway, _, _| gateway).await;
    let chain = setup.directory.path().join("chain.pem");
    let whole = std::fs::read_to_string(&chain).expect("the chain");
    let remove = || std::fs::remove_file(&chain).expect("removed");
    let spoil: [(&str, &dyn Fn()); 5] = [
        ("half written", &|| setup.write("chain.pem", &whole[..whole.len() / 2])),
        ("too large", &|| setup.write("chain.pem", &(whole.clone() + &"#".repeat(2 << 20)))),
        ("far too large", &|| setup.write("chain.pem", &"#".repeat(20 << 20))),
        ("no certificate", &|| setup.write("chain.pem", "nothing of the kind\n")),
        ("a directory", &|| {
            remove();
            std::fs::create_dir(&chain).expect("made");
        }),
    ];
    let refused = r#"forebay_tls_reloads_total{result="refused"}"#;
    for (times, (what, spoil)) in (1_u32..).zip(spoil) {
        spoil();
        eventually(what, || async { setup.metric(refused).await == Some(f64::from(times)) }).await;
        assert_eq!(setup.client(None).post().await, Some((202, false)), "{what}");
    }
    std::fs::remove_dir(&chain).expect("removed");
    let new = setup.authority.issue("localhost", later());
    setup.write("key.pem", &new.key);
    setup.write("chain.pem", &new.certificate);
    let taken = r#"forebay_tls_reloads_total{result="taken"}"#;
    eventually("a good pair is taken", || async { setup.metric(taken).await == Some(1.0) }).await;
    assert_eq!(setup.client(None).post().await, Some((202, false)));
}
