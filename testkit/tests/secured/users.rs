//! The permissions of each user in the deployed users file.

use std::time::Duration;

use redis::Value;
use redis::aio::MultiplexedConnection;
use rediscluster::{Cluster, ConnectOptions};
use stock::functions::LIBRARY;
use stock::lease::{Lead, Lease};
use testkit::{RedisCluster, User};

use crate::{security_of, shared_redis};

/// Commands that delete data, stop a server, read its secrets, run code, or access other keys.
const DANGEROUS: [&str; 37] = [
    "FLUSHALL",
    "FLUSHDB",
    "KEYS *",
    "SCAN 0",
    "RANDOMKEY",
    "DBSIZE",
    "CONFIG GET masterauth",
    "CONFIG SET appendonly no",
    "CONFIG REWRITE",
    "EVAL return 0",
    "EVAL_RO return 0",
    "EVALSHA 0123456789012345678901234567890123456789 0",
    "SCRIPT LOAD return",
    "FUNCTION DELETE flashsale",
    "FUNCTION FLUSH",
    "FUNCTION RESTORE x",
    "FUNCTION DUMP",
    "DEBUG SLEEP 0",
    "ACL LIST",
    "ACL SETUSER node +@all",
    "ACL GETUSER admin",
    "SHUTDOWN NOSAVE",
    "CLUSTER FAILOVER",
    "CLUSTER RESET",
    "CLUSTER MEET 127.0.0.1 1",
    "CLUSTER SETSLOT 1 STABLE",
    "CLUSTER GETKEYSINSLOT 1 1",
    "REPLICAOF NO ONE",
    "MIGRATE 127.0.0.1 1 key 0 1",
    "BGREWRITEAOF",
    "CLIENT LIST",
    "CLIENT KILL TYPE normal",
    "MONITOR",
    "PSYNC ? -1",
    "MODULE LIST",
    "GET elsewhere",
    "HSET elsewhere field value",
];

const WRITES_AND_CLAIMS: [&str; 10] = [
    "GET fs:{flash}:config",
    "HGETALL fs:{flash.0}:claims",
    "XRANGE fs:{flash.0}:orders - +",
    "SET fs:{flash}:config x",
    "HSET fs:{flash.0}:meta stock 9",
    "DEL fs:{flash}:config",
    "FCALL buy 0",
    "FCALL_RO level 0",
    "SLOWLOG RESET",
    "LATENCY RESET",
];

#[tokio::test]
async fn node_is_denied_dangerous_commands() {
    assert_forbidden(User::Node, DANGEROUS).await;
    assert_forbidden(User::Node, ["FUNCTION LOAD x", "XDEL fs:{a}:orders 1", "DEL fs:{a}:meta"]).await;
    assert_permitted(User::Node, ["TIME", "INFO replication", "CLUSTER NODES", "GET fs:{a}:config"]).await;
}

/// Changes to a sale that no node needs to make: what the sale is, how it goes on, and units out of nothing. The keys of
/// the calls are those that each function asks for.
const FORGERIES: [&str; 19] = [
    "SET fs:{flash}:config x",
    "SET fs:{flash}:snapshot x",
    "HSET fs:{flash}:mint 0 1000000",
    "HDEL fs:{flash.0}:claims ann",
    "XADD fs:{flash}:orders * ann x",
    "SET fs:{fs:sales}:lease x",
    "GET fs:{fs:sales}:secret",
    "HGETALL fs:{flash.0}:claims",
    "SADD fs:sales x",
    "SADD fs:{fs:sales}:active x",
    "SREM fs:{fs:sales}:active x",
    "FCALL configure 4 fs:{flash.0}:meta fs:{flash.0}:claims fs:{flash.0}:orders fs:{flash.0}:control ring 999 paused",
    "FCALL mint 2 fs:{flash.0}:meta fs:{flash.0}:control ring 1000000",
    "FCALL import 4 fs:{flash.0}:meta fs:{flash.0}:claims fs:{flash.0}:orders fs:{flash.0}:control ring ann x y",
    "FCALL mint 2 fs:{networks.0}:meta fs:{networks.0}:control ring 1000000",
    "HDEL fs:{networks.0}:claims ann",
    "FCALL record 3 fs:{flash}:config fs:{flash}:mint fs:{flash}:history 0 x",
    "FCALL recall 2 fs:{flash}:config fs:{flash}:mint",
    "FCALL lead 1 fs:{fs:sales}:lease node 60000",
];

