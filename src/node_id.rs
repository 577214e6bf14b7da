//! The name of a node in logs, metrics and on the status page, and its index.

use std::fmt;
use std::sync::Arc;

use url::Url;

/// Host and port of a node, or its whole address if two nodes share them. It never contains a password.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(Arc<str>);

impl NodeId {
    /// Names the nodes at these addresses, in their order.
    pub fn for_urls(urls: &[Url]) -> Vec<NodeId> {
        let authorities: Vec<_> = urls.iter().map(authority).collect();
        let name = |(index, url): (usize, &Url)| {
            let shared = authorities.iter().filter(|other| **other == authorities[index]).count() > 1;
            NodeId(if shared { without_credentials(url) } else { authorities[index].clone() }.into())
        };
        urls.iter().enumerate().map(name).collect()
    }

    /// Names one more node, differently from `others`: by host and port, or else by its whole address, or else by that and the
    /// name by which it was found.
    pub fn beside<'a>(
        url: &Url,
        found_by: Option<&str>,
        others: impl Iterator<Item = &'a NodeId> + Clone,
    ) -> NodeId {
        let is_free = |name: &String| !others.clone().any(|other| *other.0 == **name);
        let whole = without_credentials(url);
        let last = found_by.map_or_else(|| whole.clone(), |name| format!("{name} at {whole}"));
        NodeId([authority(url), whole].into_iter().find(is_free).unwrap_or(last).into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// The index of a node in the accounts and the status. A node keeps it while it is present or has a batch in flight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeIndex(pub usize);

/// The address without user name, password and query, which may be secrets.
pub fn without_credentials(url: &Url) -> String {
    format!("{}://{}{}", url.scheme(), authority(url), url.path())
}

fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port_or_known_default() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_named_by_host_and_port_or_by_its_address_if_they_are_shared() {
        let urls: Vec<Url> =
            ["http://user:secret@a/x?token=1", "http://b:9000/x", "http://b:9000/y", "http://[::1]:80/"]
                .map(|url| url.parse().expect("a URL"))
                .to_vec();
        let names: Vec<_> = NodeId::for_urls(&urls).iter().map(NodeId::to_string).collect();
        let ids = NodeId::for_urls(&urls);
        let beside =
            |url: &str| NodeId::beside(&url.parse().expect("a URL"), Some("b"), ids.iter()).to_string();
        assert_eq!(beside("http://[::2]:80/"), "[::2]:80");
        assert_eq!(beside("http://u:p@[::1]/y"), "http://[::1]:80/y");
        let url: Url = "https://10.0.0.1/x".parse().expect("a URL");
        let mut known = Vec::new();
        for name in ["one", "two", "three"] {
            known.push(NodeId::beside(&url, Some(name), known.iter()));
        }
        let known: Vec<_> = known.iter().map(NodeId::as_str).collect();
        assert_eq!(known, ["10.0.0.1:443", "https://10.0.0.1:443/x", "three at https://10.0.0.1:443/x"]);
        assert_eq!(names, ["a:80", "http://b:9000/x", "http://b:9000/y", "[::1]:80"]);
    }
}
