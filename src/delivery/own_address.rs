//! Detects whether a node is this gateway itself, since its batches would come in again for ever.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _, UdpSocket};
use std::sync::mpsc;
use std::time::Duration;

use super::source::NodeSource;

/// Longest look-up of a name at the start.
const LOOKUP_MAX: Duration = Duration::from_secs(2);

/// Whether a connection to `address` reaches the listener on `own`, as far as this machine can tell. An indirect way back (a
/// load balancer, a forwarded port) is only detected by `Forebay-Via`.
pub fn is_own(address: SocketAddr, own: SocketAddr) -> bool {
    if own.port() == 0 || address.port() != own.port() {
        return false;
    }
    let (ip, listens) = (address.ip().to_canonical(), own.ip().to_canonical());
    // A connection to the unspecified address goes to the machine itself.
    let ip = match ip {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        other => other,
    };
    match listens {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => ip.is_ipv4() && is_of_this_machine(ip),
        // This listener takes connections over IPv4 too.
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => is_of_this_machine(ip),
        one => ip == one,
    }
}

/// Whether an entry of `cluster.nodes` is this gateway, which listens on `own`. For a DNS name, all its addresses must be the
/// gateway's. A name that is not resolved in time counts as another machine.
pub fn leads_to(node: &NodeSource, own: SocketAddr) -> bool {
    let (host, port) = node.host_and_port();
    if port != own.port() {
        return false;
    }
    let found = match host.parse::<IpAddr>() {
        Ok(ip) => vec![SocketAddr::new(ip, port)],
        Err(_) => look_up(host, port).unwrap_or_default(),
    };
    let mut own_addresses = found.iter().filter(|address| is_own(**address, own));
    match node {
        // The HTTP client tries the addresses of a host in any order, so one of them is enough.
        NodeSource::Address(_) => own_addresses.next().is_some(),
        // Each address of a name is a node; the other ones remain usable.
        NodeSource::Name(_) => !found.is_empty() && own_addresses.count() == found.len(),
    }
}

/// Looks up a name, on a thread that is abandoned if it takes too long.
fn look_up(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let (sender, found) = mpsc::sync_channel(1);
    let host = host.to_owned();
    std::thread::Builder::new().name("look-up".to_owned()).spawn(move || {
        let addresses = (host.as_str(), port).to_socket_addrs().map(Iterator::collect);
        // The receiver may have given up.
        let _ = sender.send(addresses);
    })?;
    found.recv_timeout(LOOKUP_MAX).map_err(io::Error::other)?
}

/// Whether the machine has this address: the route to an own address starts at itself. Nothing is sent.
fn is_of_this_machine(ip: IpAddr) -> bool {
    if ip.is_loopback() {
        return true;
    }
    let any: IpAddr = if ip.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let begins_at = || {
        let socket = UdpSocket::bind((any, 0))?;
        // Any port will do.
        socket.connect((ip, 9))?;
        socket.local_addr()
    };
    begins_at().is_ok_and(|address| address.ip() == ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(address: &str, listens: &str) -> bool {
        is_own(address.parse().expect("an address"), listens.parse().expect("an address"))
    }

    #[test]
    fn the_listening_address_is_recognised_in_every_form() {
        for (address, listens) in [
            ("127.0.0.1:8080", "127.0.0.1:8080"),
            ("0.0.0.0:8080", "127.0.0.1:8080"),
            ("[::ffff:127.0.0.1]:8080", "127.0.0.1:8080"),
            ("[::1]:8080", "[::1]:8080"),
            ("[::]:8080", "[::1]:8080"),
            ("10.9.8.7:8080", "10.9.8.7:8080"),
            ("127.0.0.1:8080", "0.0.0.0:8080"),
            ("127.0.1.1:8080", "0.0.0.0:8080"),
            ("0.0.0.0:8080", "0.0.0.0:8080"),
            ("127.0.0.1:8080", "[::]:8080"),
            ("[::1]:8080", "[::]:8080"),
            ("[::]:8080", "[::]:8080"),
        ] {
            assert!(own(address, listens), "{address} is {listens}");
        }
    }

    #[test]
    fn other_ports_and_other_machines_are_not_own() {
        for (address, listens) in [
            ("127.0.0.1:8081", "127.0.0.1:8080"),
            ("127.0.0.2:8080", "127.0.0.1:8080"),
            ("[::1]:8080", "127.0.0.1:8080"),
            ("[::1]:8080", "0.0.0.0:8080"),
            ("127.0.0.1:8080", "10.9.8.7:8080"),
            ("0.0.0.0:8080", "10.9.8.7:8080"),
            // Addresses reserved for documentation (RFC 5737, RFC 3849).
            ("192.0.2.1:8080", "0.0.0.0:8080"),
            ("[2001:db8::1]:8080", "[::]:8080"),
            ("127.0.0.1:0", "127.0.0.1:0"),
        ] {
            assert!(!own(address, listens), "{address} is not {listens}");
        }
    }

    #[test]
    fn the_addresses_of_the_machines_interfaces_are_own() {
        // A machine with a route to anywhere has an address for it.
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
        let Ok(()) = socket.connect("192.0.2.1:9") else { return };
        let ip = socket.local_addr().expect("an address").ip();
        assert!(own(&format!("{ip}:8080"), "0.0.0.0:8080"), "{ip}");
        assert!(!own(&format!("{ip}:8080"), "127.0.0.1:8080"), "{ip}");
    }

    #[test]
    fn names_are_looked_up_if_their_port_is_the_gateways() {
        let listens: SocketAddr = "127.0.0.1:8080".parse().expect("an address");
        let named = |url: &str| NodeSource::Name(url.parse().expect("a URL"));
        let fixed = |url: &str| NodeSource::Address(url.parse().expect("a URL"));
        for node in [
            fixed("http://127.0.0.1:8080/v1/readings"),
            fixed("http://localhost:8080/any?x=1"),
            fixed("http://LOCALHOST:8080"),
            fixed("http://u:p@0x7f.1:8080/"),
            named("http://127.0.0.1:8080/"),
        ] {
            assert!(leads_to(&node, listens), "{node}");
        }
        for node in [
            fixed("http://localhost:8081/"),
            fixed("http://no-such-name.invalid:8080/"),
            named("http://no-such-name.invalid:8080/"),
            fixed("http://192.0.2.1:8080/"),
        ] {
            assert!(!leads_to(&node, listens), "{node}");
        }
        let port_80: SocketAddr = "127.0.0.1:80".parse().expect("an address");
        assert!(leads_to(&fixed("http://localhost/"), port_80), "the port that is not written");
    }
}
