//! `buy`: who gets a unit, who does not, and what each is told.

use stock::calls::{Attempt, BUYERS_PER_CALL_MAX, Buy, BuyOutcome, CallError};
use stock::ids::OrderId;
use stock::sale::{SaleState, TOTAL_STOCK_MAX, Window};

use crate::stage::{
    ALL_THE_TIME, IN_THE_FUTURE, IN_THE_PAST, Raw, TestSale, attempt, attempts, claim, clock_of,
    on_another_ring,
};

#[tokio::test]
async fn a_buyer_gets_a_unit_and_a_claim_to_it() {
    let sale = TestSale::selling(3).await;
    let before = clock_of(&sale).await;

    let ann = attempt("ann");
    let purchases = sale.try_together(std::slice::from_ref(&ann)).await;

    let claim = claim(purchases.outcomes[0]);
    assert_eq!(purchases.stock, 2);
    assert_eq!(claim.order, ann.order);
    assert!((before..=clock_of(&sale).await).contains(&claim.purchased_at), "not bought at Redis' own time");
    assert_eq!(sale.claim_of("ann").await, Some(claim));
    let level = sale.level().await;
    assert_eq!((level.stock, level.sold, level.seq), (2, 1, 1));
}

#[tokio::test]
async fn a_repeated_attempt_is_told_of_its_first_success_and_takes_nothing() {
    let sale = TestSale::selling(3).await;
    let ann = attempt("ann");
    let first = claim(sale.tries(&ann).await);

    assert_eq!(sale.tries(&ann).await, BuyOutcome::Repeat(first));
    assert_eq!(sale.tries(&ann).await, BuyOutcome::Repeat(first));
    assert_eq!((sale.level().await.stock, sale.tick().await), (2, 2), "a repeat must write, and only `tick`");
}

#[tokio::test]
async fn another_attempt_of_a_user_is_told_of_the_unit_that_user_has() {
    let sale = TestSale::selling(3).await;
    let first = claim(sale.buys("ann").await);

    assert_eq!(sale.buys("ann").await, BuyOutcome::Duplicate(first));
    assert_eq!(sale.claim_of("ann").await, Some(first));
    // One for the duplicate, one for the claim that was found.
    assert_eq!(
        (sale.level().await.stock, sale.tick().await),
        (2, 2),
        "a duplicate must write, and only `tick`"
    );
}

#[tokio::test]
async fn whoever_finds_the_shard_empty_is_told_so_and_nothing_is_written() {
    let sale = TestSale::selling(1).await;
    let first = claim(sale.buys("ann").await);
    let before = sale.contents().await;

    assert_eq!(sale.buys("bob").await, BuyOutcome::Empty);

    assert_eq!(sale.contents().await, before);
    assert_eq!(
        sale.buys("ann").await,
        BuyOutcome::Duplicate(first),
        "the last unit's owner was told it is gone"
    );
}

#[tokio::test]
async fn a_sale_that_is_not_open_sells_nothing_and_writes_nothing() {
    let not_open = [
        ("before the start", SaleState::Open, IN_THE_FUTURE),
        ("after the end", SaleState::Open, IN_THE_PAST),
        ("while paused", SaleState::Paused, ALL_THE_TIME),
        ("once ended", SaleState::Ended, ALL_THE_TIME),
        ("while its shards are made", SaleState::Creating, ALL_THE_TIME),
    ];
    for (when, state, window) in not_open {
        let sale = TestSale::in_state(state, window, 5).await;
        let before = sale.contents().await;

        assert_eq!(sale.buys("ann").await, BuyOutcome::NotOpen, "{when}");

        assert_eq!(sale.contents().await, before, "{when}");
    }
}

#[tokio::test]
async fn a_buyer_hears_of_the_unit_bought_before_even_when_the_sale_is_over() {
    let sale = TestSale::selling(5).await;
    let ann = attempt("ann");
    let first = claim(sale.tries(&ann).await);
    sale.configure(3, SaleState::Open, IN_THE_PAST).await;

    assert_eq!(sale.tries(&ann).await, BuyOutcome::Repeat(first));
    assert_eq!(sale.buys("ann").await, BuyOutcome::Duplicate(first));
    assert_eq!(sale.buys("bob").await, BuyOutcome::NotOpen);
}

