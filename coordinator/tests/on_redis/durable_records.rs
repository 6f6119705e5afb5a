//! Records count only once they are durable: nothing follows a record that only one server has, or that is lost.

use std::net::SocketAddr;
use std::time::Duration;

use coordinator::change::Change;
use coordinator::coordinator::Coordinator;
use coordinator::new_sale::NewSale;
use coordinator::operations::{ListQuery, OperationError};
use coordinator::start;
use redis::FromRedisValue;
use rediscluster::{Cluster, Slot, slot_of_tag};
use stock::calls::{BuyOutcome, Level, ReadLevel, TokenSource};
use stock::ids::{SaleId, ShardId};
use stock::layout::{SALES_KEY, SaleKeys, Shard};
use stock::sale::{Sale, SaleState};
use stock::snapshot::read_levels;
use testkit::{ClusterOptions, RedisCluster};

use crate::fixture::{
    SOON, assert_clean, attempts, by_test, chairs, client_of, coordinator_on, delete_shard, levels,
    primary_of, purchase, restock, send, shared_redis, until, users_of, while_running,
};

/// A sale on a separate cluster, which the test damages.
struct Fixture {
    redis: RedisCluster,
    client: Cluster,
    wanted: NewSale,
}

impl Fixture {
    /// A cluster on which the sale is not created yet, and a coordinator.
    async fn with(wanted: NewSale) -> (Self, Coordinator) {
        let options =
            ClusterOptions { node_timeout: Some(Duration::from_secs(2)), ..ClusterOptions::default() };
        let redis = RedisCluster::start(options).await.unwrap();
        let (client, coordinator) = (client_of(&redis).await, coordinator_on(&redis).await);
        (Self { redis, client, wanted }, coordinator)
    }

    /// The same with the sale created.
    async fn created(wanted: NewSale) -> (Self, Coordinator) {
        let (fixture, coordinator) = Self::with(wanted).await;
        fixture.create(&coordinator).await;
        (fixture, coordinator)
    }

    fn id(&self) -> &SaleId {
        &self.wanted.id
    }

    /// The primary that holds the sale's record.
    fn record_primary(&self) -> SocketAddr {
        primary_of(&self.client, SaleKeys::new(self.id()).slot)
    }

    /// Cuts replication of the record's primary, without the cluster noticing: the replica misses all later writes.
    async fn cut_replication(&self) -> SocketAddr {
        let primary = self.record_primary();
        self.redis.cut_replication(primary).await.unwrap();
        primary
    }

    /// Kills the primary, with everything that only it had, and waits until its replica is promoted.
    async fn lose(&self, primary: SocketAddr) {
        let replica = self.redis.replicas_of(primary).await[0];
        self.redis.kill(primary);
        self.redis.wait_until_promoted(replica).await.unwrap();
        let promoted = async || self.client.refresh().await.is_ok() && self.record_primary() == replica;
        until("the map to name the new primary", promoted).await;
    }

    /// Repeats a change until its outcome is known, as an operator does who got "unknown".
    async fn change(&self, coordinator: &Coordinator, change: &Change) -> Sale {
        let changed = async || coordinator.sales.change(self.id(), change, by_test()).await.ok();
        until("the change", async || changed().await.is_some()).await;
        changed().await.unwrap()
    }

    async fn create(&self, coordinator: &Coordinator) {
        until("the creation", async || coordinator.sales.create(&self.wanted, by_test()).await.is_ok()).await;
    }

    async fn sale(&self, coordinator: &Coordinator) -> Sale {
        coordinator.sales.existing(self.id()).await.unwrap().sale
    }

    /// Buys everything, with buyers at home in each shard, and returns the number of units. Tokens that rebalancing
    /// moves meanwhile are bought in the next pass.
    async fn sell_out(&self, sale: &Sale) -> usize {
        let mut crowd = 0;
        let sold_out = async {
            loop {
                for shard in sale.shards() {
                    self.sell(sale, shard, crowd).await;
                }
                crowd += 1;
                let levels = read_levels(&self.client, sale).await;
                let levels: Vec<Level> = levels.into_iter().collect::<Result<_, _>>().unwrap();
                let sold: u64 = levels.iter().map(|level| level.sold).sum();
                if sold == levels.iter().map(|level| level.accepted_from(TokenSource::Mint)).sum::<u64>() {
                    return sold as usize;
                }
            }
        };
        tokio::time::timeout(SOON, sold_out).await.expect("all units are sold in time")
    }

