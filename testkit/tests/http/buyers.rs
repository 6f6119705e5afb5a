//! The requests that buyers send, and how they read the answers.

use std::time::Duration;

use testkit::{Buyers, PurchaseAttempt};

use crate::fake_node::FakeNode;

const LIMIT: Duration = Duration::from_secs(5);

#[tokio::test]
async fn buyers_get_answers_over_bounded_connections() {
    let node = FakeNode::answering(&[200]).await;
    let purchases = (0..2_000).map(|i| purchase(&format!("buyer-{i}"), &node)).collect();

    let crowd = tokio::spawn(async move { Buyers::new(512).buy(purchases).await });
    let answers = crowd.await.unwrap();

    assert_eq!(answers.len(), 2_000);
    assert!(answers.iter().all(|answer| answer.is_purchased() && answer.order.as_deref() == Some("o-1")));
}

#[tokio::test]
async fn persistent_buyer_retries_one_attempt_until_definite() {
    let node = FakeNode::answering(&[503, 429, 200]).await;

    let answers = Buyers::new(64).buy_persistently(vec![purchase("ada", &node)], LIMIT).await;

    assert_eq!((answers[0].status, answers[0].tries), (Some(200), 3));
    let keys = node.header_values("idempotency-key");
    assert!(keys.iter().all(|key| key.is_some() && *key == keys[0]));
}

#[tokio::test]
async fn lost_answer_is_reported_as_lost() {
    let node = FakeNode::closing_each_connection().await;

    let answers = Buyers::new(1).buy(vec![purchase("ada", &node)]).await;

    assert_eq!(answers[0].status, None);
    assert!(!answers[0].is_definite() && answers[0].reason.is_some());
}

fn purchase(user: &str, node: &FakeNode) -> PurchaseAttempt {
    PurchaseAttempt { user: user.to_owned(), base_url: format!("http://{}", node.addr) }
}
