//! `archive` and `drained`: the end of a shard, and the notes of a ledger before it.

use rediscluster::CallError;
use stock::archive::{ArchiveShard, NoteDrained};
use stock::calls::ReadLevel;
use stock::functions::Function;
use stock::snapshot::{Confirm, Confirmed};

use crate::fixture::{Raw, TestSale, claim, client_of, with_another_ring};

#[tokio::test]
async fn archived_shard_is_gone_with_all_keys() {
    let sale = TestSale::selling(5).await;
    claim(sale.buy("ann").await);
    // A repeated call proves again that no replica has the shard.
    for _ in 0..2 {
        sale.cluster.write(ArchiveShard { shard: sale.shard() }).await.unwrap();
        let level = sale.cluster.read(ReadLevel { shard: sale.shard() }).await;
        assert!(matches!(level, Err(CallError::NoShard)), "{level:?}");
    }
    for key in [&sale.shard().meta, &sale.shard().claims, &sale.shard().orders, &sale.shard().control] {
        let mut exists = redis::cmd("EXISTS");
        exists.arg(&**key);
        let found = sale.cluster.read(Raw { slot: sale.shard().slot, cmd: &exists }).await.unwrap();
        assert_eq!(found, redis::Value::Int(0), "{key}");
    }
}

#[tokio::test]
async fn removed_shard_is_confirmed_only_by_its_replica() {
    // Given a primary that has removed a shard, and a replica that hangs and still has it.
    let (redis, sale) = TestSale::on_own_cluster(&[5]).await;
    let other = client_of(&redis).await;
    let replica = redis.replicas_of(sale.primary_of(sale.shard())).await[0];
    let archive = [ArchiveShard { shard: sale.shard() }];
    redis.freeze(replica);
    let unconfirmed = sale.cluster.write_all_once(&archive).await;
    assert!(matches!(unconfirmed[..], [Err(CallError::NotDurable { .. })]), "{unconfirmed:?}");

    // Then a client that has not sent the removal itself gets no confirmation either.
    let unconfirmed = other.write_all_once(&archive).await;
    assert!(matches!(unconfirmed[..], [Err(CallError::NotDurable { .. })]), "{unconfirmed:?}");
    redis.thaw(replica);
    assert_eq!(other.write(archive[0]).await, Ok(()));
}

#[tokio::test]
async fn shard_of_another_sale_is_not_archived() {
    let sale = TestSale::selling(5).await;
    claim(sale.buy("ann").await);
    let before = sale.contents().await;
    let other = with_another_ring(sale.shard());
    let refused = sale.cluster.write(ArchiveShard { shard: &other }).await;
    assert!(matches!(refused, Err(CallError::WrongRing(_))), "{refused:?}");
    // A node has no right to the control key.
    let mut cmd = redis::cmd("FCALL");
    let (meta, claims, orders) = (&*sale.shard().meta, &*sale.shard().claims, &*sale.shard().orders);
    cmd.arg(Function::Archive.function())
        .arg(4)
        .arg(&[meta, claims, orders, meta])
        .arg(sale.shard().ring.as_str());
    let refused =
        sale.cluster.read(Raw { slot: sale.shard().slot, cmd: &cmd }).await.unwrap_err().to_string();
    assert!(refused.contains("NOTCONTROL"), "{refused}");
    assert_eq!(sale.contents().await, before);
}

#[tokio::test]
async fn notes_of_a_ledger_name_entries_that_exist() {
    let sale = TestSale::selling(5).await;
    let confirmed = async || sale.cluster.write(Confirm { shard: sale.shard() }).await.unwrap();
    assert_eq!(confirmed().await, Confirmed { sold: 0, seq: 0, drained: None });
    claim(sale.buy("ann").await);
    claim(sale.buy("bob").await);

    let note = async |seq| sale.cluster.write(NoteDrained { shard: sale.shard(), seq }).await;
    assert!(note(3).await.unwrap_err().to_string().contains("AHEAD"));
    // The latest note counts, also a lower one: then PostgreSQL has lost orders.
    for seq in [1, 2, 1] {
        note(seq).await.unwrap();
        let drained = confirmed().await.drained.unwrap();
        assert_eq!(drained.seq, seq);
        assert!(drained.age.as_secs() < 30, "{:?}", drained.age);
    }
    let other = with_another_ring(sale.shard());
    assert!(sale.cluster.write(NoteDrained { shard: &other, seq: 1 }).await.is_err());
}
