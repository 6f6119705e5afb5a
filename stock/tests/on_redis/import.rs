//! `import`: orders of a lost sale enter the shards of the new one, each once.

use rediscluster::CallError;
use stock::calls::{Accept, BuyOutcome, Claim, Configure, TokenSource};
use stock::functions::Function;
use stock::ids::{OrderId, UserId};
use stock::import::{Import, ImportedOrder};
use stock::orders::ReadOrders;
use stock::sale::{LayoutConfig, Sale, SaleConfig, SaleState};
use stock::snapshot::Confirmed;

use crate::fixture::{ALWAYS, Raw, TestSale, attempt, unwrap_all, user_id};

fn order(user: UserId) -> ImportedOrder {
    let claim = Claim { order: OrderId::random(), purchased_at: 1_500 };
    ImportedOrder { user, claim, correlation: "trace:7".into() }
}

fn orders(users: &[&str]) -> Vec<ImportedOrder> {
    users.iter().map(|user| order(user_id(user))).collect()
}

/// A sale whose only shard is being created.
async fn being_created() -> TestSale {
    let planned = TestSale::planned(1).await;
    planned.configure(1, SaleState::Creating, ALWAYS).await;
    planned
}

async fn import(sale: &TestSale, orders: &[ImportedOrder]) -> Result<Confirmed, CallError> {
    sale.cluster.write(Import { shard: sale.shard(), orders }).await
}

#[tokio::test]
async fn imported_orders_are_claims_and_entries_once() {
    let sale = being_created().await;
    let erased = order(UserId::erased(&OrderId::random()));
    let (first, second) = (orders(&["ann", "bob"]), [orders(&["ann", "eve"]), vec![erased.clone()]].concat());
    let second = [&first[..1], &second[1..]].concat();

    // Given a call that is repeated, and another one that repeats a part of it.
    assert_eq!(import(&sale, &first).await, Ok(Confirmed { sold: 2, seq: 1, drained: None }));
    let tick = sale.tick().await;
    assert_eq!(import(&sale, &first).await, Ok(Confirmed { sold: 2, seq: 1, drained: None }));
    assert!(sale.tick().await > tick, "a barrier needs a write");
    assert_eq!(import(&sale, &second).await, Ok(Confirmed { sold: 4, seq: 2, drained: None }));

    // Then each order is there once, and the books balance.
    let read = ReadOrders { shard: sale.shard(), after: 0, until: None, entries: 10 };
    let streamed = sale.cluster.read(read).await.unwrap();
    let expected = [&first[..], &second[1..]].concat();
    assert_eq!(streamed.len(), 4);
    for (order, imported) in streamed.iter().zip(&expected) {
        let ImportedOrder { user, claim, correlation } = imported;
        assert_eq!((&order.user, &order.claim, &order.correlation), (user, claim, correlation));
    }
    assert_eq!(sale.claim_of("eve").await, Some(second[1].claim));
    let level = sale.level().await;
    assert_eq!((level.stock, level.sold, level.accepted_from(TokenSource::Mint)), (0, 4, 4));
}

#[tokio::test]
async fn caller_without_the_control_key_imports_nothing() {
    let sale = being_created().await;
    // A node has no right to the control key.
    let mut cmd = redis::cmd("FCALL");
    let (meta, claims, orders) = (&*sale.shard().meta, &*sale.shard().claims, &*sale.shard().orders);
    cmd.arg(Function::Import.function())
        .arg(4)
        .arg(&[meta, claims, orders, meta])
        .arg(sale.shard().ring.as_str())
        .arg(&["ann", "QWGK1PFYHPXQSB:1500", "trace"]);
    let refused =
        sale.cluster.read(Raw { slot: sale.shard().slot, cmd: &cmd }).await.unwrap_err().to_string();
    assert!(refused.contains("NOTCONTROL"), "{refused}");
    assert_eq!(sale.claim_of("ann").await, None);
}

#[tokio::test]
async fn repeated_attempt_of_an_imported_order_is_recognized() {
    let sale = being_created().await;
    let imported = orders(&["ann"]);
    import(&sale, &imported).await.unwrap();
    sale.cluster.write(Accept { shard: sale.shard(), from: TokenSource::Mint, cumulative: 2 }).await.unwrap();
    sale.configure(2, SaleState::Open, ALWAYS).await;

    let mut again = attempt("ann");
    assert_eq!(sale.try_buy(&again).await, BuyOutcome::Duplicate(imported[0].claim));
    again.order = imported[0].claim.order;
    assert_eq!(sale.try_buy(&again).await, BuyOutcome::Repeat(imported[0].claim));
    assert!(matches!(sale.buy("bob").await, BuyOutcome::Bought(_)));
    assert_eq!(sale.buy("eve").await, BuyOutcome::Empty, "one unit was free");
}

#[tokio::test]
async fn shard_that_sells_takes_no_imports() {
    let sale = TestSale::selling(5).await;
    for state in [SaleState::Open, SaleState::Paused, SaleState::Ended] {
        sale.configure(10 + state as u64, state, ALWAYS).await;
        let before = sale.contents().await;
        let refused = import(&sale, &orders(&["ann"])).await.unwrap_err();
        assert!(refused.to_string().contains("NOTCREATING"), "{refused}");
        assert_eq!(sale.contents().await, before, "{state:?}");
    }
}

#[tokio::test]
async fn import_refuses_another_claim_of_a_user() {
    let sale = being_created().await;
    import(&sale, &orders(&["ann"])).await.unwrap();
    let before = sale.contents().await;
    let refused = import(&sale, &orders(&["bob", "ann"])).await.unwrap_err();
    assert!(refused.to_string().contains("CLAIMED"), "{refused}");
    assert_eq!(sale.contents().await, before, "a part of the call was executed");
}

#[tokio::test]
async fn import_refuses_a_shard_that_was_made_again() {
    let sale = being_created().await;
    let incarnations = unwrap_all(
        sale.cluster
            .write_all(&[Configure {
                shard: sale.shard(),
                version: 1,
                state: SaleState::Creating,
                window: ALWAYS,
            }])
            .await,
    );
    let incarnations = incarnations.into_iter().map(|held| held.incarnation).collect();
    let layout = LayoutConfig { incarnations, ..sale.sale.config.layout.clone() };
    let known: Sale = sale.sale.at(SaleConfig { layout, ..(*sale.sale.config).clone() }).unwrap();

    // Given a shard that is lost and made again, as by a late call.
    let shard = sale.shard();
    let keys = [&shard.meta, &shard.claims, &shard.orders, &shard.control];
    let _deleted: u64 = sale.query(&redis::Cmd::del(&keys[..])).await;
    sale.configure(1, SaleState::Creating, ALWAYS).await;

    let import = Import { shard: &known.shards()[0], orders: &orders(&["ann"]) };
    assert!(matches!(sale.cluster.write(import).await, Err(CallError::WrongRing(_))));
}
