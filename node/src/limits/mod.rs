//! Limits of client addresses and of users, over all nodes together.
//!
//! Each node counts in its own memory, and admits its *share*: the limit divided by the number of nodes that are
//! present. A load balancer spreads the requests of a client, so a client below its limit is below the share of each
//! node, and costs Redis nothing. A client that has used up the share of one node, because its requests are not spread
//! evenly, *borrows*: the node reports to Redis how much of the share is in use, and asks for further permits. Redis
//! counts what was reported and borrowed, for all nodes, in memory (`admit.lua`).
//!
//! - A client whose requests are spread, or all go to one node, gets its limit. One that uses up the limit at one node
//!   and then goes to the others gets their shares as well: at most twice the limit, once. From then on the nodes have
//!   reported its requests.
//! - A node that died counts for the ten seconds after which presence forgets it. Its share is missing meanwhile, so
//!   clients borrow. A node that starts is known to the others within a second. Until then its share is too much.
//! - Without Redis, a client gets the share of each node and cannot borrow.

mod permits;
mod refiller;
mod units;

use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ipnet::IpNet;
use rediscluster::Cluster;
use service::network::ClientNetwork;
use stock::limit::Limit;
use stock::presence::{ProcessKind, ProcessList};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use self::permits::{LimitKey, PermitCache, PermitDecision};
use self::refiller::PermitRefillers;
use self::units::UnitLimits;
pub use self::units::{NoPlace, UnitLimit};
use crate::metrics::{self, LimitName};
use crate::settings::LimitSettings;

/// Longest wait for borrowed permits. Redis never needs that long.
const PERMIT_TIMEOUT: Duration = Duration::from_millis(300);
/// Time to wait for a client that was refused because Redis did not answer.
const RETRY_AFTER_NO_ANSWER: Duration = Duration::from_secs(1);

/// Longest name of a user's action. A token may name a user with more bytes than a user id has; it cannot buy.
const KEY_BYTES_MAX: usize = 256;
/// Shortest time between two log lines of a limit.
const LOG_PERIOD: Duration = Duration::from_secs(1);

/// The limits of all clients.
pub struct Limits {
    exempt: Vec<IpNet>,
    address_purchases: Option<Limiter>,
    address_requests: Option<Limiter>,
    users: Option<Limiter>,
    units: Option<UnitLimits>,
    nodes: Arc<AtomicU32>,
}

/// A client address or a user made too many requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimited {
    /// Time until the next request may come.
    pub retry_after: Duration,
    /// The limit in force.
    pub limit: Limit,
}

/// Kind of a request. Each kind is counted apart, so that pages that follow a sale leave the purchases alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestKind {
    /// Buys, or looks up a purchase: asks a shard.
    Purchase,
    /// Anything else, which a node answers from memory.
    Other,
}

/// Decision about a request.
pub enum LimitDecision {
    /// The decision is known.
    Known(Result<(), RateLimited>),
    /// The limiter has to ask Redis first. Nothing was counted.
    Pending,
}

/// One limit, for many clients.
struct Limiter {
    name: LimitName,
    limit: Limit,
    cache: Arc<PermitCache>,
    refillers: PermitRefillers,
    logged_at: Mutex<Option<Instant>>,
    _tasks: JoinSet<()>,
}

impl Limits {
    /// Starts limiting. `is_verified` is true when user ids are verified.
    pub fn start(cluster: &Arc<Cluster>, settings: &LimitSettings, is_verified: bool) -> Self {
        let nodes = Arc::new(AtomicU32::new(1));
        let start =
            |name, limit: Option<Limit>| limit.map(|limit| Limiter::start(cluster, name, limit, &nodes));
        Self {
            exempt: settings.rate_limit_exempt.clone(),
            address_purchases: start(LimitName::AddressPurchases, settings.for_address(is_verified)),
            address_requests: start(LimitName::AddressRequests, settings.for_address(is_verified)),
            users: start(LimitName::User, settings.for_user()),
            units: settings.units_per_network().map(|max| UnitLimits::new(cluster, max)),
            nodes,
        }
    }

    /// Takes the number of nodes that share the limits from the list of running processes. This node is one of them,
    /// even if it is not on the list.
    pub fn update_nodes(&self, present: &ProcessList) {
        let nodes = present.processes.iter().filter(|process| process.info.kind == ProcessKind::Node).count();
        let nodes = u32::try_from(nodes).unwrap_or(u32::MAX).max(1);
        self.nodes.store(nodes, Ordering::Relaxed);
        metrics::set_limit_nodes(nodes);
    }

    /// Decides about a request of an address without waiting, which is nearly always possible.
    pub fn try_address(&self, address: IpAddr, kind: RequestKind) -> LimitDecision {
        match self.of_address(address, kind) {
            Some(limiter) => limiter.try_admit(&network_of(address)),
            None => LimitDecision::Known(Ok(())),
        }
    }

    /// Decides about a request of an address. Waits for permits if necessary.
    ///
    /// # Errors
    /// Returns [`RateLimited`] when the address made too many requests.
    pub async fn address(&self, address: IpAddr, kind: RequestKind) -> Result<(), RateLimited> {
        match self.of_address(address, kind) {
            Some(limiter) => limiter.admit(&network_of(address)).await,
            None => Ok(()),
        }
    }

