//! The clients of one set of TLS settings: one for all nodes that are reached at the host of their URL, and one for each node
//! behind a name that is called over TLS.
//!
//! A certificate is checked against the host of the URL, so a node behind a name has the name there, and its client
//! connects to the node's own address. A client keeps its connections by the host of the URL: with one client for
//! all, a request could take a connection to another node of the same name.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use forebay_load::client;
use reqwest::{Client, ClientBuilder};
use rustls::ClientConfig;

/// How long an idle connection to a node stays open.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// Most clients for nodes behind names: as many as there are nodes at once ([`crate::delivery::NODES_MAX`]). One more takes
/// the place of the client that was used least recently.
pub(super) const PINNED_MAX: usize = 1024;

/// Limits of each client.
#[derive(Clone, Copy, Debug)]
pub struct ClientLimits {
    /// Longest time to connect, with the handshake of TLS.
    pub connect_timeout: Duration,
    /// Most idle connections that stay open to each node.
    pub idle_connections: usize,
}

/// The host of a URL, in lower case, and the address that it is reached at.
type PinnedName = (String, SocketAddr);

/// The clients that share TLS settings.
#[derive(Debug)]
pub(super) struct ClientSet {
    limits: ClientLimits,
    tls: Arc<ClientConfig>,
    shared: Client,
    pinned: Mutex<PinnedClients>,
}

#[derive(Debug, Default)]
struct PinnedClients {
    clients: HashMap<PinnedName, PinnedClient>,
    /// How many times a client was asked for.
    uses: u64,
}

#[derive(Debug)]
struct PinnedClient {
    client: Client,
    /// [`PinnedClients::uses`] when it was asked for last.
    last_use: u64,
}

impl ClientSet {
    pub(super) fn new(limits: ClientLimits, tls: Arc<ClientConfig>) -> Result<ClientSet, reqwest::Error> {
        let shared = builder(limits, &tls).build()?;
        Ok(ClientSet { limits, tls, shared, pinned: Mutex::default() })
    }

    /// The client for URLs with this host; with an address, the one that reaches the host there.
    pub(super) fn client(&self, host: &str, address: Option<SocketAddr>) -> Result<Client, reqwest::Error> {
        let Some(address) = address else { return Ok(self.shared.clone()) };
        let name = (host.to_ascii_lowercase(), address);
        let mut pinned = self.pinned.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = pinned.find(&name) {
            return Ok(client);
        }
        let client = builder(self.limits, &self.tls).resolve(&name.0, address).build()?;
        pinned.keep(name, client.clone());
        Ok(client)
    }
}

impl PinnedClients {
    fn find(&mut self, name: &PinnedName) -> Option<Client> {
        self.uses += 1;
        let found = self.clients.get_mut(name)?;
        found.last_use = self.uses;
        Some(found.client.clone())
    }

    fn keep(&mut self, name: PinnedName, client: Client) {
        if self.clients.len() >= PINNED_MAX {
            let oldest = self.clients.iter().min_by_key(|(_, pinned)| pinned.last_use);
            if let Some(oldest) = oldest.map(|(name, _)| name.clone()) {
                self.clients.remove(&oldest);
            }
        }
        self.clients.insert(name, PinnedClient { client, last_use: self.uses });
    }
}

fn builder(limits: ClientLimits, tls: &ClientConfig) -> ClientBuilder {
    client::builder_over(tls.clone())
        .connect_timeout(limits.connect_timeout)
        .pool_idle_timeout(IDLE_MAX)
        .pool_max_idle_per_host(limits.idle_connections)
        .http1_only()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::NODES_MAX;

    #[test]
    fn clients_for_names_are_kept_and_never_more_than_there_are_nodes() {
        assert_eq!(PINNED_MAX, NODES_MAX);
        let limits = ClientLimits { connect_timeout: Duration::from_secs(1), idle_connections: 1 };
        let set = ClientSet::new(limits, client::trusting_nobody().into()).expect("a client");
        let address = |number: u8| Some(SocketAddr::from(([127, 0, 0, number], 443)));
        let count = || set.pinned.lock().expect("not poisoned").clients.len();
        for (host, number) in [("store", 1), ("STORE", 1), ("store", 2), ("other", 1)] {
            set.client(host, address(number)).expect("a client");
        }
        set.client("store", None).expect("a client");
        assert_eq!(count(), 3, "the client without an address is the shared one");

        let mut pinned = PinnedClients::default();
        let name = |port: usize| {
            let port = u16::try_from(port).expect("a port");
            ("store".to_owned(), SocketAddr::from(([127, 0, 0, 1], port)))
        };
        for port in 0..PINNED_MAX {
            assert!(pinned.find(&name(port)).is_none());
            pinned.keep(name(port), set.shared.clone());
        }
        assert!(pinned.find(&name(0)).is_some());
        pinned.keep(name(PINNED_MAX), set.shared.clone());
        assert_eq!(pinned.clients.len(), PINNED_MAX);
        assert!(pinned.find(&name(0)).is_some(), "it was used last");
        assert!(pinned.find(&name(1)).is_none(), "it was used least recently");
    }
}
