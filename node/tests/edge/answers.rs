//! Responses to buyers, in the form of each family.

use axum::http::Request;
use serde_json::{Value, json};
use stock::ids::UserIdKind;
use stock::sale::{SaleState, Window};

use crate::fixture::{Answer, TestNode, post_json};

#[tokio::test]
async fn status_shows_product_window_and_stock() {
    let node = TestNode::selling(10).await;
    for path in ["/api/sale/status".to_owned(), format!("/api/sales/{}/status", node.sale)] {
        let Answer { status, mut body, .. } = node.get(&path).await;
        let server_time = body.as_object_mut().unwrap().remove("serverTime").unwrap();
        let expected = json!({
            "saleId": node.sale,
            "status": "active",
            "startsAt": "1970-01-01T00:00:00.000Z",
            "endsAt": "2096-10-02T07:06:40.000Z",
            "remainingStock": 10,
            "totalStock": 10,
            "soldOut": false,
            "productName": "Chair",
            "productPrice": 49.9,
        });
        assert_eq!((status, body), (200, expected));
        assert!(server_time.as_str().unwrap().ends_with('Z'));
    }
}

#[tokio::test]
async fn single_sale_status_has_epoch_times() {
    let node = TestNode::selling(10).await;
    let expected = json!({
        "status": "active",
        "startsAt": 0,
        "endsAt": 4_000_000_000_000_u64,
        "stock": 10,
        "sold": 0,
        "productId": node.sale,
        "productDescription": "A good one",
    });
    let answer = node.get("/api/status").await;
    assert_eq!((answer.status, answer.body), (200, expected));
}

#[tokio::test]
async fn purchase_is_visible_in_both_families() {
    let node = TestNode::selling(10).await;

    let bought = node.buy("/api/sale/purchase", "ann").await;
    assert_eq!((bought.status, &bought.body["success"]), (200, &json!(true)));
    let order = &bought.body["orderId"];

    let again = node.buy(&format!("/api/sales/{}/purchase", node.sale), " ann ").await;
    assert_eq!((again.status, &again.body["reason"]), (409, &json!("already_purchased")));
    assert_eq!((&again.body["orderId"], &again.body["purchasedAt"]), (order, &bought.body["purchasedAt"]));
    let again = node.buy("/api/purchase", "ann").await;
    assert_eq!((again.status, again.body), (409, json!({ "status": "already_purchased", "orderId": order })));

    let found = node.get("/api/sale/purchase/ann").await;
    assert_eq!((&found.body["hasPurchased"], &found.body["orderId"]), (&json!(true), order));
    let found = node.get("/api/purchase/ann").await;
    assert_eq!((found.status, found.body), (200, json!({ "purchased": true, "orderId": order })));
}

#[tokio::test]
async fn lookup_without_a_purchase_says_so() {
    let node = TestNode::selling(10).await;
    assert_eq!(node.get("/api/sale/purchase/ann").await.body, json!({ "hasPurchased": false }));
    assert_eq!(node.get("/api/purchase/ann").await.body, json!({ "purchased": false, "orderId": null }));
}

#[tokio::test]
async fn paused_sale_refuses_purchases_in_both_families() {
    let node = TestNode::with_config(10, |config| config.state = SaleState::Paused).await;
    assert_eq!(node.get("/api/sale/status").await.body["status"], "paused");
    assert_eq!(node.get("/api/status").await.body["status"], "upcoming");
    let refused = node.buy("/api/sale/purchase", "ann").await;
    assert_eq!((refused.status, &refused.body["message"]), (403, &json!("The sale is paused.")));
    let refused = node.buy("/api/purchase", "ann").await;
    assert_eq!((refused.status, refused.body), (403, json!({ "status": "not_active" })));
}

#[tokio::test]
async fn ended_sale_refuses_purchases() {
    let node = TestNode::with_config(10, |config| config.window = Window { starts_at: 0, ends_at: 1 }).await;
    assert_eq!(node.get("/api/sale/status").await.body["status"], "ended");
    assert_eq!(node.get("/api/status").await.body["status"], "ended");
    let refused = node.buy("/api/sale/purchase", "ann").await;
    assert_eq!((refused.status, &refused.body["reason"]), (403, &json!("sale_not_active")));
}

