//! The headers of a batch, and which of them are nobody else's to set.

use forebay_stores::{STORES, StoreConfig};
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::{Compression, TransportConfig};

/// The key of the batch, in quotation marks.
pub(super) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// How many readings the batch has.
pub(super) const FOREBAY_READINGS: HeaderName = HeaderName::from_static("forebay-readings");

/// How all headers begin that are Forebay's own.
const OWN_PREFIX: &str = "forebay-";

/// Headers that HTTP, the format of the bodies, or Forebay itself sets. Any of these from the settings would contradict the
/// request: a length that is not the body's has a node store a part of it and say that it has it all. Those that formats set
/// ([`forebay_stores::Store::headers`]) and those that begin with `forebay-` come to them.
const RESERVED: [&str; 24] = [
    // What the body is.
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
    // Who sends what.
    "idempotency-key",
    "max-forwards",
    "user-agent",
    "via",
];

/// Whether the settings may not set a header. Some servers take an underscore for a hyphen, so both are the same here.
pub fn is_reserved(name: &HeaderName) -> bool {
    let name = name.as_str().replace('_', "-");
    RESERVED.contains(&name.as_str()) || name.starts_with(OWN_PREFIX) || is_of_a_store(&name)
}

fn is_of_a_store(name: &str) -> bool {
    let stores = STORES.members.iter().map(|(_, make)| make(&StoreConfig::default()));
    stores.flat_map(|store| store.headers()).any(|(known, _)| *known == name)
}

/// What every request has, and how its body is to be compressed for it.
pub(super) fn of_all(config: &TransportConfig) -> (HeaderMap, Compression) {
    let agent = HeaderValue::from_static(concat!("forebay/", env!("CARGO_PKG_VERSION")));
    let mut headers = config.headers.clone();
    headers.insert(USER_AGENT, agent);
    let encoder = config.store.encoder();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(encoder.content_type()));
    for (name, value) in config.store.headers() {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    // A body that is compressed as part of its format is not compressed once more.
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
    fn whatever_a_request_has_of_its_own_is_nobody_elses_to_set() {
        for (name, make) in STORES.members {
            for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
                let (store, headers) = (make(&StoreConfig::default()), HeaderMap::new());
                let config = TransportConfig { store, headers, compression, ..TransportConfig::for_tests() };
                let (headers, _) = of_all(&config);
                for header in headers.keys().chain([&IDEMPOTENCY_KEY, &FOREBAY_READINGS]) {
                    assert!(is_reserved(header), "{header} of {name}");
                }
            }
        }
    }

    #[test]
    fn reserved_headers_are_known_in_any_form_and_others_are_free() {
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
