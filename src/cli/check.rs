//! `forebay check`: the settings that would be used, and whether each node answers.

use std::time::Duration;

use clap::Args;
use tokio::net::TcpStream;
use url::Url;

use super::settings::SettingsArguments;
use super::{DONE, FAILED, MISUSED};
use crate::config::Config;
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
    print_settings(&config);
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("forebay: cannot start the runtime: {error}");
            return FAILED;
        }
    };
    if config.delivery.nodes.is_empty() {
        println!("no nodes are configured: `forebay serve` starts one of its own");
    }
    let mut status = DONE;
    for node in &config.delivery.nodes {
        match runtime.block_on(try_node(node, config.delivery.timeout)) {
            Ok(()) => println!("node {}: takes connections", without_credentials(node)),
            Err(error) => {
                println!("node {}: {error}", without_credentials(node));
                status = FAILED;
            }
        }
    }
    status
}

fn print_settings(config: &Config) {
    for setting in &config.settings {
        let value = match setting.key.as_str() {
            "cluster.nodes" => {
                config.delivery.nodes.iter().map(without_credentials).collect::<Vec<_>>().join(", ")
            }
            _ => setting.value.clone(),
        };
        println!("{} = {value}  ({})", setting.key, setting.origin);
    }
    for setting in &config.without_effect {
        println!("{} = {}  ({}): has no effect in this version", setting.key, setting.value, setting.origin);
    }
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
