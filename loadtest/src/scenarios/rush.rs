//! People who want one unit each: they look, buy, look their purchase up, and look around once more.
//!
//! Everybody leaves after that and another person comes, as many at a time as the plan says. So there is no end of
//! people who have not bought yet, which is what a crowd is.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use goose::prelude::*;
use rand::random_ratio;

use super::visitor::{Visitor, people as people_of, record_all};
use crate::{answers::AnswerKind, attack::record, client::Attempt, target::LoadTarget};

/// One in so many who have a unit wants another.
const GREEDY: u32 = 10;

/// Half of them by each family of calls, where the sale has both.
pub(super) fn people(place: &Arc<LoadTarget>, pause: Duration) -> Result<Scenario> {
    let people = people_of("buyers", place)
        .set_wait_time(pause / 2, pause * 3 / 2)
        .map_err(|error| anyhow::anyhow!("Goose: {error}"))?;
    Ok(people
        .register_transaction(transaction!(arrive).set_name("arrive"))
        .register_transaction(transaction!(buy).set_name("buy"))
        .register_transaction(transaction!(check).set_name("check"))
        .register_transaction(transaction!(linger).set_name("linger")))
}

async fn arrive(user: &mut GooseUser) -> TransactionResult {
    let mut visitor = Visitor::somebody(&Visitor::of(user).place);
    record(user, &visitor.place.shop.status(visitor.family).await).await?;
    visitor.get_token(user).await?;
    user.set_session_data(visitor);
    Ok(())
}

async fn buy(user: &mut GooseUser) -> TransactionResult {
    let mut visitor = Visitor::of(user);
    let attempt = Attempt::new(Arc::clone(&visitor.id), visitor.family, visitor.token.clone());
    let shop = &visitor.place.shop;
    let tries = shop.buy(shop.url(), attempt).await;
    visitor.has_bought = tries.last().is_some_and(|last| last.answer.kind == AnswerKind::Purchased);
    user.set_session_data(visitor);
    record_all(user, &tries).await
}

async fn check(user: &mut GooseUser) -> TransactionResult {
    let Visitor { place, id, family, .. } = Visitor::of(user);
    record(user, &place.shop.look_up(family, &id).await).await
}

async fn linger(user: &mut GooseUser) -> TransactionResult {
    let visitor = Visitor::of(user);
    record(user, &visitor.place.shop.status(visitor.family).await).await?;
    if visitor.has_bought && random_ratio(1, GREEDY) { buy(user).await } else { Ok(()) }
}
