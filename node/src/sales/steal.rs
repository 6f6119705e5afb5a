//! Stealing: brings tokens to a shard that buyers found empty.
//!
//! Each empty shard has a single steal task on this node, however many buyers wait. The task asks only shards that are
//! believed to hold tokens and takes half of a donor's stock, so the number of steals grows with the logarithm of the
//! stock and not with the number of buyers. It then notifies as many buyers as tokens arrive. When no shard is believed
//! to hold tokens, the task waits for the next snapshot instead of polling the shards. After a crash, tokens that were moved
//! stay in their channel until the next steal of that channel delivers them, or the channel is re-driven.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fail::fail_point;
use rediscluster::CallError;
use stock::calls::TokenSource;
use stock::ids::{ShardId, UserId};
use stock::layout::Shard;
use stock::snapshot::Snapshot;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::view::SaleView;
use crate::lanes::{LaneError, Lanes};
use crate::metrics::StealMetrics;

/// Longest wait for a donor. After it the waiting buyers are served by the next donor, and a late donation stays in its
/// channel.
const DONATION_TIMEOUT: Duration = Duration::from_millis(300);
/// Longest wait for a snapshot that shows where tokens are. After it the known levels are checked again.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(1);

/// Steals of one sale on this node.
pub(super) struct Steals {
    scheduler: Arc<StealScheduler>,
    tasks: Mutex<JoinSet<()>>,
    /// Largest number of buyers that may wait at a shard. The same as for a lane.
    queue_max: usize,
}

/// Too many buyers wait at the shard already.
pub(super) struct QueueFull;

/// State that all steal tasks of a sale share.
struct StealScheduler {
    lanes: Arc<Lanes>,
    view: watch::Receiver<Arc<SaleView>>,
    shards: Arc<[Arc<Shard>]>,
    queues: Vec<ShardQueue>,
    /// Highest cumulative value accepted from each channel, as far as this node knows.
    accepted: Mutex<HashMap<(ShardId, ShardId), u64>>,
    metrics: StealMetrics,
}

/// The buyers that wait at a shard, and its estimated stock.
struct ShardQueue {
    queue: Mutex<Queue>,
    /// Estimated stock: from the latest snapshot, or from a later answer.
    stock: AtomicU64,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<(UserId, oneshot::Sender<()>)>,
    has_task: bool,
}

impl Steals {
    pub(super) fn new(
        lanes: Arc<Lanes>,
        shards: Arc<[Arc<Shard>]>,
        view: watch::Receiver<Arc<SaleView>>,
        queue_max: usize,
    ) -> Self {
        // Before the first snapshot, each shard may have tokens.
        let queues =
            shards.iter().map(|_| ShardQueue { queue: Mutex::default(), stock: AtomicU64::new(1) }).collect();
        let metrics = StealMetrics::new(view.borrow().sale.id(), shards.len());
        let scheduler =
            Arc::new(StealScheduler { lanes, view, shards, queues, accepted: Mutex::default(), metrics });
        Self { scheduler, tasks: Mutex::default(), queue_max }
    }

    /// Takes the stock of each shard from a snapshot.
    pub(super) fn update_levels(&self, snapshot: &Snapshot) {
        for (shard_queue, level) in self.scheduler.queues.iter().zip(&snapshot.shards) {
            shard_queue.stock.store(level.stock, Ordering::Relaxed);
        }
    }

    /// Waits until it is worth asking `home` again, because tokens arrived or all are sold. The user has just found it
    /// empty.
    pub(super) async fn wait_for_tokens(&self, home: ShardId, user: &UserId) -> Result<(), QueueFull> {
        let shard_queue = self.scheduler.shard_queue(home);
        let (notify, notified) = oneshot::channel();
        let needs_task = {
            let mut queue = shard_queue.queue();
            if queue.waiting.len() >= self.queue_max {
                return Err(QueueFull);
            }
            queue.waiting.push_back((user.clone(), notify));
            !std::mem::replace(&mut queue.has_task, true)
        };
        if needs_task {
            shard_queue.stock.store(0, Ordering::Relaxed);
            let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
            while tasks.try_join_next().is_some() {}
            tasks.spawn(Arc::clone(&self.scheduler).run_task(home));
        }
        let _notified_or_closing = notified.await;
        Ok(())
    }

    /// Stops all steal tasks. Moved tokens stay in their channels.
    pub(super) async fn close(&self) {
        let mut tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        tasks.shutdown().await;
    }
}

impl StealScheduler {
    /// Serves the buyers that wait at a shard until none is left.
    async fn run_task(self: Arc<Self>, home: ShardId) {
        let mut view = self.view.clone();
        while let Some(user) = self.shard_queue(home).first_waiting() {
            let now = Arc::clone(&view.borrow_and_update());
            let stock = self.shard_queue(home).stock.swap(0, Ordering::Relaxed);
            if now.sold_out() {
                self.shard_queue(home).notify_waiting(u64::MAX);
            } else if stock > 0 {
                self.shard_queue(home).notify_waiting(stock);
            } else if !self.steal(&now, home, &user).await {
                let _changed_or_timeout = timeout(SNAPSHOT_TIMEOUT, view.changed()).await;
            }
        }
    }

