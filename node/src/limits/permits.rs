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
const CHUNKS_PER_LIMIT: u32 = 4;
/// The part of the limit that an address has on each node without asking, a window.
const FREE_PER_LIMIT: u32 = 40;
/// With less than this part of what was granted left, more is asked for before anybody has to wait.
const LOW_WATER_PER_CHUNK: u32 = 4;
/// Shortest time for which an address is refused from memory.
const REFUSAL_MIN: Duration = Duration::from_millis(100);
/// Parts of the book, each with a lock of its own.
const PAGES: usize = 16;
/// Most names in a generation of a page: with all pages and both generations some 20 MB.
const NAMES_PER_PAGE_MAX: usize = 4_096;

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
    pages: [Mutex<Page>; PAGES],
}

struct Page {
    recent: HashMap<ClientNetwork, AddressPermits>,
    former: HashMap<ClientNetwork, AddressPermits>,
    turned_at: Instant,
}

/// What an address may do next.
pub(super) enum PermitDecision {
    /// Come in.
    Pass,
    /// Come in, and more permits are to be asked for.
    PassAndAsk(PermitBatch),
    /// Not before this time has passed.
    Refuse(Duration),
    /// Wait for permits, which are asked for already or are to be.
    Wait { news: watch::Receiver<()>, ask: Option<PermitBatch> },
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
    lapses_at: Instant,
    /// Whether those in hand are free: nobody was asked for them yet.
    is_free: bool,
    /// Free permits that were used.
    spent: u32,
    refused_until: Option<Instant>,
    /// Somebody asks; who has to wait is told when there is an answer.
    asking: Option<watch::Sender<()>>,
}

impl PermitCache {
    pub(super) fn new(limit: Limit) -> Self {
        let page =
            || Mutex::new(Page { recent: HashMap::new(), former: HashMap::new(), turned_at: Instant::now() });
        Self { limit, pages: std::array::from_fn(|_| page()) }
    }

    /// What this network's next request may do.
    pub(super) fn step(&self, network: ClientNetwork, now: Instant) -> PermitDecision {
        self.page(network).account(network, self.limit, now).step(self.limit, now)
    }

    /// Takes in the answer to what was asked for.
    pub(super) fn settle(&self, network: ClientNetwork, permits: PermitAnswer, now: Instant) {
        self.page(network).account(network, self.limit, now).settle(permits, self.limit, now);
    }

    fn page(&self, network: ClientNetwork) -> MutexGuard<'_, Page> {
        self.pages[network.spread() % PAGES].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Page {
    fn account(&mut self, network: ClientNetwork, limit: Limit, now: Instant) -> &mut AddressPermits {
        if self.recent.len() >= NAMES_PER_PAGE_MAX || now.duration_since(self.turned_at) >= limit.window {
            self.former = std::mem::take(&mut self.recent);
            self.turned_at = now;
        }
        let former = &mut self.former;
        let known_or_new = || former.remove(&network).unwrap_or_else(|| AddressPermits::new(limit, now));
        self.recent.entry(network).or_insert_with(known_or_new)
    }
}

impl AddressPermits {
    fn new(limit: Limit, now: Instant) -> Self {
        Self {
            left: limit.permits / FREE_PER_LIMIT,
            low_water: 0,
            lapses_at: now + limit.window,
            is_free: true,
            spent: 0,
            refused_until: None,
            asking: None,
        }
    }

    fn step(&mut self, limit: Limit, now: Instant) -> PermitDecision {
        if let Some(until) = self.refused_until.filter(|until| *until > now) {
            return PermitDecision::Refuse(until - now);
        }
        if self.lapses_at <= now {
            self.left = 0;
        }
        if self.left == 0 {
            let ask = self.asking.is_none().then(|| self.ask(limit));
            let news = self.asking.get_or_insert_default().subscribe();
            return PermitDecision::Wait { news, ask };
        }
        self.left -= 1;
        self.spent += u32::from(self.is_free);
        if self.is_free || self.left >= self.low_water || self.asking.is_some() {
            return PermitDecision::Pass;
        }
        PermitDecision::PassAndAsk(self.ask(limit))
    }

    fn ask(&mut self, limit: Limit) -> PermitBatch {
        self.asking = Some(watch::Sender::default());
        PermitBatch { spent: std::mem::take(&mut self.spent), want: chunk(limit) }
    }

