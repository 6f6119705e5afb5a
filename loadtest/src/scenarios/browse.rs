//! Users who do not buy: they read the status in either family of calls, and listen to the events for a while.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use goose::prelude::*;
use rand::random;

use super::visitor::{Visitor, scenario as new_scenario};
use crate::{attack::record, target::LoadTarget};

/// Longest time for which a user listens to events.
const LISTEN_MAX: Duration = Duration::from_secs(5);

pub(super) fn scenario(target: &Arc<LoadTarget>, pause: Duration) -> Result<Scenario> {
    let scenario = new_scenario("onlookers", target)
        .set_wait_time(pause / 2, pause * 3 / 2)
        .map_err(|error| anyhow::anyhow!("Goose: {error}"))?;
    Ok(scenario
        .register_transaction(transaction!(look).set_name("look"))
        .register_transaction(transaction!(listen).set_name("listen")))
}

async fn look(user: &mut GooseUser) -> TransactionResult {
    let Visitor { target, family, .. } = Visitor::new(&Visitor::current(user).target);
    record(user, &target.sale_client.status(family).await).await
}

async fn listen(user: &mut GooseUser) -> TransactionResult {
    let target = Visitor::current(user).target;
    let duration = LISTEN_MAX.mul_f64(random());
    record(user, &target.sale_client.listen(duration).await).await
}
