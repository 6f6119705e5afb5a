//! What every handler has at hand.

use std::sync::Arc;

use service::problem::Problem;
use stock::calls::Attempt;
use stock::ids::{SaleId, UserId};

use super::events::Events;
use super::problems::{unavailable, unknown_sale};
use crate::csrf::CsrfTokens;
use crate::identity::Identity;
use crate::metrics;
use crate::sales::{LiveSale, Outcome, Sales, Unavailable};
use crate::secret::Signer;
use crate::settings::{Origin, Settings};

/// The sales, and which of them is meant where a path names none.
pub struct AppState {
    sales: Sales,
    default_sale: SaleId,
    pub(super) csrf: CsrfTokens,
    origins: Vec<Origin>,
    pub(super) identity: Identity,
    pub(super) events: Events,
    signer: Signer,
}

impl AppState {
    /// A shop of these sales.
    pub fn new(sales: Sales, settings: &Settings, signer: Signer, identity: Identity) -> Self {
        let web = &settings.web;
        Self {
            sales,
            default_sale: settings.sale_id.clone(),
            csrf: CsrfTokens::new(signer.clone(), web.csrf_lifetime),
            origins: web.cors_origins.clone(),
            identity,
            events: Events::new(web.event_listeners_max),
            signer,
        }
    }

    /// Whose pages may ask besides ours.
    pub(crate) fn origins(&self) -> &[Origin] {
        &self.origins
    }

    /// Ends what would go on as long as a client listens.
    pub fn close(&self) {
        self.events.close();
    }

    /// Shows how many listen, for those who ask for metrics.
    pub fn update_gauges(&self) {
        metrics::set_event_listeners(self.events.listeners());
    }

    /// Buys, and has the log say what became of it.
    pub(super) async fn purchase(&self, sale: &LiveSale, attempt: Attempt) -> Outcome {
        let outcome = sale.purchase(&attempt).await;
        let Attempt { user, order, correlation, .. } = &attempt;
        match &outcome {
            Outcome::Purchased(_) => {
                tracing::debug!(user.hash = self.user_hash(user), order.id = %order, "purchased");
            }
            Outcome::Unknown(_) => {
                let user = self.user_hash(user);
                tracing::warn!(
                    correlation.id = %correlation,
                    user.hash = user,
                    order.id = %order,
                    "the outcome of a purchase is unknown"
                );
            }
            _ => {}
        }
        outcome
    }

    /// What stands for a user in the log: the same on every node, and nobody can find out whose it is by trying names.
    fn user_hash(&self, user: &UserId) -> String {
        let signature = self.signer.sign("log", user.as_str().as_bytes());
        signature[..8].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The sale that a path names, or the default one.
    pub(super) async fn sale(&self, named: Option<&SaleId>) -> Result<Arc<LiveSale>, SaleLookupError> {
        let sale = self.sales.get(named.unwrap_or(&self.default_sale)).await;
        sale.map_err(|Unavailable| SaleLookupError::Unavailable)?.ok_or(SaleLookupError::Unknown)
    }
}

/// Why there is no sale to ask.
pub(super) enum SaleLookupError {
    /// There is none of this id.
    Unknown,
    /// There may be one: it could not be read.
    Unavailable,
}

impl From<SaleLookupError> for Problem {
    fn from(error: SaleLookupError) -> Self {
        match error {
            SaleLookupError::Unknown => unknown_sale(),
            SaleLookupError::Unavailable => unavailable(),
        }
    }
}
