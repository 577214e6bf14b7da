use super::*;
use axum::Router;
use axum::routing::get;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n";
/// Longest wait for something that must happen.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a test watches for something that must not happen.
const WATCH: Duration = Duration::from_millis(100);

struct Server {
    address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<()>,
    /// Notified when a handler has begun.
    begun: Arc<Notify>,
    /// Lets the handler of `/slow` finish.
    go_on: Arc<Notify>,
}

async fn start(limits: ConnectionLimits, stop_within: Duration) -> Server {
    let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let slow = {
        let (begun, go_on) = (Arc::clone(&begun), Arc::clone(&go_on));
        move || async move {
            begun.notify_one();
            go_on.notified().await;
            "slow"
        }
    };
    let router = Router::new()
        .route("/", get(|| async { "quick" }))
        .route("/large", get(|| async { vec![b'x'; 1 << 20] }))
        .route("/slow", get(slow));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let stop = CancellationToken::new();
    let task =
        tokio::spawn(serve(listener, router, limits, ConnectionGate::open(), stop.clone(), stop_within));
    Server { address, stop, task, begun, go_on }
}

impl Server {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("a connection")
    }

    async fn ended(self) {
        timeout(PATIENCE, self.task).await.expect("it returns").expect("it does not panic");
    }
}

fn limits() -> ConnectionLimits {
    ConnectionLimits { connections_max: 10, head_timeout: PATIENCE }
}

/// Reads an answer up to its last word.
async fn read_answer(stream: &mut TcpStream, word: &str) -> String {
    let mut answer = Vec::new();
    while !answer.ends_with(word.as_bytes()) {
        let read = timeout(PATIENCE, stream.read_buf(&mut answer)).await.expect("an answer");
        assert_ne!(read.expect("bytes"), 0, "closed after {:?}", String::from_utf8_lossy(&answer));
    }
    String::from_utf8(answer).expect("text")
}

async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut rest = Vec::new();
    // A reset also ends the connection.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("the end");
    String::from_utf8(rest).expect("text")
}

#[tokio::test]
async fn a_connection_beyond_the_limit_waits_until_another_ends() {
    let server = start(ConnectionLimits { connections_max: 2, ..limits() }, PATIENCE).await;
    let (mut first, mut second) = (server.connect().await, server.connect().await);
    for stream in [&mut first, &mut second] {
        stream.write_all(REQUEST).await.expect("sent");
        read_answer(stream, "quick").await;
    }
    let mut third = server.connect().await;
    third.write_all(REQUEST).await.expect("sent");
    let mut byte = [0];
    assert!(timeout(WATCH, third.peek(&mut byte)).await.is_err(), "answered beyond the limit");
    drop(first);
    read_answer(&mut third, "quick").await;
}

#[tokio::test]
async fn a_head_that_trickles_in_is_cut_off_and_other_clients_are_served() {
    let server =
        start(ConnectionLimits { head_timeout: Duration::from_millis(200), connections_max: 1 }, PATIENCE)
            .await;
    let mut trickle = server.connect().await;
    let begun = Instant::now();
    for byte in REQUEST.iter().cycle() {
        // The line feeds that would end the head never come.
        if *byte != b'\n' && trickle.write_all(&[*byte]).await.is_err() {
            break;
        }
        sleep(Duration::from_millis(10)).await;
        assert!(begun.elapsed() < PATIENCE, "never cut off");
    }
    let mut other = server.connect().await;
    other.write_all(REQUEST).await.expect("sent");
    read_answer(&mut other, "quick").await;
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_the_head_timeout() {
    let server =
        start(ConnectionLimits { head_timeout: Duration::from_millis(50), ..limits() }, PATIENCE).await;
    let mut stream = server.connect().await;
    stream.write_all(REQUEST).await.expect("sent");
    read_answer(&mut stream, "quick").await;
    assert_eq!(read_to_end(&mut stream).await, "");
}

#[tokio::test]
async fn a_client_that_sends_requests_and_never_reads_loses_its_connection() {
    let server =
        start(ConnectionLimits { head_timeout: Duration::from_millis(200), connections_max: 1 }, PATIENCE)
            .await;
    let mut deaf = server.connect().await;
    // The answers are far larger than the socket buffers of both sides.
    let requests = b"GET /large HTTP/1.1\r\nHost: here\r\n\r\n".repeat(64);
    deaf.write_all(&requests).await.expect("sent");
    let mut other = server.connect().await;
    other.write_all(REQUEST).await.expect("sent");
    read_answer(&mut other, "quick").await;
    let answers = read_to_end(&mut deaf).await;
    assert!(answers.len() < 64 << 20, "all was sent to a client that did not read");
}

#[tokio::test]
async fn a_head_that_is_too_large_is_answered_with_431() {
    let server = start(limits(), PATIENCE).await;
    let start_line = "GET / HTTP/1.1\r\nHost: here\r\n";
    let many = format!("{start_line}{}\r\n", "X-Field: 1\r\n".repeat(101));
    // Exactly as many bytes as the server reads: closing with unread bytes could discard the answer.
    let long = format!("{:x<HEAD_BYTES_MAX$}", format!("{start_line}X-Field: "));
    for head in [many, long] {
        let mut stream = server.connect().await;
        stream.write_all(head.as_bytes()).await.expect("sent");
        let answer = read_to_end(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    }
}

#[tokio::test]
async fn a_stop_lets_a_request_in_progress_finish_and_closes_idle_connections() {
    let server = start(limits(), PATIENCE).await;
    let (mut slow, mut idle) = (server.connect().await, server.connect().await);
    idle.write_all(REQUEST).await.expect("sent");
    read_answer(&mut idle, "quick").await;
    slow.write_all(b"GET /slow HTTP/1.1\r\nHost: here\r\n\r\n").await.expect("sent");
    timeout(PATIENCE, server.begun.notified()).await.expect("the handler begins");

    server.stop.cancel();
    assert_eq!(read_to_end(&mut idle).await, "");
    let refused = async { while TcpStream::connect(server.address).await.is_ok() {} };
    timeout(PATIENCE, refused).await.expect("new connections are refused");
    assert!(!server.task.is_finished());

    server.go_on.notify_one();
    assert!(read_to_end(&mut slow).await.ends_with("slow"));
    server.ended().await;
}

#[tokio::test]
async fn a_stop_cuts_off_requests_at_its_deadline() {
    let server = start(limits(), Duration::from_millis(50)).await;
    let mut stuck = server.connect().await;
    stuck.write_all(b"GET /slow HTTP/1.1\r\nHost: here\r\n\r\n").await.expect("sent");
    timeout(PATIENCE, server.begun.notified()).await.expect("the handler begins");
    server.stop.cancel();
    assert_eq!(read_to_end(&mut stuck).await, "");
    server.ended().await;
}

#[test]
fn a_lasting_refusal_is_logged_at_most_once_a_second() {
    let mut warnings = Warnings::default();
    let start = Instant::now();
    let warned = (0..25).filter(|step| warnings.is_due(start + ACCEPT_PAUSE * *step)).count();
    assert_eq!(warned, 3);
}

#[test]
fn errors_of_a_single_client_cause_no_pause() {
    assert!(is_about_one_connection(&ErrorKind::ConnectionAborted.into()));
    // EMFILE, too many open files.
    assert!(!is_about_one_connection(&io::Error::from_raw_os_error(24)));
}
