//! Users who want one unit each: they read the status, buy, look their purchase up, and read the status once more.
//!
//! After that a new user takes the place, so that the number of users follows the plan and there are always users who
//! have not bought yet.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use buyers::AnswerKind;
use goose::prelude::*;
use rand::random_ratio;

use super::visitor::{Visitor, record_all, scenario as new_scenario};
use crate::{attack::record, client::Attempt, target::LoadTarget};

/// One in this many users with a unit tries to buy another one.
const REPEAT_BUYERS_ONE_IN: u32 = 10;

/// Returns the scenario. Half of the users use each family of calls, if the sale supports both.
pub(super) fn scenario(target: &Arc<LoadTarget>, pause: Duration) -> Result<Scenario> {
    let scenario = new_scenario("buyers", target)
        .set_wait_time(pause / 2, pause * 3 / 2)
        .map_err(|error| anyhow::anyhow!("Goose: {error}"))?;
    Ok(scenario
        .register_transaction(transaction!(arrive).set_name("arrive"))
        .register_transaction(transaction!(buy).set_name("buy"))
        .register_transaction(transaction!(check).set_name("check"))
        .register_transaction(transaction!(linger).set_name("linger")))
}

async fn arrive(user: &mut GooseUser) -> TransactionResult {
    let mut visitor = Visitor::new(&Visitor::current(user).target);
    record(user, &visitor.target.sale_client.status(visitor.family).await).await?;
    visitor.get_token(user).await?;
    user.set_session_data(visitor);
    Ok(())
}

async fn buy(user: &mut GooseUser) -> TransactionResult {
    let mut visitor = Visitor::current(user);
    let attempt = Attempt::new(Arc::clone(&visitor.id), visitor.family, visitor.token.clone());
    let sale_client = &visitor.target.sale_client;
    let tries = sale_client.buy(sale_client.url(), attempt).await;
    visitor.has_bought = tries.last().is_some_and(|last| last.answer.kind == AnswerKind::Purchased);
    user.set_session_data(visitor);
    record_all(user, &tries).await
}

async fn check(user: &mut GooseUser) -> TransactionResult {
    let Visitor { target, id, family, .. } = Visitor::current(user);
    record(user, &target.sale_client.look_up(family, &id).await).await
}

async fn linger(user: &mut GooseUser) -> TransactionResult {
    let visitor = Visitor::current(user);
    record(user, &visitor.target.sale_client.status(visitor.family).await).await?;
    if visitor.has_bought && random_ratio(1, REPEAT_BUYERS_ONE_IN) { buy(user).await } else { Ok(()) }
}
