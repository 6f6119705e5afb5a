//! Order ids: an attacker who knows the sale, the user and the key cannot compute them.

use std::collections::BTreeMap;
use std::fs;

use redis::cmd;
use reqwest::RequestBuilder;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::fixture::Target;

const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

#[tokio::test(flavor = "multi_thread")]
async fn order_id_is_not_computable_from_public_facts() {
    let target = Target::open().await;
    let another_node = target.stack.start_node().await.unwrap();
    let nodes = [target.stack.nodes()[0].url().to_owned(), another_node.url().to_owned()];

    // The attacker searches for keys of two accounts that give one order id, without a request.
    let computed = order_id_without_secret(&["flash", "mallory", "key"]);
    let [answered, repeated] =
        [&nodes[0], &nodes[1]].map(|node| buy_with_key(&target, node, "sale", "mallory", "key"));
    let (answered, repeated) = (answered.await, repeated.await);
    println!("computed {computed}, answered {answered}, repeated at another node {repeated}");
    assert_ne!(answered, computed, "the order id was computed without the sale's secret");
    assert_eq!(repeated, answered, "an attempt has the same order at each node");

    // A purchase at another sale teaches nothing about this one.
    let mut another = json!({ "id": "another", "totalStock": 10, "startsAt": "0s", "endsAt": "1h" });
    another["productName"] = "Chair".into();
    another["productPrice"] = 1.0.into();
    let coordinator = target.stack.coordinators()[0].url().to_owned();
    target.stack.admin().create(&coordinator, &another).await.unwrap();
    let elsewhere = buy_with_key(&target, &nodes[0], "sales/another", "mallory", "key").await;
    assert!(![&computed, &answered].contains(&&elsewhere), "{elsewhere}");

    // The secret is in the record, and in no answer, metric or log line.
    let secret = secret_of(&target, "flash").await;
    for (source, text) in everything_shown(&target).await {
        assert!(!text.contains(&secret), "{source} shows the secret of the order ids");
    }
    target.assert_audit_ok().await;
}

/// Returns the order id that follows from these parts alone.
fn order_id_without_secret(parts: &[&str]) -> String {
    let digest = Sha256::digest(parts.join("\u{1f}"));
    let bits = u128::from_be_bytes(*digest.first_chunk().unwrap());
    (0..14).map(|place| char::from(ALPHABET[(bits >> (5 * place)) as usize & 31])).collect()
}

async fn buy_with_key(target: &Target, node: &str, sale: &str, user: &str, key: &str) -> String {
    let request = target.purchase(&format!("{node}/api/{sale}/purchase"), user);
    let answer = request.header("idempotency-key", key).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    answer.json::<Value>().await.unwrap()["orderId"].as_str().unwrap().to_owned()
}

/// Reads the secret from the record of a sale.
async fn secret_of(target: &Target, sale: &str) -> String {
    for primary in target.stack.redis().primaries().await {
        let mut connection = target.stack.redis().connection(primary).await.unwrap();
        let read = cmd("GET").arg(format!("fs:{{{sale}}}:config")).query_async(&mut connection).await;
        // The other primaries answer with the address of the one that has the record.
        let Ok(Some(config)) = read as redis::RedisResult<Option<String>> else { continue };
        let config: Value = serde_json::from_str(&config).unwrap();
        let secret = config["layout"]["creation"].as_str().unwrap();
        assert_eq!(secret.len(), 32, "128 bits");
        return secret.to_owned();
    }
    panic!("no primary has the record of {sale}");
}

/// Returns the answers to buyers and operators, the metrics and the logs, each with its source.
async fn everything_shown(target: &Target) -> BTreeMap<String, String> {
    let (node, coordinator) = (&target.stack.nodes()[0], &target.stack.coordinators()[0]);
    let [buyers, ops, operators] = [node.url(), node.ops_url(), coordinator.url()];
    let admin = |path| target.client.get(format!("{operators}/admin/{path}"));
    let open = |base: &str, path: &str| target.client.get(format!("{base}{path}"));
    let requests: Vec<RequestBuilder> = [
        open(buyers, "/api/sale/status"),
        open(buyers, "/api/status"),
        open(buyers, "/api/sale/purchase/mallory"),
        open(buyers, "/api/purchase/mallory"),
        open(ops, "/metrics"),
        open(operators, "/metrics"),
        open(operators, "/live/sales"),
    ]
    .into_iter()
    .chain(
        ["sales", "sales/flash", "sales/flash/audit", "sales/flash/history"]
            .map(|path| admin(path).bearer_auth(target.stack.admin_token())),
    )
    .collect();
    let mut shown = BTreeMap::new();
    for request in requests {
        let answer = request.send().await.unwrap();
        let url = answer.url().to_string();
        assert_eq!(answer.status(), 200, "{url}");
        shown.insert(url, answer.text().await.unwrap());
    }
    for process in target.stack.processes() {
        shown.insert(process.name().to_owned(), fs::read_to_string(process.log()).unwrap_or_default());
    }
    shown
}
