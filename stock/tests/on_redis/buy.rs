//! `buy`: the outcome of each attempt, and its effects.

use rediscluster::{Call as _, CallError};
use stock::calls::{Attempt, BUYERS_PER_CALL_MAX, Buy, BuyOutcome};
use stock::ids::OrderId;
use stock::sale::{SaleState, TOTAL_STOCK_MAX, Window};

use crate::fixture::{
    ALWAYS, IN_THE_FUTURE, IN_THE_PAST, TestSale, attempt, attempts, buying, claim, server_clock,
    with_another_ring,
};

#[tokio::test]
async fn buy_sells_a_unit_and_records_the_claim() {
    let sale = TestSale::selling(3).await;
    let before = server_clock(&sale).await;

    let ann = attempt("ann");
    let purchases = sale.buy_batch(std::slice::from_ref(&ann)).await;

    let claim = claim(purchases.outcomes[0]);
    assert_eq!(purchases.stock, 2);
    assert_eq!(claim.order, ann.order);
    let during = before..=server_clock(&sale).await;
    assert!(during.contains(&claim.purchased_at), "not bought at Redis' own time");
    assert_eq!(sale.claim_of("ann").await, Some(claim));
    let level = sale.level().await;
    assert_eq!((level.stock, level.sold, level.seq), (2, 1, 1));
}

#[tokio::test]
async fn repeated_attempt_returns_its_first_claim() {
    let sale = TestSale::selling(3).await;
    let ann = attempt("ann");
    let first = claim(sale.try_buy(&ann).await);

    assert_eq!(sale.try_buy(&ann).await, BuyOutcome::Repeat(first));
    assert_eq!(sale.try_buy(&ann).await, BuyOutcome::Repeat(first));
    assert_eq!((sale.level().await.stock, sale.tick().await), (2, 2), "a repeat must write, and only `tick`");
}

#[tokio::test]
async fn second_attempt_of_a_user_is_a_duplicate() {
    let sale = TestSale::selling(3).await;
    let first = claim(sale.buy("ann").await);

    assert_eq!(sale.buy("ann").await, BuyOutcome::Duplicate(first));
    assert_eq!(sale.claim_of("ann").await, Some(first));
    // One for the duplicate, one for the claim that was found.
    assert_eq!((sale.level().await.stock, sale.tick().await), (2, 2), "it must write, and only `tick`");
}

#[tokio::test]
async fn empty_shard_answers_empty_and_writes_nothing() {
    let sale = TestSale::selling(1).await;
    let first = claim(sale.buy("ann").await);
    let before = sale.contents().await;

    assert_eq!(sale.buy("bob").await, BuyOutcome::Empty);

    assert_eq!(sale.contents().await, before);
    assert_eq!(sale.buy("ann").await, BuyOutcome::Duplicate(first), "the last unit's claim was not found");
}

#[tokio::test]
async fn closed_sale_sells_and_writes_nothing() {
    let not_open = [
        ("before the start", SaleState::Open, IN_THE_FUTURE),
        ("after the end", SaleState::Open, IN_THE_PAST),
        ("while paused", SaleState::Paused, ALWAYS),
        ("once ended", SaleState::Ended, ALWAYS),
        ("while its shards are made", SaleState::Creating, ALWAYS),
    ];
    for (when, state, window) in not_open {
        let sale = TestSale::in_state(state, window, 5).await;
        let before = sale.contents().await;

        assert_eq!(sale.buy("ann").await, BuyOutcome::NotOpen, "{when}");

        assert_eq!(sale.contents().await, before, "{when}");
    }
}

#[tokio::test]
async fn ended_sale_still_returns_earlier_claims() {
    let sale = TestSale::selling(5).await;
    let ann = attempt("ann");
    let first = claim(sale.try_buy(&ann).await);
    sale.configure(3, SaleState::Open, IN_THE_PAST).await;

    assert_eq!(sale.try_buy(&ann).await, BuyOutcome::Repeat(first));
    assert_eq!(sale.buy("ann").await, BuyOutcome::Duplicate(first));
    assert_eq!(sale.buy("bob").await, BuyOutcome::NotOpen);
}

#[tokio::test]
async fn user_twice_in_one_call_gets_one_unit() {
    let sale = TestSale::selling(5).await;
    let [one, other] = [attempt("ann"), attempt("ann")];

    let purchases = sale.buy_batch(&[one, attempt("bob"), other]).await;

    let first = claim(purchases.outcomes[0]);
    claim(purchases.outcomes[1]);
    assert_eq!(purchases.outcomes[2], BuyOutcome::Duplicate(first));
    assert_eq!((purchases.stock, sale.level().await.sold), (3, 2));
}

