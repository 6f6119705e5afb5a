//! A shop that gets each order twice: from RabbitMQ, and by a webhook. For each of the two it packs one parcel per order.
//!
//! An event may come again. So the shop inserts the id of the event in the statement that packs the parcel, as the
//! documentation recommends. The table of parcels has no constraint of its own: a wrong consumer would pack twice.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use axum::{Json, Router, extract::State, http::StatusCode, routing::post};
use futures::StreamExt as _;
use lapin::{
    Connection, ConnectionProperties,
    message::Delivery,
    options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions},
    types::FieldTable,
};
use serde::Deserialize;
use testkit::{RabbitMq, ports::loopback};
use tokio::{
    net::TcpListener,
    sync::Mutex as AsyncMutex,
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_postgres::{Client, NoTls};

/// The queue of the shop, which the ledgers declare.
pub(super) const QUEUE: &str = "shop";

/// Most messages in one statement.
const MESSAGES_AT_ONCE: u16 = 64;

/// Time limit for a statement, and for a connection. Shorter than the ledgers' own limit for a delivery.
const STATEMENT_LIMIT: Duration = Duration::from_millis(1_500);

/// Pause before a new connection to RabbitMQ.
const RECONNECT_PAUSE: Duration = Duration::from_millis(200);

const CREATE_TABLES: &str = "
    CREATE SCHEMA shop;
    CREATE TABLE shop.events (sink text, id text, PRIMARY KEY (sink, id));
    CREATE TABLE shop.parcels (sink text, event text)";

const PACK: &str = "
    WITH fresh AS (
        INSERT INTO shop.events SELECT $1, unnest($2::text[]) ON CONFLICT (sink, id) DO NOTHING RETURNING id
    )
    INSERT INTO shop.parcels SELECT $1, id FROM fresh";

/// A way by which orders reach the shop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Sink {
    Amqp,
    Webhook,
}

impl Sink {
    pub(crate) const ALL: [Self; 2] = [Self::Amqp, Self::Webhook];

    /// The name in metrics and tables.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Amqp => "amqp",
            Self::Webhook => "webhook",
        }
    }
}

/// Behaviour of the webhook's endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// It packs a parcel and answers 200.
    #[default]
    Works,
    /// It answers 500.
    Fails,
    /// It does nothing and does not answer.
    Hangs,
    /// It packs a parcel, and its answer is lost: the event comes again.
    LosesAnswers,
}

/// An event as it arrived.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Event {
    id: String,
    partitionkey: String,
    position: u64,
}

/// The shop. Dropping it stops its consumers.
pub(crate) struct Shop {
    counter: Arc<Counter>,
    webhook_port: u16,
    tasks: [JoinHandle<()>; 2],
}

/// The part of the shop that takes orders.
struct Counter {
    books: Books,
    arrivals: Mutex<Vec<(Sink, Event)>>,
    endpoint: Mutex<Endpoint>,
    /// Confirms the next event without packing a parcel. For tests of the audit.
    swallows_next: Mutex<bool>,
}

