//! Reads the sale's status from each node while a fault lasts, to check what must hold during the fault.

use std::time::Duration;

use anyhow::Result;
use buyers::{Answer, ApiFamily, BuyerClient, SaleStatus};
use testkit::{stack::Node, until};

use crate::testbed::{SALE, Testbed};

/// Time limit of one request. A node answers from memory.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// Time limit for a node to report the expected status. Failed requests are retried until then.
const STATUS_LIMIT: Duration = Duration::from_secs(5);

/// Returns the nodes that do not report the expected status within [`STATUS_LIMIT`], as text.
pub(super) async fn mismatches(
    testbed: &Testbed,
    expectation: &str,
    is_expected: impl Fn(&SaleStatus) -> bool,
) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for node in testbed.stack.nodes() {
        let matches = async || fetch_status(&node).await.sale_status().is_some_and(|it| is_expected(&it));
        if until("a status", STATUS_LIMIT, matches).await.is_err() {
            let (name, answer) = (node.process().name().to_owned(), fetch_status(&node).await);
            found.push(format!("{name} does not report {expectation} after {STATUS_LIMIT:?}, but {answer}"));
        }
    }
    Ok(found)
}

/// Requests the sale's status from a node.
pub(super) async fn fetch_status(node: &Node) -> Answer {
    BuyerClient::new(ANSWER_LIMIT).of_sale(SALE).status(node.url(), ApiFamily::BySale).await
}
