//! Tests whether nodes would take batches, with requests that are sent like a batch but store nothing.

use std::net::SocketAddr;
use std::sync::Arc;

use forebay_stores::{NodeAnswer, Silence, Store, TrialRequest, judge};
use http::HeaderValue;

use super::credentials::CredentialsInForce;
use super::secrets::Extent;
use super::source::Endpoint;
use super::transport::{Transport, TransportConfig};
use super::uplink::Uplink;
use super::wire::WireError;
use super::{DeliveryConfig, NodeSource};

/// Tests nodes with the trial requests of the cluster's format.
#[derive(Debug)]
pub struct Trials {
    transport: Transport,
    store: Arc<dyn Store>,
    trials: Vec<TrialRequest>,
    credentials: CredentialsInForce,
}

impl Trials {
    /// Sets up the trials; `None` if the format has no request that stores nothing.
    pub fn new(config: &DeliveryConfig, uplink: Uplink) -> Option<Trials> {
        let trials = config.store.trials();
        if trials.is_empty() {
            return None;
        }
        let Uplink { wire, credentials } = uplink;
        let (store, transport) =
            (Arc::clone(&config.store), TransportConfig::new(config, Arc::clone(&credentials)));
        Some(Trials { transport: Transport::new(transport, wire), store, trials, credentials })
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
            None => Endpoint::at(source.url().clone()),
        };
        let mut found = Vec::new();
        for trial in &self.trials {
            found.push(self.try_out(&endpoint, trial).await?);
        }
        Ok(found.join("; "))
    }

    async fn try_out(&self, endpoint: &Endpoint, trial: &TrialRequest) -> Result<String, String> {
        let answer = self.transport.try_out(endpoint.clone(), trial).await;
        let credentials = self.credentials.load();
        let secrets = credentials.secrets();
        let hide = |text: String| secrets.hide(&text, Extent::Whole).into_owned();
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
        tried.body = secrets.hide(&tried.body, Extent::Cut).into_owned();
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
