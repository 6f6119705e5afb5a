//! The leader moves tokens to a shard that sells faster than the others, and never without a barrier.

use std::convert::Infallible;
use std::time::Duration;

use coordinator::coordinator::Coordinator;
use coordinator::new_sale::NewSale;
use rediscluster::Cluster;
use stock::calls::{Level, TokenSource};
use stock::ids::ShardId;
use stock::sale::Sale;
use testkit::{ClusterOptions, RedisCluster};

use crate::fixture::{
    assert_clean, attempts, by_test, chairs, client_of, coordinator_on, levels, purchase, until, users_of,
    wait_for_observations, while_running,
};

/// A sale with three shards of about a thousand chairs each.
async fn sale_on(coordinator: &Coordinator, id: &str) -> Sale {
    let wanted = NewSale { shards: Some(3), total_stock: 3_000, ..chairs(id) };
    coordinator.sales.create(&wanted, by_test()).await.unwrap().sale
}

/// Buys a few hundred times per second for users of one shard, until it is cancelled. No barrier delays the purchases.
async fn keep_buying(client: &Cluster, sale: &Sale, home: ShardId) -> Infallible {
    let mut users = users_of(sale, home, "neighbour");
    loop {
        let attempts = attempts(users.by_ref().take(10));
        client.read(purchase(sale.shard(home), &attempts)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn while_buying<T>(
    client: &Cluster,
    sale: &Sale,
    home: ShardId,
    scenario: impl Future<Output = T>,
) -> T {
    tokio::select! {
        never = keep_buying(client, sale, home) => match never {},
        result = scenario => result,
    }
}

fn stolen(levels: &[Level]) -> u64 {
    let accepted = levels.iter().flat_map(|level| &level.accepted);
    accepted.filter(|(source, _)| *source != TokenSource::Mint).map(|(_, tokens)| tokens).sum()
}

fn given(levels: &[Level]) -> u64 {
    levels.iter().flat_map(|level| &level.donated).map(|(_, tokens)| tokens).sum()
}

#[tokio::test]
async fn fast_selling_shard_gets_tokens_before_running_dry() {
    let redis = RedisCluster::start(ClusterOptions::default()).await.unwrap();
    let (coordinator, buyers) = (coordinator_on(&redis).await, client_of(&redis).await);
    let sale = sale_on(&coordinator, "skewed").await;
    let home = ShardId::new(1);

    let supplied = until("tokens arrive at the shard", async || {
        let levels = levels(&coordinator, sale.id()).await;
        assert!(levels[home.index()].stock > 0, "the shard ran dry first");
        stolen(&levels[1..2]) > 0
    });
    while_running(&coordinator, while_buying(&buyers, &sale, home, supplied)).await;

    let settled = async || coordinator.sales.audit(sale.id()).await.unwrap().in_flight == 0;
    while_running(&coordinator, until("the channels to be empty", settled)).await;
    assert_clean(&coordinator, sale.id(), 3_000).await;
}

#[tokio::test]
async fn unconfirmed_donations_are_not_accepted() {
    // Given replicas that do not respond.
    let redis = RedisCluster::start(ClusterOptions::default()).await.unwrap();
    let (coordinator, buyers) = (coordinator_on(&redis).await, client_of(&redis).await);
    let sale = sale_on(&coordinator, "unconfirmed").await;
    let replicas = redis.replicas().await;
    replicas.iter().for_each(|&replica| redis.freeze(replica));

    while_running(&coordinator, async {
        // When a shard sells so fast that others donate tokens.
        let giving = until("a shard gives tokens", async || {
            let levels = levels(&coordinator, sale.id()).await;
            assert_eq!(stolen(&levels), 0, "tokens arrived that a failover would bring back to their donor");
            given(&levels) > 0
        });
        while_buying(&buyers, &sale, ShardId::new(1), giving).await;

        // Then the tokens stay in their channels while no replica confirms the donations, and no more tokens follow.
        wait_for_observations(&coordinator, sale.id(), 20).await;
        let levels_then = levels(&coordinator, sale.id()).await;
        assert_eq!(stolen(&levels_then), 0);
        for level in levels_then.iter().filter(|level| !level.donated.is_empty()) {
            let minted = level.accepted_from(TokenSource::Mint);
            assert!(level.stock >= minted / 4, "{} of {minted} tokens are left to a donor", level.stock);
        }

        // And they arrive when the replicas respond again.
        replicas.iter().for_each(|&replica| redis.thaw(replica));
        let arrived = async || {
            let levels = levels(&coordinator, sale.id()).await;
            stolen(&levels) > 0 && stolen(&levels) == given(&levels)
        };
        until("the tokens arrive", arrived).await;
    })
    .await;
    assert_clean(&coordinator, sale.id(), 3_000).await;
}
