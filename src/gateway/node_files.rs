//! The files for calls to nodes, read at the start and watched from then on: certificates, and headers that are secrets.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use forebay_reading::clock::wall_time;
use rustls::ClientConfig;
use tracing::warn;

use super::StartError;
use crate::delivery::credentials::{Credentials, CredentialsInForce};
use crate::delivery::wire::{ClientLimits, HttpClient, Wire};
use crate::delivery::{DeliveryConfig, NodeSource, Uplink};
use crate::metrics::Metrics;
use crate::tls::client::{ClientTls, ClientTlsConfig, ClientTlsError, plain};
use crate::watched::{self, Subject, Watched};

/// The content of the files at the start.
#[derive(Debug)]
pub(super) struct NodeFiles {
    /// `None`: no node is called over TLS.
    tls: Option<ClientTls>,
    tls_contents: Vec<Vec<u8>>,
    header_contents: Vec<Vec<u8>>,
}

/// What the files for calls to nodes come to.
#[derive(Debug)]
pub struct NodeFilesCheck {
    /// The way to the nodes.
    pub uplink: Uplink,
    /// The settings of TLS; `None`: no node is called over TLS.
    pub tls: Option<Arc<ClientConfig>>,
    /// The faults of an own certificate that would be used nevertheless.
    pub faults: Vec<String>,
}

impl NodeFiles {
    /// Reads every file that the settings name. Files of TLS are read if a node is called over it.
    ///
    /// # Errors
    ///
    /// A sentence on the first fault.
    pub(super) fn read(config: &DeliveryConfig) -> Result<NodeFiles, String> {
        let header_contents = watched::read_all(&header_paths(config))?;
        let (tls, tls_contents) = match config.has_tls() {
            true => {
                let contents = watched::read_all(&tls_paths(&config.tls))?;
                let tls = client_tls(&config.tls, &contents).map_err(|error| error.to_string())?;
                (Some(tls), contents)
            }
            false => (None, Vec::new()),
        };
        Ok(NodeFiles { tls, tls_contents, header_contents })
    }

    /// The faults of an own certificate that is used nevertheless.
    pub(super) fn faults(&self) -> Vec<String> {
        let faults = self.tls.iter().flat_map(|tls| tls.faults(wall_time()));
        faults.map(|fault| fault.to_string()).collect()
    }

    /// The HTTP client for the nodes.
    pub(super) fn client(&self, config: &DeliveryConfig) -> Result<HttpClient, StartError> {
        let limits = ClientLimits { connect_timeout: config.timeout, idle_connections: config.max_in_flight };
        let tls: Arc<ClientConfig> = self.tls.as_ref().map_or_else(plain, ClientTls::config);
        Ok(HttpClient::new(limits, tls)?)
    }

    /// The way to the nodes, over `client` or another wire.
    pub(super) fn uplink(&self, wire: Arc<dyn Wire>, config: &DeliveryConfig) -> Result<Uplink, StartError> {
        Uplink::new(wire, config, &self.header_contents).map_err(|error| StartError::Files(error.to_string()))
    }

    /// What the files come to, for `forebay check`.
    pub(super) fn check(&self, config: &DeliveryConfig) -> Result<NodeFilesCheck, StartError> {
        let uplink = self.uplink(Arc::new(self.client(config)?), config)?;
        let tls = self.tls.as_ref().map(ClientTls::config);
        Ok(NodeFilesCheck { uplink, tls, faults: self.faults() })
    }

    /// Warns of the faults of an own certificate, and lists the files to watch.
    pub(super) fn watched(
        self,
        config: &DeliveryConfig,
        client: &Arc<HttpClient>,
        credentials: &CredentialsInForce,
        metrics: &Metrics,
    ) -> Vec<Watched> {
        for fault in self.faults() {
            warn!(fault, "the certificate for nodes is used, and nodes may refuse it");
        }
        let counter = |files, result| metrics.file_reloads.with_label_values(&[files, result]);
        let mut groups = Vec::new();
        if !config.headers.files.is_empty() {
            let subject = HeaderFiles { config: config.clone(), credentials: Arc::clone(credentials) };
            let (taken, refused) = (counter(HEADERS, "taken"), counter(HEADERS, "refused"));
            groups.push(Watched::new(subject, &self.header_contents, taken, refused));
        }
        if self.tls.is_some() && config.tls.paths().next().is_some() {
            let subject = TlsFilesForNodes { config: config.tls.clone(), client: Arc::clone(client) };
            let (taken, refused) = (counter(TLS, "taken"), counter(TLS, "refused"));
            groups.push(Watched::new(subject, &self.tls_contents, taken, refused));
        }
        groups
    }
}

/// The names of the groups of files.
const HEADERS: &str = "cluster.headers";
const TLS: &str = "cluster.tls";

fn header_paths(config: &DeliveryConfig) -> Vec<PathBuf> {
    config.headers.paths().map(Path::to_owned).collect()
}

fn tls_paths(config: &ClientTlsConfig) -> Vec<PathBuf> {
    config.paths().map(Path::to_owned).collect()
}

/// Takes the files; `contents` are in the order of their paths.
fn client_tls(config: &ClientTlsConfig, contents: &[Vec<u8>]) -> Result<ClientTls, ClientTlsError> {
    let by_path: HashMap<&Path, &[u8]> = config.paths().zip(contents.iter().map(Vec::as_slice)).collect();
    ClientTls::new(config, |path| by_path.get(path).copied().unwrap_or_default())
}

/// The files of headers, under watch.
#[derive(Debug)]
struct HeaderFiles {
    config: DeliveryConfig,
    credentials: CredentialsInForce,
}

impl Subject for HeaderFiles {
    fn name(&self) -> &'static str {
        HEADERS
    }

    fn paths(&self) -> Vec<PathBuf> {
        header_paths(&self.config)
    }

    fn take(&mut self, contents: &[Vec<u8>]) -> Result<(), String> {
        let urls = || self.config.nodes.iter().map(NodeSource::url);
        let new = Credentials::new(urls(), &self.config.headers, contents);
        let new = new.map_err(|error| error.to_string())?;
        self.credentials.store(Arc::new(new.after(&self.credentials.load(), urls())));
        Ok(())
    }
}

/// The files of TLS for calls to nodes, under watch.
#[derive(Debug)]
struct TlsFilesForNodes {
    config: ClientTlsConfig,
    client: Arc<HttpClient>,
}

impl Subject for TlsFilesForNodes {
    fn name(&self) -> &'static str {
        TLS
    }

    fn paths(&self) -> Vec<PathBuf> {
        tls_paths(&self.config)
    }

    fn take(&mut self, contents: &[Vec<u8>]) -> Result<(), String> {
        let tls = client_tls(&self.config, contents).map_err(|error| error.to_string())?;
        self.client.set_tls(tls.config()).map_err(|error| error.to_string())
    }
}