    /// Buys the stock of one shard with a crowd of buyers.
    async fn sell(&self, sale: &Sale, shard: &Shard, crowd: u32) {
        let mut users = users_of(sale, shard.id, &format!("buyer-{crowd}"));
        loop {
            let attempts = attempts(users.by_ref().take(50));
            let outcomes = self.client.write(purchase(shard, &attempts)).await.unwrap().outcomes;
            let is_sold = |outcome| matches!(outcome, BuyOutcome::Bought(_) | BuyOutcome::Repeat(_));
            if !outcomes.into_iter().all(is_sold) {
                return;
            }
        }
    }

    /// Returns the units that the users who bought first in this shard get once more.
    async fn sell_to_former_buyers(&self, sale: &Sale, shard: &Shard) -> usize {
        let attempts = attempts(users_of(sale, shard.id, "buyer-0").take(50));
        let bought = self.client.write(purchase(shard, &attempts)).await;
        let outcomes = bought.map(|answer| answer.outcomes).unwrap_or_default();
        outcomes.iter().filter(|outcome| matches!(outcome, BuyOutcome::Bought(_))).count()
    }

    /// Sends a command to the primary of a slot.
    async fn send<T: FromRedisValue>(&self, slot: Slot, cmd: &redis::Cmd) -> T {
        send(&self.redis, primary_of(&self.client, slot), cmd).await
    }

    /// Overwrites fields of a shard's meta hash.
    async fn tamper(&self, shard: &Shard, fields: &[(&str, &str)]) {
        let () = self.send(shard.slot, redis::cmd("HSET").arg(&shard.meta).arg(fields)).await;
    }

    /// Reads a field of a shard's meta hash.
    async fn held(&self, shard: &Shard, field: &str) -> String {
        self.send(shard.slot, redis::cmd("HGET").arg(&shard.meta).arg(field)).await
    }

    async fn delete_list(&self) {
        let () = self.send(slot_of_tag(SALES_KEY), redis::cmd("DEL").arg(SALES_KEY)).await;
    }
}

/// Waits for ten rounds of the coordinator, in which it has read records and shards and repaired what it could.
async fn ten_rounds(coordinator: &Coordinator, id: &SaleId) {
    for _ in 0..10 {
        let observed_at = || coordinator.observations().get(id).map(|observation| observation.observed_at);
        let before = observed_at();
        until("another round", async || observed_at() > before).await;
    }
}

async fn minted(coordinator: &Coordinator, id: &SaleId) -> u64 {
    levels(coordinator, id).await.iter().map(|level| level.accepted_from(TokenSource::Mint)).sum()
}

#[tokio::test]
async fn restock_without_replica_mints_nothing() {
    let (fixture, coordinator) =
        Fixture::created(NewSale { total_stock: 600, shards: Some(12), ..chairs("restock-lost") }).await;
    let id = fixture.id();
    while_running(&coordinator, async {
        // Given a restock that only the record's primary has.
        let primary = fixture.cut_replication().await;
        let error = coordinator.sales.change(id, &restock("a", 300), by_test()).await.err().unwrap();
        assert!(matches!(error, OperationError::UnknownOutcome(_)), "{error}");
        ten_rounds(&coordinator, id).await;

        // When that primary dies.
        fixture.lose(primary).await;
        ten_rounds(&coordinator, id).await;

        // Then no shard has minted it, and repeating it adds its units once.
        assert_eq!(minted(&coordinator, id).await, 600);
        let sale = fixture.change(&coordinator, &restock("a", 300)).await;
        assert_eq!(fixture.sell_out(&sale).await, 900);
    })
    .await;
    assert_clean(&coordinator, id, 900).await;
}

