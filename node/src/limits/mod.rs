//! Limits the requests of a client address, over all nodes together.
//!
//! Asking Redis for each request would double the cost of a request. A node therefore takes permits in advance: a
//! quarter of the remaining ones at a time. They expire when as many have been regenerated in Redis. An address that
//! makes few requests needs no call to Redis, because each node gives it some free permits; when it makes more, they
//! are counted with the first call. So the nodes agree within the free permits of each: a fortieth of the limit.
//!
//! While Redis is unreachable, a node grants the same permits itself. A limit protects the sale and must not stop it.

mod permits;
mod refiller;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use rediscluster::Cluster;
use stock::limit::Limit;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

pub use self::permits::ClientNetwork;
use self::permits::{PermitCache, PermitDecision};
use self::refiller::PermitRefillers;

/// Longest wait for permits. Redis never needs that long. A request that waited in vain is admitted.
const PERMIT_TIMEOUT: Duration = Duration::from_millis(300);

/// Limits the requests of client addresses.
pub struct AddressLimits {
    limit: Limit,
    exempt: Vec<IpNet>,
    cache: Arc<PermitCache>,
    refillers: PermitRefillers,
    _tasks: JoinSet<()>,
}

/// A client address or a user made too many requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimited {
    /// Time until the next request may come.
    pub retry_after: Duration,
    /// The limit in force.
    pub limit: Limit,
}

impl AddressLimits {
    /// Starts limiting all addresses except the exempt ones.
    pub fn start(cluster: &Arc<Cluster>, limit: Limit, exempt: Vec<IpNet>) -> Self {
        let cache = Arc::new(PermitCache::new(limit));
        let mut tasks = JoinSet::new();
        let refillers = PermitRefillers::start(cluster, limit, &cache, &mut tasks);
        Self { limit, exempt, cache, refillers, _tasks: tasks }
    }

    /// Decides about a request without waiting, which is nearly always possible. Returns `None` when the permits are
    /// not known yet.
    pub fn try_admit(&self, address: IpAddr) -> Option<Result<(), RateLimited>> {
        let address = address.to_canonical();
        if self.exempt.iter().any(|network| network.contains(&address)) {
            return Some(Ok(()));
        }
        self.check(ClientNetwork::of(address)).ok()
    }

    /// Decides about a request. Waits for permits if necessary.
    ///
    /// # Errors
    /// Returns [`RateLimited`] when the address made too many requests.
    pub async fn admit(&self, address: IpAddr) -> Result<(), RateLimited> {
        let (network, deadline) = (ClientNetwork::of(address), Instant::now() + PERMIT_TIMEOUT);
        loop {
            let mut answered = match self.check(network) {
                Ok(known) => return known,
                Err(answered) => answered,
            };
            if timeout_at(deadline, answered.changed()).await.is_err() {
                return Ok(());
            }
        }
    }

    /// Returns the decision of the cache, or a receiver that changes once permits have arrived.
    fn check(&self, network: ClientNetwork) -> Result<Result<(), RateLimited>, watch::Receiver<()>> {
        match self.cache.take(network, Instant::now()) {
            PermitDecision::Pass => Ok(Ok(())),
            PermitDecision::PassAndRefill(batch) => {
                self.refillers.send(network, batch);
                Ok(Ok(()))
            }
            PermitDecision::Refuse(retry_after) => Ok(Err(RateLimited { retry_after, limit: self.limit })),
            PermitDecision::Wait { answered, batch } => {
                batch.into_iter().for_each(|batch| self.refillers.send(network, batch));
                Err(answered)
            }
        }
    }
}
