//! Reads the sale's status from each node while a fault lasts, to check what must hold during the fault.

use std::time::Duration;

use anyhow::Result;
use jiff::Timestamp;
use reqwest::{Client, StatusCode};
use serde::{Deserialize, Deserializer, de::Error as _};
use testkit::{stack::Node, until};

use crate::testbed::{SALE, Testbed};

/// Time limit of one request. A node answers from memory.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// Time limit for a node to report the expected status. Failed requests are retried until then.
const STATUS_LIMIT: Duration = Duration::from_secs(5);

/// The fields of the sale's status that faults check.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Status {
    pub(super) status: String,
    pub(super) total_stock: u64,
    #[serde(deserialize_with = "timestamp")]
    pub(super) ends_at: Timestamp,
}

/// Deserializes a timestamp from text.
pub(super) fn timestamp<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
}

/// Returns the nodes that do not report the expected status within [`STATUS_LIMIT`], as text.
pub(super) async fn mismatches(
    testbed: &Testbed,
    expectation: &str,
    is_expected: impl Fn(&Status) -> bool,
) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for node in testbed.stack.nodes() {
        let matches = async || {
            fetch_status(&node).await.is_ok_and(|status| status.is_ok_and(|status| is_expected(&status)))
        };
        if until("a status", STATUS_LIMIT, matches).await.is_err() {
            let (name, answer) = (node.process().name().to_owned(), fetch_status(&node).await?);
            found
                .push(format!("{name} does not report {expectation} after {STATUS_LIMIT:?}, but {answer:?}"));
        }
    }
    Ok(found)
}

/// Returns the status that a node reports, or the HTTP status code of its refusal.
pub(super) async fn fetch_status(node: &Node) -> Result<Result<Status, StatusCode>> {
    let url = format!("{}/api/sales/{SALE}/status", node.url());
    let response = Client::new().get(url).timeout(ANSWER_LIMIT).send().await?;
    Ok(match response.status() {
        StatusCode::OK => Ok(response.json().await?),
        refused => Err(refused),
    })
}
