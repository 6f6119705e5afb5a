//! Estimates the demand on the shards of a sale, in purchases per second, from their recent levels.

use rediscluster::CallError;
use stock::calls::Level;
use tokio::time::Instant;

/// Time constant of the estimate, in seconds: purchases of this age have a third of their weight. Long enough to
/// distinguish a shard that sells ten a second from one that sells twenty, short enough to follow a change of the
/// crowd.
const MEMORY_S: f64 = 1.0;

/// Purchases per second of a shard. The estimate is uncertain when there are few purchases, so it has bounds of one
/// standard deviation of a Poisson count to either side.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Demand {
    /// The most likely rate.
    pub likely: f64,
    /// The lower bound.
    pub at_least: f64,
    /// The upper bound.
    pub at_most: f64,
}

/// Estimates the demand on all shards of a sale.
#[derive(Clone, Debug, Default)]
pub struct DemandEstimator(Vec<Shard>);

#[derive(Clone, Copy, Debug, Default)]
struct Shard {
    /// The latest observation: its time by the monotonic clock, and the units sold by then.
    latest: Option<(Instant, u64)>,
    /// Purchases, and the seconds in which they were made. The weight of both decreases with age.
    purchases: f64,
    seconds: f64,
}

impl DemandEstimator {
    /// Updates the estimate from the levels at this time. Shards that cannot be read keep their estimate.
    pub fn observe(&mut self, observed_at: Instant, levels: &[Result<Level, CallError>]) {
        self.0.resize(levels.len(), Shard::default());
        for (shard, level) in self.0.iter_mut().zip(levels) {
            if let Ok(level) = level {
                shard.observe(observed_at, level.sold);
            }
        }
    }

    /// Returns the demand on each shard.
    pub fn demands(&self) -> Vec<Demand> {
        self.0.iter().map(Shard::demand).collect()
    }
}

impl Shard {
    fn observe(&mut self, at: Instant, sold: u64) {
        match self.latest {
            Some((before, sold_before)) if at > before && sold >= sold_before => {
                let seconds = (at - before).as_secs_f64();
                let fading = (-seconds / MEMORY_S).exp();
                self.purchases = self.purchases * fading + (sold - sold_before) as f64;
                self.seconds = self.seconds * fading + seconds;
            }
            Some((before, _)) if at == before => return,
            // The first observation, or a failover lost purchases.
            _ => *self = Self::default(),
        }
        self.latest = Some((at, sold));
    }

    fn demand(&self) -> Demand {
        if self.seconds == 0.0 {
            return Demand::default();
        }
        let (purchases, deviation) = (self.purchases, self.purchases.sqrt());
        Demand {
            likely: purchases / self.seconds,
            at_least: (purchases - deviation).max(0.0) / self.seconds,
            // No purchases so far do not mean that none will follow.
            at_most: (purchases + deviation + 1.0) / self.seconds,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Returns the demand after observations of a shard, as pairs of milliseconds and units sold.
    fn demand_after(observations: &[(u64, u64)]) -> Demand {
        let (mut estimator, start) = (DemandEstimator::default(), Instant::now());
        for &(at, sold) in observations {
            let observed_at = start + Duration::from_millis(at);
            estimator.observe(observed_at, &[Ok(Level { sold, ..Level::default() })]);
        }
        estimator.demands()[0]
    }

    fn selling(per_observation: u64, observations: u64) -> Vec<(u64, u64)> {
        (0..=observations).map(|n| (1_000 + 100 * n, per_observation * n)).collect()
    }

    #[test]
    fn single_observation_gives_no_demand() {
        assert_eq!(demand_after(&[(1_000, 70)]), Demand::default());
    }

    #[test]
    fn steady_rate_is_estimated_with_tightening_bounds() {
        let (early, late) = (demand_after(&selling(10, 2)), demand_after(&selling(10, 50)));
        assert!((early.likely - 100.0).abs() < 1e-6 && (late.likely - 100.0).abs() < 1e-6);
        assert!(early.at_least < late.at_least && late.at_least < 100.0, "{early:?} {late:?}");
        assert!(early.at_most > late.at_most && late.at_most > 100.0, "{early:?} {late:?}");
    }

    #[test]
    fn estimate_follows_a_rate_change_within_seconds() {
        let mut observations = selling(10, 50);
        let (at, sold) = *observations.last().unwrap();
        observations.extend((1..=20).map(|n| (at + 100 * n, sold + 40 * n)));
        assert!(
            (350.0..400.0).contains(&demand_after(&observations).likely),
            "{:?}",
            demand_after(&observations)
        );
    }

    #[test]
    fn estimate_resets_when_sold_decreases() {
        assert_eq!(demand_after(&[(1_000, 50), (1_100, 60), (1_200, 55)]), Demand::default());
    }

    #[test]
    fn estimate_ignores_jumps_of_the_primary_clock() {
        let mut estimator = DemandEstimator::default();
        let start = Instant::now();
        for n in 0..=20 {
            // After a second the primary's clock jumps an hour ahead.
            let at = 100 * n + if n > 10 { 3_600_000 } else { 0 };
            let level = Level { at, sold: 10 * n, ..Level::default() };
            estimator.observe(start + Duration::from_millis(100 * n), &[Ok(level)]);
        }
        assert!((estimator.demands()[0].likely - 100.0).abs() < 1e-6, "{:?}", estimator.demands());
    }

    #[test]
    fn repeated_observation_counts_once() {
        assert_eq!(
            demand_after(&[(1_000, 0), (1_100, 10), (1_100, 10)]),
            demand_after(&[(1_000, 0), (1_100, 10)])
        );
    }
}
