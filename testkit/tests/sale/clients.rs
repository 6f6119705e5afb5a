//! Clients written from the documented API alone: one for each family of calls.

use std::time::Duration;

use futures::future::try_join_all;
use reqwest::{Client, Response};
use serde_json::{Value, json};
use testkit::StackOptions;
use testkit::stack::SaleOptions;
use tokio::time::sleep;

use crate::fixture::OpenSale;

/// Polls the status every second until the sale is active, then buys.
struct PollingClient {
    http: Client,
    url: String,
}

impl PollingClient {
    async fn status(&self) -> Value {
        let status = self.http.get(format!("{}/api/sale/status", self.url)).send().await.unwrap();
        assert_eq!(status.status(), 200);
        status.json().await.unwrap()
    }

    async fn wait_until_active(&self) -> Value {
        loop {
            let status = self.status().await;
            if status["status"] == "active" {
                return status;
            }
            assert_eq!(status["status"], "upcoming");
            sleep(Duration::from_secs(1)).await;
        }
    }

    async fn buy(&self, user: &str) -> (u16, Value) {
        let purchase = self.http.post(format!("{}/api/sale/purchase", self.url));
        read(purchase.json(&json!({ "userId": user })).send().await.unwrap()).await
    }

    async fn look_up(&self, user: &str) -> Value {
        let found = self.http.get(format!("{}/api/sale/purchase/{user}", self.url)).send().await.unwrap();
        read(found).await.1
    }
}

/// Keeps a CSRF token and its cookie. When they are refused, it takes the new token and retries once.
struct TokenClient {
    http: Client,
    url: String,
    token: String,
    cookie: String,
}

impl TokenClient {
    async fn start(http: Client, url: String) -> Self {
        let answer = http.get(format!("{url}/api/csrf")).send().await.unwrap();
        let cookie = cookie_of(&answer);
        let token = read(answer).await.1["csrfToken"].as_str().unwrap().to_owned();
        Self { http, url, token, cookie }
    }

    /// Returns the last answer and the number of tries.
    async fn buy(&mut self, user: &str) -> ((u16, Value), u32) {
        let refused = self.try_to_buy(user).await;
        if refused.status() != 403 {
            return (read(refused).await, 1);
        }
        self.cookie = cookie_of(&refused);
        let (_, body) = read(refused).await;
        assert_eq!(body["error"], "csrf");
        body["csrfToken"].as_str().unwrap().clone_into(&mut self.token);
        (read(self.try_to_buy(user).await).await, 2)
    }

    async fn try_to_buy(&self, user: &str) -> Response {
        let purchase = self.http.post(format!("{}/api/purchase", self.url));
        let purchase = purchase.header("x-csrf-token", &self.token).header("cookie", &self.cookie);
        purchase.json(&json!({ "userId": user })).send().await.unwrap()
    }

    async fn get(&self, path: &str) -> Value {
        read(self.http.get(format!("{}{path}", self.url)).send().await.unwrap()).await.1
    }
}

fn cookie_of(answer: &Response) -> String {
    let cookie = answer.headers()["set-cookie"].to_str().unwrap();
    cookie.split(';').next().unwrap().to_owned()
}

async fn read(answer: Response) -> (u16, Value) {
    (answer.status().as_u16(), answer.json().await.unwrap())
}

async fn start_sale_opening_in(starts_in: Duration) -> OpenSale {
    let sale = SaleOptions { total_stock: 2, starts_in, ..SaleOptions::default() };
    OpenSale::start_with(StackOptions { sale, ..StackOptions::default() }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn polling_client_buys_when_sale_opens() {
    let sale = start_sale_opening_in(Duration::from_secs(9)).await;
    let client = PollingClient { http: Client::new(), url: sale.stack.url() };

    let early = client.buy("ann").await;
    assert_eq!(
        (early.0, &early.1["success"], &early.1["reason"]),
        (403, &json!(false), &json!("sale_not_active"))
    );
    assert_eq!(client.look_up("ann").await, json!({ "hasPurchased": false }));

    let status = client.wait_until_active().await;
    assert_eq!((&status["remainingStock"], &status["totalStock"]), (&json!(2), &json!(2)));
    assert!(status["startsAt"].as_str().unwrap() <= status["serverTime"].as_str().unwrap());

    let (code, bought) = client.buy("ann").await;
    assert_eq!((code, &bought["success"]), (200, &json!(true)));
    let again = client.buy("ann").await;
    assert_eq!((again.0, &again.1["reason"]), (409, &json!("already_purchased")));
    assert_eq!(again.1["orderId"], bought["orderId"]);
    let found = client.look_up("ann").await;
    assert_eq!((&found["hasPurchased"], &found["orderId"]), (&json!(true), &bought["orderId"]));

    assert_eq!(client.buy("bob").await.0, 200);
    let late = client.buy("cid").await;
    assert_eq!((late.0, &late.1["reason"]), (409, &json!("out_of_stock")));
}

#[tokio::test(flavor = "multi_thread")]
async fn client_with_stale_token_retries_and_buys() {
    let sale = start_sale_opening_in(Duration::ZERO).await;
    let mut client = TokenClient::start(Client::new(), sale.stack.url()).await;

    let ((code, bought), tries) = client.buy("ann").await;
    assert_eq!((code, tries, &bought["status"]), (200, 1, &json!("purchased")));

    client.token = "stale".into();
    let ((code, again), tries) = client.buy("ann").await;
    assert_eq!((code, tries, &again["status"]), (409, 2, &json!("already_purchased")));
    assert_eq!(again["orderId"], bought["orderId"]);
    assert_eq!(
        client.get("/api/purchase/ann").await,
        json!({ "purchased": true, "orderId": bought["orderId"] })
    );
    assert_eq!(client.get("/api/purchase/bob").await, json!({ "purchased": false, "orderId": null }));

    assert_eq!(client.buy("bob").await.0.0, 200);
    let sold_out = async || client.get("/api/status").await["status"] == "sold_out";
    testkit::until("the status is sold_out", Duration::from_secs(5), sold_out).await.unwrap();
    let status = client.get("/api/status").await;
    assert_eq!((&status["stock"], &status["sold"]), (&json!(0), &json!(2)));
    let mut late = TokenClient::start(Client::new(), sale.stack.url()).await;
    assert_eq!(late.buy("cid").await, ((410, json!({ "status": "sold_out" })), 1));
    assert_eq!(late.buy("x").await, ((422, json!({ "error": "invalid_user" })), 1));
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
        let mut client = TokenClient::start(Client::new(), issuer.url().to_owned()).await;
        client.url = other.url().to_owned();
        let answer = client.try_to_buy("ann").await;
        assert_ne!(answer.status(), 403, "{}", answer.text().await.unwrap());
    }
}