#[tokio::test]
async fn pause_without_replica_stops_no_shard() {
    let (fixture, coordinator) = Fixture::created(NewSale { shards: Some(12), ..chairs("pause-lost") }).await;
    let id = fixture.id();
    while_running(&coordinator, async {
        let primary = fixture.cut_replication().await;
        let error = coordinator.sales.change(id, &Change::Pause, by_test()).await.err().unwrap();
        assert!(matches!(error, OperationError::UnknownOutcome(_)), "{error}");
        ten_rounds(&coordinator, id).await;
        let states = levels(&coordinator, id).await.into_iter().map(|level| level.settings.state);
        assert!(
            states.into_iter().all(|state| state == SaleState::Open),
            "shards follow a record that is not durable"
        );
        fixture.lose(primary).await;
        ten_rounds(&coordinator, id).await;

        // The next change gets the version that the lost one had.
        let sale = fixture.change(&coordinator, &Change::Extend { ends_at: 3_900_000_000_000 }).await;
        assert_eq!(fixture.sell_out(&sale).await, 100, "buyers were refused in a sale that is open");
    })
    .await;
    assert_clean(&coordinator, id, 100).await;
}

#[tokio::test]
async fn creation_lost_in_failover_leaves_no_stock() {
    let (fixture, coordinator) =
        Fixture::with(NewSale { total_stock: 500, shards: Some(12), ..chairs("created-twice") }).await;
    let id = fixture.id();
    while_running(&coordinator, async {
        let primary = fixture.cut_replication().await;
        let larger = NewSale { total_stock: 1_000, ..fixture.wanted.clone() };
        let error = coordinator.sales.create(&larger, by_test()).await.err().unwrap();
        assert!(matches!(error, OperationError::UnknownOutcome(_)), "{error}");
        fixture.lose(primary).await;

        fixture.create(&coordinator).await;
        ten_rounds(&coordinator, id).await;
        let sale = fixture.sale(&coordinator).await;
        assert_eq!(fixture.sell_out(&sale).await, 500);
    })
    .await;
    assert_clean(&coordinator, id, 500).await;
}

#[tokio::test]
async fn shards_ahead_of_the_record_are_repaired() {
    let (fixture, coordinator) = Fixture::created(NewSale { shards: Some(12), ..chairs("ahead") }).await;
    let sale = fixture.sale(&coordinator).await;
    let shard = |number| sale.shard(ShardId::new(number));
    // This is the state after a record was rolled back that shards had already followed.
    fixture.tamper(shard(3), &[("version", "7"), ("state", "paused")]).await;
    fixture.tamper(shard(5), &[("version", "9"), ("ends_at", "2000")]).await;

    let audit = coordinator.sales.audit(fixture.id()).await.unwrap();
    assert!(!audit.ok, "the audit does not see that shards are ahead of the record");
    // An operator must not get a success response for a change that the shards ahead have not taken.
    let extend = Change::Extend { ends_at: 3_900_000_000_000 };
    let error = coordinator.sales.change(fixture.id(), &extend, by_test()).await.err();
    assert!(matches!(&error, Some(OperationError::Unconfirmed(shards)) if shards.len() == 2), "{error:?}");

    while_running(&coordinator, async {
        let repaired = async || {
            let version = fixture.sale(&coordinator).await.config.version;
            let levels = levels(&coordinator, fixture.id()).await;
            version > 9 && levels.iter().all(|level| level.settings.version == version)
        };
        until("one version everywhere", repaired).await;
        assert_eq!(fixture.held(shard(3), "state").await, "open");
        assert_eq!(fixture.held(shard(5), "ends_at").await, "3900000000000");
        fixture.change(&coordinator, &Change::Pause).await;
        fixture.change(&coordinator, &Change::Resume).await;
        assert_eq!(fixture.sell_out(&sale).await, 100);
    })
    .await;
    assert_clean(&coordinator, fixture.id(), 100).await;
}

#[tokio::test]
async fn shard_with_other_settings_is_detected_and_repaired() {
    let (fixture, coordinator) = Fixture::created(NewSale { shards: Some(12), ..chairs("contrary") }).await;
    let sale = fixture.sale(&coordinator).await;
    let shard = sale.shard(ShardId::new(3));
    fixture.tamper(shard, &[("state", "paused")]).await;

    let audit = coordinator.sales.audit(fixture.id()).await.unwrap();
    assert!(
        audit.violations.iter().any(|violation| violation.contains("shard 3: state paused, recorded open")),
        "{:?}",
        audit.violations
    );
    let problems = coordinator.sales.inspect(fixture.id()).await.unwrap().problems;
    assert_eq!(problems.len(), 1, "{problems:?}");

    while_running(&coordinator, async {
        let repaired = async || fixture.held(shard, "state").await == "open";
        until("the shard to be open", repaired).await;
    })
    .await;
    assert_clean(&coordinator, fixture.id(), 100).await;
}