    fn settle(&mut self, permits: PermitAnswer, limit: Limit, now: Instant) {
        match permits {
            PermitAnswer::Granted(granted) => {
                self.left = if self.is_free { granted } else { self.left.saturating_add(granted) };
                self.low_water = granted / LOW_WATER_PER_CHUNK;
                self.lapses_at = now + limit.interval() * granted;
                self.refused_until = None;
            }
            PermitAnswer::After(wait) => {
                self.refused_until = (self.left == 0).then(|| now + wait.max(REFUSAL_MIN));
            }
        }
        self.is_free = false;
        // Whoever waits for it hears that it ended.
        self.asking = None;
    }
}

/// How many permits a node takes at a time.
pub(super) fn chunk(limit: Limit) -> u32 {
    (limit.permits / CHUNKS_PER_LIMIT).max(1)
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

    fn passes(book: &PermitCache, count: u32, now: Instant) {
        for request in 1..=count {
            assert!(matches!(book.step(ann(), now), PermitDecision::Pass), "request {request} of {count}");
        }
    }

    fn asks(book: &PermitCache, now: Instant) -> PermitBatch {
        match book.step(ann(), now) {
            PermitDecision::PassAndAsk(ask) | PermitDecision::Wait { ask: Some(ask), .. } => ask,
            PermitDecision::Pass | PermitDecision::Wait { .. } | PermitDecision::Refuse(_) => {
                panic!("nothing is asked for")
            }
        }
    }

    #[test]
    fn an_address_that_makes_few_requests_costs_no_call() {
        let (book, now) = (PermitCache::new(LIMIT), Instant::now());
        passes(&book, FREE, now);
    }

    #[test]
    fn one_that_makes_more_is_charged_for_what_it_had_free() {
        let (book, now) = (PermitCache::new(LIMIT), Instant::now());
        passes(&book, FREE, now);
        assert_eq!(asks(&book, now), PermitBatch { spent: FREE, want: CHUNK });
        assert!(matches!(book.step(ann(), now), PermitDecision::Wait { ask: None, .. }), "one ask at a time");
    }

    #[test]
    fn the_next_permits_are_asked_for_before_anybody_waits() {
        let (book, now) = (PermitCache::new(LIMIT), Instant::now());
        passes(&book, FREE, now);
        asks(&book, now);
        book.settle(ann(), PermitAnswer::Granted(CHUNK), now);
        passes(&book, CHUNK - CHUNK / LOW_WATER_PER_CHUNK, now);
        assert!(matches!(
            book.step(ann(), now),
            PermitDecision::PassAndAsk(PermitBatch { spent: 0, want: CHUNK })
        ));
        passes(&book, CHUNK / LOW_WATER_PER_CHUNK - 1, now);
        assert!(matches!(book.step(ann(), now), PermitDecision::Wait { ask: None, .. }));
    }

    #[test]
    fn a_refusal_is_remembered_until_there_are_permits_again() {
        let (book, now) = (PermitCache::new(LIMIT), Instant::now());
        passes(&book, FREE, now);
        asks(&book, now);
        book.settle(ann(), PermitAnswer::After(Duration::from_secs(3)), now);
        let after = |ms| now + Duration::from_millis(ms);
        assert!(
            matches!(book.step(ann(), after(2_000)), PermitDecision::Refuse(left) if left == Duration::from_secs(1))
        );
        assert_eq!(asks(&book, after(3_000)), PermitBatch { spent: 0, want: CHUNK });
    }

    #[test]
    fn permits_that_were_not_used_lapse_when_as_many_have_come_back() {
        let (book, now) = (PermitCache::new(LIMIT), Instant::now());
        passes(&book, FREE, now);
        asks(&book, now);
        book.settle(ann(), PermitAnswer::Granted(CHUNK), now);
        passes(&book, 1, now + Duration::from_millis(9_999));
        assert_eq!(asks(&book, now + Duration::from_secs(10)), PermitBatch { spent: 0, want: CHUNK });
    }

    #[test]
    fn however_many_addresses_come_the_book_stays_bounded() {
        let (book, now) = (PermitCache::new(LIMIT), Instant::now());
        for number in 0..300_000_u32 {
            book.step(ClientNetwork::of(Ipv4Addr::from_bits(number).into()), now);
        }
        let names = book.pages.iter().map(|page| {
            let page = page.lock().unwrap();
            page.recent.len() + page.former.len()
        });
        assert!(names.sum::<usize>() <= 2 * PAGES * NAMES_PER_PAGE_MAX);
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
