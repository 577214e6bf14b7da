//! `forebay serve`: runs the gateway until a signal stops it.

use anyhow::Context as _;
use clap::Args;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{error, info, warn};

use super::address_file::{AddressFile, ServerKind};
use super::interrupts::{Interrupts, SignalRuntime};
use super::settings::SettingsArguments;
use super::terminal::complain;
use super::{DONE, FAILED, MISUSED, logging};
use crate::config::{Config, IneffectiveSetting};
use crate::gateway::{Gateway, StartError, StopOutcome};

/// Runs the gateway.
#[derive(Debug, Args)]
pub(super) struct ServeArguments {
    #[command(flatten)]
    pub(super) settings: SettingsArguments,
}

/// Runs the gateway and returns the exit status.
pub(super) fn run(arguments: &ServeArguments, listening: SignalRuntime) -> u8 {
    let Some(config) = arguments.settings.read() else { return MISUSED };
    logging::start(config.log);
    for IneffectiveSetting { setting, why } in &config.without_effect {
        warn!(key = setting.key, origin = %setting.origin, why, "this setting has no effect");
    }
    raise_open_files_limit();
    let served = listening.and_then(|(runtime, interrupts)| {
        let served = runtime.block_on(serve(config, interrupts))?;
        if let ServeEnd::CutShort = served {
            // Do not wait for threads that still work.
            runtime.shutdown_background();
        }
        Ok(served)
    });
    match served {
        Ok(ServeEnd::Stopped(outcome)) => exit_status(outcome),
        Ok(ServeEnd::CutShort) => FAILED,
        Err(error) => match error.downcast_ref() {
            Some(StartError::Files(problems)) => {
                problems.lines().for_each(complain);
                MISUSED
            }
            _ => {
                error!("{error:#}");
                FAILED
            }
        },
    }
}

/// How a started gateway ended.
enum ServeEnd {
    /// It stopped in order.
    Stopped(StopOutcome),
    /// A second signal cut its stop short.
    CutShort,
}

async fn serve(config: Config, mut interrupts: Interrupts) -> anyhow::Result<ServeEnd> {
    let (listen, nodes, buffer) = (config.server.listen, config.delivery.nodes.len(), config.buffer.kind);
    let mut gateway = Gateway::start(config).await.context("the gateway does not start")?;
    let (address, operator) = (gateway.address(), gateway.operator_address());
    let _address_file = AddressFile::leave(ServerKind::Gateway, listen, address, operator);
    // The file comes before this line, so that a reader of the line finds the file.
    info!(%address, nodes, buffer, "gateway listening");
    tokio::select! {
        () = interrupts.next() => {}
        () = gateway.failed() => {}
    }
    let outcome = tokio::select! {
        outcome = gateway.stop() => outcome,
        () = interrupts.next() => {
            error!("told to stop a second time: stopping at once");
            return Ok(ServeEnd::CutShort);
        }
    };
    Ok(ServeEnd::Stopped(outcome))
}

fn exit_status(outcome: StopOutcome) -> u8 {
    if outcome.has_lost() || outcome.failed || outcome.sent_again() > 0 { FAILED } else { DONE }
}

/// Allows as many open files as the system lets us have: each connection is one.
fn raise_open_files_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        warn!(%error, limit = ?limit.current, "the limit of open files stays as it is");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::{Rest, SentAgain};

    #[test]
    fn a_gateway_that_failed_or_left_readings_behind_exits_with_1() {
        let check = |undelivered, rest, failed, expected| {
            let outcome = StopOutcome { undelivered, rest, failed };
            assert_eq!(exit_status(outcome), expected, "{outcome:?}");
        };
        check(0, Rest::Lost, false, 0);
        check(1, Rest::Lost, false, 1);
        check(0, Rest::Lost, true, 1);
        check(1, Rest::Lost, true, 1);
        // The next start finds readings on disk.
        check(1, Rest::Kept, false, 0);
        check(1, Rest::Kept, true, 1);
        let none = SentAgain::default();
        let two = SentAgain { readings: 2, under_other_keys: 0 };
        check(2, Rest::KeptBut { lost: 1, sent_again: none, is_elsewhere: false }, false, 1);
        check(0, Rest::KeptBut { lost: 0, sent_again: two, is_elsewhere: false }, false, 1);
        // It does not find readings in a directory that was moved.
        check(1, Rest::KeptBut { lost: 0, sent_again: none, is_elsewhere: true }, false, 1);
        check(0, Rest::KeptBut { lost: 0, sent_again: none, is_elsewhere: true }, false, 0);
    }
}
