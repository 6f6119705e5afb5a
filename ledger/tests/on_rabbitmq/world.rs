//! Fixtures: PostgreSQL with orders, RabbitMQ with a consumer, and ledgers that deliver the ones to the other.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::{Arc, Weak};
use std::time::Duration;

use lapin::options::{BasicAckOptions, BasicGetOptions};
use lapin::{Channel, Connection, ConnectionProperties};
use reqwest::Client;
use serde_json::Value;
use testkit::ports::PortBlock;
use testkit::postgres::PostgresOptions;
use testkit::rabbitmq::RabbitMqOptions;
use testkit::{Folder, Launch, Lifetime, Postgres, Process, RabbitMq, until};
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::timeout;

/// Time limit for any expected change, on a busy machine too.
pub(crate) const SOON: Duration = Duration::from_secs(40);

/// Time limit for taking all messages of the queue. A broker that was killed loses requests.
const CONSUME_LIMIT: Duration = Duration::from_secs(5);

/// The exchange that ledgers use if nothing else is set.
pub(crate) const EXCHANGE: &str = "flashsale.orders";
/// The queue of the consumer.
pub(crate) const QUEUE: &str = "shop";

/// The servers of the tests that run, and those that wait for their turn. The last test stops them.
static SERVERS: Mutex<Weak<Servers>> = Mutex::const_new(Weak::new());
/// Allows one test at a time: they share the servers.
static TURN: Mutex<()> = Mutex::const_new(());

struct Servers {
    broker: RabbitMq,
    postgres: Postgres,
    folder: Folder,
    ports: PortBlock,
}

impl Servers {
    async fn shared() -> Arc<Self> {
        let mut servers = SERVERS.lock().await;
        if let Some(running) = servers.upgrade() {
            return running;
        }
        let started = Arc::new(Self::start().await);
        *servers = Arc::downgrade(&started);
        started
    }

    async fn start() -> Self {
        let (folder, ports) = (Folder::temporary().unwrap(), PortBlock::take().unwrap());
        let lifetime = Lifetime::Attached;
        let folder_of = |name| folder.subfolder(name).unwrap();
        let postgres = PostgresOptions { port: ports.first(), folder: folder_of("postgres"), lifetime };
        let broker = RabbitMqOptions { port: ports.first() + 1, folder: folder_of("rabbitmq"), lifetime };
        let (broker, postgres) = tokio::join!(RabbitMq::start(broker), Postgres::start(postgres));
        Self { broker: broker.unwrap(), postgres: postgres.unwrap(), folder, ports }
    }
}

/// Empty tables, an empty broker, and no ledger yet.
pub(crate) struct World {
    ledgers: Vec<Process>,
    consumer: Consumer,
    servers: Arc<Servers>,
    _turn: MutexGuard<'static, ()>,
}

impl World {
    pub(crate) async fn new() -> Self {
        let servers = Servers::shared().await;
        let turn = TURN.lock().await;
        for log in fs::read_dir(servers.folder.path()).unwrap().flatten() {
            fs::remove_file(log.path()).ok();
        }
        let world = Self { ledgers: Vec::new(), consumer: Consumer::default(), servers, _turn: turn };
        world.sql("DROP SCHEMA public CASCADE; CREATE SCHEMA public");
        let migrated = world.ledger(90).arg("migrate").spawn().unwrap().wait(SOON).await.unwrap();
        assert!(migrated.success());
        let channel = world.consumer.channel(&world.broker().url()).await.unwrap();
        channel.exchange_delete(EXCHANGE.into(), Default::default()).await.unwrap();
        channel.queue_delete(QUEUE.into(), Default::default()).await.unwrap();
        world
    }

    pub(crate) fn broker(&self) -> &RabbitMq {
        &self.servers.broker
    }

    pub(crate) fn database_url(&self) -> String {
        self.servers.postgres.url()
    }

    pub(crate) fn sql(&self, sql: &str) -> String {
        self.servers.postgres.sql(sql).unwrap()
    }

    pub(crate) fn try_sql(&self, sql: &str) -> anyhow::Result<String> {
        self.servers.postgres.sql(sql)
    }

