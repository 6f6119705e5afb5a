//! The schedule of faults: a pure function of the seed.

use std::{collections::VecDeque, time::Duration};

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::SliceRandom};

use crate::FaultKind;

/// Time without faults at the beginning, for the latency in normal operation.
const WARM_UP: Duration = Duration::from_secs(5);

/// The start of each fault is delayed by up to this fraction of the pace, so that faults are not evenly spaced.
const JITTER_DIVISOR: u32 = 5;

/// Makes the faults of the orders another series than those of the sale.
const ORDERS_SEED: u64 = 1 << 63;

/// A planned fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedFault {
    /// Time after the opening of the sale. Later if the fault before takes longer.
    pub at: Duration,
    /// Kind of the fault.
    pub kind: FaultKind,
    /// Random number that selects the target: its index, modulo the number of possible targets at that moment.
    pub draw: u32,
}

/// All planned faults of a run, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Seed of the schedule.
    pub seed: u64,
    /// The faults.
    pub faults: Vec<PlannedFault>,
}

impl Schedule {
    /// Plans one fault per `pace` for `duration`, and beside them one fault of the way of orders per `pace`. Every kind
    /// is used once before any kind is used twice.
    pub fn of(seed: u64, duration: Duration, pace: Duration, kinds: &[FaultKind]) -> Self {
        let (of_orders, of_sales): (Vec<_>, Vec<_>) = kinds.iter().partition(|kind| kind.attacks_orders());
        let mut faults = plan(seed, duration, pace, &of_sales);
        let beside = plan(seed ^ ORDERS_SEED, duration, pace, &of_orders);
        faults.extend(beside.into_iter().map(|fault| PlannedFault { at: fault.at + pace / 2, ..fault }));
        faults.sort_by_key(|fault| fault.at);
        faults.retain(|fault| fault.at < duration);
        Self { seed, faults }
    }
}

fn plan(seed: u64, duration: Duration, pace: Duration, kinds: &[FaultKind]) -> Vec<PlannedFault> {
    let mut rng = StdRng::seed_from_u64(seed);
    let count = duration.saturating_sub(WARM_UP).as_millis() / pace.as_millis().max(1);
    let mut deck = FaultDeck::of(kinds);
    let plan = |number: u128| {
        let kind = deck.draw(&mut rng)?;
        let jitter = rng.random_range(Duration::ZERO..=pace / JITTER_DIVISOR);
        let at = WARM_UP + pace * u32::try_from(number).ok()? + jitter;
        Some(PlannedFault { at, kind, draw: rng.random() })
    };
    (0..count).map_while(plan).collect()
}

/// Kinds to draw from. They are shuffled again after all were drawn.
struct FaultDeck {
    kinds: Vec<(FaultKind, usize)>,
    shuffled: VecDeque<FaultKind>,
}

impl FaultDeck {
    fn of(kinds: &[FaultKind]) -> Self {
        Self { kinds: kinds.iter().map(|&kind| (kind, 0)).collect(), shuffled: VecDeque::new() }
    }

    fn draw(&mut self, rng: &mut StdRng) -> Option<FaultKind> {
        if self.shuffled.is_empty() {
            let mut next: Vec<FaultKind> = Vec::new();
            for (kind, times) in self.kinds.iter_mut().filter(|(kind, times)| *times < kind.times_max()) {
                *times += 1;
                next.push(*kind);
            }
            next.shuffle(rng);
            self.shuffled = next.into();
        }
        self.shuffled.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// Default of the command line.
    const PACE_DEFAULT: Duration = Duration::from_secs(10);

    /// Default of the command line.
    const DURATION_DEFAULT: Duration = Duration::from_mins(6);

    #[test]
    fn schedule_depends_on_the_seed() {
        let schedule = |seed| Schedule::of(seed, DURATION_DEFAULT, PACE_DEFAULT, FaultKind::all());
        assert_eq!(schedule(7), schedule(7));
        assert_ne!(schedule(7).faults, schedule(8).faults);
    }

    #[test]
    fn default_run_has_every_kind() {
        for seed in 1..=20 {
            let kinds: HashSet<FaultKind> =
                Schedule::of(seed, DURATION_DEFAULT, PACE_DEFAULT, FaultKind::all())
                    .faults
                    .iter()
                    .map(|fault| fault.kind)
                    .collect();
            assert_eq!(kinds.len(), FaultKind::all().len(), "seed {seed} leaves a kind out");
        }
    }

    #[test]
    fn faults_are_ordered_and_primary_added_once() {
        let long = Schedule::of(3, Duration::from_mins(20), PACE_DEFAULT, FaultKind::all()).faults;
        assert!(long.is_sorted_by_key(|fault| fault.at) && long.last().unwrap().at < Duration::from_mins(20));
        assert_eq!(long.iter().filter(|fault| fault.kind == FaultKind::PrimaryAdded).count(), 1);
    }

    #[test]
    fn schedule_has_only_the_given_kinds() {
        let kinds = [FaultKind::PrimaryAdded, FaultKind::NodeKilled];
        let faults = Schedule::of(1, DURATION_DEFAULT, PACE_DEFAULT, &kinds).faults;
        assert!(faults.iter().all(|fault| kinds.contains(&fault.kind)) && faults.len() == 35);
        assert!(Schedule::of(1, Duration::ZERO, PACE_DEFAULT, &kinds).faults.is_empty());
    }
}
