//! Manual failovers.

use std::{net::SocketAddr, time::Duration};

use anyhow::Result;

use super::{RedisCluster, ServerRole, query_role};
use crate::wait::until_ok;

/// Time limit of a promotion. A manual failover takes well under a second. Redis aborts a failed one after 5 s, and it
/// is then requested again.
const FAILOVER_LIMIT: Duration = Duration::from_secs(30);

/// The kind of a manual failover.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failover {
    /// The primary stops, the replica catches up, the others vote.
    Agreed,
    /// The others vote without the primary's consent (`FORCE`).
    Forced,
    /// The replica takes over without a vote (`TAKEOVER`).
    Takeover,
}

impl RedisCluster {
    /// Promotes a replica, and waits until it reports to be a primary.
    ///
    /// # Errors
    /// Fails when the replica is not promoted in time.
    pub async fn fail_over_to(&self, replica: SocketAddr, how: Failover) -> Result<()> {
        let server = self.server(replica);
        let promoted = async || {
            let mut command = redis::cmd("CLUSTER");
            command.arg("FAILOVER").arg(how.option());
            // Redis refuses this during an earlier failover and once the server is a primary. Only the role counts.
            self.query::<()>(replica, &command).await.ok();
            until_ok("a promotion", Duration::from_secs(2), async || is_primary(&server).await).await
        };
        until_ok("the replica's promotion", FAILOVER_LIMIT, promoted).await
    }

    /// Waits until this server reports to be a primary.
    ///
    /// # Errors
    /// Fails when the server is not promoted in time.
    pub async fn wait_until_promoted(&self, replica: SocketAddr) -> Result<()> {
        let server = self.server(replica);
        until_ok("the replica's promotion", FAILOVER_LIMIT, async || is_primary(&server).await).await
    }
}

impl Failover {
    fn option(self) -> Option<&'static str> {
        match self {
            Self::Agreed => None,
            Self::Forced => Some("FORCE"),
            Self::Takeover => Some("TAKEOVER"),
        }
    }
}

async fn is_primary(server: &crate::redis_server::Server) -> Result<()> {
    let role = query_role(server).await?;
    anyhow::ensure!(role == ServerRole::Primary, "{} is still a replica", server.addr());
    Ok(())
}
