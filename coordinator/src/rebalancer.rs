//! Moves tokens ahead of demand, in a loop of its own, because its barriers must delay neither snapshots nor repairs.

use std::collections::HashMap;

use stock::calls::Level;
use stock::layout::{Fingerprint, Shard};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::context::Context;
use crate::demand::DemandEstimator;
use crate::metrics;
use crate::observation::{Observation, Observations};
use crate::rebalance::{Holding, PlannedMove, rebalance};
use crate::rounds::{Stop, every};
use crate::transfers::{Transfer, transfer};

/// State of rebalancing between rounds.
#[derive(Default)]
struct Rebalancer {
    demand: HashMap<Fingerprint, DemandEstimator>,
    /// When the latest moves had arrived or failed. Earlier observations do not include them.
    moved_at: Option<Instant>,
}

pub(crate) async fn run(context: &Context, observations: watch::Receiver<Observations>, stop: Stop) {
    let (period, mut rebalancer) = (context.timing.rebalance_period, Rebalancer::default());
    if period.is_zero() {
        return;
    }
    let round = async || {
        let observations = observations.borrow().clone();
        rebalancer.round(context, &observations).await;
    };
    every(period, stop, round).await;
}

impl Rebalancer {
    /// Rebalances all sales, with one pipeline per primary.
    async fn round(&mut self, context: &Context, observations: &Observations) {
        if !context.leadership.leads() {
            *self = Self::default();
            return;
        }
        let transfers: Vec<Transfer<'_>> = observations
            .values()
            .flat_map(|observation| {
                let sale = &observation.desired.sale;
                let transfer = move |PlannedMove { channel, tokens }| Transfer { sale, channel, tokens };
                self.plan(observation).into_iter().map(transfer)
            })
            .collect();
        if transfers.is_empty() {
            return;
        }
        let outcomes = transfer(&context.writes, &transfers).await;
        self.moved_at = Some(Instant::now());
        for (Transfer { sale, channel, tokens }, outcome) in transfers.iter().zip(outcomes) {
            metrics::rebalanced(sale.id(), if outcome.is_ok() { *tokens } else { 0 });
            let error = outcome.err().map(tracing::field::display);
            tracing::debug!(
                sale.id = %sale.id(), shard.id = %channel.receiver, shard.giver = %channel.donor, tokens, error,
                "tokens moved ahead of demand"
            );
        }
    }

    /// Returns the moves that follow from this observation of a sale. Shards that cannot be read take no part.
    fn plan(&mut self, observation: &Observation) -> Vec<PlannedMove> {
        let Observation { desired, levels, observed_at, .. } = observation;
        let estimator = self.demand.entry(desired.sale.fingerprint().clone()).or_default();
        estimator.observe(*observed_at, levels);
        if self.moved_at.is_some_and(|moved_at| *observed_at <= moved_at) {
            return Vec::new();
        }
        let incoming = observation.incoming();
        let shards = desired.sale.shards().iter().zip(levels).zip(estimator.demands());
        let holding = |((shard, level), demand): ((&Shard, &Result<Level, _>), _)| {
            let stock = level.as_ref().ok()?.stock;
            Some(Holding { shard: shard.id, stock, incoming: incoming[shard.id.index()], demand })
        };
        rebalance(&shards.filter_map(holding).collect::<Vec<_>>())
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
        let (start, mut rebalancer) = (Instant::now(), Rebalancer::default());
        let sale = recorded(SaleState::Open, 2);
        assert_eq!(rebalancer.plan(&observation(&sale, 1_000, 0, start)), []);
        let second = observation(&sale, 2_000, 40, start + Duration::from_secs(1));
        assert_eq!(rebalancer.plan(&second).len(), 1);

        rebalancer.moved_at = Some(start + Duration::from_millis(1_010));
        assert_eq!(rebalancer.plan(&second), [], "observed before the tokens arrived");
        let third = observation(&sale, 2_100, 44, start + Duration::from_millis(1_100));
        assert_eq!(rebalancer.plan(&third).len(), 1);

        let recreated = recorded(SaleState::Open, 2);
        let first = observation(&recreated, 2_200, 48, start + Duration::from_millis(1_200));
        assert_eq!(rebalancer.plan(&first), [], "another sale of the same name has sold nothing yet");
    }
}
