//! Transfers of tokens between two shards: donate, barrier, accept.
//!
//! Each half is tried once: a repeated donation gives twice, and would drain the donor. If the transfer fails in
//! between, the tokens stay in the channel, which is re-driven later.

use rediscluster::{CallError, Cluster};
use stock::calls::{Accept, Donate, TokenSource};
use stock::channels::Channel;
use stock::sale::Sale;

use crate::apply::UnconfirmedShard;

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

/// Runs transfers concurrently, with one pipeline per primary for each half. Returns the outcome of each.
///
/// Tokens are accepted only after the donation is confirmed by the donor's replicas; otherwise a failover could bring
/// them back to the donor as well.
pub async fn transfer(cluster: &Cluster, transfers: &[Transfer<'_>]) -> Vec<Result<(), UnconfirmedShard>> {
    let donates: Vec<_> = transfers.iter().map(Transfer::donate).collect();
    let donations = cluster.write_all_once(&donates).await;

    let given = transfers.iter().zip(&donations);
    let accepts: Vec<_> = given
        .filter_map(|(transfer, donation)| Some(transfer.accept(donation.as_ref().ok()?.cumulative)))
        .collect();
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

impl<'a> Transfer<'a> {
    fn donate(&self) -> Donate<'a> {
        let Channel { donor, receiver } = self.channel;
        Donate { shard: self.sale.shard(donor), to: receiver, want: self.tokens }
    }

    fn accept(&self, cumulative: u64) -> Accept<'a> {
        let Channel { donor, receiver } = self.channel;
        Accept { shard: self.sale.shard(receiver), from: TokenSource::Shard(donor), cumulative }
    }
}
