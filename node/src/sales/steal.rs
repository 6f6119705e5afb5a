//! Stealing: brings tokens to a shard whose buyers found it empty.
//!
//! Single-flight: each empty shard has one attendant, however many buyers wait there. It asks only shards that
//! are thought to hold tokens, takes half of what one has (so the number of steals grows with the logarithm of
//! the stock, not with the buyers), and wakes as many buyers as tokens come. When nobody is thought to have
//! any, it waits for the next snapshot instead of asking around. A token on its way when something dies stays
//! in its channel; the next steal of the same channel brings it along, or the coordinator does.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use stock::calls::{CallError, TokenSource};
use stock::ids::{ShardId, UserId};
use stock::layout::Shard;
use stock::snapshot::Snapshot;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::view::SaleView;
use crate::lanes::{LaneError, Lanes};
use crate::metrics::StealMetrics;
use crate::sabotage::{self, AbortPoint};

/// Longest wait for a donor. Those who wait are to be served by the next one, and what it gives later is in its
/// channel.
const DONATION_TIMEOUT: Duration = Duration::from_millis(300);
/// Longest wait for a snapshot that shows where tokens are; then the levels at hand are looked at again.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(1);

/// The steals of one sale on this node.
pub(super) struct Steals {
    scheduler: Arc<StealScheduler>,
    tasks: Mutex<JoinSet<()>>,
    /// How many buyers may wait at a shard, as many as in a lane.
    queue_max: usize,
}

/// Too many wait at the shard already.
pub(super) struct QueueFull;

/// What all attendants of a sale share.
struct StealScheduler {
    lanes: Arc<Lanes>,
    view: watch::Receiver<Arc<SaleView>>,
    shards: Arc<[Arc<Shard>]>,
    queues: Vec<ShardQueue>,
    /// What was accepted from each channel, as far as this node saw.
    accepted: Mutex<HashMap<(ShardId, ShardId), u64>>,
    metrics: StealMetrics,
}

/// A shard's place in the market.
struct ShardQueue {
    queue: Mutex<Queue>,
    /// Tokens it is thought to hold: from the latest snapshot, or from a later answer.
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
        // Before the first snapshot each shard may have something.
        let queues =
            shards.iter().map(|_| ShardQueue { queue: Mutex::default(), stock: AtomicU64::new(1) }).collect();
        let metrics = StealMetrics::of(view.borrow().sale.id(), shards.len());
        let scheduler =
            Arc::new(StealScheduler { lanes, view, shards, queues, accepted: Mutex::default(), metrics });
        Self { scheduler, tasks: Mutex::default(), queue_max }
    }

    /// Learns from a snapshot who holds what.
    pub(super) fn update_levels(&self, snapshot: &Snapshot) {
        for (shard_queue, level) in self.scheduler.queues.iter().zip(&snapshot.shards) {
            shard_queue.stock.store(level.stock, Ordering::Relaxed);
        }
    }

    /// Waits until it is worth asking `home` again: tokens are there, or all are sold. The user has just
    /// found it empty.
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

    /// Ends all steals. Tokens that are on their way are in their channels.
    pub(super) async fn close(&self) {
        let mut tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        tasks.shutdown().await;
    }
}

impl StealScheduler {
    /// Serves the buyers who wait at a shard until there is none.
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

    /// Brings tokens from the first donor that has some. Answers whether any came. Donors whose primary is in
    /// trouble are left out, unless all are.
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
                // Not asked again before a snapshot shows that it has some.
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
        sabotage::abort_at(AbortPoint::Donated);
        self.accept_donation(donor, home, donation.cumulative, new_tokens).await
    }

    /// Puts the tokens into the lane first and wakes the buyers then: they queue up behind the tokens.
    async fn accept_donation(&self, donor: ShardId, home: ShardId, cumulative: u64, new_tokens: u64) -> bool {
        let accepting = self.lanes.accept(&self.shards[home.index()], TokenSource::Shard(donor), cumulative);
        sabotage::abort_at(AbortPoint::AcceptSent);
        self.shard_queue(home).notify_waiting(new_tokens);
        let accepted = match accepting {
            Ok(accepting) => accepting.answer().await,
            Err(error) => Err(error),
        };
        match accepted {
            Ok(accepted) => {
                sabotage::abort_at(AbortPoint::Accepted);
                self.accepted().insert((donor, home), accepted.cumulative);
                self.metrics.stolen(home, new_tokens);
                tracing::debug!(shard.id = %home, donor.id = %donor, tokens = new_tokens, "stole tokens");
            }
            // They wait in the channel: the next steal from this donor brings them, or the coordinator.
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
    /// Who waits longest. With nobody there the attendant leaves, and the next to come calls another.
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

    /// Wakes as many as can hope for a token, first come first served.
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
