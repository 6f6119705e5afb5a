//! Attempts to be another user with AUTH=header.

use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};

use crate::fixture::{Target, assert_problem};

const USER: &str = "X-Authenticated-User";

#[tokio::test]
async fn user_header_counts_only_from_trusted_proxies() {
    // Given a node that believes its proxy, which is nginx or any other program on 127.0.0.1.
    let target = Target::with_node_environment(&[("AUTH", "header"), ("TRUSTED_PROXIES", "127.0.0.1")]).await;
    let [nginx, node] = target.base_urls().map(|url| format!("{url}/api/sale/purchase"));
    let stranger =
        Client::builder().local_address("127.0.0.2".parse::<std::net::IpAddr>().unwrap()).build().unwrap();
    let as_user = |request: RequestBuilder, user: &str| request.header(USER, user);

    // When strangers name a victim, through nginx and at the node itself, then nothing is bought or shown.
    for (client, url) in [(&target.client, &nginx), (&stranger, &nginx), (&stranger, &node)] {
        let buy = as_user(client.post(url).json(&json!({})), "victim").send().await.unwrap();
        assert_problem(buy, 401, url).await;
        let look_up = as_user(client.get(format!("{url}/victim")), "victim").send().await.unwrap();
        assert_problem(look_up, 401, url).await;
    }

    // And the proxy's own header names the buyer, and no other user.
    let from_proxy = || target.client.post(&node).json(&json!({}));
    assert_eq!(as_user(from_proxy(), "ann").send().await.unwrap().status(), 200);
    assert_eq!(as_user(from_proxy(), "ann").send().await.unwrap().status(), 409);
    let other = as_user(target.purchase(&node, "victim"), "ann").send().await.unwrap();
    assert_problem(other, 403, "a purchase for another user").await;
    let two = as_user(as_user(from_proxy(), "victim"), "ann").send().await.unwrap();
    assert_problem(two, 401, "two users").await;
    let of_victim = as_user(target.client.get(format!("{node}/victim")), "victim").send().await.unwrap();
    assert_eq!(of_victim.json::<Value>().await.unwrap()["hasPurchased"], false);
    target.assert_audit_ok().await;
}
