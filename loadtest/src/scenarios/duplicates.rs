//! Users who each buy many times at once, as by a double click, an impatient program, or several devices.
//!
//! Half of the purchases are tries of one attempt, with one `Idempotency-Key`; the others are separate attempts. They
//! go to the load balancer and directly to each node. Each user must get one order only.

use std::sync::Arc;

use buyers::ApiFamily;
use futures::future::join_all;
use goose::prelude::*;

use super::visitor::{Visitor, record_all, scenario as new_scenario};
use crate::{attack::record, client::Attempt, target::LoadTarget};

pub(super) fn scenario(target: &Arc<LoadTarget>, copies: u32) -> Scenario {
    let buy_copies: TransactionFunction = Arc::new(move |user| Box::pin(buy_copies(user, copies as usize)));
    new_scenario("duplicates", target)
        .register_transaction(Transaction::new(buy_copies).set_name("stampede"))
        .register_transaction(transaction!(check).set_name("check"))
}

async fn buy_copies(user: &mut GooseUser, copies: usize) -> TransactionResult {
    let mut visitor = Visitor::new(&Visitor::current(user).target);
    visitor.get_token(user).await?;
    let (sale_client, endpoints) = (&visitor.target.sale_client, &visitor.target.endpoints);
    let one = attempt(&visitor);
    let attempts = (0..copies).map(|copy| if copy % 2 == 0 { one.clone() } else { attempt(&visitor) });
    // Tries of one attempt are spread over all endpoints, too.
    let copies = attempts
        .enumerate()
        .map(|(copy, attempt)| sale_client.buy(&endpoints[copy / 2 % endpoints.len()], attempt));
    let exchanges = join_all(copies).await.concat();
    user.set_session_data(visitor);
    record_all(user, &exchanges).await
}

/// Creates an attempt. Uses the by-sale endpoints when there is no token, because the single-sale endpoints require it.
fn attempt(visitor: &Visitor) -> Attempt {
    let family = if visitor.token.is_some() { visitor.family } else { ApiFamily::BySale };
    Attempt::new(Arc::clone(&visitor.id), family, visitor.token.clone())
}

async fn check(user: &mut GooseUser) -> TransactionResult {
    let Visitor { target, id, family, .. } = Visitor::current(user);
    record(user, &target.sale_client.look_up(family, &id).await).await
}
