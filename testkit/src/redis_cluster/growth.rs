//! One more primary with its replicas joins a cluster that runs.

use std::{net::SocketAddr, sync::Arc};

use anyhow::Result;
use futures::future::try_join_all;

use super::{
    RedisCluster,
    forming::{meet, replicate},
};
use crate::redis_server::Server;

impl RedisCluster {
    /// Starts a primary with as many replicas as the others have, has them join, and waits until the cluster is whole
    /// with them. The primary serves no slot yet.
    ///
    /// # Errors
    /// When there are no ports left, or a server or the cluster does not come up in time.
    pub async fn add_primary(&self) -> Result<SocketAddr> {
        let members = self.all();
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
        let server = self.spawn_one()?;
        server.wait_until_ready().await?;
        try_join_all(members.iter().map(async |member| meet(&server, member).await)).await?;
        Ok(server)
    }
}