#[tokio::test]
async fn purchase_succeeds_again_with_the_same_key() {
    let node = TestNode::selling(10).await;
    for path in ["/api/sale/purchase", "/api/purchase"] {
        let user = format!("ann of {path}");
        let buy = async |key| {
            let request = node.with_csrf_token(post_json(path).header("idempotency-key", key)).await;
            node.send(request, json!({ "userId": user }).to_string()).await
        };
        let (first, repeated) = (buy("attempt-1").await, buy("attempt-1").await);
        assert_eq!((first.status, repeated.status), (200, 200));
        assert_eq!(first.body, repeated.body);
        assert_eq!(buy("attempt-2").await.status, 409);
    }
}

#[tokio::test]
async fn email_spellings_count_as_one_buyer() {
    let node = TestNode::with_config(10, |config| config.user_ids = UserIdKind::Email).await;
    assert_eq!(node.buy("/api/sale/purchase", "Ann@Shop.example").await.status, 200);
    assert_eq!(node.buy("/api/sale/purchase", "ann@shop.EXAMPLE").await.status, 409);
    assert_eq!(node.get("/api/sale/purchase/ANN@shop.example").await.body["hasPurchased"], true);
}

#[tokio::test]
async fn spellings_of_an_international_address_buy_one_unit() {
    let node = TestNode::with_config(10, |config| config.user_ids = UserIdKind::Email).await;
    assert_eq!(node.buy("/api/sale/purchase", "j\u{f6}rg@b\u{fc}cher.example").await.status, 200);
    for same in [
        "j\u{f6}rg@xn--bcher-kva.example",
        "J\u{d6}RG@B\u{dc}CHER.example.",
        "\u{a0}j\u{f6}rg@b\u{fc}cher.example",
        "\"j\u{f6}rg\"@b\u{fc}cher.example",
    ] {
        assert_eq!(node.buy("/api/sale/purchase", same).await.status, 409, "{same}");
    }
    for refused in ["<j\u{f6}rg@b\u{fc}cher.example>", "mailto:ann@shop.example", "KARL"] {
        let answer = node.buy("/api/sale/purchase", refused).await;
        assert_eq!((answer.status, &answer.body["reason"]), (400, &json!("invalid_user_id")), "{refused}");
    }
    assert_eq!(node.buy("/api/sale/purchase", "\u{7528}\u{6237}@\u{4f8b}\u{5b50}.example").await.status, 200);
}

#[tokio::test]
async fn tags_of_an_address_buy_one_unit_when_folded() {
    let node = TestNode::with_config(10, |config| config.user_ids = UserIdKind::EmailFolded).await;
    assert_eq!(node.buy("/api/sale/purchase", "a.nn+1@gmail.com").await.status, 200);
    assert_eq!(node.buy("/api/sale/purchase", "ann+2@googlemail.com").await.status, 409);
}

#[tokio::test]
async fn every_response_has_a_correlation_id() {
    let node = TestNode::selling(10).await;
    for path in ["/api/sale/status", "/api/sale/purchase/ann", "/api/sales/none/status", "/nowhere"] {
        let request = Request::get(path).header("x-correlation-id", "trace-1");
        assert_eq!(node.send(request, "").await.headers["x-correlation-id"], "trace-1", "{path}");
        let made = node.get(path).await;
        assert!(!made.headers["x-correlation-id"].is_empty(), "{path}");
    }
}

#[tokio::test]
async fn unusual_user_ids_can_buy() {
    let node = TestNode::selling(100).await;
    let odd = [
        ("{sale}", "%7Bsale%7D"),
        ("fs:{flash.0}:meta", "fs:%7Bflash.0%7D:meta"),
        ("\"quoted\"", "%22quoted%22"),
        ("it's", "it's"),
        ("\u{1f980}\u{1f980}\u{1f980}", "%F0%9F%A6%80%F0%9F%A6%80%F0%9F%A6%80"),
        ("a/b", "a%2Fb"),
        ("a b", "a%20b"),
        ("100%", "100%25"),
    ];
    for (user, in_path) in odd {
        let bought = node.buy("/api/sale/purchase", user).await;
        assert_eq!(bought.status, 200, "{user}");
        let found = node.get(&format!("/api/sale/purchase/{in_path}")).await;
        assert_eq!(found.body["orderId"], bought.body["orderId"], "{user}");
        assert_ne!(found.body["orderId"], Value::Null, "{user}");
    }
}
