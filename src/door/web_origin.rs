//! The origin of a web page, as browsers send it in `Origin` (RFC 6454).

use super::host::Host;

/// A scheme, a host and a port. A missing port is the scheme's default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebOrigin {
    scheme: String,
    host: Host<'static>,
}

impl WebOrigin {
    /// Parses `scheme://host` or `scheme://host:port`; `None` for other text, including `null` and `*`.
    pub fn parse(text: &str) -> Option<WebOrigin> {
        let (scheme, host) = text.split_once("://")?;
        if !is_scheme(scheme.as_bytes()) {
            return None;
        }
        let scheme = scheme.to_ascii_lowercase();
        let host = Host::parse(host)?.into_owned();
        let port = host.port.or(default_port(&scheme));
        Some(WebOrigin { host: Host { port, ..host }, scheme })
    }

    /// Whether it is the origin of a request to `host` over this scheme, `http` or `https`.
    pub(super) fn is_at(&self, scheme: &str, host: &Host<'_>) -> bool {
        let port = host.port.or(default_port(scheme));
        self.scheme == scheme && self.host.name == host.name && self.host.port == port
    }
}

fn is_scheme(text: &[u8]) -> bool {
    text.first().is_some_and(u8::is_ascii_alphabetic)
        && text.iter().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte))
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_compared_without_case_and_with_their_schemes_default_port() {
        for (one, two) in [
            ("http://a.example", "HTTP://A.Example:80"),
            ("https://a.example", "https://a.example.:443"),
            ("http://[::1]:3000", "http://[0::1]:3000"),
        ] {
            assert!(WebOrigin::parse(one).is_some(), "{one}");
            assert_eq!(WebOrigin::parse(one), WebOrigin::parse(two), "{one}");
        }
        for (one, two) in [
            ("http://a.example", "https://a.example"),
            ("http://a.example", "http://a.example:8080"),
            ("http://a.example:443", "https://a.example:443"),
            ("http://a.example", "http://b.a.example"),
        ] {
            assert_ne!(WebOrigin::parse(one), WebOrigin::parse(two), "{one}");
        }
        for text in [
            "",
            "null",
            "*",
            "a.example",
            "//a.example",
            "http://",
            "http://a.example/",
            "http://a.example/x",
            "http://user@a.example",
            "http://a.example http://b.example",
            "http://a.example?x",
            "1http://a",
            "http:a.example",
        ] {
            assert_eq!(WebOrigin::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_request_is_of_the_same_origin_if_scheme_host_and_port_are_equal() {
        let check = |origin: &str, host: &str| {
            WebOrigin::parse(origin).expect("an origin").is_at("http", &Host::parse(host).expect("a host"))
        };
        for (origin, host) in [
            ("http://127.0.0.1:8080", "127.0.0.1:8080"),
            ("http://localhost", "LocalHost:80"),
            ("http://[::1]:8080", "[::1]:8080"),
            ("HTTP://Gw.example:80", "gw.example"),
        ] {
            assert!(check(origin, host), "{origin} {host}");
        }
        for (origin, host) in [
            ("https://127.0.0.1:8080", "127.0.0.1:8080"),
            ("http://127.0.0.1", "127.0.0.1:8080"),
            ("http://127.0.0.1:8081", "127.0.0.1:8080"),
            ("http://localhost:8080", "127.0.0.1:8080"),
            ("http://evil.example:8080", "127.0.0.1:8080"),
        ] {
            assert!(!check(origin, host), "{origin} {host}");
        }
    }
}
