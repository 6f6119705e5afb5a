//! RabbitMQ: publishes persistent messages to a topic exchange, and waits for the confirmation of each.
//!
//! The client library connects, and does nothing else on its own: after any error the connection is dropped, and the events
//! from the cursor on are published again over a new one.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use futures::future::try_join_all;
use futures::{Stream, StreamExt as _};
use lapin::message::BasicReturnMessage;
use lapin::options::{
    BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::tcp::{AsyncTcpStream, RustlsConnector};
use lapin::types::{AMQPValue, FieldTable};
use lapin::uri::AMQPScheme;
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Event as ConnectionEvent,
    ExchangeKind,
};
use service::https;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::cloud_event::{CONTENT_TYPE, Event};
use super::retry;
use super::settings::{AmqpSettings, Declare};
use super::sink::{Delivered, Failure, Reason, Sink, SinkName};
use crate::metrics;

/// Delivery mode of a message that survives a restart of the broker.
const PERSISTENT: u8 = 2;
/// The binding of `AMQP_QUEUE`: all events of the exchange.
const ALL_EVENTS: &str = "#";
/// First and longest pause between two tries to connect.
const RECONNECT: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
/// Longest time to close a connection. It is dropped then.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);

/// Publishes to a broker.
pub(crate) struct Amqp {
    settings: AmqpSettings,
    tls: Option<RustlsConnector>,
    timeout: Duration,
    link: Mutex<Option<Arc<Link>>>,
}

/// An open connection.
struct Link {
    connection: Connection,
    /// Open channels that no delivery uses. A channel serves one delivery at a time, because the library may attribute a
    /// returned message to any confirmation of its channel.
    channels: Mutex<Vec<Channel>>,
    /// Wakes the task that replaces the connection.
    broken: Notify,
}

impl Amqp {
    /// Opens no connection yet.
    ///
    /// # Errors
    /// Fails when TLS is used and the system has no certificate authorities.
    pub(crate) fn new(settings: AmqpSettings, timeout: Duration) -> anyhow::Result<Self> {
        let is_tls = settings.uri.scheme == AMQPScheme::AMQPS;
        let tls = is_tls.then(|| {
            let given = settings.ca_file.as_ref().map(|file| file.authorities());
            let trusted = given.or_else(https::system_authorities);
            let trusted = trusted
                .context("the system has no certificate authorities; AMQP_CA_FILE names a file with them")?;
            anyhow::Ok(RustlsConnector::from(https::client_config(trusted)))
        });
        Ok(Self { settings, tls: tls.transpose()?, timeout, link: Mutex::default() })
    }

    /// Connects, and creates or checks exchange and queue.
    async fn connect(&self) -> Result<Arc<Link>, Failure> {
        let unreachable = |error: lapin::Error| Failure::new(Reason::Unreachable, error);
        let connecting = async {
            let connection = self.open().await.map_err(unreachable)?;
            let channel = connection.create_channel().await.map_err(unreachable)?;
            self.prepare(&channel).await.map_err(unreachable)?;
            Ok(connection)
        };
        let connected = timeout(self.timeout, connecting).await;
        let connection =
            connected.map_err(|_| Failure::new(Reason::Timeout, "the broker does not answer"))??;
        Ok(Arc::new(Link { connection, channels: Mutex::default(), broken: Notify::new() }))
    }

    async fn open(&self) -> lapin::Result<Connection> {
        let properties = ConnectionProperties::default().with_connection_name("flashsale-ledger".into());
        let tls = self.tls.clone();
        Connection::connector(
            self.settings.uri.clone(),
            lapin::runtime::default_runtime()?,
            async move |uri, runtime| {
                let host = uri.authority.host;
                let address = runtime.to_socket_addrs((host.clone(), uri.authority.port));
                let stream = AsyncTcpStream::connect(&runtime, address).await?;
                match &tls {
                    Some(tls) => Ok(stream.into_rustls(tls, &host).await?),
                    None => Ok(stream),
                }
            },
            properties,
        )
        .await
    }

