//! Stops the replication from a primary while all servers live. Clients and the cluster bus are not affected.

use std::net::SocketAddr;

use anyhow::Result;

use super::RedisCluster;
use crate::{RedisServer, User};

impl RedisCluster {
    /// Disconnects all replicas of this primary and denies them to reconnect.
    ///
    /// # Errors
    /// Fails when the primary does not answer.
    pub async fn cut_replication(&self, primary: SocketAddr) -> Result<()> {
        self.permit_replication(primary, "-").await?;
        let mut kill = redis::cmd("CLIENT");
        self.query(primary, kill.arg("KILL").arg("TYPE").arg("replica")).await.map(|_killed: u64| ())
    }

    /// Disconnects one replica of this primary. No replica may reconnect until [`Self::restore_replication`]; the other
    /// links stay.
    ///
    /// # Errors
    /// Fails when one of the two servers does not answer.
    pub async fn cut_link(&self, primary: SocketAddr, replica: SocketAddr) -> Result<()> {
        self.permit_replication(primary, "-").await?;
        let mut kill = redis::cmd("CLIENT");
        self.query(replica, kill.arg("KILL").arg("TYPE").arg("master")).await.map(|_killed: u64| ())
    }

    /// Permits replication again. The replicas reconnect without further commands.
    ///
    /// # Errors
    /// Fails when the primary does not answer.
    pub async fn restore_replication(&self, primary: SocketAddr) -> Result<()> {
        self.permit_replication(primary, "+").await
    }

    /// Starts a server outside the cluster that replicates this primary, even after [`Self::cut_replication`].
    /// Dropping it ends it.
    ///
    /// # Errors
    /// Fails when one of the two servers does not answer.
    pub async fn start_external_replica(&self, primary: SocketAddr) -> Result<RedisServer> {
        let outsider = RedisServer::start_with(&self.binary).await?;
        outsider.replicate_as_separate_user(&mut self.connection(primary).await?, primary).await?;
        Ok(outsider)
    }

    /// Permits or denies `PSYNC`. The older `SYNC` stays denied. A replica falls back to `SYNC` after a refused
    /// `PSYNC`, and then never learns its primary's offset, so no barrier is confirmed until the replica reconnects.
    async fn permit_replication(&self, primary: SocketAddr, sign: &str) -> Result<()> {
        let user = if self.security().is_some() { User::Replica.name() } else { "default" };
        let mut command = redis::cmd("ACL");
        command.arg("SETUSER").arg(user).arg(format!("{sign}psync")).arg("-sync");
        self.query(primary, &command).await
    }
}
