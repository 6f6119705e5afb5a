//! How fast the shards of a sale sell: purchases a second, from the levels that were seen lately.

use stock::calls::{CallError, Level};
use tokio::time::Instant;

/// How long purchases count for, seconds: after so long they weigh a third. Long enough for a shard that sells ten a
/// second to be told from one that sells twenty, short enough to follow a crowd that comes from elsewhere.
const MEMORY_S: f64 = 1.0;

/// What a shard sells in a second. Few purchases tell little, so there are bounds: one standard deviation of a
/// count that is as it comes (Poisson) to either side.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Demand {
    /// Most likely so many.
    pub likely: f64,
    /// Hardly fewer.
    pub at_least: f64,
    /// Hardly more.
    pub at_most: f64,
}

/// The demand on all shards of a sale, as it is seen.
#[derive(Clone, Debug, Default)]
pub struct DemandEstimator(Vec<Shard>);

#[derive(Clone, Copy, Debug, Default)]
struct Shard {
    /// The latest sight: when, by our own clock that nobody sets, and what was sold by then.
    latest: Option<(Instant, u64)>,
    /// Purchases, and the seconds in which they were made; both fade with age.
    purchases: f64,
    seconds: f64,
}

impl DemandEstimator {
    /// Takes in what was seen of the shards at this moment. One that cannot be read keeps what is known of it.
    pub fn observe(&mut self, seen_at: Instant, levels: &[Result<Level, CallError>]) {
        self.0.resize(levels.len(), Shard::default());
        for (shard, level) in self.0.iter_mut().zip(levels) {
            if let Ok(level) = level {
                shard.observe(seen_at, level.sold);
            }
        }
    }

    /// The demand on each shard.
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
            // The first sight; or a failover took purchases back.
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
            // Nothing seen is no proof of nothing to come.
            at_most: (purchases + deviation + 1.0) / self.seconds,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// The demand after a shard was seen at these times, in milliseconds, with so much sold.
    fn after(observations: &[(u64, u64)]) -> Demand {
        let (mut seen, start) = (DemandEstimator::default(), Instant::now());
        for &(at, sold) in observations {
            let seen_at = start + Duration::from_millis(at);
            seen.observe(seen_at, &[Ok(Level { sold, ..Level::default() })]);
        }
        seen.demands()[0]
    }

    fn selling(per_observation: u64, observations: u64) -> Vec<(u64, u64)> {
        (0..=observations).map(|n| (1_000 + 100 * n, per_observation * n)).collect()
    }

    #[test]
    fn single_observation_gives_no_demand() {
        assert_eq!(after(&[(1_000, 70)]), Demand::default());
    }

    #[test]
    fn steady_rate_is_estimated_with_tightening_bounds() {
        let (early, late) = (after(&selling(10, 2)), after(&selling(10, 50)));
        assert!((early.likely - 100.0).abs() < 1e-6 && (late.likely - 100.0).abs() < 1e-6);
        assert!(early.at_least < late.at_least && late.at_least < 100.0, "{early:?} {late:?}");
        assert!(early.at_most > late.at_most && late.at_most > 100.0, "{early:?} {late:?}");
    }

    #[test]
    fn estimate_follows_a_rate_change_within_seconds() {
        let mut observations = selling(10, 50);
        let (at, sold) = *observations.last().unwrap();
        observations.extend((1..=20).map(|n| (at + 100 * n, sold + 40 * n)));
        assert!((350.0..400.0).contains(&after(&observations).likely), "{:?}", after(&observations));
    }

    #[test]
    fn estimate_resets_when_sold_decreases() {
        assert_eq!(after(&[(1_000, 50), (1_100, 60), (1_200, 55)]), Demand::default());
    }

    #[test]
    fn estimate_ignores_jumps_of_the_primary_clock() {
        let mut seen = DemandEstimator::default();
        let start = Instant::now();
        for n in 0..=20 {
            // After a second its clock jumps an hour ahead.
            let at = 100 * n + if n > 10 { 3_600_000 } else { 0 };
            let level = Level { at, sold: 10 * n, ..Level::default() };
            seen.observe(start + Duration::from_millis(100 * n), &[Ok(level)]);
        }
        assert!((seen.demands()[0].likely - 100.0).abs() < 1e-6, "{:?}", seen.demands());
    }

    #[test]
    fn repeated_observation_counts_once() {
        assert_eq!(after(&[(1_000, 0), (1_100, 10), (1_100, 10)]), after(&[(1_000, 0), (1_100, 10)]));
    }
}
