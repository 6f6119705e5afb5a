//! Audits of real sales of many pages. Each violation of an invariant must be detected.

use redis::{Cmd, cmd};
use stock::audit::{AuditReport, audit};
use stock::calls::{Accept, Attempt, Donate, TokenSource};
use stock::ids::ShardId;
use stock::layout::Shard;

use crate::fixture::{TestSale, attempt, buying, claim, unwrap_all};

const SOLD: u64 = 5_000;
/// Small enough for several pages of the order stream per shard.
const BUYERS_PER_CALL: usize = 8;

/// A sale of three shards with 5,000 units sold, after a transfer, with two tokens in a channel.
async fn sold_sale() -> TestSale {
    let sale = TestSale::over_shards(&[SOLD; 3]).await;
    let (donor, receiver) = (sale.shard_at(0), sale.shard_at(1));
    let donate = |want| Donate { shard: donor, to: receiver.id, want };
    let donation = sale.cluster.write(donate(3)).await.unwrap();
    let from = TokenSource::Shard(donor.id);
    sale.cluster.write(Accept { shard: receiver, from, cumulative: donation.cumulative }).await.unwrap();
    sale.cluster.write(donate(2)).await.unwrap();

    let mut homes: Vec<Vec<Attempt>> = vec![vec![]; 3];
    for n in 0..SOLD {
        let attempt = attempt(&format!("user-{n}"));
        homes[sale.sale.ring().home(&attempt.user).index()].push(attempt);
    }
    let mut calls = Vec::new();
    for (shard, home) in sale.sale.shards().iter().zip(&homes) {
        calls.extend(home.chunks(BUYERS_PER_CALL).map(|attempts| buying(shard, attempts)));
    }
    let answers = unwrap_all(sale.cluster.write_all(&calls).await);
    answers.into_iter().flat_map(|purchases| purchases.outcomes).for_each(|outcome| _ = claim(outcome));
    sale
}

impl TestSale {
    async fn audit(&self) -> AuditReport {
        audit(&self.cluster, &self.sale).await.unwrap()
    }

    async fn assert_violation(&self, text: &str) -> AuditReport {
        let audit = self.audit().await;
        assert!(!audit.ok, "the audit passes a broken sale");
        let is_listed = audit.violations.iter().any(|violation| violation.contains(text));
        assert!(is_listed, "no violation contains {text:?}: {:#?}", audit.violations);
        audit
    }

    /// Returns a user whose home is this shard.
    fn user_at(&self, shard: &Shard) -> String {
        let users = (0..SOLD).map(|n| attempt(&format!("user-{n}")).user);
        users.into_iter().find(|user| self.sale.ring().home(user) == shard.id).unwrap().to_string()
    }
}

#[tokio::test]
async fn audit_counts_every_unit_of_a_sale() {
    let sale = sold_sale().await;

    let audit = sale.audit().await;

    assert_eq!(audit.violations, Vec::<String>::new());
    let expected = AuditReport {
        ok: true,
        total: 3 * SOLD,
        sold: SOLD,
        stock: 2 * SOLD - 2,
        in_flight: 2,
        claims: SOLD,
        orders: SOLD,
        ..AuditReport::default()
    };
    assert_eq!(audit, expected);
}

#[tokio::test]
async fn audit_passes_while_the_sale_sells() {
    let sale = sold_sale().await;
    let shard = sale.shard();
    let users: Vec<Attempt> = (0..10_000).map(|n| attempt(&format!("late-{n}"))).collect();
    let at_home: Vec<_> = users.into_iter().filter(|a| sale.sale.ring().home(&a.user) == shard.id).collect();

    let buying = async {
        for attempts in at_home[..2_000].chunks(4) {
            sale.cluster.read(buying(shard, attempts)).await.unwrap();
        }
    };
    let auditing = async {
        for _ in 0..4 {
            let audit = sale.audit().await;
            assert!(audit.ok, "{:#?}", audit.violations);
        }
    };
    tokio::join!(buying, auditing);

    assert_eq!(sale.audit().await.sold, SOLD + 2_000);
}

#[tokio::test]
async fn audit_detects_a_lost_claim() {
    let sale = sold_sale().await;
    let user = sale.user_at(sale.shard());

    let _: u64 = sale.query(&Cmd::hdel(&sale.shard().claims, &user)).await;

    let audit = sale.assert_violation("is not the claim").await;
    assert_eq!((audit.claims, audit.orders), (SOLD - 1, SOLD));
}

#[tokio::test]
async fn audit_detects_stock_changed_by_hand() {
    let sale = sold_sale().await;

    let _: u64 = sale.query_at(sale.shard_at(2), &Cmd::hincr(&sale.shard_at(2).meta, "stock", 1)).await;

    sale.assert_violation("shard 2: accepted").await;
}

#[tokio::test]
async fn audit_detects_lost_orders() {
    let sale = sold_sale().await;

    let _: u64 = sale.query(cmd("XDEL").arg(&sale.shard().orders).arg("100-0")).await;

    let audit = sale.assert_violation("has no order").await;
    assert_eq!((audit.claims, audit.orders), (SOLD, SOLD - BUYERS_PER_CALL as u64));
}

#[tokio::test]
async fn audit_detects_a_user_with_two_units() {
    let sale = sold_sale().await;
    let user = sale.user_at(sale.shard_at(0));

    let attempts = [attempt(&user)];
    let misdirected = sale.cluster.write(buying(sale.shard_at(1), &attempts)).await.unwrap();
    claim(misdirected.outcomes[0]);

    sale.assert_violation("is claimed here, but at home in another").await;
    let audit = sale.assert_violation("has two units").await;
    assert_eq!((audit.stray_claims, audit.buyers_twice), (1, 1));
}

#[tokio::test]
async fn audit_detects_more_accepted_than_donated() {
    let sale = sold_sale().await;

    // The donor loses its donations, as after a failover that loses unconfirmed writes.
    let donor = &sale.shard().meta;
    let _: i64 = sale.query(&Cmd::hincr(donor, "out:1", -4)).await;
    let _: i64 = sale.query(&Cmd::hincr(donor, "stock", 4)).await;

    sale.assert_violation("channel 0 -> 1: 3 accepted of 1 that entered").await;
}

#[tokio::test]
async fn audit_detects_stock_that_was_not_minted() {
    let sale = sold_sale().await;

    let too_much = Accept { shard: sale.shard(), from: TokenSource::Mint, cumulative: SOLD + 1 };
    sale.cluster.write(too_much).await.unwrap();

    sale.assert_violation("channel mint -> 0").await;
}

#[tokio::test]
async fn audit_reads_orders_with_any_correlation_id() {
    let sale = TestSale::over_shards(&[5]).await;
    let ann = Attempt { correlation: "trace:1:span:2".into(), ..attempt("ann") };

    claim(sale.try_buy(&ann).await);

    let audit = sale.audit().await;
    assert!(audit.ok && audit.orders == 1, "{:#?}", audit.violations);
}

#[tokio::test]
async fn audit_names_a_missing_shard() {
    let sale = TestSale::over_shards(&[5, 5]).await;
    let _: u64 = sale.query_at(sale.shard_at(1), &Cmd::del(&sale.shard_at(1).meta)).await;

    let unreadable = audit(&sale.cluster, &sale.sale).await.unwrap_err();

    let expected = format!("shard {} could not be audited: the shard does not exist", ShardId::new(1));
    assert_eq!(unreadable.to_string(), expected);
}