impl Shop {
    /// Opens the endpoint, and consumes from the broker once its queue exists.
    ///
    /// # Errors
    /// Fails when PostgreSQL refuses the shop's tables.
    pub(crate) async fn open(database_url: &str, broker: &RabbitMq) -> Result<Self> {
        let books = Books { url: database_url.to_owned(), client: AsyncMutex::default() };
        books.client().await?.batch_execute(CREATE_TABLES).await?;
        let counter = Arc::new(Counter {
            books,
            arrivals: Mutex::default(),
            endpoint: Mutex::default(),
            swallows_next: Mutex::default(),
        });
        let listener = TcpListener::bind(loopback(0)).await.context("the endpoint of the webhook")?;
        let webhook_port = listener.local_addr()?.port();
        let router = Router::new().route("/orders", post(receive)).with_state(counter.clone());
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap_or_default() });
        let consuming = tokio::spawn(consume(broker.url(), counter.clone()));
        Ok(Self { counter, webhook_port, tasks: [serving, consuming] })
    }

    /// The URL of the endpoint.
    pub(super) fn webhook_url(&self) -> String {
        format!("http://{}/orders", loopback(self.webhook_port))
    }

    /// Sets the behaviour of the endpoint.
    pub(crate) fn set_endpoint(&self, endpoint: Endpoint) {
        *lock(&self.counter.endpoint) = endpoint;
    }

    /// Lets the shop confirm the next event without packing a parcel.
    pub(super) fn swallow_next_event(&self) {
        *lock(&self.counter.swallows_next) = true;
    }

    /// Events that have arrived so far, again or for the first time.
    pub(super) fn arrivals(&self) -> Vec<(Sink, Event)> {
        lock(&self.counter.arrivals).clone()
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Counter {
    async fn take(&self, sink: Sink, events: Vec<Event>) -> Result<()> {
        let mut ids: Vec<String> = events.iter().map(|event| event.id.clone()).collect();
        lock(&self.arrivals).extend(events.into_iter().map(|event| (sink, event)));
        if std::mem::take(&mut *lock(&self.swallows_next)) {
            ids.pop();
        }
        self.books.pack(sink, ids).await
    }
}

/// The shop's connection to PostgreSQL.
struct Books {
    url: String,
    client: AsyncMutex<Option<Arc<Client>>>,
}

impl Books {
    async fn pack(&self, sink: Sink, events: Vec<String>) -> Result<()> {
        let client = self.client().await?;
        timeout(STATEMENT_LIMIT, client.execute(PACK, &[&sink.name(), &events])).await??;
        Ok(())
    }

    async fn client(&self) -> Result<Arc<Client>> {
        let mut current = self.client.lock().await;
        if let Some(client) = current.as_ref().filter(|client| !client.is_closed()) {
            return Ok(client.clone());
        }
        let (client, connection) =
            timeout(STATEMENT_LIMIT, tokio_postgres::connect(&self.url, NoTls)).await??;
        // Its error is that of the next statement.
        tokio::spawn(async move { connection.await.unwrap_or_default() });
        Ok(current.insert(Arc::new(client)).clone())
    }
}

async fn receive(State(counter): State<Arc<Counter>>, Json(event): Json<Event>) -> StatusCode {
    let endpoint = *lock(&counter.endpoint);
    match endpoint {
        Endpoint::Fails => return StatusCode::INTERNAL_SERVER_ERROR,
        Endpoint::Hangs => std::future::pending().await,
        Endpoint::Works | Endpoint::LosesAnswers => {}
    }
    let taken = counter.take(Sink::Webhook, vec![event]).await;
    if endpoint == Endpoint::LosesAnswers {
        std::future::pending::<()>().await;
    }
    if taken.is_ok() { StatusCode::OK } else { StatusCode::INTERNAL_SERVER_ERROR }
}

/// Consumes until the shop closes. A lost connection is opened again: what was not acknowledged comes again.
async fn consume(url: String, counter: Arc<Counter>) {
    loop {
        // The broker may be down, or the queue may not exist yet.
        consume_once(&url, &counter).await.ok();
        sleep(RECONNECT_PAUSE).await;
    }
}

async fn consume_once(url: &str, counter: &Counter) -> Result<()> {
    let connecting = Connection::connect(url, ConnectionProperties::default());
    let connection = timeout(STATEMENT_LIMIT * 2, connecting).await??;
    let consumed = consume_over(&connection, counter).await;
    // While the broker thinks that this consumer lives, it keeps its messages back, and gives the next one later ones.
    timeout(STATEMENT_LIMIT, connection.close(200, "consumed".into())).await.ok();
    consumed
}

async fn consume_over(connection: &Connection, counter: &Counter) -> Result<()> {
    let channel = connection.create_channel().await?;
    channel.basic_qos(MESSAGES_AT_ONCE, BasicQosOptions::default()).await?;
    let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
    let messages = channel.basic_consume(QUEUE.into(), QUEUE.into(), options, arguments).await?;
    let mut messages = messages.ready_chunks(usize::from(MESSAGES_AT_ONCE));
    while let Some(chunk) = messages.next().await {
        let chunk: Vec<Delivery> = chunk.into_iter().collect::<Result<_, _>>()?;
        let events = chunk.iter().map(|message| serde_json::from_slice(&message.data));
        counter.take(Sink::Amqp, events.collect::<Result<_, _>>()?).await?;
        if let Some(last) = chunk.last() {
            last.ack(BasicAckOptions { multiple: true }).await?;
        }
    }
    Ok(())
}

/// Returns what is wrong at the shop, given the ids of all rows, and the parcels: their sink and event.
pub(super) fn contradictions(
    rows: &HashSet<&str>,
    arrivals: &[(Sink, Event)],
    parcels: &[(&str, &str)],
) -> Vec<String> {
    let mut found = Vec::new();
    for sink in Sink::ALL {
        let name = sink.name();
        let events: Vec<&Event> =
            arrivals.iter().filter(|(of, _)| *of == sink).map(|(_, event)| event).collect();
        let arrived: HashSet<&str> = events.iter().map(|event| event.id.as_str()).collect();
        let mut packed: HashMap<&str, u64> = HashMap::new();
        for (_, event) in parcels.iter().filter(|(of, _)| *of == name) {
            *packed.entry(event).or_default() += 1;
        }
        for row in rows {
            if !arrived.contains(row) {
                found.push(format!("{name}: the event {row} was not delivered"));
            }
            match packed.get(row).copied().unwrap_or_default() {
                1 => {}
                parcels => found.push(format!("{name}: the event {row} has {parcels} parcels")),
            }
        }
        let unknown = arrived.iter().filter(|event| !rows.contains(*event));
        found.extend(unknown.map(|event| format!("{name}: the event {event} has no row")));
        found.extend(wrong_order(name, &events));
    }
    found
}

/// An event may come again, but for the first time only after all earlier ones of its shard.
fn wrong_order(sink: &str, events: &[&Event]) -> Vec<String> {
    let (mut latest, mut seen) = (HashMap::<&str, u64>::new(), HashSet::new());
    let mut found = Vec::new();
    for Event { id, partitionkey, position } in events {
        if seen.insert(id) && latest.insert(partitionkey, *position).is_some_and(|before| before >= *position)
        {
            found.push(format!("{sink}: position {position} of {partitionkey} came too late"));
        }
    }
    found
}

pub(super) fn ensure_complete(parcels: usize, rows: usize) -> Result<()> {
    let expected = rows * Sink::ALL.len();
    ensure!(parcels >= expected, "{parcels} of {expected} parcels are packed");
    Ok(())
}

fn lock<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: &str, position: u64) -> Event {
        Event { id: id.into(), partitionkey: "flash/a1/0".into(), position }
    }

    fn at_both(events: &[Event]) -> Vec<(Sink, Event)> {
        Sink::ALL.iter().flat_map(|&sink| events.iter().map(move |event| (sink, event.clone()))).collect()
    }

    fn parcels<'a>(events: &[&'a str]) -> Vec<(&'static str, &'a str)> {
        Sink::ALL.iter().flat_map(|sink| events.iter().map(|&event| (sink.name(), event))).collect()
    }

    #[test]
    fn repeated_events_with_one_parcel_are_clean() {
        let arrivals = at_both(&[event("a", 1), event("b", 2), event("a", 1), event("b", 2)]);
        assert_eq!(contradictions(&["a", "b"].into(), &arrivals, &parcels(&["a", "b"])), [""; 0]);
    }

    #[test]
    fn undelivered_and_swallowed_events_are_reported() {
        let arrivals = at_both(&[event("a", 1)]);
        let found = contradictions(&["a", "b"].into(), &arrivals, &parcels(&["a"]));
        assert_eq!(found.len(), 4, "{found:?}");
        let found = contradictions(&["a"].into(), &arrivals, &[("amqp", "a")]);
        assert_eq!(found, ["webhook: the event a has 0 parcels"]);
    }

    #[test]
    fn second_parcel_and_forged_event_are_reported() {
        let arrivals = at_both(&[event("a", 1)]);
        assert_eq!(contradictions(&["a"].into(), &arrivals, &parcels(&["a", "a"])).len(), 2);
        let forged = at_both(&[event("a", 1), event("x", 2)]);
        assert_eq!(contradictions(&["a"].into(), &forged, &parcels(&["a"])).len(), 2);
    }

    #[test]
    fn event_before_an_earlier_one_is_reported() {
        let arrivals = at_both(&[event("b", 2), event("a", 1)]);
        assert_eq!(contradictions(&["a", "b"].into(), &arrivals, &parcels(&["a", "b"])).len(), 2);
    }
}
