//! A host as `Host`, an absolute target, an origin or a setting writes it (RFC 3986, section 3.2).

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Longest host name, in bytes: the limit of DNS.
const NAME_BYTES_MAX: usize = 255;

/// A name or an address, with an optional port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host<'a> {
    pub(super) name: Name<'a>,
    pub(super) port: Option<u16>,
}

/// The part before the port. Names are compared without case and without a trailing dot.
#[derive(Clone, Debug)]
pub(super) enum Name<'a> {
    /// An IP address.
    Address(IpAddr),
    /// A name without its trailing dot.
    Text(Cow<'a, str>),
}

impl PartialEq for Name<'_> {
    fn eq(&self, other: &Name<'_>) -> bool {
        match (self, other) {
            (Name::Address(one), Name::Address(two)) => one == two,
            (Name::Text(one), Name::Text(two)) => one.eq_ignore_ascii_case(two),
            (Name::Address(_), Name::Text(_)) | (Name::Text(_), Name::Address(_)) => false,
        }
    }
}

impl Eq for Name<'_> {}

impl<'a> Host<'a> {
    /// The name or the address, without the port.
    pub fn name(&self) -> String {
        match &self.name {
            Name::Address(address) => address.to_string(),
            Name::Text(text) => text.to_string(),
        }
    }

    /// Parses `name`, `name:port`, `192.0.2.1:port` or `[2001:db8::1]:port`; `None` for other text.
    pub fn parse(text: &'a str) -> Option<Host<'a>> {
        let (name, rest) = match text.strip_prefix('[') {
            Some(text) => {
                let (address, rest) = text.split_once(']')?;
                (Name::Address(address.parse::<Ipv6Addr>().ok()?.into()), rest)
            }
            None => {
                let end = text.find(':').unwrap_or(text.len());
                (Name::parse(&text[..end])?, &text[end..])
            }
        };
        let port = match rest.strip_prefix(':') {
            Some(digits) => port(digits)?,
            None if rest.is_empty() => None,
            None => return None,
        };
        Some(Host { name, port })
    }

    /// Copies the borrowed text.
    pub fn into_owned(self) -> Host<'static> {
        let name = match self.name {
            Name::Address(address) => Name::Address(address),
            Name::Text(text) => Name::Text(Cow::Owned(text.into_owned())),
        };
        Host { name, port: self.port }
    }

    /// Whether it is an address or `localhost`, which DNS cannot point at another machine.
    pub(super) fn is_address_or_localhost(&self) -> bool {
        match &self.name {
            Name::Address(_) => true,
            Name::Text(text) => text.eq_ignore_ascii_case("localhost"),
        }
    }

    /// Whether this listed host covers `other`: the port is compared only if this one has a port.
    pub(super) fn covers(&self, other: &Host<'_>) -> bool {
        self.name == other.name && (self.port.is_none() || self.port == other.port)
    }
}

impl<'a> Name<'a> {
    fn parse(text: &'a str) -> Option<Name<'a>> {
        let text = text.strip_suffix('.').unwrap_or(text);
        if let Ok(address) = text.parse::<Ipv4Addr>() {
            return Some(Name::Address(address.into()));
        }
        let is_good = (1..=NAME_BYTES_MAX).contains(&text.len()) && is_registered_name(text.as_bytes());
        is_good.then_some(Name::Text(Cow::Borrowed(text)))
    }
}

/// `reg-name` of RFC 3986: unreserved characters, sub-delimiters, and `%` with two hexadecimal digits.
fn is_registered_name(text: &[u8]) -> bool {
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        let is_good = match byte {
            b'%' => bytes.by_ref().take(2).filter(|digit| digit.is_ascii_hexdigit()).count() == 2,
            byte => byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(byte),
        };
        if !is_good {
            return false;
        }
    }
    true
}

/// Parses a port. A colon alone means no port.
fn port(digits: &str) -> Option<Option<u16>> {
    match digits {
        "" => Some(None),
        digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok().map(Some),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address_with_a_port_or_without() {
        for (text, other) in [
            ("gateway", "GATEWAY"),
            ("gateway.example", "Gateway.Example."),
            ("gateway:", "gateway"),
            ("a_b-c.d%20e", "a_b-c.d%20e"),
            ("[::1]:80", "[0:0:0:0:0:0:0:1]:80"),
            ("127.0.0.1:8080", "127.0.0.1.:8080"),
        ] {
            assert!(Host::parse(text).is_some(), "{text}");
            assert_eq!(Host::parse(text), Host::parse(other), "{text}");
        }
        for (text, other) in [("a", "b"), ("a:80", "a:81"), ("127.0.0.1", "127.0.0.2"), ("a", "127.0.0.1")] {
            assert_ne!(Host::parse(text), Host::parse(other), "{text}");
        }
        for text in [
            "",
            ".",
            ":80",
            "a b",
            "a/b",
            "a@b",
            "http://a",
            "a:b",
            "a:-1",
            "a:+1",
            "a:65536",
            "a:80:80",
            "[::1",
            "::1",
            "[::1]80",
            "[127.0.0.1]",
            "[gateway]",
            "[fe80::1%25eth0]",
            "a%2",
            "a%zz",
            "ä",
            "a\"",
            "<a>",
            "a\\b",
            "a?b",
            "a#b",
        ] {
            assert_eq!(Host::parse(text), None, "{text}");
        }
        assert_eq!(Host::parse(&"a".repeat(256)), None);
    }

    #[test]
    fn only_addresses_and_localhost_need_no_list() {
        let check = |text: &str| Host::parse(text).expect("a host").is_address_or_localhost();
        for text in
            ["localhost", "LOCALHOST:80", "localhost.", "127.0.0.1", "0.0.0.0", "[::1]:8080", "192.0.2.1"]
        {
            assert!(check(text), "{text}");
        }
        for text in ["localhost.example", "x.localhost", "127.1", "2130706433", "0x7f.1", "localhost%2e"] {
            assert!(!check(text), "{text}");
        }
    }

    #[test]
    fn a_listed_host_covers_any_port_unless_it_names_one() {
        let check = |listed: &str, asked: &str| {
            let host = |text| Host::parse(text).expect("a host");
            host(listed).covers(&host(asked))
        };
        assert!(check("gw.example", "GW.example.:8443") && check("gw.example:8443", "gw.example:8443"));
        assert!(!check("gw.example:8443", "gw.example") && !check("gw.example", "other.gw.example"));
    }
}
