//! The scenarios: what their users do, and how many run at a time.

mod browse;
mod duplicates;
mod rush;
mod visitor;

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::Result;

use crate::{
    attack::{Step, attack},
    options::Scenario,
    spike,
    target::LoadTarget,
};

const BROWSE_TIME: Duration = Duration::from_secs(30);
const SOAK_TIME: Duration = Duration::from_mins(10);
/// Users that start or stop per second in scenarios with a constant number of users.
const STEADY_RAMP: u32 = 50;

/// Runs a scenario to its end.
pub(crate) async fn run(scenario: &Scenario, target: &Arc<LoadTarget>) -> Result<()> {
    let (reports, verbose, url) = (scenario.reports(), scenario.common().verbose, target.sale_client.url());
    let (scenario, plan) = match scenario {
        Scenario::Rush(rush) => (rush::scenario(target, rush.pause)?, steps(rush.users, rush.step)),
        Scenario::Soak(soak) => {
            (rush::scenario(target, soak.pause)?, steady(soak.users, soak.run_time_or(SOAK_TIME)))
        }
        Scenario::Browse(browse) => {
            (browse::scenario(target, browse.pause)?, steady(browse.users, browse.run_time_or(BROWSE_TIME)))
        }
        Scenario::Duplicates(duplicates) => {
            (duplicates::scenario(target, duplicates.copies), steady(duplicates.users, duplicates.run_time))
        }
        Scenario::Spike(spike) => return spike::run(spike, target, Path::new(&reports)).await,
    };
    attack(scenario, &plan, url, &reports, verbose).await
}

/// Returns a plan that grows in three steps, stays, and shrinks.
fn steps(users: u32, step: Duration) -> Vec<Step> {
    [users / 10, users / 2, users, users, 0].map(|users| (users, step)).into()
}

fn steady(users: u32, time: Duration) -> Vec<Step> {
    let ramp = Duration::from_secs(users.div_ceil(STEADY_RAMP).into());
    vec![(users, ramp), (users, time), (0, Duration::ZERO)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rush_grows_stays_and_shrinks() {
        let step = Duration::from_secs(6);
        let users = steps(1000, step).into_iter().map(|(users, time)| (users, time == step));
        let expected = [100, 500, 1000, 1000, 0].map(|users| (users, true));
        assert!(users.eq(expected));
    }

    #[test]
    fn steady_plan_has_the_given_length() {
        let time = Duration::from_secs(60);
        let second = Duration::from_secs;
        assert_eq!(steady(100, time), [(100, second(2)), (100, time), (0, second(0))]);
        assert_eq!(steady(2, time)[0], (2, second(1)), "Goose refuses a ramp of no time");
    }
}
