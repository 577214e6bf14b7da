//! Whose request a proxy passes on, as `Forwarded` (RFC 7239) or `X-Forwarded-For` say it.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use http::header::FORWARDED;
use http::{HeaderMap, HeaderName};
use ipnet::IpNet;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// Most addresses of a chain that are looked at, from its end.
const HOPS_MAX: usize = 32;

/// The address of the client whose request comes from `peer`.
///
/// A peer in `trusted` is believed when it names the one before it, and so on, from the end of the chain to the first address
/// that is not trusted. An entry that is not an address ends the chain. A proxy sets one of the two headers and passes on the
/// other as its client sent it: if both headers are present and lead to different addresses, neither is believed.
pub fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let chains = [(FORWARDED, forwarded_for as fn(&str) -> Option<IpAddr>), (X_FORWARDED_FOR, address)];
    let told = chains.into_iter().filter(|(name, _)| headers.contains_key(name));
    let mut clients = told.map(|(name, read)| first_untrusted(peer, &chain(headers, &name, read), trusted));
    let Some(client) = clients.next() else { return peer };
    if clients.all(|other| other == client) { client } else { peer }
}

/// The first address from the end of a chain, the peer included, that is not trusted.
fn first_untrusted(peer: IpAddr, chain: &[Option<IpAddr>], trusted: &[IpNet]) -> IpAddr {
    let is_trusted = |address: IpAddr| {
        let address = address.to_canonical();
        trusted.iter().any(|network| network.contains(&address))
    };
    let mut client = peer;
    if !is_trusted(client) {
        return client;
    }
    for address in chain.iter().rev().take(HOPS_MAX) {
        let Some(address) = address else { return client };
        client = *address;
        if !is_trusted(client) {
            return client;
        }
    }
    client
}

/// The addresses in the order in which the request passed them; `None` stands for an entry that is not an address.
fn chain(headers: &HeaderMap, name: &HeaderName, read: fn(&str) -> Option<IpAddr>) -> Vec<Option<IpAddr>> {
    let lines = headers.get_all(name).iter().map(|line| line.to_str().unwrap_or("?"));
    lines.flat_map(|line| line.split(',')).map(read).collect()
}

/// What counts as one address: an IPv6 client has a whole /64.
pub fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
    }
}

/// The address in the parameter `for` of an element of `Forwarded`.
fn forwarded_for(element: &str) -> Option<IpAddr> {
    let mut parameters = element.split(';').filter_map(|pair| pair.split_once('='));
    let (_, value) = parameters.find(|(name, _)| name.trim().eq_ignore_ascii_case("for"))?;
    address(value)
}

/// An address, with a port or without, in quotes and brackets or without.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim().trim_matches('"');
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let socket = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    bare.parse().ok().or_else(socket)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[track_caller]
    fn check(peer: &str, lines: &[(&'static str, &str)], expected: &str) {
        let headers: HeaderMap = lines
            .iter()
            .map(|(name, value)| {
                (HeaderName::from_static(name), HeaderValue::from_str(value).expect("a value"))
            })
            .collect();
        let trusted: Vec<IpNet> =
            ["10.0.0.0/8", "fd00::/8"].iter().map(|network| network.parse().expect("a network")).collect();
        let address = |text: &str| text.parse::<IpAddr>().expect("an address");
        assert_eq!(client_address(address(peer), &headers, &trusted), address(expected), "{lines:?}");
    }

    #[test]
    fn a_trusted_proxy_is_believed_and_nobody_else() {
        check("192.0.2.1", &[("x-forwarded-for", "198.51.100.7")], "192.0.2.1");
        check("10.0.0.1", &[], "10.0.0.1");
        check("10.0.0.1", &[("x-forwarded-for", "198.51.100.7")], "198.51.100.7");
        check("::ffff:10.0.0.1", &[("x-forwarded-for", "198.51.100.7")], "198.51.100.7");
        check("10.0.0.1", &[("x-forwarded-for", "203.0.113.9, 198.51.100.7, 10.0.0.2")], "198.51.100.7");
        check(
            "10.0.0.1",
            &[("x-forwarded-for", "203.0.113.9"), ("x-forwarded-for", "10.0.0.2")],
            "203.0.113.9",
        );
        check("10.0.0.1", &[("x-forwarded-for", "10.0.0.3, 10.0.0.2")], "10.0.0.3");
    }

    #[test]
    fn the_header_of_rfc_7239_is_read_in_its_forms() {
        check("10.0.0.1", &[("forwarded", "for=198.51.100.7;proto=https")], "198.51.100.7");
        check("10.0.0.1", &[("forwarded", "proto=https; For=\"[2001:db8::7]:4711\"")], "2001:db8::7");
        check("10.0.0.1", &[("forwarded", "for=198.51.100.7:80, for=10.0.0.2")], "198.51.100.7");
        let both = [("forwarded", "for=198.51.100.7"), ("x-forwarded-for", "203.0.113.9")];
        check("10.0.0.1", &both, "10.0.0.1");
        let alike = [("forwarded", "for=203.0.113.9"), ("x-forwarded-for", "203.0.113.9")];
        check("10.0.0.1", &alike, "203.0.113.9");
    }

    #[test]
    fn what_is_no_address_ends_the_chain() {
        check("10.0.0.1", &[("forwarded", "for=unknown")], "10.0.0.1");
        check("10.0.0.1", &[("forwarded", "for=_hidden, for=10.0.0.2")], "10.0.0.2");
        check("10.0.0.1", &[("x-forwarded-for", "198.51.100.7, nonsense, 10.0.0.2")], "10.0.0.2");
        let endless = vec!["10.0.0.9"; 10_000].join(",");
        check("10.0.0.1", &[("x-forwarded-for", &endless)], "10.0.0.9");
    }
}
