//! The audit of a ledger: rows in PostgreSQL against orders in Redis.

use buyers::{LedgerAudit, LedgerClient};
use reqwest::{Client, StatusCode};
use stock::ids::ShardId;
use stock::layout::SaleKeys;
use stock::sale::Sale;
use stock::store::ReadConfig;

use crate::fixture::{READ_TOKEN, SOON, Shop, TOKEN};

/// A shop with forty orders in its ledger.
struct AuditedShop(Shop);

impl AuditedShop {
    async fn open() -> Self {
        let shop = Shop::open(100).await;
        shop.start_ledger().await;
        assert_eq!(shop.buy(0..40).await.len(), 40);
        shop.database.wait_for_orders(40).await;
        Self(shop)
    }

    fn client(&self) -> LedgerClient {
        LedgerClient::new(&self.0.database.ledger_url(1), READ_TOKEN)
    }

    async fn audit(&self) -> LedgerAudit {
        self.client().settled_audit("flash", SOON).await.unwrap()
    }

    /// Changes the table, audits, and changes it back.
    async fn audit_with(&self, change: &str, back: &str) -> LedgerAudit {
        self.sql(change);
        let audit = self.audit().await;
        self.sql(back);
        audit
    }

    fn sql(&self, sql: &str) -> String {
        self.0.database.postgres.sql(sql).unwrap()
    }

    /// Inserts a copy of the first order, with some columns changed.
    async fn audit_with_copy(&self, order: &str, user: &str) -> LedgerAudit {
        let copy = format!(
            "INSERT INTO order_events SELECT sale, creation, shard, incarnation, seq, 999, 999, gen_random_uuid(), \
             aggregatetype, {order}, type, payload, {user}, at FROM order_events WHERE position = 1"
        );
        self.audit_with(&copy, "DELETE FROM order_events WHERE position = 999").await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn audit_finds_what_is_missing_extra_or_doubled() {
    let shop = AuditedShop::open().await;
    let numbers = |audit: &LedgerAudit| (audit.ok, audit.rows, audit.missing, audit.extra, audit.doubled);
    let clean = shop.audit().await;
    assert_eq!((numbers(&clean), clean.violations), ((true, 40, 0, 0, 0), Vec::new()));

    // A row was deleted.
    shop.sql("CREATE TABLE kept AS SELECT * FROM order_events WHERE position = 7");
    let put_back = "INSERT INTO order_events SELECT * FROM kept";
    let deleted = shop.audit_with("DELETE FROM order_events WHERE position = 7", put_back).await;
    assert_eq!(numbers(&deleted), (false, 39, 1, 0, 0), "{:?}", deleted.violations);
    let order = shop.sql("SELECT aggregateid FROM kept");
    assert!(
        deleted.violations[0].ends_with(&format!("order {order} has no row")),
        "{:?}",
        deleted.violations
    );

    // Rows were forged: for another user, of an order of another time, and for no user.
    let forged = shop.audit_with_copy("'forged'", "'mallory'").await;
    assert_eq!(numbers(&forged), (false, 41, 0, 1, 0));
    assert_eq!(forged.violations[1], "the row of order forged has no claim");
    let nameless = shop.audit_with_copy("'forged'", "NULL").await;
    assert_eq!(numbers(&nameless), (false, 41, 0, 1, 0), "{:?}", nameless.violations);
    let stolen = "UPDATE order_events SET user_id = 'mallory' WHERE position = 3";
    let users = "UPDATE order_events SET user_id = payload->>'userId'";
    assert_eq!(numbers(&shop.audit_with(stolen, users).await), (false, 40, 1, 1, 0));

    // An order has two rows.
    let doubled = shop.audit_with_copy("aggregateid", "NULL").await;
    assert_eq!(numbers(&doubled), (false, 41, 0, 0, 1), "{:?}", doubled.violations);
    assert!(doubled.violations[0].ends_with("has 2 rows"), "{:?}", doubled.violations);

    // A person who was erased is none of this.
    let url = format!("{}/sales/flash/orders/{order}/user", shop.0.database.ledger_url(1));
    let erased = Client::new().delete(url).bearer_auth(TOKEN).send().await.unwrap();
    assert_eq!(erased.status(), StatusCode::NO_CONTENT);
    assert_eq!(numbers(&shop.audit().await), (true, 40, 0, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn audit_finds_a_claim_that_redis_has_lost() {
    let shop = AuditedShop::open().await;
    let cluster = shop.0.cluster().await;
    let config = cluster.read(ReadConfig(&SaleKeys::new(&"flash".parse().unwrap()))).await.unwrap().unwrap();
    let sale = Sale::new(config).unwrap();
    let user = stock::ids::UserId::stored(shop.sql("SELECT user_id FROM order_events WHERE position = 5"));
    let home: ShardId = sale.ring().home(&user);
    for primary in shop.0.stack.redis().primaries().await {
        let mut server = shop.0.stack.redis().connection(primary).await.unwrap();
        let claims = &sale.shard(home).claims;
        redis::cmd("HDEL").arg(claims).arg(user.as_str()).query_async::<i32>(&mut server).await.ok();
    }
    let audit = shop.audit().await;
    assert!(!audit.ok && audit.violations[0].ends_with("is not the claim of its user"), "{audit:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ledger_that_is_behind_misses_nothing() {
    let shop = AuditedShop::open().await;
    // Given a table that takes no rows now.
    shop.sql(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''full''; END'",
    );
    shop.sql("CREATE TRIGGER refuse BEFORE INSERT ON order_events FOR EACH ROW EXECUTE FUNCTION refuse()");
    assert_eq!(shop.0.buy(40..60).await.len(), 20);
    let audit = shop.client().audit("flash").await.unwrap();
    assert_eq!(
        (audit.ok, audit.rows, audit.missing, audit.behind),
        (true, 40, 0, 20),
        "{:?}",
        audit.violations
    );

    shop.sql("DROP TRIGGER refuse ON order_events");
    assert_eq!((shop.audit().await.ok, shop.audit().await.rows), (true, 60));
}

#[tokio::test(flavor = "multi_thread")]
async fn audit_needs_a_token_and_a_sale() {
    let shop = AuditedShop::open().await;
    let status = async |sale: &str, token: &str| {
        let url = format!("{}/sales/{sale}/audit", shop.0.database.ledger_url(1));
        Client::new().get(url).bearer_auth(token).send().await.unwrap().status()
    };
    assert_eq!(status("flash", READ_TOKEN).await, StatusCode::OK);
    assert_eq!(status("flash", "0123456789abcdeg").await, StatusCode::UNAUTHORIZED);
    for sale in ["flush", "Flash", "x".repeat(40).as_str()] {
        assert_eq!(status(sale, READ_TOKEN).await, StatusCode::NOT_FOUND, "{sale}");
    }
}
