//! Cuts the replication of a primary while both ends live: clients and the cluster's bus go on.

use std::net::SocketAddr;

use anyhow::Result;

use super::RedisCluster;
use crate::{RedisServer, User};

impl RedisCluster {
    /// Ends all replication from this primary: replicas lose their link and are not let in again.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn cut_replication(&self, primary: SocketAddr) -> Result<()> {
        self.permit_replication(primary, "-").await?;
        let mut kill = redis::cmd("CLIENT");
        self.ask(primary, kill.arg("KILL").arg("TYPE").arg("replica")).await.map(|_killed: u64| ())
    }

    /// Lets replicas in again: they come back by themselves.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn restore_replication(&self, primary: SocketAddr) -> Result<()> {
        self.permit_replication(primary, "+").await
    }

    /// Starts a server outside the cluster that copies this primary, also while [`Self::cut_replication`] keeps replicas
    /// out. It ends when it is dropped.
    ///
    /// # Errors
    /// When one of the two does not answer.
    pub async fn start_external_replica(&self, primary: SocketAddr) -> Result<RedisServer> {
        let outsider = RedisServer::start_with(&self.binary).await?;
        outsider.replicate_as_separate_user(&mut self.connection(primary).await?, primary).await?;
        Ok(outsider)
    }

    /// Permits or denies `PSYNC`. The older `SYNC` stays denied: a replica falls back to it after a refused `PSYNC`, and one that
    /// synchronized by it never learns its primary's offset, so that no barrier holds until it reconnects.
    async fn permit_replication(&self, primary: SocketAddr, sign: &str) -> Result<()> {
        let user = if self.security().is_some() { User::Replica.name() } else { "default" };
        let mut command = redis::cmd("ACL");
        command.arg("SETUSER").arg(user).arg(format!("{sign}psync")).arg("-sync");
        self.ask(primary, &command).await
    }
}
