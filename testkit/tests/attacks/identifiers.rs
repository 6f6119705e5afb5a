//! Attacks through the ids of sales, users and requests.

use serde_json::json;

use crate::fixture::{Target, assert_problem};

#[tokio::test(flavor = "multi_thread")]
async fn special_characters_in_ids_have_no_effect() {
    let target = Target::open().await;
    for base_url in target.base_urls() {
        for sale in ["%7Bflash%7D", "flash.0", "{flash.0}", "FLASH", "a".repeat(1_000).as_str()] {
            let status = target.get(&format!("{base_url}/api/sales/{sale}/status")).await;
            assert_eq!(status.status(), 404, "sale {sale}");
        }
        for user in ["a%0d%0aset-cookie:%20b", "a%00b", "%ff", "%0a"] {
            let found = target.get(&format!("{base_url}/api/sale/purchase/{user}")).await;
            assert_eq!(found.status(), 400, "user {user}");
            assert!(!found.headers().contains_key("set-cookie"), "user {user}");
        }
        for user in ["a\r\nset-cookie: b", "a\0b", "\u{7f}", "*3\u{2028}$3", "", " ", &"a".repeat(129)] {
            assert_eq!(target.buy(&base_url, user).await, 400, "user {user:?}");
        }
        for id in ["a b", "\u{e9}", &"a".repeat(65)] {
            let status = target.client.get(format!("{base_url}/api/sale/status"));
            let answer = status.header("x-correlation-id", id).send().await.unwrap();
            assert_ne!(answer.headers()["x-correlation-id"].as_bytes(), id.as_bytes());
        }
        target.assert_healthy("odd names").await;
    }
    // Ids are only ever used as values, so these are harmless: such a buyer is treated like any other.
    for user in ["{flash.1}", "fs:{flash.0}:claims", "' OR 1=1 --", "*3 $3", "${jndi:ldap://x}", "<script>"] {
        for status in [200, 409] {
            assert_eq!(target.buy(&target.stack.url(), user).await, status, "{user}");
        }
    }
    target.assert_audit_ok().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn look_alike_email_buys_no_second_unit() {
    let target = Target::open().await;
    let sale = json!({
        "id": "mail", "totalStock": 100, "startsAt": "0s", "endsAt": "1h", "userIds": "email",
        "productName": "Chair", "productPrice": 1.0,
    });
    let coordinator = target.stack.coordinators()[0].url().to_owned();
    target.stack.admin().create(&coordinator, &sale).await.unwrap();

    let url = format!("{}/api/sales/mail/purchase", target.stack.url());
    let buy = async |user: &str| target.purchase(&url, user).send().await.unwrap();
    assert_eq!(buy("ann.k@shop.example").await.status(), 200);
    for (look_alike, why, status) in [
        ("Ann.K@Shop.Example", "another case", 409),
        (" ann.k@shop.example\t", "spaces around", 409),
        ("ann.\u{212a}@shop.example", "the Kelvin sign", 409),
        ("\u{ff41}nn.k@shop.example", "a wide letter", 409),
        ("ann.k\u{ff20}shop.example", "a wide @", 409),
        ("\u{430}nn.k@shop.example", "a Cyrillic letter", 400),
        ("ann.k@sh\u{3bf}p.example", "a Greek letter", 400),
        ("ann\u{200b}.k@shop.example", "a space of no width", 400),
        ("ann\u{ad}.k@shop.example", "a soft hyphen", 400),
        ("\u{202e}ann.k@shop.example", "right to left", 400),
    ] {
        let answer = buy(look_alike).await;
        println!("{why:20} {}", answer.status());
        assert_eq!(answer.status(), status, "{why}");
    }
    let audit = target.stack.audit("mail").await.unwrap();
    assert!(audit.ok && audit.sold == 1, "{audit:?}");
    target.assert_healthy("look-alikes").await;
    target.assert_audit_ok().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_csrf_tokens_and_foreign_origins_are_refused() {
    let target = Target::open().await;
    for base_url in target.base_urls() {
        for path in ["/api/purchase", "/api/sale/purchase"] {
            let made_up = target.purchase(&format!("{base_url}{path}"), "mallory");
            let made_up = made_up.header("x-csrf-token", "made-up").header("cookie", "csrfToken=made-up");
            assert_eq!(made_up.send().await.unwrap().status(), 403, "{path}");
            let foreign = target.purchase(&format!("{base_url}{path}"), "mallory");
            let foreign =
                foreign.header("origin", "https://evil.example").header("sec-fetch-site", "cross-site");
            assert_eq!(foreign.header("cookie", "a=b").send().await.unwrap().status(), 403, "{path}");
        }
    }
    assert!(!target.has_bought("mallory").await);
    let form = target.client.post(format!("{}/api/sale/purchase", target.stack.url()));
    let form = form.header("content-type", "text/plain").body(r#"{"userId":"mallory"}"#);
    assert_problem(form.send().await.unwrap(), 415, "a form that looks like JSON").await;
    target.assert_healthy("foreign requests").await;
    target.assert_audit_ok().await;
}