#[tokio::test]
async fn node_cannot_forge_a_sale() {
    assert_forbidden(User::Node, FORGERIES).await;
}

#[tokio::test]
async fn node_has_the_rights_that_it_needs() {
    let needed = [
        "GET fs:{flash}:config",
        "GET fs:{flash}:snapshot",
        "SMEMBERS fs:sales",
        "SET fs:{fs:sales}:secret x NX GET",
    ];
    assert_permitted(User::Node, needed).await;
}

#[tokio::test]
async fn coordinator_does_not_know_the_secret_of_nodes() {
    assert_forbidden(User::Coordinator, ["GET fs:{fs:sales}:secret", "SET fs:{fs:sales}:secret x"]).await;
    assert_forbidden(User::Coordinator, ["HDEL fs:{flash.0}:claims ann", "DEL fs:{flash.0}:meta"]).await;
}

#[tokio::test]
async fn coordinator_is_denied_dangerous_commands() {
    // A coordinator scans for the records of sales that the list has lost, and removes libraries of old releases.
    let is_denied = |command: &&str| !command.starts_with("SCAN") && !command.starts_with("FUNCTION DELETE");
    assert_forbidden(User::Coordinator, DANGEROUS.into_iter().filter(is_denied)).await;
    let permitted = ["TIME", "INFO replication", "CLUSTER NODES", "SCAN 0", "HSCAN fs:{a.0}:claims 0"];
    assert_permitted(User::Coordinator, permitted).await;
}

/// `lead` shortens a lease that another coordinator holds for a longer time. The other tests do not reach that branch.
#[tokio::test]
async fn coordinator_may_shorten_the_lease_of_another() {
    let redis = shared_redis().await;
    let login = security_of(redis).login(redis.primaries().await[0], User::Coordinator).unwrap();
    let cluster = Cluster::connect(ConnectOptions::new(vec![login]), &LIBRARY).await.unwrap();
    let lead = |coordinator, seconds| Lead { coordinator, hold: Duration::from_secs(seconds) };

    cluster.read(lead("first", 60)).await.unwrap();
    let lease = cluster.read(lead("second", 2)).await.unwrap();

    assert_eq!(lease, Lease { holder: Some("first".into()), left: Duration::from_secs(2) });
}

/// Changes to a sale that a ledger has no reason for: it reads orders, and proves that replicas have them.
const WRITES_OF_A_SALE: [&str; 18] = [
    "SET fs:{flash}:config x",
    "DEL fs:{flash}:config",
    "HSET fs:{flash.0}:meta stock 9",
    "HDEL fs:{flash.0}:meta stock",
    "DEL fs:{flash.0}:meta",
    "HSET fs:{flash.0}:claims ann x",
    "HDEL fs:{flash.0}:claims ann",
    "XADD fs:{flash.0}:orders * ann x",
    "XDEL fs:{flash.0}:orders 1-0",
    "XTRIM fs:{flash.0}:orders MAXLEN 0",
    "DEL fs:{flash.0}:orders",
    "SADD fs:sales x",
    "SADD fs:{fs:sales}:active x",
    "SREM fs:{fs:sales}:active x",
    "FCALL buy 3 fs:{flash.0}:meta fs:{flash.0}:claims fs:{flash.0}:orders ring 0 ann x y",
    "FCALL mint 2 fs:{flash.0}:meta fs:{flash.0}:control ring 1000000",
    "FCALL import 4 fs:{flash.0}:meta fs:{flash.0}:claims fs:{flash.0}:orders fs:{flash.0}:control ring ann x y",
    "FCALL lead 1 fs:{fs:sales}:lease ledger 60000",
];

/// Data of a sale that orders do not need.
const READS_BEYOND_ORDERS: [&str; 4] = [
    "HGETALL fs:{flash}:mint",
    "GET fs:{flash}:snapshot",
    "GET fs:{fs:sales}:secret",
    "GET fs:{fs:sales}:lease",
];

#[tokio::test]
async fn ledger_may_read_orders_and_write_only_its_presence() {
    assert_forbidden(User::Ledger, DANGEROUS).await;
    assert_forbidden(User::Ledger, ["FUNCTION LOAD x"]).await;
    assert_forbidden(User::Ledger, WRITES_OF_A_SALE).await;
    assert_forbidden(User::Ledger, READS_BEYOND_ORDERS).await;
    let needed = [
        "TIME",
        "INFO replication",
        "CLUSTER NODES",
        "FUNCTION LIST",
        "WAIT 0 1",
        "SMEMBERS fs:sales",
        "HGETALL fs:{fs:sales}:presence",
        "GET fs:{flash}:config",
        "LRANGE fs:{flash}:history 0 -1",
        "HMGET fs:{flash.0}:meta sold seq ring",
        "HMGET fs:{flash.0}:claims ann",
        "XRANGE fs:{flash.0}:orders - + COUNT 1",
    ];
    assert_permitted(User::Ledger, needed).await;
}

