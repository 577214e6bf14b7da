//! How many connections, or requests, each address has open.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;

use crate::door::network_of;

/// Counts what is open by address: connections, or requests that come through proxies. It never knows more addresses than
/// there are of these.
#[derive(Clone, Debug)]
pub struct PerAddress {
    /// Most that one address may have; 0: any number.
    limit: usize,
    /// Addresses that are not limited.
    exempt: Arc<[IpNet]>,
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// The place of something open of an address. Dropping it makes room for another one.
#[derive(Debug)]
pub struct AddressPlace {
    address: Option<IpAddr>,
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl PerAddress {
    /// Each address may have `limit` at once, or any number if that is 0; those in `exempt` always may.
    pub fn new(limit: usize, exempt: Vec<IpNet>) -> PerAddress {
        PerAddress { limit, exempt: exempt.into(), open: Arc::default() }
    }

    /// A place for one more of an address; `None` if it has as many as it may.
    pub fn take(&self, address: Option<IpAddr>) -> Option<AddressPlace> {
        let address = address.map(|address| address.to_canonical());
        let counted = address
            .filter(|address| self.limit > 0 && !self.exempt.iter().any(|network| network.contains(address)));
        let counted = counted.map(network_of);
        if let Some(address) = counted {
            let mut open = lock(&self.open);
            let count = open.entry(address).or_default();
            if *count >= self.limit {
                return None;
            }
            *count += 1;
        }
        Some(AddressPlace { address: counted, open: Arc::clone(&self.open) })
    }
}

impl Drop for AddressPlace {
    fn drop(&mut self) {
        let Some(address) = self.address else { return };
        let mut open = lock(&self.open);
        if let Some(count) = open.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                open.remove(&address);
            }
        }
    }
}

fn lock(open: &Mutex<HashMap<IpAddr, usize>>) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().expect("an address"))
    }

    #[test]
    fn an_address_has_only_so_many_places_and_gets_one_back_when_one_is_dropped() {
        let places = PerAddress::new(2, vec!["10.0.0.0/8".parse().expect("a network")]);
        let mut held: Vec<_> = (0..2).map(|_| places.take(address("192.0.2.1"))).collect();
        assert!(held.iter().all(Option::is_some));
        assert!(places.take(address("192.0.2.1")).is_none());
        assert!(places.take(address("::ffff:192.0.2.1")).is_none(), "the same address");
        let other = places.take(address("192.0.2.2"));
        assert!(other.is_some(), "another address");
        held.pop();
        held.push(places.take(address("192.0.2.1")));
        assert!(held.iter().all(Option::is_some));
        let exempt: Vec<_> = (0..10).map(|_| places.take(address("10.1.2.3"))).collect();
        let unknown: Vec<_> = (0..10).map(|_| places.take(None)).collect();
        assert!(exempt.iter().chain(&unknown).all(Option::is_some));
        drop((held, other, exempt, unknown));
        assert!(lock(&places.open).is_empty(), "nothing is remembered of those that are gone");
    }

    #[test]
    fn without_a_limit_nothing_is_counted() {
        let places = PerAddress::new(0, Vec::new());
        let held: Vec<_> = (0..10).map(|_| places.take(address("192.0.2.1"))).collect();
        assert!(held.iter().all(Option::is_some));
        assert!(lock(&places.open).is_empty());
    }
}
