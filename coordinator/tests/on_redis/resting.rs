//! Sales that are over are left alone once their totals are final, and are followed again when something happens to them.

use std::time::Duration;

use coordinator::change::Change;
use coordinator::coordinator::Coordinator;
use coordinator::new_sale::NewSale;
use rediscluster::{Cluster, slot_of_tag};
use service::time::now;
use stock::active::ListActiveSales;
use stock::calls::{BuyOutcome, Donate, Level, ReadLevel};
use stock::ids::{SaleId, ShardId};
use stock::layout::{ACTIVE_SALES_KEY, SALES_KEY, SaleKeys};
use stock::sale::Sale;
use stock::snapshot::Snapshot;
use stock::store::{PublishSnapshot, ReadSnapshot};
use testkit::{ClusterOptions, RedisCluster};

use crate::fixture::{
    assert_clean, buy, by_test, chairs, client_of, coordinator_on, delete_shard, primary_of, restock, send,
    until, wait_for_observations, while_running,
};

/// A cluster of its own, a leader whose loops are to run, and a sale.
struct Fixture {
    redis: RedisCluster,
    client: Cluster,
    leader: Coordinator,
    sale: Sale,
}

impl Fixture {
    async fn new(id: &str) -> Self {
        let redis = RedisCluster::start(ClusterOptions::default()).await.unwrap();
        let (client, leader) = (client_of(&redis).await, coordinator_on(&redis).await);
        let wanted = NewSale { shards: Some(3), ..chairs(id) };
        let sale = leader.sales.create(&wanted, by_test()).await.unwrap().sale;
        Self { redis, client, leader, sale }
    }

    fn id(&self) -> &SaleId {
        self.sale.id()
    }

    async fn change(&self, change: Change) {
        self.leader.sales.change(self.id(), &change, by_test()).await.unwrap();
    }

    /// Moves the end of the sale's window, to this time from now.
    async fn move_end(&self, coordinator: &Coordinator, from_now: Duration) {
        let change = Change::Extend { ends_at: now() + from_now.as_millis() as u64 };
        coordinator.sales.change(self.id(), &change, by_test()).await.unwrap();
    }

    fn is_observed(&self) -> bool {
        self.leader.observations().contains_key(self.id())
    }

    async fn until_at_rest(&self) {
        let is_active = async || {
            let active = self.client.read(ListActiveSales).await.unwrap();
            active.is_none_or(|active| active.contains(self.id()))
        };
        until("the sale is at rest", async || !self.is_observed() && !is_active().await).await;
    }

    async fn until_observed(&self) {
        until("the sale is observed again", async || self.is_observed()).await;
    }

    async fn levels(&self) -> Vec<Level> {
        let calls: Vec<_> = self.sale.shards().iter().map(|shard| ReadLevel { shard }).collect();
        self.client.read_all(&calls).await.into_iter().map(Result::unwrap).collect()
    }

    async fn snapshot(&self) -> Snapshot {
        self.client.read(ReadSnapshot(&SaleKeys::new(self.id()))).await.unwrap().unwrap()
    }
}

#[tokio::test]
async fn ended_sale_is_at_rest_once_its_totals_are_final() {
    // Given a sale with a purchase, and with tokens in a channel.
    let fixture = Fixture::new("rested").await;
    assert!(matches!(
        buy(&fixture.leader, &fixture.client, fixture.id(), "ann").await,
        BuyOutcome::Bought(_)
    ));
    let (donor, to) = (fixture.sale.shard(ShardId::new(0)), ShardId::new(1));
    fixture.client.write(Donate { shard: donor, to, want: 5 }).await.unwrap();
    while_running(&fixture.leader, async {
        wait_for_observations(&fixture.leader, fixture.id(), 3).await;
        assert!(fixture.is_observed(), "an open sale is never at rest");

        // When it ends, then it is at rest only when the tokens have arrived, and its last snapshot is right.
        fixture.change(Change::End).await;
        fixture.until_at_rest().await;
        let (snapshot, stock) =
            (fixture.snapshot().await, fixture.levels().await.iter().map(|level| level.stock).sum());
        assert_eq!((snapshot.sold, snapshot.stock, snapshot.in_flight), (1, stock, 0));
        assert_eq!(stock, 99);

        // And a late call to buy is refused, and the sale can be audited and archived.
        assert_eq!(buy(&fixture.leader, &fixture.client, fixture.id(), "bob").await, BuyOutcome::NotOpen);
        assert_clean(&fixture.leader, fixture.id(), 100).await;
        let archived = fixture.leader.sales.archive(fixture.id(), true, by_test()).await.unwrap();
        assert_eq!(archived.config.archive.unwrap().sold, 1);
        fixture.until_at_rest().await;
    })
    .await;
}

