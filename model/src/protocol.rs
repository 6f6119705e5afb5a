//! What keeps the promise, each protection by its name, so that each can be taken away.

use crate::properties;

/// One thing that the protocol does to keep its promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protection {
    /// Barrier B1: nobody is told anything before the replica has it.
    BarrierBeforeTelling,
    /// B1 waits for a replica that the map calls failed, too: it may come back as it was and be promoted.
    FailedReplicasCount,
    /// Barrier B2: what was donated is not accepted before the giver's replica knows of the donation.
    BarrierBeforeAccept,
    /// The same barrier where a coordinator re-drives a channel that stands still.
    BarrierBeforeRedrive,
    /// A call that finds its work done writes `tick`, because a barrier behind a mere read proves nothing.
    Tick,
    /// `accept` takes the maximum of what it has and what it is given.
    AcceptTakesMaximum,
    /// `donate` gives only what is there.
    DonateLooksAtStock,
    /// `buy` looks for the claim and takes the token in one atomic step.
    BuyIsAtomic,
    /// `buy` knows a repeated attempt by its order id.
    OrderIds,
    /// A shard refuses a caller who computed homes on another ring.
    Fingerprint,
    /// Where the map knows no replica, a connected one makes the answer unknown (`INFO replication` tells).
    RoleGuard,
    /// The same guard counts a replica that copies, from before the fork. `ROLE` lists it only once it is online.
    CopiersCount,
    /// `WAIT` tells how many servers confirmed, not which: all that copy must. Without it, a server outside the cluster confirms
    /// in place of a replica that lags.
    EveryCopierConfirms,
    /// Each replica on the map must follow, by its own address. Without it, a server outside the cluster confirms in place
    /// of a replica that is cut off.
    ReplicaFollows,
    /// Between two failovers of a shard every node reads the map, or does not trust a primary without replicas.
    MapIsRead,
    /// A primary that has no replica on a node's map is asked for its own map, which names a replica that has copied and
    /// lost its link since.
    PrimaryNamesItsReplicas,
    /// A map without replicas must say the same when the answer is here. Without it, a call that was long under way goes on
    /// by a map that was replaced since.
    AloneIsCheckedAtReply,
    /// A node gives up an answer before the server that gave it can be demoted, join, and be promoted again.
    AnswersLapse,
    /// A joining replica can be promoted only after a full copy. Redis' own rule.
    FullCopy,
    /// Sales that a failover may still take back do not count when a sale is declared sold out.
    SoldOutIsConfirmed,
    /// Sold out is told from what was sold, not from stocks that read 0.
    SoldOutFromSales,
    /// A buyer's home shard is asked once more after the sale was seen sold out.
    HomeAskedAgain,
    /// A coordinator re-drives channels that stand still.
    Redrive,
    /// The audit reads all `in` before all `out`.
    AuditReadsInFirst,
}

impl Protection {
    /// The property that falls without it. Others may fall too.
    pub const fn keeps(self) -> &'static str {
        match self {
            Self::BarrierBeforeTelling | Self::Tick => properties::PROMISES_ARE_KEPT,
            Self::EveryCopierConfirms
            | Self::ReplicaFollows
            | Self::AloneIsCheckedAtReply
            | Self::AnswersLapse
            | Self::PrimaryNamesItsReplicas
            | Self::FailedReplicasCount
            | Self::RoleGuard
            | Self::CopiersCount
            | Self::MapIsRead
            | Self::FullCopy => properties::PROMISES_ARE_KEPT,
            Self::BarrierBeforeAccept | Self::BarrierBeforeRedrive => properties::NO_UNIT_TWICE,
            Self::AcceptTakesMaximum => properties::NO_UNIT_TWICE,
            Self::DonateLooksAtStock => properties::BOOKS_BALANCE,
            Self::BuyIsAtomic | Self::Fingerprint => properties::ONE_EACH,
            Self::OrderIds => properties::OWN_IS_RECOGNISED,
            Self::SoldOutIsConfirmed | Self::SoldOutFromSales => properties::SOLD_OUT_IS_TRUE,
            Self::HomeAskedAgain => properties::NO_BUYER_IS_SENT_AWAY,
            Self::Redrive => properties::ALL_CAN_BE_SOLD,
            Self::AuditReadsInFirst => properties::AUDIT_IS_RIGHT,
        }
    }
}

/// The protocol, whole or with one protection missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protocol {
    missing: Option<Protection>,
}

impl Protocol {
    /// With every protection.
    pub const fn sound() -> Self {
        Self { missing: None }
    }

    /// A mutant: all but one.
    pub const fn without(protection: Protection) -> Self {
        Self { missing: Some(protection) }
    }

    /// Whether this protection is in force.
    pub fn has(self, protection: Protection) -> bool {
        self.missing != Some(protection)
    }
}
