//! Finds the owner of a slot.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result};
use futures::future::try_join_all;
use redis::{Cmd, FromRedisValue};

use super::RedisCluster;
use crate::wait::until_ok;

/// Time limit until all primaries know a new owner. Gossip takes a second or two.
const MAP_LIMIT: Duration = Duration::from_secs(30);

impl RedisCluster {
    /// Returns the primary that serves a slot, according to the primaries themselves.
    ///
    /// # Errors
    /// Fails when no primary claims the slot.
    pub async fn primary_of(&self, slot: u16) -> Result<SocketAddr> {
        for primary in self.primaries().await {
            // A primary that dies in between serves nothing.
            let nodes =
                self.query::<String>(primary, redis::cmd("CLUSTER").arg("NODES")).await.unwrap_or_default();
            if serves_itself(&nodes, slot) {
                return Ok(primary);
            }
        }
        anyhow::bail!("no primary says that it serves slot {slot}")
    }

    /// Waits until every primary knows that this one serves a slot.
    pub(super) async fn wait_until_known(&self, slot: u16, owner: SocketAddr) -> Result<()> {
        let owner = self.server(owner).id().await?;
        let knows = async |primary| {
            let nodes: String = self.query(primary, redis::cmd("CLUSTER").arg("NODES")).await?;
            let line = nodes
                .lines()
                .find(|line| line.starts_with(&owner))
                .context("the new owner is not in the map")?;
            anyhow::ensure!(serves(line, slot), "{primary} still lists another owner");
            Ok(())
        };
        let all_know = async || {
            let primaries = self.primaries().await;
            try_join_all(primaries.into_iter().map(knows)).await.map(drop)
        };
        until_ok("a moved slot on every map", MAP_LIMIT, all_know).await
    }

    /// Sends a command to one server.
    pub(crate) async fn query<T: FromRedisValue>(&self, addr: SocketAddr, command: &Cmd) -> Result<T> {
        Ok(command.query_async(&mut self.connection(addr).await?).await?)
    }
}

/// Returns true when the server that sent this `CLUSTER NODES` serves a slot.
fn serves_itself(nodes: &str, slot: u16) -> bool {
    nodes.lines().any(|line| line.contains("myself") && serves(line, slot))
}

/// Returns true when a server's line in `CLUSTER NODES` lists a slot. Slot ranges come after eight fields. Slots that
/// are being moved are in brackets.
fn serves(line: &str, slot: u16) -> bool {
    line.split(' ').skip(8).any(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let bounds = first.parse::<u16>().ok().zip(last.parse::<u16>().ok());
        bounds.is_some_and(|(first, last)| (first..=last).contains(&slot))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODES: &str = "\
aaa 127.0.0.1:7001@17001 myself,master - 0 0 1 connected 0-99 200 [300->-bbb]
bbb 127.0.0.1:7002@17002 master - 0 0 2 connected 100-199";

    #[test]
    fn slots_are_read_from_servers_own_line() {
        assert!(serves_itself(NODES, 99) && serves_itself(NODES, 200));
        assert!(!serves_itself(NODES, 100) && !serves_itself(NODES, 300));
    }
}
