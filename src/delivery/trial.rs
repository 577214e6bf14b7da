//! Tests whether nodes would take batches, with requests that are sent like a batch but store nothing.

use std::net::SocketAddr;
use std::sync::Arc;

use forebay_stores::{NodeAnswer, Silence, Store, TrialRequest, judge};
use http::HeaderValue;

use super::secrets::{Extent, Secrets};
use super::source::Endpoint;
use super::transport::{Transport, TransportConfig};
use super::wire::{HttpClient, TransportError, WireError};
use super::{DeliveryConfig, NodeSource};

/// Tests nodes with the trial requests of the cluster's format.
#[derive(Debug)]
pub struct Trials {
    transport: Transport,
    store: Arc<dyn Store>,
    trials: Vec<TrialRequest>,
    /// The secrets to hide in every text of a node.
    secrets: Arc<Secrets>,
}

impl Trials {
    /// Sets up the trials; `None` if the format has no request that stores nothing.
    ///
    /// # Errors
    ///
    /// [`TransportError`] if there is no HTTP client.
    pub fn new(config: &DeliveryConfig) -> Result<Option<Trials>, TransportError> {
        let trials = config.store.trials();
        if trials.is_empty() {
            return Ok(None);
        }
        let client = HttpClient::new(config.timeout, 1)?;
        let transport = TransportConfig::from(config);
        let (store, secrets) = (Arc::clone(&config.store), Arc::clone(&transport.secrets));
        let transport = Transport::new(transport, Arc::new(client));
        Ok(Some(Trials { transport, store, trials, secrets }))
    }

    /// Whether a silent node passes, so that the connection must be tested separately.
    pub fn allow_silence(&self) -> bool {
        self.trials.iter().any(|trial| trial.silence == Silence::Allowed)
    }

    /// Tests a node and describes the result for people. If `source` is a name, the node is the one at `address`. Each trial
    /// takes at most as long as a batch may; the first failure ends the test.
    ///
    /// The description may contain untrusted text of the node, but no secrets of the settings.
    ///
    /// # Errors
    ///
    /// A description of the fault and its remedy.
    pub async fn run(&self, source: &NodeSource, address: Option<SocketAddr>) -> Result<String, String> {
        let endpoint = match address {
            Some(address) => source.endpoint(address),
            None => Endpoint { url: source.url().clone(), host: None },
        };
        let mut found = Vec::new();
        for trial in &self.trials {
            found.push(self.try_out(&endpoint, trial).await?);
        }
        Ok(found.join("; "))
    }

    async fn try_out(&self, endpoint: &Endpoint, trial: &TrialRequest) -> Result<String, String> {
        let answer = self.transport.try_out(endpoint.url.clone(), endpoint.host.clone(), trial).await;
        let hide = |text: String| self.secrets.hide(&text, Extent::Whole).into_owned();
        if matches!(answer, Err(WireError::Timeout(_))) && trial.silence == Silence::Allowed {
            return Ok(
                "takes connections, and answers nothing to a batch without readings, as it may".to_owned()
            );
        }
        let mut tried = answer.map_err(|error| match error {
            WireError::Connect(cause) => hide(format!("cannot be reached: {cause}")),
            WireError::Timeout(_) => "did not answer in time".to_owned(),
            WireError::Broken(cause) => hide(format!("breaks the connection: {cause}")),
            WireError::Internal(cause) => hide(cause),
        })?;
        // Hide secrets before the text is cut, since a cut secret would not be recognised.
        tried.body = self.secrets.hide(&tried.body, Extent::Cut).into_owned();
        for value in tried.headers.values_mut() {
            let hidden =
                value.to_str().ok().and_then(|text| HeaderValue::from_str(&hide(text.to_owned())).ok());
            *value = hidden.unwrap_or_else(|| HeaderValue::from_static(""));
        }
        let answer = NodeAnswer { status: tried.status, headers: &tried.headers, body: &tried.body };
        let found = self.store.diagnose(&answer).map(hide).map_err(hide)?;
        // An answer that would not pass for a batch does not pass for a trial either.
        match judge(&*self.store, &answer).and_then(|judgement| judgement.why) {
            Some(why) => Err(format!("its answer {why} ({})", tried.status)),
            None => Ok(found),
        }
    }
}
