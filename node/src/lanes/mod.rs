//! The way to Redis for buyers: a lane a primary, each with a connection of its own.
//!
//! Whatever a node wants of a shard - buy, find, donate, accept - waits in the lane of the shard's primary and
//! travels in its next pipeline, so that one barrier serves all of it. A lane tries once and reports what
//! happened; who repeats, and until when, is decided by those who wait.

mod batch;
mod lane;
mod primary_health;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use stock::calls::{Accepted, Attempt, BuyOutcome, CallError, Claim, Donation, TokenSource};
use stock::cluster::Cluster;
use stock::ids::{ShardId, UserId};
use stock::layout::Shard;
use stock::limit::Limit;
use stock::topology::Address;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinSet;
use tracing::Span;

use self::lane::{Lane, WORK_PER_PIPELINE_MAX};
use self::primary_health::PrimaryHealth;
use crate::limits::RateLimited;
use crate::settings::LaneSettings;

/// Why a lane has no answer.
#[derive(Debug, thiserror::Error)]
pub enum LaneError {
    /// Too many wait already. Nothing was done.
    #[error("the lane is full")]
    Full,
    /// It was tried.
    #[error(transparent)]
    Call(#[from] CallError),
}

/// Where one who waits gets an answer.
struct Reply<T> {
    to: oneshot::Sender<Result<T, CallError>>,
    /// The wait, as traces show it: from lining up to the answer.
    span: Span,
}

impl<T> Reply<T> {
    /// Whether nobody waits any more: a client that hung up.
    fn is_cancelled(&self) -> bool {
        self.to.is_closed()
    }

    /// Answers one who waits. Who hung up meanwhile learns it another way: the claim is there.
    fn send(self, answer: Result<T, CallError>) {
        let _hung_up = self.to.send(answer);
    }
}

/// One thing that waits in a lane.
enum LaneJob {
    Buy { shard: Arc<Shard>, attempt: Attempt, reply: Reply<BuyOutcome> },
    Find { shard: Arc<Shard>, user: UserId, reply: Reply<Option<Claim>> },
    Donate { shard: Arc<Shard>, to: ShardId, want: u64, reply: Reply<Donation> },
    Accept { shard: Arc<Shard>, from: TokenSource, cumulative: u64, reply: Reply<Accepted> },
}

impl LaneJob {
    /// Whether a buyer waits for it, who can come back; tokens cannot.
    fn is_for_buyer(&self) -> bool {
        matches!(self, Self::Buy { .. } | Self::Find { .. })
    }
}

/// The answer of a lane to something that stands in it.
pub struct Pending<T>(oneshot::Receiver<Result<T, CallError>>);

impl<T> Pending<T> {
    /// Waits for it.
    pub async fn answer(self) -> Result<T, LaneError> {
        let closed = || CallError::NoReply("the lane was closed".into());
        self.0.await.unwrap_or_else(|_| Err(closed())).map_err(LaneError::from)
    }
}

/// All lanes of this node. Those to new primaries open when they are needed.
pub struct Lanes {
    cluster: Arc<Cluster>,
    settings: LaneSettings,
    user_limit: Option<Limit>,
    open: Mutex<OpenLanes>,
    /// Wakes whoever watches the cluster's map: a lane saw something that the map does not explain.
    pub(crate) map_refresh: Arc<Notify>,
}

#[derive(Default)]
struct OpenLanes {
    handles: HashMap<Address, LaneHandle>,
    tasks: JoinSet<()>,
}

/// What is seen of a lane from outside.
#[derive(Clone)]
struct LaneHandle {
    queue: mpsc::Sender<LaneJob>,
    health: Arc<PrimaryHealth>,
}

impl LaneHandle {
    /// Whether a newcomer would wait too long: for the pipeline under way, those that the queue fills, and their own.
    /// A queue is bounded by time as well as by number, for how fast it moves is for Redis to say. Less than a
    /// pipeline's worth is always let in, or nobody would notice when it moves again.
    fn exceeds_wait(&self, wait_max: Duration) -> bool {
        let ahead = (self.queue.max_capacity() - self.queue.capacity()) / WORK_PER_PIPELINE_MAX;
        ahead > 0 && self.health.pipeline_time() * (ahead as u32 + 2) > wait_max
    }
}

impl Lanes {
    /// No lane is open yet.
    pub fn new(cluster: Arc<Cluster>, settings: LaneSettings, user_limit: Option<Limit>) -> Self {
        Self { cluster, settings, user_limit, open: Mutex::default(), map_refresh: Arc::default() }
    }

    /// What to tell a user who has to wait this long.
    pub(crate) fn limited(&self, retry_after: Duration) -> Option<RateLimited> {
        self.user_limit.map(|limit| RateLimited { retry_after, limit })
    }

