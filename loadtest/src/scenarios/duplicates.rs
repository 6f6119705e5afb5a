//! People who buy many times at once: by a double click, by an impatient program, by several ways.
//!
//! Half of the copies are tries of one attempt, with one `Idempotency-Key`; the others are attempts of their own. They
//! go to the load balancer and past it, to each node. One order may ever be told.

use std::sync::Arc;

use futures::future::join_all;
use goose::prelude::*;

use super::visitor::{Visitor, people as people_of, record_all};
use crate::{answers::ApiFamily, attack::record, client::Attempt, target::LoadTarget};

pub(super) fn people(place: &Arc<LoadTarget>, copies: u32) -> Scenario {
    let stampede: TransactionFunction = Arc::new(move |user| Box::pin(stampede(user, copies as usize)));
    people_of("duplicates", place)
        .register_transaction(Transaction::new(stampede).set_name("stampede"))
        .register_transaction(transaction!(check).set_name("check"))
}

async fn stampede(user: &mut GooseUser, copies: usize) -> TransactionResult {
    let mut visitor = Visitor::somebody(&Visitor::of(user).place);
    visitor.get_token(user).await?;
    let (shop, ways) = (&visitor.place.shop, &visitor.place.ways);
    let one = attempt(&visitor);
    let attempts = (0..copies).map(|copy| if copy % 2 == 0 { one.clone() } else { attempt(&visitor) });
    // Copies of one attempt take every way, too.
    let copies = attempts.enumerate().map(|(copy, attempt)| shop.buy(&ways[copy / 2 % ways.len()], attempt));
    let told = join_all(copies).await.concat();
    user.set_session_data(visitor);
    record_all(user, &told).await
}

/// Both families agree on what an attempt is, but each asks for its own things.
fn attempt(visitor: &Visitor) -> Attempt {
    let family = if visitor.token.is_some() { visitor.family } else { ApiFamily::BySale };
    Attempt::new(Arc::clone(&visitor.id), family, visitor.token.clone())
}

async fn check(user: &mut GooseUser) -> TransactionResult {
    let Visitor { place, id, family, .. } = Visitor::of(user);
    record(user, &place.shop.look_up(family, &id).await).await
}
