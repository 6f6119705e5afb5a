//! Client networks, and the share of a resource that each of them may hold.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The unit that a limit applies to: an IPv4 address, or the /64 of an IPv6 address, which is what one customer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClientNetwork {
    /// One address.
    V4(Ipv4Addr),
    /// The upper 64 bits of the address.
    V6(u64),
}

impl ClientNetwork {
    /// Returns the network of an address.
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address),
            IpAddr::V6(address) => Self::V6((address.to_bits() >> 64) as u64),
        }
    }
}

impl fmt::Display for ClientNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4(address) => address.fmt(f),
            Self::V6(half) => write!(f, "{}/64", Ipv6Addr::from_bits(u128::from(*half) << 64)),
        }
    }
}

/// Counts what each client network holds of a resource, up to a maximum. Clones share the counts.
#[derive(Clone, Debug)]
pub struct NetworkShares(Arc<Counts>);

#[derive(Debug)]
struct Counts {
    max: usize,
    held: Mutex<HashMap<ClientNetwork, usize>>,
}

/// One unit of a network's share. Dropping it returns the unit.
#[derive(Debug)]
pub struct NetworkShare {
    counts: Arc<Counts>,
    network: ClientNetwork,
}

impl NetworkShares {
    /// Each network may hold this many units.
    pub fn new(max: usize) -> Self {
        Self(Arc::new(Counts { max, held: Mutex::default() }))
    }

    /// Takes one unit for a network. Returns `None` if it holds its whole share.
    pub fn try_acquire(&self, network: ClientNetwork) -> Option<NetworkShare> {
        let mut held = self.0.held();
        let count = held.get(&network).copied().unwrap_or_default();
        if count >= self.0.max {
            return None;
        }
        held.insert(network, count + 1);
        Some(NetworkShare { counts: Arc::clone(&self.0), network })
    }
}

impl Counts {
    fn held(&self) -> MutexGuard<'_, HashMap<ClientNetwork, usize>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for NetworkShare {
    fn drop(&mut self) {
        if let Entry::Occupied(mut count) = self.counts.held().entry(self.network) {
            *count.get_mut() -= 1;
            // Only networks that hold something are remembered.
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn share_is_counted_by_network_and_returned() {
        let shares = NetworkShares::new(2);
        let acquire = |address: &str| shares.try_acquire(ClientNetwork::of(address.parse().unwrap()));

        let first = acquire("2001:db8::1");
        let second = acquire("2001:db8::2");
        assert!(first.is_some() && second.is_some());
        assert!(acquire("2001:db8::3").is_none(), "a /64 has one share");
        assert!(acquire("2001:db8:0:1::1").is_some() && acquire("192.0.2.7").is_some());

        drop(first);
        assert!(acquire("2001:db8::3").is_some());
        drop(second);
        assert!(shares.0.held().is_empty(), "networks that hold nothing are forgotten");
    }
}
