//! The signals that a server process handles.

use anyhow::Context as _;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{debug, warn};

/// Handlers for SIGTERM and SIGINT, which ask the process to stop, and for SIGHUP, SIGUSR1 and SIGUSR2, which must not
/// end it.
#[derive(Debug)]
pub(super) struct Interrupts {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    user_1: Signal,
    user_2: Signal,
}

/// A runtime with its signal handlers, or the error.
pub(super) type SignalRuntime = anyhow::Result<(Runtime, Interrupts)>;

/// Starts a runtime and installs the signal handlers: from now on none of these signals ends the process by itself.
///
/// This must be the first action of the process, because an earlier signal still has its default effect. That window
/// lasts about 3 ms for loading a debug build on an idle machine, and 0.4 ms for the runtime.
pub(super) fn listen() -> SignalRuntime {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.context("cannot start the runtime")?;
    let interrupts = {
        let _in_runtime = runtime.enter();
        Interrupts::listen()?
    };
    Ok((runtime, interrupts))
}

impl Interrupts {
    /// Installs the handlers, in the current runtime.
    fn listen() -> anyhow::Result<Interrupts> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Interrupts {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hang_up: listen(SignalKind::hangup())?,
            user_1: listen(SignalKind::user_defined1())?,
            user_2: listen(SignalKind::user_defined2())?,
        })
    }

    /// Waits for the next signal that asks to stop. Dropping the future loses no signal.
    pub(super) async fn next(&mut self) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hang_up.recv() => warn!(
                    "SIGHUP: the settings are not read again, there is no reload yet; restart to use changed settings"
                ),
                _ = self.user_1.recv() => debug!("SIGUSR1 is ignored"),
                _ = self.user_2.recv() => debug!("SIGUSR2 is ignored"),
            }
        }
    }
}
