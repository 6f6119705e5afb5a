//! Clients of both families of endpoints. Their parsers accept only answers that match the documented API.

use std::time::Duration;

use buyers::{ANSWER_LIMIT, Answer, AnswerKind, ApiFamily, BuyerClient, PurchaseRequest};
use futures::future::try_join_all;
use testkit::stack::SaleOptions;
use testkit::{StackOptions, until};

use crate::fixture::OpenSale;

/// A client of one family of endpoints. It keeps a CSRF token, and when that is refused, takes the new one and retries
/// once.
struct Client {
    http: BuyerClient,
    family: ApiFamily,
    url: String,
    token: Option<String>,
}

impl Client {
    async fn new(url: String, family: ApiFamily) -> Self {
        let http = BuyerClient::new(ANSWER_LIMIT);
        let token = if family == ApiFamily::SingleSale { http.csrf(&url).await.token } else { None };
        Self { http, family, url, token }
    }

    /// Returns the last answer and the number of tries.
    async fn buy(&mut self, user: &str) -> (Answer, u32) {
        let refused = self.try_to_buy(user).await;
        if refused.kind != AnswerKind::CsrfRefused {
            return (refused, 1);
        }
        self.token = refused.token;
        (self.try_to_buy(user).await, 2)
    }

    async fn try_to_buy(&self, user: &str) -> Answer {
        let purchase = PurchaseRequest { user, family: self.family, key: None, token: self.token.as_deref() };
        self.http.buy(&self.url, purchase).await
    }

    async fn assert_buys(&mut self, user: &str, kind: AnswerKind, tries: u32) -> Option<String> {
        let (answer, sent) = self.buy(user).await;
        assert_eq!((answer.kind, sent), (kind, tries), "{answer}");
        answer.order
    }

    async fn look_up(&self, user: &str) -> (AnswerKind, Option<String>) {
        let found = self.http.look_up(&self.url, self.family, user).await;
        (found.kind, found.order)
    }
}

async fn start_sale_opening_in(starts_in: Duration) -> OpenSale {
    let sale = SaleOptions { total_stock: 2, starts_in, ..SaleOptions::default() };
    OpenSale::start_with(StackOptions { sale, ..StackOptions::default() }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn polling_client_buys_when_sale_opens() {
    let sale = start_sale_opening_in(Duration::from_secs(9)).await;
    let mut client = Client::new(sale.stack.url(), ApiFamily::BySale).await;

    client.assert_buys("ann", AnswerKind::NotActive, 1).await;
    assert_eq!(client.look_up("ann").await, (AnswerKind::FoundNone, None));

    let status = async || client.http.sale_status(&client.url).await.unwrap();
    let is_active = async || {
        let word = status().await.status;
        assert!(["upcoming", "active"].contains(&word.as_str()), "{word}");
        word == "active"
    };
    until("an active sale", Duration::from_secs(20), is_active).await.unwrap();
    let status = status().await;
    assert_eq!((status.remaining_stock, status.total_stock), (2, 2));

    let bought = client.assert_buys("ann", AnswerKind::Purchased, 1).await;
    assert_eq!(client.assert_buys("ann", AnswerKind::AlreadyPurchased, 1).await, bought);
    assert_eq!(client.look_up("ann").await, (AnswerKind::Found, bought));

    client.assert_buys("bob", AnswerKind::Purchased, 1).await;
    client.assert_buys("cid", AnswerKind::SoldOut, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn client_with_stale_token_retries_and_buys() {
    let sale = start_sale_opening_in(Duration::ZERO).await;
    let mut client = Client::new(sale.stack.url(), ApiFamily::SingleSale).await;

    let bought = client.assert_buys("ann", AnswerKind::Purchased, 1).await;
    client.token = Some("stale".into());
    assert_eq!(client.assert_buys("ann", AnswerKind::AlreadyPurchased, 2).await, bought);
    assert_eq!(client.look_up("ann").await, (AnswerKind::Found, bought));
    assert_eq!(client.look_up("bob").await, (AnswerKind::FoundNone, None));

    client.assert_buys("bob", AnswerKind::Purchased, 1).await;
    let sold_out = async || {
        let status = client.http.status(&client.url, ApiFamily::SingleSale).await;
        String::from_utf8_lossy(&status.body).contains(r#""status":"sold_out""#)
    };
    until("the status is sold_out", Duration::from_secs(5), sold_out).await.unwrap();
    let status = sale.stack.stock_status().await.unwrap();
    assert_eq!((status.stock, status.sold), (0, 2));
    let mut late = Client::new(sale.stack.url(), ApiFamily::SingleSale).await;
    late.assert_buys("cid", AnswerKind::SoldOut, 1).await;
    let (invalid, _) = late.buy("x").await;
    assert_eq!((invalid.status, invalid.reason.as_deref()), (Some(422), Some("invalid_user")));
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_share_csrf_secret_after_simultaneous_start() {
    // Given a sale whose nodes and Redis servers have all died.
    let sale = start_sale_opening_in(Duration::ZERO).await;
    let (redis, nodes) = (sale.stack.redis(), sale.stack.nodes());
    nodes.iter().map(|node| node.process()).chain(redis.processes()).for_each(|process| process.kill());

    // When all of them start at the same time. Redis serves no slot during the first two seconds.
    let servers = redis.servers().await;
    tokio::try_join!(
        try_join_all(servers.iter().map(|server| redis.restart(server.addr))),
        try_join_all(nodes.iter().map(|node| node.restart())),
    )
    .unwrap();

    // Then each node accepts the other's tokens, beginning with its first answer.
    for (issuer, other) in [(&nodes[0], &nodes[1]), (&nodes[1], &nodes[0])] {
        let mut client = Client::new(issuer.url().to_owned(), ApiFamily::SingleSale).await;
        client.url = other.url().to_owned();
        let answer = client.try_to_buy("ann").await;
        assert!(client.token.is_some() && answer.kind != AnswerKind::CsrfRefused, "{answer}");
    }
}