    /// Buys for one user in their home shard.
    pub async fn buy(&self, shard: &Arc<Shard>, attempt: Attempt) -> Result<BuyOutcome, LaneError> {
        self.enqueue(shard, |shard, reply| LaneJob::Buy { shard, attempt, reply })?.answer().await
    }

    /// Looks up a user's claim in their home shard.
    pub async fn find(&self, shard: &Arc<Shard>, user: UserId) -> Result<Option<Claim>, LaneError> {
        self.enqueue(shard, |shard, reply| LaneJob::Find { shard, user, reply })?.answer().await
    }

    /// Takes tokens from a shard for another. When the answer is here, B2 has been passed.
    pub async fn donate(&self, shard: &Arc<Shard>, to: ShardId, want: u64) -> Result<Donation, LaneError> {
        self.enqueue(shard, |shard, reply| LaneJob::Donate { shard, to, want, reply })?.answer().await
    }

    /// Brings tokens into a shard. It stands in the lane when this returns: whoever lines up behind it finds
    /// the tokens there.
    pub fn accept(
        &self,
        shard: &Arc<Shard>,
        from: TokenSource,
        cumulative: u64,
    ) -> Result<Pending<Accepted>, LaneError> {
        self.enqueue(shard, |shard, reply| LaneJob::Accept { shard, from, cumulative, reply })
    }

    fn enqueue<T>(
        &self,
        shard: &Arc<Shard>,
        work: impl FnOnce(Arc<Shard>, Reply<T>) -> LaneJob,
    ) -> Result<Pending<T>, LaneError> {
        let (to, answer) = oneshot::channel();
        let span = tracing::debug_span!("lane", shard.id = %shard.id);
        let (handle, work) = (self.handle(shard)?, work(Arc::clone(shard), Reply { to, span }));
        if work.is_for_buyer() && handle.exceeds_wait(self.settings.wait_max) {
            return Err(LaneError::Full);
        }
        handle.queue.try_send(work).map_err(|refused| match refused {
            TrySendError::Full(_) => LaneError::Full,
            TrySendError::Closed(_) => CallError::Moved("the lane was closed".into()).into(),
        })?;
        Ok(Pending(answer))
    }

    /// The lane that leads to this shard now.
    fn handle(&self, shard: &Shard) -> Result<LaneHandle, CallError> {
        let topology = self.cluster.topology();
        let Some(primary) = topology.primary(shard.slot) else {
            self.map_refresh.notify_one();
            return Err(CallError::Moved("nobody serves the slot".into()));
        };
        let mut open = self.open();
        if let Some(handle) = open.handles.get(&primary.address) {
            return Ok(handle.clone());
        }
        let (queue, work) = mpsc::channel(self.settings.queue_max);
        let health = Arc::new(PrimaryHealth::new(primary.address.clone(), Arc::clone(&self.map_refresh)));
        let lane = Lane::new(
            Arc::clone(&self.cluster),
            primary.address.clone(),
            self.settings.clone(),
            self.user_limit,
            Arc::clone(&health),
        );
        open.tasks.spawn(lane.run(work));
        let handle = LaneHandle { queue, health };
        open.handles.insert(primary.address.clone(), handle.clone());
        Ok(handle)
    }

    /// Whether the primary of this shard is not known to be in trouble.
    pub(crate) fn is_healthy(&self, shard: &Shard) -> bool {
        let topology = self.cluster.topology();
        topology.primary(shard.slot).is_some_and(|primary| {
            let open = self.open();
            let handle = open.handles.get(&primary.address);
            primary.replicas_failed() == 0 && !handle.is_some_and(|handle| handle.health.is_suspect())
        })
    }

    /// How many wait in each lane and how many may, and whether its primary is in doubt.
    pub(crate) fn for_each_lane(&self, visit: impl Fn(&Address, usize, usize, bool)) {
        for (address, LaneHandle { queue, health }) in &self.open().handles {
            let room = queue.max_capacity();
            visit(address, room - queue.capacity(), room, health.is_suspect());
        }
    }

    /// Whether any lane's primary is in trouble.
    pub(crate) fn any_suspect(&self) -> bool {
        self.open().handles.values().any(|handle| handle.health.is_suspect())
    }

    /// Closes the lanes to nodes that serve no slots any more. Who waits in one comes again, to the new primary.
    pub(crate) fn close_demoted(&self) {
        let topology = self.cluster.topology();
        let mut open = self.open();
        open.handles.retain(|address, handle| {
            let is_primary = topology.primaries().iter().any(|primary| primary.address == *address);
            if !is_primary {
                handle.health.demote();
            }
            is_primary
        });
        while open.tasks.try_join_next().is_some() {}
    }

    /// Closes all lanes and waits until what waited in them has been answered.
    pub(crate) async fn close(&self) {
        let OpenLanes { handles, mut tasks } = std::mem::take(&mut *self.open());
        drop(handles);
        while tasks.join_next().await.is_some() {}
    }

    fn open(&self) -> std::sync::MutexGuard<'_, OpenLanes> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
