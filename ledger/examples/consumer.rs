//! A consumer with an effect that takes place exactly once: it writes each order into a table of its own.
//!
//! The id of the event is inserted in the transaction of the effect, and the message is acknowledged after the commit. An
//! event that comes again finds its id, and has no effect.

use std::env;

use anyhow::Context as _;
use futures::StreamExt as _;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties};
use serde_json::Value;
use tokio_postgres::{Client, NoTls};

/// Most messages in flight to this consumer.
const PREFETCH: u16 = 100;

const TABLE: &str = "
    CREATE TABLE IF NOT EXISTS shipments (
        event_id text PRIMARY KEY,
        order_id text NOT NULL,
        user_id text
    )";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let setting = |name: &str| env::var(name).with_context(|| format!("{name} must be set"));
    consume(&setting("AMQP_URL")?, &setting("AMQP_QUEUE")?, &setting("DATABASE_URL")?).await
}

/// Consumes the queue until the connection to the broker or to PostgreSQL ends. A supervisor starts it again.
pub(crate) async fn consume(amqp_url: &str, queue: &str, database_url: &str) -> anyhow::Result<()> {
    let (mut database, connection) = tokio_postgres::connect(database_url, NoTls).await?;
    tokio::spawn(connection);
    database.batch_execute(TABLE).await?;
    let broker = Connection::connect(amqp_url, ConnectionProperties::default()).await?;
    let channel = broker.create_channel().await?;
    channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
    let options = BasicConsumeOptions::default();
    let mut messages = channel.basic_consume(queue.into(), "".into(), options, FieldTable::default()).await?;
    while let Some(message) = messages.next().await {
        let message = message?;
        ship(&mut database, &serde_json::from_slice(&message.data)?).await?;
        message.ack(BasicAckOptions::default()).await?;
    }
    Ok(())
}

async fn ship(database: &mut Client, event: &Value) -> anyhow::Result<()> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let id = text(&event["id"]).context("an event without an id")?;
    let order = text(&event["subject"]).context("an event without an order")?;
    let user = text(&event["data"]["userId"]);
    let transaction = database.transaction().await?;
    let insert = "INSERT INTO shipments (event_id, order_id, user_id) VALUES ($1, $2, $3) ON CONFLICT (event_id) DO NOTHING";
    if transaction.execute(insert, &[&id, &order, &user]).await? == 1 {
        // Further effects of a new order go here, in the same transaction.
        println!("order {order}");
    }
    Ok(transaction.commit().await?)
}
