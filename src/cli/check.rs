//! `forebay check`: the settings that would be used, and whether each node would take batches.
//!
//! A node is asked as a batch would be sent, with something that stores nothing. Where the format knows nothing of the kind,
//! connecting is all that is tried: what a request would do there is not known.

mod rehearsal;

use std::collections::BTreeSet;
use std::io::{self, BufWriter, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use tokio::net::{TcpStream, ToSocketAddrs};

use super::dead_letters::shown;
use super::settings::SettingsArguments;
use super::terminal::{Escaping, complain};
use super::{DONE, FAILED, MISUSED};
use crate::config::{Config, WithoutEffect};
use crate::delivery::dead_letter::{Directory, Leftover};
use crate::delivery::{NodeSource, Trials, is_own};
use rehearsal::RehearsalError;

/// Most lines that are shown of what was found at a node.
const FOUND_LINES_MAX: usize = 40;
/// Most characters of each.
const FOUND_CHARS_MAX: usize = 1000;

/// Shows the effective settings, with secrets hidden, and tries each node; or, with `--try`, the transforms.
#[derive(Debug, Args)]
pub(super) struct CheckArguments {
    /// Runs the transforms over a file of readings instead, and prints what would be sent and what not, and why. The
    /// file's name ends in .csv, .json, .ndjson, .jsonl, .senml, .lp or .line
    #[arg(long = "try", value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    settings: SettingsArguments,
}

/// Checks and returns the exit status: 1 if a node cannot be reached or would not take batches.
pub(super) fn run(arguments: &CheckArguments) -> u8 {
    let Some(config) = arguments.settings.read() else { return MISUSED };
    if let Some(file) = &arguments.file {
        return rehearse(&config, file);
    }
    match check(&config, &mut Escaping::new(io::stdout().lock())) {
        Ok(status) => status,
        // Whoever reads, `head` for one, has seen enough. That is no fault, and no result either.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => DONE,
        Err(error) => {
            complain(error);
            FAILED
        }
    }
}

/// Tries the transforms and returns the exit status: 1 if the file cannot be read.
fn rehearse(config: &Config, file: &Path) -> u8 {
    let out = &mut BufWriter::new(Escaping::new(io::stdout().lock()));
    match rehearsal::run(config, file, out).and_then(|()| Ok(out.flush()?)) {
        Ok(()) => DONE,
        Err(RehearsalError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => DONE,
        Err(error) => {
            complain(error);
            FAILED
        }
    }
}

fn check(config: &Config, out: &mut impl Write) -> io::Result<u8> {
    write_settings(config, out)?;
    let mut status = DONE;
    let dead_letters = Directory::new(&config.delivery.dead_letter.path);
    if let Err(error) = dead_letters.try_out(Leftover::Nothing) {
        status = FAILED;
        writeln!(out, "dead_letter.path: {}", shown(&error.to_string(), FOUND_CHARS_MAX))?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    if config.delivery.nodes.is_empty() {
        writeln!(out, "no nodes are configured: `forebay serve` starts one of its own")?;
    }
    let trials = Trials::new(&config.delivery).map_err(io::Error::other)?;
    for source in &config.delivery.nodes {
        let tried = match source {
            NodeSource::Address(_) => {
                vec![(source.to_string(), runtime.block_on(try_node(source, None, config, trials.as_ref())))]
            }
            NodeSource::Name(_) => runtime.block_on(try_name(source, config, trials.as_ref())),
        };
        for (node, result) in tried {
            if result.is_err() {
                status = FAILED;
            }
            write_found(&node, &result.unwrap_or_else(|wrong| wrong), out)?;
        }
    }
    Ok(status)
}

/// One line about a node; what takes more than one is set off, so that no node can seem to be another.
fn write_found(node: &str, found: &str, out: &mut impl Write) -> io::Result<()> {
    let mut lines = found.lines().take(FOUND_LINES_MAX).map(|line| shown(line, FOUND_CHARS_MAX));
    writeln!(out, "node {node}: {}", lines.next().unwrap_or_default())?;
    lines.try_for_each(|line| writeln!(out, "    {line}"))
}

fn write_settings(config: &Config, out: &mut impl Write) -> io::Result<()> {
    for setting in &config.settings {
        let value = match setting.key.as_str() {
            "cluster.nodes" => {
                config.delivery.nodes.iter().map(NodeSource::to_string).collect::<Vec<_>>().join(", ")
            }
            _ => setting.value.clone(),
        };
        writeln!(out, "{} = {value}  ({})", setting.key, setting.origin)?;
    }
    for WithoutEffect { setting, why } in &config.without_effect {
        let (key, value, origin) = (&setting.key, &setting.value, &setting.origin);
        writeln!(out, "{key} = {value}  ({origin}): has no effect {why}")?;
    }
    Ok(())
}

/// Tries a node, at one of its addresses if it is a name, and says what was found.
async fn try_node(
    source: &NodeSource,
    address: Option<SocketAddr>,
    config: &Config,
    trials: Option<&Trials>,
) -> Result<String, String> {
    let timeout = config.delivery.timeout;
    match (trials, address) {
        (Some(trials), address) => trials.run(source, address).await,
        (None, Some(address)) => connect(address, timeout).await,
        (None, None) => connect(source.host_and_port(), timeout).await,
    }
}

/// Looks a name up and tries the node at each of its addresses; a name without any is one failure.
async fn try_name(
    source: &NodeSource,
    config: &Config,
    trials: Option<&Trials>,
) -> Vec<(String, Result<String, String>)> {
    let (host, port) = source.host_and_port();
    let timeout = config.delivery.timeout;
    let addresses = match tokio::time::timeout(timeout, config.delivery.resolver.resolve(host, port)).await {
        Ok(Ok(addresses)) => addresses.into_iter().collect::<BTreeSet<_>>(),
        Ok(Err(error)) => return vec![(source.to_string(), Err(format!("is not found: {error}")))],
        Err(_) => return vec![(source.to_string(), Err("is not found in time".to_owned()))],
    };
    if addresses.is_empty() {
        return vec![(source.to_string(), Err("has no address".to_owned()))];
    }
    let mut tried = Vec::new();
    for address in addresses {
        let is_own = config.delivery.own_address.is_some_and(|own| is_own(address, own));
        let found = match is_own {
            true => Err("is this gateway itself, and is not sent to".to_owned()),
            false => try_node(source, Some(address), config, trials).await,
        };
        tried.push((format!("{source} at {address}"), found));
    }
    tried
}

/// Tries to connect, and sends nothing.
async fn connect(address: impl ToSocketAddrs, timeout: Duration) -> Result<String, String> {
    match tokio::time::timeout(timeout, TcpStream::connect(address)).await {
        Ok(Ok(_)) => Ok("takes connections".to_owned()),
        Ok(Err(error)) => Err(format!("cannot be reached: {error}")),
        Err(_) => Err("did not answer in time".to_owned()),
    }
}
