//! The headers of a batch, and the reserved ones that the settings may not set.

use forebay_stores::{STORES, StoreConfig};
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::{Compression, TransportConfig};

/// The key of the batch, in quotation marks.
pub(super) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// The number of readings in the batch.
pub(super) const FOREBAY_READINGS: HeaderName = HeaderName::from_static("forebay-readings");

/// The prefix of all of Forebay's own headers.
const OWN_PREFIX: &str = "forebay-";

/// Headers that HTTP, the body format or Forebay itself sets. A value from the settings could contradict the request: with a
/// wrong `Content-Length`, a node stores part of a batch and confirms all of it. Also reserved are the headers of the stores
/// ([`forebay_stores::Store::headers`]) and every header that begins with `forebay-`.
const RESERVED: [&str; 24] = [
    // The body.
    "content-digest",
    "content-encoding",
    "content-length",
    "content-md5",
    "content-range",
    "content-type",
    "digest",
    "repr-digest",
    // The connection and the message on it.
    "accept-encoding",
    "connection",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "trailers",
    "transfer-encoding",
    "upgrade",
    // The sender and the batch.
    "idempotency-key",
    "max-forwards",
    "user-agent",
    "via",
];

/// Whether a header is reserved, so that the settings may not set it. Some servers treat underscores as hyphens, so this does too.
pub fn is_reserved(name: &HeaderName) -> bool {
    let name = name.as_str().replace('_', "-");
    RESERVED.contains(&name.as_str()) || name.starts_with(OWN_PREFIX) || is_set_by_a_store(&name)
}

fn is_set_by_a_store(name: &str) -> bool {
    let stores = STORES.members.iter().map(|(_, make)| make(&StoreConfig::default()));
    stores.flat_map(|store| store.headers()).any(|(known, _)| *known == name)
}

/// The headers that Forebay sets in every request, and the compression that remains for its body.
pub(super) fn common(config: &TransportConfig) -> (HeaderMap, Compression) {
    let agent = HeaderValue::from_static(concat!("forebay/", env!("CARGO_PKG_VERSION")));
    let mut headers = HeaderMap::new();
    headers.insert(USER_AGENT, agent);
    let encoder = config.store.encoder();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(encoder.content_type()));
    for (name, value) in config.store.headers() {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    // A format with a compression of its own is not compressed again.
    let (compression, encoding) = match (encoder.content_encoding(), config.compression) {
        (Some(encoding), _) => (Compression::None, Some(encoding)),
        (None, Compression::None) => (Compression::None, None),
        (None, Compression::Gzip) => (Compression::Gzip, Some("gzip")),
        (None, Compression::Zstd) => (Compression::Zstd, Some("zstd")),
    };
    if let Some(encoding) = encoding {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(encoding));
    }
    (headers, compression)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_header_that_a_request_sets_itself_is_reserved() {
        for (name, make) in STORES.members {
            for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
                let store = make(&StoreConfig::default());
                let config = TransportConfig { store, compression, ..TransportConfig::for_tests() };
                let (headers, _) = common(&config);
                for header in headers.keys().chain([&IDEMPOTENCY_KEY, &FOREBAY_READINGS]) {
                    assert!(is_reserved(header), "{header} of {name}");
                }
            }
        }
    }

    #[test]
    fn reserved_headers_are_recognised_in_any_spelling_and_others_are_free() {
        let check = |name: &str, expected: bool| {
            let name: HeaderName = name.parse().expect("a name");
            assert_eq!(is_reserved(&name), expected, "{name}");
        };
        for name in RESERVED {
            check(name, true);
            check(&name.to_uppercase(), true);
            check(&name.replace('-', "_"), true);
        }
        for name in
            ["Forebay-Via", "forebay-anything", "FOREBAY_READINGS", "X-Prometheus-Remote-Write-Version"]
        {
            check(name, true);
        }
        for name in [
            "authorization",
            "proxy-authorization",
            "cookie",
            "x-api-key",
            "x-clickhouse-key",
            "accept",
            "content-language",
            "x-scope-orgid",
            "forwarded",
            "x-host",
            "x-content-type",
            "forebay",
        ] {
            check(name, false);
        }
    }
}
