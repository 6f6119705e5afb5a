//! What a node knows of each client address: the permits in hand, and what it was told last.
//!
//! Pure: no clock, no Redis. Bounded: names are kept in two generations, and the older one is forgotten when the newer
//! one is full or a window has passed. Whoever is forgotten starts anew, with free permits.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use stock::limit::{Limit, PermitAnswer};
use tokio::sync::watch;
use tokio::time::Instant;

/// The part of the limit that a node wants at a time; it gets less as they run out.
const CHUNK_DIVISOR: u32 = 4;
/// The part of the limit that an address has on each node without asking, a window.
const FREE_DIVISOR: u32 = 40;
/// With less than this part of what was granted left, more is asked for before anybody has to wait.
const LOW_WATER_DIVISOR: u32 = 4;
/// Shortest time for which an address is refused from memory.
const REFUSAL_MIN: Duration = Duration::from_millis(100);
/// Parts of the book, each with a lock of its own.
const SEGMENTS: usize = 16;
/// Most names in a generation of a page: with all pages and both generations some 20 MB.
const NETWORKS_PER_SEGMENT_MAX: usize = 4_096;

/// Whom a limit holds for: an IPv4 address, or the /64 of an IPv6 address, which is what one customer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClientNetwork {
    /// One address.
    V4(Ipv4Addr),
    /// The first half of the address.
    V6(u64),
}

impl ClientNetwork {
    /// The network of an address.
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address),
            IpAddr::V6(address) => Self::V6((address.to_bits() >> 64) as u64),
        }
    }

    /// A number that spreads networks over places.
    pub(super) fn spread(self) -> usize {
        let bits = match self {
            Self::V4(address) => u64::from(address.to_bits()),
            Self::V6(half) => half,
        };
        (bits.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 48) as usize
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

/// All accounts of this node.
pub(super) struct PermitCache {
    limit: Limit,
    segments: [Mutex<Segment>; SEGMENTS],
}

struct Segment {
    current: HashMap<ClientNetwork, AddressPermits>,
    previous: HashMap<ClientNetwork, AddressPermits>,
    rotated_at: Instant,
}

/// What an address may do next.
pub(super) enum PermitDecision {
    /// Come in.
    Pass,
    /// Come in, and more permits are to be asked for.
    PassAndRefill(PermitBatch),
    /// Not before this time has passed.
    Refuse(Duration),
    /// Wait for permits, which are asked for already or are to be.
    Wait { answered: watch::Receiver<()>, ask: Option<PermitBatch> },
}

/// What to ask Redis for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PermitBatch {
    /// Permits that were used without asking.
    pub(super) spent: u32,
    /// Permits to have in advance.
    pub(super) want: u32,
}

struct AddressPermits {
    /// Permits in hand.
    left: u32,
    /// With fewer in hand, more are asked for.
    low_water: u32,
    /// When those in hand lapse.
    expires_at: Instant,
    /// Whether those in hand are free: nobody was asked for them yet.
    is_free: bool,
    /// Free permits that were used.
    spent: u32,
    refused_until: Option<Instant>,
    /// Somebody asks; who has to wait is told when there is an answer.
    pending: Option<watch::Sender<()>>,
}

impl PermitCache {
    pub(super) fn new(limit: Limit) -> Self {
        let segment = || {
            Mutex::new(Segment {
                current: HashMap::new(),
                previous: HashMap::new(),
                rotated_at: Instant::now(),
            })
        };
        Self { limit, segments: std::array::from_fn(|_| segment()) }
    }

    /// What this network's next request may do.
    pub(super) fn take(&self, network: ClientNetwork, now: Instant) -> PermitDecision {
        self.segment(network).permits_of(network, self.limit, now).take(self.limit, now)
    }

    /// Takes in the answer to what was asked for.
    pub(super) fn apply(&self, network: ClientNetwork, permits: PermitAnswer, now: Instant) {
        self.segment(network).permits_of(network, self.limit, now).apply(permits, self.limit, now);
    }

    fn segment(&self, network: ClientNetwork) -> MutexGuard<'_, Segment> {
        self.segments[network.spread() % SEGMENTS].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Segment {
    fn permits_of(&mut self, network: ClientNetwork, limit: Limit, now: Instant) -> &mut AddressPermits {
        if self.current.len() >= NETWORKS_PER_SEGMENT_MAX
            || now.duration_since(self.rotated_at) >= limit.window
        {
            self.previous = std::mem::take(&mut self.current);
            self.rotated_at = now;
        }
        let previous = &mut self.previous;
        let known_or_new = || previous.remove(&network).unwrap_or_else(|| AddressPermits::new(limit, now));
        self.current.entry(network).or_insert_with(known_or_new)
    }
}

impl AddressPermits {
    fn new(limit: Limit, now: Instant) -> Self {
        Self {
            left: limit.permits / FREE_DIVISOR,
            low_water: 0,
            expires_at: now + limit.window,
            is_free: true,
            spent: 0,
            refused_until: None,
            pending: None,
        }
    }

    fn take(&mut self, limit: Limit, now: Instant) -> PermitDecision {
        if let Some(until) = self.refused_until.filter(|until| *until > now) {
            return PermitDecision::Refuse(until - now);
        }
        if self.expires_at <= now {
            self.left = 0;
        }
        if self.left == 0 {
            let ask = self.pending.is_none().then(|| self.ask(limit));
            let answered = self.pending.get_or_insert_default().subscribe();
            return PermitDecision::Wait { answered, ask };
        }
        self.left -= 1;
        self.spent += u32::from(self.is_free);
        if self.is_free || self.left >= self.low_water || self.pending.is_some() {
            return PermitDecision::Pass;
        }
        PermitDecision::PassAndRefill(self.ask(limit))
    }

