//! HTTP as the commands need it that speak with a gateway: one client, answers of bounded size, addresses.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, header};
use reqwest::{Client, Response};
use url::Url;

/// Largest answer that is read, in bytes.
pub(super) const ANSWER_BYTES_MAX: usize = 4 << 20;
/// Pause after a refusal that names no time.
pub(super) const RETRY_AFTER_DEFAULT: Duration = Duration::from_secs(1);
/// Longest pause after a refusal.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// A client of this name that goes straight to the address, follows no redirect, and gives up after `timeout`.
///
/// # Errors
///
/// The client could not be set up.
pub(super) fn build(name: &str, connections: usize, timeout: Duration) -> Result<Client, reqwest::Error> {
    Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .pool_max_idle_per_host(connections)
        .timeout(timeout)
        .user_agent(format!("{name}/{}", env!("CARGO_PKG_VERSION")))
        .build()
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

/// Seconds or a date, as RFC 9110 has it.
pub(super) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Duration {
    let text = headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let seconds = text.trim().parse().ok().map(Duration::from_secs);
    let date =
        || httpdate::parse_http_date(text).ok().map(|date| date.duration_since(now).unwrap_or_default());
    seconds.or_else(date).unwrap_or(RETRY_AFTER_DEFAULT).min(RETRY_AFTER_MAX)
}

/// Reads the address of a gateway or a node.
pub(super) fn parse_address(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("{error}; write it as http://127.0.0.1:8080"))?;
    match url.scheme() {
        "http" if url.has_host() => Ok(url),
        _ => Err("only http is spoken; write it as http://127.0.0.1:8080".to_owned()),
    }
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

    #[test]
    fn retry_after_is_seconds_or_a_date_and_never_more_than_a_minute() {
        for (text, seconds) in [
            ("7", 7),
            ("0", 0),
            ("86400", 60),
            ("99999999999999999999", 1),
            ("soon", 1),
            ("Thu, 01 Jan 1970 00:00:09 GMT", 9),
            ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, text.parse().expect("a header"));
            assert_eq!(retry_after(&headers, SystemTime::UNIX_EPOCH), Duration::from_secs(seconds), "{text}");
        }
    }
}
