//! The kinds of faults.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
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
    /// All processes are killed at once.
    AllKilled,
}

impl FaultKind {
    /// All kinds.
    pub const ALL: [Self; 30] = [
        Self::PrimaryKilled,
        Self::PrimaryReplaced,
        Self::PrimaryRestarted,
        Self::PrimaryFrozen,
        Self::ReplicaFrozen,
        Self::ReplicaThenPrimary,
        Self::PairKilled,
        Self::SuccessorKilled,
        Self::LinkCut,
        Self::FailoverAgreed,
        Self::FailoverForced,
        Self::Takeover,
        Self::SlotMoved,
        Self::SlotMovedTargetKilled,
        Self::PrimaryAdded,
        Self::Partition,
        Self::NodeKilled,
        Self::NodesChanged,
        Self::NodeDiesStealing,
        Self::NodeAndPrimaryFrozen,
        Self::CoordinatorKilled,
        Self::CoordinatorFrozen,
        Self::CoordinatorsGone,
        Self::LibraryFlushed,
        Self::KeyLost,
        Self::MemoryFull,
        Self::ClockStepped,
        Self::ThreeKilled,
        Self::RedisKilled,
        Self::AllKilled,
    ];

    /// Returns the kind's name on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::PrimaryKilled => "primary-killed",
            Self::PrimaryReplaced => "primary-replaced",
            Self::PrimaryRestarted => "primary-restarted",
            Self::PrimaryFrozen => "primary-frozen",
            Self::ReplicaFrozen => "replica-frozen",
            Self::ReplicaThenPrimary => "replica-then-primary",
            Self::PairKilled => "pair-killed",
            Self::SuccessorKilled => "successor-killed",
            Self::LinkCut => "link-cut",
            Self::FailoverAgreed => "failover-agreed",
            Self::FailoverForced => "failover-forced",
            Self::Takeover => "takeover",
            Self::SlotMoved => "slot-moved",
            Self::SlotMovedTargetKilled => "slot-moved-target-killed",
            Self::PrimaryAdded => "primary-added",
            Self::Partition => "partition",
            Self::NodeKilled => "node-killed",
            Self::NodesChanged => "nodes-changed",
            Self::NodeDiesStealing => "node-dies-stealing",
            Self::NodeAndPrimaryFrozen => "node-and-primary-frozen",
            Self::CoordinatorKilled => "coordinator-killed",
            Self::CoordinatorFrozen => "coordinator-frozen",
            Self::CoordinatorsGone => "coordinators-gone",
            Self::LibraryFlushed => "library-flushed",
            Self::KeyLost => "key-lost",
            Self::MemoryFull => "memory-full",
            Self::ClockStepped => "clock-stepped",
            Self::ThreeKilled => "three-killed",
            Self::RedisKilled => "redis-killed",
            Self::AllKilled => "all-killed",
        }
    }

    /// Returns how often a schedule may contain this kind. [`Self::PrimaryAdded`] is limited to one: each new primary
    /// adds two processes until the end of the run.
    pub(crate) fn times_max(self) -> usize {
        if self == Self::PrimaryAdded { 1 } else { usize::MAX }
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for FaultKind {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let names = || Self::ALL.map(Self::name).join(", ");
        let found = Self::ALL.into_iter().find(|kind| kind.name() == name);
        found.ok_or_else(|| format!("unknown kind `{name}`: expected one of {}", names()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kind_parses_from_its_name() {
        for kind in FaultKind::ALL {
            assert_eq!(kind.name().parse(), Ok(kind));
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
        }
        assert!("meteor".parse::<FaultKind>().is_err());
    }
}
