//! How a server is reached: over which TLS, and with which key.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, header};
use reqwest::Client;
use rustls::ClientConfig;
use thiserror::Error;

use crate::client;

/// The key and the settings of TLS for requests to a server.
#[derive(Clone, Debug, Default)]
pub struct ServerAccess {
    /// TLS towards `https://` addresses; without it, no certificate is trusted.
    pub tls: Option<Arc<ClientConfig>>,
    /// The key that is sent with every request.
    pub key: Option<BearerKey>,
}

/// A key as requests carry it. Neither its `Debug` form nor an error shows it.
#[derive(Clone, Debug)]
pub struct BearerKey(HeaderValue);

/// Why a text is no key.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum BearerKeyError {
    /// There is nothing of it.
    #[error("the key is empty; leave it out to send none")]
    Empty,
    /// No header can carry it.
    #[error("the key has a character that no header of HTTP can carry, such as a line break")]
    Unprintable,
}

impl FromStr for BearerKey {
    type Err = BearerKeyError;

    /// Takes a key. White space around it, such as the line break at the end of a file, is no part of it.
    fn from_str(text: &str) -> Result<BearerKey, BearerKeyError> {
        let key = text.trim();
        if key.is_empty() {
            return Err(BearerKeyError::Empty);
        }
        let value = HeaderValue::from_str(&format!("Bearer {key}"));
        let mut value = value.map_err(|_| BearerKeyError::Unprintable)?;
        value.set_sensitive(true);
        Ok(BearerKey(value))
    }
}

impl ServerAccess {
    /// A client of this name that keeps so many idle connections to a server, and gives up on an answer after `timeout`.
    ///
    /// # Errors
    ///
    /// The client could not be set up.
    pub fn client(
        &self,
        name: &str,
        connections: usize,
        timeout: Duration,
    ) -> Result<Client, reqwest::Error> {
        let builder = match &self.tls {
            Some(tls) => client::builder_over(ClientConfig::clone(tls)),
            None => client::builder(),
        };
        let key = self.key.iter().map(|key| (header::AUTHORIZATION, key.0.clone()));
        builder
            .default_headers(HeaderMap::from_iter(key))
            .pool_max_idle_per_host(connections)
            .timeout(timeout)
            .user_agent(format!("{name}/{}", env!("CARGO_PKG_VERSION")))
            .build()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<String, BearerKeyError> {
        let BearerKey(value) = text.parse()?;
        Ok(value.to_str().expect("ASCII").to_owned())
    }

    #[test]
    fn a_key_is_sent_without_the_white_space_around_it() {
        for text in ["fb_a", " fb_a", "fb_a\n", "fb_a\r\n"] {
            assert_eq!(read(text).as_deref(), Ok("Bearer fb_a"), "{text:?}");
        }
    }

    #[test]
    fn a_text_that_no_header_can_carry_is_no_key_and_is_not_repeated() {
        for text in ["", " ", "\n"] {
            assert_eq!(read(text), Err(BearerKeyError::Empty), "{text:?}");
        }
        for text in ["fb_a\nfb_b", "fb_\t\u{1}", "fb_\0", "fb_\u{7f}"] {
            assert_eq!(read(text), Err(BearerKeyError::Unprintable), "{text:?}");
            assert!(!BearerKeyError::Unprintable.to_string().contains("fb_"));
        }
    }

    #[test]
    fn a_key_is_not_shown() {
        let access = ServerAccess { key: "fb_a".parse().ok(), ..ServerAccess::default() };
        let client = access.client("forebay-test", 1, Duration::from_secs(1)).expect("a client");
        for shown in [format!("{access:?}"), format!("{client:?}")] {
            assert!(!shown.contains("fb_a"), "{shown}");
        }
    }
}
