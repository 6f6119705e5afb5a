//! Which sales there are beside the one that faults meet, and what operators do to each: a pure function of the seed.

use std::time::Duration;

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use crate::testbed::SALE;

/// Between two changes of one sale.
const CHANGE_PACE_SECONDS: std::ops::Range<f64> = 3.0..9.0;

/// How long a sale is paused: long enough for buyers to notice.
const PAUSE_SECONDS: std::ops::Range<f64> = 0.3..1.0;

/// From the creation of a sale to its start: its creation may take several tries.
const START_AHEAD_SECONDS: std::ops::Range<f64> = 8.0..14.0;

/// Units of a side sale: few enough to be sold in the time, so that a restock meets a sale that is sold out.
const UNITS: std::ops::Range<u64> = 200..400;

/// Buyers of side sales come slowly: the machine is busy with the large one.
const SECONDS_BETWEEN_BUYERS: f64 = 0.15;

/// What happens to one sale.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SalePlan {
    pub(crate) id: String,
    /// How it is created; none for the sale that is there from the beginning.
    pub(crate) created: Option<Creation>,
    /// What is done to it, in order.
    pub(crate) works: Vec<PlannedTask>,
    /// Whether an operator ends it once it is sold out.
    pub(crate) is_ended_by_hand: bool,
}

/// How a side sale begins.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Creation {
    /// When, from the opening of the sale that faults meet.
    pub(crate) at: Duration,
    pub(crate) units: u64,
    pub(crate) shards: u16,
    /// From the creation on.
    pub(crate) starts_in: Duration,
    /// How long it is open; if none, for longer than any run.
    pub(crate) lasts: Option<Duration>,
    pub(crate) between_buyers: Duration,
}

/// Something that an operator does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct PlannedTask {
    /// When, from the opening of the sale that faults meet; later if the one before takes longer.
    pub(crate) at: Duration,
    pub(crate) work: OperatorTask,
}

/// Kinds of work.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum OperatorTask {
    /// Pauses the sale and resumes it after this time.
    Pause(Duration),
    /// Adds units.
    Restock(u64),
    /// Moves the end by this much.
    Extend(Duration),
}

/// The plan of every sale for a run of this length. Every run has all of it: changes of the large sale, a side sale that
/// is restocked and ended by hand, one that is created later and starts during the run, and one that ends during it.
pub(crate) fn plans(seed: u64, duration: Duration) -> Vec<SalePlan> {
    let mut rng = StdRng::seed_from_u64(seed ^ PLAN);
    let rng = &mut rng;
    vec![
        SalePlan {
            id: SALE.into(),
            created: None,
            works: without_extensions(rng, duration),
            is_ended_by_hand: false,
        },
        restocked(rng, duration),
        started(rng, duration),
        finished(rng, duration),
    ]
}

/// The schedule of faults is made from the same seed, and is to be another series of numbers.
const PLAN: u64 = 0x6f70_6572_6174_6f72;

fn restocked(rng: &mut StdRng, duration: Duration) -> SalePlan {
    let created = Creation {
        at: Duration::from_secs(1),
        units: rng.random_range(UNITS),
        shards: rng.random_range(2..=4),
        starts_in: Duration::ZERO,
        lasts: None,
        between_buyers: Duration::from_secs_f64(SECONDS_BETWEEN_BUYERS),
    };
    SalePlan {
        id: format!("{SALE}-restocked"),
        created: Some(created),
        works: works(rng, duration),
        is_ended_by_hand: true,
    }
}

fn started(rng: &mut StdRng, duration: Duration) -> SalePlan {
    let created = Creation {
        at: duration.mul_f64(rng.random_range(0.2..0.5)),
        units: rng.random_range(UNITS),
        shards: rng.random_range(2..=4),
        starts_in: seconds(rng, START_AHEAD_SECONDS),
        lasts: None,
        between_buyers: Duration::from_secs_f64(SECONDS_BETWEEN_BUYERS),
    };
    SalePlan {
        id: format!("{SALE}-started"),
        created: Some(created),
        works: Vec::new(),
        is_ended_by_hand: false,
    }
}

