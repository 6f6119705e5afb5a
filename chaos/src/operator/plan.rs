//! Plans the side sales and the operators' changes of each sale. A pure function of the seed.

use std::time::Duration;

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use crate::testbed::SALE;

/// Time between two changes of one sale.
const CHANGE_PACE_SECONDS: std::ops::Range<f64> = 3.0..9.0;

/// Length of a pause: long enough for buyers to notice.
const PAUSE_SECONDS: std::ops::Range<f64> = 0.3..1.0;

/// Time from the creation of a sale to its start: the creation may take several tries.
const START_AHEAD_SECONDS: std::ops::Range<f64> = 8.0..14.0;

/// Units of a side sale: few enough to be sold during the run, so that a restock happens after it is sold out.
const UNITS: std::ops::Range<u64> = 200..400;

/// Time between two buyers of a side sale. It is long because the machine is busy with the large sale.
const SECONDS_BETWEEN_BUYERS: f64 = 0.15;

/// Plan of one sale.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SalePlan {
    pub(crate) id: String,
    /// Creation of the sale. None for the sale that exists from the beginning.
    pub(crate) created: Option<Creation>,
    /// Changes of the sale, in order.
    pub(crate) tasks: Vec<PlannedTask>,
    /// An operator ends the sale once it is sold out.
    pub(crate) is_ended_by_operator: bool,
}

/// Creation of a side sale.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Creation {
    /// Time after the opening of the main sale.
    pub(crate) at: Duration,
    pub(crate) units: u64,
    pub(crate) shards: u16,
    /// Time from the creation to the start of the window.
    pub(crate) starts_in: Duration,
    /// Length of the window. If none, it is longer than any run.
    pub(crate) lasts: Option<Duration>,
    pub(crate) between_buyers: Duration,
}

/// A change that an operator makes at a given time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct PlannedTask {
    /// Time after the opening of the main sale. Later if the task before takes longer.
    pub(crate) at: Duration,
    pub(crate) task: OperatorTask,
}

/// Kinds of changes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum OperatorTask {
    /// Pauses the sale and resumes it after this time.
    Pause(Duration),
    /// Adds units.
    Restock(u64),
    /// Moves the end by this much.
    Extend(Duration),
}

/// Returns the plans of all sales for a run of this length. Every run has all of these: changes of the main sale, a
/// side sale that is restocked and then ended by an operator, one that is created later and starts during the run, and
/// one whose window ends during the run.
pub(crate) fn plans(seed: u64, duration: Duration) -> Vec<SalePlan> {
    let mut rng = StdRng::seed_from_u64(seed ^ PLAN_SEED_SALT);
    let rng = &mut rng;
    vec![
        SalePlan {
            id: SALE.into(),
            created: None,
            tasks: without_extensions(rng, duration),
            is_ended_by_operator: false,
        },
        restocked_sale(rng, duration),
        started_sale(rng, duration),
        finished_sale(rng, duration),
    ]
}

/// Combined with the seed, so that the plans use other random numbers than the schedule of faults.
const PLAN_SEED_SALT: u64 = 0x6f70_6572_6174_6f72;

/// A side sale that is created at this time. It starts at once and does not end during the run.
fn creation(rng: &mut StdRng, at: Duration) -> Creation {
    Creation {
        at,
        units: rng.random_range(UNITS),
        shards: rng.random_range(2..=4),
        starts_in: Duration::ZERO,
        lasts: None,
        between_buyers: Duration::from_secs_f64(SECONDS_BETWEEN_BUYERS),
    }
}

fn restocked_sale(rng: &mut StdRng, duration: Duration) -> SalePlan {
    let created = Some(creation(rng, Duration::from_secs(1)));
    let id = format!("{SALE}-restocked");
    SalePlan { id, created, tasks: tasks(rng, duration), is_ended_by_operator: true }
}

fn started_sale(rng: &mut StdRng, duration: Duration) -> SalePlan {
    let at = duration.mul_f64(rng.random_range(0.2..0.5));
    let created = creation(rng, at);
    let created = Some(Creation { starts_in: seconds(rng, START_AHEAD_SECONDS), ..created });
    SalePlan { id: format!("{SALE}-started"), created, tasks: Vec::new(), is_ended_by_operator: false }
}

/// Its end is moved once, well before it is reached.
fn finished_sale(rng: &mut StdRng, duration: Duration) -> SalePlan {
    let lasts = duration.mul_f64(rng.random_range(0.4..0.6));
    let created = creation(rng, Duration::from_secs(2));
    let starts_in = seconds(rng, START_AHEAD_SECONDS);
    let created = Some(Creation { units: 20_000, starts_in, lasts: Some(lasts), ..created });
    let task = OperatorTask::Extend(duration.mul_f64(rng.random_range(0.1..0.3)));
    let tasks = vec![PlannedTask { at: lasts.mul_f64(0.5), task }];
    SalePlan { id: format!("{SALE}-finished"), created, tasks, is_ended_by_operator: false }
}

/// Leaves out extensions of the main sale: a fault extends it and checks that the new end stays.
fn without_extensions(rng: &mut StdRng, duration: Duration) -> Vec<PlannedTask> {
    let mut tasks = tasks(rng, duration);
    tasks.retain(|planned| !matches!(planned.task, OperatorTask::Extend(_)));
    tasks
}

fn tasks(rng: &mut StdRng, duration: Duration) -> Vec<PlannedTask> {
    let mut tasks = Vec::new();
    let mut at = seconds(rng, CHANGE_PACE_SECONDS);
    while at < duration {
        let task = match rng.random_range(0..4) {
            0 | 1 => OperatorTask::Pause(seconds(rng, PAUSE_SECONDS)),
            2 => OperatorTask::Restock(rng.random_range(1..60)),
            _ => OperatorTask::Extend(Duration::from_secs(rng.random_range(60..3_600))),
        };
        tasks.push(PlannedTask { at, task });
        at += seconds(rng, CHANGE_PACE_SECONDS);
    }
    tasks
}

fn seconds(rng: &mut StdRng, range: std::ops::Range<f64>) -> Duration {
    Duration::from_secs_f64(rng.random_range(range))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: Duration = Duration::from_secs(90);

    #[test]
    fn plans_depend_on_the_seed_alone() {
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
            assert!(
                plans.iter().any(|plan| plan.is_ended_by_operator),
                "seed {seed}: none is ended by an operator"
            );
        }
    }

    #[test]
    fn extension_comes_before_the_old_end() {
        for seed in 1..=20 {
            let plans = plans(seed, RUN);
            let sale = plans.iter().find(|plan| plan.created.is_some_and(|created| created.lasts.is_some()));
            let sale = sale.unwrap();
            let lasts = sale.created.and_then(|created| created.lasts).unwrap();
            assert!(
                matches!(sale.tasks[..], [PlannedTask { at, task: OperatorTask::Extend(_) }] if at < lasts)
            );
        }
    }

    #[test]
    fn tasks_are_ordered_within_the_run() {
        let tasks = tasks(&mut StdRng::seed_from_u64(3), RUN);
        assert!(tasks.is_sorted_by_key(|planned| planned.at) && tasks.len() > 8);
        assert!(tasks.iter().all(|planned| planned.at < RUN));
    }
}
