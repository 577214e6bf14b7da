//! `forebay load`: how its servers are reached. The command itself is the crate `forebay-load`.

use clap::Args;
use forebay_load::access::ServerAccess;
use forebay_load::{LoadAccess, LoadArguments, LoadOutcome};

use super::access::{AccessArguments, KeyArgument, warn_of_readable_key};
use super::terminal::complain;
use super::{DONE, FAILED, MISUSED};

/// Sends readings to a gateway, measures it, and checks what arrived.
#[derive(Debug, Args)]
pub(super) struct LoadCommandArguments {
    #[command(flatten)]
    load: LoadArguments,
    #[command(flatten)]
    access: AccessArguments,
    /// Key with the role read, for /status, where that of --key may only write; better in FOREBAY_READ_KEY
    #[arg(long, value_name = "KEY", env = "FOREBAY_READ_KEY", hide_env_values = true)]
    read_key: Option<KeyArgument>,
}

/// Runs the command and returns the exit status.
pub(super) fn run(arguments: &LoadCommandArguments) -> u8 {
    let access = match arguments.access() {
        Ok(access) => access,
        Err(error) => {
            complain(format_args!("{error:#}"));
            return MISUSED;
        }
    };
    match forebay_load::run(&arguments.load, &access) {
        LoadOutcome::Passed => DONE,
        LoadOutcome::Failed => FAILED,
        LoadOutcome::Misused => MISUSED,
    }
}

impl LoadCommandArguments {
    fn access(&self) -> anyhow::Result<LoadAccess> {
        let (gateway, status) = (self.load.gateway(), self.load.status_at());
        let tls = self.access.tls([gateway, status].into_iter().chain(self.load.nodes()))?;
        let key = self.access.key()?;
        let read_key = self.read_key.as_ref().map(|key| key.read("--read-key or FOREBAY_READ_KEY"));
        let read_key = read_key.transpose()?.or_else(|| key.clone());
        let access = LoadAccess {
            gateway: ServerAccess { tls: tls.clone(), key },
            status: ServerAccess { tls: tls.clone(), key: read_key },
            nodes: ServerAccess { tls, key: None },
        };
        warn_of_readable_key(&access.gateway, gateway);
        if status != gateway {
            warn_of_readable_key(&access.status, status);
        }
        Ok(access)
    }
}
