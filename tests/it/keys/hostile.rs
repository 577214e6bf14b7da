//! Files of keys that are none, and clients that have no key and ask all the same.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use forebay::gateway::Gateway;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::*;
use crate::support::process::{Process, forebay};
use crate::support::rounds;

/// Ways to spoil a file of keys: what it is then, the words for it, and how to get there. The file is there.
type Spoiler = (&'static str, &'static str, fn(&Path));

const SPOILERS: &[Spoiler] = &[
    ("a directory", "it is a directory", |path| {
        fs::remove_file(path).expect("removed");
        fs::create_dir(path).expect("made");
    }),
    // Also for root, to whom no mode denies anything.
    ("unreadable", "cannot be read", |path| {
        fs::remove_file(path).expect("removed");
        std::os::unix::fs::symlink(path, path).expect("a link to itself");
    }),
    ("gone", "No such file", |path| fs::remove_file(path).expect("removed")),
    ("no file", "it is not a regular file", |path| {
        fs::remove_file(path).expect("removed");
        std::os::unix::fs::symlink("/dev/zero", path).expect("a link");
    }),
    ("half written", "line 3: ", |path| {
        let whole = fs::read_to_string(path).expect("the file");
        // Within the hash of the first key.
        fs::write(path, &whole[..whole.find("sha256:").expect("a hash") + 20]).expect("written");
    }),
    ("no text", "the file is not UTF-8", |path| fs::write(path, b"[[key]]\n\xff").expect("written")),
    ("twice the same name", "there is another key of this name", |path| {
        let whole = fs::read_to_string(path).expect("the file");
        fs::write(path, whole + &entry("any", "")).expect("written");
    }),
    ("too large", "it is larger than 16 MiB", |path| {
        fs::File::options().write(true).open(path).and_then(|file| file.set_len(17 << 20)).expect("long");
    }),
];

/// Puts a good file in the place of whatever is there.
fn restore(path: &Path, keys: &str) {
    let _ = fs::remove_dir(path).or_else(|_| fs::remove_file(path));
    fs::write(path, keys).expect("written");
}

#[tokio::test]
async fn a_file_of_keys_that_is_none_stops_the_start_with_words() {
    let home = tempfile::tempdir().expect("a directory");
    let path = home.path().join("keys.toml");
    for (what, words, spoil) in SPOILERS {
        restore(&path, &keys());
        spoil(&path);
        let config = TestGateway::new().set("auth.keys", path.display()).config();
        let error = Gateway::start(config).await.expect_err(what).to_string();
        assert!(error.contains("keys.toml") && error.contains(words), "{what}: {error}");
    }
}

#[tokio::test]
async fn a_file_of_keys_that_becomes_none_leaves_the_old_keys_in_force() {
    let setup = Setup::start(|gateway| gateway).await;
    let metric = async |result: &str| {
        let line = format!("forebay_file_reloads_total{{files=\"keys\",result=\"{result}\"}} ");
        let metrics = setup.get_as("operator", "/metrics").await.expect_status(200).text();
        let number = metrics.lines().find_map(|text| text.strip_prefix(&line).map(str::to_owned));
        number.expect("the metric").parse::<u64>().expect("a number")
    };
    for (taken, (what, _, spoil)) in (0_u64..).zip(SPOILERS) {
        let refused = metric("refused").await;
        spoil(&setup.file());
        eventually(what, || async { metric("refused").await > refused }).await;
        setup.post_as("any", ONE).await.expect_status(202);
        setup.post_as("new", ONE).await.expect_problem(401);
        assert_eq!(metric("taken").await, taken, "{what}");
        restore(&setup.file(), &format!("# {what}\n{}", keys()));
        eventually("a good file is taken", || async { metric("taken").await == taken + 1 }).await;
    }
}

#[tokio::test]
async fn authorization_that_is_sent_twice_must_be_the_same_key() {
    let setup = Setup::start(|gateway| gateway).await;
    let post = async |first: &str, second: &str| {
        let headers = [("authorization", first), ("authorization", second)];
        setup.post("/v1/readings", &headers, ONE).await
    };
    let (good, other, wrong) = ("Bearer key of any", "Bearer key of plant-7", "Bearer wrong");
    for (first, second) in
        [(good, wrong), (wrong, good), (good, other), (good, "Negotiate abc"), ("Basic ???", good)]
    {
        let reply = post(first, second).await.expect_problem(401);
        assert_eq!(reply.header("www-authenticate"), "Bearer", "{first}, {second}");
    }
    post(good, "Token key of any").await.expect_status(202);
    eventually("one reading arrives", || async { setup.node.count() == 1 }).await;
}

/// A connection to the gateway from another address of this machine.
async fn connect_from(address: [u8; 4], to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind((address, 0).into()).expect("an address of this machine");
    socket.connect(to).await.expect("a connection")
}

const HEALTH: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";

#[tokio::test]
async fn an_address_that_takes_all_its_connections_keeps_out_itself_alone() {
    let settings =
        |gateway: TestGateway| gateway.set("limits.connections", 3).set("server.max_connections", 10);
    let setup = Setup::start(settings).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut client = setup.gateway.raw().await;
        client.send(HEALTH).await;
        client.reply().await.expect_status(200);
        held.push(client);
    }
    for _ in 0..50 {
        let mut client = setup.gateway.raw().await;
        client.try_send(HEALTH).await;
        assert!(client.reply_or_end().await.is_none(), "it is closed");
    }
    let mut other = connect_from([127, 0, 0, 2], setup.gateway.address()).await;
    other.write_all(HEALTH).await.expect("sent");
    let mut answer = [0; 12];
    timeout(LIMIT, other.read_exact(&mut answer)).await.expect("in time").expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 200");
}