    /// Decides about an action of a user without waiting, which is nearly always possible.
    pub fn try_user(&self, user: &UserAction) -> LimitDecision {
        let UserAction(key) = user;
        self.users.as_ref().map_or(LimitDecision::Known(Ok(())), |limiter| limiter.try_admit(key))
    }

    /// Decides about an action of a user. Waits for permits if necessary, which is rare: the wait is boxed, so that the
    /// futures of all requests stay small.
    ///
    /// # Errors
    /// Returns [`RateLimited`] when the user made too many attempts.
    pub async fn user(&self, user: &UserAction) -> Result<(), RateLimited> {
        let UserAction(key) = user;
        let Some(limiter) = &self.users else { return Ok(()) };
        match limiter.try_admit(key) {
            LimitDecision::Known(known) => known,
            LimitDecision::Pending => Box::pin(limiter.admit(key)).await,
        }
    }

    fn of_address(&self, address: IpAddr, kind: RequestKind) -> Option<&Limiter> {
        let address = address.to_canonical();
        let limiter = match kind {
            RequestKind::Purchase => self.address_purchases.as_ref(),
            RequestKind::Other => self.address_requests.as_ref(),
        };
        limiter.filter(|_| !self.is_exempt(address))
    }

    /// Returns the limit of units for the network of this address, if any.
    pub fn units(&self, address: IpAddr) -> Option<UnitLimit<'_>> {
        let units = self.units.as_ref().filter(|_| !self.is_exempt(address.to_canonical()))?;
        Some(units.of_address(address))
    }

    fn is_exempt(&self, address: IpAddr) -> bool {
        self.exempt.iter().any(|network| network.contains(&address))
    }
}

/// An action of a user that counts towards a limit of its own.
pub struct UserAction(LimitKey);

impl UserAction {
    /// An attempt to buy by a user whose identity is verified.
    pub fn purchase(user: &str) -> Self {
        Self::of(["buys ", user].concat())
    }

    /// A lookup by a user whose identity is verified.
    pub fn lookup(user: &str) -> Self {
        Self::of(["looks ", user].concat())
    }

    /// An attempt to buy in the name of a user. It counts for this client network only: otherwise attempts in the name
    /// of a victim would lock the victim out.
    pub fn unverified_purchase(address: IpAddr, user: &str) -> Self {
        Self(LimitKey::Unverified(ClientNetwork::of(address), user.into()))
    }

    fn of(mut key: String) -> Self {
        key.truncate(key.floor_char_boundary(KEY_BYTES_MAX));
        Self(LimitKey::User(key.into()))
    }
}

fn network_of(address: IpAddr) -> LimitKey {
    LimitKey::Network(ClientNetwork::of(address))
}

impl Limiter {
    fn start(cluster: &Arc<Cluster>, name: LimitName, limit: Limit, nodes: &Arc<AtomicU32>) -> Self {
        let cache = Arc::new(PermitCache::new(limit, Arc::clone(nodes)));
        let mut tasks = JoinSet::new();
        let refillers = PermitRefillers::start(cluster, name.as_str(), limit, &cache, &mut tasks);
        Self { name, limit, cache, refillers, logged_at: Mutex::default(), _tasks: tasks }
    }

    fn try_admit(&self, key: &LimitKey) -> LimitDecision {
        self.check(key).map_or(LimitDecision::Pending, LimitDecision::Known)
    }

    async fn admit(&self, key: &LimitKey) -> Result<(), RateLimited> {
        let deadline = Instant::now() + PERMIT_TIMEOUT;
        loop {
            let mut answered = match self.check(key) {
                Ok(known) => return known,
                Err(answered) => answered,
            };
            if timeout_at(deadline, answered.changed()).await.is_err() {
                return Err(self.refusal(key, RETRY_AFTER_NO_ANSWER));
            }
        }
    }

    /// Returns the decision of the cache, or a receiver that changes once permits have arrived.
    fn check(&self, key: &LimitKey) -> Result<Result<(), RateLimited>, watch::Receiver<()>> {
        match self.cache.take(key, Instant::now()) {
            PermitDecision::Pass => Ok(Ok(())),
            PermitDecision::Refuse(retry_after) => Ok(Err(self.refusal(key, retry_after))),
            PermitDecision::Wait { answered, batch } => {
                batch.into_iter().for_each(|batch| self.refillers.send(key, batch));
                Err(answered)
            }
        }
    }

    fn refusal(&self, key: &LimitKey, retry_after: Duration) -> RateLimited {
        metrics::count_limited_request(self.name);
        if self.name == LimitName::AddressPurchases {
            self.log(key);
        }
        RateLimited { retry_after, limit: self.limit }
    }

    /// Names the address to the operator, who may know the crowd behind it. Other refusals are only counted.
    fn log(&self, key: &LimitKey) {
        let mut logged_at = self.logged_at.lock().unwrap_or_else(PoisonError::into_inner);
        if logged_at.is_none_or(|at| at.elapsed() >= LOG_PERIOD) {
            *logged_at = Some(Instant::now());
            tracing::warn!(client.network = %key, "purchases of an address are limited");
        }
    }
}