    /// Adds orders to a sale, as a drain does: over four shards, with the next positions.
    pub(crate) fn add_orders(&self, sale: &str, count: u32) {
        self.sql(&format!(
            "INSERT INTO sale_versions VALUES ('{sale}', 'a1', 1, '{{}}') ON CONFLICT DO NOTHING;
             INSERT INTO positions VALUES ('{sale}', 'a1') ON CONFLICT DO NOTHING;
             WITH numbered AS (
                UPDATE positions SET position = position + {count} WHERE sale = '{sale}'
                RETURNING position - {count} AS before
             )
             INSERT INTO order_events (sale, creation, shard, incarnation, seq, n, position, id, aggregatetype,
                aggregateid, type, payload, user_id, at)
             SELECT '{sale}', 'a1', place % 4, 'i', before + place, 0, before + place, gen_random_uuid(), 'order',
                'ORDER' || before + place, 'order.purchased', jsonb_build_object('userId', 'buyer-' || before + place),
                'buyer-' || before + place, clock_timestamp()
             FROM numbered, generate_series(1, {count}) AS place",
        ));
    }

    /// Ids of the orders of all sales.
    pub(crate) fn ids(&self) -> BTreeSet<String> {
        self.sql("SELECT id FROM order_events").lines().map(str::to_owned).collect()
    }

    /// Returns how far a sink has the orders of a sale.
    pub(crate) fn cursor(&self, sink: &str, sale: &str) -> i64 {
        let cursor = format!("SELECT max(position) FROM feeds WHERE sink = '{sink}' AND sale = '{sale}'");
        self.sql(&cursor).parse().unwrap_or(0)
    }

    /// Launches a ledger. Each number has a port of its own.
    pub(crate) fn ledger(&self, number: u16) -> Launch {
        let program = env!("CARGO_BIN_EXE_flashsale-ledger");
        Launch::new(format!("ledger-{number}"), program, self.servers.folder.path())
            .env("PORT", self.port(number))
            .env("REDIS_URL", "redis://127.0.0.1:1")
            .env("DATABASE_URL", self.database_url())
            .env("ADMIN_TOKEN", "0123456789abcdef")
            .env("DATABASE_TIMEOUT", "2s")
            .env("DRAIN_PERIOD", "50ms")
            .env("FEED_TIMEOUT", "1s")
    }

    /// Starts a ledger that publishes to the queue of the consumer.
    pub(crate) fn start_publisher(&mut self) {
        let launch = self.publisher().env("AMQP_QUEUE", QUEUE);
        self.start(launch);
    }

    /// Launches a ledger that publishes, without a queue.
    pub(crate) fn publisher(&self) -> Launch {
        self.ledger(self.ledgers.len() as u16 + 1).env("AMQP_URL", self.broker().url())
    }

    /// Starts a ledger. It gets the next number.
    pub(crate) fn start(&mut self, launch: Launch) {
        self.ledgers.push(launch.spawn().unwrap());
    }

    /// A ledger, by number from 1.
    pub(crate) fn process(&self, number: u16) -> &Process {
        &self.ledgers[usize::from(number) - 1]
    }

    pub(crate) fn log(&self, number: u16) -> String {
        fs::read_to_string(self.process(number).log()).unwrap()
    }

    fn port(&self, number: u16) -> u16 {
        self.servers.ports.first() + 5 + number
    }

    /// A free port for an endpoint.
    pub(crate) fn endpoint_port(&self) -> u16 {
        self.servers.ports.first() + 4
    }

    /// Returns the value of a metric of a ledger.
    pub(crate) async fn metric(&self, number: u16, series: &str) -> Option<f64> {
        let url = format!("http://127.0.0.1:{}/metrics", self.port(number));
        let text = Client::new().get(url).send().await.ok()?.text().await.ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
        line.parse().ok()
    }

    pub(crate) async fn wait_for_metric(&self, number: u16, series: &str, holds: impl Fn(f64) -> bool) {
        let found = async || self.metric(number, series).await.is_some_and(&holds);
        until(series, SOON, found).await.unwrap_or_else(|error| panic!("{error}\n{}", self.log(number)));
    }

    pub(crate) async fn wait_for_cursor(&self, sink: &str, sale: &str, position: i64) {
        let there = async || self.cursor(sink, sale) == position;
        until(&format!("{sink} is at {position}"), SOON, there)
            .await
            .unwrap_or_else(|error| panic!("{error}: {}\n{}", self.cursor(sink, sale), self.log(1)));
    }

