//! State that all handlers share.

use std::sync::Arc;

use ipnet::IpNet;
use service::network::ClientNetwork;
use service::problem::Problem;
use stock::calls::Attempt;
use stock::ids::{SaleId, UserId};
use stock::sale::SaleConfig;
use url::Url;

use super::caller::{Caller, RequestError};
use super::client::Client;
use super::events::Events;
use super::problems::{unavailable, unknown_sale};
use super::request::PurchaseRequest;
use crate::csrf::CsrfTokens;
use crate::identity::Identity;
use crate::limits::{Limits, UserAction};
use crate::metrics;
use crate::sales::{LiveSale, Outcome, Sales, Unavailable};
use crate::secret::Signer;
use crate::settings::{Origin, Settings};

/// The sales, the default sale, and everything else that handlers need.
pub struct AppState {
    sales: Sales,
    default_sale: SaleId,
    pub(super) csrf: CsrfTokens,
    origins: Vec<Origin>,
    pub(super) identity: Arc<Identity>,
    limits: Arc<Limits>,
    pub(super) events: Events,
    shows_documentation: bool,
    networks_without_share: Vec<IpNet>,
    sign_in_url: Option<Url>,
    signer: Signer,
}

impl AppState {
    /// Creates the state for these sales.
    pub fn new(
        sales: Sales,
        settings: &Settings,
        signer: Signer,
        identity: Arc<Identity>,
        limits: Arc<Limits>,
    ) -> Self {
        let web = &settings.web;
        Self {
            sales,
            default_sale: settings.sale_id.clone(),
            csrf: CsrfTokens::new(signer.clone(), web.csrf_lifetime),
            origins: web.cors_origins.clone(),
            identity,
            shows_documentation: web.api_docs,
            limits,
            events: Events::new(web.event_listeners_max),
            networks_without_share: settings.networks_without_share(),
            sign_in_url: settings.auth.sign_in_url.clone(),
            signer,
        }
    }

    /// Returns the other sites whose pages may call the API.
    pub(crate) fn origins(&self) -> &[Origin] {
        &self.origins
    }

    /// Returns true if the API documentation is served.
    pub(crate) fn shows_documentation(&self) -> bool {
        self.shows_documentation
    }

    /// Returns the page on which the shop signs buyers in.
    pub(crate) fn sign_in_url(&self) -> Option<&Url> {
        self.sign_in_url.as_ref()
    }

    /// Ends all event streams.
    pub fn close(&self) {
        self.events.close();
    }

    /// Sets the gauge of event listeners.
    pub fn update_gauges(&self) {
        metrics::set_event_listeners(self.events.listeners());
    }

    /// Returns the network that a client's event streams are counted for, if its share is limited.
    pub(super) fn network_of_listener(&self, client: &Client) -> Option<ClientNetwork> {
        let is_unlimited =
            self.networks_without_share.iter().any(|network| network.contains(&client.address));
        (!is_unlimited).then(|| ClientNetwork::of(client.address))
    }

    /// Returns the attempt that a request makes. An unverified user's attempts are counted here, because the user id is
    /// in the body; those of a verified user were counted before.
    ///
    /// # Errors
    /// Fails when the user id is invalid, names another user than the token, or made too many attempts.
    pub(super) async fn attempt(
        &self,
        request: PurchaseRequest,
        sale: &SaleConfig,
        caller: &Caller,
    ) -> Result<Arc<Attempt>, RequestError> {
        let client = request.client;
        let attempt = Arc::new(request.attempt(sale, caller)?);
        if let (Caller::Unverified, Some(client)) = (caller, client) {
            let action = UserAction::unverified_purchase(client.address, attempt.user.as_str());
            self.limits.user(&action).await.map_err(RequestError::Limited)?;
        }
        Ok(attempt)
    }

    /// Buys one unit and logs the outcome.
    pub(super) async fn purchase(
        &self,
        sale: &LiveSale,
        attempt: Arc<Attempt>,
        client: Option<Client>,
    ) -> Outcome {
        let limit = client.and_then(|client| self.limits.units(client.address));
        let outcome = sale.purchase(&attempt, limit).await;
        let Attempt { user, order, correlation, .. } = &*attempt;
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

    /// Returns a pseudonym of a user for the log. It is the same on every node, and cannot be reversed by trying user
    /// ids.
    fn user_hash(&self, user: &UserId) -> String {
        let signature = self.signer.sign("log", user.as_str().as_bytes());
        signature[..8].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Returns the named sale, or the default one.
    pub(super) async fn sale(&self, named: Option<&SaleId>) -> Result<Arc<LiveSale>, SaleLookupError> {
        let sale = self.sales.get(named.unwrap_or(&self.default_sale)).await;
        sale.map_err(|Unavailable| SaleLookupError::Unavailable)?.ok_or(SaleLookupError::Unknown)
    }
}

/// Reasons why a sale cannot be used.
pub(super) enum SaleLookupError {
    /// No sale has this id.
    Unknown,
    /// The sale may exist, but could not be read.
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
