//! The embedded node: a small store for readings on one machine, for trying things out and for tests.
//!
//! It takes batches over HTTP like any node of a cluster, stores them in SQLite, and answers queries.
//!
//! | method and path | effect |
//! |---|---|
//! | `POST /v1/batches` | takes NDJSON, plain or `gzip` or `zstd`; 200 `{"readings":N,"duplicate":false}` |
//! | `GET /v1/readings` | the readings as NDJSON in canonical form, oldest first |
//! | `GET /v1/count` | how many there are: `{"count":N}` |
//! | `GET /healthz` | 200 `{"status":"ok"}` while batches are taken; `degraded` with `lost_readings` and `damage` if acknowledged readings were lost, or the file is damaged |
//!
//! `readings` and `count` take the filters `device`, `sensor`, `from` (inclusive) and `to` (exclusive), the times in
//! RFC 3339 or as milliseconds since the Unix epoch; `readings` also takes `limit`, or `latest`: that many, the newest
//! first. Inside a gateway the latest readings are also at the gateway's port ([`Latest`]).
//!
//! **Promises.** A batch is stored whole or not at all, and a 2xx is sent after it has reached stable storage. A
//! batch whose `Idempotency-Key` was stored before is answered 2xx and not stored again, also after a restart: the
//! key is committed together with the readings. A value comes back with its kind, and exact to the last bit. If SQLite's
//! log was damaged and acknowledged readings are missing at a start, their number is reported in the log and at
//! `/healthz`.
//!
//! **Errors** are problems (RFC 9457): 400 for invalid NDJSON or an unknown parameter, 404, 405, 408 if a body stalls,
//! 411 for a batch without a length, 413, 415, 422 if a reading breaks the rules (nothing of its batch is stored), 503
//! if the disk fails or too many queries run; and the refusals of the [`crate::door`], as on the gateway.
//!
//! | limit | value |
//! |---|---|
//! | body of a batch, before and after decompression | 64 MiB |
//! | time for a body to arrive | 30 s |
//! | batches in memory | 32; more wait |
//! | readings in one commit | 50,000, or one batch |
//! | keys remembered | 1,000,000; the oldest are forgotten first |
//! | connections | 256 |
//! | queries at a time | 4; more wait for up to 10 s |
//! | `latest` | 1 to 10,000 |
//! | time until readings move from SQLite's log into the file | about 1 s, or 32 MiB |
//! | time for which a client may stall in a long answer | 30 s |
//!
//! `database` has the schema of the file, `store` writes and reads it, and `http` maps requests to it.

mod batch;
mod database;
mod examination;
mod http;
mod journal;
mod latest;
mod marks;
mod query;
mod reader;
mod refusal;
mod store;
#[cfg(test)]
mod tests;
mod writer;

use std::fs::OpenOptions;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use forebay_wal::private_files;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::door::Door;
use crate::filesystem;
use crate::listener::{self, ConnectionGate, ConnectionLimits};
use crate::tasks;
use database::StoreSettings;
use store::ReadingStore;

pub use batch::{BODY_BYTES_MAX, FORMAT};
pub use database::StoreError;
pub use latest::{Latest, LatestApi, LatestReadings};

/// Longer than the 90 s for which the gateway keeps an idle connection, so that the gateway closes it first.
const HEAD_TIMEOUT: Duration = Duration::from_secs(120);
const CONNECTIONS_MAX: usize = 256;
/// Time for requests in progress when the node stops.
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// The address and the directory of a node.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// The address to listen on; port 0 takes a free port.
    pub listen: SocketAddr,
    /// The directory of `readings.db`; it is created if it is missing.
    pub data: PathBuf,
}

