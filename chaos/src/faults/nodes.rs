//! The status of a sale as each node tells it: asked while a fault lasts, for what must hold then.

use std::time::Duration;

use anyhow::Result;
use jiff::Timestamp;
use reqwest::{Client, StatusCode};
use serde::{Deserialize, Deserializer, de::Error as _};
use testkit::{stack::Node, until};

use crate::testbed::{SALE, Testbed};

/// A node answers from memory.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// A node that cannot answer now is asked again for so long.
const STATUS_LIMIT: Duration = Duration::from_secs(5);

/// The status of the sale, where a fault looks at it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Status {
    pub(super) status: String,
    pub(super) total_stock: u64,
    #[serde(deserialize_with = "timestamp")]
    pub(super) ends_at: Timestamp,
}

/// Reads a time as text.
pub(super) fn timestamp<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
}

/// The nodes that do not say soon what they must, in words.
pub(super) async fn unlike(
    stage: &Testbed,
    what: &str,
    is_told: impl Fn(&Status) -> bool,
) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for node in stage.stack.nodes() {
        let told = async || ask(&node).await.is_ok_and(|status| status.is_ok_and(|status| is_told(&status)));
        if until("a status", STATUS_LIMIT, told).await.is_err() {
            let (name, says) = (node.process().name().to_owned(), ask(&node).await?);
            found.push(format!("{name} does not say {what} after {STATUS_LIMIT:?}, but {says:?}"));
        }
    }
    Ok(found)
}

/// What a node says, or the status code of its refusal.
pub(super) async fn ask(node: &Node) -> Result<Result<Status, StatusCode>> {
    let url = format!("{}/api/sales/{SALE}/status", node.url());
    let response = Client::new().get(url).timeout(ANSWER_LIMIT).send().await?;
    Ok(match response.status() {
        StatusCode::OK => Ok(response.json().await?),
        refused => Err(refused),
    })
}