#[tokio::test]
async fn sale_with_lost_record_is_not_recreated() {
    for list_is_lost in [false, true] {
        // Given a sale in which units were sold.
        let (fixture, coordinator) =
            Fixture::created(NewSale { shards: Some(12), ..chairs("record-lost") }).await;
        let sale = fixture.sale(&coordinator).await;
        fixture.sell_out(&sale).await;
        drop(coordinator);

        // When the record's primary and replica lose their data, and in one case the list of sales, too.
        let primary = fixture.record_primary();
        let replica = fixture.redis.replicas_of(primary).await[0];
        fixture.redis.lose_data(&[primary, replica]).await.unwrap();
        fixture.redis.wait_until_whole().await.unwrap();
        if list_is_lost {
            fixture.delete_list().await;
        }

        // Then a coordinator that starts does not sell the units again.
        let next = coordinator_on(&fixture.redis).await;
        while_running(&next, async {
            let refused = async {
                for _ in 0..5 {
                    let refused = next.sales.create(&fixture.wanted, by_test()).await.err();
                    assert!(matches!(refused, Some(OperationError::RecordLost(_))), "{refused:?}");
                }
            };
            tokio::select! {
                () = start::default_sale(&next.sales, &fixture.wanted) => panic!("the default sale was created again"),
                () = refused => {}
            }
            for change in [Change::Pause, restock("a", 5)] {
                let refused = next.sales.change(fixture.id(), &change, by_test()).await.err();
                assert!(matches!(refused, Some(OperationError::RecordLost(_))), "{refused:?}");
            }
        })
        .await;
        for shard in sale.shards() {
            let level = fixture.client.read(ReadLevel { shard }).await;
            assert!(level.is_err() || level.unwrap().stock == 0, "shard {} was filled again", shard.id);
        }
    }
}

#[tokio::test]
async fn lost_sale_list_is_rebuilt_from_records() {
    let (fixture, first) = Fixture::created(chairs("unlisted")).await;
    let is_listed = async |coordinator: &Coordinator| {
        let all = ListQuery { stages: Vec::new(), limit: 1_000, after: None };
        let listed = coordinator.sales.list(&all).await;
        listed.is_ok_and(|page| page.sales.iter().any(|sale| sale.id() == fixture.id()))
    };
    while_running(&first, async {
        fixture.delete_list().await;
        let listed = async || is_listed(&first).await;
        until("the sale to be listed again", listed).await;
        fixture.change(&first, &Change::Pause).await;
    })
    .await;
    drop(first);

    // The second coordinator knows only what Redis holds.
    fixture.delete_list().await;
    let second = coordinator_on(&fixture.redis).await;
    while_running(&second, async {
        let listed = async || is_listed(&second).await;
        until("the sale to be listed by another", listed).await;
        fixture.change(&second, &Change::Resume).await;
    })
    .await;
    drop(second);

    // This is the state after a coordinator died between recording a sale and listing it.
    let remove = redis::cmd("SREM").arg(SALES_KEY).arg(fixture.id().as_str()).clone();
    let () = fixture.send(slot_of_tag(SALES_KEY), &remove).await;
    let third = coordinator_on(&fixture.redis).await;
    assert!(!is_listed(&third).await);
    while_running(&third, async {
        let listed = async || is_listed(&third).await;
        until("the sale to be found", listed).await;
    })
    .await;
    assert_clean(&third, fixture.id(), 100).await;
}

#[tokio::test]
async fn repeated_restock_is_recognized_after_twenty_others() {
    let coordinator = coordinator_on(shared_redis().await).await;
    let wanted = NewSale { shards: Some(3), ..chairs("many-restocks") };
    coordinator.sales.create(&wanted, by_test()).await.unwrap();
    for n in 0..21 {
        coordinator.sales.change(&wanted.id, &restock(&n.to_string(), 1), by_test()).await.unwrap();
    }

    let sale = coordinator.sales.change(&wanted.id, &restock("0", 1), by_test()).await.unwrap();

    assert_eq!(sale.config.total_stock, 121);
    assert_clean(&coordinator, &wanted.id, 121).await;
}