    async fn prepare(&self, channel: &Channel) -> lapin::Result<()> {
        let passive = self.settings.declare == Declare::Check;
        let exchange = ExchangeDeclareOptions { passive, durable: true, ..ExchangeDeclareOptions::default() };
        let name = self.settings.exchange.as_str();
        channel.exchange_declare(name.into(), ExchangeKind::Topic, exchange, FieldTable::default()).await?;
        let Some(queue) = self.settings.queue.as_deref() else { return Ok(()) };
        let mut replicated = FieldTable::default();
        replicated.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        let options = QueueDeclareOptions { passive, durable: true, ..QueueDeclareOptions::default() };
        channel.queue_declare(queue.into(), options, replicated).await?;
        if !passive {
            let options = QueueBindOptions::default();
            channel
                .queue_bind(queue.into(), name.into(), ALL_EVENTS.into(), options, FieldTable::default())
                .await?;
        }
        Ok(())
    }

    /// Publishes events in their order, and waits for the confirmation of each.
    async fn publish(&self, channel: &Channel, events: &[Event]) -> lapin::Result<Vec<Confirmation>> {
        let mut confirmations = Vec::with_capacity(events.len());
        for event in events {
            let properties = BasicProperties::default()
                .with_content_type(CONTENT_TYPE.into())
                .with_delivery_mode(PERSISTENT)
                .with_message_id(event.id.as_str().into())
                .with_type(event.kind.as_str().into())
                .with_timestamp(event.purchased_at / 1000);
            // Without `mandatory` the broker confirms a message that it has no queue for.
            let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
            let (exchange, key) = (self.settings.exchange.as_str(), event.routing_key.as_str());
            let published =
                channel.basic_publish(exchange.into(), key.into(), options, &event.body, properties).await?;
            confirmations.push(published);
        }
        try_join_all(confirmations).await
    }

    async fn deliver_over(&self, link: &Link, events: &[Event]) -> Result<Delivered, Failure> {
        let failure = |error: lapin::Error| Failure::new(Reason::Unreachable, error);
        let publishing = async {
            let channel = link.channel().await.map_err(failure)?;
            let confirmations = self.publish(&channel, events).await.map_err(failure)?;
            Ok((channel, confirmations))
        };
        let (channel, confirmations) = self.within(&link.connection, publishing).await?;
        link.channels().push(channel);
        Ok(first_failure(events, confirmations))
    }

    /// Waits for an answer. A broker that blocks publishers is waited for as long as it does.
    async fn within<T>(
        &self,
        connection: &Connection,
        answer: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let mut answer = pin!(answer);
        loop {
            match timeout(self.timeout, &mut answer).await {
                Ok(answer) => return answer,
                Err(_) if connection.status().blocked() => {}
                Err(_) => return Err(Failure::new(Reason::Timeout, "the broker does not confirm")),
            }
        }
    }

    fn link(&self) -> MutexGuard<'_, Option<Arc<Link>>> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sink for Amqp {
    const NAME: SinkName = SinkName::Amqp;
    const WINDOW_MAX: u32 = 256;

    fn is_ready(&self) -> bool {
        let link = self.link();
        link.as_ref().is_some_and(|link| {
            let status = link.connection.status();
            status.connected() && !status.blocked()
        })
    }

    fn is_connected(&self) -> bool {
        self.is_ready()
    }

