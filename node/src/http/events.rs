//! `GET events`: streams a sale's status to listening clients whenever it changes.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::Response;
use service::events::{self, EVENT_PERIOD, EventPublisher, stream_of};
use service::problem::Problem;
use stock::ids::SaleId;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};
use utoipa::IntoResponses;

use super::AppState;
use super::by_sale::{StatusBody, TAG};
use super::client::Client;
use super::openapi::schemas::Event;
use super::openapi::{Answers, Responses, samples};
use super::problems::{too_many_listeners, unavailable, unknown_sale};
use super::request::SalePath;
use crate::sales::SaleView;

/// An empty comment is sent after this time without an event, because proxies close silent connections.
const HEARTBEAT_PERIOD: Duration = Duration::from_secs(10);

/// Listeners of each sale.
pub(crate) type Events = events::EventHub<SaleId>;

/// Streams the status of the sale.
///
/// Server-sent events of the type `status`, each with the response of `GET status`: one at once, then one for each
/// change, at most five a second. After 10 seconds without an event a comment is sent. A stream ends after 10 to 15
/// minutes; the client opens the next one.
#[utoipa::path(get, path = "/events", tag = TAG, responses(Event))]
pub(crate) async fn events(
    State(state): State<Arc<AppState>>,
    client: Option<Extension<Client>>,
    path: SalePath,
) -> Result<Response, Problem> {
    let sale = state.sale(path.sale.as_ref()).await?;
    let greeting = event(&StatusBody::of(&sale.status()));
    let network = client.and_then(|Extension(client)| state.network_of_listener(&client));
    let publish_changes = |publisher| publish_changes(sale.views(), publisher);
    let stream = state.events.listen(sale.config().id.clone(), network, &greeting, publish_changes);
    stream.map(stream_of).ok_or_else(too_many_listeners)
}

impl IntoResponses for Event {
    fn responses() -> Responses {
        let sample = stream_of(event(&StatusBody::of(&samples::status())).into());
        Answers::default()
            .answer::<Self>("The status, sent whenever it changes", sample)
            .problems([unknown_sale(), unavailable(), too_many_listeners()])
            .into()
    }
}

/// Publishes each change of the status while the node serves the sale, and until it has no listeners at a heartbeat.
async fn publish_changes(mut views: watch::Receiver<Arc<SaleView>>, publisher: EventPublisher) {
    let mut sent: Option<StatusBody> = None;
    let mut heartbeat_at = Instant::now();
    loop {
        let status = StatusBody::of(&views.borrow_and_update().status());
        if sent.as_ref().is_none_or(|sent| !sent.equals_except_time(&status)) {
            publisher.publish(event(&status));
            sent = Some(status);
            heartbeat_at = Instant::now() + HEARTBEAT_PERIOD;
        } else if heartbeat_at <= Instant::now() {
            if !publisher.has_listeners() {
                return;
            }
            publisher.send_heartbeat();
            heartbeat_at = Instant::now() + HEARTBEAT_PERIOD;
        }
        sleep_until(Instant::now() + EVENT_PERIOD).await;
        if let Ok(Err(_no_longer_served)) = timeout_at(heartbeat_at, views.changed()).await {
            return;
        }
    }
}

/// Serializes a status event.
fn event(status: &StatusBody) -> Bytes {
    events::event("status", status)
}