#[tokio::test]
async fn slow_creator_does_not_refill_a_lost_shard() {
    // Given a sale that one coordinator recorded before it froze, and another one opened; all units are sold.
    let (fixture, slow) = Fixture::with(NewSale { shards: Some(3), ..chairs("slow-creator") }).await;
    let other = coordinator_on(&fixture.redis).await;
    let (recorded, _) = slow.sales.record_creation(&fixture.wanted, by_test()).await.unwrap();
    assert_eq!(recorded.sale.config.state, SaleState::Creating);
    fixture.create(&other).await;
    let sale = fixture.sale(&other).await;
    assert_eq!(fixture.sell_out(&sale).await, 100);

    // When both servers of a shard lose their data, and then the first coordinator goes on.
    let shard = sale.shard(ShardId::new(0));
    delete_shard(&fixture.redis, &fixture.client, shard).await;
    let completed = slow.sales.complete(recorded).await;
    while_running(&other, ten_rounds(&other, fixture.id())).await;

    // Then nothing is sold again, and the operator is told that the shard is lost.
    assert_eq!(fixture.sell_to_former_buyers(&sale, shard).await, 0, "units were sold again");
    let failure = completed.err().map(|error| error.to_string());
    assert!(matches!(&failure, Some(failure) if failure.contains("shard 0")), "{failure:?}");
    let problems = other.sales.inspect(fixture.id()).await.unwrap().problems;
    assert!(
        problems.iter().any(|found| found.shard == shard.id && found.kind.is_violation()),
        "{problems:?}"
    );
}

#[tokio::test]
async fn sale_with_lost_mint_is_not_changed() {
    // Given a sale whose record has lost the number of tokens minted to each shard.
    let (fixture, _) = Fixture::created(NewSale { shards: Some(3), ..chairs("mint-lost") }).await;
    let keys = SaleKeys::new(fixture.id());
    let () = fixture.send(keys.slot, redis::cmd("DEL").arg(keys.mint)).await;

    // Then a coordinator that starts reports the record as lost, and restocks nothing.
    let next = coordinator_on(&fixture.redis).await;
    while_running(&next, async {
        for _ in 0..3 {
            let refused = next.sales.change(fixture.id(), &restock("a", 5), by_test()).await.err();
            assert!(matches!(refused, Some(OperationError::RecordLost(_))), "{refused:?}");
            let refused = next.sales.create(&fixture.wanted, by_test()).await.err();
            assert!(matches!(refused, Some(OperationError::RecordLost(_))), "{refused:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn recreated_sale_is_not_sold_out() {
    // Given a coordinator that has confirmed that a sale is sold out.
    let (fixture, former) = Fixture::created(NewSale { shards: Some(3), ..chairs("recreated") }).await;
    let next = coordinator_on(&fixture.redis).await;
    let sale = fixture.sale(&former).await;
    fixture.sell_out(&sale).await;
    let is_sold_out =
        async || former.observations().get(fixture.id()).is_some_and(|seen| seen.snapshot.sold_out);
    while_running(&former, until("sold out", is_sold_out)).await;

    // When all data is deleted, and another coordinator creates the sale again.
    for primary in fixture.redis.primaries().await {
        let () = send(&fixture.redis, primary, &redis::cmd("FLUSHALL")).await;
    }
    fixture.create(&next).await;
    drop(next);

    // Then the first coordinator, which leads again, says that all of it is in stock.
    while_running(&former, async {
        let sees_next = async || {
            let seen = former.observations();
            seen.get(fixture.id()).is_some_and(|seen| seen.desired.sale.config.layout != sale.config.layout)
        };
        until("the new sale is observed", sees_next).await;
        ten_rounds(&former, fixture.id()).await;
    })
    .await;
    let snapshot = former.sales.inspect(fixture.id()).await.unwrap().snapshot.unwrap();
    assert_eq!((snapshot.sold_out, snapshot.stock, snapshot.sold), (false, 100, 0));
}
