//! A node that speaks anything but good HTTP.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// A listener whose connections are served by a function of the test.
#[derive(Debug)]
pub struct RawNode {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    server: JoinHandle<()>,
}

impl RawNode {
    /// Serves every connection with `serve`.
    pub async fn start<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> RawNode
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        let server = tokio::spawn(async move {
            let mut tasks = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                tasks.spawn(serve(stream));
            }
        });
        RawNode { address, connections, server }
    }

    /// Where batches go.
    pub fn url(&self) -> String {
        format!("http://{}/v1/batches", self.address)
    }

    /// The name that the gateway gives it.
    pub fn id(&self) -> String {
        self.address.to_string()
    }

    /// Connections that were opened so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

impl Drop for RawNode {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Reads until the head of a request is over.
pub async fn read_head(stream: &mut TcpStream) {
    let mut seen = Vec::new();
    while !seen.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read_buf(&mut seen).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
}
