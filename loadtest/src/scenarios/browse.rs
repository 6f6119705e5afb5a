//! People who do not buy: they look at the status by either family, and follow the events for a while.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use goose::prelude::*;
use rand::random;

use super::visitor::{Visitor, people as people_of};
use crate::{attack::record, target::LoadTarget};

/// How long a person follows the sale before the next click, at most.
const LISTEN_MAX: Duration = Duration::from_secs(5);

pub(super) fn people(place: &Arc<LoadTarget>, pause: Duration) -> Result<Scenario> {
    let people = people_of("onlookers", place)
        .set_wait_time(pause / 2, pause * 3 / 2)
        .map_err(|error| anyhow::anyhow!("Goose: {error}"))?;
    Ok(people
        .register_transaction(transaction!(look).set_name("look"))
        .register_transaction(transaction!(listen).set_name("listen")))
}

async fn look(user: &mut GooseUser) -> TransactionResult {
    let Visitor { place, family, .. } = Visitor::somebody(&Visitor::of(user).place);
    record(user, &place.shop.status(family).await).await
}

async fn listen(user: &mut GooseUser) -> TransactionResult {
    let place = Visitor::of(user).place;
    let duration = LISTEN_MAX.mul_f64(random());
    record(user, &place.shop.listen(duration).await).await
}
