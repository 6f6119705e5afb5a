//! When which fault comes: a pure function of the seed.

use std::{collections::VecDeque, time::Duration};

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::SliceRandom};

use crate::FaultKind;

/// The sale runs undisturbed for so long first: what is quiet is measured here.
const WARM_UP: Duration = Duration::from_secs(5);

/// Faults do not come like clockwork: each is late by up to this part of the pace.
const LATE_PARTS: u32 = 5;

/// A fault that is to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedFault {
    /// When, from the opening of the sale; later if the one before takes longer.
    pub at: Duration,
    /// What.
    pub kind: FaultKind,
    /// Whom: the one with this number, modulo as many as there are at that moment.
    pub draw: u32,
}

/// All faults of a run, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// What it was made from.
    pub seed: u64,
    /// The faults.
    pub faults: Vec<PlannedFault>,
}

impl Schedule {
    /// Faults of these kinds for so long, one each `pace`. Every kind comes once before one comes twice.
    pub fn of(seed: u64, duration: Duration, pace: Duration, kinds: &[FaultKind]) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let places = duration.saturating_sub(WARM_UP).as_millis() / pace.as_millis().max(1);
        let mut deck = FaultDeck::of(kinds);
        let plan = |place: u128| {
            let kind = deck.draw(&mut rng)?;
            let late = rng.random_range(Duration::ZERO..=pace / LATE_PARTS);
            let at = WARM_UP + pace * u32::try_from(place).ok()? + late;
            Some(PlannedFault { at, kind, draw: rng.random() })
        };
        Self { seed, faults: (0..places).map_while(plan).collect() }
    }
}

/// Kinds to draw from, shuffled again whenever all were drawn.
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

    /// As the command line has it by default.
    const PACE_DEFAULT: Duration = Duration::from_secs(10);

    /// The same.
    const DURATION_DEFAULT: Duration = Duration::from_mins(6);

    #[test]
    fn the_same_seed_makes_the_same_schedule_and_another_seed_another() {
        let schedule = |seed| Schedule::of(seed, DURATION_DEFAULT, PACE_DEFAULT, &FaultKind::ALL);
        assert_eq!(schedule(7), schedule(7));
        assert_ne!(schedule(7).faults, schedule(8).faults);
    }

    #[test]
    fn every_kind_comes_in_a_run_of_the_default_length() {
        for seed in 1..=20 {
            let kinds: HashSet<FaultKind> =
                Schedule::of(seed, DURATION_DEFAULT, PACE_DEFAULT, &FaultKind::ALL)
                    .faults
                    .iter()
                    .map(|fault| fault.kind)
                    .collect();
            assert_eq!(kinds.len(), FaultKind::ALL.len(), "seed {seed} leaves a kind out");
        }
    }

    #[test]
    fn faults_come_in_order_within_the_time_and_new_primaries_once() {
        let long = Schedule::of(3, Duration::from_mins(20), PACE_DEFAULT, &FaultKind::ALL).faults;
        assert!(long.is_sorted_by_key(|fault| fault.at) && long.last().unwrap().at < Duration::from_mins(20));
        assert_eq!(long.iter().filter(|fault| fault.kind == FaultKind::PrimaryAdded).count(), 1);
    }

    #[test]
    fn a_schedule_keeps_to_the_kinds_it_was_given() {
        let kinds = [FaultKind::PrimaryAdded, FaultKind::NodeKilled];
        let faults = Schedule::of(1, DURATION_DEFAULT, PACE_DEFAULT, &kinds).faults;
        assert!(faults.iter().all(|fault| kinds.contains(&fault.kind)) && faults.len() == 35);
        assert!(Schedule::of(1, Duration::ZERO, PACE_DEFAULT, &kinds).faults.is_empty());
    }
}
