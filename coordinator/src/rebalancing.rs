//! Runs rebalancing in a separate loop, because its barriers must delay neither snapshots nor repairs.

use std::collections::HashMap;

use stock::calls::Level;
use stock::channels::{OpenChannel, open_channels};
use stock::layout::{Fingerprint, Shard};
use tokio::time::Instant;

use crate::coordinator::Coordinator;
use crate::demand::DemandEstimator;
use crate::metrics;
use crate::rebalance::{Holding, PlannedMove, rebalance};
use crate::reconcile::Observation;
use crate::transfers::{Transfer, transfer};

/// State of rebalancing between rounds.
#[derive(Default)]
pub(crate) struct Rebalancing {
    demand: HashMap<Fingerprint, DemandEstimator>,
    /// When the latest moves had arrived or failed. Earlier observations do not include them.
    moved_at: Option<Instant>,
}

impl Rebalancing {
    /// Returns the moves that follow from this observation of a sale. Shards that cannot be read take no part.
    fn plan(&mut self, observation: &Observation) -> Vec<PlannedMove> {
        let sale = observation.desired.sale.fingerprint().clone();
        let estimator = self.demand.entry(sale).or_default();
        estimator.observe(observation.observed_at, &observation.levels);
        if self.moved_at.is_some_and(|moved_at| observation.observed_at <= moved_at) {
            return Vec::new();
        }
        let mut incoming = vec![0; observation.levels.len()];
        for OpenChannel { channel, tokens, .. } in open_channels(&observation.levels) {
            incoming[channel.receiver.index()] += tokens;
        }
        let shards =
            observation.desired.sale.shards().iter().zip(&observation.levels).zip(estimator.demands());
        let holding = |((shard, level), demand): ((&Shard, &Result<Level, _>), _)| {
            let stock = level.as_ref().ok()?.stock;
            Some(Holding { shard: shard.id, stock, incoming: incoming[shard.id.index()], demand })
        };
        rebalance(&shards.filter_map(holding).collect::<Vec<_>>())
    }
}

impl Coordinator {
    /// Rebalances all sales, with one pipeline per primary.
    pub(crate) async fn rebalance(&self, rebalancing: &mut Rebalancing) {
        if !self.leadership.leads() {
            *rebalancing = Rebalancing::default();
            return;
        }
        let observations = self.observations.load_full();
        let plans = observations
            .values()
            .map(|observation| (&observation.desired.sale, rebalancing.plan(observation)));
        let transfers: Vec<Transfer<'_>> = plans
            .flat_map(|(sale, moves)| {
                let transfer = move |PlannedMove { channel, tokens }| Transfer { sale, channel, tokens };
                moves.into_iter().map(transfer)
            })
            .collect();
        if transfers.is_empty() {
            return;
        }
        let outcomes = transfer(&self.writes, &transfers).await;
        rebalancing.moved_at = Some(Instant::now());
        for (Transfer { sale, channel, tokens }, outcome) in transfers.iter().zip(outcomes) {
            metrics::rebalanced(sale.id(), if outcome.is_ok() { *tokens } else { 0 });
            let error = outcome.err().map(tracing::field::display);
            tracing::debug!(
                sale.id = %sale.id(), shard.id = %channel.receiver, shard.giver = %channel.donor, tokens, error,
                "tokens moved ahead of demand"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use stock::sale::SaleState;

    use super::*;
    use crate::desired_state::DesiredState;
    use crate::testing::recorded;

    /// Two shards with fifty units each, of which the first has sold `sold`.
    fn observation(desired: &DesiredState, at: u64, sold: u64, observed_at: Instant) -> Observation {
        let level = |sold| Ok(Level { at, sold, stock: 50 - sold, ..Level::default() });
        let levels = vec![level(sold), level(0)];
        Observation::of(desired, levels, (observed_at, at), None)
    }

    #[test]
    fn plan_ignores_observations_from_before_the_moves() {
        let (start, mut rebalancing) = (Instant::now(), Rebalancing::default());
        let sale = recorded(SaleState::Open, 2);
        assert_eq!(rebalancing.plan(&observation(&sale, 1_000, 0, start)), []);
        let second = observation(&sale, 2_000, 40, start + Duration::from_secs(1));
        assert_eq!(rebalancing.plan(&second).len(), 1);

        rebalancing.moved_at = Some(start + Duration::from_millis(1_010));
        assert_eq!(rebalancing.plan(&second), [], "observed before the tokens arrived");
        let third = observation(&sale, 2_100, 44, start + Duration::from_millis(1_100));
        assert_eq!(rebalancing.plan(&third).len(), 1);

        let recreated = recorded(SaleState::Open, 2);
        let first = observation(&recreated, 2_200, 48, start + Duration::from_millis(1_200));
        assert_eq!(rebalancing.plan(&first), [], "another sale of the same name has sold nothing yet");
    }
}
