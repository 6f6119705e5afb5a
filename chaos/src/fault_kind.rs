//! The kinds of faults.

use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    /// A primary is killed and restarted seconds after its replica was promoted.
    PrimaryKilled,
    /// A primary is killed and restarted as soon as its replica was promoted.
    PrimaryReplaced,
    /// A primary is killed and restarted at once, before a replica is promoted.
    PrimaryRestarted,
    /// A primary is frozen until its replica was promoted, then continues.
    PrimaryFrozen,
    /// A replica is frozen for longer than `cluster-node-timeout`.
    ReplicaFrozen,
    /// A replica is killed and restarted; once it is in sync, its primary is killed.
    ReplicaThenPrimary,
    /// A replica is killed, then its primary. The replica, which lacks recent writes, is restarted first.
    PairKilled,
    /// A primary is killed and its replica promoted. The new primary fails while the old one copies its data.
    SuccessorKilled,
    /// The replication link is cut while both servers run; then the link is restored or the primary is killed.
    LinkCut,
    /// A replica takes over in agreement with its primary (`CLUSTER FAILOVER`).
    FailoverAgreed,
    /// A replica takes over without its primary's agreement (`CLUSTER FAILOVER FORCE`).
    FailoverForced,
    /// A replica takes over without an election (`CLUSTER FAILOVER TAKEOVER`).
    Takeover,
    /// A shard's slot moves to another primary and back while the shard sells.
    SlotMoved,
    /// A shard's slot moves to another primary, which is killed right afterwards.
    SlotMovedTargetKilled,
    /// A new primary with a replica joins the cluster and takes over a shard's slot.
    PrimaryAdded,
    /// A primary is cut off from the network until its replica was promoted, then reconnected.
    Partition,
    /// A node is killed.
    NodeKilled,
    /// A node is added, another one is drained and restarted, and the added one is removed.
    NodesChanged,
    /// A node dies at a chosen point of a steal. Depending on the draw, without any coordinator.
    NodeDiesStealing,
    /// A node and a primary are frozen together until the primary's replica was promoted, then both continue.
    NodeAndPrimaryFrozen,
    /// The leading coordinator is killed.
    CoordinatorKilled,
    /// The leading coordinator is frozen for longer than its lease, then continues.
    CoordinatorFrozen,
    /// All coordinators are killed right after one of them answered an operator.
    CoordinatorsGone,
    /// The function library is flushed from every primary.
    LibraryFlushed,
    /// A key that can be rebuilt is deleted: the list of sales, the lease, the presence, the CSRF secret, or a
    /// snapshot.
    KeyLost,
    /// A primary refuses writes because its memory is full.
    MemoryFull,
    /// The clock of a server steps and is set back later. Depending on the draw, its pair fails over in between.
    ClockStepped,
    /// A primary, a node and the leading coordinator are killed at the same time.
    ThreeKilled,
    /// All Redis processes are killed at once and restarted with their files on disk.
    RedisKilled,
    /// All processes are killed at once, PostgreSQL and ledgers included.
    AllKilled,
    /// A primary is killed while orders of its shards are on their way into PostgreSQL, which is frozen until the
    /// replica was promoted.
    FailoverWhileDraining,
    /// A ledger is killed at a chosen point: after its barrier, after its statement was sent, or before the answer.
    LedgerKilled,
    /// A ledger is frozen while another one goes on, then continues with what it knew.
    LedgerFrozen,
    /// A statement of a ledger arrives after another statement wrote the same orders.
    StatementLate,
    /// PostgreSQL is killed and restarted seconds later.
    PostgresKilled,
    /// PostgreSQL is shut down and started again at once.
    PostgresRestarted,
    /// PostgreSQL is frozen for longer than ledgers wait for it, then continues.
    PostgresFrozen,
    /// The disk with the orders is full for a while.
    PostgresDiskFull,
    /// A ledger is killed after it delivered orders, before it moved the cursor of the sink.
    LedgerKilledPublishing,
    /// RabbitMQ is killed and restarted seconds later.
    BrokerKilled,
    /// RabbitMQ blocks publishers, as it does without free memory.
    BrokerBlocked,
    /// The webhook's endpoint answers 500, hangs, or takes orders and loses its answers, depending on the draw.
    WebhookFails,
}

impl FaultKind {
    /// Returns all kinds.
    pub fn all() -> &'static [Self] {
        Self::value_variants()
    }

    /// Returns true when this kind attacks only the way of orders out of Redis, which no buyer notices. A schedule has
    /// one such fault at a time, beside one of the other faults.
    pub fn attacks_orders(self) -> bool {
        self >= Self::LedgerKilled
    }

    /// Returns true when this fault must be the only one that touches PostgreSQL and ledgers.
    pub(crate) fn touches_orders(self) -> bool {
        self.attacks_orders() || matches!(self, Self::AllKilled | Self::FailoverWhileDraining)
    }

    /// Returns how often a schedule may contain this kind. [`Self::PrimaryAdded`] is limited to one: each new primary
    /// adds two processes until the end of the run.
    pub(crate) fn times_max(self) -> usize {
        if self == Self::PrimaryAdded { 1 } else { usize::MAX }
    }
}

/// Writes the name on the command line and in reports.
impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.to_possible_value().expect("no kind is hidden").get_name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kind_has_one_name_everywhere() {
        for kind in FaultKind::all() {
            assert_eq!(FaultKind::from_str(&kind.to_string(), false), Ok(*kind));
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.to_string());
        }
        assert!(FaultKind::from_str("meteor", false).is_err());
    }
}
