//! State of a Goose user, which represents one visitor after the other.

use std::{pin::Pin, sync::Arc};

use buyers::ApiFamily;
use goose::goose::{GooseUser, Scenario, Transaction, TransactionFunction, TransactionResult};
use rand::random;

use crate::{attack::record, client::Exchange, target::LoadTarget};

/// The visitor that a Goose user currently represents.
#[derive(Clone, Debug)]
pub(super) struct Visitor {
    pub(super) target: Arc<LoadTarget>,
    pub(super) id: Arc<str>,
    pub(super) family: ApiFamily,
    pub(super) token: Option<String>,
    /// True when the last purchase brought a unit.
    pub(super) has_bought: bool,
}

impl Visitor {
    /// Creates a visitor with a new user id.
    pub(super) fn new(target: &Arc<LoadTarget>) -> Self {
        let family = target.sale_client.any_family();
        let id = format!("load-{:016x}", random::<u64>()).into();
        Self { target: Arc::clone(target), id, family, token: None, has_bought: false }
    }

    /// Returns the current visitor of a Goose user.
    pub(super) fn current(user: &GooseUser) -> Self {
        user.get_session_data_unchecked::<Self>().clone()
    }

    /// Requests a CSRF token if the family of calls requires one, and in half of all other cases, where it is accepted,
    /// too.
    pub(super) async fn get_token(&mut self, user: &mut GooseUser) -> TransactionResult {
        if self.family == ApiFamily::SingleSale || random() {
            let exchange = self.target.sale_client.csrf().await;
            record(user, &exchange).await?;
            self.token = exchange.answer.token;
        }
        Ok(())
    }
}

/// Creates a scenario without transactions, which counts the users that start and stop.
pub(super) fn scenario(name: &str, target: &Arc<LoadTarget>) -> Scenario {
    let (target_on_start, target_on_stop) = (Arc::clone(target), Arc::clone(target));
    let on_start: TransactionFunction = Arc::new(move |user| {
        target_on_start.sale_client.tally.user_started();
        user.set_session_data(Visitor::new(&target_on_start));
        done()
    });
    let on_stop: TransactionFunction = Arc::new(move |_| {
        target_on_stop.sale_client.tally.user_stopped();
        done()
    });
    Scenario::new(name)
        .register_transaction(Transaction::new(on_start).set_name("come").set_on_start())
        .register_transaction(Transaction::new(on_stop).set_name("go").set_on_stop())
}

/// Records all of these requests in Goose's statistics.
pub(super) async fn record_all(user: &mut GooseUser, exchanges: &[Exchange]) -> TransactionResult {
    for exchange in exchanges {
        record(user, exchange).await?;
    }
    Ok(())
}

fn done<'a>() -> Pin<Box<dyn Future<Output = TransactionResult> + Send + 'a>> {
    Box::pin(async { Ok(()) })
}
