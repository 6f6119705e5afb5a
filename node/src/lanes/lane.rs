//! One lane: an actor with a queue, a connection, and one pipeline in flight.

use std::sync::Arc;
use std::time::Duration;

use stock::calls::CallError;
use stock::cluster::Cluster;
use stock::connection::{Barrier, Connection};
use stock::topology::Address;
use tokio::sync::{Notify, mpsc};

use super::Work;
use super::batch::Batch;
use crate::settings::{Durability, LaneSettings};

/// Most that one pipeline takes along: eight calls of 64 buyers take about 2 ms of Redis, which is as long as
/// the first of them should wait for the last.
const WORK_PER_PIPELINE_MAX: usize = 512;
/// From this many in a pipeline on, a lane counts as busy: so many came while one pipeline was under way that
/// waiting a moment makes the next one fuller and everybody's share of it cheaper.
const BUSY_FROM: usize = 8;

pub(super) struct Lane {
    cluster: Arc<Cluster>,
    address: Address,
    settings: LaneSettings,
    suspicion: Arc<Notify>,
    connection: Option<Connection>,
}

impl Lane {
    pub(super) fn new(
        cluster: Arc<Cluster>,
        address: Address,
        settings: LaneSettings,
        suspicion: Arc<Notify>,
    ) -> Self {
        Self { cluster, address, settings, suspicion, connection: None }
    }

    /// Serves the queue until it is closed and empty.
    pub(super) async fn run(mut self, mut queue: mpsc::Receiver<Work>) {
        let mut waiting = Vec::new();
        let mut busy = false;
        while queue.recv_many(&mut waiting, WORK_PER_PIPELINE_MAX).await > 0 {
            if busy {
                self.linger(&mut queue, &mut waiting).await;
            }
            busy = waiting.len() >= BUSY_FROM;
            let batch = Batch::gather(waiting.drain(..));
            if !batch.is_empty() {
                self.serve(batch).await;
            }
        }
    }

    /// Lets a pipeline that is not full yet fill up for a moment.
    async fn linger(&self, queue: &mut mpsc::Receiver<Work>, waiting: &mut Vec<Work>) {
        let room = WORK_PER_PIPELINE_MAX.saturating_sub(waiting.len());
        if room == 0 || self.settings.linger == Duration::ZERO {
            return;
        }
        tokio::time::sleep(self.settings.linger).await;
        for _ in 0..room {
            match queue.try_recv() {
                Ok(work) => waiting.push(work),
                Err(_) => return,
            }
        }
    }

    async fn serve(&mut self, batch: Batch) {
        let barrier = self.barrier(&batch);
        let sent = match self.connected().await {
            Ok(connection) => connection.send(batch.pipeline(), barrier).await,
            Err(error) => Err(error),
        };
        match sent {
            Ok(replies) => {
                if let Some(error) = batch.answer(replies) {
                    self.look_into(&error).await;
                }
            }
            Err(error) => {
                tracing::warn!(redis.address = %self.address, error = %error, "a lane's pipeline failed");
                self.connection = None;
                self.suspicion.notify_one();
                batch.fail(&error);
            }
        }
    }

    /// B1 where the settings ask for it, B2 always.
    fn barrier(&self, batch: &Batch) -> Barrier {
        if self.settings.durability == Durability::None && !batch.donates() {
            return Barrier::None;
        }
        let topology = self.cluster.topology();
        let primary = topology.primaries().iter().find(|primary| primary.address == self.address);
        Barrier::Replicas(primary.map_or(0, |primary| primary.replicas))
    }

    async fn connected(&mut self) -> Result<&mut Connection, CallError> {
        match &mut self.connection {
            Some(connection) => Ok(connection),
            none => Ok(none.insert(Connection::open(self.cluster.options(), &self.address).await?)),
        }
    }

    /// Mends what a single call met; those who waited for it come again.
    async fn look_into(&self, error: &CallError) {
        match error {
            CallError::FunctionMissing => {
                if let Err(error) = self.cluster.load_library_on(&self.address).await {
                    tracing::warn!(redis.address = %self.address, error = %error, "function library not loaded");
                }
            }
            CallError::Moved(_) => self.suspicion.notify_one(),
            error => tracing::warn!(redis.address = %self.address, error = %error, "a lane's call failed"),
        }
    }
}
