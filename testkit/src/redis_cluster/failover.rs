//! Has a replica take its primary's place while both are well.

use std::{net::SocketAddr, time::Duration};

use anyhow::Result;

use super::{RedisCluster, ServerRole, ask_role, forming::run};
use crate::wait::until_ok;

/// A failover that is asked for takes well under a second; one that fails is given up by Redis after five, and asked
/// for again.
const FAILOVER_LIMIT: Duration = Duration::from_secs(30);

/// How a replica takes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failover {
    /// The primary stops, the replica catches up, the others vote.
    Agreed,
    /// The others vote; the primary is not asked (`FORCE`).
    Forced,
    /// Nobody is asked (`TAKEOVER`).
    Takeover,
}

impl RedisCluster {
    /// Makes this replica the primary, and waits until it says that it is.
    ///
    /// # Errors
    /// When it is not in time.
    pub async fn fail_over_to(&self, replica: SocketAddr, how: Failover) -> Result<()> {
        let server = self.server(replica);
        let promoted = async || {
            let mut command = redis::cmd("CLUSTER");
            command.arg("FAILOVER").arg(how.option());
            // Refused while an earlier try is under way, or once it is a primary: what counts is what it is.
            run(&server, &mut command).await.ok();
            until_ok("a promotion", Duration::from_secs(2), async || is_primary(&server).await).await
        };
        until_ok("the replica's promotion", FAILOVER_LIMIT, promoted).await
    }

    /// Waits until this server says that it is a primary.
    ///
    /// # Errors
    /// When it does not in time.
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
    let role = ask_role(server).await?;
    anyhow::ensure!(role == ServerRole::Primary, "{} is still a replica", server.addr());
    Ok(())
}
