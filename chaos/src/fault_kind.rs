//! The kinds of faults there are.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// One way to hurt a sale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    /// A primary is killed, replaced, and comes back seconds later.
    PrimaryKilled,
    /// A primary is killed and comes back as soon as it was replaced.
    PrimaryReplaced,
    /// A primary is killed and started again at once, before anybody replaced it.
    PrimaryRestarted,
    /// A primary stands still until it was replaced, and goes on.
    PrimaryFrozen,
    /// A replica stands still for longer than the node timeout.
    ReplicaFrozen,
    /// A replica is away, comes back, and its primary is killed.
    ReplicaThenPrimary,
    /// A replica is killed, then its primary; the replica, which missed something, comes back first.
    PairKilled,
    /// A primary is killed, and its replica, which leads alone, around the copy that the old primary makes of it.
    SuccessorKilled,
    /// A replica loses its link while both servers live; then the link is back, or the primary is killed.
    LinkCut,
    /// A replica takes over, as agreed with its primary.
    FailoverAgreed,
    /// A replica takes over without asking its primary.
    FailoverForced,
    /// A replica takes over without asking anybody.
    Takeover,
    /// A shard's slot moves to another primary and back while it sells.
    SlotMoved,
    /// A shard's slot moves to another primary, which is killed right after.
    SlotMovedTargetKilled,
    /// A new primary with a replica joins and gets a shard's slot.
    PrimaryAdded,
    /// A primary is cut off from everybody, replaced, and comes back.
    Partition,
    /// A node is killed.
    NodeKilled,
    /// A node is added, another is drained, and the added one leaves.
    NodesChanged,
    /// A node dies at a named point in the middle of a steal.
    NodeDiesStealing,
    /// A node and a primary stand still together until the primary was replaced, and go on.
    NodeAndPrimaryFrozen,
    /// The coordinator that leads is killed.
    CoordinatorKilled,
    /// The coordinator that leads stands still past its lease, and goes on.
    CoordinatorFrozen,
    /// Every coordinator is killed right after it answered an operator.
    CoordinatorsGone,
    /// The function library is gone from every primary.
    LibraryFlushed,
    /// A key that can be rebuilt is deleted: the list of sales, the lease, the presence, the secret, or a snapshot.
    KeyLost,
    /// A primary refuses writes because its memory is full.
    MemoryFull,
    /// The clock of a server steps, by draw its pair fails over, and the clock goes back.
    ClockStepped,
    /// A primary, a node and the leading coordinator are killed at the same moment.
    ThreeKilled,
    /// All Redis processes are killed at once, and start again over what they had written.
    RedisKilled,
    /// Every process there is is killed at once.
    AllKilled,
}

impl FaultKind {
    /// Every kind.
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

    /// Its name on the command line and in reports.
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

    /// How often it may be in one schedule: each new primary is two more processes until the end.
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
        found.ok_or_else(|| format!("`{name}` is none of {}", names()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_reads_back_from_its_name_everywhere() {
        for kind in FaultKind::ALL {
            assert_eq!(kind.name().parse(), Ok(kind));
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
        }
        assert!("meteor".parse::<FaultKind>().is_err());
    }
}