#[tokio::test]
async fn attempt_twice_in_one_call_gets_one_unit() {
    let sale = TestSale::selling(5).await;
    let ann = attempt("ann");

    let purchases = sale.buy_batch(&[ann.clone(), ann]).await;

    assert_eq!(purchases.outcomes[1], BuyOutcome::Repeat(claim(purchases.outcomes[0])));
    assert_eq!((purchases.stock, sale.level().await.sold), (4, 1));
    assert_eq!(sale.entries().await[0].1.len(), 1, "one unit, one order");
}

#[tokio::test]
async fn call_with_too_few_tokens_serves_first_buyers() {
    let sale = TestSale::selling(2).await;
    claim(sale.buy("zoe").await);

    let purchases = sale.buy_batch(&attempts(["zoe", "ann", "bob", "cid"])).await;

    // The duplicate does not take another buyer's place.
    assert!(matches!(purchases.outcomes[0], BuyOutcome::Duplicate(_)));
    claim(purchases.outcomes[1]);
    assert_eq!(purchases.outcomes[2..], [BuyOutcome::Empty, BuyOutcome::Empty]);
    assert_eq!(purchases.stock, 0);
    assert_eq!(sale.claim_of("bob").await, None);
}

#[tokio::test]
async fn largest_call_serves_all_buyers_in_one_entry() {
    let sale = TestSale::selling(100).await;
    let users: Vec<String> = (0..BUYERS_PER_CALL_MAX).map(|n| format!("user-{n}")).collect();

    let purchases = sale.buy_batch(&attempts(users.iter().map(String::as_str))).await;

    purchases.outcomes.into_iter().for_each(|outcome| _ = claim(outcome));
    assert_eq!(purchases.stock, 100 - 64);
    let entries = sale.entries().await;
    assert_eq!(entries.iter().map(|(_, fields)| fields.len()).collect::<Vec<_>>(), [64]);
}

/// The answer of each call contains its time by Redis' clock, so the expected outcome is known to the millisecond.
#[tokio::test]
async fn window_includes_start_and_excludes_end() {
    let sale = TestSale::selling(1_000_000).await;
    let (mut at_start, mut at_end, mut before_end) = (false, false, false);
    for version in 3.. {
        let starts_at = server_clock(&sale).await + 5;
        let window = Window { starts_at, ends_at: starts_at + 5 };
        sale.configure(version, SaleState::Open, window).await;
        loop {
            let (now, sold) = buy_now(&sale).await;
            let open = (window.starts_at..window.ends_at).contains(&now);
            assert_eq!(sold, open, "at {now}, selling from {} until {}", window.starts_at, window.ends_at);
            at_start |= now == window.starts_at;
            before_end |= now == window.ends_at - 1;
            at_end |= now == window.ends_at;
            if now > window.ends_at {
                break;
            }
        }
        if at_start && before_end && at_end {
            return;
        }
        assert!(version < 500, "the machine is too busy to call in a given millisecond");
    }
}

/// Makes a purchase as a new user. Returns its time by Redis' clock, and true when a unit was sold.
async fn buy_now(sale: &TestSale) -> (u64, bool) {
    let attempts = [attempt(OrderId::random().as_str())];
    let (_, now, _, outcomes): (u64, u64, u64, Vec<i64>) =
        sale.query(&buying(sale.shard(), &attempts).command()).await;
    (now, outcomes[0] == 1)
}

#[tokio::test]
async fn buy_with_another_ring_is_refused() {
    let sale = TestSale::selling(5).await;
    claim(sale.buy("ann").await);
    let before = sale.contents().await;

    let shard = with_another_ring(sale.shard());
    let refused = sale.cluster.write(buying(&shard, &attempts(["ann", "bob"]))).await;

    let error_text = format!("this shard belongs to ring {}, not {}", sale.shard().ring, shard.ring);
    assert_eq!(refused, Err(CallError::WrongRing(error_text)));
    assert_eq!(sale.contents().await, before);
}

#[tokio::test]
async fn buy_does_not_create_a_missing_shard() {
    let sale = TestSale::planned(1).await;

    let refused = sale.cluster.write(buying(sale.shard(), &attempts(["ann"]))).await;

    assert_eq!(refused, Err(CallError::NoShard));
    assert_eq!(sale.contents().await, (vec![], vec![], vec![]));
}

#[tokio::test]
async fn unusual_user_ids_buy_like_others() {
    let sale = TestSale::selling(100).await;
    let longest = "x".repeat(128);
    let widest = "🦀".repeat(32);
    let odd = [
        "{flash}",
        "a{b}c",
        "}{",
        "\"quoted\"",
        "it's",
        "\\",
        "100%",
        "a b",
        "-1",
        "0",
        "nil",
        "false",
        "🦀🦀",
        "éva",
        "fs:{sale.0}:meta",
        "order:ms",
        "*",
        "$",
        longest.as_str(),
        widest.as_str(),
    ];

    let purchases = sale.buy_batch(&attempts(odd)).await;

    let again = sale.buy_batch(&attempts(odd)).await;
    for ((id, first), second) in odd.iter().zip(purchases.outcomes).zip(again.outcomes) {
        let first = claim(first);
        assert_eq!(second, BuyOutcome::Duplicate(first), "{id:?} bought twice");
        assert_eq!(sale.claim_of(id).await, Some(first), "{id:?} is not found");
    }
    let users: Vec<String> = sale.entries().await.remove(0).1.into_iter().map(|(user, _)| user).collect();
    assert_eq!(users, odd, "the order stream has other users");
}

