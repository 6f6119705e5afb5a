//! One lane: an actor with a queue, a connection, and one pipeline in flight.
//!
//! A lane ends when its server is no longer primary. When the map names another primary, the pipeline in flight is
//! abandoned at once and waiting jobs are returned, because only the new primary's replies count. A frozen server would
//! otherwise hold them for a long time.

use std::sync::Arc;
use std::time::Duration;

use fail::fail_point;
use rediscluster::{
    Address, Barrier, Call as _, CallError, Cluster, Connection, PipelineTime, Primary, Replies,
};
use stock::store::ReadTime;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::LaneJob;
use super::batch::Batch;
use super::fence::{ClockReading, Deadline, LostCalls};
use super::primary_health::PrimaryHealth;
use crate::metrics::LaneMetrics;
use crate::settings::{Durability, DurabilityFallback, LaneSettings};

/// Largest number of jobs in one pipeline. Eight calls of 64 buyers take about 2 ms in Redis, which is as long as the
/// first buyer should wait for the last.
pub(super) const JOBS_PER_PIPELINE_MAX: usize = 512;
/// Pipeline size from which a lane counts as busy. When this many jobs arrive while one pipeline is in flight, a short
/// wait makes the next pipeline fuller and each job cheaper.
const BUSY_FROM: usize = 8;
/// A pipeline normally takes a few milliseconds. After this time its primary is suspect and the map is read more often,
/// although the timeouts that would end the wait are longer.
const SUSPECT_AFTER: Duration = Duration::from_millis(250);

pub(super) struct Lane {
    cluster: Arc<Cluster>,
    address: Address,
    settings: LaneSettings,
    health: Arc<PrimaryHealth>,
    connection: Option<TimedConnection>,
    lost: Arc<LostCalls>,
    metrics: LaneMetrics,
}

/// A connection, and the latest reading of its primary's clock.
struct TimedConnection {
    connection: Connection,
    clock: ClockReading,
}

/// A pipeline that was sent, or is being sent.
#[derive(Clone, Copy)]
struct Sent {
    at: Instant,
    /// Time until which Redis may execute its purchases.
    not_after: Deadline,
}

impl Lane {
    pub(super) fn new(
        cluster: Arc<Cluster>,
        address: Address,
        settings: LaneSettings,
        health: Arc<PrimaryHealth>,
        lost: Arc<LostCalls>,
    ) -> Self {
        let metrics = LaneMetrics::new(&address);
        Self { cluster, address, settings, health, connection: None, lost, metrics }
    }

    /// Serves the queue until it is closed and empty.
    pub(super) async fn run(mut self, mut queue: mpsc::Receiver<LaneJob>) {
        let mut waiting = Vec::new();
        let mut busy = false;
        while queue.recv_many(&mut waiting, JOBS_PER_PIPELINE_MAX).await > 0 {
            if busy {
                self.linger(&mut queue, &mut waiting).await;
            }
            busy = waiting.len() >= BUSY_FROM;
            let batch = Batch::gather(waiting.drain(..));
            self.serve(batch).await;
        }
    }

    /// Waits a moment for more jobs when the pipeline is not full.
    async fn linger(&self, queue: &mut mpsc::Receiver<LaneJob>, waiting: &mut Vec<LaneJob>) {
        let room = JOBS_PER_PIPELINE_MAX.saturating_sub(waiting.len());
        if room == 0 || self.settings.linger == Duration::ZERO {
            return;
        }
        sleep(self.settings.linger).await;
        for _ in 0..room {
            match queue.try_recv() {
                Ok(job) => waiting.push(job),
                Err(_) => return,
            }
        }
    }

    async fn serve(&mut self, mut batch: Batch) {
        let topology = self.cluster.topology();
        let Some(primary) = topology.primaries().iter().find(|primary| primary.address == self.address)
        else {
            // Replies of a demoted primary never count, not even with a barrier: it may know no replicas.
            return batch.fail(&CallError::Moved(format!("{} serves no slots", self.address)));
        };
        if primary.replicas_failed() > 0 {
            batch.refuse_donations(primary);
        }
        if batch.len() == 0 {
            return;
        }
        let barrier = self.barrier(&batch, primary);
        self.metrics.pipeline_sent(batch.len());
        let spans = batch.spans(&self.address);
        let began = Instant::now();
        if batch.donates() {
            fail_point!("die-after-donate-sent");
        }
        let mut sent = None;
        let exchanged = self.exchange(&batch, &barrier, &mut sent).await;
        drop(spans);
        match exchanged {
            Ok((replies, time)) => {
                let replies = replies.require(self.cluster.recheck_barrier(&self.address, &barrier));
                let duration = began.elapsed();
                self.health.record_pipeline_time(duration);
                self.metrics.pipeline_answered(duration, time, replies.are_durable());
                let error = batch.answer(replies, &self.lost.seen_by(&primary.id, Instant::now()));
                self.note_clock(&primary.id, sent, time);
                match error {
                    None => self.health.mark_healthy(),
                    Some(error) => self.handle_call_error(&error).await,
                }
            }
            Err(error) => {
                self.connection = None;
                if let Some(Sent { not_after, .. }) = sent {
                    self.lost.add(&primary.id, batch.attempts(), not_after);
                }
                self.metrics.pipeline_failed();
                self.health.mark_suspect(&error);
                batch.fail(&error);
            }
        }
    }

