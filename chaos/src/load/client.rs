//! One request, by the book: written down, sent, its answer written down, and only then believed.

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
use serde_json::json;

use crate::journal::{Answered, Ask, Invoked, Journal, Record, Told};

/// A node answers or gives up well before, and nginx too; without an answer by then the buyer counts it as lost.
const ANSWER_LIMIT: Duration = Duration::from_secs(15);

/// How long a buyer waits before trying again where the answer does not say.
const RETRY_AFTER_DEFAULT: Duration = Duration::from_millis(200);

/// What was asked and told so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests sent.
    pub requests: u64,
    /// Purchases told.
    pub purchases: u64,
    /// Requests whose answer left things unknown.
    pub unknown: u64,
    /// Attempts that have no definite answer yet.
    pub in_doubt: u64,
}

/// Sends requests of one sale and keeps their journal.
#[derive(Clone, Debug)]
pub(crate) struct Teller {
    client: Client,
    sale: Arc<str>,
    journal: Journal,
    counters: Arc<Counters>,
}

#[derive(Debug, Default)]
struct Counters {
    requests: AtomicU64,
    purchases: AtomicU64,
    unknown: AtomicU64,
}

/// What came of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The user has a unit.
    Bought,
    /// The user has none, and will not get one.
    Denied,
    /// Nothing is certain; how long to wait before asking again.
    Nothing(Duration),
}

impl Teller {
    pub(crate) fn new(sale: &str, journal: Journal) -> Self {
        let client = Client::builder().timeout(ANSWER_LIMIT).build();
        let client = client.expect("a client without TLS has nothing that could fail");
        Self { client, sale: sale.into(), journal, counters: Arc::default() }
    }

    pub(crate) fn journal(&self) -> &Journal {
        &self.journal
    }

    pub(crate) fn counts(&self) -> Counts {
        let Counters { requests, purchases, unknown } = &*self.counters;
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts { requests: load(requests), purchases: load(purchases), unknown: load(unknown), in_doubt: 0 }
    }

    /// One request to whoever is at `base_url`, who is called `via`.
    pub(crate) async fn ask(
        &self,
        user: &str,
        shard: u16,
        ask: &Ask,
        (via, base_url): (&str, &str),
    ) -> Result<Heard> {
        let request = self.journal.next_request();
        let (at, user, via) = (self.journal.now(), user.to_owned(), via.to_owned());
        let prepared = self.request(base_url, &user, ask);
        let invoked = Invoked { request, at, user, shard, via, ask: ask.clone() };
        self.journal.note(&Record::Invoked(invoked)).await?;
        let (mut answered, pause) = read(prepared.send().await).await;
        (answered.request, answered.at) = (request, self.journal.now());
        let heard = self.count(&answered.told(ask), pause);
        self.journal.note(&Record::Answered(answered)).await?;
        Ok(heard)
    }

    fn request(&self, base_url: &str, user: &str, ask: &Ask) -> RequestBuilder {
        let url = format!("{base_url}/api/sales/{}/purchase", self.sale);
        match ask {
            Ask::Purchase { key, .. } => {
                self.client.post(url).header("idempotency-key", key).json(&json!({ "userId": user }))
            }
            Ask::Lookup => self.client.get(format!("{url}/{user}")),
        }
    }

    fn count(&self, told: &Told<'_>, pause: Duration) -> Heard {
        self.counters.requests.fetch_add(1, Ordering::Relaxed);
        match told {
            Told::Purchased(_) => {
                self.counters.purchases.fetch_add(1, Ordering::Relaxed);
                Heard::Bought
            }
            Told::Has(_) => Heard::Bought,
            Told::HasNone | Told::Refused(_) => Heard::Denied,
            Told::Unknown => {
                self.counters.unknown.fetch_add(1, Ordering::Relaxed);
                Heard::Nothing(pause)
            }
        }
    }
}

/// The fields of an answer's body that a buyer looks at.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    reason: Option<String>,
    order_id: Option<String>,
}

async fn read(sent: reqwest::Result<Response>) -> (Answered, Duration) {
    let told = match sent {
        Ok(response) => {
            let (status, pause) = (response.status().as_u16(), retry_after(&response));
            response.bytes().await.map(|body| (status, body, pause))
        }
        Err(error) => Err(error),
    };
    match told {
        Ok((status, body, pause)) => {
            let Body { reason, order_id } = serde_json::from_slice(&body).unwrap_or_default();
            (Answered { status: Some(status), reason, order: order_id, ..Answered::default() }, pause)
        }
        Err(error) => {
            (Answered { reason: Some(format!("{error:?}")), ..Answered::default() }, RETRY_AFTER_DEFAULT)
        }
    }
}

fn retry_after(response: &Response) -> Duration {
    let seconds = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    seconds.map_or(RETRY_AFTER_DEFAULT, Duration::from_secs)
}
