//! Sends single requests: writes the request to the journal, sends it, writes the answer, and only then returns it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Result;
use reqwest::{Client, RequestBuilder, Response, header::RETRY_AFTER};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    buyers::Buyer,
    crowd::Endpoint,
    csrf::{CsrfToken, cookie_of},
};
use crate::journal::{Answered, ApiFamily, BuyerRequest, Invoked, Journal, JournalEntry, Reported};

/// Time limit of a request. Nodes and nginx answer or give up well before; later the buyer counts the answer as lost.
const ANSWER_LIMIT: Duration = Duration::from_secs(15);

/// Pause before a retry when the answer has no `Retry-After`.
const RETRY_AFTER_DEFAULT: Duration = Duration::from_millis(200);

/// Counts of requests and answers so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests sent.
    pub requests: u64,
    /// Answers that reported a purchase.
    pub purchases: u64,
    /// Requests with an unknown outcome.
    pub unknown: u64,
    /// Refusals because the sale was not selling.
    pub not_active: u64,
    /// Requests to the single-sale endpoints.
    pub single_sale: u64,
    /// Purchase requests without an `Idempotency-Key`.
    pub without_key: u64,
    /// Attempts without a definite answer at this moment.
    pub unresolved: u64,
}

impl std::ops::Add for Counts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            requests: self.requests + other.requests,
            purchases: self.purchases + other.purchases,
            unknown: self.unknown + other.unknown,
            not_active: self.not_active + other.not_active,
            single_sale: self.single_sale + other.single_sale,
            without_key: self.without_key + other.without_key,
            unresolved: self.unresolved + other.unresolved,
        }
    }
}

/// Sends the requests of one sale's buyers and writes their journal.
#[derive(Clone, Debug)]
pub(crate) struct JournalingClient {
    client: Client,
    sale: Arc<str>,
    journal: Journal,
    counters: Arc<Counters>,
    csrf: Arc<CsrfToken>,
}

#[derive(Debug, Default)]
struct Counters {
    requests: AtomicU64,
    purchases: AtomicU64,
    unknown: AtomicU64,
    not_active: AtomicU64,
    single_sale: AtomicU64,
    without_key: AtomicU64,
}

/// Outcome of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestOutcome {
    /// The user has a unit.
    Bought,
    /// The user has no unit and will not get one.
    Denied,
    /// The sale is not selling now; another attempt later may get a unit.
    NotActive,
    /// The outcome is unknown. Contains the pause before the retry.
    Unknown(Duration),
}

impl JournalingClient {
    pub(crate) fn new(sale: &str, journal: Journal) -> Self {
        let client = Client::builder().timeout(ANSWER_LIMIT).build();
        let client = client.expect("a client without TLS can be built");
        Self { client, sale: sale.into(), journal, counters: Arc::default(), csrf: Arc::default() }
    }

    pub(crate) fn journal(&self) -> &Journal {
        &self.journal
    }

