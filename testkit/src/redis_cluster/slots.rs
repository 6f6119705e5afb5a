//! Whose a slot is, and how it moves to another primary, the way an operator's tools do it.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result};
use futures::future::try_join_all;
use redis::{Cmd, FromRedisValue};

use super::RedisCluster;
use crate::{User, wait::until_ok};

/// Longest time that one MIGRATE may block both servers.
const MIGRATE_TIMEOUT_MS: u64 = 5_000;

/// A map spreads by gossip within a second or two.
const MAP_LIMIT: Duration = Duration::from_secs(30);

impl RedisCluster {
    /// The primary that serves a slot, as the cluster's primaries say themselves.
    ///
    /// # Errors
    /// When none says so.
    pub async fn primary_of(&self, slot: u16) -> Result<SocketAddr> {
        for primary in self.primaries().await {
            // One that dies meanwhile serves nothing.
            let nodes =
                self.ask::<String>(primary, redis::cmd("CLUSTER").arg("NODES")).await.unwrap_or_default();
            if serves_itself(&nodes, slot) {
                return Ok(primary);
            }
        }
        anyhow::bail!("no primary says that it serves slot {slot}")
    }

    /// Moves a slot with all its keys to another primary, and waits until every primary knows.
    ///
    /// # Errors
    /// When a server refuses or does not answer. The slot may be halfway then.
    pub async fn move_slot(&self, slot: u16, to: SocketAddr) -> Result<()> {
        let from = self.primary_of(slot).await?;
        if from == to {
            return Ok(());
        }
        let (from_id, to_id) = (self.server(from).id().await?, self.server(to).id().await?);
        self.ask::<()>(to, set_slot(slot).arg("IMPORTING").arg(&from_id)).await?;
        self.ask::<()>(from, set_slot(slot).arg("MIGRATING").arg(&to_id)).await?;
        self.move_keys(slot, from, to).await?;
        for primary in [to, from] {
            self.ask::<()>(primary, set_slot(slot).arg("NODE").arg(&to_id)).await?;
        }
        self.wait_until_known(slot, &to_id).await
    }

    async fn move_keys(&self, slot: u16, from: SocketAddr, to: SocketAddr) -> Result<()> {
        let mut listing = redis::cmd("CLUSTER");
        let keys: Vec<String> = self.ask(from, listing.arg("GETKEYSINSLOT").arg(slot).arg(1_000)).await?;
        if keys.is_empty() {
            return Ok(());
        }
        let mut migrate = redis::cmd("MIGRATE");
        migrate.arg(to.ip().to_string()).arg(to.port()).arg("").arg(0).arg(MIGRATE_TIMEOUT_MS);
        if let Some(security) = self.security() {
            migrate.arg("AUTH2").arg(User::Admin.name()).arg(security.password(User::Admin)?);
        }
        self.ask(from, migrate.arg("KEYS").arg(&keys)).await.context("the keys of a slot did not move")
    }

    async fn wait_until_known(&self, slot: u16, owner: &str) -> Result<()> {
        let knows = async |primary| {
            let nodes: String = self.ask(primary, redis::cmd("CLUSTER").arg("NODES")).await?;
            let line = nodes.lines().find(|line| line.starts_with(owner)).context("an unknown owner")?;
            anyhow::ensure!(serves(line, slot), "{primary} knows of another owner");
            Ok(())
        };
        let all_know = async || {
            let primaries = self.primaries().await;
            try_join_all(primaries.into_iter().map(knows)).await.map(drop)
        };
        until_ok("a moved slot on every map", MAP_LIMIT, all_know).await
    }

    /// Asks one server.
    pub(crate) async fn ask<T: FromRedisValue>(&self, addr: SocketAddr, command: &Cmd) -> Result<T> {
        Ok(command.query_async(&mut self.connection(addr).await?).await?)
    }
}

fn set_slot(slot: u16) -> Cmd {
    let mut command = redis::cmd("CLUSTER");
    command.arg("SETSLOT").arg(slot);
    command
}

/// Whether the server whose `CLUSTER NODES` this is serves a slot.
fn serves_itself(nodes: &str, slot: u16) -> bool {
    nodes.lines().any(|line| line.contains("myself") && serves(line, slot))
}

/// Whether the line of a server in `CLUSTER NODES` lists a slot. Ranges stand behind eight fields; slots on their way
/// are in brackets.
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
    fn a_server_s_own_line_says_what_it_serves() {
        assert!(serves_itself(NODES, 99) && serves_itself(NODES, 200));
        assert!(!serves_itself(NODES, 100) && !serves_itself(NODES, 300));
    }
}
