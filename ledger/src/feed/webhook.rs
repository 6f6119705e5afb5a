//! Webhooks, as Standard Webhooks defines them: a POST for each event, with its id and a signature.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use axum::body::Bytes;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use axum::http::{HeaderMap, Method, Request, Response, StatusCode};
use futures::{StreamExt as _, stream};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use rustls::RootCertStore;
use service::https;
use tokio::time::timeout;

use super::cloud_event::Event;
use super::settings::WebhookSettings;
use super::sink::{Delivered, Failure, Reason, Sink, SinkName};

/// Most deliveries at once. Events of one shard are delivered one after the other.
const DELIVERIES_AT_ONCE: usize = 8;
/// Longest answer that is read, so that the connection can be used again. It is ignored.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Longest time for the rest of an answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);
/// Frameworks read JSON of this type without further settings.
const JSON: &str = "application/json";
const AGENT: &str = concat!("flashsale-ledger/", env!("CARGO_PKG_VERSION"));

/// Posts to an endpoint. Redirects are not followed.
pub(crate) struct Webhook {
    settings: WebhookSettings,
    client: Client<https::Connector, Full<Bytes>>,
    timeout: Duration,
    answered: AtomicBool,
}

impl Webhook {
    /// Opens no connection yet.
    ///
    /// # Errors
    /// Fails when TLS is used and the system has no certificate authorities.
    pub(crate) fn new(settings: WebhookSettings, timeout: Duration) -> anyhow::Result<Self> {
        let is_tls = settings.url.scheme_str() == Some("https");
        let trusted = match &settings.ca_file {
            Some(file) => file.authorities(),
            None if is_tls => https::system_authorities().context(
                "the system has no certificate authorities; WEBHOOK_CA_FILE names a file with them",
            )?,
            None => RootCertStore::empty(),
        };
        let client = Client::builder(TokioExecutor::new()).build(https::connector(trusted));
        Ok(Self { settings, client, timeout, answered: AtomicBool::new(true) })
    }

    async fn post(&self, event: &Event) -> Result<(), Failure> {
        let sent = timeout(self.timeout, self.client.request(self.request(event))).await;
        let outcome = match sent {
            Err(_) => Err(Failure::new(Reason::Timeout, "the endpoint does not answer")),
            Ok(Err(error)) => Err(Failure::new(Reason::Unreachable, with_causes(&error))),
            Ok(Ok(answer)) => outcome(&answer, SystemTime::now()).map(|()| answer),
        };
        self.answered.store(outcome.is_ok(), Ordering::Relaxed);
        let rest = Limited::new(outcome?.into_body(), ANSWER_BYTES_MAX).collect();
        // The event is delivered, even if the rest of the answer does not come.
        timeout(ANSWER_LIMIT, rest).await.ok();
        Ok(())
    }

    fn request(&self, event: &Event) -> Request<Full<Bytes>> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        Request::builder()
            .method(Method::POST)
            .uri(self.settings.url.clone())
            .header(CONTENT_TYPE, JSON)
            .header(USER_AGENT, AGENT)
            .header("webhook-id", &event.id)
            .header("webhook-timestamp", now)
            .header("webhook-signature", self.settings.secrets.sign(&event.id, now, &event.body))
            .body(Full::new(Bytes::copy_from_slice(&event.body)))
            .expect("an id and a signature are visible ASCII characters")
    }

    /// Delivers events of one shard until one fails, here or in another shard. Returns the places of those that were
    /// delivered, and the failure with its place.
    async fn deliver_shard(
        &self,
        places: Vec<usize>,
        events: &[Event],
        failing: &AtomicBool,
    ) -> (Vec<usize>, Option<(usize, Failure)>) {
        let mut delivered = Vec::new();
        for place in places {
            if failing.load(Ordering::Relaxed) {
                break;
            }
            if let Err(failure) = self.post(&events[place]).await {
                failing.store(true, Ordering::Relaxed);
                return (delivered, Some((place, failure)));
            }
            delivered.push(place);
        }
        (delivered, None)
    }
}

impl Sink for Webhook {
    const NAME: SinkName = SinkName::Webhook;
    const WINDOW_MAX: u32 = 64;

    fn is_ready(&self) -> bool {
        true
    }

    fn is_connected(&self) -> bool {
        self.answered.load(Ordering::Relaxed)
    }

    async fn maintain(&self) {
        std::future::pending::<()>().await;
    }

    async fn deliver(&self, events: &[Event]) -> Delivered {
        let mut shards: BTreeMap<i32, Vec<usize>> = BTreeMap::new();
        for (place, event) in events.iter().enumerate() {
            shards.entry(event.shard).or_default().push(place);
        }
        let failing = AtomicBool::new(false);
        let deliveries = shards.into_values().map(|places| self.deliver_shard(places, events, &failing));
        let outcomes: Vec<_> = stream::iter(deliveries).buffer_unordered(DELIVERIES_AT_ONCE).collect().await;
        let (mut delivered, mut failures) = (BTreeSet::new(), Vec::new());
        for (places, failure) in outcomes {
            delivered.extend(places);
            failures.extend(failure);
        }
        let count = (0..).take_while(|place| delivered.contains(place)).count();
        let first = failures.into_iter().min_by_key(|(place, _)| *place);
        Delivered { count, failure: first.map(|(_, failure)| failure) }
    }
}

/// Returns what the head of an answer means.
fn outcome(answer: &Response<Incoming>, now: SystemTime) -> Result<(), Failure> {
    let status = answer.status();
    let reason = match status {
        StatusCode::GONE => Reason::Gone,
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => {
            Reason::Unavailable
        }
        _ if status.is_success() => return Ok(()),
        _ if status.is_server_error() => Reason::Unavailable,
        _ => Reason::Refused,
    };
    let retry_after = retry_after(answer.headers(), now);
    Err(Failure { retry_after, ..Failure::new(reason, format_args!("the endpoint answers {status}")) })
}

/// Returns how long the endpoint asks to wait: a number of seconds, or a date.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?;
    let seconds = value.parse().ok().map(Duration::from_secs);
    seconds.or_else(|| httpdate::parse_http_date(value).ok()?.duration_since(now).ok())
}

/// Returns an error with its causes, of which the last one names the reason.
fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_a_number_or_a_date() {
        let now = httpdate::parse_http_date("Sat, 21 Nov 2026 20:00:00 GMT").unwrap();
        let wait = |value: &str| {
            let headers: HeaderMap = [(RETRY_AFTER, value.parse().unwrap())].into_iter().collect();
            retry_after(&headers, now)
        };
        assert_eq!(wait("120"), Some(Duration::from_mins(2)));
        assert_eq!(wait("Sat, 21 Nov 2026 20:00:30 GMT"), Some(Duration::from_secs(30)));
        assert_eq!(wait("Sat, 21 Nov 2026 19:00:00 GMT"), None);
        assert_eq!(wait("soon"), None);
    }
}
