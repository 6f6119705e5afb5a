//! Sends single requests: writes the request to the journal, sends it, writes the answer, and only then returns it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use buyers::{
    ANSWER_LIMIT, Answer, AnswerKind, ApiFamily, BuyerClient, PurchaseRequest,
    journal::{Answered, BuyerRequest, Invoked, Journal, JournalEntry, exchanges},
};
use serde::{Deserialize, Serialize};

use super::{buyers::Buyer, crowd::Endpoint};

/// Counts of requests and answers so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// Requests sent.
    pub requests: u64,
    /// Answers that reported a purchase, each compared with its claim.
    pub purchases: u64,
    /// Requests with an unknown outcome; each was retried.
    pub unknown: u64,
    /// Refusals because the sale was not selling.
    pub not_active: u64,
    /// Requests to the single-sale endpoints.
    pub single_sale: u64,
    /// Purchase requests without an `Idempotency-Key`.
    pub without_key: u64,
    /// Attempts without a definite answer at this moment.
    #[serde(skip)]
    pub unresolved: u64,
}

impl Counts {
    /// Counts all requests in a journal.
    pub(crate) fn of(records: &[JournalEntry]) -> Self {
        let mut counts = Self::default();
        exchanges(records)
            .for_each(|exchange| counts.add(exchange.invoked.api, &exchange.invoked.ask, exchange.kind()));
        counts
    }

    fn add(&mut self, api: ApiFamily, ask: &BuyerRequest, kind: AnswerKind) {
        self.requests += 1;
        self.single_sale += u64::from(api == ApiFamily::SingleSale);
        self.without_key += u64::from(ask.attempt().is_some() && ask.key().is_none());
        self.purchases += u64::from(kind == AnswerKind::Purchased);
        self.not_active += u64::from(kind == AnswerKind::NotActive);
        self.unknown += u64::from(!kind.is_definite());
    }
}

/// Sends the requests of one sale's buyers and writes their journal.
#[derive(Clone, Debug)]
pub(crate) struct JournalingClient {
    client: BuyerClient,
    sale: Arc<str>,
    journal: Journal,
    counts: Arc<Mutex<Counts>>,
    /// The CSRF token of all buyers of this sale. Like a browser's, it is kept until a node replaces it.
    token: Arc<Mutex<Option<String>>>,
}

impl JournalingClient {
    pub(crate) fn new(sale: &str, journal: Journal) -> Self {
        let client = BuyerClient::new(ANSWER_LIMIT).of_sale(sale);
        Self { client, sale: sale.into(), journal, counts: Arc::default(), token: Arc::default() }
    }

    pub(crate) fn journal(&self) -> &Journal {
        &self.journal
    }

    pub(crate) fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends one request of this buyer to this endpoint.
    pub(crate) async fn ask(
        &self,
        buyer: &Buyer,
        ask: &BuyerRequest,
        (via, base_url): &Endpoint,
    ) -> Result<Answer> {
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
        let (user, family, key) = (buyer.user.as_str(), buyer.api, ask.key());
        let answer = match ask {
            BuyerRequest::Purchase { .. } => {
                let token = token.as_deref();
                self.client.buy(base_url, PurchaseRequest { user, family, key, token }).await
            }
            BuyerRequest::Lookup => self.client.look_up(base_url, family, user).await,
        };
        self.keep_token(answer.token.clone());
        self.counts().add(buyer.api, ask, answer.kind);
        let answered = Answered::of(request, self.journal.now(), &answer);
        self.journal.append(&JournalEntry::Answered(answered)).await?;
        Ok(answer)
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
}
