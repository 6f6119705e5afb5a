//! Slots that move to another primary while their shard sells. Callers must follow.

use std::net::SocketAddr;
use std::time::Duration;

use redis::{Cmd, cmd};
use rediscluster::CallError;
use stock::audit::audit;
use stock::layout::Shard;
use testkit::RedisCluster;

use crate::fixture::{TestSale, attempts, buying, eventual_claim, query_server};

/// Moves slots as an operator's tools do.
struct Mover<'a> {
    redis: &'a RedisCluster,
    from: SocketAddr,
    to: SocketAddr,
}

impl Mover<'_> {
    /// Moves a shard, all its keys in one step, as `redis-cli --cluster reshard` does.
    async fn migrate(&self, shard: &Shard) {
        self.start_move(shard).await;
        self.move_keys(&[&shard.meta, &shard.claims, &shard.orders, &shard.control]).await;
        self.finish_move(shard).await;
    }

    async fn start_move(&self, shard: &Shard) {
        let (from, to) = (self.id_of(self.from).await, self.id_of(self.to).await);
        query_server::<()>(self.redis, self.to, setslot(shard).arg("IMPORTING").arg(from)).await;
        query_server::<()>(self.redis, self.from, setslot(shard).arg("MIGRATING").arg(to)).await;
    }

    async fn move_keys(&self, keys: &[&str]) {
        let mut migrate = cmd("MIGRATE");
        migrate.arg("127.0.0.1").arg(self.to.port()).arg("").arg(0).arg(5_000).arg("KEYS").arg(keys);
        query_server::<()>(self.redis, self.from, &migrate).await;
    }

    async fn finish_move(&self, shard: &Shard) {
        let to = self.id_of(self.to).await;
        for primary in [self.to, self.from] {
            query_server::<()>(self.redis, primary, setslot(shard).arg("NODE").arg(&to)).await;
        }
    }

    async fn id_of(&self, addr: SocketAddr) -> String {
        query_server(self.redis, addr, cmd("CLUSTER").arg("MYID")).await
    }
}

fn setslot(shard: &Shard) -> Cmd {
    let mut setslot = cmd("CLUSTER");
    setslot.arg("SETSLOT").arg(shard.slot);
    setslot
}

#[tokio::test]
async fn purchases_succeed_while_the_shard_moves() {
    let (redis, sale) = TestSale::on_own_cluster(&[100_000, 0, 0]).await;
    let (here, there) = (sale.primary_of(sale.shard()), sale.primary_of(sale.shard_at(1)));
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
            eventual_claim(sale.buy(&format!("user-{sold}")).await);
            sold += 1;
        }
        sold
    };
    let ((), sold) = tokio::join!(moving, buying);

    assert!(sold > 3, "only {sold} bought while the shard moved");
    assert_eq!(sale.level().await.sold, sold);
    assert_eq!(sale.primary_of(sale.shard()), there, "the client's map is outdated");
    assert_eq!(sale.entries().await.len() as u64, sold);
}

/// A client that does not know of a move calls the old primary, is redirected, and refreshes the map.
#[tokio::test]
async fn client_finds_both_moved_shards() {
    let (redis, sale) = TestSale::on_own_cluster(&[5, 5, 5, 5]).await;
    let old_map = sale.cluster.topology();
    let (here, there) = (sale.primary_of(sale.shard_at(0)), sale.primary_of(sale.shard_at(1)));
    assert_eq!(sale.primary_of(sale.shard_at(3)), here, "the fourth shard shares the first one's primary");

    let mover = Mover { redis: &redis, from: here, to: there };
    for shard in [0, 3] {
        mover.migrate(sale.shard_at(shard)).await;
    }

    assert_eq!(sale.cluster.topology(), old_map, "the client does not know of the move yet");
    for shard in [0, 3] {
        assert_eq!(sale.level_of(sale.shard_at(shard)).await.stock, 5);
        assert_eq!(sale.primary_of(sale.shard_at(shard)), there);
    }
    let audit = audit(&sale.cluster, &sale.sale).await.unwrap();
    assert!(audit.ok, "{:#?}", audit.violations);
}

/// After the keys have left and before the map changes, no primary answers for the slot.
#[tokio::test]
async fn half_moved_shard_fails_until_moved() {
    let (redis, sale) = TestSale::on_own_cluster(&[5, 0]).await;
    let (from, to) = (sale.primary_of(sale.shard()), sale.primary_of(sale.shard_at(1)));
    let mover = Mover { redis: &redis, from, to };
    let buy = async |user| sale.cluster.write(buying(sale.shard(), &attempts([user]))).await;

    mover.start_move(sale.shard()).await;
    assert!(buy("ann").await.is_ok(), "as long as its keys are there, it sells");

    mover.move_keys(&[&sale.shard().claims]).await;
    let split = buy("bob").await;
    assert!(matches!(&split, Err(CallError::Moved(why)) if why.starts_with("TRYAGAIN")), "got {split:?}");

    mover.move_keys(&[&sale.shard().meta, &sale.shard().orders, &sale.shard().control]).await;
    let left = buy("bob").await;
    assert!(matches!(&left, Err(CallError::Moved(why)) if why.starts_with("ASK")), "got {left:?}");

    mover.finish_move(sale.shard()).await;
    eventual_claim(sale.buy("bob").await);
    let level = sale.level().await;
    assert_eq!((level.stock, level.sold, level.seq), (3, 2, 2));
}