/// Its end is moved once, well before it comes.
fn finished(rng: &mut StdRng, duration: Duration) -> SalePlan {
    let lasts = duration.mul_f64(rng.random_range(0.4..0.6));
    let created = Creation {
        at: Duration::from_secs(2),
        units: 20_000,
        shards: rng.random_range(2..=4),
        starts_in: seconds(rng, START_AHEAD_SECONDS),
        lasts: Some(lasts),
        between_buyers: Duration::from_secs_f64(SECONDS_BETWEEN_BUYERS),
    };
    let extended = PlannedTask {
        at: lasts.mul_f64(0.5),
        work: OperatorTask::Extend(duration.mul_f64(rng.random_range(0.1..0.3))),
    };
    SalePlan {
        id: format!("{SALE}-finished"),
        created: Some(created),
        works: vec![extended],
        is_ended_by_hand: false,
    }
}

/// A fault extends the sale that faults meet, and looks whether that end stays.
fn without_extensions(rng: &mut StdRng, duration: Duration) -> Vec<PlannedTask> {
    let mut works = works(rng, duration);
    works.retain(|planned| !matches!(planned.work, OperatorTask::Extend(_)));
    works
}

fn works(rng: &mut StdRng, duration: Duration) -> Vec<PlannedTask> {
    let mut works = Vec::new();
    let mut at = seconds(rng, CHANGE_PACE_SECONDS);
    while at < duration {
        let work = match rng.random_range(0..4) {
            0 | 1 => OperatorTask::Pause(seconds(rng, PAUSE_SECONDS)),
            2 => OperatorTask::Restock(rng.random_range(1..60)),
            _ => OperatorTask::Extend(Duration::from_secs(rng.random_range(60..3_600))),
        };
        works.push(PlannedTask { at, work });
        at += seconds(rng, CHANGE_PACE_SECONDS);
    }
    works
}

fn seconds(rng: &mut StdRng, range: std::ops::Range<f64>) -> Duration {
    Duration::from_secs_f64(rng.random_range(range))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: Duration = Duration::from_secs(90);

    #[test]
    fn plans_follow_from_the_seed_alone() {
        assert_eq!(plans(7, RUN), plans(7, RUN));
        assert_ne!(plans(7, RUN), plans(8, RUN));
    }

    #[test]
    fn every_run_has_all_kinds_of_sales() {
        for seed in 1..=20 {
            let plans = plans(seed, RUN);
            let created: Vec<&Creation> = plans.iter().filter_map(|plan| plan.created.as_ref()).collect();
            assert_eq!((plans.len(), created.len()), (4, 3), "seed {seed}");
            assert!(
                created.iter().any(|sale| sale.at > RUN / 6),
                "seed {seed}: none is created in the middle"
            );
            assert!(created.iter().any(|sale| sale.lasts.is_some()), "seed {seed}: none ends in the run");
            assert!(plans.iter().any(|plan| plan.is_ended_by_hand), "seed {seed}: none is ended by hand");
        }
    }

    #[test]
    fn an_end_is_moved_before_it_comes() {
        for seed in 1..=20 {
            let plans = plans(seed, RUN);
            let sale = plans.iter().find(|plan| plan.created.is_some_and(|created| created.lasts.is_some()));
            let sale = sale.unwrap();
            let lasts = sale.created.and_then(|created| created.lasts).unwrap();
            assert!(
                matches!(sale.works[..], [PlannedTask { at, work: OperatorTask::Extend(_) }] if at < lasts)
            );
        }
    }

    #[test]
    fn works_come_in_order_within_the_run() {
        let works = works(&mut StdRng::seed_from_u64(3), RUN);
        assert!(works.is_sorted_by_key(|planned| planned.at) && works.len() > 8);
        assert!(works.iter().all(|planned| planned.at < RUN));
    }
}
