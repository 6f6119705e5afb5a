//! Baseline of `cargo xtask bench`: the smallest JSON endpoint of axum. It reads the body of a purchase and returns a
//! body of the same length as a purchase does, without layers, logs or Redis.

use axum::routing::post;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Purchase {
    user_id: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Purchased {
    success: bool,
    message: &'static str,
    order_id: &'static str,
    purchased_at: &'static str,
}

async fn purchase(Json(purchase): Json<Purchase>) -> Json<Purchased> {
    Json(Purchased {
        success: !purchase.user_id.is_empty(),
        message: "One unit is yours.",
        order_id: "0123456789ABCD",
        purchased_at: "2026-01-01T00:00:00.000Z",
    })
}

/// Serves on the loopback port given as the only argument.
#[tokio::main]
async fn main() -> std::io::Result<()> {
    let port = std::env::args().nth(1).and_then(|port| port.parse().ok()).unwrap_or(3000_u16);
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    axum::serve(listener, Router::new().route("/api/sale/purchase", post(purchase))).await
}
