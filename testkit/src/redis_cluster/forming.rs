//! Forms the cluster, adds primaries to it, checks when it is whole, and moves slots: with the code that operators use.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result, anyhow};
use cluster_admin::{ClusterAdmin, Goal, Request, ensure_healthy};
use futures::future::try_join_all;
use rediscluster::{Address, ConnectOptions};

use super::RedisCluster;
use crate::{User, wait::until_ok};

/// Time limit until a cluster is whole. A new cluster accepts writes 2 s after its primaries started, by a constant of
/// the server. The replacement of a failed primary and a full copy may come on top. The rest is for a busy machine.
const WHOLE_LIMIT: Duration = Duration::from_secs(30);

/// Time limit until replicas confirm a primary's data. They confirm once per second.
const COPY_LIMIT: Duration = Duration::from_secs(5);

impl RedisCluster {
    /// Starts a primary with as many replicas as the others have, adds them to the cluster, and waits until it is
    /// whole. The new primary serves no slot yet.
    ///
    /// # Errors
    /// Fails when no port is left, or the servers or the cluster are not ready in time.
    pub async fn add_primary(&self) -> Result<SocketAddr> {
        let primary = self.spawn_server()?;
        let mut added = vec![primary.clone()];
        for _ in 0..self.options.replicas_per_primary {
            added.push(self.spawn_server()?);
        }
        try_join_all(added.iter().map(|server| server.wait_until_ready())).await?;
        self.form().await?;
        Ok(primary.addr())
    }

    /// Makes all servers members of the cluster, and waits until it is whole.
    pub(super) async fn form(&self) -> Result<()> {
        let request = Request { goal: Goal::Form, accept_data_loss: false };
        self.admin(WHOLE_LIMIT)?.run(request).await.context("the cluster is not formed").map(drop)
    }

    /// Waits until all slots are served, all servers agree on that, and every replica has its primary's data.
    ///
    /// # Errors
    /// Fails when the cluster is not whole within 30 s.
    pub async fn wait_until_whole(&self) -> Result<()> {
        let admin = self.admin(WHOLE_LIMIT)?;
        let whole = async || ensure_healthy(&admin.facts().await?).map_err(|why| anyhow!(why));
        until_ok("a whole cluster", WHOLE_LIMIT, whole).await
    }

    /// Moves a slot with all its keys to another primary. Waits until the target's replicas have the keys and every
    /// primary knows the new owner.
    ///
    /// # Errors
    /// - Fails when the target is not replicated. Nothing has moved then.
    /// - Fails when a server refuses a command or does not answer. The slot may be partly moved then.
    /// - Fails when the replicas do not list the slot or do not confirm its keys. The slot has moved then, and its keys may
    ///   be on one server only.
    pub async fn move_slot(&self, slot: u16, to: SocketAddr) -> Result<()> {
        let from = self.primary_of(slot).await?;
        if from == to {
            return Ok(());
        }
        let addresses = self.addresses()?;
        let address = |addr: SocketAddr| addresses.iter().find(|address| address.port == addr.port());
        let ends = address(from).zip(address(to)).context("a primary of this cluster has an address")?;
        self.admin(COPY_LIMIT)?.move_slot(slot, ends.0, ends.1).await?;
        self.wait_until_known(slot, to).await
    }

    fn admin(&self, wait_limit: Duration) -> Result<ClusterAdmin<'static>> {
        let options = ConnectOptions::new(self.logins(User::Admin)?);
        Ok(ClusterAdmin::new(&options, &self.groups(&options.addresses()), wait_limit, &|_| ()))
    }

    fn addresses(&self) -> Result<Vec<Address>> {
        Ok(ConnectOptions::new(self.logins(User::Admin)?).addresses())
    }

    /// Each primary with its replicas. Of the initial servers the first are primaries, and the others become their
    /// replicas in turn. Each later primary is followed by its own.
    fn groups(&self, servers: &[Address]) -> Vec<Vec<Address>> {
        let (initial, added) = servers.split_at(usize::from(self.options.servers()).min(servers.len()));
        let primaries = usize::from(self.options.primaries);
        let of_primary = |i: usize| initial.iter().skip(i).step_by(primaries).cloned().collect();
        let size = 1 + usize::from(self.options.replicas_per_primary);
        (0..primaries).map(of_primary).chain(added.chunks(size).map(<[Address]>::to_vec)).collect()
    }
}