#[tokio::test]
async fn order_stream_has_one_numbered_entry_per_call() {
    let sale = TestSale::selling(3).await;
    let calls: [Vec<Attempt>; 4] =
        [attempts(["ann"]), attempts(["ann"]), attempts(["bob", "ann", "cid"]), attempts(["dan"])];
    let mut claims = Vec::new();
    for call in &calls {
        claims.push(sale.buy_batch(call).await.outcomes);
    }

    let order = |call: usize, buyer: usize| {
        let Attempt { user, order, correlation, .. } = &calls[call][buyer];
        let at = claim(claims[call][buyer]).purchased_at;
        (user.to_string(), format!("{order}:{at}:{correlation}"))
    };
    let expected = vec![
        ("1-0".to_owned(), vec![order(0, 0)]),
        // Neither the call with the duplicate nor the one that came after the last unit added an entry or used a
        // number.
        ("2-0".to_owned(), vec![order(2, 0), order(2, 2)]),
    ];
    assert_eq!(sale.entries().await, expected);
    assert_eq!(sale.level().await.seq, 2);
}

#[tokio::test]
async fn failed_order_write_sells_nothing() {
    let sale = TestSale::selling(5).await;
    let _: String =
        sale.query(redis::cmd("XADD").arg(&sale.shard().orders).arg("99-0").arg("by").arg("hand")).await;
    let before = sale.contents().await;

    let refused = sale.cluster.write(buying(sale.shard(), &attempts(["ann"]))).await;

    assert!(matches!(refused, Err(CallError::Refused(_))), "got {refused:?}");
    assert_eq!(sale.contents().await, before, "a claim without an order, or a lost token");
}

#[tokio::test]
async fn keys_exist_before_the_first_purchase() {
    let sale = TestSale::selling(5).await;
    let shard = sale.shard();

    let exist: u64 =
        sale.query(redis::cmd("EXISTS").arg(&shard.meta).arg(&shard.claims).arg(&shard.orders)).await;
    let (_, claims, entries) = sale.contents().await;

    assert_eq!(exist, 3);
    assert_eq!(claims, [(String::new(), String::new())], "a hash cannot be empty, so it has one field");
    assert_eq!(entries, []);
}

#[tokio::test]
async fn largest_stock_is_counted_exactly() {
    let sale = TestSale::selling(TOTAL_STOCK_MAX).await;
    assert_eq!(sale.meta("stock").await, "1000000000", "the stock is not stored as an integer");

    let purchases = sale.buy_batch(&attempts(["ann"])).await;

    assert_eq!(purchases.stock, TOTAL_STOCK_MAX - 1);
    assert_eq!(sale.meta("stock").await, "999999999");
}

#[tokio::test]
async fn concurrent_purchases_never_oversell() {
    let sale = TestSale::selling(50).await;
    let users: Vec<String> = (0..200).map(|n| format!("user-{}", n % 100)).collect();

    let outcomes = futures::future::join_all(users.iter().map(|user| sale.buy(user))).await;

    let bought = outcomes.iter().filter(|outcome| matches!(outcome, BuyOutcome::Bought(_))).count();
    assert_eq!(bought, 50);
    assert_eq!((sale.level().await.stock, sale.level().await.sold), (0, 50));
}

#[tokio::test]
async fn late_call_does_nothing_and_says_so() {
    let sale = TestSale::selling(5).await;
    let ann = attempt("ann");
    claim(sale.try_buy(&ann).await);
    let before = sale.contents().await;
    let now = server_clock(&sale).await;
    let both = [ann, attempt("bob")];
    let call = |not_after| sale.cluster.poll(Buy { shard: sale.shard(), attempts: &both, not_after });

    for not_after in [0, now - 1] {
        let late = call(not_after).await.unwrap_err();
        assert!(matches!(late, CallError::Late(_)), "got {late:?}");
        assert!(late.is_transient() && !late.is_unknown());
    }

    assert_eq!(sale.contents().await, before, "a late call may not even write `tick`");
    let in_time = call(now + 60_000).await.unwrap();
    assert!(matches!(in_time.outcomes[0], BuyOutcome::Repeat(_)));
    claim(in_time.outcomes[1]);
}

#[tokio::test]
async fn answer_has_the_version_of_the_settings() {
    let sale = TestSale::selling(0).await;
    assert_eq!(sale.buy_batch(&attempts(["ann"])).await.version, 2);
    sale.configure(7, SaleState::Paused, ALWAYS).await;
    assert_eq!(sale.buy_batch(&attempts(["ann"])).await.version, 7);
}
