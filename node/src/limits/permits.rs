//! Permits that a node has for each client network or user, and the latest refusals.
//!
//! Pure: no clock and no Redis. Memory is bounded: keys are kept in two generations, and the older one is dropped when
//! the newer one is full or a window has passed. A forgotten key starts again with a full share.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher as _;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use service::network::ClientNetwork;
use stock::limit::{Limit, PermitAnswer};
use tokio::sync::watch;
use tokio::time::Instant;

/// All nodes together borrow at most this fraction of a limit at a time: 1/8, unless more requests wait. It bounds the
/// permits that one node holds while another is refused, and the permits that are granted before all nodes have reported
/// their shares.
const BORROWED_DIVISOR: u32 = 8;
/// Shortest time for which borrowed permits are valid, so that the requests that wait for them can take them.
const BORROWED_FOR_MIN: Duration = Duration::from_secs(1);
/// Shortest time for which Redis is not asked again after it has refused.
const REFUSAL_MIN: Duration = Duration::from_millis(100);
/// Longest `Retry-After` that a queue behind one address can cause. The storefront page gives up above 30 s.
const QUEUE_WAIT_MAX: Duration = Duration::from_secs(25);
/// Number of cache segments. Each has its own lock.
const SEGMENTS: usize = 16;
/// Largest number of keys in one generation of a segment. All segments and both generations take about 10 MB.
const KEYS_PER_SEGMENT_MAX: usize = 4_096;

/// The holder of a limit.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum LimitKey {
    /// A network, behind which there may be a crowd.
    Network(ClientNetwork),
    /// An action of a verified user.
    User(Box<str>),
    /// Attempts of a network to buy for a user.
    Unverified(ClientNetwork, Box<str>),
}

impl fmt::Display for LimitKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(network) => network.fmt(f),
            Self::User(action) => f.write_str(action),
            Self::Unverified(network, user) => write!(f, "claims {network} {user}"),
        }
    }
}

/// Permits of all keys known to this node.
pub(super) struct PermitCache {
    limit: Limit,
    /// Number of nodes that share the limit.
    nodes: Arc<AtomicU32>,
    hasher: RandomState,
    segments: [Mutex<Segment>; SEGMENTS],
}

/// Permits by the hash of their key. In a rush nearly every key is new, so keys are not stored. The hash is seeded
/// randomly: nobody can choose a name that shares the permits of another.
struct Segment {
    current: HashMap<u64, KeyPermits>,
    previous: HashMap<u64, KeyPermits>,
    rotated_at: Instant,
}

/// Decision about the next request of a key.
pub(super) enum PermitDecision {
    /// Admit the request.
    Pass,
    /// Refuse it, and tell the client to wait this long.
    Refuse(Duration),
    /// Wait for permits. `batch` is set when they have not been requested yet.
    Wait { answered: watch::Receiver<()>, batch: Option<PermitBatch> },
}

/// A request for permits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PermitBatch {
    /// Used permits of the share that Redis does not know of.
    pub(super) spent: u32,
    /// Permits to borrow.
    pub(super) want: u32,
}

/// The part of a limit that this node grants without asking.
#[derive(Clone, Copy)]
struct Share {
    /// Time until one permit of the share comes back.
    interval: Duration,
    window: Duration,
    /// Permits to borrow when the share is used up.
    want: u32,
}

/// Most keys only use their share, and are kept small.
struct KeyPermits {
    /// Time at which all permits of the share are back (GCRA).
    full_at: Instant,
    /// Permits of the share that were used since the latest request for permits.
    unreported: u32,
    /// Set once the share was used up.
    beyond_share: Option<Box<BeyondShare>>,
}

/// What is known of a key that used up its share.
struct BeyondShare {
    borrowed: u32,
    borrowed_until: Instant,
    /// Redis has no permits before this time.
    refused_until: Instant,
    /// Time at which the last of the refused requests would have a permit if each came back in turn.
    queue_until: Instant,
    /// Requests that wait for permits. Without this number each of them would need a call of its own when the share is
    /// small, because many nodes are present or are said to be.
    waiting: u32,
    /// Set while a request for permits is in flight. Dropping it wakes the requests that wait.
    pending: Option<watch::Sender<()>>,
}

