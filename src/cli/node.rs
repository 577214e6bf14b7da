//! `forebay node`: the embedded node as a process of its own.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::anyhow;
use clap::Args;
use tracing::{Level, error, info};

use super::address_file::{AddressFile, ServerKind};
use super::interrupts::{Interrupts, SignalRuntime};
use super::{DONE, FAILED, logging};
use crate::config::{LogFormat, LoggingConfig};
use crate::node::{Node, NodeOptions};

/// Runs a node that stores batches in SQLite and answers queries: for one machine, and for trying things out.
#[derive(Debug, Args)]
pub(super) struct NodeArguments {
    /// Address to listen on; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9000")]
    listen: SocketAddr,
    /// Directory of readings.db; it is made if it is not there.
    #[arg(long, value_name = "DIR", default_value = "data/node")]
    data: PathBuf,
}

/// Runs the node until SIGTERM or SIGINT; a second signal ends it at once. Returns the exit status.
pub(super) fn run(arguments: NodeArguments, listening: SignalRuntime) -> u8 {
    logging::start(LoggingConfig { format: LogFormat::Text, level: Level::INFO });
    let options = NodeOptions { listen: arguments.listen, data: arguments.data };
    let served = listening.and_then(|(runtime, interrupts)| {
        let served = runtime.block_on(serve(options, interrupts));
        // After a second signal, do not wait for threads that still work.
        runtime.shutdown_background();
        served
    });
    served.unwrap_or_else(|error| {
        error!("{error:#}");
        FAILED
    })
}

async fn serve(options: NodeOptions, mut interrupts: Interrupts) -> anyhow::Result<u8> {
    let (listen, data) = (options.listen, options.data.clone());
    // The error's message contains its causes, so they are not added as context.
    let started = Node::start(options).await;
    let node = started.map_err(|error| anyhow!("the node does not start: {error}"))?;
    let _address_file = AddressFile::leave(ServerKind::Node, listen, node.address(), None);
    info!(address = %node.address(), data = %data.display(), "node listening");
    interrupts.next().await;
    info!("node stopping");
    tokio::select! {
        () = node.stop() => Ok(DONE),
        () = interrupts.next() => {
            error!("told to stop a second time: stopping at once");
            Ok(FAILED)
        }
    }
}
