//! Whether nodes would take batches: asked as a batch would be sent, without storing anything.

use std::net::SocketAddr;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue};
use url::Url;

use super::source::Place;
use super::transport::{Transport, TransportConfig};
use super::wire::{HttpClient, TransportError, WireError};
use super::{DeliveryConfig, NodeSource};
use crate::codec::{Encoder, NodeAnswer, Trial};

/// Shortest text that is hidden as a secret: shorter ones are parts of ordinary words.
const SECRET_BYTES_MIN: usize = 4;
/// What stands for a secret: a header may hold it.
const HIDDEN: &str = "***";
/// Words before credentials, in headers.
const SCHEMES: [&str; 4] = ["Basic ", "Bearer ", "ApiKey ", "Token "];
/// What the names of secret parameters of an address have in them.
const SECRET_PARAMETERS: [&str; 5] = ["pass", "token", "secret", "key", "auth"];

/// Tries nodes with what the format of the cluster has for it.
#[derive(Debug)]
pub struct Trials {
    transport: Transport,
    format: Arc<dyn Encoder>,
    trials: Vec<Trial>,
    /// What stands in headers for credentials.
    secrets: Vec<String>,
}

impl Trials {
    /// Makes what is needed; `None` if nothing is known that stores nothing in this format.
    ///
    /// # Errors
    ///
    /// [`TransportError`] if there is no HTTP client.
    pub fn new(config: &DeliveryConfig) -> Result<Option<Trials>, TransportError> {
        let trials = config.format.trials();
        if trials.is_empty() {
            return Ok(None);
        }
        let client = HttpClient::new(config.timeout, 1)?;
        let transport = Transport::new(TransportConfig::from(config), Arc::new(client));
        let (format, secrets) = (Arc::clone(&config.format), header_secrets(&config.headers));
        Ok(Some(Trials { transport, format, trials, secrets }))
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
        let place = match address {
            Some(address) => source.place(address),
            None => Place { url: source.url().clone(), host: None },
        };
        let mut found = Vec::new();
        for trial in &self.trials {
            found.push(self.try_out(&place, trial).await?);
        }
        Ok(found.join("; "))
    }

    async fn try_out(&self, place: &Place, trial: &Trial) -> Result<String, String> {
        let answer = self.transport.try_out(place.url.clone(), place.host.clone(), trial).await;
        let mut tried = answer.map_err(|error| match error {
            WireError::Connect(cause) => format!("cannot be reached: {cause}"),
            WireError::Timeout(_) => "did not answer in time".to_owned(),
            WireError::Broken(cause) => format!("breaks the connection: {cause}"),
            WireError::Internal(cause) => cause,
        })?;
        // Before anything is cut short: a part of a secret would not be found.
        let of_url = url_secrets(&place.url);
        let hide = |text: String| hide(text, self.secrets.iter().chain(&of_url));
        tried.body = hide(tried.body);
        for value in tried.headers.values_mut() {
            let hidden =
                value.to_str().ok().and_then(|text| HeaderValue::from_str(&hide(text.to_owned())).ok());
            *value = hidden.unwrap_or_else(|| HeaderValue::from_static(""));
        }
        let answer = NodeAnswer { status: tried.status, headers: &tried.headers, body: &tried.body };
        self.format.diagnose(&answer).map(hide).map_err(hide)
    }
}

/// The answer to a trial.
#[derive(Debug)]
pub(super) struct Tried {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    /// The beginning of its body.
    pub(super) body: String,
}

/// The values of headers, and what follows in them after the name of a scheme.
fn header_secrets(headers: &HeaderMap) -> Vec<String> {
    let values = headers.values().filter_map(|value| value.to_str().ok());
    let with_parts = values.flat_map(|value| [value, value.split_once(' ').map_or("", |(_, rest)| rest)]);
    with_parts.filter(|secret| secret.len() >= SECRET_BYTES_MIN).map(str::to_owned).collect()
}

/// The password of an address, and what its secret parameters hold.
fn url_secrets(url: &Url) -> Vec<String> {
    let is_secret = |name: &str| {
        name == "p" || SECRET_PARAMETERS.iter().any(|part| name.to_ascii_lowercase().contains(part))
    };
    let parameters =
        url.query_pairs().filter(|(name, _)| is_secret(name)).map(|(_, value)| value.into_owned());
    let password = url.password().map(str::to_owned);
    parameters.chain(password).filter(|secret| secret.len() >= SECRET_BYTES_MIN).collect()
}

/// The words without secrets: a node may repeat what it was sent.
fn hide<'a>(words: String, secrets: impl Iterator<Item = &'a String>) -> String {
    let mut secrets: Vec<_> = secrets.collect();
    // One may be a part of another.
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    let mut words = secrets.into_iter().fold(words, |words, secret| words.replace(secret, HIDDEN));
    for scheme in SCHEMES {
        let mut from = 0;
        while let Some(found) = words.get(from..).and_then(|rest| rest.find(scheme)) {
            let start = from + found + scheme.len();
            let rest = &words[start..];
            let end = start + rest.find([' ', '"', ',', '\n']).unwrap_or(rest.len());
            let is_secret = end - start >= 2 * SECRET_BYTES_MIN;
            if is_secret {
                words.replace_range(start..end, HIDDEN);
            }
            from = start;
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_show_no_secret_of_the_settings() {
        let headers = HeaderMap::from_iter([
            (http::header::AUTHORIZATION, HeaderValue::from_static("Bearer s3cret-token")),
            (http::header::COOKIE, HeaderValue::from_static("on")),
        ]);
        let url: Url =
            "http://me:pass-word@h/?db=readings&p=hush-hush&x-api-key=k123&q=1".parse().expect("a URL");
        let secrets: Vec<_> = header_secrets(&headers).into_iter().chain(url_secrets(&url)).collect();
        let check = |words: &str, expected: &str| {
            assert_eq!(hide(words.to_owned(), secrets.iter()), expected);
        };
        check("Bearer s3cret-token is wrong", "*** is wrong");
        check("no s3cret-token here, and no pass-word", "no *** here, and no ***");
        check("hush-hush k123 1", "*** *** 1");
        check("the database readings goes on", "the database readings goes on");
        // What the client made of the address.
        check("you sent Basic bWU6cGFzcy13b3Jk, thanks", "you sent Basic ***, thanks");
        check("Basic a Basic Basic bWU6cGFzcy13b3Jk", "Basic a Basic Basic ***");
        check("set Token é\u{202e}", "set Token é\u{202e}");
    }
}