/// Requests that are sent at once on one connection.
const PIPELINED: usize = 50;

/// Sends so many requests with wrong keys, and returns how many answers of each of two statuses came.
async fn ask_with_wrong_keys(address: SocketAddr, requests: usize, seed: usize) -> (usize, usize) {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    let (mut unauthorized, mut limited, mut sent) = (0, 0, 0);
    while sent < requests {
        let count = PIPELINED.min(requests - sent);
        let text: String = (sent..sent + count).map(|number| wrong(seed, number)).collect();
        stream.write_all(text.as_bytes()).await.expect("the gateway reads");
        sent += count;
        let mut answers = Vec::new();
        while unauthorized + limited < sent {
            let read = timeout(LIMIT, stream.read_buf(&mut answers)).await.expect("answers in time");
            assert!(
                read.expect("answers") > 0,
                "the gateway closes after {}",
                String::from_utf8_lossy(&answers)
            );
            let last_line = answers.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            let whole: Vec<u8> = answers.drain(..last_line).collect();
            for line in String::from_utf8_lossy(&whole).lines() {
                unauthorized += usize::from(line.starts_with("HTTP/1.1 401 "));
                limited += usize::from(line.starts_with("HTTP/1.1 429 "));
            }
        }
    }
    (unauthorized, limited)
}

/// Requests that come from one address, where a proxy tells it: more than may have a wrong key.
const OF_ONE_ADDRESS: usize = 12;

/// A request with a key that nobody has, through a proxy, from one of many addresses.
fn wrong(seed: usize, number: usize) -> String {
    let host = u32::try_from((seed << 20) + number / OF_ONE_ADDRESS).expect("a few million");
    let address = std::net::Ipv4Addr::from(u32::from(std::net::Ipv4Addr::new(11, 0, 0, 0)) + host);
    format!(
        "POST /v1/readings HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer fb_{seed}_{number}\r\n\
         X-Forwarded-For: {address}\r\nContent-Length: {}\r\n\r\n{ONE}",
        ONE.len()
    )
}

/// More memory that a gateway may have had at a time after all the wrong keys than after a tenth of them: the table of
/// addresses, which has its limit, and what allocators keep.
const GROWTH_MAX: u64 = 16 << 20;
/// Connections that ask with wrong keys at a time.
const ATTACKERS: usize = 4;

/// Asks a gateway with these settings with wrong keys, again and again, while another client sends readings.
async fn attack_with_wrong_keys(settings: &[(&str, &str)]) {
    let count = rounds(20_000, 1_000_000);
    let home = tempfile::tempdir().expect("a directory");
    fs::write(home.path().join("keys.toml"), keys()).expect("written");
    let node = FakeNode::start().await;
    let url = node.url();
    let common = [
        ("server.listen", "127.0.0.1:0"),
        ("auth.keys", "keys.toml"),
        ("buffer.kind", "memory"),
        ("cluster.nodes", &*url),
    ];
    let process = Process::start(forebay(home.path(), &["serve"], &[&common[..], settings].concat()));
    let address = process.address();
    let attack = async |requests: usize, round: usize| {
        let each = requests / ATTACKERS;
        let attacks = (0..ATTACKERS).map(|one| ask_with_wrong_keys(address, each, round * ATTACKERS + one));
        let answers = futures_util::future::join_all(attacks).await;
        let limited: usize = answers.iter().map(|(_, limited)| limited).sum();
        assert_eq!(limited > 0, !settings.is_empty(), "{answers:?}");
    };
    attack(count / 10, 0).await;
    let (memory, lines) = (process.peak_memory(), process.log().lines().count());
    let gateway = process.gateway();
    let is_over = AtomicBool::new(false);
    let attacked = async {
        attack(count, 1).await;
        is_over.store(true, Ordering::Relaxed);
    };
    let others = async {
        let mut served = 0;
        while !is_over.load(Ordering::Relaxed) {
            let request = gateway.request("/v1/readings").bearer_auth("key of any").body(ONE);
            gateway.send(request).await.expect_status(202);
            served += 1;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        served
    };
    let ((), served) = tokio::join!(attacked, others);
    let grown = process.peak_memory().saturating_sub(memory);
    let told = process.log().lines().count() - lines;
    println!(
        "{count} requests with wrong keys, {settings:?}: {grown} bytes and {told} lines more, {served} others"
    );
    assert!(grown <= GROWTH_MAX, "{grown} bytes more");
    assert!(told <= 20, "{}", process.log());
    assert!(served > 0, "others were served meanwhile");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_keys_by_the_million_cost_no_memory_no_log_and_the_others_nothing() {
    attack_with_wrong_keys(&[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nor_do_wrong_keys_of_very_many_addresses_of_which_each_has_its_limit() {
    attack_with_wrong_keys(&[("limits.unauthorized", "10/h"), ("server.trusted_proxies", "127.0.0.1")]).await;
}
