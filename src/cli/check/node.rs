//! Tries nodes: whether they can be reached, and whether they would take batches.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use forebay_load::call_failure;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::delivery::wire::tls_problem;
use crate::delivery::{DeliveryConfig, NodeSource, Trials, is_own};
use crate::gateway::NodeFilesCheck;

/// The result of a try: what was found, or what is wrong.
type Tried = Result<String, String>;

/// Tries nodes.
pub(super) struct NodeCheck<'a> {
    config: &'a DeliveryConfig,
    /// `None`: the format has no request that stores nothing, or files for calls to nodes are at fault.
    trials: Option<Trials>,
    /// `None`: no node is called over TLS, or files for it are at fault.
    tls: Option<Arc<ClientConfig>>,
}

impl<'a> NodeCheck<'a> {
    pub(super) fn new(config: &'a DeliveryConfig, files: NodeFilesCheck) -> NodeCheck<'a> {
        NodeCheck { config, trials: Trials::new(config, files.uplink), tls: files.tls }
    }

    /// Connects only.
    pub(super) fn without_files(config: &'a DeliveryConfig) -> NodeCheck<'a> {
        NodeCheck { config, trials: None, tls: None }
    }

    /// Tries the node, or each node behind a name. Returns the name for people and the result of each.
    pub(super) async fn try_source(&self, source: &NodeSource) -> Vec<(String, Tried)> {
        match source {
            NodeSource::Address(_) => vec![(source.to_string(), self.try_node(source, None).await)],
            NodeSource::Name(_) => self.try_name(source).await,
        }
    }

    /// Tries a node, at `address` if its source is a name.
    async fn try_node(&self, source: &NodeSource, address: Option<SocketAddr>) -> Tried {
        match &self.trials {
            None => self.connect(source, address).await,
            Some(trials) => {
                if trials.allow_silence() {
                    self.connect(source, address).await?;
                }
                trials.run(source, address).await
            }
        }
    }

    /// Resolves a name and tries the node at each of its addresses. A name without addresses is one failure.
    async fn try_name(&self, source: &NodeSource) -> Vec<(String, Tried)> {
        let (host, port) = source.host_and_port();
        let addresses = match timeout(self.config.timeout, self.config.resolver.resolve(host, port)).await {
            Ok(Ok(addresses)) => addresses.into_iter().collect::<BTreeSet<_>>(),
            Ok(Err(error)) => return vec![(source.to_string(), Err(format!("is not found: {error}")))],
            Err(_) => return vec![(source.to_string(), Err("is not found in time".to_owned()))],
        };
        if addresses.is_empty() {
            return vec![(source.to_string(), Err("has no address".to_owned()))];
        }
        let mut tried = Vec::new();
        for address in addresses {
            let is_own = self.config.own_address.is_some_and(|own| is_own(address, own));
            let found = match is_own {
                true => Err("is this gateway itself, and is not sent to".to_owned()),
                false => self.try_node(source, Some(address)).await,
            };
            tried.push((format!("{source} at {address}"), found));
        }
        tried
    }

    /// Connects, over TLS if the node is called so, and sends nothing.
    async fn connect(&self, source: &NodeSource, address: Option<SocketAddr>) -> Tried {
        let connected = async {
            let stream = match address {
                Some(address) => TcpStream::connect(address).await,
                None => TcpStream::connect(source.host_and_port()).await,
            };
            let stream = stream.map_err(|error| format!("cannot be reached: {error}"))?;
            match &self.tls {
                Some(tls) if source.is_over_tls() => shake_hands(source, Arc::clone(tls), stream).await,
                _ => Ok("takes connections".to_owned()),
            }
        };
        timeout(self.config.timeout, connected)
            .await
            .unwrap_or_else(|_elapsed| Err("did not answer in time".to_owned()))
    }
}

async fn shake_hands(source: &NodeSource, tls: Arc<ClientConfig>, stream: TcpStream) -> Tried {
    let (host, _) = source.host_and_port();
    let name = ServerName::try_from(host.to_owned()).map_err(|_| {
        format!("cannot be called over TLS: `{host}` is neither a DNS name nor an IP address")
    })?;
    match TlsConnector::from(tls).connect(name, stream).await {
        Ok(_) => Ok("takes connections over TLS".to_owned()),
        Err(error) => Err(match call_failure::of(&error) {
            Some(failure) => format!("cannot be called over TLS: {}", tls_problem(&failure)),
            None => format!("cannot be called over TLS: {error}"),
        }),
    }
}