#[tokio::test]
async fn a_user_twice_in_one_call_gets_one_unit() {
    let sale = TestSale::selling(5).await;
    let [one, other] = [attempt("ann"), attempt("ann")];

    let purchases = sale.try_together(&[one, attempt("bob"), other]).await;

    let first = claim(purchases.outcomes[0]);
    claim(purchases.outcomes[1]);
    assert_eq!(purchases.outcomes[2], BuyOutcome::Duplicate(first));
    assert_eq!((purchases.stock, sale.level().await.sold), (3, 2));
}

#[tokio::test]
async fn an_attempt_twice_in_one_call_succeeds_twice_with_one_unit() {
    let sale = TestSale::selling(5).await;
    let ann = attempt("ann");

    let purchases = sale.try_together(&[ann.clone(), ann]).await;

    assert_eq!(purchases.outcomes[1], BuyOutcome::Repeat(claim(purchases.outcomes[0])));
    assert_eq!((purchases.stock, sale.level().await.sold), (4, 1));
    assert_eq!(sale.entries().await[0].1.len(), 1, "one unit, one order");
}

#[tokio::test]
async fn a_call_of_more_buyers_than_tokens_serves_the_first_ones() {
    let sale = TestSale::selling(2).await;
    claim(sale.buys("zoe").await);

    let purchases = sale.try_together(&attempts(["zoe", "ann", "bob", "cid"])).await;

    assert!(
        matches!(purchases.outcomes[0], BuyOutcome::Duplicate(_)),
        "who has a unit already takes nobody's place"
    );
    claim(purchases.outcomes[1]);
    assert_eq!(purchases.outcomes[2..], [BuyOutcome::Empty, BuyOutcome::Empty]);
    assert_eq!(purchases.stock, 0);
    assert_eq!(sale.claim_of("bob").await, None);
}

#[tokio::test]
async fn the_largest_call_serves_every_buyer_in_one_entry() {
    let sale = TestSale::selling(100).await;
    let users: Vec<String> = (0..BUYERS_PER_CALL_MAX).map(|n| format!("user-{n}")).collect();

    let purchases = sale.try_together(&attempts(users.iter().map(String::as_str))).await;

    purchases.outcomes.into_iter().for_each(|outcome| _ = claim(outcome));
    assert_eq!(purchases.stock, 100 - 64);
    let entries = sale.entries().await;
    assert_eq!(entries.iter().map(|(_, fields)| fields.len()).collect::<Vec<_>>(), [64]);
}

