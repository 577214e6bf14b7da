//! HTTP as this command needs it: answers of bounded size, and `/status`.

use std::fmt::Write as _;
use std::time::Duration;

use http::StatusCode;
use reqwest::{Client, Response};
use serde::Deserialize;
use thiserror::Error;
use url::Url;

/// Largest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 4 << 20;

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

/// A client that goes straight to the address, follows no redirect, and gives up after `timeout`.
///
/// # Errors
///
/// The client could not be set up.
pub(super) fn client(connections: usize, timeout: Duration) -> Result<Client, reqwest::Error> {
    Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .pool_max_idle_per_host(connections)
        .timeout(timeout)
        .user_agent(concat!("forebay-load/", env!("CARGO_PKG_VERSION")))
        .build()
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

/// Reads a body; none if it is too long.
pub(super) async fn read(response: &mut Response) -> Result<Option<Vec<u8>>, reqwest::Error> {
    let mut body = Vec::new();
    while let Some(part) = response.chunk().await? {
        if body.len() + part.len() > ANSWER_BYTES_MAX {
            return Ok(None);
        }
        body.extend_from_slice(&part);
    }
    Ok(Some(body))
}

/// `base` with `path` after its own path.
pub(super) fn join(base: &Url, path: &str) -> Url {
    let mut url = base.clone();
    url.set_path(&format!("{}{path}", base.path().trim_end_matches('/')));
    url.set_query(None);
    url.set_fragment(None);
    url
}

/// An error with its causes: the outermost one alone says only that something went wrong.
pub(super) fn causes(error: &reqwest::Error) -> String {
    let mut source: Option<&dyn std::error::Error> = std::error::Error::source(error);
    // The address stands in front already.
    let mut text = if error.is_timeout() { "timed out".to_owned() } else { "no answer".to_owned() };
    while let Some(cause) = source {
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_put_after_that_of_the_base() {
        for (base, expected) in [
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080/v1/readings"),
            ("http://127.0.0.1:8080/", "http://127.0.0.1:8080/v1/readings"),
            ("http://[::1]:1/in/?a=b#c", "http://[::1]:1/in/v1/readings"),
        ] {
            let base = Url::parse(base).expect("an address");
            assert_eq!(join(&base, "/v1/readings").as_str(), expected);
        }
    }
}
