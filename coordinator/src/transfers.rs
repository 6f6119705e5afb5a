//! Transfers of tokens between two shards: donate, barrier, accept.
//!
//! Each half is tried once: a donation that is repeated gives twice, and would drain the giver. Whatever breaks
//! in between leaves the tokens in the channel, from where they are re-driven.

use stock::calls::{Accept, CallError, Donate, TokenSource};
use stock::cluster::Cluster;
use stock::sale::Sale;

use crate::apply::UnconfirmedShard;
use crate::channels::Channel;

/// Tokens to be moved from one shard of a sale to another.
#[derive(Clone, Copy)]
pub struct Transfer<'a> {
    /// The sale.
    pub sale: &'a Sale,
    /// The way they take.
    pub channel: Channel,
    /// How many. With 0, only what the channel holds already.
    pub tokens: u64,
}

/// Carries out transfers side by side, one pipeline a primary for each half; which were not, and why.
///
/// Only what the giver's replicas know of is accepted: else a failover would bring it back to the giver as well.
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
        let accepted = accepted.next().expect("what was given was to be accepted");
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
