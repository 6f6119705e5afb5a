//! The buyers' path to Redis: one lane for each primary, with its own connection.
//!
//! All calls of a node to a shard (buy, find, donate, accept) wait in the lane of the shard's primary and travel in its
//! next pipeline, so one barrier serves them all. A lane tries once and reports the result. Its callers decide about
//! retries.

mod batch;
mod fence;
mod lane;
mod primary_health;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rediscluster::{Address, CallError, Cluster};
use stock::calls::{Accepted, Attempt, BuyOutcome, Claim, Donation, TokenSource};
use stock::ids::{ShardId, UserId};
use stock::layout::Shard;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::Span;

use self::fence::LostCalls;
use self::lane::{JOBS_PER_PIPELINE_MAX, Lane};
use self::primary_health::PrimaryHealth;
use crate::settings::LaneSettings;

/// Reasons why a lane has no answer.
#[derive(Debug, thiserror::Error)]
pub enum LaneError {
    /// The queue is full, or the wait would be too long. Nothing was done.
    #[error("the lane is full")]
    Full,
    /// The call was made and failed.
    #[error(transparent)]
    Call(#[from] CallError),
}

/// Answer of a shard to one attempt. A refusal is definite: no earlier call of the attempt can buy any more.
#[derive(Clone, Copy, Debug)]
pub struct ShardAnswer {
    /// The outcome.
    pub outcome: BuyOutcome,
    /// Version of the settings that the shard holds.
    pub version: u64,
}

/// Sender of the answer to a waiting job.
struct Reply<T> {
    to: oneshot::Sender<Result<T, CallError>>,
    /// Span of the wait, from enqueueing to the answer.
    span: Span,
}

impl<T> Reply<T> {
    /// Returns true when the caller no longer waits, for instance because the client hung up.
    fn is_cancelled(&self) -> bool {
        self.to.is_closed()
    }

    /// Sends the answer. A client that hung up can look up its claim later.
    fn send(self, answer: Result<T, CallError>) {
        let _hung_up = self.to.send(answer);
    }
}

/// A job that waits in a lane.
enum LaneJob {
    Buy { shard: Arc<Shard>, attempt: Arc<Attempt>, reply: Reply<ShardAnswer> },
    Find { shard: Arc<Shard>, user: UserId, reply: Reply<Option<Claim>> },
    Donate { shard: Arc<Shard>, to: ShardId, want: u64, reply: Reply<Donation> },
    Accept { shard: Arc<Shard>, from: TokenSource, cumulative: u64, reply: Reply<Accepted> },
}

impl LaneJob {
    /// Returns true when a buyer waits for the job. Buyers can retry, while transfers of tokens must not be turned
    /// away.
    fn is_for_buyer(&self) -> bool {
        matches!(self, Self::Buy { .. } | Self::Find { .. })
    }
}

/// Pending answer of a lane to an enqueued job.
pub struct Pending<T>(oneshot::Receiver<Result<T, CallError>>);

impl<T> Pending<T> {
    /// Waits for the answer.
    ///
    /// # Errors
    /// Returns [`LaneError::Call`] when the call failed or the lane was closed.
    pub async fn answer(self) -> Result<T, LaneError> {
        let closed = || CallError::NoReply("the lane was closed".into());
        self.0.await.unwrap_or_else(|_| Err(closed())).map_err(LaneError::from)
    }
}

/// All lanes of this node. The lane to a new primary opens on first use.
pub struct Lanes {
    cluster: Arc<Cluster>,
    settings: LaneSettings,
    open: Mutex<OpenLanes>,
    lost: Arc<LostCalls>,
    /// Wakes the task that reads the cluster map. A lane notifies it when a reply contradicts the map.
    pub(crate) map_refresh: Arc<Notify>,
}

#[derive(Default)]
struct OpenLanes {
    handles: HashMap<Address, LaneHandle>,
    tasks: JoinSet<()>,
}

/// Handle to a running lane.
#[derive(Clone)]
struct LaneHandle {
    queue: mpsc::Sender<LaneJob>,
    health: Arc<PrimaryHealth>,
}

impl LaneHandle {
    /// Returns true when a new job would wait too long: for the pipeline in flight, for those that the queue fills, and
    /// for its own. The queue is limited by time as well as by length, because Redis decides how fast it moves. Less
    /// than one pipeline is always admitted, or a recovery would go unnoticed.
    fn wait_exceeds(&self, wait_max: Duration) -> bool {
        let ahead = (self.queue.max_capacity() - self.queue.capacity()) / JOBS_PER_PIPELINE_MAX;
        ahead > 0 && self.health.pipeline_time() * (ahead as u32 + 2) > wait_max
    }
}

impl Lanes {
    /// Creates the lanes. None is open yet.
    pub fn new(cluster: Arc<Cluster>, settings: LaneSettings) -> Self {
        Self { cluster, settings, open: Mutex::default(), lost: Arc::default(), map_refresh: Arc::default() }
    }