impl PermitCache {
    pub(super) fn new(limit: Limit, nodes: Arc<AtomicU32>) -> Self {
        let segment = || {
            Mutex::new(Segment {
                current: HashMap::new(),
                previous: HashMap::new(),
                rotated_at: Instant::now(),
            })
        };
        Self { limit, nodes, hasher: RandomState::new(), segments: std::array::from_fn(|_| segment()) }
    }

    /// Decides about this key's next request.
    pub(super) fn take(&self, key: &LimitKey, now: Instant) -> PermitDecision {
        let share = Share::of(self.limit, self.nodes.load(Ordering::Relaxed));
        self.change(key, now, |permits| match permits.take(share, now) {
            PermitDecision::Refuse(wait) if matches!(key, LimitKey::Network(_)) => {
                PermitDecision::Refuse(permits.queue(wait, share, now))
            }
            decision => decision,
        })
    }

    /// Applies the answer to a request for permits.
    pub(super) fn apply(&self, key: &LimitKey, answer: PermitAnswer, now: Instant) {
        self.change(key, now, |permits| permits.apply(answer, self.limit, now));
    }

    fn change<T>(&self, key: &LimitKey, now: Instant, change: impl FnOnce(&mut KeyPermits) -> T) -> T {
        let hash = self.hasher.hash_one(key);
        let segment = &self.segments[hash as usize % SEGMENTS];
        let mut segment = segment.lock().unwrap_or_else(PoisonError::into_inner);
        segment.rotate(self.limit, now);
        let Segment { current, previous, .. } = &mut *segment;
        let known_or_new = || previous.remove(&hash).unwrap_or_else(|| KeyPermits::new(now));
        change(current.entry(hash).or_insert_with(known_or_new))
    }
}

impl Share {
    /// Returns the share of each of `nodes` nodes: at least one permit in a window.
    fn of(Limit { permits, window }: Limit, nodes: u32) -> Self {
        let nodes = nodes.max(1);
        let interval = (window / permits).saturating_mul(nodes).min(window);
        Self { interval, window, want: (permits / nodes / BORROWED_DIVISOR).max(1) }
    }
}

impl Segment {
    /// Starts a new generation if the newer one is full or a window has passed. Reuses the memory of the older one.
    fn rotate(&mut self, limit: Limit, now: Instant) {
        if self.current.len() >= KEYS_PER_SEGMENT_MAX || now.duration_since(self.rotated_at) >= limit.window {
            self.previous.clear();
            std::mem::swap(&mut self.previous, &mut self.current);
            self.rotated_at = now;
        }
    }
}

impl KeyPermits {
    fn new(now: Instant) -> Self {
        Self { full_at: now, unreported: 0, beyond_share: None }
    }

    fn beyond_share(&mut self, now: Instant) -> &mut BeyondShare {
        self.beyond_share.get_or_insert_with(|| Box::new(BeyondShare::new(now)))
    }

    fn take(&mut self, share: Share, now: Instant) -> PermitDecision {
        let full_at = self.full_at.max(now) + share.interval;
        if full_at <= now + share.window {
            self.full_at = full_at;
            self.unreported = self.unreported.saturating_add(1);
            return PermitDecision::Pass;
        }
        let in_use = (self.full_at - now).as_nanos().div_ceil(share.interval.as_nanos().max(1));
        let unreported = self.unreported;
        let beyond = self.beyond_share(now);
        if beyond.borrowed > 0 && now < beyond.borrowed_until {
            beyond.borrowed -= 1;
            return PermitDecision::Pass;
        }
        if now < beyond.refused_until {
            let own_permit_at = full_at - share.window;
            return PermitDecision::Refuse(own_permit_at.min(beyond.refused_until) - now);
        }
        // Those used permits of the share are reported that have not come back since.
        let spent = unreported.min(u32::try_from(in_use).unwrap_or(u32::MAX));
        let (answered, batch) = beyond.wait(spent, share);
        if batch.is_some() {
            self.unreported = 0;
        }
        PermitDecision::Wait { answered, batch }
    }

    /// Returns the time that a refused request should wait.
    fn queue(&mut self, wait: Duration, share: Share, now: Instant) -> Duration {
        self.beyond_share(now).queue(wait, share, now)
    }

    fn apply(&mut self, answer: PermitAnswer, limit: Limit, now: Instant) {
        self.beyond_share(now).apply(answer, limit, now);
    }
}

