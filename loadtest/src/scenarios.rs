//! What people do at a sale.

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
/// How many people come or go in a second where their coming is not the point.
const STEADY_RAMP: u32 = 50;

/// Lets the people of this scenario come, until they have gone.
pub(crate) async fn run(scenario: &Scenario, place: &Arc<LoadTarget>) -> Result<()> {
    let (reports, verbose, url) = (scenario.reports(), scenario.common().verbose, place.shop.url());
    let (people, plan) = match scenario {
        Scenario::Rush(rush) => (rush::people(place, rush.pause)?, waves(rush.users, rush.step)),
        Scenario::Soak(soak) => {
            (rush::people(place, soak.pause)?, steady(soak.users, soak.run_time_or(SOAK_TIME)))
        }
        Scenario::Browse(browse) => {
            (browse::people(place, browse.pause)?, steady(browse.users, browse.run_time_or(BROWSE_TIME)))
        }
        Scenario::Duplicates(duplicates) => {
            (duplicates::people(place, duplicates.copies), steady(duplicates.users, duplicates.run_time))
        }
        Scenario::Spike(spike) => return spike::run(spike, place, Path::new(&reports)).await,
    };
    attack(people, &plan, url, &reports, verbose).await
}

/// Up in three steps, each steeper than the one before; a while at the height; and down.
fn waves(users: u32, step: Duration) -> Vec<Step> {
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
    fn a_rush_grows_stays_and_goes() {
        let step = Duration::from_secs(6);
        let users = waves(1000, step).into_iter().map(|(users, time)| (users, time == step));
        let expected = [100, 500, 1000, 1000, 0].map(|users| (users, true));
        assert!(users.eq(expected));
    }

    #[test]
    fn a_steady_crowd_stays_as_long_as_it_is_told() {
        let time = Duration::from_secs(60);
        let second = Duration::from_secs;
        assert_eq!(steady(100, time), [(100, second(2)), (100, time), (0, second(0))]);
        assert_eq!(steady(2, time)[0], (2, second(1)), "Goose takes no time at all for a mistake");
    }
}