    /// Buys for one user in the user's home shard.
    pub async fn buy(&self, shard: &Arc<Shard>, attempt: Arc<Attempt>) -> Result<ShardAnswer, LaneError> {
        self.enqueue(shard, |shard, reply| LaneJob::Buy { shard, attempt, reply })?.answer().await
    }

    /// Looks up a user's claim in the user's home shard.
    pub async fn find(&self, shard: &Arc<Shard>, user: UserId) -> Result<Option<Claim>, LaneError> {
        self.enqueue(shard, |shard, reply| LaneJob::Find { shard, user, reply })?.answer().await
    }

    /// Takes tokens from a shard for another one. The answer comes after barrier B2.
    pub async fn donate(&self, shard: &Arc<Shard>, to: ShardId, want: u64) -> Result<Donation, LaneError> {
        self.enqueue(shard, |shard, reply| LaneJob::Donate { shard, to, want, reply })?.answer().await
    }

    /// Brings tokens into a shard. The job is in the lane when this returns, so every later job finds the tokens there.
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
        job: impl FnOnce(Arc<Shard>, Reply<T>) -> LaneJob,
    ) -> Result<Pending<T>, LaneError> {
        let (to, answer) = oneshot::channel();
        let span = tracing::debug_span!("lane", shard.id = %shard.id);
        let (handle, job) = (self.handle(shard)?, job(Arc::clone(shard), Reply { to, span }));
        if job.is_for_buyer() && handle.wait_exceeds(self.settings.wait_max) {
            return Err(LaneError::Full);
        }
        handle.queue.try_send(job).map_err(|refused| match refused {
            TrySendError::Full(_) => LaneError::Full,
            TrySendError::Closed(_) => CallError::Moved("the lane was closed".into()).into(),
        })?;
        Ok(Pending(answer))
    }

    /// Returns the lane that currently leads to this shard. Opens it if necessary.
    fn handle(&self, shard: &Shard) -> Result<LaneHandle, CallError> {
        let topology = self.cluster.topology();
        let Some(primary) = topology.primary(shard.slot) else {
            self.map_refresh.notify_one();
            return Err(CallError::Moved("no primary serves the slot".into()));
        };
        let mut open = self.open();
        if let Some(handle) = open.handles.get(&primary.address) {
            return Ok(handle.clone());
        }
        let (queue, jobs) = mpsc::channel(self.settings.queue_max);
        let health = Arc::new(PrimaryHealth::new(primary.address.clone(), Arc::clone(&self.map_refresh)));
        let lane = Lane::new(
            Arc::clone(&self.cluster),
            primary.address.clone(),
            self.settings.clone(),
            Arc::clone(&health),
            Arc::clone(&self.lost),
        );
        open.tasks.spawn(lane.run(jobs));
        let handle = LaneHandle { queue, health };
        open.handles.insert(primary.address.clone(), handle.clone());
        Ok(handle)
    }

    /// Returns true unless the shard's primary is known to be suspect or has a failed replica.
    pub(crate) fn is_healthy(&self, shard: &Shard) -> bool {
        let topology = self.cluster.topology();
        topology.primary(shard.slot).is_some_and(|primary| {
            let open = self.open();
            let handle = open.handles.get(&primary.address);
            primary.replicas_failed() == 0 && !handle.is_some_and(|handle| handle.health.is_suspect())
        })
    }

    /// Calls `visit` for each lane with its address, its queue length, its queue capacity, and whether its primary is
    /// suspect.
    pub(crate) fn for_each_lane(&self, visit: impl Fn(&Address, usize, usize, bool)) {
        for (address, LaneHandle { queue, health }) in &self.open().handles {
            let room = queue.max_capacity();
            visit(address, room - queue.capacity(), room, health.is_suspect());
        }
    }

    /// Returns true when the primary of any lane is suspect.
    pub(crate) fn any_suspect(&self) -> bool {
        self.open().handles.values().any(|handle| handle.health.is_suspect())
    }

    /// Closes the lanes to servers that are no longer primary. Their waiting callers retry with the new primary.
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
        drop(open);
        self.lost.forget_old(Instant::now());
    }

    /// Closes all lanes and waits until their jobs have been answered.
    pub(crate) async fn close(&self) {
        let OpenLanes { handles, mut tasks } = std::mem::take(&mut *self.open());
        drop(handles);
        while tasks.join_next().await.is_some() {}
    }

    fn open(&self) -> std::sync::MutexGuard<'_, OpenLanes> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
