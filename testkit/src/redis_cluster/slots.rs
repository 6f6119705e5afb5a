//! Finds the owner of a slot and moves slots between primaries, with the commands that operators' tools use.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result};
use futures::future::try_join_all;
use redis::{Cmd, FromRedisValue};

use super::RedisCluster;
use crate::{User, wait::until_ok};

/// Longest time that one MIGRATE may block both servers, in milliseconds.
const MIGRATE_TIMEOUT_MS: u64 = 5_000;

/// Time limit until all primaries know a new owner. Gossip takes a second or two.
const MAP_LIMIT: Duration = Duration::from_secs(30);

/// Time limit until replicas confirm a primary's data. They confirm once per second.
const COPY_LIMIT: Duration = Duration::from_secs(5);

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

    /// Moves a slot with all its keys to another primary. Waits until the target's replicas have the keys and every
    /// primary knows the new owner.
    ///
    /// # Errors
    /// - Fails when the target is not replicated. Nothing has moved then.
    /// - Fails when a server refuses a command or does not answer. The slot may be partly moved then.
    /// - Fails when the replicas do not confirm. The slot has moved then, and its keys may be on one server only.
    pub async fn move_slot(&self, slot: u16, to: SocketAddr) -> Result<()> {
        let from = self.primary_of(slot).await?;
        if from == to {
            return Ok(());
        }
        self.ensure_replicated(to).await.with_context(|| format!("slot {slot} stays at {from}"))?;
        let (from_id, to_id) = (self.server(from).id().await?, self.server(to).id().await?);
        self.query::<()>(to, set_slot(slot).arg("IMPORTING").arg(&from_id)).await?;
        self.query::<()>(from, set_slot(slot).arg("MIGRATING").arg(&to_id)).await?;
        self.move_keys(slot, from, to).await?;
        for primary in [to, from] {
            self.query::<()>(primary, set_slot(slot).arg("NODE").arg(&to_id)).await?;
        }
        let confirmed = self.wait_until_copied(to).await;
        confirmed.with_context(|| format!("slot {slot} is at {to}, but its keys may not be replicated"))?;
        self.wait_until_known(slot, &to_id).await
    }

    /// Fails unless all replicas that the map lists for a primary follow it, and at least one does.
    async fn ensure_replicated(&self, primary: SocketAddr) -> Result<()> {
        let following = self.confirmed_offsets(primary).await?.len();
        let listed = self.listed_replicas(primary).await?;
        anyhow::ensure!(
            following >= listed.max(1),
            "{primary} is not replicated: {following} of {listed} replicas follow"
        );
        Ok(())
    }

    /// Waits until the replicas of a primary have all its current data. `WAIT` is not enough: it covers only writes of
    /// its own connection, and the keys came over another one.
    async fn wait_until_copied(&self, primary: SocketAddr) -> Result<()> {
        let info = self.server(primary).info("replication").await?;
        let written: u64 =
            info.field("master_repl_offset").context("INFO replication without an offset")?.parse()?;
        let copied = async || {
            self.ensure_replicated(primary).await?;
            let offsets = self.confirmed_offsets(primary).await?;
            let behind = offsets.iter().filter(|offset| **offset < written).count();
            anyhow::ensure!(behind == 0, "{behind} replicas are behind offset {written}");
            Ok(())
        };
        until_ok("copies of the keys at the replicas", COPY_LIMIT, copied).await
    }

    /// The offsets that the connected replicas of a primary have confirmed.
    async fn confirmed_offsets(&self, primary: SocketAddr) -> Result<Vec<u64>> {
        let info = self.server(primary).info("replication").await?;
        let replicas = (0..).map_while(|n| info.field(&format!("slave{n}")).map(str::to_owned));
        let online = replicas.filter(|replica| replica.contains("state=online"));
        Ok(online.filter_map(|replica| confirmed_offset(&replica)).collect())
    }

    /// The number of replicas that the map lists for a primary, dead ones included.
    async fn listed_replicas(&self, primary: SocketAddr) -> Result<usize> {
        let id = self.server(primary).id().await?;
        let nodes: String = self.query(primary, redis::cmd("CLUSTER").arg("NODES")).await?;
        Ok(nodes.lines().filter(|line| line.split(' ').nth(3) == Some(&id)).count())
    }

    async fn move_keys(&self, slot: u16, from: SocketAddr, to: SocketAddr) -> Result<()> {
        let mut listing = redis::cmd("CLUSTER");
        let keys: Vec<String> = self.query(from, listing.arg("GETKEYSINSLOT").arg(slot).arg(1_000)).await?;
        if keys.is_empty() {
            return Ok(());
        }
        let mut migrate = redis::cmd("MIGRATE");
        migrate.arg(to.ip().to_string()).arg(to.port()).arg("").arg(0).arg(MIGRATE_TIMEOUT_MS);
        if let Some(security) = self.security() {
            migrate.arg("AUTH2").arg(User::Admin.name()).arg(security.password(User::Admin)?);
        }
        self.query(from, migrate.arg("KEYS").arg(&keys)).await.context("the keys of a slot did not move")
    }

    async fn wait_until_known(&self, slot: u16, owner: &str) -> Result<()> {
        let knows = async |primary| {
            let nodes: String = self.query(primary, redis::cmd("CLUSTER").arg("NODES")).await?;
            let line = nodes
                .lines()
                .find(|line| line.starts_with(owner))
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

fn set_slot(slot: u16) -> Cmd {
    let mut command = redis::cmd("CLUSTER");
    command.arg("SETSLOT").arg(slot);
    command
}

/// Parses `ip=127.0.0.1,port=7001,state=online,offset=420,lag=0`.
fn confirmed_offset(replica: &str) -> Option<u64> {
    replica.split(',').find_map(|field| field.strip_prefix("offset=")?.parse().ok())
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