    async fn maintain(&self) {
        let _unlinked = Unlink(self);
        let (mut tries, mut logged) = (0, None);
        loop {
            match self.connect().await {
                Ok(link) => {
                    tracing::info!(sink = %Self::NAME, "connected to the broker");
                    (tries, logged) = (0, None);
                    let events = link.connection.events_listener();
                    *self.link() = Some(Arc::clone(&link));
                    tokio::select! {
                        () = watch(events) => {}
                        () = link.broken.notified() => {}
                    }
                    *self.link() = None;
                    tracing::warn!(sink = %Self::NAME, "the connection to the broker is opened again");
                    timeout(CLOSE_LIMIT, link.connection.close(200, "replaced".into())).await.ok();
                }
                Err(failure) => {
                    metrics::feed::failed(Self::NAME.as_str(), failure.reason.as_str());
                    if logged.as_ref() != Some(&failure) {
                        tracing::warn!(sink = %Self::NAME, %failure, "waiting for the broker");
                        logged = Some(failure);
                    }
                }
            }
            tries += 1;
            sleep(retry::exponential(RECONNECT.0, RECONNECT.1, tries)).await;
        }
    }

    async fn deliver(&self, events: &[Event]) -> Delivered {
        let Some(link) = self.link().clone() else {
            return Delivered::none(Failure::new(Reason::Unreachable, "no connection"));
        };
        match self.deliver_over(&link, events).await {
            Ok(delivered) => delivered,
            Err(failure) => {
                link.broken.notify_one();
                Delivered::none(failure)
            }
        }
    }
}

/// Drops the connection when this ledger no longer delivers.
struct Unlink<'a>(&'a Amqp);

impl Drop for Unlink<'_> {
    fn drop(&mut self) {
        *self.0.link() = None;
    }
}

impl Link {
    /// Takes a channel that waits for confirmations.
    async fn channel(&self) -> lapin::Result<Channel> {
        if let Some(channel) = self.channels().pop() {
            return Ok(channel);
        }
        let channel = self.connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok(channel)
    }

    fn channels(&self) -> MutexGuard<'_, Vec<Channel>> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reports when the broker blocks publishers and takes messages again. Returns when the connection ends.
async fn watch(events: impl Stream<Item = ConnectionEvent>) {
    let mut events = pin!(events);
    while let Some(event) = events.next().await {
        match event {
            ConnectionEvent::ConnectionBlocked(reason) => {
                metrics::feed::failed(Amqp::NAME.as_str(), Reason::Blocked.as_str());
                tracing::warn!(sink = %Amqp::NAME, reason, "the broker blocks publishers");
            }
            ConnectionEvent::ConnectionUnblocked => {
                tracing::info!(sink = %Amqp::NAME, "the broker takes messages again");
            }
            ConnectionEvent::Error(error) => {
                tracing::warn!(sink = %Amqp::NAME, %error, "the connection to the broker ended");
                return;
            }
            _ => {}
        }
    }
}

/// Returns how many events were delivered before the first that was returned or not accepted.
///
/// The library may attach a returned message to the confirmation of another one, so only its id counts.
fn first_failure(events: &[Event], confirmations: Vec<Confirmation>) -> Delivered {
    let places: BTreeMap<&str, usize> =
        events.iter().enumerate().map(|(place, event)| (event.id.as_str(), place)).collect();
    let mut first: Option<(usize, Failure)> = None;
    let mut fail = |place, failure| {
        if first.as_ref().is_none_or(|(earlier, _)| place < *earlier) {
            first = Some((place, failure));
        }
    };
    for (place, confirmation) in confirmations.into_iter().enumerate() {
        if !confirmation.is_ack() {
            fail(place, Failure::new(Reason::Unavailable, "the broker did not accept the message"));
        }
        if let Some(returned) = confirmation.take_message() {
            let id = returned.delivery.properties.message_id().as_ref().map(|id| id.as_str().to_owned());
            let place = id.and_then(|id| places.get(id.as_str()).copied()).unwrap_or(0);
            fail(place, Failure::new(Reason::Unroutable, reply(&returned)));
        }
    }
    match first {
        Some((count, failure)) => Delivered { count, failure: Some(failure) },
        None => Delivered { count: events.len(), failure: None },
    }
}

fn reply(returned: &BasicReturnMessage) -> String {
    format!(
        "{} for the routing key {} of the exchange {}",
        returned.reply_text, returned.delivery.routing_key, returned.delivery.exchange
    )
}
