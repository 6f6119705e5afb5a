//! The protections of the protocol. Each has a name, so that it can be removed.

use crate::properties;

/// One rule of the protocol that keeps the promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protection {
    /// Barrier B1: a user gets an answer only after the replica has the write.
    BarrierBeforeAnswer,
    /// B1 also waits for a replica that the map marks as failed: it may come back with its old data and be promoted.
    FailedReplicasCount,
    /// Barrier B2: donated tokens are accepted only after the donor's replica has the donation.
    BarrierBeforeAccept,
    /// The same barrier when a coordinator or a node re-drives a stalled channel.
    BarrierBeforeRedrive,
    /// A call that finds its work done writes `tick`, because a barrier after a read proves nothing.
    Tick,
    /// `accept` takes the maximum of the recorded and the received value.
    AcceptTakesMaximum,
    /// `donate` gives at most the tokens in stock.
    DonateChecksStock,
    /// `buy` checks the claim and takes the token in one atomic step.
    BuyIsAtomic,
    /// `buy` recognizes a retry by its order id.
    OrderIds,
    /// A shard refuses a caller that computed home shards on another ring.
    Fingerprint,
    /// When the map lists no replica, a connected replica makes the answer unknown (`INFO replication` reports it).
    RoleGuard,
    /// The same guard counts a copying replica from before the fork. `ROLE` lists it only once it is online.
    CopiersCount,
    /// `WAIT` reports how many servers confirmed, not which ones, so every copying server must confirm. Without this,
    /// a server outside the cluster confirms in place of a replica that lags.
    EveryCopierConfirms,
    /// Each replica on the map must follow, by its own address. Without this, a server outside the cluster confirms
    /// in place of a replica that is cut off.
    ReplicaFollows,
    /// Between two failovers of a shard every node reads the map, or stops trusting a primary without replicas.
    MapIsRead,
    /// A primary without a replica on the node's map is asked for its own map, which lists a replica that has copied
    /// and lost its link since.
    PrimaryNamesItsReplicas,
    /// A map without replicas must be unchanged when the answer arrives. Without this, a call that was in flight for
    /// long uses a map that has been replaced.
    AloneIsCheckedAtReply,
    /// A node drops an answer before the server that gave it can be demoted, join, and be promoted again.
    AnswersExpire,
    /// A joining replica can be promoted only after a full copy. This is a rule of Redis.
    FullCopy,
    /// Sales that a failover may still take back do not count towards sold out.
    SoldOutIsConfirmed,
    /// Sold out is derived from the sold units, not from stocks that read 0.
    SoldOutFromSales,
    /// A buyer's home shard is checked once more after the sale was read as sold out.
    HomeCheckedAgain,
    /// Stalled channels are re-driven: by the leading coordinator, or by nodes while none leads.
    Redrive,
    /// The audit reads all `in` counters before all `out` counters.
    AuditReadsInFirst,
}

impl Protection {
    /// Returns the property that breaks without this protection. Others may break too.
    pub const fn keeps(self) -> &'static str {
        match self {
            Self::BarrierBeforeAnswer
            | Self::Tick
            | Self::EveryCopierConfirms
            | Self::ReplicaFollows
            | Self::AloneIsCheckedAtReply
            | Self::AnswersExpire
            | Self::PrimaryNamesItsReplicas
            | Self::FailedReplicasCount
            | Self::RoleGuard
            | Self::CopiersCount
            | Self::MapIsRead
            | Self::FullCopy => properties::PROMISES_HOLD,
            Self::BarrierBeforeAccept | Self::BarrierBeforeRedrive | Self::AcceptTakesMaximum => {
                properties::NO_UNIT_SOLD_TWICE
            }
            Self::DonateChecksStock => properties::SHARDS_BALANCE,
            Self::BuyIsAtomic | Self::Fingerprint => properties::ONE_UNIT_PER_USER,
            Self::OrderIds => properties::OWN_UNIT_IS_RECOGNIZED,
            Self::SoldOutIsConfirmed | Self::SoldOutFromSales => properties::OUT_OF_STOCK_IS_TRUE,
            Self::HomeCheckedAgain => properties::NO_OWNER_IS_REFUSED,
            Self::Redrive => properties::ALL_UNITS_CAN_BE_SOLD,
            Self::AuditReadsInFirst => properties::NO_FALSE_ALARM,
        }
    }
}

/// The protocol, complete or with one protection removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protocol {
    missing: Option<Protection>,
}

impl Protocol {
    /// Returns the protocol with every protection.
    pub const fn complete() -> Self {
        Self { missing: None }
    }

    /// Returns a mutant: the protocol without one protection.
    pub const fn without(protection: Protection) -> Self {
        Self { missing: Some(protection) }
    }

    /// Returns true when this protection is in force.
    pub fn has(self, protection: Protection) -> bool {
        self.missing != Some(protection)
    }
}
