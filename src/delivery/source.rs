//! The entries of `cluster.nodes`: an address, or a DNS name that stands for all its addresses.

use std::fmt;
use std::net::SocketAddr;

use http::HeaderValue;
use url::Url;

use crate::node_id::without_credentials;

/// The prefix of an entry whose name is looked up: `dns+http://…`.
pub const DNS_PREFIX: &str = "dns+";
/// The scheme of nodes that are called over TLS.
const HTTPS: &str = "https";

/// One entry of `cluster.nodes`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeSource {
    /// One node.
    Address(Url),
    /// A node at each address of this URL's host; the host is looked up periodically.
    Name(Url),
}

/// How one node is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The URL of requests.
    pub url: Url,
    /// The `Host` header, if it differs from the host of the URL.
    pub host: Option<HeaderValue>,
    /// The address to connect to, if it is not to be found by the host of the URL.
    pub address: Option<SocketAddr>,
}

/// A node's own address, and the name that it is called by over TLS.
pub(super) type EndpointKey = (String, Option<String>);

impl Endpoint {
    /// A node at the host of a URL.
    pub fn at(url: Url) -> Endpoint {
        Endpoint { url, host: None, address: None }
    }

    /// The name that a node is called by over TLS, at an address of its own.
    pub(super) fn name(&self) -> Option<&str> {
        self.address.and(self.url.host_str())
    }

    /// What tells the node from all others: its own address with the path, and the name that its certificate has to be for.
    pub(super) fn key(&self) -> EndpointKey {
        (without_credentials(&self.own_url()), self.name().map(str::to_owned))
    }

    /// The URL with the node's own address as its host.
    pub(super) fn own_url(&self) -> Url {
        let mut url = self.url.clone();
        if let Some(address) = self.address {
            set_address(&mut url, address);
        }
        url
    }
}

fn set_address(url: &mut Url, address: SocketAddr) {
    // Neither fails: the URL has a host, and a scheme with ports.
    let _ = url.set_ip_host(address.ip());
    let _ = url.set_port(Some(address.port()));
}

impl NodeSource {
    /// The URL from the settings, without the prefix of a name.
    pub fn url(&self) -> &Url {
        match self {
            NodeSource::Address(url) | NodeSource::Name(url) => url,
        }
    }

    /// The host, without the brackets of an IPv6 address, and the port.
    pub fn host_and_port(&self) -> (&str, u16) {
        let url = self.url();
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        (host, url.port_or_known_default().unwrap_or(80))
    }

    /// Whether the node is called over TLS.
    pub fn is_over_tls(&self) -> bool {
        self.url().scheme() == HTTPS
    }

    /// The endpoint of the node at one of the source's addresses.
    ///
    /// Over TLS a name stays in the URL, since the certificate is checked against it.
    pub(super) fn endpoint(&self, address: SocketAddr) -> Endpoint {
        let mut url = self.url().clone();
        if matches!(self, NodeSource::Name(_)) && self.is_over_tls() {
            return Endpoint { url, host: None, address: Some(address) };
        }
        set_address(&mut url, address);
        let host = match self {
            NodeSource::Address(_) => None,
            NodeSource::Name(named) => {
                let (_, port) = self.host_and_port();
                HeaderValue::try_from(format!("{}:{port}", named.host_str().unwrap_or_default())).ok()
            }
        };
        Endpoint { url, host, address: None }
    }
}

/// The entry from the settings, without credentials.
impl fmt::Display for NodeSource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NodeSource::Address(url) => formatter.write_str(&without_credentials(url)),
            NodeSource::Name(url) => write!(formatter, "{DNS_PREFIX}{}", without_credentials(url)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_found_by_name_is_contacted_at_its_address_with_the_name_as_host() {
        let check = |url: &str, address: &str, expected: &str, host: &str| {
            let source = NodeSource::Name(url.parse().expect("a URL"));
            let endpoint = source.endpoint(address.parse().expect("an address"));
            assert_eq!(endpoint.url.as_str(), expected);
            assert_eq!(endpoint.host.expect("a host"), host);
        };
        check("http://store:9000/x", "10.0.0.1:9000", "http://10.0.0.1:9000/x", "store:9000");
        check("http://store:9000/x", "[fd00::7]:9000", "http://[fd00::7]:9000/x", "store:9000");
        check("http://u:p@store/x?y=1", "10.0.0.1:80", "http://u:p@10.0.0.1/x?y=1", "store:80");
        let source = NodeSource::Name("https://u:p@store:8443/x".parse().expect("a URL"));
        let address = "10.0.0.1:8443".parse().expect("an address");
        let endpoint = source.endpoint(address);
        assert_eq!(endpoint.url.as_str(), "https://u:p@store:8443/x", "the certificate is for the name");
        assert_eq!((endpoint.host.as_ref(), endpoint.address), (None, Some(address)));
        assert_eq!(endpoint.own_url().as_str(), "https://u:p@10.0.0.1:8443/x");
        let source = NodeSource::Name("https://store/".parse().expect("a URL"));
        assert_eq!((source.host_and_port(), source.is_over_tls()), (("store", 443), true));
        let source = NodeSource::Name("http://u:p@store/x?y=1".parse().expect("a URL"));
        assert_eq!(source.to_string(), "dns+http://store:80/x");
        assert_eq!(source.host_and_port(), ("store", 80));
    }
}
