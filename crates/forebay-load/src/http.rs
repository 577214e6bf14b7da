//! Requests for JSON, and the part of `/status` that this command reads.

use http::StatusCode;
use reqwest::Client;
use serde::Deserialize;
use thiserror::Error;
use url::Url;

use crate::client::{self, ANSWER_BYTES_MAX, causes, read};

/// A request without a usable answer.
#[derive(Debug, Error)]
pub(super) enum HttpError {
    /// The connection was refused or reset, or timed out.
    #[error("{url}: {}", causes(source))]
    Exchange {
        /// The address.
        url: String,
        /// The cause.
        source: reqwest::Error,
    },
    /// The body is longer than any answer of a gateway.
    #[error("{url}: the answer is longer than {ANSWER_BYTES_MAX} bytes")]
    TooLong {
        /// The address.
        url: String,
    },
    /// The status is not 200.
    #[error("{url}: answered {status}")]
    Status {
        /// The address.
        url: String,
        /// The status.
        status: StatusCode,
    },
    /// The body is not the expected JSON.
    #[error("{url}: the answer is not understood: {source}")]
    Json {
        /// The address.
        url: String,
        /// The error of the parser.
        source: serde_json::Error,
    },
}

impl HttpError {
    /// What to do about a `/status` that is not shown; empty where that is not known.
    pub(super) fn advice_on_status(&self) -> &'static str {
        let HttpError::Status { status, .. } = self else { return "" };
        match *status {
            StatusCode::UNAUTHORIZED => {
                "; --key or FOREBAY_KEY gives a key that the gateway knows, and --read-key or FOREBAY_READ_KEY one for \
                 reading, where that is another"
            }
            StatusCode::FORBIDDEN => {
                "; --read-key or FOREBAY_READ_KEY gives a key for reading, where that of --key or FOREBAY_KEY is not"
            }
            StatusCode::NOT_FOUND => {
                "; a gateway with a listener for its operator has /status there alone: name it with --operator"
            }
            _ => "",
        }
    }
}

/// The fields of `/status` that are needed here; a count that a gateway leaves out is 0.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct GatewayStatus {
    pub(super) ledger: GatewayLedger,
    #[serde(default)]
    pub(super) nodes: Vec<ListedNode>,
}

/// The gateway's accounts.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct GatewayLedger {
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

/// A node that `/status` lists.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct ListedNode {
    pub(super) url: String,
}

/// Asks `url` for JSON.
///
/// # Errors
///
/// [`HttpError`], also for any status but 200.
pub(super) async fn get_json<T: serde::de::DeserializeOwned>(
    client: &Client,
    url: Url,
) -> Result<T, HttpError> {
    let address = client::shown(&url);
    let exchange = |source| HttpError::Exchange { url: address.clone(), source };
    let mut response = client.get(url).send().await.map_err(exchange)?;
    if response.status() != StatusCode::OK {
        return Err(HttpError::Status { url: address, status: response.status() });
    }
    let body = read(&mut response).await.map_err(exchange)?;
    let body = body.ok_or_else(|| HttpError::TooLong { url: address.clone() })?;
    serde_json::from_slice(&body).map_err(|source| HttpError::Json { url: address, source })
}