    /// Binds the queue of the consumer to events of a sale.
    pub(crate) async fn bind(&self, sale: &str) {
        let channel = self.consumer.channel(&self.broker().url()).await.unwrap();
        let durable = lapin::options::QueueDeclareOptions { durable: true, ..Default::default() };
        channel.queue_declare(QUEUE.into(), durable, Default::default()).await.unwrap();
        let key = format!("order.purchased.{sale}");
        let (queue, exchange) = (QUEUE.into(), EXCHANGE.into());
        channel
            .queue_bind(queue, exchange, key.as_str().into(), Default::default(), Default::default())
            .await
            .unwrap();
    }

    /// Creates the exchange.
    pub(crate) async fn create_exchange(&self) {
        let channel = self.consumer.channel(&self.broker().url()).await.unwrap();
        let durable = lapin::options::ExchangeDeclareOptions { durable: true, ..Default::default() };
        let topic = lapin::ExchangeKind::Topic;
        channel.exchange_declare(EXCHANGE.into(), topic, durable, Default::default()).await.unwrap();
    }

    /// Takes all messages from the queue.
    pub(crate) async fn consume(&mut self) {
        let url = self.broker().url();
        let taken = timeout(CONSUME_LIMIT, self.consumer.take_all(&url)).await;
        if let Some(error) = taken.map_err(anyhow::Error::from).and_then(|taken| Ok(taken?)).err() {
            eprintln!("not consumed: {error:#}");
            *self.consumer.connection.lock().await = None;
        }
    }

    /// Consumes until each order has come at least once.
    pub(crate) async fn consume_all_orders(&mut self) {
        let expected = self.ids();
        let deadline = tokio::time::Instant::now() + SOON;
        while self.consumer.ids() != expected {
            assert!(
                tokio::time::Instant::now() < deadline,
                "{} of {} orders came, the sink has {}\n{}",
                self.consumer.ids().len(),
                expected.len(),
                self.cursor("amqp", "flash"),
                self.log(1)
            );
            self.consume().await;
        }
        self.consumer.assert_order();
    }

    /// Events as they came, with those that came again.
    pub(crate) fn consumed(&self) -> &[Value] {
        &self.consumer.events
    }
}

/// Takes messages of the queue, acknowledges each, and keeps them.
#[derive(Default)]
struct Consumer {
    connection: Mutex<Option<Connection>>,
    events: Vec<Value>,
}

impl Consumer {
    async fn channel(&self, url: &str) -> lapin::Result<Channel> {
        let mut connection = self.connection.lock().await;
        if connection.as_ref().is_none_or(|connection| !connection.status().connected()) {
            *connection = Some(Connection::connect(url, ConnectionProperties::default()).await?);
        }
        connection.as_ref().expect("set above").create_channel().await
    }

    async fn take_all(&mut self, url: &str) -> lapin::Result<()> {
        let channel = self.channel(url).await?;
        while let Some(message) = channel.basic_get(QUEUE.into(), BasicGetOptions::default()).await? {
            let event: Value = serde_json::from_slice(&message.data).unwrap();
            let properties = &message.properties;
            assert_eq!(properties.message_id().as_ref().unwrap().as_str(), event["id"].as_str().unwrap());
            let content = properties.content_type().as_ref().unwrap().as_str();
            assert_eq!((content, *properties.delivery_mode()), ("application/cloudevents+json", Some(2)));
            self.events.push(event);
            message.ack(BasicAckOptions::default()).await?;
        }
        channel.close(200, "done".into()).await
    }

    fn ids(&self) -> BTreeSet<String> {
        self.events.iter().map(|event| event["id"].as_str().unwrap().to_owned()).collect()
    }

    fn assert_order(&self) {
        assert_order(&self.events);
    }
}

/// Asserts that events of one shard came in their order. An event may come again, but not before earlier ones came.
pub(crate) fn assert_order(events: &[Value]) {
    let mut latest: BTreeMap<&str, i64> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for event in events {
        let (shard, position) =
            (event["partitionkey"].as_str().unwrap(), event["position"].as_i64().unwrap());
        if seen.insert((shard, position)) {
            let before = latest.insert(shard, position);
            assert!(
                before.is_none_or(|before| before < position),
                "{shard}: {position} came after {before:?}"
            );
        }
    }
}
