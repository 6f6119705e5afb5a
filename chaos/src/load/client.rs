//! Sends single requests: writes the request to the journal, sends it, writes the answer, and only then returns it.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};
use std::time::Duration;

use anyhow::Result;
use buyers::{
    ANSWER_LIMIT, Answer, AnswerKind, ApiFamily, BuyerClient, PurchaseRequest,
    journal::{Answered, BuyerRequest, Invoked, Journal, JournalEntry},
    retry_pause,
};

use super::{buyers::Buyer, crowd::Endpoint};

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
    client: BuyerClient,
    sale: Arc<str>,
    journal: Journal,
    counters: Arc<Counters>,
    /// The CSRF token of all buyers of this sale. Like a browser's, it is kept until a node replaces it.
    token: Arc<Mutex<Option<String>>>,
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
        let client = BuyerClient::new(Some(sale), ANSWER_LIMIT);
        Self { client, sale: sale.into(), journal, counters: Arc::default(), token: Arc::default() }
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
        let token = self.token(buyer.api, base_url).await;
        let request = self.journal.next_request();
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
        let answer = self.send(base_url, buyer, ask, token.as_deref()).await;
        let answered = Answered::of(request, self.journal.now(), &answer);
        self.keep_token(answer.token);
        self.count_request(buyer.api, ask);
        let outcome = self.count(answered.kind(ask), answer.retry_after);
        self.journal.append(&JournalEntry::Answered(answered)).await?;
        Ok(outcome)
    }

    async fn send(&self, base_url: &str, buyer: &Buyer, ask: &BuyerRequest, token: Option<&str>) -> Answer {
        let (user, family) = (buyer.user.as_str(), buyer.api);
        let key = match ask {
            BuyerRequest::Purchase { key, .. } => Some(key.as_str()),
            BuyerRequest::PurchaseWithoutKey { .. } => None,
            BuyerRequest::Lookup => return self.client.look_up(base_url, family, user).await,
        };
        self.client.buy(base_url, PurchaseRequest { user, family, key, token }).await
    }

    /// Returns the token for a request, and requests the first one. Ignores failures of that: the answer to a purchase brings
    /// a token, too.
    async fn token(&self, family: ApiFamily, base_url: &str) -> Option<String> {
        if family == ApiFamily::BySale {
            return None;
        }
        let known = self.token.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if known.is_some() {
            return known;
        }
        let token = self.client.csrf(base_url).await.token;
        self.keep_token(token.clone());
        token
    }

    fn keep_token(&self, token: Option<String>) {
        if token.is_some() {
            *self.token.lock().unwrap_or_else(PoisonError::into_inner) = token;
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

    fn count(&self, kind: AnswerKind, retry_after: Option<Duration>) -> RequestOutcome {
        let counters = &self.counters;
        let (counter, outcome) = match kind {
            AnswerKind::Purchased => (&counters.purchases, RequestOutcome::Bought),
            AnswerKind::NotActive => (&counters.not_active, RequestOutcome::NotActive),
            // The node may not know a new sale yet: it reads the list of sales several times per second.
            AnswerKind::NoSale => return RequestOutcome::NotActive,
            kind if kind.has_unit() => return RequestOutcome::Bought,
            kind if kind.is_definite() => return RequestOutcome::Denied,
            _ => (&counters.unknown, RequestOutcome::Unknown(retry_pause(retry_after))),
        };
        counter.fetch_add(1, Ordering::Relaxed);
        outcome
    }
}
