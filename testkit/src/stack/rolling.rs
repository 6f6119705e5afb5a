//! Rolling restarts: replaces the processes one after the other, as an update does. Each process is asked to end, ends
//! gracefully, and starts again at the same address. No process is killed.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use super::{DRAIN_LIMIT, Stack};
use crate::{Failover, Process};

/// One step of a rolling restart.
#[derive(Clone, Debug)]
pub struct RolloutStep {
    /// The replaced process, for display.
    pub description: String,
    /// The start time of the step.
    pub started_at: Instant,
    /// The time until the replacement was complete.
    pub duration: Duration,
}

impl RolloutStep {
    fn finished(description: String, started_at: Instant) -> Self {
        Self { description, started_at, duration: started_at.elapsed() }
    }
}

impl Stack {
    /// Replaces each node at its address. The node is away while its replacement starts.
    ///
    /// # Errors
    /// Fails when a node did not end gracefully, or its replacement did not start.
    pub async fn roll_nodes(&self, mut on_step: impl FnMut(RolloutStep)) -> Result<()> {
        for node in self.nodes() {
            let started_at = Instant::now();
            end(&node.process()).await?;
            node.restart().await?;
            on_step(RolloutStep::finished(node.process().name().to_owned(), started_at));
        }
        Ok(())
    }

    /// Replaces each node by one that is started first. The replacement uses the address of a node that does not run
    /// and that nginx knows.
    ///
    /// # Errors
    /// Fails when all nodes run, a node did not end gracefully, or its replacement did not start.
    pub async fn roll_nodes_with_spare(&self, mut on_step: impl FnMut(RolloutStep)) -> Result<()> {
        let (running, idle): (Vec<_>, Vec<_>) =
            self.nodes().into_iter().partition(|node| node.process().is_running());
        let mut spare = idle.into_iter().next().context("all nodes run, so none can be the spare")?;
        for node in running {
            let started_at = Instant::now();
            spare.restart().await?;
            end(&node.process()).await?;
            let (old, new) = (node.process(), spare.process());
            on_step(RolloutStep::finished(format!("{} in place of {}", new.name(), old.name()), started_at));
            spare = node;
        }
        Ok(())
    }

    /// Replaces each coordinator at its address.
    ///
    /// # Errors
    /// Fails when a coordinator did not end gracefully, or its replacement did not start.
    pub async fn roll_coordinators(&self, mut on_step: impl FnMut(RolloutStep)) -> Result<()> {
        for coordinator in self.coordinators() {
            let started_at = Instant::now();
            let name = coordinator.process().name().to_owned();
            end(&coordinator.process()).await?;
            coordinator.restart().await?;
            on_step(RolloutStep::finished(name, started_at));
        }
        Ok(())
    }

    /// Restarts every Redis server, one primary with its replicas after the other. The replicas come first. Then a
    /// failover promotes one of them, and the old primary restarts as its replica. Each step ends when the cluster is
    /// whole, and the next one begins after `pause`.
    ///
    /// # Errors
    /// Fails when a server did not end gracefully, or the cluster is not whole again in time.
    pub async fn roll_redis(
        &self,
        mut on_step: impl FnMut(RolloutStep),
        pause: impl AsyncFn(),
    ) -> Result<()> {
        for primary in self.redis().primaries().await {
            let replicas = self.redis().replicas_of(primary).await;
            for &replica in &replicas {
                on_step(self.restart_replica(replica).await?);
                pause().await;
            }
            let Some(&successor) = replicas.first() else { continue };
            let started_at = Instant::now();
            self.redis().fail_over_to(successor, Failover::Agreed).await?;
            self.redis().wait_until_whole().await?;
            on_step(RolloutStep::finished(format!("{successor} takes the place of {primary}"), started_at));
            pause().await;
            on_step(self.restart_replica(primary).await?);
            pause().await;
        }
        Ok(())
    }

    async fn restart_replica(&self, replica: SocketAddr) -> Result<RolloutStep> {
        let started_at = Instant::now();
        self.redis().stop_server(replica).await?;
        self.redis().restart(replica).await?;
        self.redis().wait_until_whole().await?;
        Ok(RolloutStep::finished(format!("replica {replica}"), started_at))
    }
}

async fn end(process: &Process) -> Result<()> {
    let exit = process.stop(DRAIN_LIMIT).await?;
    ensure!(
        exit.success(),
        "{} was asked to end and ended with {exit}{}",
        process.name(),
        process.log_tail()
    );
    Ok(())
}
