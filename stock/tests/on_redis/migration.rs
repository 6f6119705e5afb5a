//! A slot that moves to another primary while its shard sells: callers follow.

use std::net::SocketAddr;
use std::time::Duration;

use redis::{Cmd, FromRedisValue, cmd};
use stock::audit::audit;
use stock::calls::CallError;
use stock::layout::Shard;
use testkit::{ClusterOptions, RedisCluster};

use crate::stage::{TestSale, claim_at_last, client_of};

/// Moves slots the way an operator's tools do.
struct Mover<'a> {
    redis: &'a RedisCluster,
    from: SocketAddr,
    to: SocketAddr,
}

impl Mover<'_> {
    /// Moves a shard, its keys in one step, as `redis-cli --cluster reshard` would.
    async fn migrate(&self, shard: &Shard) {
        self.announce(shard).await;
        self.move_keys(&[&shard.meta, &shard.claims, &shard.orders]).await;
        self.settle(shard).await;
    }

    async fn announce(&self, shard: &Shard) {
        let (from, to) = (self.id_of(self.from).await, self.id_of(self.to).await);
        self.run::<()>(self.to, setslot(shard).arg("IMPORTING").arg(from)).await;
        self.run::<()>(self.from, setslot(shard).arg("MIGRATING").arg(to)).await;
    }

    async fn move_keys(&self, keys: &[&str]) {
        let mut migrate = cmd("MIGRATE");
        migrate.arg("127.0.0.1").arg(self.to.port()).arg("").arg(0).arg(5_000).arg("KEYS").arg(keys);
        self.run::<()>(self.from, &migrate).await;
    }

    async fn settle(&self, shard: &Shard) {
        let to = self.id_of(self.to).await;
        for primary in [self.to, self.from] {
            self.run::<()>(primary, setslot(shard).arg("NODE").arg(&to)).await;
        }
    }

    async fn id_of(&self, addr: SocketAddr) -> String {
        self.run(addr, cmd("CLUSTER").arg("MYID")).await
    }

    async fn run<T: FromRedisValue>(&self, addr: SocketAddr, cmd: &Cmd) -> T {
        let mut connection = self.redis.connection(addr).await.unwrap();
        cmd.query_async(&mut connection).await.unwrap()
    }
}

fn setslot(shard: &Shard) -> Cmd {
    let mut setslot = cmd("CLUSTER");
    setslot.arg("SETSLOT").arg(shard.slot);
    setslot
}

fn primary_of(sale: &TestSale, shard: &Shard) -> SocketAddr {
    sale.cluster.topology().primary(shard.slot).unwrap().address.to_string().parse().unwrap()
}

#[tokio::test]
async fn buyers_go_on_buying_while_their_shard_moves_there_and_back() {
    let redis = RedisCluster::start(ClusterOptions::default()).await.unwrap();
    let sale = TestSale::on(client_of(&redis).await, &[100_000, 0, 0]).await;
    let (here, there) = (primary_of(&sale, sale.shard()), primary_of(&sale, sale.shard_at(1)));
    let moved = std::cell::Cell::new(false);

    let moving = async {
        for (from, to) in [(here, there), (there, here), (here, there)] {
            Mover { redis: &redis, from, to }.migrate(sale.shard()).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        moved.set(true);
    };
    let buying = async {
        let mut sold = 0;
        while !moved.get() {
            claim_at_last(sale.buys(&format!("user-{sold}")).await);
            sold += 1;
        }
        sold
    };
    let ((), sold) = tokio::join!(moving, buying);

    assert!(sold > 3, "only {sold} bought while the shard moved");
    assert_eq!(sale.level().await.sold, sold);
    assert_eq!(primary_of(&sale, sale.shard()), there, "the caller's map is not the cluster's");
    assert_eq!(sale.entries().await.len() as u64, sold);
}

/// A client that has not heard of a move asks the old primary, is sent away, and looks at the map again.
#[tokio::test]
async fn two_shards_that_moved_to_one_primary_are_both_found_and_the_books_are_right() {
    let redis = RedisCluster::start(ClusterOptions::default()).await.unwrap();
    let sale = TestSale::on(client_of(&redis).await, &[5, 5, 5, 5]).await;
    let old_map = sale.cluster.topology();
    let (here, there) = (primary_of(&sale, sale.shard_at(0)), primary_of(&sale, sale.shard_at(1)));
    assert_eq!(primary_of(&sale, sale.shard_at(3)), here, "the fourth shard shares the first one's primary");

    let mover = Mover { redis: &redis, from: here, to: there };
    for shard in [0, 3] {
        mover.migrate(sale.shard_at(shard)).await;
    }

    assert_eq!(sale.cluster.topology(), old_map, "nobody has told this client yet");
    for shard in [0, 3] {
        assert_eq!(sale.level_of(sale.shard_at(shard)).await.stock, 5);
        assert_eq!(primary_of(&sale, sale.shard_at(shard)), there);
    }
    let audit = audit(&sale.cluster, &sale.sale).await.unwrap();
    assert!(audit.ok, "{:#?}", audit.violations);
}

/// Between its keys' leaving and the new map a slot belongs to nobody who would answer.
#[tokio::test]
async fn a_shard_halfway_between_two_primaries_is_an_error_and_whole_again_afterwards() {
    let redis = RedisCluster::start(ClusterOptions::default()).await.unwrap();
    let sale = TestSale::on(client_of(&redis).await, &[5, 0]).await;
    let mover = Mover {
        redis: &redis,
        from: primary_of(&sale, sale.shard()),
        to: primary_of(&sale, sale.shard_at(1)),
    };
    let buy = async |user| {
        let attempts = crate::stage::attempts([user]);
        sale.cluster.write(stock::calls::Buy { shard: sale.shard(), attempts: &attempts, limit: None }).await
    };

    mover.announce(sale.shard()).await;
    assert!(buy("ann").await.is_ok(), "as long as its keys are there, it sells");

    mover.move_keys(&[&sale.shard().claims]).await;
    let split = buy("bob").await;
    assert!(matches!(&split, Err(CallError::Moved(why)) if why.starts_with("TRYAGAIN")), "told {split:?}");

    mover.move_keys(&[&sale.shard().meta, &sale.shard().orders]).await;
    let left = buy("bob").await;
    assert!(matches!(&left, Err(CallError::Moved(why)) if why.starts_with("ASK")), "told {left:?}");

    mover.settle(sale.shard()).await;
    claim_at_last(sale.buys("bob").await);
    let level = sale.level().await;
    assert_eq!((level.stock, level.sold, level.seq), (3, 2, 2));
}