impl BeyondShare {
    fn new(now: Instant) -> Self {
        Self {
            borrowed: 0,
            borrowed_until: now,
            refused_until: now,
            queue_until: now,
            waiting: 0,
            pending: None,
        }
    }

    /// Adds a request that waits for permits. Also returns the permits to request, unless a request is in flight.
    fn wait(&mut self, spent: u32, share: Share) -> (watch::Receiver<()>, Option<PermitBatch>) {
        let batch = self
            .pending
            .is_none()
            .then(|| PermitBatch { spent, want: share.want.max(std::mem::take(&mut self.waiting)) });
        self.waiting = self.waiting.saturating_add(1);
        (self.pending.get_or_insert_default().subscribe(), batch)
    }

    /// Returns a random time within the queue, so that the clients behind an address do not come back together. `wait` is
    /// the time until the next permit.
    fn queue(&mut self, wait: Duration, share: Share, now: Instant) -> Duration {
        self.queue_until = self.queue_until.max(now + wait) + share.interval;
        let longest = (self.queue_until - now).min(QUEUE_WAIT_MAX.max(wait));
        wait + longest.saturating_sub(wait).mul_f64(rand::random())
    }

    fn apply(&mut self, answer: PermitAnswer, limit: Limit, now: Instant) {
        match answer {
            PermitAnswer::Granted(granted) => {
                let unused = if now < self.borrowed_until { self.borrowed } else { 0 };
                self.borrowed = unused.saturating_add(granted);
                self.borrowed_until = now + (limit.interval() * granted).max(BORROWED_FOR_MIN);
                self.waiting = self.waiting.saturating_sub(granted);
            }
            PermitAnswer::After(wait) => {
                self.refused_until = now + wait.max(REFUSAL_MIN);
                self.waiting = 0;
            }
        }
        // Dropping the sender wakes the requests that wait.
        self.pending = None;
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const LIMIT: Limit = Limit { permits: 400, window: Duration::from_secs(40) };

    fn ann() -> LimitKey {
        LimitKey::User("ann".into())
    }

    fn address() -> LimitKey {
        LimitKey::Network(ClientNetwork::of("192.0.2.7".parse().unwrap()))
    }

    fn shared_by(nodes: u32) -> PermitCache {
        PermitCache::new(LIMIT, Arc::new(nodes.into()))
    }

    /// Sends requests until one does not pass. Returns the number that passed, and the other one.
    fn passes(cache: &PermitCache, key: &LimitKey, now: Instant) -> (u32, PermitDecision) {
        let mut passed = 0;
        loop {
            match cache.take(key, now) {
                PermitDecision::Pass => passed += 1,
                other => return (passed, other),
            }
        }
    }

    fn requested(decision: &PermitDecision) -> PermitBatch {
        match decision {
            PermitDecision::Wait { batch: Some(batch), .. } => *batch,
            _ => panic!("no permits were requested"),
        }
    }

    fn refused(decision: &PermitDecision) -> Duration {
        match decision {
            PermitDecision::Refuse(wait) => *wait,
            _ => panic!("the request was not refused"),
        }
    }

    #[test]
    fn share_is_the_limit_divided_by_nodes() {
        for (nodes, share) in [(0, 400), (1, 400), (2, 200), (4, 100), (399, 1), (1_000, 1)] {
            assert_eq!(passes(&shared_by(nodes), &ann(), Instant::now()).0, share, "{nodes} nodes");
        }
    }

    #[test]
    fn steady_requests_below_the_share_need_no_call() {
        let (cache, began) = (shared_by(4), Instant::now());
        for request in 0..10_000 {
            let at = began + Duration::from_millis(401) * request;
            assert!(matches!(cache.take(&ann(), at), PermitDecision::Pass), "request {request}");
        }
    }

    #[test]
    fn waiting_requests_get_their_permits_in_two_calls() {
        let (cache, now) = (shared_by(1_000), Instant::now());
        let (_, first) = passes(&cache, &ann(), now);
        assert_eq!(requested(&first).want, 1);
        for _ in 1..50 {
            assert!(matches!(cache.take(&ann(), now), PermitDecision::Wait { batch: None, .. }));
        }
        cache.apply(&ann(), PermitAnswer::Granted(1), now);

        let (passed, second) = passes(&cache, &ann(), now);
        assert_eq!((passed, requested(&second).want), (1, 49));

        cache.apply(&ann(), PermitAnswer::Granted(49), now);
        let (passed, third) = passes(&cache, &ann(), now);
        assert_eq!((passed, requested(&third).want), (49, 1), "no more requests wait");
    }

    #[test]
    fn first_call_reports_the_share_in_use() {
        let (cache, now) = (shared_by(4), Instant::now());
        let (_, decision) = passes(&cache, &ann(), now);
        assert_eq!(requested(&decision), PermitBatch { spent: 100, want: 12 });
        let next = cache.take(&ann(), now);
        assert!(matches!(next, PermitDecision::Wait { batch: None, .. }), "one request at a time");
    }

    #[test]
    fn permits_that_came_back_are_not_reported() {
        let (cache, began) = (shared_by(4), Instant::now());
        (0..500).for_each(|request| drop(cache.take(&ann(), began + Duration::from_millis(400) * request)));

        let (_, decision) = passes(&cache, &ann(), began + Duration::from_secs(300));

        assert_eq!(requested(&decision).spent, 100);
    }

    #[test]
    fn later_calls_report_only_what_is_new() {
        let (cache, now) = (shared_by(4), Instant::now());
        passes(&cache, &ann(), now);
        cache.apply(&ann(), PermitAnswer::Granted(5), now);
        let (borrowed, decision) = passes(&cache, &ann(), now);
        assert_eq!((borrowed, requested(&decision).spent), (5, 0));
        cache.apply(&ann(), PermitAnswer::After(Duration::from_secs(1)), now);

        let (own, decision) = passes(&cache, &ann(), now + Duration::from_secs(2));

        assert_eq!((own, requested(&decision).spent), (5, 5), "five permits of the share came back");
    }

    #[test]
    fn refusal_is_cached_until_permits_are_available() {
        let (cache, now) = (shared_by(400), Instant::now());
        passes(&cache, &ann(), now);
        cache.apply(&ann(), PermitAnswer::After(Duration::from_secs(3)), now);
        assert_eq!(refused(&cache.take(&ann(), now + Duration::from_secs(2))), Duration::from_secs(1));
        assert_eq!(requested(&cache.take(&ann(), now + Duration::from_secs(3))).want, 1);
    }

    #[test]
    fn unused_borrowed_permits_expire() {
        let (cache, now) = (shared_by(4), Instant::now());
        passes(&cache, &ann(), now);
        cache.apply(&ann(), PermitAnswer::Granted(12), now);
        let (passed, _) = passes(&cache, &ann(), now + Duration::from_millis(1_200));
        assert_eq!(passed, 3, "those of the share that came back");
    }

    #[test]
    fn retry_after_is_spread_over_the_queue_of_an_address() {
        let (cache, now) = (shared_by(1), Instant::now());
        passes(&cache, &address(), now);
        cache.apply(&address(), PermitAnswer::After(Duration::from_millis(100)), now);

        let waits: Vec<f64> = (0..100).map(|_| refused(&cache.take(&address(), now)).as_secs_f64()).collect();

        assert!(
            waits.iter().all(|wait| (0.1..=10.2).contains(wait)),
            "a permit comes back in 0.1 s: {waits:?}"
        );
        assert!(waits.iter().filter(|wait| **wait > 2.0).count() > 20, "they are spread: {waits:?}");
        let many = (0..100_000).map(|_| refused(&cache.take(&address(), now)));
        assert!(many.max().unwrap() <= QUEUE_WAIT_MAX);
    }

    #[test]
    fn user_waits_for_the_next_permit_only() {
        let (cache, now) = (shared_by(1), Instant::now());
        passes(&cache, &ann(), now);
        cache.apply(&ann(), PermitAnswer::After(Duration::from_millis(100)), now);
        for _ in 0..100 {
            assert_eq!(refused(&cache.take(&ann(), now)), Duration::from_millis(100));
        }
    }

    #[test]
    fn cache_size_is_bounded() {
        let (cache, now) = (shared_by(1), Instant::now());
        for number in 0..300_000_u32 {
            cache.take(&LimitKey::Network(ClientNetwork::of(Ipv4Addr::from_bits(number).into())), now);
        }
        let keys = cache.segments.iter().map(|segment| {
            let segment = segment.lock().unwrap();
            segment.current.len() + segment.previous.len()
        });
        assert!(keys.sum::<usize>() <= 2 * SEGMENTS * KEYS_PER_SEGMENT_MAX);
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
