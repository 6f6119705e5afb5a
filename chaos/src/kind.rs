//! The kinds of faults there are.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// One way to hurt a sale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
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
    /// A replica takes over, as agreed with its primary.
    FailoverAgreed,
    /// A replica takes over without asking its primary.
    FailoverForced,
    /// A replica takes over without asking anybody.
    Takeover,
    /// A shard's slot moves to another primary and back while it sells.
    SlotMoved,
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
    /// The coordinator that leads is killed.
    CoordinatorKilled,
    /// The coordinator that leads stands still past its lease, and goes on.
    CoordinatorFrozen,
    /// The function library is gone from every primary.
    LibraryFlushed,
    /// A primary refuses writes because its memory is full.
    MemoryFull,
    /// A primary, a node and the leading coordinator are killed at the same moment.
    ThreeKilled,
    /// All Redis processes are killed at once, and start again over what they had written.
    RedisKilled,
    /// Every process there is is killed at once.
    AllKilled,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 23] = [
        Self::PrimaryKilled,
        Self::PrimaryReplaced,
        Self::PrimaryRestarted,
        Self::PrimaryFrozen,
        Self::ReplicaFrozen,
        Self::ReplicaThenPrimary,
        Self::PairKilled,
        Self::FailoverAgreed,
        Self::FailoverForced,
        Self::Takeover,
        Self::SlotMoved,
        Self::PrimaryAdded,
        Self::Partition,
        Self::NodeKilled,
        Self::NodesChanged,
        Self::NodeDiesStealing,
        Self::CoordinatorKilled,
        Self::CoordinatorFrozen,
        Self::LibraryFlushed,
        Self::MemoryFull,
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
            Self::FailoverAgreed => "failover-agreed",
            Self::FailoverForced => "failover-forced",
            Self::Takeover => "takeover",
            Self::SlotMoved => "slot-moved",
            Self::PrimaryAdded => "primary-added",
            Self::Partition => "partition",
            Self::NodeKilled => "node-killed",
            Self::NodesChanged => "nodes-changed",
            Self::NodeDiesStealing => "node-dies-stealing",
            Self::CoordinatorKilled => "coordinator-killed",
            Self::CoordinatorFrozen => "coordinator-frozen",
            Self::LibraryFlushed => "library-flushed",
            Self::MemoryFull => "memory-full",
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

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Kind {
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
        for kind in Kind::ALL {
            assert_eq!(kind.name().parse(), Ok(kind));
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
        }
        assert!("meteor".parse::<Kind>().is_err());
    }
}
