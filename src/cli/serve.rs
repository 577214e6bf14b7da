//! `forebay serve`: runs the gateway until it is told to stop.

use anyhow::Context as _;
use clap::Args;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, warn};

use super::settings::SettingsArguments;
use super::{DONE, FAILED, MISUSED, logging};
use crate::config::Config;
use crate::gateway::Gateway;

/// Runs the gateway.
#[derive(Debug, Args)]
pub(super) struct ServeArguments {
    #[command(flatten)]
    pub(super) settings: SettingsArguments,
}

/// Runs the gateway and returns the exit status.
pub(super) fn run(arguments: &ServeArguments) -> u8 {
    let Some(config) = arguments.settings.read() else { return MISUSED };
    logging::start(config.log);
    for setting in &config.without_effect {
        warn!(key = setting.key, origin = %setting.origin, "this setting has no effect in this version");
    }
    raise_open_files_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let served =
        runtime.context("cannot start the runtime").and_then(|runtime| runtime.block_on(serve(config)));
    served.unwrap_or_else(|error| {
        error!("{error:#}");
        FAILED
    })
}

async fn serve(config: Config) -> anyhow::Result<u8> {
    let mut interrupts = Interrupts::listen()?;
    let mut gateway = Gateway::start(config).await.context("the gateway does not start")?;
    tokio::select! {
        () = interrupts.next() => {}
        () = gateway.failed() => {}
    }
    let ended = tokio::select! {
        ended = gateway.stop() => ended,
        () = interrupts.next() => {
            error!("told to stop a second time: stopping at once");
            return Ok(FAILED);
        }
    };
    Ok(if ended.undelivered > 0 || ended.failed { FAILED } else { DONE })
}

/// The signals that ask for a stop.
struct Interrupts {
    terminate: Signal,
    interrupt: Signal,
}

impl Interrupts {
    fn listen() -> anyhow::Result<Interrupts> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Interrupts {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Allows as many open files as the system lets us have: each connection is one.
fn raise_open_files_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        warn!(%error, limit = ?limit.current, "the limit of open files stays as it is");
    }
}