#[tokio::test]
async fn change_wakes_a_sale_at_rest() {
    // Given a sale at rest whose window is over, and another coordinator, whose loops do not run.
    let fixture = Fixture::new("extended").await;
    let other = coordinator_on(&fixture.redis).await;
    while_running(&fixture.leader, async {
        fixture.move_end(&fixture.leader, Duration::from_millis(100)).await;
        fixture.until_at_rest().await;

        // When the other coordinator adds units, then the leader sees to it, and the sale is at rest again.
        other.sales.change(fixture.id(), &restock("more", 7), by_test()).await.unwrap();
        let has_units = async || fixture.snapshot().await.stock == 107;
        until("the snapshot has the new units", has_units).await;
        fixture.until_at_rest().await;

        // And when it moves the end, then the sale sells, and is not at rest before it is over.
        fixture.move_end(&other, Duration::from_hours(1)).await;
        fixture.until_observed().await;
        assert!(matches!(buy(&other, &fixture.client, fixture.id(), "ann").await, BuyOutcome::Bought(_)));
        wait_for_observations(&fixture.leader, fixture.id(), 40).await;
        assert!(fixture.is_observed());
    })
    .await;
}

/// A leader that was frozen takes a sale out of the active ones after an operator has opened it again.
#[tokio::test]
async fn open_sale_is_active_again_when_it_was_taken_out() {
    let fixture = Fixture::new("taken-out").await;
    let primary = primary_of(&fixture.client, slot_of_tag(SALES_KEY));
    while_running(&fixture.leader, async {
        fixture.until_observed().await;
        let remove = redis::cmd("SREM").arg(ACTIVE_SALES_KEY).arg(fixture.id().as_str()).to_owned();
        let () = send(&fixture.redis, primary, &remove).await;
        let is_active = async || {
            let active = fixture.client.read(ListActiveSales).await.unwrap();
            active.is_some_and(|active| active.contains(fixture.id()))
        };
        until("the sale is active", is_active).await;
        assert!(fixture.is_observed());
    })
    .await;
}

#[tokio::test]
async fn damage_to_a_sale_at_rest_is_found() {
    let fixture = Fixture::new("damaged").await;
    let primary = primary_of(&fixture.client, slot_of_tag(SALES_KEY));
    while_running(&fixture.leader, async {
        fixture.change(Change::End).await;
        fixture.until_at_rest().await;

        // When a leader that was frozen publishes an old snapshot, then it is replaced.
        let last = fixture.snapshot().await;
        let (keys, snapshot) = (SaleKeys::new(fixture.id()), Snapshot { sold: 60, ..last.clone() });
        fixture.client.write(PublishSnapshot { keys: &keys, snapshot: &snapshot }).await.unwrap();
        until("the snapshot is right", async || fixture.snapshot().await.sold == last.sold).await;
        fixture.until_at_rest().await;

        // When the set of active sales is lost, then it is made again.
        let () = send(&fixture.redis, primary, redis::cmd("DEL").arg(ACTIVE_SALES_KEY)).await;
        fixture.until_observed().await;
        fixture.until_at_rest().await;

        // When a shard is lost, then this is a violation, and the sale is not at rest again.
        delete_shard(&fixture.redis, &fixture.client, fixture.sale.shard(ShardId::new(1))).await;
        let is_violated = async || {
            let observations = fixture.leader.observations();
            observations.get(fixture.id()).is_some_and(|observation| !observation.violations.is_none())
        };
        until("the violation is seen", is_violated).await;
        wait_for_observations(&fixture.leader, fixture.id(), 40).await;
        assert!(is_violated().await);
    })
    .await;
}
