//! `donate` and `accept`: tokens leave one shard, wait in a channel, and enter another shard exactly once.

use rediscluster::CallError;
use stock::calls::{Accept, Accepted, BuyOutcome, Donate, Donation, TokenSource};
use stock::ids::ShardId;
use stock::layout::Shard;

use crate::fixture::{TestSale, claim, with_another_ring};

const DONOR: ShardId = ShardId::new(0);
const RECEIVER: ShardId = ShardId::new(1);

async fn donate(sale: &TestSale, want: u64) -> Donation {
    sale.cluster.write(Donate { shard: sale.sale.shard(DONOR), to: RECEIVER, want }).await.unwrap()
}

async fn accept(sale: &TestSale, cumulative: u64) -> Accepted {
    let shard = sale.sale.shard(RECEIVER);
    sale.cluster.write(Accept { shard, from: TokenSource::Shard(DONOR), cumulative }).await.unwrap()
}

#[tokio::test]
async fn donate_gives_at_least_one_at_most_half() {
    // (stock, wanted, given)
    let cases = [
        (0, 1, 0),
        (0, 100, 0),
        (1, 1, 1),
        (1, 9, 1),
        (2, 1, 1),
        (2, 2, 1),
        (3, 2, 1),
        (3, 9, 1),
        (4, 2, 2),
        (5, 3, 2),
        (100, 10, 10),
        (100, 50, 50),
        (100, 51, 50),
        (101, 1_000, 50),
        (1_000_000, 400_000, 400_000),
    ];
    for (stock, want, given) in cases {
        let sale = TestSale::over_shards(&[stock, 0]).await;
        let donation = donate(&sale, want).await;
        let expected = Donation { cumulative: given, stock: stock - given };
        assert_eq!(donation, expected, "a shard of {stock} was asked for {want}");
        let (level, entered) = (sale.level().await, (given > 0).then_some((RECEIVER, given)));
        assert_eq!((level.stock, level.donated), (stock - given, Vec::from_iter(entered)), "{stock}, {want}");
    }
}

#[tokio::test]
async fn donations_accumulate_per_channel() {
    let sale = TestSale::over_shards(&[8, 0, 0]).await;

    assert_eq!(donate(&sale, 3).await, Donation { cumulative: 3, stock: 5 });
    assert_eq!(donate(&sale, 3).await, Donation { cumulative: 5, stock: 3 });

    let another = Donate { shard: sale.shard(), to: ShardId::new(2), want: 1 };
    assert_eq!(sale.cluster.write(another).await, Ok(Donation { cumulative: 1, stock: 2 }));
    assert_eq!(sale.level().await.donated.len(), 2, "each receiver has its own channel");
}

#[tokio::test]
async fn donate_zero_repeats_the_value_and_writes_tick() {
    let sale = TestSale::over_shards(&[8, 0]).await;

    assert_eq!(donate(&sale, 0).await, Donation { cumulative: 0, stock: 8 });
    assert_eq!(sale.tick().await, 0, "there was nothing to prove yet");

    let donation = donate(&sale, 3).await;
    assert_eq!(donate(&sale, 0).await, donation);
    assert_eq!(sale.tick().await, 1, "a repeated value must write, or a barrier after it proves nothing");
}

#[tokio::test]
async fn empty_shard_repeats_its_donation_and_writes_tick() {
    let sale = TestSale::over_shards(&[1, 0]).await;
    let last = donate(&sale, 1).await;

    assert_eq!(donate(&sale, 1).await, last);
    assert_eq!((last.stock, sale.tick().await), (0, 1));
}

#[tokio::test]
async fn donated_tokens_enter_the_receiving_shard() {
    let sale = TestSale::over_shards(&[8, 0]).await;
    let donation = donate(&sale, 3).await;

    assert_eq!(accept(&sale, donation.cumulative).await, Accepted { cumulative: 3, stock: 3 });

    let level = sale.level_of(sale.sale.shard(RECEIVER)).await;
    assert_eq!(level.accepted_from(TokenSource::Shard(DONOR)), 3);
    assert_eq!(level.stock, 3);
}

#[tokio::test]
async fn repeated_accept_adds_nothing() {
    let sale = TestSale::over_shards(&[8, 0]).await;
    let first = accept(&sale, donate(&sale, 3).await.cumulative).await;

    assert_eq!(accept(&sale, 3).await, first, "three tokens became more");
    assert_eq!(accept(&sale, 3).await, first, "three tokens became more");
}

#[tokio::test]
async fn repeated_accept_writes_tick() {
    let sale = TestSale::selling(5).await;
    let again = Accept { shard: sale.shard(), from: TokenSource::Mint, cumulative: 5 };

    sale.cluster.write(again).await.unwrap();

    assert_eq!(sale.tick().await, 1, "a repeated accept must write, or a barrier after it proves nothing");
}

#[tokio::test]
async fn accepts_out_of_order_add_tokens_once() {
    let sale = TestSale::over_shards(&[8, 0]).await;
    let (early, late) = (donate(&sale, 2).await.cumulative, donate(&sale, 2).await.cumulative);
    assert_eq!((early, late), (2, 4));

    assert_eq!(accept(&sale, late).await, Accepted { cumulative: 4, stock: 4 });
    assert_eq!(accept(&sale, early).await, Accepted { cumulative: 4, stock: 4 }, "it removed tokens");
}

#[tokio::test]
async fn stale_accept_does_not_restore_sold_tokens() {
    let sale = TestSale::selling(2).await;
    for user in ["ann", "bob"] {
        claim(sale.buy(user).await);
    }

    for cumulative in [2, 1, 0] {
        let again = Accept { shard: sale.shard(), from: TokenSource::Mint, cumulative };
        assert_eq!(sale.cluster.write(again).await, Ok(Accepted { cumulative: 2, stock: 0 }));
    }

    assert_eq!(sale.buy("cid").await, BuyOutcome::Empty, "a third unit of two was sold");
}

#[tokio::test]
async fn each_source_has_its_own_channel() {
    let sale = TestSale::over_shards(&[8, 5]).await;

    assert_eq!(accept(&sale, 3).await, Accepted { cumulative: 3, stock: 8 });

    let restock = Accept { shard: sale.sale.shard(RECEIVER), from: TokenSource::Mint, cumulative: 6 };
    assert_eq!(sale.cluster.write(restock).await, Ok(Accepted { cumulative: 6, stock: 9 }));
}

#[tokio::test]
async fn transfer_without_shard_or_ring_moves_nothing() {
    let sale = TestSale::over_shards(&[8, 0]).await;
    let before = sale.contents().await;
    let missing = TestSale::planned(1).await;

    let stranger = with_another_ring(sale.shard());
    let both = async |shard: &Shard| {
        let given = sale.cluster.write(Donate { shard, to: RECEIVER, want: 1 }).await;
        let taken = sale.cluster.write(Accept { shard, from: TokenSource::Mint, cumulative: 99 }).await;
        (given.unwrap_err(), taken.unwrap_err())
    };

    assert!(matches!(both(&stranger).await, (CallError::WrongRing(_), CallError::WrongRing(_))));
    assert_eq!(both(missing.shard()).await, (CallError::NoShard, CallError::NoShard));
    assert_eq!(sale.contents().await, before);
    assert_eq!(missing.contents().await, (vec![], vec![], vec![]));
}
