//! Permits that a node holds for each client address, and the latest refusals.
//!
//! Pure: no clock and no Redis. Memory is bounded: networks are kept in two generations, and the older one is dropped
//! when the newer one is full or a window has passed. A forgotten network starts again with free permits.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use service::network::ClientNetwork;
use stock::limit::{Limit, PermitAnswer};
use tokio::sync::watch;
use tokio::time::Instant;

/// A node asks for this fraction of the limit at a time: 1/4. It gets less as permits run out.
const CHUNK_DIVISOR: u32 = 4;
/// Each node gives an address this fraction of the limit for free in each window: 1/40.
const FREE_DIVISOR: u32 = 40;
/// More permits are requested when less than this fraction of the last grant is left: 1/4. So no request has to wait.
const LOW_WATER_DIVISOR: u32 = 4;
/// Shortest time for which an address is refused from memory.
const REFUSAL_MIN: Duration = Duration::from_millis(100);
/// Number of cache segments. Each has its own lock.
const SEGMENTS: usize = 16;
/// Largest number of networks in one generation of a segment. All segments and both generations take about 20 MB.
const NETWORKS_PER_SEGMENT_MAX: usize = 4_096;

/// Permits of all networks known to this node.
pub(super) struct PermitCache {
    limit: Limit,
    segments: [Mutex<Segment>; SEGMENTS],
}

struct Segment {
    current: HashMap<ClientNetwork, AddressPermits>,
    previous: HashMap<ClientNetwork, AddressPermits>,
    rotated_at: Instant,
}

/// Decision about the next request of an address.
pub(super) enum PermitDecision {
    /// Admit the request.
    Pass,
    /// Admit the request, and ask Redis for more permits.
    PassAndRefill(PermitBatch),
    /// Refuse until this time has passed.
    Refuse(Duration),
    /// Wait for permits. `batch` is set when they have not been requested yet.
    Wait { answered: watch::Receiver<()>, batch: Option<PermitBatch> },
}

/// A request for permits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PermitBatch {
    /// Free permits that have been used.
    pub(super) spent: u32,
    /// Permits to take in advance.
    pub(super) want: u32,
}

struct AddressPermits {
    /// Permits left.
    left: u32,
    /// More permits are requested when fewer than this are left.
    low_water: u32,
    /// Time at which the permits left expire.
    expires_at: Instant,
    /// True while the permits are free ones that Redis does not know of.
    is_free: bool,
    /// Free permits that have been used.
    spent: u32,
    refused_until: Option<Instant>,
    /// Set while a request for permits is in flight. Dropping it wakes the requests that wait.
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

    /// Decides about this network's next request.
    pub(super) fn take(&self, network: ClientNetwork, now: Instant) -> PermitDecision {
        self.segment(network).permits_of(network, self.limit, now).take(self.limit, now)
    }

    /// Applies the answer to a request for permits.
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
            let batch = self.pending.is_none().then(|| self.next_batch(limit));
            let answered = self.pending.get_or_insert_default().subscribe();
            return PermitDecision::Wait { answered, batch };
        }
        self.left -= 1;
        self.spent += u32::from(self.is_free);
        if self.is_free || self.left >= self.low_water || self.pending.is_some() {
            return PermitDecision::Pass;
        }
        PermitDecision::PassAndRefill(self.next_batch(limit))
    }

    fn next_batch(&mut self, limit: Limit) -> PermitBatch {
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
        // Dropping the sender wakes the requests that wait.
        self.pending = None;
    }
}

/// Returns the number of permits that a node takes at a time.
pub(super) fn chunk(limit: Limit) -> u32 {
    (limit.permits / CHUNK_DIVISOR).max(1)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

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

    fn requested(cache: &PermitCache, now: Instant) -> PermitBatch {
        match cache.take(ann(), now) {
            PermitDecision::PassAndRefill(batch) | PermitDecision::Wait { batch: Some(batch), .. } => batch,
            PermitDecision::Pass | PermitDecision::Wait { .. } | PermitDecision::Refuse(_) => {
                panic!("no permits were requested")
            }
        }
    }

    #[test]
    fn few_requests_need_no_call() {
        let (cache, now) = (PermitCache::new(LIMIT), Instant::now());
        passes(&cache, FREE, now);
    }

    #[test]
    fn first_call_reports_used_free_permits() {
        let (cache, now) = (PermitCache::new(LIMIT), Instant::now());
        passes(&cache, FREE, now);
        assert_eq!(requested(&cache, now), PermitBatch { spent: FREE, want: CHUNK });
        assert!(
            matches!(cache.take(ann(), now), PermitDecision::Wait { batch: None, .. }),
            "one request at a time"
        );
    }

    #[test]
    fn permits_are_refilled_before_they_run_out() {
        let (cache, now) = (PermitCache::new(LIMIT), Instant::now());
        passes(&cache, FREE, now);
        requested(&cache, now);
        cache.apply(ann(), PermitAnswer::Granted(CHUNK), now);
        passes(&cache, CHUNK - CHUNK / LOW_WATER_DIVISOR, now);
        assert!(matches!(
            cache.take(ann(), now),
            PermitDecision::PassAndRefill(PermitBatch { spent: 0, want: CHUNK })
        ));
        passes(&cache, CHUNK / LOW_WATER_DIVISOR - 1, now);
        assert!(matches!(cache.take(ann(), now), PermitDecision::Wait { batch: None, .. }));
    }

    #[test]
    fn refusal_is_cached_until_permits_are_available() {
        let (cache, now) = (PermitCache::new(LIMIT), Instant::now());
        passes(&cache, FREE, now);
        requested(&cache, now);
        cache.apply(ann(), PermitAnswer::After(Duration::from_secs(3)), now);
        let after = |ms| now + Duration::from_millis(ms);
        assert!(
            matches!(cache.take(ann(), after(2_000)), PermitDecision::Refuse(left) if left == Duration::from_secs(1))
        );
        assert_eq!(requested(&cache, after(3_000)), PermitBatch { spent: 0, want: CHUNK });
    }

    #[test]
    fn unused_permits_expire() {
        let (cache, now) = (PermitCache::new(LIMIT), Instant::now());
        passes(&cache, FREE, now);
        requested(&cache, now);
        cache.apply(ann(), PermitAnswer::Granted(CHUNK), now);
        passes(&cache, 1, now + Duration::from_millis(9_999));
        assert_eq!(requested(&cache, now + Duration::from_secs(10)), PermitBatch { spent: 0, want: CHUNK });
    }

    #[test]
    fn cache_size_is_bounded() {
        let (cache, now) = (PermitCache::new(LIMIT), Instant::now());
        for number in 0..300_000_u32 {
            cache.take(ClientNetwork::of(Ipv4Addr::from_bits(number).into()), now);
        }
        let networks = cache.segments.iter().map(|segment| {
            let segment = segment.lock().unwrap();
            segment.current.len() + segment.previous.len()
        });
        assert!(networks.sum::<usize>() <= 2 * SEGMENTS * NETWORKS_PER_SEGMENT_MAX);
    }

    #[test]
    fn ipv6_addresses_share_the_limit_of_their_64() {
        let of = |address: &str| ClientNetwork::of(address.parse().unwrap());
        assert_eq!(of("2001:db8:0:1::1"), of("2001:db8:0:1:ffff::2"));
        assert_ne!(of("2001:db8:0:1::1"), of("2001:db8:0:2::1"));
        assert_eq!(of("::ffff:192.0.2.7"), of("192.0.2.7"));
        assert_eq!(of("2001:db8:0:1::1").to_string(), "2001:db8:0:1::/64");
    }
}
