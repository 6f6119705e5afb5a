//! Orders on their way out of PostgreSQL, to a real RabbitMQ and to HTTP endpoints.
//!
//! No Redis runs: orders that are in PostgreSQL are delivered without it.

#![expect(clippy::unwrap_used, reason = "a test whose setup fails has failed")]

mod amqp;
mod consumers;
mod endpoint;
mod outbox;
mod replays;
mod webhook;
mod world;
