//! Replaces what runs by the same again, one process after the other, as an update does: each is asked to end, ends in
//! good order, and is started again where it was. Nothing is killed.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use super::{DRAIN_LIMIT, Stack};
use crate::{Failover, Process};

/// One step of an update.
#[derive(Clone, Debug)]
pub struct RolloutStep {
    /// What was done, for people.
    pub what: String,
    /// When it began.
    pub began: Instant,
    /// How long until all was well again.
    pub took: Duration,
}

impl RolloutStep {
    fn now(what: String, began: Instant) -> Self {
        Self { what, began, took: began.elapsed() }
    }
}

impl Stack {
    /// Replaces each node at its address: it is gone for as long as the new one takes to start.
    ///
    /// # Errors
    /// When one did not end in good order, or did not come back.
    pub async fn roll_nodes(&self, mut tell: impl FnMut(RolloutStep)) -> Result<()> {
        for node in self.nodes() {
            let began = Instant::now();
            end(&node.process()).await?;
            node.restart().await?;
            tell(RolloutStep::now(node.process().name().to_owned(), began));
        }
        Ok(())
    }

    /// Replaces each node by one that is there first, at the address of one that does not run; nginx knows it.
    ///
    /// # Errors
    /// When all nodes run, or one did not end in good order, or its successor did not come up.
    pub async fn roll_nodes_over_a_spare(&self, mut tell: impl FnMut(RolloutStep)) -> Result<()> {
        let (running, idle): (Vec<_>, Vec<_>) =
            self.nodes().into_iter().partition(|node| node.process().is_running());
        let mut spare = idle.into_iter().next().context("a spare is a node that does not run")?;
        for node in running {
            let began = Instant::now();
            spare.restart().await?;
            end(&node.process()).await?;
            let (old, new) = (node.process(), spare.process());
            tell(RolloutStep::now(format!("{} in place of {}", new.name(), old.name()), began));
            spare = node;
        }
        Ok(())
    }

    /// Replaces each coordinator at its address.
    ///
    /// # Errors
    /// When one did not end in good order, or did not come back.
    pub async fn roll_coordinators(&self, mut tell: impl FnMut(RolloutStep)) -> Result<()> {
        for coordinator in self.coordinators() {
            let began = Instant::now();
            let name = coordinator.process().name().to_owned();
            end(&coordinator.process()).await?;
            coordinator.restart().await?;
            tell(RolloutStep::now(name, began));
        }
        Ok(())
    }

    /// Restarts every Redis server, one pair after the other: first the replicas; then one of them takes the primary's
    /// place, and the old primary is restarted as its replica. Each step begins when the cluster is whole.
    ///
    /// # Errors
    /// When one did not end in good order, or the cluster is not whole again in time.
    pub async fn roll_redis(&self, mut tell: impl FnMut(RolloutStep)) -> Result<()> {
        for primary in self.redis().primaries().await {
            let replicas = self.redis().replicas_of(primary).await;
            for &replica in &replicas {
                tell(self.restart_replica(replica).await?);
            }
            let Some(&heir) = replicas.first() else { continue };
            let began = Instant::now();
            self.redis().fail_over_to(heir, Failover::Agreed).await?;
            self.redis().wait_until_whole().await?;
            tell(RolloutStep::now(format!("{heir} takes the place of {primary}"), began));
            tell(self.restart_replica(primary).await?);
        }
        Ok(())
    }

    async fn restart_replica(&self, replica: SocketAddr) -> Result<RolloutStep> {
        let began = Instant::now();
        self.redis().stop_server(replica).await?;
        self.redis().restart(replica).await?;
        self.redis().wait_until_whole().await?;
        Ok(RolloutStep::now(format!("replica {replica}"), began))
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
