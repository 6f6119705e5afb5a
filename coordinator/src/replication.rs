//! Checks once per second whether the replicas of each primary follow it, as the primary itself reports.
//!
//! Barriers protect what buyers are told; this check informs operators. A replica on the map may have lost its link:
//! then purchases on its primary are not confirmed, and a slot that was moved there has no copy. A server that copies a
//! primary without being on the map, such as a backup, takes part in the primary's barriers.

use std::collections::HashMap;
use std::time::Duration;

use futures::future::join_all;
use rediscluster::{Address, Cluster, Connection, Primary, ReplicationInfo};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::context::Context;
use crate::rounds::{Stop, every};

/// Time between two checks.
const CHECK_PERIOD: Duration = Duration::from_secs(1);
/// How long a problem must last before it is logged. A replica whose link broke for a moment is back sooner.
const LOG_AFTER: Duration = Duration::from_secs(5);

/// The replicas of a primary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replication {
    /// The primary.
    pub primary: Address,
    /// Replicas that the map lists for it.
    pub listed: usize,
    /// Listed replicas that follow it.
    pub following: usize,
    /// Other servers that copy it. A server that copies over two connections may temporarily count twice.
    pub foreign: usize,
}

impl Replication {
    fn of(primary: &Primary, copiers: &ReplicationInfo) -> Self {
        let follows = |endpoint: &Address| copiers.online.contains(endpoint);
        let following = primary.replicas.iter().filter(|replica| follows(&replica.endpoint)).count();
        let listed = primary.replicas.len();
        Self {
            primary: primary.address.clone(),
            listed,
            following,
            foreign: copiers.count.saturating_sub(listed),
        }
    }

    /// Describes the problem for operators, if there is one.
    fn problem(&self) -> Option<String> {
        let Self { primary, listed, following, foreign } = self;
        if following < listed {
            let lacking = listed - following;
            return Some(format!(
                "{lacking} of {listed} replicas of primary {primary} do not follow it: purchases there are not confirmed, \
                 and slots that were moved there may have no copy"
            ));
        }
        (*foreign > 0).then(|| {
            format!(
                "{foreign} servers that are not on the map copy primary {primary}: its barriers wait for them"
            )
        })
    }
}

/// State of the check between rounds: connections to the primaries, and current problems.
#[derive(Default)]
struct ReplicationWatch {
    connections: HashMap<Address, Connection>,
    /// When each problem began, and true once it is logged.
    problems: HashMap<Address, (Instant, bool)>,
}

/// Sends the replicas of each primary, and none while this coordinator follows.
pub(crate) async fn run(context: &Context, replications: &watch::Sender<Vec<Replication>>, stop: Stop) {
    let mut watch = ReplicationWatch::default();
    every(CHECK_PERIOD, stop, async || drop(replications.send_replace(watch.check(context).await))).await;
}

impl ReplicationWatch {
    async fn check(&mut self, Context { leadership, reads, .. }: &Context) -> Vec<Replication> {
        if !leadership.leads() {
            *self = Self::default();
            return Vec::new();
        }
        let topology = reads.topology();
        let primaries = topology.primaries();
        let mut known = std::mem::take(&mut self.connections);
        let connections = primaries.iter().map(|primary| known.remove(&primary.address));
        let queries = primaries.iter().zip(connections).map(|(primary, known)| query(reads, primary, known));
        let mut replications = Vec::new();
        for (connection, replication) in join_all(queries).await.into_iter().flatten() {
            self.connections.insert(replication.primary.clone(), connection);
            self.log_changes(&replication);
            replications.push(replication);
        }
        replications
    }

    /// Logs a problem once it has lasted, and when it ends.
    fn log_changes(&mut self, replication: &Replication) {
        let primary = &replication.primary;
        let Some(problem) = replication.problem() else {
            if self.problems.remove(primary).is_some_and(|(_, is_logged)| is_logged) {
                tracing::info!(redis.address = %primary, "all replicas on the map follow, and no other server copies");
            }
            return;
        };
        let known = self.problems.entry(primary.clone());
        let (since, is_logged) = known.or_insert_with(|| (Instant::now(), false));
        if !*is_logged && since.elapsed() >= LOG_AFTER {
            *is_logged = true;
            tracing::warn!(redis.address = %primary, "{problem}");
        }
    }
}

/// Queries a primary. One that does not answer is reported by the reads of its shards.
async fn query(
    reads: &Cluster,
    primary: &Primary,
    known: Option<Connection>,
) -> Option<(Connection, Replication)> {
    let mut connection = match known {
        Some(connection) => connection,
        None => Connection::open(reads.options(), &primary.address).await.ok()?,
    };
    let copiers = connection.replication_info().await.ok()??;
    Some((connection, Replication::of(primary, &copiers)))
}
