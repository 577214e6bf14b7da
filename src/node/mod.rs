//! The embedded node: a small store for readings on one machine, for trying things out and for tests.
//!
//! It takes batches over HTTP as any node of a cluster would, keeps them in SQLite, and gives them back.
//!
//! | method and path | what |
//! |---|---|
//! | `POST /v1/batches` | takes NDJSON, plain or `gzip` or `zstd`; 200 `{"readings":N,"duplicate":false}` |
//! | `GET /v1/readings` | the readings as NDJSON in canonical form, oldest first |
//! | `GET /v1/count` | how many there are: `{"count":N}` |
//! | `GET /healthz` | 200 `{"status":"ok"}` while batches are taken; `degraded` with `lost_readings` and `damage` if some that were answered are gone, or the file is damaged |
//!
//! The two in the middle take the filters `device`, `sensor`, `from` (inclusive) and `to` (exclusive), the times
//! in RFC 3339 or as milliseconds since the Unix epoch; `readings` takes `limit` too, or `latest`: so many, the newest
//! first. Inside a gateway the last readings are at the gateway's port as well ([`Latest`]).
//!
//! **Promises.** A batch is stored whole or not at all, and a 2xx is sent after it has reached stable storage. A
//! batch whose `Idempotency-Key` was stored before is answered 2xx and not stored again, also after a restart: the
//! key is committed together with the readings. A value comes back as the kind that it was, to the last bit. Readings
//! that were answered with 2xx and are gone at a later start, because the log of SQLite was damaged, are told with
//! their number, in the log and at `/healthz`.
//!
//! **Answers that are errors** are problems (RFC 9457): 400 for what is no NDJSON or no such parameter, 404, 405,
//! 408 if a body stalls, 411 if a batch says no length, 413, 415, 422 if a reading breaks the rules (nothing of its
//! batch is stored), 503 if the disk refuses or too many readers are at work; and what the [`crate::door`] refuses, as
//! on the gateway.
//!
//! | limit | value |
//! |---|---|
//! | body of a batch, before and after decompression | 64 MiB |
//! | time for a body to arrive | 30 s |
//! | batches in memory | 32; more wait |
//! | readings in one commit | 50,000, or one batch |
//! | keys remembered | 1,000,000; the oldest go first |
//! | connections | 256 |
//! | queries at a time | 4; more wait for up to 10 s |
//! | `latest` | 1 to 10,000 |
//! | time for which readings stand in the log of SQLite alone | about 1 s, or 32 MiB |
//! | time for which a reader of a long answer may stall | 30 s |
//!
//! How readings stand in the file is told in `database`, who writes and reads them in `store`; `http` maps it to requests.

mod answered;
mod batch;
mod database;
mod examination;
mod http;
mod journal;
mod latest;
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
use crate::listener::{self, ConnectionLimits};
use crate::tasks;
use database::StoreSettings;
use store::Store;

pub use batch::{BODY_BYTES_MAX, FORMAT};
pub use database::StoreError;
pub use latest::{Latest, LatestApi, LatestReadings};

/// Longer than the 90 s for which the gateway's client keeps an idle connection, so that the client closes first.
const HEAD_TIMEOUT: Duration = Duration::from_secs(120);
const CONNECTIONS_MAX: usize = 256;
/// Time for requests under way when the node stops.
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// Where a node listens and where it keeps its readings.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// The address; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The directory of `readings.db`; it is made if it is not there.
    pub data: PathBuf,
}

/// Why a node cannot start.
#[derive(Debug, Error)]
pub enum NodeError {
    /// The address is taken, or not one of this machine.
    #[error("cannot listen on {address}: {source}{}", listener::advice_on_address(*address, source))]
    Bind {
        /// What was asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The directory cannot be made or written.
    #[error(
        "cannot use the directory {}: {source}{}", path.display(), filesystem::advice_on_directory(path, source)
    )]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The system does not let this process use the file in it.
    #[error("cannot use {}: {source}{}", path.display(), filesystem::advice_on_file(path, source))]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file in it cannot be used.
    #[error("cannot open {}: {source}", path.display())]
    Store {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: StoreError,
    },
}

/// A node that serves. Dropping it begins a stop without waiting for the end.
#[derive(Debug)]
pub struct Node {
    address: SocketAddr,
    stop: DropGuard,
    server: JoinHandle<()>,
    writer: std::thread::JoinHandle<()>,
    latest: LatestReadings,
}

impl Node {
    /// Opens the data, binds the address and begins to serve in tasks of the current runtime.
    ///
    /// # Errors
    ///
    /// [`NodeError`] says what could not be had; nothing is left running then.
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
            stop.clone(),
            STOP_WITHIN,
        );
        Ok(Node { address, stop: stop.drop_guard(), server: tokio::spawn(serving), writer, latest })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its readings, for a gateway in the same process.
    pub fn latest(&self) -> Latest {
        Latest::Here(self.latest.clone())
    }

    /// Takes nothing more, finishes what is under way for up to ten seconds, and closes the file.
    pub async fn stop(self) {
        self.stop.disarm().cancel();
        // Both end by themselves now: the writer when the last request has let go of the store.
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

fn open(data: &Path) -> Result<(Store, std::thread::JoinHandle<()>), NodeError> {
    let in_directory = |source| NodeError::Directory { path: data.to_owned(), source };
    private_files::make_directory(data).map_err(in_directory)?;
    let path = data.join("readings.db");
    // SQLite would say no more than that it is unable to open the file. What it makes beside it has the mode of it.
    let opened = private_files::make_or_open(&path, OpenOptions::new().append(true));
    opened.map_err(|source| NodeError::File { path: path.clone(), source })?;
    let opened = Store::open(&path, StoreSettings::default());
    let opened = opened.map_err(|source| NodeError::Store { path, source })?;
    sync_directory(data).map_err(in_directory)?;
    Ok(opened)
}

/// Syncs the directory and its parent: without it a crash can lose the names of a new directory and file.
fn sync_directory(data: &Path) -> io::Result<()> {
    let data = data.canonicalize()?;
    std::fs::File::open(&data)?.sync_all()?;
    // A parent that may not be read is none that was just made.
    match data.parent().map(std::fs::File::open) {
        Some(Ok(parent)) => parent.sync_all(),
        Some(Err(_)) | None => Ok(()),
    }
}
