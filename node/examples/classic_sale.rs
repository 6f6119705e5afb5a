//! The usual design of a flash sale, for `cargo xtask bench`: one Redis server, and one script call a request, which
//! looks the user up in a set and decrements a counter. Without shards, replicas, batches, barriers, or a record of the
//! order. It reads and returns the same JSON as the node.

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use redis::aio::MultiplexedConnection;
use serde::{Deserialize, Serialize};

/// Answers 1 for a purchase, 0 for a user who has a unit, and -1 without stock.
const BUY: &str = "
if redis.call('SISMEMBER', KEYS[2], ARGV[1]) == 1 then return 0 end
local left = tonumber(redis.call('GET', KEYS[1]) or 0)
if left <= 0 then return -1 end
redis.call('DECR', KEYS[1])
redis.call('SADD', KEYS[2], ARGV[1])
return 1";
const STOCK: &str = "sale:stock";
const BUYERS: &str = "sale:buyers";
/// More units than a benchmark can sell.
const UNITS: u64 = 100_000_000;

#[derive(Clone)]
struct Sale {
    redis: MultiplexedConnection,
    /// Name of the script at the server.
    script: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Purchase {
    user_id: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    success: bool,
    message: &'static str,
    order_id: &'static str,
    purchased_at: &'static str,
}

async fn purchase(
    State(mut sale): State<Sale>,
    Json(purchase): Json<Purchase>,
) -> Result<(StatusCode, Json<Answer>), StatusCode> {
    let mut call = redis::cmd("EVALSHA");
    call.arg(&sale.script).arg(2).arg(STOCK).arg(BUYERS).arg(purchase.user_id);
    let outcome: i64 =
        call.query_async(&mut sale.redis).await.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    let (status, message) = match outcome {
        1 => (StatusCode::OK, "One unit is yours."),
        0 => (StatusCode::CONFLICT, "You have one already."),
        _ => (StatusCode::CONFLICT, "Everything is sold."),
    };
    let (order_id, purchased_at) = ("0123456789ABCD", "2026-01-01T00:00:00.000Z");
    Ok((status, Json(Answer { success: outcome == 1, message, order_id, purchased_at })))
}

/// Serves on the loopback port given as the first argument, with the Redis server whose URL is the second.
#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let port: u16 = arguments.next().ok_or("the first argument is the port")?.parse()?;
    let client = redis::Client::open(arguments.next().ok_or("the second argument is the URL of Redis")?)?;
    let mut redis = client.get_multiplexed_async_connection().await?;
    redis::cmd("SET").arg(STOCK).arg(UNITS).exec_async(&mut redis).await?;
    let script = redis::cmd("SCRIPT").arg("LOAD").arg(BUY).query_async(&mut redis).await?;
    let router = Router::new().route("/api/sale/purchase", post(purchase));
    let router = router.with_state(Sale { redis, script });
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    Ok(axum::serve(listener, router).await?)
}
