//! Moves a sink's cursor by hand: back, so that orders are delivered again, or forward, past orders that a person gives up.

use std::process::ExitCode;
use std::str::FromStr;

use anyhow::{Context as _, bail, ensure};
use clap::{Command, Parser};
use rediscluster::EpochMs;
use service::settings::{InvalidTime, TimeSetting};
use service::{connect, exit, settings, time};
use stock::ids::SaleId;
use tokio_postgres::Transaction;

use super::sink::SinkName;
use crate::database::{Database, DatabaseSettings};
use crate::migrate;

const NAME: &str = "replay";

const LATEST: &str = "
    SELECT creation, coalesce(position, 0) FROM sale_versions LEFT JOIN positions USING (sale, creation)
    WHERE sale = $1 ORDER BY seen_at DESC, version DESC LIMIT 1";
const OPEN: &str = "INSERT INTO feeds (sink, sale, creation) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
const LOCK: &str = "SELECT position FROM feeds WHERE sink = $1 AND sale = $2 AND creation = $3 FOR UPDATE";
const FIRST_SINCE: &str = "
    SELECT min(position) FROM order_events
    WHERE sale = $1 AND creation = $2 AND at >= to_timestamp($3::bigint / 1000.0)";
const MOVE: &str = "
    UPDATE feeds SET position = $4, moved_at = clock_timestamp() WHERE sink = $1 AND sale = $2 AND creation = $3";

/// The subcommand, as shown in the program's help.
pub fn command() -> Command {
    Command::new(NAME).about(
        "Delivers a sale's orders again, or skips orders that cannot be delivered, and ends; ledgers may run",
    )
}

#[derive(Parser)]
#[command(name = NAME)]
struct Settings {
    /// The sink whose deliveries are repeated
    #[arg(long, value_enum)]
    sink: SinkName,

    /// The sale
    #[arg(long)]
    sale: SaleId,

    /// The first order to deliver: its position, or the time from which on orders were bought, such as
    /// 2026-11-21T20:00:00Z or -1h
    #[arg(long, allow_hyphen_values = true)]
    from: From,

    /// Permit a move forward: the orders before --from are then never delivered
    #[arg(long)]
    skip: bool,

    #[command(flatten)]
    database: DatabaseSettings,
}

/// Where a replay begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    Position(i64),
    Time(TimeSetting),
}

/// A text is neither a position nor a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a position from 1 on, or a time: {0}")]
struct InvalidFrom(InvalidTime);

impl FromStr for From {
    type Err = InvalidFrom;

    fn from_str(text: &str) -> Result<Self, InvalidFrom> {
        match text.parse() {
            Ok(position) if (1..).contains(&position) => Ok(Self::Position(position)),
            Ok(_) => Err(InvalidFrom(InvalidTime)),
            Err(_) => text.parse().map(Self::Time).map_err(InvalidFrom),
        }
    }
}

/// Moves a cursor if the command line asks for it, and returns the exit code; otherwise returns `None`.
pub async fn run_if_requested() -> Option<ExitCode> {
    let settings: Settings = settings::parse_subcommand(&command())?;
    connect::install_crypto_provider();
    let replay = async {
        let mut database = settings.database.connect().await.context("DATABASE_URL")?;
        migrate::run(&mut database).await?;
        println!("{}", replay(&mut database, &settings).await?);
        Ok(())
    };
    Some(exit::code(replay.await))
}

async fn replay(database: &mut Database, settings: &Settings) -> anyhow::Result<String> {
    let Settings { sink, sale, from, skip, .. } = settings;
    let transaction = database.client.transaction().await?;
    let latest = transaction.query_opt(LATEST, &[&sale.as_str()]).await?;
    let latest = latest.with_context(|| format!("the ledger has no sale {sale}"))?;
    let (creation, latest): (String, i64) = (latest.get(0), latest.get(1));
    let key = [sink.as_str(), sale.as_str(), &creation];
    transaction.execute(OPEN, &[&key[0], &key[1], &key[2]]).await?;
    let delivered: i64 = transaction.query_one(LOCK, &[&key[0], &key[1], &key[2]]).await?.get(0);
    let first = match from {
        From::Position(position) => *position,
        From::Time(time) => {
            first_since(&transaction, &key, time.resolve(time::now())).await?.unwrap_or(latest + 1)
        }
    };
    ensure!(first <= latest + 1, "sale {sale} has {latest} orders, so --from can be at most {}", latest + 1);
    if first > delivered + 1 && !skip {
        let skipped = first - 1 - delivered;
        bail!(
            "{sink} would never get {skipped} orders of sale {sale}, from {} on; --skip permits that",
            delivered + 1
        );
    }
    transaction.execute(MOVE, &[&key[0], &key[1], &key[2], &(first - 1)]).await?;
    transaction.commit().await?;
    Ok(match first - 1 - delivered {
        0 => format!("sale {sale}: {sink} is tried again from order {first} on"),
        skipped @ 1.. => {
            format!("sale {sale}: {sink} skips {skipped} orders and continues with order {first}")
        }
        again => format!("sale {sale}: {sink} gets {} orders again, from order {first} on", again.abs()),
    })
}

async fn first_since(
    transaction: &Transaction<'_>,
    key: &[&str; 3],
    since: EpochMs,
) -> anyhow::Result<Option<i64>> {
    let since = i64::try_from(since).context("--from")?;
    Ok(transaction.query_one(FIRST_SINCE, &[&key[1], &key[2], &since]).await?.get(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replay_begins_at_a_position_or_a_time() {
        assert_eq!("7".parse(), Ok(From::Position(7)));
        assert!(matches!("2026-11-21T20:00:00Z".parse(), Ok(From::Time(TimeSetting::At(_)))));
        assert!(matches!("-1h".parse(), Ok(From::Time(TimeSetting::Before(_)))));
        for bad in ["0", "-7", "", "first"] {
            assert!(bad.parse::<From>().is_err(), "{bad}");
        }
    }
}
