//! Checks once per second whether the replicas of each primary follow it, as the primary itself reports.
//!
//! Barriers protect what buyers are told; this check informs operators. A replica on the map may have lost its link:
//! then purchases on its primary are not confirmed, and a slot that was moved there has no copy. A server that copies a
//! primary without being on the map, such as a backup, takes part in the primary's barriers.

use std::collections::HashMap;
use std::time::Duration;

use futures::future::join_all;
use rediscluster::{Address, CallError, Connection, Primary, ReplicationInfo};
use tokio::time::Instant;

use crate::coordinator::Coordinator;

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
pub(crate) struct ReplicationWatch {
    connections: HashMap<Address, Connection>,
    problems: HashMap<Address, ReplicationProblem>,
}

struct ReplicationProblem {
    since: Instant,
    is_logged: bool,
}

impl Coordinator {
    /// The replicas of each primary by the latest check. Empty before the first one, and on followers.
    pub fn replication(&self) -> Vec<Replication> {
        self.replication.load_full().to_vec()
    }

    pub(crate) async fn check_replication(&self, watch: &mut ReplicationWatch) {
        if !self.leadership.leads() {
            *watch = ReplicationWatch::default();
            self.replication.store(Vec::new().into());
            return;
        }
        let topology = self.reads.topology();
        let primaries = topology.primaries();
        watch.connections.retain(|address, _| primaries.iter().any(|primary| primary.address == *address));
        let connections = primaries.iter().map(|primary| watch.connections.remove(&primary.address));
        let queries =
            primaries.iter().zip(connections).map(|(primary, connection)| self.query(primary, connection));
        let mut replications = Vec::new();
        for (connection, replication) in join_all(queries).await.into_iter().flatten() {
            watch.connections.insert(replication.primary.clone(), connection);
            watch.log_changes(&replication);
            replications.push(replication);
        }
        self.replication.store(replications.into());
    }

    /// Queries a primary. One that does not answer is reported by the reads of its shards.
    async fn query(&self, primary: &Primary, known: Option<Connection>) -> Option<(Connection, Replication)> {
        let result = async {
            let mut connection = match known {
                Some(connection) => connection,
                None => Connection::open(self.reads.options(), &primary.address).await?,
            };
            let copiers = connection.replication_info().await?;
            Ok::<_, CallError>(copiers.map(|copiers| (connection, Replication::of(primary, &copiers))))
        };
        result.await.ok().flatten()
    }
}

impl ReplicationWatch {
    /// Logs a problem once it has lasted, and when it ends.
    fn log_changes(&mut self, replication: &Replication) {
        let primary = &replication.primary;
        let Some(problem) = replication.problem() else {
            if self.problems.remove(primary).is_some_and(|problem| problem.is_logged) {
                tracing::info!(redis.address = %primary, "all replicas on the map follow, and no other server copies");
            }
            return;
        };
        let known = self.problems.entry(primary.clone());
        let known = known.or_insert_with(|| ReplicationProblem { since: Instant::now(), is_logged: false });
        if !known.is_logged && known.since.elapsed() >= LOG_AFTER {
            known.is_logged = true;
            tracing::warn!(redis.address = %primary, "{problem}");
        }
    }
}
