//! Looks once a second whether the replicas of each primary follow it, by what the primary says itself.
//!
//! Barriers keep what buyers are told; this is for operators. A replica that the map lists may have lost its link: then
//! purchases there are not confirmed, and a slot that was moved there has no copy. A server that copies a primary and is
//! not on the map, such as a backup, is one that barriers wait for.

use std::collections::HashMap;
use std::time::Duration;

use futures::future::join_all;
use stock::calls::CallError;
use stock::connection::{Connection, ReplicationInfo};
use stock::topology::{Address, Primary};
use tokio::time::Instant;

use crate::coordinator::Coordinator;

/// Longer than a replica needs to come back after its link broke for a moment.
const LOG_AFTER: Duration = Duration::from_secs(5);

/// The replicas of a primary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replication {
    /// The primary.
    pub primary: Address,
    /// Replicas that the map lists for it.
    pub listed: usize,
    /// Those of them that follow it.
    pub following: usize,
    /// Servers that copy it beyond those. A server that copies over two connections may count twice meanwhile.
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

    /// What is wrong, for operators.
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

/// What was seen so far, and the connections that it is seen by.
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
    /// The replicas of each primary as they were last seen; none before the first look, and none at a coordinator that
    /// does not lead.
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
        let mut seen = Vec::new();
        for (connection, replication) in join_all(queries).await.into_iter().flatten() {
            watch.connections.insert(replication.primary.clone(), connection);
            watch.log_changes(&replication);
            seen.push(replication);
        }
        self.replication.store(seen.into());
    }

    /// Asks a primary. One that does not answer is noticed by those who read its shards.
    async fn query(&self, primary: &Primary, known: Option<Connection>) -> Option<(Connection, Replication)> {
        let asked = async {
            let mut connection = match known {
                Some(connection) => connection,
                None => Connection::open(self.reads.options(), &primary.address).await?,
            };
            let copiers = connection.replication_info().await?;
            Ok::<_, CallError>(copiers.map(|copiers| (connection, Replication::of(primary, &copiers))))
        };
        asked.await.ok().flatten()
    }
}

impl ReplicationWatch {
    /// Logs a problem once it lasts, and its end.
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
