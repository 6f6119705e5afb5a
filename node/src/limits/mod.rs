//! How many requests a client address may make, over all nodes together.
//!
//! Asking Redis for each request would double what a request costs. So a node takes permits in advance: a quarter of
//! those that are left at a time, which lapse when as many have come back in Redis. An address that makes few requests gets
//! along with those that it has free of asking; when it makes more, they are counted with the first ask. So nodes
//! agree within the free permits of each, a fortieth of the limit.
//!
//! Redis away: a node hands out the same permits on its own word. A limit protects the sale; it must not stop it.

mod permits;
mod refiller;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use stock::cluster::Cluster;
use stock::limit::Limit;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

pub use self::permits::ClientNetwork;
use self::permits::{PermitCache, PermitDecision};
use self::refiller::PermitRefillers;

/// Longest wait for permits. Longer than Redis ever needs; whoever waited in vain is let in.
const PERMIT_TIMEOUT: Duration = Duration::from_millis(300);

/// Limits the requests of client addresses.
pub struct AddressLimits {
    limit: Limit,
    exempt: Vec<IpNet>,
    cache: Arc<PermitCache>,
    refillers: PermitRefillers,
    _tasks: JoinSet<()>,
}

/// An address made too many requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimited {
    /// When the next one may come.
    pub retry_after: Duration,
    /// How many there may be.
    pub limit: Limit,
}

impl AddressLimits {
    /// Limits all addresses but the exempt ones.
    pub fn start(cluster: &Arc<Cluster>, limit: Limit, exempt: Vec<IpNet>) -> Self {
        let cache = Arc::new(PermitCache::new(limit));
        let mut tasks = JoinSet::new();
        let refillers = PermitRefillers::start(cluster, limit, &cache, &mut tasks);
        Self { limit, exempt, cache, refillers, _tasks: tasks }
    }

    /// Lets a request of this address pass, or not, where that is known at once: nearly always.
    pub fn try_admit(&self, address: IpAddr) -> Option<Result<(), RateLimited>> {
        let address = address.to_canonical();
        if self.exempt.iter().any(|network| network.contains(&address)) {
            return Some(Ok(()));
        }
        self.check(ClientNetwork::of(address)).ok()
    }

    /// Lets a request of this address pass, or not.
    ///
    /// # Errors
    /// When it makes too many.
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

    /// What the book says; where it does not know yet, who will tell when it does.
    fn check(&self, network: ClientNetwork) -> Result<Result<(), RateLimited>, watch::Receiver<()>> {
        match self.cache.take(network, Instant::now()) {
            PermitDecision::Pass => Ok(Ok(())),
            PermitDecision::PassAndRefill(ask) => {
                self.refillers.send(network, ask);
                Ok(Ok(()))
            }
            PermitDecision::Refuse(retry_after) => Ok(Err(RateLimited { retry_after, limit: self.limit })),
            PermitDecision::Wait { answered, ask } => {
                ask.into_iter().for_each(|ask| self.refillers.send(network, ask));
                Err(answered)
            }
        }
    }
}