    /// Sends the calls and waits for their replies, but only while the server is primary. Sets `sent` once the calls may
    /// be on their way.
    async fn exchange(
        &mut self,
        batch: &Batch,
        barrier: &Barrier,
        sent: &mut Option<Sent>,
    ) -> Result<(Replies, PipelineTime), CallError> {
        let health = Arc::clone(&self.health);
        let wait = self.cluster.options().response_timeout;
        let exchange = async {
            let TimedConnection { connection, clock } = self.connected().await?;
            // Within this time the calls must be executed, or their replies would come too late with the barrier's.
            let at = Instant::now();
            let not_after = clock.deadline(at, wait);
            *sent = Some(Sent { at, not_after });
            connection.send_timed(batch.pipeline(not_after.by_primary), barrier).await
        };
        let demoted = async {
            sleep(SUSPECT_AFTER).await;
            health.mark_suspect(&CallError::NoReply(format!("nothing for {} ms", SUSPECT_AFTER.as_millis())));
            health.demoted().await;
        };
        tokio::select! {
            replies = exchange => replies,
            () = demoted => Err(CallError::NoReply("another primary took over".into())),
        }
    }

    /// Returns the barrier that the settings ask for (B1). Donations always have the full barrier (B2), because tokens
    /// that a stale replica brings back would be sold twice.
    fn barrier(&self, batch: &Batch, primary: &Primary) -> Barrier {
        fail_point!("no-b1", !batch.donates(), |_| Barrier::None);
        fail_point!("no-b2", batch.donates(), |_| Barrier::None);
        match (self.settings.durability, self.settings.durability_fallback) {
            (Durability::None, _) if !batch.donates() => Barrier::None,
            (Durability::Replica, DurabilityFallback::Primary) => Barrier::live_replicas(primary),
            (Durability::Replica, DurabilityFallback::Refuse) | (Durability::None, _) => {
                Barrier::all_replicas(primary)
            }
        }
    }

    /// Returns the connection. Opens it, and reads the primary's clock, if necessary.
    async fn connected(&mut self) -> Result<&mut TimedConnection, CallError> {
        match &mut self.connection {
            Some(connection) => Ok(connection),
            none => {
                let mut connection = Connection::open(self.cluster.options(), &self.address).await?;
                let asked_at = Instant::now();
                let read = ReadTime.answer(connection.query(&ReadTime.command()).await?)?;
                self.metrics.connected();
                let clock = ClockReading { asked_at, answered_at: Instant::now(), read };
                Ok(none.insert(TimedConnection { connection, clock }))
            }
        }
    }

    /// Takes the reading of the primary's clock that came with a pipeline.
    fn note_clock(&mut self, primary: &str, sent: Option<Sent>, time: PipelineTime) {
        if let (Some(Sent { at: asked_at, .. }), Some(read)) = (sent, time.began) {
            self.lost.expire(primary, read);
            if let Some(TimedConnection { clock, .. }) = &mut self.connection {
                *clock = ClockReading { asked_at, answered_at: Instant::now(), read };
            }
        }
    }

    /// Handles an error of a single call. Its callers retry.
    async fn handle_call_error(&self, error: &CallError) {
        match error {
            CallError::FunctionMissing => {
                if let Err(error) = self.cluster.load_library_on(&self.address).await {
                    tracing::warn!(redis.address = %self.address, error = %error, "function library not loaded");
                }
            }
            CallError::Moved(_) => self.health.request_map_refresh(),
            // A failed barrier may mean that the map is older than a failover.
            CallError::NotDurable { .. } | CallError::NoReply(_) => self.health.mark_suspect(error),
            error => tracing::warn!(redis.address = %self.address, error = %error, "a lane's call failed"),
        }
    }
}
