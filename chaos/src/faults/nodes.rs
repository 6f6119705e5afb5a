//! Reads the sale's status from each node while a fault lasts, to check what must hold during the fault.

use std::time::Duration;

use anyhow::ensure;
use buyers::{Answer, ApiFamily, BuyerClient, SaleStatus};
use testkit::{stack::Node, until_ok};

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
) -> Vec<String> {
    let mut found = Vec::new();
    for node in testbed.stack.nodes() {
        let reports = async || {
            let answer = fetch_status(&node).await;
            ensure!(answer.sale_status().is_some_and(|status| is_expected(&status)), "{answer}");
            Ok(())
        };
        let what = format!("{expectation} at {}", node.process().name());
        found.extend(until_ok(&what, STATUS_LIMIT, reports).await.err().map(|error| format!("{error:#}")));
    }
    found
}

/// Requests the sale's status from a node.
pub(super) async fn fetch_status(node: &Node) -> Answer {
    BuyerClient::new(ANSWER_LIMIT).of_sale(SALE).status(node.url(), ApiFamily::BySale).await
}
