//! Transfers of tokens between two shards: donate, barrier, accept.
//!
//! Each half is tried once: a repeated donation gives twice, and would drain the donor. If the transfer fails in
//! between, the tokens stay in the channel, which is re-driven later.

use std::fmt;

use rediscluster::{CallError, Cluster};
use stock::calls::{Accept, Donate, Donation, TokenSource};
use stock::channels::Channel;
use stock::ids::ShardId;
use stock::sale::Sale;

/// A transfer of tokens from one shard of a sale to another.
#[derive(Clone, Copy)]
pub struct Transfer<'a> {
    /// The sale.
    pub sale: &'a Sale,
    /// From which shard to which.
    pub channel: Channel,
    /// How many tokens. With 0, only the tokens that the channel holds already are moved.
    pub tokens: u64,
}

/// A shard that did not confirm an operation.
#[derive(Clone, Debug)]
pub struct UnconfirmedShard {
    /// The shard.
    pub shard: ShardId,
    /// The reason.
    pub reason: UnconfirmedReason,
}

/// Why a shard did not confirm.
#[derive(Clone, Debug, thiserror::Error)]
pub enum UnconfirmedReason {
    /// It did not answer, it refused, or its answer is not durable.
    #[error(transparent)]
    Call(#[from] CallError),
    /// It holds other settings, of a newer version.
    #[error("it holds {}", .0.join(", "))]
    OtherSettings(Vec<String>),
    /// It holds more minted tokens than are recorded.
    #[error("it holds {held} minted tokens, recorded {recorded}")]
    OtherMint {
        /// Tokens minted to it, by its own counter.
        held: u64,
        /// Tokens minted to it, by the record.
        recorded: u64,
    },
}

impl fmt::Display for UnconfirmedShard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shard {}: {}", self.shard, self.reason)
    }
}

/// Runs transfers concurrently, with one pipeline per primary for each half. Returns the outcome of each.
///
/// Tokens are accepted only after the donation is confirmed by the donor's replicas; otherwise a failover could bring
/// them back to the donor as well.
pub async fn transfer<'a>(
    cluster: &Cluster,
    transfers: &[Transfer<'a>],
) -> Vec<Result<(), UnconfirmedShard>> {
    let donate = |&Transfer { sale, channel: Channel { donor, receiver }, tokens }: &Transfer<'a>| Donate {
        shard: sale.shard(donor),
        to: receiver,
        want: tokens,
    };
    let donates: Vec<_> = transfers.iter().map(donate).collect();
    let donations = cluster.write_all_once(&donates).await;

    let accept = |(transfer, donation): (&Transfer<'a>, &Result<Donation, _>)| {
        let Channel { donor, receiver } = transfer.channel;
        let cumulative = donation.as_ref().ok()?.cumulative;
        Some(Accept { shard: transfer.sale.shard(receiver), from: TokenSource::Shard(donor), cumulative })
    };
    let accepts: Vec<_> = transfers.iter().zip(&donations).filter_map(accept).collect();
    let mut accepted = cluster.write_all_once(&accepts).await.into_iter();

    let outcome = |(transfer, donation): (&Transfer<'_>, Result<_, _>)| {
        let Channel { donor, receiver } = transfer.channel;
        let unconfirmed = |shard| move |error: CallError| UnconfirmedShard { shard, reason: error.into() };
        donation.map_err(unconfirmed(donor))?;
        let accepted = accepted.next().expect("each donation has one acceptance");
        accepted.map(drop).map_err(unconfirmed(receiver))
    };
    transfers.iter().zip(donations).map(outcome).collect()
}