    pub(crate) fn counts(&self) -> Counts {
        let counters = &*self.counters;
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            requests: load(&counters.requests),
            purchases: load(&counters.purchases),
            unknown: load(&counters.unknown),
            not_active: load(&counters.not_active),
            single_sale: load(&counters.single_sale),
            without_key: load(&counters.without_key),
            unresolved: 0,
        }
    }

    /// Sends one request of this buyer to this endpoint.
    pub(crate) async fn ask(
        &self,
        buyer: &Buyer,
        ask: &BuyerRequest,
        (via, base_url): &Endpoint,
    ) -> Result<RequestOutcome> {
        if buyer.api == ApiFamily::SingleSale {
            self.csrf.prepare(&self.client, base_url).await;
        }
        let request = self.journal.next_request();
        let prepared = self.request(base_url, buyer, ask);
        let invoked = Invoked {
            request,
            at: self.journal.now(),
            sale: self.sale.to_string(),
            api: buyer.api,
            user: buyer.user.to_string(),
            shard: buyer.home.index() as u16,
            via: via.clone(),
            ask: ask.clone(),
        };
        self.journal.append(&JournalEntry::Invoked(invoked)).await?;
        let (mut answered, pause) = self.read(prepared.send().await).await;
        (answered.request, answered.at) = (request, self.journal.now());
        self.count_request(buyer.api, ask);
        let outcome = self.count(&answered.reported(ask), pause);
        self.journal.append(&JournalEntry::Answered(answered)).await?;
        Ok(outcome)
    }

    fn request(&self, base_url: &str, buyer: &Buyer, ask: &BuyerRequest) -> RequestBuilder {
        let user = buyer.user.as_str();
        let url = match buyer.api {
            ApiFamily::BySale => format!("{base_url}/api/sales/{}/purchase", self.sale),
            ApiFamily::SingleSale => format!("{base_url}/api/purchase"),
        };
        let post = || {
            let post = self.client.post(&url).json(&json!({ "userId": user }));
            if buyer.api == ApiFamily::SingleSale { self.csrf.add_to(post) } else { post }
        };
        match ask {
            BuyerRequest::Purchase { key, .. } => post().header("idempotency-key", key),
            BuyerRequest::PurchaseWithoutKey { .. } => post(),
            BuyerRequest::Lookup => self.client.get(format!("{url}/{user}")),
        }
    }

    fn count_request(&self, api: ApiFamily, ask: &BuyerRequest) {
        self.counters.requests.fetch_add(1, Ordering::Relaxed);
        if api == ApiFamily::SingleSale {
            self.counters.single_sale.fetch_add(1, Ordering::Relaxed);
        }
        if matches!(ask, BuyerRequest::PurchaseWithoutKey { .. }) {
            self.counters.without_key.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn count(&self, reported: &Reported<'_>, pause: Duration) -> RequestOutcome {
        let counters = &self.counters;
        let (counter, outcome) = match reported {
            Reported::Purchased(_) => (&counters.purchases, RequestOutcome::Bought),
            Reported::Has(_) => return RequestOutcome::Bought,
            Reported::HasNone | Reported::SoldOut | Reported::Refused(_) => return RequestOutcome::Denied,
            Reported::NotActive => (&counters.not_active, RequestOutcome::NotActive),
            // The node may not know a new sale yet: it reads the list of sales several times per second.
            Reported::NoSale => return RequestOutcome::NotActive,
            Reported::Unknown => (&counters.unknown, RequestOutcome::Unknown(pause)),
        };
        counter.fetch_add(1, Ordering::Relaxed);
        outcome
    }

    async fn read(&self, sent: reqwest::Result<Response>) -> (Answered, Duration) {
        let received = match sent {
            Ok(response) => {
                let (status, pause) = (response.status().as_u16(), retry_after(&response));
                let cookie = cookie_of(&response);
                response.bytes().await.map(|body| (status, body, pause, cookie))
            }
            Err(error) => Err(error),
        };
        match received {
            Ok((status, body, pause, cookie)) => {
                self.csrf.keep(cookie, &body);
                let body: Body = serde_json::from_slice(&body).unwrap_or_default();
                let (order, reason) = (body.order_id.clone(), body.refusal(status));
                (Answered { status: Some(status), reason, order, ..Answered::default() }, pause)
            }
            Err(error) => {
                (Answered { reason: Some(format!("{error:?}")), ..Answered::default() }, RETRY_AFTER_DEFAULT)
            }
        }
    }
}

/// The fields of an answer's body that a buyer reads, in both families of endpoints.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    reason: Option<String>,
    order_id: Option<String>,
    error: Option<String>,
    /// Text in the single-sale endpoints, a number in a problem document.
    status: Option<Value>,
}

impl Body {
    /// Returns the reason of a refusal. The single-sale endpoints have it in `error` or `status`. Beside an `error`, its
    /// `reason` only says what is wrong with the token.
    fn refusal(self, status: u16) -> Option<String> {
        let word = self.status.as_ref().and_then(Value::as_str).filter(|_| status != 200);
        self.error.or(self.reason).or(word.map(String::from))
    }
}

pub(crate) fn retry_after(response: &Response) -> Duration {
    let seconds = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    seconds.map_or(RETRY_AFTER_DEFAULT, Duration::from_secs)
}