/// Each call says by Redis' own clock when it was made, so whether it should have sold is known to the millisecond.
#[tokio::test]
async fn the_first_millisecond_sells_and_the_one_after_the_last_does_not() {
    let sale = TestSale::selling(1_000_000).await;
    let (mut at_start, mut at_end, mut before_end) = (false, false, false);
    for version in 3.. {
        let starts_at = clock_of(&sale).await + 5;
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

/// A new user tries; when that was by Redis' clock, and whether a unit was sold.
async fn buy_now(sale: &TestSale) -> (u64, bool) {
    let attempts = [attempt(OrderId::random().as_str())];
    let cmd = stock::calls::Call::command(&Buy { shard: sale.shard(), attempts: &attempts, limit: None });
    let answer = sale.cluster.read(Raw { slot: sale.shard().slot, cmd: &cmd }).await.unwrap();
    let (_, now, outcomes): (u64, u64, Vec<i64>) = redis::from_redis_value(answer).unwrap();
    (now, outcomes[0] == 1)
}

#[tokio::test]
async fn a_caller_with_another_ring_is_refused_before_anything_else() {
    let sale = TestSale::selling(5).await;
    claim(sale.buys("ann").await);
    let before = sale.contents().await;

    let shard = on_another_ring(sale.shard());
    let refused =
        sale.cluster.write(Buy { shard: &shard, attempts: &attempts(["ann", "bob"]), limit: None }).await;

    let words =
        format!("this shard belongs to ring {}, not {}", sale.shard().ring.as_str(), shard.ring.as_str());
    assert_eq!(refused, Err(CallError::WrongRing(words)));
    assert_eq!(sale.contents().await, before);
}

#[tokio::test]
async fn a_shard_that_does_not_exist_sells_nothing_and_is_not_made() {
    let sale = TestSale::planned(1).await;

    let refused =
        sale.cluster.write(Buy { shard: sale.shard(), attempts: &attempts(["ann"]), limit: None }).await;

    assert_eq!(refused, Err(CallError::NoShard));
    assert_eq!(sale.contents().await, (vec![], vec![], vec![]));
}

#[tokio::test]
async fn users_with_odd_ids_are_users_like_others() {
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

    let purchases = sale.try_together(&attempts(odd)).await;

    let again = sale.try_together(&attempts(odd)).await;
    for ((id, first), second) in odd.iter().zip(purchases.outcomes).zip(again.outcomes) {
        let first = claim(first);
        assert_eq!(second, BuyOutcome::Duplicate(first), "{id:?} bought twice");
        assert_eq!(sale.claim_of(id).await, Some(first), "{id:?} is not found");
    }
    let users: Vec<String> = sale.entries().await.remove(0).1.into_iter().map(|(user, _)| user).collect();
    assert_eq!(users, odd, "the order stream names others");
}

#[tokio::test]
async fn the_order_stream_has_an_entry_a_call_numbered_by_the_shard() {
    let sale = TestSale::selling(3).await;
    let calls: [Vec<Attempt>; 4] =
        [attempts(["ann"]), attempts(["ann"]), attempts(["bob", "ann", "cid"]), attempts(["dan"])];
    let mut claims = Vec::new();
    for call in &calls {
        claims.push(sale.try_together(call).await.outcomes);
    }

    let order = |call: usize, buyer: usize| {
        let Attempt { user, order, correlation, .. } = &calls[call][buyer];
        let at = claim(claims[call][buyer]).purchased_at;
        (user.to_string(), format!("{order}:{at}:{correlation}"))
    };
    let expected = vec![
        ("1-0".to_owned(), vec![order(0, 0)]),
        // Neither the duplicate's call nor that of the buyer who came too late left an entry or took a number.
        ("2-0".to_owned(), vec![order(2, 0), order(2, 2)]),
    ];
    assert_eq!(sale.entries().await, expected);
    assert_eq!(sale.level().await.seq, 2);
}

#[tokio::test]
async fn where_the_order_cannot_be_written_nobody_has_bought() {
    let sale = TestSale::selling(5).await;
    let _: String =
        sale.ask(redis::cmd("XADD").arg(&sale.shard().orders).arg("99-0").arg("by").arg("hand")).await;
    let before = sale.contents().await;

    let refused =
        sale.cluster.write(Buy { shard: sale.shard(), attempts: &attempts(["ann"]), limit: None }).await;

    assert!(matches!(refused, Err(CallError::Refused(_))), "told {refused:?}");
    assert_eq!(sale.contents().await, before, "a claim without an order, or a token that nobody has");
}

#[tokio::test]
async fn the_three_keys_are_there_before_anybody_bought() {
    let sale = TestSale::selling(5).await;
    let shard = sale.shard();

    let exist: u64 =
        sale.ask(redis::cmd("EXISTS").arg(&shard.meta).arg(&shard.claims).arg(&shard.orders)).await;
    let (_, claims, entries) = sale.contents().await;

    assert_eq!(exist, 3);
    assert_eq!(claims, [(String::new(), String::new())], "a hash cannot be empty, so one field is there");
    assert_eq!(entries, []);
}

#[tokio::test]
async fn the_largest_stock_there_may_be_is_counted_to_the_unit() {
    let sale = TestSale::selling(TOTAL_STOCK_MAX).await;
    assert_eq!(sale.meta("stock").await, "1000000000", "not a number that Redis can count with");

    let purchases = sale.try_together(&attempts(["ann"])).await;

    assert_eq!(purchases.stock, TOTAL_STOCK_MAX - 1);
    assert_eq!(sale.meta("stock").await, "999999999");
}

#[tokio::test]
async fn purchases_at_the_same_time_never_sell_a_unit_twice() {
    let sale = TestSale::selling(50).await;
    let users: Vec<String> = (0..200).map(|n| format!("user-{}", n % 100)).collect();

    let told = futures::future::join_all(users.iter().map(|user| sale.buys(user))).await;

    let bought = told.iter().filter(|outcome| matches!(outcome, BuyOutcome::Bought(_))).count();
    assert_eq!(bought, 50);
    assert_eq!((sale.level().await.stock, sale.level().await.sold), (0, 50));
}
