//! A limit on answers of 401 for each address. Beyond the limit, the keys of an address are not checked.
//!
//! Each address has a bucket in the form of the generic cell rate algorithm (ITU-T I.371): one instant, at which the bucket is
//! full again. An IPv6 client has a whole /64, so that is what counts as one address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::key::Rate;
use crate::door::network_of;

/// Most addresses in the table. A further address replaces addresses with a full bucket, or else the one with the fullest
/// bucket, among a few candidates.
pub const ADDRESSES_MAX: usize = 65_536;
/// How many addresses are looked at to find one to forget.
const FORGET_AMONG: usize = 16;

/// The addresses, and how many refusals each may have.
#[derive(Debug)]
pub struct Addresses {
    /// Time in which a bucket gains one refusal.
    interval: Duration,
    /// Time in which an empty bucket fills.
    burst: Duration,
    /// When the bucket of each address is full; one that is not here is full now.
    full_at: Mutex<HashMap<IpAddr, Instant>>,
}

impl Addresses {
    /// Each address may have as many refusals as `rate` says, also all at once.
    pub fn new(rate: Rate) -> Addresses {
        let refusals = u32::try_from(rate.count).unwrap_or(u32::MAX).max(1);
        Addresses { interval: rate.per / refusals, burst: rate.per, full_at: Mutex::default() }
    }

    /// Whether an address has spent its refusals: the time after which it may have another one.
    pub fn is_spent(&self, address: IpAddr, now: Instant) -> Option<Duration> {
        let full_at = self.lock();
        let full_at = full_at.get(&network_of(address))?;
        let owed = full_at.saturating_duration_since(now) + self.interval;
        owed.checked_sub(self.burst).filter(|wait| !wait.is_zero())
    }

    /// Notes a refusal.
    pub fn on_refused(&self, address: IpAddr, now: Instant) {
        let mut addresses = self.lock();
        let address = network_of(address);
        if addresses.len() >= ADDRESSES_MAX && !addresses.contains_key(&address) {
            forget(&mut addresses, now);
        }
        let full_at = addresses.entry(address).or_insert(now);
        *full_at = (*full_at).max(now) + self.interval;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<IpAddr, Instant>> {
        self.full_at.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes room for one address, in a time that does not grow with their number.
fn forget(addresses: &mut HashMap<IpAddr, Instant>, now: Instant) {
    let candidates: Vec<_> =
        addresses.iter().take(FORGET_AMONG).map(|(address, at)| (*at, *address)).collect();
    let mut forgotten: Vec<_> = candidates.iter().filter(|(at, _)| *at <= now).collect();
    if forgotten.is_empty() {
        forgotten.extend(candidates.iter().min());
    }
    for (_, address) in forgotten {
        addresses.remove(address);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEN_A_SECOND: Rate = Rate { count: 10, per: Duration::from_secs(1) };

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn an_address_has_its_refusals_at_once_and_then_one_at_each_interval() {
        let addresses = Addresses::new(TEN_A_SECOND);
        let (client, mut now) = (address("10.0.0.1"), Instant::now());
        for refusal in 0..10 {
            assert_eq!(addresses.is_spent(client, now), None, "{refusal}");
            addresses.on_refused(client, now);
        }
        assert_eq!(addresses.is_spent(client, now), Some(Duration::from_millis(100)));
        now += Duration::from_millis(100);
        assert_eq!(addresses.is_spent(client, now), None);
        addresses.on_refused(client, now);
        assert!(addresses.is_spent(client, now).is_some());
        now += Duration::from_secs(1);
        for _ in 0..10 {
            assert_eq!(addresses.is_spent(client, now), None);
            addresses.on_refused(client, now);
        }
        assert!(addresses.is_spent(client, now).is_some());
    }

    #[test]
    fn one_address_does_not_pay_for_another_and_a_network_of_ipv6_is_one() {
        let addresses = Addresses::new(Rate { count: 1, per: Duration::from_secs(1) });
        let now = Instant::now();
        addresses.on_refused(address("10.0.0.1"), now);
        addresses.on_refused(address("2001:db8:0:1::1"), now);
        assert!(addresses.is_spent(address("10.0.0.1"), now).is_some());
        assert!(addresses.is_spent(address("::ffff:10.0.0.1"), now).is_some(), "the same address in IPv6");
        assert!(addresses.is_spent(address("2001:db8:0:1:ffff::2"), now).is_some());
        assert_eq!(addresses.is_spent(address("10.0.0.2"), now), None);
        assert_eq!(addresses.is_spent(address("2001:db8:0:2::1"), now), None);
    }

    #[test]
    fn there_are_never_more_addresses_than_the_limit() {
        let addresses = Addresses::new(TEN_A_SECOND);
        let now = Instant::now();
        for number in 0..u32::try_from(ADDRESSES_MAX).expect("small") + 1000 {
            addresses.on_refused(IpAddr::V4(number.into()), now);
        }
        assert_eq!(addresses.lock().len(), ADDRESSES_MAX);
        let later = now + Duration::from_secs(2);
        addresses.on_refused(address("192.0.2.1"), later);
        assert!(addresses.lock().len() < ADDRESSES_MAX, "buckets that are full are forgotten");
    }
}
