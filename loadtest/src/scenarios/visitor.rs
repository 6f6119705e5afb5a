//! One of Goose's users, who is one person after the other.

use std::{pin::Pin, sync::Arc};

use goose::goose::{GooseUser, Scenario, Transaction, TransactionFunction, TransactionResult};
use rand::random;

use crate::{answers::ApiFamily, attack::record, client::Exchange, target::LoadTarget};

/// The person that a user is at the moment.
#[derive(Clone, Debug)]
pub(super) struct Visitor {
    pub(super) place: Arc<LoadTarget>,
    pub(super) id: Arc<str>,
    pub(super) family: ApiFamily,
    pub(super) token: Option<String>,
    /// Whether the last purchase brought a unit.
    pub(super) has_bought: bool,
}

impl Visitor {
    /// Somebody who was never here before.
    pub(super) fn somebody(place: &Arc<LoadTarget>) -> Self {
        let family = place.shop.any_family();
        let id = format!("load-{:016x}", random::<u64>()).into();
        Self { place: Arc::clone(place), id, family, token: None, has_bought: false }
    }

    /// Who this user is.
    pub(super) fn of(user: &GooseUser) -> Self {
        user.get_session_data_unchecked::<Self>().clone()
    }

    /// Gets a token where the family asks for one, and in half of all other cases: a good one is welcome there, too.
    pub(super) async fn get_token(&mut self, user: &mut GooseUser) -> TransactionResult {
        if self.family == ApiFamily::Single || random() {
            let exchange = self.place.shop.csrf().await;
            record(user, &exchange).await?;
            self.token = exchange.answer.token;
        }
        Ok(())
    }
}

/// A scenario of people at this place, without anything to do yet. Who comes and goes is counted.
pub(super) fn people(name: &str, place: &Arc<LoadTarget>) -> Scenario {
    let (here, there) = (Arc::clone(place), Arc::clone(place));
    let come: TransactionFunction = Arc::new(move |user| {
        here.shop.tally.user_comes();
        user.set_session_data(Visitor::somebody(&here));
        done()
    });
    let go: TransactionFunction = Arc::new(move |_| {
        there.shop.tally.user_goes();
        done()
    });
    Scenario::new(name)
        .register_transaction(Transaction::new(come).set_name("come").set_on_start())
        .register_transaction(Transaction::new(go).set_name("go").set_on_stop())
}

/// Tells Goose of all of these.
pub(super) async fn record_all(user: &mut GooseUser, exchanges: &[Exchange]) -> TransactionResult {
    for exchange in exchanges {
        record(user, exchange).await?;
    }
    Ok(())
}

fn done<'a>() -> Pin<Box<dyn Future<Output = TransactionResult> + Send + 'a>> {
    Box::pin(async { Ok(()) })
}