#[tokio::test]
async fn exporter_may_only_read_metrics() {
    assert_forbidden(User::Exporter, DANGEROUS).await;
    assert_forbidden(User::Exporter, WRITES_AND_CLAIMS).await;
    assert_permitted(User::Exporter, ["INFO all", "CLUSTER INFO", "SLOWLOG LEN"]).await;
}

#[tokio::test]
async fn replica_may_only_replicate_and_hand_over() {
    let is_denied = |command: &&str| !command.starts_with("PSYNC") && *command != "CLUSTER FAILOVER";
    assert_forbidden(User::Replica, DANGEROUS.into_iter().filter(is_denied)).await;
    assert_forbidden(User::Replica, WRITES_AND_CLAIMS).await;
    assert_permitted(User::Replica, ["INFO replication", "ROLE", "CLUSTER NODES"]).await;
}

#[tokio::test]
async fn unauthenticated_client_is_denied_everything() {
    let redis = shared_redis().await;
    let mut unauthenticated = redis.unauthenticated_connection(redis.primaries().await[0]).await.unwrap();
    let harmless = ["PING", "INFO", "TIME", "CLUSTER NODES"];
    for command in DANGEROUS.into_iter().chain(WRITES_AND_CLAIMS).chain(harmless) {
        let refusal = run_command(&mut unauthenticated, command).await.unwrap_err();
        assert!(is_refused(&refusal, "NOAUTH"), "{command}: {refusal}");
    }
    // The default user has all permissions, because a server loads its own file as that user. No client may log in as
    // it.
    for login in ["AUTH default x", "AUTH x", "HELLO 3 AUTH default x"] {
        let refusal = run_command(&mut unauthenticated, login).await.unwrap_err();
        assert!(refusal.starts_with("WRONGPASS"), "{login}: {refusal}");
    }
}

#[tokio::test]
async fn operator_may_run_every_command() {
    let commands = ["CONFIG GET maxmemory", "ACL LIST", "FUNCTION LIST", "CLUSTER NODES"];
    assert_permitted(User::Admin, commands).await;
}

async fn assert_forbidden(user: User, commands: impl IntoIterator<Item = &'static str>) {
    let redis = shared_redis().await;
    let mut connection = connected(redis, user).await;
    for command in commands {
        let refusal = run_command(&mut connection, command).await.expect_err(command);
        assert!(is_refused(&refusal, "NOPERM"), "{user:?} {command}: {refusal}");
    }
}

/// The server rejects DEBUG before it checks the login, so it answers with another error.
fn is_refused(refusal: &str, code: &str) -> bool {
    refusal.starts_with(code) || refusal.starts_with("ERR DEBUG command not allowed")
}

async fn assert_permitted(user: User, commands: impl IntoIterator<Item = &'static str>) {
    let redis = shared_redis().await;
    let mut connection = connected(redis, user).await;
    for command in commands {
        // A redirection to another server is not a refusal.
        let refusal = run_command(&mut connection, command).await.err();
        assert!(refusal.iter().all(|error| error.starts_with("MOVED")), "{command}: {refusal:?}");
    }
}

async fn connected(redis: &RedisCluster, user: User) -> MultiplexedConnection {
    redis.connection_as(user, redis.primaries().await[0]).await.unwrap()
}

/// Returns the answer, or the code and the details of the refusal.
async fn run_command(connection: &mut MultiplexedConnection, command: &str) -> Result<Value, String> {
    let mut words = command.split(' ');
    let mut cmd = redis::cmd(words.next().unwrap());
    // A script is a single argument, and it has no keys.
    if command.starts_with("EVAL ") || command.starts_with("EVAL_RO ") {
        cmd.arg(command.split_once(' ').unwrap().1).arg(0);
    } else {
        words.for_each(|word| _ = cmd.arg(word));
    }
    match connection.send_packed_command(&cmd).await {
        Ok(Value::ServerError(error)) => Err(format!("{} {}", error.code(), error.details().unwrap_or(""))),
        Ok(value) => Ok(value),
        Err(error) => Err(error.to_string()),
    }
}
