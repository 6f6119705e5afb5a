//! Invalid requests, and their refusal in the form of each family.

use axum::http::Request;
use axum::http::header::{ALLOW, CONTENT_TYPE};
use serde_json::{Value, json};

use crate::fixture::{Answer, TestNode, post_json};

const BOTH_FAMILIES: [&str; 2] = ["/api/sale/purchase", "/api/purchase"];

/// Asserts that both families refuse a user id, the by-sale endpoints with this message.
async fn assert_user_id_refused(node: &TestNode, body: &str, message: &str) {
    let by_sale = node.post("/api/sale/purchase", body.to_owned()).await;
    assert_eq!(by_sale.status, 400, "{body}");
    let expected = json!({ "success": false, "reason": "invalid_user_id", "message": message });
    assert_eq!(by_sale.body, expected, "{body}");
    assert_invalid_user(&node.post("/api/purchase", body.to_owned()).await);
}

#[track_caller]
fn assert_invalid_user(answer: &Answer) {
    assert_eq!((answer.status, &answer.body), (422, &json!({ "error": "invalid_user" })));
}

#[tokio::test]
async fn invalid_user_id_is_refused_with_the_reason() {
    let node = TestNode::selling(10).await;
    let refused = [
        (json!(""), "The user id must not be empty."),
        (json!(" \t\u{a0} "), "The user id must not be empty."),
        (json!("a".repeat(129)), "The user id must be at most 128 bytes long."),
        (json!("\u{1f980}".repeat(33)), "The user id must be at most 128 bytes long."),
        (json!("ann\u{0}"), "The user id must not contain control characters."),
        (json!("ann\r\nset-cookie: a"), "The user id must not contain control characters."),
        (json!(7), "The user id must be a string."),
        (json!(null), "The user id is missing."),
        (json!(true), "The user id must be a string."),
        (json!(["ann"]), "The user id must be a string."),
        (json!({ "id": "ann" }), "The user id must be a string."),
    ];
    for (user, message) in refused {
        assert_user_id_refused(&node, &json!({ "userId": user }).to_string(), message).await;
    }
    assert_user_id_refused(&node, "{}", "The user id is missing.").await;
    assert_user_id_refused(&node, r#"{"userid":"ann"}"#, "The user id is missing.").await;
    assert_user_id_refused(&node, r#"{"userId":"\ud800"}"#, "The user id must be a string.").await;
}

#[tokio::test]
async fn single_sale_user_id_needs_three_characters() {
    let node = TestNode::selling(10).await;
    assert_invalid_user(&node.buy("/api/purchase", "ab").await);
    assert_invalid_user(&node.get("/api/purchase/ab").await);
    assert_eq!(node.buy("/api/sale/purchase", "ab").await.status, 200, "the other family asks for one");
}

#[tokio::test]
async fn lookup_of_an_invalid_user_id_is_refused() {
    let node = TestNode::selling(10).await;
    for user in ["%20", "%00", "%FF%FE", "a%0D%0Ab", &"a".repeat(129)] {
        for family in ["/api/sale".to_owned(), format!("/api/sales/{}", node.sale)] {
            let answer = node.get(&format!("{family}/purchase/{user}")).await;
            assert_eq!((answer.status, &answer.body["reason"]), (400, &json!("invalid_user_id")), "{family}");
        }
        assert_invalid_user(&node.get(&format!("/api/purchase/{user}")).await);
    }
}

#[tokio::test]
async fn body_must_be_a_json_object() {
    let node = TestNode::selling(10).await;
    let nested = "[".repeat(8_000);
    let broken =
        ["", " ", "ann", "{", r#"{"userId":"ann""#, r#"["ann"]"#, r#""ann""#, "null", "7", nested.as_str()];
    for path in BOTH_FAMILIES {
        for body in broken {
            node.post(path, body.to_owned()).await.assert_problem(400);
        }
        node.post(path, &b"{\"userId\":\"a\xff\xfe\"}"[..]).await.assert_problem(400);
        node.post(path, r#"{"userId":"ann","userId":"bob"}"#).await.assert_problem(400);
    }
}

#[tokio::test]
async fn deeply_nested_user_id_is_refused() {
    let node = TestNode::selling(10).await;
    let deep =
        |open: &str, close: &str| format!(r#"{{"userId":{}1{}}}"#, open.repeat(2_000), close.repeat(2_000));
    assert_user_id_refused(&node, &deep("[", "]"), "The user id must be a string.").await;
    assert_user_id_refused(&node, &deep("{\"a\":", "}"), "The user id must be a string.").await;
}

#[tokio::test]
async fn unknown_members_are_ignored() {
    let node = TestNode::selling(10).await;
    let body = json!({ "userId": "ann", "sale": "other", "quantity": 100 });
    assert_eq!(node.post("/api/sale/purchase", body.to_string()).await.status, 200);
}

#[tokio::test]
async fn body_is_limited_to_16_kib() {
    let node = TestNode::selling(10).await;
    let padded = |bytes: usize| format!("{}{}", json!({ "userId": "ann" }), " ".repeat(bytes - 16));
    for path in BOTH_FAMILIES {
        node.post(path, padded(1 << 20)).await.assert_problem(413);
        node.post(path, padded(16 * 1024 + 1)).await.assert_problem(413);
    }
    assert_eq!(node.post("/api/sale/purchase", padded(16 * 1024)).await.status, 200);
}

#[tokio::test]
async fn other_content_types_are_unsupported() {
    let node = TestNode::selling(10).await;
    for path in BOTH_FAMILIES {
        node.buy_with(Request::post(path)).await.assert_problem(415);
        for other in ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", "x", ""] {
            node.buy_with(Request::post(path).header(CONTENT_TYPE, other)).await.assert_problem(415);
        }
    }
    let request = Request::post("/api/sale/purchase").header(CONTENT_TYPE, "Application/JSON; charset=utf-8");
    assert_eq!(node.send(request, r#"{"userId":"ann"}"#).await.status, 200);
}

#[tokio::test]
async fn unknown_and_invalid_sale_ids_are_not_found() {
    let node = TestNode::selling(10).await;
    for sale in ["no-such-sale", "Flash", "%7Bflash%7D", "fs:flash", "%FF", "%00", "a%2Fb", &"a".repeat(33)] {
        node.get(&format!("/api/sales/{sale}/status")).await.assert_problem(404);
        node.get(&format!("/api/sales/{sale}/purchase/ann")).await.assert_problem(404);
        node.buy(&format!("/api/sales/{sale}/purchase"), "ann").await.assert_problem(404);
    }
}

#[tokio::test]
async fn unknown_path_is_not_found() {
    let node = TestNode::selling(10).await;
    let unknown =
        ["/api", "/api/sale/purchase/", "/api/sale/status/", "/api/sales//status", "/api/purchase/a/b"];
    for path in unknown {
        node.get(path).await.assert_problem(404);
    }
}

#[tokio::test]
async fn wrong_method_is_refused_with_allowed_methods() {
    let node = TestNode::selling(10).await;
    for (path, allowed) in
        [("/api/sale/purchase", "POST"), ("/api/status", "GET,HEAD"), ("/api/purchase/ann", "GET,HEAD")]
    {
        let answer = node.send(Request::delete(path), "").await;
        answer.assert_problem(405);
        assert_eq!(answer.headers[ALLOW], allowed, "{path}");
    }
}

#[tokio::test]
async fn invalid_idempotency_key_is_refused_before_the_purchase() {
    let node = TestNode::selling(10).await;
    for path in BOTH_FAMILIES {
        for key in ["a b", "\u{e9}", &"k".repeat(256)] {
            node.buy_with(post_json(path).header("idempotency-key", key)).await.assert_problem(400);
        }
    }
    assert_eq!(node.get("/api/sale/purchase/ann").await.body["hasPurchased"], Value::Bool(false));
}

#[tokio::test]
async fn empty_idempotency_key_is_none() {
    let node = TestNode::selling(10).await;
    let buy =
        async || node.buy_with(post_json("/api/sale/purchase").header("idempotency-key", "")).await.status;
    assert_eq!((buy().await, buy().await), (200, 409));
}

#[tokio::test]
async fn compressed_body_is_refused_with_the_accepted_encoding() {
    let node = TestNode::selling(10).await;
    for path in BOTH_FAMILIES {
        let answer = node.buy_with(post_json(path).header("content-encoding", "gzip")).await;
        answer.assert_problem(415);
        assert_eq!(answer.headers["accept-encoding"], "identity");
    }
}