    /// Steals from the first donor that has tokens. Returns true when tokens arrived. Donors with a suspect primary are
    /// tried last.
    async fn steal(&self, view: &SaleView, home: ShardId, user: &UserId) -> bool {
        let donors: Vec<ShardId> = view.sale.ring().donors(user).collect();
        let healthy = |donor: &ShardId| self.lanes.is_healthy(&self.shards[donor.index()]);
        let (healthy, others): (Vec<_>, Vec<_>) = donors.into_iter().partition(healthy);
        for donor in healthy.into_iter().chain(others) {
            let stock = self.shard_queue(donor).stock.load(Ordering::Relaxed);
            if stock > 0 && self.steal_from(donor, home, stock).await {
                return true;
            }
        }
        false
    }

    async fn steal_from(&self, donor: ShardId, home: ShardId, stock: u64) -> bool {
        let want = self.shard_queue(home).waiting().max(stock.div_ceil(2));
        let donating = self.lanes.donate(&self.shards[donor.index()], home, want);
        let donation = match timeout(DONATION_TIMEOUT, donating)
            .await
            .unwrap_or_else(|_| Err(donor_timeout()))
        {
            Ok(donation) => donation,
            Err(error) => {
                tracing::debug!(shard.id = %home, donor.id = %donor, error = %error, "a steal got no answer");
                self.metrics.failed();
                // Do not ask this donor again before a snapshot shows stock.
                self.shard_queue(donor).stock.store(0, Ordering::Relaxed);
                return false;
            }
        };
        self.shard_queue(donor).stock.store(donation.stock, Ordering::Relaxed);
        let new_tokens = donation.cumulative.saturating_sub(self.accepted_before(donor, home));
        if new_tokens == 0 {
            self.metrics.empty();
            return false;
        }
        self.metrics.given(donor, new_tokens);
        fail_point!("die-after-donate");
        self.accept_donation(donor, home, donation.cumulative, new_tokens).await
    }

    /// Enqueues the `accept` first and notifies the buyers afterwards, so that they follow it in the lane.
    async fn accept_donation(&self, donor: ShardId, home: ShardId, cumulative: u64, new_tokens: u64) -> bool {
        let accepting = self.lanes.accept(&self.shards[home.index()], TokenSource::Shard(donor), cumulative);
        fail_point!("die-after-accept-sent");
        self.shard_queue(home).notify_waiting(new_tokens);
        let accepted = match accepting {
            Ok(accepting) => accepting.answer().await,
            Err(error) => Err(error),
        };
        match accepted {
            Ok(accepted) => {
                fail_point!("die-after-accept");
                self.accepted().insert((donor, home), accepted.cumulative);
                self.metrics.stolen(home, new_tokens);
                tracing::debug!(shard.id = %home, donor.id = %donor, tokens = new_tokens, "stole tokens");
            }
            // The tokens stay in the channel until the next steal from this donor, or until it is re-driven.
            Err(error) => {
                self.metrics.in_flight();
                tracing::warn!(shard.id = %home, donor.id = %donor, error = %error, "stolen tokens are in flight");
            }
        }
        true
    }

    fn accepted_before(&self, donor: ShardId, home: ShardId) -> u64 {
        self.accepted().get(&(donor, home)).copied().unwrap_or_default()
    }

    fn accepted(&self) -> MutexGuard<'_, HashMap<(ShardId, ShardId), u64>> {
        self.accepted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shard_queue(&self, shard: ShardId) -> &ShardQueue {
        &self.queues[shard.index()]
    }
}

fn donor_timeout() -> LaneError {
    CallError::NoReply("the donor took too long".into()).into()
}

impl ShardQueue {
    /// Returns the buyer who waits longest. When none is left, the steal task ends, and the next buyer starts another.
    fn first_waiting(&self) -> Option<UserId> {
        let mut queue = self.queue();
        queue.waiting.retain(|(_, notify)| !notify.is_closed());
        let first = queue.waiting.front().map(|(user, _)| user.clone());
        queue.has_task = first.is_some();
        first
    }

    fn waiting(&self) -> u64 {
        self.queue().waiting.len() as u64
    }

    /// Notifies as many buyers as there are tokens, first come, first served.
    fn notify_waiting(&self, tokens: u64) {
        let mut queue = self.queue();
        let count = queue.waiting.len().min(usize::try_from(tokens).unwrap_or(usize::MAX));
        for (_, notify) in queue.waiting.drain(..count) {
            let _gave_up = notify.send(());
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
