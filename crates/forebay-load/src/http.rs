//! What this command asks for: JSON, and `/status`.

use http::StatusCode;
use reqwest::Client;
use serde::Deserialize;
use thiserror::Error;
use url::Url;

use crate::client::{ANSWER_BYTES_MAX, causes, read};

/// Why there is no answer.
#[derive(Debug, Error)]
pub(super) enum HttpError {
    /// Refused, reset, timed out.
    #[error("{url}: {}", causes(source))]
    Exchange {
        /// The address.
        url: String,
        /// What went wrong.
        source: reqwest::Error,
    },
    /// Too long to be what was asked for.
    #[error("{url}: the answer is longer than {ANSWER_BYTES_MAX} bytes")]
    TooLong {
        /// The address.
        url: String,
    },
    /// Another status than 200.
    #[error("{url}: answered {status}")]
    Status {
        /// The address.
        url: String,
        /// The status.
        status: StatusCode,
    },
    /// Not the JSON that was asked for.
    #[error("{url}: the answer is not understood: {source}")]
    Json {
        /// The address.
        url: String,
        /// What the parser says.
        source: serde_json::Error,
    },
}

/// What `/status` says of interest here; what a gateway leaves out is zero.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Status {
    pub(super) ledger: Ledger,
    #[serde(default)]
    pub(super) nodes: Vec<NodeStatus>,
}

/// The gateway's accounts.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Ledger {
    pub(super) buffered: u64,
    #[serde(default)]
    pub(super) derived: u64,
    #[serde(default)]
    pub(super) dead_lettered: u64,
    #[serde(default)]
    pub(super) filtered: u64,
    #[serde(default)]
    pub(super) merged: u64,
    #[serde(default)]
    pub(super) dropped: u64,
}

/// A node, as the gateway sees it.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct NodeStatus {
    pub(super) url: String,
}

/// Asks `url` for JSON.
///
/// # Errors
///
/// [`HttpError`]; only 200 will do.
pub(super) async fn get_json<T: serde::de::DeserializeOwned>(
    client: &Client,
    url: Url,
) -> Result<T, HttpError> {
    let address = url.to_string();
    let exchange = |source| HttpError::Exchange { url: address.clone(), source };
    let mut response = client.get(url).send().await.map_err(exchange)?;
    if response.status() != StatusCode::OK {
        return Err(HttpError::Status { url: address, status: response.status() });
    }
    let body = read(&mut response).await.map_err(exchange)?;
    let body = body.ok_or_else(|| HttpError::TooLong { url: address.clone() })?;
    serde_json::from_slice(&body).map_err(|source| HttpError::Json { url: address, source })
}
