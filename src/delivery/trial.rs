//! Whether nodes would take batches: asked as a batch would be sent, without storing anything.

use std::net::SocketAddr;
use std::sync::Arc;

use forebay_stores::{NodeAnswer, Silence, Store, Trial, judge};
use http::HeaderValue;

use super::secrets::{Extent, Secrets};
use super::source::Endpoint;
use super::transport::{Transport, TransportConfig};
use super::wire::{HttpClient, TransportError, WireError};
use super::{DeliveryConfig, NodeSource};

/// Tries nodes with what the format of the cluster has for it.
#[derive(Debug)]
pub struct Trials {
    transport: Transport,
    store: Arc<dyn Store>,
    trials: Vec<Trial>,
    /// What no text of a node may show.
    secrets: Arc<Secrets>,
}

impl Trials {
    /// Makes what is needed; `None` if nothing is known that stores nothing in this format.
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

    /// Whether a node that says nothing passes, so that connecting to it has to be tried by itself.
    pub fn allow_silence(&self) -> bool {
        self.trials.iter().any(|trial| trial.silence == Silence::Allowed)
    }

    /// Tries a node, if `source` is a name the one at `address`, and says in words for people what was found. Each trial
    /// takes at most as long as a batch may; the first that finds a fault is the last.
    ///
    /// The words may hold texts of the node, which are not to be trusted, but no credentials of the settings.
    ///
    /// # Errors
    ///
    /// In words too, what is wrong and what to do about it.
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

    async fn try_out(&self, endpoint: &Endpoint, trial: &Trial) -> Result<String, String> {
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
        // Before anything is cut short: a part of a secret would not be found.
        tried.body = self.secrets.hide(&tried.body, Extent::Cut).into_owned();
        for value in tried.headers.values_mut() {
            let hidden =
                value.to_str().ok().and_then(|text| HeaderValue::from_str(&hide(text.to_owned())).ok());
            *value = hidden.unwrap_or_else(|| HeaderValue::from_static(""));
        }
        let answer = NodeAnswer { status: tried.status, headers: &tried.headers, body: &tried.body };
        let found = self.store.diagnose(&answer).map(hide).map_err(hide)?;
        // What a batch's answer would not pass for, a trial's does not either.
        match judge(&*self.store, &answer).and_then(|judgement| judgement.why) {
            Some(why) => Err(format!("its answer {why} ({})", tried.status)),
            None => Ok(found),
        }
    }
}
