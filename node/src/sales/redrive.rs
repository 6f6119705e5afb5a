//! Re-drives stalled channels while no coordinator publishes snapshots, and so none leads.
//!
//! Tokens stay in a channel when the process that moved them dies, or gives up on a donor before the donation is
//! confirmed. Steals ask only shards that hold tokens, so a donor that is empty is not asked for its channel again.

use std::sync::Arc;

use futures::future::join_all;
use stock::calls::TokenSource;
use stock::channels::Channel;
use stock::sale::Sale;
use tokio::task::JoinSet;

use crate::lanes::{LaneError, Lanes};
use crate::metrics;

/// A channel to re-drive.
pub(super) struct StalledChannel {
    pub(super) sale: Sale,
    pub(super) channel: Channel,
}

/// Re-drives channels, one round at a time.
pub(super) struct Redrives {
    lanes: Arc<Lanes>,
    round: JoinSet<()>,
}

impl Redrives {
    pub(super) fn new(lanes: Arc<Lanes>) -> Self {
        Self { lanes, round: JoinSet::new() }
    }

    /// Starts a round, unless the previous one still waits for a barrier. Channels that stay open are found again in
    /// the next snapshot. Other nodes, and a leader, may re-drive the same channels at the same time: a `donate` of
    /// nothing and an `accept` can be repeated.
    pub(super) fn start(&mut self, stalled: Vec<StalledChannel>) {
        while self.round.try_join_next().is_some() {}
        if !stalled.is_empty() && self.round.is_empty() {
            let lanes = Arc::clone(&self.lanes);
            self.round.spawn(async move {
                join_all(stalled.iter().map(|stalled| stalled.redrive(&lanes))).await;
            });
        }
    }
}

impl StalledChannel {
    async fn redrive(&self, lanes: &Lanes) {
        let Self { sale, channel: Channel { donor, receiver } } = self;
        match self.move_tokens(lanes).await {
            Ok(()) => {
                metrics::count_redriven(sale.id());
                tracing::info!(sale.id = %sale.id(), shard.id = %receiver, donor.id = %donor, "channel re-driven");
            }
            Err(error) => {
                tracing::debug!(sale.id = %sale.id(), donor.id = %donor, error = %error, "channel not re-driven");
            }
        }
    }

    /// Moves the tokens that are in the channel, and no others. Buyers are notified by the next snapshot.
    async fn move_tokens(&self, lanes: &Lanes) -> Result<(), LaneError> {
        let Self { sale, channel: Channel { donor, receiver } } = self;
        let shard = |id| Arc::new(sale.shard(id).clone());
        let donation = lanes.donate(&shard(*donor), *receiver, 0).await?;
        let accepting = lanes.accept(&shard(*receiver), TokenSource::Shard(*donor), donation.cumulative)?;
        accepting.answer().await.map(drop)
    }
}