/// Why a node cannot start.
#[derive(Debug, Error)]
pub enum NodeError {
    /// The address is in use, or does not belong to this machine.
    #[error("cannot listen on {address}: {source}{}", listener::advice_on_address(*address, source))]
    Bind {
        /// The requested address.
        address: SocketAddr,
        /// The system's error.
        source: io::Error,
    },
    /// The directory cannot be created or written.
    #[error(
        "cannot use the directory {}: {source}{}", path.display(), filesystem::advice_on_directory(path, source)
    )]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// This process may not use the file in the directory.
    #[error("cannot use {}: {source}{}", path.display(), filesystem::advice_on_file(path, source))]
    File {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The store cannot use the file.
    #[error("cannot open {}: {source}", path.display())]
    Store {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: StoreError,
    },
}

/// A running node. Dropping it starts a stop without waiting for its end.
#[derive(Debug)]
pub struct Node {
    address: SocketAddr,
    stop: DropGuard,
    server: JoinHandle<()>,
    writer: std::thread::JoinHandle<()>,
    latest: LatestReadings,
}

impl Node {
    /// Opens the data, binds the address and serves in tasks of the current runtime.
    ///
    /// # Errors
    ///
    /// [`NodeError`] if the address or the data cannot be used; then nothing is left running.
    pub async fn start(options: NodeOptions) -> Result<Node, NodeError> {
        let (address, listener) = bind(options.listen).await?;
        let opened = tokio::task::spawn_blocking(move || open(&options.data)).await;
        let (store, writer) = tasks::outcome(opened).await?;
        let stop = CancellationToken::new();
        let latest = LatestReadings { readers: Arc::clone(store.readers()) };
        let limits = ConnectionLimits { connections_max: CONNECTIONS_MAX, head_timeout: HEAD_TIMEOUT };
        let serving = listener::serve(
            listener,
            http::router(store, Door::of_node(address)),
            limits,
            ConnectionGate::open(),
            stop.clone(),
            STOP_WITHIN,
        );
        Ok(Node { address, stop: stop.drop_guard(), server: tokio::spawn(serving), writer, latest })
    }

    /// The address that the node listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The node's readings, for a gateway in the same process.
    pub fn latest(&self) -> Latest {
        Latest::Here(self.latest.clone())
    }

    /// Takes no more requests, finishes those in progress for up to ten seconds, and closes the file.
    pub async fn stop(self) {
        self.stop.disarm().cancel();
        // Both end by themselves now: the writer when the last request has dropped the store.
        let _ = self.server.await;
        let _ = tokio::task::spawn_blocking(move || self.writer.join()).await;
    }
}

async fn bind(address: SocketAddr) -> Result<(SocketAddr, TcpListener), NodeError> {
    let bound = async {
        let listener = TcpListener::bind(address).await?;
        Ok((listener.local_addr()?, listener))
    };
    bound.await.map_err(|source| NodeError::Bind { address, source })
}

fn open(data: &Path) -> Result<(ReadingStore, std::thread::JoinHandle<()>), NodeError> {
    let in_directory = |source| NodeError::Directory { path: data.to_owned(), source };
    private_files::make_directory(data).map_err(in_directory)?;
    let path = data.join("readings.db");
    // SQLite would only report that it is unable to open the file. The files that it creates beside it get its mode.
    let opened = private_files::make_or_open(&path, OpenOptions::new().append(true));
    opened.map_err(|source| NodeError::File { path: path.clone(), source })?;
    let opened = ReadingStore::open(&path, StoreSettings::default());
    let opened = opened.map_err(|source| NodeError::Store { path, source })?;
    sync_directory(data).map_err(in_directory)?;
    Ok(opened)
}

/// Syncs the directory and its parent: otherwise a crash can lose the names of a new directory and file.
fn sync_directory(data: &Path) -> io::Result<()> {
    let data = data.canonicalize()?;
    std::fs::File::open(&data)?.sync_all()?;
    // A parent that this process may not read was not created by it.
    match data.parent().map(std::fs::File::open) {
        Some(Ok(parent)) => parent.sync_all(),
        Some(Err(_)) | None => Ok(()),
    }
}
