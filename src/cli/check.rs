//! `forebay check`: the settings that would be used, and whether each node answers.

use std::io::{self, Write};
use std::time::Duration;

use clap::Args;
use tokio::net::TcpStream;
use url::Url;

use super::settings::SettingsArguments;
use super::{DONE, FAILED, MISUSED};
use crate::config::{Config, WithoutEffect};
use crate::node_id::without_credentials;

/// Shows the effective settings, with secrets hidden, and tries each node.
#[derive(Debug, Args)]
pub(super) struct CheckArguments {
    #[command(flatten)]
    settings: SettingsArguments,
}

/// Checks and returns the exit status: 1 if a node cannot be reached.
pub(super) fn run(arguments: &CheckArguments) -> u8 {
    let Some(config) = arguments.settings.read() else { return MISUSED };
    match check(&config, &mut std::io::stdout().lock()) {
        Ok(status) => status,
        // Whoever reads, `head` for one, has seen enough. That is no fault, and no result either.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => DONE,
        Err(error) => {
            eprintln!("forebay: {error}");
            FAILED
        }
    }
}

fn check(config: &Config, out: &mut impl Write) -> io::Result<u8> {
    write_settings(config, out)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    if config.delivery.nodes.is_empty() {
        writeln!(out, "no nodes are configured: `forebay serve` starts one of its own")?;
    }
    let mut status = DONE;
    for node in &config.delivery.nodes {
        let result = runtime.block_on(try_node(node, config.delivery.timeout));
        if result.is_err() {
            status = FAILED;
        }
        let found = result.err().unwrap_or_else(|| "takes connections".to_owned());
        writeln!(out, "node {}: {found}", without_credentials(node))?;
    }
    Ok(status)
}

fn write_settings(config: &Config, out: &mut impl Write) -> io::Result<()> {
    for setting in &config.settings {
        let value = match setting.key.as_str() {
            "cluster.nodes" => {
                config.delivery.nodes.iter().map(without_credentials).collect::<Vec<_>>().join(", ")
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

/// Tries to connect to a node. Nothing is sent: what a request would do there is not known.
async fn try_node(url: &Url, timeout: Duration) -> Result<(), String> {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let port = url.port_or_known_default().unwrap_or(80);
    match tokio::time::timeout(timeout, TcpStream::connect((host, port))).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(format!("cannot be reached: {error}")),
        Err(_) => Err("did not answer in time".to_owned()),
    }
}