    fn ask(&mut self, limit: Limit) -> PermitBatch {
        self.pending = Some(watch::Sender::default());
        PermitBatch { spent: std::mem::take(&mut self.spent), want: chunk(limit) }
    }

    fn apply(&mut self, permits: PermitAnswer, limit: Limit, now: Instant) {
        match permits {
            PermitAnswer::Granted(granted) => {
                self.left = if self.is_free { granted } else { self.left.saturating_add(granted) };
                self.low_water = granted / LOW_WATER_DIVISOR;
                self.expires_at = now + limit.interval() * granted;
                self.refused_until = None;
            }
            PermitAnswer::After(wait) => {
                self.refused_until = (self.left == 0).then(|| now + wait.max(REFUSAL_MIN));
            }
        }
        self.is_free = false;
        // Whoever waits for it hears that it ended.
        self.pending = None;
    }
}

/// How many permits a node takes at a time.
pub(super) fn chunk(limit: Limit) -> u32 {
    (limit.permits / CHUNK_DIVISOR).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Limit = Limit { permits: 400, window: Duration::from_secs(40) };
    const FREE: u32 = 10;
    const CHUNK: u32 = 100;

    fn ann() -> ClientNetwork {
        ClientNetwork::of("192.0.2.7".parse().unwrap())
    }

    fn passes(cache: &PermitCache, count: u32, now: Instant) {
        for request in 1..=count {
            assert!(matches!(cache.take(ann(), now), PermitDecision::Pass), "request {request} of {count}");
        }
    }

    fn asks(cache: &PermitCache, now: Instant) -> PermitBatch {
        match cache.take(ann(), now) {
            PermitDecision::PassAndRefill(ask) | PermitDecision::Wait { ask: Some(ask), .. } => ask,
            PermitDecision::Pass | PermitDecision::Wait { .. } | PermitDecision::Refuse(_) => {
                panic!("nothing is asked for")
            }
        }
    }

    #[test]
    fn an_address_that_makes_few_requests_costs_no_call() {
        let (cache, now) = (PermitCache::new(LIMIT), Instant::now());
        passes(&cache, FREE, now);
    }

    #[test]
    fn one_that_makes_more_is_charged_for_what_it_had_free() {
        let (cache, now) = (PermitCache::new(LIMIT), Instant::now());
        passes(&cache, FREE, now);
        assert_eq!(asks(&cache, now), PermitBatch { spent: FREE, want: CHUNK });
        assert!(
            matches!(cache.take(ann(), now), PermitDecision::Wait { ask: None, .. }),
            "one ask at a time"
        );
    }

    #[test]
    fn the_next_permits_are_asked_for_before_anybody_waits() {
        let (cache, now) = (PermitCache::new(LIMIT), Instant::now());
        passes(&cache, FREE, now);
        asks(&cache, now);
        cache.apply(ann(), PermitAnswer::Granted(CHUNK), now);
        passes(&cache, CHUNK - CHUNK / LOW_WATER_DIVISOR, now);
        assert!(matches!(
            cache.take(ann(), now),
            PermitDecision::PassAndRefill(PermitBatch { spent: 0, want: CHUNK })
        ));
        passes(&cache, CHUNK / LOW_WATER_DIVISOR - 1, now);
        assert!(matches!(cache.take(ann(), now), PermitDecision::Wait { ask: None, .. }));
    }

    #[test]
    fn a_refusal_is_remembered_until_there_are_permits_again() {
        let (cache, now) = (PermitCache::new(LIMIT), Instant::now());
        passes(&cache, FREE, now);
        asks(&cache, now);
        cache.apply(ann(), PermitAnswer::After(Duration::from_secs(3)), now);
        let after = |ms| now + Duration::from_millis(ms);
        assert!(
            matches!(cache.take(ann(), after(2_000)), PermitDecision::Refuse(left) if left == Duration::from_secs(1))
        );
        assert_eq!(asks(&cache, after(3_000)), PermitBatch { spent: 0, want: CHUNK });
    }

    #[test]
    fn permits_that_were_not_used_lapse_when_as_many_have_come_back() {
        let (cache, now) = (PermitCache::new(LIMIT), Instant::now());
        passes(&cache, FREE, now);
        asks(&cache, now);
        cache.apply(ann(), PermitAnswer::Granted(CHUNK), now);
        passes(&cache, 1, now + Duration::from_millis(9_999));
        assert_eq!(asks(&cache, now + Duration::from_secs(10)), PermitBatch { spent: 0, want: CHUNK });
    }

    #[test]
    fn however_many_addresses_come_the_book_stays_bounded() {
        let (cache, now) = (PermitCache::new(LIMIT), Instant::now());
        for number in 0..300_000_u32 {
            cache.take(ClientNetwork::of(Ipv4Addr::from_bits(number).into()), now);
        }
        let names = cache.segments.iter().map(|segment| {
            let segment = segment.lock().unwrap();
            segment.current.len() + segment.previous.len()
        });
        assert!(names.sum::<usize>() <= 2 * SEGMENTS * NETWORKS_PER_SEGMENT_MAX);
    }

    #[test]
    fn all_addresses_of_a_customer_s_ipv6_network_are_one() {
        let of = |address: &str| ClientNetwork::of(address.parse().unwrap());
        assert_eq!(of("2001:db8:0:1::1"), of("2001:db8:0:1:ffff::2"));
        assert_ne!(of("2001:db8:0:1::1"), of("2001:db8:0:2::1"));
        assert_eq!(of("::ffff:192.0.2.7"), of("192.0.2.7"));
        assert_eq!(of("2001:db8:0:1::1").to_string(), "2001:db8:0:1::/64");
    }
}
