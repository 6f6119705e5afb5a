//! Adds a primary with its replicas to a running cluster.

use std::{net::SocketAddr, sync::Arc};

use anyhow::Result;
use futures::future::try_join_all;

use super::{
    RedisCluster,
    forming::{meet, replicate},
};
use crate::redis_server::Server;

impl RedisCluster {
    /// Starts a primary with as many replicas as the others have, adds them to the cluster, and waits until it is
    /// whole. The new primary serves no slot yet.
    ///
    /// # Errors
    /// Fails when no port is left, or the servers or the cluster are not ready in time.
    pub async fn add_primary(&self) -> Result<SocketAddr> {
        let members = self.all_servers();
        let primary = self.join(&members).await?;
        for _ in 0..self.options.replicas_per_primary {
            let replica = self.join(&members).await?;
            meet(&replica, &primary).await?;
            replicate(&replica, &primary).await?;
        }
        self.wait_until_whole().await?;
        Ok(primary.addr())
    }

    async fn join(&self, members: &[Arc<Server>]) -> Result<Arc<Server>> {
        let server = self.spawn_server()?;
        server.wait_until_ready().await?;
        try_join_all(members.iter().map(async |member| meet(&server, member).await)).await?;
        Ok(server)
    }
}
